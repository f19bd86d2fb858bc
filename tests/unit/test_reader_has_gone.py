"""A command whose output cannot be written ends as other programs do."""

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


@pytest.mark.parametrize(
    "words",
    [RULES, ("check",), ("--help",), ("--version",), ("status", "--help")],
    ids=["long", "short", "help", "version", "help of a command"],
)
def test_nothing_is_reported_and_the_exit_code_is_that_of_sigpipe(words: tuple[str, ...]) -> None:
    """128 and the signal's number, whether the output fits a buffer or not; control: it is read."""
    code, before = printed(words, is_read=True)
    assert code == 0
    assert printed(words, is_read=False) == (141, before)


def without_output(words: tuple[str, ...], how: str) -> tuple[int, str, str]:
    """Run a command by a shell that redirects it as `how` says; return exit code and outputs."""
    argv = ["/bin/sh", "-c", f'"$@" {how}', "sh", sys.executable, "-m", "gateway", *words]
    done = subprocess.run(argv, env=dict(COMPLETE), capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("words", [RULES, ("check",), ("--help",)], ids=["long", "short", "help"])
def test_a_full_disk_is_reported_in_words(words: tuple[str, ...]) -> None:
    """As the last line, with exit code 1, and not as an error of the program."""
    code, _, said = without_output(words, "> /dev/full")
    assert code == 1
    assert said.splitlines()[-1] == "gateway: cannot write: No space left on device"
    assert "unexpected" not in said
    assert "ignored" not in said


@pytest.mark.parametrize("how", [">&-", "2>&-", ">&- 2>&-", ">&- 2>&- <&-"])
def test_without_an_output_the_exit_code_is_the_same(how: str) -> None:
    """A script may want that alone; control: what is not closed is written as usual."""
    code, out, said = without_output(("check",), "")
    assert code == 0
    found = without_output(("check",), how)
    assert found == (0, "" if ">&-" in how.split() else out, "" if "2>&-" in how else said)


def test_a_wrong_command_is_answered_with_the_names_of_all() -> None:
    """As they are typed; with --help, so that nothing is closed here."""
    code, _, said = without_output(("unknown", "--help"), "")
    assert code == 2
    names = said.replace("'", "")  # which Python writes up to 3.13
    assert "run, hold, reload, pause, resume, reconnect, next, init" in names
