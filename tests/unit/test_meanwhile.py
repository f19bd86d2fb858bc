"""Work in a thread: its result, its error, and what happens where there can be no thread."""

import threading

import pytest

from gateway.errors import FirewallError
from gateway.system.meanwhile import meanwhile


def test_it_runs_while_the_caller_does_something_else() -> None:
    """The result is there once it is asked for, any number of times."""
    begun, may_end = threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        assert may_end.wait(5)
        return "done"

    result = meanwhile(work)
    assert begun.wait(5), "before its result is asked for"
    may_end.set()
    assert [result(), result()] == ["done", "done"]


def test_what_it_raises_is_raised_where_the_result_is_asked_for() -> None:
    """Errors of ours and of Python."""

    def fails() -> None:
        raise FirewallError("no")

    def exits() -> None:
        raise KeyboardInterrupt

    with pytest.raises(FirewallError, match="no"):
        meanwhile(fails)()
    with pytest.raises(KeyboardInterrupt):
        meanwhile(exits)()


def test_without_a_thread_it_is_done_when_its_result_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where no more processes may be started."""
    done: list[int] = []

    def refuse(_self: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    result = meanwhile(lambda: done.append(1))
    assert done == []
    result()
    assert done == [1]
