"""What workloads and other programs may try against DNS_HIJACK: nothing to port 53 gets out.

Limitations: packet sockets on `wg0`, the resolver's user id, and other ports are exempt.
"""

import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from gateway.firewall.nft.firewall import HIJACK
from gateway.model import INTERFACE
from gateway.model.name_server import RESOLVER_USER
from tests.lab.gateway import Gateway
from tests.lab.namespace import Namespace
from tests.lab.process import eventually, run
from tests.lab.server import CLIENT, INSIDE
from tests.lab.tls import Authority
from tests.lab.topology import Lab
from tests.promises.hijacking import ASKED, OTHERS, TRUE_ANSWER, WAYS, Site, ask
from tests.promises.test_hold import anchor, held
from tests.promises.test_metrics import scraped
from tests.promises.test_own_resolver import ANSWER, reported

pytestmark = [pytest.mark.lab, pytest.mark.promise("P10")]

QUESTION = b"\0\1\1\0\0\1\0\0\0\0\0\0\3one\7example\0\0\1\0\1"


@pytest.fixture
def site(lab: Lab, trusted: Authority) -> Site:
    """Return a site without a gateway."""
    return Site(lab, trusted)


def unusual(host: str, own: str, other: str) -> list[tuple[str, dict[str, Any]]]:
    """Return packets to port 53 of `host` that no library sends, from `own` or another source."""
    common: dict[str, Any] = {"host": host, "port": 53, "marker": "no answer"}
    return [
        ("udp", common),
        ("udp", common | {"source": own, "source_port": 53}),
        ("options", common),
        *(
            (kind, common | more | where)
            for kind, more in (
                ("forged", {"source": own}),
                ("forged", {"source": own, "source_port": 53}),
                ("forged", {"source": own, "source_port": 51820}),
                ("forged", {"source": own, "transport": "tcp"}),
                ("forged", {"source": other}),
                ("fragments", {"source": own}),
            )
            for where in ({}, {"device": INTERFACE}, {"device": "eth0"})
        ),
    ]


@pytest.mark.both_firewalls
@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_no_unusual_packet_gets_around_it(site: Site, family: int) -> None:
    """Made by hand, in fragments, with options, from any source, bound to any link.

    The control is the same gateway without the redirection: those with the tunnel's address leave
    in it, unless they are bound to the uplink.
    """
    lab = site.lab
    host, own, other = (list(it)[family] for it in (OTHERS, CLIENT, lab.uplink.gateway))
    tries = unusual(host, own, other)
    gateway = site.started()
    since, before = gateway.started_at, site.counted
    for kind, arguments in tries:
        gateway.workload().probe(kind, timeout=0.1, **arguments)
    _settle(gateway, host)
    assert site.counted == before
    assert not lab.arrivals(port=53)
    assert lab.leaks(since + 1) == []
    gateway.stop()
    gateway = site.started(DNS_HIJACK=None)
    for kind, arguments in tries:
        before = site.counted
        gateway.workload().probe(kind, timeout=0.1, **arguments)
        _settle(gateway, host)
        in_vain = arguments.get("device") == "eth0" or arguments.get("source") == other
        assert (site.counted > before) is not in_vain, f"control: {kind} {arguments}"


def _settle(gateway: Gateway, host: str) -> None:
    """Wait until what was sent before has come out of the tunnel: it keeps the order."""
    assert gateway.workload().probe("udp", host=host).result == "answered"


@pytest.mark.both_firewalls
def test_one_socket_can_ask_several_resolvers_at_once(site: Site) -> None:
    """As the library musl does. Each answer comes from the address that was asked."""
    site.resolver(TRUE_ANSWER)
    gateway = site.started()
    hosts = {OTHERS.ipv4, ASKED, INSIDE.ipv4}
    with gateway.workload().namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(3)
        for host in hosts:
            asking.sendto(QUESTION, (host, 53))
        answers = [asking.recvfrom(500) for _ in hosts]
    assert {where for _, where in answers} == {(host, 53) for host in hosts}
    assert all(socket.inet_aton(ANSWER) in answer for answer, _ in answers)


@pytest.mark.both_firewalls
def test_a_program_that_has_port_53_does_not_get_its_own_questions_back(site: Site) -> None:
    """Such as a Pi-hole, which passes them on: they fail at once instead of going in a circle.

    Control: it gets those that are meant for it.
    """
    namespace = site.lab.gateway_namespace
    with ExitStack() as stack:
        taken = [stack.enter_context(_bound(namespace, it)) for it in ("SOCK_DGRAM", "SOCK_STREAM")]
        taken[1].listen()
        gateway = site.started()
        eventually(lambda: reported(gateway), timeout=20, what="the limit")
        assert any("taken by another program" in it for it in reported(gateway))
        before = site.counted
        for address, transport in WAYS:
            assert ask(gateway.workload(), address, transport).failed_fast, (address, transport)
        assert not ask(gateway.workload(), "127.0.0.1", "udp", timeout=0.2).failed_fast
        assert len([it for it in _received(taken[0]) if b"one" in it]) == 1, "the control alone"
        with pytest.raises(TimeoutError):
            taken[1].accept()
        assert site.counted == before


def _received(channel: socket.socket) -> Iterator[bytes]:
    """Yield what has come; the gateway's health probe is among it."""
    with suppress(TimeoutError):
        while True:
            yield channel.recv(500)


