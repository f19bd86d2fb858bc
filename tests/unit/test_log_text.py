"""The log for people: time and level first, then a sentence, whatever the fields are."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.log_text import SENTENCES, render, sentence

SERVER = "203.0.113.7:51820"


def changed(old: str, new: str, reason: str = "starting", detail: str = "") -> str:
    """Return the sentence of a change of state."""
    fields = {"old": old, "new": new, "reason": reason, "detail": detail, "endpoint": SERVER}
    return sentence("state changed", {**fields, "seconds": 0.512})


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (changed("locked", "connecting"), f"connecting to {SERVER}"),
        (changed("locked", "resolving"), f"looking up {SERVER}"),
        (
            changed("connecting", "connected", "server_answers"),
            f"connected to {SERVER} after 0.5 s",
        ),
        (changed("connecting", "connecting", "no_handshake", "why"), f"connecting to {SERVER}"),
        (
            changed("connected", "connecting", "server_silent"),
            f"the tunnel is down (server silent); connecting to {SERVER}",
        ),
        (
            changed("connected", "connecting", "interface_lost", "it is gone"),
            f"the tunnel is down (interface lost); connecting to {SERVER}; it is gone",
        ),
        (
            changed("connecting", "locked", "firewall_failed", "EPERM"),
            "closed (firewall failed); EPERM",
        ),
        (
            changed("connected", "connected", "resolver_silent"),
            f"connected to {SERVER}: resolver silent",
        ),
        (changed("connected", "stopping", "stopping"), "stopping"),
        (
            changed("connected", "paused", "paused"),
            "paused: the tunnel is closed until it is resumed",
        ),
    ],
)
def test_a_change_of_state_is_a_sentence(said: str, expected: str) -> None:
    """With the server, the cause, and what the gateway does about it."""
    assert said == expected


def test_a_line_begins_with_time_and_level() -> None:
    """To the second; the reader sorts and greps by it."""
    event = {"event": "locked", "level": "info", "timestamp": "2026-11-30T10:41:01.123456Z"}
    line = render(None, "info", {**event, "firewall": "nftables"})
    assert line.startswith("2026-11-30 10:41:01 info    closed: nothing passes")


def test_what_is_open_is_one_line() -> None:
    """Each kind of it, also where there is nothing."""
    opened = {"addresses": ["10.64.1.2/32"], "implementation": "kernelspace", "mtu": 1420,
              "resolvers": ["10.64.0.1"], "lan": [], "input_ports": ["8080/tcp", "9090/tcp"],
              "tunnel_ports": []}  # fmt: skip
    assert sentence("open", opened) == (
        "open: tunnel 10.64.1.2/32 (kernelspace, MTU 1420); resolvers: 10.64.0.1; "
        "LAN subnets: none; input ports: 8080/tcp, 9090/tcp; ports in the tunnel: none"
    )


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("starting", {"version": "1.2.3", "commit": "abc"}, "portcullis 1.2.3 (abc)"),
        ("starting", {"version": "1.2.3", "commit": ""}, "portcullis 1.2.3"),
        ("invalid configuration", {"variable": "TZ", "problem": "is odd"}, "TZ: is odd"),
        ("invalid configuration", {"variable": "", "problem": "is odd"}, "is odd"),
        ("configuration notice", {"variable": "TZ", "notice": "is ignored"}, "TZ: is ignored"),
        (
            "could not write resolver file",
            {"problem": "read-only", "remedy": "mount it"},
            "could not write resolver file; read-only; mount it",
        ),
        ("kernel calls succeed again", {"attempts": 3}, "kernel calls succeed again (attempts: 3)"),
        (
            "configuration read again",
            {"outcome": "accepted", "changed": ["TZ"], "needs_restart": (), "problem": ""},
            "configuration read again: accepted; changed: TZ",
        ),
    ],
)
def test_an_event_says_what_its_fields_say(
    name: str, fields: dict[str, Any], expected: str
) -> None:
    """Empty fields say nothing."""
    assert sentence(name, fields) == expected


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.sampled_from([*SENTENCES, "another event"]),
    st.dictionaries(
        st.sampled_from(["old", "new", "reason", "detail", "seconds", "variable", "x", "mtu"]), ANY
    ),
)
def test_no_field_ends_a_line_or_steers_a_terminal(name: str, fields: dict[str, Any]) -> None:
    """Also a server's name, a line of a command, nothing at all."""
    line = render(None, "info", {"event": name, "level": "info", "timestamp": "", **fields})
    assert line.isprintable()


def test_a_traceback_follows_its_line() -> None:
    """Line by line, each printable."""
    shown = render(None, "error", {"event": "odd", "exception": "Traceback\n  at \x1b[2J"})
    assert shown.splitlines()[1:] == ["Traceback", "  at \\x1b[2J"]
