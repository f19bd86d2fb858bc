"""Answers to a login and to a key are read with distrust, and kept in a file of root's alone."""

import asyncio
import hashlib
import json
import os
import ssl
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import providers
from gateway.errors import GatewayError, LoginError, NetworkError
from gateway.model import KeyRequest, Login, Secret
from gateway.providers import registrations
from gateway.providers.entries import Entry
from gateway.providers.lists import BadListError
from gateway.providers.private_internet_access import PRIVATE_INTERNET_ACCESS
from gateway.providers.server import BadAnswerError, Registered
from gateway.services.fetching.registrar import Registrar
from tests.lab.tls import Answers, answering
from tests.provider_lists import key
from tests.trust import Trust, trust_in

SERVICE = PRIVATE_INTERNET_ACCESS.keys
assert SERVICE is not None
ADDRESS, OWN = ip_address("198.51.100.1"), ip_address("10.1.2.3")
TOKEN = "0123456789abcdef" * 8
WELL = {
    "status": "OK",
    "server_key": key(7),
    "server_port": 1337,
    "server_ip": "198.51.100.9",
    "server_vip": "10.1.0.1",
    "peer_ip": "10.1.2.3",
    "peer_pubkey": key(8),
    "dns_servers": ["10.0.0.243", "10.0.0.242"],
}
RESOLVERS = (ip_address("10.0.0.243"), ip_address("10.0.0.242"))
SERVER = Registered("amsterdam401", ADDRESS, key(7), 1337, OWN, RESOLVERS, ip_address("10.1.0.1"))  # type: ignore[arg-type]


def read(answer: object) -> Registered:
    """Read the answer of amsterdam401."""
    return SERVICE.read_answer(Entry(answer), "amsterdam401", ADDRESS)


# -- what servers answer --------------------------------------------------------------------------


def test_an_answer_is_read() -> None:
    """The address is the list's, whatever the server says of it; a prefix length may be there."""
    assert read(WELL) == SERVER
    assert read(WELL | {"peer_ip": "10.1.2.3/32"}) == SERVER


@pytest.mark.parametrize("name", ["status", "server_key", "server_port", "peer_ip"])
@pytest.mark.parametrize(
    "odd",
    [None, 1.5, "5", "", "x" * 200, [], {}, "\x1b[2J", -1, 70000, "8.8.8.8", "127.0.0.1",
     "169.254.0.1", "224.0.0.1", "fd00::1", "10.1.2.3/8", "0.0.0.0"],
)  # fmt: skip
def test_an_answer_that_is_odd_is_refused(name: str, odd: object) -> None:
    """Also where an address is not a private one: it could hide a host of the internet."""
    with pytest.raises(BadAnswerError):
        read(WELL | {name: odd})


def test_true_is_not_a_port() -> None:
    """Although Python counts it as 1."""
    with pytest.raises(BadAnswerError):
        read(WELL | {"server_port": True})


@pytest.mark.parametrize("answer", [None, [], "OK", 5, {}, [WELL]])
def test_an_answer_in_another_form_is_refused(answer: object) -> None:
    """And nothing of it is said."""
    with pytest.raises(BadAnswerError, match="did not take the key"):
        read(answer)


def test_resolvers_are_few_and_none_of_this_host() -> None:
    """The rest of the answer is used."""
    odd = ["127.0.0.1", "10.1.2.3", "::1", "224.0.0.1", 5, None, {}, "10.0.0.1"]
    many = [f"10.9.{number}.1" for number in range(200)]
    found = read(WELL | {"dns_servers": odd + many}).resolvers
    assert found == tuple(map(ip_address, ("10.0.0.1", "10.9.0.1", "10.9.1.1")))
    assert read(WELL | {"dns_servers": "10.0.0.1"}).resolvers == ()


@pytest.mark.parametrize(
    "answer", [{}, {"token": 5}, {"token": ""}, {"token": "a b"}, {"token": "a" * 513},
               {"token": "a&pubkey=x"}, {"token": "é"}, [], None],
)  # fmt: skip
def test_a_token_has_letters_and_digits_alone(answer: object) -> None:
    """It goes into the target of another request."""
    assert SERVICE.read_token(Entry({"token": TOKEN})) == TOKEN
    with pytest.raises(BadAnswerError):
        SERVICE.read_token(Entry(answer))


# -- the file -------------------------------------------------------------------------------------

HEAD = {
    "provider": "private internet access",
    "made": 5,
    "public_key": key(3),
    "private_key": key(4),
    "token": TOKEN,
}


