"""What the gateway does and reports when it cannot continue."""

import errno
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
"""How a failure begins that may clear: a tool did not start, or reached its time limit."""

UNWRITTEN = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""The errors of write(2) for a full disk, and for a terminal that has gone."""


def close_links(failures: Iterable[str]) -> MissingError:
    """Set every link except the loopback down, because no firewall could be set.

    `failures` are the messages of the firewalls' tools. Return the error that says what is missing,
    what to do, and which links are still up.
    """
    try:
        with closing(Unplug()) as unplug:
            still_up = unplug.pull()
        state = f"still up: {', '.join(still_up)}" if still_up else "every link is down"
    except OSError as err:
        state = f"no link was changed: {err}"
    if missing := missing_capabilities("NET_ADMIN", "NET_RAW"):
        names = " and ".join(f"CAP_{name}" for name in missing)
        remedy = f"add {' and '.join(missing)} to cap_add"
        if os.geteuid() != 0:
            remedy = "run as root: Docker gives added capabilities to no other user"
        return MissingError(f"cannot lock the namespace without {names} ({state})", remedy)
    messages = "; ".join(dict.fromkeys(failures))
    if not messages:
        return MissingError(
            "cannot lock the namespace: neither nft nor iptables-legacy-restore can be started from"
            f" /usr/sbin, /sbin or /usr/local/sbin ({state})",
            "install a firewall, such as with `apt install nftables`",
        )
    if any(failure.startswith(NOT_NOW) for failure in failures):
        return MissingError(
            f"cannot lock the namespace yet ({state}; {messages})",
            "the gateway tries again; if this continues, raise pids_limit, ulimits or mem_limit",
        )
    return MissingError(
        "cannot lock the namespace: neither iptables nor nftables works for both IPv4 and IPv6"
        f" ({state}; {messages})",
        "load iptable_filter, iptable_mangle, ip6table_filter and ip6table_mangle, or nf_tables,"
        " on the host",
    )


def report(error: Exception) -> None:
    """Write one line about `error` to stderr; with LOG_LEVEL=debug, the traceback too.

    The message of an error that is not ours may contain a key, so only its type is shown.
    """
    if isinstance(error, GatewayError):
        line = str(error)
    elif isinstance(error, OSError) and error.errno in UNWRITTEN and error.filename is None:
        line = f"cannot write: {error.strerror}"
    else:
        place = traceback.extract_tb(error.__traceback__)[-1]
        line = f"unexpected {type(error).__name__} in {place.filename}, line {place.lineno}"
    stream = without_waiting(sys.stderr)
    stream.write(f"gateway: {line}\n")
    level = os.environ.get("LOG_LEVEL", "")  # noqa: TID251 - the settings may be what failed
    if level.lower() == "debug":
        stream.writelines(traceback.format_tb(error.__traceback__))
