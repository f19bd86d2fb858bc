"""What the running gateway imports, and what it leaves to others: memory is held for months."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.test_healthcheck import saying, server

PROJECT = Path(__file__).resolve().parents[2]
SCRIPT = """
import json, sys
sys.path.insert(0, {project!r})
{code}
print(json.dumps(sorted(sys.modules)))
"""


def output_of(code: str) -> str:
    """Return what an interpreter writes while it runs `code`, and then the modules it has."""
    script = SCRIPT.format(project=str(PROJECT), code=code)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return done.stdout


def modules_after(code: str) -> set[str]:
    """Return the modules that an interpreter has imported after `code`."""
    return set(json.loads(output_of(code)))


RUN = """
from gateway import cli
from gateway.system.lean import import_inspect, leave_out
import_inspect()
leave_out()
from gateway.settings.reading import Reading
import gateway.daemon.securing, gateway.daemon.main, gateway.log
"""


@pytest.fixture(scope="module")
def running() -> set[str]:
    """Return what `gateway run` imports in the gateway's own process."""
    return modules_after(RUN)


@pytest.mark.parametrize(
    "name",
    [
        "pydantic", "pydantic_settings", "yaml", "dotenv", "gateway.settings.assemble",
        "gateway.settings.schema", "pyroute2.ndb", "pyroute2.iproute", "pyroute2.ethtool",
        "prometheus_client", "iptc", "argparse", "gateway.commands.check", "unittest.mock",
        "gateway.firewall.nft.hijack", "gateway.policy.hijack", "gateway.services.resolver.service",
        "structlog.dev", "structlog.stdlib", "structlog.threadlocal", "uuid", "platform",
        "multiprocessing", "ast", "locale", "shutil", "asyncio.sslproto",
    ],
)  # fmt: skip
def test_the_running_gateway_does_without(running: set[str], name: str) -> None:
    """What reads the configuration, other commands, and interfaces that nothing here uses."""
    assert "gateway.daemon.loop" in running, "control: this is the gateway"
    assert name not in running


def test_iptables_needs_no_compiler() -> None:
    """Nor what goes with one. Control: the library for it is there."""
    paths = "from gateway.lock import lockdown\nlockdown._set_library_paths()\n"
    found = modules_after(f"{paths}{RUN}import gateway.firewall.xtables.firewall")
    assert "iptc.ip6tc" in found
    assert not {"tempfile", "shutil", "sysconfig", "iptc.easy"} & found


COMPILED = """
for name, module in list(sys.modules.items()):
    for made in vars(module).values() if name.startswith("gateway.") else ():
        if isinstance(made, type) and made.__module__ == name:
            if vars(made).get("__dataclass_params__") and made.__dataclass_params__.frozen:
                print(name, made.__qualname__)
"""


def test_few_frozen_classes_are_compiled() -> None:
    """Each one costs the start half a millisecond, and 8 KiB; `gateway.model.frozen` does not."""
    *lines, _ = output_of(RUN + COMPILED).splitlines()
    found = {line.split()[0] for line in lines}
    assert found == {
        "gateway.errors",  # imports nothing of ours
        "gateway.model",  # one with an order
        "gateway.policy.rules",  # one whose fields are all given by name
        "gateway.settings.reading",  # so does its process
    }


STATUS = """
import os, sys
sys.path.insert(0, {project!r})
sys.stdout = open(os.devnull, "w")
sys.argv = ["gateway", *{arguments!r}]
from gateway.__main__ import main
code = main()
sys.stdout = sys.__stdout__
print(code, *sys.modules)
"""

LIGHT = {
    "gateway", "gateway.__main__", "gateway.cli", "gateway.lock", "gateway.lock.host",
    "gateway.lock.lockdown", "gateway.lock.rules", "gateway.commands",
    "gateway.commands.exit_codes", "gateway.commands.asking", "gateway.commands.showing",
    "gateway.commands.status", "healthcheck", "healthcheck.__main__",
}  # fmt: skip
"""What `gateway status` needs of the project."""

SLOW = {
    "argparse", "asyncio", "dataclasses", "inspect", "ipaddress", "json", "logging", "pathlib",
    "socket", "subprocess", "tempfile", "typing", "urllib.parse",
}  # fmt: skip
"""Modules of the standard library that take longer than all that it needs."""


def status_imports(*arguments: str) -> set[str]:
    """Return what `gateway status` imports, beyond what an interpreter has in any case."""
    with server(saying(b'HTTP/1.0 200 OK\r\n\r\n{"healthy": true}')) as (port, _):
        done = subprocess.run(
            [sys.executable, "-c", STATUS.format(project=str(PROJECT), arguments=arguments)],
            capture_output=True, text=True, check=True,
            env={"HEALTH_SERVER_ADDRESS": f"127.0.0.1:{port}"},
        )  # fmt: skip
    code, *found = done.stdout.split()
    assert code == "0", "control: the gateway was asked"
    bare = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(found) - set(bare.stdout.split())


def test_the_status_is_shown_without_what_takes_long_to_import() -> None:
    """`docker exec gateway gateway status` has 0.3 s, and most of that is the engine's."""
    found = status_imports("status")
    ours = {it for it in found if it.split(".")[0] in {"gateway", "healthcheck"}}
    assert ours == LIGHT
    assert found & SLOW == set()
    foreign = {it.split(".")[0].lstrip("_") for it in found - ours} - sys.stdlib_module_names
    assert foreign <= {it.lstrip("_") for it in sys.builtin_module_names}
    assert not {"pydantic", "pyroute2", "structlog", "h11"} & found


