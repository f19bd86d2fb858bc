"""The configuration of unbound, which is the gateway's own resolver: a value, and its text.

Every line is from unbound.conf(5). It forwards all questions and decides nothing: which resolvers
it asks is a parameter, and what may leave is the firewall's decision.
"""

from collections.abc import Iterator

from gateway.model import Address
from gateway.model.frozen import frozen
from gateway.model.name_server import BlockFile, HostName, LocalZone, Upstream
from gateway.policy.blocked import ZONE
from gateway.policy.upstreams import OURS, REDIRECTED

PORT = 53

CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
"""The authorities of the system (package ca-certificates)."""

ROOT_KEYS = "/usr/share/dns/root.key"
"""The keys of the root (package dns-root-data)."""

PRIVATE = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "::/128",
    "::1/128",
    "::ffff:0:0/96",
    "fc00::/7",
    "fe80::/10",
)
"""What no public name should lead to (RFC 6890): with such an answer, a page of
another site could reach a workload or a neighbour in the name of its own."""

MOST_QUESTIONS = 512
"""Questions that wait for an upstream at once; then the oldest give way."""
MOST_STREAMS = 64
"""Connections of workloads at once, and as many to upstreams."""
CACHE = 4
"""MiB for messages, and twice as many for records."""
HOST_TTL = 60
"""Seconds for which workloads may keep what `hosts` says."""
STALE_AFTER = 1800
"""Milliseconds until an expired answer is given while the upstream does not answer: a resolver
library tries again after five seconds (RFC 8767, section 5)."""
STALE_FOR = 86400
"""Seconds for which an expired answer may be given."""


@frozen
class Unbound:
    """What unbound does: which resolvers it asks, and where it finds and makes its files.

    `control` is the path of the socket that takes commands. `certificates` has the authorities
    that upstreams over TLS are checked against. `exempt`, `caching` and `local` as in `NameServer`.
    It answers for `hosts` by itself. `zone` is the file of the rules that are made of `blocks`,
    empty for none. `anchor` has the keys of the root, which answers are checked with; empty for no
    check. `redirected` are the loopback addresses at which redirected questions arrive, from any
    address of the namespace.
    """

    upstreams: tuple[Upstream, ...]
    control: str
    certificates: str = CERTIFICATES
    exempt: tuple[str, ...] = ()
    caching: bool = True
    local: tuple[LocalZone, ...] = ()
    hosts: tuple[HostName, ...] = ()
    blocks: tuple[BlockFile, ...] = ()
    zone: str = ""
    anchor: str = ""
    redirected: tuple[Address, ...] = ()


def configuration(wanted: Unbound) -> str:
    """Return the text of unbound.conf(5) for `wanted`.

    Raises ValueError for what would not stay one word of the text, and for upstreams of which
    only some are asked over TLS.
    """
    lines = ["server:", *_server(wanted)]
    lines += ["remote-control:", "control-enable: yes", "control-use-cert: no"]
    lines += [f"control-interface: {_word(wanted.control)}", *_forward(wanted.upstreams)]
    if wanted.zone:
        lines += ["rpz:", f"name: {_word(f'{ZONE}.')}", f"zonefile: {_word(wanted.zone)}"]
    for zone in wanted.local:
        lines += ["forward-zone:", f"name: {_word(zone.domain)}"]
        lines += [f"forward-addr: {_word(f'{it}@{PORT}')}" for it in zone.resolvers]
    return "".join(f"{line}\n" if line.endswith(":") else f"    {line}\n" for line in lines)


def _server(wanted: Unbound) -> Iterator[str]:
    """Yield what concerns the server itself."""
    # In the foreground, as the user that starts it, without a file of its own. Verbosity 0 keeps
    # names out of the log.
    yield from ('username: ""', 'chroot: ""', 'directory: ""', 'pidfile: ""', 'logfile: ""')
    yield from ("do-daemonize: no", "use-syslog: no", "verbosity: 0", "num-threads: 1")
    yield "so-reuseport: no"  # else another process of its user could listen there, too
    yield f"interface: {OURS}@{PORT}"
    yield from (f"interface: {address}@{REDIRECTED}" for address in wanted.redirected)
    # Loopback is out of reach for others, so who reaches it is in this namespace.
    allowed = ("0.0.0.0/0", "::/0") if wanted.redirected else ("127.0.0.0/8",)
    yield from (f"access-control: {network} allow" for network in allowed)
    asked = {it.address for it in wanted.upstreams}.union(*(it.resolvers for it in wanted.local))
    has_ipv6 = any(it.version == 6 for it in asked.union(wanted.redirected))  # noqa: PLR2004
    modules = f"{'respip ' if wanted.zone else ''}{'validator ' if wanted.anchor else ''}iterator"
    yield from ("do-ip4: yes", f"do-ip6: {_switch(has_ipv6)}", f"module-config: {_word(modules)}")
    yield from (
        f"outgoing-range: {2 * MOST_QUESTIONS}",
        f"num-queries-per-thread: {MOST_QUESTIONS}",
    )
    yield from (f"incoming-num-tcp: {MOST_STREAMS}", f"outgoing-num-tcp: {MOST_STREAMS}")
    yield from ("hide-identity: yes", "hide-version: yes", "minimal-responses: yes")
    yield from ("edns-buffer-size: 1232", f"tls-cert-bundle: {_word(wanted.certificates)}")
    if wanted.anchor:
        yield f"trust-anchor-file: {_word(wanted.anchor)}"
    if wanted.caching:
        yield from (f"msg-cache-size: {CACHE}m", f"rrset-cache-size: {2 * CACHE}m")
        yield from ("serve-expired: yes", f"serve-expired-client-timeout: {STALE_AFTER}")
        yield from (f"serve-expired-ttl: {STALE_FOR}", "prefetch: yes")
    else:
        yield from ("msg-cache-size: 0", "rrset-cache-size: 0", "cache-max-ttl: 0")
    if not wanted.upstreams:  # else it would ask the servers of the root
        yield 'local-zone: "." refuse'
    for network in PRIVATE:
        yield f"private-address: {network}"
    for domain in (*wanted.exempt, *(zone.domain for zone in wanted.local)):
        yield f"private-domain: {_word(domain)}"
    for name, address in ((name, it) for name, several in wanted.hosts for it in several):
        kind = "A" if address.version == 4 else "AAAA"  # noqa: PLR2004
        yield f"local-data: {_word(f'{name}. {HOST_TTL} IN {kind} {address}')}"
    for zone in wanted.local:  # for some domains unbound has an empty zone of its own
        yield f"local-zone: {_word(zone.domain)} transparent"
        yield f"domain-insecure: {_word(zone.domain)}"


def _forward(upstreams: tuple[Upstream, ...]) -> Iterator[str]:
    """Yield the zone that forwards everything."""
    if not upstreams:
        return
    encrypted = bool(upstreams[0].name)
    yield from ("forward-zone:", 'name: "."', f"forward-tls-upstream: {_switch(encrypted)}")
    for it in upstreams:
        if bool(it.name) is not encrypted:
            raise ValueError(f"over TLS or not, but not both: {upstreams}")
        name = f"#{it.name}" if it.name else ""
        yield f"forward-addr: {_word(f'{it.address}@{it.port}{name}')}"


def _word(text: str) -> str:
    """Return `text` in quotes. Raises ValueError if it would not stay one word."""
    if '"' in text or not text.isascii() or not text.isprintable():
        raise ValueError(f"not a word of unbound.conf: {text!r}")
    return f'"{text}"'


def _switch(on: object) -> str:
    return "yes" if on else "no"
