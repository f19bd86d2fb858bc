"""Single values: what may be written, what it means, and that every refusal says what to write."""

import re
from collections.abc import Callable
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from gateway.model import Endpoint, HostPort, NamedEndpoint, PortRange, Protocol
from gateway.settings import addresses, fields, servers, values
from gateway.settings.addresses import allowed_ips
from gateway.settings.servers import EndpointChoice, endpoint_choices, host, server
from tests.configurations import PRIVATE, PUBLIC


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080", ["8080/tcp", "8080/udp"]),
        ("8080/tcp", ["8080/tcp"]),
        ("53/UDP, 80/tcp", ["53/udp", "80/tcp"]),
        ("6881-6889/udp", ["6881-6889/udp"]),
        ("1-65535/tcp", ["1-65535/tcp"]),
        (" , 80/tcp,,", ["80/tcp"]),
        ("7-7/tcp", ["7/tcp"]),
    ],
)
def test_ports_are_single_or_ranges_with_one_protocol_or_both(
    text: str, expected: list[str]
) -> None:
    """A port without a protocol means TCP and UDP; ranges take a protocol too."""
    assert [str(entry) for entry in values.ports(text)] == expected


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "65536",
        "http",
        "-5",
        "80-",
        "90-80",
        "80/sctp",
        "6881:6889",
        "80/",
        "1-2-3",
        "٨٠",
        "8 0",
    ],
)
def test_what_is_not_a_port_is_refused_with_what_was_written(text: str) -> None:
    """Names, numbers out of range and other separators are refused."""
    with pytest.raises(ValueError, match=r"write|must be"):
        values.ports(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("25s", 25), ("1m30s", 90), ("1h", 3600), ("25", 25), ("0", 0), ("0s", 0), ("1M 30S", 90)],
)
def test_durations_are_written_as_people_write_them(text: str, expected: int) -> None:
    """Units as in Go, or a plain number of seconds as in wg-quick files."""
    assert values.seconds(text) == expected


@pytest.mark.parametrize("text", ["", "25 seconds", "1.5s", "-1s", "s", "1s1m", "999999999s", "٢s"])
def test_what_is_not_a_duration_is_refused(text: str) -> None:
    """Fractions, unknown units and wrong order are refused."""
    with pytest.raises(ValueError, match="duration"):
        values.seconds(text)


def test_keepalive_may_be_off_and_has_a_limit() -> None:
    """`off` and 0 mean none; wg(8) ends at 65535."""
    assert values.keepalive("off") == values.keepalive("0") == 0
    with pytest.raises(ValueError, match="at most 65535"):
        values.keepalive("24h")


def test_an_address_without_a_mask_is_a_host_address() -> None:
    """In either family, for the tunnel and for subnets."""
    assert addresses.interface("10.0.0.2") == ip_interface("10.0.0.2/32")
    assert addresses.interface("fd00::2") == ip_interface("fd00::2/128")
    assert addresses.network("192.168.1.5") == ip_network("192.168.1.5/32")
    assert addresses.network("fd00::5") == ip_network("fd00::5/128")


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.0/255.0.0.0",
        "10.0.0.0/0.255.255.255",
        "10.0.0.0/33",
        "10.0.0/8",
        "lan",
        "fe80::1%eth0/64",
        "::ffff:10.0.0.1",
        "10.0.0.1/",
        "/8",
    ],
)
def test_subnets_have_a_prefix_length_and_nothing_else(text: str) -> None:
    """Netmasks, host masks, zones, names and IPv4 inside IPv6 are refused."""
    with pytest.raises(ValueError, match="write"):
        addresses.network(text)


@pytest.mark.parametrize("text", ["0.0.0.0", "127.0.0.1/8", "224.0.0.1", "::1", "ff02::1"])
def test_addresses_that_no_tunnel_can_have_are_refused(text: str) -> None:
    """Unspecified, loopback and multicast are not addresses of a tunnel."""
    with pytest.raises(ValueError, match="cannot be an address of the tunnel"):
        addresses.interface(text)


