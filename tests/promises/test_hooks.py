"""The user's commands: at the right moments, without a shell, never in the gateway's way."""

import contextlib
import signal
import time
from pathlib import Path

import pytest

from tests.lab.gateway import Gateway
from tests.lab.process import PATIENCE, eventually
from tests.lab.topology import Lab
from tests.promises.stages import lose_tunnel
from tests.promises.witness import HOST4

pytestmark = pytest.mark.lab

NOTES = "/run/notes"
NOTE = f"""#!/bin/sh
printf '%s|' "$@" >> {NOTES}
echo >> {NOTES}
echo "said by the command"
"""
HANGS = "#!/bin/sh\nexec sleep 600\n"
STAYS = """#!/bin/sh
# Two children that do not end when only their shell is killed.
sleep 600.25 &
sleep 600.25
"""
UP_STAYS = f"""#!/bin/sh
echo "$1" >> {NOTES}
if [ "$1" = up ]; then sleep 600.25; else sleep 1; fi
echo "end of $1" >> {NOTES}
"""
STOPPED_IN = 3.0 * PATIENCE
"""Seconds that a stop may take in all."""
FAILS = "#!/bin/sh\nexit 7\n"


def with_command(lab: Lab, script: str, **variables: str) -> Gateway:
    """Start a gateway that finds `script` at /config/command, and wait until it is healthy."""
    gateway = lab.gateway()
    gateway.write("/config/command", script, mode=0o700)
    gateway.start(gateway.env(**variables)).wait_healthy()
    return gateway


def notes(gateway: Gateway) -> list[str]:
    """Return a line for each time that the command ran: its arguments."""
    path = gateway.container.root / NOTES.lstrip("/")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def wait_for_notes(gateway: Gateway, expected: list[str]) -> None:
    """Wait until the command has run as often and with these arguments."""
    eventually(lambda: notes(gateway) == expected, timeout=5, what=f"{expected} in the notes")


def test_commands_run_when_traffic_starts_and_ends_and_no_shell_sees_their_arguments(
    lab: Lab,
) -> None:
    """Up, lost, up again, stopped: each has its run; what it says is in the log."""
    gateway = with_command(
        lab,
        NOTE,
        VPN_UP_COMMAND="/config/command up '$HOME; two words'",
        VPN_DOWN_COMMAND="/config/command down",
    )
    up, down = "up|$HOME; two words|", "down|"
    wait_for_notes(gateway, [up])
    lose_tunnel(lab)
    wait_for_notes(gateway, [up, down, up])
    gateway.wait_healthy()
    assert gateway.stop() == 0
    assert notes(gateway) == [up, down, up, down]
    assert gateway.events(event="command output", variable="VPN_UP_COMMAND")[0]["line"] == (
        "said by the command"
    )


@pytest.mark.parametrize("script", [FAILS, "no program at all\n"], ids=["fails", "does not start"])
def test_a_command_that_fails_is_reported_and_no_more(lab: Lab, script: str) -> None:
    """The tunnel stays, and so does the process."""
    gateway = with_command(lab, script, VPN_UP_COMMAND="/config/command")
    eventually(
        lambda: gateway.events(event="command failed", variable="VPN_UP_COMMAND"),
        timeout=5,
        what="the log's word",
    )
    assert gateway.status().code == 200
    assert lab.workload.probe("tcp", host=HOST4).seen == lab.server.exit.ipv4


def test_a_command_that_hangs_delays_neither_a_reconnect_nor_a_stop(lab: Lab) -> None:
    """Its time limit is longer than anybody waits; a stop gives it two seconds."""
    gateway = with_command(lab, HANGS, VPN_UP_COMMAND="/config/command")
    lose_tunnel(lab)
    gateway.wait_unhealthy()
    gateway.wait_healthy()
    assert lab.workload.probe("tcp", host=HOST4).seen == lab.server.exit.ipv4
    asked_at = time.monotonic()
    assert gateway.stop() == 0
    assert time.monotonic() - asked_at < STOPPED_IN


def sleepers() -> int:
    """Return how many children of the scripts there are."""
    found = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += path.read_bytes() == b"sleep\x00600.25\x00"
    return found


def test_a_stop_leaves_nothing_of_a_command_behind(lab: Lab) -> None:
    """A script's own children end with it, though the gateway is not process 1 here."""
    gateway = with_command(lab, STAYS, VPN_UP_COMMAND="/config/command")
    eventually(lambda: sleepers() == 2, timeout=5, what="the script's children")  # the control
    asked_at = time.monotonic()
    assert gateway.stop() == 0
    assert time.monotonic() - asked_at < STOPPED_IN
    assert sleepers() == 0


def test_at_a_stop_health_is_red_at_once_and_the_down_command_has_its_turn(lab: Lab) -> None:
    """The up command, which hangs, gives way; meanwhile 503 says why."""
    gateway = with_command(
        lab,
        UP_STAYS,
        VPN_UP_COMMAND="/config/command up",
        VPN_DOWN_COMMAND="/config/command down",
    )
    wait_for_notes(gateway, ["up"])
    assert gateway.status().code == 200
    asked_at = time.monotonic()
    gateway.signal(signal.SIGTERM)
    red = gateway.wait_for_state("stopping")
    assert (red.code, red.body["healthy"]) == (503, False)
    assert gateway.wait() == 0
    assert time.monotonic() - asked_at < STOPPED_IN
    assert notes(gateway) == ["up", "down", "end of down"]
    assert sleepers() == 0
