"""The health check, started as the image does, and the interpreter that it needs at least."""

import json
import os
import py_compile
import re
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from scripts.benching.figures import Figure
from scripts.benching.programs import PATH, Program, Running, built
from tests.lab.errors import LabError

CHECKS = 40
MS = 1000
BARE = ["-I", "-S", "-c", "pass"]
"""The least that an interpreter can be asked for."""


def check_figures(programs: Sequence[Program]) -> list[Figure]:
    """Run the health check of each program that is ours, in turn with a bare interpreter."""
    cpu: dict[str, list[float | None]] = {}
    wall: dict[str, list[float | None]] = {}
    bare: dict[str, list[float | None]] = {}
    for program in programs:
        if (tree := program.tree) is None:
            continue
        with built() as place:
            running = program.start(place)
            if not running.wait():
                continue
            words = command(running, tree)
            took = place.lab.gateway_namespace.inside(
                partial(run_each, tree, [words, BARE] * CHECKS)
            )
            wall[program.name], cpu[program.name] = map(list, zip(*took[::2], strict=True))
            bare[program.name] = [used for _, used in took[1::2]]
    return [Figure("check_cpu", cpu), Figure("check_wall", wall), Figure("bare", bare)]


def command(running: Running, tree: Path) -> list[str]:
    """Return the arguments with which the Dockerfile of the program's tree starts it."""
    words = of_image((tree / "Dockerfile").read_text("utf-8"))
    if words[-1].endswith(".pyc"):
        compiled = str(running.lab.household.file("healthcheck.pyc"))
        py_compile.compile(str(tree / "healthcheck/__main__.py"), compiled, doraise=True)
        return [*words[:-1], compiled]
    # The tree is not installed: -I would hide it, and without -P the working directory comes first.
    return ["-P" if word == "-I" else word for word in words]


def of_image(dockerfile: str) -> list[str]:
    """Return the arguments for the interpreter in a Dockerfile's HEALTHCHECK."""
    found = re.search(r"^HEALTHCHECK.*\\\n +CMD (\[.*\])", dockerfile, re.MULTILINE)
    if found is None:
        raise SystemExit("the Dockerfile has no HEALTHCHECK line that can be read")
    _python, *words = json.loads(found[1])
    return list(words)


def run_each(tree: Path, commands: Sequence[list[str]]) -> list[tuple[float, float]]:
    """Run one command after the other; return what each took."""
    return [run(tree, words) for words in commands]


def run(tree: Path, words: Sequence[str]) -> tuple[float, float]:
    """Run the interpreter; return what it took in ms, by the clock and of a processor."""
    began = time.monotonic()
    nothing = os.open(os.devnull, os.O_WRONLY)
    actions = [(os.POSIX_SPAWN_DUP2, nothing, 1), (os.POSIX_SPAWN_CLOSE, nothing)]
    environment = {"PATH": PATH, "PYTHONPATH": str(tree)}
    pid = os.posix_spawn(
        sys.executable, [sys.executable, *words], environment, file_actions=actions
    )
    os.close(nothing)
    _pid, status, usage = os.wait4(pid, 0)
    if status:
        raise LabError(f"the health check in {tree} failed with status {status}")
    return MS * (time.monotonic() - began), MS * (usage.ru_utime + usage.ru_stime)
