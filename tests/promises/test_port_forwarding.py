"""Forwarded ports (P9): asked for in the tunnel, open exactly while the server gives them.

Strangers on the lab's internet call the exit's address; a workload listens. The server is
`tests.lab.port_server`, or a real miniupnpd.
"""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from gateway.firewall.nft.firewall import FORWARDED
from gateway.model import INTERFACE
from tests.lab.gateway import Gateway
from tests.lab.hosts import echo
from tests.lab.internet import OUTSIDER
from tests.lab.ports import PORT, PortServer, mapped_by, start_miniupnpd
from tests.lab.process import PATIENCE, LabError, eventually
from tests.lab.server import CLIENT, INSIDE
from tests.lab.topology import Lab
from tests.lab.workload import Workload
from tests.promises.stages import in_tunnel
from tests.promises.test_vault_gateway import Site as Vaulted
from tests.promises.test_verify import VERIFY

pytestmark = [pytest.mark.lab, pytest.mark.promise("P9")]

FIRST, SECOND, LISTENING, OTHER = 41000, 42000, 6881, 43000
KINDS = ("tcp", "udp")
WAIT = 0.4 * PATIENCE
SOON = 15.0
SHORT = 12
"""Seconds of the shortest leases here, which are renewed after 9."""
ANSWERED = dict.fromkeys(KINDS, OUTSIDER.ipv4)
SILENT = dict.fromkeys(KINDS, "timeout")
PROTON = {
    "VPN_PORT_FORWARDING_PROVIDER": "protonvpn",
    "VPN_PORT_FORWARDING_GATEWAY": INSIDE.ipv4,
}


class Site:
    """A gateway that asks for ports, and its workloads: in one namespace, or with a vault."""

    def __init__(self, lab: Lab, gateway: Gateway, workload: Workload) -> None:
        self.lab, self.gateway, self.workload = lab, gateway, workload
        self.status = lab.household.file("forwarded_port")

    def start(self, **changes: str | None) -> "Site":
        """Start the gateway, and wait until it is connected."""
        wanted: dict[str, str | None] = {
            "VPN_PORT_FORWARDING": "on",
            "VPN_PORT_FORWARDING_STATUS_FILE": str(self.status),
        }
        self.gateway.start(self.gateway.env(**(wanted | changes))).wait_healthy()
        return self

    def ports(self) -> list[int]:
        """Return the ports that health lists."""
        return [it["port"] for it in self.gateway.status().body.get("forwarded_ports", [])]

    def wait_for(self, *ports: int, timeout: float = SOON) -> None:
        """Wait until health lists these ports and no others, and the file has them."""
        try:
            eventually(lambda: self.ports() == [*ports], timeout=timeout, what=f"ports {ports}")
            text = "\n".join(map(str, ports))
            eventually(lambda: self.written() == text, timeout=SOON, what=f"{text!r} in the file")
        except Exception as err:
            raise AssertionError(f"{err}\n{self.gateway.logs()[-3000:]}") from err

    def limit(self) -> str:
        """Return what health says about the service, if it does not work."""
        found = self.gateway.status().body.get("limits", [])
        return "".join(it["text"] for it in found if it["code"] == "service_not_working")

    def ordered(self, order: str) -> None:
        """Ask the gateway to pause or to resume."""
        code, said = self.gateway.execute(sys.executable, "-m", "gateway", order)
        if code:
            raise LabError(said)

    def written(self) -> str:
        """Return the text of the status file."""
        return self.status.read_text("ascii") if self.status.exists() else ""

    def calls(self, port: int, host: str = "") -> dict[str, str]:
        """Call `port` of the exit as a stranger; return who was seen, or what came of it."""
        asked = {
            "host": host or self.lab.server.exit.ipv4,
            "source": OUTSIDER.ipv4,
            "timeout": WAIT,
        }
        found = {kind: self.lab.internet.probe(kind, port=port, **asked) for kind in KINDS}
        return {kind: answer.seen or answer.result for kind, answer in found.items()}

    def serve(self, *ports: int) -> None:
        """Have a workload listen at `ports` of the tunnel's address."""
        self.workload.serve(*[echo(CLIENT.ipv4, port) for port in ports])

    def forward_also(self, port: int) -> None:
        """Have the server forward `port` without a lease."""
        self.lab.server.forward_port(port)


