"""gateway/providers: every published form is read, and nothing that a list holds can do harm."""

import json
from dataclasses import fields, replace
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.providers import catalog, lists, selection
from gateway.providers.entries import Entry, is_key
from gateway.providers.lists import BadListError, KeptList, dumped, kept, servers_in
from gateway.providers.selection import FLAGS, TEXTS, Filters, matching, ranked, why_none
from gateway.providers.server import Provider, Server
from tests import provider_lists
from tests.provider_lists import key, raw

PUBLISHED = [each for each in catalog.PROVIDERS if each.url]
IPV4, IPV6 = ip_address("198.51.100.1"), ip_address("2001:db8:100::1")

EXPECTED = {
    "mullvad": (
        Server(
            "nl-ams-wg-001", key(1), (IPV4, IPV6), country="Netherlands", city="Amsterdam",
            isp="31173", owned=True,
        ),
        Server(
            "de-ber-wg-002", key(2), (ip_address("198.51.100.2"), ip_address("2001:db8:100::2")),
            country="Germany", city="Berlin", isp="M247",
        ),
    ),
    "ivpn": (
        Server("at1.wg.example", key(1), country="Austria", city="Vienna", isp="Datapacket"),
    ),
    "airvpn": (
        Server(
            "nl.vpn.airdns.org", "PyLCXAQT8KkM4T+dUsOQfn+Ub3pGxfGlxkIApuig+hk=", (IPV4, IPV6),
            country="Netherlands", region="Europe", city="Alblasserdam", name="Alchiba",
        ),
    ),
    "nordvpn": (
        Server(
            "pl1.nordvpn.example", key(1), (IPV4,), country="Poland", region="Europe",
            city="Warsaw", categories=("Standard VPN servers",),
        ),
    ),
    "private internet access": tuple(
        Server(
            "nl.privacy.example", "", (ip_address(f"198.51.100.{number}"),), country="NL",
            region="Netherlands", name=f"netherlands40{number}", port_forward=True,
        )
        for number in (1, 2)
    ),
    "surfshark": (
        Server("al-tia1.prod.example", key(1), country="Albania", region="Europe", city="Tirana"),
    ),
    "windscribe": (
        Server(
            "us-c-1.example", key(1), (ip_address("192.0.2.3"),), region="US Central",
            city="Chicago",
        ),
    ),
}  # fmt: skip


def provider(name: str) -> Provider:
    """Return a provider that is known."""
    found = catalog.find(name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", EXPECTED)
def test_each_published_form_is_read(name: str) -> None:
    """What is off, or has no WireGuard, is left out; nothing else is."""
    assert servers_in(provider(name), raw(name)) == EXPECTED[name]


def test_each_published_list_has_a_made_up_one() -> None:
    """A provider without a test of its form is not supported."""
    assert set(EXPECTED) == {each.name for each in PUBLISHED} == set(provider_lists.LISTS)


@pytest.mark.parametrize("each", PUBLISHED, ids=lambda each: each.name)
def test_filters_of_a_provider_are_what_its_list_fills(each: Provider) -> None:
    """A filter that no server has a value for would never match."""
    found = servers_in(each, raw(each.name))
    always = {"public_key", "addresses"}
    filled = {
        field.name for server in found for field in fields(server) if getattr(server, field.name)
    }
    assert set(each.filters) == filled - always


@pytest.mark.parametrize("each", catalog.PROVIDERS, ids=lambda each: each.name)
def test_every_provider_is_complete(each: Provider) -> None:
    """Names are found in any case, ports are ports, and the list comes by TLS."""
    for name in (each.name, each.name.upper(), f" {each.title} ", *each.other_names):
        assert catalog.find(name) is each
    assert all(0 < port < 1 << 16 for port in each.ports)
    assert each.listens_on(each.default_port)
    assert each.url is None or each.url.startswith("https://")
    assert each.url or each.remark, "a way to its servers"
    assert not each.listens_on(9) or each.any_port
    assert set(each.filters) <= {*TEXTS.values(), *FLAGS.values()}


def test_unknown_providers_have_a_nearest_name() -> None:
    """For the error message."""
    assert catalog.find("mulvad") is None
    assert catalog.nearest("mulvad") == "mullvad"
    assert catalog.nearest("cus tom") == "custom"
    assert catalog.nearest("zzzzzz") is None


@pytest.mark.parametrize("name", ["privado", "PureVPN", "vpn unlimited", "perfect privacy"])
def test_the_name_of_another_provider_has_no_nearest_name(name: str) -> None:
    """The nearest name would mislead."""
    assert catalog.find(name) is None
    assert catalog.nearest(name) is None


# -- what a list may hold -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b"[1, 2", "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 200_000, "nested too deeply"),
        (b"[]", "no WireGuard server"),
        (b"null", "no WireGuard server"),
        (b'{"servers": {"a": 1}}', "no WireGuard server"),
        (b" " * (lists.LARGEST + 1), "larger than 24 MiB"),
    ],
)
@pytest.mark.parametrize("each", PUBLISHED, ids=lambda each: each.name)
def test_a_list_that_cannot_be_used_says_why(each: Provider, content: bytes, why: str) -> None:
    """And quotes nothing of it."""
    with pytest.raises(BadListError, match=why):
        servers_in(each, content)
    with pytest.raises(BadListError):
        kept(content)


