"""A key pasted into the wrong place of a compose file, an env file or a name is not shown."""

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gateway.commands.check.envfile import read_env_file
from gateway.commands.check.explain import explain
from gateway.errors import ConfigError
from gateway.settings import assemble
from tests.configurations import COMPLETE, PRIVATE, load_service, problems, put, reported

CANARY = "wOEI9rqqbDwnN8/Bpp22sVz48T71vJ4fYmFWujulwUU="
PARTS = ["wOEI9rqqbDwnN8", *(CANARY[start : start + 16] for start in range(28))]
"""What would give it away: the part that could be a name, and any sixteen characters."""

FUZZ = hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def said_of_compose(root: Path, text: str, shell: dict[str, str]) -> str:
    """Return all that checking the service `gateway` of a compose file says."""
    put(root, "compose.yml", text)
    try:
        loaded = load_service(root / "compose.yml", "gateway", shell)
    except ConfigError as err:
        return "\n".join(map(str, (*err.problems, *err.notices)))
    return f"{reported(loaded)}\n{explain(loaded)}"


def said_of_env_file(root: Path, text: str) -> str:
    """Return all that checking an env file says."""
    put(root, "a.env", text)
    try:
        loaded = assemble.load(read_env_file(root / "a.env"), root)
    except ConfigError as err:
        return "\n".join(map(str, (*err.problems, *err.notices)))
    return f"{reported(loaded)}\n{explain(loaded)}"


def assert_silent(said: str) -> None:
    """Assert that no part of the canary is said."""
    assert not [part for part in PARTS if part in said]


def test_the_canary_would_be_seen(tmp_path: Path) -> None:
    """Positive control: as the server's public key it is shown, in both ways."""
    env = "\n".join(
        f"{name}={text}" for name, text in {**COMPLETE, "WIREGUARD_PUBLIC_KEY": CANARY}.items()
    )
    compose = {"services": {"gateway": {"env_file": "a.env"}}}
    for said in (
        said_of_env_file(tmp_path, env),
        said_of_compose(tmp_path, yaml.safe_dump(compose), {}),
    ):
        with pytest.raises(AssertionError):
            assert_silent(said)


def pieces() -> st.SearchStrategy[str]:
    """Texts of which compose and env files consist, and the canary whole and without its end."""
    words = [
        *("$", "${", "}", "$$", ":-", ":?", "?", "+", "-", ":", "=", " ", "'", '"', "#", "\n"),
        *("A", "B_1", "WIREGUARD_", "PROXY", "VPN_", "DNS_", "/", "./", "/config/wg0.conf", ","),
        *("_SECRETFILE", "WIREGUARD_PRIVATE_KEY", "WIREGUARD_MTU", "export ", "{", "[", "@", "\t"),
    ]
    keys = st.sampled_from([CANARY, CANARY[:-1], CANARY.lower()[:1] + CANARY[1:]])
    return st.lists(st.sampled_from(words) | keys, max_size=7).map("".join)


def names() -> st.SearchStrategy[str]:
    """Names of variables: pieces, often behind one of our prefixes."""
    prefixes = st.sampled_from(["", "WIREGUARD_", "PROXY", "VPN_", "wireguard_", "DNS_\x1b\n"])
    return st.tuples(prefixes, pieces()).map("".join).filter(lambda name: "\0" not in name)


@FUZZ
@given(environ=st.dictionaries(names(), pieces(), max_size=4))
@example(environ={f"WIREGUARD_{CANARY}": "x", f"PROXY{CANARY[:-1]}": "on"})
def test_no_name_shows_a_key(tmp_path: Path, environ: dict[str, str]) -> None:
    """Unknown ones, those of other images, and those of other letters."""
    shown = {name: text for name, text in environ.items() if "PUBLIC_KEY" not in name}
    try:
        said = reported(assemble.load({**COMPLETE, **shown}, tmp_path))
    except ConfigError as err:
        said = "\n".join(map(str, (*err.problems, *err.notices)))
    assert_silent(said)


@FUZZ
@given(lines=st.lists(pieces(), max_size=6))
@example(lines=[f"WIREGUARD_PRIVATE_KEY: {CANARY}", f"A=${{{CANARY}}}", f"${CANARY}=1"])
@example(lines=[CANARY, f"WIREGUARD_MTU=${{{CANARY[:-1]}:?x}}", f"B=${{X:?{CANARY}}}"])
def test_no_env_file_shows_a_key(tmp_path: Path, lines: list[str]) -> None:
    """For any lines."""
    assert_silent(said_of_env_file(tmp_path, "\n".join(lines)))


