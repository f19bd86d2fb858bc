"""Servers from a provider's list, as if the user had written each of them into the variables.

The list is a file that the gateway has fetched (`gateway.services.fetching.lists`), or that the
user has put there. Without one, the candidate says where it is to be fetched.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gateway.model import Endpoint, Interface, NamedEndpoint, Registration, ServerList
from gateway.model.frozen import frozen
from gateway.providers import catalog, selection
from gateway.providers.lists import KeptList
from gateway.providers.selection import Filters, Unmatched
from gateway.providers.server import Provider, Server
from gateway.settings import registering
from gateway.settings.fields import Order
from gateway.settings.filters import country
from gateway.settings.findings import Findings, joined
from gateway.settings.kept_lists import kept_list
from gateway.settings.schema import SERVER_FILTERS
from gateway.settings.servers import EndpointChoice
from gateway.settings.sourced import Kind, Origin, Sourced
from gateway.settings.sources import Variables
from gateway.settings.values import safe_quote

BUILT_IN: Final = "built in"


@frozen
class Choice:
    """The variables with the servers of the list at `listed`, unless that `is_missing` yet.

    There are several where each server has more of its own than an address and a key. With
    `registration` the key has to be registered. If the list `is_missing`, no server is known yet.
    """

    variables: tuple[Variables, ...]
    listed: ServerList
    is_missing: bool
    registration: Registration | None = None


def choose(variables: Variables, root: Path, findings: Findings) -> Choice | None:
    """Return the servers of the provider that the variables name; None with a problem."""
    name = variables.values.vpn_service_provider
    provider = catalog.find(name.value) if name else None
    if name is None or provider is None:
        if name is not None:
            findings.problem(name.origin.where, _unknown(name.value))
        return None
    listed = provider.listed
    if listed is None:
        findings.problem(
            name.origin.where,
            f"{safe_quote(name.value)} alone chooses no server: {provider.remark}",
        )
        return None
    before = len(findings.problems)
    port = _port(provider, variables, findings)
    filters = _filters(provider, variables, findings)
    _check_preshared_key(provider, variables, findings)
    variables = _with_built_in(provider, variables)
    content = kept_list(provider, root, findings)
    keys = registering.prepared(provider, variables, root, findings)
    if len(findings.problems) > before or (provider.keys and not keys):
        return None
    variables = keys.variables if keys else variables
    if content is None:
        findings.info(
            name.origin.where,
            f"the list of servers is not there yet: the gateway fetches it from {listed.host}, "
            "outside the tunnel, before it connects",
        )
        return Choice((_alone(variables),), listed, is_missing=True)
    key = variables.values.wireguard_public_key
    if key:
        findings.info(key.origin.where, f"is used in place of the keys of {provider.title}'s list")
    chosen = _matching(provider, content, filters, variables, findings)
    if chosen and keys:
        found = tuple(map(_alone, keys.candidates(chosen, findings)))
        is_missing = not keys.is_registered_with(chosen)
        return Choice(found, listed, is_missing, keys.registration(chosen))
    written = _as_written(chosen, port, content, variables)
    return Choice((written,), listed, is_missing=False) if chosen else None


def _unknown(name: str) -> str:
    nearest = catalog.nearest(name)
    hint = f"; did you mean {nearest}?" if nearest else "."
    known = joined(provider.name for provider in catalog.PROVIDERS if provider.listed)
    return (
        f"{safe_quote(name)} is not a provider whose list of servers this gateway reads{hint} It "
        f"reads those of {known}. With another one that has WireGuard, let it generate a file and "
        "mount that at /config/wg0.conf; the variable can stay"
    )


def _port(provider: Provider, variables: Variables, findings: Findings) -> int:
    given = variables.values.wireguard_endpoint_port
    if given is None:
        return provider.default_port
    if not provider.listens_on(given.value):
        findings.problem(
            given.origin.where,
            f"{provider.title} does not listen on {given.value}; remove it, or write one of "
            f"{joined(provider.ports)}",
        )
    return given.value


def _filters(provider: Provider, variables: Variables, findings: Findings) -> Filters:
    """Return what is asked for; a variable that the list says nothing about is a problem."""
    values = variables.values
    wanted: dict[str, tuple[str, ...]] = {}
    for field in (*SERVER_FILTERS, "server_categories", "isp"):
        given: Sourced[tuple[str, ...]] | None = getattr(values, field)
        if given:
            wanted[field.upper()] = given.value
    switches = {"OWNED_ONLY": values.owned_only, "PORT_FORWARD_ONLY": values.port_forward_only}
    on = frozenset(name for name, given in switches.items() if given and given.value)
    filters = Filters(wanted, on)
    known = {**selection.TEXTS, **selection.FLAGS}
    possible = joined(name for name, field in known.items() if field in provider.filters)
    for variable in selection.unknown(provider, filters):
        findings.problem(
            variable, f"{provider.title}'s list does not say that; remove it, or use {possible}"
        )
    return filters


def _check_preshared_key(provider: Provider, variables: Variables, findings: Findings) -> None:
    field = "wireguard_preshared_key"
    missing = not variables.values.wireguard_preshared_key and field not in variables.unreadable
    if provider.needs_preshared_key and missing:
        findings.problem(
            field.upper(),
            f"is not set, and {provider.title} has one for each user: copy it from a WireGuard "
            "file that it generates",
        )


def _with_built_in(provider: Provider, variables: Variables) -> Variables:
    """Return the variables with the addresses and resolvers that are the same for every user."""
    values, update = variables.values, {}
    if not values.wireguard_addresses and provider.addresses:
        addresses: tuple[Interface, ...] = provider.addresses
        update["wireguard_addresses"] = _built_in(addresses, "WIREGUARD_ADDRESSES")
    if not values.dns_address and provider.resolvers and "dns_address" not in variables.unreadable:
        update["dns_address"] = _built_in(provider.resolvers, "DNS_ADDRESS")
    return replace(variables, values=values.model_copy(update=update))


def _built_in(value: object, variable: str) -> Sourced[object]:
    return Sourced(value, Origin(BUILT_IN, variable, Kind.DEFAULT))


# -- the list -------------------------------------------------------------------------------------


def _matching(
    provider: Provider,
    content: KeptList,
    filters: Filters,
    variables: Variables,
    findings: Findings,
) -> Sequence[Server]:
    """Return the servers that are wanted, the first choice first; none with a problem."""
    servers = _at_address(content.servers, variables, findings)
    found = selection.matching(servers, _with_other_names(filters))
    if not found:
        where = f"{provider.title}'s list of {_day(content)} with {len(servers)} servers"
        for one in selection.why_none(servers, filters):
            findings.problem(one.variable, _why(one, where))
        if not filters.variables:
            findings.problem("WIREGUARD_ENDPOINT_IP", f"{where} has no server with this address")
        return ()
    order = variables.values.server_order
    if order is None or order.value is not Order.LISTED:
        found = selection.ranked(found, _salt(variables))
    if order and order.value is Order.LATENCY:
        found = selection.spread(found)
    chosen = found[: selection.MOST_CANDIDATES]
    findings.info(
        joined(filters.variables) or "VPN_SERVICE_PROVIDER",
        f"{len(found)} of {len(content.servers)} servers match, in the list of {_day(content)}"
        + (f"; {len(chosen)} of them are tried in turn" if len(chosen) < len(found) else ""),
    )
    return chosen


def _at_address(
    servers: Sequence[Server], variables: Variables, findings: Findings
) -> Sequence[Server]:
    """Return the servers at WIREGUARD_ENDPOINT_IP, or all where it is not set."""
    given = variables.values.wireguard_endpoint_ip
    if given is None:
        return servers
    text = str(given.value).casefold()
    at = [s for s in servers if given.value in s.addresses or s.hostname.casefold() == text]
    if not at:
        findings.problem(
            given.origin.where,
            f"{given.value} is not in the provider's list; remove it, or write "
            "WIREGUARD_PUBLIC_KEY too",
        )
    return at


def _with_other_names(filters: Filters) -> Filters:
    """Return the filters with every name of the countries that they name, codes included."""
    values = dict(filters.values)
    if countries := values.get("SERVER_COUNTRIES"):
        names = [name for value in countries for name in country(value)[0]]
        values["SERVER_COUNTRIES"] = tuple(dict.fromkeys((*countries, *names)))
    return replace(filters, values=values)


def _why(one: Unmatched, where: str) -> str:
    shown = joined(map(safe_quote, one.existing))
    if one.value and one.existing:
        return f"{safe_quote(one.value)} is not in {where}; the nearest there: {shown}"
    if one.value:
        return f"no server in {where} is like that; remove it"
    others = joined(one.others) or "the others"
    return f"no server in {where} matches this and {others}" + (
        f"; with those there is: {shown}" if shown else "; remove one of them"
    )


def _day(content: KeptList) -> str:
    return datetime.fromtimestamp(content.fetched, UTC).date().isoformat()


def _salt(variables: Variables) -> bytes:
    """Return what is different for each user and never changes: a hash of the private key."""
    key = variables.values.wireguard_private_key
    return hashlib.sha256(key.value.reveal().encode() if key else b"").digest()


# -- as if written --------------------------------------------------------------------------------


def _as_written(
    chosen: Sequence[Server], port: int, content: KeptList, variables: Variables
) -> Variables:
    given = variables.values.wireguard_public_key
    choices = tuple(
        EndpointChoice(
            _endpoint(server, port),
            given.value if given else server.public_key,
            server.name or server.hostname,
        )
        for server in chosen
    )
    origin = Origin(f"the list of {_day(content)}", "VPN_SERVICE_PROVIDER", Kind.DEFAULT)
    update = {"wireguard_endpoints": Sourced(choices, origin)}
    alone = _alone(variables)
    return replace(alone, values=alone.values.model_copy(update=update))


def _endpoint(server: Server, port: int) -> Endpoint | NamedEndpoint:
    if server.addresses:
        return Endpoint(server.addresses[0], port)
    return NamedEndpoint(server.hostname, port)


def _alone(variables: Variables) -> Variables:
    """Return the variables without those of one server: they have been taken into account."""
    fields = ("wireguard_endpoint_ip", "wireguard_endpoint_port", "wireguard_public_key")
    return replace(variables, values=variables.values.model_copy(update=dict.fromkeys(fields)))
