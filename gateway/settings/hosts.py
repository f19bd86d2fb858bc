"""Reads /etc/hosts, in which the container's engine writes `extra_hosts`: hosts(5).

Workloads may be able to write to the file, and it is nothing that the user has to keep right. So
what cannot be read is left out, and the configuration is never refused because of it.
"""

from ipaddress import ip_address
from pathlib import Path, PurePosixPath
from typing import Final

from gateway.errors import is_shortage
from gateway.model import (
    Address,
)
from gateway.model.name_server import HostName
from gateway.settings.addresses import check_form, is_a_host
from gateway.settings.files import contents, inside
from gateway.settings.findings import Findings
from gateway.settings.names import is_name

FILE: Final = PurePosixPath("/etc/hosts")
LARGEST: Final = 64 << 10
MOST: Final = 256
MOST_ADDRESSES: Final = 8
"""Bytes of the file, names in it, and addresses of one name."""


def host_names(root: Path, findings: Findings) -> tuple[HostName, ...]:
    """Return the names of the file under `root`, without those of loopback."""
    try:
        raw, _ = contents(inside(root, FILE), LARGEST)
    except BlockingIOError:  # a workload can take one, and again
        findings.warn(str(FILE), "the names in it are not used: another process has a lease on it")
        return ()
    except OSError as err:
        if is_shortage(err):
            raise
        return ()
    except ValueError as err:
        findings.info(str(FILE), f"the names in it are not used: it {err}")
        return ()
    found: dict[str, list[Address]] = {}
    for line in raw.decode("utf-8", "replace").splitlines():
        written, *names = line.partition("#")[0].split()[: MOST + 1] or [""]
        if (address := _usable(written)) is None:
            continue
        for name in filter(is_name, map(str.lower, names)):
            found.setdefault(name, []).append(address)
    if len(found) > MOST:
        findings.warn(str(FILE), f"has {len(found)} names, of which only the first {MOST} are used")
    return tuple(
        (name, tuple(dict.fromkeys(found[name]))[:MOST_ADDRESSES]) for name in [*found][:MOST]
    )


def _usable(text: str) -> Address | None:
    """Return the address of a host other than this one; None for anything else."""
    try:
        address = check_form(ip_address(text), text)
    except ValueError:
        return None
    elsewhere = address.is_loopback or address.is_link_local or address.is_reserved
    return address if is_a_host(address) and not elsewhere else None
