"""Which test executes which line of the gateway, and so which tests a mutant meets.

A plugin of pytest records it in one file of tests at a time; scripts/mutating.py runs that, and
keeps what it has found.
"""

import ast
import contextlib
import inspect
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from scripts.mutants import Mutant

ROOT = Path(__file__).resolve().parents[1]
GATEWAY = f"{ROOT}/gateway/"
MOST_TESTS = 20.0
"""Seconds that the tests of one mutant take without it; slower ones are left out."""


@dataclass
class Traces:
    """Which test executes which line, and how long it takes."""

    lines: dict[tuple[str, int], set[str]] = field(default_factory=lambda: defaultdict(set))
    files: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    importers: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    imported: set[tuple[str, int]] = field(default_factory=set)
    seconds: dict[str, float] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)

    def add(self, record: dict[str, Any]) -> None:
        """Add what one file of tests has shown."""
        self.failing |= set(record["failing"])
        for file, numbers in record["importing"].items():
            self.imported |= {(file, number) for number in numbers}
        for test, (seconds, lines) in record["tests"].items():
            if test in record["failing"]:
                continue
            self.seconds[test] = seconds
            for module in record["imports"]:
                self.importers[module].add(test)
            for file, numbers in (*lines.items(), *record["collecting"].items()):
                self.files[file].add(test)
                for number in numbers:
                    self.lines[file, number].add(test)

    def tests_of(self, mutant: Mutant) -> list[str]:
        """Return the tests that a mutant meets, the likeliest and then the fastest first.

        Those that execute its line, where it is in a function. Other code runs at the import, and
        any test may see what became of it: those whose file imports the module itself come first.
        """
        likely = self.importers.get(module_of(mutant.file), set[str]())
        if mutant.function:
            span = range(mutant.line, mutant.last_line + 1)
            found = {test for line in span for test in self.lines.get((mutant.file, line), ())}
            if any((mutant.file, line) in self.imported for line in span):
                found |= likely
        else:
            found = likely | self.files.get(mutant.file, set())
        ranked = sorted(found, key=lambda test: (test not in likely, self.seconds[test], test))
        total = accumulate(self.seconds[test] for test in ranked)
        return [test for test, seconds in zip(ranked, total, strict=True) if seconds < MOST_TESTS]


class Tracer:
    """A pytest plugin that records the lines of the gateway that each test executes.

    `collecting` has those of functions that a file of tests calls as it is imported.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.tests: dict[str, tuple[float, dict[str, list[int]]]] = {}
        self.collecting: dict[str, list[int]] = {}
        self.failing: set[str] = set()
        self._lines: dict[str, set[int]] = {}
        self._importing: dict[str, set[int]] = {}
        self._is_collecting = False

    def _trace(self, frame: FrameType, _event: str, _argument: object) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(GATEWAY) or (self._is_collecting and not is_function(frame)):
            return None
        by_import = self._is_collecting and not is_called_by_test(frame)
        lines = self._importing if by_import else self._lines
        seen = lines.setdefault(name[len(str(ROOT)) + 1 :], set())

        def local(inner: FrameType, _event: str, _argument: object) -> Any:
            seen.add(inner.f_lineno)
            return local

        seen.add(frame.f_lineno)
        return local

    @contextlib.contextmanager
    def _traced(self) -> Iterator[None]:
        self._lines = {}
        threading.settrace(self._trace)
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(None)
            threading.settrace(None)

    def _found(self) -> dict[str, list[int]]:
        return {file: sorted(numbers) for file, numbers in self._lines.items()}

    @property
    def importing(self) -> dict[str, list[int]]:
        """The lines of functions that the gateway's modules call as they are imported."""
        return {file: sorted(numbers) for file, numbers in self._importing.items()}

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self) -> Iterator[None]:
        """Record what the import of a file of tests calls."""
        self._is_collecting = True
        with self._traced():
            result = yield
        self._is_collecting = False
        self.collecting = self._found()
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Record one test, its fixtures included."""
        began = time.monotonic()
        try:
            with self._traced():
                return (yield)
        finally:
            self.tests[item.nodeid] = (time.monotonic() - began, self._found())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what fails by itself: it can kill nothing."""
        if report.failed:
            self.failing.add(report.nodeid)


def is_function(frame: FrameType) -> bool:
    """Return whether a frame is that of a function, and not the body of a module or a class."""
    return bool(frame.f_code.co_flags & inspect.CO_OPTIMIZED)


def is_called_by_test(frame: FrameType) -> bool:
    """Return whether no import of the gateway has called the function of a frame."""
    outer: FrameType | None = frame
    while outer is not None and outer.f_code.co_name != "<module>":
        outer = outer.f_back
    return outer is not None and not outer.f_code.co_filename.startswith(GATEWAY)


def module_of(file: str) -> str:
    """Return the name of the module in a file, whose path is relative to the project."""
    return file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def imports_of(text: str) -> list[str]:
    """Return the modules of the gateway that a file imports by name, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return sorted(name for name in found if name.startswith("gateway."))
