"""Which sockets wait at a port, as the kernel says: real sockets of this process."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address

import pytest

from gateway.system.listeners import MOST, NETLINK_SOCK_DIAG, TCP, UDP, Listener, listeners

HERE, TUNNEL, OTHER = map(ip_address, ("127.0.0.1", "10.64.0.2", "172.30.0.2"))
TUNNEL6, ANY, ANY6 = map(ip_address, ("fd64::2", "0.0.0.0", "::"))
WG0 = 7


@pytest.fixture
def kernel() -> Iterator[socket.socket]:
    """Yield what the kernel is asked through."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as channel:
        yield channel


def inode(made: socket.socket) -> int:
    """Return the number of a socket."""
    return os.fstat(made.fileno()).st_ino


def test_a_socket_is_found_by_its_port_with_its_owner(kernel: socket.socket) -> None:
    """While it waits, and not a connection that it has accepted."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as caller, server.accept()[0]:
            (found,) = listeners(kernel, port)
            assert listeners(kernel, caller.getsockname()[1]) == ()
        assert (found.address, found.device, found.inode) == (HERE, 0, inode(server))
        assert found.owner[0] == os.geteuid()
        assert listeners(kernel, port, UDP) == ()
    assert listeners(kernel, port, TCP) == ()


def test_datagram_sockets_are_found_where_the_kernel_can_say(kernel: socket.socket) -> None:
    """And only those without a peer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind(("127.0.0.1", 0))
        try:
            found = listeners(kernel, made.getsockname()[1], UDP)
        except OSError as err:
            assert err.errno == errno.ENOENT  # noqa: PT017 - a kernel without CONFIG_INET_UDP_DIAG
            return
        assert [it.inode for it in found] == [inode(made)]


def test_many_that_share_a_port_are_cut(kernel: socket.socket) -> None:
    """A workload can have as many as it has descriptors."""
    with ExitStack() as stack:
        port = 0
        for _ in range(MOST + 20):
            made = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            made.bind(("127.0.0.1", port))
            made.listen()
            port = made.getsockname()[1]
        assert len(listeners(kernel, port)) == MOST
    assert listeners(kernel, port) == ()


@pytest.mark.parametrize(
    ("listener", "reached"),
    [
        (Listener(ANY, 0, 1, (0, 0)), {TUNNEL}),
        (Listener(TUNNEL, WG0, 1, (0, 0)), {TUNNEL}),
        (Listener(OTHER, 0, 1, (0, 0)), set()),
        (Listener(ANY, 2, 1, (0, 0)), set()),
        (Listener(ANY6, 0, 1, (0, 0)), {TUNNEL, TUNNEL6}),
        (Listener(ANY6, 0, 1, (0, 0), only_ipv6=True), {TUNNEL6}),
        (Listener(ip_address("::ffff:10.64.0.2"), 0, 1, (0, 0)), {TUNNEL}),
        (Listener(TUNNEL6, 0, 1, (0, 0)), {TUNNEL6}),
    ],
)
def test_what_arrives_in_the_tunnel_reaches_it_or_not(
    listener: Listener, reached: set[object]
) -> None:
    """By its address, and by the device that it is bound to."""
    assert {it for it in (TUNNEL, TUNNEL6) if listener.takes(it, WG0)} == reached
