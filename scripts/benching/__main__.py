"""The command line of scripts/bench."""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from subprocess import run as run_program

from scripts.benching import document
from scripts.benching.carrying import traffic_figures
from scripts.benching.checking import check_figures
from scripts.benching.figures import Figure, Run, table
from scripts.benching.programs import OURS, WG_QUICK, Program, at_commit, peer
from scripts.benching.recovering import recovery_figures
from scripts.benching.resting import hole_figures, idle_figures
from scripts.benching.starting import start_figures
from tests.lab.errors import LabError
from tests.lab.gateway import PROJECT

BUSY = 0.5
"""The load average above which a machine is not idle."""

Section = Callable[[Sequence[Program], argparse.Namespace], list[Figure]]

SECTIONS: dict[str, Section] = {
    "start": lambda programs, given: start_figures(programs, given.runs),
    "check": lambda programs, _: check_figures(programs),
    "idle": lambda programs, given: idle_figures(programs, given.window),
    "holes": lambda programs, given: hole_figures(programs, given.runs, given.window),
    "traffic": lambda programs, given: traffic_figures(
        programs, given.runs * given.flows, holes="holes" in given.only
    ),
    "recovery": lambda programs, given: recovery_figures(programs, given.runs),
}
SHORT = ("start", "check", "idle", "traffic")
"""What runs without --only, --all or --document."""


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measure what the gateway costs, next to wg-quick."
    )
    parser.add_argument("--runs", type=int, default=3, help="measurements of each program (3)")
    parser.add_argument(
        "--quick", action="store_const", const=1, dest="runs", help="measure once, as CI does"
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument(
        "--only", type=sections, default=SHORT, metavar="NAME,...", help=", ".join(SECTIONS)
    )
    chosen.add_argument("--all", action="store_true", help="every section: about ten minutes")
    parser.add_argument("--baseline", metavar="COMMIT", help="compare with another commit too")
    parser.add_argument(
        "--peer", metavar="PROGRAM", help="compare with a gateway that takes the same variables"
    )
    parser.add_argument(
        "--resolver",
        action="store_true",
        help="measure with the gateway's own resolver, which is on unless DNS_SERVER=off",
    )
    parser.add_argument(
        "--document", action="store_true", help="every section, into docs/performance.md"
    )
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="FILE", help="take the JSON of an earlier run"
    )
    given = parser.parse_args(words)
    if given.all or given.document:
        given.only = tuple(SECTIONS)
    short = given.only == SHORT
    given.window, given.flows = (10.0, 1) if short else (30.0, 3)
    return given


def sections(text: str) -> tuple[str, ...]:
    """Return the sections of a comma-separated list."""
    names = tuple(text.split(","))
    for name in names:
        if name not in SECTIONS:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(SECTIONS)}")
    return names


def measure(given: argparse.Namespace, directory: Path) -> Run:
    """Measure what was asked for; put the files of another commit into `directory`."""
    programs = [replace(OURS, resolver=given.resolver), WG_QUICK]
    baseline = ""
    if given.baseline:
        programs.append(at_commit(given.baseline, directory))
        baseline = programs[-1].name
    if given.peer:
        programs.append(peer(given.peer))
    about = {
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "kernel": platform.release(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "firewall": os.environ.get("LAB_FIREWALL", "auto"),
        "commit": commit(),
        "runs": given.runs,
        "resolver": given.resolver,
        "load": [round(os.getloadavg()[0], 1)],
        "failed": [],
    }
    if about["load"][0] > BUSY:
        print(
            f"this machine is busy (load {about['load'][0]}): figures will be larger",
            file=sys.stderr,
        )
    figures = []
    for name in given.only:
        began = time.monotonic()
        try:
            figures += SECTIONS[name](programs, given)
        except LabError as err:
            about["failed"].append(name)
            print(f"{name}: {err}", file=sys.stderr)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    about["load"].append(round(os.getloadavg()[0], 1))
    return Run(about, [program.name for program in programs], baseline, figures)


def commit() -> str:
    """Return the commit that is checked out, or nothing."""
    words = ["git", "-c", f"safe.directory={PROJECT}", "rev-parse", "--short=12", "HEAD"]
    return run_program(
        words, cwd=PROJECT, capture_output=True, text=True, check=False
    ).stdout.strip()


def main() -> None:
    """Measure, or read what was measured, and print it."""
    given = arguments()
    if given.source:
        run = Run.from_json(json.loads(given.source.read_text("utf-8")))
    else:
        with tempfile.TemporaryDirectory(prefix="portcullis-bench-") as directory:
            run = measure(given, Path(directory))
    if given.document:
        document.write(run, PROJECT / "docs")
    print(json.dumps(run.as_json(), indent=1) if given.json else table(run))
    if run.about["failed"]:
        raise SystemExit(f"not measured: {', '.join(run.about['failed'])}")


if __name__ == "__main__":
    main()
