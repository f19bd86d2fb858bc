"""What counts as a shortage, and the parts that a gateway keeps ready for one."""

import errno
import os
import resource
import struct

import pytest

from gateway.errors import (
    FirewallError,
    MissingError,
    NetworkError,
    ProcessError,
    TunnelError,
    is_shortage,
)
from gateway.firewall.nft.program import Nft
from gateway.system import process
from gateway.system.features import missing_capabilities
from gateway.system.link_alias import (
    LEFT_OUT,
    LONGEST_ALIAS,
    MARK,
    RTA_OIF,
    address_message,
    fitting,
    route_message,
    route_text,
)
from gateway.system.links import Links
from gateway.system.netlink import attributes_in
from gateway.system.reserve import Reserve


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (TimeoutError(), True),
        (OSError(errno.EMFILE, ""), True),
        (OSError(errno.ENOENT, ""), False),
        (FirewallError("put", "", errno.EAGAIN), True),
        (FirewallError("put"), False),
        (NetworkError("read", "", errno.ENOBUFS), True),
        (TunnelError("set", "", errno.EADDRINUSE), False),
        (ProcessError("nft", "ended", "", errno.ENOMEM), True),
        (ProcessError("nft", "ended"), False),
        (MissingError("nft", "install it"), False),
        (RuntimeError(), False),
    ],
    ids=repr,
)
def test_a_shortage_is_reported_from_an_answer(error: BaseException, *, expected: bool) -> None:
    """By its number, no matter what raised it."""
    assert is_shortage(error) is expected


@pytest.mark.parametrize(
    ("script", "number"),
    [
        ("echo 'internal:0:0-0: Error: Could not process rule: Cannot allocate memory' >&2; exit 1",
         errno.ENOMEM),
        ("echo 'netlink socket: Too many open files' >&2; exit 1", errno.EMFILE),
        ("kill -9 $$", errno.ENOMEM),
        ("sleep 5", errno.ETIMEDOUT),
        ("echo 'Error: syntax error' >&2; exit 1", None),
        ("kill -15 $$", None),
    ],
)  # fmt: skip
def test_a_program_that_failed_from_a_shortage_says_so(script: str, number: int | None) -> None:
    """By the text of errno, by the kernel's SIGKILL, or by taking too long."""
    with pytest.raises(ProcessError) as caught:
        process.run(("sh", "-c", script), timeout=0.3)
    assert caught.value.errno == number


def test_a_feature_that_could_not_be_asked_for_is_not_missing() -> None:
    """Otherwise a gateway that starts in a bad second goes without the egress guard for months."""

    def run(argv: tuple[str, ...], *, stdin: str | None, timeout: float) -> str:
        del stdin, timeout
        raise ProcessError(argv[0], "could not be started", "", errno.EAGAIN)

    with pytest.raises(FirewallError) as caught:
        Nft(run).accepts("add table inet trial")
    assert is_shortage(caught.value)


def test_capabilities_that_cannot_be_read_for_now_are_not_missing() -> None:
    """The remedy would be wrong."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        assert missing_capabilities("NET_ADMIN") == ()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_link_that_cannot_be_looked_up_for_now_is_not_gone() -> None:
    """Otherwise a tunnel counts as lost, and as removed, for want of a descriptor."""
    links = Links("wg0")
    assert links.index("lo") == 1
    assert links.index("no-such-link") is None
    assert links.index("name-too-long-for-a-link") is None
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        for ask in (links.index, links.delete_link):
            with pytest.raises(NetworkError) as caught:
                ask("lo")
            assert is_shortage(caught.value)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_reserve_is_held_lent_and_taken_again() -> None:
    """The numbers that it gives away are free in the block, and taken after it."""

    def open_now() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    before = open_now()
    reserve = Reserve(5)
    assert open_now() == before + 5
    with reserve.lent():
        assert open_now() == before
    assert open_now() == before + 5
    with pytest.raises(RuntimeError), reserve.lent():
        raise RuntimeError
    assert open_now() == before + 5
    with reserve.lent():
        reserve._size = 0  # noqa: SLF001 - gives them back for the other tests
    assert open_now() == before


def test_a_reserve_takes_what_there_is_and_more_when_there_is_more() -> None:
    """A process that starts with few descriptors has some to close with, and later all of them."""

    def open_now() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = open_now()
    highest = max(map(int, os.listdir("/proc/self/fd")))  # noqa: PTH208
    free = highest - before + 2  # the listing itself took one
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
        reserve = Reserve(free + 10)
        with reserve.lent():
            os.close(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(OSError, match="Too many open files"):
            os.open(os.devnull, os.O_RDONLY)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    with reserve.lent():
        assert open_now() == before
    assert open_now() == before + free + 10
    with reserve.lent():
        reserve._size = 0  # noqa: SLF001 - gives them back for the other tests


@pytest.mark.parametrize(
    "text",
    [
        "default-4 via 172.18.0.1",
        "default-6 via fe80::1 metric 1024",
        "10.9.0.0/16 via 172.18.0.9 metric 7",
        "192.0.2.1/32",
        "default-4 via 10.0.0.1 onlink",
        "10.50.0.0/16 via 172.18.0.1 src 172.18.0.2",
    ],
)
def test_a_route_reads_back_as_it_was_written(text: str) -> None:
    """Text to message to text, over the kernel's own layout."""
    body = route_message(text, 7)
    fields = struct.unpack_from("=BBBBBBBBI", body)
    attributes = attributes_in(body, 12)
    assert attributes[RTA_OIF] == struct.pack("=i", 7)
    assert route_text(fields, attributes) == text


@pytest.mark.parametrize("text", ["", "default", "nonsense via 1.2.3.4", "10.0.0.0/8 via"])
def test_an_alias_that_another_program_wrote_makes_no_route(text: str) -> None:
    """Who may write it may set routes as well, but a typing error must not end the gateway."""
    with pytest.raises(ValueError, match=r".*"):
        route_message(text, 7)
    with pytest.raises(ValueError, match=r".*"):
        address_message(f"address {text}", 7)


def test_an_alias_has_what_fits_and_says_that_there_was_more() -> None:
    """255 bytes is what the kernel keeps."""
    few = ["default-4 via 172.18.0.1", "address 2001:db8::2/64"]
    assert fitting(few) == f"{MARK}; {few[0]}; {few[1]}"
    many = [f"10.{n}.0.0/16 via 172.18.0.1" for n in range(200)]
    alias = fitting(many)
    assert len(alias) <= LONGEST_ALIAS
    assert alias.startswith(f"{MARK}; {many[0]}; ")
    assert alias.endswith(LEFT_OUT)
