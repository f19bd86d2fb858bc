"""Private Internet Access in the variables: a login instead of a key, servers once it is known."""

import fcntl
import json
import signal
import time
from dataclasses import replace
from ipaddress import IPv4Interface, ip_address
from pathlib import Path
from typing import Any

import pytest

from gateway import cli
from gateway.model import PASSAGE, KeyRequest, Secret
from gateway.providers import catalog, lists, registrations
from gateway.providers.lists import KeptList
from gateway.providers.registrations import dumped
from gateway.providers.server import Registered
from gateway.settings import assemble, keys
from gateway.settings.assemble import Loaded
from tests.configurations import PRIVATE, QUICK, problems, put, reported
from tests.provider_lists import key, raw

NAME = "private internet access"
LIST = "/config/servers/private-internet-access.json"
FILE = "/config/servers/private-internet-access.registrations"
LOGIN = {"VPN_SERVICE_PROVIDER": "pia", "OPENVPN_USER": "p1234567", "OPENVPN_PASSWORD": "correct"}
ADDRESSES = [ip_address(f"198.51.100.{number}") for number in (1, 2)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a root with the list of servers."""
    provider = catalog.find(NAME)
    assert provider is not None
    found = lists.servers_in(provider, raw(NAME))
    content = lists.dumped(KeptList(NAME, "x", int(time.time()), found))
    put(tmp_path, LIST, content, 0o644)
    return tmp_path


def registered(
    root: Path, *numbers: int, private: str = "", public: str = "", mode: int = 0o600, **head: Any
) -> None:
    """Put down that servers have taken the key `public`, or one that the gateway has made."""
    first = {
        "provider": NAME,
        "made": 5,
        "public_key": public or keys.public_of(Secret(private)),
        "private_key": private,
        "token": "abc",
    } | head
    servers = [
        Registered(
            f"netherlands40{number}", ADDRESSES[number - 1], key(number), 1337,
            IPv4Interface(f"10.{number}.0.2/32").ip, (ip_address("10.0.0.241"),),
        )
        for number in numbers
    ]  # fmt: skip
    lines = [json.dumps(first), *map(dumped, servers), ""]
    put(root, FILE, "\n".join(lines), mode)


def load(root: Path, **changes: str) -> Loaded:
    """Return the configuration of a user of the provider."""
    return assemble.load(LOGIN | changes, root)


def test_without_a_list_it_is_fetched_first(tmp_path: Path) -> None:
    """The key is there, but nothing of the servers."""
    loaded = load(tmp_path)
    (only,) = loaded.config.tunnels
    assert only.names == ("serverlist.piaservers.net",)
    assert (only.peers, only.addresses, only.registration) == ((), (), None)
    assert "the list of servers is not there yet" in reported(loaded)


def test_a_file_of_another_image_starts_as_it_is(root: Path) -> None:
    """With what users of gluetun write for this provider; what is not supported is named."""
    written = {
        "VPN_SERVICE_PROVIDER": "private internet access",
        "OPENVPN_USER": "p1234567",
        "OPENVPN_PASSWORD": "correct",
        "SERVER_REGIONS": "Netherlands",
        "SERVER_HOSTNAMES": "nl.privacy.example",
        "PORT_FORWARD_ONLY": "true",
        "VPN_PORT_FORWARDING": "on",
        "OPENVPN_ENDPOINT_PORT": "1194",
        "PRIVATE_INTERNET_ACCESS_OPENVPN_ENCRYPTION_PRESET": "strong",
    }
    loaded = assemble.load(written, root)
    assert len(loaded.config.tunnels[0].errands) == 3
    said = reported(loaded)
    assert [name for name in list(written)[-2:] if f"{name}: not supported" not in said] == []
    assert loaded.config.forwarding
    assert "VPN_PORT_FORWARDING: " not in said


def test_with_a_list_the_key_is_to_be_registered(root: Path) -> None:
    """A login, then each server that matches; no notice about what is not known yet."""
    loaded = load(root)
    (only,) = loaded.config.tunnels
    login, *requests = only.errands
    assert only.names == ("www.privateinternetaccess.com",)
    assert (login.target, login.port) == ("/api/client/v2/token", 443)
    assert {(it.host, it.port, it.target) for it in requests} == {
        ("netherlands401", 1337, "/addKey"), ("netherlands402", 1337, "/addKey"),
    }  # fmt: skip
    assert all(
        isinstance(it, KeyRequest) and it.public_key == keys.public_of(only.private_key)
        for it in requests
    )
    assert loaded.config.server_list
    assert "the key is not registered yet" in reported(loaded)
    assert "IPv4" not in reported(loaded)
    assert load(root).config.tunnels[0].private_key != only.private_key


def test_servers_that_have_the_key_are_candidates(root: Path) -> None:
    """Each with an address and a resolver of its own, in the order of the key's choice."""
    made = keys.generated()
    registered(root, 1, 2, private=made.reveal())
    loaded = load(root)
    by_name = {str(it.endpoints[0]): it for it in loaded.config.tunnels}
    assert set(by_name) == {"198.51.100.1:1337", "198.51.100.2:1337"}
    second = by_name["198.51.100.2:1337"]
    assert second.private_key == made
    assert second.addresses == (IPv4Interface("10.2.0.2/32"),)
    assert second.peers[0].public_key == key(2)
    assert second.dns == (ip_address("10.0.0.241"),)
    assert second.registration
    assert second.registration.made == 5
    assert len(second.registration.servers) == 2
    assert second.errands == ()
    assert "not registered" not in reported(loaded)
    assert load(root).config == loaded.config


@pytest.mark.parametrize(
    "answer",
    [
        {"tunnel_address": ip_address("192.168.1.5")},
        {"resolvers": (ip_address("192.168.1.1"),)},
        {"resolvers": (PASSAGE[1][1],)},
        {"public_key": keys.public_of(Secret(PRIVATE))},
    ],
)
def test_an_answer_that_contradicts_the_configuration_does_not_cost_the_others(
    root: Path, answer: dict[str, Any]
) -> None:
    """It would keep the gateway from starting. The control is such a server alone."""
    changes = {"FIREWALL_OUTBOUND_SUBNETS": "192.168.1.0/24", "WIREGUARD_PRIVATE_KEY": PRIVATE}
    public = keys.public_of(Secret(PRIVATE))
    registered(root, 1, 2, public=public)
    path = root / FILE.lstrip("/")
    head, first, second = path.read_text("utf-8").splitlines()
    (whole,) = registrations.read(f"{head}\n{second}".encode()).servers
    path.write_text("\n".join((head, first, dumped(replace(whole, **answer)))), "utf-8")
    loaded = load(root, **changes)
    assert [str(it.endpoints[0].address) for it in loaded.config.tunnels] == ["198.51.100.1"]
    assert "netherlands402 is not used" in reported(loaded)
    path.write_text("\n".join((head, dumped(replace(whole, **answer)))), "utf-8")
    assert problems(LOGIN | changes, root), "control"


def test_filters_apply_to_servers_that_have_the_key(root: Path) -> None:
    """One that does not match is not used; where none does, the key is registered with others."""
    registered(root, 1, private=keys.generated().reveal())
    assert load(root, SERVER_NAMES="netherlands401", PORT_FORWARD_ONLY="on").config.tunnels[0].peers
    (only,) = load(root, SERVER_NAMES="netherlands402").config.tunnels
    assert [it.host for it in only.errands][1:] == ["netherlands402"]
    (wrong,) = problems(LOGIN | {"SERVER_REGIONS": "Nederland"}, root)
    assert "Netherlands" in wrong


def test_a_resolver_of_the_user_wins(root: Path) -> None:
    """As for every provider."""
    registered(root, 1, private=keys.generated().reveal())
    (only,) = load(root, DNS_ADDRESS="9.9.9.9").config.tunnels
    assert only.dns == (ip_address("9.9.9.9"),)


def test_a_key_of_the_users_own_is_used_and_not_kept(root: Path) -> None:
    """Registrations of another key are worth nothing for it."""
    registered(root, 1, private=keys.generated().reveal())
    (only,) = load(root, WIREGUARD_PRIVATE_KEY=PRIVATE).config.tunnels
    assert only.private_key == Secret(PRIVATE)
    assert not only.peers
    assert only.registration
    assert {it.private_key for it in only.registration.servers} == {None}
    registered(root, 1, public=keys.public_of(Secret(PRIVATE)))
    assert load(root, WIREGUARD_PRIVATE_KEY=PRIVATE).config.tunnels[0].peers


@pytest.mark.parametrize(
    "head", [{"public_key": key(9)}, {"provider": "mullvad"}, {"made": None}, {"private_key": ""}]
)
def test_a_file_that_does_not_fit_is_not_used(root: Path, head: dict[str, Any]) -> None:
    """Such as one with a public key that is not the private key's."""
    registered(root, 1, private=keys.generated().reveal(), **head)
    assert not load(root).config.tunnels[0].peers


def test_a_file_that_cannot_be_read_is_named(root: Path) -> None:
    """The key is registered again then."""
    put(root, FILE, "{}")
    loaded = load(root)
    assert not loaded.config.tunnels[0].peers
    assert f"{FILE}: is not used" in reported(loaded)


def test_a_file_that_cannot_be_read_now_is_not_given_up(root: Path) -> None:
    """Another program has a lease on it. Control: it is used afterwards."""
    made = keys.generated()
    registered(root, 1, private=made.reveal())
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # the kernel's word to the holder of a lease
    with (root / FILE.lstrip("/")).open("r+b") as leased:
        fcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        with pytest.raises(BlockingIOError):
            load(root)
    assert load(root).config.tunnels[0].private_key == made


@pytest.mark.parametrize("missing", ["OPENVPN_USER", "OPENVPN_PASSWORD"])
def test_a_login_that_is_not_complete_is_refused(root: Path, missing: str) -> None:
    """With what is missing, and where to put it."""
    (said,) = problems({name: text for name, text in LOGIN.items() if name != missing}, root)
    assert said.startswith(f"{missing}: is not set")
    assert f"/run/secrets/{missing.lower()}" in said


def test_a_login_comes_from_secret_files_too(root: Path) -> None:
    """As Docker mounts them, or under a name of gluetun's variable; then nothing is warned of."""
    put(root, "/run/secrets/openvpn_password", "two words\n")
    put(root, "/run/secrets/me", "p7654321\n")
    named = {"VPN_SERVICE_PROVIDER": "pia", "OPENVPN_USER_SECRETFILE": "/run/secrets/me"}
    loaded = assemble.load(named, root)
    registration = loaded.config.tunnels[0].registration
    assert registration
    assert registration.login.user == Secret("p7654321")
    assert registration.login.password == Secret("two words")
    assert "environment" not in reported(loaded)


def test_what_a_login_is_never_appears(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither in notices and errors nor in a representation, nor in `gateway check`."""
    loaded = load(root)
    said = reported(loaded) + repr(loaded)
    assert "the password is in the environment" in said
    assert "correct" not in said
    assert "p1234567" not in said
    env = root / "env"
    env.write_text("".join(f"{name}={text}\n" for name, text in LOGIN.items()))
    assert cli.main(["check", "--env-file", str(env)]) == 0
    shown = capsys.readouterr()
    assert "made by the gateway" in shown.out
    assert "correct" not in shown.out + shown.err


def test_a_login_for_another_provider_is_reported(root: Path) -> None:
    """And so is a filter that decides nothing, next to a file."""
    put(root, "/config/wg0.conf", QUICK)
    leftover = {"OPENVPN_USER": "x", "OPENVPN_PASSWORD": "y", "PORT_FORWARD_ONLY": "on"}
    loaded = assemble.load({"VPN_SERVICE_PROVIDER": "protonvpn"} | leftover, root)
    for name in leftover:
        assert f"{name}: is not used" in reported(loaded)
    off = assemble.load({"PORT_FORWARD_ONLY": "off"}, root)
    assert "PORT_FORWARD_ONLY" not in reported(off)


def test_values_that_its_servers_say_are_not_needed(root: Path) -> None:
    """They are named, and stop nothing."""
    loaded = load(root, WIREGUARD_ADDRESSES="10.9.9.9/32", WIREGUARD_PUBLIC_KEY=key(5))
    assert loaded.config.tunnels[0].addresses == ()
    assert "WIREGUARD_ADDRESSES: is not used" in reported(loaded)
    assert "WIREGUARD_PUBLIC_KEY: is not used" in reported(loaded)
    (said,) = problems(LOGIN | {"WIREGUARD_ENDPOINT_PORT": "51820"}, root)
    assert "1337" in said
