"""What may pass outside the tunnel: subnets, ports, resolvers and servers that fit together."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from gateway.providers.lists import KeptList, dumped, servers_in
from gateway.providers.mullvad import MULLVAD
from gateway.settings import assemble
from tests import provider_lists
from tests.configurations import COMPLETE, PRIVATE, QUICK, problems, put, reported

KEPT_MULLVAD = dumped(
    KeptList("mullvad", "", 0, servers_in(MULLVAD, provider_lists.raw("mullvad")))
).decode()


@pytest.mark.parametrize(
    "subnet",
    [
        "10.0.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "192.168.1.5",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "fd00:1::/64",
        "fe80::/64",
    ],
)
def test_private_shared_and_link_local_subnets_may_be_outside(tmp_path: Path, subnet: str) -> None:
    """RFC 1918, RFC 6598, RFC 3927, RFC 4193 and RFC 4291 ranges, and hosts in them."""
    loaded = assemble.load({**COMPLETE, "FIREWALL_OUTBOUND_SUBNETS": subnet}, tmp_path)
    assert len(loaded.config.outbound_subnets) == 1


@pytest.mark.parametrize(
    ("subnet", "reason"),
    [
        ("0.0.0.0/0", "is everything"),
        ("::/0", "is everything"),
        ("0.0.0.0/1", "reaches beyond the private range 10.0.0.0/8"),
        ("10.0.0.0/7", "reaches beyond the private range 10.0.0.0/8"),
        ("172.16.0.0/11", "reaches beyond the private range 172.16.0.0/12"),
        ("192.168.0.0/8", "192.0.0.0/8 reaches beyond"),
        ("f000::/4", "reaches beyond"),
        ("2001:db8::/32", "has public addresses"),
        ("127.0.0.0/8", "loopback"),
        ("127.0.0.11", "loopback"),
        ("::1", "loopback"),
        ("224.0.0.0/4", "multicast"),
        ("239.255.255.250", "multicast"),
        ("ff02::/16", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("0.0.0.0", "not a destination"),
        ("::ffff:192.168.1.0/120", "IPv4"),
    ],
)
def test_everything_else_outside_is_refused_with_the_reason(
    tmp_path: Path, subnet: str, reason: str
) -> None:
    """The default route, public ranges, loopback, multicast, broadcast."""
    environ = {**COMPLETE, "FIREWALL_OUTBOUND_SUBNETS": f"192.168.1.0/24,{subnet}"}
    (problem,) = problems(environ, tmp_path)
    assert problem.startswith("FIREWALL_OUTBOUND_SUBNETS: ")
    assert reason in problem


def test_a_public_network_is_listed_apart_and_what_that_means_is_said(tmp_path: Path) -> None:
    """Docker takes such ranges where a network asks for one."""
    listed = "192.168.1.0/24,172.50.0.0/16,198.18.0.0/15"
    loaded = assemble.load({**COMPLETE, "FIREWALL_OUTBOUND_SUBNETS": listed}, tmp_path)
    assert list(map(str, loaded.config.outbound_subnets)) == ["192.168.1.0/24"]
    assert list(map(str, loaded.config.public_subnets)) == ["172.50.0.0/16", "198.18.0.0/15"]
    said = (
        "FIREWALL_OUTBOUND_SUBNETS: 172.50.0.0/16, 198.18.0.0/15 has public addresses: they are "
        "outside the tunnel only while a network of the gateway itself has this subnet"
    )
    assert said in reported(loaded)
    loaded = assemble.load({**COMPLETE, "FIREWALL_OUTBOUND_SUBNETS": "10.0.0.0/16"}, tmp_path)
    assert "public addresses" not in reported(loaded)
    assert loaded.config.public_subnets == ()


def test_few_public_networks_are_listed(tmp_path: Path) -> None:
    """Each one has a policy rule, which the kernel compares with each packet."""
    many = ",".join(f"172.{number}.0.0/16" for number in range(40, 74, 2))
    environ = {**COMPLETE, "FIREWALL_OUTBOUND_SUBNETS": many}
    (problem,) = problems(environ, tmp_path)
    assert problem == "FIREWALL_OUTBOUND_SUBNETS: has 17 public subnets; list at most 16 of them"
    fewer = {**environ, "FIREWALL_OUTBOUND_SUBNETS": many.rpartition(",")[0]}
    assert len(assemble.load(fewer, tmp_path).config.public_subnets) == 16


@pytest.mark.parametrize("subnet", ["10.64.1.0/24", "10.64.1.0/30", "10.64.1.2", "fd7d::/64"])
def test_the_tunnels_own_address_outside_is_refused(tmp_path: Path, subnet: str) -> None:
    """Answers to the tunnel's own traffic would take the wrong way."""
    environ = {**COMPLETE, "FIREWALL_OUTBOUND_SUBNETS": subnet}
    (problem,) = problems(environ, tmp_path)
    assert "contains the tunnel's own address" in problem


