"""`gateway init`: `gateway check` accepts what it writes, it is private, and replaces nothing."""

import os
import pty
import re
import select
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from gateway import cli
from gateway.commands.init import writing
from gateway.commands.init.answers import Answers
from gateway.commands.init.rendering import compose, quoted
from gateway.model import Secret
from tests.configurations import OTHER_PRIVATE, PRESHARED, PRIVATE, PUBLIC, QUICK, load_service

PROJECT = Path(__file__).resolve().parents[2]

Init = Callable[..., int]

QUESTION = re.compile(r"(?:wg0\.conf\]|\)|/32|PORT|server|10\.64\.0\.1): ")
"""How each question ends."""


@pytest.fixture
def init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Init]:
    """Return what runs the command in a new folder, where `wg0.conf` and key files are.

    It runs without a terminal, and with a umask that would let everybody read everything.
    """
    monkeypatch.chdir(tmp_path)
    for name, text in (("wg0.conf", QUICK), ("key", PRIVATE), ("psk", PRESHARED + "\n")):
        (tmp_path / name).write_text(text)
    former = os.umask(0)
    with Path(os.devnull).open(encoding="utf-8") as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        yield lambda *options: cli.main(["init", *options])
    os.umask(former)


def mode(path: Path) -> int:
    """Return the permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


MULLVAD = (
    *("--provider", "mullvad", "--countries", "Sweden,nl", "--private-key-file", "key"),
    *("--addresses", "10.66.1.2/32,fd00::2/128", "--dns", "10.64.0.1"),
)
OWN = (
    *("--endpoint", "192.0.2.10:51820", "--public-key", PUBLIC, "--private-key-file", "key"),
    *("--preshared-key-file", "psk", "--addresses", "10.64.0.2/32", "--dns", "10.64.0.1"),
)
FILE = ("--file", "wg0.conf", "--port", "8080:80", "--port", "51413/udp", "--lan", "192.168.1.0/24")


@pytest.mark.parametrize("options", [FILE, MULLVAD, OWN, ("--provider", "custom", *OWN)])
def test_what_is_written_is_what_the_gateway_accepts(
    init: Init, options: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By `gateway check`, without anything to change, and private from the first moment."""
    assert init(*options) == 0
    said = capsys.readouterr()
    assert "docker compose up -d" in said.out
    assert "gateway gateway status" in said.out
    for text in (PRIVATE, OTHER_PRIVATE, PRESHARED):
        assert text not in said.out + said.err + (tmp_path / "compose.yml").read_text()
    assert cli.main(["check", "--compose", "compose.yml"]) == 0
    checked = capsys.readouterr().out
    assert "warning" not in checked
    assert "To change" not in checked
    secrets = [path for path in (tmp_path / "secrets").iterdir() if path.name != ".gitignore"]
    assert secrets
    assert [mode(path) for path in secrets] == [0o600] * len(secrets)
    assert mode(tmp_path / "secrets") == 0o700
    assert (tmp_path / "secrets" / ".gitignore").read_text().endswith("\n*\n")


def test_the_values_are_those_that_were_given(init: Init, tmp_path: Path) -> None:
    """Ports and subnets with a file; the server with options."""
    assert init(*FILE) == 0
    config = load_service(tmp_path / "compose.yml", "gateway", {}).config
    assert [str(port) for port in config.input_ports] == ["80/tcp", "51413/udp"]
    assert [str(subnet) for subnet in config.outbound_subnets] == ["192.168.1.0/24"]
    assert str(config.tunnels[0].endpoints[0]) == "198.51.100.9:51820"
    written = yaml.safe_load((tmp_path / "compose.yml").read_text())
    assert written["services"]["anchor"]["ports"] == ["8080:80/tcp", "51413:51413/udp"]
    assert init(*OWN, "--force") == 0
    config = load_service(tmp_path / "compose.yml", "gateway", {}).config
    peer = config.tunnels[0].peers[0]
    assert (peer.public_key, str(peer.endpoint)) == (PUBLIC, "192.0.2.10:51820")
    assert peer.preshared_key == Secret(PRESHARED)


WRONG = [
    ((), "nothing to write: give --file"),
    (("--file", "other.conf"), "other.conf: No such file"),
    (("--provider", "mulvad", "--private-key-file", "key"), "did you mean mullvad?"),
    (("--provider", "protonvpn", "--private-key-file", "key"), "Download a WireGuard file"),
    (("--endpoint", "192.0.2.10", "--public-key", PUBLIC), "'192.0.2.10' is not ADDRESS:PORT"),
    (("--file", "wg0.conf", "--port", "http"), "'http' is not [HOST:]PORT"),
    (("--file", "key"), "wg0.conf"),
    ((*MULLVAD, "--addresses", "10.0.0.300"), "'10.0.0.300' is not an address"),
]


