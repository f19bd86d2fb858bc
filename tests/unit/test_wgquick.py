"""wg-quick files as providers' generators write them, and as people leave them.

Each file in tests/golden/wgquick has the form of one published generator, with made-up keys and
addresses; the text next to it is what `gateway check` makes of it.
"""

import os
import time
from pathlib import Path

import pytest

from gateway.commands.check.explain import explain
from gateway.model import Secret
from gateway.policy.dns import with_addresses
from gateway.policy.limits import limits_of_config
from gateway.policy.marks import SHOWN, with_secret_mark
from gateway.settings import assemble, wgquick
from gateway.settings.findings import Findings
from gateway.settings.quickfiles import MOST_FAULTS
from tests.configurations import (
    COMPLETE,
    OTHER_PRIVATE,
    OTHER_PUBLIC,
    QUICK,
    made_up_key,
    problems,
    put,
    reported,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "wgquick"
FILES = sorted(GOLDEN.glob("*.conf"))

BY_NAME = {"windscribe.conf", "surfshark.conf", "cloudflare-wgcf.conf"}
"""Files whose generators write the server's name; its address comes from a variable."""


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_files_of_providers_mean_what_they_say(tmp_path: Path, file: Path) -> None:
    """Compare with the golden text; GOLDEN=write writes it again, to review the difference."""
    put(tmp_path, "/config/wg0.conf", file.read_bytes())
    environ = {"WIREGUARD_ENDPOINT_IP": "203.0.113.200"} if file.name in BY_NAME else {}
    text = explain(assemble.load(environ, tmp_path))
    golden = file.with_suffix(".txt")
    if os.environ.get("GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()


def test_there_are_files_of_at_least_six_providers() -> None:
    """And no golden text without its file."""
    assert len(FILES) >= 6
    assert {file.stem for file in FILES} == {file.stem for file in GOLDEN.glob("*.txt")}


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_a_server_by_name_is_looked_up_and_reported(tmp_path: Path, name: str) -> None:
    """Without the variable that says its address."""
    put(tmp_path, "/config/wg0.conf", (GOLDEN / name).read_bytes())
    loaded = assemble.load({}, tmp_path)
    assert len(loaded.config.tunnels[0].names) == 1
    assert "is looked up outside the tunnel" in reported(loaded)


def load(tmp_path: Path, text: str | bytes) -> assemble.Loaded:
    """Load a file as /config/wg0.conf, with nothing in the environment."""
    put(tmp_path, "/config/wg0.conf", text)
    return assemble.load({}, tmp_path)


@pytest.mark.parametrize(
    "raw",
    [
        QUICK.replace("\n", "\r\n").encode(),
        QUICK.replace("\n", "\r").encode(),
        QUICK.encode("utf-8-sig"),
        QUICK.encode("utf-16"),
        QUICK.replace("PrivateKey", "privatekey").replace("[Peer]", "[PEER]").encode(),
        QUICK.replace(" = ", "=").encode(),
        QUICK.replace("= ", "=\t ").encode(),
        b"# made by hand\n\n" + QUICK.replace("\n", "   # and so on\n").encode(),
        QUICK.rstrip().encode() + b"\0\n",
    ],
    ids=["crlf", "cr", "bom", "utf-16", "case", "tight", "tabs", "comments", "nul"],
)
def test_the_form_of_a_file_does_not_change_what_it_means(tmp_path: Path, raw: bytes) -> None:
    """Line ends, byte order marks, blanks, comments and capitals do not matter."""
    plain = load(tmp_path / "plain", QUICK).config
    assert load(tmp_path / "odd", raw).config == plain


@pytest.mark.parametrize("mark", ["51820", "0xca6c", "0xCA6C", "1", "0x80000000"])
def test_a_chosen_mark_is_used_whatever_its_value(tmp_path: Path, mark: str) -> None:
    """51820 is the number that wg-quick(8) chooses itself: the likeliest one in a file."""
    loaded = load(tmp_path, QUICK.replace("[Peer]", f"FwMark = {mark}\n[Peer]"))
    (tunnel,) = with_secret_mark(loaded.config, 0x1234567).tunnels
    assert with_addresses(tunnel, {}).fwmark == int(mark, 0)
    assert list(limits_of_config(loaded.config, 0))
    row = next(line for line in explain(loaded).splitlines() if "(FwMark)" in line)
    assert row.split()[1:] == [hex(int(mark, 0)), "/config/wg0.conf", "line", "6"]


@pytest.mark.parametrize("mark", ["off", "OFF", "0", "0x0", None])
def test_without_a_mark_a_secret_one_is_drawn(tmp_path: Path, mark: str | None) -> None:
    """wg-quick(8) chooses one too when `FwMark` is 0 or `off`."""
    line = f"FwMark = {mark}\n" if mark else ""
    loaded = load(tmp_path, QUICK.replace("[Peer]", f"{line}[Peer]"))
    (tunnel,) = with_secret_mark(loaded.config, 0x1234567).tunnels
    assert with_addresses(tunnel, {}).fwmark == SHOWN | 0x1234567
    assert not list(limits_of_config(loaded.config, 0))
    row = next(line for line in explain(loaded).splitlines() if "(FwMark)" in line)
    assert row.split("  ")[-1].strip() == "default"
    with pytest.raises(ValueError, match="no firewall mark"):
        with_addresses(loaded.config.tunnels[0], {})


def test_commands_are_named_and_never_run(tmp_path: Path) -> None:
    """The warning says which ones, and what to use instead."""
    hooks = "PostUp = touch /x\nPreDown = touch /y\nPostUp = touch /z\n"
    loaded = load(tmp_path, QUICK.replace("[Peer]", f"{hooks}[Peer]"))
    assert "/config/wg0.conf line 6: PostUp, PreDown: commands in wg-quick files are never run" in (
        reported(loaded)
    )
    assert "touch" not in reported(loaded)


def test_blanks_separate_addresses_and_resolvers_too(tmp_path: Path) -> None:
    """As in wg-quick(8); what is neither an address nor a domain is refused."""
    text = QUICK.replace("10.2.0.2/32", "10.2.0.2/32 10.2.0.3").replace(
        "10.2.0.1", "10.2.0.1 10.2.0.9"
    )
    config = load(tmp_path, text).config
    assert [str(address.ip) for address in config.tunnels[0].addresses] == ["10.2.0.2", "10.2.0.3"]
    assert [str(address) for address in config.tunnels[0].dns] == ["10.2.0.1", "10.2.0.9"]
    put(tmp_path, "/config/wg0.conf", QUICK.replace("10.2.0.1", "10.2.0.1;10.2.0.9"))
    (problem,) = problems({}, tmp_path)
    assert "line 4: DNS '10.2.0.1;10.2.0.9' is not an IP address" in problem


def test_of_repeated_keys_lists_add_up_and_others_are_the_last(tmp_path: Path) -> None:
    """As wg-quick(8) does it; reported where one value hides another."""
    text = QUICK.replace("Address", "MTU = 1400\nMTU = 1300\nAddress = 10.2.0.3\nAddress")
    loaded = load(tmp_path, text)
    (tunnel,) = loaded.config.tunnels
    assert [str(address) for address in tunnel.addresses] == ["10.2.0.3/32", "10.2.0.2/32"]
    assert tunnel.mtu == 1300
    assert "/config/wg0.conf line 4: MTU is set several times; the last one counts" in reported(
        loaded
    )


def test_table_and_saveconfig_are_reported_and_port_and_mark_are_used(tmp_path: Path) -> None:
    """What identifies the encrypted flow is the file's where the file says it."""
    extra = "Table = 1234\nSaveConfig = true\nListenPort = 40000\nFwMark = 0x1234\n"
    loaded = load(tmp_path, QUICK.replace("[Peer]", f"{extra}[Peer]"))
    (tunnel,) = loaded.config.tunnels
    assert (tunnel.listen_port, tunnel.fwmark) == (40000, 0x1234)
    assert "line 6: Table is not used" in reported(loaded)
    assert "line 7: SaveConfig is not used" in reported(loaded)


def test_the_preshared_key_of_zeros_is_none(tmp_path: Path) -> None:
    """wg(8) takes it for none, and some generators write it."""
    text = QUICK + "PresharedKey = " + "A" * 43 + "=\n"
    assert load(tmp_path, text).config.tunnels[0].peers[0].preshared_key is None


def test_a_peer_without_allowed_ips_gets_everything(tmp_path: Path) -> None:
    """With a single server there is nothing else that it could mean."""
    loaded = load(tmp_path, QUICK.replace("AllowedIPs = 0.0.0.0/0", "AllowedIPs ="))
    assert len(loaded.config.tunnels[0].peers[0].allowed_ips) == 2
    assert "line 8: AllowedIPs is empty and is ignored" in reported(loaded)


def test_what_allowed_ips_are_read_as_is_reported(tmp_path: Path) -> None:
    """Host bits are cleared, as wg(8) does; multicast never leaves, whatever the list says."""
    allowed = "10.1.2.3/8, 224.0.0.0/4, 0.0.0.0/1"
    lines = reported(load(tmp_path, QUICK.replace("0.0.0.0/0", allowed)))
    assert "line 8: 10.1.2.3/8 is read as 10.0.0.0/8" in lines
    assert "line 8: 224.0.0.0/4 is multicast, which never leaves the namespace" in lines
    lines = reported(
        assemble.load({**COMPLETE, "WIREGUARD_ALLOWED_IPS": "10.1.2.3/8"}, tmp_path / "x")
    )
    assert "WIREGUARD_ALLOWED_IPS: 10.1.2.3/8 is read as 10.0.0.0/8" in lines


SECOND_PEER = """
[Peer]
PublicKey = {key}
AllowedIPs = {allowed}
Endpoint = 198.51.100.10:51820
"""


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("0.0.0.0/0", "10.0.0.0/8", "AllowedIPs 0.0.0.0/0 and 10.0.0.0/8 of two peers overlap"),
        ("0.0.0.0/0", "0.0.0.0/0", "put each in a file of its own"),
        ("10.0.0.0/9", "", "has a [Peer] without AllowedIPs"),
    ],
)
def test_peers_that_want_the_same_traffic_are_refused(
    tmp_path: Path, first: str, second: str, message: str
) -> None:
    """Several peers are one tunnel only when each has destinations of its own."""
    text = QUICK.replace("0.0.0.0/0", first)
    text += SECOND_PEER.format(key=made_up_key(60), allowed=second)
    put(tmp_path, "/config/wg0.conf", text)
    assert any(message in problem for problem in problems({}, tmp_path))


