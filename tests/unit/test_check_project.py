"""`gateway check` follows the compose files that others name, and reads what Compose has merged."""

import io
import json
import os
import sys
from pathlib import Path

import pytest
import yaml

from gateway import cli
from gateway.commands.check.compose import STANDARD_INPUT
from gateway.errors import ConfigError
from gateway.model import Secret
from gateway.settings.assemble import Loaded
from tests.configurations import (
    COMPLETE,
    OTHER_PRIVATE,
    PRESHARED,
    PRIVATE,
    QUICK,
    load_service,
    put,
    reported,
    shown_from,
)

CANARY = "wOEI9rqqbDwnN8/Bpp22sVz48T71vJ4fYmFWujulwUU="


def compose(root: Path, path: str, **content: object) -> None:
    """Write a compose file."""
    put(root, path, yaml.safe_dump(content))


def load(root: Path, shell: dict[str, str] | None = None) -> Loaded:
    """Check the service `gateway` of the project in `root`."""
    return load_service(root / "compose.yml", "gateway", shell or {})


def problems(root: Path) -> list[str]:
    """Return the problems of a project that must be refused."""
    with pytest.raises(ConfigError) as caught:
        load(root)
    return [str(problem) for problem in caught.value.problems]


def level(root: Path, shell: dict[str, str] | None = None) -> str:
    """Return the log's level, a variable in place of any other."""
    return load(root, shell).log.level


def test_a_service_of_another_file_is_extended(tmp_path: Path) -> None:
    """Variables add up and the nearest wins; relative paths are those of their own file."""
    base = {
        "environment": [f"{name}={text}" for name, text in COMPLETE.items()] + ["LOG_LEVEL=error"],
        "env_file": "base.env",
        "volumes": ["./wg0.conf:/config/wg0.conf", "./key:/run/secrets/wireguard_preshared_key"],
        "cap_add": ["NET_ADMIN"],
        "ports": ["8080:8080"],
    }
    compose(tmp_path, "common/base.yml", services={"vpn": base})
    put(tmp_path, "common/base.env", "LOG_FORMAT=json\nWIREGUARD_MTU=1300\n")
    put(tmp_path, "common/wg0.conf", QUICK)
    put(tmp_path, "common/key", PRESHARED)
    put(tmp_path, "own.env", "LOG_FORMAT=console\n")
    put(tmp_path, "wg0.conf", QUICK.replace(OTHER_PRIVATE, PRIVATE))
    service: dict[str, object] = {"extends": {"file": "common/base.yml", "service": "vpn"}}
    compose(tmp_path, "compose.yml", services={"gateway": service})
    loaded = load(tmp_path)
    assert loaded.config.tunnels[0].private_key == Secret(OTHER_PRIVATE)
    assert loaded.config.tunnels[0].peers[0].preshared_key
    assert (loaded.log.level, loaded.log.format) == ("error", "json")
    assert "cap_add" not in reported(loaded)
    assert "port 8080/tcp is published" in reported(loaded)
    service |= {
        "environment": {"LOG_LEVEL": "debug"},
        "env_file": ["own.env"],
        "volumes": ["./wg0.conf:/config/wg0.conf"],
        "ports": ["9090:9090"],
    }
    compose(tmp_path, "compose.yml", services={"gateway": service})
    loaded = load(tmp_path)
    assert loaded.config.tunnels[0].private_key == Secret(PRIVATE)
    assert (loaded.log.level, loaded.log.format) == ("debug", "console")
    assert loaded.config.tunnels[0].mtu == 1300
    assert "ports 8080/tcp, 9090/tcp are published" in reported(loaded)


def test_a_service_of_the_same_file_is_extended_in_either_form(tmp_path: Path) -> None:
    """Through several, of which the nearest wins; the shell's variables hold for all of them."""
    for extends in ({"service": "middle"}, "middle"):
        services = {
            "far": {"environment": {**COMPLETE, "LOG_LEVEL": "error", "LOG_FORMAT": "${FORM}"}},
            "middle": {"extends": "far", "environment": {"LOG_LEVEL": "debug"}},
            "gateway": {"extends": extends},
        }
        compose(tmp_path, "compose.yml", services=services)
        loaded = load(tmp_path, {"FORM": "json"})
        assert (loaded.log.level, loaded.log.format) == ("debug", "json")