def _bound(namespace: Namespace, kind: str) -> socket.socket:
    """Return a socket at port 53 of every address."""
    channel = namespace.socket(socket.AF_INET, getattr(socket, kind))
    channel.settimeout(0.5)
    channel.bind(("0.0.0.0", 53))
    return channel


@pytest.mark.both_firewalls
def test_another_programs_translation_does_not_lead_around_it(site: Site) -> None:
    """It comes first, and a flow is translated once. Control: without ours it leads there."""
    lab = site.lab
    site.resolver(TRUE_ANSWER)
    gateway = site.started()
    lab.operator.run(
        "nft", "-f", "-",
        stdin=f"""
        table inet elsewhere {{
            chain first {{
                type nat hook output priority -150; policy accept;
                meta skuid 53853 accept
                ip daddr != 127.0.0.0/8 udp dport 53 dnat ip to {ASKED}
                ip daddr != 127.0.0.0/8 tcp dport 53 dnat ip to {ASKED}
            }}
        }}
        """,
    )  # fmt: skip
    before = site.counted
    for transport in ("udp", "tcp"):
        assert ask(gateway.workload(), OTHERS.ipv4, transport).failed_fast
    assert site.counted == before
    gateway.stop()
    gateway = site.started(DNS_HIJACK=None)
    assert ask(gateway.workload(), OTHERS.ipv4, "udp").fields["address"] == TRUE_ANSWER
    assert site.counted > before, "control"


@pytest.mark.promise("P17")
@pytest.mark.both_firewalls
def test_it_comes_back_after_all_tables_were_flushed(site: Site) -> None:
    """By a program that thinks that it is alone."""
    gateway = site.started()
    site.lab.operator.run("nft", "flush", "ruleset")
    eventually(
        lambda: HIJACK in site.lab.operator.run("nft", "list", "tables"),
        timeout=5,
        what="the table",
    )
    gateway.wait_healthy(timeout=20)
    before = site.counted
    for address, transport in WAYS:
        assert ask(gateway.workload(), address, transport).fields["address"] == ANSWER
    assert site.counted == before


@pytest.mark.both_firewalls
def test_what_it_refuses_is_counted(site: Site) -> None:
    """As packets that go out. Control: what it answers is not counted."""
    gateway = site.started()
    gateway.wait_healthy()
    for family, address in (("ipv4", OTHERS.ipv4), ("ipv6", OTHERS.ipv6)):
        before = refused(gateway, family)
        assert ask(gateway.workload(), address, "udp").fields["address"] == ANSWER
        assert refused(gateway, family) == before, "control"
        ask(gateway.workload(), address, "udp", device=INTERFACE)
        assert refused(gateway, family) > before


def test_the_last_packets_of_our_resolvers_own_connections_pass(site: Site) -> None:
    """They have no user, because the kernel ends a connection after its socket is closed.

    The control is a resolver that ours does not ask.
    """
    gateway = site.started(DNS_UPSTREAM_RESOLVERS=None, DNS_ADDRESS=INSIDE.ipv4)
    before = refused(gateway, "ipv4")
    _connect_and_close(site, INSIDE.ipv4)
    assert refused(gateway, "ipv4") == before
    _connect_and_close(site, OTHERS.ipv4)
    assert refused(gateway, "ipv4") > before, "control"


def _connect_and_close(site: Site, host: str) -> None:
    """Ask `host` by TCP as the resolver's user does."""
    user = (f"--reuid={RESOLVER_USER}", f"--regid={RESOLVER_USER}", "--clear-groups", "--")
    code = (
        f"import socket; it = socket.create_connection(({host!r}, 53), 3); "
        f"it.sendall(bytes([0, {len(QUESTION)}]) + {QUESTION!r}); assert it.recv(500); it.close()"
    )
    site.lab.operator.run("setpriv", *user, "python3", "-c", code)


def refused(gateway: Gateway, family: str) -> float:
    """Return how many packets were refused until now: they are counted once a second."""
    time.sleep(1.1)
    return scraped(gateway)["refused_packets_total", f"out {family}"]


def test_in_a_namespace_that_another_container_holds_it_stays_closed_without_a_gateway(
    site: Site,
) -> None:
    """With an anchor, workloads stay when the gateway goes: their questions fail at once."""
    held(anchor(site.lab))
    gateway = site.started()
    before = site.counted
    for address, transport in WAYS:
        assert ask(gateway.workload(), address, transport).fields["address"] == ANSWER
    gateway.kill()
    for address, transport in WAYS:
        assert ask(gateway.workload(), address, transport).failed_fast
    gateway = site.started()
    for address, transport in WAYS:
        assert ask(gateway.workload(), address, transport).fields["address"] == ANSWER
    assert site.counted == before


@pytest.mark.promise("P2")
def test_without_the_program_nft_the_gateway_does_not_start(site: Site) -> None:
    """Also where the rules are in the legacy tables. Control: without the variable it does."""
    gateway = site.lab.gateway()
    mounts = f"--mount=/proc/{gateway.container.holder}/ns/mnt"
    run(["nsenter", mounts, "--", "mount", "--bind", "/dev/null", str(shutil.which("nft"))])
    wanted = {"DNS_SERVER": "on", "FIREWALL_BACKEND": "iptables"}
    gateway.start(gateway.env(**wanted, DNS_HIJACK="on"))
    assert gateway.wait() != 0
    assert "DNS_HIJACK=on: the program nft is not installed" in gateway.logs()
    assert "set DNS_HIJACK=off" in gateway.logs()
    gateway.start(gateway.env(**wanted)).wait_healthy(timeout=20)
