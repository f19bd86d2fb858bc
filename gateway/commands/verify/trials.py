"""The ways around the tunnel, each by its name.

What gets out of them goes to addresses that are reserved for documentation, to a resolver on the
link, or to the server that the user named. Never to anybody else.
"""

import socket
from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import ip_address

from gateway.commands.verify.attempts import (
    DISCARD,
    DNS_PORT,
    Attempt,
    Datagram,
    Options,
    by_queue,
    dns,
    forged,
    framed,
    raw,
    tcp,
    udp,
)
from gateway.model import Address, Endpoint, Tunnel
from gateway.model.frozen import frozen
from gateway.policy import marks
from gateway.policy.facts import Facts, Uplink
from gateway.policy.firewall import DOCKER_RESOLVER
from gateway.policy.routing import DEFAULTS, reply_mark
from gateway.policy.ways import uplink_to

TARGETS: dict[int, Address] = {
    4: ip_address("203.0.113.77"),
    6: ip_address("2001:db8:ffff::77"),
}
"""Addresses that no host has (RFC 5737, RFC 3849)."""

NO_ADDRESS: dict[int, Address] = {4: ip_address("0.0.0.0"), 6: ip_address("fe80::1")}  # noqa: S104
"""The source of a forged frame on an uplink without an address of the family."""

TRANSPORTS = {"UDP": socket.SOCK_DGRAM, "TCP": socket.SOCK_STREAM}


@frozen
class Trial:
    """One way to send a packet; `run` returns the result in one word.

    `is_shown` is False if a witness cannot see the packet, so that only the kernel's refusal
    counts. An answer is a leak in any case. `is_raw` says that it takes CAP_NET_RAW.
    """

    name: str
    run: Attempt
    is_shown: bool = True
    is_raw: bool = False


def trials(
    facts: Facts, tunnel: Tunnel | None, resolvers: Mapping[Address, str]
) -> Iterator[Trial]:
    """Yield every way around the tunnel of a namespace like `facts`.

    `tunnel` is the connected one with the addresses of its endpoints and its real mark, None if
    there is none. `resolvers` are those `on_a_link`.
    """
    for version, target in TARGETS.items():
        for uplink in facts.uplinks:
            yield from _bound(version, target, uplink)
        yield from _marked(version, target, facts, tunnel)
        yield Trial(f"IPv{version} raw, protocol 253", raw(target), is_raw=True)
    for uplink in facts.uplinks:
        yield from _framed(uplink)
    if tunnel is not None:
        for endpoint in tunnel.endpoints:
            yield from _like_the_flow(endpoint, facts, tunnel)
    yield from _names(resolvers)


def ordinary() -> Iterator[Trial]:
    """Yield what an ordinary application does."""
    for version, target in TARGETS.items():
        yield Trial(f"IPv{version} UDP", udp(target))


def quick(facts: Facts) -> Iterator[Trial]:
    """Yield the ways that take no time and that a witness sees, to be tried again and again."""
    yield from ordinary()
    for uplink in facts.uplinks:
        for version, target in TARGETS.items():
            name = f"IPv{version} bound to {uplink.name}"
            yield Trial(f"{name}, UDP", udp(target, Options(device=uplink.name)))
        yield from (trial for trial in _framed(uplink) if trial.is_shown)


def _bound(version: int, target: Address, uplink: Uplink) -> Iterator[Trial]:
    name, bound = f"IPv{version} bound to {uplink.name}", Options(device=uplink.name)
    yield Trial(f"{name}, UDP", udp(target, bound))
    yield Trial(f"{name}, TCP", tcp(target, bound))
    yield Trial(f"{name}, DNS", udp(target, bound, DNS_PORT))
    yield Trial(f"{name}, raw", raw(target, bound), is_raw=True)
    for address in uplink.addresses:
        if address.version == version:
            source = str(address.ip)
            yield Trial(f"IPv{version} from {source}", udp(target, Options(source=source)))


def _marked(version: int, target: Address, facts: Facts, tunnel: Tunnel | None) -> Iterator[Trial]:
    """Yield packets with a mark that means something, and packets from the tunnel's port."""
    named = {
        reply_mark(uplink): f"the mark of answers by {uplink.name}" for uplink in facts.uplinks
    }
    mark = tunnel.fwmark if tunnel else marks.SHOWN
    named |= {mark: "the mark of the encrypted flow"}
    named |= {marks.shown(mark): "the mark that ip rule shows"}
    for number, name in named.items():
        yield Trial(f"IPv{version} with {name}", udp(target, Options(mark=number)))
        for uplink in facts.uplinks:
            bound = Options(device=uplink.name, mark=number)
            yield Trial(f"IPv{version} bound to {uplink.name} with {name}", udp(target, bound))
    if tunnel is not None:
        port = Options(source_port=tunnel.listen_port)
        yield Trial(f"IPv{version} from the tunnel's port", udp(target, port))


