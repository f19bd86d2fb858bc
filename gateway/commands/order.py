"""`gateway pause`, `resume`, `reconnect` and `next`: ask the running gateway for one thing.

The request is a signal to the gateway's process (`commands.signalling`). What comes of it follows
from the status before it (`policy.orders`); the command waits until the status shows it.
"""

import argparse
import sys
import time

from gateway.commands.asking import mapping, status_at, visible
from gateway.commands.exit_codes import FAILED, OK
from gateway.commands.signalling import gateway, send
from gateway.errors import NetworkError
from gateway.policy.orders import EFFECTS, Effect, Order, effect_of
from gateway.policy.states import Reason
from gateway.settings import early
from gateway.system.order_signals import SIGNALS

PATIENCE = 10.0
"""Seconds until the status has to show what comes of it."""
POLL = 0.1
"""Seconds between two looks at the status."""

LOOK = "run the command in the gateway's own container"


HELP: dict[str, str] = {
    "reload": "have the running gateway read its files again, and show what came of it",
    Order.PAUSE: "close the tunnel of the running gateway until it is resumed",
    Order.RESUME: "connect again after a pause",
    Order.RECONNECT: "build the tunnel to the same server again",
    Order.NEXT: "go to the next server of the configuration",
}


def add_orders(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands that ask something of the running gateway."""
    for wanted, said in HELP.items():
        commands.add_parser(str(wanted), help=said)  # its repr is shown after a wrong command


def order(wanted: str) -> int:
    """Ask for the order with the code `wanted`; the exit code says what came of it.

    OK: it is followed, or was before. FAILED: it cannot be followed now, or that is not seen.
    """
    asked = Order(wanted)
    try:
        pid = gateway(LOOK)
        effect, now = _followed(pid, asked)
    except NetworkError as err:
        print(visible(str(err)), file=sys.stderr)
        return FAILED
    print(visible(EFFECTS[effect]))
    print(visible(f"now {now.get('state')}: {now.get('reason')}"))
    return FAILED if effect.is_refused else OK


def _followed(pid: int, asked: Order) -> tuple[Effect, dict[str, object]]:
    """Send the order to the gateway, and return its effect and the status that shows it.

    Raises NetworkError.
    """
    address = early.health_address(early.environment())
    before = status_at(address.host, address.port)
    effect = _effect(asked, before)
    if effect.is_refused:
        return effect, before
    send(pid, SIGNALS[asked], LOOK)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        now = status_at(address.host, address.port)
        if _shows(effect, before, now):
            return effect, now
        send(pid, 0, LOOK)
        time.sleep(POLL)
    raise NetworkError(f"the gateway has not followed within {PATIENCE:g} s; read the log")


def _effect(asked: Order, status: dict[str, object]) -> Effect:
    """Return what comes of an order. Raises NetworkError if the status is not one."""
    state, number = status.get("state"), status.get("candidate_count")
    try:
        reason = Reason(str(status.get("reason_code")))
    except ValueError as err:
        raise NetworkError("the status is not from the gateway") from err
    return effect_of(asked, str(state), reason, number if isinstance(number, int) else 1)


def _shows(effect: Effect, before: dict[str, object], now: dict[str, object]) -> bool:
    """Return whether the status shows the effect."""
    is_paused = now.get("state") == "paused"
    if effect in {Effect.PAUSED, Effect.ALREADY_PAUSED}:
        return is_paused and now.get("reason_code") != Reason.UNCHECKED  # then it is not in force
    if effect in {Effect.RESUMED, Effect.ALREADY_RUNNING} or before.get("state") != "connected":
        return not is_paused
    return mapping(now.get("reconnects")) != mapping(before.get("reconnects"))
