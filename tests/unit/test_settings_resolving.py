"""Which resolvers are asked: what wins, what is refused, and what older names mean."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.model.name_server import LocalZone, NameServer, Upstream
from gateway.settings import assemble, names
from gateway.settings.assemble import Loaded
from tests.configurations import COMPLETE, QUICK, put, reported

UNNAMED = {name: text for name, text in COMPLETE.items() if name != "DNS_ADDRESS"}


def loaded(tmp_path: Path, **changes: str) -> Loaded:
    """Return the configuration of variables without a resolver, and `changes`."""
    return assemble.load({**UNNAMED, **changes}, tmp_path)


def server_of(found: Loaded) -> NameServer:
    """Return the resolver of the gateway's own."""
    assert found.config.name_server
    return found.config.name_server


def test_without_any_setting_cloudflare_is_asked_over_tls(tmp_path: Path) -> None:
    """As people who come from gluetun expect."""
    found = loaded(tmp_path)
    assert server_of(found).upstreams == names.known()["cloudflare"]
    assert all(it.name and it.port == 853 for it in server_of(found).upstreams)
    assert found.config.tunnels[0].dns == ()


@pytest.mark.parametrize("name", ["DNS_SERVER", "DOT", "DNS_OVER_TLS"])
def test_it_can_be_switched_off(tmp_path: Path, name: str) -> None:
    """By older names, too; what depends on it is reported."""
    found = loaded(tmp_path, **{name: "off"}, DNS_ADDRESS="127.0.0.1", DNS_CACHING="on")
    assert found.config.name_server is None
    assert found.config.tunnels[0].dns == (ip_address("127.0.0.1"),)
    assert "DNS_CACHING: has no effect with DNS_SERVER=off" in reported(found)


def test_loopback_means_our_own_resolver(tmp_path: Path) -> None:
    """The default of gluetun; the remedy for a workload that is the resolver is said."""
    found = loaded(tmp_path, DNS_ADDRESS="127.0.0.1")
    assert found.config.tunnels[0].dns == ()
    assert server_of(found).upstreams == names.known()["cloudflare"]
    assert "DNS_SERVER=off" in reported(found)


def test_an_address_is_asked_unencrypted(tmp_path: Path) -> None:
    """And anything else that names resolvers has no effect, which is said."""
    found = loaded(tmp_path, DNS_ADDRESS="10.64.0.1", DNS_UPSTREAM_RESOLVERS="quad9")
    assert found.config.tunnels[0].dns == (ip_address("10.64.0.1"),)
    assert "DNS_UPSTREAM_RESOLVERS: has no effect, because DNS_ADDRESS" in reported(found)


def test_plain_addresses_may_have_ports(tmp_path: Path) -> None:
    """At the usual port they are like DNS_ADDRESS."""
    found = loaded(tmp_path, DNS_UPSTREAM_PLAIN_ADDRESSES="10.64.0.1,10.64.0.2:53")
    assert found.config.tunnels[0].dns == (ip_address("10.64.0.1"), ip_address("10.64.0.2"))
    found = loaded(tmp_path, DNS_UPSTREAM_PLAIN_ADDRESSES="10.64.0.1:5353,[fd64::1]:54")
    assert found.config.tunnels[0].dns == ()
    assert server_of(found).upstreams == (
        Upstream(ip_address("10.64.0.1"), 5353),
        Upstream(ip_address("fd64::1"), 54),
    )


def test_the_file_comes_before_the_default_and_after_what_is_set(tmp_path: Path) -> None:
    """`DNS` of the file is the provider's resolver; a variable decides otherwise, and says so."""
    put(tmp_path, "/config/wg0.conf", QUICK)
    assert assemble.load({}, tmp_path).config.tunnels[0].dns == (ip_address("10.2.0.1"),)
    found = assemble.load({"DNS_UPSTREAM_RESOLVERS": "quad9"}, tmp_path)
    assert found.config.tunnels[0].dns == ()
    assert server_of(found).upstreams == names.known()["quad9"]
    assert "DNS_UPSTREAM_RESOLVERS: is asked, and not 10.2.0.1" in reported(found)


@pytest.mark.parametrize("written", ["cloudflare family", "Cloudflare-Family", "CLOUDFLARE_FAMILY"])
def test_a_name_is_found_however_it_is_written(tmp_path: Path, written: str) -> None:
    """With blanks and capitals, as people who come from gluetun write it."""
    found = loaded(tmp_path, DOT_PROVIDERS=written)
    assert server_of(found).upstreams == names.known()["cloudflare family"]


