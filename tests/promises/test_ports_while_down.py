"""P8 without a tunnel: listed input ports answer in every state, and nothing else passes.

A web interface and a health server on the home network are of use exactly when the tunnel is down.
Each state is held for as long as the test needs: the server, a resolver or a provider is silent.
The control of what must not pass is the same client at the listed port, or the same packet from a
namespace that is open.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import product

import pytest

from gateway.policy.passage import INNER
from tests.lab.frames import TCP, UDP, Frame, addressed_to, reply_from
from tests.lab.gateway import Gateway
from tests.lab.hosts import echo
from tests.lab.internet import INTERNET, LAN_HOST, LAN_SUBNETS, OUTSIDER
from tests.lab.lists import PROVIDER, RESOLVER
from tests.lab.process import PATIENCE, eventually
from tests.lab.server import CLIENT
from tests.lab.topology import Lab
from tests.promises.stages import (
    OWN4,
    OWN6,
    connecting,
    got_through,
    lose_tunnel,
    shown_marks,
    together,
    unique,
)
from tests.promises.test_vault_gateway import Site
from tests.promises.witness import not_refused_at_once, ordinary

pytestmark = [pytest.mark.lab, pytest.mark.promise("P8")]

PORT, FREE, UNLISTED, HEALTH = 8080, 8083, 8090, 9999
VARIABLES = {
    "FIREWALL_INPUT_PORTS": f"{PORT}-{FREE},{HEALTH}/tcp",
    "FIREWALL_OUTBOUND_SUBNETS": ",".join(LAN_SUBNETS),
    "HEALTH_SERVER_ADDRESS": f":{HEALTH}",
}
OWN = {4: OWN4, 6: OWN6}
STRANGER = {4: OUTSIDER.ipv4, 6: OUTSIDER.ipv6}
WAIT = 0.4 * PATIENCE
BOTH = tuple(product(("tcp", "udp"), (4, 6)))


def calls(lab: Lab, port: int = PORT, **arguments: object) -> dict[tuple[str, int], str | None]:
    """Call a port by TCP and UDP in both families; return the addresses that were seen there."""
    return together(
        lambda way: (
            lab.internet.probe(
                way[0], host=OWN[way[1]], port=port, source=STRANGER[way[1]], **arguments
            ).seen
        ),
        BOTH,
    )


def answers(frame: Frame) -> bool:
    """Return whether the frame may be an answer from a listed port."""
    ports = (*range(PORT, FREE + 1), HEALTH)
    return any(reply_from(port, it)(frame) for port in ports for it in (TCP, UDP))


def is_served(lab: Lab) -> None:
    """Check that the listed port answers strangers by their own addresses, and no other port."""
    assert calls(lab) == {way: STRANGER[way[1]] for way in BOTH}
    assert set(calls(lab, UNLISTED, timeout=WAIT).values()) == {None}


def nothing_else_passes(lab: Lab, since: float, *allowed: str) -> None:
    """Check that workloads are refused, also with everything that an answer has but its flow."""
    marker = unique("down")
    assert not_refused_at_once(ordinary(lab.workload, marker)) == {}
    assert not_refused_at_once(ordinary(lab.workload, marker, LAN_HOST)) == {}
    for host, (transport, family) in product((INTERNET[0], OUTSIDER, LAN_HOST), BOTH):
        caller = {"host": tuple(host)[family == 6], "source": OWN[family], "source_port": FREE}
        for mark in (0, *shown_marks(lab)):
            assert not got_through(lab.workload, transport, **caller, mark=mark, timeout=WAIT), (
                host,
                transport,
                mark,
            )
    assert lab.leaks(since, allowed=[answers, *map(addressed_to, allowed)]) == []


@contextmanager
def silent_server(lab: Lab) -> Iterator[Gateway]:
    """Yield a gateway that waits for its first handshake."""
    lab.server.cut()
    gateway = lab.gateway()
    gateway.start(gateway.env(**VARIABLES))
    gateway.wait_for_state("connecting")
    yield gateway
    lab.server.restore()
    gateway.wait_healthy(30)


@contextmanager
def silent_resolver(lab: Lab) -> Iterator[Gateway]:
    """Yield a gateway that looks for its server's address: a host without a resolver is asked."""
    gateway = lab.gateway()
    named = {"WIREGUARD_ENDPOINT_IP": "vpn.example", "WIREGUARD_ENDPOINT_RESOLVER": OUTSIDER.ipv4}
    gateway.start(gateway.env(**VARIABLES, **named))
    gateway.wait_for_state("resolving")
    yield gateway


