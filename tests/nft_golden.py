"""A golden file with a table of nftables: whether it is up to date, and whether nft accepts it."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.conftest import skip_or_fail


def reads_as(golden: Path, text: str) -> None:
    """Compare `text` with the file; `GOLDEN=write` writes it again."""
    if os.environ.get("GOLDEN") == "write":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text, "utf-8")
    assert text == golden.read_text("utf-8")


def is_accepted(golden: Path) -> None:
    """Have the kernel's own tool check the file, in a namespace of its own."""
    own = ["unshare", "--net", "--map-root-user"]
    program = shutil.which("nft", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if program is None or subprocess.run([*own, "true"], check=False).returncode:
        skip_or_fail("this machine has no nft, or allows no network namespace to this user")
    words = [*own, str(program), "--check", "--file", str(golden)]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
