"""Reading env files as Compose reads them."""

from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from types import MappingProxyType

from dotenv import dotenv_values

from gateway.errors import ConfigError
from gateway.settings.findings import Findings
from gateway.settings.interpolate import interpolated


def read_env_file(path: Path) -> dict[str, str]:
    """Return the variables of an env file as Compose reads them; without a value they are empty.

    Raises ConfigError when there is no such file or it is no text.
    """
    findings = Findings()
    environ = env_file(path, findings)
    if findings.problems:
        raise ConfigError(tuple(findings.problems))
    return environ


def env_file(
    path: Path, findings: Findings, shell: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """Read an env file; its values may use the variables of `shell` and those above them."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as err:
        findings.wrong(str(path), f"cannot be read ({err.strerror}); name an env file")
        return {}
    except ValueError:
        findings.wrong(str(path), "is no text in UTF-8; save it as plain text")
        return {}
    found: dict[str, str] = {}
    for name, value in dotenv_values(stream=StringIO(text), interpolate=False).items():
        try:
            found[name] = interpolated(value or "", {**found, **shell})
        except ValueError as err:
            findings.wrong(f"{path} {name}", str(err))
    return found
