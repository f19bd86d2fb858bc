"""LOG_LEVEL=debug: what is applied is in the log, as an operator would type it, without secrets.

The log is taken at its word: its commands are run in an empty namespace, and what the kernel holds
there is compared with what it holds in the gateway's.
"""

import base64
import re
import shlex
from collections.abc import Iterator

import pytest

from gateway.policy import marks
from gateway.system.applied import without_secret_marks
from tests.lab.gateway import Gateway
from tests.lab.namespace import Namespace
from tests.lab.topology import Lab

pytestmark = [pytest.mark.lab, pytest.mark.both_firewalls]

TUNNEL_TABLE = "51820"
COUNTERS = re.compile(r"\[\d+:\d+\]|(?<=counter) packets \d+ bytes \d+")
NUMBER = r"(0x[89a-f][0-9a-f]{7})"
MARK = re.compile(rf"\bmark(?: set)? {NUMBER}\b|xmark {NUMBER}/0xffffffff")


@pytest.fixture
def copy(lab: Lab) -> Iterator[Namespace]:
    """Return an empty namespace with links of the same names as the gateway's."""
    namespace = Namespace(f"{lab.gateway_namespace.name}-copy")
    namespace.create()
    try:
        for name in links(lab.gateway_namespace):
            namespace.ip(f"link add {name} type veth peer name peer-{name}", f"link set {name} up")
            namespace.ip(f"link set peer-{name} up")
        yield namespace
    finally:
        namespace.delete()


def links(namespace: Namespace) -> list[str]:
    """Return the names of its links, the tunnel's included, but not the loopback."""
    found = re.findall(r"^\d+: ([^:@ ]+)", namespace.run("ip", "link"), re.MULTILINE)
    return sorted({*found, "wg0"} - {"lo"})


def applied(gateway: Gateway) -> list[tuple[str, str]]:
    """Return the commands that the log shows, each with its standard input."""
    return [(e["command"], e.get("input", "")) for e in gateway.events(event="applied")]


def run(commands: list[tuple[str, str]], namespace: Namespace, *programs: str) -> int:
    """Run those of `commands` that use one of `programs`; return how many there were."""
    chosen = [(c, text) for c, text in commands if c.split()[0] in programs]
    for command, text in chosen:
        namespace.run(*shlex.split(command), stdin=text)
    return len(chosen)


def plain(text: str) -> str:
    """Return a listing without counters, comments of the tool, and secret marks."""
    whole = f"& {marks.SHOWN:#x} == {marks.SHOWN:#x}"  # which nft lists as a prefix
    text = without_secret_marks(text).replace(f"mark {marks.SHOWN:#x}/1 ", f"mark {whole} ")
    lines = (line.rstrip() for line in text.splitlines())
    return COUNTERS.sub("", "\n".join(line for line in lines if not line.startswith("#")))


def wg(gateway: Gateway, *words: str) -> list[str]:
    """Return the lines of `wg show wg0`, run in the gateway's container."""
    code, output = gateway.execute("wg", "show", "wg0", *words)
    assert code == 0, output
    return output.splitlines()


def secret_marks(lab: Lab, gateway: Gateway) -> set[int]:
    """Return the secret marks that the kernel holds in the gateway's namespace."""
    listings = [
        lab.gateway_namespace.run("iptables-legacy-save"),
        lab.gateway_namespace.run("nft", "list", "ruleset"),
    ]
    found = MARK.findall("\n".join(listings))
    held = {int(number, 16) for pair in found for number in pair if number}
    return (held | {int(wg(gateway, "fwmark")[0], 16)}) - {marks.SHOWN}