def test_all_wrong_entries_of_a_list_are_reported_at_once() -> None:
    """A list is not read up to its first fault."""
    with pytest.raises(ValueError, match=r"(?s)'a'.*'b'"):
        addresses.networks("a,10.0.0.0/8,b")


@pytest.mark.parametrize("address", ["127.0.0.11", "127.0.0.53", "127.0.0.54"])
def test_resolvers_of_docker_and_of_the_host_are_refused_with_the_reason(address: str) -> None:
    """They ask outside the tunnel, or are not there; a resolver of one's own is allowed."""
    with pytest.raises(ValueError, match="resolver"):
        addresses.resolver(address)
    assert addresses.resolvers("127.0.0.1, ::1") == (ip_address("127.0.0.1"), ip_address("::1"))


@pytest.mark.parametrize(
    "text", ["0.0.0.0", "224.0.0.251", "fe80::1", "255.255.255.255", "dns.example"]
)
def test_what_cannot_be_a_resolver_is_refused(text: str) -> None:
    """Unspecified, multicast, link-local, broadcast addresses and names are refused."""
    with pytest.raises(ValueError, match=r"cannot be|is not an IP address"):
        addresses.resolver(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("203.0.113.7:51820", "203.0.113.7:51820"),
        ("[2001:db8::7]:1", "[2001:db8::7]:1"),
    ],
)
def test_endpoints_have_a_port_and_ipv6_has_brackets(text: str, expected: str) -> None:
    """Both families, as wg(8) writes them."""
    assert str(servers.endpoint(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "203.0.113.7",
        "2001:db8::7:51820",
        "203.0.113.7:0",
        "203.0.113.7:http",
        "1.2.3:5",
        ":1",
        "127.0.0.1:51820",
        "0.0.0.0:1",
        "[::ffff:1.2.3.4]:1",
        "[2001:db8::7]",
        "[2001:db8::7:1",
        "2001:db8::7]:1",
        "udp://203.0.113.7:1",
    ],
)
def test_what_is_not_an_endpoint_is_refused(text: str) -> None:
    """Missing ports, bare IPv6, loopback and half addresses are refused."""
    with pytest.raises(ValueError, match=r"write|must be"):
        server(text)


def test_a_name_as_endpoint_is_read_as_one() -> None:
    """So that what resolves it, or refuses it, has the name and the port."""
    assert server("vpn-1.example.com:51820") == NamedEndpoint("vpn-1.example.com", 51820)
    assert server("vpn.example.com.:1") == NamedEndpoint("vpn.example.com.", 1)
    assert host("router.localdomain") == "router.localdomain"


LOCAL = ["localhost", "localhost.", "a.LOCALHOST", "localhost.localdomain"]


@pytest.mark.parametrize("name", [*LOCAL, "0x7f000001", "a.0x1"])
@pytest.mark.parametrize("read", [host, lambda name: server(f"{name}:1")])
def test_names_that_resolvers_read_as_something_else_are_not_servers(
    read: Callable[[str], object], name: str
) -> None:
    """This container itself, and numbers: `inet_aton` takes them for addresses."""
    with pytest.raises(
        ValueError, match="cannot be a server on the internet; write the server's address"
    ):
        read(name)


