"""Libraries of which the gateway imports only a part: memory is held for months.

A package imports all of its parts where it offers them together, and some of those import much more
than they are worth here. So the package is left empty in this process, and has only the parts that
are asked for. Where others have imported it before, it is used as it is.
"""

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType, SimpleNamespace
from typing import Any


def import_inspect() -> None:
    """Import what dataclasses and asyncio need of inspect. To be called before they are imported.

    It reads no source code for them, so that it does without ast, which takes 0.6 MiB.
    """
    with later("ast", NodeVisitor=object):
        importlib.import_module("inspect")


def leave_out() -> None:
    """Have what is imported from now on do without what the running gateway does not use.

    The standard library does without the modules named here, which would take 8 MiB. A Python that
    was built without hashes of its own (as Fedora's) needs OpenSSL's.
    """
    unused = ["ssl", "bz2", "lzma", *(["_hashlib"] if _has_own_hashes() else [])]
    for module in unused:
        sys.modules.setdefault(module, None)  # type: ignore[arg-type]
    with later("asyncio.sslproto"), later("locale"):  # asyncio and subprocess ask for them
        _import_structlog()


def _has_own_hashes() -> bool:
    """Return whether this Python has each hash that hashlib offers, since 3.12 by other modules."""
    of_sha2 = ("_sha2",) if sys.version_info >= (3, 12) else ("_sha256", "_sha512")
    return all(
        importlib.util.find_spec(it) for it in ("_md5", "_sha1", *of_sha2, "_sha3", "_blake2")
    )


@contextmanager
def pyroute2() -> Iterator[None]:
    """Have pyroute2 as an empty package, with settings that name nothing of other libraries.

    The settings take 0.3 MiB for what messages do not use. Another version may have more of them:
    then it gets the libraries themselves.
    """
    if _empty_package("pyroute2"):
        _import_settings_of_pyroute2()
    yield


def _import_settings_of_pyroute2() -> None:
    found = os.uname()
    uname = {"system": found.sysname, "node": found.nodename, "release": found.release}
    uname |= {"version": found.version, "machine": found.machine}
    machine = {
        "uname": lambda: SimpleNamespace(**uname),
        "machine": lambda: found.machine,
        "architecture": lambda **_: ("",),
    }
    with (
        suppress(ImportError, AttributeError, TypeError),
        stand_in("multiprocessing", Pipe=None, Queue=None, Process=None),
        stand_in("platform", **machine),
    ):
        importlib.import_module("pyroute2.config")


def _empty_package(name: str) -> ModuleType | None:
    """Put the package `name` into `sys.modules` without running it, and return it.

    None where it is imported already, or not installed.
    """
    found = None if name in sys.modules else importlib.util.find_spec(name)
    if found is None:
        return None
    package = sys.modules[name] = importlib.util.module_from_spec(found)
    return package


@contextmanager
def stand_in(name: str, **attributes: Any) -> Iterator[None]:
    """Have other modules import `attributes` as the module `name`, unless that is there already."""
    if name in sys.modules:
        yield
        return
    module = sys.modules[name] = ModuleType(name)
    vars(module).update(attributes)
    try:
        yield
    finally:
        if sys.modules.get(name) is module:
            del sys.modules[name]


@contextmanager
def later(name: str, **attributes: Any) -> Iterator[None]:
    """Have other modules import one in place of `name` that imports it when more is asked of it.

    More than `attributes`, which it has without that. It is not for packages: no module in one
    would be found.
    """

    def attribute(wanted: str) -> Any:
        if wanted.startswith("__"):  # of Python itself, which asks every module
            raise AttributeError(wanted)
        if getattr(sys.modules.get(name), "__getattr__", None) is attribute:
            del sys.modules[name]
        return getattr(importlib.import_module(name), wanted)

    with stand_in(name, __getattr__=attribute, **attributes):
        yield


def _import_structlog() -> None:
    """Import structlog without its renderer for developers and its adapters of other loggers.

    Those take 0.5 MiB. If another version has its parts elsewhere, all of it is imported.
    """
    package = _empty_package("structlog")
    if package is None:
        return
    try:
        # `gateway.log` sets processors of its own, so these are not used.
        unused = {"ConsoleRenderer": lambda **_: str, "_has_colors": False, "set_exc_info": str}
        with stand_in("structlog.dev", **unused):
            _config = importlib.import_module("structlog._config")
        _native = importlib.import_module("structlog._native")
        _output = importlib.import_module("structlog._output")
        importlib.import_module("structlog.processors")
        vars(package).update(
            configure=_config.configure,
            get_logger=_config.get_logger,
            make_filtering_bound_logger=_native.make_filtering_bound_logger,
            WriteLoggerFactory=_output.WriteLoggerFactory,
        )
    except (ImportError, AttributeError):
        for name in [it for it in sys.modules if it.split(".")[0] == "structlog"]:
            del sys.modules[name]
        importlib.import_module("structlog")
