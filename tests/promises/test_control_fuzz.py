"""The control API under schemathesis, which makes requests of its OpenAPI document.

The program checks that each answer is one that the document has, and that nothing is an error of
the server. Every request is made with the key. A stream of events has no end, so it is
left out; `unit/test_control_api.py` has it.
"""

import secrets
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import skip_or_fail
from tests.lab.process import PATIENCE, eventually

pytestmark = [pytest.mark.lab, pytest.mark.no_gateway]

PROJECT = Path(__file__).resolve().parents[2]
PROGRAM = PROJECT / ".cache" / "schemathesis" / "bin" / "st"
DOCUMENT = PROJECT / "gateway" / "control" / "openapi.json"
EXAMPLES = 20


def listens(port: int) -> bool:
    """Return whether something answers at a port here."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_every_answer_is_one_that_the_document_has() -> None:
    """Right or wrong, and in every form that the program knows."""
    if not PROGRAM.exists():
        skip_or_fail("schemathesis is missing: scripts/install-schemathesis fetches it")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    key = secrets.token_hex(16)
    served = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.controlled", f"127.0.0.1:{port}", key],
        cwd=PROJECT,
        stdout=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: listens(port), timeout=10, what="the control API")
        done = subprocess.run(
            [
                *(PROGRAM, "run", DOCUMENT, "--url", f"http://127.0.0.1:{port}"),
                *("--header", f"X-API-Key: {key}", "--exclude-path", "/api/v1/events"),
                # Guesses are answered late; that they are refused is tested elsewhere.
                *("--checks", "all", "--exclude-checks", "ignored_auth"),
                *("--max-examples", str(EXAMPLES), "--no-color", "--request-timeout", "30"),
            ],
            cwd=PROJECT / ".cache",
            capture_output=True,
            text=True,
            timeout=100 * PATIENCE,
            check=False,
        )
    finally:
        served.terminate()
        served.wait()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stdout
