"""A provider's files: a folder of them or a zip file, and which of them are used."""

import tracemalloc
import zipfile
from contextlib import suppress
from io import BytesIO
from ipaddress import ip_address
from pathlib import Path
from time import process_time

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gateway.commands.check.explain import explain
from gateway.model import Secret
from gateway.settings import archive, assemble
from gateway.settings.archive import members
from gateway.settings.assemble import Loaded
from gateway.settings.filters import MOST_CANDIDATES
from gateway.settings.places import MOST_FILES
from tests.configurations import (
    COMPLETE,
    OTHER_PRIVATE,
    QUICK,
    made_up_key,
    problems,
    put,
    reported,
)

FOLDERS = [
    "/config",
    "/config/wg_confs",
    "/config/wireguard",
    "/gluetun/wireguard",
    "/etc/wireguard",
]


def conf(number: int, comment: str = "") -> str:
    """Return a file for server `number`, with a key of its own."""
    text = QUICK.replace(OTHER_PRIVATE, made_up_key(50 + number % 100))
    first = f"# {comment}\n" if comment else ""
    return first + text.replace("198.51.100.9", f"198.51.{number // 250}.{number % 250 + 1}")


def zipped(
    files: dict[str, str | bytes], compression: int = zipfile.ZIP_DEFLATED, encrypted: int = 0
) -> bytes:
    """Return a zip file with `files`; `encrypted` sets that flag in its directory."""
    raw = BytesIO()
    with zipfile.ZipFile(raw, "w", compression) as writer:
        for name, text in files.items():
            writer.writestr(name, text)
        for info in writer.infolist():
            info.flag_bits |= encrypted
    return raw.getvalue()