@pytest.mark.parametrize(("options", "reported"), WRONG)
def test_what_would_not_be_accepted_is_not_written(
    init: Init,
    options: tuple[str, ...],
    reported: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing at all, and the message says what is wrong. It shows no key."""
    before = sorted(tmp_path.iterdir())
    assert init(*options) != 0
    said = capsys.readouterr()
    assert reported in said.err
    assert PRIVATE not in said.out + said.err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "name", ["compose.yml", "secrets/wg0.conf", "compose.yaml", "docker-compose.yml"]
)
def test_nothing_is_replaced_without_being_asked_for(
    init: Init, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even a link that leads nowhere; and none is written that Compose would ignore."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / name).symlink_to("/nonexistent/file")
    before = sorted(tmp_path.rglob("*"))
    assert init("--file", "wg0.conf") == 2
    assert name in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
    is_ours = name in {"compose.yml", "secrets/wg0.conf"}
    assert init("--file", "wg0.conf", "--force") == (0 if is_ours else 2)
    assert (tmp_path / name).is_symlink() is not is_ours


def test_a_file_that_appears_meanwhile_is_not_written_through(tmp_path: Path) -> None:
    """Not even a link; an error is raised instead."""
    (tmp_path / "secrets").mkdir()
    target = tmp_path / "target"
    (tmp_path / "secrets" / "wg0.conf").symlink_to(target)
    with pytest.raises(FileExistsError):
        writing.write(tmp_path, "", {"wg0.conf": Secret("x")})
    assert not target.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_made_by_root_belong_to_the_user_of_the_folder(tmp_path: Path) -> None:
    """As in a container that has the user's folder: what root owned could not be edited."""
    os.chown(tmp_path, 4711, 4712)
    writing.write(tmp_path, "x", {"wg0.conf": Secret("x")})
    made = [*tmp_path.rglob("*")]
    assert len(made) == 4
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(4711, 4712)}


