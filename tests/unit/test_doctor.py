"""`gateway doctor`: no secret in any part, and no part that keeps the others from being there."""

import base64
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from gateway import cli
from gateway.__main__ import HARMLESS
from gateway.commands.doctor import command, machine
from gateway.commands.doctor.hiding import Hiding, known_secrets, label
from gateway.commands.doctor.parts import LONGEST_LINE, Part, text_of
from gateway.errors import NetworkError
from gateway.settings.schema import FIELDS
from gateway.settings.sources import SECRETFILE
from gateway.system.netns import OWN
from tests.configurations import COMPLETE, PRESHARED, PRIVATE, PUBLIC
from tests.unit.test_settings_canary import CANARY, PARTS

NOTHING = Hiding(())

PASSWORDS = {
    "OPENVPN_USER": "p7654321",
    "OPENVPN_PASSWORD": "correct-horse-battery",
    "HTTPPROXY_USER": "fern",
    "HTTPPROXY_PASSWORD": "staple",
    "SHADOWSOCKS_PASSWORD": "Tr0ub4dor&3 with words",
    "VPN_UP_COMMAND": "curl -H 'Authorization: 94f1-hook-token' http://127.0.0.1/",
    "HTTP_CONTROL_SERVER_AUTH_DEFAULT_ROLE": '{"apikey":"aa55bb66cc"}',
}
"""Secrets that do not look like keys, in the variables that have them."""
SECRET_PARTS = (
    *("p7654321", "correct-horse-battery", "fern", "staple", "Tr0ub4dor", "with words"),
    *("94f1-hook-token", "aa55bb66cc"),
)

GITHUB = 65536
"""Characters that the text of an issue may have."""


def reported(environ: Mapping[str, str], *more: Part) -> str:
    """Return the report's part about the configuration, and `more` parts."""
    configuration = Part("Configuration", lambda: command.configuration(environ), 8000)
    return "\n".join(text_of([configuration, *more], Hiding(known_secrets(environ))))


def raising(text: str) -> Iterable[str]:
    """Fail with a message."""
    raise NetworkError(text)


@pytest.mark.parametrize("name", [*(field.upper() for field in FIELDS), "PIA_TOKEN", "WIREGUARD_X"])
def test_a_key_in_any_variable_is_not_shown(name: str) -> None:
    """Not even a part of it, whether the configuration is accepted or refused."""
    text = reported({**COMPLETE, name: CANARY})
    assert [part for part in PARTS if part in text] == []
    assert PRIVATE not in text


def test_passwords_and_user_names_are_not_shown() -> None:
    """Not in the configuration, and not in another part that would quote them.

    Control: what is not secret is there, and the parts do quote them.
    """
    environ = {**COMPLETE, **PASSWORDS, "WIREGUARD_PRESHARED_KEY": PRESHARED}
    quoting = [f"x{text!r} {name}" for name, text in environ.items()]
    text = reported(environ, Part("Quoting", lambda: quoting), Part("X", lambda: raising(CANARY)))
    assert [part for part in (*SECRET_PARTS, PRIVATE, PRESHARED, CANARY) if part in text] == []
    assert "203.0.113.7" in text
    assert "HTTPPROXY_PASSWORD" in text
    shown = "\n".join(text_of([Part("Quoting", lambda: quoting)], NOTHING))
    assert all(part in shown for part in SECRET_PARTS), "control"


def test_what_a_secret_file_has_is_not_shown(tmp_path: Path) -> None:
    """A file that a variable names; the path is shown."""
    file = tmp_path / "password"
    file.write_text("first line\nsecond-line\n")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    environ = {f"OPENVPN_PASSWORD{SECRETFILE}": str(file), f"X_KEY{SECRETFILE}": str(pipe)}
    hiding = Hiding(known_secrets(environ))
    assert hiding.line("first line, second-line") == "[hidden], [hidden]"
    assert hiding.line(str(file)) == str(file)


def test_the_keys_of_the_control_api_are_not_shown(tmp_path: Path) -> None:
    """Those of its file with roles, of the role in a variable, and in quotes around a value."""
    roles = tmp_path / "config.toml"
    roles.write_text('[[roles]]\nname = "sync"\nauth="apikey"\napikey = "key-of-the-file"\n')
    environ = {
        "HTTP_CONTROL_SERVER_AUTH_CONFIG_FILEPATH": str(roles),
        "HTTP_CONTROL_SERVER_AUTH_DEFAULT_ROLE": '{"auth":"basic","username":"me-it",'
        '"password":"of a role"}',
        "HTTPPROXY_PASSWORD": '"in quotes"',
    }
    hiding = Hiding(known_secrets(environ))
    said = "apikey of sync: key-of-the-file, basic: me-it of a role, in quotes"
    shown = "apikey of sync: [hidden], basic: [hidden] [hidden], [hidden]"
    assert hiding.line(said) == shown
    assert hiding.line(str(roles)) == str(roles)