def content(*lines: object) -> bytes:
    """Return a file with these lines."""
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def test_what_is_kept_is_read_back() -> None:
    """With a gateway and resolvers, or without."""
    bare = replace(SERVER, resolvers=(), gateway=None)
    lines = [json.loads(registrations.dumped(each)) for each in (SERVER, bare)]
    found = registrations.read(content(HEAD, *lines))
    assert (found.servers, found.token, found.made) == ((SERVER, bare), TOKEN, 5)
    assert TOKEN not in repr(found)
    assert key(4) not in repr(found)


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"{}", b"[" * 5000, b"\xff", content(HEAD | {"made": "x"}),
             content(HEAD | {"public_key": ""}), b" " * (registrations.LARGEST + 1)],
)  # fmt: skip
def test_a_file_in_another_form_is_refused(text: bytes) -> None:
    """Then the key is registered again."""
    with pytest.raises(BadListError):
        registrations.read(text)


@given(
    st.sampled_from([each for each in json.loads(registrations.dumped(SERVER)) if each]),
    st.none() | st.integers() | st.booleans() | st.text() | st.lists(st.text()),
)
def test_an_odd_line_costs_no_more_than_its_server(name: str, odd: object) -> None:
    """What remains can be a server's."""
    line = json.loads(registrations.dumped(SERVER))
    found = registrations.read(content(HEAD, line | {name: odd}, line)).servers
    assert found[-1] == SERVER
    for server in found:
        assert 0 < server.port < 1 << 16
        assert server.tunnel_address.version == 4


def test_many_lines_are_read_in_part() -> None:
    """And each only once it is needed."""
    line = json.loads(registrations.dumped(SERVER))
    assert len(registrations.read(content(HEAD, *[line] * 100)).servers) == 16


# -- keys and the authority -----------------------------------------------------------------------


def test_the_authority_is_the_one_that_its_comment_says() -> None:
    """Its fingerprint, and nothing else is in the file."""
    place = Path(providers.__file__).with_name(SERVICE.authority)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(place)
    (certificate,) = context.get_ca_certs(binary_form=True)
    digest = hashlib.sha256(certificate).hexdigest().upper()
    pairs = ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))
    assert f"# SHA-256: {pairs}" in place.read_text("ascii")
    assert pairs.startswith("1F:D2:56:58:45:6E:AB:30:41:FB")


# -- the requests, over real TLS ------------------------------------------------------------------

