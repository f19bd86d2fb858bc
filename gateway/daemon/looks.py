"""Looking at the namespace, which may change while something is put into force for it."""

import structlog

from gateway.daemon.ports import LinksAndRoutes
from gateway.errors import NetworkError
from gateway.policy.facts import Facts
from gateway.policy.limits import DROP_NET_RAW
from gateway.policy.ways import steady

NETWORK_MODE = "take it away, and give networks to the gateway's container only"
LOOKS = 5
"""How often the namespace is looked at again because something was refused that is about links."""


class Observer:
    """Looks at the namespace; `kept_down` are links that have to stay down, with the reasons.

    `vault` is the namespace of a vault, which has no uplink.
    """

    def __init__(self, network: LinksAndRoutes, vault: LinksAndRoutes | None = None) -> None:
        self._network = network
        self._vault = vault
        self._log = structlog.get_logger()
        self.has_looked = False
        self.kept_down: tuple[str, ...] = ()

    def look(self) -> Facts:
        """Return what the namespace looks like, less the links that have to stay down.

        Sets those down, and logs that. Raises NetworkError.
        """
        self._shut_vault()
        for link in self._network.shut_unnameable():
            self._log.error("link set down: unusable name", link=ascii(link))
        kept_down = self._network.shut_shared()
        if kept_down != self.kept_down:
            self.kept_down = kept_down
            if kept_down:
                self._log.error("links kept down", links=kept_down, remedy=DROP_NET_RAW)
            else:
                self._log.info("links no longer kept down")
        facts = self._network.facts()
        self.has_looked = True
        return facts

    def _shut_vault(self) -> None:
        """Set down what another program has attached to the vault, which has no guard."""
        if self._vault is None or not (found := self._vault.facts().uplinks):
            return
        still_up = self._vault.shut([uplink.index for uplink in found])
        names = [uplink.name for uplink in found]
        self._log.error("link set down: not of the vault", links=names, remedy=NETWORK_MODE)
        if still_up:
            raise NetworkError("set down: it is still up", ", ".join(still_up))

    def has_other_links(self, than: Facts) -> bool:
        """Return whether there are other uplinks by now than `than` has, or other addresses."""
        try:
            return self._network.facts().uplinks != than.uplinks
        except NetworkError:
            return False  # not known, so it explains nothing


class Looks:
    """The looks at a namespace that changes while something is put into force for it."""

    def __init__(self, first: Facts) -> None:
        self._all = [first]

    @property
    def are_over(self) -> bool:
        """Whether the namespace was looked at often enough for an error to count."""
        return len(self._all) > LOOKS

    def add(self, found: Facts) -> Facts:
        """Return what to put into force next: `found`, or in the end the uplinks that stayed.

        A link that never stays the same is not an uplink then, which closes it.
        """
        self._all.append(found)
        return steady(self._all) if self.are_over else found
