"""No WireGuard key gets into the log, wherever in an event it is."""

import base64
import io
import json
import sys

import pytest
import structlog

from gateway import log

KEY = base64.b64encode(bytes(range(32))).decode()


class Holder:
    """An object whose text has a key."""

    def __repr__(self) -> str:
        return f"<holder of {KEY}>"


@pytest.mark.parametrize(
    "value",
    [
        KEY,
        f"peer {KEY} answers",
        {KEY: 1},
        {"peer": {"key": KEY}},
        [KEY],
        ("a", [KEY]),
        Holder(),
        ValueError(KEY),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_key_is_replaced_in_every_kind_of_value(value: object) -> None:
    """In names of fields too, and in what other objects print."""
    redacted = log.redact(value)
    assert KEY not in str(redacted)
    assert log.HIDDEN in str(redacted)


@pytest.mark.parametrize("value", ["eth0", KEY[:-2], f"A{KEY}", 7, 1.5, None, True])
def test_anything_else_stays_as_it_is(value: object) -> None:
    """A digest or a name that is shorter or longer is not a key."""
    assert log.redact(value) == value


def test_the_log_that_is_configured_redacts(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the event, in its fields and in tracebacks. Control: the rest of the line is there."""
    written = io.StringIO()
    monkeypatch.setattr(sys, "stdout", written)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(log, "without_waiting", lambda stream, *_: stream)
    try:
        log.configure("info", "json")
        logger = structlog.get_logger()
        logger.info(KEY, field=f"value {KEY}")
        logger.error("failed", exc_info=ValueError(KEY))
    finally:
        structlog.reset_defaults()
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["[key]", "failed"]
    assert lines[0]["field"] == "value [key]"
    assert "ValueError: [key]" in lines[1]["exception"]
    assert KEY not in written.getvalue()
