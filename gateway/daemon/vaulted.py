"""The vault that a gateway has taken: its namespace, closed, and the end of its process."""

import asyncio
import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack

from gateway.daemon.ports import Inside
from gateway.errors import FirewallError, MissingError, NetworkError
from gateway.firewall.nft.firewall import NftablesFirewall
from gateway.firewall.nft.program import Nft
from gateway.firewall.nft.translation import TranslationTable
from gateway.model import INTERFACE, Config
from gateway.model.frozen import frozen
from gateway.policy.facts import Uplink
from gateway.policy.limits import Limit, limits_of_holes, limits_without_holes
from gateway.policy.passage import INSIDE, OUTSIDE, collision
from gateway.policy.topology import VAULT, LinkKind
from gateway.policy.wanted import Vault
from gateway.system.links import Links
from gateway.system.namespace import Namespace
from gateway.system.netns import Netns
from gateway.system.passage import VethPassage, end_between, lacks_forwarding
from gateway.system.vault import VaultNetns

PLACE = VAULT.holder_of(LinkKind.TUNNEL)


@frozen
class TakenVault:
    """A vault that is closed, and ours while `claim` is open.

    `end` is that of the link for holes in there. It has no IPv6 if this namespace has it, and
    `lacks_forwarding`. Without a `translator` all holes are closed; `lacks_nat` says why.
    """

    netns: VaultNetns
    claim: socket.socket
    firewall: NftablesFirewall
    end: Uplink
    lacks_forwarding: bool
    translator: TranslationTable | None
    lacks_nat: MissingError | None

    def inside(self, outside: Links) -> Inside:
        """Return the parts of the vault; `outside` are the links of our own namespace."""
        links = Links(INTERFACE, self.netns)
        network = Namespace(links)
        links.leave_out(INSIDE)
        outside.leave_out(OUTSIDE)
        if self.translator is None:
            return Inside(self.firewall, network, Vault())
        return Inside(
            self.firewall,
            network,
            Vault(self.end),
            VethPassage(outside, links),
            self.translator,
        )

    def limits_of(self, config: Config) -> Iterator[Limit]:
        """Yield what `config` asks for and does not get here."""
        if self.lacks_nat:
            yield from limits_without_holes(config, self.lacks_nat.missing, self.lacks_nat.remedy)
        else:
            yield from limits_of_holes(config, lacks_forwarding=self.lacks_forwarding)

    async def ended(self) -> None:
        """Raise NetworkError once its process has ended.

        Nothing would close the vault then when this gateway ends.
        """
        await asyncio.get_running_loop().sock_recv(self.claim, 1)
        raise NetworkError("the process of the vault has ended", "", errno.ECONNRESET)


def take_vault(netns: VaultNetns, own: Netns) -> TakenVault:
    """Take the vault `netns` for a gateway in `own`, close it again and read that back.

    Raises MissingError if another gateway has it, or if an uplink has addresses of the link between
    the two; KernelError if it cannot be closed, or not yet.
    """
    uplinks = Links(INTERFACE, own)
    uplinks.leave_out(OUTSIDE)
    if taken := collision(Namespace(uplinks).facts()):
        raise MissingError(taken, "give the container's network another subnet")
    end, lacks = end_between(netns, own), lacks_forwarding(netns, own)
    translator, lacks_nat = None, None
    try:
        translator = TranslationTable.find(Nft(netns=own))
    except MissingError as err:
        lacks_nat = err
    with ExitStack() as undo:
        claim = undo.enter_context(_claimed(netns))
        firewall = NftablesFirewall.find(Nft(netns=netns))
        firewall.apply(PLACE.closed)
        if problems := firewall.verify(PLACE.closed):
            raise FirewallError("closing the vault", "; ".join(problems))
        Namespace(Links(INTERFACE, netns)).apply_routing(PLACE.locked)
        undo.pop_all()
    return TakenVault(netns, claim, firewall, end, lacks, translator, lacks_nat)


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
