"""The file that keeps a provider's list: what other programs put there does no harm."""

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.model import Candidate, Endpoint, NamedEndpoint
from gateway.providers import selection
from gateway.providers.lists import LARGEST_KEPT, LATEST, BadListError
from gateway.settings.assemble import Loaded, load
from gateway.settings.kept_lists import read
from tests.provider_lists import key

SERVER = {"hostname": "a.example", "public_key": key(1), "addresses": ["198.51.100.1"]}
CONFIG, OWN = "config/servers", "var/lib/portcullis/servers"
DAY = 86_400


def keep(root: Path, place: str = CONFIG, **changes: Any) -> Path:
    """Keep a list of Mullvad with one server in a place, and return the file."""
    content = {"provider": "mullvad", "source": "", "fetched": 5, "servers": [SERVER], **changes}
    file = root / place / "mullvad.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def loaded(root: Path, **variables: str) -> Loaded:
    """Return the configuration of a user of Mullvad."""
    wanted = {
        "VPN_SERVICE_PROVIDER": "mullvad",
        "WIREGUARD_PRIVATE_KEY": key(9),
        "WIREGUARD_ADDRESSES": "10.64.1.2/32",
    }
    return load(wanted | variables, root)


def servers(root: Path) -> list[Endpoint | NamedEndpoint]:
    """Return the servers of the configuration; none where the list has to be fetched."""
    return [peer.endpoint for tunnel in loaded(root).config.tunnels for peer in tunnel.peers]


def said(root: Path) -> str:
    """Return what is reported about the file of the list."""
    return " ".join(str(it) for it in loaded(root).notices if "mullvad.json" in str(it))


def test_the_servers_of_the_file_are_the_candidates(tmp_path: Path) -> None:
    """With the provider's port; a server without an address is looked up."""
    keep(tmp_path, servers=[SERVER, {"hostname": "b.example", "public_key": key(2)}])
    assert {str(it) for it in servers(tmp_path)} == {"198.51.100.1:51820", "b.example:51820"}


def test_a_candidate_has_the_name_that_the_provider_gives_it(tmp_path: Path) -> None:
    """The host's name where it has no other; a changed name alone is not another configuration."""
    named = {"hostname": "b.example", "public_key": key(2), "name": "se-sto-wg-1"}
    keep(tmp_path, servers=[SERVER, named])
    config = loaded(tmp_path).config
    assert {it.name for it in config.tunnels} == {"a.example", "se-sto-wg-1"}
    keep(tmp_path, servers=[SERVER, named | {"name": "se-sto-wg-2"}])
    again = loaded(tmp_path).config
    assert "se-sto-wg-2" in {it.name for it in again.tunnels}
    assert again == config


@pytest.mark.parametrize("fetched", [-1, -(10**13), LATEST + 1, 10**20, 1.5, True, None])
def test_a_time_that_is_not_one_makes_the_file_unusable(tmp_path: Path, fetched: object) -> None:
    """The list is fetched again; what Python has no date for ended the gateway."""
    keep(tmp_path, fetched=fetched)
    assert servers(tmp_path) == []
    assert "is fetched again" in said(tmp_path)
    keep(tmp_path, fetched=LATEST)
    assert servers(tmp_path), "control: the last time that there is"


@pytest.mark.parametrize("hostname", ["not a name", "198.51.100.9", "a..example", ""])
def test_a_server_without_address_or_name_is_left_out(tmp_path: Path, hostname: str) -> None:
    """And a list of such servers is not one: as the only candidate it ended the gateway."""
    nowhere = {"hostname": hostname, "public_key": key(2)}
    keep(tmp_path, servers=[nowhere, SERVER])
    assert [str(it) for it in servers(tmp_path)] == ["198.51.100.1:51820"]
    keep(tmp_path, servers=[nowhere])
    assert servers(tmp_path) == []
    assert "is fetched again" in said(tmp_path)


def test_the_newest_file_counts_and_none_from_the_future_hides_it(tmp_path: Path) -> None:
    """Where the clock is behind all of them, the newest counts, too."""

    def kept_at(config: float, own: float) -> str:
        keep(tmp_path, fetched=int(config))
        keep(tmp_path, OWN, fetched=int(own), servers=[SERVER | {"addresses": ["192.0.2.9"]}])
        [found] = servers(tmp_path)
        return "config" if str(found) == "198.51.100.1:51820" else "own"

    now = time.time()
    assert kept_at(now - DAY, now - 2 * DAY) == "config"
    assert kept_at(now - 2 * DAY, now - DAY) == "own"
    assert kept_at(now + DAY, now - DAY) == "own"
    assert kept_at(now - DAY, now + DAY) == "config"
    assert kept_at(now + DAY, now + 2 * DAY) == "own"


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    """Reading 24 MiB of brackets took 680 MiB of memory; a list that was kept has at most 16."""
    file = keep(tmp_path)
    file.write_text(f"{file.read_text()}{' ' * LARGEST_KEPT}")
    assert servers(tmp_path) == []
    assert "larger than 16 MiB" in said(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """Nor one that takes the place of the file after it was looked at."""
    file = keep(tmp_path)
    file.unlink()
    os.mkfifo(file)
    outcome: list[list[Endpoint | NamedEndpoint]] = []
    reader = threading.Thread(target=lambda: outcome.append(servers(tmp_path)), daemon=True)
    reader.start()
    reader.join(10)
    assert outcome == [[]]
    assert "not a regular file" in said(tmp_path)
    with pytest.raises(BadListError, match="not a regular file"):
        read(Path("/dev/null"))
    with pytest.raises(IsADirectoryError):
        read(tmp_path)


def test_many_values_that_do_not_exist_cost_no_more_than_a_few(tmp_path: Path) -> None:
    """Each of them is named; for the first ones the nearest is."""
    keep(tmp_path, servers=[SERVER, SERVER | {"hostname": "b.example"}])
    wrong = [f"x{number}.example" for number in range(50)]
    found = selection.why_none(
        read(tmp_path / CONFIG / "mullvad.json").servers,
        selection.Filters({"SERVER_HOSTNAMES": tuple(wrong), "SERVER_CITIES": ("x",)}),
    )
    assert [one.value for one in found] == [*wrong, "x"]
    compared = [one.value for one in found if one.existing]
    assert compared == wrong[: selection.MOST_COMPARED]


def test_a_candidate_is_what_the_type_says(tmp_path: Path) -> None:
    """The addresses of a list have neither a zone nor another form of IPv4."""
    odd = ["2001:db8::1%eth0", "2001:db8::1%x } accept;", "::ffff:198.51.100.1"]
    keep(tmp_path, servers=[SERVER | {"addresses": odd}])
    [tunnel] = loaded(tmp_path).config.tunnels
    assert isinstance(tunnel, Candidate)
    assert [str(it) for it in servers(tmp_path)] == ["a.example:51820"]