def test_endpoint_lists_may_carry_a_key_for_each() -> None:
    """`address:port@key`; the key of one entry never shows in its error."""
    first = Endpoint(ip_address("203.0.113.7"), 1)
    second = Endpoint(ip_address("2001:db8::7"), 2)
    assert endpoint_choices(f"203.0.113.7:1, [2001:db8::7]:2@{PUBLIC}") == (
        EndpointChoice(first),
        EndpointChoice(second, PUBLIC),
    )
    with pytest.raises(ValueError, match="is not a WireGuard key") as caught:
        endpoint_choices(f"203.0.113.7:1@{PUBLIC[:-3]}")
    assert PUBLIC[:20] not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9999", HostPort("127.0.0.1", 9999)),
        (":9999", HostPort("", 9999)),
        ("[::]:80", HostPort("::", 80)),
        ("localhost:1", HostPort("127.0.0.1", 1)),
    ],
)
def test_listening_addresses(text: str, expected: HostPort) -> None:
    """`address:port`, with an empty address for every one."""
    assert addresses.listen_address(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "9999",
        "gateway:9999",
        "::1:9999",
        "127.0.0.1:",
        "[127.0.0.1:1",
        "",
        "224.0.0.1:1",
        "[ff02::1]:1",
    ],
)
def test_what_is_not_a_listening_address_is_refused(text: str) -> None:
    """Names and bare IPv6 are refused, as the health check would refuse them."""
    with pytest.raises(ValueError, match="write"):
        addresses.listen_address(text)


def test_mtu_zero_means_from_the_uplink() -> None:
    """0 is how gluetun writes it; below 576 IPv4 does not work (RFC 791)."""
    assert values.mtu("0") is None
    assert values.mtu("1320") == 1320
    for text in ("575", "65536", "big", "1320.0", "-1"):
        with pytest.raises(ValueError, match="576 to 65535 bytes"):
            values.mtu(text)


def test_fwmark_is_decimal_or_hexadecimal() -> None:
    """As wg(8) reads it; off and 0 leave the default."""
    assert values.fwmark("0xCA6C") == values.fwmark("51820") == 51820
    assert values.fwmark("off") is values.fwmark("0") is values.fwmark("0x0") is None
    for text in ("0x1ffffffff", "4294967296", "1_0", "mark", "-1", "010"):
        with pytest.raises(ValueError, match="must be a number"):
            values.fwmark(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        PRIVATE[:-1],
        PRIVATE[:-1] + "A",
        PRIVATE + "=",
        "!" * 43 + "=",
        "AAAA" * 11,
        "é" * 44,
        PRIVATE[:42] + "F=",
        "_" + PRIVATE[1:],
    ],
)
@pytest.mark.parametrize("read", [values.secret_key, values.preshared_key, values.used_key])
def test_what_is_not_a_key_is_refused_and_never_shown(
    read: Callable[[str], object], text: str
) -> None:
    """Length, alphabet, padding and unused bits are checked; the message has none of the text."""
    with pytest.raises(ValueError, match="is not a WireGuard key") as caught:
        read(text)
    assert len(text) < 5 or text[:10] not in str(caught.value)


def test_a_key_of_zeros_is_not_a_key() -> None:
    """As a preshared key it means none (wg(8)); as any other key it is a mistake."""
    zeros = "A" * 43 + "="
    assert values.preshared_key(zeros) is None
    with pytest.raises(ValueError, match="all zeros"):
        values.secret_key(zeros)


def test_messages_show_what_was_written_but_nothing_like_a_key() -> None:
    """Short, printable, in quotes; keys and parts of keys are hidden."""
    assert values.safe_quote("99999") == "'99999'"
    assert values.safe_quote("a\nb\x1b[0m") == "'a?b?[0m'"
    assert len(values.safe_quote("x," * 500)) < 70
    realistic = "wOEI9rqqbDwnN8/Bpp22sVz48T71vJ4fYmFWujulwUU="
    for text in (realistic, realistic[:25], f"10.0.0.1/32 {realistic}", realistic[:-1], PRIVATE):
        assert text[-12:-2] not in values.safe_quote(text)
    assert (
        values.safe_quote("/run/secrets/wireguard_private_key")
        == "'/run/secrets/wireguard_private_key'"
    )


def test_choices_are_not_case_sensitive() -> None:
    """And the refusal lists them."""
    assert values.choice("AUTO", ("auto", "other")) == "auto"
    with pytest.raises(ValueError, match="must be auto or other, got 'x'"):
        values.choice("x", ("auto", "other"))


