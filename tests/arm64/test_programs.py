"""The Python part, its extension in C, and its use of the kernel on arm64, under qemu-user."""

import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.arm64.root import LIBRARIES, PROJECT, ROOT, command
from tests.lab.process import PATIENCE

pytestmark = [pytest.mark.arm64, pytest.mark.timeout(0)]  # each command has its own limit

EM_AARCH64 = 183
IMPORTS = """
import importlib, os, pkgutil, sys
import gateway, healthcheck
for package in (gateway, healthcheck):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)
import iptc, pydantic_core, yaml._yaml
print(os.uname().machine, len([name for name in sys.modules if name.startswith("gateway.")]))
"""


VARIABLES = """
WIREGUARD_PRIVATE_KEY=WAjQ6lNOTQdpvbZm2OyeGhhVWi7pM4jOZvCDsZpVgGg=
WIREGUARD_PUBLIC_KEY=R6aYBPIJ3nFYnJ3NWdVWnTtBQ6mUL2P4eUNqYdGTL0k=
WIREGUARD_ADDRESSES=10.66.0.2/32,fd00::2/128
WIREGUARD_ENDPOINT_IP=192.0.2.1
WIREGUARD_ENDPOINT_PORT=51820
FIREWALL_OUTBOUND_SUBNETS=192.168.1.0/24
FIREWALL_INPUT_PORTS=8080
"""


def run(root: Path, argv: Sequence[str], *, given: str = "", limit: float = 1200) -> str:
    """Run a program of the root in the project's directory and return its output."""
    words = command(root, "env", "-C", PROJECT, *argv)
    done = subprocess.run(
        words,
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_every_module_is_imported_and_every_library_is_of_arm64(made: Path) -> None:
    """The extension in C of python-iptables among them, which was compiled there."""
    machine, number = run(made, ["python3", "-W", "ignore", "-c", IMPORTS]).split()
    assert machine == "aarch64"
    assert int(number) > 400
    libraries = list((made / LIBRARIES).rglob("*.so"))
    assert {"libxtwrapper", "_pydantic_core"} <= {path.name.partition(".")[0] for path in libraries}
    for path in libraries:
        assert struct.unpack_from("<H", path.read_bytes(), 18)[0] == EM_AARCH64, path


@pytest.mark.parametrize("firewall", ["iptables", "nftables"])
def test_a_configuration_means_the_same_as_here(made: Path, firewall: str) -> None:
    """All that `gateway check` says of it, with the rules of each state."""
    argv = ("-m", "gateway", "check", "--env-file", "-", "--rules", firewall)
    here = [sys.executable, *argv]
    said = subprocess.run(
        here, cwd=ROOT, input=VARIABLES, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    assert "192.0.2.1" in said
    assert run(made, ["python3", "-W", "ignore", *argv], given=VARIABLES) == said
