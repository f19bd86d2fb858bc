"""Mutation testing with the tests that need no root: which wrong programs do they accept.

    scripts/mutate                          ten minutes of a sample of policy, daemon and firewall
    scripts/mutate --minutes 0              every mutant: an hour
    scripts/mutate --seed 7 gateway/policy  another sample, of one directory or file

A first run records which test executes which line, and keeps it in .cache until the test or
the gateway changes. Each mutant then meets the tests that execute its line, the likeliest and then
the fastest first, in a process that is forked from one in which pytest is imported already. As root
that process has a network namespace of its own. The last lines are the survivors and the score;
tests/survivors.toml explains those that no unit test can kill (scripts/mutation_report.py).

mutmut and cosmic-ray were considered: mutmut 3 changes bodies of functions only, and half of the
policy is constants and dataclasses; cosmic-ray starts pytest again for each mutant and does not
choose among the tests.

Exit code 1: fewer than the goal are killed, a survivor is not explained, or an entry of
tests/survivors.toml is wrong.
"""

import argparse
import contextlib
import ctypes
import fcntl
import hashlib
import importlib
import importlib.abc
import importlib.util
import json
import os
import random
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from scripts.mutants import Mutant, mutants_of, source_of  # noqa: E402 - the path first
from scripts.mutation_report import (  # noqa: E402 - the path first
    KILLED,
    SURVIVED,
    TIMED_OUT,
    UNCLEAR,
    UNTESTED,
    entries_disproved,
    entries_in,
    entries_without_object,
    scores,
)
from scripts.mutation_traces import Tracer, Traces, imports_of, module_of  # noqa: E402 - as above

PLACES = ("gateway/policy", "gateway/daemon", "gateway/firewall")
TESTS = ROOT / "tests" / "unit"
EXPLAINED = ROOT / "tests" / "survivors.toml"
CACHE = ROOT / ".cache" / "mutate"
# These read the source as text: they would notice that it has changed, and not what.
BLIND = {"test_architecture.py", "test_language.py", "test_docs.py", "test_run_of_tests.py"}
MOST_SECONDS = 120.0
"""What one mutant's tests may take; a mutant that needs longer hangs."""
QUIET = ("-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore:Module already imported")
PR_SET_PDEATHSIG = 1
IFF_UP, SIOCGIFFLAGS, SIOCSIFFLAGS, CLONE_NEWNET = 1, 0x8913, 0x8914, 0x40000000


def leave_the_network() -> None:
    """As root, enter a network namespace in which only loopback is up."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    with socket.socket() as outlet:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(outlet, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(outlet, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


class Pool:
    """Calls functions in forked processes, a few at a time."""

    def __init__(self, size: int) -> None:
        """Run at most `size` at the same time."""
        self._size = size
        self._running: dict[int, tuple[float, Callable[[int | None], None]]] = {}

    def start(
        self, work: Callable[[], int], seconds: float, done: Callable[[int | None], None]
    ) -> None:
        """Call `work` in a process; `done` gets what it returned, or None after `seconds`."""
        while len(self._running) >= self._size:
            self._step()
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                os.setsid()
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                null = os.open(os.devnull, os.O_RDWR)
                for descriptor in (0, 1, 2):
                    os.dup2(null, descriptor)
                leave_the_network()
                code = work()
            finally:
                os._exit(code)
        self._running[pid] = (time.monotonic() + seconds, done)

    def finish(self) -> None:
        """Wait for all."""
        while self._running:
            self._step()

    def _step(self) -> None:
        for pid, (deadline, done) in list(self._running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            code: int | None = os.waitstatus_to_exitcode(status) if ended else None
            if not ended and time.monotonic() < deadline:
                continue
            with contextlib.suppress(ProcessLookupError):  # what the tests have started
                os.killpg(pid, signal.SIGKILL)
            if not ended:
                os.waitpid(pid, 0)
            del self._running[pid]
            done(code)
        time.sleep(0.01)


class Mutated(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports one module from a changed text, and leaves all others alone."""

    def __init__(self, mutant: Mutant) -> None:
        """Take the module's name from the mutant's file."""
        self._name = module_of(mutant.file)
        self._package = mutant.file.endswith("/__init__.py")
        self._mutant = mutant

    def find_spec(self, name: str, _path: object, _target: object = None) -> Any:
        """Return this loader for the one module."""
        if name != self._name:
            return None
        file = str(ROOT / self._mutant.file)
        places = [str(Path(file).parent)] if self._package else None
        spec = importlib.util.spec_from_loader(name, self, origin=file, is_package=self._package)
        if spec is not None:
            spec.has_location = True
            spec.submodule_search_locations = places
        return spec

    def get_source(self, _name: str) -> str:
        """Return the changed text."""
        file = ROOT / self._mutant.file
        return source_of(file.read_text("utf-8"), self._mutant.number)

    def is_package(self, _name: str) -> bool:
        """Return whether the file is a package's."""
        return self._package


def run_pytest(files: Iterable[str], plugin: object, seconds: float) -> int:
    """Run the tests of some files in this process, which ends if one takes `seconds`."""
    options = ["-x", f"--timeout={seconds}", "--timeout-method=thread", *QUIET]
    return int(pytest.main([*options, *sorted(files)], plugins=[plugin]))


