"""No secret leaves the settings: not in an error, a notice, a representation or the check."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gateway.commands.check.explain import explain
from gateway.errors import ConfigError
from gateway.settings import assemble, early
from gateway.settings.schema import FIELDS
from gateway.settings.sources import FILE_VARIABLES, SECRETFILE
from tests.configurations import COMPLETE, OTHER_PRIVATE, QUICK, problems, put, reported

pytestmark = pytest.mark.promise("P16")

CANARY = "wOEI9rqqbDwnN8/Bpp22sVz48T71vJ4fYmFWujulwUU="
"""A key as keys look, which must not appear anywhere, whole or in parts."""

PARTS = [CANARY[start : start + 16] for start in range(0, 29, 4)]

NAMES = sorted({field.upper() for field in FIELDS} | {n + SECRETFILE for n in FILE_VARIABLES})

MISUSES: dict[str, Callable[[str], str]] = {
    "as it is": lambda key: key,
    "cut short": lambda key: key[:-1],
    "cut in front": lambda key: key[3:],
    "too long": lambda key: key + "=",
    "quoted": lambda key: f'"{key}"',
    "with a comment": lambda key: f"{key} # mine",
    "as a line of a file": lambda key: f"PrivateKey = {key}",
    "in a list": lambda key: f"10.0.0.1/32,{key}",
    "as a path": lambda key: f"/{key}",
    "as an endpoint": lambda key: f"203.0.113.7:51820@{key}x",
    "as a host": lambda key: f"{key}:51820",
}


def everything_said(environ: dict[str, str], root: Path) -> str:
    """Return all that loading says in any way: problems, notices, representations, the check."""
    try:
        loaded = assemble.load(environ, root)
    except ConfigError as err:
        chain: list[str] = []
        cause: BaseException | None = err
        while cause:
            chain += [str(cause), repr(cause)]
            cause = cause.__cause__ or cause.__context__
        return "\n".join([*chain, *map(repr, err.problems)])
    return "\n".join([reported(loaded), repr(loaded), explain(loaded)])


def assert_silent(text: str) -> None:
    """Assert that no part of the canary is in `text`."""
    assert not [part for part in PARTS if part in text]


@pytest.mark.parametrize("misuse", MISUSES)
@pytest.mark.parametrize("name", NAMES)
def test_a_key_in_any_variable_is_never_shown(tmp_path: Path, name: str, misuse: str) -> None:
    """People paste keys into the wrong variable, half of them, with quotes around them."""
    if name == "WIREGUARD_PUBLIC_KEY" and misuse in {"as it is", "quoted"}:
        return  # a valid public key is public
    assert_silent(everything_said({**COMPLETE, name: MISUSES[misuse](CANARY)}, tmp_path))


def test_the_canary_would_be_seen(tmp_path: Path) -> None:
    """Positive control: a valid public key is shown, and found by the same check."""
    said = everything_said({**COMPLETE, "WIREGUARD_PUBLIC_KEY": CANARY}, tmp_path)
    with pytest.raises(AssertionError):
        assert_silent(said)


@pytest.mark.parametrize("wrong", [{}, {"WIREGUARD_ADDRESSES": ""}, {"VPN_TYPE": "openvpn"}])
@pytest.mark.parametrize("name", ["WIREGUARD_PRIVATE_KEY", "WIREGUARD_PRESHARED_KEY"])
def test_a_valid_secret_is_not_shown_with_other_faults(
    tmp_path: Path, name: str, wrong: dict[str, str]
) -> None:
    """Validation libraries like to repeat the whole input when one field is missing."""
    assert_silent(everything_said({**COMPLETE, name: CANARY, **wrong}, tmp_path))


@pytest.mark.parametrize("misuse", MISUSES)
@pytest.mark.parametrize("line", range(9))
def test_a_key_anywhere_in_a_file_is_never_shown(tmp_path: Path, line: int, misuse: str) -> None:
    """As a line of its own, as a value, in a list."""
    lines = QUICK.splitlines()
    for text in (
        MISUSES[misuse](CANARY),
        lines[line].partition("=")[0] + f"= {MISUSES[misuse](CANARY)}",
    ):
        if text.startswith("PublicKey"):
            continue
        changed = [*lines[:line], text, *lines[line + 1 :]]
        put(tmp_path, "/config/wg0.conf", "\n".join(changed))
        assert_silent(everything_said({}, tmp_path))


@pytest.mark.parametrize("name", sorted(FILE_VARIABLES))
def test_a_key_in_any_secret_file_is_never_shown(tmp_path: Path, name: str) -> None:
    """The file of one variable with the content of another."""
    if name == "WIREGUARD_PUBLIC_KEY":
        return
    put(tmp_path, f"/run/secrets/{name.lower()}", f"{CANARY}\n{CANARY}x\n")
    assert_silent(everything_said(COMPLETE, tmp_path))


def test_the_librarys_debug_log_has_no_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pydantic-settings logs what its sources hold when a variable of its own asks for it."""
    monkeypatch.setenv("PYDANTIC_SETTINGS_DEBUG", "1")
    with caplog.at_level(logging.DEBUG):
        assemble.load({**COMPLETE, "WIREGUARD_PRIVATE_KEY": CANARY}, tmp_path)
    assert "WIREGUARD_PRIVATE_KEY" in caplog.text  # positive control: it did log
    assert_silent(caplog.text)


