"""The small adapters: capabilities as the kernel tells them, the resolver's file, a socket's."""

import errno
from pathlib import Path

import pytest

from gateway.errors import MissingError, NetworkError
from gateway.system import resolv
from gateway.system.capabilities import missing_capabilities
from gateway.system.kernel import lacks_ipv6
from gateway.tunnel.userspace import require_directory


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


def test_the_directory_of_the_socket_is_for_nobody_else(tmp_path: Path) -> None:
    """Who gets in has the keys: it is made for its owner alone, and found again as it is."""
    directory = tmp_path / "run" / "wireguard"
    require_directory(directory)
    assert directory.stat().st_mode & 0o777 == 0o700
    require_directory(directory)


def test_a_directory_that_cannot_be_made_is_named_with_the_remedy() -> None:
    """As with a read-only root, where a tmpfs is what helps."""
    with pytest.raises(MissingError) as caught:
        require_directory(Path("/proc/nothing"))
    assert "/proc/nothing cannot be written" in caught.value.missing
    assert "tmpfs: [/run/wireguard]" in caught.value.remedy


@pytest.mark.parametrize(
    ("shown", "lacks"),
    [
        ((), False),
        (("self/net/dev",), True),
        (("self/net/dev", "self/net/if_inet6"), False),
        (("self/net/dev", "sys/net/ipv6/conf"), False),
    ],
    ids=["no /proc", "without IPv6", "its addresses", "its settings"],
)
def test_ipv6_is_absent_only_where_proc_is_there_and_has_no_trace_of_it(
    tmp_path: Path, shown: tuple[str, ...], *, lacks: bool
) -> None:
    """What a filter of system calls refuses is there all the same, and open."""
    for name in shown:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert lacks_ipv6(tmp_path) is lacks
