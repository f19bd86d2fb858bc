"""The control API: keeps the process that serves it, answers its questions, and notes its orders.

The process reads what anyone on the network sends (`gateway.control`). So what it says is read like
a stranger's words: short messages, few of them, and none that could open anything. It gets the
status, which has no secret, and digests of the credentials.
"""

import asyncio
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import structlog

from gateway.control.access import digest_of
from gateway.control.messages import CHANNEL, LISTENER, LONGEST_REQUEST
from gateway.errors import GatewayError, NetworkError
from gateway.model import Config, HostPort
from gateway.model.control import Control, Role
from gateway.model.lease import Connection
from gateway.policy.reports import ServiceReport
from gateway.services.control.talk import Gateway, Talk
from gateway.services.own_module import command_of
from gateway.system.child import NEVER, Child, Program, Restart

NAME = "control"
RESTART = Restart()
BIND_AGAIN = 5.0
"""Seconds until an address that is taken is tried again."""
BACKLOG = 200

VARIABLE = "HTTP_CONTROL_SERVER_ADDRESS"
_MODULE = "gateway.services.control.process"


class ControlServer:
    """Serves the control API at `address`."""

    name = NAME

    def __init__(self, address: HostPort, control: Control, gateway: Gateway) -> None:
        self._address = address
        self._control = control
        self._gateway = gateway
        self._report = ServiceReport(NAME)
        self._key = secrets.token_bytes(32)
        self._talk: Talk | None = None
        self._log = structlog.get_logger()

    def report(self) -> ServiceReport:
        """Return what is known of it, from any thread."""
        return self._report

    def follow(self, connection: Connection | None) -> None:
        """Take note of the connection: the status has it."""

    def adopt(self, config: Config) -> None:
        """Follow the roles of a configuration that was read again."""
        if config.control is not None:
            self._control = config.control
            if self._talk is not None:
                self._talk.send(self._setup())

    async def run(self) -> None:
        """Listen, and keep the process running, until cancelled."""
        listener = await self._listening()
        pause: float | None = None
        with listener:
            while True:
                began = self._gateway.clock()
                problem = await self._run_once(listener)
                lasted = self._gateway.clock() - began if self._report.is_running else 0.0
                pause = RESTART.pause(pause, lasted)
                self._failed(problem, f"it is started again in {pause:g} s")
                await asyncio.sleep(pause)

    async def _listening(self) -> socket.socket:
        """Return the socket that listens, once there is one."""
        while True:
            try:
                return listening(self._address)
            except NetworkError as err:
                self._failed(str(err), f"free the address, or set another one in {VARIABLE}")
            await asyncio.sleep(BIND_AGAIN)

    async def _run_once(self, listener: socket.socket) -> str:
        """Run one process, and return why it has ended."""
        child: Child | None = None
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            with ours, theirs:
                ours.setblocking(False)
                child = _child(listener, theirs, self._line)
                await child.start()
                theirs.close()
                return await self._talked(ours, child)
        except (GatewayError, OSError, MemoryError) as err:
            return str(err) or type(err).__name__
        finally:
            if child is not None:
                with suppress(GatewayError):
                    await child.stop()

    async def _talked(self, ours: socket.socket, child: Child) -> str:
        """Answer the process until one of both ends, and return why."""
        process = child.process
        assert process is not None  # noqa: S101 - for mypy: it has been started
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=LONGEST_REQUEST)
        talk = Talk(self._gateway, reader, writer, self._heard, self._known_role)
        try:
            talk.send(self._setup())
            self._talk = talk
            return await talk.until_it_ends(process)
        finally:
            self._talk = None
            # At once: what closes later watches a number that another socket may have by then.
            writer.transport.abort()

    def _heard(self) -> None:
        """Note that the process answers."""
        if not self._report.is_running:
            text = f"at {_text(self._address)}, {len(self._control.roles)} roles"
            starts = self._report.starts + 1
            self._report = ServiceReport(NAME, is_running=True, starts=starts, text=text)
            self._log.info("control API ready", address=_text(self._address))

    def _failed(self, problem: str, remedy: str) -> None:
        """Report a problem; it is logged when it begins, and when another one does."""
        is_known = not self._report.is_running and self._report.problem == problem
        self._report = replace(self._report, is_running=False, problem=problem, remedy=remedy)
        if not is_known:
            self._log.error("control API does not answer", problem=problem, remedy=remedy)

    def _line(self, line: str) -> None:
        self._log.warning("control API says", line=line)

    def _known_role(self, name: object) -> str:
        return name if name in {it.name for it in self._control.roles} else "unknown"

    def _setup(self) -> dict[str, Any]:
        """Return the roles for the process, with digests in place of credentials."""
        return {
            "key": self._key.hex(),
            "roles": [self._described(it) for it in self._control.roles],
            "provider": self._control.provider,
            "selection": {name: list(values) for name, values in self._control.selection},
        }

    def _described(self, role: Role) -> dict[str, Any]:
        credential = role.credential.reveal().encode() if role.credential else b""
        digest = digest_of(self._key, role.auth, credential).hex() if credential else ""
        return {
            "name": role.name,
            "kind": str(role.auth),
            "routes": sorted(role.routes),
            "digest": digest,
        }


def listening(address: HostPort) -> socket.socket:
    """Return a socket that listens at `address`, of all addresses without one.

    In the namespace of the uplinks, as the health server. Raises NetworkError.
    """
    host = address.host or "::"
    if not address.host and not socket.has_dualstack_ipv6():
        host = "0.0.0.0"  # noqa: S104 - that is what is configured
    try:
        return socket.create_server(
            (host, address.port),
            family=socket.AF_INET6 if ":" in host else socket.AF_INET,
            backlog=BACKLOG,
            dualstack_ipv6=not address.host and ":" in host,
        )
    except OSError as err:
        raise NetworkError(f"cannot listen: {err.strerror}", _text(address), err.errno) from err


def _child(
    listener: socket.socket, channel: socket.socket, on_line: Callable[[str], None]
) -> Child:
    """Return the process."""
    program = Program(
        command_of(_MODULE),
        descriptors={LISTENER: listener.fileno(), CHANNEL: channel.fileno()},
    )
    return Child(program, restart=NEVER, on_line=on_line)


def _text(address: HostPort) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}"