@contextmanager
def silent_provider(lab: Lab) -> Iterator[Gateway]:
    """Yield a gateway that waits for a provider's list."""
    gateway = lab.gateway()
    listed = {
        "VPN_SERVICE_PROVIDER": "mullvad",
        "WIREGUARD_PUBLIC_KEY": None,
        "WIREGUARD_ENDPOINT_IP": None,
        "WIREGUARD_ENDPOINT_RESOLVER": RESOLVER,
    }
    gateway.write("/config/volume", "")
    gateway.start(gateway.env(**VARIABLES, **listed))
    gateway.wait_for_state("fetching")
    yield gateway


@contextmanager
def lost_tunnel(lab: Lab) -> Iterator[Gateway]:
    """Yield a gateway that was connected."""
    gateway = lab.gateway()
    gateway.start(gateway.env(**VARIABLES)).wait_healthy()
    with connecting(lab, gateway):
        yield gateway


STATES: dict[str, Callable[[Lab], AbstractContextManager[Gateway]]] = {
    "connecting": silent_server,
    "connecting again": lost_tunnel,
    "resolving": silent_resolver,
    "fetching": silent_provider,
}


@pytest.mark.both_firewalls
@pytest.mark.parametrize("state", STATES)
def test_a_listed_port_answers_and_nothing_else_passes(lab: Lab, state: str) -> None:
    """In every state in which the gateway runs without a tunnel, in both families."""
    served = lab.workload.serve(*(echo(OWN[it], port) for it in OWN for port in (PORT, UNLISTED)))
    with STATES[state](lab) as gateway:
        since = time.monotonic()
        is_served(lab)
        nothing_else_passes(lab, since, lab.server.endpoint.ipv4, RESOLVER, PROVIDER, OUTSIDER.ipv4)
        assert gateway.status().code == 503
    served.close()


def test_the_health_server_answers_others_while_the_tunnel_is_down(lab: Lab) -> None:
    """At its listed port: a monitor sees why the gateway is unhealthy."""
    with silent_server(lab):
        for family, own in OWN.items():
            caller = {"host": own, "port": HEALTH, "source": STRANGER[family]}
            assert got_through(lab.internet, "tcp", **caller)


def test_a_clients_connection_continues_while_the_tunnel_is_lost(lab: Lab) -> None:
    """Neither the loss nor the return of the tunnel interrupts it, by TCP or UDP."""
    gateway = lab.gateway()
    gateway.start(gateway.env(**VARIABLES)).wait_healthy()
    served = lab.workload.serve(*(echo(own, PORT) for own in OWN.values()))
    streams = [
        lab.internet.stream(
            OWN[family], port=PORT, source=STRANGER[family], protocol=transport, interval=0.02
        )
        for transport, family in BOTH
    ]
    for stream in streams:
        eventually(lambda s=stream: len(s.exchanges()) > 3, timeout=5, what="exchanges")
    with connecting(lab, gateway):
        lost = [len(stream.exchanges()) for stream in streams]
        for stream, before in zip(streams, lost, strict=True):
            eventually(lambda s=stream, n=before: len(s.exchanges()) > n + 3, timeout=5, what="it")
    for stream in streams:
        assert set(stream.stop()["kinds"]) == {"answered"}
    served.close()


@pytest.mark.both_firewalls
@pytest.mark.parametrize("family", [4, 6])
def test_packets_made_by_hand_leave_a_listed_port_as_answers_only(lab: Lab, family: int) -> None:
    """While a client has a flow there: to another port or host, in fragments, as ICMP.

    Control: with the addresses and ports of that flow, such a packet leaves.
    """
    own, client, first = OWN[family], tuple(lab.uplink.router)[family == 6], 40777
    served = lab.workload.serve(echo(own, PORT))
    with silent_server(lab):
        caller = {"host": own, "port": PORT, "source": client, "source_port": first}
        assert lab.internet.probe("udp", **caller).seen == client
        marker = unique("handmade")
        sent = {"source": own, "device": "eth0", "marker": marker}
        for host, transport in product((client, tuple(INTERNET[0])[family == 6]), ("udp", "tcp")):
            for port in {53, first + 1, *([first] if host != client or transport == "tcp" else [])}:
                made = {"host": host, "source_port": PORT, "port": port, "transport": transport}
                assert lab.workload.probe("forged", **made, **sent).result == "denied", made
            lab.workload.probe("fragments", host=host, source_port=PORT, port=53, **sent)
            lab.workload.probe(
                "raw", host=host, protocol=58 if family == 6 else 1, device="eth0", marker=marker
            )
        lab.capture.quiet_for(0.2)
        assert lab.capture.containing(marker) == []
        assert (
            lab.workload.probe("forged", host=client, source_port=PORT, port=first, **sent).result
            == "sent"
        ), "control"
        eventually(lambda: lab.capture.containing(marker), timeout=5, what="the control")
    served.close()


