"""Who may use the control API: variables, gluetun's file with roles, and what is reported."""

from pathlib import Path

import pytest

from gateway.commands.check.explain import explain
from gateway.model import HostPort, Secret
from gateway.model.control import Auth, Control, every_route, is_reading
from gateway.settings import assemble
from tests.configurations import COMPLETE, problems, put, reported

KEY = "0123456789abcdef0123456789abcdef"
ON = {**COMPLETE, "HTTP_CONTROL_SERVER_ADDRESS": "127.0.0.1:8000"}
FILE = "/gluetun/auth/config.toml"
ROLE = """
[[roles]]
name = "sync"
routes = ["GET /v1/openvpn/portforwarded", "GET /v1/portforward"]
auth = "apikey"
apikey = "a-long-key-of-the-file"

[[roles]]
name = "me"
routes = ["PUT /v1/vpn/status"]
auth = "basic"
username = "myusername"
password = "a long password"
"""


def control_of(tmp_path: Path, **changes: str) -> Control:
    """Return who may use the control API of a configuration."""
    found = assemble.load({**ON, **changes}, tmp_path).config.control
    assert found
    return found


def test_it_is_off_unless_an_address_is_set(tmp_path: Path) -> None:
    """What says who may use it has no effect then."""
    put(tmp_path, FILE, ROLE)
    loaded = assemble.load({**COMPLETE, "HTTP_CONTROL_SERVER_API_KEY": KEY}, tmp_path)
    assert (loaded.config.control_server, loaded.config.control) == (None, None)
    assert "HTTP_CONTROL_SERVER_API_KEY: has no effect without" in reported(loaded)
    config = assemble.load({**ON, "HTTP_CONTROL_SERVER_ADDRESS": ":8000"}, tmp_path).config
    assert config.control_server == HostPort("", 8000)


def test_a_key_is_for_every_route(tmp_path: Path) -> None:
    """From the variable, or from a secret file."""
    (role,) = control_of(tmp_path, HTTP_CONTROL_SERVER_API_KEY=KEY).roles
    assert (role.auth, role.routes, role.credential) == (Auth.KEY, every_route(), Secret(KEY))
    put(tmp_path, "/run/secrets/http_control_server_api_key", KEY[::-1] + "\n")
    (role,) = control_of(tmp_path).roles
    assert role.credential == Secret(KEY[::-1])


def test_the_roles_of_gluetuns_file_are_read(tmp_path: Path) -> None:
    """At its place, or where the variable says."""
    put(tmp_path, FILE, ROLE)
    sync, me = control_of(tmp_path).roles
    assert sync.name == "sync"
    assert sync.routes == {"GET /v1/openvpn/portforwarded", "GET /v1/portforward"}
    assert sync.credential == Secret("a-long-key-of-the-file")
    assert (me.auth, me.credential) == (Auth.BASIC, Secret("myusername:a long password"))
    put(tmp_path, "/run/secrets/roles.toml", ROLE.replace('"sync"', '"other"'))
    elsewhere = {"HTTP_CONTROL_SERVER_AUTH_CONFIG_FILEPATH": "/run/secrets/roles.toml"}
    assert control_of(tmp_path, **elsewhere).roles[0].name == "other"
    missing = {"HTTP_CONTROL_SERVER_AUTH_CONFIG_FILEPATH": "/nowhere.toml"}
    (problem,) = problems({**ON, **missing}, tmp_path)
    assert problem.startswith("HTTP_CONTROL_SERVER_AUTH_CONFIG_FILEPATH: ")


def test_a_default_role_has_the_routes_that_no_other_role_has(tmp_path: Path) -> None:
    """As in gluetun; in JSON, also from a file of several lines."""
    put(tmp_path, FILE, ROLE)
    text = '{"auth":"apikey","apikey":"the-default-of-all-keys"}'
    *_, role = control_of(tmp_path, HTTP_CONTROL_SERVER_AUTH_DEFAULT_ROLE=text).roles
    taken = {"GET /v1/openvpn/portforwarded", "GET /v1/portforward", "PUT /v1/vpn/status"}
    assert role.routes == every_route() - taken
    *_, quoted = control_of(tmp_path, HTTP_CONTROL_SERVER_AUTH_DEFAULT_ROLE=f"'{text}'").roles
    assert quoted == role
    place = "/run/secrets/http_control_server_auth_default_role"
    put(tmp_path, place, '{\n "auth": "none"\n}\n')
    *_, role = control_of(tmp_path).roles
    assert role.routes == set(filter(is_reading, every_route() - taken))
    put(tmp_path, place, "{}")
    assert len(control_of(tmp_path).roles) == 2


def test_without_a_credential_nothing_can_be_changed(tmp_path: Path) -> None:
    """Not by any line of the file; a warning says what is left out, and what all can read."""
    put(
        tmp_path,
        FILE,
        '[[roles]]\nname="all"\nauth="none"\nroutes=["GET /v1/version", "PUT /v1/vpn/status"]\n',
    )
    loaded = assemble.load({**ON, "HTTP_CONTROL_SERVER_ADDRESS": ":8000"}, tmp_path)
    assert loaded.config.control
    (role,) = loaded.config.control.roles
    assert role.routes == {"GET /v1/version"}
    assert "PUT /v1/vpn/status is left out" in reported(loaded)
    assert "everyone who reaches port 8000 can read GET /v1/version" in reported(loaded)


