"""The manifest of docs/layouts.md passes the gateway's own check."""

import re
from pathlib import Path

import pytest

from gateway import cli
from tests.configurations import PRIVATE, PUBLIC, put

PAGE = (Path(__file__).resolve().parents[2] / "docs/layouts.md").read_text("utf-8")
ZEROS = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


def checked(folder: Path, text: str) -> int:
    """Return the exit code of the check."""
    put(folder, "pod.yaml", text)
    return cli.main(["check", "--kubernetes", str(folder / "pod.yaml"), "--service", "gateway"])


def test_the_manifest_passes_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With keys in place of zeros: the secret's first, then the server's."""
    (text,) = re.findall(r"<!-- pod -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)
    whole = text.replace(ZEROS, PRIVATE, 1).replace(ZEROS, PUBLIC, 1)
    assert checked(tmp_path, whole) == 0, capsys.readouterr()
    assert checked(tmp_path, whole.replace("name: DNS_ADDRESS", "name: DNS_ADRESS")) != 0
