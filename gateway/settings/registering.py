"""Candidates of a provider whose servers answer only a key that was registered with them.

What the servers have answered is a file (`gateway.providers.registrations`), written by
`gateway.services.fetching.registrar`. Without one that fits the configuration, the candidate says
how the key is to be registered; with one, the servers in it are candidates as if the user had
written them.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import urlsplit

from gateway.errors import is_shortage
from gateway.model import PASSAGE, Endpoint, KeyRequest, Login, Registration, Secret
from gateway.model.frozen import frozen
from gateway.providers.kept import PLACES, registrations_name
from gateway.providers.lists import BadListError
from gateway.providers.registrations import LARGEST, Registrations
from gateway.providers.registrations import read as read_registrations
from gateway.providers.server import KeyService, Provider, Registered, Server
from gateway.settings import files, keys
from gateway.settings.findings import Findings
from gateway.settings.servers import EndpointChoice
from gateway.settings.sourced import Kind, Origin, Sourced
from gateway.settings.sources import SECRETS_FOLDER, Variables, is_unread

MOST_ASKED: Final = 12
"""How many matching servers may be asked, until enough of them have taken the key."""

_LOGIN: Final = ("openvpn_user", "openvpn_password")
_OF_LISTS: Final = ("port_forward_only",)
_FROM_SERVER: Final = (
    "wireguard_addresses",
    "wireguard_public_key",
    "wireguard_preshared_key",
)
"""Fields that the provider's servers have their own values for."""


@frozen
class Keys:
    """A user's key and login, and what is registered for the key; `variables` have the key."""

    provider: Provider
    service: KeyService
    variables: Variables
    login: Login
    public: str
    made_here: Secret | None
    kept: Registrations | None

    def registration(self, chosen: Sequence[Server]) -> Registration:
        """Return how the key is registered with the first of the servers `chosen`."""
        requests = tuple(
            KeyRequest(
                self.provider.name,
                server.name,
                self.service.target,
                self.service.port,
                address=server.addresses[0],
                public_key=self.public,
                private_key=self.made_here,
            )
            for server in chosen[:MOST_ASKED]
        )
        return Registration(self.login, requests, self.kept.made if self.kept else None)

    def candidates(self, chosen: Sequence[Server], findings: Findings) -> tuple[Variables, ...]:
        """Return the variables with each registered server that is `chosen`, in that order.

        Where none is, return them without a server. One whose answer contradicts the configuration
        does not cost the others: it is left out, unless all are like that.
        """
        registered = self._registered(chosen)
        found = list(filter(self._fits, registered)) or registered
        for server in registered:
            if server not in found:
                findings.warn(
                    "VPN_SERVICE_PROVIDER",
                    f"{server.name} is not used: it answers with an address of a listed subnet, or "
                    "with a key that is not its own",
                )
        if not found:
            findings.info(
                "VPN_SERVICE_PROVIDER",
                f"the key is not registered yet: the gateway logs in at {self.login.host} and "
                "registers it with some servers, outside the tunnel, before it connects",
            )
        return tuple(map(self._as_written, found)) or (self.variables,)

    def is_registered_with(self, chosen: Sequence[Server]) -> bool:
        """Return whether any of the servers `chosen` has taken the key."""
        return bool(self._registered(chosen))

    def _registered(self, chosen: Sequence[Server]) -> list[Registered]:
        known = {(it.name, it.address): it for it in self.kept.servers} if self.kept else {}
        found = (known.get((server.name, server.addresses[0])) for server in chosen)
        return [server for server in found if server]

    def _fits(self, server: Registered) -> bool:
        """Return whether the values of `server` can be used: it could answer anything."""
        given = self.variables.values.firewall_outbound_subnets
        taken = (*(given.value if given else ()), *PASSAGE)
        named = (server.tunnel_address, *server.resolvers)
        is_inside = any(address in network for address in named for network in taken)
        return server.public_key != self.public and not is_inside

    def _as_written(self, server: Registered) -> Variables:
        origin = Origin(f"the answer of {server.name}", "VPN_SERVICE_PROVIDER", Kind.DEFAULT)
        values = self.variables.values
        update: dict[str, object] = {
            "wireguard_addresses": Sourced((IPv4Interface(server.tunnel_address),), origin),
            "wireguard_endpoints": Sourced(
                (
                    EndpointChoice(
                        Endpoint(server.address, server.port), server.public_key, server.name
                    ),
                ),
                origin,
            ),
        }
        if server.resolvers and (not values.dns_address or _is_built_in(values.dns_address)):
            update["dns_address"] = Sourced(server.resolvers, origin)
        return replace(self.variables, values=values.model_copy(update=update))


