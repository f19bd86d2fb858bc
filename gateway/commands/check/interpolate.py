"""Variables in compose files: `$NAME`, `${NAME:-default}` and the like, as Compose replaces them.

The rules are those of the Compose specification, "Interpolation": `:-` and `-` give a default, `:?`
and `?` demand a value, `:+` and `+` replace a value that is set; with the colon an empty value
counts as not set; `$$` is a dollar sign. Defaults may hold variables themselves.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from gateway.commands.check.document import RESET
from gateway.settings.findings import Findings
from gateway.settings.values import may_be_secret, safe_name

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HARMLESS: Final = re.compile(r"[A-Z0-9_]+")
_OPERATOR: Final = re.compile(r":?[-?+]")
_DEEPEST: Final = 10
_DEEPEST_VALUE: Final = 20
_MOST_VALUES: Final = 10_000
_LONGEST: Final = 64 * 1024


def interpolated(text: str, environ: Mapping[str, str], depth: int = 0) -> str:
    """Replace the variables in `text`.

    Raises ValueError, which never repeats the text, for what Compose would refuse.
    """
    if depth > _DEEPEST:
        raise ValueError("nests variables too deeply; write the value itself")
    done: list[str] = []
    at = length = 0
    while (dollar := text.find("$", at)) >= 0:
        length += sum(map(len, done[-2:]))
        if length > _LONGEST:
            raise ValueError("becomes too long with its variables; write the value itself")
        done.append(text[at:dollar])
        following = text[dollar + 1 : dollar + 2]
        if following == "$":
            done.append("$")
            at = dollar + 2
        elif following == "{":
            end = _closing(text, dollar + 2)
            done.append(_braced(text[dollar + 2 : end], environ, depth))
            at = end + 1
        elif name := _NAME.match(text, dollar + 1):
            done.append(environ.get(name.group(), ""))
            at = name.end()
        else:
            raise ValueError("has a $ that does not begin a variable; write $$ for a dollar sign")
    return "".join(done) + text[at:]


def _closing(text: str, start: int) -> int:
    """Return the position of the brace that closes the one before `start`."""
    depth = 1
    for at in range(start, len(text)):
        if text.startswith("${", at):
            depth += 1
        elif text[at] == "}":
            depth -= 1
            if not depth:
                return at
    raise ValueError("has a ${ without a closing }")


def _braced(inside: str, environ: Mapping[str, str], depth: int) -> str:
    """Return the value of the text between `${` and `}`."""
    name = _NAME.match(inside)
    if not name:
        raise ValueError("has a ${ that does not begin a variable; write $$ for a dollar sign")
    value = environ.get(name.group())
    if name.end() == len(inside):
        return value or ""
    operator = _OPERATOR.match(inside, name.end())
    if not operator:
        raise ValueError(
            f"uses {_said(name.group())} in a form that Compose does not support; write $$ for a "
            "dollar sign"
        )
    there = bool(value) if operator.group().startswith(":") else value is not None
    rest = inside[operator.end() :]
    match operator.group()[-1], there:
        case ("-", True) | ("?", True):
            return value or ""
        case ("+", False):
            return ""
        case ("?", _):
            raise ValueError(f"requires {_said(name.group())}, which is not set; set it")
        case _:
            return interpolated(rest, environ, depth + 1)


def _said(name: str) -> str:
    """Return the name of a variable, unless it may be the beginning of a pasted key."""
    harmless = _HARMLESS.fullmatch(name) and not may_be_secret(name)
    return name if harmless else "a variable (hidden: its name may be a key)"


class Interpolator:
    """Replaces the variables in the values of one compose file; `where` names it in messages."""

    def __init__(self, where: str, shell: Mapping[str, str], findings: Findings) -> None:
        self.where = where
        self.shell = shell
        self.findings = findings
        self.left = _MOST_VALUES

    def value(self, value: Any, key: str, depth: int = 0) -> Any:
        """Return `value`, found at `key`, with all variables in its texts replaced.

        Raises ConfigError if it contains itself or is far too large.
        """
        self.left -= 1
        if depth > _DEEPEST_VALUE or self.left < 0:
            fault = f"{key} contains itself, or far more than a service needs; simplify it"
            self.findings.problem(self.where, fault)
            raise self.findings.to_error()
        match value:
            case str():
                try:
                    return interpolated(value, self.shell)
                except ValueError as err:
                    self.findings.problem(f"{self.where} {key}", str(err))
                    return ""
            case dict():
                return {
                    str(name): self.value(one, f"{key} {safe_name(str(name))}", depth + 1)
                    for name, one in value.items()
                    if one is not RESET
                }
            case list():
                return [self.value(one, key, depth + 1) for one in value if one is not RESET]
            case _:
                return None if value is RESET else value
