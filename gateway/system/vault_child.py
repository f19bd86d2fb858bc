"""The resolver of a vault as a process like one of ours: the vault starts it, in its namespace.

A gateway cannot start it, because it cannot enter that namespace. It cannot wait for it either, so
`vault_keeper` there passes signals on and says how it ended.
"""

import asyncio
import errno
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from gateway.errors import GatewayError, MissingError, ProcessError
from gateway.system import applied
from gateway.system.netns import OWN, Netns
from gateway.system.output import Output, piped
from gateway.system.process import KILL_TIME, Process
from gateway.system.vault import VaultNetns
from gateway.system.vault_process import INT


class VaultProcess(Process):
    """A process in a vault, known by the socket of its keeper; to be used on the loop."""

    def __init__(self, program: str, keeper: socket.socket, output: Output) -> None:
        self._loop = asyncio.get_running_loop()
        super().__init__(program, 0, self._loop.create_future(), output)
        self._keeper = keeper
        keeper.setblocking(False)
        self._loop.add_reader(keeper.fileno(), self._ended)

    async def stop(self, grace: float = 0.5) -> None:
        """End it: SIGTERM, and SIGKILL after `grace` seconds.

        Raises ProcessError where that is not confirmed; it is killed as soon as it can be.
        """
        for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, KILL_TIME)):
            if self.running:
                with suppress(OSError):  # it has just ended, or its keeper is halted
                    self._keeper.send(bytes([number]))
                await asyncio.wait([self.exited], timeout=patience)
        if self.running:
            self._close(-signal.SIGKILL)
            raise ProcessError(self.program, "does not end in the vault, even when killed")

    def _ended(self) -> None:
        """Take how it ended; it has been killed if its keeper has gone."""
        status = b""
        with suppress(OSError):
            status = self._keeper.recv(INT)
        code = -signal.SIGKILL
        with suppress(ValueError):
            if len(status) == INT:
                code = os.waitstatus_to_exitcode(int.from_bytes(status, sys.byteorder))
        self._close(code)

    def _close(self, code: int) -> None:
        self._loop.remove_reader(self._keeper.fileno())
        self._keeper.close()
        self._output.finish()
        self.exited.set_result(code)


def start_as(user: int) -> Callable[..., Process]:
    """Return what starts the vault's resolver as `user`, as `gateway.system.process.start` does."""

    def start(
        argv: Sequence[str],
        *,
        on_line: Callable[[str], None],
        env: Mapping[str, str] | None = None,
        descriptors: Mapping[int, int] | None = None,
        leaves_nothing: bool = False,
        netns: Netns = OWN,
    ) -> Process:
        del env, leaves_nothing  # it gets nothing, and leaves nothing
        if not isinstance(netns, VaultNetns):
            raise TypeError(f"not a vault: {netns}")
        return _started(argv, user, on_line, descriptors or {}, netns)

    return start


def _started(
    argv: Sequence[str],
    user: int,
    on_line: Callable[[str], None],
    descriptors: Mapping[int, int],
    netns: VaultNetns,
) -> Process:
    """Have the vault start its resolver; `argv` is how it is called in messages.

    Raises MissingError or ProcessError.
    """
    try:
        with piped(on_line) as (output, write_end):
            keeper = netns.resolver(user, {1: write_end, 2: write_end, **descriptors})
    except OSError as err:
        raise _not_started(argv[0], err) from err
    applied.started(argv)
    return VaultProcess(argv[0], keeper, output)


def user_for(netns: VaultNetns, wanted: int) -> int:
    """Return as which user a vault can run a resolver: `wanted`, or root.

    Raises MissingError if it can run none, and OSError if it could not be asked.
    """
    for user in (wanted, 0):
        try:
            netns.can_resolve(user)
        except PermissionError:
            continue
        except OSError as err:
            if missing := _missing(err):
                raise missing from err
            raise
        return user
    raise PermissionError(errno.EPERM, "the vault refuses every user")


def _missing(error: OSError) -> MissingError | None:
    """Return what a vault lacks that answers with `error`, if it lacks anything."""
    match error.errno:
        case errno.ENOENT:
            what = "the program unbound is not installed in the vault"
            return MissingError(what, "use our image for the vault")
        case errno.EINVAL:
            what = "the vault is of a version that cannot run a resolver"
            return MissingError(what, "recreate the vault with the image of the gateway")
        case _:
            return None


def _not_started(program: str, error: OSError) -> GatewayError:
    return _missing(error) or ProcessError(
        program, f"could not be started: {error.strerror}", errno=error.errno
    )
