"""What every provider's list is turned into, and what is known of a provider."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from urllib.parse import urlsplit

from gateway.model import Address, Interface, ServerList
from gateway.model.frozen import frozen
from gateway.providers.entries import Entry


@dataclass(frozen=True, slots=True)
class Server:
    """One WireGuard server of a provider.

    `addresses` is empty where the provider publishes only a name: then `hostname` is looked up
    before the connection. `public_key` is base64 of 32 bytes, empty where the server says it when
    it is given a key (`Provider.keys`); then it has a `name` and an address. What a list does not
    say is empty.
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


@frozen
class Registered:
    """A server that has taken a key, and what it has answered.

    `name` is that of its certificate, `address` its own on the internet. `public_key` and `port`
    are WireGuard's. `tunnel_address` is the user's in the tunnel, `resolvers` are asked there, and
    `gateway` is the server in the tunnel, None where it does not say so.
    """

    name: str
    address: Address
    public_key: str
    port: int
    tunnel_address: IPv4Address
    resolvers: tuple[Address, ...] = ()
    gateway: Address | None = None


@frozen
class KeyService:
    """How a provider takes the keys of its users; the functions are pure.

    `login` is where a token is given for what `form` makes of name and password, and `read_token`
    finds it in the answer. Each server takes a key at TCP `port` for what `query` makes of token
    and key, and `read_answer` reads what it says, with the server's name and address. `authority`
    is the file next to these modules that has the certificate for those servers. The readers raise
    BadAnswerError.
    """

    login: str
    port: int
    target: str
    authority: str
    form: Callable[[str, str], str]
    query: Callable[[str, str], str]
    read_token: Callable[[Entry], str]
    read_answer: Callable[[Entry, str, Address], Registered]


@frozen
class SignedPort:
    """A port that a provider has given to a user until `expires`, in seconds since 1970.

    `payload` says so and `signature` proves it; with both, anyone can have it forwarded to them.
    """

    port: int
    expires: int
    payload: str = field(repr=False)
    signature: str = field(repr=False)


@frozen
class PortService:
    """How servers of a provider forward ports to their users; the functions are pure.

    Each server answers in the tunnel, at TCP `port`, with a certificate of the file `authority`. At
    `sign_target` it signs a port for what `sign_query` makes of a token, and `read_signed` reads
    the answer. At `bind_target` it forwards that port for what `bind_query` makes of it, and
    `read_bound` reads whether it does. `read_payload` takes a payload and its signature, as they
    were kept. The readers raise BadAnswerError, and RefusedError for what the server refuses.
    """

    port: int
    authority: str
    sign_target: str
    bind_target: str
    sign_query: Callable[[str], str]
    bind_query: Callable[[SignedPort], str]
    read_signed: Callable[[Entry], SignedPort]
    read_bound: Callable[[Entry], None]
    read_payload: Callable[[str, str], SignedPort]


class BadAnswerError(Exception):
    """A provider's answer cannot be used; the text says why and holds nothing of the answer."""


class RefusedError(BadAnswerError):
    """A provider refuses what it was asked for."""


@frozen
class Provider:
    """What is known of a provider that does not change from day to day.

    `ports` are the UDP ports that all of its servers listen on, the default one first; with
    `any_port`, there are others too. `url` is where the list is, None where it takes a login.
    `read` yields the servers of that list. `filters` are the fields of `Server` that it fills.
    `addresses` and `resolvers` are the same for every user, empty where each user has others.
    `remark` is for the documentation. With `keys` a server answers only a key that it was given,
    and says its own then: the list has none. With `forwards` its servers forward ports.
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
    keys: KeyService | None = None
    forwards: PortService | None = None

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
