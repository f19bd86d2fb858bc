"""WireGuard in userspace: a wireguard-go child, and its socket.

The gateway makes the listening socket and passes it to the child, as the child's own daemon mode
does (wireguard-go main.go, WG_UAPI_FD). So the socket exists before the child does, its permissions
are ours, and the system call that fails says why a directory cannot be written. The child makes
the interface; when either goes, so does the other.

The child is never restarted on its own: without the interface the tunnel is lost, and what follows
is decided by the state machine.
"""

import asyncio
import errno
import os
import socket
import time
from pathlib import Path

import structlog

from gateway.errors import (
    GatewayError,
    MissingError,
    NetworkError,
    ProcessEnded,
    TunnelError,
    TunnelGone,
    is_shortage,
)
from gateway.model import INTERFACE, Implementation, Tunnel
from gateway.policy.facts import TunnelStatus
from gateway.system import applied
from gateway.system.child import NEVER, Child, Program
from gateway.system.links import Links
from gateway.system.process import Process, find_program
from gateway.system.sockets import sockets_of, udp_sockets
from gateway.tunnel import uapi
from gateway.tunnel.conversation import Conversation
from gateway.tunnel.device import Device, require_none, wg_keepalive, wg_set, without_keepalive

PROGRAM = "wireguard-go"
TUN_DEVICE = Path("/dev/net/tun")
SOCKETS = Path("/var/run/wireguard")
"""Where wireguard-go watches its socket (ipc/uapi_unix.go): it ends when the socket is removed."""

HUNG_UP = {errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE, errno.ENOENT}
"""The errors of a socket whose other end is gone."""

ANSWER_TIME = 3.0
"""Seconds that the process may take to answer one request, with its start for the first one."""
END_TIME = 1.0
"""Seconds that the process of a former gateway may take to end after its interface is deleted."""
OPEN_TIME = 2.0
"""Seconds that the process may take to open its UDP sockets after the link is set up."""
SEND_TIME = 0.2
"""Seconds to wait for the first handshake message; WireGuard repeats one that it could not send."""
POLL = 0.002
"""Seconds between two looks at what cannot be waited for in another way."""