def test_port_ranges_order_by_protocol_and_number() -> None:
    """So that lists come out in one order whatever the user wrote."""
    ranges = [PortRange(Protocol.UDP, 1, 1), PortRange(Protocol.TCP, 9, 9)]
    assert sorted(ranges) == ranges[::-1]


@pytest.mark.parametrize("text", ["10.64.0.2/0", "fd00::2/0"])
def test_an_address_of_the_tunnel_has_not_everybody_for_its_neighbour(text: str) -> None:
    """A prefix length of zero is a slip of the hand."""
    with pytest.raises(
        ValueError, match="has a /0 prefix, which puts every address on the tunnel's link; write"
    ):
        addresses.interface(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.0.0.0", "'0.0.0.0' matches no host; write 0.0.0.0/0 for everything"),
        ("::", "'::' matches no host; write ::/0 for everything"),
        ("127.0.0.0/8", "is loopback, which goes into no tunnel"),
        ("::1", "is loopback, which goes into no tunnel"),
    ],
)
def test_destinations_that_cannot_be_are_refused(text: str, expected: str) -> None:
    """In `AllowedIPs`: everything has a prefix length, and loopback stays here."""
    with pytest.raises(ValueError, match=expected):
        allowed_ips(f"10.0.0.0/8,{text}")


@pytest.mark.parametrize("text", ["1.1.1.1:53", "[2606:4700::1111]:53", "tls://1.1.1.1", "dns.x"])
def test_a_resolver_is_an_address_alone(text: str) -> None:
    """Without a port, a protocol or a name, and the refusal says so."""
    with pytest.raises(ValueError, match="write a resolver's address alone, without a port"):
        addresses.resolver(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/config/up.sh && true", "has &&, but no shell runs it: put the command in a script"),
        ("/config/up.sh | tee /log", "has |, but no shell"),
        ("/config/up.sh; true", "has ;, but no shell"),
        ("/config/up.sh ; true", "has ;, but no shell"),
        ("/config/up.sh > /log", "has >, but no shell"),
        ("/config/up.sh 2>/log", "has >, but no shell"),
        ("/config/up.sh # mine", "has #, but no shell"),
        ('""', "does not name a program"),
        ("'' a", "does not name a program"),
    ],
)
def test_a_command_is_a_program_and_no_line_of_a_shell(text: str, expected: str) -> None:
    """What only a shell understands would be handed to the program as a word."""
    with pytest.raises(ValueError, match=re.escape(expected)):
        fields.command(text)


def test_a_command_gets_the_interface_as_gluetun_writes_it() -> None:
    """`{{VPN_INTERFACE}}` is the tunnel's; quotes and what they enclose stay."""
    assert fields.command("/up.sh {{VPN_INTERFACE}} 'a b' --x=1#2") == (
        "/up.sh",
        "wg0",
        "a b",
        "--x=1#2",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("203.0.113.7,203.0.113.8", "lists several servers; put them in WIREGUARD_ENDPOINTS"),
        ("https://vpn.example.com", "is a URL; write the address or the name alone"),
        ("[2001:db8::7", "is neither an IP address nor a name"),
    ],
)
def test_what_is_not_a_single_server_is_refused_with_the_remedy(text: str, expected: str) -> None:
    """Two of them, a URL, half a pair of brackets."""
    with pytest.raises(ValueError, match=re.escape(expected)):
        fields.endpoint_ip(text)


@pytest.mark.parametrize("text", ["icmp:127.0.0.1", "icmp:::", "icmp:0.0.0.0", "icmp:224.0.0.1"])
def test_no_address_is_not_probed(text: str) -> None:
    """Loopback, unspecified and multicast addresses say nothing of the tunnel."""
    with pytest.raises(
        ValueError, match="is not an address in the tunnel; write one that answers there"
    ):
        fields.probe(text)
