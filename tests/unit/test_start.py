"""What stopped newcomers in the first quarter of an hour: docs/start.md, the example, the demo."""

import os
import re
import shutil
import socket
import stat
import subprocess
from pathlib import Path

import pytest
import structlog

from gateway import cli
from gateway.errors import ConfigError, Problem
from gateway.settings import assemble
from healthcheck import __main__ as healthcheck
from tests.configurations import PRIVATE, PUBLIC

PROJECT = Path(__file__).resolve().parents[2]
PLACES = ("compose.example.yml", "docs/start.md", "README.md")
KEY = re.compile(r"^(?:#[ ]+)?([^\n#]*> secrets/[^\n#]*)", re.MULTILINE)


def commands(place: str) -> list[str]:
    """Return the commands of a document that make a key."""
    return [found.strip() for found in KEY.findall((PROJECT / place).read_text("utf-8"))]


def test_documents_show_how_a_key_is_made() -> None:
    """Control: the search below finds the commands."""
    assert [place for place in PLACES if not commands(place)] == []


@pytest.mark.parametrize("place", PLACES)
def test_a_key_made_as_documented_is_not_warned_about(place: str, tmp_path: Path) -> None:
    """The commands are run with the usual umask; the gateway has nothing to say about the file."""
    program = tmp_path / "bin" / "wg"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho {PRIVATE}\n")
    program.chmod(0o755)
    for number, command in enumerate(commands(place)):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = f"{program.parent}:{os.environ['PATH']}"
        subprocess.run(
            ["bash", "-ec", f"umask 022; {command}"],
            cwd=folder,
            env={"PATH": path},
            check=True,
            input=f"{PRIVATE}\n".encode(),
        )
        made = folder / "secrets" / "wireguard_private_key"
        assert stat.S_IMODE(made.stat().st_mode) == 0o600
        root = folder / "root"
        shutil.copytree(folder / "secrets", root / "run" / "secrets")
        environ = {
            "WIREGUARD_PUBLIC_KEY": PUBLIC,
            "WIREGUARD_ENDPOINT_IP": "203.0.113.7",
            "WIREGUARD_ENDPOINT_PORT": "51820",
            "WIREGUARD_ADDRESSES": "10.64.1.2/32,fd7d::2/128",
            "DNS_ADDRESS": "10.64.0.1",
        }
        assert assemble.load(environ, root).notices == ()


def test_the_example_says_how_it_becomes_the_file_that_compose_reads() -> None:
    """`docker compose up` alone finds no file called compose.example.yml."""
    text = (PROJECT / "compose.example.yml").read_text("utf-8")
    copied = text.index("cp compose.example.yml compose.yml")
    assert copied < text.index("docker compose up -d")
    assert "/compose.yml" in (PROJECT / ".gitignore").read_text("utf-8").splitlines()


def test_placeholders_end_with_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log says which values, and how to see more; status and the health check name the log."""

    def refused() -> None:
        raise ConfigError((Problem("WIREGUARD_PUBLIC_KEY", "is all zeros"),))

    with structlog.testing.capture_logs() as logged:
        assert cli._exit_code(refused) == 2  # noqa: SLF001 - the end of every start
    assert [line["event"] for line in logged] == ["invalid configuration", "exiting; closed"]
    assert "`gateway check`" in logged[-1]["problem"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("HEALTH_SERVER_ADDRESS", f"127.0.0.1:{port}")
    assert cli.main(["status"]) == 1
    assert "its log says why: docker logs CONTAINER" in capsys.readouterr().err
    assert healthcheck.main() == 1
    assert "See its log" in capsys.readouterr().out


def test_the_demonstration_says_what_it_does_before_it_takes_long(tmp_path: Path) -> None:
    """Making the environment takes 18 s: the first line comes before pip is started."""
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    shutil.copy(PROJECT / "scripts" / "python-environment", scripts)
    for name in ("requirements", "requirements-build", "requirements-dev"):
        (tmp_path / f"{name}.lock").touch()
    stub = tmp_path / "bin" / "python3"
    stub.parent.mkdir()
    stub.write_text(
        "#!/bin/sh\necho STARTED $*\n"
        'if [ "$2" = venv ]; then mkdir -p .venv/bin; cp "$0" .venv/bin/python; fi\n'
    )
    stub.chmod(0o755)
    done = subprocess.run(
        ["bash", str(scripts / "python-environment")],
        env={"PATH": f"{stub.parent}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    first, *rest = done.stdout.splitlines()
    assert first.startswith("Making .venv")
    assert any("pip install" in line for line in rest), "control: pip was started"
