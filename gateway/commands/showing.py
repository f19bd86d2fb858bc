"""The status as lines for a person: plain words, and each figure with its unit.

Any workload may have given the answer, so a field may be of any type, and no text is trusted. What
this imports is limited: see `gateway.commands.asking`.
"""

from collections.abc import Iterable, Iterator, Mapping

from gateway.commands.asking import listed, mapping, visible

NONE = "-"
WIDTH = 16
"""Columns of the names."""

MINUTE, HOUR, DAY = 60, 3600, 86400
UNITS = ((DAY, "d", HOUR, "h"), (HOUR, "h", MINUTE, "min"), (MINUTE, "min", 1, "s"))
LONGEST = 1e10
"""Seconds; and a figure above that is not one of ours, and is shown as it came."""
FINE, COARSE = 1.0, 10.0
"""Seconds below which a time is shown in milliseconds, and with one decimal."""
KILO = 1000
SIZES = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")

HOLES = {"lan": "LAN subnets", "input_ports": "input ports", "tunnel_ports": "ports in the tunnel"}
ANSWERS = "server_answers"

Row = tuple[str, list[str]]


def lines(answered: Mapping[str, object]) -> list[str]:
    """Return the status as lines; a field that is not known here comes last, as it is."""
    left = dict(answered)
    rows = [*_tunnel(left), *_counted(left), *_configured(left)]
    rows += [(_words(name), _as_it_is(value)) for name, value in left.items()]
    return [
        f"{'' if number else visible(name):{WIDTH}} {text}"
        for name, texts in rows
        for number, text in enumerate(texts)
    ]


def _tunnel(left: dict[str, object]) -> Iterator[Row]:
    """Yield what is said of the tunnel, and take it out of `left`."""
    yield "state", [f"{shown(left.pop('state', None))} for {seconds(left.pop('state_age', None))}"]
    yield "healthy", [shown(left.pop("healthy", None))]
    code = left.pop("reason_code", None)
    named = f" [{shown(code)}]" if code else ""
    yield "reason", [f"{shown(left.pop('reason', None))}{named}"]
    for name in ("detail", "remedy", "diagnosis"):
        if text := left.pop(name, None):
            yield name, [shown(text)]
    if failed := left.pop("attempts", None):
        yield "attempts", [f"{shown(failed)} failed, one after the other"]
    yield "server", [shown(left.pop("endpoint", None))]
    if port := left.pop("listen_port", None):
        yield "listen port", [f"{shown(port)}/udp"]
    yield "last handshake", [ago(left.pop("handshake_age", None), "none yet")]
    yield "received", [size(left.pop("received", None))]
    yield "sent", [size(left.pop("sent", None))]
    yield "addresses", [joined(left.pop("addresses", None))]
    mtu, path = left.pop("mtu", None), left.pop("path_mtu", None)
    arrives = "" if path is None else f"; packets of {size(path)} arrive"
    yield "MTU", [NONE if mtu is None else f"{size(mtu)}{arrives}"]
    left.pop("endpoints", None)  # the same again, for programs


def _counted(left: dict[str, object]) -> Iterator[Row]:
    """Yield what is said of the kernel and what was counted, and take it out of `left`."""
    guard = "with" if left.pop("guard", None) is True else "without"
    yield "firewall", [f"{shown(left.pop('firewall', None))}, {guard} the egress guard"]
    yield "WireGuard", [shown(left.pop("tunnel", None))]
    yield "kernel compared", [ago(left.pop("verified_age", None), "not yet")]
    yield "drift", [f"{shown(left.pop('drift', None))} changes by other programs reverted"]
    yield "lost tunnels", [counts(left.pop("reconnects", None), "none")]
    yield "other server", [f"chosen {shown(left.pop('switches', None))} times"]
    yield "refused packets", [counts(left.pop("refused", None), "not counted yet")]


def _configured(left: dict[str, object]) -> Iterator[Row]:
    """Yield what follows from the configuration and the machine, and take it out of `left`."""
    holes = [_hole(mapping(it)) for it in listed(left.pop("holes", None))]
    if holes:
        yield "open", holes
    resolver = mapping(left.pop("resolver", None))
    if resolver:
        yield "resolver", list(_resolver(resolver))
    if address := mapping(left.pop("public_ip", None)):
        yield "public address", list(_public(address))
    if ports := [_forwarded(mapping(it)) for it in listed(left.pop("forwarded_ports", None))]:
        yield "forwarded ports", ports
    for it in map(mapping, listed(left.pop("services", None))):
        yield shown(it.get("name")), _service(it)
    if found := mapping(left.pop("reload", None)):
        when = f"{shown(found.get('outcome'))} {ago(found.get('age'), '')}"
        yield "last reload", [when, *of_reload(found)]
    if counted := left.pop("reloads", None):
        yield "reloads", [counts(counted, NONE)]
    limits = [_limit(it) for it in listed(left.pop("limits", None))]
    yield "limits", limits or ["none"]
    yield "version", [shown(left.pop("version", None))]
    candidates = [_candidate(mapping(it)) for it in listed(left.pop("candidates", None))]
    number = shown(left.pop("candidate_count", None))
    last = "tried last:" if candidates else "none was tried yet"
    yield "servers", [f"{number} in the configuration; {last}", *candidates]


