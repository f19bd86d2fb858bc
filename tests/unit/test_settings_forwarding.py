"""The variables of forwarded ports: whether and how a server is asked follows from all of them."""

from pathlib import Path

import pytest

from gateway.commands.check.explain import explain
from gateway.model.forwarding import STATUS_FILE, ForwarderKind, Forwarding
from gateway.settings import assemble
from gateway.settings.assemble import Loaded
from tests.configurations import COMPLETE, problems, reported

ON = {**COMPLETE, "VPN_PORT_FORWARDING": "on", "VPN_PORT_FORWARDING_GATEWAY": "10.9.9.9"}
PROTON = {
    **COMPLETE,
    "WIREGUARD_ADDRESSES": "10.2.0.2/32",
    "DNS_ADDRESS": "10.2.0.1",
    "VPN_PORT_FORWARDING": "on",
}


def load(tmp_path: Path, environ: dict[str, str]) -> Loaded:
    """Return the configuration."""
    return assemble.load(environ, tmp_path)


def wanted(tmp_path: Path, environ: dict[str, str]) -> Forwarding:
    """Return what is asked for."""
    found = load(tmp_path, environ).config.forwarding
    assert found
    return found


def test_nothing_is_asked_for_by_default(tmp_path: Path) -> None:
    """A variable that depends on the switch is reported; not where that is off."""
    assert load(tmp_path, COMPLETE).config.forwarding is None
    alone = {**COMPLETE, "VPN_PORT_FORWARDING_PORTS_COUNT": "2"}
    assert "has no effect without VPN_PORT_FORWARDING=on" in reported(load(tmp_path, alone))
    off = load(tmp_path, alone | {"VPN_PORT_FORWARDING": "off"})
    assert "VPN_PORT_FORWARDING" not in reported(off)


def test_the_defaults_are_those_of_gluetun(tmp_path: Path) -> None:
    """One port, and its file."""
    found = wanted(tmp_path, ON)
    assert found.kind is ForwarderKind.NATPMP
    assert (found.count, found.listening, found.status_file) == (1, (), STATUS_FILE)
    assert STATUS_FILE == "/tmp/gluetun/forwarded_port"  # noqa: S108 - of users


def test_all_of_them_are_read(tmp_path: Path) -> None:
    """As people write them for other images too, with the templates as they are."""
    environ = {
        **ON,
        "VPN_PORT_FORWARDING_PROVIDER": "PCP",
        "VPN_PORT_FORWARDING_LISTENING_PORTS": "6881, 6882",
        "VPN_PORT_FORWARDING_PORTS_COUNT": "2",
        "VPN_PORT_FORWARDING_STATUS_FILE": "/shared/port",
        "VPN_PORT_FORWARDING_UP_COMMAND": '/bin/sh -c "echo {{PORTS}} {{VPN_INTERFACE}} > /x"',
        "VPN_PORT_FORWARDING_DOWN_COMMAND": "/bin/say {{PORT}}",
    }
    found = wanted(tmp_path, environ)
    assert (found.kind, found.count, found.listening) == (ForwarderKind.PCP, 2, (6881, 6882))
    assert str(found.gateway) == "10.9.9.9"
    assert found.status_file == "/shared/port"
    assert found.up_command == ("/bin/sh", "-c", "echo {{PORTS}} wg0 > /x")
    assert found.down_command == ("/bin/say", "{{PORT}}")
    assert "/bin/say" not in repr(found)


@pytest.mark.parametrize("name", ["PORT_FORWARDING", "PRIVATE_INTERNET_ACCESS_VPN_PORT_FORWARDING"])
def test_older_names_work(tmp_path: Path, name: str) -> None:
    """Those of gluetun, of the file too."""
    environ = {k: v for k, v in ON.items() if k != "VPN_PORT_FORWARDING"}
    environ |= {name: "on", f"{name}_STATUS_FILE": "/x/port"}
    environ |= {"VPN_PORT_FORWARDING_LISTENING_PORT": "6881"}
    found = wanted(tmp_path, environ)
    assert (found.status_file, found.listening) == ("/x/port", (6881,))


def test_a_listening_port_of_0_and_no_file_are_none(tmp_path: Path) -> None:
    """As gluetun's image sets them."""
    environ = ON | {"VPN_PORT_FORWARDING_LISTENING_PORT": "0"}
    found = wanted(tmp_path, environ | {"VPN_PORT_FORWARDING_STATUS_FILE": "off"})
    assert (found.listening, found.status_file) == ((), "")


