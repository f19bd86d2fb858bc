"""Ports that a provider signs: read with distrust, kept, and bound again and again."""

import asyncio
import json
import os
import ssl
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError, LoginError, MissingError, NetworkError
from gateway.model import Address, Config, Endpoint, Login, Peer, Registration, Secret, Tunnel
from gateway.policy.port_problems import Found
from gateway.providers import registrations, signed_ports
from gateway.providers.entries import Entry
from gateway.providers.private_internet_access import PRIVATE_INTERNET_ACCESS
from gateway.providers.server import BadAnswerError, RefusedError, Registered, SignedPort
from gateway.providers.signed_ports import KeptPort
from gateway.services.ports.forwarder import Surroundings
from gateway.services.ports.signed import Account, Pace, SignedPorts
from gateway.services.ports.signed_host import SignedPortHost
from gateway.services.ports.signed_lines import Known, known_in, port_in, port_line, server_line
from gateway.system.netns import OWN
from tests.lab.tls import Answers, Authority, answering, authority
from tests.provider_lists import key
from tests.scenarios import IPV4_ONLY

SERVICE = PRIVATE_INTERNET_ACCESS.forwards
assert SERVICE is not None
NOW = 1_900_000_000.0
DAY = 86_400
TOKEN, SIGNATURE = "0123456789abcdef" * 8, b64encode(b"s" * 64).decode()
NAME, OTHER = "amsterdam401", "berlin402"


def payload_of(document: object) -> str:
    """Return `document` as a server puts it into its answer."""
    return b64encode(json.dumps(document).encode()).decode()