def test_what_is_reset_or_overridden_replaces_what_is_extended(tmp_path: Path) -> None:
    """`!reset` takes away, a whole key or one variable; `!override` adds nothing to the new."""
    base = {
        "environment": {**COMPLETE, "LOG_LEVEL": "error"},
        "ports": ["8080:8080"],
        "cap_add": ["NET_ADMIN"],
        "volumes": ["./none.conf:/config/wg0.conf"],
    }
    compose(tmp_path, "base.yml", services={"vpn": base})
    main = """\
services:
  gateway:
    extends: {file: base.yml, service: vpn}
    environment: {LOG_LEVEL: !reset null}
    volumes: !reset []
    ports: !override ["9090:9090"]
"""
    put(tmp_path, "compose.yml", main)
    loaded = load(tmp_path)
    assert loaded.log.level == "info"
    assert "8080" not in reported(loaded)
    assert "port 9090/tcp is published" in reported(loaded)
    assert "cap_add" not in reported(loaded)
    put(tmp_path, "compose.yml", main.replace("    volumes: !reset []\n", ""))
    assert any("but it does not exist" in problem for problem in problems(tmp_path))  # control


def test_a_service_of_an_included_file_is_read_in_its_own_place(tmp_path: Path) -> None:
    """With its own folder and `.env`, over which the including project's variables win."""
    vpn = {"environment": {**COMPLETE, "LOG_LEVEL": "${LEVEL:-error}"}, "env_file": "own.env"}
    compose(tmp_path, "vpn/compose.yml", services={"gateway": vpn})
    put(tmp_path, "vpn/own.env", "WIREGUARD_MTU=1300\n")
    for entry in ("vpn/compose.yml", {"path": "./vpn/compose.yml"}, {"path": ["vpn/compose.yml"]}):
        compose(tmp_path, "compose.yml", include=[entry], services={"app": {}})
        assert level(tmp_path) == "error"
        assert load(tmp_path).config.tunnels[0].mtu == 1300
    put(tmp_path, "vpn/.env", "LEVEL=debug\n")
    assert level(tmp_path) == "debug"
    put(tmp_path, ".env", "LEVEL=warning\n")
    assert level(tmp_path) == "warning"
    assert level(tmp_path, {"LEVEL": "info"}) == "info"


def test_an_include_may_name_its_folder_its_variables_and_files_to_merge(tmp_path: Path) -> None:
    """The long form; its secrets are defined in any of the files."""
    vpn = {"environment": {**COMPLETE, "LOG_LEVEL": "${LEVEL}"}, "env_file": "own.env"}
    compose(tmp_path, "vpn/one.yml", services={"gateway": {**vpn, "secrets": ["wg0.conf"]}})
    compose(
        tmp_path,
        "vpn/two.yml",
        services={"gateway": {"environment": {"LOG_FORMAT": "json"}}},
        secrets={"wg0.conf": {"file": "./wg0.conf"}},
    )
    put(tmp_path, "elsewhere/own.env", "WIREGUARD_MTU=1300\n")
    put(tmp_path, "elsewhere/wg0.conf", QUICK)
    put(tmp_path, "a.env", "LEVEL=error\n")
    put(tmp_path, "b.env", "LEVEL=debug\n")
    include = {
        "path": ["vpn/one.yml", "vpn/two.yml"],
        "project_directory": "elsewhere",
        "env_file": ["a.env", "b.env"],
    }
    compose(tmp_path, "compose.yml", include=[include])
    loaded = load(tmp_path)
    assert (loaded.log.level, loaded.log.format) == ("debug", "json")
    assert loaded.config.tunnels[0].mtu == 1300
    assert loaded.config.tunnels[0].private_key == Secret(OTHER_PRIVATE)


def test_a_service_that_two_files_define_is_refused(tmp_path: Path) -> None:
    """As Compose does: neither wins."""
    compose(tmp_path, "a.yml", services={"gateway": {"environment": COMPLETE}})
    compose(tmp_path, "compose.yml", include=["a.yml"], services={"gateway": {}})
    assert any("defines the service 'gateway', and so does" in one for one in problems(tmp_path))


