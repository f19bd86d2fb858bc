"""Builds tunnels from variables and wg-quick files: one candidate for each file or endpoint."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Final

from gateway.model import (
    EVERYTHING,
    Address,
    Candidate,
    CandidatePeer,
    Interface,
    Network,
    Registration,
    Secret,
    ServerList,
)
from gateway.model.frozen import frozen
from gateway.settings.addresses import simplified
from gateway.settings.findings import Findings
from gateway.settings.picking import (
    PEER_FIELDS,
    Picker,
    Server,
    check_alone,
    key_of_first,
    pick_server,
    split,
)
from gateway.settings.quickfiles import InterfaceValues, PeerValues, ReadFile
from gateway.settings.sourced import Sourced, default
from gateway.settings.sources import Variables
from gateway.settings.values import safe_quote

DEFAULT_KEEPALIVE: Final = 25
DEFAULT_PORT: Final = 51820
_ENOUGH: Final = 10
"""Incomplete peers after which the rest is not reported."""


@frozen
class SourcedPeer:
    """A peer, each value with its origin."""

    public_key: Sourced[str]
    server: Server
    allowed_ips: Sourced[tuple[Network, ...]]
    preshared_key: Sourced[Secret | None]
    keepalive: Sourced[int]

    @property
    def peer(self) -> CandidatePeer:
        """The values alone."""
        return CandidatePeer(
            self.public_key.value,
            self.server.endpoint,
            self.allowed_ips.value,
            self.preshared_key.value,
            self.keepalive.value,
        )


@frozen
class SourcedTunnel:
    """A candidate to connect with, each value with its origin."""

    private_key: Sourced[Secret]
    addresses: Sourced[tuple[Interface, ...]]
    peers: tuple[SourcedPeer, ...]
    dns: Sourced[tuple[Address, ...]]
    mtu: Sourced[int | None]
    listen_port: Sourced[int]
    fwmark: Sourced[int | None]
    listed: ServerList | None = None
    registration: Registration | None = None
    name: str = ""

    @property
    def allowed_ips(self) -> tuple[Network, ...]:
        """The destinations of all peers; everything, while those are not known."""
        allowed = (network for peer in self.peers for network in peer.allowed_ips.value)
        return tuple(allowed) if self.peers else EVERYTHING

    @property
    def tunnel(self) -> Candidate:
        """The values alone."""
        return Candidate(
            private_key=self.private_key.value,
            addresses=self.addresses.value,
            peers=tuple(each.peer for each in self.peers),
            listen_port=self.listen_port.value,
            fwmark=self.fwmark.value,
            mtu=self.mtu.value,
            dns=self.dns.value,
            listed=self.listed,
            registration=self.registration,
            name=self.name,
        )


def build(
    variables: Variables,
    files: Sequence[ReadFile],
    findings: Findings,
    listed: ServerList | None = None,
) -> tuple[SourcedTunnel, ...]:
    """Return the candidates in order of preference; faults become problems.

    With `listed` there is one without a peer, until that list has been fetched.
    """
    check_alone(variables, findings)
    pickers = [Picker(variables, file, findings) for file in files or (None,)]
    candidates = tuple(
        each
        for picker in pickers
        if (tunnel := _tunnel(picker, listed))
        for each in _with_endpoints(tunnel, picker)
    )
    for candidate in candidates:
        _report_names(candidate, findings)
    return candidates


def _report_names(candidate: SourcedTunnel, findings: Findings) -> None:
    for peer in candidate.peers:
        host = peer.server.host
        if isinstance(host.value, str):
            findings.info(
                host.origin.where,
                f"the server's name {safe_quote(host.value)} is looked up outside the tunnel, "
                "where the resolver sees it; write its address to avoid that",
            )


def _refuse_peer_variables(variables: Variables, several: str, findings: Findings) -> None:
    for field in PEER_FIELDS:
        given: Sourced[object] | None = getattr(variables.values, field)
        if given:
            findings.problem(
                given.origin.where, f"does not say which of the {several} it is for; remove it"
            )


def _tunnel(pick: Picker, listed: ServerList | None) -> SourcedTunnel | None:
    """Return the candidate from a picker's sources, or None when something is missing."""
    given, section = pick.values, pick.file.interface if pick.file else InterfaceValues()
    private_key = pick.identity(
        "WIREGUARD_PRIVATE_KEY", given.wireguard_private_key, section.private_key
    )
    addresses = pick.identity("WIREGUARD_ADDRESSES", given.wireguard_addresses, section.addresses)
    if not private_key:
        pick.missing("wireguard_private_key")
    if not addresses:
        pick.missing("wireguard_addresses")
    mtu = pick.tuning("WIREGUARD_MTU", given.wireguard_mtu, section.mtu)
    dns = _resolvers(pick, section)
    peers = () if listed else _peers(pick, pick.file.peers if pick.file else (PeerValues(),))
    if not private_key or not addresses or not (peers or listed):
        return None
    port, mark = section.listen_port, section.fwmark
    return SourcedTunnel(
        private_key=private_key,
        addresses=_distinct(addresses, pick.findings),
        peers=peers,
        dns=dns,
        mtu=mtu or default(None, "WIREGUARD_MTU"),
        listen_port=Sourced(port.value, port.origin)
        if port and port.value
        else default(DEFAULT_PORT, "ListenPort"),
        fwmark=mark if mark and mark.value else default(None, "FwMark"),
        listed=listed,
        name=PurePosixPath(pick.file.path).stem if pick.file else "",
    )