def moment(at: float) -> str:
    """Return a time as a server writes it, with nanoseconds."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.123456789Z")


def signed(port: int = 47047, expires: float = NOW + 60 * DAY) -> SignedPort:
    """Return a port as a server signs it."""
    payload = payload_of({"token": TOKEN, "port": port, "expires_at": moment(expires)})
    return SignedPort(port, int(expires), payload, SIGNATURE)


def answer_of(one: SignedPort) -> dict[str, str]:
    """Return the answer of a server that signs `one`."""
    return {"status": "OK", "payload": one.payload, "signature": one.signature}


# -- what servers answer --------------------------------------------------------------------------


def test_a_signed_port_is_read() -> None:
    """Its port and its end are those of the payload; the queries have what a server takes."""
    one = signed()
    assert SERVICE.read_signed(Entry(answer_of(one))) == one
    assert parse_qs(SERVICE.sign_query("t&=ä")) == {"token": ["t&=ä"]}
    query = parse_qs(SERVICE.bind_query(one))
    assert query == {"payload": [one.payload], "signature": [SIGNATURE]}


@pytest.mark.parametrize(
    "payload",
    ["", "%%%", "AA", payload_of([1]), payload_of({"port": 47047}), "A" * 4096,
     payload_of({"port": "47047", "expires_at": moment(NOW)}),
     payload_of({"port": 22, "expires_at": moment(NOW)}),
     payload_of({"port": 70000, "expires_at": moment(NOW)}),
     payload_of({"port": True, "expires_at": moment(NOW)}),
     payload_of({"port": 47047, "expires_at": "tomorrow"}),
     payload_of({"port": 47047, "expires_at": "2026-13-41T00:00:00Z"}),
     b64encode(b"[" * 1500).decode(), b64encode(b"\xff\xfe").decode()],
)  # fmt: skip
def test_an_odd_payload_is_not_used(payload: str) -> None:
    """Of any kind; a service of this machine below 1024 gets no port either."""
    with pytest.raises(BadAnswerError) as caught:
        SERVICE.read_signed(Entry({"status": "OK", "payload": payload, "signature": SIGNATURE}))
    assert payload[:20] not in str(caught.value) or not payload


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_any_answer_is_an_error_or_a_port(answer: object) -> None:
    """No other exception leaves the readers."""
    for document in (answer, {"status": "OK", "payload": answer, "signature": answer}):
        with suppress(BadAnswerError):
            SERVICE.read_signed(Entry(document))
        with suppress(BadAnswerError):
            SERVICE.read_bound(Entry(document))


def test_a_refusal_gives_nothing() -> None:
    """Of a server that signs none, or does not forward one."""
    for read in (SERVICE.read_signed, SERVICE.read_bound):
        with pytest.raises(RefusedError):
            read(Entry({"status": "ERROR", "message": TOKEN}))
    SERVICE.read_bound(Entry({"status": "OK", "message": "port scheduled for add"}))


def test_nothing_secret_is_in_a_repr() -> None:
    """Neither the payload, which has a token, nor the signature, nor the token."""
    known = Known(NAME, IPv4Address("10.1.0.1"), TOKEN, (KeptPort(NAME, signed()),))
    assert [it for it in (TOKEN, SIGNATURE, signed().payload) if it in repr(known)] == []


# -- what is kept ---------------------------------------------------------------------------------


def test_ports_are_kept_and_read_again() -> None:
    """In their order; a line that was changed costs only itself."""
    kept = [KeptPort(NAME, signed()), KeptPort(OTHER, signed(50505))]
    text = signed_ports.dumped(kept)
    assert list(signed_ports.read(text.encode(), SERVICE)) == kept
    odd = '{"server": "a b"}\nnonsense\n' + text.replace(NAME, "white space") + text
    assert list(signed_ports.read(odd.encode(), SERVICE)) == [kept[1], *kept]
    assert list(signed_ports.read(b" " * 70_000, SERVICE)) == []
    assert len(signed_ports.dumped(kept * 50).splitlines()) == 16


def test_which_kept_port_is_tried() -> None:
    """That of the server first, then the one that was used last, and none that ends soon."""
    soon = KeptPort(NAME, signed(40000, NOW + 60))
    own, other, third = (KeptPort(name, signed()) for name in (NAME, OTHER, "third403"))
    found = signed_ports.to_try([other, soon, third, own], NAME, NOW + DAY)
    assert found == (own, other)
    assert signed_ports.to_keep(own, [soon, other], NOW + 120) == (own, other)


@given(st.text(max_size=200))
def test_any_line_is_nothing_or_a_port(line: str) -> None:
    """The gateway reads the lines of its process with distrust."""
    assert port_in(line) is None
    assert known_in(line) is None
    assert known_in(f"server {NAME} 10.1.0.1 {TOKEN}\n{line}") is not None


def test_lines_are_read_as_they_are_written() -> None:
    """Also without a token."""
    known = Known(NAME, IPv4Address("10.1.0.1"), "", (KeptPort(OTHER, signed()),))
    text = f"{server_line(NAME, known.gateway, '')}\n{port_line(known.ports[0])}\n"
    assert known_in(text) == known


# -- requests -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return the provider's authority."""
    return authority(tmp_path_factory.mktemp("tls"), "own", strict=False)


@pytest.fixture(scope="module")
def server(own: Authority) -> Iterator[Answers]:
    """Return a server on loopback with the certificate of NAME."""
    with answering(own.issue(NAME, alternative=False)) as answers:
        yield answers


HERE = Known(NAME, IPv4Address("127.0.0.1"), TOKEN)


def host_at(server: Answers, own: Authority, place: Path) -> SignedPortHost:
    """Return what asks the server on loopback, and keeps in `place`."""
    service = replace(SERVICE, port=server.port)
    environ = {"PROVIDER_CERT_FILE": str(own.certificate)}
    return SignedPortHost("private internet access", service, environ, device="lo", places=[place])


@pytest.mark.promise("P16")
def test_a_server_is_asked(server: Answers, own: Authority, tmp_path: Path) -> None:
    """To sign with the token, then to forward with the signature; kept for root alone."""
    host, one = host_at(server, own, tmp_path / "servers"), KeptPort(NAME, signed())
    server.answers = [(200, json.dumps(answer_of(one.signed))), (200, '{"status":"OK"}')]

    async def ask() -> None:
        assert await host.sign(HERE, TOKEN) == one
        await host.bind(HERE, one)
        await host.keep([one])

    asyncio.run(ask())
    assert [it[:2] for it in server.requests] == [
        ("GET", f"/getSignature?{SERVICE.sign_query(TOKEN)}"),
        ("GET", f"/bindPort?{SERVICE.bind_query(one.signed)}"),
    ]
    file = tmp_path / "servers" / "private-internet-access.ports"
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(signed_ports.read(file.read_bytes(), SERVICE)) == [one]
    assert host.starts == 2


