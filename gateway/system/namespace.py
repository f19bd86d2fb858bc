"""The namespace as the supervisor sees it: one place for links, routes and settings."""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace

from gateway.errors import NetworkError
from gateway.model import Facts, Interface
from gateway.policy.routing import Routing
from gateway.system.exclusive import ExclusiveLinks
from gateway.system.link_down import links_down, links_up, unnameable_links
from gateway.system.network import DeviceSetting, Network, ipv6_usable
from gateway.system.unplug import Unplug

UPLINK_SETTINGS = {
    DeviceSetting.SRC_VALID_MARK: 1,
    DeviceSetting.ARP_IGNORE: 1,
    DeviceSetting.ARP_ANNOUNCE: 2,
    DeviceSetting.ACCEPT_REDIRECTS: 0,
}
"""What the promises need of an uplink (kernel documentation, networking/ip-sysctl).

The mark counts in reverse-path filtering, so that marked packets pass it where it is strict. ARP
neither answers for the tunnel's address nor asks in its name. Redirects are not welcome, though
only the firewall keeps them out where the setting of all links allows them.
"""


class Namespace:
    """The namespace that `network` is in, and so has to be everything else that is given.

    `guard_mark` is the egress guard's mark, if any. `unplug` is the switch for the links; without
    one, it is made when it is needed. `links` are those whose queues nobody else may have, None
    where that cannot be had.
    """

    def __init__(
        self,
        network: Network,
        guard_mark: int | None,
        unplug: Unplug | None = None,
        links: ExclusiveLinks | None = None,
    ) -> None:
        self._network = network
        self._guard_mark = guard_mark
        self._unplug = unplug
        self._links = links

    def facts(self) -> Facts:
        """Return what the namespace looks like now."""
        return replace(
            self._network.facts(),
            ipv6=ipv6_usable(self._network.netns),
            guard_mark=self._guard_mark,
        )

    def hold_links(self) -> None:
        """Hold the queues of a new link at once; what fails is left to `shut_shared`."""
        if self._links:
            with suppress(OSError, NetworkError):
                self._links.claim()

    def shut_shared(self) -> tuple[str, ...]:
        """Keep every link down that others can send by below the rules; return which, and why.

        Those that were, and are not any more, are up again. Raises NetworkError.
        """
        if self._links is None:
            return ()
        self._links.enforce()
        return self._links.kept_down

    def fault_of(self, name: str, addresses: Collection[Interface]) -> str:
        """Say why the link `name` cannot carry what comes from `addresses`; empty if it can."""
        if not self._network.is_up(name):
            return f"{name} was set down"
        missing = {address.ip for address in addresses} - self._network.addresses_of(name)
        return f"{name} has lost {', '.join(map(str, sorted(missing, key=str)))}" if missing else ""

    def prepare(self, uplink: str) -> None:
        """Give `uplink` the per-device settings that the promises need."""
        self._network.set_device(uplink, UPLINK_SETTINGS)

    def device_drift(self, uplink: str) -> tuple[str, ...]:
        """Return the per-device settings of `uplink` that are not as `prepare` set them."""
        found = self._network.device(uplink)
        return tuple(
            f"{uplink}: {setting.name.lower()} is {found[setting]}, not {wanted}"
            for setting, wanted in UPLINK_SETTINGS.items()
            if found[setting] != wanted
        )

    def apply_routing(self, wanted: Routing) -> None:
        """Make the gateway's tables and policy rules hold exactly `wanted`."""
        self._network.apply_routing(wanted)

    def routing_drift(self, wanted: Routing) -> tuple[str, ...]:
        """Return what the kernel has otherwise than `wanted`."""
        return self._network.routing_drift(wanted)

    def shut(self, only: Collection[int] | None = None) -> tuple[str, ...]:
        """Set every link but loopback down, or `only` those with these indexes.

        Return those of them that are still up. Raises NetworkError.
        """
        try:
            return self._switch().pull(only)
        except OSError as err:
            raise NetworkError(f"set down: {err.strerror}", "every link", err.errno) from err

    def reopen(self) -> tuple[str, ...]:
        """Set the links up again that a gateway has set down; return what could not be restored.

        Raises NetworkError.
        """
        try:
            return self._switch().plug(self._links.down if self._links else ())
        except OSError as err:
            raise NetworkError(f"set up: {err.strerror}", "every link", err.errno) from err

    def _switch(self) -> Unplug:
        self._unplug = self._unplug or Unplug(self._network.netns)
        return self._unplug

    def shut_unnameable(self) -> tuple[str, ...]:
        """Set links down that no rule can name; return those that were up. Raises NetworkError."""
        try:
            netns = self._network.netns
            up = links_up(unnameable_links(netns), netns)
            still_up = links_down(up, netns)
        except OSError as err:
            raise NetworkError(f"set down: {err.strerror}", "a link", err.errno) from err
        if still_up:
            raise NetworkError("set down: it is still up", ", ".join(map(ascii, still_up)))
        return up