def _framed(uplink: Uplink) -> Iterator[Trial]:
    for version, target in TARGETS.items():
        datagram = Datagram(_own(uplink, version), target)
        name = f"IPv{version} by a packet socket on {uplink.name}"
        yield Trial(name, framed(datagram, uplink.name), is_raw=True)
        unseen = framed(datagram, uplink.name, bypass=True)
        yield Trial(f"{name}, without queue", unseen, is_shown=False, is_raw=True)
    by_xdp = f"by an AF_XDP socket on {uplink.name}"
    yield Trial(by_xdp, by_queue(uplink.name), is_shown=False, is_raw=True)


def _like_the_flow(endpoint: Endpoint, facts: Facts, tunnel: Tunnel) -> Iterator[Trial]:
    """Yield packets that have a part of what identifies the encrypted flow, never all of it."""
    server, uplink = endpoint.address, uplink_to(endpoint.address, facts)
    if uplink is None:
        return
    mark, bound = tunnel.fwmark, Options(device=uplink.name)
    marked = Options(device=uplink.name, mark=mark)
    shown = Options(device=uplink.name, mark=marks.shown(mark))
    own, here = _own(uplink, server.version), tunnel.listen_port
    flow = Datagram(own, server, here, endpoint.port)
    elsewhere = Datagram(own, TARGETS[server.version], here, endpoint.port)
    name = f"to the server {endpoint}"
    yield Trial(f"{name}, bound to {uplink.name}", udp(server, bound, endpoint.port))
    yield Trial(f"{name}, marked, from another port", udp(server, marked, endpoint.port))
    yield Trial(f"{name}, marked, protocol 253", raw(server, marked), is_raw=True)
    yield Trial(f"{name}, from the tunnel's port, unmarked", forged(flow, bound), is_raw=True)
    if shown != marked:
        way = f"{name}, from the tunnel's port, with the mark that ip rule shows"
        yield Trial(way, forged(flow, shown), is_raw=True)
    other_port = Datagram(own, server, here, DISCARD)
    way = f"{name}, marked, from the tunnel's port, to port 9"
    yield Trial(way, forged(other_port, marked), is_raw=True)
    way = f"marked and by the ports of {endpoint}, elsewhere"
    yield Trial(way, forged(elsewhere, marked), is_raw=True)
    passed = facts.guard_mark or 0
    yield Trial(
        f"{name}, by a packet socket{', with the mark of what passed' if passed else ''}",
        framed(flow, uplink.name, mark=passed),
        is_raw=True,
    )


def _names(resolvers: Mapping[Address, str]) -> Iterator[Trial]:
    docker = DOCKER_RESOLVER.network_address
    for transport, kind in TRANSPORTS.items():
        # Docker asks from another namespace, so that no witness here sees it.
        yield Trial(f"DNS over {transport} at {docker}", dns(docker, kind), is_shown=False)
    for resolver, uplink in resolvers.items():
        for transport, kind in TRANSPORTS.items():
            # Bound, because the same address may be asked in the tunnel: it is another host there.
            attempt = dns(resolver, kind, Options(device=uplink))
            yield Trial(f"DNS over {transport} at {resolver} by {uplink}", attempt)


def on_a_link(
    facts: Facts, resolvers: Iterable[Address], allowed: Collection[Address]
) -> dict[Address, str]:
    """Return those of `resolvers` that are on the link of an uplink, with its name.

    Routers are often resolvers too. A resolver that is farther away is a third party that the user
    has not named, and the `allowed` ones may be asked.
    """
    defaults = DEFAULTS.values()
    routers = [r.gateway for r in facts.routes if r.gateway and r.destination in defaults]
    return {
        resolver: uplink.name
        for uplink in facts.uplinks
        for resolver in (*resolvers, *routers)
        if resolver not in allowed
        and any(resolver in address.network for address in uplink.addresses)
    }


def _own(uplink: Uplink, version: int) -> Address:
    """Return the address of `uplink` that a packet of IP `version` would come from."""
    own = (address.ip for address in uplink.addresses if address.version == version)
    return next(own, NO_ADDRESS[version])
