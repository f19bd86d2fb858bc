"""The small adapters: capabilities as the kernel reports them, the resolver's file, a socket's."""

import errno
import fcntl
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from gateway.errors import MissingError, NetworkError
from gateway.system.features import lacks_id, lacks_ipv6, missing_capabilities
from gateway.system.kept import KeptFile
from gateway.system.resolv import ResolverFile
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


@pytest.mark.parametrize(
    ("users", "groups", "lacks"),
    [
        ("0 0 4294967295", "0 0 4294967295", False),
        ("0 100000 65536", "0 100000 65536", False),
        ("0 100000 1024", "0 100000 1024", True),
        ("0 1000 1\n1 100000 53853", "0 1000 1\n1 100000 65536", False),
        ("0 1000 1\n1 100000 65536", "0 1000 1\n1 100000 53852", True),
        ("", "0 0 4294967295", True),
    ],
)
def test_a_user_namespace_may_lack_an_id(
    tmp_path: Path, users: str, groups: str, *, lacks: bool
) -> None:
    """For users or for groups. Without /proc nothing is known."""
    assert not lacks_id(53853, tmp_path)
    (tmp_path / "uid_map").write_text(f"{users}\n", "ascii")
    (tmp_path / "gid_map").write_text(f"{groups}\n", "ascii")
    assert lacks_id(53853, tmp_path) is lacks


def test_the_resolver_file_is_written_in_place(tmp_path: Path) -> None:
    """A bind mount is the file itself: its inode stays, and open descriptors see the change."""
    path = tmp_path / "resolv.conf"
    path.write_text("search example.test\nnameserver 127.0.0.11\n", "utf-8")
    before = path.stat().st_ino
    with path.open(encoding="utf-8") as held:
        ResolverFile(path).write("nameserver 10.64.0.1\n")
        assert held.read() == "nameserver 10.64.0.1\n"
    assert path.stat().st_ino == before


def test_a_resolver_file_that_cannot_be_written_is_reported_with_its_path(tmp_path: Path) -> None:
    """The kernel's errno and the path; one that holds the text already is not an error."""
    path = tmp_path / "directory"
    path.mkdir()
    with pytest.raises(NetworkError) as caught:
        ResolverFile(path).write("nameserver 10.64.0.1\n")
    assert (caught.value.errno, caught.value.subject) == (errno.EISDIR, str(path))


@pytest.mark.parametrize("kind", [fcntl.F_WRLCK, fcntl.F_RDLCK])
def test_a_lease_on_the_resolver_file_refuses_at_once_and_none_is_granted_later(
    tmp_path: Path, kind: int
) -> None:
    """The kernel breaks it after 45 s; a file that is held open for writing cannot be leased.

    Control: without O_NONBLOCK the same file blocks the program that opens it.
    """
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # the kernel's word to the holder of a lease
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 127.0.0.11\n", "utf-8")
    for round_ in ("control", "ours"):
        with path.open("rb") as leased:
            fcntl.fcntl(leased, fcntl.F_SETLEASE, kind)
            if round_ == "control":
                opener = subprocess.Popen(["sh", "-c", f"echo >>{path}"])
                with pytest.raises(subprocess.TimeoutExpired):
                    opener.wait(0.3)
                opener.kill()
                opener.wait()
            else:
                ours = ResolverFile(path)
                began = time.monotonic()
                with pytest.raises(NetworkError, match="lease") as caught:
                    ours.write("nameserver 10.64.0.1\n")
                assert caught.value.errno == errno.EAGAIN
                assert time.monotonic() - began < 0.2
    ours.write("nameserver 10.64.0.1\n")
    with path.open("rb") as later, pytest.raises(BlockingIOError):
        fcntl.fcntl(later, fcntl.F_SETLEASE, kind)
    ours.close()
    assert path.read_text("utf-8") == "nameserver 10.64.0.1\n"


def test_a_resolver_file_that_is_not_a_file_is_reported_at_once(tmp_path: Path) -> None:
    """A FIFO has no reader and no writer, and a device would do as it likes."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    for other in (path, Path("/dev/zero")):
        with pytest.raises(NetworkError, match="not a regular file"):
            ResolverFile(other).write("nameserver 10.64.0.1\n")
        with pytest.raises(NetworkError, match="not a regular file"):
            ResolverFile(other).read()


def test_a_full_disk_leaves_the_resolver_file_as_it_was(tmp_path: Path) -> None:
    """Space first, then the text: a file that was cut off would name no resolver.

    Control: a plain write in the same place has emptied the file and then fails.
    """
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(tmp_path)], check=True)
    try:
        path, ballast = tmp_path / "resolv.conf", tmp_path / "ballast"
        former = "nameserver 127.0.0.11\n"
        path.write_text(former, "utf-8")
        text = "nameserver 10.64.0.1\n" + "# more than a page\n" * 300
        ballast.write_bytes(bytes(4096))
        ours = ResolverFile(path)
        with pytest.raises(NetworkError) as caught:
            ours.write(text)
        assert caught.value.errno == errno.ENOSPC
        assert path.read_text("utf-8") == former
        with pytest.raises(OSError, match="No space"):
            path.write_text(text, "utf-8")
        assert path.read_text("utf-8") != former, "control"
        ballast.unlink()
        ours.write(text)
        assert path.read_text("utf-8") == text
        ours.close()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_another_file_at_the_path_is_found(tmp_path: Path) -> None:
    """The descriptor that is held is of the file that was there before."""
    path = tmp_path / "resolv.conf"
    path.write_text("former\n", "utf-8")
    ours = ResolverFile(path)
    ours.write("nameserver 10.64.0.1\n")
    path.rename(tmp_path / "former")
    path.write_text("another\n", "utf-8")
    assert ours.read() == "another\n"
    ours.write("nameserver 10.64.0.2\n")
    assert path.read_text("utf-8") == "nameserver 10.64.0.2\n"
    ours.close()


def test_a_kept_file_is_there_again_and_only_ours(tmp_path: Path) -> None:
    """Written whole, for no other user; a link and a file that others can write are refused."""
    kept = KeptFile(tmp_path / "portcullis", mounts=Path("/dev/null"))  # /tmp may be in memory
    assert kept.read() is None
    kept.write("127.0.0.11\n")
    kept.write("192.0.2.1\n")
    path = tmp_path / "portcullis" / "resolvers"
    assert kept.read() == "192.0.2.1\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(path.parent.iterdir()) == [path]
    path.chmod(0o666)
    with pytest.raises(NetworkError):
        kept.read()
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NetworkError):
        kept.read()


def test_nothing_is_kept_in_memory_or_where_nothing_can_be_written(tmp_path: Path) -> None:
    """A tmpfs is empty after a restart; what is believed then may come from a workload."""
    (tmp_path / "memory").mkdir()
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    place = f"36 35 {os.major(device)}:{os.minor(device)} / {tmp_path} rw master:1"
    for kind, is_kept in (("ext4", True), ("tmpfs", False)):
        mounts.write_text(f"{place} - {kind} none rw\n", "ascii")
        kept = KeptFile(tmp_path / "memory", mounts=mounts)
        if is_kept:
            kept.write("192.0.2.1\n")
            (tmp_path / "memory" / "resolvers").unlink()
        else:
            with pytest.raises(NetworkError, match="tmpfs"):
                kept.write("192.0.2.1\n")
    with pytest.raises(NetworkError):
        KeptFile(Path("/proc/nothing")).write("192.0.2.1\n")


def test_the_directory_of_the_socket_is_for_no_other_user(tmp_path: Path) -> None:
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
