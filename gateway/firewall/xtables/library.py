"""python-iptables, and what has to be different in it for a process like ours.

Each part of this file says what is unsafe in version 1.2.0, and why. Besides, nothing here uses
`get_all_parameters` or `final_check`: they send the process's standard output through a pipe. The
rules of the kernel are compared by their bytes instead (`entry`).
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Any

from gateway.errors import FirewallError, MissingError
from gateway.firewall.xtables.entry import entry_size, lookup_by
from gateway.firewall.xtables.render import Extension, interface_of
from gateway.policy.rules import Family
from gateway.system import lean
from gateway.system.netns import Netns

with lean.later("shutil"), lean.later("tempfile"):  # they are for a compiler: not used here
    import ctypes.util

_SONAMES = {"c": "libc.so.6", "xtables": "libxtables.so.12"}
_SONAMES |= {"ip4tc": "libip4tc.so.2", "ip6tc": "libip6tc.so.2"}
"""The shared libraries by the names that python-iptables has for them."""


@contextmanager
def _quick_imports() -> Iterator[None]:
    """Let the library be imported without what takes it 120 ms.

    Without distutils it asks sysconfig, as it does since Python 3.12 (iptc/util.py), for one value
    out of 0.4 MiB. To find shared libraries it would run ldconfig five times; the loader itself
    finds them by their names.
    """
    hide_distutils = "distutils" not in sys.modules
    if hide_distutils:
        sys.modules["distutils"] = None  # type: ignore[assignment]
    find_library = ctypes.util.find_library
    ctypes.util.find_library = _SONAMES.get  # type: ignore[assignment]
    of_build = {"EXT_SUFFIX": EXTENSION_SUFFIXES[0]}
    try:
        with lean.later("sysconfig", get_config_var=of_build.get), lean.later("iptc.easy"):
            yield
    finally:
        ctypes.util.find_library = find_library
        if hide_distutils:
            del sys.modules["distutils"]


try:
    with _quick_imports():
        import iptc
        from iptc.xtables import XTablesError, xt_option_entry, xtables
except ModuleNotFoundError as err:
    if err.name != "iptc":
        raise
    raise MissingError(
        "python-iptables is not installed, which iptables needs",
        "leave FIREWALL_BACKEND out, so that nftables is used, or install gcc, libc6-dev and "
        "python3-dev and run `pip install 'portcullis[iptables]'` from the clone: "
        "`pip install '.[iptables]'`",
    ) from err
except (ImportError, AttributeError, OSError, TypeError) as err:  # a library is not there
    raise MissingError(
        f"python-iptables does not load ({err})", "install libip4tc2, libip6tc2 and libxtables12"
    ) from err

_errno_location = ctypes.CDLL(None)["__errno_location"]
_errno_location.restype = ctypes.POINTER(ctypes.c_int)


class _Rule4(iptc.Rule):  # type: ignore[misc]
    """An IPv4 rule whose target is never looked up as the name of a chain.

    The library opens every table of the kernel for that.
    """

    tables = ()


class _Rule6(iptc.Rule6):  # type: ignore[misc]
    """An IPv6 rule of the same kind."""

    tables = ()


LIBRARY_RULE: dict[Family, Any] = {Family.IPV4: _Rule4, Family.IPV6: _Rule6}
_LIBRARY_TABLE: dict[Family, Any] = {Family.IPV4: iptc.Table, Family.IPV6: iptc.Table6}

PROGRAM = {Family.IPV4: "iptables", Family.IPV6: "ip6tables"}
"""What the operator calls the tables of a family."""


@contextmanager
def opened(family: Family, name: str, netns: Netns) -> Iterator[Any]:
    """Read the table `name` of `netns`; raises FirewallError.

    Without autocommit, which drops the errors of a commit. The library keeps one object for each
    name, so it is closed again. Reading opens the socket that a later commit uses (libiptc.c,
    TC_INIT and TC_COMMIT), so only reading has to be done in the namespace.
    """
    where = f"{PROGRAM[family]} {name}"
    with translated(where):
        kernel = None
        try:
            with netns.entered(), translated(where):
                kernel = _LIBRARY_TABLE[family](name, autocommit=False)
                kernel.refresh()
            yield kernel
        finally:
            if kernel is not None:
                kernel.close()


TWO_WORDS = {"tcp-flags"}
"""The parameters that have two words: which flags are looked at, and which of them are set."""


@cache
def find_all_options() -> None:
    """Let the library find every option of an extension; see `entry.lookup_by`. Once."""
    options = iptc.Rule().create_match("conntrack")._module.x6_options  # noqa: SLF001 - no other way
    xtables._option_lookup = lookup_by(entry_size(options), xt_option_entry)  # noqa: SLF001


def filled(extension: Any, wanted: Extension) -> Any:
    """Give an extension of the library the parameters that are `wanted`, and return it."""
    for parameter, value in wanted.parameters:
        # A list, in which only a first word "!" means inversion.
        words = value.split() if parameter in TWO_WORDS else [value]
        extension.set_parameter(parameter, ["!", *words] if wanted.inverted else words)
    return extension


def exactly(interface: str) -> tuple[bytes, bytes]:
    """Return the name and the mask that match this interface and no other.

    `Rule6` sets a mask of 0x01 for each character, so that "lo" would also match "tun0"
    (iptc/ip6tc.py, set_in_interface).
    """
    name = interface_of(interface).encode()
    return name, b"\xff" * (len(name) + 1)


@contextmanager
def translated(subject: str) -> Iterator[None]:
    """Turn the library's errors into ours. The library drops errno; libc still has it.

    Only for an error of libiptc: any other leaves the number of some earlier call there.
    """
    try:
        yield
    except iptc.IPTCError as error:
        raise FirewallError(str(error), subject, _errno_location()[0]) from error
    except (XTablesError, ValueError, AttributeError) as error:
        raise FirewallError(str(error), subject) from error
    except OSError as error:
        raise FirewallError(str(error.strerror), subject, error.errno) from error