def test_what_clients_read_of_the_configuration_has_no_secret(tmp_path: Path) -> None:
    """The provider and what chooses its servers."""
    control = control_of(tmp_path, SERVER_COUNTRIES="Sweden,nl", VPN_SERVICE_PROVIDER="custom")
    assert (control.provider, control.selection) == ("custom", (("countries", ("Sweden", "nl")),))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[roles]]\nname = \n", "not TOML in line"),
        (f"roles = {'1' * 5000}", "not TOML"),
        ("roles = 1", "list of [[roles]]"),
        ("[other]", "list of [[roles]]"),
        ("roles = [1]", "role 1: has to be a table"),
        (
            '[[roles]]\nauth="none"\nroutes=["GET /v1/portforwarded"]',
            "did you mean 'GET /v1/portforward'",
        ),
        ('[[roles]]\nauth="none"\nroutes="GET /v1/version"', "routes has to be a list"),
        ('[[roles]]\nauth="none"\nroutes=[1]', "routes has to be a list"),
        ('[[roles]]\nauth="digest"', "auth is 'digest'"),
        ('[[roles]]\nauth="apikey"', "apikey has to be of printable"),
        ('[[roles]]\nauth="apikey"\napikey=5', "have to be texts"),
        ('[[roles]]\nauth="apikey"\napikey="with space"', "apikey has to be of printable"),
        (f'[[roles]]\nauth="apikey"\napikey="{"x" * 600}"', "more than 512"),
        ('[[roles]]\nauth="basic"\nusername="a:b"\npassword="c"', "without a colon"),
        (f'[[roles]]\nauth="basic"\nusername="a"\npassword="{"x" * 600}"', "more than 512"),
        ('[[roles]]\nauth="none"\nkey="x"', "'key' is unknown"),
        ('[[roles]]\nauth="none"\n' * 65, "64 at most"),
    ],
)
def test_each_fault_of_the_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    """With the role and what to write."""
    put(tmp_path, FILE, text)
    found = problems(ON, tmp_path)
    assert any(said in it for it in found), found
    assert all(it.startswith(f"{FILE}: ") for it in found)


def test_no_part_of_a_credential_is_said(tmp_path: Path) -> None:
    """Not in a fault of the file, in a notice, or in the configuration that is shown."""
    secret = "hunter2-" * 3
    broken = f'[[roles]]\nauth="apikey"\napikey="{secret}\nroutes=["GET /v1/version"]'
    put(tmp_path, FILE, broken)
    assert secret not in "".join(problems(ON, tmp_path))
    put(tmp_path, FILE, f'[[roles]]\nauth="apikey"\napikey="{secret}"\nroutes=["GET /v1/xyz"]')
    assert secret not in "".join(problems(ON, tmp_path))
    put(tmp_path, FILE, ROLE)
    text = '{"auth":"basic","username":"me","password":"short"}'
    more = {"HTTP_CONTROL_SERVER_API_KEY": secret, "HTTP_CONTROL_SERVER_AUTH_DEFAULT_ROLE": text}
    loaded = assemble.load({**ON, **more}, tmp_path)
    shown = explain(loaded) + reported(loaded) + repr(loaded.config) + repr(loaded.values)
    for one in (secret, "a-long-key-of-the-file", "a long password", '"short"'):
        assert one not in shown
    assert "the credential of the role default is shorter than 16" in shown
    assert "HTTP_CONTROL_SERVER_API_KEY, sync, me, default" in shown


def test_what_cannot_be_reached_or_used_is_reported(tmp_path: Path) -> None:
    """No credential; a port that is not listed, closes with the tunnel, or is taken."""
    everywhere = {**ON, "HTTP_CONTROL_SERVER_ADDRESS": ":8000"}
    said = reported(assemble.load(everywhere, tmp_path))
    assert "no credential is configured, so every request is refused" in said
    assert "FIREWALL_INPUT_PORTS lists 8000/tcp" in said
    listed = {**everywhere, "FIREWALL_INPUT_PORTS": "8000/tcp", "HTTP_CONTROL_SERVER_API_KEY": KEY}
    said = reported(assemble.load(listed, tmp_path))
    assert "HTTP_CONTROL_SERVER_ADDRESS" not in said
    down = {**listed, "FIREWALL_INPUT_PORTS_WHILE_DOWN": "off"}
    assert "cannot be resumed from outside" in reported(assemble.load(down, tmp_path))
    for address in (":9999", "127.0.0.1:9999"):
        (problem,) = problems({**ON, "HTTP_CONTROL_SERVER_ADDRESS": address}, tmp_path)
        assert "HEALTH_SERVER_ADDRESS" in problem
    other = {
        "HEALTH_SERVER_ADDRESS": "127.0.0.1:8000",
        "HTTP_CONTROL_SERVER_ADDRESS": "10.0.0.2:8000",
    }
    assert not reported(assemble.load({**ON, **other}, tmp_path)).count("is that of HEALTH")


def test_routes_of_gluetun_that_are_not_here_are_left_out(tmp_path: Path) -> None:
    """With a notice, so a file for gluetun can be used as it is."""
    put(
        tmp_path,
        FILE,
        '[[roles]]\nauth="apikey"\napikey="a-long-key-of-the-file"\n'
        'routes=["GET /v1/updater/status", "GET /v1/version"]\n',
    )
    loaded = assemble.load(ON, tmp_path)
    assert loaded.config.control
    assert loaded.config.control.roles[0].routes == {"GET /v1/version"}
    assert "GET /v1/updater/status is left out" in reported(loaded)
