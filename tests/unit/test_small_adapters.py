"""The small adapters: capabilities as the kernel tells them, the resolver's file."""

import errno
from pathlib import Path

import pytest

from gateway.errors import NetworkError
from gateway.system import resolv
from gateway.system.capabilities import missing_capabilities


@pytest.mark.parametrize(
    ("effective", "missing"),
    [
        ("00000000a80425fb", ("NET_ADMIN",)),
        ("0000000000001000", ("NET_RAW",)),
        ("0000000000000000", ("NET_ADMIN", "NET_RAW")),
        ("000001ffffffffff", ()),
    ],
    ids=["Docker's default", "NET_ADMIN alone", "none", "all"],
)
def test_a_missing_capability_is_named(
    tmp_path: Path, effective: str, missing: tuple[str, ...]
) -> None:
    """Read from the effective set, in the words of compose files."""
    status = tmp_path / "status"
    status.write_text(f"Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t{effective}\n", "ascii")
    assert missing_capabilities("NET_ADMIN", "NET_RAW", status=status) == missing


def test_what_cannot_be_read_counts_as_missing(tmp_path: Path) -> None:
    """No /proc, no claim."""
    assert missing_capabilities("NET_RAW", status=tmp_path / "none") == ("NET_RAW",)


def test_the_resolver_file_is_written_in_place(tmp_path: Path) -> None:
    """A bind mount is the file itself: its inode stays, whoever holds it open sees the change."""
    path = tmp_path / "resolv.conf"
    path.write_text("search example.test\nnameserver 127.0.0.11\n", "utf-8")
    before = path.stat().st_ino
    with path.open(encoding="utf-8") as held:
        resolv.write(path, "nameserver 10.64.0.1\n")
        assert held.read() == "nameserver 10.64.0.1\n"
    assert path.stat().st_ino == before


def test_a_resolver_file_that_cannot_be_written_is_told_with_its_path(tmp_path: Path) -> None:
    """The kernel's errno and the path; one that holds the text already is no error."""
    path = tmp_path / "directory"
    path.mkdir()
    with pytest.raises(NetworkError) as caught:
        resolv.write(path, "nameserver 10.64.0.1\n")
    assert (caught.value.errno, caught.value.subject) == (errno.EISDIR, str(path))
