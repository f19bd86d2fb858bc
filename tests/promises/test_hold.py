"""`gateway hold`: a namespace closed by a process that then only waits, for gateways elsewhere."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.fakes.note import NoteInMemory
from tests.lab.gateway import Gateway
from tests.lab.process import PATIENCE, eventually
from tests.lab.topology import Lab
from tests.promises.witness import (
    HOST4,
    flooded,
    locked,
    not_answered,
    not_refused_at_once,
    ordinary,
    wait_for_flood,
)

pytestmark = [pytest.mark.lab, pytest.mark.promise("P1")]

HOLD = (sys.executable, "-m", "gateway", "hold")
MOST_MEMORY = 8 << 10
"""KiB, proportional (Pss of proc_pid_smaps(5))."""
AT_ONCE = 0.2


def anchor(lab: Lab, **options: object) -> Gateway:
    """Return a container that runs `gateway hold` as process 1; it has no configuration."""
    return lab.gateway(argv=HOLD, pid_namespace=True, **options)


def held(container: Gateway) -> Gateway:
    """Start it with a wrong configuration, and wait until it only waits."""
    container.start({"WIREGUARD_MTU": "9", "LOG_FORMAT": "json"})
    return waiting(container)


def waiting(container: Gateway) -> Gateway:
    """Wait until it has become the process that waits, which ignores SIGCHLD."""

    def waits() -> bool:
        process = Path(f"/proc/{container.pid}")
        if b"waiting.py" not in (process / "cmdline").read_bytes():
            return False
        lines = (process / "status").read_text("ascii").splitlines()
        ignored = next(line.split()[1] for line in lines if line.startswith("SigIgn:"))
        return bool(int(ignored, 16) >> (signal.SIGCHLD - 1) & 1)

    eventually(waits, timeout=5, what="the process that waits")
    return container


def test_it_closes_an_open_namespace_for_good(lab: Lab) -> None:
    """A flood of every kind ends with the lock, and stays ended when the process is gone.

    Control: the flood is seen before.
    """
    flood = flooded(lab)
    wait_for_flood(lab, since=0.0)
    container = held(anchor(lab))
    locked_at = locked(container)
    assert not_refused_at_once(ordinary(lab.workload)) == {}
    assert container.stop() == 0
    assert not_refused_at_once(ordinary(lab.workload)) == {}
    flood.stop()
    assert lab.leaks(locked_at) == []


def test_once_it_closes_and_ends(lab: Lab) -> None:
    """For a namespace that something else holds; a gateway then takes over.

    Control: nothing of what is refused then was refused before.
    """
    before = ordinary(lab.workload)
    assert not_refused_at_once(before) == before, "control"
    closing = lab.gateway(argv=(*HOLD, "--once"), pid_namespace=True)
    closing.start({"WIREGUARD_MTU": "9", "LOG_FORMAT": "json"})
    assert closing.wait() == 0
    locked_at = locked(closing)
    assert not_refused_at_once(ordinary(lab.workload)) == {}
    lab.gateway(pid_namespace=True).start().wait_healthy()
    assert not_answered(ordinary(lab.workload)) == {}
    assert lab.leaks(locked_at) == []


def test_once_it_ends_well_only_when_all_is_closed(lab: Lab) -> None:
    """Stopped while too few files may be open, it fails: an init container would let others start.

    What the lock has closed stays so. Control: with more files, and no output at all, it ends well.
    """
    ends = {}
    for files, streams in ((9, ""), (99, ">&- 2>&-")):
        limited = ("sh", "-c", f'ulimit -n {files}; exec "$@" {streams}', "sh", *HOLD, "--once")
        closing = lab.gateway(argv=limited, pid_namespace=True)
        closing.start({"LOG_FORMAT": "json"})
        if not streams:
            waits = partial(closing.events, event="could not check or change the kernel")
            eventually(waits, timeout=5, what="the shortage")
            closing.signal(signal.SIGTERM)
        ends[files] = closing.wait()
        assert not_refused_at_once(ordinary(lab.workload)) == {}
    assert ends == {9: 1, 99: 0}


def test_it_leaves_what_a_gateway_reads_back(lab: Lab) -> None:
    """Rules, guard and routes of the lock, no claim, and no queue of a link."""
    held(anchor(lab))
    rules = lab.operator.run("ip", "rule", "show")
    assert "lookup 51820" in rules
    assert "unreachable" in lab.operator.run("ip", "route", "show", "table", "51820")
    assert 'device "eth0"' in lab.operator.run("nft", "list", "table", "netdev", "portcullis_guard")
    assert "@portcullis" not in lab.operator.run("cat", "/proc/net/unix")


def test_it_is_small_reaps_what_it_inherits_and_ends_at_once(lab: Lab) -> None:
    """As process 1, which has no signal handler by default; the children are the engine's."""
    container = held(anchor(lab))
    rollup = Path(f"/proc/{container.pid}/smaps_rollup").read_text("ascii")
    pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    assert pss <= MOST_MEMORY
    code, _ = container.execute("sh", "-c", "sleep 1 >/dev/null 2>&1 & exec true")
    assert code == 0
    children = Path(f"/proc/{container.pid}/task/{container.pid}/children")
    assert children.read_text("ascii"), "control: an orphan has come"
    eventually(lambda: not children.read_text("ascii"), timeout=4, what="no zombie")
    for number in (signal.SIGTERM, signal.SIGINT):
        began = time.monotonic()
        container.signal(number)
        assert container.wait() == 0
        assert time.monotonic() - began < AT_ONCE * PATIENCE
        waiting(container.start({}))


