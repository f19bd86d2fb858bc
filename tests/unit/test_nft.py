"""Reading and comparing what nft lists, and what becomes of its failures."""

import pytest

from gateway.errors import FirewallError, MissingError, ProcessError
from gateway.firewall import MOST_DIFFERENCES, brief
from gateway.firewall.nft.listing import Listing, code_of, compare, listing_of, refused
from gateway.firewall.nft.program import Nft, without_marks
from gateway.firewall.nft.render import transaction
from gateway.firewall.nft.table import HeldTable

# As nft 1.0.6 printed it, shortened.
LISTED = """\
inet t input 5
  [ meta load nfproto => reg 1 ]
  [ cmp eq reg 1 0x00000002 ]
  [ immediate reg 0 accept ]
  userdata = { \\x00\\x02a\\x00 }
inet t input 6 5
  [ counter pkts 3 bytes 180 ]
  [ immediate reg 0 drop ]
  userdata = { \\x00\\x02b\\x00 }
table inet t {
\tchain input {
\t\ttype filter hook input priority filter; policy drop;
\t\tmeta nfproto ipv4 accept comment "a"
\t\tcounter packets 3 bytes 180 drop comment "b"
\t}

\tchain output {
\t\ttype filter hook output priority filter; policy drop;
\t}
}
"""
WANTED = listing_of(
    LISTED.replace("inet t", "inet t_wanted").replace(
        "{\n\tchain input", "{\n\tflags dormant\n\tchain input"
    ),
    "inet t_wanted",
)


def test_a_table_that_differs_from_its_twin_in_name_and_dormancy_alone_is_the_same() -> None:
    """Handles differ too, and so do counts."""
    changed = LISTED.replace("input 6 5", "input 19 17").replace("180", "99999")
    assert list(compare(WANTED, listing_of(changed, "inet t"))) == []


