"""The command itself: loads what it is given and prints it, or every problem with it."""

import argparse
import sys
from collections.abc import Mapping

from gateway.commands.check.envfile import read_env_file
from gateway.commands.check.explain import explain
from gateway.commands.check.rules import rules_of
from gateway.commands.check.trial import try_compose
from gateway.commands.exit_codes import OK, USAGE
from gateway.errors import ConfigError
from gateway.settings import assemble, early


def check(asked: argparse.Namespace) -> int:
    """Print what the configuration means, or every problem with it; then what to change."""
    environ = early.environment()
    try:
        if asked.compose:
            return _check_service(asked, environ)
        environ = read_env_file(asked.env_file) if asked.env_file else environ
        _print(assemble.load(environ), asked)
    except ConfigError as err:
        _print_error(err)
        return USAGE
    return OK


def _check_service(asked: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Check a service; raises ConfigError if it cannot be read."""
    trial = try_compose(asked.compose, asked.service, environ)
    if trial.loaded:
        _print(trial.loaded, asked)
    else:
        _print_error(ConfigError(trial.problems, trial.notices))
    for line in trial.advice.lines():
        print(line)
    return OK if trial.loaded else USAGE


def _print(loaded: assemble.Loaded, asked: argparse.Namespace) -> None:
    print(explain(loaded))
    if asked.rules:
        print(rules_of(loaded.config, asked.rules, with_vault=asked.vault))


def _print_error(err: ConfigError) -> None:
    for line in (*err.problems, *(f"  {one.weight}: {one}" for one in err.notices)):
        print(line, file=sys.stderr)
