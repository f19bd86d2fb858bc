"""The namespaces of the gateway that is verified: its own, and that of a vault if there is one."""

from gateway.errors import MissingError, NetworkError
from gateway.model import INTERFACE, Network
from gateway.model.frozen import frozen
from gateway.policy.facts import Facts, Route
from gateway.policy.passage import INSIDE, OUTER, OUTSIDE
from gateway.policy.routing import DEFAULTS
from gateway.policy.wanted import Vault
from gateway.system import vault as vaults
from gateway.system.links import Links
from gateway.system.netns import OWN, Netns
from gateway.system.passage import end_between


@frozen
class Places:
    """`own` is the namespace of the uplinks, `vault` that of the tunnel; None for the same one."""

    own: Netns = OWN
    vault: Netns | None = None

    @property
    def of_workloads(self) -> Netns:
        """The namespace of the tunnel and the workloads."""
        return self.vault or self.own

    @property
    def uplinks(self) -> Links:
        """The links of the namespace with the uplinks."""
        links = Links(INTERFACE, self.own)
        links.leave_out(OUTSIDE)
        return links

    @property
    def links_of_workloads(self) -> Links:
        """The links of the namespace with the tunnel."""
        return Links(INTERFACE, self.of_workloads)

    def wanted(self) -> Vault | None:
        """Return the vault as the policy knows it. Raises NetworkError."""
        return Vault(end_between(self.vault, self.own)) if self.vault else None

    def seen_by_workloads(self) -> Facts:
        """Return the way out of a vault that there may be: its link for holes, if it is there."""
        vault = self.wanted()
        if vault is None or vault.hole is None or not self.links_of_workloads.index(INSIDE):
            return Facts()
        networks: list[Network] = [DEFAULTS[it.version] for it in vault.hole.addresses]
        return Facts(
            (vault.hole,), tuple(Route(it, INSIDE, OUTER[it.version].ip) for it in networks)
        )


def find() -> Places:
    """Return the namespaces of the gateway next to this process.

    Raises MissingError in the container of a vault, which has no configuration, and NetworkError.
    """
    vault = vaults.find()
    try:
        is_inside = vault is not None and OWN.is_same(vault)
    except OSError as err:
        raise NetworkError(f"find the vault: {err.strerror}", "", err.errno) from err
    if is_inside:
        raise MissingError(
            "this is the container of a vault", "run it where the gateway runs, which tries both"
        )
    return Places(vault=vault)
