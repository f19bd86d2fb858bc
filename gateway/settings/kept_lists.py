"""Reads the files in which the lists of providers are kept; other programs can write them, too."""

import os
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from stat import S_ISREG

from gateway.providers.kept import PLACES, file_name
from gateway.providers.lists import LARGEST_KEPT, BadListError, KeptList, kept
from gateway.providers.server import Provider, Server
from gateway.settings import files
from gateway.settings.findings import Findings
from gateway.settings.servers import is_name


def kept_list(provider: Provider, root: Path, findings: Findings) -> KeptList | None:
    """Return the newest list of the provider, None if there is none; a bad one is a warning."""
    found: list[KeptList] = []
    for place in PLACES:
        path = PurePosixPath(place) / file_name(provider.name)
        try:
            content = read(files.inside(root, path))
        except FileNotFoundError:
            continue
        except (OSError, BadListError) as err:
            reason = getattr(err, "strerror", None) or str(err)
            findings.warn(str(path), f"is not used: {reason}; it is fetched again")
            continue
        if content.provider == provider.name:
            found.append(content)
        else:
            findings.warn(str(path), f"is not used: it is the list of {content.provider}")
    return newest(found)


def newest(found: Iterable[KeptList]) -> KeptList | None:
    """Return the list that was fetched last, None if there is none.

    One from the future comes last: it would hide every list that is fetched from now on.
    """
    now = time.time()
    return max(found, key=lambda one: (one.fetched <= now, one.fetched), default=None)


def read(path: Path) -> KeptList:
    """Return the list at `path`, with the servers that can be reached by it.

    Raises OSError and BadListError.
    """
    with open(path, "rb", opener=files.at_once) as file:
        if not S_ISREG(os.fstat(file.fileno()).st_mode):
            raise BadListError("it is not a regular file")
        content = kept(file.read(LARGEST_KEPT + 1))
    usable = tuple(server for server in content.servers if _can_be_reached(server))
    if not usable:
        raise BadListError("none of its servers has an address or a name that can be looked up")
    return replace(content, servers=usable)


def _can_be_reached(server: Server) -> bool:
    return bool(server.addresses) or is_name(server.hostname)