def test_equal_keys_have_equal_labels_in_every_form() -> None:
    """In base64 and hexadecimal, in a sentence and alone; another key has another label."""
    hexadecimal = base64.b64decode(PUBLIC).hex()
    shown = {NOTHING.line(f"<{key}>") for key in (PUBLIC, hexadecimal, hexadecimal.upper())}
    assert shown == {f"<{label(PUBLIC)}>"}
    assert label(PUBLIC) != label(PRIVATE)
    assert NOTHING.line(f"peer={PUBLIC},allowed") == f"peer={label(PUBLIC)},allowed"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:pass@proxy:80/x", "http://[hidden]@proxy:80/x"),
        (
            "'http://user:p@ss/word@proxy:80/x' of 10.0.0.1",
            "'http://[hidden]@proxy:80/x' of 10.0.0.1",
        ),
        ("a\x1b[2Jb\u202ec", "a\\x1b[2Jb\\u202ec"),
        ("meta mark 0x9a3b7c11 accept", "meta mark & 0x80000000 == 0x80000000 accept"),
        ("10.64.0.2/32 via fe80::1 dev eth0", "10.64.0.2/32 via fe80::1 dev eth0"),
        ("portcullis_guard_eth0", "portcullis_guard_eth0"),
    ],
)
def test_a_line_is_safe_and_otherwise_as_it_was(text: str, shown: str) -> None:
    """URLs, what a terminal obeys, secret marks; addresses and names stay."""
    assert NOTHING.line(text) == shown


def test_short_secrets_are_found_as_words_only() -> None:
    """Otherwise a user called `user` would take `userspace` out of the report."""
    hiding = Hiding({"user", "abc", "long-secret"})
    assert hiding.line("user userspace abc xlong-secretx") == "[hidden] userspace abc x[hidden]x"


def test_a_part_that_fails_says_why_and_the_others_are_there() -> None:
    """For any exception; what it found before is there too."""

    def some() -> Iterator[str]:
        yield "found"
        raise KeyError("IFLA")

    text = "\n".join(text_of([Part("A", some), Part("B", lambda: ["fine"])], NOTHING))
    assert "## A\n\nfound\n(could not be read: KeyError: 'IFLA')" in text
    assert "## B\n\nfine" in text


def test_a_part_that_hangs_costs_a_limited_time() -> None:
    """All of them hang together; what was found before is there."""
    released = threading.Event()

    def hanging() -> Iterator[str]:
        yield "found"
        released.wait(60)

    began = time.monotonic()
    lines = list(text_of([Part(str(n), hanging) for n in range(5)], NOTHING, limit=0.3))
    released.set()
    assert time.monotonic() - began < 5
    assert lines.count("found") == 5
    assert lines.count("(could not be read to its end within 0.3 s)") == 5


def test_no_part_is_longer_than_its_limit() -> None:
    """Neither with many lines nor with a long one, nor without end."""

    def endless() -> Iterator[str]:
        while True:
            yield "- " * 5 * LONGEST_LINE

    lines = list(text_of([Part("A", endless, 2000), Part("B", lambda: ["y\n" * 9000])], NOTHING))
    assert len("\n".join(lines)) < 7000
    assert "(longer than 2000 characters: cut here)" in lines
    assert f"... ({9 * LONGEST_LINE} more characters)" in "".join(lines)


def test_the_whole_report_fits_into_an_issue() -> None:
    """Also with a vault, which has namespace parts of its own."""
    of_vault = command.of_namespace(command.OF_VAULT, OWN, command.RULES_OF_VAULT)
    listed = [*command.parts({}), *of_vault]
    titles = sum(len(part.title) + 60 for part in listed)
    assert sum(part.size for part in listed) + titles + len(command.INTRODUCTION) < GITHUB


CLOSED = """
import os, sys
from gateway.commands.doctor import machine
if not os.geteuid():
    os.setgroups([])
    os.setresuid(65534, 65534, 65534)
machine.KUBERNETES = sys.argv[1]
print(*machine.versions(), sep="\\n")
"""


def test_the_versions_are_there_for_who_may_not_look_everywhere(tmp_path: Path) -> None:
    """As where only one user may enter the directory of the secrets."""
    (tmp_path / "closed").mkdir(mode=0)
    done = subprocess.run(
        [sys.executable, "-c", CLOSED, str(tmp_path / "closed" / "kubernetes.io")],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert "\npython: " in done.stdout, done.stderr


def test_capabilities_are_named() -> None:
    """By their numbers in linux/capability.h."""
    assert machine.capabilities(1 << 12 | 1 << 13) == "NET_ADMIN NET_RAW"
    assert machine.capabilities(0) == "none"
    assert machine.capabilities((1 << 41) - 1) == "all"
    assert machine.capabilities((1 << 41) - 1 & ~(1 << 21)) == "all but SYS_ADMIN"
    assert machine.capabilities(1 << 12 | 1 << 50) == "NET_ADMIN and others (0x200)"


def test_no_command_but_those_that_close_the_namespace_closes_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A command for people that is missing in the list would cut off the host that it is run on."""
    with suppress(SystemExit):
        cli.main(["--help"])
    commands = set(re.findall(r"^    (\w+) ", capsys.readouterr().out, re.MULTILINE))
    assert "status" in commands
    assert commands - HARMLESS == {"run", "hold", "vault"}
