"""Variables that give way to files: what a complete file has is not missed in a variable.

People keep the variables of their former set-up next to the file that replaces them: the name of
a provider, a placeholder for a key. They decide nothing then, and a notice says so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from gateway.providers.catalog import CUSTOM
from gateway.settings.findings import Findings
from gateway.settings.picking import PEER_FIELDS
from gateway.settings.quickfiles import ReadFile
from gateway.settings.sourced import Kind, Sourced
from gateway.settings.sources import Variables
from gateway.settings.values import safe_quote

_ADDITIONAL: Final = "wireguard_preshared_key"
"""A value that a complete file may lack."""

_NEEDLESS: Final = (_ADDITIONAL, "vpn_service_provider")
"""Variables that a complete file can do without."""

_OF_EACH_PEER: Final = "wireguard_allowed_ips"
"""A variable that may apply to the peers of several files alike."""


def _of_peers(name: str) -> Callable[[ReadFile], bool]:
    return lambda file: bool(file.peers) and all(getattr(peer, name) for peer in file.peers)


_IN_FILE: Final[Mapping[str, Callable[[ReadFile], bool]]] = {
    "wireguard_private_key": lambda file: bool(file.interface.private_key),
    "wireguard_addresses": lambda file: bool(file.interface.addresses),
    "wireguard_public_key": _of_peers("public_key"),
    "wireguard_endpoint_ip": _of_peers("endpoint"),
    "wireguard_endpoint_port": _of_peers("endpoint"),
    _ADDITIONAL: _of_peers("preshared_key"),
}
"""The variables that a file wins over, and whether a file has such a value."""


def settle(variables: Variables, files: Sequence[ReadFile], findings: Findings) -> Variables:
    """Report variables that cannot be read, and those that cannot mean one of several files.

    Return the variables without those that each file has a value of its own for.
    """
    for field, refused in variables.refused.items():
        plain = refused.origin.kind is Kind.VARIABLE
        if plain and files and all(_needs_no(field, file) for file in files):
            findings.warn(
                refused.origin.where,
                f"cannot be read and is not used, because {files[0].path} has all that is needed; "
                "remove it",
            )
        else:
            findings.problem(refused.origin.where, refused.message)
    return _for_several(variables, files, findings) if len(files) > 1 else variables


def _needs_no(field: str, file: ReadFile) -> bool:
    """Whether a file is used without the variable of `field`."""
    has = _IN_FILE.get(field)
    return (field in _NEEDLESS and _is_complete(file)) or bool(has and has(file))


def _is_complete(file: ReadFile) -> bool:
    """Whether a file has all that a tunnel needs."""
    return all(has(file) for name, has in _IN_FILE.items() if name != _ADDITIONAL)


def _for_several(variables: Variables, files: Sequence[ReadFile], findings: Findings) -> Variables:
    """Return the variables without those of one server, of which each file has its own."""
    left_out: list[str] = []
    for field in dict.fromkeys((*_IN_FILE, *PEER_FIELDS)):
        given: Sourced[object] | None = getattr(variables.values, field)
        if not given or field == _OF_EACH_PEER:
            continue
        has = _IN_FILE.get(field)
        if has and given.origin.kind is not Kind.SECRET_FILE and all(map(has, files)):
            findings.warn(
                given.origin.where,
                f"is not used, because each of the {len(files)} wg-quick files has its own; "
                "remove it",
            )
            left_out.append(field)
        elif field in PEER_FIELDS:
            findings.problem(
                given.origin.where,
                f"does not say which of the {len(files)} wg-quick files it is for; remove it",
            )
    values = variables.values.model_copy(update=dict.fromkeys(left_out))
    return replace(variables, values=values)


def is_to_be_listed(variables: Variables, files: Sequence[ReadFile], findings: Findings) -> bool:
    """Return whether the server is to be one of a provider's list; say so where it is not."""
    values = variables.values
    given = values.vpn_service_provider
    if not given or given.value == CUSTOM:
        return False
    if files:
        if all(map(_is_complete, files)):  # else what they lack is reported
            findings.info(
                given.origin.where,
                f"{safe_quote(given.value)} decides nothing, because {files[0].path} names the "
                "server",
            )
    elif values.wireguard_endpoints or (
        values.wireguard_endpoint_ip and values.wireguard_public_key
    ):
        findings.info(
            given.origin.where,
            f"{safe_quote(given.value)} decides nothing, because other variables name the server",
        )
    else:
        return True
    return False
