"""The import table of docs/architecture.md: which part imports which."""

import ast
import re
import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
GATEWAY = PROJECT / "gateway"

IMPORTS = {
    "__main__": {"cli", "lock"},
    "cli": {"commands", "daemon", "errors", "log", "settings", "system"},
    "commands": {
        "errors",
        "firewall",
        "model",
        "policy",
        "providers",
        "services",
        "settings",
        "system",
        "tunnel",
    },
    "daemon": {
        "control",
        "errors",
        "firewall",
        "model",
        "policy",
        "providers",
        "services",
        "settings",
        "system",
        "tunnel",
    },
    "firewall": {"errors", "model", "policy", "system"},
    "lock": {"errors", "system"},
    "log": {"log_text", "system"},
    "log_text": set(),
    "services": {"control", "errors", "model", "policy", "providers", "system"},
    "control": {"model"},
    "tunnel": {"errors", "model", "policy", "system"},
    "system": {"errors", "model", "policy"},
    "policy": {"model"},
    "settings": {"errors", "model", "providers"},
    "providers": {"model"},
    "errors": set(),
    "model": set(),
}
"""Each part of `gateway/`, a package or a module at its top, and the parts that it imports."""

UNDRAWN = {"errors", "log_text", "model"}
"""Parts that nearly every other part imports: the diagram leaves their arrows out."""

FLOORS = 7
"""The most parts that may lie one above the other."""

ONLY_IMPORTER = {
    "iptc": {"gateway/firewall/xtables/library.py"},
    "subprocess": {"gateway/system/process.py"},
    "structlog": {
        "gateway/daemon/remembering.py",
        "gateway/daemon/block_lists.py",
        "gateway/daemon/public_addresses.py",
        "gateway/daemon/adopting.py",
        "gateway/daemon/securing.py",
        "gateway/daemon/services.py",
        "gateway/daemon/last_barrier.py",
        "gateway/daemon/ending.py",
        "gateway/daemon/holding.py",
        "gateway/daemon/names.py",
        "gateway/daemon/vaulting.py",
        "gateway/daemon/patience.py",
        "gateway/daemon/producers.py",
        "gateway/daemon/refreshing.py",
        "gateway/daemon/reloading.py",
        "gateway/daemon/enforced.py",
        "gateway/daemon/enforcement.py",
        "gateway/daemon/looks.py",
        "gateway/services/resolver/blocking.py",
        "gateway/services/control/service.py",
        "gateway/services/control/talk.py",
        "gateway/services/hooks.py",
        "gateway/services/port_client/service.py",
        "gateway/services/ports/service.py",
        "gateway/services/ports/news.py",
        "gateway/services/ports/signed.py",
        "gateway/services/resolver/lines.py",
        "gateway/services/resolver/service.py",
        "gateway/services/proxies/service.py",
        "gateway/cli.py",
        "gateway/lock/last_resort.py",
        "gateway/log.py",
        "gateway/daemon/reporter.py",
        "gateway/daemon/setback.py",
        "gateway/daemon/loop.py",
        "gateway/tunnel/userspace.py",
    },
}
NAMESPACED = {"system", "tunnel", "firewall"}
IN_ANY_NAMESPACE = {
    "system/netns.py",  # the one place that knows what belongs to a namespace
    "system/features.py",  # what the kernel has at all, in every namespace
    "firewall/xtables/matches.py",  # so is this
    "system/vault.py",  # a unix socket with a path, and what another process has opened
    "system/resolver_control.py",  # a unix socket with a path, which belongs to the file system
    "tunnel/userspace.py",  # a unix socket with a path, which belongs to the file system
    "tunnel/conversation.py",  # so is this
}
"""Modules in which a socket may be made without a namespace."""
PYROUTE2_PARTS = {"system", "tunnel"}
PURE = {"__future__", "collections", "dataclasses", "enum", "functools", "hashlib", "hmac"}
PURE |= {"ipaddress", "itertools", "re", "struct", "types", "typing"}

MODULES = sorted(GATEWAY.rglob("*.py"))
TOP = {"__init__", "__main__", "cli", "errors", "log", "log_text"}
LINES = 300
LONG = {}

ADAPTERS = [path for path in MODULES if path.parts[len(GATEWAY.parts)] in NAMESPACED]
BY_THREAD = re.compile(r"\bsocket\.(?:socket|socketpair|create_connection|if_\w+)\(")
PROC_NET = re.compile(r"self/net\b|/proc/(?:sys/)?net\b")


def module(path: Path) -> str:
    """Return the dotted name of the module in the file `path`."""
    name = ".".join(path.relative_to(PROJECT).parts).removesuffix(".py")
    return name.removesuffix(".__init__")


KNOWN = {module(path) for path in MODULES}


