"""A namespace as the loop sees it: what it looks like, its routes, its links and their settings."""

from collections.abc import Collection
from contextlib import suppress

from gateway.errors import NetworkError
from gateway.model import Interface
from gateway.policy.facts import Facts, Uplink
from gateway.policy.rules import is_nameable
from gateway.policy.tables import Routing
from gateway.system import routes
from gateway.system.addresses import of_links
from gateway.system.changes import Changes
from gateway.system.exclusive import ExclusiveLinks
from gateway.system.link_down import IFF_UP, links_down, links_up, unnameable_links
from gateway.system.link_settings import UPLINK_SETTINGS, differences, ipv6_usable
from gateway.system.links import Links
from gateway.system.netns import Netns
from gateway.system.unplug import Unplug


class Namespace:
    """The namespace that `links` are in; whatever else is given has to be in it too.

    What was read is remembered until the kernel reports a change (`changes`).

    `guard_mark` is the egress guard's mark, if any. `unplug` is the switch for the links; without
    one, it is made when it is needed. `queues` holds the queues of the links, None where they
    cannot be held.
    """

    def __init__(
        self,
        links: Links,
        guard_mark: int | None = None,
        unplug: Unplug | None = None,
        queues: ExclusiveLinks | None = None,
    ) -> None:
        self._links = links
        self._guard_mark = guard_mark
        self._unplug = unplug
        self._queues = queues
        self._changes = Changes(links.netns)
        self._with_tunnel = links.netns

    def have_tunnel_in(self, netns: Netns) -> None:
        """Have the tunnel in another namespace: whether it can have IPv6 is asked there."""
        self._with_tunnel = netns

    def facts(self) -> Facts:
        """Return the uplinks that are up, with their addresses, and the routes of the main table.

        A link that is down carries nothing, so it is not an uplink; setting it up is an event.
        """
        return self._changes.remembered("facts", None, self._read_facts)

    def _read_facts(self) -> Facts:
        rtnl = self._links.rtnl
        found = self._links.others()
        up = {index: link for index, link in sorted(found.items()) if link["flags"] & IFF_UP}
        names = {index: link.get_attr("IFLA_IFNAME") for index, link in up.items()}
        down = [found[index].get_attr("IFLA_IFNAME") for index in sorted(found.keys() - up)]
        addresses = of_links(rtnl, up)
        table = routes.main_table(rtnl, names)
        uplinks = tuple(
            Uplink(
                names[index],
                index,
                link.get_attr("IFLA_MTU"),
                tuple(addresses[index]),
                table.routers.get(names[index], ()),
            )
            for index, link in up.items()
        )
        return Facts(
            uplinks,
            table.routes,
            ipv6=ipv6_usable(self._with_tunnel),
            guard_mark=self._guard_mark,
            all_routes=table.is_whole,
            down=tuple(filter(is_nameable, down)),
        )

    def hold_links(self) -> None:
        """Hold the queues of a new link at once; what fails is left to `shut_shared`."""
        if self._queues:
            with suppress(OSError, NetworkError):
                self._queues.claim()

    def shut_shared(self) -> tuple[str, ...]:
        """Keep every link down that others can send by below the rules; return which, and why.

        Those that were, and are not any more, are up again. Raises NetworkError.
        """
        if self._queues is None:
            return ()
        self._queues.enforce()
        return self._queues.kept_down

    def fault_of(self, name: str, addresses: Collection[Interface]) -> str:
        """Return why the link `name` cannot send from `addresses`; empty if it can."""
        about = name, tuple(addresses)
        return self._changes.remembered("fault", about, lambda: self._fault_of(*about))

    def _fault_of(self, name: str, addresses: Collection[Interface]) -> str:
        if not self._links.is_up(name):
            return f"{name} was set down"
        missing = {address.ip for address in addresses} - self._links.addresses_of(name)
        return f"{name} has lost {', '.join(map(str, sorted(missing, key=str)))}" if missing else ""

    def carried(self, name: str) -> bytes:
        """Return the packet and byte counters of the link `name`. Raises NetworkError."""
        return self._links.carried(name)

    def set_mtu(self, name: str, mtu: int) -> None:
        """Set the largest packet of the link `name` to `mtu` bytes. Raises NetworkError."""
        self._links.set_mtu(name, mtu)

    def prepare(self, uplink: str) -> None:
        """Give `uplink` the per-device settings that the promises need."""
        self._links.set_device(uplink, UPLINK_SETTINGS)

    def device_drift(self, uplink: str) -> tuple[str, ...]:
        """Return the per-device settings of `uplink` that are not as `prepare` set them."""
        found = differences(self._links.device(uplink), UPLINK_SETTINGS)
        return tuple(f"{uplink}: {line}" for line in found)

    def apply_routing(self, wanted: Routing) -> None:
        """Make the gateway's tables and its band of policy rules hold exactly `wanted`.

        What is missing is added before anything surplus goes. Raises NetworkError, and leaves what
        was added so far: more of it is stricter.
        """
        routes.apply(self._links.rtnl, wanted)

    def has_routing(self, wanted: Routing) -> bool:
        """Return whether the kernel has all of `wanted`; it may have more."""
        return routes.has_all(self._links.rtnl, wanted)

    def routing_drift(self, wanted: Routing) -> tuple[str, ...]:
        """Return how the kernel differs from `wanted`, in the words of ip(8)."""
        drift = self._changes.remembered(
            "routing", wanted, lambda: routes.drift(self._links.rtnl, wanted)
        )
        if drift:  # to put it back may change nothing, and so have no notice
            self._changes.forget("routing")
        return drift

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
            return self._switch().plug(self._queues.down if self._queues else ())
        except OSError as err:
            raise NetworkError(f"set up: {err.strerror}", "every link", err.errno) from err

    def _switch(self) -> Unplug:
        self._unplug = self._unplug or Unplug(self._links.netns)
        return self._unplug

    def shut_unnameable(self) -> tuple[str, ...]:
        """Set links down that no rule can name; return those that were up. Raises NetworkError."""
        up = self._changes.remembered("unnameable", None, self._shut_unnameable)
        if up:  # it is said once
            self._changes.forget("unnameable")
        return up

    def _shut_unnameable(self) -> tuple[str, ...]:
        try:
            netns = self._links.netns
            up = links_up(unnameable_links(netns), netns)
            still_up = links_down(up, netns)
        except OSError as err:
            raise NetworkError(f"set down: {err.strerror}", "a link", err.errno) from err
        if still_up:
            raise NetworkError("set down: it is still up", ", ".join(map(ascii, still_up)))
        return up
