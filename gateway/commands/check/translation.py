"""What the readers of other formats return: the same as a compose file.

So that every check of a compose service applies to them too. A `$` is literal in these formats.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.commands.check.mounting import UNKNOWN_KEYS
from gateway.commands.check.service import GATEWAYS
from gateway.model.frozen import frozen
from gateway.settings.findings import Findings, joined
from gateway.settings.values import safe_name, safe_quote, safe_text

_DEEPEST: Final = 40


@frozen
class Translated:
    """A compose document, the service that is the gateway, and the form of advice for it."""

    document: Mapping[str, Any]
    service: str
    form: str


def literal(value: Any, depth: int = 0) -> Any:
    """Return a value in which Compose would replace nothing. Raises RecursionError."""
    if depth > _DEEPEST:
        raise RecursionError
    match value:
        case str():
            return value.replace("$", "$$")
        case dict():
            return {str(key): literal(one, depth + 1) for key, one in value.items()}
        case list() | tuple():
            return [literal(one, depth + 1) for one in value]
        case _:
            return value


def choose(
    names: Sequence[str],
    images: Mapping[str, str],
    wanted: str | None,
    where: str,
    findings: Findings,
) -> str:
    """Return the name of the container to check: the `wanted` one, else the one with our image.

    Raises ConfigError if there is none.
    """
    if wanted in names:
        return str(wanted)
    ours = [name for name in names if any(one in images.get(name, "") for one in GATEWAYS)]
    if len(ours) == 1:
        return ours[0]
    if len(names) == 1:
        return names[0]
    known = joined(map(safe_text, names)) or "none"
    findings.problem(
        where,
        f"has no container {safe_quote(wanted or 'gateway')}; name one with --service. It has: "
        f"{known}",
    )
    raise findings.to_error()


def report_unknown(name: str, source: str, where: str, findings: Findings) -> str | None:
    """Report a variable whose value is elsewhere; return one to check the others with, or None."""
    findings.warn(where, f"{safe_name(name)} comes from {safe_text(source)} and is not checked")
    return UNKNOWN_KEYS.get(name)