def test_what_takes_long_is_found() -> None:
    """Control: JSON is printed with the module for it, and a history has one for times."""
    assert "json" in status_imports("status", "--json")
    past = status_imports("status", "--history")
    assert "gateway.commands.past" in past
    assert past & SLOW == set()


def test_reading_the_configuration_imports_it_all() -> None:
    """The control for the names above: the child does."""
    found = modules_after("import gateway.settings.assemble")
    assert {"pydantic", "pydantic_settings", "gateway.settings.schema"} <= found


def test_the_validators_of_the_settings_are_built_once() -> None:
    """Each class of the chain has the variables of those before it: 65 ms of the start."""
    code = """
from gateway.settings.schema import Settings
chain = [one for one in Settings.__mro__ if "gateway.settings" in one.__module__]
Settings()
print(len(chain), [one.__name__ for one in chain if one.__pydantic_complete__])
"""
    built, _ = output_of(code).splitlines()
    assert built == "8 ['Settings']"


def test_structlog_works_without_the_parts_that_are_left_out() -> None:
    """Both forms of the log, a traceback, a value that JSON does not know, a level that is off."""
    code = """
from gateway.system.lean import leave_out
leave_out()
import structlog
from gateway import log
for form in ("text", "json"):
    log.configure("info", form)
    logger = structlog.get_logger()
    logger.debug("hidden")
    try:
        1 / 0
    except ZeroDivisionError:
        logger.error("shown", value=object, exc_info=True)
log.finish()
sys.stdout = sys.__stdout__
print()
"""
    *lines, _ = output_of(code).splitlines()
    text = "\n".join(lines)
    assert "hidden" not in text
    assert text.count("ZeroDivisionError") == 2
    assert json.loads(lines[-2])["value"] == "<class 'object'>"


OTHER_LIBRARY = """
import os, tempfile
directory = tempfile.mkdtemp()
os.mkdir(f"{directory}/structlog")
with open(f"{directory}/structlog/__init__.py", "w") as file:
    file.write("whole = True")
sys.path.insert(0, directory)
from gateway.system.lean import leave_out
leave_out()
import structlog
assert structlog.whole
"""


def test_another_version_of_structlog_is_imported_as_it_is() -> None:
    """Where its parts are not found, nothing is left out."""
    assert "structlog" in modules_after(OTHER_LIBRARY)


def test_a_python_without_hashes_of_its_own_keeps_those_of_openssl() -> None:
    """As Fedora's: without them nothing that draws lots can be imported. Control: ours has some."""
    code = """
import sys
for name in {missing}:
    sys.modules[name] = None
from gateway.system.lean import leave_out
leave_out()
import hashlib, random
assert len(hashlib.sha256().digest()) == 32
print(sys.modules["_hashlib"])
"""
    of_others = output_of(code.format(missing=("_sha2", "_sha256", "_sha512", "_sha3")))
    assert of_others.startswith("<module '_hashlib'")
    assert output_of(code.format(missing=())).startswith("None")


def test_stand_ins_are_for_what_is_not_there() -> None:
    """One that is imported already stays, and no stand-in remains."""
    code = """
import json as before, importlib
from gateway.system.lean import stand_in
with stand_in("json", loads=1), stand_in("uuid", UUID=1):
    import json, uuid
    assert json is before
    assert uuid.UUID == 1
assert sys.modules["json"] is before
assert "uuid" not in sys.modules
"""
    assert "json" in modules_after(code)


def test_what_is_imported_later_is_there_when_it_is_asked_for() -> None:
    """In its whole, also if it is needed at once."""
    code = """
from gateway.system.lean import later
with later("colorsys", ONE_THIRD=3):
    import colorsys as first
    assert first.ONE_THIRD == 3
assert "colorsys" not in sys.modules
assert first.rgb_to_yiq(0, 0, 0) == (0, 0, 0)
import colorsys as second
assert second.ONE_THIRD < 1
with later("uuid"):
    from uuid import UUID
import uuid
assert UUID is uuid.UUID
with later("uuid"):
    import uuid as third
assert third is uuid
"""
    assert {"colorsys", "uuid"} <= modules_after(code)


def test_inspect_reads_source_code_for_who_asks_for_that() -> None:
    """It imports ast then. Control: it has not, for what dataclasses ask."""
    code = """
from gateway.system.lean import import_inspect
import_inspect()
import inspect
assert str(inspect.signature(lambda one, *, two=2: None)) == "(one, *, two=2)"
assert inspect.iscoroutinefunction(lambda: 1) is False
assert "ast" not in sys.modules
assert "reverse=False" in str(inspect.signature(sorted))
"""
    assert "ast" in modules_after(code)


def test_pyroute2_is_there_for_who_has_imported_it() -> None:
    """The package is left empty only where it was not imported before."""
    found = modules_after("import pyroute2\nimport gateway.system.messages")
    assert "pyroute2.ndb" in found
    kept = modules_after(
        "import pyroute2\nbefore = pyroute2\nimport gateway.system.messages\n"
        "assert sys.modules['pyroute2'] is before\nassert pyroute2.IPRoute"
    )
    assert "pyroute2.iproute" in kept


def test_the_messages_of_wireguard_need_no_more_of_pyroute2() -> None:
    """They are imported where the kernel carries the tunnel."""
    code = "from gateway.system.messages import wireguard_message\nassert wireguard_message()"
    found = modules_after(code)
    assert "pyroute2.netlink.generic.wireguard" in found
    assert not {"pyroute2.ndb", "pyroute2.iproute"} & found
