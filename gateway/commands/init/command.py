"""The command itself: asks, checks with the code of `gateway check`, and only then writes."""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Final

from gateway.commands.check.trial import Trial, failed, try_compose
from gateway.commands.exit_codes import FAILED, OK, USAGE
from gateway.commands.init import writing
from gateway.commands.init.answers import (
    Answers,
    WrongAnswerError,
    from_options,
    from_questions,
)
from gateway.commands.init.rendering import compose
from gateway.errors import ConfigError

SERVICE: Final = "gateway"
ASKED: Final = (
    *("provider", "file", "countries", "addresses", "dns", "public_key", "endpoint"),
    *("private_key_file", "preshared_key_file", "port", "lan"),
)
"""Options that answer questions: with any of them, nothing is asked."""

NEXT: Final = """\
Next, in {place}:
  docker compose up -d
  docker compose exec gateway gateway status     is it connected, and why not
  docker compose exec gateway gateway verify     try the ways around the tunnel
  docker compose logs gateway                    what happened, if it stays unhealthy"""
IMAGE: Final = """\
The image {image} is made from a clone of the project: docker build -t {image} CLONE"""


def init(asked: argparse.Namespace) -> int:
    """Write the files and return OK; USAGE if an answer is wrong, FAILED if they cannot be."""
    try:
        answers = _answers(asked)
        return _make(answers, asked.directory, force=asked.force)
    except WrongAnswerError as err:
        print(err, file=sys.stderr)
        return USAGE
    except EOFError:
        print("\nno answer; nothing was written", file=sys.stderr)
        return USAGE
    except OSError as err:
        print(f"{err.filename or 'cannot write'}: {err.strerror}", file=sys.stderr)
        return FAILED


def _answers(asked: argparse.Namespace) -> Answers:
    is_answered = any(getattr(asked, option) for option in ASKED)
    if is_answered or not sys.stdin.isatty():
        return from_options(asked)
    return from_questions(asked)


def _make(answers: Answers, directory: Path, *, force: bool) -> int:
    """Check what the answers come to, write it and say what to do next. Raises OSError."""
    for name in writing.in_the_way(directory, answers.secrets, force=force):
        what = "is there already" if name not in writing.OTHERS else "is what Compose would read"
        remedy = "--force replaces it" if name not in writing.OTHERS else "move it away"
        print(f"{directory / name}: {what}; {remedy}, or use another --directory", file=sys.stderr)
        return USAGE
    is_clone = (directory / "Dockerfile").is_file() and (directory / "gateway").is_dir()
    text = compose(answers, build=is_clone)
    trial, folder = _checked(answers, text)
    advice = trial.advice.lines() if trial.advice else ()
    notices = (f"{one.weight}: {one}" for one in trial.notices)
    for line in (*map(str, trial.problems), *notices, *advice):
        print(line.replace(folder, str(directory)), file=sys.stderr)
    if not trial.loaded:
        print("Nothing was written.", file=sys.stderr)
        return USAGE
    writing.write(directory, text, answers.secrets, force=force)
    kept = ", ".join(f"{writing.SECRETS}/{name}" for name in answers.secrets)
    print(f"Written: {writing.COMPOSE}, and {kept}, which only its owner can read.")
    if answers.source:
        print(f"{answers.source} still has the key too: remove it when all works.")
    print(NEXT.format(place=directory.resolve()))
    if not is_clone:
        print(IMAGE.format(image=answers.image))
    return OK


def _checked(answers: Answers, text: str) -> tuple[Trial, str]:
    """Return what `gateway check` says of the files, and the folder that they were in for that."""
    with tempfile.TemporaryDirectory(prefix="gateway-init-") as folder:
        writing.write(Path(folder), text, answers.secrets)
        try:
            return try_compose(Path(folder, writing.COMPOSE), SERVICE, {}), folder
        except ConfigError as err:
            return failed(err), folder