@pytest.fixture(params=["shared", "vault"])
def site(request: pytest.FixtureRequest, lab: Lab) -> Site:
    """Return a site in each layout, without a running gateway."""
    if request.param == "shared":
        return Site(lab, lab.gateway(), lab.workload)
    return Site(lab, Vaulted(lab).gateway, lab.vault_workload)


@pytest.fixture
def shared(lab: Lab) -> Site:
    """Return a site in one namespace, without a running gateway."""
    return Site(lab, lab.gateway(), lab.workload)


def test_a_stranger_reaches_a_workload_by_the_forwarded_port_and_no_other(site: Site) -> None:
    """While the tunnel lasts. The server forwards another port as well, and that stays silent."""
    lab = site.lab
    PortServer(lab, ports=[FIRST], at_public=True)
    site.start(**PROTON).wait_for(FIRST)
    site.serve(FIRST, OTHER)
    site.forward_also(OTHER)
    assert site.calls(FIRST) == ANSWERED
    assert site.calls(OTHER) == SILENT
    assert lab.leaks(site.gateway.started_at + 1) == []
    code, said = site.gateway.execute(*VERIFY)
    assert code == 0, said
    namespace = site.workload.namespace
    site.ordered("pause")
    site.wait_for()
    site.ordered("resume")
    site.gateway.wait_healthy()
    site.wait_for(FIRST)
    lab.server.cut()
    namespace.run("ip", "link", "del", INTERFACE)
    site.wait_for()
    lab.server.restore()
    site.gateway.wait_healthy()
    site.wait_for(FIRST)
    eventually(lambda: site.calls(FIRST) == ANSWERED, timeout=SOON, what="the port again")


def test_a_port_that_changes_is_followed_and_one_that_ends_is_closed(shared: Site) -> None:
    """The old port is closed; the commands run without a shell, with the ports."""
    site, lab = shared, shared.lab
    server = PortServer(lab, ports=[FIRST, SECOND], lifetime=SHORT)
    said = lab.household.file("said")
    program = lab.household.file("say")
    program.write_text(f'#!/bin/sh\necho "$@" >> {said}\n', "ascii")
    program.chmod(0o755)
    command = f"{program} %s {{{{PORTS}}}} {{{{PORT}}}} {{{{VPN_INTERFACE}}}}"
    site.start(
        VPN_PORT_FORWARDING_UP_COMMAND=command % "up",
        VPN_PORT_FORWARDING_DOWN_COMMAND=command % "down",
    ).wait_for(FIRST)
    site.serve(FIRST, SECOND)
    assert site.calls(FIRST) == ANSWERED
    server.set(generation=1)
    site.wait_for(SECOND)
    assert site.calls(SECOND) == ANSWERED
    site.forward_also(FIRST)
    assert site.calls(FIRST) == SILENT
    server.set(silent=True)
    site.wait_for(timeout=SOON + SHORT)
    site.forward_also(SECOND)
    assert site.calls(SECOND) == SILENT
    lines = [f"up {FIRST} {FIRST} wg0", f"down {FIRST} {FIRST} wg0"]
    lines += [f"up {SECOND} {SECOND} wg0", f"down {SECOND} {SECOND} wg0"]
    eventually(lambda: said.read_text("ascii").splitlines() == lines, timeout=SOON, what=str(lines))
    eventually(lambda: "does not answer" in site.limit(), timeout=SOON, what="the reason")
    assert site.gateway.status().code == 200


