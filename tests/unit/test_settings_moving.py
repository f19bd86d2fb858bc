"""Variables of other images, recognised as a whole where nothing says how to connect."""

import tomllib
from pathlib import Path

import pytest

from gateway.settings import assemble, moving
from gateway.settings.compat import KNOWN
from tests.configurations import COMPLETE, PRIVATE, PUBLIC, QUICK, problems, put

DATA = tomllib.loads(
    Path(moving.__file__).with_name("other_set_ups.toml").read_text(encoding="utf-8")
)["set_up"]

PIA = {"LOC": "swiss", "USER": "p1234567", "PASS": "correcthorse9"}


@pytest.mark.parametrize("entry", DATA, ids=lambda one: "-".join(one["marks"]))
def test_every_set_up_leads_to_variables_that_there_are(entry: dict[str, dict[str, str]]) -> None:
    """Each entry says something, and no new name is misspelt."""
    named = {*entry.get("rename", {}).values(), *entry.get("set", {})}
    assert named <= KNOWN
    assert named or entry.get("message")
    assert not set(entry.get("rename", {})) - {*entry["marks"], "COUNTRY_CODE"}


def test_one_problem_says_what_to_write(tmp_path: Path) -> None:
    """In place of a line for each of our variables that is missing."""
    (said,) = problems(PIA, tmp_path)
    assert said.startswith(
        "LOC, USER, PASS: are variables of thrnz/docker-wireguard-pia. Write OPENVPN_USER in place "
        "of USER, OPENVPN_PASSWORD in place of PASS, VPN_SERVICE_PROVIDER=private internet access. "
        "In place of LOC, write"
    )
    assert PIA["PASS"] not in said


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"PRIVATE_KEY": PRIVATE}, "WIREGUARD_PRIVATE_KEY in place of PRIVATE_KEY"),
        (
            {"OPENVPN_PROVIDER": "PIA", "OPENVPN_USERNAME": "p1", "OPENVPN_PASSWORD": "x"},
            "OPENVPN_USER in place of OPENVPN_USERNAME",
        ),
        ({"OPENVPN_PROVIDER": "NORDVPN", "OPENVPN_USERNAME": "p1"}, "WireGuard alone"),
        ({"VPN_PROV": "pia", "VPN_USER": "a", "VPN_PASS": "b"}, "OPENVPN_USER in place of"),
        ({"OPENVPN_USER": "p1", "OPENVPN_PASSWORD": "x"}, "=private internet access"),
        ({"PEERS": "3", "SERVERURL": "vpn.example"}, "keep that image for the server"),
    ],
)
def test_each_image_is_recognised(tmp_path: Path, environ: dict[str, str], said: str) -> None:
    """By what its users have to set."""
    (problem,) = problems(environ, tmp_path)
    assert said in problem


def test_a_login_goes_to_no_provider_that_is_not_named(tmp_path: Path) -> None:
    """A set-up of gluetun with `custom` or another name is not taken for one without."""
    login = {"OPENVPN_USER": "p1", "OPENVPN_PASSWORD": "x", "VPN_SERVICE_PROVIDER": "custom"}
    assert any(one.startswith("WIREGUARD_PRIVATE_KEY") for one in problems(login, tmp_path))


@pytest.mark.parametrize("way", ["variables", "file"])
def test_nothing_is_recognised_where_a_tunnel_is_configured(tmp_path: Path, way: str) -> None:
    """Plain words such as USER may be those of another program."""
    if way == "file":
        put(tmp_path, "config/wg0.conf", QUICK)
        assemble.load({**PIA, "PRIVATE_KEY": "x", "PEERS": "1"}, tmp_path)
    else:
        assemble.load({**COMPLETE, **PIA, "PRIVATE_KEY": "x", "PEERS": "1"}, tmp_path)


def test_openvpn_alone_is_one_problem(tmp_path: Path) -> None:
    """It says what is needed in its place, so missing variables are not listed as well."""
    openvpn = {"VPN_TYPE": "openvpn", "OPENVPN_CUSTOM_CONFIG": "/gluetun/custom.conf"}
    (said,) = problems(openvpn, tmp_path)
    assert "write VPN_TYPE=wireguard" in said
    with_key = problems({**openvpn, "WIREGUARD_PRIVATE_KEY": PRIVATE}, tmp_path)
    assert any(one.startswith("WIREGUARD_ADDRESSES") for one in with_key)


def test_names_that_are_set_already_are_not_suggested() -> None:
    """What is written keeps its value."""
    found = moving.recognized({**PIA, "OPENVPN_USER": "p2", "EMPTY": ""})
    assert found
    assert found.renamed == {"PASS": "OPENVPN_PASSWORD"}
    assert moving.recognized({**PIA, "LOC": "''"}) is None
    assert moving.recognized({"WIREGUARD_PUBLIC_KEY": PUBLIC}) is None


@pytest.mark.parametrize(
    "name", ["WIREGUARD_PRIVATE_KEY", "WIREGUARD_PRIVATE_KEY_SECRETFILE", "WIREGUARD_ENDPOINT_IP"]
)
def test_a_set_up_of_ours_that_is_wrong_is_not_taken_for_another(name: str) -> None:
    """It would get the login of another program, and a provider next to a server of one's own.

    Control: none of ours has a value.
    """
    for others in ({**PIA, "WIREGUARD_MTU": "9"}, {"PRIVATE_KEY": PRIVATE}):
        assert moving.recognized({**others, name: ""})
        assert moving.recognized({**others, name: "x"}) is None