def check() -> None:
    """Raise MissingError unless wireguard-go can work here."""
    find_program(PROGRAM)
    require_directory()
    try:
        os.close(os.open(TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as err:
        if is_shortage(err):
            raise TunnelError(f"open: {err.strerror}", str(TUN_DEVICE), err.errno) from err
        raise MissingError(
            f"{TUN_DEVICE} cannot be opened ({err.strerror})",
            f"give the container the device: `devices: [{TUN_DEVICE}]` in compose, "
            f"`--device {TUN_DEVICE}` for docker run",
        ) from err


def require_directory(directory: Path = SOCKETS) -> None:
    """Make `directory` for root alone where it is missing; MissingError if it cannot be written.

    A process that can connect to the socket can read the keys, and a workload may be root. So the
    directory is not one that another container could share, such as /dev/shm.
    """
    number: int | None = None
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as err:
        number = err.errno
    else:
        if not os.access(directory, os.W_OK | os.X_OK):
            number = errno.EROFS
    if number is not None:
        raise MissingError(
            f"{directory} cannot be written ({os.strerror(number)})",
            "mount a directory of its own there: `tmpfs: [/run/wireguard]` in compose, "
            "`--tmpfs /run/wireguard` for docker run",
        )


class Userspace:
    """The interface that a wireguard-go process provides."""

    name = Implementation.USERSPACE.value

    def __init__(self, links: Links, origin: Links | None = None) -> None:
        """Have the interface among `links`, the process and its sockets in that of `origin`."""
        self._links = links
        self._origin = origin or links
        self._log = structlog.get_logger()
        self._child: Child | None = None
        self._index: int | None = None
        self._socket_path = SOCKETS / f"{INTERFACE}.sock"
        self._conversation = Conversation(self._socket_path)

    async def up(self, tunnel: Tunnel, mtu: int) -> None:
        """Make the interface; see `TunnelBackend.up`."""
        check()
        try:
            await self.down()
            self._refuse_taken_port(tunnel.listen_port)
            await self._start()
            await self._set(uapi.set_device(tunnel))
            applied.show(lambda: wg_set(tunnel))
            require_none((await self._device()).differences(tunnel))
            self._origin.set_mtu(INTERFACE, mtu)
            if self._origin is not self._links:
                await self._move(tunnel.listen_port)
            self._links.add_addresses(INTERFACE, tunnel.addresses)
            self._links.set_up(INTERFACE)
            self._index = self._links.index(INTERFACE)
            await self._sockets_open(tunnel.listen_port, self._links)
            await self._take_back_keepalive(tunnel)
        except NetworkError as err:
            await self.down()
            raise TunnelError(err.what, err.subject, err.errno) from err
        except BaseException:
            await self.down()
            raise

    async def _move(self, port: int) -> None:
        """Move the interface, once the process has its sockets.

        It follows the state and MTU of its interface by notices of its own namespace. In another
        one it only finds out whether the interface is up, once a second (tun/tun_linux.go,
        routineHackListener).
        """
        self._origin.set_up(INTERFACE)
        self._index = self._origin.index(INTERFACE)
        await self._sockets_open(port, self._origin)
        self._origin.move(INTERFACE, self._links)

    async def configure(self, tunnel: Tunnel) -> float:
        """Replace the peers; see `TunnelBackend.configure`."""
        self._require_interface()
        begun_at = time.time()
        await self._set(uapi.set_peers(tunnel))
        applied.show(lambda: wg_set(tunnel, peers_only=True))
        require_none((await self._device()).differences(tunnel))
        await self._take_back_keepalive(tunnel)
        return begun_at

    async def status(self) -> TunnelStatus:
        """Return what the process reports; see `TunnelBackend.status`."""
        self._require_interface()
        return (await self._device()).status

    async def down(self) -> None:
        """Stop the process, and remove what a former one may have left behind."""
        self._index = None
        self._conversation.hang_up()
        try:
            if self._child:
                await self._child.stop()
            self._child = None
            self._links.delete_link(INTERFACE)
            self._origin.delete_link(INTERFACE)
            await self._former_process_ended()
            self._socket_path.unlink(missing_ok=True)
        except GatewayError as err:
            number = err.errno if isinstance(err, NetworkError) else None
            raise TunnelError(f"not removed: {err}", INTERFACE, number) from err
        except OSError as err:
            raise TunnelError(
                f"not removed: {err.strerror}", str(self._socket_path), err.errno
            ) from err

    async def _former_process_ended(self) -> None:
        """Wait until no process listens at the socket's path, END_TIME at most.

        A wireguard-go of a former gateway ends when its interface is deleted, and removes the file
        of this name last. It must not remove ours.
        """
        deadline = asyncio.get_running_loop().time() + END_TIME
        while asyncio.get_running_loop().time() < deadline:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
                if probe.connect_ex(str(self._socket_path)) in HUNG_UP:
                    return
            await asyncio.sleep(POLL)

    async def _start(self) -> None:
        """Start the process with a listening socket that only root can connect to."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            try:
                listener.bind(str(self._socket_path))
                self._socket_path.chmod(0o600)
                listener.listen()
            except OSError as err:
                raise TunnelError(
                    f"make the socket: {err.strerror}", str(self._socket_path), err.errno
                ) from err
            program = Program(
                (PROGRAM, "-f", INTERFACE),
                env={"LOG_LEVEL": "verbose", "WG_UAPI_FD": "3", "WG_PROCESS_FOREGROUND": "1"},
                descriptors={3: listener.fileno()},
                netns=self._origin.netns,
            )
            self._child = Child(program, restart=NEVER, on_line=self._log_line)
            await self._child.start()

    def _log_line(self, line: str) -> None:
        self._log.debug("wireguard-go output", line=line)

    def _running(self) -> Process:
        """Return the process. Raises TunnelGone when there is none, or when it has ended."""
        running = self._child.process if self._child else None
        if running is None:
            raise TunnelGone("there is no such interface", INTERFACE, errno.ENODEV)
        if not running.running:
            raise TunnelGone(str(running.end), INTERFACE, errno.ENODEV)
        return running

    def _require_interface(self, links: Links | None = None) -> None:
        self._running()
        if self._index is None:
            raise TunnelGone("there is no such interface", INTERFACE, errno.ENODEV)
        if (links or self._links).index(INTERFACE) != self._index:
            raise TunnelGone("the interface was removed or renamed", INTERFACE, errno.ENODEV)

    def _refuse_taken_port(self, port: int) -> None:
        """Raise before wireguard-go finds out, which may only log it (device.go, upLocked)."""
        if udp_sockets(port, netns=self._origin.netns):
            raise TunnelError(f"UDP port {port} is taken", INTERFACE, errno.EADDRINUSE)

    async def _sockets_open(self, port: int, links: Links) -> None:
        """Wait until the process has reacted to the link that is up: its sockets are bound.

        The interface is among `links`.
        """
        deadline = asyncio.get_running_loop().time() + OPEN_TIME
        while True:
            self._require_interface(links)
            owners = udp_sockets(port, netns=self._origin.netns)
            if owners & sockets_of(self._running().pid):
                return
            if owners:
                raise TunnelError(f"UDP port {port} is taken", INTERFACE, errno.EADDRINUSE)
            if asyncio.get_running_loop().time() > deadline:
                raise TunnelError("wireguard-go opens no socket", INTERFACE, errno.ETIMEDOUT)
            await asyncio.sleep(POLL)

    async def _take_back_keepalive(self, tunnel: Tunnel) -> None:
        """Switch the keepalive off again where none is wanted, once those peers have sent."""
        quiet = without_keepalive(tunnel)
        if not quiet:
            return
        keys = {peer.public_key for peer in quiet}
        deadline = asyncio.get_running_loop().time() + SEND_TIME
        while asyncio.get_running_loop().time() < deadline:
            if all(peer.sent for peer in (await self._device()).peers if peer.public_key in keys):
                break
            await asyncio.sleep(POLL)
        await self._set(uapi.set_keepalive(quiet))
        applied.show(lambda: wg_keepalive(quiet))

    async def _set(self, request: str) -> None:
        uapi.parse(await self._ask(request))

    async def _device(self) -> Device:
        return uapi.parse(await self._ask(uapi.GET))

    async def _ask(self, request: str) -> str:
        """Return the process's answer. Raises TunnelGone when it has ended, else TunnelError."""
        try:
            return await self._running().during(self._conversation.ask(request), ANSWER_TIME)
        except ProcessEnded as err:
            raise TunnelGone(str(err), INTERFACE) from err
        except EOFError as err:
            raise TunnelGone("wireguard-go hung up", INTERFACE, errno.ECONNRESET) from err
        except (asyncio.LimitOverrunError, UnicodeDecodeError):
            what = "an answer of wireguard-go cannot be read"
            raise TunnelError(what, INTERFACE, errno.EBADMSG) from None
        except TimeoutError as err:
            # Without ETIMEDOUT: that would be a shortage, and this needs a new process.
            raise TunnelError("wireguard-go does not answer", INTERFACE) from err
        except OSError as err:
            is_gone = isinstance(err, ConnectionError) or err.errno in HUNG_UP
            kind = TunnelGone if is_gone else TunnelError
            what = f"ask wireguard-go: {err.strerror or err}"
            raise kind(what, str(self._socket_path), err.errno) from err
