"""What follows a configuration by itself: at the start, and whenever it is read again."""

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from gateway.daemon.resolving import Resolving
from gateway.daemon.securing import log_limits
from gateway.daemon.services import Services
from gateway.errors import NetworkError
from gateway.model import Config
from gateway.model.frozen import frozen
from gateway.model.lease import Connection
from gateway.policy.limits import Limit, limits_of_config, limits_of_resolvers
from gateway.policy.marks import secret
from gateway.services.hooks import Hooks
from gateway.system.given import Given
from gateway.system.link_settings import ipv6_usable
from gateway.system.lookup import EndpointLookup
from gateway.system.netns import Netns

if TYPE_CHECKING:
    from gateway.daemon.vaulted import TakenVault

IPV6_IS_OFF = "the tunnel has an IPv6 address, but IPv6 is switched off for new links here"
SWITCH_IPV6_ON = 'set the sysctl net.ipv6.conf.all.disable_ipv6 to "0" (compose: sysctls)'


@frozen
class Adopters:
    """The parts that use the configuration; `inside` is the namespace of the tunnel."""

    hooks: Hooks
    lookup: EndpointLookup
    given: Given
    resolving: Resolving
    services: Services
    vault: "TakenVault | None"
    inside: Netns


class Adopting:
    """Gives each configuration to them, and keeps the last one."""

    def __init__(self, config: Config, number: int, adopters: Adopters) -> None:
        """Begin with `config`; secret marks are made of `number`."""
        self._number = number
        self._adopters = adopters
        self.running = config

    def adopt(self, config: Config) -> tuple[Limit, ...]:
        """Have `config` used from now on, and return its limits."""
        self.running, its = config, self._adopters
        its.hooks.set_commands(config.up_command, config.down_command)
        its.lookup.resolver = config.endpoint_resolver or next(iter(its.given.found), None)
        its.given.seal_with(config.tunnels[0].private_key)
        its.resolving.adopt(config)
        its.services.adopt(config)
        found = (
            *limits_of_config(config, secret(self._number)),
            *limits_of_resolvers(config, its.given.problem),
            *(its.vault.limits_of(config) if its.vault else ()),
        )
        log_limits(found)
        with suppress(NetworkError):  # only a remark depends on it
            if any(it.has_family(6) for it in config.tunnels) and not ipv6_usable(its.inside):
                structlog.get_logger().warning(
                    "IPv6 stays rejected", problem=IPV6_IS_OFF, remedy=SWITCH_IPV6_ON
                )
        return found


Follower = Callable[[Connection | None], None]
"""Takes the connection that carries traffic now, None without one."""


def carrier(*followers: Follower) -> Follower:
    """Return what gives the connection to each of `followers`."""

    def carries(connection: Connection | None) -> None:
        for follow in followers:
            follow(connection)

    return carries