CIRCLES = {
    "itself": {"gateway": {"extends": "gateway"}},
    "two": {"gateway": {"extends": "b"}, "b": {"extends": {"service": "gateway"}}},
    "by another file": {"gateway": {"extends": {"file": "b.yml", "service": "b"}}},
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", CIRCLES)
def test_a_circle_of_extends_is_reported(tmp_path: Path, name: str) -> None:
    """Within one file, and through another one."""
    compose(tmp_path, "compose.yml", services=CIRCLES[name])
    back = {"extends": {"file": "compose.yml", "service": "gateway"}}
    compose(tmp_path, "b.yml", services={"b": back})
    (found,) = [one for one in problems(tmp_path) if "extends itself through other services" in one]
    assert str(tmp_path) in found


@pytest.mark.timeout(20)
@pytest.mark.parametrize("path", ["compose.yml", "b.yml"])
def test_a_circle_of_includes_is_reported(tmp_path: Path, path: str) -> None:
    """Directly, and through another file."""
    compose(tmp_path, "compose.yml", include=[path], services={"gateway": {}})
    compose(tmp_path, "b.yml", include=["./compose.yml"])
    assert any("includes itself through other files" in problem for problem in problems(tmp_path))


@pytest.mark.timeout(30)
@pytest.mark.parametrize("key", ["include", "extends"])
def test_no_project_keeps_check_busy(tmp_path: Path, key: str) -> None:
    """Files that name each other without end, or far more of them than anybody has."""
    for number in range(80):
        after = f"f{number + 1}.yml"
        if key == "include":
            compose(tmp_path, f"f{number}.yml", include=[after, after])
        else:
            extends = {"extends": {"file": after, "service": "gateway"}}
            compose(tmp_path, f"f{number}.yml", services={"gateway": extends})
    compose(tmp_path, "f80.yml", services={"gateway": {}})
    first = yaml.safe_load((tmp_path / "f0.yml").read_text())
    compose(tmp_path, "compose.yml", **{"services": {"gateway": {}}, **first})
    found = problems(tmp_path)
    assert any(
        "more than 50 files are too many" in one or "more than 20 services extend" in one
        for one in found
    )


def unreadable(root: Path) -> dict[str, str]:
    """Make files that should not be named, and return what is said of each."""
    (root / "folder.yml").mkdir()
    os.mkfifo(root / "pipe.yml")
    (root / "loop.yml").symlink_to("loop.yml")
    put(root, "large.yml", "a: b\n" * 300_000)
    put(root, "secret.yml", f"{CANARY}\n{CANARY}: [")
    put(root, "list.yml", f"- {CANARY}")
    return {
        "none.yml": "cannot be read",
        "folder.yml": "is not a compose file",
        "pipe.yml": "is not a compose file",
        "loop.yml": "cannot be read",
        "large.yml": "has more than 1024 KiB",
        "secret.yml": "is not valid YAML",
        "list.yml": "is not a compose file",
        "a\0b": "embedded null",
        "https://example.com/compose.yml": "is not a local file",
        "oci://example.com/x": "is not a local file",
        "git@example.com:x/y.git": "is not a local file",
    }


@pytest.mark.timeout(20)
@pytest.mark.parametrize("key", ["include", "extends"])
def test_a_file_that_cannot_be_followed_is_reported(tmp_path: Path, key: str) -> None:
    """With its name and the reason, in bounded time, and without a word of what is in it."""
    for name, expected in unreadable(tmp_path).items():
        content: dict[str, object] = {"include": [name], "services": {"gateway": {}}}
        if key == "extends":
            content = {"services": {"gateway": {"extends": {"file": name, "service": "x"}}}}
        compose(tmp_path, "compose.yml", **content)
        found = problems(tmp_path)
        assert any(expected in problem for problem in found), (name, found)
        assert not any(CANARY[:16] in problem for problem in found)


@pytest.mark.parametrize(
    ("extends", "expected"),
    [
        ("other", "has no service 'other', which another service extends; its services are: gate"),
        ({"file": "compose.yml"}, "has no service '', which another service extends"),
        ([["x"]], "which another service extends"),
        ({"service": "${"}, "has a ${ without a closing }"),
    ],
)
def test_a_service_that_is_not_there_cannot_be_extended(
    tmp_path: Path, extends: object, expected: str
) -> None:
    """With those that are."""
    compose(tmp_path, "compose.yml", services={"gateway": {"extends": extends}})
    assert any(expected in problem for problem in problems(tmp_path))


@pytest.mark.parametrize("key", ["include", "extends"])
def test_a_file_outside_the_project_is_read_and_reported(tmp_path: Path, key: str) -> None:
    """In a container it may not be mounted; a symbolic link out of the project counts too."""
    compose(tmp_path, "shared.yml", services={"gateway": {"environment": COMPLETE}})
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "link.yml").symlink_to("../shared.yml")
    compose(tmp_path, "project/near.yml", services={"gateway": {"environment": COMPLETE}})
    for name, outside in (("../shared.yml", True), ("link.yml", True), ("near.yml", False)):
        content: dict[str, object] = {"include": [name]}
        if key == "extends":
            extends = {"file": name, "service": "gateway"}
            content = {"services": {"gateway": {"extends": extends}}}
        compose(tmp_path, "project/compose.yml", **content)
        loaded = load(tmp_path / "project")
        said = f"{key} names {name}, which is outside the project's directory"
        assert (said in reported(loaded)) is outside


