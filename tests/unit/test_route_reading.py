"""Routes read from their bytes: what pyroute2 writes comes back, and a flood of them is bounded."""

import random
import struct
import tracemalloc
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from gateway.errors import NetworkError
from gateway.policy.facts import Route
from gateway.policy.routing import (
    METRIC_END,
    TABLE_MAIN,
)
from gateway.policy.tables import TABLE_TUNNEL
from gateway.system.conntrack import identity
from gateway.system.netlink import HEADER, attributes_in, message, messages_in
from gateway.system.route_messages import (
    RTN_UNICAST,
    RTN_UNREACHABLE,
    KernelRoute,
    route_message,
)
from gateway.system.route_reading import (
    MOST_ROUTERS,
    MOST_ROUTES,
    main_table,
    routes_in,
    table_of,
)

AF_INET, AF_INET6 = 2, 10
RTPROT_KERNEL, RTPROT_STATIC, RTPROT_RA = 2, 4, 9
NAMES = {2: "eth0", 3: "eth1"}


def body_of(request: Any) -> bytes:
    """Return the bytes of a message behind its header."""
    request.reset()
    request.encode()
    return bytes(request.data[HEADER.size :])


def listed(
    destination: str, *, expires: int = 0, proto: int = RTPROT_KERNEL, **changes: Any
) -> bytes:
    """Return the message of a route of the main table by eth0, as the kernel writes it."""
    network = ip_network(destination)
    attributes = {
        "RTA_TABLE": TABLE_MAIN,
        "RTA_DST": str(network.network_address),
        "RTA_PRIORITY": 256,
        "RTA_OIF": 2,
        "RTA_CACHEINFO": {"rta_expires": expires},
        **changes,
    }
    fields = {
        "family": AF_INET6 if network.version == 6 else AF_INET,
        "dst_len": network.prefixlen,
        "table": TABLE_MAIN,
        "proto": proto,
        "type": RTN_UNICAST,
    }
    return body_of(message(rtmsg, fields, list(attributes.items())))


OWN = ip_address("172.50.0.2")
ROUTES = [
    KernelRoute(ip_network("0.0.0.0/0"), TABLE_TUNNEL, METRIC_END, RTN_UNREACHABLE, None, None),
    KernelRoute(ip_network("::/0"), TABLE_TUNNEL, 1024, RTN_UNICAST, 7, None),
    KernelRoute(ip_network("10.1.0.0/16"), 77, 0, RTN_UNICAST, 2, ip_address("172.18.0.1")),
    KernelRoute(ip_network("172.50.0.0/16"), 77, 0, RTN_UNICAST, 2, None, source=OWN),
    KernelRoute(ip_network("fd77::/64"), 0x706C0002, 9, RTN_UNICAST, 2, ip_address("fe80::1")),
    KernelRoute(ip_network("10.2.0.0/16"), 77, 0, RTN_UNICAST, 2, ip_address("fe80::1")),
]


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_a_route_survives_the_way_through_the_bytes_of_the_kernel(route: KernelRoute) -> None:
    """What is written to add it is read as the same, and its table is found without the rest."""
    body = body_of(route_message(route))
    assert list(routes_in(body)) == [route]
    assert table_of(body) == route.table


def test_what_the_gateway_never_sets_makes_another_route() -> None:
    """Metrics or a next hop's number are differences."""
    body = listed("10.0.0.0/8", RTA_METRICS={"attrs": [("RTAX_MTU", 900)]})
    assert [route.extra for route in routes_in(body)] == [("with metrics",)]


def test_each_next_hop_is_a_route() -> None:
    """As with `nexthop via A nexthop via B`."""
    hops = [
        {"oif": index, "attrs": [("RTA_GATEWAY", gateway)]}
        for index, gateway in ((2, "172.18.0.8"), (3, "172.19.0.8"))
    ]
    body = listed("10.5.0.0/16", RTA_MULTIPATH=hops)
    found = main_table([body], NAMES)
    assert [(route.interface, str(route.gateway)) for route in found.routes] == [
        ("eth0", "172.18.0.8"),
        ("eth1", "172.19.0.8"),
    ]


def advertised(count: int) -> Iterator[bytes]:
    """Yield routes as router advertisements make them."""
    template = bytearray(listed("2001:db8::/64", expires=1800, RTA_PREF=0))
    at = bytes(template).index(ip_network("2001:db8::/64").network_address.packed)
    for number in range(count):
        template[at + 4 : at + 8] = struct.pack("!I", number)
        yield bytes(template)


