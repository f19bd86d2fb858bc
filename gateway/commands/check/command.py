"""The command itself: loads what it is given and prints it, or every problem with it."""

import argparse
import sys

from gateway.commands.check.envfile import read_env_file
from gateway.commands.check.explain import explain
from gateway.commands.check.rules import rules_of
from gateway.commands.check.trial import load_service
from gateway.commands.exit_codes import OK, USAGE
from gateway.errors import ConfigError
from gateway.settings import assemble, early


def check(asked: argparse.Namespace) -> int:
    """Print what the configuration means, or every problem with it."""
    try:
        loaded = _load(asked)
    except ConfigError as err:
        for line in (*err.problems, *(f"  {one.weight}: {one}" for one in err.notices)):
            print(line, file=sys.stderr)
        return USAGE
    print(explain(loaded))
    if asked.rules:
        print(rules_of(loaded.config, asked.rules, with_vault=asked.vault))
    return OK


def _load(asked: argparse.Namespace) -> assemble.Loaded:
    environ = early.environment()
    if asked.compose:
        return load_service(asked.compose, asked.service, environ)
    if asked.env_file:
        return assemble.load(read_env_file(asked.env_file))
    return assemble.load(environ)
