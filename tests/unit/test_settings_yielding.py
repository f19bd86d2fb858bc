"""Variables next to a file that has all that is needed: they decide nothing and stop nothing."""

from pathlib import Path

import pytest

from gateway.model import Secret
from gateway.settings import assemble
from tests.configurations import (
    COMPLETE,
    OTHER_PRIVATE,
    PRESHARED,
    PRIVATE,
    PUBLIC,
    QUICK,
    problems,
    put,
    reported,
)

FILE = "/config/wg0.conf"
WITH_PRESHARED = QUICK.replace("AllowedIPs", f"PresharedKey = {PRESHARED}\nAllowedIPs")


@pytest.mark.parametrize("name", ["mullvad", "Private Internet Access", "vpnsecure.me"])
def test_a_named_provider_next_to_a_file_stops_nothing(tmp_path: Path, name: str) -> None:
    """The file names the server, so the name decides nothing."""
    put(tmp_path, FILE, QUICK)
    loaded = assemble.load({"VPN_SERVICE_PROVIDER": name}, tmp_path)
    assert loaded.config.tunnels[0].private_key == Secret(OTHER_PRIVATE)
    said = f"VPN_SERVICE_PROVIDER: '{name.lower()}' decides nothing, because {FILE} names the"
    assert said in reported(loaded)


def test_a_named_provider_next_to_a_server_in_variables_stops_nothing(tmp_path: Path) -> None:
    """The server is given in full."""
    loaded = assemble.load({**COMPLETE, "VPN_SERVICE_PROVIDER": "mullvad"}, tmp_path)
    assert loaded.config == assemble.load(COMPLETE, tmp_path).config
    assert "'mullvad' decides nothing, because other variables name the server" in reported(loaded)


def test_custom_is_not_reported(tmp_path: Path) -> None:
    """It means what is done anyway."""
    put(tmp_path, FILE, QUICK)
    loaded = assemble.load({"VPN_SERVICE_PROVIDER": "Custom"}, tmp_path)
    assert "VPN_SERVICE_PROVIDER" not in reported(loaded)


def test_a_named_provider_without_a_server_is_one_problem(tmp_path: Path) -> None:
    """Its remedy is one file, which has all else that is missing."""
    environ = {"VPN_SERVICE_PROVIDER": "expressvpn", "WIREGUARD_PRIVATE_KEY": PRIVATE}
    (problem,) = problems(environ, tmp_path)
    assert problem.startswith("VPN_SERVICE_PROVIDER: 'expressvpn' is not a provider whose")
    assert "mount that at /config/wg0.conf" in problem


def test_a_file_without_a_server_still_needs_one(tmp_path: Path) -> None:
    """Control: the name of a provider does not make up for it."""
    put(tmp_path, FILE, "\n".join(line for line in QUICK.splitlines() if "Endpoint" not in line))
    (problem,) = problems({"VPN_SERVICE_PROVIDER": "mullvad"}, tmp_path)
    assert problem.startswith(f"{FILE} line 6: has a [Peer] without Endpoint")


PLACEHOLDERS = {
    "WIREGUARD_PRIVATE_KEY": "put-yours-here",
    "WIREGUARD_ADDRESSES": "<address>",
    "WIREGUARD_PUBLIC_KEY": "changeme",
    "WIREGUARD_PRESHARED_KEY": "xxx",
    "WIREGUARD_ENDPOINT_IP": "your.server:port",
    "WIREGUARD_ENDPOINT_PORT": "port",
    "VPN_SERVICE_PROVIDER": "<provider>",
}


@pytest.mark.parametrize("text", [QUICK, WITH_PRESHARED])
@pytest.mark.parametrize("name", PLACEHOLDERS)
def test_a_placeholder_that_a_file_overrides_stops_nothing(
    tmp_path: Path, name: str, text: str
) -> None:
    """A warning names the variable, and not what was written. Control: alone, it is a problem."""
    put(tmp_path, FILE, text)
    loaded = assemble.load({name: PLACEHOLDERS[name]}, tmp_path)
    assert loaded.config == assemble.load({}, tmp_path).config
    assert f"{name}: cannot be read and is not used, because {FILE} has all" in reported(loaded)
    (tmp_path / FILE[1:]).unlink()
    (problem,) = problems({**COMPLETE, name: PLACEHOLDERS[name]}, tmp_path)
    assert problem.startswith(f"{name}: ")