@pytest.mark.promise("P16")
@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, TOKEN, LoginError),
        (200, json.dumps({"status": "ERROR", "message": TOKEN}), LoginError),
        (500, TOKEN, NetworkError),
        (200, TOKEN, NetworkError),
        (200, "[" * 60_000, NetworkError),
        (200, " " * 100_000, NetworkError),
        (200, json.dumps({"status": "OK", "payload": TOKEN, "signature": TOKEN}), NetworkError),
    ],
    ids=["401", "error", "500", "no json", "deep", "large", "odd"],
)
def test_an_answer_that_cannot_be_used_is_an_error(
    server: Answers, own: Authority, tmp_path: Path, status: int, body: str,
    kind: type[GatewayError],
) -> None:  # fmt: skip
    """A refusal is one of its own; nothing that was sent or answered is in its text."""
    server.answers = [(status, body)]
    with pytest.raises(kind) as caught:
        asyncio.run(host_at(server, own, tmp_path).sign(HERE, TOKEN))
    assert isinstance(caught.value, LoginError) == (kind is LoginError)
    assert TOKEN not in str(caught.value)
    assert SIGNATURE not in str(caught.value)


def test_a_server_without_the_right_certificate_gets_nothing(
    server: Answers, own: Authority, tmp_path: Path
) -> None:
    """Of another name; control: the right name is asked."""
    server.answers = [(200, json.dumps(answer_of(signed())))]
    host = host_at(server, own, tmp_path)
    with pytest.raises(NetworkError, match="certificate"):
        asyncio.run(host.sign(replace(HERE, server=OTHER), TOKEN))
    assert server.requests == []
    asyncio.run(host.sign(HERE, TOKEN))


def test_what_is_kept_is_found_for_a_tunnel(tmp_path: Path) -> None:
    """By the server's key and the address that it gave; a pipe in the file's place is nothing."""
    place = tmp_path / "servers"
    place.mkdir()
    address = IPv4Address("10.1.2.3")
    one = Registered(
        NAME, IPv4Address("198.51.100.1"), key(7), 1337, address, (), IPv4Address("10.1.0.1")
    )
    head = {
        "provider": "private internet access",
        "made": 5,
        "public_key": key(8),
        "private_key": "",
        "token": TOKEN,
    }
    file = place / "private-internet-access.registrations"
    file.write_text(f"{json.dumps(head)}\n{registrations.dumped(one)}\n", "ascii")
    kept = KeptPort(OTHER, signed())
    (place / "private-internet-access.ports").write_text(signed_ports.dumped([kept]), "ascii")
    host = SignedPortHost("private internet access", SERVICE, {}, OWN, places=[place])

    def found(public: str) -> Known | None:
        return asyncio.run(host.known(tunnel_to(public, str(address))))

    assert found(key(7)) == Known(NAME, IPv4Address("10.1.0.1"), TOKEN, (kept,))
    assert found(key(9)) is None
    file.unlink()
    os.mkfifo(file)
    assert found(key(7)) is None


def tunnel_to(public: str, address: str) -> Tunnel:
    """Return a tunnel to the server with this key."""
    peer = Peer(public, Endpoint(IPv4Address("198.51.100.1"), 1337), ())
    return replace(IPV4_ONLY, addresses=(IPv4Interface(address),), peers=(peer,))


# -- the port over time ---------------------------------------------------------------------------


