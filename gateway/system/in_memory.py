"""Files in memory, which have no name: their readers are given a descriptor."""

import fcntl
import os

SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK


def sealed(name: str, data: bytes) -> int:
    """Return the descriptor of a new file with `data`, which cannot be changed any more. OSError.

    Another user who has the descriptor can open the file again by /dev/fd, because everyone may.
    """
    made = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(os.dup(made), "wb") as file:  # noqa: PTH123 - a descriptor
            file.write(data)
        fcntl.fcntl(made, fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(made)
        raise
    return made