MERGED = {
    "name": "home",
    "services": {
        "gateway": {
            "cap_add": ["NET_ADMIN"],
            "command": None,
            "entrypoint": None,
            "environment": {
                "DNS_ADDRESS": "10.2.0.1",
                "LOG_LEVEL": "debug",
                "UNSET": None,
                "VPN_UP_COMMAND": "/config/up.sh --price 5$$",
            },
            "image": "portcullis",
            "networks": {"default": None},
            "ports": [
                {"mode": "ingress", "target": 8080, "published": "8080", "protocol": "tcp"},
                {"mode": "ingress", "target": 51820, "published": "51820", "protocol": "udp"},
            ],
            "secrets": [{"source": "psk", "target": "wireguard_preshared_key"}],
            "volumes": [
                {
                    "type": "bind",
                    "source": "ROOT/wg0.conf",
                    "target": "/config/wg0.conf",
                    "read_only": True,
                    "bind": {"create_host_path": True},
                }
            ],
        }
    },
    "networks": {"default": {"name": "home_default", "ipam": {}}},
    "secrets": {"psk": {"name": "home_psk", "file": "ROOT/psk"}},
}
"""As `docker compose config` of Compose 2 writes a project: paths absolute, `$` doubled."""


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_the_output_of_docker_compose_config_is_read_from_standard_input(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    form: str,
) -> None:
    """In both of its forms, and in whatever folder."""
    put(tmp_path, "wg0.conf", QUICK)
    put(tmp_path, "psk", COMPLETE["WIREGUARD_PRIVATE_KEY"])
    text = (json.dumps(MERGED, indent=2) if form == "json" else yaml.safe_dump(MERGED)).replace(
        "ROOT", str(tmp_path)
    )
    feed(monkeypatch, text.encode())
    loaded = load_service(STANDARD_INPUT, "gateway", {})
    assert loaded.config.tunnels[0].private_key == Secret(OTHER_PRIVATE)
    assert loaded.config.tunnels[0].peers[0].preshared_key == Secret(PRIVATE)
    assert loaded.config.up_command == ("/config/up.sh", "--price", "5$")
    assert shown_from(loaded, "WIREGUARD_PRIVATE_KEY", "/config/wg0.conf line 2")
    assert "standard input: port 8080/tcp is published but stays closed" in reported(loaded)
    feed(monkeypatch, text.encode())
    assert cli.main(["check", "--compose", "-"]) == 0
    assert "10.2.0.2/32" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", "standard input: is not a compose file"),
        (b"services: [", "standard input line 1: is not valid YAML"),
        (b"\xff\xff", "standard input: is not UTF-8 text"),
        (b" " * 1_100_000, "standard input: has more than 1024 KiB"),
        (b"services: {a: {}}", "standard input: has no service 'gateway'; its services are: a"),
    ],
)
def test_what_is_wrong_with_standard_input_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], raw: bytes, expected: str
) -> None:
    """As of a file."""
    feed(monkeypatch, raw)
    assert cli.main(["check", "--compose", "-"]) == 2
    assert expected in capsys.readouterr().err


def feed(monkeypatch: pytest.MonkeyPatch, raw: bytes) -> None:
    """Let standard input hold `raw`."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
