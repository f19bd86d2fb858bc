"""Who may use the control API: credentials, addresses of pages, names of hosts, patience."""

from base64 import b64encode

import pytest

from gateway.control import browsers, urls
from gateway.control.access import (
    Gate,
    Headers,
    Holder,
    Ruling,
    Shown,
    Unreadable,
    Verdict,
    digest_of,
    shown_by,
)
from gateway.control.patience import (
    FIRST,
    FORGOTTEN_AFTER,
    LONGEST,
    MOST_ADDRESSES,
    Patience,
    place_of,
)
from gateway.model import Secret
from gateway.model.control import Auth, Role, every_route, is_reading
from tests.fakes.clock import Clock

SALT = b"salt"
PORT, PAUSE, VERSION = "GET /v1/portforward", "PUT /v1/vpn/status", "GET /v1/version"


def holder(name: str, kind: str, credential: bytes, *routes: str) -> Holder:
    """Return a role for these routes; one of kind `none` has no digest."""
    digest = digest_of(SALT, kind, credential) if credential else b""
    return Holder(name, kind, frozenset(routes), digest)


GATE = Gate(
    SALT,
    [
        holder("sync", "apikey", b"key", PORT),
        holder("person", "basic", b"me:word", PAUSE),
        holder("all", "none", b"", VERSION),
    ],
)


@pytest.mark.parametrize(
    ("route", "shown", "ruling"),
    [
        (PORT, Shown("apikey", b"key"), Ruling(Verdict.ALLOWED, "sync", has_shown=True)),
        (PORT, Shown("apikey", b"kez"), Ruling(Verdict.UNKNOWN)),
        (PORT, Shown("apikey", b""), Ruling(Verdict.UNKNOWN)),
        (PORT, None, Ruling(Verdict.UNKNOWN)),
        (PORT, Shown("basic", b"key"), Ruling(Verdict.UNKNOWN)),
        (PAUSE, Shown("apikey", b"key"), Ruling(Verdict.FORBIDDEN, "sync", has_shown=True)),
        (PAUSE, Shown("basic", b"me:word"), Ruling(Verdict.ALLOWED, "person", has_shown=True)),
        (PAUSE, Shown("apikey", b"me:word"), Ruling(Verdict.UNKNOWN)),
        (VERSION, None, Ruling(Verdict.ALLOWED, "all")),
        (VERSION, Shown("apikey", b"key"), Ruling(Verdict.ALLOWED, "all", has_shown=True)),
        (VERSION, Shown("apikey", b"wrong"), Ruling(Verdict.UNKNOWN)),
    ],
)
def test_a_credential_is_for_its_kind_and_its_routes(
    route: str, shown: Shown | None, ruling: Ruling
) -> None:
    """Nothing else is allowed, and an empty credential is none."""
    assert GATE.ruling(route, shown) == ruling


def test_two_roles_with_one_credential_have_the_routes_of_both() -> None:
    """As in gluetun, where every role is tried."""
    gate = Gate(SALT, [holder("a", "apikey", b"k", PORT), holder("b", "apikey", b"k", PAUSE)])
    assert gate.ruling(PAUSE, Shown("apikey", b"k")).role == "b"


def test_without_roles_nothing_is_allowed() -> None:
    """A process that has not been given any yet refuses all."""
    gate = Gate(b"", ())
    for route in every_route():
        assert gate.ruling(route, None).verdict is Verdict.UNKNOWN
        assert gate.ruling(route, Shown("apikey", b"")).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        ([], None),
        ([(b"x-api-key", b" key ")], Shown("apikey", b"key")),
        ([(b"authorization", b"Bearer key")], Shown("apikey", b"key")),
        ([(b"authorization", b"bearer  key")], Shown("apikey", b"key")),
        ([(b"authorization", b"Basic " + b64encode(b"me:a:b"))], Shown("basic", b"me:a:b")),
    ],
)
def test_a_credential_is_read_from_either_header(headers: Headers, shown: Shown | None) -> None:
    """X-API-Key, Bearer and Basic."""
    assert shown_by(headers) == shown


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-api-key", b"a"), (b"x-api-key", b"b")],
        [(b"x-api-key", b"a"), (b"authorization", b"Bearer a")],
        [(b"x-api-key", b"")],
        [(b"x-api-key", b"a" * 2000)],
        [(b"authorization", b"Basic !!!")],
        [(b"authorization", b"Basic")],
        [(b"authorization", b"Digest x")],
    ],
)
def test_what_is_not_one_credential_is_an_error_that_does_not_repeat_it(headers: Headers) -> None:
    """Two credentials, an empty one, a long one, another scheme."""
    with pytest.raises(Unreadable) as found:
        shown_by(headers)
    assert "aaaa" not in str(found.value)


def test_a_client_is_asked_for_what_the_role_of_the_route_takes() -> None:
    """A browser shows its dialog only where a name and a password are right."""
    assert GATE.challenge(PAUSE).startswith("Basic ")
    assert GATE.challenge(PORT).startswith("Bearer ")


