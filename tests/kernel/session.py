"""What the guest has reported so far, test by test, and why there will be no more."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

Report = dict[str, Any]
"""A pytest report as plain data (pytest_report_to_serializable)."""

Key = tuple[str, str]
"""A run's name, and the id of a test in it."""


class Guest(Protocol):
    """What a session needs of the machine."""

    def event(self, timeout: float) -> dict[str, Any] | None:
        """Return the next event, or None: the guest has ended, or `timeout` seconds are over."""

    @property
    def ended(self) -> bool:
        """Return whether the guest is off."""


class NoReport(Exception):  # noqa: N818 - not an error of the program but a test's outcome
    """A test whose outcome the guest did not report; the text says why."""


class Session:
    """The stream of one guest's events, sorted by run and test."""

    def __init__(
        self,
        guest: Guest,
        *,
        silence: float,
        total: float,
        notify: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Listen to `guest`; `silence` and `total` limit one wait and the whole, in seconds."""
        self._guest = guest
        self._silence = silence
        self._clock = clock
        self._began = clock()
        self._deadline = self._began + total
        self._notify = notify
        self._reports: dict[Key, list[Report]] = defaultdict(list)
        self._finished: set[Key] = set()
        self._status: dict[str, int] = {}
        self._over: str | None = None

    def reports(self, test: str, run: str = "") -> Sequence[Report]:
        """Wait for the teardown of a run's test and return its reports in order.

        Raises NoReport when the run's pytest or the guest ends before, or time is up.
        """
        while (run, test) not in self._finished:
            if run in self._status:
                raise NoReport(self._missing(run, test))
            if self._over is not None:
                raise NoReport(self._over)
            self._listen()
        return self._reports[run, test]

    def _listen(self) -> None:
        """Take in one event, or find out why none comes."""
        patience = min(self._silence, self._deadline - self._clock())
        event = self._guest.event(patience) if patience > 0 else None
        if event is not None:
            self._take(event)
        elif self._guest.ended:
            self._over = "the guest ended early"
        elif self._clock() >= self._deadline:
            total = self._deadline - self._began
            self._over = f"the guest's {total:.0f} s are over"
        else:
            self._over = f"the guest has been silent for {self._silence:.0f} s"

    def _take(self, event: dict[str, Any]) -> None:
        run = event.get("run", "")
        match event["event"]:
            case "report":
                report = event["report"]
                key = (run, report["nodeid"])
                self._reports[key].append(report)
                if report.get("when") == "teardown":
                    self._finished.add(key)
            case "ended":
                self._status[run] = event["status"]
                self._notify(f"{run} ended after {event['after']:.0f} s".strip())
            case "booted":
                self._notify(f"runs Linux {event['kernel']} after {event['after']:.0f} s")
            case _:  # "collected" is for the host's collection
                return

    def _missing(self, run: str, test: str) -> str:
        """Return why a pytest that has ended holds no report of this test."""
        status = self._status[run]
        text = f"the guest's pytest ended with exit code {status} and did not report this test"
        for key, reports in self._reports.items():
            if key not in self._finished and key[0] == run and test.startswith(key[1]):
                text += "".join(f"\n{report['longrepr']}" for report in reports)
        return text