@pytest.mark.both_firewalls
def test_ports_can_be_closed_without_a_tunnel(lab: Lab) -> None:
    """With `off` nothing is heard from a listed port. Control: with a tunnel it answers."""
    gateway = lab.gateway()
    gateway.start(gateway.env(**VARIABLES, FIREWALL_INPUT_PORTS_WHILE_DOWN="off")).wait_healthy()
    served = lab.workload.serve(*(echo(own, PORT) for own in OWN.values()))
    is_served(lab)
    with connecting(lab, gateway):
        since = time.monotonic()
        assert set(calls(lab, timeout=WAIT).values()) == {None}
        assert lab.leaks(since) == []
    is_served(lab)
    served.close()


def test_a_stopped_gateway_closes_its_ports(lab: Lab) -> None:
    """Stopping is not waiting: the last rules accept nothing. Control: it was served before."""
    served = lab.workload.serve(*(echo(own, PORT) for own in OWN.values()))
    with silent_server(lab) as gateway:
        is_served(lab)
        gateway.stop()
        since = time.monotonic()
        assert set(calls(lab, timeout=WAIT).values()) == {None}
        assert lab.leaks(since) == []
        gateway.start(gateway.env(**VARIABLES))
    served.close()


@pytest.mark.both_firewalls
def test_the_tunnels_address_has_none_of_the_input_ports(lab: Lab) -> None:
    """A listed port is one of the uplink's own addresses, also while the tunnel comes back."""
    gateway = lab.gateway()
    gateway.start(gateway.env(**VARIABLES)).wait_healthy()
    served = lab.workload.serve(*(echo(address, PORT) for address in (*CLIENT, *OWN.values())))
    lab.server.cut()
    lose_tunnel(lab)
    gateway.wait_for_state("connecting")
    is_served(lab)
    since = time.monotonic()
    for family, address in zip((4, 6), CLIENT, strict=True):
        lab.internet.probe(
            "packet", host=address, source=STRANGER[family], device=lab.uplink.far_end,
            router_mac=lab.uplink.gateway_mac, transport="tcp", port=PORT,
        )  # fmt: skip
    lab.capture.quiet_for(0.2)
    assert [f for f in lab.leaks(since, allowed=[]) if f.source in set(CLIENT)] == []
    assert not served.events(client=STRANGER[4], address=CLIENT.ipv4)
    served.close()


@pytest.mark.parametrize("held", ["connecting", "resolving"])
def test_a_vaults_port_answers_while_the_tunnel_is_down(lab: Lab, held: str) -> None:
    """The workloads there are refused everything else, the home network too."""
    site = Site(lab)
    changes = dict(VARIABLES)
    if held == "resolving":
        changes |= {
            "WIREGUARD_ENDPOINT_IP": "vpn.example",
            "WIREGUARD_ENDPOINT_RESOLVER": OUTSIDER.ipv4,
        }
    else:
        lab.server.cut()
    site.gateway.start(site.gateway.env(**changes))
    site.gateway.wait_for_state(held)
    served = lab.vault_workload.serve(*(echo(str(it.ip), PORT) for it in INNER.values()))
    since = time.monotonic()
    assert calls(lab) == {way: STRANGER[way[1]] for way in BOTH}
    assert got_through(lab.internet, "tcp", host=OWN4, port=HEALTH, source=OUTSIDER.ipv4)
    marker = unique("vault")
    assert not_refused_at_once(ordinary(lab.vault_workload, marker)) == {}
    assert not_refused_at_once(ordinary(lab.vault_workload, marker, LAN_HOST)) == {}
    allowed = [answers, addressed_to(lab.server.endpoint.ipv4), addressed_to(OUTSIDER.ipv4)]
    assert lab.leaks(since, allowed=allowed) == []
    served.close()
