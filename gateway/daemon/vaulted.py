"""The vault that a gateway has taken: its namespace, closed, and the end of its process."""

import asyncio
import errno
import socket
from contextlib import ExitStack
from dataclasses import dataclass

from gateway.daemon.ports import Inside
from gateway.errors import FirewallError, MissingError, NetworkError
from gateway.firewall.nft.firewall import NftablesFirewall
from gateway.firewall.nft.program import Nft
from gateway.firewall.nft.translation import TranslationTable
from gateway.model import INTERFACE
from gateway.policy.passage import OUTSIDE, inner_end
from gateway.policy.topology import VAULT, LinkKind
from gateway.policy.wanted import Vault
from gateway.system.link_settings import ipv6_usable
from gateway.system.links import Links
from gateway.system.namespace import Namespace
from gateway.system.passage import VethPassage, can_forward_ipv6
from gateway.system.vault import VaultNetns

PLACE = VAULT.holder_of(LinkKind.TUNNEL)


@dataclass(frozen=True)
class TakenVault:
    """A vault that is closed, and ours while `claim` is open."""

    netns: VaultNetns
    claim: socket.socket
    firewall: NftablesFirewall

    def inside(self, outside: Links) -> Inside:
        """Return the parts of the vault; `outside` are the links of our own namespace."""
        links = Links(INTERFACE, self.netns)
        network = Namespace(links)
        own = outside.netns
        has_ipv6 = ipv6_usable(self.netns) and ipv6_usable(own) and can_forward_ipv6(own)
        end = inner_end((4, 6) if has_ipv6 else (4,))
        outside.leave_out(OUTSIDE)
        return Inside(
            self.firewall,
            network,
            Vault(end),
            VethPassage(outside, links),
            TranslationTable(Nft(netns=own)),
        )

    async def ended(self) -> None:
        """Raise NetworkError once its process has ended.

        Nothing would close the vault then when this gateway ends.
        """
        await asyncio.get_running_loop().sock_recv(self.claim, 1)
        raise NetworkError("the process of the vault has ended", "", errno.ECONNRESET)


def take_vault(netns: VaultNetns) -> TakenVault:
    """Take the vault `netns`, close it again and read that back.

    Raises MissingError if another gateway has it, KernelError if it cannot be closed, or not yet.
    """
    with ExitStack() as undo:
        claim = undo.enter_context(_claimed(netns))
        firewall = NftablesFirewall.find(Nft(netns=netns))
        firewall.apply(PLACE.closed)
        if problems := firewall.verify(PLACE.closed):
            raise FirewallError("closing the vault", "; ".join(problems))
        Namespace(Links(INTERFACE, netns)).apply_routing(PLACE.locked)
        undo.pop_all()
    return TakenVault(netns, claim, firewall)


def _claimed(netns: VaultNetns) -> socket.socket:
    try:
        claim = netns.claim()
    except OSError as err:
        if err.errno == errno.EBUSY:
            raise MissingError(
                "another gateway has this vault", "a vault has one gateway: stop the other one"
            ) from err
        raise NetworkError(f"take the vault: {err.strerror}", "", err.errno) from err
    claim.setblocking(False)
    return claim