@pytest.mark.parametrize("each", PUBLISHED, ids=lambda each: each.name)
def test_a_truncated_list_is_refused(each: Provider) -> None:
    """Wherever it ends."""
    whole = raw(each.name).removesuffix(provider_lists.SIGNATURE)
    for end in range(0, len(whole), 7):
        with pytest.raises(BadListError):
            servers_in(each, whole[:end])


@pytest.mark.parametrize("each", PUBLISHED, ids=lambda each: each.name)
@pytest.mark.parametrize(
    "odd", [None, 1, -1.5, True, "", "x" * 200, "a\nb", "\x1b[2J", [], {}, [None], "127.0.0.1"]
)
def test_odd_values_cost_no_more_than_their_server(each: Provider, odd: Any) -> None:
    """Each value of the list in turn; the texts that remain are short and printable."""
    for changed in _each_changed(provider_lists.LISTS[each.name](), odd):
        try:
            found = servers_in(each, json.dumps(changed).encode())
        except BadListError:
            continue
        for server in found:
            assert is_key(server.public_key) or (each.keys and not server.public_key)
            assert server.addresses or server.hostname
            for field in fields(server):
                value = getattr(server, field.name)
                texts = value if isinstance(value, tuple) else (value,)
                for text in texts:
                    assert not isinstance(text, str) or (len(text) <= 120 and text.isprintable())


def _each_changed(document: Any, odd: Any) -> list[Any]:
    """Return copies of a document in each of which one value is replaced by `odd`."""
    found = [odd]
    if isinstance(document, dict):
        for name, value in document.items():
            found += [{**document, name: changed} for changed in _each_changed(value, odd)]
    elif isinstance(document, list):
        for at, value in enumerate(document):
            found += [
                [*document[:at], changed, *document[at + 1 :]]
                for changed in _each_changed(value, odd)
            ]
    return found


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "169.254.1.1",
                "fe80::1", "255.255.255.255", "198.51.100.256", "1", 1, None, "2001:db8::1%eth0",
                "2001:db8::1%x } accept;", "::ffff:198.51.100.1"],
)  # fmt: skip
def test_addresses_that_a_server_cannot_have_are_missing(address: object) -> None:
    """Also those that lead to this host."""
    assert Entry({"at": address}).address("at") is None


@pytest.mark.parametrize(
    "text",
    ["", "x", key(0), key(1)[:-1], key(1) + "=", f" {key(1)[1:]}", "é" * 44, key(1)[:-2] + "Z="],
)  # fmt: skip
def test_texts_that_are_not_keys_are_missing(text: str) -> None:
    """32 zeros are not one: they mean none."""
    assert not is_key(text)
    assert is_key(key(1))


