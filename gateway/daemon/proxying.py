"""The proxies that a configuration wants, and whether this machine can confine them."""

from collections.abc import Callable, Iterable, Iterator

from gateway.model import Config
from gateway.model.proxies import PROXY_USER
from gateway.policy.limits import FEW_USERS, MORE_USERS, SAME_USERS, Limit, LimitCode
from gateway.services.proxies import kinds as proxy_kinds
from gateway.services.proxies.service import ProxyService, Remedied
from gateway.system.features import knows_users, lacks_id, missing_capabilities
from gateway.system.netns import Netns
from gateway.system.vault import VaultNetns

IN_VAULT = (
    "it cannot run in a vault, where the tunnel is",
    "run a proxy in a container with network_mode: service:vault, or use another layout",
)
"""Why none runs with a vault, and the remedy."""
ANOTHER_USER = ("KILL", "SETGID", "SETUID")
"""The capabilities that it takes to run a program as another user, and to end it."""


def proxies(
    config: Config, netns: Netns, limits: Iterable[Limit], clock: Callable[[], float]
) -> Iterator[ProxyService]:
    """Yield the proxies of `config`, for workloads in `netns`, on a machine with these `limits`."""
    why = unconfined(netns, limits)
    if config.http_proxy is not None:
        yield ProxyService(proxy_kinds.http(config.http_proxy), why, clock)
    if config.socks_proxy is not None:
        yield ProxyService(proxy_kinds.socks(config.socks_proxy), why, clock)


def unconfined(netns: Netns, limits: Iterable[Limit]) -> Remedied:
    """Return why no rule can keep a proxy in the tunnel here, and the remedy; empty if one can."""
    if isinstance(netns, VaultNetns):
        return IN_VAULT
    if missing := ", ".join(missing_capabilities(*ANOTHER_USER)):
        return (
            f"it cannot have a user of its own, by which rules know it, for want of {missing}",
            f"give the container `cap_add: [{missing}]`",
        )
    if lacks_id(PROXY_USER):
        return f"it cannot have a user of its own, by which rules know it: {FEW_USERS}", MORE_USERS
    if not _are_users_known():
        return "no rule can know its user: another user namespace owns the network", SAME_USERS
    for limit in limits:
        if limit.code is LimitCode.RESOLVER_NOT_CONFINED:
            return "no rule can keep its user in the tunnel on this kernel", limit.remedy
    return "", ""


def _are_users_known() -> bool:
    """Return whether rules know users; what cannot be asked for now counts as no."""
    try:
        return knows_users()
    except OSError:
        return False
