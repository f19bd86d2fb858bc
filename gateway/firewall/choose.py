"""Which firewall carries the rules, and how it takes over from the other one.

A kernel can hold two firewalls at once, and what either of them drops is dropped. The lock at the
start goes into the legacy tables wherever the kernel has them, and an earlier run may have left
either kind. So the one that is chosen has to make the other let go, and nowhere else is anything
ever taken away from a firewall that another one has not replaced. It is safe by its order:

1. The chosen firewall refuses everything but loopback, and that has been read back, twice.
2. Packets that were on their way before it stood have gone through the other one.
3. Only then the other one is emptied. From here on the first alone decides, and it is closed.
4. Every error in between ends the hand-over with the other one still in force, or with both. What
   is not emptied can only refuse more.

Nothing foreign is lost: the lock has already replaced the legacy tables whole, and the table of
nftables has our name.
"""

from gateway.errors import FirewallError, MissingError
from gateway.firewall import Firewall
from gateway.firewall.nft.firewall import NftablesFirewall, remove_leftover
from gateway.firewall.nft.program import Nft
from gateway.firewall.xtables import legacy
from gateway.model import Backend
from gateway.policy.rules import Ruleset
from gateway.system.features import wait_for_packets_in_flight
from gateway.system.netns import OWN, Netns


def choose(backend: Backend, netns: Netns = OWN) -> Firewall:
    """Return the firewall of `netns` for `backend`.

    For `auto` that is iptables, and nftables where iptables is not there, or cannot refuse
    everything (`Firewall.limits`).
    Raises MissingError when what was asked for, or either, is not there for every family that the
    kernel has, and FirewallError when that could not be found out.
    """
    match backend:
        case Backend.IPTABLES:
            return _iptables(netns)
        case Backend.NFTABLES:
            return NftablesFirewall.find(Nft(netns=netns))
        case Backend.AUTO:
            try:
                iptables = _iptables(netns)
            except MissingError as err:
                return _nftables_after(err, netns)
            return _nftables_or(iptables, netns) if iptables.limits else iptables


def take_over(firewall: Firewall, closed: Ruleset, netns: Netns = OWN) -> None:
    """Put `closed`, which refuses everything, into `firewall`, then empty the other one of `netns`.

    `firewall` is one of `netns` too.
    Raises FirewallError; then the namespace is as closed as before or more.
    """
    firewall.apply(closed)
    _require(firewall, closed)
    if firewall.name == NftablesFirewall.name:
        wait_for_packets_in_flight()
        legacy.empty(netns)
        _require(firewall, closed)  # from here on it sees to it that it stays alone
    else:
        remove_leftover(netns)


def _require(firewall: Firewall, closed: Ruleset) -> None:
    if problems := firewall.verify(closed):
        raise FirewallError("taking over", "; ".join(problems))


def _iptables(netns: Netns) -> Firewall:
    # Imported here because its libraries may not be there, which is an answer and not a failure.
    from gateway.firewall.xtables.firewall import IptablesFirewall  # noqa: PLC0415

    return IptablesFirewall.find(netns)


def _nftables_or(iptables: Firewall, netns: Netns) -> Firewall:
    try:
        return NftablesFirewall.find(Nft(netns=netns))
    except MissingError:
        return iptables


def _nftables_after(iptables: MissingError, netns: Netns) -> Firewall:
    try:
        return NftablesFirewall.find(Nft(netns=netns))
    except MissingError as nftables:
        raise MissingError(
            f"no firewall: {iptables.missing}, and {nftables.missing}",
            f"one of the two: {iptables.remedy}; or {nftables.remedy}",
        ) from nftables
