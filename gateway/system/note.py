"""A line of text that belongs to a network namespace: the alias of its loopback (IFLA_IFALIAS).

Every process of the namespace can read it (`ip link show lo`), and only CAP_NET_ADMIN can change
it. It ends with the namespace.
"""

from gateway.errors import NetworkError
from gateway.system import applied
from gateway.system.link_alias import LONGEST_ALIAS, attribute
from gateway.system.link_settings import LINK_MESSAGE
from gateway.system.netlink import RTM_GETLINK, RTM_NEWLINK, Netlink, attributes_in
from gateway.system.netns import OWN, Netns

NETLINK_ROUTE = 0
LOOPBACK = 1
"""The index of the loopback in every network namespace (linux/net.h, LOOPBACK_IFINDEX)."""
IFLA_IFALIAS = 20


class Note:
    """The note of `netns` that begins with `title`; every failure is a NetworkError."""

    def __init__(self, title: str, netns: Netns = OWN) -> None:
        self._title = f"{title}: "
        self._netlink = Netlink(netns, NETLINK_ROUTE)
        self._link = LINK_MESSAGE.pack(0, 0, LOOPBACK, 0, 0)

    def read(self) -> str | None:
        """Return its text, None if there is none."""
        (body, *_) = self._netlink.send("read the alias", "lo", self._link, RTM_GETLINK)
        alias = attributes_in(body, LINK_MESSAGE.size).get(IFLA_IFALIAS, b"").rstrip(b"\0")
        text = alias.decode("utf-8", "replace")
        return text.removeprefix(self._title) if text.startswith(self._title) else None

    def write(self, text: str) -> None:
        """Replace it by `text`, and read it back."""
        alias = f"{self._title}{text}"
        if len(alias) > LONGEST_ALIAS:
            raise NetworkError(f"write the alias: longer than {LONGEST_ALIAS} bytes", "lo")
        body = self._link + attribute(IFLA_IFALIAS, alias.encode())
        self._netlink.send("write the alias", "lo", body, RTM_NEWLINK)
        applied.show(lambda: [f"ip link set lo alias '{alias}'"])
        if self.read() != text:
            raise NetworkError("write the alias: it reads back differently", "lo")
