"""`gateway pause`, `resume`, `reconnect` and `next`: the signal, the wait, and the exit code."""

import os
import signal
from collections.abc import Iterator

import pytest

from gateway import __main__ as entry
from gateway import cli
from gateway.commands import order as command
from gateway.commands import signalling
from gateway.commands.exit_codes import FAILED, OK
from gateway.policy.orders import EFFECTS, Effect, Order
from gateway.system.order_signals import SIGNALS

CONNECTED: dict[str, object] = {
    "state": "connected",
    "reason": "it answers",
    "reason_code": "server_answers",
    "candidate_count": 2,
    "reconnects": {},
}
PAUSED = CONNECTED | {"state": "paused", "reason": "asked", "reason_code": "paused"}
LOST = CONNECTED | {"state": "connecting", "reconnects": {"requested": 1}}
CLOSED = CONNECTED | {"state": "locked", "reason_code": "firewall_failed"}


class Gateway:
    """Is asked by signals, and says `before` until it has been asked, then `then`."""

    def __init__(self) -> None:
        self.asked: list[Order] = []
        self.before: dict[str, object] = CONNECTED
        self.then: dict[str, object] = CONNECTED

    def status(self, _host: str, _port: int) -> dict[str, object]:
        """Return the status."""
        return self.then if self.asked else self.before


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    """Be the gateway."""
    gateway = Gateway()
    former = {
        number: signal.signal(number, lambda *_, it=order: gateway.asked.append(it))
        for order, number in SIGNALS.items()
    }
    monkeypatch.setattr(signalling.claim, "holder", os.getpid)
    monkeypatch.setattr(command, "status_at", gateway.status)
    monkeypatch.setattr(command, "PATIENCE", 0.4)
    yield gateway
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("order", "before", "then", "effect"),
    [
        ("pause", CONNECTED, PAUSED, Effect.PAUSED),
        ("pause", PAUSED, PAUSED, Effect.ALREADY_PAUSED),
        ("resume", PAUSED, LOST, Effect.RESUMED),
        ("resume", CONNECTED, CONNECTED, Effect.ALREADY_RUNNING),
        ("reconnect", CONNECTED, LOST, Effect.RECONNECTING),
        ("reconnect", LOST, LOST, Effect.RECONNECTING),
        ("next", CONNECTED, LOST, Effect.NEXT_SERVER),
        ("next", CONNECTED | {"candidate_count": 1}, LOST, Effect.ONLY_SERVER),
        ("next", PAUSED, PAUSED, Effect.IS_PAUSED),
        ("reconnect", CLOSED, CLOSED, Effect.IS_CLOSED),
    ],
)
def test_what_comes_of_it_is_printed(
    order: str,
    before: dict[str, object],
    then: dict[str, object],
    effect: Effect,
    gateway: Gateway,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With the state; what cannot be followed is not sent."""
    gateway.before, gateway.then = before, then
    is_already = effect is Effect.ALREADY_RUNNING
    code = cli.main([order])
    out, err = capsys.readouterr()
    if is_already:
        assert code == OK, err
    assert code == (FAILED if effect.is_refused else OK)
    assert out.splitlines() == [EFFECTS[effect], f"now {then['state']}: {then['reason']}"]
    assert gateway.asked == ([] if effect.is_refused else [Order(order)])


NOT_YET = PAUSED | {"reason_code": "kernel_unavailable"}


@pytest.mark.parametrize("then", [CONNECTED, {}, {"state": 7}, NOT_YET], ids=str)
def test_a_gateway_that_does_not_follow_is_not_waited_for(
    then: dict[str, object], gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    """Any workload may answer in its place."""
    gateway.then = then
    assert cli.main(["pause"]) == FAILED
    assert "has not followed within 0.4 s" in capsys.readouterr().err


def test_a_status_of_another_program_is_refused(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is sent then."""
    gateway.before = {"state": "connected", "reason_code": "\x1b[2J"}
    assert cli.main(["next"]) == FAILED
    assert capsys.readouterr().err == "the status is not from the gateway\n"
    assert gateway.asked == []


def test_without_a_gateway_nothing_is_sent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the error says where to run it."""
    monkeypatch.setattr(signalling.claim, "holder", lambda: 0)
    assert cli.main(["pause"]) == FAILED
    assert "in the gateway's own container" in capsys.readouterr().err


def test_the_signals_wait_until_there_is_a_loop() -> None:
    """They would end a gateway that is starting, or have no effect on process 1."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        entry._block_stop_signals()  # noqa: SLF001
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
    assert {*SIGNALS.values(), signal.SIGHUP} <= blocked
    assert len(set(SIGNALS.values())) == len(Order)