def test_a_placeholder_for_what_the_file_lacks_is_a_problem(tmp_path: Path) -> None:
    """Only a complete file is used without it."""
    put(tmp_path, FILE, QUICK.replace(f"PrivateKey = {OTHER_PRIVATE}", ""))
    environ = {"WIREGUARD_PRIVATE_KEY": "put-yours-here", "WIREGUARD_PRESHARED_KEY": "xxx"}
    found = [problem.partition(":")[0] for problem in problems(environ, tmp_path)]
    assert found == ["WIREGUARD_PRIVATE_KEY", "WIREGUARD_PRESHARED_KEY"]


def test_a_placeholder_in_a_secret_file_is_a_problem(tmp_path: Path) -> None:
    """A secret file of one variable wins over the wg-quick file, so it must be right."""
    put(tmp_path, FILE, QUICK)
    put(tmp_path, "/run/secrets/wireguard_private_key", "put-yours-here")
    (problem,) = problems({}, tmp_path)
    assert problem.startswith("/run/secrets/wireguard_private_key: is not a WireGuard key")


def test_a_variable_that_wins_over_the_file_must_be_right(tmp_path: Path) -> None:
    """The tuning comes from the variable, so a wrong one is not overridden."""
    put(tmp_path, FILE, QUICK)
    (problem,) = problems({"WIREGUARD_MTU": "big"}, tmp_path)
    assert problem.startswith("WIREGUARD_MTU: ")


def test_variables_of_one_server_give_way_to_several_files(tmp_path: Path) -> None:
    """Each file has its own values; one warning names each variable that is left over."""
    for number in range(3):
        put(tmp_path, f"/config/{number}.conf", WITH_PRESHARED)
    environ = {
        "WIREGUARD_PRIVATE_KEY": PRIVATE,
        "WIREGUARD_ADDRESSES": "10.64.1.2/32",
        "WIREGUARD_PUBLIC_KEY": PUBLIC,
        "WIREGUARD_PRESHARED_KEY": PRIVATE,
        "WIREGUARD_ENDPOINT_IP": "203.0.113.7",
        "WIREGUARD_ENDPOINT_PORT": "1",
    }
    loaded = assemble.load(environ, tmp_path)
    assert loaded.config == assemble.load({}, tmp_path).config
    lines = reported(loaded).splitlines()
    for name in environ:
        said = f"{name}: is not used, because each of the 3 wg-quick files has its own; remove it"
        assert lines.count(said) == 1
    assert "has a different value" not in reported(loaded)


def test_a_secret_file_wins_over_each_of_several_files(tmp_path: Path) -> None:
    """As over one: it was put there for that."""
    for number in range(2):
        put(tmp_path, f"/config/{number}.conf", QUICK)
    put(tmp_path, "/run/secrets/wireguard_private_key", PRIVATE)
    loaded = assemble.load({}, tmp_path)
    assert [tunnel.private_key for tunnel in loaded.config.tunnels] == [Secret(PRIVATE)] * 2


def test_allowed_ips_apply_to_each_of_several_files(tmp_path: Path) -> None:
    """They are a matter of taste, and not of one server."""
    for number in range(2):
        put(tmp_path, f"/config/{number}.conf", QUICK)
    loaded = assemble.load({"WIREGUARD_ALLOWED_IPS": "10.0.0.0/8"}, tmp_path)
    allowed = [str(peer.allowed_ips[0]) for t in loaded.config.tunnels for peer in t.peers]
    assert allowed == ["10.0.0.0/8"] * 2


def test_endpoints_in_a_variable_contradict_several_files(tmp_path: Path) -> None:
    """They would replace the server of each."""
    for number in range(2):
        put(tmp_path, f"/config/{number}.conf", QUICK)
    (problem,) = problems({"WIREGUARD_ENDPOINTS": "203.0.113.3:3"}, tmp_path)
    assert problem.startswith("WIREGUARD_ENDPOINTS: does not say which of the 2 wg-quick files")
