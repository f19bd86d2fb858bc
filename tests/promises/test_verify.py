"""`gateway verify`: it trusts nothing, harms nothing, and notices when something gets out."""

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gateway.commands.verify.answer import answer_from
from gateway.commands.verify.held import compared, look
from gateway.commands.verify.lines import Line
from gateway.commands.verify.places import Places
from gateway.commands.verify.report import RED_WITHIN
from gateway.commands.verify.trials import TARGETS
from gateway.model import INTERFACE
from gateway.settings import assemble
from tests.lab.gateway import Gateway
from tests.lab.internet import INTERNET
from tests.lab.process import eventually
from tests.lab.topology import Lab

pytestmark = [pytest.mark.lab, pytest.mark.both_firewalls]

VERIFY = (sys.executable, "-m", "gateway", "verify", "--json")


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Lab, Gateway]]:
    """Return a lab with a healthy gateway and Docker's resolver."""
    with Lab() as lab:
        lab.docker_resolver()
        gateway = lab.gateway()
        gateway.start(gateway.env(FIREWALL_OUTBOUND_SUBNETS="192.168.77.0/24"))
        gateway.wait_healthy()
        yield lab, gateway


def trials(gateway: Gateway, *options: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Run the command in the container; return its exit code and each trial by its name."""
    code, output = gateway.execute(*VERIFY, *options)
    reported = json.loads(output.splitlines()[-1])
    assert reported["ok"] is (code == 0)
    return code, {trial["tried"]: trial for trial in reported["trials"]}


@pytest.mark.promise("P1")
def test_a_healthy_gateway_passes_every_trial_and_nothing_leaves(
    shared: tuple[Lab, Gateway],
) -> None:
    """All ways around are tried in both families; the capture outside agrees that none works.

    Control: the traffic into the tunnel that the command sends is seen outside, encrypted.
    """
    lab, gateway = shared
    before = len(lab.capture.frames())
    code, tried = trials(gateway)
    assert code == 0, tried
    assert len(lab.capture.frames()) > before
    assert lab.capture.containing("portcullis-") == []
    server = f"{lab.server.endpoint.ipv4}:{lab.server.port}"
    ways = {
        "IPv4 bound to eth0, UDP",
        "IPv6 bound to eth0, TCP",
        "IPv4 with the mark that ip rule shows",
        "IPv6 bound to eth0 with the mark of the encrypted flow",
        "IPv6 from the tunnel's port",
        "IPv4 by a packet socket on eth0",
        "IPv6 by a packet socket on eth0, without queue",
        "by an AF_XDP socket on eth0",
        f"to the server {server}, marked, from another port",
        f"marked and by the ports of {server}, elsewhere",
        "DNS over UDP at 127.0.0.11",
        "DNS over TCP at 127.0.0.11",
        f"DNS over UDP at {lab.uplink.router.ipv4} by eth0",
    }
    assert ways <= tried.keys()


@pytest.mark.promise("P16")
def test_what_it_says_holds_none_of_the_secret_marks(shared: tuple[Lab, Gateway]) -> None:
    """It reads them to try them. Control: an operator reads the flow's from the interface."""
    lab, gateway = shared
    flow = gateway.execute("wg", "show", "wg0", "fwmark")[1].strip().removeprefix("0x")
    assert int(flow, 16) >> 31, "control: it is the secret one"
    guard = lab.operator.run("nft", "list", "table", "netdev", "portcullis_guard")
    passed = guard.partition("meta mark 0x")[2].split()[0]
    output = gateway.execute(*VERIFY)[1]
    for secret in (flow, passed):
        assert secret not in output
        assert str(int(secret, 16)) not in output


def test_an_address_echo_returns_the_address_of_the_vpn(shared: tuple[Lab, Gateway]) -> None:
    """Only the host that the user names is asked."""
    lab, gateway = shared
    url = f"http://{INTERNET[0].ipv4}/"
    code, tried = trials(gateway, "--echo", url)
    assert code == 0
    assert lab.server.exit.ipv4 in tried[f"address seen by {url}"]["happened"]


@pytest.mark.promise("P15")
def test_a_cut_tunnel_lets_nothing_out_and_comes_back(shared: tuple[Lab, Gateway]) -> None:
    """The interface is taken away while the command sends; the process stays the same."""
    lab, gateway = shared
    pid = gateway.pid
    code, tried = trials(gateway, "--cut")
    assert code == 0, tried
    assert tried["noticed"]["ok"]
    assert tried["back again"]["ok"]
    assert gateway.pid == pid
    assert lab.capture.containing("portcullis-") == []


@pytest.mark.promise("P15")
def test_everything_is_as_promised_from_another_source_port_too(
    shared: tuple[Lab, Gateway],
) -> None:
    """After an outage the flow has another port. Control: it is not the configuration's."""
    lab, gateway = shared
    lab.server.cut()
    gateway.wait_unhealthy(timeout=60)
    lab.server.restore()
    gateway.wait_healthy(timeout=60)
    configured = 51820
    assert gateway.status().body["listen_port"] != configured
    code, tried = trials(gateway)
    assert code == 0, tried


@contextmanager
def stopped(lab: Lab, gateway: Gateway) -> Iterator[None]:
    """Keep the gateway from putting anything back meanwhile; wait until it has, afterwards."""
    gateway.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        gateway.signal(signal.SIGCONT)
    eventually(lambda: not wrong(lab, gateway), timeout=20, what="everything put back")
    gateway.wait_healthy()


@contextmanager
def opened(lab: Lab, gateway: Gateway) -> Iterator[None]:
    """Let another program open the namespace meanwhile."""
    with stopped(lab, gateway):
        lab.operator.run("nft", "delete", "table", "netdev", "portcullis_guard", check=False)
        lab.operator.run("nft", "delete", "table", "inet", "portcullis", check=False)
        for program in ("iptables-legacy", "ip6tables-legacy"):
            for chain in ("INPUT", "OUTPUT"):
                lab.operator.run(program, "-P", chain, "ACCEPT")
                lab.operator.run(program, "-F", chain)
        yield


def test_an_open_namespace_is_found_out(shared: tuple[Lab, Gateway]) -> None:
    """With everything opened by another program, the trials say which ways lead out.

    Control: the capture outside sees the command's packets leave.
    """
    lab, gateway = shared
    with opened(lab, gateway):
        code, tried = trials(gateway)
    assert code == 1
    assert lab.capture.containing("portcullis-")
    for way in (
        "IPv4 bound to eth0, UDP",
        "IPv4 by a packet socket on eth0",
        "IPv6 by a packet socket on eth0",
        "IPv6 by a packet socket on eth0, without queue",
        "DNS over UDP at 127.0.0.11",
        "DNS over UDP at 172.30.0.1 by eth0",
        "rules and routes, read back",
    ):
        assert not tried[way]["ok"], way


@pytest.mark.promise("P15")
def test_a_cut_tunnel_that_leaks_is_found_out(shared: tuple[Lab, Gateway]) -> None:
    """The opened namespace stays open, and what is sent meanwhile leaves in both families.

    Control: the capture outside sees the packets after the tunnel's interface has gone.
    """
    lab, gateway = shared
    with opened(lab, gateway):
        code, tried = trials(gateway, "--cut")
        # The cut comes last, and lasts as long while it is not noticed.
        seen = lab.capture.containing("portcullis-", time.monotonic() - RED_WITHIN)
        assert INTERFACE not in lab.operator.run("ip", "-o", "link")
    assert code == 1
    assert {frame.destination for frame in seen} == set(map(str, TARGETS.values())), "control"
    assert not tried["tunnel cut while sending"]["ok"]
    assert tried["tunnel cut while sending"]["happened"].endswith("frames LEFT")
    assert not tried["noticed"]["ok"]


@pytest.mark.parametrize(
    ("damage", "reported_by"),
    [
        *(
            (damage, "rules of {firewall}")
            for damage in (
                {
                    "iptables": "iptables-legacy -P OUTPUT ACCEPT",
                    "nftables": "nft delete table inet portcullis",
                },
                {
                    "iptables": "ip6tables-legacy -P FORWARD ACCEPT",
                    "nftables": "nft flush chain inet portcullis forward",
                },
                {
                    "iptables": "ip6tables-legacy -I OUTPUT -o eth0 -j ACCEPT",
                    "nftables": "nft insert rule inet portcullis output oifname eth0 accept",
                },
                {
                    "iptables": "iptables-legacy -F OUTPUT",
                    "nftables": "nft flush chain inet portcullis output",
                },
                {
                    "iptables": "iptables-legacy -t mangle -I OUTPUT -j MARK --set-mark 1",
                    "nftables": "nft insert rule inet portcullis output_mark meta mark set 1",
                },
            )
        ),
        ("nft delete table netdev portcullis_guard", "egress guard"),
        ("nft flush chain netdev portcullis_guard egress-eth0", "egress guard"),
        ("ip rule del priority 150", "routes and policy rules"),
        ("ip -6 rule add priority 10 table main", "routes and policy rules"),
        ("ip -6 route del unreachable default table 51820", "routes and policy rules"),
        ("sysctl -w net.ipv4.conf.eth0.arp_ignore=0", "settings of eth0"),
    ],
)
def test_what_is_otherwise_in_the_kernel_is_read_back(
    shared: tuple[Lab, Gateway], damage: str | dict[str, str], reported_by: str
) -> None:
    """It has not been reverted yet, and no word of the gateway is needed to see it.

    Control: before the damage everything is as it should be.
    """
    lab, gateway = shared
    assert wrong(lab, gateway) == [], "control"
    reported = gateway.status().body
    typed = damage if isinstance(damage, str) else damage[reported["firewall"]]
    with stopped(lab, gateway):
        lab.operator.run(*typed.split())
        found = wrong(lab, gateway, reported)
    lines = {line.tried for line in found}
    wanted = {f"{reported_by.format(firewall=reported['firewall'])}, read back"}
    # The guard's mark goes with the rules that give it.
    assert wanted <= lines <= wanted | {"egress guard, read back"}


def wrong(lab: Lab, gateway: Gateway, reported: dict[str, Any] | None = None) -> list[Line]:
    """Compare what the kernel holds, as the command does, with what health has `reported`."""
    config = assemble.load(gateway.environment).config
    answer = answer_from(reported or gateway.status().body)

    def look_and_compare() -> list[Line]:
        lines = compared(config, answer, look(config, answer, Places()), Places())
        return [line for line in lines if not line.ok]

    return lab.gateway_namespace.inside(look_and_compare)


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_it_knows_which_of_several_servers_is_connected(backend: str) -> None:
    """The first one is dead; the trials are about the second, and rules are compared with its."""
    with Lab(servers=2) as lab:
        first, second = lab.servers
        second.preshared_key = first.preshared_key
        second.restart()
        first.cut()
        gateway = lab.gateway()
        gateway.start(
            gateway.env(
                WIREGUARD_ENDPOINT_IP=None,
                WIREGUARD_ENDPOINT_PORT=None,
                WIREGUARD_PUBLIC_KEY=None,
                WIREGUARD_ENDPOINTS=",".join(
                    f"[{s.endpoint.ipv6}]:{s.port}@{s.keys.public}" for s in lab.servers
                ),
                FIREWALL_BACKEND=backend,
            )
        )
        gateway.wait_healthy(timeout=30)
        code, tried = trials(gateway)
        assert code == 0, tried
        assert tried[f"rules of {backend}, read back"]["ok"]
        assert f"to the server [{second.endpoint.ipv6}]:{second.port}, bound to eth0" in tried
        assert not [way for way in tried if first.endpoint.ipv6 in way]