@pytest.mark.both_firewalls
def test_a_gateway_takes_over_and_comes_and_goes(lab: Lab) -> None:
    """It has the claim, and its workloads the tunnel; between two gateways all is closed."""
    held(anchor(lab))
    gateway = lab.gateway(pid_namespace=True).start()
    gateway.wait_healthy()
    assert "@portcullis" in lab.operator.run("cat", "/proc/net/unix")
    assert gateway.status().body["drift"] == 0
    assert gateway.stop() == 0
    since = time.monotonic()
    assert not_refused_at_once(ordinary(lab.workload)) == {}
    gateway.start().wait_healthy()
    assert not_answered(ordinary(lab.workload)) == {}
    assert lab.leaks(since) == []


@pytest.mark.both_firewalls
@pytest.mark.parametrize("shared", [False, True], ids=["own processes", "shared processes"])
def test_run_next_to_a_gateway_it_is_stricter_and_the_gateway_reverts_that(
    lab: Lab, *, shared: bool
) -> None:
    """Nothing leaves unencrypted meanwhile; the tunnel is back within 5 s, the link stays up.

    Control: the flood is seen before the first lock.
    """
    flood = flooded(lab, "udp4", "tcp4", "udp6", "packet4", rate=200)
    first = held(anchor(lab))
    since = locked(first)
    gateway = lab.gateway(pid_namespace=not shared).start()
    gateway.wait_healthy()
    for _ in range(3):
        again = lab.gateway(argv=HOLD, pid_namespace=not shared)
        waiting(again.start({"LOG_FORMAT": "json"}))
        if shared:
            assert again.events(event="a gateway has this namespace"), again.logs()
        eventually(
            lambda: lab.workload.probe("tcp", host=HOST4).seen == lab.server.exit.ipv4,
            timeout=7,
            what="the tunnel",
        )
        again.close()
    eventually(lambda: gateway.status().body["drift"], timeout=5, what="the change, in the status")
    gateway.wait_healthy()
    flood.stop()
    assert lab.leaks(since) == []
    assert first.running


def test_a_gateway_and_a_hold_that_begin_together_end_with_a_tunnel(lab: Lab) -> None:
    """Compose starts a gateway as soon as the anchor's process is there."""
    for _ in range(3):
        container = anchor(lab).start({})
        gateway = lab.gateway(pid_namespace=True).start()
        gateway.wait_healthy()
        waiting(container)
        eventually(
            lambda: lab.workload.probe("tcp", host=HOST4).seen == lab.server.exit.ipv4,
            timeout=7,
            what="the tunnel",
        )
        assert gateway.stop() == 0
        assert container.stop() == 0
        lab.gateway_namespace.run("nft", "flush", "ruleset")
        lab.gateway_namespace.run("ip", "rule", "flush")
        lab.gateway_namespace.run("ip", "rule", "add", "pref", "32766", "lookup", "main")
        gateway.close()
        container.close()


@pytest.mark.promise("P10")
def test_a_newer_gateway_has_the_resolvers_that_the_anchor_was_given(lab: Lab) -> None:
    """It resolves its endpoint's name with them, even if its own file names another one by then."""
    lab.docker_resolver(A=lab.server.endpoint.ipv4, AAAA=lab.server.endpoint.ipv6)
    held(anchor(lab))
    gateway = lab.gateway(pid_namespace=True, resolv_conf="nameserver 198.51.100.66\n")
    named = gateway.env(WIREGUARD_ENDPOINT_IP="vpn.example.test")
    gateway.start(named).wait_healthy()


@pytest.mark.promise("P2")
def test_without_the_capability_it_ends_with_the_remedy(lab: Lab) -> None:
    """As the gateway does."""
    container = lab.gateway(argv=HOLD, capabilities=("net_raw",)).start({})
    assert container.wait() == 1
    assert "add NET_ADMIN to cap_add" in container.logs()


@pytest.mark.parametrize("kind", ["kernel", "memory"])
def test_a_note_is_read_as_it_was_written(lab: Lab, kind: str) -> None:
    """The contract of the note and of its fake."""
    script = (
        "from gateway.system.note import Note; n = Note('t'); print(n.read()); n.write('a b');"
        "print(n.read()); n.write('c'); print(n.read()); print(Note('other').read())"
    )
    if kind == "memory":
        note = NoteInMemory()
        found = [note.read()]
        for text in ("a b", "c"):
            note.write(text)
            found.append(note.read())
        assert found == [None, "a b", "c"]
        return
    said = subprocess.run(
        lab.operator.command([sys.executable, "-c", script]),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.split("\n")[:4] == ["None", "a b", "c", "None"]
