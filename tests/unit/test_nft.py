"""Reading and comparing what nft lists, and what becomes of its failures."""

import pytest

from gateway.errors import FirewallError, MissingError, ProcessError
from gateway.firewall.nft.listing import compare, listing_of, refused
from gateway.firewall.nft.table import HeldTable, Nft, without_marks

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
