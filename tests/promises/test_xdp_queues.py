"""The sockets that hold queues: how many, what they cost, and what a shortage does to them."""

import errno
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.errors import NetworkError
from gateway.system.xdp import MOST_QUEUES, Queues
from tests.lab import xdp
from tests.lab.namespace import Namespace
from tests.lab.process import eventually
from tests.lab.topology import Lab

pytestmark = [pytest.mark.lab, pytest.mark.promise("P14")]

EVERY = 64


def link(namespace: Namespace, name: str, queues: int) -> int:
    """Add a link with so many queues in use, and return its index."""
    every = f"numtxqueues {queues} numrxqueues {queues}"
    namespace.ip(f"link add {name} {every} type veth peer name {name}-far {every}")
    return int(namespace.inside(lambda: socket.if_nametoindex(name)))


def descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    """Let this process open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_every_queue_costs_one_descriptor_and_all_of_them_one_page(lab: Lab) -> None:
    """And no other program gets one of them. Control: the next queue is free, if there were one."""
    many = link(lab.gateway_namespace, "many", EVERY)

    def hold() -> None:
        before = descriptors()
        queues = Queues()
        queues.claim(many)
        queues.claim(many)
        assert descriptors() - before == EVERY + 2  # the lender and the one for the next queue
        for queue in range(EVERY):
            with pytest.raises(OSError, match="busy"):
                xdp.Sender(xdp.Job("many", b"", queue))
        with pytest.raises(OSError, match="Invalid"):
            xdp.Sender(xdp.Job("many", b"", EVERY))
        queues.close()
        assert descriptors() == before

    lab.gateway_namespace.inside(hold)


def test_a_link_with_more_queues_than_the_bound_is_refused(lab: Lab) -> None:
    """What cannot be held whole is not usable."""
    vast = link(lab.gateway_namespace, "vast", MOST_QUEUES + 1)

    def hold() -> None:
        queues = Queues()
        with pytest.raises(NetworkError, match=f"more than {MOST_QUEUES}"):
            queues.claim(vast)
        queues.close()

    lab.gateway_namespace.inside(hold)


def test_a_shortage_gives_up_no_link_that_is_held(lab: Lab) -> None:
    """A new link cannot be held then; the old one is not doubted for it."""
    other = link(lab.gateway_namespace, "other", 2)

    def hold() -> None:
        eth0 = socket.if_nametoindex("eth0")
        queues = Queues()
        queues.claim(eth0)
        with no_more_descriptors():
            with pytest.raises(NetworkError) as refused:
                queues.claim(other)
            queues.claim(eth0)
        assert refused.value.errno == errno.EMFILE
        queues.claim(other)
        queues.close()

    lab.gateway_namespace.inside(hold)


def test_a_queue_that_another_program_has_is_busy_and_is_had_when_it_is_free(lab: Lab) -> None:
    """What is held of the link meanwhile stays held."""
    other = link(lab.gateway_namespace, "other", 3)

    def hold() -> None:
        queues = Queues()
        holder = xdp.Sender(xdp.Job("other", b"", 1))
        with pytest.raises(NetworkError, match="hold queue 1: ") as refused:
            queues.claim(other)
        assert refused.value.errno == errno.EBUSY
        with pytest.raises(OSError, match="busy"):
            xdp.Sender(xdp.Job("other", b"", 0))
        holder.close()
        eventually(lambda: is_held(queues, other), timeout=2, what="the queue, released late")
        for queue in range(3):
            with pytest.raises(OSError, match="busy"):
                xdp.Sender(xdp.Job("other", b"", queue))
        queues.close()

    lab.gateway_namespace.inside(hold)


def is_held(queues: Queues, index: int) -> bool:
    """Try to hold the link `index`, and say whether that worked."""
    try:
        queues.claim(index)
    except NetworkError:
        return False
    return True
