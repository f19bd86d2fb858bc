"""Finding and reading wg-quick files: which ones there are, and the typed values of each.

The places are looked at in the order of `PLACES`; the first that has a file is taken, and others
that have one are told. A folder may hold several files: candidates, in the order of their names,
`wg0.conf` first.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from gateway.model import Address
from gateway.settings import addresses, files, values, wgquick
from gateway.settings.addresses import allowed_ips, tell_host_bits
from gateway.settings.findings import Findings, joined
from gateway.settings.servers import is_name, server

PLACES: Final = (
    "/run/secrets/wg0.conf",
    "/run/secrets/wireguard_conf",
    "/config/*.conf",
    "/config/wg_confs/*.conf",
    "/gluetun/wireguard/wg0.conf",
    "/etc/wireguard/*.conf",
)
"""Where wg-quick files are looked for when no variable names one, the strongest first."""

_HOOKS: Final = ("PreUp", "PostUp", "PreDown", "PostDown")


@dataclass(frozen=True)
class Value:
    """A typed value of a file and the line that it stands on."""

    value: Any
    where: str


Part = Mapping[str, Value]
"""Values of one section, under the names of the variables that mean the same.

`head` of a peer has no value: it says on which line the section begins.
"""


@dataclass(frozen=True)
class ReadFile:
    """One wg-quick file, read: `unreadable` are the keys whose values could not be."""

    path: str
    interface: Part
    peers: tuple[Part, ...]
    unreadable: frozenset[str] = frozenset()


def find(root: Path, named: PurePosixPath | None, findings: Findings) -> tuple[PurePosixPath, ...]:
    """Return the wg-quick files to use: the one that the user `named`, else those of a place."""
    places = [found for place in PLACES if (found := tuple(_at(root, PurePosixPath(place))))]
    default = PurePosixPath(PLACES[0])
    if named and (named != default or files.exists(root, named)):
        places = [(named,), *(place for place in places if named not in place)]
    if not places:
        return ()
    for other in places[1:]:
        findings.warn(
            str(other[0]), f"is not used, because {places[0][0]} is there; remove one of them"
        )
    return places[0]


def _at(root: Path, place: PurePosixPath) -> Iterator[PurePosixPath]:
    if "*" not in place.name:
        if files.exists(root, place):
            yield place
        return
    folder = files.inside(root, place.parent)
    try:
        names = [found.name for found in folder.glob(place.name)]
    except OSError:
        names = []
    yield from (
        place.parent / name for name in sorted(names, key=lambda one: (one != "wg0.conf", one))
    )


def read(root: Path, path: PurePosixPath, findings: Findings, where: str = "") -> ReadFile | None:
    """Read one wg-quick file; what is wrong with it becomes problems with the line.

    `where` names the file in a message when it cannot be read at all, its path by default.
    """
    text = files.read(root, path, where or str(path), findings, secret=True)
    if text is None:
        return None
    form = wgquick.parse(text)
    for line, message in form.faults:
        findings.wrong(f"{path} line {line}", message)
    reader = _Reader(str(path), findings)
    interface = reader.interface(form.interface)
    peers = tuple(reader.peer(peer) for peer in form.peers)
    if not form.peers and not form.faults:
        findings.wrong(
            str(path), "has no [Peer]; a tunnel needs the server's PublicKey and Endpoint"
        )
    return ReadFile(str(path), interface, peers, frozenset(reader.unreadable))


class _Reader:
    """Reads the sections of one file."""

    def __init__(self, path: str, findings: Findings) -> None:
        self.path = path
        self.findings = findings
        self.unreadable: set[str] = set()

    def interface(self, section: wgquick.Section) -> Part:
        part = {
            "wireguard_private_key": self._last(section, "PrivateKey", values.secret_key),
            "wireguard_addresses": self._many(section, "Address", _by_blanks(addresses.interfaces)),
            "dns_address": self._many(section, "DNS", _by_blanks(_resolver_or_domain)),
            "wireguard_mtu": self._last(section, "MTU", values.mtu),
            "listen_port": self._last(section, "ListenPort", _listen_port),
            "fwmark": self._last(section, "FwMark", values.fwmark),
        }
        self._tell_ignored(section)
        return {name: value for name, value in part.items() if value is not None}

    def peer(self, section: wgquick.Section) -> Part:
        part = {
            "wireguard_public_key": self._last(section, "PublicKey", values.used_key),
            "wireguard_preshared_key": self._last(section, "PresharedKey", values.preshared_key),
            "wireguard_allowed_ips": self._many(section, "AllowedIPs", allowed_ips),
            "endpoint": self._last(section, "Endpoint", server),
            "wireguard_persistent_keepalive_interval": self._last(
                section, "PersistentKeepalive", values.keepalive
            ),
        }
        self._tell_allowed(section)
        part["head"] = Value(None, f"{self.path} line {section.line}")
        return {name: value for name, value in part.items() if value is not None}

    def _tell_allowed(self, section: wgquick.Section) -> None:
        """Tell what of `AllowedIPs` is read as something else than it says."""
        entries = section.all("AllowedIPs")
        for entry in entries:
            if "AllowedIPs" not in self.unreadable:
                tell_host_bits(entry.value, f"{self.path} line {entry.line}", self.findings)
        if entries and not any(entry.value for entry in entries):
            self.findings.tell(
                f"{self.path} line {entries[0].line}",
                "AllowedIPs is empty and counts as not there: everything goes to this peer",
            )

    def _last(
        self, section: wgquick.Section, name: str, parse: Callable[[str], Any]
    ) -> Value | None:
        entries = [entry for entry in section.all(name) if entry.value]
        if not entries:
            return None
        where = f"{self.path} line {entries[-1].line}"
        if len(entries) > 1:
            self.findings.tell(where, f"{name} stands several times; the last one counts")
        return self._read(where, name, parse, entries[-1].value)

    def _many(
        self, section: wgquick.Section, name: str, parse: Callable[[str], tuple[Any, ...]]
    ) -> Value | None:
        found: list[Any] = []
        first = ""
        for entry in section.all(name):
            where = f"{self.path} line {entry.line}"
            value = self._read(where, name, parse, entry.value)
            if value is not None:
                first = first or where
                found.extend(value.value)
        return Value(tuple(found), first) if found else None

    def _read(self, where: str, name: str, parse: Callable[[str], Any], text: str) -> Value | None:
        try:
            return Value(parse(text), where)
        except ValueError as err:
            self.findings.wrong(where, f"{name} {err}")
            self.unreadable.add(name)
            return None

    def _tell_ignored(self, section: wgquick.Section) -> None:
        hooks = [entry for name in _HOOKS for entry in section.all(name)]
        if hooks:
            names = joined(sorted({entry.name for entry in hooks}))
            self.findings.warn(
                f"{self.path} line {hooks[0].line}",
                f"{names}: commands in wg-quick files are never run; say what they were for in "
                "variables, such as FIREWALL_OUTBOUND_SUBNETS for the home network",
            )
        for entry in section.all("Table"):
            self.findings.tell(
                f"{self.path} line {entry.line}",
                "Table is not used: the gateway has a routing table of its own",
            )
        for entry in section.all("SaveConfig"):
            self.findings.tell(
                f"{self.path} line {entry.line}",
                "SaveConfig is not used: the file is never written",
            )


def _by_blanks(parse: Callable[[str], tuple[Any, ...]]) -> Callable[[str], tuple[Any, ...]]:
    """Let blanks separate entries, too: wg-quick(8) does so for its own keys, wg(8) does not."""
    return lambda text: parse(",".join(text.split()))


def _resolver_or_domain(text: str) -> tuple[Address | str, ...]:
    """Read a `DNS` line: what is no address is a search domain (wg-quick(8))."""
    return values.listed(text, _resolver_entry)


def _resolver_entry(text: str) -> Address | str:
    return text if is_name(text) else addresses.resolver(text)


def _listen_port(text: str) -> int | None:
    return None if text == "0" else values.port(text)