USER, PASSWORD = "p1234567", "pass&word=%25 ü"
NAME = "localhost"
LOGGED_IN = (200, json.dumps({"token": TOKEN}))
REGISTERED = (200, json.dumps(WELL))


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    """Return two authorities that the registrars of this file trust."""
    return trust_in(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def web(trust: Trust) -> Iterator[Answers]:
    """Be the host of the login on loopback, and say what a test says."""
    with answering(trust.web.issue(NAME)) as answers:
        yield answers


@pytest.fixture(scope="module")
def host(trust: Trust) -> Iterator[Answers]:
    """Be a server on loopback, with a certificate that has a common name alone."""
    with answering(trust.own.issue(NAME, alternative=False)) as answers:
        yield answers


def registrar(trust: Trust, place: Path, **changes: str) -> Registrar:
    """Return a registrar that trusts the authorities of the test, and keeps its file in `place`."""
    trusted = {
        "SSL_CERT_FILE": str(trust.web.certificate),
        "PROVIDER_CERT_FILE": str(trust.own.certificate),
    }
    return Registrar(trusted | changes, device="lo", places=[place / "servers"])


def request(port: int, made: Secret | None = None) -> KeyRequest:
    """Return the request to the server, which is on loopback here."""
    return KeyRequest(
        "private internet access",
        NAME,
        "/addKey",
        port,
        address=ADDRESS,
        public_key=key(3),
        private_key=made,
    )


def login(port: int) -> Login:
    """Return the login at the host on loopback."""
    user, password = Secret(USER), Secret(PASSWORD)
    return Login("private internet access", NAME, "/token", port, user=user, password=password)


def carry_out(one: Registrar, *errands: Login | KeyRequest) -> None:
    """Do errands, one after the other."""

    async def done() -> None:
        for errand in errands:
            one.open(errand, ip_address("127.0.0.1"))
            await one.carry_out(errand)

    asyncio.run(done())


def test_a_login_and_a_key_are_kept(
    web: Answers, host: Answers, trust: Trust, tmp_path: Path
) -> None:
    """The form has the name and the password; the query has the token and the key."""
    web.answers, host.answers = [LOGGED_IN], [REGISTERED]
    one = registrar(trust, tmp_path)
    carry_out(one, login(web.port), request(host.port, Secret(key(4))))
    ((posted,), (got,)) = web.requests, host.requests
    assert (posted[0], posted[1]) == ("POST", "/token")
    assert parse_qs(posted[2]) == {"username": [USER], "password": [PASSWORD]}
    path, _, query = got[1].partition("?")
    assert (got[0], path) == ("GET", "/addKey")
    assert parse_qs(query) == {"pt": [TOKEN], "pubkey": [key(3)]}
    (file,) = (tmp_path / "servers").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    found = registrations.read(file.read_bytes())
    assert (found.token, found.private_key, found.public_key) == (TOKEN, key(4), key(3))
    assert [server.name for server in found.servers] == [NAME]
    assert found.servers[0].tunnel_address == OWN


def test_a_key_of_the_users_own_is_not_copied(
    web: Answers, host: Answers, trust: Trust, tmp_path: Path
) -> None:
    """And a new login begins a new file."""
    one = registrar(trust, tmp_path)
    for servers in (2, 1):
        web.answers, host.answers = [LOGGED_IN], [REGISTERED] * servers
        carry_out(one, login(web.port), *[request(host.port)] * servers)
        (file,) = (tmp_path / "servers").iterdir()
        found = registrations.read(file.read_bytes())
        assert (found.private_key, len(found.servers)) == ("", servers)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_login_is_an_error_of_its_own(
    web: Answers, trust: Trust, tmp_path: Path, status: int
) -> None:
    """It names the variables; what the host says is not repeated."""
    web.answers = [(status, PASSWORD)]
    with pytest.raises(LoginError, match=f"OPENVPN_PASSWORD are not accepted .HTTP {status}"):
        carry_out(registrar(trust, tmp_path), login(web.port))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((429, ""), "HTTP 429: https://localhost"),
        ((500, TOKEN), "HTTP 500: https://localhost"),
        ((200, "<html>"), "it is not JSON"),
        ((200, "[" * 60_000), "nested too deeply"),
        ((200, " " * (1 << 17)), "larger than 64 KiB"),
        ((200, json.dumps({"status": "ERROR", "message": TOKEN})), "did not take the key"),
        ((200, json.dumps(WELL | {"peer_ip": "8.8.8.8"})), "not in the known form"),
    ],
)
def test_answers_that_cannot_be_used_say_why_and_no_secret(
    web: Answers, host: Answers, trust: Trust, tmp_path: Path, answer: tuple[int, str], said: str
) -> None:
    """Nothing is kept; the token is in no error."""
    web.answers, host.answers = [LOGGED_IN], [answer]
    one = registrar(trust, tmp_path)
    with pytest.raises(NetworkError, match=said) as caught:
        carry_out(one, login(web.port), request(host.port))
    assert TOKEN not in str(caught.value)
    assert not (tmp_path / "servers").exists()


def test_an_authority_of_the_web_is_none_for_servers(
    web: Answers, host: Answers, trust: Trust, tmp_path: Path
) -> None:
    """They are verified with the provider's own, even where the system trusts theirs."""
    web.answers, host.answers = [LOGGED_IN], []
    one = registrar(trust, tmp_path, PROVIDER_CERT_FILE="")
    with pytest.raises(GatewayError, match="certificate: "):
        carry_out(one, login(web.port), request(host.port))
    assert ([it[0] for it in web.requests], host.requests) == (["POST"], [])


def test_a_file_that_cannot_be_written_says_what_helps(
    web: Answers, host: Answers, trust: Trust, tmp_path: Path
) -> None:
    """The place has to exist."""
    web.answers, host.answers = [LOGGED_IN], [REGISTERED]
    with pytest.raises(GatewayError, match="mount a volume"):
        carry_out(registrar(trust, tmp_path / "none" / "such"), login(web.port), request(host.port))


def test_no_secret_is_in_the_arguments_or_the_environment(
    web: Answers, host: Answers, trust: Trust, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the process that talks to the host: it gets them through a descriptor."""
    started: list[Any] = []
    spawn = os.posix_spawn

    def noted(path: str, argv: list[str], env: dict[str, str], **options: Any) -> int:
        started.append((argv, env))
        return spawn(path, argv, env, **options)

    monkeypatch.setattr("gateway.system.process.os.posix_spawn", noted)
    web.answers, host.answers = [LOGGED_IN], [REGISTERED]
    made = Secret(key(4))
    carry_out(registrar(trust, tmp_path), login(web.port), request(host.port, made))
    assert len(started) == 2
    for secret in (USER, PASSWORD, TOKEN, key(4)):
        assert secret not in repr(started)