@cache
def imports(path: Path) -> set[str]:
    """Return the dotted names of all modules that `path` imports, at its top or later."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in KNOWN else str(node.module))
    return found


def part(name: str) -> str:
    """Return the part that a module is in, by its dotted name: its package, or the module."""
    return name.split(".")[1] if name.startswith("gateway.") else ""


def edges(name_of: Callable[[str], str]) -> dict[str, set[str]]:
    """Return which module imports which; `name_of` maps a dotted name to what is compared."""
    found: dict[str, set[str]] = {}
    for path in MODULES:
        own = name_of(module(path))
        others = {name_of(name) for name in imports(path) & KNOWN} - {own, ""}
        found[own] = found.get(own, set()) | others
    found.pop("", None)
    return found


def floors(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """Return the nodes floor by floor, the ones that import nothing first.

    Fails when there is a circle.
    """
    built: list[set[str]] = []
    below: set[str] = set()
    while below != set(graph):
        floor = {node for node in set(graph) - below if graph[node] <= below}
        assert floor, f"a circle among {sorted(set(graph) - below)}"
        built.append(floor)
        below |= floor
    return built


def test_each_part_imports_what_the_table_lists_and_nothing_else() -> None:
    """A line without an import fails too."""
    assert edges(part) == IMPORTS


def test_the_diagram_shows_the_table() -> None:
    """All arrows except those to `errors` and `model`, which would hide the others."""
    text = (PROJECT / "docs" / "architecture.md").read_text("utf-8")
    diagram = re.findall(r"```mermaid\n(.*?)```", text, re.DOTALL)[0]
    drawn = {
        name: set(imported.split(" & "))
        for name, imported in re.findall(r"^ +(\w+) --> ([\w &]+)$", diagram, re.MULTILINE)
    }
    assert drawn == {
        name: others for name, imported in IMPORTS.items() if (others := imported - UNDRAWN)
    }


def test_data_flows_one_way() -> None:
    """From the model up to the command line: no circle, and few floors."""
    assert len(floors(edges(part))) <= FLOORS


def test_no_module_imports_itself_in_a_circle() -> None:
    """Inside the packages too."""
    assert floors(edges(lambda name: name))


def test_a_circle_and_a_tower_are_found() -> None:
    """Positive control."""
    assert floors({"a": {"b"}, "b": set()}) == [{"b"}, {"a"}]
    with pytest.raises(AssertionError, match="circle"):
        floors({"a": {"b"}, "b": {"a"}})


@pytest.mark.parametrize("library", ONLY_IMPORTER)
def test_only_listed_modules_import_these_libraries(library: str) -> None:
    """An adapter hides each of these APIs from the rest."""
    importers = {
        str(path.relative_to(PROJECT))
        for path in MODULES
        if library in {name.split(".")[0] for name in imports(path)}
    }
    assert importers <= ONLY_IMPORTER[library]


def test_pyroute2_stays_at_the_kernel_edge() -> None:
    """Only the adapters know netlink."""
    parts = {
        part(module(p)) for p in MODULES if "pyroute2" in {n.split(".")[0] for n in imports(p)}
    }
    assert parts <= PYROUTE2_PARTS


@pytest.mark.parametrize("path", sorted((GATEWAY / "policy").glob("*.py")), ids=lambda p: p.name)
def test_policy_knows_no_clock_no_chance_and_no_machine(path: Path) -> None:
    """Pure code imports only other pure code."""
    foreign = {name.split(".")[0] for name in imports(path)} - {"gateway"}
    assert foreign <= PURE


@pytest.mark.parametrize("path", ADAPTERS, ids=lambda p: str(p.relative_to(GATEWAY)))
def test_an_adapter_acts_on_the_namespace_that_it_is_given(path: Path) -> None:
    """Sockets, indexes of links and files of /proc are those of the calling thread's namespace."""
    text = path.read_text("utf-8")
    if str(path.relative_to(GATEWAY)) not in IN_ANY_NAMESPACE:
        assert not BY_THREAD.findall(text)
        assert not PROC_NET.search(text) or "netns" in text


def test_what_belongs_to_a_namespace_is_found() -> None:
    """Positive control: where it is allowed it is there, so the patterns find it."""
    for name in IN_ANY_NAMESPACE:
        text = (GATEWAY / name).read_text("utf-8")
        assert BY_THREAD.search(text) or PROC_NET.search(text), name
    assert PROC_NET.search('Path("/proc/thread-self/net") / "udp"')


def test_the_health_check_imports_only_the_standard_library() -> None:
    """It runs every few seconds for months: no import of the gateway or of any library."""
    for path in (PROJECT / "healthcheck").glob("*.py"):
        assert not any(name.split(".")[0] in {"gateway", "pyroute2"} for name in imports(path))


def test_no_other_file_is_longer_than_the_limit() -> None:
    """A longer one has two subjects."""
    long = {str(p.relative_to(PROJECT)): len(p.read_text("utf-8").splitlines()) for p in MODULES}
    assert not {name: lines for name, lines in long.items() if lines > LINES and name not in LONG}


def test_only_these_modules_lie_at_the_top() -> None:
    """Everything else has a subject, and a package for it."""
    assert {path.stem for path in GATEWAY.glob("*.py")} == TOP


def test_everything_in_the_tree_is_in_the_package() -> None:
    """Packages and data files are listed one by one; a forgotten one is missing in the image."""
    setup = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    packages = {".".join(p.parent.relative_to(PROJECT).parts) for p in GATEWAY.rglob("__init__.py")}
    assert set(setup["packages"]) == packages | {"healthcheck"}
    listed = {
        f"{package.replace('.', '/')}/{name}"
        for package, names in setup["package-data"].items()
        for name in names
    }
    files = {
        path for path in GATEWAY.rglob("*") if path.is_file() and "__pycache__" not in str(path)
    }
    assert {str(path.relative_to(PROJECT)) for path in files if path.suffix != ".py"} == listed
