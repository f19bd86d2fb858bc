"""promtool, which checks files and metrics for Prometheus."""

import shutil
import subprocess
from pathlib import Path

from tests.conftest import skip_or_fail

PROJECT = Path(__file__).resolve().parents[1]
FETCHED = PROJECT / ".cache" / "promtool" / "usr" / "bin" / "promtool"


def promtool(*arguments: str, given: bytes = b"") -> str:
    """Run promtool, which has to accept what it is given; return what it says."""
    program = shutil.which("promtool") or (str(FETCHED) if FETCHED.exists() else None)
    if program is None:
        skip_or_fail("promtool is missing: scripts/install-promtool fetches it")
    done = subprocess.run(
        [str(program), *arguments], input=given, capture_output=True, check=False, cwd=PROJECT
    )
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said
