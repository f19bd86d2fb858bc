"""Every exception class of the libraries that adapters use is translated, or cannot occur.

The lists are complete: a release of a library with another exception class fails here, so that
someone decides where it is caught.
"""

import importlib
import pkgutil
import struct

import dns.exception
import pytest
import yaml
from pyroute2.netlink import exceptions as netlink_errors
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from gateway.errors import (
    FirewallError,
    KernelError,
    NetworkError,
    ProcessError,
    TunnelError,
    is_shortage,
)
from gateway.firewall.xtables import library
from gateway.system import netlink, process
from gateway.system.netns import OWN

IPTC = {"iptc.ip4tc.IPTCError", "iptc.errors.XTablesError"}
"""Raised by tables and rules of python-iptables; translated in `xtables/library.py`."""

PYROUTE2 = {
    "NetlinkError": "sockets of pyroute2, which are not used, and decoders",
    "NetlinkDecodeError": "decoders",
    "NetlinkHeaderDecodeError": "decoders",
    "NetlinkDataDecodeError": "decoders",
    "NetlinkNLADecodeError": "decoders",
    "NetlinkDumpInterrupted": "sockets of pyroute2",
    "IPSetError": "ipset, which is not used",
    "SkipInode": "the diagnosis of sockets, which is not used",
    "ChaoticException": "tests of pyroute2",
}
"""The exceptions of pyroute2's messages, and what raises them; all are translated all the same."""

H11 = {
    "h11._util.ProtocolError": "the base of the others",
    "h11._util.RemoteProtocolError": "answered with a 4xx in `services/health/server.py`",
    "h11._util.LocalProtocolError": "a fault of ours: an answer that HTTP does not allow",
}
NO_DNS_EXCEPTIONS = {
    "dns._no_ssl.SSLWantReadError": "DNS over TLS, which is not used",
    "dns._no_ssl.SSLWantWriteError": "DNS over TLS",
    "dns._no_ssl.WantReadException": "DNS over TLS",
    "dns._no_ssl.WantWriteException": "DNS over TLS",
    "dns.btree.Immutable": "zones, which are not used",
}
"""The classes of dnspython that are not a DNSException, which `system/lookup.py` catches."""


def exceptions_of(package: str) -> dict[str, type[BaseException]]:
    """Return every exception class that the modules of `package` define, by its dotted name."""
    root = importlib.import_module(package)
    names = [it.name for it in pkgutil.walk_packages(root.__path__, f"{package}.")]
    found: dict[str, type[BaseException]] = {}
    for name in (package, *names):
        try:
            module = importlib.import_module(name)
        except (ImportError, AttributeError, SyntaxError):  # a part with needs of its own
            continue
        found |= {
            f"{it.__module__}.{it.__qualname__}": it
            for it in vars(module).values()
            if isinstance(it, type)
            and issubclass(it, BaseException)
            and it.__module__.split(".")[0] == package
        }
    return found


def made(kind: type[BaseException]) -> BaseException:
    """Return an exception of `kind`, whatever its constructor wants."""
    return kind.__new__(kind)


def test_python_iptables_has_the_exceptions_that_we_translate() -> None:
    """All of them become a FirewallError, with errno where libiptc has one."""
    found = exceptions_of("iptc")
    assert set(found) == IPTC
    for kind in found.values():
        with pytest.raises(FirewallError), library.translated("a table"):
            raise made(kind)


def test_pyroute2_has_the_exceptions_that_we_know() -> None:
    """Control for the next test: it raises all that there are."""
    found = {
        name
        for name, it in vars(netlink_errors).items()
        if isinstance(it, type) and issubclass(it, BaseException) and "pyroute2" in it.__module__
    }
    assert found == set(PYROUTE2)


class Answered(netlink.Netlink):
    """A netlink protocol whose answers come from the test; everything else is the real class."""

    def _send(self, *_: object, **__: object) -> object:  # type: ignore[override]
        yield b"an answer", 0


@pytest.mark.parametrize("error", [NetworkError, TunnelError])
@pytest.mark.parametrize(
    "kind",
    [*(getattr(netlink_errors, name) for name in PYROUTE2), struct.error, KeyError, ValueError],
)
def test_what_pyroute2_raises_is_translated(
    kind: type[BaseException], error: type[KernelError]
) -> None:
    """Into the error of the adapter that asked, for one answer and for a list."""

    class Unreadable(ifinfmsg):  # type: ignore[misc]
        """A message whose decoder fails."""

        def decode(self) -> None:
            raise made(kind)

    asked = Answered(OWN, 0, error)
    for ask in (
        lambda: asked.get("read link", "eth0", Unreadable(), 0),
        lambda: asked.dump("list links", Unreadable(), 0),
        lambda: asked.change("set link up", "eth0", Unreadable(), 0),
    ):
        with pytest.raises(error, match="cannot be read"):
            ask()


def test_a_shortage_of_memory_is_not_called_an_unreadable_answer() -> None:
    """It may be over in a second."""

    class Large(ifinfmsg):  # type: ignore[misc]
        """A message that does not fit into memory."""

        def decode(self) -> None:
            raise MemoryError

    with pytest.raises(MemoryError) as caught:
        Answered(OWN, 0).get("read link", "eth0", Large(), 0)
    assert is_shortage(caught.value)


def test_h11_has_the_exceptions_that_we_know() -> None:
    """A client can provoke one of them, which `unit/test_health.py` does."""
    assert set(exceptions_of("h11")) == set(H11)


def test_what_dnspython_raises_has_one_base() -> None:
    """So that one clause catches all; the exceptions to that are of parts that are not used."""
    others = {
        name
        for name, kind in exceptions_of("dns").items()
        if not issubclass(kind, dns.exception.DNSException)
    }
    assert others <= set(NO_DNS_EXCEPTIONS)


def test_what_yaml_raises_has_one_base() -> None:
    """`gateway check` reports it as a wrong file."""
    kinds = exceptions_of("yaml").values()
    assert {kind for kind in kinds if not issubclass(kind, yaml.YAMLError)} == set()


def test_a_program_that_cannot_be_executed_is_an_error_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The OSError of exec(3), here for a directory."""
    monkeypatch.setattr(process, "find_program", lambda name: name)
    with pytest.raises(ProcessError, match="could not be started"):
        process.run(["/"])