def test_a_range_around_the_tunnel_is_used_without_its_network(tmp_path: Path) -> None:
    """The private ranges as a whole: a common way to say "my home network".

    The resolver of a provider is the tunnel's, also where a variable names it.
    """
    ranges = "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fd00::/8"
    loaded = assemble.load({**COMPLETE, "FIREWALL_OUTBOUND_SUBNETS": ranges}, tmp_path)
    subnets = loaded.config.outbound_subnets
    inside = ["10.64.1.2", "10.64.1.255", "10.64.0.1", "fd7d::2", "fd7d::ffff"]
    for text in inside:
        assert not any(ip_address(text) in subnet for subnet in subnets)
    for text in ("10.64.2.1", "10.0.0.1", "10.255.0.1", "172.16.0.1", "192.168.1.1", "fd7d:1::1"):
        assert sum(ip_address(text) in subnet for subnet in subnets) == 1
    for line in (
        "10.0.0.0/8 is used without 10.64.1.0/24, 10.64.0.1/32, which the tunnel has",
        "fd00::/8 is used without fd7d::/64, which the tunnel has",
    ):
        assert f"FIREWALL_OUTBOUND_SUBNETS: {line}" in reported(loaded)
    assert "192.168.0.0/16 is used without" not in reported(loaded)


def test_a_range_around_the_tunnel_is_used_without_the_files_resolver(tmp_path: Path) -> None:
    """It need not be near the tunnel's address. One that a variable names may be at home."""
    put(tmp_path, "/config/wg0.conf", QUICK.replace("DNS = 10.2.0.1", "DNS = 10.9.0.1"))
    environ = {"FIREWALL_OUTBOUND_SUBNETS": "10.0.0.0/8"}
    loaded = assemble.load(environ, tmp_path)
    assert "without 10.2.0.0/24, 10.9.0.1/32, which the tunnel has" in reported(loaded)
    assert not any(ip_address("10.9.0.1") in one for one in loaded.config.outbound_subnets)
    loaded = assemble.load({**environ, "DNS_ADDRESS": "10.9.0.2"}, tmp_path)
    assert any(ip_address("10.9.0.2") in one for one in loaded.config.outbound_subnets)
    assert "the resolver 10.9.0.2 is in 10." in reported(loaded)


def test_a_range_around_the_tunnel_is_used_without_the_providers_resolver(tmp_path: Path) -> None:
    """It is far from the tunnel's address, and no variable names it."""
    put(tmp_path, "/config/servers/mullvad.json", KEPT_MULLVAD)
    environ = {
        "VPN_SERVICE_PROVIDER": "mullvad",
        "WIREGUARD_PRIVATE_KEY": PRIVATE,
        "WIREGUARD_ADDRESSES": "10.66.7.8/32",
        "FIREWALL_OUTBOUND_SUBNETS": "10.0.0.0/8",
    }
    loaded = assemble.load(environ, tmp_path)
    assert list(map(str, loaded.config.tunnels[0].dns)) == ["10.64.0.1"]
    assert not any(ip_address("10.64.0.1") in one for one in loaded.config.outbound_subnets)
    assert "without 10.66.7.0/24, 10.64.0.1/32, which the tunnel has" in reported(loaded)