def test_a_file_of_nothing_but_heads_is_reported_in_a_few_lines(tmp_path: Path) -> None:
    """The first ones say which; thousands more would bury the rest."""
    put(tmp_path, "/config/wg0.conf", QUICK.partition("[Peer]")[0] + "[Peer]\n" * 5000)
    found = problems({}, tmp_path)
    assert "/config/wg0.conf line 7: has a [Peer] without PublicKey; add the server's" in found
    assert len(found) < 40


def test_a_name_of_one_of_several_peers_is_reported_with_its_file(tmp_path: Path) -> None:
    """There is no variable that could say it."""
    text = (GOLDEN / "two-sites.conf").read_text().replace("203.0.113.85", "b.example.com")
    lines = reported(load(tmp_path, text))
    assert "/config/wg0.conf line 18: the server's name 'b.example.com' is looked up" in lines


def test_variables_of_one_peer_do_not_fit_several(tmp_path: Path) -> None:
    """It is not clear which peer they mean."""
    put(tmp_path, "/config/wg0.conf", (GOLDEN / "two-sites.conf").read_bytes())
    found = problems(
        {"WIREGUARD_ENDPOINT_PORT": "1", "WIREGUARD_ALLOWED_IPS": "10.0.0.0/8"}, tmp_path
    )
    assert found == [
        "WIREGUARD_ENDPOINT_PORT: does not say which of the 2 peers it is for; remove it",
        "WIREGUARD_ALLOWED_IPS: does not say which of the 2 peers it is for; remove it",
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[Peer]", "[Pear]", "line 6: is an unknown section"),
        ("Address = ", "Adress = ", "line 3: has an unknown key Adress; did you mean Address?"),
        ("DNS = 10.2.0.1", "Jc = 4", "line 4: jc belongs to AmneziaWG"),
        ("DNS = 10.2.0.1", "Endpoint = 1.2.3.4:5", "line 4: endpoint belongs in [Peer]"),
        ("198.51.100.9:51820", "[2001:db8::1]", "line 9: Endpoint '[2001:db8::1]' has no port"),
        ("AllowedIPs = 0.0.0.0/0", "AllowedIPs = 0.0.0.0", "write 0.0.0.0/0 for everything"),
        (f"PublicKey = {OTHER_PUBLIC}", "", "/config/wg0.conf line 6: has a [Peer] without"),
        ("DNS = 10.2.0.1", "nothing", "line 4: is not of the form Key = Value"),
        ("[Interface]\n", "", "line 1: comes before the first section"),
        ("DNS = 10.2.0.1", "DNS = 127.0.0.11", "line 4: DNS 127.0.0.11 is Docker's resolver"),
        ("DNS = 10.2.0.1", "DNS = 10.2.0", "line 4: DNS '10.2.0' is not an IP address"),
        ("0.0.0.0/0", "all", "line 8: AllowedIPs 'all' is not a subnet"),
        (":51820", "", "line 9: Endpoint '198.51.100.9' has no port"),
        (f"PrivateKey = {OTHER_PRIVATE}", "PrivateKey = ", "has no PrivateKey in [Interface]"),
        (
            f"PrivateKey = {OTHER_PRIVATE}",
            "PrivateKey = AAAA",
            "line 2: PrivateKey is not a WireGuard key",
        ),
        ("Address = 10.2.0.2/32", "", "/config/wg0.conf: has no Address in [Interface]"),
        ("Endpoint = 198.51.100.9:51820", "", "the gateway is a client and needs the address"),
    ],
)
def test_a_faulty_file_is_refused_with_the_line(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    """Path and line, what is wrong, what to do."""
    assert old in QUICK
    put(tmp_path, "/config/wg0.conf", QUICK.replace(old, new))
    assert any(expected in problem for problem in problems({}, tmp_path))


def test_a_servers_own_file_is_refused(tmp_path: Path) -> None:
    """Its peers have no Endpoint: the file belongs on the other end."""
    server = QUICK.replace("Endpoint = 198.51.100.9:51820", "").replace(
        "DNS", "ListenPort = 51820\nDNS"
    )
    put(tmp_path, "/config/wg0.conf", server)
    (problem,) = problems({}, tmp_path)
    assert "has a [Peer] without Endpoint" in problem


def test_a_file_without_peers_is_refused(tmp_path: Path) -> None:
    """There would be no peer to talk to."""
    put(tmp_path, "/config/wg0.conf", QUICK.partition("[Peer]")[0])
    (problem,) = problems({}, tmp_path)
    assert "has no [Peer]" in problem


@pytest.mark.parametrize("raw", [b"", b"\xff\xfe", b"\x80\x81", b"\0" * 70000, b"PK\x03\x04\xff"])
def test_what_is_not_a_wg_quick_file_is_refused(tmp_path: Path, raw: bytes) -> None:
    """Empty, binary, far too large: a problem, never a traceback."""
    put(tmp_path, "/config/wg0.conf", raw)
    assert all(problem.startswith("/config/wg0.conf") for problem in problems({}, tmp_path))


def test_a_file_that_is_wrong_in_every_line_is_reported_in_part(tmp_path: Path) -> None:
    """It would fill the log. The first fault is that it is not a file for WireGuard at all."""
    put(tmp_path, "/config/wg0.conf", "a\n" * 32000)
    found = problems({}, tmp_path)
    assert sum("is not of the form" in problem for problem in found) == MOST_FAULTS - 1
    assert any("begins with [Interface]" in problem for problem in found)
    assert "/config/wg0.conf: has 32001 faults; the others are not listed" in found


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "DNS = 10.2.0.1",
            "ExcludedApplications = a.b",
            "line 4: has an unknown key ExcludedApplications, which belongs to an app",
        ),
        (
            "AllowedIPs = 0.0.0.0/0",
            "Reserved = 1,2,3",
            "line 8: has an unknown key Reserved, which belongs to Cloudflare's WARP",
        ),
        ("DNS = 10.2.0.1", "a/b = 1", "line 4: has an unknown key, which has no effect"),
        ("[Peer]", "[Peer]\nName = sweden", "line 7: has an unknown key Name, which has no effect"),
        ("10.2.0.2/32", "'10.2.0.2/32'", "line 3: the quotes around the value are ignored"),
    ],
)
def test_what_other_programs_ignore_is_reported(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    """Gluetun starts with such a file; nothing opens because of such a line."""
    loaded = load(tmp_path, QUICK.replace(old, new))
    assert f"/config/wg0.conf {expected}" in reported(loaded)
    assert str(loaded.config.tunnels[0].addresses[0]) == "10.2.0.2/32"


@pytest.mark.parametrize("mark", [";", "; ", "//", "#"])
def test_a_line_that_is_commented_out_has_no_effect(tmp_path: Path, mark: str) -> None:
    """Programs differ in how a comment begins, and a key never begins like that."""
    commented = QUICK.replace("DNS = ", f"{mark}DNS = ")
    assert load(tmp_path, commented).config.tunnels[0].dns == ()


def test_what_has_no_effect_is_reported_in_few_lines(tmp_path: Path) -> None:
    """A file may have thousands of such lines."""
    lines = "".join(f"Odd{'x' * (n % 7)} = 1\n" for n in range(2000))
    loaded = load(tmp_path, QUICK.replace("[Peer]", f"{lines}[Peer]"))
    assert reported(loaded).count("which has no effect") == MOST_FAULTS


def test_each_problem_is_kept_once_however_many_there_are() -> None:
    """In order. Comparing each with all others would take half a minute."""
    findings, began = Findings(), time.process_time()
    for number in (*range(30000), *range(30000)):
        findings.problem(f"line {number}", "is wrong")
        findings.info(f"line {number}", "is remarkable")
    error = findings.to_error()
    assert time.process_time() - began < 5
    assert [it.where for it in error.problems] == [f"line {number}" for number in range(30000)]
    assert [it.where for it in error.notices] == [it.where for it in error.problems]


def test_parsing_collects_faults_and_raises_nothing() -> None:
    """The pure parser returns what it could read and what it could not."""
    form = wgquick.parse("[Interface]\nMTU = 1400\nwhat\n[Peer]\nnonsense = 1\n")
    assert [entry.value for entry in form.interface.all("MTU")] == ["1400"]
    assert form.faults == ((3, "is not of the form Key = Value"),)
    assert form.remarks == (
        (5, "has an unknown key nonsense, which has no effect; correct or remove it"),
    )


def test_a_key_that_is_not_the_kernels_reads_the_same(tmp_path: Path) -> None:
    """The private key arrives as it was written."""
    assert load(tmp_path, QUICK).config.tunnels[0].private_key == Secret(OTHER_PRIVATE)
