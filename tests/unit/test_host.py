"""A gateway in the host's own network namespace refuses to lock it, and changes nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.lock import host

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("at_home", "value", "refused"),
    [
        (True, None, True),
        (True, "off", True),
        (True, "", True),
        (True, "on", False),
        (True, " On ", False),
        (True, "true", False),
        (False, None, False),
        (False, "off", False),
    ],
)
def test_the_host_is_locked_only_on_request(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    at_home: bool,
    value: str | None,
    refused: bool,
) -> None:
    """What is not clearly `on` is off."""
    sign = tmp_path / "netdev_budget"
    if at_home:
        sign.touch()
    monkeypatch.setattr(host, "HOST_ONLY", str(sign))
    monkeypatch.delenv(host.VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(host.VARIABLE, value)
    assert host.is_refused() is refused


@pytest.mark.parametrize("words", [[], ["run"], ["hold"], ["vault"], ["misspelt"]])
def test_every_command_that_locks_refuses_with_the_remedy(tmp_path: Path, words: list[str]) -> None:
    """A program that is as the gateway, but for what it takes for a sign of the host."""
    sign = tmp_path / "sign"
    sign.touch()
    code = (
        "import sys; from gateway.lock import host, lockdown; from gateway import __main__;"
        f"host.HOST_ONLY = {str(sign)!r}; lockdown.lock = None;"
        f"sys.argv = ['gateway', *{words!r}]; raise SystemExit(__main__.main())"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop(host.VARIABLE, None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Nothing has been changed" in done.stderr
    assert "PORTCULLIS_HOST=on" in done.stderr