def test_secrets_are_not_written_through_a_link(
    init: Init, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whose folder it is could have root write a file into another one, and get it."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "secrets").symlink_to("elsewhere")
    assert init("--file", "wg0.conf") == 1
    assert "secrets: is a link or a file; remove it" in capsys.readouterr().err
    assert not [*(tmp_path / "elsewhere").iterdir()]
    assert not (tmp_path / "compose.yml").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_is_not_replaced_while_its_permissions_are_set(tmp_path: Path) -> None:
    """The user of the folder could put a link to a file of root's in its place meanwhile.

    A race, which is won every thirtieth time or so where a path is used. The control is that the
    other process does replace files.
    """
    victim, folder = tmp_path / "victim", tmp_path / "folder"
    victim.touch(0o600)
    folder.mkdir()
    os.chown(folder, 4711, 4712)
    code = (
        "import os, sys; os.setgid(4712); os.setuid(4711)\n"
        "while True:\n"
        "    try:\n"
        "        os.path.islink('link') or os.symlink(sys.argv[1], 'link')\n"
        "        os.stat('compose.yml'); os.rename('link', 'compose.yml')\n"
        "    except OSError: pass\n"
    )
    replacing = subprocess.Popen([sys.executable, "-c", code, str(victim)], cwd=folder)
    replaced = 0
    try:
        for _ in range(1000):
            with suppress(FileExistsError):
                writing.write(folder, "x", {}, force=True)
            replaced += (folder / "compose.yml").is_symlink()
    finally:
        replacing.kill()
        replacing.wait()
    assert replaced, "control"
    assert (mode(victim), victim.stat().st_uid) == (0o600, 0)


def test_values_are_quoted_for_compose(tmp_path: Path) -> None:
    """What YAML or Compose would read differently stays as it was given."""
    odd = 'on: "${X}" # $$ \\ ü'
    text = compose(Answers({"SERVER_CITIES": odd}, {}), build=False)
    assert yaml.safe_load(text)["services"]["gateway"]["environment"] == {
        "SERVER_CITIES": odd.replace("$", "$$")
    }
    assert quoted("a$b") == '"a$$b"'
    assert "build: ." in compose(Answers({}, {}), build=True)
    assert not (tmp_path / "compose.yml").exists()


def answered(folder: Path, *answers: str) -> tuple[int, str]:
    """Run the command on a terminal and answer its questions; return the code and what is seen."""
    terminal, theirs = pty.openpty()
    run = subprocess.Popen(
        [sys.executable, "-m", "gateway", "init"],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        cwd=folder, env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )  # fmt: skip
    os.close(theirs)
    seen, left, asked = "", list(answers), 0
    try:
        while run.poll() is None or select.select([terminal], [], [], 0)[0]:
            if select.select([terminal], [], [], 0.1)[0]:
                seen += os.read(terminal, 4096).decode()
            if left and len(QUESTION.findall(seen)) > asked:
                asked += 1
                os.write(terminal, left.pop(0).encode() + b"\n")
    except OSError:  # the other end is closed
        pass
    os.close(terminal)
    return run.wait(timeout=30), seen


def test_five_questions_on_a_terminal_are_enough(tmp_path: Path) -> None:
    """With a provider; the key is not shown while it is typed."""
    code, seen = answered(tmp_path, "Mullvad", PRIVATE, "10.66.1.2/32", "Sweden", "8080")
    assert code == 0, seen
    assert PRIVATE not in seen
    config = load_service(tmp_path / "compose.yml", "gateway", {})
    assert config.values.server_countries
    assert config.values.server_countries.value == ("Sweden",)
    assert (tmp_path / "secrets/wireguard_private_key").read_text() == PRIVATE + "\n"


def test_a_provider_that_takes_a_login_asks_for_it(tmp_path: Path) -> None:
    """In place of a key and an address; both are secret files."""
    code, seen = answered(tmp_path, "pia", "p1234567", "correct horse", "nl", "")
    assert code == 0, seen
    assert "correct horse" not in seen
    assert (tmp_path / "secrets/openvpn_password").read_text() == "correct horse\n"
    config = load_service(tmp_path / "compose.yml", "gateway", {})
    assert config.values.openvpn_user
    assert config.values.openvpn_user.value.reveal() == "p1234567"


def test_a_server_of_ones_own_is_asked_for_by_its_values(tmp_path: Path) -> None:
    """Endpoint, key and resolver in place of a country."""
    answers = ("custom", PRIVATE, "10.64.0.2/32", "192.0.2.10:51820", PUBLIC, "10.64.0.1", "")
    code, seen = answered(tmp_path, *answers)
    assert code == 0, seen
    config = load_service(tmp_path / "compose.yml", "gateway", {}).config
    assert str(config.tunnels[0].endpoints[0]) == "192.0.2.10:51820"
    assert config.tunnels[0].peers[0].public_key == PUBLIC


def test_an_end_of_the_answers_writes_nothing(tmp_path: Path) -> None:
    """Ctrl-D at any question."""
    code, seen = answered(tmp_path, "mullvad", PRIVATE, "\x04")
    assert code == 2
    assert "nothing was written" in seen
    assert list(tmp_path.iterdir()) == []


def test_a_providers_file_needs_two_questions(tmp_path: Path) -> None:
    """An answer that cannot be right is asked for again."""
    (tmp_path / "wg0.conf").write_text(QUICK)
    code, seen = answered(tmp_path, "mulvad", "", "")
    assert code == 0, seen
    assert "is neither a provider in the list nor a file that is there" in seen
    assert "wg0.conf still has the key too" in seen
    assert (tmp_path / "secrets/wg0.conf").read_text() == QUICK


def test_the_example_in_the_documentation_is_what_it_writes(
    init: Init, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command that docs/start.md shows, and then the whole file; and what it says to do."""
    page = (PROJECT / "docs" / "start.md").read_text("utf-8")
    (command,) = re.findall(r"gateway init (--file .*)", page)
    assert init(*command.split()) == 0
    text = (tmp_path / "compose.yml").read_text()
    assert f"```yaml\n{text}```" in page
    said = capsys.readouterr().out
    shown = [line.split("   ")[0].strip() for line in said.splitlines() if "docker compose" in line]
    assert [line for line in shown if line not in page] == []


def test_the_image_runs_it_with_the_users_folder() -> None:
    """The command that docs/start.md shows for a container names the folder in it."""
    page = (PROJECT / "docs" / "start.md").read_text("utf-8")
    assert 'docker run --rm -it -v "$PWD:/work" -w /work portcullis init' in page
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "init", "--help"],
        capture_output=True, text=True, check=True, cwd=PROJECT,
    )  # fmt: skip
    assert "--file" in done.stdout