@pytest.mark.parametrize(
    ("target", "found"),
    [
        (b"/v1/version", False),
        (b"/v1/version?t=1717&cache=no", False),
        (b"/v1/version?apikey=x", True),
        (b"/v1/version?API_KEY=x", True),
        (b"/v1/version?x-api-key", True),
        (b"/v1/version?a=1&access%5ftoken=x", True),
        (b"/v1/version?%74oken=x", True),
        (b"/v1/version?" + b"&".join(b"a=1" for _ in range(100)), True),
    ],
)
def test_a_credential_in_the_url_is_noticed(target: bytes, *, found: bool) -> None:
    """However it is written, and so is a query that is too long to look at."""
    assert urls.has_credential(target) is found


@pytest.mark.parametrize("target", [b"*", b"http://gateway/v1/version", b"gateway:8000", b""])
def test_only_a_path_is_a_target(target: bytes) -> None:
    """A proxy's form of a request leads nowhere."""
    assert urls.path_of(target) is None


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ([], False),
        ([(b"host", b"gateway:8000"), (b"origin", b"http://gateway:8000")], False),
        ([(b"host", b"gateway:8000"), (b"origin", b"http://GATEWAY:8000")], False),
        ([(b"host", b"gateway:8000"), (b"origin", b"http://evil.example")], True),
        ([(b"host", b"gateway:8000"), (b"origin", b"http://gateway:3000")], True),
        ([(b"host", b"gateway"), (b"origin", b"null")], True),
        ([(b"origin", b"http://evil.example")], True),
        ([(b"host", b"gateway"), (b"sec-fetch-site", b"cross-site")], True),
        ([(b"host", b"gateway"), (b"sec-fetch-site", b"same-site")], True),
        ([(b"host", b"gateway"), (b"sec-fetch-site", b"none")], False),
        ([(b"host", b"gateway"), (b"sec-fetch-site", b"same-origin")], False),
    ],
)
def test_a_page_of_another_origin_is_noticed(headers: Headers, *, refused: bool) -> None:
    """By what browsers say of themselves."""
    assert browsers.is_from_a_page(headers) is refused


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1:8000", True),
        ("192.168.1.5", True),
        ("[fd00::5]:8000", True),
        ("localhost:8000", True),
        ("gluetun:8000", True),
        ("gateway.lan", True),
        ("nas.local.", True),
        ("evil.example.com", False),
        ("127.0.0.1.nip.io:8000", False),
        ("local", True),
        ("xlocal.com", False),
        ("", False),
        ("..", False),
        ("[fd00", False),
        ("gateway\ufffd", False),
        ("g\u00e4te.lan", False),
    ],
)
def test_names_that_a_stranger_can_register_are_known(host: str, *, local: bool) -> None:
    """A page whose name leads here after it was loaded has such a name in Host."""
    assert browsers.is_local(host) is local


def test_an_address_that_guesses_waits_longer_and_is_never_locked_out() -> None:
    """The wait doubles up to a limit, and is forgotten."""
    clock = Clock()
    patience = Patience(clock)
    assert patience.wait_for("192.0.2.1") == 0
    waits = []
    for _ in range(1000):
        patience.failed("192.0.2.1")
        waits.append(patience.wait_for("192.0.2.1"))
    assert waits[:3] == [FIRST, 2 * FIRST, 4 * FIRST]
    assert waits[-1] == LONGEST
    assert patience.wait_for("192.0.2.2") == 0
    clock.now += FORGOTTEN_AFTER + 1
    assert patience.wait_for("192.0.2.1") == 0
    patience.failed("192.0.2.1")
    assert patience.wait_for("192.0.2.1") == FIRST


def test_few_addresses_are_remembered_and_a_network_of_ipv6_is_one() -> None:
    """A guesser with many addresses costs a limited amount of memory."""
    patience = Patience(Clock())
    for number in range(MOST_ADDRESSES + 10):
        patience.failed(f"10.0.{number // 256}.{number % 256}")
    assert patience.wait_for("10.0.0.1") == 0
    assert patience.wait_for("10.0.4.5") == FIRST
    patience.failed("2001:db8::1")
    assert patience.wait_for("2001:db8::2") == FIRST
    assert place_of("::ffff:192.0.2.1") == place_of("192.0.2.1")
    assert place_of("fe80::1%eth0") == "fe80::/64"


def test_a_role_without_a_credential_cannot_change_anything() -> None:
    """It cannot even be expressed."""
    reading = frozenset(filter(is_reading, every_route()))
    assert Role("all", Auth.NONE, reading).credential is None
    for route in every_route() - reading:
        with pytest.raises(ValueError, match="nothing can be changed"):
            Role("all", Auth.NONE, frozenset({route}))
    with pytest.raises(ValueError, match="a role has a credential"):
        Role("all", Auth.KEY, reading)
    assert "secret-of-mine" not in repr(Role("a", Auth.KEY, reading, Secret("secret-of-mine")))
