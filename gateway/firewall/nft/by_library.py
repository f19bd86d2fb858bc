"""What the program nft does, on a netlink socket that was opened in another namespace.

A program of its own, run as `python -I -S by_library.py SOCKET ARGUMENTS...` with the few arguments
of nft that the gateway uses. nft is made of libnftables, which opens its netlink socket in the
namespace of the caller; here the given one takes its place. The library does not remember a port
number that belongs to its own (src/mnl.c, nft_mnl_socket_open, does not bind it).
"""

import ctypes
import os
import resource
import stat
import sys

LIBRARY = "libnftables.so.1"
DEBUG_NETLINK = 1 << 3
"""NFT_DEBUG_NETLINK of nftables/libnftables.h."""


class NotTaken(Exception):  # noqa: N818 - a message for the caller
    """The library did not open its socket where it was expected."""


def context(library: ctypes.CDLL, given: int) -> ctypes.c_void_p:
    """Return a context of libnftables that uses the socket `given`.

    Raises NotTaken where this version of the library works in another way. A library that opened
    one for each command would change our own namespace: it is asked for something while it cannot
    open anything.
    """
    # The lowest free number is the next that is given out (open(2)).
    expected = os.dup(given)
    os.close(expected)
    library.nft_ctx_new.restype = ctypes.c_void_p
    made = ctypes.c_void_p(library.nft_ctx_new(0))
    try:
        is_socket = stat.S_ISSOCK(os.fstat(expected).st_mode)
    except OSError:
        is_socket = False
    if made.value is None or not is_socket:
        raise NotTaken("libnftables has opened no netlink socket")
    os.dup2(given, expected)
    os.set_blocking(expected, False)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (expected + 1, hard))
    library.nft_ctx_buffer_output(made)
    library.nft_ctx_buffer_error(made)
    if library.nft_run_cmd_from_buffer(made, b"list tables"):
        raise NotTaken("libnftables opens a netlink socket for each command")
    library.nft_ctx_get_output_buffer(made)  # which empties it
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return made


def main() -> int:
    """Run one command; return 0 if it succeeded."""
    given, *arguments = sys.argv[1:]
    command = sys.stdin.read()
    library = ctypes.CDLL(LIBRARY)
    for function in (library.nft_ctx_get_output_buffer, library.nft_ctx_get_error_buffer):
        function.restype = ctypes.c_char_p
    made = context(library, int(given))
    if "-c" in arguments:
        library.nft_ctx_set_dry_run(made, ctypes.c_bool(True))
    if "--debug=netlink" in arguments:
        library.nft_ctx_output_set_debug(made, ctypes.c_uint(DEBUG_NETLINK))
    if "-f" not in arguments:
        command = " ".join(word for word in arguments if not word.startswith("-"))
    failed = library.nft_run_cmd_from_buffer(made, command.encode())
    sys.stdout.write(library.nft_ctx_get_output_buffer(made).decode(errors="replace"))
    sys.stderr.write(library.nft_ctx_get_error_buffer(made).decode(errors="replace"))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
