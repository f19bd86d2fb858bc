"""The gateway passes the forwarded port to a real torrent client, also in a vault."""

import signal
from pathlib import Path

import pytest

from tests.lab.gateway import Gateway
from tests.lab.internet import OUTSIDER
from tests.lab.process import eventually
from tests.lab.server import CLIENT
from tests.lab.topology import Lab
from tests.lab.torrent import PASSWORD, USER, QBittorrent, Transmission
from tests.promises.stages import in_tunnel
from tests.promises.test_vault_gateway import Site

pytestmark = pytest.mark.lab

PORT, OTHER = 51500, 51501
LOGIN = "/run/secrets/forwarded_port_client_password"
PORTS_FILE = "/run/secrets/firewall_vpn_input_ports"
WRONG = "not-that-one-either"


def passed_on(gateway: Gateway, port: int) -> None:
    """Wait until the gateway says that the client has `port`."""
    eventually(
        lambda: gateway.events(event="port passed on", port=port),
        timeout=15,
        what=f"port {port}: {gateway.logs()}",
    )


def shown_of(pid: int) -> bytes:
    """Return the arguments and the environment of a process."""
    return b"".join(Path(f"/proc/{pid}/{it}").read_bytes() for it in ("cmdline", "environ"))


@pytest.mark.promise("P9")
@pytest.mark.promise("P16")
def test_a_stranger_reaches_the_client_at_the_forwarded_port(lab: Lab) -> None:
    """The client comes after the gateway, and follows when the port changes.

    A wrong password is reported, and a corrected one is tried at once.
    The control is the same call before the client has its port. Limitations: the port is listed.
    """
    gateway, stranger = lab.gateway(), {"host": lab.server.exit.ipv4, "source": OUTSIDER.ipv4}
    gateway.write(LOGIN, PASSWORD)
    gateway.write(PORTS_FILE, f"{PORT}\n{OTHER}/udp")
    gateway.start(gateway.env(FORWARDED_PORT_CLIENT="qbittorrent"))
    assert gateway.wait() == 2, "two ports are listed"
    gateway.write(PORTS_FILE, str(PORT))
    chosen = gateway.env(FORWARDED_PORT_CLIENT="qbittorrent", FORWARDED_PORT_CLIENT_USER=USER)
    gateway.start(chosen).wait_healthy()
    lab.server.forward_port(PORT)
    assert lab.internet.probe("tcp", port=PORT, timeout=0.5, **stranger).result == "refused"
    client = QBittorrent(lab.gateway_namespace, lab.household).start()
    passed_on(gateway, PORT)
    assert lab.internet.probe("tcp", port=PORT, timeout=0.5, **stranger).result == "connected"
    report = next(it for it in gateway.status().body["services"] if it["name"] == "port client")
    assert report["is_running"]
    assert report["text"] == f"qBittorrent listens at {PORT}"

    gateway.write(PORTS_FILE, str(OTHER))
    gateway.signal(signal.SIGHUP)
    passed_on(gateway, OTHER)
    lab.server.forward_port(OTHER)
    assert lab.internet.probe("tcp", port=OTHER, timeout=0.5, **stranger).result == "connected"
    assert not client.listens(PORT)

    children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text("ascii").split()
    talks = [it for it in map(int, children) if b"port_client.process" in shown_of(it)]
    assert len(talks) == 1
    assert not any(PASSWORD.encode() in shown_of(it) for it in map(int, children))
    status = Path(f"/proc/{talks[0]}/status").read_text("ascii")
    assert "CapEff:\t0000000000000000" in status
    assert "Seccomp:\t2" in status
    assert "Uid:\t65534\t65534" in status

    gateway.write(LOGIN, WRONG)
    client.kill()
    client.start()
    gateway.signal(signal.SIGHUP)
    said = eventually(
        lambda: [
            it for it in gateway.events(event="port not passed on") if "user" in it["problem"]
        ],
        timeout=10,
        what="the refusal",
    )
    assert "FORWARDED_PORT_CLIENT_PASSWORD" in said[0]["remedy"]
    health = gateway.status()
    assert health.code == 200
    assert any("qBittorrent does not accept" in it["text"] for it in health.body["limits"])
    for secret in (PASSWORD, WRONG):
        assert secret not in gateway.logs(all_starts=True)
        assert secret not in str(health.body)
        assert secret not in gateway.execute(*gateway.argv, "check")[1]
    gateway.write(LOGIN, PASSWORD)
    gateway.signal(signal.SIGHUP)
    eventually(
        lambda: len(gateway.events(event="port passed on", port=OTHER)) == 2,
        timeout=10,
        what="the right password",
    )


@pytest.mark.promise("P9")
def test_a_client_in_a_vault_gets_the_port(lab: Lab) -> None:
    """The gateway cannot enter the vault, and the process that asks the client is not in there."""
    site, caller = Site(lab), in_tunnel(lab)
    Transmission(lab.vault_namespace, lab.household).start()
    site.gateway.write(LOGIN, PASSWORD)
    chosen = {"FORWARDED_PORT_CLIENT": "transmission", "FORWARDED_PORT_CLIENT_USER": USER}
    site.start(**chosen, FIREWALL_VPN_INPUT_PORTS=str(PORT))
    passed_on(site.gateway, PORT)
    answer = caller.probe("tcp", host=CLIENT.ipv4, port=PORT, timeout=0.5)
    assert answer.result == "connected"
