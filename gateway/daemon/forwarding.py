"""Puts together what forwarded ports need: the service, and the redirection in the kernel."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from gateway.daemon.ports import Redirector
from gateway.errors import MissingError
from gateway.firewall.nft.firewall import FORWARDED, remove_leftover
from gateway.firewall.nft.program import Nft
from gateway.model import Config
from gateway.model.forwarding import ForwarderKind
from gateway.policy.events import Leased
from gateway.system.netns import Netns

if TYPE_CHECKING:
    from gateway.policy.redirected import PortRedirection
    from gateway.services.ports.forwarder import Forwarder, Surroundings
    from gateway.services.ports.service import PortForwarding


class ForwardingTools(Protocol):
    """What the service gets: those of `gateway.daemon.services.Tools` that it needs."""

    @property
    def netns(self) -> Netns:
        """The namespace of the tunnel and the workloads."""

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment of the start."""

    @property
    def clock(self) -> Callable[[], float]:
        """The gateway's clock."""

    @property
    def lease(self) -> Callable[[Leased], None]:
        """Opens the ports of leases."""

    @property
    def redirects(self) -> bool:
        """Whether forwarded ports can be redirected."""


def redirector_for(config: Config, netns: Netns) -> "Redirector[PortRedirection] | None":
    """Return what redirects forwarded ports in `netns`, None where none is wanted or possible.

    What an earlier run has left there is removed. Raises MissingError where it has to be possible,
    and FirewallError.
    """
    wanted = config.forwarding
    if wanted is None:
        remove_leftover(netns, FORWARDED)
        return None
    from gateway.firewall.nft.port_table import PortTable  # noqa: PLC0415 - few want it

    try:
        return PortTable.find(Nft(netns=netns))
    except MissingError as err:
        # Other servers are asked for a mapping to the very port that workloads listen at.
        if wanted.listening and wanted.kind in {ForwarderKind.PROTONVPN, ForwarderKind.SIGNED}:
            remedy = f"{err.remedy}, or remove VPN_PORT_FORWARDING_LISTENING_PORTS"
            raise MissingError(err.missing, remedy) from err
        return None


def service_of(config: Config, tools: ForwardingTools) -> "PortForwarding":
    """Return the service that asks for ports."""
    from gateway.services.ports.service import Means, PortForwarding  # noqa: PLC0415 - few want it

    without = "" if tools.redirects else "the kernel has no redirection for nftables"
    means = Means(tools.netns, tools.environ, tools.clock, tools.lease, _maker(config), without)
    return PortForwarding(config, means)


def _maker(config: Config) -> Callable[["Surroundings"], "Forwarder"]:
    """Return what makes the forwarder of a connection, of the kind that is wanted."""
    if config.forwarding and config.forwarding.kind is ForwarderKind.SIGNED:
        from gateway.services.ports.signed import Account, SignedPorts  # noqa: PLC0415 - see above

        account = Account()
        return lambda around: SignedPorts(around, account)
    from gateway.services.ports.mapper import PortMapper  # noqa: PLC0415 - see above

    return PortMapper