def prepared(
    provider: Provider, variables: Variables, root: Path, findings: Findings
) -> Keys | None:
    """Return the key and the login of the user; None with a problem, or where none is needed."""
    service = provider.keys
    if service is None:
        report_unused(variables, findings, _LOGIN)
        return None
    login = _login(provider, service, variables, findings)
    if "wireguard_private_key" in variables.unreadable or login is None:
        return None
    variables = _without(variables, provider, findings)
    given = variables.values.wireguard_private_key
    kept = _kept(provider, keys.public_of(given.value) if given else "", root, findings)
    if given:
        return Keys(*(provider, service, variables, login, keys.public_of(given.value), None, kept))
    made = Secret(kept.private_key) if kept else keys.generated()
    origin = Origin("made by the gateway", "WIREGUARD_PRIVATE_KEY", Kind.DEFAULT)
    update = {"wireguard_private_key": Sourced(made, origin)}
    variables = replace(variables, values=variables.values.model_copy(update=update))
    return Keys(provider, service, variables, login, keys.public_of(made), made, kept)


def report_unused(
    variables: Variables, findings: Findings, fields: Sequence[str] = (*_LOGIN, *_OF_LISTS)
) -> None:
    """Report those of `fields` that are set: they mean something for some providers alone."""
    for field in fields:
        given: Sourced[object] | None = getattr(variables.values, field)
        if given and given.value is not False:
            what = (
                "only Private Internet Access takes a login here; WireGuard needs none"
                if field in _LOGIN
                else "the server is chosen by other variables or files"
            )
            findings.warn(given.origin.where, f"is not used: {what}; remove it")


def _login(
    provider: Provider, service: KeyService, variables: Variables, findings: Findings
) -> Login | None:
    given_texts: list[Secret] = []
    for field in _LOGIN:
        given: Sourced[Secret] | None = getattr(variables.values, field)
        if given:
            given_texts.append(given.value)
            if given.origin.kind is Kind.VARIABLE and field == _LOGIN[1]:
                findings.warn(
                    given.origin.where,
                    "the password is in the environment, where anyone who can inspect the "
                    f"container can read it; put it in a file mounted at {SECRETS_FOLDER}/{field} "
                    "and remove the variable",
                )
        elif field not in variables.unreadable and not is_unread(field, findings):
            findings.problem(
                field.upper(),
                f"is not set, and {provider.title} takes a key only with your account's user name "
                f"and password; put it in a file mounted at {SECRETS_FOLDER}/{field}",
            )
    if len(given_texts) < len(_LOGIN):
        return None
    user, password = given_texts
    url = urlsplit(service.login)
    return Login(provider.name, url.hostname or "", url.path, user=user, password=password)


def _without(variables: Variables, provider: Provider, findings: Findings) -> Variables:
    """Return the variables without those that the servers have their own values for."""
    for field in _FROM_SERVER:
        given: Sourced[object] | None = getattr(variables.values, field)
        if given:
            findings.warn(
                given.origin.where,
                f"is not used: the servers of {provider.title} say it; remove it",
            )
    update: dict[str, object] = dict.fromkeys(_FROM_SERVER)
    origin = Origin("not known yet", "VPN_SERVICE_PROVIDER", Kind.DEFAULT)
    update["wireguard_addresses"] = Sourced((), origin)
    return replace(variables, values=variables.values.model_copy(update=update))


def _is_built_in(given: Sourced[object]) -> bool:
    return given.origin.kind is Kind.DEFAULT


def _kept(provider: Provider, public: str, root: Path, findings: Findings) -> Registrations | None:
    """Return what was registered last for the key `public`, or without one, for a key made here."""
    found = []
    for place in PLACES:
        path = PurePosixPath(place) / registrations_name(provider.name)
        try:
            raw, open_to_all = files.contents(files.inside(root, path), LARGEST)
            content = read_registrations(raw)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, BadListError) as err:
            if is_shortage(err):
                raise  # the key is there, and another one would cost a login
            reason = getattr(err, "strerror", None) or str(err)
            findings.warn(str(path), f"is not used: {reason}; the key is registered again")
            continue
        if open_to_all:
            files.report_open_to_all(path, str(path), findings)
        private = content.private_key
        own = keys.public_of(Secret(private)) if private else ""
        is_ours = content.public_key == (public or own)
        if content.provider == provider.name and is_ours:
            found.append(content)
    now = time.time()  # one from the future comes last: it would hide all that come from now on
    return max(found, key=lambda content: (content.made <= now, content.made), default=None)
