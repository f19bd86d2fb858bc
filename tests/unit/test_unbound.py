"""The configuration of our own resolver: a value, its text, and what unbound says to it."""

import shutil
import subprocess
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from gateway.model import (
    Config,
)
from gateway.model.name_server import LocalZone, NameServer, Upstream
from gateway.policy.blocked import Blocked
from gateway.policy.unbound import ROOT_KEYS, Unbound, configuration
from gateway.policy.upstreams import OURS, OURS_BY_IPV6, described, resolvers_for, upstreams_of
from tests.conftest import skip_or_fail
from tests.scenarios import DUAL, IPV4_ONLY

ENCRYPTED = (
    Upstream(ip_address("192.0.2.53"), 853, "dns.example", "example"),
    Upstream(ip_address("2001:db8::53"), 8853, "dns.example"),
)
PLAIN = (Upstream(ip_address("10.64.0.1")), Upstream(ip_address("fd64::1"), 5353))
WANTED = Unbound(ENCRYPTED, "/run/portcullis/names/control")

LOCAL = (
    LocalZone("home.lan", (ip_address("192.168.1.1"), ip_address("fd77::1"))),
    LocalZone("168.192.in-addr.arpa", (ip_address("192.168.1.1"),)),
)

HOSTS = (
    ("nas", (ip_address("192.168.1.9"),)),
    ("nas.home.lan", (ip_address("192.168.1.9"), ip_address("fd77::9"))),
    ("home.lan", (ip_address("192.168.1.9"),)),
)

CASES = {
    "over TLS": WANTED,
    "plain": replace(WANTED, upstreams=PLAIN),
    "nothing to ask": replace(WANTED, upstreams=()),
    "no cache": replace(WANTED, caching=False),
    "local zones": replace(WANTED, upstreams=ENCRYPTED[:1], local=LOCAL),
    "hosts": replace(WANTED, local=LOCAL, hosts=HOSTS),
    "hosts and nothing to ask": replace(WANTED, upstreams=(), hosts=HOSTS),
    "lists": replace(WANTED, zone="/run/portcullis/blocked.rpz"),
    "signatures": replace(WANTED, anchor=ROOT_KEYS, local=LOCAL),
    "redirected": replace(WANTED, redirected=(OURS, OURS_BY_IPV6)),
    "exempt": replace(WANTED, exempt=("plex.direct", "a.example")),
}


def lines(wanted: Unbound) -> list[str]:
    """Return the lines of the text, without what is before them."""
    return [line.strip() for line in configuration(wanted).splitlines()]


