"""Reads env files as Compose does."""

import re
import sys
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Final

from dotenv.parser import Binding, parse_stream

from gateway.commands.check.document import LARGEST, read_text, text_of
from gateway.commands.check.interpolate import interpolated
from gateway.settings.findings import Findings
from gateway.settings.values import safe_name

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_COLON: Final = re.compile(rf"\A(\s*(?:export[ \t]+)?{_NAME.pattern})[ \t]*:")
"""The beginning of `NAME: value`, which Compose takes for `NAME=value`."""


def read_env_file(path: Path) -> dict[str, str]:
    """Return the variables of an env file as Compose reads them; without a value they are empty.

    Raises ConfigError if the file or one of its lines cannot be read.
    """
    findings = Findings()
    environ = env_file(path, findings)
    if findings.problems:
        raise findings.to_error()
    return environ


def env_file(
    path: Path,
    findings: Findings,
    shell: Mapping[str, str] = MappingProxyType({}),
    where: str = "",
) -> dict[str, str]:
    """Read an env file; its values may use the variables of `shell` and those above them.

    `where` names the file in messages, its path by default.
    """
    where = where or str(path)
    try:
        standard = path == Path("-")
        text = text_of(sys.stdin.buffer.read(LARGEST + 1)) if standard else read_text(path)
    except OSError as err:
        findings.problem(where, f"cannot be read ({err.strerror}); name an env file")
        return {}
    except ValueError as err:
        findings.problem(where, str(err))
        return {}
    found: dict[str, str] = {}
    for binding in _bindings(text):
        name, line = binding.key, f"{where} line {_line(binding)}"
        if binding.error or (name is not None and not _NAME.fullmatch(name)):
            findings.problem(line, "cannot be read; write NAME=value, and close every quote")
        elif name is not None:
            try:
                found[name] = _value(name, binding, found, shell)
            except ValueError as err:
                findings.problem(f"{line} {safe_name(name)}", str(err))
    return found


def _line(binding: Binding) -> int:
    """Return the line of a binding, which begins with the blank lines before it."""
    written = binding.original.string
    return binding.original.line + written[: -len(written.lstrip()) or None].count("\n")


def _bindings(text: str) -> Iterator[Binding]:
    """Yield the lines of an env file with their names and values, or with an error."""
    for binding in parse_stream(StringIO(text)):
        written = binding.original.string
        changed = _COLON.sub(r"\1=", written, count=1)
        if (binding.error or ":" in (binding.key or "")) and changed != written:
            again = next(parse_stream(StringIO(changed)))
            yield again._replace(original=binding.original)
        else:
            yield binding


def _value(name: str, binding: Binding, above: Mapping[str, str], shell: Mapping[str, str]) -> str:
    """Return the value of a line; in single quotes it is taken as it is."""
    if binding.value is None:
        return shell.get(name, "")
    if re.split("[=:]", binding.original.string, maxsplit=1)[1].lstrip().startswith("'"):
        return binding.value
    return interpolated(binding.value, {**above, **shell})
