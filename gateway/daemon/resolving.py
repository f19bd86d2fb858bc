"""What workloads ask for names: the resolver file, and the gateway's own resolver if it has one."""

from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gateway.daemon.ports import Redirector
from gateway.errors import MissingError
from gateway.firewall.nft.firewall import HIJACK, remove_leftover
from gateway.firewall.nft.program import Nft
from gateway.model import Config, Tunnel
from gateway.model.frozen import frozen
from gateway.model.lease import Connection
from gateway.model.name_server import NameServer
from gateway.policy.actions import SendProbe
from gateway.policy.limits import (
    OTHER_USERS,
    SAME_USERS,
    Limit,
    LimitCode,
    limit_of_unknown_users,
    limit_without_resolver,
    limits_of_names,
)
from gateway.policy.probing import Outcome, ProbeProtocol
from gateway.policy.reports import ResolverReport
from gateway.policy.unbound import CERTIFICATES
from gateway.policy.upstreams import resolvers_for, upstreams_of
from gateway.system.aside import Aside
from gateway.system.features import knows_users
from gateway.system.given import Given
from gateway.system.netns import Netns
from gateway.system.probe import probe
from gateway.system.vault import VaultNetns

if TYPE_CHECKING:
    from gateway.daemon.block_lists import BlockLists
    from gateway.policy.hijack import Redirection
    from gateway.services.resolver.files import Home
    from gateway.services.resolver.service import Resolver


@frozen
class Tools:
    """What it takes: the resolver file, the workloads' namespace, the environment, a clock.

    `is_up` says whether the tunnel carries traffic.
    """

    files: Aside
    given: Given
    netns: Netns
    environ: Mapping[str, str]
    clock: Callable[[], float]
    is_up: Callable[[], bool]