def digest_of(files: Iterable[Path]) -> str:
    """Return a hash of some files' contents."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def traces(pool: Pool, pattern: str) -> Traces:
    """Return which test executes what; run the tests where that is not known yet."""
    CACHE.mkdir(parents=True, exist_ok=True)
    code = [*(ROOT / "gateway").rglob("*.py"), *(ROOT / "tests/fakes").rglob("*.py")]
    common = digest_of([*code, ROOT / "scripts/mutation_traces.py"])
    wanted = [
        (file, CACHE / f"{file.stem}-{digest_of([file])}-{common}.json")
        for file in sorted(TESTS.glob(pattern))
        if file.name not in BLIND
    ]
    for file, record in wanted:
        if not record.exists():
            pool.start(lambda f=file, r=record: trace(f, r), 900, lambda _: None)  # type: ignore[misc]
    pool.finish()
    found = Traces()
    for file, record in wanted:
        if record.exists():
            found.add(json.loads(record.read_text("utf-8")))
        else:
            print(f"no trace of {file.name}: it takes too long, or cannot be collected")
    return found


def trace(file: Path, record: Path) -> int:
    """Run one file of tests and write down what it executes."""
    tracer = Tracer()
    options = ["-m", "not long", "--timeout=60", *QUIET]
    pytest.main([*options, str(file.relative_to(ROOT))], plugins=[tracer])
    if not tracer.tests:
        return 1
    unfinished = record.with_suffix(".tmp")
    unfinished.write_text(
        json.dumps(
            {
                "tests": tracer.tests,
                "collecting": tracer.collecting,
                "importing": tracer.importing,
                "imports": imports_of(file.read_text("utf-8")),
                "failing": sorted(tracer.failing),
            }
        ),
        "utf-8",
    )
    unfinished.rename(record)
    return 0


class Selection:
    """A pytest plugin that runs the tests of one mutant in their order."""

    def __init__(self, tests: Sequence[str], known: Container[str]) -> None:
        """Run `tests`, by their ids; `known` has those of all tests."""
        self._known = known
        self._rank = {test: number for number, test in enumerate(tests)}
        self._names = {test.partition("[")[0] for test in tests}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Choose and sort; a test whose parameter the mutant has renamed comes last."""
        items[:] = sorted(
            (item for item in items if self._is_wanted(item.nodeid)),
            key=lambda item: self._rank.get(item.nodeid, len(self._rank)),
        )

    def _is_wanted(self, test: str) -> bool:
        return test in self._rank or (
            test not in self._known and test.partition("[")[0] in self._names
        )


def attempt(mutant: Mutant, tests: Sequence[str], known: Mapping[str, float]) -> int:
    """Return 0 when the tests accept the mutant, which this process has instead of the module."""
    sys.meta_path.insert(0, Mutated(mutant))
    files = {test.partition("::")[0] for test in tests}
    slowest = max(known[test] for test in tests)
    return run_pytest(files, Selection(tests, known), 5 + 10 * slowest)


def result_of(code: int | None) -> str:
    """Return what the exit code of `attempt` says about its mutant, None for no end in time.

    A mutant is killed where a test fails, where its tests cannot be imported, and where it ends
    the interpreter. Where it leaves nothing to run, because tests are named after what it changed,
    nothing has failed.
    """
    if code is None:
        return TIMED_OUT
    if code in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
        return SURVIVED
    if code in {pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED} or code < 0:
        return KILLED
    return UNCLEAR


def chosen(places: Sequence[str], seed: int) -> list[Mutant]:
    """Return the mutants of files and directories in the order of a seed."""
    found = [
        mutant
        for place in places
        for file in sorted((ROOT / place).rglob("*.py")) or [ROOT / place]
        for mutant in mutants_of(str(file.relative_to(ROOT)), file.read_text("utf-8"))
    ]
    random.Random(seed).shuffle(found)  # noqa: S311 - a sample that can be repeated, no secret
    return found


def main() -> int:
    """Run the mutants; return 1 when the score is below the goal."""
    parser = argparse.ArgumentParser(prog="scripts/mutate")
    parser.add_argument("places", nargs="*", default=PLACES, help="files or directories")
    parser.add_argument("--minutes", type=float, default=10, help="0 for no limit")
    parser.add_argument("--sample", type=int, help="how many mutants; as many as there are if none")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tests", default="test_*.py", help="a pattern of files in tests/unit")
    parser.add_argument("--goal", type=float, default=90, help="percent that must be killed")
    given = parser.parse_args()
    os.chdir(ROOT)
    for library in ("hypothesis", "pydantic_settings", "pyroute2", "structlog"):
        importlib.import_module(library)  # once, before the forks

    pool = Pool(given.processes)
    began = time.monotonic()
    known = traces(pool, given.tests)
    mutants, results = chosen(given.places, given.seed), dict[Mutant, str]()
    print(f"{len(known.seconds)} tests, {len(mutants)} mutants, seed {given.seed}", flush=True)
    if known.failing:
        print(f"they fail without a mutant, so they are left out: {sorted(known.failing)}")
    for mutant in mutants[: given.sample]:
        if given.minutes and time.monotonic() - began > given.minutes * 60:
            break
        tests = known.tests_of(mutant)
        if not tests:
            results[mutant] = UNTESTED
            continue
        limit = min(MOST_SECONDS, 20 + 10 * sum(known.seconds[test] for test in tests))

        def done(code: int | None, of: Mutant = mutant) -> None:
            results[of] = result_of(code)

        pool.start(lambda m=mutant, t=tests: attempt(m, t, known.seconds), limit, done)  # type: ignore[misc]
    pool.finish()
    return report(results, given.goal)


def report(results: dict[Mutant, str], goal: float) -> int:
    """Print unexplained survivors, wrong explanations and the score; return the exit code."""
    entries = entries_in(EXPLAINED.read_text("utf-8"))
    found = scores(results, entries)
    wrong = [*entries_without_object(entries, ROOT), *entries_disproved(results, entries)]
    for line in (*found["all"].unexplained, *wrong):
        print(line)
    for package, score in found.items():
        print(f"{package}: {score}")
    return int(found["all"].percent < goal or bool(found["all"].unexplained or wrong))


if __name__ == "__main__":
    raise SystemExit(main())
