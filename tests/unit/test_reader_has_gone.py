"""A command of which `head` reads only the beginning ends as other programs do."""

import os
import subprocess
import sys

import pytest

from tests.configurations import COMPLETE

RULES = ("check", "--rules", "nftables")


def printed(words: tuple[str, ...], *, is_read: bool) -> tuple[int, str]:
    """Run a command with a pipe as its output, read to the end or not at all."""
    reading, writing = os.pipe()
    argv = [sys.executable, "-m", "gateway", *words]
    process = subprocess.Popen(
        argv, stdout=writing, stderr=subprocess.PIPE, env=dict(COMPLETE), text=True
    )
    os.close(writing)
    while is_read and os.read(reading, 1 << 16):
        pass
    os.close(reading)
    _, said = process.communicate()
    return process.returncode, said


@pytest.mark.parametrize("words", [RULES, ("check",)], ids=["long", "short"])
def test_nothing_is_reported_and_the_exit_code_is_that_of_sigpipe(words: tuple[str, ...]) -> None:
    """128 and the signal's number, whether the output fits a buffer or not; control: it is read."""
    code, before = printed(words, is_read=True)
    assert code == 0
    assert printed(words, is_read=False) == (141, before)