@pytest.mark.both_firewalls
@pytest.mark.promise("P17")
def test_what_arrives_goes_to_the_port_where_workloads_listen(site: Site) -> None:
    """And nothing reaches that one that was not redirected, but the answers of what began here.

    A table that another program takes away is put back.
    """
    lab = site.lab
    PortServer(lab, ports=[FIRST], at_public=True)
    site.start(VPN_PORT_FORWARDING_LISTENING_PORTS=str(LISTENING), **PROTON).wait_for(FIRST)
    site.serve(LISTENING, FIRST)
    assert site.calls(FIRST) == ANSWERED
    site.forward_also(LISTENING)
    assert site.calls(LISTENING) == SILENT
    code, said = site.gateway.execute(*VERIFY)
    assert code == 0, said
    answer = in_tunnel(lab).probe("udp", host=CLIENT.ipv4, port=FIRST)
    assert answer.seen == INSIDE.ipv4, "by the port that is forwarded"
    for kind in KINDS:
        direct = in_tunnel(lab).probe(kind, host=CLIENT.ipv4, port=LISTENING, timeout=WAIT)
        assert direct.result == "timeout", kind
    site.workload.namespace.run("nft", "delete", "table", *FORWARDED.split())
    eventually(lambda: site.calls(FIRST) == ANSWERED, timeout=SOON, what="the table again")


@pytest.mark.parametrize("protocol", ["natpmp", "pcp"])
def test_a_real_server_gives_a_port_and_gets_it_back(shared: Site, protocol: str) -> None:
    """miniupnpd, by each protocol. At the end the mapping is deleted, and the file is empty."""
    site, lab = shared, shared.lab
    host = start_miniupnpd(lab)
    site.start(VPN_PORT_FORWARDING_PROVIDER=protocol)
    (port,) = eventually(site.ports, timeout=SOON, what="a port")
    site.wait_for(port)
    site.serve(port)
    assert site.calls(port, host) == ANSWERED
    assert mapped_by(lab) == {("tcp", port), ("udp", port)}
    site.gateway.stop()
    assert site.written() == ""
    eventually(lambda: not mapped_by(lab), timeout=SOON, what="the end of the mapping")


def process_for_ports(gateway: Gateway) -> int:
    """Return the process that asks for ports."""

    def found() -> int | None:
        children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text("ascii")
        for pid in map(int, children.split()):
            if b"mapping_process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        return None

    return eventually(found, timeout=SOON, what="the process for ports")


def test_the_process_may_flood_hang_or_die_and_is_without_rights(shared: Site) -> None:
    """No rule depends on it: the port is open meanwhile, and kept by the next process."""
    site, lab = shared, shared.lab
    server = PortServer(lab, ports=[FIRST], flood=200)
    site.start().wait_for(FIRST)
    site.serve(FIRST)
    pid = process_for_ports(site.gateway)
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    fields = dict(it.split(":\t", 1) for it in status.splitlines() if ":\t" in it)
    assert fields["Uid"].split() == ["65534"] * 4
    assert {int(fields[name], 16) for name in ("CapPrm", "CapEff", "CapAmb")} == {0}
    os.kill(pid, signal.SIGSTOP)
    assert site.calls(FIRST) == ANSWERED
    os.kill(pid, signal.SIGKILL)
    assert site.calls(FIRST) == ANSWERED
    asked = len(server.requests())
    eventually(lambda: len(server.requests()) >= asked + 2, timeout=SOON, what="new requests")
    assert process_for_ports(site.gateway) != pid
    assert site.ports() == [FIRST]


@pytest.mark.promise("P4")
def test_requests_never_leave_outside_the_tunnel(site: Site) -> None:
    """Not while the tunnel comes and goes either. The control are those that the server gets."""
    lab = site.lab
    server = PortServer(lab, silent=True)
    control = lab.workload.probe("udp", host=INSIDE.ipv4, port=PORT, device="eth0", marker="seen")
    del control
    assert lab.capture.containing("seen"), "control: it is seen outside, without a gateway"
    site.start()
    eventually(lambda: len(server.requests()) > 2, timeout=SOON, what="requests in the tunnel")
    since = time.monotonic()
    for _ in range(3):
        site.workload.namespace.run("ip", "link", "del", INTERFACE)
        site.gateway.wait_unhealthy()
        site.gateway.wait_healthy()
        asked = len(server.requests())
        eventually(lambda n=asked: len(server.requests()) > n, timeout=SOON, what="more requests")
    site.gateway.kill()
    lab.capture.quiet_for(0.5)
    assert lab.leaks(since) == []
