"""Making tunnels of variables and wg-quick files: one candidate for each file or endpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from gateway.model import (
    EVERYTHING,
    Address,
    Endpoint,
    Interface,
    NamedEndpoint,
    Network,
    Peer,
    Secret,
    Tunnel,
)
from gateway.settings import picking
from gateway.settings.addresses import simplified, tell_host_bits
from gateway.settings.checks import check_tunnel
from gateway.settings.findings import Findings, joined
from gateway.settings.picking import ENDPOINT, PEER_FIELDS, Picker
from gateway.settings.quickfiles import Part, ReadFile, Value
from gateway.settings.sources import ENVIRONMENT, Variables
from gateway.settings.values import shown

DEFAULT_KEEPALIVE: Final = 25
_ENOUGH: Final = 10
"""Peers that lack something, after which more of them tell nothing new."""
_KEEPALIVE: Final = "wireguard_persistent_keepalive_interval"


@dataclass(frozen=True)
class Draft:
    """One candidate: the tunnel, its resolvers, and where its values came from."""

    tunnel: Tunnel
    dns: tuple[Address, ...]
    origins: Mapping[str, str]
    dns_from_file: bool


def build(variables: Variables, files: Sequence[ReadFile], findings: Findings) -> tuple[Draft, ...]:
    """Return the candidates in order of preference; what is wrong becomes problems."""
    if variables.values.wireguard_endpoints:
        picking.check_alone(variables, findings)
    if len(files) > 1:
        _refuse_peer_variables(variables, f"{len(files)} wg-quick files", findings)
    pickers = [Picker(variables, file, findings) for file in files or (None,)]
    candidates = tuple(
        each
        for picker in pickers
        if (draft := _draft(picker))
        for each in _with_endpoints(draft, picker)
    )
    _tell_names(candidates, findings)
    return candidates


def _tell_names(candidates: Sequence[Draft], findings: Findings) -> None:
    for candidate in candidates:
        where = candidate.origins.get(ENDPOINT, ENVIRONMENT)
        for name in candidate.tunnel.names:
            findings.tell(
                "WIREGUARD_ENDPOINT_IP" if where == ENVIRONMENT else where,
                f"the server's name {shown(name)} is looked up outside the tunnel, where whoever "
                "answers sees it; write its address to avoid that",
            )


def _refuse_peer_variables(variables: Variables, several: str, findings: Findings) -> None:
    for name in PEER_FIELDS:
        if name in variables.given:
            findings.wrong(
                variables.where(name), f"does not say which of the {several} it is for; remove it"
            )


def _draft(pick: Picker) -> Draft | None:
    """Return the candidate that a picker's sources make, or None when something is missing."""
    interface: Part = pick.file.interface if pick.file else {}
    parts = pick.file.peers if pick.file else ({},)
    private_key: Secret | None = pick.identity("wireguard_private_key", interface)
    addresses: tuple[Interface, ...] | None = pick.identity("wireguard_addresses", interface)
    pick.require("wireguard_private_key", private_key)
    pick.require("wireguard_addresses", addresses)
    mtu = pick.tuning("wireguard_mtu", interface)
    resolvers = _without_search_domains(interface, pick.findings)
    dns = _once(pick.tuning("dns_address", resolvers) or (), pick)
    peers = _peers(pick, parts)
    if not private_key or not addresses or not peers or pick.lacks:
        return None
    numbers = {
        name: interface[name].value for name in ("listen_port", "fwmark") if name in interface
    }
    tunnel = Tunnel(
        private_key=private_key,
        addresses=_distinct(addresses, pick),
        peers=peers,
        mtu=mtu,
        **{name: value for name, value in numbers.items() if value},
    )
    _note_numbers(pick, interface)
    variable, in_file = pick.variable("dns_address"), resolvers.get("dns_address")
    the_files = variable is None or (in_file is not None and variable.value == in_file.value)
    return Draft(tunnel, dns, pick.origins, dns_from_file=the_files)


def _note_numbers(pick: Picker, interface: Part) -> None:
    """Note where the numbers come from that no variable sets."""
    for name in ("listen_port", "fwmark"):
        given = interface.get(name)
        pick.origins[name] = given.where if given and given.value else "default"


def _once(resolvers: tuple[Address, ...], pick: Picker) -> tuple[Address, ...]:
    """Return the resolvers, each once."""
    for server in resolvers:
        if resolvers.count(server) > 1:
            where = pick.origins["dns_address"]
            named = "DNS_ADDRESS" if where == ENVIRONMENT else where
            pick.findings.tell(named, f"{server} stands twice; once is enough")
    return tuple(dict.fromkeys(resolvers))


def _without_search_domains(interface: Part, findings: Findings) -> Part:
    """Return the resolvers of a `DNS` line alone; its search domains are told."""
    if "dns_address" not in interface:
        return {}
    entry = interface["dns_address"]
    domains = [one for one in entry.value if isinstance(one, str)]
    addresses = tuple(one for one in entry.value if not isinstance(one, str))
    if domains:
        findings.tell(
            entry.where,
            f"the search domains {joined(map(shown, domains))} are dropped; write names in full",
        )
    return {"dns_address": Value(addresses, entry.where)} if addresses else {}