def test_a_range_is_used_without_the_network_of_each_candidate(tmp_path: Path) -> None:
    """Also where one has a whole network as its address."""
    for number, address in enumerate(("10.2.0.2/32", "10.16.0.2/12", "10.2.0.3/32")):
        text = QUICK.replace("10.2.0.2/32", address)
        put(tmp_path, f"/config/{number}.conf", text)
    loaded = assemble.load({"FIREWALL_OUTBOUND_SUBNETS": "10.0.0.0/8"}, tmp_path)
    assert "10.0.0.0/8 is used without 10.2.0.0/24, 10.16.0.0/12" in reported(loaded)
    for text, outside in (("10.2.0.9", 0), ("10.31.0.1", 0), ("10.32.0.1", 1), ("10.2.1.1", 1)):
        found = [one for one in loaded.config.outbound_subnets if ip_address(text) in one]
        assert len(found) == outside


@pytest.mark.parametrize(
    ("resolver", "expected"),
    [
        ("127.0.0.1", "the resolver 127.0.0.1 is none of the gateway's: a container that shares"),
        ("::1", "the resolver ::1 is none of the gateway's"),
        ("192.168.1.1", "the resolver 192.168.1.1 looks like one of a home network, but is asked"),
        ("fd12::1", "the resolver fd12::1 looks like one of a home network"),
    ],
)
def test_a_resolver_that_may_not_answer_is_reported(
    tmp_path: Path, resolver: str, expected: str
) -> None:
    """Control: none of it for the tunnel's own, and for one that is listed."""
    off = {**COMPLETE, "DNS_SERVER": "off"}
    loaded = assemble.load({**off, "DNS_ADDRESS": resolver}, tmp_path)
    assert f"DNS_ADDRESS: {expected}" in reported(loaded)
    for environ in (
        {"DNS_ADDRESS": "10.64.0.1"},
        {"DNS_ADDRESS": resolver, "FIREWALL_OUTBOUND_SUBNETS": "192.168.1.0/24,fd12::/64"},
    ):
        if not resolver.startswith(("127", "::1")) or len(environ) == 1:
            control = reported(assemble.load({**off, **environ}, tmp_path))
            assert "home network, but" not in control
            assert "none of the gateway's" not in control


def test_the_files_resolver_outside_is_refused(tmp_path: Path) -> None:
    """The provider's resolver would be asked, and seen, outside the tunnel."""
    put(tmp_path, "/config/wg0.conf", QUICK.replace("DNS = 10.2.0.1", "DNS = 10.2.9.1"))
    (problem,) = problems({"FIREWALL_OUTBOUND_SUBNETS": "10.2.9.0/24"}, tmp_path)
    assert "contains the tunnel's resolver 10.2.9.1" in problem


def test_a_resolver_in_the_tunnels_network_outside_is_refused(tmp_path: Path) -> None:
    """Even when a variable names it: it belongs to the tunnel."""
    environ = {
        **COMPLETE,
        "WIREGUARD_ADDRESSES": "10.64.1.2/24",
        "DNS_ADDRESS": "10.64.1.129",
        "FIREWALL_OUTBOUND_SUBNETS": "10.64.1.128/25",
    }
    (problem,) = problems(environ, tmp_path)
    assert "contains the tunnel's resolver 10.64.1.129" in problem


def test_a_resolver_at_home_is_fine_and_reported(tmp_path: Path) -> None:
    """When a variable names it, it is meant; what it sees is said."""
    home = {"DNS_ADDRESS": "192.168.1.53", "FIREWALL_OUTBOUND_SUBNETS": "192.168.1.0/24"}
    loaded = assemble.load({**COMPLETE, **home}, tmp_path)
    assert "DNS_ADDRESS: the resolver 192.168.1.53 is in 192.168.1.0/24, outside" in reported(
        loaded
    )


def test_a_server_at_home_is_fine_and_reported(tmp_path: Path) -> None:
    """The encrypted flow has its own rule; the subnet is a hole next to it."""
    home = {"WIREGUARD_ENDPOINT_IP": "192.168.1.2", "FIREWALL_OUTBOUND_SUBNETS": "192.168.1.0/24"}
    loaded = assemble.load({**COMPLETE, **home}, tmp_path)
    assert (
        "the server 192.168.1.2:51820 is in 192.168.1.0/24, outside the tunnel, which is fine"
        in reported(loaded)
    )


