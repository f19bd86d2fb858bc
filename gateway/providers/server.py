"""What every provider's list is turned into, and what is known of a provider."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from gateway.model import Address, Interface, ServerList
from gateway.providers.entries import Entry


@dataclass(frozen=True, slots=True)
class Server:
    """One WireGuard server of a provider.

    `addresses` is empty where the provider publishes only a name: then `hostname` is looked up
    before the connection. `public_key` is base64 of 32 bytes. What a list does not say is empty.
    """

    hostname: str
    public_key: str
    addresses: tuple[Address, ...] = ()
    country: str = ""
    region: str = ""
    city: str = ""
    name: str = ""
    isp: str = ""
    categories: tuple[str, ...] = ()
    owned: bool = False
    port_forward: bool = False


@dataclass(frozen=True)
class Provider:
    """What is known of a provider that does not change from day to day.

    `ports` are the UDP ports that all of its servers listen on, the default one first; with
    `any_port`, there are others too. `url` is where the list is, None where it takes a login.
    `read` yields the servers of that list. `filters` are the fields of `Server` that it fills.
    `addresses` and `resolvers` are the same for every user, empty where each user has others.
    `remark` is for the documentation.
    """

    name: str
    title: str
    ports: tuple[int, ...]
    filters: tuple[str, ...]
    url: str | None = None
    read: Callable[[Entry], Iterable[Server]] = lambda _: ()
    any_port: bool = False
    needs_preshared_key: bool = False
    addresses: tuple[Interface, ...] = ()
    resolvers: tuple[Address, ...] = ()
    other_names: tuple[str, ...] = ()
    remark: str = ""

    @property
    def listed(self) -> ServerList | None:
        """Where the list is: `url` in its parts."""
        if self.url is None:
            return None
        url = urlsplit(self.url)
        target = url.path + (f"?{url.query}" if url.query else "")
        port = url.port or ServerList.port
        return ServerList(self.name, url.hostname or "", target, port)

    @property
    def default_port(self) -> int:
        """The port where none is asked for."""
        return self.ports[0]

    def listens_on(self, port: int) -> bool:
        """Return whether its servers listen on UDP port `port`."""
        return self.any_port or port in self.ports
