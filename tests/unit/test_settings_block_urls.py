"""Lists of blocked names that are fetched: their URLs, their copies, and gluetun's switches."""

import os
from pathlib import Path

import pytest

from gateway.commands.check.explain import explain
from gateway.model.name_server import BlockFile, BlockList, NameServer
from gateway.policy.reload import taken_over
from gateway.providers.kept import BLOCK_PLACES, blocked_name
from gateway.settings import assemble
from tests.configurations import COMPLETE, problems, put, reported

URL = "https://lists.example/ads"
LISTED = BlockList("", "lists.example", "/ads")
GLUETUN = "https://raw.githubusercontent.com/qdm12/files/master"


def server_of(tmp_path: Path, **changes: str) -> NameServer:
    """Return the resolver of a configuration."""
    found = assemble.load({**COMPLETE, **changes}, tmp_path).config.name_server
    assert found
    return found


def test_urls_are_read(tmp_path: Path) -> None:
    """In the form that they are written in, each once; by default there is none."""
    assert server_of(tmp_path).lists == ()
    assert server_of(tmp_path).update_period == 86400
    text = f"{URL}, https://Other.Example:8443/b?c=d&e, {URL} ,https://bare.example"
    found = server_of(tmp_path, DNS_BLOCK_URLS=text).lists
    assert found == (
        LISTED,
        BlockList("", "other.example", "/b?c=d&e", 8443),
        BlockList("", "bare.example", "/"),
    )
    assert [it.url for it in found][:2] == [URL, "https://other.example:8443/b?c=d&e"]


@pytest.mark.parametrize(
    "wrong",
    [
        "ftp://lists.example/",
        "https://",
        "https:///ads",
        "https://a b/",
        "https://[::1]/",
        "https://[/",
        "https://lists.example/#ads",
        "https://lists.example/\x01",
        "https://lists.example/é",
        "https://lists.example/" + "x" * 500,
        "https://lists.example:99999/",
        '"https://lists.example/ads',
    ],
)
def test_anything_else_is_refused(tmp_path: Path, wrong: str) -> None:
    """With the variable, and in one printable line."""
    (problem,) = problems({**COMPLETE, "DNS_BLOCK_URLS": wrong}, tmp_path)
    assert problem.startswith("DNS_BLOCK_URLS: ")
    assert problem.isprintable()


@pytest.mark.parametrize(("text", "seconds"), [("off", 0), ("0", 0), ("12h", 43200)])
@pytest.mark.parametrize("name", ["DNS_UPDATE_PERIOD", "DOT_UPDATE_PERIOD"])
def test_the_period_is_read_by_both_names(
    tmp_path: Path, name: str, text: str, seconds: int
) -> None:
    """As compose files for gluetun have it."""
    assert server_of(tmp_path, **{name: text}).update_period == seconds


def test_the_newest_copy_of_each_list_is_found(tmp_path: Path) -> None:
    """In whichever place; what is not a file is not one, and neither is that of another URL."""
    name = blocked_name(LISTED)
    for age, place in enumerate(reversed(BLOCK_PLACES[:2])):
        put(tmp_path, f"{place.removeprefix('/')}/{name}", "x" * (age + 1))
        os.utime(tmp_path / place.removeprefix("/") / name, (1000 + age, 1000 + age))
    (tmp_path / BLOCK_PLACES[2].removeprefix("/") / name).mkdir(parents=True)
    first, second = server_of(tmp_path, DNS_BLOCK_URLS=f"{URL},{URL}2").lists
    assert first.kept == BlockFile(f"{BLOCK_PLACES[0]}/{name}", 2, 1001 * 10**9)
    assert second.kept is None
    (tmp_path / BLOCK_PLACES[0].removeprefix("/") / name).unlink()
    (first,) = server_of(tmp_path, DNS_BLOCK_URLS=URL).lists
    assert first.kept == BlockFile(f"{BLOCK_PLACES[1]}/{name}", 1, 1000 * 10**9)


def test_a_newer_copy_does_not_change_the_configuration(tmp_path: Path) -> None:
    """`gateway reload` would ask for a restart each day; another URL does take one."""
    environ = {**COMPLETE, "DNS_BLOCK_URLS": URL}
    running = assemble.load(environ, tmp_path).config
    put(tmp_path, f"{BLOCK_PLACES[0].removeprefix('/')}/{blocked_name(LISTED)}", "x")
    with_copy = assemble.load(environ, tmp_path).config
    assert taken_over(running, with_copy, 0.0)[1].needs_restart == ()
    other = assemble.load({**environ, "DNS_BLOCK_URLS": f"{URL}2"}, tmp_path).config
    assert len(taken_over(running, other, 0.0)[1].needs_restart) == 1


def test_check_shows_them(tmp_path: Path) -> None:
    """With where they come from."""
    text = explain(assemble.load({**COMPLETE, "DNS_BLOCK_URLS": URL}, tmp_path))
    (line,) = [it for it in text.splitlines() if "DNS_BLOCK_URLS" in it]
    assert URL in line
    assert "DNS_BLOCK_URLS" not in explain(assemble.load(COMPLETE, tmp_path))


def test_it_has_no_effect_without_our_resolver(tmp_path: Path) -> None:
    """Which is said."""
    loaded = assemble.load({**COMPLETE, "DNS_SERVER": "off", "DNS_BLOCK_URLS": URL}, tmp_path)
    assert "DNS_BLOCK_URLS: has no effect with DNS_SERVER=off" in reported(loaded)


def said(tmp_path: Path, name: str, **changes: str) -> tuple[str, str]:
    """Return the weight and the text of the notice for a variable."""
    loaded = assemble.load({**COMPLETE, **changes}, tmp_path)
    (notice,) = [it for it in loaded.notices if it.where == name]
    return str(notice.weight), notice.message


def test_a_switch_of_gluetun_is_answered_with_the_line_to_write(tmp_path: Path) -> None:
    """It starts all the same: files for gluetun have them."""
    weight, text = said(tmp_path, "BLOCK_MALICIOUS", BLOCK_MALICIOUS="on")
    assert weight == "warning"
    assert f"`DNS_BLOCK_URLS={GLUETUN}/malicious-hostnames.updated`" in text
    weight, _ = said(tmp_path, "BLOCK_ADS", BLOCK_ADS="off")
    assert weight == "info"


def test_several_switches_are_answered_with_one_line(tmp_path: Path) -> None:
    """Those that are on, each list once; what is written is then accepted."""
    switches = {"BLOCK_MALICIOUS": "on", "BLOCK_ADS": "ON", "BLOCK_NSA": "off"}
    _, text = said(tmp_path, "BLOCK_ADS", **switches)
    line = text.partition("`DNS_BLOCK_URLS=")[2].partition("`")[0]
    assert set(line.split(",")) == {
        f"{GLUETUN}/ads-hostnames.updated",
        f"{GLUETUN}/malicious-hostnames.updated",
    }
    assert len(server_of(tmp_path, DNS_BLOCK_URLS=line).lists) == 2
    _, text = said(tmp_path, "BLOCK_NSA", **switches)
    assert "," not in text.partition("`DNS_BLOCK_URLS=")[2].partition("`")[0]
    weight, text = said(tmp_path, "BLOCK_ADS", **switches, DNS_BLOCK_URLS=line)
    assert weight == "info"
    assert "lists of DNS_BLOCK_URLS" in text