def test_more_servers_than_any_provider_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would fill the memory; the same server twice counts once."""
    monkeypatch.setattr(lists, "MOST_SERVERS", 2)
    document = provider_lists.mullvad()
    assert len(servers_in(provider("mullvad"), json.dumps(document * 3).encode())) == 2
    document[2]["active"] = True
    with pytest.raises(BadListError, match="more than 2 servers"):
        servers_in(provider("mullvad"), json.dumps(document).encode())


# -- the kept form --------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=20)
servers = st.builds(
    Server,
    hostname=texts.filter(bool),
    public_key=st.integers(1, 1 << 200).map(key),
    addresses=st.lists(st.sampled_from([IPV4, IPV6]), unique=True).map(tuple),
    country=texts,
    region=texts,
    city=texts,
    name=texts,
    isp=texts,
    categories=st.lists(texts.filter(bool), max_size=3).map(tuple),
    owned=st.booleans(),
    port_forward=st.booleans(),
)


@given(st.lists(servers, min_size=1, max_size=5, unique=True), st.integers(0, lists.LATEST))
def test_what_is_kept_is_read_back(found: list[Server], fetched: int) -> None:
    """With any names of servers."""
    content = KeptList("mullvad", "https://example", fetched, tuple(found))
    assert kept(dumped(content)) == content


@pytest.mark.parametrize("missing", ["provider", "fetched", "servers"])
def test_a_kept_list_without_its_head_is_refused(missing: str) -> None:
    """It may be any other file."""
    content = json.loads(dumped(KeptList("mullvad", "", 5, EXPECTED["mullvad"])))
    del content[missing]
    with pytest.raises(BadListError, match="servers update"):
        kept(json.dumps(content).encode())


# -- selection ------------------------------------------------------------------------------------

MULLVAD = EXPECTED["mullvad"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (Filters(), (0, 1)),
        (Filters({"SERVER_COUNTRIES": ("netherlands",)}), (0,)),
        (Filters({"SERVER_COUNTRIES": ("GERMANY", "Netherlands")}), (0, 1)),
        (Filters({"SERVER_COUNTRIES": ("Germany",), "SERVER_CITIES": ("Berlin",)}), (1,)),
        (Filters({"SERVER_COUNTRIES": ("Germany",), "SERVER_CITIES": ("Amsterdam",)}), ()),
        (Filters({"SERVER_COUNTRIES": ("Nether",)}), ()),
        (Filters({"SERVER_HOSTNAMES": ("de-ber-wg-002",)}), (1,)),
        (Filters({"ISP": ("m247",)}), (1,)),
        (Filters(flags=frozenset({"OWNED_ONLY"})), (0,)),
        (Filters({"SERVER_CITIES": ()}), (0, 1)),
    ],
)
def test_a_server_matches_every_variable_by_any_of_its_values(
    filters: Filters, expected: tuple[int, ...]
) -> None:
    """Equal but for the case; an empty variable restricts nothing."""
    assert matching(MULLVAD, filters) == tuple(MULLVAD[at] for at in expected)


def test_a_value_that_no_server_has_is_named_with_the_closest() -> None:
    """All of them at once, and only those of a variable of which none exists."""
    (country, city) = why_none(
        MULLVAD, Filters({"SERVER_COUNTRIES": ("Netherland",), "SERVER_CITIES": ("Berlni",)})
    )
    assert (country.variable, country.value, country.existing) == (
        "SERVER_COUNTRIES", "Netherland", ("Netherlands",),
    )  # fmt: skip
    assert (city.variable, city.existing) == ("SERVER_CITIES", ("Berlin",))
    (unlike,) = why_none(MULLVAD, Filters({"SERVER_COUNTRIES": ("xyz",)}))
    assert unlike.existing == ("Germany", "Netherlands")


def test_values_that_exist_but_not_together_are_named() -> None:
    """With what there is for the others."""
    filters = Filters({"SERVER_COUNTRIES": ("Germany",), "SERVER_CITIES": ("Amsterdam",)})
    (conflict,) = why_none(MULLVAD, filters)
    assert (conflict.variable, conflict.value) == ("SERVER_CITIES", "")
    assert (conflict.existing, conflict.others) == (("Berlin",), ("SERVER_COUNTRIES",))
    owned = Filters({"SERVER_COUNTRIES": ("Germany",)}, frozenset({"OWNED_ONLY"}))
    (conflict,) = why_none(MULLVAD, owned)
    assert (conflict.variable, conflict.others) == ("OWNED_ONLY", ("SERVER_COUNTRIES",))


def test_a_flag_that_no_server_has_is_named() -> None:
    """OWNED_ONLY with a provider that owns none."""
    others = tuple(replace(server, owned=False) for server in MULLVAD)
    (found,) = why_none(others, Filters(flags=frozenset({"OWNED_ONLY"})))
    assert (found.variable, found.value) == ("OWNED_ONLY", "on")


def test_variables_that_a_provider_does_not_have_are_found() -> None:
    """ISP says nothing about AirVPN's servers."""
    filters = Filters({"ISP": ("M247",), "SERVER_NAMES": ("Alchiba",), "SERVER_CITIES": ()})
    assert selection.unknown(provider("airvpn"), filters) == ("ISP",)
    assert selection.unknown(provider("mullvad"), filters) == ("SERVER_NAMES",)


def test_a_part_of_a_long_list_of_values_is_shown() -> None:
    """The closest ones come first, and no more than a person reads."""
    there = [f"City {number:03}" for number in range(200)]
    assert selection.closest("city 042", there)[0] == "City 042"
    assert len(selection.closest("nothing like it", there)) == selection.MOST_SHOWN


@given(st.binary(max_size=8), st.lists(servers, max_size=6, unique=True), st.randoms())
def test_the_order_is_that_of_the_salt_alone(salt: bytes, found: list[Server], random: Any) -> None:
    """The order of the list has no influence, nor have the other servers."""
    order = ranked(found, salt)
    shuffled = list(found)
    random.shuffle(shuffled)
    assert [s.hostname for s in ranked(shuffled, salt)] == [s.hostname for s in order] or len(
        {(s.hostname, s.name, s.addresses) for s in found}
    ) < len(found)
    if found:
        without = [server for server in order if server is not found[0]]
        assert list(ranked(without, salt)) == without


def test_users_begin_with_different_servers() -> None:
    """Or all would meet at the first one of the list."""
    many = [replace(MULLVAD[0], hostname=f"s{number}") for number in range(10)]
    first = {ranked(many, str(salt).encode())[0].hostname for salt in range(200)}
    assert len(first) == len(many)