def test_check_shows_how_the_server_is_asked(tmp_path: Path) -> None:
    """With the host, which is not written anywhere; nothing of it without the switch."""
    rows = [*map(str.split, explain(load(tmp_path, PROTON)).splitlines())]
    shown = {row[0]: row[1] for row in rows if row and row[0].startswith("VPN_PORT_FORWARDING")}
    assert shown == {
        "VPN_PORT_FORWARDING_PROVIDER": "protonvpn",
        "VPN_PORT_FORWARDING_GATEWAY": "10.2.0.1",
        "VPN_PORT_FORWARDING_LISTENING_PORTS": "none",
        "VPN_PORT_FORWARDING_PORTS_COUNT": "1",
        "VPN_PORT_FORWARDING_STATUS_FILE": STATUS_FILE,
        "VPN_PORT_FORWARDING_UP_COMMAND": "none",
        "VPN_PORT_FORWARDING_DOWN_COMMAND": "none",
    }
    assert "PORT_FORWARDING" not in explain(load(tmp_path, COMPLETE))


def test_as_many_ports_are_asked_for_as_listen(tmp_path: Path) -> None:
    """Unless their number is set."""
    several = ON | {"VPN_PORT_FORWARDING_LISTENING_PORTS": "1,2,3"}
    assert wanted(tmp_path, several).count == 3
    loaded = load(tmp_path, several | {"VPN_PORT_FORWARDING_PORTS_COUNT": "2"})
    assert loaded.config.forwarding
    assert loaded.config.forwarding.listening == (1, 2)
    assert "the others have no effect" in reported(loaded)


def test_proton_vpn_is_known_by_its_name_or_its_addresses(tmp_path: Path) -> None:
    """Its files are often used with VPN_SERVICE_PROVIDER=custom."""
    assert wanted(tmp_path, PROTON).kind is ForwarderKind.PROTONVPN
    assert wanted(tmp_path, ON | {"VPN_SERVICE_PROVIDER": "protonvpn"}).kind is (
        ForwarderKind.PROTONVPN
    )
    chosen = ON | {"VPN_PORT_FORWARDING_PROVIDER": "protonvpn"}
    assert wanted(tmp_path, chosen).kind is ForwarderKind.PROTONVPN
    other = PROTON | {"VPN_PORT_FORWARDING_PROVIDER": "natpmp"}
    assert wanted(tmp_path, other).kind is ForwarderKind.NATPMP


@pytest.mark.parametrize("name", ["perfect privacy", "privatevpn"])
def test_a_provider_that_cannot_be_asked_is_said_so(tmp_path: Path, name: str) -> None:
    """The tunnel works all the same, as it did before."""
    loaded = load(tmp_path, ON | {"VPN_PORT_FORWARDING_PROVIDER": name})
    assert loaded.config.forwarding is None
    assert "has no effect" in reported(loaded)


def test_private_internet_access_signs_ports(tmp_path: Path) -> None:
    """Also before its list is there; it gives one port, and not every server does."""
    login = {"OPENVPN_USER": "p1234567", "OPENVPN_PASSWORD": "correct"}
    environ = {"VPN_SERVICE_PROVIDER": "pia", **login, "VPN_PORT_FORWARDING": "on"}
    many = {"VPN_PORT_FORWARDING_PORTS_COUNT": "3", "VPN_PORT_FORWARDING_GATEWAY": "10.9.9.9"}
    loaded = load(tmp_path, environ | many)
    assert loaded.config.forwarding
    found = loaded.config.forwarding
    assert (found.kind, found.count) == (ForwarderKind.SIGNED, 1)
    said = reported(loaded)
    assert "VPN_PORT_FORWARDING_PORTS_COUNT: has no effect" in said
    assert "VPN_PORT_FORWARDING_GATEWAY: has no effect" in said
    assert "set PORT_FORWARD_ONLY=on" in said
    assert "set PORT_FORWARD_ONLY=on" not in reported(
        load(tmp_path, environ | {"PORT_FORWARD_ONLY": "on"})
    )


def test_signed_ports_take_a_key_that_the_gateway_has_registered(tmp_path: Path) -> None:
    """A tunnel of the user's own file has no token."""
    loaded = load(tmp_path, ON | {"VPN_PORT_FORWARDING_PROVIDER": "private internet access"})
    assert loaded.config.forwarding is None
    assert "set VPN_SERVICE_PROVIDER=private internet access" in reported(loaded)


def test_a_tunnel_that_does_not_say_which_host_is_asked_is_refused(tmp_path: Path) -> None:
    """The host would learn that a port is wanted, so it is not guessed."""
    bare = {k: v for k, v in COMPLETE.items() if k != "DNS_ADDRESS"}
    bare |= {"WIREGUARD_ADDRESSES": "10.64.0.2/32", "VPN_PORT_FORWARDING": "on"}
    (problem,) = problems(bare, tmp_path)
    assert problem.startswith("VPN_PORT_FORWARDING_GATEWAY: ")
    of_ipv6 = bare | {"WIREGUARD_ADDRESSES": "fd00::2/128"}
    (problem,) = problems(of_ipv6, tmp_path)
    assert "over IPv4" in problem