def services() -> st.SearchStrategy[object]:
    """Return services whose values are pieces."""
    texts = pieces()
    lists = st.lists(texts | st.dictionaries(texts, texts, max_size=1), max_size=3)
    return st.dictionaries(
        st.sampled_from(
            ["environment", "env_file", "volumes", "secrets", "configs", "ports", "extends"]
        ),
        lists | st.dictionaries(names(), texts, max_size=3) | texts,
        max_size=4,
    )


@FUZZ
@given(service=services(), top=st.dictionaries(pieces(), st.dictionaries(pieces(), pieces())))
@example(service={"environment": {"WIREGUARD_PRIVATE_KEY": f"${{{CANARY}}}"}}, top={})
@example(service={"env_file": [CANARY], "volumes": [f"./{CANARY}:/config/wg0.conf"]}, top={})
@example(service={"secrets": [CANARY], "environment": {CANARY: "${"}}, top={})
@example(service={"secrets": ["x"]}, top={"x": {"environment": CANARY}})
def test_no_compose_file_shows_a_key(tmp_path: Path, service: object, top: object) -> None:
    """As a name, a value, a path, a variable; in every key that is read."""
    document = {"services": {"gateway": service, CANARY: {}}, "secrets": top, "configs": top}
    document["include"] = list(top)
    assert_silent(said_of_compose(tmp_path, yaml.safe_dump(document), {"A": CANARY}))
    assert_silent(said_of_compose(tmp_path, yaml.safe_dump({"services": {CANARY: {}}}), {}))


@pytest.mark.parametrize("key", [PRIVATE, CANARY])
def test_the_private_key_as_a_servers_public_key_is_refused(tmp_path: Path, key: str) -> None:
    """In the list of servers too: a public key is shown to everybody."""
    environ = {name: text for name, text in COMPLETE.items() if "ENDPOINT" not in name}
    environ |= {
        "WIREGUARD_PRIVATE_KEY": key,
        "WIREGUARD_ENDPOINTS": f"203.0.113.1:1,203.0.113.2:2@{key}",
    }
    (problem,) = problems(environ, tmp_path)
    assert problem.startswith("WIREGUARD_ENDPOINTS: the public key is your private key")
    assert key[:-1] not in problem


def test_every_server_of_a_list_is_checked(tmp_path: Path) -> None:
    """Not the first alone: the tunnel's own address is not a server; twice is once."""
    environ = {name: text for name, text in COMPLETE.items() if "ENDPOINT" not in name}
    environ["WIREGUARD_ENDPOINTS"] = "203.0.113.1:1,10.64.1.2:2"
    (problem,) = problems(environ, tmp_path)
    assert problem.startswith("WIREGUARD_ENDPOINTS: the server's address 10.64.1.2 is the tunnel's")
    public = COMPLETE["WIREGUARD_PUBLIC_KEY"]
    environ["WIREGUARD_ENDPOINTS"] = f"203.0.113.1:1,203.0.113.1:1@{public},203.0.113.1:2"
    loaded = assemble.load(environ, tmp_path)
    assert [str(tunnel.endpoints[0]) for tunnel in loaded.config.tunnels] == [
        "203.0.113.1:1",
        "203.0.113.1:2",
    ]
    assert "WIREGUARD_ENDPOINTS: 203.0.113.1:1 is listed twice; once is enough" in reported(loaded)


@pytest.mark.parametrize("other", ["WIREGUARD_PRIVATE_KEY", "WIREGUARD_PUBLIC_KEY"])
def test_a_preshared_key_is_a_key_of_its_own(tmp_path: Path, other: str) -> None:
    """Neither of the other two, which are pasted there by mistake."""
    (problem,) = problems({**COMPLETE, "WIREGUARD_PRESHARED_KEY": COMPLETE[other]}, tmp_path)
    assert problem.startswith("WIREGUARD_PRESHARED_KEY: the preshared key is ")


def test_nothing_said_ends_a_line_or_steers_a_terminal(tmp_path: Path) -> None:
    """Names may hold anything but `=` and NUL."""
    for name in ("WIREGUARD_X\nERROR", "PROXY_\x1b[2J", "VPN_\u2028"):
        try:
            said = reported(assemble.load({**COMPLETE, name: "x"}, tmp_path))
        except ConfigError as err:
            said = str(err)
        assert "\x1b" not in said
        assert not any(line.startswith("ERROR") for line in said.splitlines())
        assert "?" in said