def test_overlapping_and_duplicate_subnets_are_merged_and_reported(tmp_path: Path) -> None:
    """The widest entry stays, in the user's order; host bits are cleared."""
    written = "192.168.1.7/24,192.168.1.0/25,192.168.5.5,192.168.5.5/32"
    loaded = assemble.load({**COMPLETE, "FIREWALL_OUTBOUND_SUBNETS": written}, tmp_path)
    assert [str(one) for one in loaded.config.outbound_subnets] == [
        "192.168.1.0/24",
        "192.168.5.5/32",
    ]
    for line in (
        "192.168.1.7/24 is read as 192.168.1.0/24",
        "192.168.1.0/25 is a part of 192.168.1.0/24 and merged into it",
        "192.168.5.5/32 is listed twice; once is enough",
    ):
        assert f"FIREWALL_OUTBOUND_SUBNETS: {line}" in reported(loaded)


def test_the_last_port_is_not_an_input_port(tmp_path: Path) -> None:
    """No policy rule of the kernel can name it; in the tunnel none is needed."""
    (problem,) = problems({**COMPLETE, "FIREWALL_INPUT_PORTS": "80,65000-65535/udp"}, tmp_path)
    assert problem.startswith("FIREWALL_INPUT_PORTS: 65000-65535/udp contains port 65535, whose")
    for name, ports in {
        "FIREWALL_INPUT_PORTS": "65534",
        "FIREWALL_VPN_INPUT_PORTS": "65535",
    }.items():
        assemble.load({**COMPLETE, name: ports}, tmp_path)


def test_the_widest_subnet_that_is_listed_first_is_named(tmp_path: Path) -> None:
    """Where several contain an entry."""
    written = "172.16.1.0/24,172.16.0.0/12,172.16.0.0/16,fd00:1::/32,fd00::/16"
    loaded = assemble.load({**COMPLETE, "FIREWALL_OUTBOUND_SUBNETS": written}, tmp_path)
    assert [*map(str, loaded.config.outbound_subnets)] == ["172.16.0.0/12", "fd00::/16"]
    assert "172.16.1.0/24 is a part of 172.16.0.0/12 and merged into it" in reported(loaded)