class Resolving:
    """The file and the resolver of one run: whether there is a resolver cannot change in it."""

    def __init__(self, config: Config, tools: Tools) -> None:
        """Find out whether there is one. Raises OSError where that is not known, for a shortage."""
        self._tools = tools
        self._wanted = config
        self._is_up = False
        self._resolver: Resolver | None = None
        self._lists: BlockLists | None = None
        self._missing: MissingError | None = None
        self._knows_users = True
        if server := config.name_server:
            from gateway.services.resolver import service as resolver  # noqa: PLC0415 - many have none

            self._resolver = resolver.Resolver(server, _files(tools), tools.netns, tools.clock)
            self._resolver.follow(upstreams_of(config.tunnels[0], config))
            self._resolver.know(config.host_names, config.block_files)
            try:
                self._resolver.prepare()
            except MissingError as err:
                self._resolver, self._missing = None, err
            else:
                self._lists = self._fetched(self._resolver, server) if server.lists else None
                self._knows_users = knows_users(tools.netns)
        self.config = self.settled(config)

    def _fetched(self, resolver: "Resolver", server: NameServer) -> "BlockLists":
        """Return the lists of blocked names that are fetched; `resolver` blocks their copies."""
        from gateway.daemon import block_lists  # noqa: PLC0415 - many have none

        tools = self._tools
        lists = block_lists.through_tunnel(
            server,
            tools.environ,
            tools.netns,
            lambda lookup, hosts: block_lists.Tools(
                lookup,
                hosts,
                lambda: tools.is_up() and resolver.report.answers,
                resolver.block,
                lambda file: bool(resolver.zone.names.get(file.path)),
                tools.clock,
            ),
        )
        resolver.zone.fetched = lists.files
        return lists

    def settled(self, config: Config) -> Config:
        """Return `config` as it can be had here: without a resolver, workloads ask themselves."""
        return config if self._missing is None else replace(config, name_server=None)

    def redirector(self) -> "Redirector[Redirection] | None":
        """Return what redirects questions to the resolver, None where nothing is to be.

        Raises MissingError where it is wanted and cannot be, and FirewallError.
        """
        server, netns = self._wanted.name_server, self._tools.netns
        if server is None or not server.hijack:
            remove_leftover(netns, HIJACK)
            return None
        what = "DNS_HIJACK=on: the gateway's own resolver"
        if missing := self._missing:
            raise MissingError(
                f"{what}, and {missing.missing}", f"{missing.remedy}, or set DNS_HIJACK=off"
            )
        why, remedy = self._resolver.unconfined if self._resolver else ("", "")
        if why:
            raise MissingError(
                f"{what} as a user of its own, by which its questions are known: it runs as root, "
                f"{why}",
                f"{remedy}, or set DNS_HIJACK=off",
            )
        if not self._knows_users:
            raise MissingError(
                f"{what} as a user by which its questions are known: {OTHER_USERS}",
                f"{SAME_USERS}, or set DNS_HIJACK=off",
            )
        from gateway.firewall.nft.hijack import HijackTable  # noqa: PLC0415 - few want it

        return HijackTable.find(Nft(netns=netns))

    @property
    def limits(self) -> tuple[Limit, ...]:
        """What is not guaranteed of names."""
        if self._resolver:
            return (*self._resolver.limits, *self._of_users())
        missing, server = self._missing, self._wanted.name_server
        if missing is None:
            return ()
        problem, remedy = missing.missing, missing.remedy
        if not all(it.dns for it in self._wanted.tunnels):
            return tuple(limits_of_names(f"the gateway's own resolver: {problem}", remedy))
        if server and server.local:
            without = f"the gateway's own resolver: {problem}, so DNS_LOCAL_ZONES has no effect"
            return tuple(limits_of_names(without, remedy))
        return (limit_without_resolver(problem, remedy),)

    def _of_users(self) -> Iterator[Limit]:
        """Yield what does not hold because rules do not know the user that the resolver has."""
        server = self._wanted.name_server
        if server and not self._knows_users:
            yield limit_of_unknown_users(has_zones=bool(server.local))

    def of_machine(self, limits: tuple[Limit, ...]) -> tuple[Limit, ...]:
        """Return those of `limits` that matter: some concern only a gateway with a resolver."""
        ours = LimitCode.RESOLVER_NOT_CONFINED
        known = dict.fromkeys(limits)  # the firewall may have said the same
        return tuple(it for it in known if self._resolver or it.code is not ours)

    def report(self) -> ResolverReport | None:
        """Return what is known of the resolver, from any thread; None without one."""
        if self._resolver is None:
            return None
        lists = self._lists.report(self._resolver.zone.names) if self._lists else ()
        return replace(self._resolver.report, lists=lists)

    def producers(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Return what runs as long as the gateway."""
        found = {"resolver": self._resolver.run()} if self._resolver else {}
        return {**found, "lists of blocked names": self._lists.run()} if self._lists else found

    async def write(self, tunnel: Tunnel) -> None:
        """Have those asked that belong to `tunnel`, and write the file. Raises NetworkError."""
        if self._resolver:
            self._resolver.follow(upstreams_of(tunnel, self.config))
        await self._tools.files.run(
            lambda: self._tools.given.write(resolvers_for(tunnel, self.config))
        )

    async def probe(self, action: SendProbe) -> Outcome:
        """Send a probe and return what came of it (`gateway.system.probe`).

        A question to the resolver does not fall into the time in which it reads other rules.
        """
        if self._resolver is None or action.probe.protocol is not ProbeProtocol.NAME:
            return await probe(action, self._tools.netns)
        async with self._resolver.busy:
            return await probe(action, self._tools.netns)

    def adopt(self, config: Config) -> None:
        """Follow a configuration that was read again."""
        if self._resolver:
            self._resolver.know(config.host_names, config.block_files)

    def follow(self, connection: Connection | None) -> None:
        """Say that the tunnel carries traffic now, or with None that it does not any more."""
        is_up, was_up = connection is not None, self._is_up
        self._is_up = is_up
        if self._resolver is None or is_up == was_up:
            return
        if is_up:
            self._resolver.connected()
        else:
            self._resolver.lost()


def _files(tools: Tools) -> "Home":
    """Return the files of the resolver, which runs where the workloads are."""
    authorities = tools.environ.get("SSL_CERT_FILE") or CERTIFICATES
    if isinstance(tools.netns, VaultNetns):
        from gateway.services.resolver.in_vault import FilesInVault  # noqa: PLC0415 - seldom needed

        return FilesInVault(tools.netns, authorities)
    from gateway.services.resolver.files import PLACE, Files  # noqa: PLC0415 - many have none

    return Files(PLACE, authorities)