@pytest.mark.parametrize(
    "path",
    [
        "/run/secrets/wireguard_private_key",
        "/run/secrets/wireguard_preshared_key",
        "/config/wg0.conf",
    ],
)
def test_secret_files_that_others_can_read_are_reported(tmp_path: Path, path: str) -> None:
    """With the remedy; a file of one's own, or in a folder of one's own, is not."""
    content = QUICK if path.endswith(".conf") else OTHER_PRIVATE
    message = f"{path}: {path} is readable by every user of the host; run chmod 600 on it"
    put(tmp_path, path, content, mode=0o644)
    assert message in reported(assemble.load(COMPLETE, tmp_path))
    put(tmp_path, path, content, mode=0o640)
    assert message not in reported(assemble.load(COMPLETE, tmp_path))
    put(tmp_path, path, content, mode=0o644)
    (tmp_path / path.lstrip("/")).parent.chmod(0o700)
    assert message not in reported(assemble.load(COMPLETE, tmp_path))


def test_a_private_key_in_plain_environment_is_reported_once_with_the_remedy(
    tmp_path: Path,
) -> None:
    """Everyone who can inspect the container reads it there."""
    lines = [
        notice
        for notice in assemble.load(COMPLETE, tmp_path).notices
        if "is in the environment" in notice.message
    ]
    assert [line.where for line in lines] == ["WIREGUARD_PRIVATE_KEY"]
    assert "/run/secrets/wireguard_private_key" in lines[0].message
    put(tmp_path, "/run/secrets/wireguard_private_key", COMPLETE["WIREGUARD_PRIVATE_KEY"])
    rest = {name: text for name, text in COMPLETE.items() if name != "WIREGUARD_PRIVATE_KEY"}
    assert "is in the environment" not in reported(assemble.load(rest, tmp_path))


def pieces() -> st.SearchStrategy[str]:
    """Texts that come near to what variables and files hold, and some that do not."""
    words = [
        *(
            "0.0.0.0/0",
            "::/0",
            "10.0.0.2/32",
            "fd00::2/128",
            "127.0.0.11",
            "fe80::1%eth0",
            "1.2.3.4:5",
        ),
        *(
            "[::1]:1",
            "[",
            "]",
            ":",
            "/",
            "-",
            ",",
            "@",
            "=",
            "#",
            "%",
            "\t",
            " ",
            "\n",
            "25s",
            "off",
        ),
        *("6881-6889/udp", "65536", "0", "auto", "custom", "[Interface]", "[Peer]", "Address = "),
        *("PrivateKey = ", "AllowedIPs=", "Endpoint = ", "DNS=", "PostUp = ", CANARY, CANARY[:30]),
        *("٣", "é", "\ud7ff", "\x01", "\u2028", "..", "9" * 30, "/run/secrets/", "a" * 70),
    ]
    return st.lists(st.sampled_from(words) | st.text(max_size=6), max_size=8).map("".join)


