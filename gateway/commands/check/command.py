"""The command itself: checks what it is given, and prints what it means or what is wrong."""

import argparse
import json
import sys

from gateway.commands.check.advice import Advice
from gateway.commands.check.compose import name_of, service_of, source_of, text_from
from gateway.commands.check.envfile import read_env_file
from gateway.commands.check.explain import explain, explained
from gateway.commands.check.rules import rules_of
from gateway.commands.check.trial import (
    Trial,
    failed,
    try_compose,
    try_service,
    try_variables,
)
from gateway.commands.exit_codes import OK, USAGE
from gateway.errors import ConfigError
from gateway.settings import early
from gateway.settings.findings import Findings
from gateway.settings.values import safe_name, safe_text


def check(asked: argparse.Namespace) -> int:
    """Print what the configuration means, or every problem with it; then what to change."""
    try:
        if asked.migrate:
            return _migrate(asked)
        trial = _trial(asked)
    except ConfigError as err:
        trial = failed(err)
    if asked.json:
        print(json.dumps(_for_programs(trial), indent=2))
    else:
        _print(trial, asked)
    return OK if trial.loaded else USAGE


def _trial(asked: argparse.Namespace) -> Trial:
    """Check what is asked for. Raises ConfigError if it cannot be read."""
    environ = early.environment()
    if asked.compose:
        return try_compose(asked.compose, asked.service, environ)
    for kind in ("inspect", "quadlet", "kubernetes", "unraid"):
        file = getattr(asked, kind)
        if file:
            from gateway.commands.check.formats import read_format  # noqa: PLC0415 - rarely needed

            findings = Findings()
            service = read_format(kind, file, asked.service, findings)
            return try_service(service, name_of(file), findings)
    return try_variables(read_env_file(asked.env_file) if asked.env_file else environ)


def _migrate(asked: argparse.Namespace) -> int:
    """Print the compose file with the service changed, and what is left to do on standard error.

    Raises ConfigError if the file or the service cannot be read.
    """
    from gateway.commands.check.migrating import migrated  # noqa: PLC0415 - only for this option

    findings = Findings()
    if not asked.compose:
        findings.problem("--migrate", "rewrites a compose file; name it with --compose")
        raise findings.to_error()
    text = text_from(asked.compose, findings)
    shell = early.environment()
    source = source_of(asked.compose, text, shell, findings)
    service = service_of(source, asked.service, findings)
    before = try_service(service, source.where, findings)
    left = Findings()
    changed = migrated(text, before.advice or Advice(service), source, left)
    again = source_of(asked.compose, changed, shell, left)
    after = try_service(service_of(again, asked.service, left), source.where, left)
    print(changed, end="")
    for line in (*after.problems, *(f"  {one.weight}: {one}" for one in after.notices)):
        print(line, file=sys.stderr)
    for line in after.advice.lines() if after.advice else ():
        print(line, file=sys.stderr)
    return OK if after.loaded else USAGE


def _print(trial: Trial, asked: argparse.Namespace) -> None:
    if trial.loaded:
        print(explain(trial.loaded))
        if asked.rules:
            print(rules_of(trial.loaded.config, asked.rules, with_vault=asked.vault))
    else:
        for line in (*trial.problems, *(f"  {one.weight}: {one}" for one in trial.notices)):
            print(line, file=sys.stderr)
    for line in trial.advice.lines() if trial.advice else ():
        print(line)


def _for_programs(trial: Trial) -> dict[str, object]:
    """Return all of it as JSON has it; without secrets, as the text."""
    advice = trial.advice
    return {
        "accepted": bool(trial.loaded),
        "problems": [{"where": one.where, "message": one.message} for one in trial.problems],
        "notices": [
            {"weight": str(one.weight), "where": one.where, "message": one.message}
            for one in trial.notices
        ],
        "change": {
            "set": advice.variables,
            "unset": advice.unset,
            "rename": {safe_name(name): new for name, new in advice.renamed.items()},
            "add_capabilities": advice.capabilities,
            "remove_capabilities": advice.needless,
            "remove_ports": [*map(safe_text, advice.ports)],
            "remove_keys": advice.keys,
        }
        if advice
        else None,
        **(explained(trial.loaded) if trial.loaded else {}),
    }