@dataclass
class Provider:
    """A provider in memory: signs ports for `token`, forwards those that it knows."""

    wall: Callable[[], float]
    token: str = TOKEN
    accepts_login: bool = True
    ports: tuple[KeptPort, ...] = ()
    lasts: float = 60 * DAY
    forwarded: set[int] = field(default_factory=set)
    refuses: set[int] = field(default_factory=set)
    silent: bool = False
    signs: bool = True
    asked: list[str] = field(default_factory=list)
    kept: tuple[KeptPort, ...] = ()
    starts: int = 0

    async def known(self, tunnel: Tunnel) -> Known | None:
        """Know NAME, with the token that was kept."""
        del tunnel
        return Known(NAME, IPv4Address("10.1.0.1"), TOKEN, self.ports)

    async def sign(self, server: Known, token: str) -> KeptPort:
        """Sign the next port."""
        self._hear("sign")
        if token != self.token or not self.signs:
            raise LoginError("the server signs no port for this account", server.server)
        port = 40001 + len([it for it in self.asked if it == "sign"])
        return KeptPort(server.server, signed(port, self.wall() + self.lasts))

    async def bind(self, server: Known, kept: KeptPort) -> None:
        """Forward a port."""
        self._hear(f"bind {kept.signed.port}")
        if kept.signed.port in self.refuses:
            raise LoginError("the server refuses the port", server.server)
        self.forwarded.add(kept.signed.port)

    async def log_in(self, login: Login, resolver: Address | None) -> str:
        """Give the token that is good now."""
        del login, resolver
        self._hear("login")
        if not self.accepts_login:
            raise LoginError("OPENVPN_USER and OPENVPN_PASSWORD are not accepted", "host")
        return self.token

    async def keep(self, ports: object) -> None:
        """Remember what is kept."""
        self.kept = tuple(ports)  # type: ignore[arg-type]

    def _hear(self, what: str) -> None:
        self.asked.append(what)
        if self.silent:
            raise NetworkError("no connection after 8 s", "10.1.0.1")