def _distinct(addresses: tuple[Interface, ...], pick: Picker) -> tuple[Interface, ...]:
    by_address: dict[Address, Interface] = {}
    for address in addresses:
        by_address.setdefault(address.ip, address)
    if len(by_address) < len(addresses):
        where = pick.place("WIREGUARD_ADDRESSES")
        pick.findings.tell(where, "an address stands twice; once is enough")
    return tuple(by_address.values())


def _peers(pick: Picker, parts: Sequence[Part]) -> tuple[Peer, ...]:
    """Return the peers; variables about one peer go to it only where there is no other."""
    if len(parts) == 1:
        peers = [_peer(pick, parts[0], alone=True)]
    else:
        _refuse_peer_variables(pick.variables, f"{len(parts)} peers", pick.findings)
        peers, lacking = [], 0
        for number, part in enumerate(parts, 1):
            each = pick.without_peer_variables()
            peers.append(_peer(each, part, alone=False))
            pick.lacks = pick.lacks or each.lacks
            pick.origins.update({**each.origins, **_numbered(each.origins, number)})
            lacking += each.lacks
            if lacking == _ENOUGH:
                break
    return tuple(peer for peer in peers if peer)


def _numbered(origins: Mapping[str, str], number: int) -> dict[str, str]:
    """Return where the values of one of several peers came from, under their names and number."""
    found = {name: origins.get(name, "default") for name in (*PEER_FIELDS, _KEEPALIVE)}
    if ENDPOINT in origins:
        found |= dict.fromkeys(picking.PARTS, origins[ENDPOINT])
    return {f"{name} {number}": origin for name, origin in found.items()}


def _peer(pick: Picker, part: Part, *, alone: bool) -> Peer | None:
    public_key = pick.identity("wireguard_public_key", part) or picking.key_of_first(pick)
    preshared_key: Secret | None = pick.identity("wireguard_preshared_key", part)
    endpoint: Endpoint | NamedEndpoint | None = picking.pick_endpoint(pick, part)
    keepalive = pick.tuning(_KEEPALIVE, part)
    allowed = _allowed_ips(pick, part, alone=alone)
    pick.require("wireguard_public_key", public_key, part)
    if pick.file and preshared_key and "wireguard_preshared_key" not in part:
        pick.findings.warn(
            "WIREGUARD_PRESHARED_KEY",
            f"is added to the peer of {pick.file.path}, which has none; remove it if the file is "
            "meant as it is",
        )
    if public_key is None or endpoint is None:
        return None
    return Peer(
        public_key,
        endpoint,
        allowed,
        preshared_key,
        DEFAULT_KEEPALIVE if keepalive is None else keepalive,
    )


def _allowed_ips(pick: Picker, part: Part, *, alone: bool) -> tuple[Network, ...]:
    """Return what goes to the peer: everything when nothing is said and there is no other peer."""
    allowed = pick.tuning("wireguard_allowed_ips", part)
    unreadable = pick.file and "AllowedIPs" in pick.file.unreadable
    if allowed is None and not alone and not unreadable:
        pick.findings.wrong(
            part["head"].where,
            "has a [Peer] without AllowedIPs; with several peers each says its own",
        )
    if allowed is None:
        return EVERYTHING
    where = pick.origins["wireguard_allowed_ips"]
    named = "WIREGUARD_ALLOWED_IPS" if where == ENVIRONMENT else where
    given = pick.variables.given.get("wireguard_allowed_ips")
    if given and where == given.origin:
        tell_host_bits(given.text.reveal(), named, pick.findings)
    for network in allowed:
        if network.is_multicast:
            pick.findings.warn(named, f"{network} is multicast, which never leaves the namespace")
    return simplified(allowed, named, pick.findings)


def _with_endpoints(draft: Draft, pick: Picker) -> tuple[Draft, ...]:
    """Return the draft, checked, once for each of `WIREGUARD_ENDPOINTS`, or as it is without."""
    choices = pick.variables.values.wireguard_endpoints
    if not choices or len(draft.tunnel.peers) != 1:
        check_tunnel(draft.tunnel, pick)
        return (draft,)
    peer = draft.tunnel.peers[0]
    peers: list[Peer] = []
    for choice in choices:
        public_key = choice.public_key or peer.public_key
        one = replace(peer, endpoint=choice.endpoint, public_key=public_key)
        if one in peers:
            pick.findings.tell(
                "WIREGUARD_ENDPOINTS", f"{choice.endpoint} stands twice; once is enough"
            )
        else:
            peers.append(one)
    drafts = tuple(replace(draft, tunnel=replace(draft.tunnel, peers=(one,))) for one in peers)
    for each in drafts:
        check_tunnel(each.tunnel, pick)
    return drafts
