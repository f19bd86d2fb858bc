"""Reads the typed values of a wg-quick file."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from gateway.model import Address, Endpoint, Interface, NamedEndpoint, Network, Secret
from gateway.model.frozen import frozen
from gateway.settings import addresses, values, wgquick
from gateway.settings.addresses import allowed_ips, report_host_bits
from gateway.settings.findings import Findings, joined
from gateway.settings.places import ConfFile
from gateway.settings.servers import is_name, server
from gateway.settings.sourced import Kind, Origin, Sourced

MOST_FAULTS: Final = 100
"""Lines of one file that are reported: one that is not a wg-quick file can have thousands."""

_HOOKS: Final = ("PreUp", "PostUp", "PreDown", "PostDown")


T = TypeVar("T")


@frozen
class InterfaceValues:
    """The values of `[Interface]`, each with its line; None for a key that is not there."""

    private_key: Sourced[Secret] | None = None
    addresses: Sourced[tuple[Interface, ...]] | None = None
    dns: Sourced[tuple[Address, ...]] | None = None
    mtu: Sourced[int | None] | None = None
    listen_port: Sourced[int | None] | None = None
    fwmark: Sourced[int | None] | None = None


@frozen
class PeerValues:
    """The values of one `[Peer]`, each with its line; `head` is where the section begins."""

    head: Origin | None = None
    public_key: Sourced[str] | None = None
    preshared_key: Sourced[Secret | None] | None = None
    endpoint: Sourced[Endpoint | NamedEndpoint] | None = None
    allowed_ips: Sourced[tuple[Network, ...]] | None = None
    keepalive: Sourced[int] | None = None


@frozen
class ReadFile:
    """One wg-quick file, read: `unreadable` are the keys whose values could not be."""

    path: str
    interface: InterfaceValues
    peers: tuple[PeerValues, ...]
    unreadable: frozenset[str] = frozenset()


def read(root: Path, file: ConfFile, findings: Findings, where: str = "") -> ReadFile | None:
    """Read one wg-quick file; every fault becomes a problem with its line.

    `where` names the file in a message when it cannot be read at all, its path by default.
    """
    path = str(file.path)
    text = file.text(root, where or path, findings)
    if text is None:
        return None
    form = wgquick.parse(text)
    for line, message in form.faults[:MOST_FAULTS]:
        findings.problem(f"{path} line {line}", message)
    if len(form.faults) > MOST_FAULTS:
        findings.problem(path, f"has {len(form.faults)} faults; the others are not listed")
    for line, message in form.remarks[:MOST_FAULTS]:
        findings.warn(f"{path} line {line}", message)
    reader = _Reader(path, findings)
    interface = reader.interface(form.interface)
    peers = tuple(reader.peer(peer) for peer in form.peers)
    if not form.peers and not form.faults:
        findings.problem(path, "has no [Peer]; a tunnel needs the server's PublicKey and Endpoint")
    return ReadFile(path, interface, peers, frozenset(reader.unreadable))


class _Reader:
    """Reads the sections of one file."""

    def __init__(self, path: str, findings: Findings) -> None:
        self.path = path
        self.findings = findings
        self.unreadable: set[str] = set()

    def interface(self, section: wgquick.Section) -> InterfaceValues:
        self._report_ignored(section)
        return InterfaceValues(
            private_key=self._last(section, "PrivateKey", values.secret_key),
            addresses=self._many(section, "Address", _by_blanks(addresses.interfaces)),
            dns=self._resolvers(section),
            mtu=self._last(section, "MTU", values.mtu),
            listen_port=self._last(section, "ListenPort", _listen_port),
            fwmark=self._last(section, "FwMark", values.fwmark),
        )

    def peer(self, section: wgquick.Section) -> PeerValues:
        found = PeerValues(
            head=self._origin(section.line),
            public_key=self._last(section, "PublicKey", values.used_key),
            preshared_key=self._last(section, "PresharedKey", values.preshared_key),
            allowed_ips=self._many(section, "AllowedIPs", allowed_ips),
            endpoint=self._last(section, "Endpoint", server),
            keepalive=self._last(section, "PersistentKeepalive", values.keepalive),
        )
        self._report_allowed(section)
        return found

    def _resolvers(self, section: wgquick.Section) -> Sourced[tuple[Address, ...]] | None:
        """Return the resolvers of `DNS` lines; search domains are reported."""
        entries = self._many(section, "DNS", _by_blanks(_resolver_or_domain))
        if not entries:
            return None
        domains = [one for one in entries.value if isinstance(one, str)]
        if domains:
            self.findings.info(
                entries.origin.where,
                f"the search domains {joined(map(values.safe_quote, domains))} are dropped; write "
                "names in full",
            )
        found = tuple(one for one in entries.value if not isinstance(one, str))
        return Sourced(found, entries.origin) if found else None

    def _report_allowed(self, section: wgquick.Section) -> None:
        """Report entries of `AllowedIPs` that are read differently from how they are written."""
        entries = section.all("AllowedIPs")
        for entry in entries:
            if "AllowedIPs" not in self.unreadable:
                report_host_bits(entry.value, f"{self.path} line {entry.line}", self.findings)
        if entries and not any(entry.value for entry in entries):
            self.findings.info(
                f"{self.path} line {entries[0].line}",
                "AllowedIPs is empty and is ignored: everything goes to this peer",
            )

    def _last(
        self, section: wgquick.Section, name: str, parse: Callable[[str], T]
    ) -> Sourced[T] | None:
        entries = [entry for entry in section.all(name) if entry.value]
        if not entries:
            return None
        if len(entries) > 1:
            where = self._origin(entries[-1].line).where
            self.findings.info(where, f"{name} is set several times; the last one counts")
        return self._read(entries[-1], parse)

    def _many(
        self, section: wgquick.Section, name: str, parse: Callable[[str], tuple[T, ...]]
    ) -> Sourced[tuple[T, ...]] | None:
        read = [self._read(entry, parse) for entry in section.all(name)]
        found = [one for one in read if one]
        whole = tuple(item for one in found for item in one.value)
        return Sourced(whole, found[0].origin) if whole else None

    def _read(self, entry: wgquick.Entry, parse: Callable[[str], T]) -> Sourced[T] | None:
        origin = self._origin(entry.line)
        try:
            return Sourced(parse(entry.value), origin)
        except ValueError as err:
            self.findings.problem(origin.where, f"{entry.name} {err}")
            self.unreadable.add(entry.name)
            return None

    def _origin(self, line: int) -> Origin:
        text = f"{self.path} line {line}"
        return Origin(text, text, Kind.WG_QUICK)

    def _report_ignored(self, section: wgquick.Section) -> None:
        hooks = [entry for name in _HOOKS for entry in section.all(name)]
        if hooks:
            names = joined(sorted({entry.name for entry in hooks}))
            self.findings.warn(
                f"{self.path} line {hooks[0].line}",
                f"{names}: commands in wg-quick files are never run; say what they were for in "
                "variables, such as FIREWALL_OUTBOUND_SUBNETS for the home network",
            )
        for entry in section.all("Table"):
            self.findings.info(
                f"{self.path} line {entry.line}",
                "Table is not used: the gateway uses its own routing table",
            )
        for entry in section.all("SaveConfig"):
            self.findings.info(
                f"{self.path} line {entry.line}",
                "SaveConfig is not used: the file is never written",
            )


def _by_blanks(parse: Callable[[str], tuple[T, ...]]) -> Callable[[str], tuple[T, ...]]:
    """Accept spaces as separators too, as wg-quick(8) does for its own keys; wg(8) does not."""
    return lambda text: parse(",".join(text.split()))


def _resolver_or_domain(text: str) -> tuple[Address | str, ...]:
    """Read a `DNS` line: what is not an address is a search domain (wg-quick(8))."""
    return values.comma_list(text, _resolver_entry)


def _resolver_entry(text: str) -> Address | str:
    return text if is_name(text) else addresses.resolver(text)


def _listen_port(text: str) -> int | None:
    return None if text == "0" else values.port(text)
