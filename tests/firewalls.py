"""Which of the gateway's firewalls a test of the lab runs on.

`auto` is what the gateway takes by itself, the legacy tables where the kernel has them; `nftables`
is the other one. A test that proves a difference between them is marked `both_firewalls` and runs
on each. Any other runs on one, drawn from its id and the commit: stable while one works on a
commit, and another draw with the next one, so that each test meets both over time.

    LAB_FIREWALL=auto|iptables|nftables   all on this one
    LAB_FIREWALL=both                     all on both (LAB_EVERYTHING=1 implies it)
    LAB_COMMIT=...                        the draw of that commit

The id of a test has the name of its firewall, and an id on the command line is run as it is:
`pytest 'tests/promises/test_health.py::test_x[nftables]'` repeats what has failed.
"""

import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

VARIABLE = "LAB_FIREWALL"
FIREWALLS = ("auto", "nftables")
FIXTURE = "lab_firewall"
BOTH = "both"
ROOT = Path(__file__).resolve().parents[1]


def forced() -> str:
    """Return the one firewall that the environment asks for, or nothing."""
    wanted = os.environ.get(VARIABLE, "")
    return "" if wanted == BOTH else wanted


@cache
def commit() -> str:
    """Return what the draw depends on: the commit, or nothing where there is no repository."""
    if given := os.environ.get("LAB_COMMIT"):
        return given
    if shutil.which("git") is None:
        return ""
    done = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "rev-parse", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


def drawn(test: str, of_commit: str) -> str:
    """Return the firewall on which `test` runs at a commit."""
    digest = hashlib.sha256(f"{of_commit} {test}".encode()).digest()
    return FIREWALLS[digest[0] % len(FIREWALLS)]


def firewall_of(item: pytest.Item) -> str | None:
    """Return the firewall in the id of a test, or None where it has none."""
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get(FIXTURE)


def without_firewall(test: str, firewall: str) -> str:
    """Return the id of a test without its firewall, which is the last part in the brackets."""
    if test.endswith(f"[{firewall}]"):
        return test.removesuffix(f"[{firewall}]")
    return test.removesuffix(f"-{firewall}]") + "]"


def is_wanted(item: pytest.Item) -> bool:
    """Return whether a test runs on the firewall in its id: marked, asked for by id, or drawn."""
    firewall = firewall_of(item)
    if firewall is None:
        return True
    if fixed := item.get_closest_marker("firewall"):
        return bool(fixed.args[0] == firewall)
    by_id = {argument.partition("::")[2] for argument in item.config.args}
    return (
        item.get_closest_marker("both_firewalls") is not None
        or os.environ.get(VARIABLE) == BOTH
        or os.environ.get("LAB_EVERYTHING") == "1"
        or item.nodeid.partition("::")[2] in by_id
        or firewall == drawn(without_firewall(item.nodeid, firewall), commit())
    )