def test_of_many_routes_those_that_were_set_are_kept_and_the_rest_costs_no_memory() -> None:
    """Whether they come first or last, in the order in which the kernel lists them."""
    ours = [listed("::/0", proto=RTPROT_STATIC, RTA_GATEWAY="fe80::1"), listed("fd18::/64")]
    tracemalloc.start()
    found = main_table((*ours[:1], *advertised(20), *ours[1:]), NAMES)
    assert found.is_whole
    assert len(found.routes) == 22

    def flood() -> Iterator[bytes]:
        yield from advertised(5_000)
        yield from ours

    tracemalloc.reset_peak()
    found = main_table(flood(), NAMES)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not found.is_whole
    assert len(found.routes) == MOST_ROUTES
    assert found.routes[-2:] == (
        Route(ip_network("::/0"), "eth0", ip_address("fe80::1"), 256),
        Route(ip_network("fd18::/64"), "eth0", None, 256),
    )
    assert found.routers == {"eth0": (ip_address("fe80::1"),)}
    assert most < 4_000_000


def test_routers_are_all_link_local_gateways_but_not_endlessly_many() -> None:
    """Two routers share one route as far as the gateway can see; both are in use."""
    both = [listed("::/0", RTA_GATEWAY=f"fe80::{number}") for number in (1, 2)]
    found = main_table([*both, listed("fd77::/64", RTA_GATEWAY="fd18::9")], NAMES)
    assert len(found.routes) == 2
    assert found.routers == {"eth0": (ip_address("fe80::1"), ip_address("fe80::2"))}
    many = [listed("::/0", RTA_GATEWAY=f"fe80::{number:x}") for number in range(1, 100)]
    assert len(main_table(many, NAMES).routers["eth0"]) == MOST_ROUTERS


def test_routes_of_other_tables_links_and_kinds_are_left_out() -> None:
    """So are cached ones, which belong to a single destination."""
    other_kind = bytearray(listed("10.0.0.0/8"))
    other_kind[7] = RTN_UNREACHABLE
    cached = bytearray(listed("10.0.0.0/8"))
    cached[8:12] = struct.pack("=I", 0x200)
    other_table = bytearray(listed("10.0.0.0/8"))
    other_table[4] = 77
    others = [bytes(other_kind), bytes(cached), bytes(other_table), listed("::/0", RTA_OIF=9)]
    assert main_table(others, NAMES).routes == ()
    assert list(routes_in(bytes(cached))) == []
    assert main_table([listed("10.0.0.0/8")], NAMES).routes, "control"


@pytest.mark.parametrize("seed", range(5))
def test_bytes_that_make_no_sense_are_an_error_of_the_network_and_no_other(seed: int) -> None:
    """Cut off anywhere, and with random bytes in any place."""
    chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
    hops = [{"oif": 2, "attrs": [("RTA_GATEWAY", "172.18.0.8")]}]
    for body in (*(body_of(route_message(route)) for route in ROUTES),
                 listed("10.5.0.0/16", RTA_MULTIPATH=hops)):  # fmt: skip
        spoilt = bytearray(body)
        for _ in range(chance.randrange(8)):
            spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
        for end in range(len(spoilt) + 1):
            cut = bytes(spoilt[:end])
            for read in (
                lambda cut=cut: list(routes_in(cut)),
                lambda cut=cut: table_of(cut),
                lambda cut=cut: main_table([cut], NAMES),
                lambda cut=cut: identity(cut),
                lambda cut=cut: attributes_in(cut, 4),
            ):
                try:
                    read()
                except NetworkError:
                    continue


def test_a_datagram_is_split_into_its_messages_and_what_is_cut_off_ends_it() -> None:
    """At every length, and with a length of zero, which would never end."""
    bodies = [b"one.", b"three...", b""]
    data = b"".join(HEADER.pack(16 + len(body), 24, 2, 1, 0) + body for body in bodies)
    assert [(it[16:], kind, flags) for it, kind, flags in messages_in(data)] == [
        (body, 24, 2) for body in bodies
    ]
    for end in range(len(data)):
        assert all(it[16:] in bodies for it, _, _ in messages_in(data[:end]))
    assert list(messages_in(HEADER.pack(0, 24, 0, 1, 0) + bytes(64))) == []