def test_the_rules_in_the_log_are_those_in_the_kernel(lab: Lab, copy: Namespace) -> None:
    """For both families, with the egress guard; the commands are accepted as they are."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    commands = applied(gateway)
    words = [(re.sub(r"^(ip6?tables) ", r"\1-legacy ", c), text) for c, text in commands]
    assert run(words, copy, "iptables-legacy", "ip6tables-legacy", "iptables-legacy-restore",
               "ip6tables-legacy-restore", "nft")  # fmt: skip
    for listing in (
        ("iptables-legacy-save",),
        ("ip6tables-legacy-save",),
        ("nft", "list", "ruleset"),
    ):
        there = plain(lab.gateway_namespace.run(*listing))
        assert there, "control"
        assert sorted(plain(copy.run(*listing)).splitlines()) == sorted(there.splitlines())


def test_the_routes_in_the_log_are_those_in_the_kernel(lab: Lab, copy: Namespace) -> None:
    """Routes, policy rules, addresses, MTU and settings."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    assert run(applied(gateway), copy, "ip", "sysctl")
    for listing in (
        ("ip", "-4", "rule"),
        ("ip", "-6", "rule"),
        ("ip", "-4", "route", "show", "table", TUNNEL_TABLE),
        ("ip", "-6", "route", "show", "table", TUNNEL_TABLE),
        ("ip", "-brief", "address", "show", "dev", "wg0"),
        ("sysctl", "net.ipv4.conf.eth0.arp_ignore", "net.ipv4.conf.eth0.arp_announce"),
        ("sysctl", "net.ipv4.conf.eth0.src_valid_mark", "net.ipv4.conf.eth0.accept_redirects"),
    ):
        there, here = lab.gateway_namespace.run(*listing), copy.run(*listing)
        assert there, "control"
        assert normal(here) == normal(there)
    assert mtu(copy) == mtu(lab.gateway_namespace)


def normal(listing: str) -> list[str]:
    """Return the words of each line, less the state of a link and its own link-local address."""
    ignored = re.compile(r"\b(UP|UNKNOWN|linkdown|pref medium)\b|wg0@\S+|wg0 |fe80::\S+")
    return [" ".join(ignored.sub(" ", line).split()) for line in listing.splitlines()]


def mtu(namespace: Namespace) -> list[str]:
    """Return the MTU of the tunnel's link."""
    return re.findall(r"mtu (\d+)", namespace.run("ip", "link", "show", "wg0"))


def test_the_settings_of_wireguard_are_in_the_log(lab: Lab) -> None:
    """All but the keys, which the log hides; and the program that provides the interface."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    commands = [command for command, _ in applied(gateway) if command.startswith("wg set wg0 ")]
    device, peer = commands[:2]
    show = wg(gateway, "dump")
    port = show[0].split("\t")[2]
    visible = f"{marks.SHOWN:#x}/{marks.SHOWN:#x}"
    assert device == f"wg set wg0 private-key (hidden) listen-port {port} fwmark {visible}"
    endpoint, allowed = show[1].split("\t")[2:4]
    words = peer.split()
    assert words[words.index("endpoint") + 1] == endpoint
    assert words[words.index("allowed-ips") + 1] == allowed
    assert words[words.index("preshared-key") + 1] == "(hidden)"
    children = [event["command"] for event in gateway.events(event="child started")]
    userspace = gateway.status().body["tunnel"] == "userspace"
    assert ("wireguard-go -f wg0" in children) is userspace


def test_no_key_and_no_secret_mark_is_in_the_log(lab: Lab) -> None:
    """As text, in hexadecimal or in decimal. Control: the kernel holds the marks and the keys."""
    gateway = lab.gateway()
    gateway.start(gateway.env(VPN_UP_COMMAND="/bin/true up"))
    gateway.wait_healthy()
    secrets = secret_marks(lab, gateway)
    assert len(secrets) >= 2, "control: the flow's and the guard's"
    keys = {
        wg(gateway, "private-key")[0],
        wg(gateway, "preshared-keys")[0].split()[1],
    }
    assert len(keys) == 2, "control: the kernel or wireguard-go has them"
    gateway.stop()
    log = gateway.logs()
    assert len(gateway.events(event="applied")) > 20, "control"
    assert f"{marks.SHOWN:#x}" in log, "control: the visible bit is there"
    for mark in secrets:
        assert f"{mark:x}" not in log.lower()
        assert str(mark) not in log
    for key in keys:
        assert key not in log
        assert base64.b64decode(key).hex() not in log.lower()


def test_at_the_level_info_nothing_of_it_is_logged(lab: Lab) -> None:
    """It would be a hundred lines for each change of state."""
    gateway = lab.gateway()
    gateway.start(gateway.env(LOG_LEVEL="info"))
    gateway.wait_healthy()
    assert gateway.events(event="state changed"), "control"
    assert not applied(gateway)