def servers(loaded: Loaded) -> list[int]:
    """Return the numbers of the servers that are candidates, in order."""
    found = [tunnel.endpoints[0].address for tunnel in loaded.config.tunnels]
    first = int(ip_address("198.51.0.1"))
    return [(int(one) - first) // 256 * 250 + (int(one) - first) % 256 for one in found]


@pytest.mark.parametrize("folder", FOLDERS)
def test_any_file_in_a_folder_is_used(tmp_path: Path, folder: str) -> None:
    """Its name means nothing; hidden ones, and those of another kind, are left out."""
    put(tmp_path, f"{folder}/my provider's file.CONF", conf(1))
    put(tmp_path, f"{folder}/.hidden.conf", "no file")
    put(tmp_path, f"{folder}/notes.txt", "no file")
    assert servers(assemble.load({}, tmp_path)) == [1]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_zip_file_is_a_folder(tmp_path: Path, folder: str) -> None:
    """With any name, and folders in it; each file in it has its own key."""
    files: dict[str, str | bytes] = {f"any/{n}/{n}.conf": conf(n) for n in range(3)}
    extra = {"__MACOSX/any/0/0.conf": "x", "any/._0.conf": "x", "any/": "", "readme.txt": "x"}
    put(tmp_path, f"{folder}/All of them.ZIP", zipped({**files, **extra}))
    loaded = assemble.load({}, tmp_path)
    assert servers(loaded) == [0, 1, 2]
    assert [tunnel.name for tunnel in loaded.config.tunnels] == ["0", "1", "2"]
    keys = [tunnel.private_key for tunnel in loaded.config.tunnels]
    assert keys == [Secret(made_up_key(50 + n)) for n in range(3)]
    assert f"{folder}/All of them.ZIP/any/0/0.conf line 2" in explain(loaded)


def test_the_variable_may_name_a_zip_file(tmp_path: Path) -> None:
    """One that cannot be used is a problem then; in a folder that is searched, a warning."""
    put(tmp_path, "/vpn/mine.zip", zipped({"a.conf": conf(1)}))
    named = {"WIREGUARD_CONF_SECRETFILE": "/vpn/mine.zip"}
    assert servers(assemble.load(named, tmp_path)) == [1]
    put(tmp_path, "/vpn/mine.zip", "no zip file")
    (problem,) = problems(named, tmp_path)
    assert problem.startswith("/vpn/mine.zip: is not used: it is not a zip file that can be read")


def test_files_win_over_a_zip_file_next_to_them(tmp_path: Path) -> None:
    """They were unpacked from it, or something else is in it."""
    put(tmp_path, "/config/a.conf", conf(1))
    put(tmp_path, "/config/b.zip", zipped({"b.conf": conf(2)}))
    assert servers(assemble.load({}, tmp_path)) == [1]


UNUSABLE = {
    "no zip file": b"PK but nothing else",
    "nothing": b"",
    "too large": b"\0" * (archive.LARGEST_ARCHIVE + 1),
    "no file of WireGuard's": zipped({"a.ovpn": "client"}),
    "too many": zipped({f"{n}.conf": "" for n in range(archive.MOST_MEMBERS + 1)}),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_zip_file_that_cannot_be_used_is_reported(tmp_path: Path, kind: str) -> None:
    """It stops nothing where variables say everything: it may be no file of ours."""
    put(tmp_path, "/config/a.zip", UNUSABLE[kind])
    assert "/config/a.zip: is not used: it " in reported(assemble.load(COMPLETE, tmp_path))
    assert problems({}, tmp_path)


def test_of_several_zip_files_none_is_used(tmp_path: Path) -> None:
    """Which one is meant cannot be known."""
    for name in ("a", "b"):
        put(tmp_path, f"/config/{name}.zip", zipped({"a.conf": conf(1)}))
    loaded = assemble.load(COMPLETE, tmp_path)
    assert "/config: has 2 zip files, so none of them is used; leave one" in reported(loaded)


MEMBERS = {
    "encrypted": (zipped({"a.conf": conf(1)}, encrypted=1), "is encrypted"),
    "bzip2": (zipped({"a.conf": conf(1)}, zipfile.ZIP_BZIP2), "compressed in an unusual way"),
    "lzma": (zipped({"a.conf": conf(1)}, zipfile.ZIP_LZMA), "compressed in an unusual way"),
    "a bomb": (zipped({"a.conf": "\n" * (100 << 20)}), "is larger than 64 KiB"),
    "damaged": (
        zipped({"a.conf": conf(1)}, zipfile.ZIP_STORED).replace(b"Endpoint", b"endpoint"),
        "cannot be unpacked",
    ),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", MEMBERS)
def test_a_member_that_cannot_be_read_is_a_problem(tmp_path: Path, kind: str) -> None:
    """It is the file to use. No more of it is unpacked than a file may have."""
    raw, expected = MEMBERS[kind]
    put(tmp_path, "/config/a.zip", raw)
    (problem,) = problems({}, tmp_path)
    assert problem.startswith("/config/a.zip/a.conf: ")
    assert expected in problem


def test_of_a_member_no_more_is_unpacked_than_is_read() -> None:
    """A bomb of 100 MiB costs as little as any other file."""
    (bomb,) = members(zipped({"a.conf": "\n" * (100 << 20)}))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="is larger than 64 KiB"):
            bomb.whole(64 << 10)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


HOSTILE = {
    "climbing": "../../../etc/passwd.conf",
    "absolute": "/etc/wireguard/wg0.conf",
    "windows": "vpn\\..\\..\\x.conf",
    "control": "\x1b[2J\nWIREGUARD: ok\x07.conf",
    "long": "x-" * 30_000 + ".conf",
    "a key": f"{OTHER_PRIVATE}.conf",
    "not text": "\udcff\u202e.conf".encode("utf-8", "replace").decode(),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_name_in_a_zip_file_is_only_shown(tmp_path: Path, kind: str) -> None:
    """In a short and printable form, without a key; nothing is written anywhere."""
    put(tmp_path, "/config/a.zip", zipped({HOSTILE[kind]: conf(1)}))
    before = sorted(tmp_path.rglob("*"))
    loaded = assemble.load({}, tmp_path)
    assert servers(loaded) == [1]
    shown = explain(loaded)
    assert all(letter.isprintable() for letter in shown.replace("\n", ""))
    assert ".." not in shown
    assert OTHER_PRIVATE not in shown
    assert max(map(len, shown.splitlines())) < 400
    assert sorted(tmp_path.rglob("*")) == before


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_to_a_zip_file_makes_another_error(data: st.DataObject) -> None:
    """Bytes changed or cut off: members, or a ValueError."""
    raw = bytearray(zipped({"a.conf": conf(1), "b.conf": "x" * 500}))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    del raw[data.draw(st.integers(0, len(raw))) :]
    with suppress(ValueError):
        for member in members(bytes(raw)):
            member.whole(1000)


FILTERS = [
    ({"SERVER_COUNTRIES": "Netherlands"}, [0, 1, 4]),
    ({"SERVER_COUNTRIES": "the netherlands"}, [0, 1, 4]),
    ({"SERVER_COUNTRIES": "nl"}, [0, 1, 4]),
    ({"SERVER_COUNTRIES": "Holland, Sweden"}, [0, 1, 2, 4]),
    ({"SERVER_COUNTRIES": "United Kingdom"}, [3, 6]),
    ({"SERVER_COUNTRIES": "UK"}, [3, 6]),
    ({"SERVER_COUNTRIES": "United States"}, [5]),
    ({"COUNTRY": "usa"}, [5]),
    ({"SERVER_COUNTRIES": "Netherlands", "SERVER_CITIES": "ams"}, [0]),
    ({"SERVER_CITIES": "Malmo"}, [2]),
    ({"SERVER_CITIES": "malmö"}, [2]),
    ({"SERVER_CITIES": "new york"}, [5]),
    ({"SERVER_HOSTNAMES": "nl-ams-wg-101"}, [0]),
    ({"SERVER_HOSTNAMES": "nl-ams-wg-101.relays.mullvad.net"}, [0]),
    ({"SERVER_NAMES": "Alphard,Betelgeuse"}, [1]),
    ({"SERVER_NAMES": "NL#123"}, [4]),
    ({"SERVER_REGIONS": "Europe"}, [4]),
]
NAMED = [
    ("nl-ams-wg-101", ""),
    ("AirVPN_NL-Alblasserdam_Alphard_UDP-1637-Entry3", ""),
    ("se_Malmö_2", "Device: Happy Seal"),
    ("gb-lon-wg-001", "Generated at 10:00 AM"),
    ("Proton", "NL#123 in Europe"),
    ("New_York.UnitedStates", ""),
    ("UK-12", ""),
    ("other", ""),
]


@pytest.mark.parametrize(("environ", "expected"), FILTERS)
def test_variables_choose_among_files(
    tmp_path: Path, environ: dict[str, str], expected: list[int]
) -> None:
    """By the words in names and comments, in either case; countries also by their codes."""
    for number, (name, comment) in enumerate(NAMED):
        put(tmp_path, f"/config/{name}.conf", conf(number, comment))
    loaded = assemble.load(environ, tmp_path)
    assert sorted(servers(loaded)) == expected
    (given,) = {name.replace("COUNTRY", "SERVER_COUNTRIES") for name in list(environ)[:1]}
    assert f"{len(expected)} of {len(NAMED)} WireGuard files match" in reported(loaded)
    assert given in explain(loaded)


def test_files_in_a_zip_file_are_chosen_alike(tmp_path: Path) -> None:
    """Their folders in it count too."""
    files: dict[str, str | bytes] = {"Sweden/1.conf": conf(1), "Norway/2.conf": conf(2, "FI#2")}
    put(tmp_path, "/config/a.zip", zipped(files))
    for country, number in (("Sweden", 1), ("NO", 2), ("Finland", 2)):
        assert servers(assemble.load({"SERVER_COUNTRIES": country}, tmp_path)) == [number]


def test_a_part_of_a_word_does_not_match(tmp_path: Path) -> None:
    """101 is not 1011, AM in a comment is not Armenia, and the error names the nearest files."""
    put(tmp_path, "/config/nl-ams-wg-1011.conf", conf(1, "Generated at 10:00 AM"))
    put(tmp_path, "/config/se-sto-wg-002.conf", conf(2))
    for environ in ({"SERVER_HOSTNAMES": "nl-ams-wg-101"}, {"SERVER_COUNTRIES": "Armenia"}):
        (problem,) = problems(environ, tmp_path)
        (name,) = environ
        said = f"{name}: '{environ[name]}' is in none of 2 WireGuard files"
        assert problem.startswith(said)
        assert "nl-ams-wg-1011.conf" in problem


def test_filters_that_match_nothing_together_are_a_problem(tmp_path: Path) -> None:
    """Each alone has a file."""
    put(tmp_path, "/config/nl-ams.conf", conf(1))
    put(tmp_path, "/config/se-sto.conf", conf(2))
    (problem,) = problems({"SERVER_COUNTRIES": "nl", "SERVER_CITIES": "sto"}, tmp_path)
    assert problem.startswith("SERVER_COUNTRIES, SERVER_CITIES: no WireGuard file of 2 matches")


def test_one_file_alone_is_used_with_any_name(tmp_path: Path) -> None:
    """It is the choice; so is a server in variables. A notice says so."""
    put(tmp_path, "/config/wg0.conf", conf(1))
    loaded = assemble.load({"SERVER_COUNTRIES": "Netherlands"}, tmp_path)
    assert servers(loaded) == [1]
    said = "SERVER_COUNTRIES: is not used, because /config/wg0.conf is the only WireGuard file"
    assert said in reported(loaded)
    loaded = assemble.load({**COMPLETE, "SERVER_COUNTRIES": "nl"}, tmp_path / "none")
    assert "SERVER_COUNTRIES: is not used, because there are no WireGuard files" in reported(loaded)


def test_of_many_files_a_few_become_candidates(tmp_path: Path) -> None:
    """In the order of their names, `wg0.conf` first; the same finding is reported once."""
    for number in range(1, 100):
        put(tmp_path, f"/config/{number:03}.conf", conf(number), mode=0o644)
    put(tmp_path, "/config/wg0.conf", conf(0))
    tmp_path.chmod(0o755)
    loaded = assemble.load({}, tmp_path)
    assert servers(loaded) == list(range(MOST_CANDIDATES))
    lines = reported(loaded).splitlines()
    said = f"/config/wg0.conf: is the first of 100 WireGuard files, of which {MOST_CANDIDATES} are"
    assert any(line.startswith(said) for line in lines)
    (line,) = [line for line in lines if "so IPv6 is refused" in line]
    assert line.endswith(f"(and so for {MOST_CANDIDATES - 1} other files)")
    assert len(lines) < 10


def test_a_fault_that_many_files_have_is_one_problem(tmp_path: Path) -> None:
    """Control: few files are named one by one."""
    for number in range(9):
        put(tmp_path, f"/config/{number}.conf", conf(number).replace("PrivateKey", "Key"))
    (problem, *_) = problems({}, tmp_path)
    assert problem.endswith("(and so for 8 other files)")
    for number in range(3, 9):
        (tmp_path / f"config/{number}.conf").unlink()
    assert not any("other files" in problem for problem in problems({}, tmp_path))


def test_hundreds_of_files_are_read_as_fast_as_one(tmp_path: Path) -> None:
    """Only those that are used are read in full: 700 take 0.15 s of processor time at most.

    Reading all of them takes three times as long.
    """
    for number in range(700):
        put(tmp_path, f"/config/nl-{number:03}.conf", conf(number))
    for environ in ({}, {"SERVER_COUNTRIES": "Netherlands"}):
        times = []
        for _ in range(5):
            began = process_time()
            assemble.load(environ, tmp_path)
            times.append(process_time() - began)
        assert min(times) < 0.15


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    """A folder that was meant for something else."""
    folder = tmp_path / "config"
    folder.mkdir()
    for number in range(MOST_FILES + 1):
        (folder / f"{number}.conf").symlink_to("/dev/null")
    (problem, *_) = problems({}, tmp_path)
    assert problem.startswith(f"/config: has {MOST_FILES + 1} WireGuard files, and at most")
