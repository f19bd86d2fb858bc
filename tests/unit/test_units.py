"""The units of docs/host and docs/podman, without systemd: what they name is there, and agrees."""

import re
from pathlib import Path

import pytest

from gateway import cli
from tests.configurations import COMPLETE, put

DOCS = Path(__file__).resolve().parents[2] / "docs"
HOST, PODMAN = DOCS / "host", DOCS / "podman"
COMMAND = re.compile(r"^Exec\w+=(\S+)", re.MULTILINE)


@pytest.mark.parametrize("unit", sorted(HOST.glob("*.service")), ids=lambda path: path.name)
def test_a_unit_runs_what_the_page_installs(unit: Path) -> None:
    """The program gateway of the environment, and the script."""
    page = (DOCS / "host.md").read_text("utf-8")
    script = "/usr/local/lib/portcullis/portcullis-netns"
    assert f"docs/host/portcullis-netns {script}\n" in page
    assert "/opt/portcullis/bin/pip install .\n" in page
    assert set(COMMAND.findall(unit.read_text("utf-8"))) <= {"/opt/portcullis/bin/gateway", script}


@pytest.mark.parametrize("unit", sorted(HOST.glob("*.service")), ids=lambda path: path.name)
def test_the_document_that_a_unit_names_is_installed(unit: Path) -> None:
    """`systemctl help` opens it."""
    (place,) = re.findall(r"^Documentation=file://(\S+)$", unit.read_text("utf-8"), re.MULTILINE)
    page = (DOCS / "host.md").read_text("utf-8")
    assert f"\ninstall -D -m 644 docs/host.md {place} " in page


def test_every_place_that_a_unit_mounts_is_made_by_the_script() -> None:
    """A mount whose source is missing would keep the unit from starting."""
    made = (HOST / "portcullis-netns").read_text("utf-8")
    given = (HOST / "portcullis@.service").read_text("utf-8") + (HOST / "workload.conf").read_text(
        "utf-8"
    )
    for source in re.findall(r"^Bind\w*Paths=([^:]+):", given, re.MULTILINE):
        directory, _, name = source.replace("%i", "NAME").rpartition("/")
        known = {
            "/run/portcullis-netns/NAME": f"$directory/{name}",
            "/var/lib/portcullis-netns": "state=/var/lib/portcullis-netns/$1",
            "/etc/portcullis": "/etc/portcullis/$name",
        }
        assert known[directory] in made, source


def test_a_unit_behind_a_gateway_starts_in_a_closed_namespace_or_not_at_all() -> None:
    """The namespace is required, the gateway is not: it may be restarted under its workloads."""
    text = (HOST / "workload.conf").read_text("utf-8")
    assert "BindsTo=portcullis-netns@NAME.service" in text
    assert "Wants=portcullis@NAME.service" in text
    assert "After=portcullis-netns@NAME.service portcullis@NAME.service" in text


def test_the_containers_of_the_pod_need_its_namespace_closed() -> None:
    """Each of them is started after `vpn-close`, and not without it."""
    for path in PODMAN.glob("*.container"):
        text = path.read_text("utf-8")
        assert "Pod=vpn.pod\n" in text
        if path.stem != "vpn-close":
            assert "Requires=vpn-close.service\n" in text
            assert re.search(r"^After=.*vpn-close\.service", text, re.MULTILINE)


def test_the_gateway_of_the_pod_has_the_health_check_of_the_image() -> None:
    """`podman build` drops that of the Dockerfile, unless it has `--format docker`."""
    dockerfile = (DOCS.parent / "Dockerfile").read_text("utf-8")
    (command,) = re.findall(r"HEALTHCHECK[^\[]*CMD (\[.*\])", dockerfile.replace("\\\n", ""))
    text = (PODMAN / "vpn-gateway.container").read_text("utf-8")
    assert f"HealthCmd={command}\n" in text
    assert "Notify=healthy\n" in text
    assert "Secret=wireguard_private_key" in text


def test_the_quadlet_of_the_gateway_passes_its_own_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the variables of the page in its file; Podman has the key."""
    lines = (f"{name}={value}\n" for name, value in COMPLETE.items() if "PRIVATE" not in name)
    put(tmp_path, "vpn.env", "".join(lines))
    text = (PODMAN / "vpn-gateway.container").read_text("utf-8")
    put(tmp_path, "g.container", text.replace("/etc/portcullis/vpn.env", f"{tmp_path}/vpn.env"))
    code = cli.main(["check", "--quadlet", str(tmp_path / "g.container")])
    said = capsys.readouterr()
    assert code == 0, said
    assert "is not a local file and is not checked" in said.out
