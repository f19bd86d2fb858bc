"""Signals from a command to the running gateway, which only its own container can send.

A workload that shares only the network has no way to send them.
"""

import os

from gateway.errors import NetworkError
from gateway.system import claim


def gateway(otherwise: str) -> int:
    """Return the process id of the gateway of this namespace.

    Raises NetworkError, which says what to do `otherwise`.
    """
    if pid := claim.holder():
        return pid
    raise NetworkError(f"no gateway is seen from here; {otherwise}")


def send(pid: int, number: int, otherwise: str) -> None:
    """Send signal `number` to the gateway, 0 to see whether it is there.

    Raises NetworkError, which says what to do `otherwise`.
    """
    try:
        os.kill(pid, number)
    except ProcessLookupError as err:
        raise NetworkError("the gateway has ended") from err
    except OSError as err:
        what = f"the gateway cannot be signalled ({err.strerror}); {otherwise}"
        raise NetworkError(what) from err
