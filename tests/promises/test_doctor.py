"""`gateway doctor` next to a gateway: what it reports, and that no secret is in it."""

import sys

import pytest

from gateway.commands.doctor.hiding import label
from tests.lab.gateway import Gateway
from tests.lab.topology import Lab
from tests.promises.test_p16_secrets import environment_of, leaks_key
from tests.promises.test_vault_gateway import Site
from tests.promises.test_vault_holes import HOLES

pytestmark = [pytest.mark.lab, pytest.mark.promise("P16")]

SECRETS = {
    "OPENVPN_USER": "p7654321",
    "OPENVPN_PASSWORD": "correct-horse-battery",
    "VPN_UP_COMMAND": "sh -c 'echo 94f1-hook-token'",
}
CANARIES = ("p7654321", "correct-horse-battery", "94f1-hook-token")
UNREAD = "(could not be read"


def doctor(gateway: Gateway) -> str:
    """Run the command as `docker exec` does, and return the report, which has no secret."""
    code, text = gateway.execute(sys.executable, "-m", "gateway", "doctor")
    assert code == 0
    assert [canary for canary in CANARIES if canary in text] == []
    return text


def part(text: str, title: str) -> str:
    """Return the lines of a part."""
    return text.partition(f"\n## {title}\n\n")[2].partition("\n\n## ")[0]


@pytest.mark.both_firewalls
def test_everything_is_reported_and_no_secret_is(lab: Lab) -> None:
    """With the capabilities of the container. Control: its environment has the secrets."""
    gateway = lab.gateway()
    environment = gateway.env(**SECRETS)
    gateway.start(environment)
    gateway.wait_healthy()
    assert all(canary in str(environment) for canary in CANARIES)
    text = doctor(gateway)
    assert not leaks_key(lab, text)
    assert UNREAD not in text
    assert "connected for " in part(text, "Status")
    assert "WIREGUARD_ADDRESSES" in part(text, "Configuration, as `gateway check` reports it")
    assert "NET_ADMIN" in part(text, "Processes")
    assert f"endpoint {lab.server.endpoint.ipv4}:{lab.server.port}" in part(text, "WireGuard")
    assert "private key: set" in part(text, "WireGuard")
    assert "eth0" in part(text, "Links")
    assert "unreachable 0.0.0.0/0" in part(text, "Routes")
    assert "fwmark 0x80000000/0x80000000" in part(text, "Policy rules")
    firewall = gateway.status().body["firewall"]
    rules = part(text, "Legacy tables" if firewall == "iptables" else "Rules, nftables")
    assert "P1 nothing else leaves" in rules
    assert "eth0:" in part(text, "Counters")
    assert f"peer {label(lab.server.keys.public)}" in part(text, "WireGuard")


def test_it_reports_why_a_gateway_does_not_start(lab: Lab) -> None:
    """The namespace is closed, and nothing answers: the problem is there, and no key."""
    gateway = lab.gateway()
    gateway.start(gateway.env(WIREGUARD_ADDRESSES="10.0.0.300/32", **SECRETS))
    assert gateway.wait() == 2
    text = doctor(gateway)
    assert "'10.0.0.300/32' is not an address" in text
    assert "no answer from the gateway" in part(text, "Status")
    assert "P1 nothing else leaves" in text
    assert not leaks_key(lab, text)


def test_it_needs_no_capability(lab: Lab) -> None:
    """What takes one says so, and the rest is there."""
    bare = lab.gateway(capabilities=[])
    code, text = bare.container.execute([*bare.argv, "doctor"], main=0, env=environment_of(bare))
    assert code == 0, text
    assert UNREAD in part(text, "WireGuard")
    assert "1: lo" in part(text, "Links")
    assert "WIREGUARD_ADDRESSES" in text
    assert not leaks_key(lab, text)


def test_a_vault_has_parts_of_its_own(lab: Lab) -> None:
    """Run where the gateway runs: both namespaces, and the tunnel in the vault."""
    site = Site(lab).start(**HOLES)
    text = doctor(site.gateway)
    assert UNREAD not in text
    assert not leaks_key(lab, text)
    assert "wg0" in part(text, "Links of the vault")
    assert "eth0" in part(text, "Links")
    assert "P1 nothing else leaves" in part(text, "Rules of the vault, nftables")
    assert "last handshake" in part(text, "WireGuard")


def test_in_a_vault_it_reports_what_is_there(lab: Lab) -> None:
    """Its container has no configuration, and the gateway's health server is elsewhere."""
    site = Site(lab).start(**HOLES)
    text = doctor(site.vault)
    assert not leaks_key(lab, text)
    assert "This configuration is refused" in text
    assert "P1 nothing else leaves" in part(text, "Rules, nftables")
    assert "wg0" in part(text, "Links")
    assert "of the vault" not in text