def test_resolvers_can_be_written_out(tmp_path: Path) -> None:
    """With the name in the certificate; several add up."""
    found = loaded(tmp_path, DNS_UPSTREAM_RESOLVERS="192.0.2.53@8853#Dns.Example,192.0.2.54#b.c")
    assert server_of(found).upstreams == (
        Upstream(ip_address("192.0.2.53"), 8853, "dns.example"),
        Upstream(ip_address("192.0.2.54"), 853, "b.c"),
    )


def test_they_can_be_asked_unencrypted(tmp_path: Path) -> None:
    """At the usual port."""
    found = loaded(tmp_path, DNS_UPSTREAM_RESOLVERS="quad9", DNS_UPSTREAM_RESOLVER_TYPE="plain")
    assert {(it.port, it.name) for it in server_of(found).upstreams} == {(53, "")}


def test_what_the_tunnel_does_not_reach_is_reported(tmp_path: Path) -> None:
    """With narrow AllowedIPs, and for want of an address of the IP version."""
    found = loaded(tmp_path, WIREGUARD_ALLOWED_IPS="10.0.0.0/8")
    assert "names do not resolve, because 1.1.1.1" in reported(found)
    assert "names do not resolve" not in reported(loaded(tmp_path)), "control"
    found = loaded(
        tmp_path,
        WIREGUARD_ADDRESSES="10.64.1.2/32",
        DNS_UPSTREAM_RESOLVERS="2001:db8::1#a.example",
    )
    assert "names do not resolve, because 2001:db8::1" in reported(found)


def test_the_other_variables_reach_their_place(tmp_path: Path) -> None:
    """Domains without what people write around them."""
    found = loaded(
        tmp_path,
        DNS_CACHING="off",
        DNS_REBINDING_PROTECTION_EXEMPT_HOSTNAMES="*.Plex.direct,home.arpa.",
    )
    assert server_of(found).exempt == ("plex.direct", "home.arpa")
    assert not server_of(found).caching


def test_each_known_resolver_has_a_name_and_addresses(tmp_path: Path) -> None:
    """IPv4 among them: most tunnels have no other."""
    for provider, found in names.known().items():
        assert found, provider
        assert any(it.address.version == 4 for it in found), provider
        assert all(it.name and it.provider == provider for it in found)
        assert server_of(loaded(tmp_path, DNS_UPSTREAM_RESOLVERS=provider)).upstreams == found


def test_a_local_zone_has_resolvers_in_a_listed_subnet(tmp_path: Path) -> None:
    """Those of one domain add up."""
    found = loaded(
        tmp_path,
        FIREWALL_OUTBOUND_SUBNETS="192.168.1.0/24,fd77::/64",
        DNS_LOCAL_ZONES="Home.lan=192.168.1.1, other.lan = fd77::1,home.lan=192.168.1.2",
    )
    assert server_of(found).local == (
        LocalZone("home.lan", (ip_address("192.168.1.1"), ip_address("192.168.1.2"))),
        LocalZone("other.lan", (ip_address("fd77::1"),)),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("home.lan=192.168.2.1", "add 192.168.2.1 to that list"),
        ("home.lan", "such as home.lan=192.168.1.1"),
        ("=192.168.1.1", "is not a domain"),
        ("home.lan=router", "is not an IP address"),
        ("home.lan=127.0.0.1", "is loopback"),
        (",".join(f"a.lan=192.168.1.{it}" for it in range(1, 18)), "more than 16 resolvers"),
    ],
)
def test_a_wrong_local_zone_is_refused_with_the_remedy(
    tmp_path: Path, text: str, said: str
) -> None:
    """The hole for it is the user's to list."""
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, FIREWALL_OUTBOUND_SUBNETS="192.168.1.0/24", DNS_LOCAL_ZONES=text)
    assert "DNS_LOCAL_ZONES" in str(caught.value)
    assert said in str(caught.value)


def test_questions_for_others_are_left_alone_unless_it_is_asked_for(tmp_path: Path) -> None:
    """Without a resolver of the gateway's own it has no effect, which is said."""
    assert not server_of(loaded(tmp_path)).hijack
    assert server_of(loaded(tmp_path, DNS_HIJACK="on")).hijack
    found = loaded(tmp_path, DNS_HIJACK="on", DNS_SERVER="off", DNS_ADDRESS="10.64.0.1")
    assert "DNS_HIJACK: has no effect with DNS_SERVER=off" in reported(found)
