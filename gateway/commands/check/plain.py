"""Values of a compose file with all variables in their texts replaced."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.commands.check.document import RESET
from gateway.commands.check.interpolate import interpolated
from gateway.settings.findings import Findings
from gateway.settings.values import named

_DEEPEST: Final = 20
_MOST: Final = 10_000


class Plain:
    """Makes the values of one compose file plain; `where` names it in messages."""

    def __init__(self, where: str, shell: Mapping[str, str], findings: Findings) -> None:
        self.where = where
        self.shell = shell
        self.findings = findings
        self.left = _MOST

    def value(self, value: Any, key: str, depth: int = 0) -> Any:
        """Return `value`, which stands at `key`, with all variables in its texts replaced.

        Raises ConfigError where it holds itself, or more than anybody writes.
        """
        self.left -= 1
        if depth > _DEEPEST or self.left < 0:
            told = f"{key} holds itself, or far more than a service needs; write it plainly"
            self.findings.wrong(self.where, told)
            raise self.findings.error()
        match value:
            case str():
                try:
                    return interpolated(value, self.shell)
                except ValueError as err:
                    self.findings.wrong(f"{self.where} {key}", str(err))
                    return ""
            case dict():
                return {
                    str(name): self.value(one, f"{key} {named(str(name))}", depth + 1)
                    for name, one in value.items()
                    if one is not RESET
                }
            case list():
                return [self.value(one, key, depth + 1) for one in value if one is not RESET]
            case _:
                return None if value is RESET else value
