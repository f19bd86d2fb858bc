"""What is done and said when the gateway cannot go on."""

import os
import sys
import traceback
from collections.abc import Iterable
from contextlib import closing

from gateway.errors import GatewayError, MissingError
from gateway.system.features import missing_capabilities
from gateway.system.log_writer import without_waiting
from gateway.system.unplug import Unplug

NOT_NOW = "not now"
"""How the complaint begins of a tool that could not be run, or was not let finish."""


def close_links(complaints: Iterable[str]) -> MissingError:
    """Set every link but the loopback down, because no firewall could be set.

    `complaints` are what the firewalls' tools said. Return the error that says what is missing,
    what to do, and which links are still up.
    """
    try:
        with closing(Unplug()) as unplug:
            still_up = unplug.pull()
        state = f"still up: {', '.join(still_up)}" if still_up else "every link is down"
    except OSError as err:
        state = f"the links are as they were: {err}"
    if missing := missing_capabilities("NET_ADMIN", "NET_RAW"):
        names = " and ".join(f"CAP_{name}" for name in missing)
        remedy = f"add {' and '.join(missing)} to cap_add"
        if os.geteuid() != 0:
            remedy = "run as root: the capabilities that Docker adds reach no other user"
        return MissingError(f"cannot lock the namespace without {names} ({state})", remedy)
    said = "; ".join(dict.fromkeys(complaints)) or "no tool found"
    if any(complaint.startswith(NOT_NOW) for complaint in complaints):
        return MissingError(
            f"cannot lock the namespace yet ({state}; {said})",
            "the gateway tries again; if it goes on, raise pids_limit, ulimits or mem_limit",
        )
    return MissingError(
        "cannot lock the namespace: neither iptables nor nftables works for both IPv4 and IPv6"
        f" ({state}; {said})",
        "load iptable_filter, iptable_mangle, ip6table_filter and ip6table_mangle, or nf_tables,"
        " on the host",
    )


def tell(error: Exception) -> None:
    """Say in one line what went wrong; with LOG_LEVEL=debug, where as well.

    What a foreign error says of itself may hold a key, so of that only the kind is shown.
    """
    if isinstance(error, GatewayError):
        line = str(error)
    else:
        place = traceback.extract_tb(error.__traceback__)[-1]
        line = f"unexpected {type(error).__name__} in {place.filename}, line {place.lineno}"
    stream = without_waiting(sys.stderr)
    stream.write(f"gateway: {line}\n")
    level = os.environ.get("LOG_LEVEL", "")  # noqa: TID251 - the settings may be what failed
    if level.lower() == "debug":
        stream.writelines(traceback.format_tb(error.__traceback__))
