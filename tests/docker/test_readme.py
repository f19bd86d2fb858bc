"""The four commands of the README, from a clone to the address that others see, as they are.

What is merged over what they write is only what this machine is: its network, and a workload that
is on it. The address echo is the site's.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.docker.box import LAB_VOLUME, PYTHON, Box
from tests.docker.engine import call
from tests.docker.images import LAB, ROOT
from tests.docker.providers import customer
from tests.docker.set_up import remove
from tests.docker.site import BEYOND, EXIT, HOST, INSIDE, PORT, SERVER, UPLINK, Site, temporary
from tests.lab.hosts import http

pytestmark = pytest.mark.docker

PRIVATE: Final = "IiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiI="
ADDRESS: Final = "10.64.0.99"
FOUR: Final = re.compile(r"## Start\n.*?```sh\n(.*?)```", re.DOTALL)
ECHO: Final = re.compile(r"https://\S+")
ECHO_HERE: Final = "198.18.20.82"
BOXES: Final = ("anchor", "gateway", "workload")

DOCKER: Final = """\
#!/bin/sh
if [ "$1" = compose ] && command -v docker-compose > /dev/null; then
    shift
    if [ "$1" = exec ]; then shift; exec docker-compose exec -T "$@"; fi
    exec docker-compose "$@"
fi
exec {docker} "$@"
"""
"""Compose 1 under the name of Compose 2; with `-T` because the test has no terminal."""


def commands() -> list[str]:
    """Return the commands of the README's first block, a line each."""
    (block,) = FOUR.findall((ROOT / "README.md").read_text("utf-8"))
    lines = (line.partition("  #")[0].strip() for line in block.splitlines())
    return [line for line in lines if line]


def machine() -> str:
    """Return what is merged over the file of `init`: what this machine is."""
    workload = {
        "image": LAB,
        "entrypoint": [*PYTHON, "/lab/services.py", "[]"],
        "stdin_open": True,
        "volumes": [LAB_VOLUME],
    }
    services: dict[str, dict[str, object]] = {name: {"container_name": name} for name in BOXES}
    services["workload"] |= workload
    networks = {"default": {"external": True, "name": UPLINK}}
    return json.dumps({"services": services, "networks": networks})


def clone(folder: Path) -> None:
    """Copy what a clone has: every file of the project that git does not ignore."""
    words = ("git", "-c", "safe.directory=*", "ls-files", "-z")
    listed = subprocess.run(
        [*words, "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)


@pytest.fixture
def place(site: Site, tmp_path: Path) -> Iterator[Path]:
    """Yield a clone with a provider's file in it, and what this machine is."""
    folder = tmp_path / "readme"
    clone(folder)
    temporary(
        folder,
        "wg0.conf",
        f"[Interface]\nPrivateKey = {PRIVATE}\nAddress = {ADDRESS}/32\nDNS = {INSIDE.ipv4}\n"
        f"[Peer]\nPublicKey = {site.server_keys.public}\nAllowedIPs = 0.0.0.0/0\n"
        f"Endpoint = {SERVER.ipv4}:{PORT}\n",
    )
    shim = temporary(tmp_path / "bin", "docker", DOCKER.format(docker=shutil.which("docker")))
    shim.chmod(0o755)
    others = site.run(
        *("others", "-v", LAB_VOLUME, "--network", BEYOND, "--ip", ECHO_HERE),
        command=[*PYTHON, "/lab/services.py", json.dumps([http(ECHO_HERE, 80)])],
    )
    with customer(site, PRIVATE, ADDRESS):
        yield folder
        remove(site, [others, *(Box(site.engine, name) for name in BOXES)])


def test_four_commands_lead_from_a_clone_to_a_verified_exit_address(
    site: Site, place: Path, tmp_path: Path
) -> None:
    """The last one reports the server's address. Control: the machine itself has another one."""
    env = dict(site.engine.environment)
    env["PATH"] = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    four = commands()
    assert len(four) == 4
    assert ECHO.search(four[-1])
    said = ""
    for command in four:
        here = ECHO.sub(f"http://{ECHO_HERE}/", command)
        if command.startswith("docker compose up"):
            (place / "compose.override.yml").write_text(machine())
        said = call(["bash", "-ec", here], env=env, cwd=place, timeout=180)
    assert f"address seen by http://{ECHO_HERE}/" in said
    assert EXIT.ipv4 in said, said
    assert "As promised." in said
    workload = Box(site.engine, "workload")
    assert workload.probe("tcp", host=HOST.ipv4).seen == EXIT.ipv4
    assert site.machine.probe("tcp", host=HOST.ipv4).seen not in {EXIT.ipv4, ""}
    mode = (place / "secrets" / "wg0.conf").stat().st_mode & 0o777
    assert mode == 0o600
