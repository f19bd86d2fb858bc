"""`gateway reload`: has the running gateway read its configuration again, and prints the answer.

The request is a signal to the gateway's process (`commands.signalling`). The answer is in the
status that `gateway status` reads. It is the right one when the reading began after the request.
"""

import signal
import sys
import time

from gateway.commands.asking import status_at, visible
from gateway.commands.exit_codes import FAILED, OK, USAGE
from gateway.commands.showing import of_reload
from gateway.commands.signalling import gateway, send
from gateway.errors import NetworkError
from gateway.model import HostPort
from gateway.policy.states import Reason
from gateway.settings import early

PATIENCE = 40.0
"""Seconds: more than the gateway takes, with a file that does not answer."""
POLL = 0.1
"""Seconds between two looks at the status."""

ASK_THE_ENGINE = "ask it with `docker kill --signal HUP CONTAINER`, and read the log"
CLOSED = {Reason.FIREWALL, Reason.UNCHECKED, Reason.HUNG}
"""The codes of reasons for which a configuration that was accepted is not in force."""


def reload() -> int:
    """Have the configuration read again; the exit code says what came of it.

    OK: the gateway runs with what was read. USAGE: that is wrong, and nothing has changed. FAILED:
    it could not be read, is not in force, or a part of it needs a restart.
    """
    asked_at = _now()
    try:
        pid = gateway(ASK_THE_ENGINE)
        send(pid, signal.SIGHUP, ASK_THE_ENGINE)
        body, found = _answer(pid, asked_at, early.health_address(early.environment()))
    except NetworkError as err:
        print(visible(str(err)), file=sys.stderr)
        return FAILED
    outcome, reason = str(found.get("outcome")), str(body.get("reason_code"))
    for line in (visible(outcome), *of_reload(found)):
        print(line)
    print(visible(f"now {body.get('state')}: {body.get('reason')}"))
    if outcome == "refused":
        return USAGE
    is_in_force = outcome in {"accepted", "unchanged"} and reason not in CLOSED
    return OK if is_in_force and not found.get("needs_restart") else FAILED


def _answer(
    pid: int, asked_at: float, address: HostPort
) -> tuple[dict[str, object], dict[str, object]]:
    """Return the status with the answer to what was requested at `asked_at`, and the answer.

    Raises NetworkError when there is none in time, or the process `pid` has ended.
    """
    problem = ""
    while _now() < asked_at + PATIENCE:
        try:
            body = status_at(address.host, address.port)
        except NetworkError as err:
            problem = f" ({err})"
        else:
            found = body.get("reload")
            begun_at = found.get("begun_at") if isinstance(found, dict) else None
            if isinstance(found, dict) and isinstance(begun_at, float) and begun_at >= asked_at:
                return body, found
        send(pid, 0, ASK_THE_ENGINE)
        time.sleep(POLL)
    raise NetworkError(f"no answer within {PATIENCE:g} s{problem}; read the log")


def _now() -> float:
    """Return the time on the gateway's own clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
