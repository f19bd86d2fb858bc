"""Checks the names of variables: those of other images, and misspelt ones.

`other_images.toml` lists the variables of other images, each with the notice to give. A name that
is nearly one of ours is refused, with the one that was probably meant. Any other name with a prefix
of ours is reported: an env file may have variables of several programs.
"""

import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from gateway.settings import block_urls
from gateway.settings.findings import Findings
from gateway.settings.schema import FIELDS, OLDER_NAMES, names_of
from gateway.settings.sources import FILE_VARIABLES, SECRETFILE
from gateway.settings.values import safe_name, unquoted

KILL_SWITCH: Final = (
    "FIREWALL",
    "FIREWALL_ENABLED_DISABLING_IT_SHOOTS_YOU_IN_YOUR_FOOT",
)
"""Variables that switch another image's firewall."""

OFF: Final = frozenset({"", "off", "no", "false", "0", "disabled"})
"""Values that switch something off."""


_DATA: Final = tomllib.loads(Path(__file__).with_name("other_images.toml").read_text("utf-8"))

ELSEWHERE: Final[Mapping[str, str]] = {
    name: entry["answer"] for entry in _DATA["elsewhere"] for name in entry["names"]
}
"""Names, or patterns of names, that mean nothing here, each with its notice."""

MEANT: Final[Mapping[str, str]] = _DATA["meant"]
"""Names that people write, when the nearest in spelling is not what they mean."""

BLOCK_SWITCHES: Final = {
    name: line for name, line in ELSEWHERE.items() if name.startswith("BLOCK_")
}
"""Those of another image that fetch lists of blocked names, each with the URL of its list."""

_OURS: Final = (
    *("WIREGUARD_", "FIREWALL_", "VPN_", "DNS_", "HEALTH_", "LOG_", "GATEWAY_"),
    "PUBLICIP_",
    *("HTTPPROXY_", "SOCKS5_"),
    "FORWARDED_PORT_",
    "HTTP_CONTROL_",
)
_USE: Final = "not supported: use "
_NEAR: Final = 0.86
_NEAR_OURS: Final = 0.75

_KUBERNETES: Final = re.compile(
    r"\w+_SERVICE_HOST|\w+_SERVICE_PORT(_\w+)?|\w+_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?"
)
_LINK: Final = re.compile(r"(tcp|udp|sctp)://[\d.:\[\]a-f]+")


KNOWN: Final = frozenset(
    {name for field in FIELDS for name in names_of(field)}
    | {name + SECRETFILE for name in FILE_VARIABLES}
)
_CURRENT: Final = frozenset(one for one in KNOWN if one.removesuffix(SECRETFILE) not in OLDER_NAMES)
_DISTINCT: Final = frozenset(
    one for one in KNOWN if one not in OLDER_NAMES or one.startswith(_OURS)
)
"""Names that other programs hardly have: `city` and `region` may be theirs."""


def check_names(environ: Mapping[str, str], findings: Findings) -> None:
    """Report names that mean nothing here; refuse those that are nearly ours."""
    for name in sorted(environ):
        text, said = unquoted(environ[name].strip()), safe_name(name)
        if name in KNOWN or not text or _is_service_link(name, text):
            continue
        if name in KILL_SWITCH:
            _check_kill_switch(name, text, findings)
        elif line := elsewhere(name):
            if name in BLOCK_SWITCHES:
                line = block_urls.answer(line, name, environ, BLOCK_SWITCHES)
            report = findings.info if line.startswith("not needed") or text.lower() in OFF else None
            (report or findings.warn)(said, line)
        elif meant := misspelt(name):
            written = f"variables are written in capitals: {meant}"
            nearest = f"did you mean {meant}?"
            findings.problem(said, f"unknown; {written if meant == name.upper() else nearest}")
        elif name.upper().startswith(_OURS):
            findings.warn(
                said, "unknown and without effect; docs/configuration.md lists all variables"
            )


def _is_service_link(name: str, text: str) -> bool:
    """Whether Kubernetes set the variable, for a Service with a name like ours."""
    return bool(_KUBERNETES.fullmatch(name)) or (
        name.endswith("_PORT") and bool(_LINK.fullmatch(text))
    )


def elsewhere(name: str) -> str | None:
    """Return the notice for a variable that means nothing here, None for any other."""
    exact = ELSEWHERE.get(name)
    return exact or next(
        (line for pattern, line in ELSEWHERE.items() if fnmatchcase(name, pattern)), None
    )


def replacement(name: str) -> str | None:
    """Return our variable that takes the value of another image's, None if there is none.

    So it is where the notice names a variable and nothing else.
    """
    instead = (elsewhere(name) or "").removeprefix(_USE)
    return instead if instead in _CURRENT else None


def _check_kill_switch(name: str, text: str, findings: Findings) -> None:
    if text.lower() in OFF:
        findings.problem(
            name,
            "the firewall cannot be switched off; remove this variable, and list what may pass in "
            "FIREWALL_OUTBOUND_SUBNETS and FIREWALL_INPUT_PORTS",
        )
    else:
        findings.info(name, "not needed: the firewall is always on")


def misspelt(name: str) -> str | None:
    """Return the variable of ours that is meant by a name which nearly is one, else None."""
    upper = name.upper()
    if upper in KNOWN:
        return upper if upper in _DISTINCT and name != upper else None
    of_file = upper.strip("_").endswith(("SECRETFILE", "SECRET_FILE"))
    current = [one for one in sorted(_CURRENT) if one.endswith(SECRETFILE) == of_file]
    older = _nearest(upper, [one for one in OLDER_NAMES if one in _DISTINCT])
    return MEANT.get(upper) or _nearest(upper, current) or OLDER_NAMES.get(older or "")


def _nearest(name: str, known: list[str]) -> str | None:
    """Return the name that `name` misspells. A long common prefix alone is not enough."""
    prefix = next(filter(name.startswith, _OURS), "")
    rests = [one.removeprefix(prefix) for one in known if one.startswith(prefix)]
    if prefix and (
        near := get_close_matches(name.removeprefix(prefix), rests, n=1, cutoff=_NEAR_OURS)
    ):
        return prefix + near[0]
    whole = get_close_matches(name, known, n=1, cutoff=_NEAR)
    return whole[0] if whole else None