CHANGES = {
    "a rule is missing": (
        '\t\tmeta nfproto ipv4 accept comment "a"\n',
        "",
        ['chain input: missing: meta nfproto ipv4 accept comment "a"'],
    ),
    "a rule was put before": (
        "\t\tmeta nfproto",
        "\t\taccept\n\t\tmeta nfproto",
        ["chain input: not ours: accept"],
    ),
    "a rule was changed": (
        "drop comment",
        "accept comment",
        [
            'chain input: missing: counter drop comment "b"',
            'chain input: not ours: counter accept comment "b"',
        ],
    ),
    "the policy was changed": (
        "output priority filter; policy drop;",
        "output priority filter; policy accept;",
        [
            "chain output: missing: type filter hook output priority filter; policy drop;",
            "chain output: not ours: type filter hook output priority filter; policy accept;",
        ],
    ),
    "the table sleeps": (
        "{\n\tchain input",
        "{\n\tflags dormant\n\tchain input",
        ["not ours: flags dormant"],
    ),
    "a set was added": (
        "\tchain output",
        "\tset s {\n\t\ttype ipv4_addr\n\t}\n\tchain output",
        ["set s: not ours: set s {", "set s: not ours: type ipv4_addr"],
    ),
    "a chain is missing": (
        "\tchain output {\n\t\ttype filter hook output priority filter; policy drop;\n\t}\n",
        "",
        [
            "chain output: missing: chain output {",
            "chain output: missing: type filter hook output priority filter; policy drop;",
        ],
    ),
    "other instructions under the same words": (
        "0x00000002",
        "0x0000000a",
        ["the rules read as wanted, but the kernel executes something else"],
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_each_change_is_reported_in_one_line(what: str) -> None:
    """A line says where, and what is missing or too much."""
    old, new, expected = CHANGES[what]
    assert old in LISTED
    assert list(compare(WANTED, listing_of(LISTED.replace(old, new, 1), "inet t"))) == expected


def test_rules_in_another_order_are_a_difference() -> None:
    """The order is the meaning."""
    first, second = (
        '\t\tmeta nfproto ipv4 accept comment "a"\n',
        '\t\tcounter packets 3 bytes 180 drop comment "b"\n',
    )
    swapped = LISTED.replace(first + second, second + first)
    assert len(list(compare(WANTED, listing_of(swapped, "inet t")))) == 2


def test_the_order_of_chains_means_nothing() -> None:
    """It is the order in which they were made; a chain that was made again is the last."""
    code, words = LISTED.split("table inet t {\n")
    first, second = words.removesuffix("}\n").split("\n\n")
    swapped = f"{code}table inet t {{\n{second}\n{first}\n}}\n"
    assert list(compare(WANTED, listing_of(swapped, "inet t"))) == []


# As nft 1.0.6 printed it: of a text with --check, and of the kernel's table.
GIVEN_SET = """\
nets t 4
nets t 0
\telement 00000000  : 1 [end]\telement 0000000a  : 0 [end]\telement 0001000a  : 1 [end]\
\telement 00ffffff  : 0 [end]  userdata = { \\x01 }
inet t output
  [ payload load 4b @ network header + 16 => reg 1 ]
  [ lookup reg 1 set nets ]
"""
HELD_SET = """\
inet t @nets
\telement 00ffffff  : 0 [end]  userdata = { \\x01 }
\telement 0001000a  : 1 [end]
\telement 0000000a  : 0 [end]
\telement 00000000  : 1 [end]
inet t output 9
  [ payload load 4b @ network header + 16 => reg 1 ]
  [ lookup reg 1 set nets 0x0 ]
table inet t {
\tset nets {
\t\ttype ipv4_addr
\t\tflags interval
\t\telements = { 10.0.0.0/24,
\t\t\t     255.255.255.0/24 }
\t}
\tchain output {
\t\ttype filter hook output priority filter; policy drop;
\t\tip daddr @nets accept
\t}
}
"""
BODY_SET = HELD_SET.partition("table inet t {\n")[2].removesuffix("}\n")


def replaying(given: str, held: str) -> Nft:
    """Return an nft that prints these texts; its dormant twin is as wanted."""

    def run(argv: tuple[str, ...], **_options: object) -> str:
        if "list" not in argv:
            return given if "-c" in argv else ""
        twin = HELD_SET.replace("inet t", "inet t_wanted").replace(
            "{\n\tset", "{\n\tflags dormant\n\tset"
        )
        return twin if argv[-1] == "t_wanted" else held

    return Nft(run)


def test_elements_are_compared_in_any_order_and_by_the_instructions_alone() -> None:
    """The two listings of the same set differ in everything but the elements."""
    assert code_of(GIVEN_SET, "inet t") == listing_of(HELD_SET, "inet t").code
    nft = replaying(GIVEN_SET, HELD_SET)
    nft.load = lambda _text: pytest.fail("no twin is needed")  # type: ignore[method-assign]
    assert HeldTable("inet t", nft).differences(BODY_SET) == ()


SET_CHANGES = {
    "an element more": (
        [("\telement 0001000a", "\telement 01020304  : 0 [end]\n\telement 0001000a"),
         ("{ 10.0.0.0/24", "{ 4.3.2.1-9.9.9.9, 10.0.0.0/24")],
        ("set nets: not ours: element 4.3.2.1-9.9.9.9",),
    ),
    "an element less": (
        [("\telement 0001000a  : 1 [end]\n", ""), ("{ 10.0.0.0/24,\n\t\t\t     ", "{ ")],
        ("set nets: missing: element 10.0.0.0/24",),
    ),
    "the other end of an interval": (
        [("0001000a", "0002000a")],
        ("the rules read as wanted, but the kernel executes something else",),
    ),
    "another type": (
        [("type ipv4_addr", "type ether_addr")],
        ("set nets: missing: type ipv4_addr", "set nets: not ours: type ether_addr"),
    ),
    "a look-up for what is not in it": (
        [("nets 0x0", "nets 0x1")],
        ("the rules read as wanted, but the kernel executes something else",),
    ),
    "other flags": (
        [("flags interval", "flags interval,timeout")],
        ("set nets: missing: flags interval", "set nets: not ours: flags interval,timeout"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", SET_CHANGES)
def test_each_change_of_a_set_is_reported(what: str) -> None:
    """An element is named in a line of its own."""
    changes, expected = SET_CHANGES[what]
    held = HELD_SET
    for old, new in changes:
        assert old in held
        held = held.replace(old, new)
    assert HeldTable("inet t", replaying(GIVEN_SET, held)).differences(BODY_SET) == expected


@pytest.mark.parametrize("count", [19, 20, 21, 4096])
def test_many_differences_are_counted_and_not_all_listed(count: int) -> None:
    """A set with thousands of members may be flushed, and the health answer has a limit."""
    lines = [f"missing: {number}" for number in range(count)]
    found = brief(lines)
    assert len(found) == min(count, MOST_DIFFERENCES)
    if count <= MOST_DIFFERENCES:
        assert list(found) == lines
    else:
        assert list(found[:-1]) == lines[: MOST_DIFFERENCES - 1]
        assert found[-1] == f"and {count - MOST_DIFFERENCES + 1} more differences"


def test_a_flooded_set_is_reported_in_few_lines() -> None:
    """Through the whole comparison."""
    code = "".join(f"\telement {number:08x}  : 0 [end]\n" for number in range(1, 50))
    words = "".join(f"0.0.0.{number}, " for number in range(1, 50))
    held = HELD_SET.replace("@nets\n", f"@nets\n{code}").replace("= { ", f"= {{ {words}")
    found = HeldTable("inet t", replaying(GIVEN_SET, held)).differences(BODY_SET)
    assert len(found) == MOST_DIFFERENCES
    assert found[0] == "set nets: not ours: element 0.0.0.1"


def test_a_set_whose_elements_cannot_be_read_is_compared_with_the_twin() -> None:
    """Another version of nft may print them in another way, in both listings: not unseen."""
    unread = HELD_SET.replace("\telement 0", "\tmember 0").replace("255.255.255.0/24", "1.2.3.4")
    nft = replaying(GIVEN_SET.replace("\telement 0", "\tmember 0"), unread)
    assert HeldTable("inet t", nft).differences(BODY_SET) == (
        "set nets: missing: element 255.255.255.0/24",
        "set nets: not ours: element 1.2.3.4",
    )


def test_a_set_is_made_again_in_the_transaction_that_fills_it() -> None:
    """To add elements to the set that is there would keep those of others."""
    lines = transaction("inet t", BODY_SET).splitlines()
    assert lines[:5] == [
        "add table inet t",
        "flush table inet t",
        "add set inet t nets { type ipv4_addr; flags interval; }",
        "delete set inet t nets",
        "table inet t {",
    ]


def test_a_refused_packet_of_a_rule_for_one_link_is_counted() -> None:
    """Nft lists such a rule without the family, which its addresses imply."""
    listing = """
        chain output {
            oifname "eth0" ip daddr @nets udp dport 53 counter packets 2 bytes 9 reject
            oifname "eth0" ip6 daddr fd00::/8 counter packets 3 bytes 9 drop
        }
    """
    assert refused(listing) == {("ipv4", "output"): 2, ("ipv6", "output"): 3}


def test_refused_packets_are_counted_by_family_and_chain() -> None:
    """An address implies the family; what passes is not counted, nor is what rules do not name."""
    listing = """
        chain input {
            meta nfproto ipv4 iifname "lo" accept comment "loopback"
            ip daddr 127.0.0.11 counter packets 2 bytes 9 reject with icmp admin-prohibited
            meta nfproto ipv4 counter packets 3 bytes 9 drop comment "P1"
            ip6 saddr fd00::/8 meta l4proto tcp counter packets 4 bytes 9 reject with tcp reset
            drop comment "the rest"
            counter packets 6 bytes 9 drop comment "any text"
            counter packets 7 bytes 9 accept comment "not refused"
        }
        chain output {
            meta nfproto ipv6 counter packets 5 bytes 9 drop comment "P1"
        }
    """
    assert refused(listing) == {
        ("ipv4", "input"): 5,
        ("ipv6", "input"): 4,
        ("any", "input"): 6,
        ("ipv6", "output"): 5,
    }


def test_no_message_shows_a_mark() -> None:
    """The egress guard's mark is a secret, and health and log are open to workloads."""
    rules = 'meta mark 0x1234abcd ip saddr 1.2.3.4 meta mark set 0x00000000 ct mark set 0x1 # "x"'
    assert without_marks(rules) == (
        'meta mark (a mark) ip saddr 1.2.3.4 meta mark set (a mark) ct mark set (a mark) # "x"'
    )


def failing(error: Exception) -> Nft:
    """Return an nft that fails in this way."""

    def run(*_argv: object, **_options: object) -> str:
        raise error

    return Nft(run)


QUOTING = ProcessError("nft", "exit code 1", "Error: meta mark set 0x1234abcd\n   ^^^^")


@pytest.mark.parametrize("error", [QUOTING, MissingError("the program nft", "install it")])
def test_a_failing_nft_is_a_firewall_error_that_keeps_the_secret(error: Exception) -> None:
    """What nft quotes of the rules does not get into the message, nor into the cause."""
    with pytest.raises(FirewallError) as caught:
        HeldTable("inet t", failing(error)).put("")
    assert "1234abcd" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_trial_that_fails_is_an_answer() -> None:
    """What the kernel does not take is not there; a missing program is another matter."""
    assert not failing(QUOTING).accepts("table")
    with pytest.raises(MissingError):
        failing(MissingError("the program nft", "install it")).accepts("table")


def test_one_line_of_many_that_are_the_same_is_one_difference() -> None:
    """However long a chain is; the other lines are not reported."""
    lines = tuple(f"ip daddr 192.0.2.{n % 7} accept" for n in range(300))
    held = (*lines[:150], "drop", *lines[150:])
    found = list(compare(Listing({"chain c": lines}, {}), Listing({"chain c": held}, {})))
    assert found == ["chain c: not ours: drop"]