@pytest.mark.parametrize("case", CASES)
def test_unbound_takes_each_configuration(tmp_path: Path, case: str) -> None:
    """`unbound-checkconf` is of the version that is installed."""
    program = shutil.which("unbound-checkconf", path="/usr/sbin:/usr/bin")
    if program is None:
        skip_or_fail("unbound-checkconf is not installed")
    file = tmp_path / "unbound.conf"
    wanted = CASES[case]
    if wanted.zone:
        zone = tmp_path / "zone"
        zone.write_text("".join(Blocked(frozenset((b"a.example",))).zone()), "ascii")
        wanted = replace(wanted, zone=str(zone))
    file.write_text(configuration(wanted), "utf-8")
    done = subprocess.run([program, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_question_is_passed_on_over_tls_with_the_name_of_the_certificate() -> None:
    """Without a name, any certificate of a known authority would do."""
    found = lines(WANTED)
    zone = found[found.index("forward-zone:") :]
    assert zone == [
        "forward-zone:",
        'name: "."',
        "forward-tls-upstream: yes",
        'forward-addr: "192.0.2.53@853#dns.example"',
        'forward-addr: "2001:db8::53@8853#dns.example"',
    ]
    assert "do-ip6: yes" in found
    assert "do-ip6: no" in lines(replace(WANTED, upstreams=ENCRYPTED[:1]))


def test_plain_resolvers_are_asked_without_tls() -> None:
    """At their ports."""
    found = lines(CASES["plain"])
    assert found[-3:] == [
        "forward-tls-upstream: no",
        'forward-addr: "10.64.0.1@53"',
        'forward-addr: "fd64::1@5353"',
    ]


def test_without_an_upstream_nothing_is_asked() -> None:
    """Else unbound would ask the servers of the root by itself."""
    found = lines(CASES["nothing to ask"])
    assert 'local-zone: "." refuse' in found
    assert "forward-zone:" not in found
    assert 'local-zone: "." refuse' not in lines(WANTED), "control"


def test_it_listens_on_loopback_alone_and_logs_no_name() -> None:
    """And it stays in the foreground, where its end is seen."""
    found = lines(WANTED)
    assert [it for it in found if it.startswith("interface:")] == ["interface: 127.0.0.1@53"]
    assert {"verbosity: 0", "do-daemonize: no", "use-syslog: no", "control-use-cert: no"} <= {
        *found
    }
    assert 'control-interface: "/run/portcullis/names/control"' in found


def test_redirected_questions_are_answered_wherever_they_come_from() -> None:
    """They have the address of the link that they were to leave through."""
    found = lines(CASES["redirected"])
    listening = [it for it in found if it.startswith("interface:")]
    both = ["interface: 127.0.0.1@53853", "interface: ::1@53853"]
    assert listening == ["interface: 127.0.0.1@53", *both]
    assert {"access-control: 0.0.0.0/0 allow", "access-control: ::/0 allow"} <= {*found}
    assert "do-ip6: yes" in lines(replace(CASES["redirected"], upstreams=ENCRYPTED[:1]))
    without = lines(replace(WANTED, redirected=(OURS,), upstreams=ENCRYPTED[:1]))
    assert "do-ip6: no" in without, "control"
    allowed = [it for it in lines(WANTED) if it.startswith("access-control:")]
    assert allowed == ["access-control: 127.0.0.0/8 allow"]


def test_what_workloads_can_make_large_is_limited() -> None:
    """Questions, connections and memory."""
    assert {
        "num-queries-per-thread: 512",
        "incoming-num-tcp: 64",
        "msg-cache-size: 4m",
        "rrset-cache-size: 8m",
    } <= {*lines(WANTED)}


def test_private_addresses_are_taken_out_but_for_listed_domains() -> None:
    """Of both families."""
    found = lines(CASES["exempt"])
    assert {"private-address: 192.168.0.0/16", "private-address: fc00::/7"} <= {*found}
    assert 'private-domain: "plex.direct"' in found
    assert not any(it.startswith("private-domain") for it in lines(WANTED))


def test_a_local_zone_has_resolvers_of_its_own_and_may_have_private_addresses() -> None:
    """Over IPv6 too, if one of them has such an address."""
    found = lines(CASES["local zones"])
    assert found[found.index('name: "home.lan"') :][:3] == [
        'name: "home.lan"',
        'forward-addr: "192.168.1.1@53"',
        'forward-addr: "fd77::1@53"',
    ]
    assert {
        'private-domain: "home.lan"',
        'domain-insecure: "home.lan"',
        'local-zone: "home.lan" transparent',
        'local-zone: "168.192.in-addr.arpa" transparent',
        "do-ip6: yes",
    } <= {*found}
    assert not any("home.lan" in it for it in lines(WANTED)), "control"


def test_known_names_are_answered_by_itself() -> None:
    """With each of their addresses."""
    found = lines(CASES["hosts"])
    assert [it for it in found if it.startswith("local-data")] == [
        'local-data: "nas. 60 IN A 192.168.1.9"',
        'local-data: "nas.home.lan. 60 IN A 192.168.1.9"',
        'local-data: "nas.home.lan. 60 IN AAAA fd77::9"',
        'local-data: "home.lan. 60 IN A 192.168.1.9"',
    ]


def test_the_zone_of_blocked_names_is_read_from_its_file() -> None:
    """It takes a module of unbound that is not there without one."""
    found = lines(CASES["lists"])
    assert found[found.index("rpz:") :][:3] == [
        "rpz:",
        'name: "blocked."',
        'zonefile: "/run/portcullis/blocked.rpz"',
    ]
    assert 'module-config: "respip iterator"' in found
    assert 'module-config: "iterator"' in lines(WANTED)


def test_signatures_are_checked_with_the_keys_of_the_root() -> None:
    """Only where that is wanted: an upstream may not pass them on."""
    found = lines(CASES["signatures"])
    assert f'trust-anchor-file: "{ROOT_KEYS}"' in found
    assert 'module-config: "validator iterator"' in found
    both = lines(replace(CASES["lists"], anchor=ROOT_KEYS))
    assert 'module-config: "respip validator iterator"' in both
    assert not any("anchor" in it for it in lines(WANTED)), "control"


def test_without_caching_nothing_is_kept() -> None:
    """Each question is passed on."""
    found = lines(CASES["no cache"])
    assert "cache-max-ttl: 0" in found
    assert not any(it.startswith("serve-expired") for it in found)


@pytest.mark.parametrize("text", ['a"b', "a\nb", "\u00e4"])
def test_no_word_becomes_another_line(text: str) -> None:
    """For any path or domain."""
    with pytest.raises(ValueError, match="not a word"):
        configuration(replace(WANTED, exempt=(text,)))


def test_upstreams_are_all_over_tls_or_none() -> None:
    """One zone cannot have both."""
    with pytest.raises(ValueError, match="not both"):
        configuration(replace(WANTED, upstreams=(*ENCRYPTED, *PLAIN)))


def test_the_resolvers_of_a_tunnel_come_before_others() -> None:
    """And of the others, those are left out that it has no address for."""
    server = NameServer(ENCRYPTED)
    config = Config((IPV4_ONLY,), name_server=server)
    assert upstreams_of(IPV4_ONLY, config) == tuple(map(Upstream, IPV4_ONLY.dns))
    assert upstreams_of(replace(IPV4_ONLY, dns=()), config) == ENCRYPTED[:1]
    assert upstreams_of(replace(DUAL, dns=()), config) == ENCRYPTED
    assert upstreams_of(replace(DUAL, dns=()), Config((DUAL,))) == ()


def test_the_resolver_file_names_ours_where_there_is_one() -> None:
    """Else those of the tunnel."""
    assert resolvers_for(IPV4_ONLY, Config((IPV4_ONLY,), name_server=NameServer())) == (OURS,)
    assert resolvers_for(IPV4_ONLY, Config((IPV4_ONLY,))) == IPV4_ONLY.dns


def test_who_is_asked_and_how_is_said_in_words() -> None:
    """With the port where it is another one than usual."""
    assert described(ENCRYPTED) == "192.0.2.53 (example) over TLS, [2001:db8::53]:8853 over TLS"
    assert described(PLAIN) == (
        "10.64.0.1 unencrypted in the tunnel, [fd64::1]:5353 unencrypted in the tunnel"
    )
    assert described(()) == "no resolver"
