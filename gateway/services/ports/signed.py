"""Obtains a port that the provider's server signs, and has it forwarded again and again.

A forwarder; see `gateway.services.ports.forwarder`. A port that is kept is used as long as it
lasts, so that it stays the same after a restart and at another server. The token that a new one
takes is the one that was kept with the key; where the server refuses it, another login is made,
through the tunnel.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from gateway.errors import GatewayError, LoginError, MissingError, NetworkError
from gateway.model import Address, Login, Tunnel
from gateway.model.frozen import frozen
from gateway.policy.mapped import Granted
from gateway.policy.port_problems import Found
from gateway.policy.upstreams import resolvers_for
from gateway.providers import catalog
from gateway.providers.signed_ports import KeptPort, to_keep, to_try
from gateway.services.ports.forwarder import Surroundings, end_if_cancelled
from gateway.services.ports.signed_host import SignedPortHost
from gateway.services.ports.signed_lines import Known

_LONGER = 6 * 3600.0
"""Seconds that a kept port has to last at least; before its end another one is asked for."""
_NO_SERVER = "it is not known with which server the key is registered"
_REGISTER = (
    "let the gateway register it: set VPN_SERVICE_PROVIDER=private internet access, with "
    "OPENVPN_USER and OPENVPN_PASSWORD"
)
_NOT_EVERY = "set PORT_FORWARD_ONLY=on, so that a server is chosen that forwards ports"


@frozen
class Pace:
    """When something is asked for again, in seconds.

    A port is bound `every` so often, and counts as forwarded `lasts` after that. A failure is tried
    again after `first`, then twice as long, up to `longest`, a refused login after `refused`.
    """

    every: float = 900.0
    lasts: float = 1800.0
    first: float = 5.0
    longest: float = 300.0
    refused: float = 3600.0
    look: float = 60.0
    """The most between two looks at the clock, which does not halt while a machine sleeps."""


PACE = Pace()


@dataclass
class Account:
    """What outlives a connection: the last token, and until when no other login is made.

    A server can refuse every token, and a login for each would look like an attack on the account.
    """

    token: str = field(default="", repr=False)
    rests_until: float = 0.0


class PortHost(Protocol):
    """What makes the requests; `gateway.services.ports.signed_host` is the real one."""

    starts: int

    async def known(self, tunnel: Tunnel) -> Known | None:
        """Return what is kept for `tunnel`, None if nothing is known of its server."""

    async def sign(self, server: Known, token: str) -> KeptPort:
        """Return a port that the server signs; LoginError if it refuses."""

    async def bind(self, server: Known, kept: KeptPort) -> None:
        """Have the server forward a port; LoginError if it refuses."""

    async def log_in(self, login: Login, resolver: Address | None) -> str:
        """Return a new token; LoginError if it is refused."""

    async def keep(self, ports: Iterable[KeptPort]) -> None:
        """Replace the file of signed ports."""


class SignedPorts:
    """A forwarder for one connection."""

    def __init__(
        self,
        around: Surroundings,
        account: Account,
        host: PortHost | None = None,
        pace: Pace = PACE,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`host` makes the requests, the provider's unless given; `wall` is seconds since 1970."""
        self._login = _login(around)
        self._host = host or _host_for(self._login, around)
        self._account = account
        self._around = around
        self._pace = pace
        self._wall = wall
        self.starts = 0
        self._ports: tuple[KeptPort, ...] = ()
        self._bound: KeptPort | None = None
        self._granted: tuple[Granted, ...] = ()

    async def run(self, take: Callable[[Found], None]) -> None:
        """Report the port until cancelled; see `Forwarder.run`."""
        try:
            await self._run(take)
        finally:
            self.starts = self._host.starts if self._host else 0

    async def _run(self, take: Callable[[Found], None]) -> None:
        host = self._host
        server = await host.known(self._around.tunnel) if host else None
        if host is None or server is None:
            raise MissingError(_NO_SERVER, _REGISTER)
        self._account.token = self._account.token or server.token
        self._ports = server.ports
        pause = 0.0
        while True:
            try:
                await self._forward(host, server)
            except (GatewayError, OSError, MemoryError) as err:
                has_failed_before, pause = bool(pause), self._pause(err, pause)
                if has_failed_before or not self._lasting():
                    take(Found(self._lasting(), *_explained(err, server)))
            else:
                pause = 0.0
                take(Found(self._granted))
            end_if_cancelled()
            await self._sleep(pause or self._pace.every)

    async def _forward(self, host: PortHost, server: Known) -> None:
        """Have a port forwarded for the next time. Raises GatewayError and OSError."""
        now = self._wall()
        for each in to_try(self._ports, server.server, now + _LONGER):
            try:
                await self._bind(host, server, each)
            except LoginError:
                self._ports = tuple(it for it in self._ports if it is not each)
            else:
                return
        try:
            new = await self._signed(host, server)
        except (GatewayError, OSError):
            if (last := self._bound) is None or last.signed.expires <= now:
                raise
            await self._bind(host, server, last)  # as long as it lasts
        else:
            await self._bind(host, server, new)

    async def _signed(self, host: PortHost, server: Known) -> KeptPort:
        """Return a new port, after another login where the token is refused."""
        account = self._account
        rests = self._around.clock() < account.rests_until
        if account.token:
            try:
                return self._fresh(await host.sign(server, account.token))
            except LoginError:
                if rests:
                    raise
        elif rests:
            raise _LoginRefusedError("the last login was refused", server.server)
        if self._login is None:
            raise MissingError(_NO_SERVER, _REGISTER)
        around = self._around
        resolver = next(iter(resolvers_for(around.tunnel, around.config)), None)
        rests_until = around.clock() + self._pace.refused
        try:
            account.token = await host.log_in(self._login, resolver)
        except LoginError as err:
            account.rests_until = rests_until
            raise _LoginRefusedError(str(err)) from err
        account.rests_until = rests_until
        return self._fresh(await host.sign(server, account.token))

    def _fresh(self, new: KeptPort) -> KeptPort:
        """Return a port that was just signed, unless it has expired already."""
        if new.signed.expires <= self._wall():
            raise _ExpiredError("the server signs a port that has expired already", new.server)
        return new

    async def _bind(self, host: PortHost, server: Known, kept: KeptPort) -> None:
        """Have a port forwarded, and keep it if it is not the one that was, too."""
        await host.bind(server, kept)
        now, pace = self._around.clock(), self._pace
        left = kept.signed.expires - self._wall()
        port = kept.signed.port
        self._granted = (Granted(0, port, port, now + min(pace.lasts, left)),)
        self._bound, before = KeptPort(server.server, kept.signed), self._ports
        self._ports = to_keep(self._bound, before, self._wall())
        if self._ports == before:
            return
        try:
            await host.keep(self._ports)
        except (GatewayError, OSError) as err:
            structlog.get_logger().warning("could not keep forwarded port", problem=str(err))

    def _lasting(self) -> tuple[Granted, ...]:
        """Return what was granted and has not ended."""
        now = self._around.clock()
        return tuple(it for it in self._granted if it.until > now)

    def _pause(self, err: Exception, former: float) -> float:
        """Return the seconds until the next attempt after `err`."""
        if isinstance(err, _LoginRefusedError):
            return self._pace.refused
        return min(2 * former or self._pace.first, self._pace.longest)

    async def _sleep(self, seconds: float) -> None:
        """Wait by the gateway's clock, until the next attempt is due or the port ends soon."""
        clock = self._around.clock
        until = clock() + seconds
        while (left := until - clock()) > 0:  # noqa: ASYNC110 - only a clock says it
            await asyncio.sleep(min(left, self._pace.look))


class _LoginRefusedError(LoginError):
    """The provider's login refuses the user: another attempt would look like an attack."""


class _ExpiredError(NetworkError):
    """A server signs what is of no use."""


def _login(around: Surroundings) -> Login | None:
    """Return the login of the provider that the tunnel is of."""
    registrations = (it.registration for it in around.config.tunnels)
    return next((it.login for it in registrations if it is not None), None)


def _host_for(login: Login | None, around: Surroundings) -> PortHost | None:
    """Return what makes the requests to the servers of the provider, None if it is not known."""
    provider = catalog.find(login.provider) if login else None
    if provider is None or provider.forwards is None:
        return None
    return SignedPortHost(provider.name, provider.forwards, around.environ, around.netns)


def _explained(err: Exception, server: Known) -> tuple[str, str, str]:
    """Return the code of a problem, a text, and what to do."""
    if isinstance(err, MissingError):
        return "missing", err.missing, err.remedy
    if isinstance(err, _LoginRefusedError):
        return "login_refused", str(err), "write those of your account, then start again"
    if isinstance(err, LoginError):
        return "not_authorized", f"{server.server} gives no port: {err}", _NOT_EVERY
    return "failed", f"{server.server} could not be asked for a port: {err}", _NOT_EVERY