def _candidate(it: Mapping[str, object]) -> str:
    """Return the last attempt with a server as a line."""
    code, took, latency = (it.get(k) for k in ("result", "handshake_seconds", "latency_seconds"))
    result = f"handshake after {seconds(took)}" if code == ANSWERS else _words(str(code))
    name = f" ({shown(it['name'])})" if it.get("name") else ""
    compared = "" if latency is None else f", latency {seconds(latency)}"
    when = f"{ago(it.get('age'), NONE)}{compared}"
    return f"{shown(it.get('endpoint'))}{name}: {visible(result)}, {when}"


def _hole(it: Mapping[str, object]) -> str:
    """Return a kind of hole as a line: what the configuration lists, and whether it is open."""
    kind, entries = str(it.get("kind")), listed(it.get("listed"))
    if not entries:
        return f"{visible(HOLES.get(kind, _words(kind)))}: none listed"
    now = "open" if it.get("is_open") is True else "closed now"
    return f"{visible(HOLES.get(kind, _words(kind)))}: {joined(entries)} ({now})"


def _forwarded(it: Mapping[str, object]) -> str:
    """Return a port that the server forwards as a line."""
    here = f", arrives at {shown(it.get('listening'))}"
    moved = here if it.get("listening") != it.get("port") else ""
    ways = "/".join(map(shown, listed(it.get("protocols"))))
    return f"{shown(it.get('port'))} {ways}{moved}, for {seconds(it.get('seconds'))}"


def _public(it: Mapping[str, object]) -> Iterator[str]:
    """Yield what is said of the address that hosts on the internet see."""
    yield shown(it.get("address"))
    named = ("city", "region", "country", "hostname", "organization", "timezone")
    if said := dict.fromkeys(str(it[name]) for name in named if it.get(name)):
        yield visible(", ".join(said))


def _service(it: Mapping[str, object]) -> list[str]:
    """Return what is said of an optional service, a line for each."""
    now = "works" if it.get("is_running") is True else "does not work"
    said = f": {shown(it['text'])}" if it.get("text") else ""
    problem = [visible(f"{it['problem']}; {it.get('remedy')}")] if it.get("problem") else []
    return [f"{now}{said}", *problem]


def _resolver(it: Mapping[str, object]) -> Iterator[str]:
    """Yield what is said of the gateway's own resolver."""
    if problem := it.get("problem"):
        yield visible(f"{problem}; {it.get('remedy')}")
    yield visible(f"asks {it.get('asks')}")
    yield f"questions: {counts(it.get('questions'), 'none')}"
    if blocks := it.get("blocks"):
        yield f"blocks {shown(blocks)} names"
    for one in map(mapping, listed(it.get("lists"))):
        copy = f"{shown(one.get('names'))} names, fetched {ago(one.get('age'), NONE)}"
        failed = f"; not fetched: {problem}" if (problem := one.get("problem")) else ""
        said = "no copy" if one.get("age") is None else copy
        yield visible(f"blocks {one.get('url')}: {said}{failed}")


def of_reload(found: Mapping[str, object]) -> list[str]:
    """Return what an answer says about the last reading of the configuration, a line for each."""
    said = [
        f"{words}: {joined(names)}"
        for name, words in (("changed", "changed"), ("needs_restart", "needs a restart"))
        if (names := found.get(name))
    ]
    problems = [it for it in listed(found.get("problems")) if isinstance(it, dict)]
    for it in problems:
        named = (str(it[key]) for key in ("variable", "problem") if it.get(key))
        said.append(visible(": ".join(named)))
    number = found.get("found")
    if isinstance(number, int) and number > len(problems):
        said.append(f"and {number - len(problems)} more, which the log has")
    return said


def _limit(it: object) -> str:
    """Return a limit as text, remedy and code; anything else as it is."""
    match it:
        case {"code": code, "text": text, "remedy": remedy}:
            return visible(f"{text}; {remedy} [{code}]")
        case _:
            return shown(it)


def _as_it_is(value: object) -> list[str]:
    if isinstance(value, list) and value:
        return [shown(it) for it in value]
    return [counts(value, NONE) if isinstance(value, dict) else shown(value)]


def _words(code: str) -> str:
    return code.replace("_", " ")


# -- values ---------------------------------------------------------------------------------------


def shown(value: object) -> str:
    """Return a value of the answer as text that is safe for a terminal."""
    match value:
        case None | "" | []:
            return NONE
        case bool():
            return "yes" if value else "no"
        case _:
            return visible(str(value))


def joined(values: object) -> str:
    """Return the texts of a list in one line."""
    found: Iterable[object] = values if isinstance(values, list) else [values]
    return ", ".join(map(shown, found)) or NONE


def counts(value: object, none: str) -> str:
    """Return numbers by name in one line, `none` where there are none."""
    found = mapping(value)
    return ", ".join(visible(f"{name}: {number}") for name, number in found.items()) or none


def seconds(value: object) -> str:
    """Return a time in seconds in the units that people use."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < LONGEST:
        return shown(value)
    for large, name, small, rest in UNITS:
        if value >= large:
            return f"{value // large:.0f} {name} {value % large // small:.0f} {rest}"
    if value < FINE:
        return f"{value * 1000:.0f} ms"
    return f"{value:.{1 if value < COARSE else 0}f} s"


def ago(value: object, none: str) -> str:
    """Return how long ago something was, or `none` where it never was."""
    return none if value is None else f"{seconds(value)} ago"


def size(value: object) -> str:
    """Return a number of bytes in the units that people use, of a thousand each."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < KILO**7:
        return shown(value)
    if value < 10 * KILO:
        return f"{value} bytes"
    amount, unit = float(value), 0
    while amount >= KILO:
        amount, unit = amount / KILO, unit + 1
    return f"{amount:.1f} {SIZES[unit]}"
