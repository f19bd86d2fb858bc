"""The probes of the lab: forked from one server, they are what a started program would be."""

import os

import pytest

from tests.lab.errors import LabError
from tests.lab.process import eventually
from tests.lab.topology import Lab
from tests.lab.workload import Workload

pytestmark = [pytest.mark.lab, pytest.mark.no_gateway]

READ = "grep -E '^(Cap|NoNewPrivs|Uid)' /proc/self/status"


def program_of(place: Workload) -> tuple[list[list[str]], dict[str, str]]:
    """Return the privileges and the namespaces of a program that the place starts."""
    status = [line.split() for line in place.run("sh", "-c", READ).splitlines()]
    kinds = ("net", "mnt", "pid")
    return status, {kind: place.run("readlink", f"/proc/self/ns/{kind}").strip() for kind in kinds}


def test_a_probe_has_the_privileges_and_namespaces_of_a_program(lab: Lab) -> None:
    """A workload's, one in a container's mount namespace, and an operator's with everything."""
    places = [lab.workload, lab.gateway().workload(), lab.operator, lab.internet]
    found = []
    for place in places:
        probe = place.probe("privileges").fields
        assert (probe["status"], probe["namespaces"]) == program_of(place)
        found.append((probe["status"], probe["namespaces"]))
    assert found[0][0] != found[2][0], "capabilities are taken away"
    assert found[0][1]["mnt"] != found[1][1]["mnt"], "mount namespaces differ"
    assert found[0][1]["net"] != found[3][1]["net"]


def test_a_probe_leaves_no_process_and_no_descriptor(lab: Lab) -> None:
    """Neither in the namespace nor in the test's process."""
    lab.workload.probe("privileges")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted, not opened
    for _ in range(20):
        lab.workload.probe("udp", host="198.51.100.10")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    eventually(lambda: not lab.gateway_namespace.pids(), timeout=2, what="the end of the probes")


def test_a_probe_that_fails_by_itself_raises(lab: Lab) -> None:
    """A probe that does not exist, and an argument that it does not have."""
    with pytest.raises(LabError, match="KeyError: 'nonsense'"):
        lab.workload.probe("nonsense")
    with pytest.raises(LabError, match="udp has no argument hots"):
        lab.workload.probe("udp", hots="198.51.100.10")