LISTS = {
    "FIREWALL_INPUT_PORTS": ",".join(map(str, range(1, 2 * 4096, 2))),
    "FIREWALL_VPN_INPUT_PORTS": ",".join(map(str, range(1, 2 * 4096, 2))),
    "FIREWALL_OUTBOUND_SUBNETS": ",".join(f"10.{n // 128}.{n % 128 * 2}.0/24" for n in range(4096)),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_has_at_most_4096_entries(tmp_path: Path, name: str) -> None:
    """The error says how many there are and what to write instead."""
    loaded = assemble.load({**COMPLETE, name: LISTS[name]}, tmp_path)
    config = loaded.config
    assert len(config.outbound_subnets + config.input_ports + config.vpn_input_ports) >= 4096
    again = LISTS[name].partition(",")[0]
    (problem,) = problems({**COMPLETE, name: f"{LISTS[name]},{again}"}, tmp_path)
    assert name in problem
    assert "has 4097 entries, at most 4096 are read; write ranges of ports" in problem


@pytest.mark.parametrize("name", ["FIREWALL_INPUT_PORTS", "FIREWALL_VPN_INPUT_PORTS"])
def test_overlapping_ports_are_merged_and_reported(tmp_path: Path, name: str) -> None:
    """Of one protocol only; neighbours stay apart as written."""
    loaded = assemble.load({**COMPLETE, name: "80/tcp,70-90/tcp,91/tcp,80/udp,80/udp"}, tmp_path)
    ports = loaded.config.input_ports + loaded.config.vpn_input_ports
    assert [str(port) for port in ports] == ["70-90/tcp", "91/tcp", "80/udp"]
    assert f"{name}: 70-90/tcp and 80/tcp overlap; read as 70-90/tcp" in reported(loaded)
    assert f"{name}: 80/udp and 80/udp overlap; read as 80/udp" in reported(loaded)


def test_narrow_allowed_ips_are_reported(tmp_path: Path) -> None:
    """Only those destinations go into the tunnel, and the rest goes nowhere."""
    loaded = assemble.load(
        {**COMPLETE, "WIREGUARD_ALLOWED_IPS": "10.0.0.0/8,10.64.0.0/10"}, tmp_path
    )
    (tunnel,) = loaded.config.tunnels
    assert [str(one) for one in tunnel.peers[0].allowed_ips] == ["10.0.0.0/8"]
    assert "only 10.0.0.0/8 goes into the tunnel; all other IPv4 traffic is refused" in reported(
        loaded
    )
    assert "no IPv6 traffic goes into the tunnel" in reported(loaded)


def test_two_halves_are_everything(tmp_path: Path) -> None:
    """The old trick to leave the default route alone means the default route."""
    halves = "0.0.0.0/1,128.0.0.0/1,::/1,8000::/1"
    loaded = assemble.load({**COMPLETE, "WIREGUARD_ALLOWED_IPS": halves}, tmp_path)
    assert {str(one) for one in loaded.config.tunnels[0].peers[0].allowed_ips} == {
        "0.0.0.0/0",
        "::/0",
    }
    assert "AllowedIPs" not in reported(loaded)


def test_a_tunnel_without_ipv6_says_so(tmp_path: Path) -> None:
    """IPv6 is refused then, which may surprise."""
    loaded = assemble.load({**COMPLETE, "WIREGUARD_ADDRESSES": "10.64.1.2"}, tmp_path)
    assert "the tunnel has no IPv6 address, so IPv6 is refused" in reported(loaded)


@pytest.mark.parametrize(
    ("resolver", "allowed", "remedy"),
    [
        ("fd7d::1", "0.0.0.0/0,::/0", "use one of the other family"),
        ("9.9.9.9", "10.0.0.0/8", "add it to AllowedIPs"),
    ],
)
def test_a_resolver_out_of_reach_is_reported(
    tmp_path: Path, resolver: str, allowed: str, remedy: str
) -> None:
    """Names would fail without an explanation."""
    environ = {
        **COMPLETE,
        "WIREGUARD_ADDRESSES": "10.64.1.2/32",
        "DNS_ADDRESS": resolver,
        "WIREGUARD_ALLOWED_IPS": allowed,
    }
    loaded = assemble.load(environ, tmp_path)
    assert f"DNS_ADDRESS: the resolver {resolver} cannot be reached" in reported(loaded)
    assert remedy in reported(loaded)


def test_a_subnet_in_the_tunnel_and_outside_is_reported(tmp_path: Path) -> None:
    """It is reached outside; with AllowedIPs of everything that is what the list is for."""
    narrow = {"WIREGUARD_ALLOWED_IPS": "10.0.0.0/8", "FIREWALL_OUTBOUND_SUBNETS": "10.9.0.0/16"}
    assert "10.9.0.0/16 is in AllowedIPs too (10.0.0.0/8)" in reported(
        assemble.load({**COMPLETE, **narrow}, tmp_path)
    )
    wide = {"FIREWALL_OUTBOUND_SUBNETS": "10.9.0.0/16"}
    assert "AllowedIPs too" not in reported(assemble.load({**COMPLETE, **wide}, tmp_path))


@pytest.mark.parametrize(
    ("changes", "name", "reason"),
    [
        ({"WIREGUARD_MTU": "1279"}, "WIREGUARD_MTU", "too small for the tunnel's IPv6 address"),
        ({"WIREGUARD_ENDPOINT_IP": "10.64.1.2"}, "WIREGUARD_ENDPOINT_IP", "is the tunnel's own"),
        (
            {"DNS_ADDRESS": "10.64.0.1,10.64.1.2"},
            "DNS_ADDRESS",
            "the resolver 10.64.1.2 is the tunnel's own address, where no server answers; write",
        ),
        ({"DNS_ADDRESS": "fd7d::2"}, "DNS_ADDRESS", "the resolver fd7d::2 is the tunnel's own"),
        (
            {"WIREGUARD_ENDPOINT_RESOLVER": "10.64.1.2"},
            "WIREGUARD_ENDPOINT_RESOLVER",
            "10.64.1.2 is the tunnel's own address, but the server's name is looked up before",
        ),
        (
            {"WIREGUARD_ADDRESSES": "127.0.0.5/32"},
            "WIREGUARD_ADDRESSES",
            "because 127.0.0.5 is a loopback address; write the address that your provider gives",
        ),
        ({"WIREGUARD_ADDRESSES": "::1"}, "WIREGUARD_ADDRESSES", "::1 is a loopback address"),
        (
            {"WIREGUARD_ADDRESSES": "224.0.0.1/32"},
            "WIREGUARD_ADDRESSES",
            "because 224.0.0.1 is a multicast address; write the address that your provider gives",
        ),
        ({"WIREGUARD_ADDRESSES": "ff02::1"}, "WIREGUARD_ADDRESSES", "is a multicast address"),
        ({"WIREGUARD_ADDRESSES": "0.0.0.0"}, "WIREGUARD_ADDRESSES", "the unspecified address"),
        (
            {"WIREGUARD_ADDRESSES": "255.255.255.255/32"},
            "WIREGUARD_ADDRESSES",
            "is a reserved address",
        ),
        (
            {"FIREWALL_OUTBOUND_SUBNETS": "10.64.1.0/24"},
            "FIREWALL_OUTBOUND_SUBNETS",
            "10.64.1.0/24 contains the tunnel's own address 10.64.1.2",
        ),
        (
            {"FIREWALL_OUTBOUND_SUBNETS": "fd7d::/64"},
            "FIREWALL_OUTBOUND_SUBNETS",
            "fd7d::/64 contains the tunnel's own address fd7d::2",
        ),
        (
            {"WIREGUARD_PUBLIC_KEY": COMPLETE["WIREGUARD_PRIVATE_KEY"]},
            "WIREGUARD_PUBLIC_KEY",
            "the public key is your private key",
        ),
    ],
)
def test_a_tunnel_that_contradicts_itself_is_refused(
    tmp_path: Path, changes: dict[str, str], name: str, reason: str
) -> None:
    """Each value is fine alone; together they cannot work."""
    (problem,) = problems({**COMPLETE, **changes}, tmp_path)
    assert problem.startswith(f"{name}: ")
    assert reason in problem


def test_the_address_of_another_tunnel_may_be_a_resolver(tmp_path: Path) -> None:
    """Control: an address next to the tunnel's own is refused by none of these checks."""
    near = {"DNS_ADDRESS": "10.64.1.1", "WIREGUARD_ENDPOINT_RESOLVER": "10.64.1.3"}
    assemble.load({**COMPLETE, **near}, tmp_path)


def test_an_address_that_is_listed_twice_is_used_once(tmp_path: Path) -> None:
    """The kernel would refuse the second."""
    twice = {"WIREGUARD_ADDRESSES": "10.64.1.2/32,10.64.1.3/32,10.64.1.2/24"}
    loaded = assemble.load({**COMPLETE, **twice}, tmp_path)
    assert [str(one.ip) for one in loaded.config.tunnels[0].addresses] == ["10.64.1.2", "10.64.1.3"]
    assert "an address is listed twice" in reported(loaded)


def test_a_health_server_for_others_is_reported_until_its_port_is_listed(tmp_path: Path) -> None:
    """Listening is not enough: the rules let no host in by themselves."""
    for address in (":9999", "0.0.0.0:9999", "[::]:9999"):
        open_to_others = {**COMPLETE, "HEALTH_SERVER_ADDRESS": address}
        assert "until FIREWALL_INPUT_PORTS lists 9999/tcp" in reported(
            assemble.load(open_to_others, tmp_path)
        )
        listed = {**open_to_others, "FIREWALL_INPUT_PORTS": "9000-9999/tcp"}
        assert "HEALTH_SERVER_ADDRESS" not in reported(assemble.load(listed, tmp_path))
    assert "HEALTH_SERVER_ADDRESS" not in reported(assemble.load(COMPLETE, tmp_path))


def test_more_resolvers_than_are_asked_are_reported(tmp_path: Path) -> None:
    """The C library asks three (resolv.conf(5), MAXNS)."""
    several = {"DNS_ADDRESS": "10.64.0.1,10.64.0.2,10.64.0.3,10.64.0.4"}
    assert "only the first 3 resolvers are used" in reported(
        assemble.load({**COMPLETE, **several}, tmp_path)
    )


def test_blanks_instead_of_commas_are_explained(tmp_path: Path) -> None:
    """Otherwise the message would be about half of the entry."""
    environ = {**COMPLETE, "FIREWALL_OUTBOUND_SUBNETS": "192.168.1.0/24 192.168.2.0/24"}
    (problem,) = problems(environ, tmp_path)
    assert "has spaces; write commas between entries" in problem


def test_the_files_resolver_is_the_files_when_a_variable_repeats_it(tmp_path: Path) -> None:
    """The same address is the same resolver: it belongs to the tunnel."""
    put(tmp_path, "/config/wg0.conf", QUICK.replace("DNS = 10.2.0.1", "DNS = 10.2.9.1"))
    environ = {"FIREWALL_OUTBOUND_SUBNETS": "10.2.9.0/24", "DNS_ADDRESS": "10.2.9.1"}
    (problem,) = problems(environ, tmp_path)
    assert "contains the tunnel's resolver 10.2.9.1" in problem


@pytest.mark.parametrize("ports", ["51820", "51820/udp", "50000-60000/udp"])
def test_the_tunnels_own_port_is_not_opened(tmp_path: Path, ports: str) -> None:
    """A client calls, and is not called; the same number for TCP is another program's."""
    (problem,) = problems({**COMPLETE, "FIREWALL_INPUT_PORTS": ports}, tmp_path)
    assert problem.startswith("FIREWALL_INPUT_PORTS: ")
    assert "contains the tunnel's own port 51820/udp" in problem
    assemble.load({**COMPLETE, "FIREWALL_INPUT_PORTS": "51820/tcp,51821"}, tmp_path)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"HEALTH_PROBE": "icmp:10.64.1.2"}, "10.64.1.2 is the tunnel's own address"),
        (
            {"HEALTH_PROBE": "icmp:10.64.0.1", "WIREGUARD_ALLOWED_IPS": "10.65.0.0/16"},
            "10.64.0.1 cannot be reached through the tunnel",
        ),
        (
            {"HEALTH_PROBE": "icmp:fd7d::1", "WIREGUARD_ADDRESSES": "10.64.1.2/32"},
            "fd7d::1 cannot be reached through the tunnel",
        ),
    ],
)
def test_a_probe_of_an_unassigned_address_in_the_tunnel_is_refused(
    tmp_path: Path, changed: dict[str, str], expected: str
) -> None:
    """Its own address answers always, and others never."""
    (problem,) = problems({**COMPLETE, **changed}, tmp_path)
    assert problem.startswith(f"HEALTH_PROBE: {expected}")


@pytest.mark.parametrize("kind", ["dns", "icmp"])
@pytest.mark.parametrize("resolver", ["", "127.0.0.1", "192.168.1.1"])
def test_a_probe_without_a_destination_is_reported(
    tmp_path: Path, kind: str, resolver: str
) -> None:
    """Without a resolver in the tunnel; a resolver there is asked."""
    environ = {
        **COMPLETE,
        "HEALTH_PROBE": kind,
        "DNS_ADDRESS": resolver,
        "FIREWALL_OUTBOUND_SUBNETS": "192.168.1.0/24",
        "DNS_SERVER": "off",
    }
    assert f"HEALTH_PROBE: {kind} has no target" in reported(assemble.load(environ, tmp_path))
    ours = reported(assemble.load({**environ, "DNS_SERVER": "on"}, tmp_path))
    is_asked = kind == "dns" and resolver != "192.168.1.1"
    assert ("no target" not in ours) == is_asked, "our own resolver is a target for a question"
    asked = assemble.load({**environ, "DNS_ADDRESS": "10.64.0.1"}, tmp_path)
    assert "no target" not in reported(asked)