def environments() -> st.SearchStrategy[dict[str, str]]:
    """Return environments: any of our variables and some others, with near and far values."""
    values = pieces().filter(lambda text: "\0" not in text)
    return st.dictionaries(
        st.sampled_from([*NAMES, "FIREWALL", "WIREGUARD_X", "PUID"]), values, max_size=8
    )


FUZZ = hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def without_public_key(said: str) -> str:
    """Return what was said without the lines that may hold a public key by right."""
    return "\n".join(line for line in said.splitlines() if "public_key" not in line.lower())


@FUZZ
@given(environ=environments(), whole=st.booleans())
@example(environ={"WIREGUARD_PRIVATE_KEY_SECRETFILE": "/\ud7ff"}, whole=False)
@example(environ={"DNS_ADDRESS_SECRETFILE": f"//{CANARY}"}, whole=False)
@example(environ={"WIREGUARD_CONF_SECRETFILE": "/" + "a" * 5000}, whole=True)
def test_no_environment_makes_a_traceback_or_shows_a_key(
    tmp_path: Path, *, environ: dict[str, str], whole: bool
) -> None:
    """For any values of the variables: a configuration, or problems in words."""
    said = everything_said({**COMPLETE, **environ} if whole else environ, tmp_path)
    assert_silent(without_public_key(said))
    early.log_settings(environ)
    early.health_address(environ)


@FUZZ
@given(lines=st.lists(pieces() | st.sampled_from(QUICK.splitlines()), max_size=20))
@example(lines=["[Interface]", "[Peer]", "[Interface]", "Address ="])
def test_no_file_makes_a_traceback_or_shows_a_key(tmp_path: Path, lines: list[str]) -> None:
    """For any lines of a wg-quick file, in any order."""
    text = "\n".join(line for line in lines if not line.lower().startswith("publickey"))
    put(tmp_path, "/config/wg0.conf", text.encode("utf-8", "surrogatepass"))
    assert_silent(without_public_key(everything_said({}, tmp_path)))


@FUZZ
@given(raw=st.binary(max_size=300))
@example(raw=b"\xff\xfe\x00")
def test_no_bytes_make_a_traceback(tmp_path: Path, raw: bytes) -> None:
    """Not as a wg-quick file, and not as a secret."""
    put(tmp_path, "/config/wg0.conf", raw)
    put(tmp_path, "/run/secrets/wireguard_addresses", raw)
    everything_said({}, tmp_path)


@pytest.fixture(autouse=True)
def _open_folders_again(tmp_path: Path) -> Iterator[None]:
    """Let pytest clean up what a test closed."""
    yield
    for folder in tmp_path.rglob("*"):
        if folder.is_dir():
            folder.chmod(0o755)


@pytest.mark.parametrize("place", ["/run/secrets/openvpn_password", "/elsewhere"])
def test_a_file_that_cannot_be_read_is_one_problem(tmp_path: Path, place: str) -> None:
    """What it should have is not reported as missing as well."""
    (tmp_path / place[1:]).mkdir(parents=True)
    environ = {
        "VPN_SERVICE_PROVIDER": "pia",
        "OPENVPN_USER": "p1234567",
        "OPENVPN_PASSWORD_SECRETFILE": place,
    }
    (problem,) = problems(environ, tmp_path)
    assert "is a directory" in problem
    named = {**COMPLETE, "WIREGUARD_PRIVATE_KEY_SECRETFILE": place}
    del named["WIREGUARD_PRIVATE_KEY"]
    found = [one for one in problems(named, tmp_path) if one.startswith("WIREGUARD_PRIVATE_KEY")]
    assert [one.partition(":")[0] for one in found] == ["WIREGUARD_PRIVATE_KEY_SECRETFILE"]
