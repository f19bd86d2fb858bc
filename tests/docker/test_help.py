"""What helps people, in a container of the image: `gateway doctor` and `gateway init`."""

import os
import re
import stat
import time
from pathlib import Path

import pytest

from tests.configurations import OTHER_PRIVATE, QUICK
from tests.docker.images import PROJECT
from tests.docker.project import NUMBER, Project
from tests.docker.site import PORT, SERVER, Site, temporary
from tests.lab.process import PATIENCE

pytestmark = pytest.mark.docker

USER = (4711, 4712)
"""User and group of a folder that is not root's."""
LIMIT = 0.3
"""Seconds that `docker exec gateway gateway status` takes at most, the engine's part with it."""
RUNS = 20


@pytest.fixture
def folder(site: Site) -> Path:
    """Return a user's folder that has the file of a provider."""
    place = temporary(site.household.directory / "init", "wg0.conf", QUICK).parent
    os.chown(place, *USER)
    return place


def in_image(site: Site, folder: Path, *command: str) -> str:
    """Run a command of the image with the user's folder, as docs/start.md shows it."""
    mount = ("-v", f"{folder}:/work", "-w", "/work")
    return site.engine.docker("run", "--rm", "--network", "none", *mount, PROJECT, *command)


@pytest.mark.promise("P16")
def test_doctor_reports_everything_with_the_containers_own_rights(project: Project) -> None:
    """As `docker exec gateway gateway doctor`. Control: the server's address is in it."""
    text = project.gateway.exec("gateway", "doctor")
    assert "could not be read" not in text
    assert f"endpoint {SERVER.ipv4}:{PORT}" in text
    assert re.search(r"^state +connected for ", text, re.MULTILINE)
    assert "P1 nothing else leaves" in text
    assert "/run/secrets/wireguard_private_key" in text
    assert project.site.gateway_keys[NUMBER].private not in text


@pytest.mark.promise("P16")
def test_doctor_in_the_anchor_reports_what_is_seen_from_there(project: Project) -> None:
    """It has no configuration, and not the files of the gateway; the rest is there."""
    text = project.anchor.exec("gateway", "doctor")
    assert re.search(r"^state +connected for ", text, re.MULTILINE)
    assert "P1 nothing else leaves" in text
    assert "This configuration is refused" in text
    assert project.site.gateway_keys[NUMBER].private not in text


def test_the_status_is_there_at_once(project: Project, report: list[str]) -> None:
    """Where the machine is not busy with others; the engine alone takes most of it."""
    took: dict[str, list[float]] = {"sh -c :": [], "gateway status": []}
    for _ in range(RUNS):
        for command, times in took.items():
            since = time.monotonic()
            project.gateway.exec(*command.split())
            times.append(time.monotonic() - since)
    for command, times in took.items():
        middle, best = sorted(times)[RUNS // 2], min(times)
        report.append(f"docker exec gateway {command}: {middle:.3f} s, at best {best:.3f} s")
    assert min(took["gateway status"]) < LIMIT * PATIENCE


def test_init_writes_files_that_their_user_can_edit(site: Site, folder: Path) -> None:
    """Not root's, although the container's user is root; and the image's check accepts them."""
    said = in_image(site, folder, "init", "--file", "wg0.conf", "--port", "8080:80")
    assert "docker compose up -d" in said
    made = [folder / "compose.yml", folder / "secrets", folder / "secrets" / "wg0.conf"]
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {USER}
    assert [stat.S_IMODE(path.stat().st_mode) for path in made] == [0o644, 0o700, 0o600]
    assert OTHER_PRIVATE not in said
    checked = in_image(site, folder, "check", "--compose", "compose.yml")
    assert "198.51.100.9" in checked
    assert "warning" not in checked
