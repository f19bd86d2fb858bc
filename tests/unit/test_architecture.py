"""The import table of docs/architecture.md: who may know whom."""

import ast
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
GATEWAY = PROJECT / "gateway"

SHARED = {"model", "errors"}
MAY_IMPORT = {
    "__main__": {"lockdown", "last_resort", "cli"},
    "lockdown": {"lock_rules", "last_resort", "system", "errors"},
    "lock_rules": set(),
    "last_resort": SHARED | {"system", "settings", "log", "log_writer"},
    "cli": SHARED | {"app", "commands", "settings", "log"},
    "commands": SHARED | {"settings", "policy", "firewall", "system"},
    "app": SHARED
    | {
        "alongside",
        "firewall",
        "health",
        "parts",
        "policy",
        "supervisor",
        "system",
        "tunnel",
        "log",
    },
    "supervisor": SHARED
    | {"connector", "enforcement", "parts", "policy", "prober", "reporter", "setback"},
    "alongside": set(),
    "prober": {"model", "parts", "policy"},
    "reporter": {"enforcement", "parts", "policy", "setback"},
    "setback": SHARED | {"enforcement"},
    "connector": SHARED | {"enforcement", "parts", "policy"},
    "parts": SHARED | {"firewall", "needs", "policy", "tunnel"},
    "needs": {"model", "policy"},
    "enforcement": SHARED | {"firewall", "needs", "policy"},
    "health": SHARED | {"metrics"},
    "metrics": {"model"},
    "log": {"log_writer"},
    "log_writer": set(),
    "model": set(),
    "errors": set(),
    "settings": SHARED,
    "policy": {"model"},
    "firewall": SHARED | {"policy", "system"},
    "tunnel": SHARED | {"policy", "system"},
    "system": SHARED | {"policy"},
}
"""Each room of `gateway/`, and the other rooms whose names may stand in its imports."""

ONLY_IMPORTER = {
    "iptc": {"gateway/firewall/xtables/tables.py"},
    "subprocess": {"gateway/system/process.py"},
    "structlog": {
        "gateway/daemon/main.py",
        "gateway/daemon/workers.py",
        "gateway/daemon/enforcement.py",
        "gateway/services/hooks.py",
        "gateway/cli.py",
        "gateway/lock/last_resort.py",
        "gateway/log.py",
        "gateway/daemon/reporter.py",
        "gateway/daemon/setback.py",
        "gateway/daemon/loop.py",
        "gateway/tunnel/userspace.py",
    },
}
PYROUTE2_ROOMS = {"system", "tunnel"}
PURE = {"__future__", "collections", "dataclasses", "enum", "hashlib", "hmac", "ipaddress"}
PURE |= {"itertools", "types", "typing"}

MODULES = sorted(GATEWAY.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Return the dotted names of all modules that `path` imports, at its top or later."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = str(node.module)
            found.add(module)
            if module == "gateway":
                names = {alias.name for alias in node.names} - {"__version__"}
                found |= {f"gateway.{name}" for name in names}
    return found


def room(path: Path) -> str:
    """Return the room that a module of the gateway is in: its package, or its own name."""
    return path.relative_to(GATEWAY).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_a_module_imports_only_what_its_room_may_know(path: Path) -> None:
    """Data flows one way: model, policy, adapters, supervisor, app, cli."""
    own = room(path)
    if own == "__init__":
        return
    others = {name.split(".")[1] for name in imports(path) if name.startswith("gateway.")} - {own}
    assert others <= MAY_IMPORT[own], f"{path.name} may not import {others - MAY_IMPORT[own]}"


@pytest.mark.parametrize("library", ONLY_IMPORTER)
def test_a_library_with_teeth_has_one_keeper(library: str) -> None:
    """Foreign APIs that need care end at one adapter."""
    importers = {
        str(path.relative_to(PROJECT))
        for path in MODULES
        if library in {name.split(".")[0] for name in imports(path)}
    }
    assert importers <= ONLY_IMPORTER[library]


def test_pyroute2_stays_at_the_kernel_edge() -> None:
    """Only the adapters know netlink."""
    rooms = {room(p) for p in MODULES if "pyroute2" in {n.split(".")[0] for n in imports(p)}}
    assert rooms <= PYROUTE2_ROOMS


@pytest.mark.parametrize("path", sorted((GATEWAY / "policy").glob("*.py")), ids=lambda p: p.name)
def test_policy_knows_no_clock_no_chance_and_no_machine(path: Path) -> None:
    """Pure code imports values and nothing that could surprise."""
    foreign = {name.split(".")[0] for name in imports(path)} - {"gateway"}
    assert foreign <= PURE


def test_the_health_check_stands_alone() -> None:
    """It runs every few seconds for months: no import of the gateway or of any library."""
    for path in (PROJECT / "healthcheck").glob("*.py"):
        assert not any(name.split(".")[0] in {"gateway", "pyroute2"} for name in imports(path))


def test_a_file_can_be_read_in_one_sitting() -> None:
    """The limit is soft at 250 lines; what is longer than 400 has two subjects."""
    long = {str(p.relative_to(PROJECT)): len(p.read_text("utf-8").splitlines()) for p in MODULES}
    assert not {name: lines for name, lines in long.items() if lines > 400}
    strict = ("gateway/settings/", "gateway/commands/")
    assert not {name: n for name, n in long.items() if n > 300 and name.startswith(strict)}


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
