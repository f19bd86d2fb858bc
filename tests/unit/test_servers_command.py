"""`gateway servers`: a list is fetched by hand over real TLS, kept, and shown."""

import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway import cli
from gateway.commands import servers
from gateway.providers import catalog, lists, selection
from gateway.providers.lists import KeptList
from tests.lab.tls import Authority, serve
from tests.provider_lists import raw

HOST = "localhost"


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """Return a directory with the list of Mullvad."""
    provider = catalog.find("mullvad")
    assert provider is not None
    found = lists.servers_in(provider, raw("mullvad"))
    content = KeptList("mullvad", "https://x", int(time.time()) - 7200, found)
    (tmp_path / "mullvad.json").write_bytes(lists.dumped(content))
    return tmp_path


def show(places: Path, *words: str) -> int:
    """Run `gateway servers list mullvad` with `words`."""
    return cli.main(["servers", "list", "mullvad", "--directory", str(places), *words])


def update(place: Path) -> int:
    """Run `gateway servers update mullvad` into the directory `place`."""
    return cli.main(["servers", "update", "mullvad", "--directory", str(place)])


def test_options_are_the_variables_of_a_selection() -> None:
    """One that is missing here could not be tried by hand."""
    assert set(cli.SERVER_FILTERS) == set(map(servers._option, selection.TEXTS))  # noqa: SLF001
    assert set(cli.SERVER_FLAGS) == set(selection.FLAGS)


def test_all_servers_are_shown_as_a_table(places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Columns without any value are left out."""
    assert show(places) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "hostname       country      city       isp",
        "nl-ams-wg-001  Netherlands  Amsterdam  31173",
        "de-ber-wg-002  Germany      Berlin     M247",
    ]
    assert shown.err == "2 of 2 servers, fetched 2 hours ago\n"


def test_filters_choose_as_the_variables_do(
    places: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also as JSON; no match is a failure."""
    assert show(places, "--countries", "germany, sweden", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["hostname"], found["addresses"][0]) == ("de-ber-wg-002", "198.51.100.2")
    assert show(places, "--owned-only", "--countries", "Germany") == 1
    assert show(places, "--port-forward-only") == 1


@pytest.mark.parametrize("name", ["", "mulvad", "protonvpn"])
def test_a_provider_without_a_list_is_refused(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With those that have one."""
    monkeypatch.delenv("VPN_SERVICE_PROVIDER", raising=False)
    assert cli.main(["servers", "update", *([name] if name else [])]) == 2
    assert "airvpn, ivpn, mullvad" in capsys.readouterr().err


def test_a_list_that_is_not_there_says_how_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command, ready to paste."""
    assert show(tmp_path) == 1
    assert "gateway servers update mullvad" in capsys.readouterr().err


@pytest.fixture
def host(trusted: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Serve Mullvad's list over TLS on loopback; yield the port."""
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted.certificate))
    with serve(trusted.issue(HOST), raw("mullvad")) as port:
        yield port


def fetch_from(port: int, monkeypatch: pytest.MonkeyPatch, host: str = HOST) -> None:
    """Let Mullvad's list be at `port` of `host`."""
    mullvad = catalog.find("mullvad")
    assert mullvad is not None
    moved = replace(mullvad, url=f"https://{host}:{port}/relays/?all")
    monkeypatch.setattr(catalog, "find", lambda _name: moved)


def test_a_list_is_fetched_and_kept(
    host: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the first directory that can be written to."""
    fetch_from(host, monkeypatch)
    place = tmp_path / "servers"
    assert update(place) == 0
    assert f"2 servers of Mullvad are now in {place}/mullvad.json" in capsys.readouterr().out
    assert [path.name for path in place.iterdir()] == ["mullvad.json"]
    assert len(lists.kept((place / "mullvad.json").read_bytes()).servers) == 2


def test_a_host_of_another_name_is_refused(
    host: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The former list stays."""
    fetch_from(host, monkeypatch, "127.0.0.1")
    (tmp_path / "mullvad.json").write_text("former")
    assert update(tmp_path) == 1
    assert "certificate" in capsys.readouterr().err
    assert (tmp_path / "mullvad.json").read_text() == "former"


def test_a_host_that_never_ends_is_given_up(
    trusted: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It sends an octet before it has been silent for long; the former list stays."""
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted.certificate))
    monkeypatch.setattr(servers, "TIME_LIMIT", 0.5)
    (tmp_path / "mullvad.json").write_text("former")
    ended = threading.Event()

    def octets() -> Iterator[bytes]:
        while not ended.wait(0.02):
            yield b" "

    with serve(trusted.issue(HOST), octets()) as port:
        fetch_from(port, monkeypatch)
        assert update(tmp_path) == 1
        ended.set()
    assert "not done after 0.5 s" in capsys.readouterr().err
    assert (tmp_path / "mullvad.json").read_text() == "former"


def test_a_host_that_says_nothing_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It accepts the connection, and that is all."""
    monkeypatch.setattr(servers, "TIME_LIMIT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        fetch_from(silent.getsockname()[1], monkeypatch)
        assert update(tmp_path) == 1
    assert "not done after 0.5 s" in capsys.readouterr().err


def test_a_list_that_takes_much_memory_is_given_up(
    trusted: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is read with the limits that the gateway sets, and not by the command itself."""
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted.certificate))
    hostile = b"[" + b"{}," * (lists.LARGEST // 3 - 2) + b"{}]"
    assert len(hostile) <= lists.LARGEST
    with serve(trusted.issue(HOST), hostile) as port:
        fetch_from(port, monkeypatch)
        assert update(tmp_path) == 1
    assert "it takes more than 640 MiB of memory" in capsys.readouterr().err


def test_the_next_address_of_a_host_is_tried(
    host: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of the two has no program that listens."""
    fetch_from(host, monkeypatch)
    found = [(0, 0, 0, "", (address, host)) for address in ("127.0.0.2", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert update(tmp_path) == 0


def test_what_a_host_has_answered_is_the_error(
    host: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And not that another address of it, as one of IPv6 without a route, leads nowhere."""
    fetch_from(host, monkeypatch, "127.0.0.1")
    found = [(0, 0, 0, "", (address, host)) for address in ("127.0.0.1", "127.0.0.2")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert update(tmp_path) == 1
    assert capsys.readouterr().err.startswith("Mullvad: certificate: ")


def test_authorities_in_a_directory_are_trusted(
    host: int, trusted: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As OpenSSL trusts them, though the process that reads the list can open no file."""
    directory = tmp_path / "authorities"
    directory.mkdir()
    (directory / "one.crt").write_bytes(trusted.certificate.read_bytes())
    (directory / "00000000.0").write_text("no certificate")
    fetch_from(host, monkeypatch)
    monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")
    monkeypatch.setenv("SSL_CERT_DIR", f"/nowhere:{directory}")
    assert update(tmp_path) == 1, "control"
    subprocess.run(["openssl", "rehash", str(directory)], check=True, timeout=20)
    assert update(tmp_path) == 0


def test_name_servers_that_are_silent_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The system's resolver waits for them longer than this command does."""
    monkeypatch.setattr(servers, "TIME_LIMIT", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(5))
    fetch_from(443, monkeypatch)
    began = time.monotonic()
    assert update(tmp_path) == 1
    assert time.monotonic() - began < 4
    assert "not done after 0.2 s" in capsys.readouterr().err


def test_a_host_that_is_not_found_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the words of the system's resolver."""
    fetch_from(443, monkeypatch, "host.invalid.")
    assert update(tmp_path) == 1
    assert capsys.readouterr().err.startswith("Mullvad: look up: ")