def _resolvers(pick: Picker, section: InterfaceValues) -> Sourced[tuple[Address, ...]]:
    """Return the resolvers, each once. If variable and file agree, they come from the file."""
    given = pick.values.dns_address
    if given and section.dns and given.value == section.dns.value:
        given = None
    chosen = pick.tuning("DNS_ADDRESS", given, section.dns) or default((), "DNS_ADDRESS")
    for server in chosen.value:
        if chosen.value.count(server) > 1:
            pick.findings.info(chosen.origin.where, f"{server} is listed twice; once is enough")
    return Sourced(tuple(dict.fromkeys(chosen.value)), chosen.origin)


def _distinct(
    addresses: Sourced[tuple[Interface, ...]], findings: Findings
) -> Sourced[tuple[Interface, ...]]:
    by_address: dict[Address, Interface] = {}
    for address in addresses.value:
        by_address.setdefault(address.ip, address)
    if len(by_address) < len(addresses.value):
        findings.info(addresses.origin.where, "an address is listed twice; once is enough")
    return Sourced(tuple(by_address.values()), addresses.origin)


def _peers(pick: Picker, sections: Sequence[PeerValues]) -> tuple[SourcedPeer, ...]:
    """Return the peers, or none when one of them is incomplete.

    Variables that describe one peer apply only if there is no other peer.
    """
    alone = len(sections) == 1
    if not alone:
        _refuse_peer_variables(pick.variables, f"{len(sections)} peers", pick.findings)
        pick = pick.without_peer_variables()
    peers: list[SourcedPeer] = []
    lacking = 0
    for section in sections:
        peer = _peer(pick, section, alone=alone)
        if peer:
            peers.append(peer)
        else:
            lacking += 1
        if lacking == _ENOUGH:
            break
    return () if lacking else tuple(peers)


def _peer(pick: Picker, section: PeerValues, *, alone: bool) -> SourcedPeer | None:
    given = pick.values
    public_key = pick.identity(
        "WIREGUARD_PUBLIC_KEY", given.wireguard_public_key, section.public_key
    ) or key_of_first(given)
    preshared_key = pick.identity(
        "WIREGUARD_PRESHARED_KEY", given.wireguard_preshared_key, section.preshared_key
    )
    server = pick_server(pick, section)
    keepalive = pick.tuning(
        "WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL",
        given.wireguard_persistent_keepalive_interval,
        section.keepalive,
    )
    allowed = _allowed_ips(pick, section, alone=alone)
    if not public_key:
        pick.missing("wireguard_public_key", section.head)
    if pick.file and preshared_key and not section.preshared_key:
        pick.findings.warn(
            "WIREGUARD_PRESHARED_KEY",
            f"is added to the peer of {pick.file.path}, which has none; remove it if the file is "
            "complete",
        )
    if not public_key or not server:
        return None
    return SourcedPeer(
        public_key,
        server,
        allowed,
        preshared_key or default(None, "WIREGUARD_PRESHARED_KEY"),
        keepalive or default(DEFAULT_KEEPALIVE, "WIREGUARD_PERSISTENT_KEEPALIVE_INTERVAL"),
    )


def _allowed_ips(pick: Picker, section: PeerValues, *, alone: bool) -> Sourced[tuple[Network, ...]]:
    """Return the destinations of a peer; everything for a single peer without AllowedIPs."""
    allowed = pick.tuning(
        "WIREGUARD_ALLOWED_IPS", pick.values.wireguard_allowed_ips, section.allowed_ips
    )
    if not allowed:
        unreadable = pick.file and "AllowedIPs" in pick.file.unreadable
        if not alone and not unreadable and section.head:
            pick.findings.problem(
                section.head.where,
                "has a [Peer] without AllowedIPs; with several peers, each needs its own",
            )
        return default(EVERYTHING, "WIREGUARD_ALLOWED_IPS")
    where = allowed.origin.where
    for network in allowed.value:
        if network.is_multicast:
            pick.findings.warn(where, f"{network} is multicast, which never leaves the namespace")
    return Sourced(simplified(allowed.value, where, pick.findings), allowed.origin)


def _with_endpoints(tunnel: SourcedTunnel, pick: Picker) -> tuple[SourcedTunnel, ...]:
    """Return one tunnel for each of `WIREGUARD_ENDPOINTS`, or the tunnel itself."""
    choices = pick.values.wireguard_endpoints
    if not choices or len(tunnel.peers) != 1:
        return (tunnel,)
    found: dict[CandidatePeer, tuple[SourcedPeer, str]] = {}
    for choice in choices.value:
        one = replace(
            tunnel.peers[0],
            server=split(Sourced(choice.endpoint, choices.origin)),
            public_key=Sourced(choice.public_key, choices.origin)
            if choice.public_key
            else tunnel.peers[0].public_key,
        )
        if one.peer in found:
            pick.findings.info(
                choices.origin.where, f"{choice.endpoint} is listed twice; once is enough"
            )
        found.setdefault(one.peer, (one, choice.name or tunnel.name))
    return tuple(replace(tunnel, peers=(one,), name=name) for one, name in found.values())
