"""Lines of the log for people: time and level first, then the event as a sentence.

An event keeps its name in the JSON form, where programs read it. Here only the words count: those
that a person meets at every start have a sentence of their own, all others are made of their name
and their fields.
"""

from collections.abc import Callable, Mapping
from typing import Any

Fields = Mapping[str, Any]

LEVEL_WIDTH = 7
SHOWN_LAST = ("problem", "detail", "remedy", "exception")
"""Fields that are sentences themselves, in this order after all others."""


def render(_logger: object, _method: str, event: Mapping[str, Any]) -> str:
    """Return the line of `event`, as a processor of structlog; a traceback follows it."""
    fields = dict(event)
    name = str(fields.pop("event", ""))
    time = str(fields.pop("timestamp", ""))[:19].replace("T", " ")
    level = str(fields.pop("level", "")).ljust(LEVEL_WIDTH)
    traceback = fields.pop("exception", "")
    lines = [f"{time} {level} {sentence(name, fields)}", *str(traceback).splitlines()]
    return "\n".join(map(_printable, lines))


def sentence(name: str, fields: Fields) -> str:
    """Return the event `name` with its `fields` as one line of text."""
    form = SENTENCES.get(name)
    text = form(fields) if form else _plain(name, fields)
    return " ".join(text.split("\n"))


def _printable(text: str) -> str:
    """Return `text` with control characters escaped: a name or an output could steer a terminal."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in text
    )


def _plain(name: str, fields: Fields) -> str:
    """Return the name, the fields in brackets, and those that are sentences after that."""
    others = [
        f"{key.replace('_', ' ')}: {_value(value)}"
        for key, value in fields.items()
        if key not in SHOWN_LAST and _value(value)
    ]
    said = [text for key in SHOWN_LAST if (text := _value(fields.get(key)))]
    return "; ".join([name + (f" ({', '.join(others)})" if others else ""), *said])


def _value(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    if isinstance(value, float):
        return f"{value:.3g}"
    return "" if value is None else str(value)


def _seconds(value: object) -> str:
    return f"{value:.1f} s" if isinstance(value, int | float) else f"{value} s"


def _state_changed(fields: Fields) -> str:
    old, new = fields.get("old"), fields.get("new")
    where, detail = _value(fields.get("endpoint")), _value(fields.get("detail"))
    why = _value(fields.get("reason")).replace("_", " ")
    doing = {
        "connecting": f"connecting to {where}",
        "resolving": f"looking up {where}",
        "fetching": f"fetching the list of servers from {where}",
        "locked": "closed",
        "paused": "paused: the tunnel is closed until it is resumed",
        "stopping": "stopping",
    }.get(str(new), str(new))
    if new == "connected":
        text = f"connected to {where} after {_seconds(fields.get('seconds'))}"
        return text if old != "connected" else f"connected to {where}: {why}"
    if str(new) in {"stopping", "paused"} or why in {"starting", "no handshake"}:
        return doing
    lost = "the tunnel is down" if old == "connected" else doing
    text = f"{lost} ({why})"
    return "; ".join([text, *([doing] if lost != doing else []), *([detail] if detail else [])])


def _about_variable(key: str) -> Callable[[Fields], str]:
    def text(fields: Fields) -> str:
        said = (_value(fields.get(name)) for name in ("variable", key))
        return ": ".join(filter(None, said))

    return text


def _limit(fields: Fields) -> str:
    return f"{_value(fields.get('limit'))}; {_value(fields.get('remedy'))}"


def _locked(fields: Fields) -> str:
    return f"closed: nothing passes until there is a tunnel ({_value(fields.get('firewall'))})"


def _no_handshake(fields: Fields) -> str:
    return f"no handshake after {fields.get('attempts')} attempts: {_value(fields.get('detail'))}"


def _reread(fields: Fields) -> str:
    parts = [f"configuration read again: {_value(fields.get('outcome'))}"]
    for key, words in (("changed", "changed"), ("needs_restart", "needs a restart")):
        if found := _value(fields.get(key)):
            parts.append(f"{words}: {found}")
    if problem := _value(fields.get("problem")):
        parts.append(problem)
    return "; ".join(parts)


def _output(fields: Fields) -> str:
    return f"{_value(fields.get('variable'))}: {_value(fields.get('line'))}"


def _open(fields: Fields) -> str:
    kind, mtu = _value(fields.get("implementation")), _value(fields.get("mtu"))
    parts = [f"open: tunnel {_value(fields.get('addresses'))} ({kind}, MTU {mtu})"]
    for key, words in (
        ("resolvers", "resolvers"),
        ("lan", "LAN subnets"),
        ("input_ports", "input ports"),
        ("tunnel_ports", "ports in the tunnel"),
    ):
        parts.append(f"{words}: {_value(fields.get(key)) or 'none'}")
    return "; ".join(parts)


def _starting(fields: Fields) -> str:
    commit = _value(fields.get("commit"))
    return f"portcullis {_value(fields.get('version'))}" + (f" ({commit})" if commit else "")


SENTENCES: dict[str, Callable[[Fields], str]] = {
    "state changed": _state_changed,
    "locked": _locked,
    "starting": _starting,
    "open": _open,
    "no handshake": _no_handshake,
    "configuration notice": _about_variable("notice"),
    "invalid configuration": _about_variable("problem"),
    "configuration read again": _reread,
    "reduced protection on this host": _limit,
    "command output": _output,
}
