"""The names of /etc/hosts: what is taken of it. Nothing in it refuses the configuration."""

import fcntl
import os
import signal
import subprocess
import time
from ipaddress import ip_address
from pathlib import Path

import pytest

from gateway.settings import assemble, hosts
from gateway.settings.assemble import Loaded
from tests.configurations import COMPLETE, reported

DOCKER = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff02::1\tip6-allnodes
192.168.1.9\tnas nas.home.lan # the attic
fd77::9\tNAS.home.lan
172.18.0.2\t3c5e8e2a7c11
"""


def loaded(tmp_path: Path, raw: bytes, **changes: str) -> Loaded:
    """Return the configuration of a container with this file."""
    (tmp_path / "etc").mkdir(exist_ok=True)
    (tmp_path / "etc/hosts").write_bytes(raw)
    return assemble.load({**COMPLETE, **changes}, tmp_path)


def names(found: Loaded) -> list[str]:
    """Return the names of a configuration."""
    return [name for name, _ in found.config.host_names]


def test_the_names_of_other_hosts_are_taken(tmp_path: Path) -> None:
    """With the addresses of both lines, in small letters; what concerns loopback is left out."""
    found = loaded(tmp_path, DOCKER.encode())
    assert set(found.config.host_names) >= {
        ("nas", (ip_address("192.168.1.9"),)),
        ("nas.home.lan", (ip_address("192.168.1.9"), ip_address("fd77::9"))),
        ("3c5e8e2a7c11", (ip_address("172.18.0.2"),)),
    }
    assert not {"localhost", "ip6-localhost", "ip6-localnet", "ip6-allnodes"} & set(names(found))


def test_without_a_resolver_of_our_own_the_file_is_not_read(tmp_path: Path) -> None:
    """The system's library of a workload reads it anyway."""
    assert not loaded(tmp_path, DOCKER.encode(), DNS_SERVER="off").config.host_names


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\xfe\x00garbage\x00",
        b"192.168.1.9",
        b'192.168.1.9 a"b a\\b .. -a a- \x7f',
        b"192.168.1.300 a\nfe80::1%eth0 a\n::ffff:1.2.3.4 a\n0.0.0.0 a\n224.0.0.1 a\n",
        b"192.168.1.9 " + b"a" * 300,
        b"192.168.1.9 " + b"a" * 64 + b".example",
    ],
)
def test_garbage_is_left_out(tmp_path: Path, raw: bytes) -> None:
    """The control is a line after it."""
    assert names(loaded(tmp_path, raw + b"\r\n192.168.1.8 good\r\n")) == ["good"]


def test_what_is_too_much_is_left_out_and_reported(tmp_path: Path) -> None:
    """Names, addresses of one name, and bytes."""
    many = "".join(f"192.168.1.9 n{number}\n" for number in range(hosts.MOST + 1))
    found = loaded(tmp_path, many.encode())
    assert len(names(found)) == hosts.MOST
    assert f"only the first {hosts.MOST} are used" in reported(found)
    several = "".join(f"192.168.1.{number} a\n" for number in range(1, 20))
    (one,) = loaded(tmp_path, several.encode()).config.host_names
    assert len(one[1]) == hosts.MOST_ADDRESSES
    large = loaded(tmp_path, b"192.168.1.9 a\n" + b"#" * hosts.LARGEST)
    assert names(large) == []
    assert "/etc/hosts: the names in it are not used: it is larger" in reported(large)


def test_what_is_not_a_file_is_left_out(tmp_path: Path) -> None:
    """A pipe is not waited for, and without the file nothing is said."""
    (tmp_path / "etc").mkdir()
    assert "hosts" not in reported(assemble.load(COMPLETE, tmp_path))
    os.mkfifo(tmp_path / "etc/hosts")
    assert "is not a regular file" in reported(assemble.load(COMPLETE, tmp_path))


def test_a_lease_on_the_file_is_not_waited_for(tmp_path: Path) -> None:
    """A workload's would delay every start by 45 s. Control: another program waits for it."""
    loaded(tmp_path, b"192.168.1.9 a\n")
    path = tmp_path / "etc/hosts"
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # the kernel's word to the holder of a lease
    with path.open("r+b") as leased:
        fcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        with pytest.raises(subprocess.TimeoutExpired):
            subprocess.run(["cat", path], timeout=0.3, check=False)
        began = time.monotonic()
        found = assemble.load(COMPLETE, tmp_path)
        assert time.monotonic() - began < 2
    assert names(found) == []
    assert "/etc/hosts: the names in it are not used: another process has" in reported(found)
