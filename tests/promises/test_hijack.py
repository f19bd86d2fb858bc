"""DNS_HIJACK: the gateway's own resolver answers what workloads ask others at port 53.

What others may try against it is in `test_hijack_attacks.py`.
"""

import json
import os
import re
import signal
import socket
from pathlib import Path

import pytest

from gateway.firewall.nft.firewall import HIJACK
from gateway.model import INTERFACE
from gateway.model.name_server import RESOLVER_USER
from tests.lab.gateway import Gateway
from tests.lab.internet import LAN_HOST, LAN_SUBNETS, OUTSIDER
from tests.lab.process import eventually
from tests.lab.server import INSIDE
from tests.lab.tls import Authority
from tests.lab.topology import Lab
from tests.promises.hijacking import ASKED, OTHERS, TRUE_ANSWER, WAYS, Site, ask
from tests.promises.test_own_resolver import ANSWER, child_of
from tests.promises.test_verify import VERIFY

pytestmark = [pytest.mark.lab, pytest.mark.promise("P10")]


@pytest.fixture
def site(lab: Lab, trusted: Authority) -> Site:
    """Return a site without a gateway."""
    return Site(lab, trusted)


def table(lab: Lab) -> bool:
    """Return whether the gateway's namespace has the table."""
    return HIJACK in lab.operator.run("nft", "list", "tables")


@pytest.mark.both_firewalls
def test_questions_for_others_are_answered_by_ours(site: Site) -> None:
    """By UDP and TCP, in both families; none of them is seen anywhere.

    The control is the same gateway without the redirection: they leave in the tunnel.
    """
    lab = site.lab
    gateway = site.started()
    before, since = site.counted, gateway.started_at
    for address, transport in WAYS:
        assert ask(gateway.workload(), address, transport).fields["address"] == ANSWER
    assert site.counted == before
    assert not lab.arrivals(kind="dns", name="one.example")
    assert not lab.capture.containing("one")
    assert lab.leaks(since + 1) == []
    gateway.stop()
    assert table(lab)
    gateway = site.started(DNS_HIJACK=None)
    assert not table(lab), "what an earlier run has left is removed"
    for address, transport in WAYS:
        assert ask(gateway.workload(), address, transport).fields["address"] == TRUE_ANSWER
    assert site.counted > before, "control"
    assert lab.arrivals(kind="dns", name="one.example"), "control"


def test_the_questions_of_our_resolver_are_not_redirected(site: Site) -> None:
    """It asks the tunnel's resolver at port 53, and a workload that does so gets its answer."""
    gateway = site.started(DNS_UPSTREAM_RESOLVERS=None, DNS_ADDRESS=INSIDE.ipv4)
    workload, server = gateway.workload(), site.lab.server
    for number, address in enumerate((INSIDE.ipv4, INSIDE.ipv6)):
        name = f"number{number}.example"
        answer = workload.probe("dns", server=address, name=name)
        assert answer.fields["address"] == TRUE_ANSWER
        (asked,) = {str(it["address"]) for it in server.queries(name=name)}
        assert asked == INSIDE.ipv4, "our resolver asked, which knows one address only"


@pytest.mark.both_firewalls
def test_nothing_else_is_redirected(site: Site) -> None:
    """Other ports, and what does not leave. An engine's own translation stays as it is."""
    lab = site.lab
    docker = lab.docker_resolver()
    to_docker = "OUTPUT -d 127.0.0.11/32 -p udp -m udp --dport 5353 -j DNAT --to 127.0.0.11:43211"
    lab.operator.run("iptables-legacy", "-t", "nat", "-A", *to_docker.split(), check=False)
    tables = ("iptables-legacy-save -t nat; nft list table ip nat",)
    before = lab.operator.run("sh", "-c", *tables)
    assert "43211" in before
    gateway = site.started()
    workload = gateway.workload()
    assert ask(workload, OTHERS.ipv4, "udp").fields["address"] == ANSWER
    for address in OTHERS:
        assert workload.probe("tcp", host=address, port=80).result == "connected"
        assert workload.probe("udp", host=address, port=7).result == "answered"
    with gateway.workload().namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.bind(("127.0.0.53", 53))
        own.settimeout(2)
        with gateway.workload().namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(2)
            client.bind(("127.0.0.54", 53))
            client.sendto(b"question", ("127.0.0.53", 53))
            question, asker = own.recvfrom(100)
            own.sendto(b"answer", asker)
            assert (question, client.recv(100)) == (b"question", b"answer")
    assert workload.probe("dns", server="127.0.0.11", name="one.example").failed_fast
    assert not docker.events(name="one.example")
    assert without_counts(lab.operator.run("sh", "-c", *tables)) == without_counts(before)


