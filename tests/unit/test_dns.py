"""Names: the resolver file and when it is believed, and what an endpoint's name may lead to."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from gateway.model import EVERYTHING, Address, Endpoint, NamedEndpoint, Peer, Secret
from gateway.policy.dns import (
    kept,
    resolv_conf,
    resolved,
    resolvers_found,
    resolvers_in,
    resolvers_kept,
)
from tests.scenarios import IPV4_ONLY, ONE_UPLINK

KEY, OTHER = Secret("one"), Secret("other")
GIVEN = (ip_address("127.0.0.11"), ip_address("fd00::53"))
OURS = resolv_conf([ip_address("10.64.0.1")], GIVEN, KEY)


def test_the_resolvers_found_outlive_the_file_that_named_them() -> None:
    """However often the gateway starts again, and applications see the tunnel's alone."""
    assert resolvers_found("nameserver 127.0.0.11\n", KEY, first=True, kept=True) == GIVEN[:1]
    assert resolvers_found(OURS, KEY, first=False, kept=True) == GIVEN
    assert [line for line in OURS.splitlines() if line.startswith("nameserver")] == [
        "nameserver 10.64.0.1"
    ]


@pytest.mark.promise("P10")
@pytest.mark.parametrize(
    "text",
    [
        "nameserver 203.0.113.10\n",
        "# Found here: 203.0.113.10\n",
        f"# Found here: 203.0.113.10 {'0' * 32}\n",
        OURS.replace("127.0.0.11", "203.0.113.10"),
        resolv_conf([], GIVEN, OTHER),
        "# Found here: \u00e9\n",
        "nameserver\n",
        "",
    ],
)
def test_where_a_gateway_has_been_only_what_it_sealed_is_believed(text: str) -> None:
    """A workload shares the file and could choose the resolver for an unencrypted query."""
    assert resolvers_found(text, KEY, first=False, kept=True) == ()


@pytest.mark.promise("P10")
def test_where_no_copy_can_be_kept_only_dockers_resolver_is_believed_without_a_seal() -> None:
    """The file may be older than the namespace, and a workload may have written it."""
    text = "nameserver 203.0.113.10\nnameserver 127.0.0.11\n"
    assert resolvers_found(text, KEY, first=True, kept=False) == GIVEN[:1]
    assert resolvers_found(text, KEY, first=False, kept=False) == ()
    assert resolvers_found(OURS, KEY, first=False, kept=False) == GIVEN
    assert len(resolvers_found(text, KEY, first=True, kept=True)) == 2, "control"


@pytest.mark.promise("P10")
@pytest.mark.parametrize("found", [(), GIVEN])
def test_a_copy_names_the_same_resolvers(found: tuple[Address, ...]) -> None:
    """None at all, too: the file is not asked again then."""
    assert resolvers_kept(kept(found)) == found


@pytest.mark.promise("P10")
def test_a_sealed_line_counts_wherever_it_is() -> None:
    """What a workload adds around it changes nothing."""
    around = f"# Found here: 203.0.113.10\nnameserver 203.0.113.10\n{OURS}"
    assert resolvers_found(around, KEY, first=False, kept=True) == GIVEN
    assert resolvers_found(around, KEY, first=True, kept=True) == GIVEN
    assert resolvers_in(around) != GIVEN, "control: the seal makes the difference"


@pytest.mark.promise("P3")
@pytest.mark.parametrize(
    "address",
    [
        "172.18.0.2",
        "172.18.255.255",
        "10.2.0.2",
        "127.0.0.1",
        "255.255.255.255",
        "224.0.0.1",
        "0.0.0.0",
    ],
)
def test_a_name_leads_to_no_address_of_this_host_and_to_none_that_is_many(address: str) -> None:
    """The flow to it would come back on loopback, where a workload can read its mark."""
    peer = Peer("cHVibGlj", NamedEndpoint("vpn.example", 51820), EVERYTHING)
    tunnel = replace(IPV4_ONLY, peers=(peer,))
    assert resolved(tunnel, {"vpn.example": (ip_address(address),)}, ONE_UPLINK) == ()
    good = ip_address("198.51.100.10")
    found = resolved(tunnel, {"vpn.example": (ip_address(address), good)}, ONE_UPLINK)
    assert [it.endpoints for it in found] == [(Endpoint(good, 51820),)]
