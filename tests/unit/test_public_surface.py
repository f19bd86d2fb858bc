"""What users depend on is as it was in the last release, or the change is announced.

`SURFACE=write` writes the snapshot again. docs/compatibility.md says when that is right.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache

import pytest

from gateway import __version__
from gateway.services.health.board import describe
from scripts.changelog import entries, numbers, released
from tests import surface
from tests.surface import PROJECT
from tests.surface_answers import FULL, happened

SNAPSHOT = PROJECT / "tests" / "surface.txt"
COMMAND = "SURFACE=write pytest tests/unit/test_public_surface.py"

CHANGELOG = """
## [Unreleased]

### Breaking

- `OLD_NAME` is gone: use `NEW_NAME`.

## [1.4.2] - 2027-03-01
"""


def known() -> list[str]:
    """Return the lines of the snapshot."""
    return SNAPSHOT.read_text("utf-8").splitlines()


def now(lines: Sequence[str]) -> list[str]:
    """Return the lines of the code, which still has to accept the words of `lines`."""
    words = {line.rpartition(": ")[2] for line in lines if line.startswith("variable ")}
    return surface.surface(words)


@cache
def plain() -> frozenset[str]:
    """Return the lines of the code alone."""
    return frozenset(surface.surface())


def subject(line: str) -> str:
    """Return what a line is about, as a changelog names it."""
    return line.partition(" ")[2].partition(": ")[0]


def next_breaking(version: str) -> str:
    """Return the lowest version that may break what `version` has."""
    first, second, _ = numbers(version)
    return f"{first + 1}.0.0" if first else f"0.{second + 1}.0"


def missing(gone: Sequence[str], changelog: str, version: str) -> list[str]:
    """Return what has to be done before `gone` may be taken out of the snapshot."""
    last = released(changelog)
    if not gone or last is None:
        return []
    steps = []
    if numbers(version) < numbers(next_breaking(last)):
        steps.append(
            f"raise __version__ in gateway/__init__.py from {version} to {next_breaking(last)}"
        )
    breaking = entries(changelog)[0].section("Breaking") if not entries(changelog)[0].date else ""
    names = sorted({subject(line) for line in gone if f"`{subject(line)}`" not in breaking})
    if names:
        listed = ", ".join(f"`{name}`" for name in names)
        steps.append(
            f"describe {listed} in CHANGELOG.md under '## [Unreleased]', '### Breaking', "
            "with what users have to do"
        )
    return steps


def advice(before: Sequence[str], after: Sequence[str], changelog: str, version: str) -> str:
    """Return what differs and what to do, "" if nothing differs."""
    gone = [line for line in before if line not in set(after)]
    new = [line for line in after if line not in set(before)]
    if gone:
        steps = [*missing(gone, changelog, version), f"run {COMMAND}"]
        return "\n".join(
            [
                "Users depend on what is gone or different now:",
                *(f"  - {line}" for line in gone),
                *(f"  + {line}" for line in new),
                "Put it back, or keep the old form next to the new one. If it has to go:",
                *(f"  {number}. {step}" for number, step in enumerate(steps, 1)),
                "docs/compatibility.md explains it.",
            ]
        )
    if new:
        shown = "\n".join(f"  + {line}" for line in new)
        return f"New, and public from the next release on:\n{shown}\nIf that is intended: {COMMAND}"
    return ""


def test_the_public_surface_is_the_one_of_the_snapshot() -> None:
    """A difference fails with what to do."""
    text = (PROJECT / "CHANGELOG.md").read_text("utf-8")
    before = known() if SNAPSHOT.exists() else []
    after = now(before)
    if os.environ.get("SURFACE") == "write":
        steps = missing([line for line in before if line not in set(after)], text, __version__)
        assert not steps, "; ".join(["before that", *steps])
        SNAPSHOT.write_text("\n".join(after) + "\n", "utf-8")
        before = after
    said = advice(before, after, text, __version__)
    assert not said, said


def test_no_line_is_there_twice_and_each_kind_is_documented() -> None:
    """The table of docs/compatibility.md has the kinds of the snapshot, and no others."""
    lines = known()
    assert [line for line, number in Counter(lines).items() if number > 1] == []
    page = (PROJECT / "docs" / "compatibility.md").read_text("utf-8")
    rows = re.findall(r"^\| (`[^|]+`) \|", page, re.MULTILINE)
    assert {kind for row in rows for kind in re.findall(r"`(\w+)`", row)} == {
        line.partition(" ")[0] for line in lines
    }


@pytest.mark.parametrize(
    "line",
    [
        "variable WIREGUARD_PRIVATE_KEY",
        "variable WIREGUARD_PRIVATE_KEY_SECRETFILE",
        "variable DNS_SERVER: older name DOT",
        "variable DNS_SERVER: not set means on",
        "variable FIREWALL_BACKEND: nftables",
        "provider mullvad",
        "resolver quad9",
        "variable VPN_PORT_FORWARDING_UP_COMMAND: {{PORTS}}",
        "path /run/secrets/wg0.conf",
        "program healthcheck",
        "image health check: /usr/bin/python3 -I -S /opt/portcullis/healthcheck.pyc",
        "image label: org.opencontainers.image.version",
        "image target: debug",
        "template kubernetes/components/ports",
        "template host/portcullis-netns: variable NETNS_SUBNET",
        "command gateway hold",
        "command gateway check: option --rules VALUE, nftables",
        "command gateway servers list: argument provider",
        "exit 2: USAGE",
        "signal SIGHUP",
        "address /livez",
        "control GET /v1/portforward: 200, ports[] (integer)",
        "control PUT /v1/vpn/status: takes, status, stopped",
        "control a refusal: Refused, code (string)",
        "json health: reload.problems[].variable, string",
        "json health: forwarded_ports[].port, number",
        "json health: services[].is_running, boolean",
        "json events: transition.reason_code, string",
        "json verify: trials[].ok, boolean",
        "code server_silent: reason_code",
        "code only_server: outcome of an order",
        "code port forwarding: service",
        "metric portcullis_received_bytes_total: counter",
        "metric portcullis_build_info: label version",
        "metric portcullis_service_up: gauge",
        "metric portcullis_forwarded_port_info: label port",
        "event state changed: field reason",
        "event invalid configuration: level error",
    ],
)
def test_each_kind_of_thing_is_found(line: str) -> None:
    """Control: a reader that finds nothing would let everything go."""
    assert line in plain()


def empty(value: object, path: str = "") -> list[str]:
    """Return the paths of what has no value below `value`; names of maps without items are data."""
    if isinstance(value, dict):
        return [found for name, it in value.items() for found in empty(it, f"{path}.{name}")]
    if isinstance(value, list | tuple) and value:
        return [found for it in value for found in empty(it, f"{path}[]")]
    return [path] if value is None or isinstance(value, list | tuple) else []


def test_no_field_of_an_answer_is_left_out() -> None:
    """A field that is null, or a list without items, would hide its type and what is below it."""
    assert empty(describe(FULL, 1.0)) == []
    assert empty(happened()) == []
    assert empty({"a": {"b": [{"c": None}]}, "d": ()}) == [".a.b[].c", ".d"], "control"


def without(line: str) -> Callable[[list[str]], list[str]]:
    """Return what takes `line` out of a surface."""
    return lambda lines: [one for one in lines if one != line]


def test_a_removal_fails_with_version_changelog_and_command() -> None:
    """After a release, until both are done; then the command alone is left."""
    before = ["variable OLD_NAME", "variable OTHER"]
    after = without("variable OLD_NAME")(before)
    said = advice(before, after, CHANGELOG.replace("OLD_NAME", "X"), "1.4.2")
    assert "- variable OLD_NAME" in said
    assert "from 1.4.2 to 2.0.0" in said
    assert "describe `OLD_NAME` in CHANGELOG.md" in said
    assert COMMAND in said
    assert missing(["variable OLD_NAME"], CHANGELOG, "1.5.0")
    assert missing(["variable OLD_NAME"], CHANGELOG, "2.0.0") == []
    assert missing(["variable OLD_NAME: older name X"], CHANGELOG, "2.0.0") == []
    assert missing(["variable OTHER"], CHANGELOG, "2.0.0")


def test_a_changed_thing_is_a_removal() -> None:
    """Another type of a metric, another meaning of an exit code."""
    said = advice(["exit 2: USAGE"], ["exit 3: USAGE"], CHANGELOG, "1.4.2")
    assert "- exit 2: USAGE" in said
    assert "+ exit 3: USAGE" in said


def test_an_addition_needs_only_the_command() -> None:
    """It is in the snapshot from then on, so that it cannot go unnoticed later."""
    said = advice([], ["variable NEW"], CHANGELOG, "1.4.2")
    assert "+ variable NEW" in said
    assert COMMAND in said
    assert "CHANGELOG" not in said
    assert advice(["variable NEW"], ["variable NEW"], CHANGELOG, "1.4.2") == ""


def test_what_no_release_has_had_may_go() -> None:
    """Before the first release, and with a version that was raised already."""
    assert missing(["variable OLD_NAME"], "## [Unreleased]\n", "0.1.0") == []
    assert next_breaking("0.3.1") == "0.4.0"
    assert next_breaking("1.3.1") == "2.0.0"


def test_a_word_that_is_documented_no_more_is_still_looked_for() -> None:
    """The words of the snapshot are tried too, so that a new description removes nothing."""
    assert "variable LOG_LEVEL: warn" in surface.surface({"warn"})
    assert "variable LOG_LEVEL: warn" not in plain()
