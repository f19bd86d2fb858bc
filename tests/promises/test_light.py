"""What an idle gateway costs: no process, and nothing in memory that only the start needed.

The figures are in docs/performance.md; scripts/bench measures them.
"""

import time
from pathlib import Path

import pytest

from tests.lab.gateway import Gateway
from tests.lab.process import PATIENCE, eventually
from tests.lab.topology import Lab

pytestmark = [pytest.mark.lab, pytest.mark.both_firewalls]

QUIET = 9.0
"""Seconds with two comparisons of the kernel at least."""


def faults_of_children(gateway: Gateway) -> int:
    """Return how often children that have ended met a page that was not there: proc(5), cminflt."""
    fields = Path(f"/proc/{gateway.pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return int(fields[8])


def test_an_idle_gateway_starts_no_process(lab: Lab) -> None:
    """Though it compares the kernel with what it wants; a change is the control."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    time.sleep(3 * PATIENCE)
    before = faults_of_children(gateway)
    time.sleep(QUIET)
    assert faults_of_children(gateway) == before
    age = gateway.status().body["verified_age"]
    assert isinstance(age, float)
    assert age < QUIET, "it has compared meanwhile"
    lab.operator.run("nft", "delete", "table", "netdev", "portcullis_guard")
    eventually(lambda: gateway.status().body["drift"], timeout=6, what="the change")
    assert faults_of_children(gateway) > before, "control: to revert it starts nft"


@pytest.mark.parametrize("library", ["pydantic_core", "libssl", "libcrypto", "prometheus_client"])
def test_what_only_the_start_needs_is_not_in_memory(lab: Lab, library: str) -> None:
    """The configuration is read by a child, which has ended."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    mapped = Path(f"/proc/{gateway.pid}/maps").read_text("ascii")
    assert "libpython" in mapped or "/python3" in mapped, "control: this is Python"
    assert library not in mapped
    children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text("ascii").split()
    names = [Path(f"/proc/{pid}/comm").read_text("ascii").strip() for pid in children]
    assert names == ["wireguard-go"]
