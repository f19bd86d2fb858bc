"""What is logged at the level debug: secret marks are hidden, and nothing is rendered in vain."""

import shlex
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from gateway.model import Endpoint, Peer, Secret, Tunnel
from gateway.system import applied
from gateway.system.unplug import command_of
from gateway.tunnel.device import wg_keepalive, wg_set
from tests.scenarios import SCENARIOS

PROJECT = Path(__file__).resolve().parents[2]
MARK = 0x9ABC_DEF1
KEY = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
OTHER = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
SEEN = "0x80000000/0x80000000"


@pytest.fixture
def shown() -> Iterator[list[tuple[str, str, str]]]:
    """Return what is shown during the test."""
    lines: list[tuple[str, str, str]] = []
    applied.show_to(lambda *line: lines.append(line))
    yield lines
    applied.show_to(None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"iptables -A OUTPUT -m mark --mark {MARK:#x} -j DROP",
         f"iptables -A OUTPUT -m mark --mark {SEEN} -j DROP"),
        (f"-j MARK --set-xmark {MARK:#x}/0xffffffff", f"-j MARK --set-xmark {SEEN}"),
        (f"meta mark {MARK:#x} accept", "meta mark & 0x80000000 == 0x80000000 accept"),
        (f"ct mark set {MARK:#x} accept", "ct mark set ct mark | 0x80000000 accept"),
        (f"wg set wg0 fwmark {MARK}", f"wg set wg0 fwmark {SEEN}"),
        (f"wg set wg0 fwmark {MARK:#x}", f"wg set wg0 fwmark {SEEN}"),
    ],
)  # fmt: skip
def test_a_secret_mark_shows_its_visible_bit_and_the_mask(text: str, expected: str) -> None:
    """In the syntax of each tool, in hexadecimal and in decimal."""
    assert applied.without_secret_marks(text) == expected
    assert applied.without_secret_marks(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "wg set wg0 fwmark 0xca6c",
        "ip rule add priority 100 fwmark 0x706c0002/0xffffffff table 1886126082",
        "ip route add unreachable ::/0 table 51820 metric 1000000000",
        "meta rtclassid != 0xffffffff accept",
        "ip address add 2001:db8:8000::80000000/128 dev wg0",
        '-m u32 --u32 "0x0>>0x18&0xf=0x0:0x4,0x6:0xf"',
    ],
)
def test_other_numbers_are_shown_as_they_are(text: str) -> None:
    """Marks of the user and of uplinks, tables, metrics and addresses are not secret."""
    assert applied.without_secret_marks(text) == text


def test_nothing_is_rendered_without_a_reader(shown: list[tuple[str, str, str]]) -> None:
    """At the level info it costs one look at an empty list."""
    applied.show_to(None)
    applied.show(lambda: pytest.fail("rendered"))
    applied.started(["true"])
    assert shown == []


def test_commands_input_and_children_are_shown(shown: list[tuple[str, str, str]]) -> None:
    """Each with its secret marks hidden."""
    applied.show(lambda: [f"a {MARK:#x}", "b"], stdin=f"meta mark {MARK:#x}\n")
    applied.started(["sh", "-c", f"echo {MARK}"])
    text = "meta mark & 0x80000000 == 0x80000000\n"
    assert shown == [
        ("applied", f"a {SEEN}", text),
        ("applied", "b", text),
        ("child started", f"sh -c 'echo {SEEN}'", ""),
    ]


def test_a_command_that_cannot_be_shown_stops_nothing(shown: list[tuple[str, str, str]]) -> None:
    """Links are set down one after the other: the level of the log must not end that."""
    applied.show(lambda: [str(1 // 0)])
    assert shown == [("applied", "(cannot be shown: ZeroDivisionError)", "")]


def test_a_log_that_fails_stops_nothing(shown: list[tuple[str, str, str]]) -> None:
    """A child that is running has to be waited for, even if its line in the log is lost."""
    tried: list[str] = []

    def failing(_event: str, command: str, _stdin: str) -> None:
        tried.append(command)
        raise ValueError

    applied.show_to(failing)
    applied.show(lambda: ["a"])
    applied.started(["b"])
    assert tried[::2] == ["a", "b"]
    assert shown == []


@pytest.mark.parametrize(("level", "lines"), [("debug", 1), ("info", 0)])
def test_the_level_decides(level: str, lines: int) -> None:
    """In a process of its own, because the set-up of the log is that of the process."""
    script = (
        "from gateway import log\nfrom gateway.system import applied\n"
        f"log.configure({level!r}, 'json')\n"
        "applied.show(lambda: ['ip link set eth0 up'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PROJECT
    )
    assert done.stdout.count('"command": "ip link set eth0 up"') == lines


def test_the_commands_of_wireguard_hold_no_key() -> None:
    """Neither of the two secret ones; everything else that is set is there."""
    peer = Peer(
        public_key=KEY,
        endpoint=Endpoint(ip_address("192.0.2.1"), 51820),
        allowed_ips=(ip_network("0.0.0.0/0"), ip_network("::/0")),
        preshared_key=Secret(OTHER),
        persistent_keepalive=25,
    )
    _, config, _ = SCENARIOS["connected"]
    tunnel = next(iter(config.tunnels))
    assert tunnel.private_key
    made = Tunnel(**{**vars(tunnel), "peers": (peer,), "private_key": Secret(OTHER)})
    device, line = wg_set(made)
    assert device == (
        f"wg set wg0 private-key (hidden) listen-port {made.listen_port} fwmark {made.fwmark:#x}"
    )
    assert line == (
        f"wg set wg0 peer {KEY} preshared-key (hidden) endpoint 192.0.2.1:51820"
        " persistent-keepalive 25 allowed-ips 0.0.0.0/0,::/0"
    )
    assert wg_set(made, peers_only=True) == [line]
    assert wg_keepalive((peer,)) == [f"wg set wg0 peer {KEY} persistent-keepalive 25"]


@pytest.mark.parametrize(
    ("entry", "command"),
    [
        ("address 2001:db8::2/64", "ip address add 2001:db8::2/64 dev eth0 nodad"),
        ("default-4 via 172.18.0.1", "ip -4 route add default dev eth0 via 172.18.0.1"),
        ("default-6 via fe80::1 metric 9", "ip -6 route add default dev eth0 via fe80::1 metric 9"),
        ("10.0.0.0/8 via 172.18.0.9 onlink",
         "ip -4 route add 10.0.0.0/8 dev eth0 via 172.18.0.9 onlink"),
        ("2001:db8:1::/48", "ip -6 route add 2001:db8:1::/48 dev eth0"),
    ],
)  # fmt: skip
def test_what_a_link_gets_back_is_shown_in_the_words_of_ip(entry: str, command: str) -> None:
    """An alias has shorter words, because it has little room."""
    assert command_of(entry, "eth0") == command


@pytest.mark.parametrize("entry", ["address 2001:db8::2/64", "default-4 via 172.18.0.1"])
def test_the_name_of_a_link_is_one_word_of_its_command(entry: str) -> None:
    """The kernel allows any characters in it but spaces and slashes; the line may be pasted."""
    command = command_of(entry, "x;reboot")
    assert "dev 'x;reboot'" in command
    assert shlex.split(command) == [
        word.replace("eth0", "x;reboot") for word in command_of(entry, "eth0").split()
    ]