def without_counts(listing: str) -> str:
    """Return a listing of rules without what counts packets, and without comments."""
    lines = re.sub(r"\[\d+:\d+\]|packets \d+ bytes \d+", "", listing).splitlines()
    return "\n".join(line for line in lines if not line.startswith("#"))


@pytest.mark.both_firewalls
@pytest.mark.promise("P12")
def test_without_our_resolver_questions_fail_at_once(site: Site) -> None:
    """And leave by no other way. When it is there again they are answered."""
    gateway = site.started()
    workload = gateway.workload()
    before = site.counted
    child = child_of(gateway)
    os.kill(gateway.pid, signal.SIGSTOP)  # else it is started again at once
    try:
        os.kill(child, signal.SIGKILL)
        eventually(lambda: _has_ended(child), timeout=5, what="its end")
        for address, transport in WAYS:
            assert ask(workload, address, transport).failed_fast, (address, transport)
    finally:
        os.kill(gateway.pid, signal.SIGCONT)
    assert site.counted == before
    gateway.wait_healthy(timeout=30)
    for address, transport in WAYS:
        assert ask(workload, address, transport).fields["address"] == ANSWER
    assert site.counted == before


def _has_ended(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text("ascii")
    except OSError:
        return True


@pytest.mark.both_firewalls
def test_a_socket_of_the_tunnels_interface_gets_no_answer_and_sends_nothing(site: Site) -> None:
    """By UDP it is refused at once. Control: our resolver's user may use that interface."""
    gateway = site.started(LOG_LEVEL="debug")
    before = site.counted
    for address, transport in WAYS:
        answer = ask(gateway.workload(), address, transport, device=INTERFACE)
        assert answer.result != "answered"
        assert answer.failed_fast or transport == "tcp"
    assert site.counted == before
    code = f"import socket; socket.create_connection(({OTHERS.ipv4!r}, 53), 3).close()"
    user = (f"--reuid={RESOLVER_USER}", f"--regid={RESOLVER_USER}", "--clear-groups", "--")
    site.lab.operator.run("setpriv", *user, "python3", "-c", code)
    assert site.counted > before


@pytest.mark.both_firewalls
def test_resolvers_in_a_listed_subnet_are_refused_as_before(site: Site) -> None:
    """The firewall lets names go there only to a configured one, of which ours asks then."""
    listed = f"{LAN_SUBNETS.ipv4},{LAN_SUBNETS.ipv6}"
    gateway = site.started(FIREWALL_OUTBOUND_SUBNETS=listed)
    assert gateway.workload().probe("tcp", host=LAN_HOST.ipv4, port=80).result == "connected"
    for address in LAN_HOST:
        for transport in ("udp", "tcp"):
            assert ask(gateway.workload(), address, transport).failed_fast
    assert not site.lab.arrivals("lan", kind="dns", name="one.example")


@pytest.mark.promise("P3")
@pytest.mark.parametrize("family", [4, 6])
def test_a_server_at_port_53_is_reached(site: Site, family: int) -> None:
    """The encrypted flow is not a question; the router leads the port to the server's."""
    lab = site.lab
    word = "ip" if family == 4 else "ip6"
    address = lab.server.endpoint.ipv4 if family == 4 else lab.server.endpoint.ipv6
    target = f"[{address}]" if family == 6 else address
    lab.internet_namespace.nft(
        f"""
        table inet ports {{
            chain arriving {{
                type nat hook prerouting priority -100; policy accept;
                {word} daddr {address} udp dport 53 dnat {word} to {target}:{lab.server.port}
            }}
        }}
        """
    )
    gateway = site.started(WIREGUARD_ENDPOINT_IP=address, WIREGUARD_ENDPOINT_PORT="53")
    assert gateway.status().body["endpoint"].endswith(":53")
    for host, transport in WAYS:
        assert ask(gateway.workload(), host, transport).fields["address"] == ANSWER


def test_without_ipv6_questions_over_ipv4_are_answered(site: Site) -> None:
    """Docker switches it off, and then the resolver cannot listen on ::1."""
    for place in ("all", "default", "lo"):
        site.lab.gateway_namespace.sysctl(f"ipv6/conf/{place}/disable_ipv6", 1)
    gateway = site.started(WIREGUARD_ADDRESSES="10.64.0.2/32")
    for transport in ("udp", "tcp"):
        asked = ask(gateway.workload(), OTHERS.ipv4, transport)
        assert asked.fields["address"] == ANSWER
        assert ask(gateway.workload(), OTHERS.ipv6, transport).failed_fast


@pytest.mark.promise("P17")
@pytest.mark.both_firewalls
@pytest.mark.parametrize(
    "change",
    [
        f"delete table {HIJACK}",
        f"flush chain {HIJACK} redirected",
        f"insert rule {HIJACK} redirected accept",
    ],
)
def test_what_others_change_is_reverted(site: Site, change: str) -> None:
    """It is reported, too."""
    lab = site.lab
    gateway = site.started()
    lab.operator.run("nft", *change.split())
    eventually(
        lambda: gateway.events(event="reverted external changes"), timeout=8, what="the report"
    )
    before = site.counted
    for address, transport in WAYS:
        assert ask(gateway.workload(), address, transport).fields["address"] == ANSWER
    assert site.counted == before
    gateway.wait_healthy(timeout=20)


@pytest.mark.both_firewalls
@pytest.mark.promise("P12")
def test_a_flow_that_began_before_is_refused_at_once(site: Site) -> None:
    """The kernel redirects a flow with its first packet or never."""
    gateway = site.started(DNS_HIJACK=None)
    namespace = gateway.workload().namespace
    with (
        namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking,
        namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as connected,
    ):
        for early in (asking, connected):
            early.settimeout(3)
            early.connect((OTHERS.ipv4, 53))
        asking.send(_question())
        assert asking.recv(500), "control"
        gateway.stop()
        before = site.counted
        gateway = site.started()
        with pytest.raises(PermissionError):
            asking.send(_question())
        connected.send(bytes([0, len(_question())]) + _question())
        with pytest.raises(ConnectionResetError):
            connected.recv(500)
        assert site.counted == before


def _question() -> bytes:
    return b"\0\1\1\0\0\1\0\0\0\0\0\0\3one\7example\0\0\1\0\1"


def test_a_gateway_that_is_killed_leaves_it_and_the_next_one_asks_its_own_question(
    site: Site,
) -> None:
    """Questions fail at once meanwhile; the endpoint's name is looked up as ever."""
    lab = site.lab
    gateway = site.started()
    child = child_of(gateway)
    gateway.kill()
    eventually(lambda: _has_ended(child), timeout=5, what="the resolver's end")
    for address, transport in WAYS:
        assert ask(gateway.workload(), address, transport).failed_fast
    resolver = site.resolver(lab.server.endpoint.ipv4)
    gateway = site.started(WIREGUARD_ENDPOINT_IP="vpn.example", WIREGUARD_ENDPOINT_RESOLVER=ASKED)
    assert resolver.events(name="vpn.example")
    for address, transport in WAYS:
        assert ask(gateway.workload(), address, transport).fields["address"] == ANSWER


@pytest.mark.promise("P2")
@pytest.mark.parametrize("lacks", ["a user", "a place"])
def test_where_it_cannot_be_the_gateway_does_not_start(site: Site, lacks: str) -> None:
    """Its resolver would redirect its own questions, or not be there."""
    few = {"capabilities": ("net_admin", "net_raw")} if lacks == "a user" else {}
    gateway = site.lab.gateway(**few)
    site.lab.gateway_namespace.sysctl("ipv4/ip_unprivileged_port_start", 0)  # as Docker sets it
    if lacks == "a place":
        (gateway.container.root / "run/portcullis").write_text("in the way")
    refused(gateway)
    assert "CHOWN" in gateway.logs() or lacks == "a place"


def refused(gateway: Gateway) -> None:
    """Start a gateway that ends with the remedy. Control: without the variable it connects."""
    gateway.start(gateway.env(DNS_SERVER="on", DNS_HIJACK="on"))
    assert gateway.wait() != 0
    assert "DNS_HIJACK=on: the gateway's own resolver" in gateway.logs()
    assert "set DNS_HIJACK=off" in gateway.logs()
    assert not any(it["event"] == "state changed" for it in gateway.events())
    gateway.start(gateway.env(DNS_SERVER="on"))
    gateway.wait_healthy(timeout=20)


@pytest.mark.both_firewalls
def test_verify_compares_it(site: Site) -> None:
    """And none of its attempts gets around the tunnel. Control: without the variable not."""
    gateway = site.started()
    code, output = gateway.execute(*VERIFY)
    assert code == 0, output
    compared = "redirection of questions, read back"
    assert [it for it in json.loads(output)["trials"] if it["tried"] == compared and it["ok"]]
    gateway.stop()
    gateway = site.started(DNS_HIJACK=None)
    code, output = gateway.execute(*VERIFY)
    assert (code, compared in output) == (0, False), output


def test_an_answer_to_a_client_at_port_53_passes(site: Site) -> None:
    """A server among the workloads, at a listed port of the tunnel."""
    lab = site.lab
    lab.server.forward_port(5353)
    gateway = site.started(FIREWALL_VPN_INPUT_PORTS="5353")
    with gateway.workload().namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", 5353))
        server.settimeout(3)
        namespace = lab.internet_namespace
        with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(3)
            client.bind((OUTSIDER.ipv4, 53))
            client.sendto(b"x", (lab.server.exit.ipv4, 5353))
            _, asker = server.recvfrom(100)
            assert asker == (OUTSIDER.ipv4, 53)
            server.sendto(b"y", asker)
            assert client.recv(100) == b"y"