class Run:
    """A forwarder with a clock of its own: an hour takes a tenth of a second."""

    def __init__(self) -> None:
        self.now = 0.0
        self.account = Account()
        self.provider = Provider(lambda: NOW + self.now)
        self.found: list[Found] = []

    def last(self) -> tuple[tuple[int, ...], str]:
        """Return the ports and the problem that were reported last."""
        last = self.found[-1]
        return tuple(it.public for it in last.ports), last.problem

    def go(self, script: Callable[["Run"], Awaitable[None]]) -> None:
        """Run the forwarder while `script` does what it does."""
        login = Login(
            "private internet access", "host", "/", user=Secret("u"), password=Secret("p")
        )
        one = replace(IPV4_ONLY, addresses=(IPv4Interface("10.1.2.3"),))
        wanted = Config((replace(one, registration=Registration(login, ())),))
        around = Surroundings(wanted, one, OWN, lambda: self.now, {})
        pace = Pace(look=0.0)

        async def everything() -> None:
            ports = SignedPorts(around, self.account, self.provider, pace, lambda: NOW + self.now)
            running = asyncio.create_task(ports.run(self.found.append))
            try:
                await script(self)
            finally:
                running.cancel()
                with suppress(asyncio.CancelledError):
                    await running

        asyncio.run(everything())

    async def pass_(self, seconds: float) -> None:
        """Let time pass in steps of a minute at most."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 60)
            for _ in range(6):
                await asyncio.sleep(0)


def test_a_new_port_is_signed_bound_and_kept() -> None:
    """And bound again every 15 minutes; it counts half an hour after that."""
    run = Run()

    async def script(run: Run) -> None:
        await run.pass_(60)
        assert run.last() == ((40002,), "")
        (granted,) = run.found[-1].ports
        assert granted.until == pytest.approx(run.now + 1800, abs=61)
        await run.pass_(3600)

    run.go(script)
    assert run.provider.asked == ["sign", *["bind 40002"] * 5]
    assert [it.signed.port for it in run.provider.kept] == [40002]


def test_a_kept_port_is_used_again_without_the_token() -> None:
    """Also one that another server has signed; one that is refused is replaced."""
    run = Run()
    run.provider.ports = (KeptPort(OTHER, signed(50505)),)

    async def script(run: Run) -> None:
        await run.pass_(60)

    run.go(script)
    assert run.provider.asked == ["bind 50505"]
    again = Run()
    again.provider.ports = (KeptPort(NAME, signed(50505)),)
    again.provider.refuses = {50505}
    again.go(script)
    assert again.provider.asked == ["bind 50505", "sign", "bind 40002"]
    assert [it.signed.port for it in again.provider.kept] == [40002]


def test_an_expired_port_is_not_used() -> None:
    """A new one is signed; while that fails, the old one is kept until its end."""
    run = Run()
    run.provider.ports = (KeptPort(NAME, signed(50505, NOW - 1)),)
    run.provider.lasts = DAY

    async def script(run: Run) -> None:
        await run.pass_(60)
        assert run.provider.asked == ["sign", "bind 40002"]
        await run.pass_(DAY - 5 * 3600)
        first, (last, _) = run.provider.asked.index("bind 40003"), run.last()
        assert run.provider.asked[first - 1] == "sign"
        assert last == (40003,)

    run.go(script)


def test_a_refused_token_leads_to_one_login() -> None:
    """Through the tunnel; a refused login is not repeated within the hour."""
    run = Run()
    run.provider.token = TOKEN[::-1]

    async def script(run: Run) -> None:
        await run.pass_(60)
        assert run.last() == ((40003,), "")
        assert run.provider.asked == ["sign", "login", "sign", "bind 40003"]

    run.go(script)
    refused = Run()
    refused.provider.token, refused.provider.accepts_login = TOKEN[::-1], False

    async def wait(run: Run) -> None:
        await run.pass_(3500)
        assert run.last() == ((), "login_refused")
        assert run.provider.asked == ["sign", "login"]
        await run.pass_(200)
        assert run.provider.asked == ["sign", "login", "sign", "login"]

    refused.go(wait)

    async def soon(run: Run) -> None:
        await run.pass_(60)

    refused.go(soon)
    assert refused.provider.asked.count("login") == 2, "also in another connection"


def test_a_server_that_gives_nothing_names_the_remedy() -> None:
    """It is asked ever more seldom, and leads to one login an hour, also in another connection."""
    run = Run()
    run.provider.refuses = set(range(40000, 50000))

    async def script(run: Run) -> None:
        await run.pass_(1700)
        assert run.last() == ((), "not_authorized")
        assert "PORT_FORWARD_ONLY" in run.found[-1].remedy

    run.go(script)
    assert "login" not in run.provider.asked
    assert len(run.provider.asked) < 30
    run.provider.signs = False
    run.go(script)
    run.go(script)
    assert run.provider.asked.count("login") == 1
    run.go(script)
    assert run.provider.asked.count("login") == 2


def test_one_lost_request_changes_nothing() -> None:
    """The port is open until half an hour after the last answer; then there is none."""
    run = Run()

    async def script(run: Run) -> None:
        await run.pass_(60)
        run.provider.silent = True
        await run.pass_(901)
        run.provider.silent = False
        await run.pass_(120)
        assert {it.problem for it in run.found} == {""}
        run.provider.silent = True
        await run.pass_(1500)
        assert run.last() == ((40002,), "failed")
        await run.pass_(900)
        assert run.last() == ((), "failed")

    run.go(script)


def test_without_a_registration_the_reason_says_what_to_set() -> None:
    """A tunnel of the user's own file has no token."""
    around = Surroundings(Config((IPV4_ONLY,)), IPV4_ONLY, OWN, lambda: 0.0, {})
    with pytest.raises(MissingError, match="key is registered"):
        asyncio.run(SignedPorts(around, Account()).run(lambda _: None))


def test_the_authority_is_one() -> None:
    """The provider's own certificate is with the package."""
    assert SERVICE.authority.endswith(".pem")
    file = Path(signed_ports.__file__).with_name(SERVICE.authority)
    assert ssl.create_default_context(cafile=file).cert_store_stats()["x509_ca"]
