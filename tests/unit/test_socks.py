"""The SOCKS5 server, against sockets: its protocol, its clients and its limits."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from typing import Any

import pytest

from gateway.services.proxies import socks, socks_process
from gateway.services.proxies.relay import relay
from gateway.services.proxies.socks import Configuration, Server, is_here

HELLO = bytes((5, 1, 0))
HELLO_WITH_ACCOUNT = bytes((5, 1, 2))
USER, PASSWORD = b"reader", b"p: \xc3\xa9"
HERE = ("127.0.0.1",)


def text_of(**changes: Any) -> bytes:
    """Return a configuration as the gateway writes it."""
    given = {"listen": [*HERE], "port": 0, "account": None, "subnets": ["127.0.0.0/8"]}
    return json.dumps(given | changes).encode()


ACCOUNT = {"account": [USER.decode(), PASSWORD.decode()], "subnets": None}


@contextmanager
def served(**changes: Any) -> Iterator[int]:
    """Serve on a loop of its own thread; the port."""
    configuration = Configuration.of(text_of(**changes))
    (listener,) = socks_process.listeners(configuration)
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    tasks: list[asyncio.Task[None]] = []

    async def run() -> None:
        server = Server(configuration)
        tasks.append(asyncio.ensure_future(server.accept(listener)))
        ready.set()
        await asyncio.wait(tasks)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    ready.wait()
    try:
        yield listener.getsockname()[1]
    finally:
        loop.call_soon_threadsafe(tasks[0].cancel)
        thread.join(5)
        listener.close()
        loop.close()


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Return the port of an echo; the server may connect to loopback in these tests."""
    monkeypatch.setattr(socks, "is_here", lambda _address: False)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    while data := connection.recv(1 << 16):
                        connection.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


def connected(port: int) -> socket.socket:
    """Return a connection to the server."""
    return socket.create_connection(("127.0.0.1", port), timeout=5)


def ended(client: socket.socket) -> bool:
    """Return whether the server hangs up; what it has not read makes that a reset."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def exactly(client: socket.socket, count: int) -> bytes:
    """Return so many bytes, fewer at the end."""
    data = b""
    while len(data) < count and (more := client.recv(count - len(data))):
        data += more
    return data


def request(kind: int, host: bytes, port: int, command: int = 1) -> bytes:
    """Return a request."""
    return bytes((5, command, 0, kind)) + host + port.to_bytes(2, "big")


def to_ipv4(port: int) -> bytes:
    """Return a request for a port of 127.0.0.1."""
    return request(1, IPv4Address("127.0.0.1").packed, port)


def test_data_passes_both_ways_until_both_have_ended(target: int) -> None:
    """Byte for byte, however the client cuts what it says; by address and by name."""
    for wanted in (to_ipv4(target), request(3, b"\x09localhost", target)):
        with served() as port, connected(port) as client:
            for byte in HELLO + wanted:
                client.sendall(bytes([byte]))
            assert exactly(client, 2) == b"\x05\x00"
            assert exactly(client, 10) == b"\x05\x00\x00\x01" + bytes(6)
            data = bytes(range(256)) * 4096
            threading.Thread(target=client.sendall, args=(data,)).start()
            assert exactly(client, len(data)) == data
            client.shutdown(socket.SHUT_WR)
            assert ended(client)


@pytest.mark.parametrize(
    ("wanted", "reply"),
    [
        (request(1, bytes(4), 80, command=2), socks.NO_COMMAND),
        (request(1, bytes(4), 80, command=3), socks.NO_COMMAND),
        (request(9, bytes(4), 80), socks.NO_KIND),
        (request(3, b"\x00", 80), socks.NO_HOST),
        (request(3, b"\x02\xff\xfe", 80), socks.NO_HOST),
        (request(3, b"\x04a\r\nb", 80), socks.NO_HOST),
        (request(3, b"\x0fnowhere.invalid", 80), socks.NO_HOST),
        (request(1, bytes((127, 0, 0, 1)), 80), socks.NOT_ALLOWED),
        (request(1, bytes(4), 80), socks.NOT_ALLOWED),
        (request(4, bytes(15) + b"\1", 80), socks.NOT_ALLOWED),
        (request(4, bytes(10) + b"\xff\xff\x7f\0\0\1", 80), socks.NOT_ALLOWED),
        (request(3, b"\x09localhost", 80), socks.NOT_ALLOWED),
        (request(3, b"\x05127.1", 80), socks.NOT_ALLOWED),
        (request(3, b"\x0a0x7f000001", 80), socks.NOT_ALLOWED),
        (request(1, bytes((224, 0, 0, 1)), 80), socks.NOT_ALLOWED),
    ],
)
def test_a_request_that_is_not_done_has_the_reply_of_the_standard(
    wanted: bytes, reply: int
) -> None:
    """RFC 1928, section 6; what is certainly not in the tunnel is not even tried."""
    with served() as port, connected(port) as client:
        client.sendall(HELLO + wanted)
        assert exactly(client, 2) == b"\x05\x00"
        assert exactly(client, 10) == bytes((5, reply, 0, 1)) + bytes(6)
        assert ended(client)


def test_a_port_where_nothing_listens_is_reported_as_that(target: int) -> None:
    """So that a client does not wait. Control: the one next to it."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        free = closed.getsockname()[1]
    with served() as port:
        for number, reply in ((free, socks.REFUSED), (target, socks.SUCCEEDED)):
            with connected(port) as client:
                client.sendall(HELLO + to_ipv4(number))
                assert exactly(client, 12)[3] == reply


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x04\x01\0\x50\x7f\0\0\1\0", bytes(64), b"\x05"]
)
def test_what_is_not_socks5_is_hung_up_on(garbage: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a client that begins and says nothing more."""
    monkeypatch.setattr(socks, "GREETING_SECONDS", 0.3)
    with served() as port, connected(port) as client:
        client.sendall(garbage)
        assert ended(client)


def offered(port: int, user: bytes, password: bytes) -> bytes:
    """Return the answer to an account."""
    with connected(port) as client:
        client.sendall(HELLO_WITH_ACCOUNT)
        assert exactly(client, 2) == b"\x05\x02"
        given = bytes((1, len(user))) + user + bytes((len(password),)) + password
        client.sendall(given)
        return exactly(client, 2)


def test_the_account_has_to_be_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong ones of one address are answered one after the other, late; the right one at once."""
    monkeypatch.setattr(socks, "WRONG_SECONDS", 0.3)
    with served(**ACCOUNT) as port:
        assert offered(port, USER, PASSWORD) == b"\x01\x00"
        began = time.monotonic()
        wrong = [(USER, b""), (b"", PASSWORD), (USER, PASSWORD + b"x"), (b"x", PASSWORD)]
        answers: list[bytes] = []
        threads = [
            threading.Thread(target=lambda it=it: answers.append(offered(port, *it)))
            for it in wrong
        ]
        for thread in threads:
            thread.start()
        assert offered(port, USER, PASSWORD) == b"\x01\x00"
        assert time.monotonic() - began < 0.3, "the right one does not wait for wrong ones"
        for thread in threads:
            thread.join()
        assert time.monotonic() - began >= 1.2
        assert answers == [b"\x01\x01"] * 4
        with connected(port) as client:
            client.sendall(HELLO)
            assert exactly(client, 2) == b"\x05\xff", "without an account"
            assert ended(client)


def test_a_client_of_no_listed_subnet_is_hung_up_on() -> None:
    """Before anything is said."""
    with served(subnets=["192.168.0.0/16"]) as port, connected(port) as client:
        assert ended(client)


def test_too_many_clients_are_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one address, and altogether; when one has gone, there is room again."""
    for name in ("MOST_OF_ONE", "MOST_CONNECTIONS"):
        with monkeypatch.context() as patched, served() as port:
            patched.setattr(socks, name, 3)
            held = [connected(port) for _ in range(3)]
            for client in held:
                client.sendall(HELLO)
                assert exactly(client, 2) == b"\x05\x00"
            with connected(port) as fourth:
                assert ended(fourth)
            held.pop().close()
            time.sleep(0.1)
            with connected(port) as another:
                another.sendall(HELLO)
                assert exactly(another, 2) == b"\x05\x00"
            for client in held:
                client.close()


def test_a_connection_on_which_nothing_moves_ends() -> None:
    """In neither direction, for as long as that; one that moves does not."""

    async def run() -> tuple[float, bytes]:
        loop = asyncio.get_running_loop()
        (client, ours), (remote, theirs) = socket.socketpair(), socket.socketpair()
        for it in (client, ours, remote, theirs):
            it.setblocking(False)
        began = loop.time()
        relaying = asyncio.ensure_future(relay(ours, theirs, 0.3))
        for _ in range(5):
            await asyncio.sleep(0.1)
            await loop.sock_sendall(client, b"x")
        await relaying
        moved = await loop.sock_recv(remote, 100)
        for it in (client, ours, remote, theirs):
            it.close()
        return loop.time() - began, moved

    lasted, moved = asyncio.run(run())
    assert 0.7 < lasted < 2
    assert moved == b"xxxxx"


def test_places_that_are_not_in_a_tunnel_are_known() -> None:
    """Control: hosts of the internet, and of private networks, which may be in the tunnel."""
    here = ("127.0.0.1", "127.9.9.9", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "fe80::1%eth0",
            "169.254.1.1", "224.0.0.1", "ff02::1")  # fmt: skip
    assert all(map(is_here, here))
    assert not any(map(is_here, ("203.0.113.10", "10.2.0.1", "2001:db8::1", "::ffff:8.8.8.8")))


def test_an_address_that_is_taken_is_an_error() -> None:
    """A family that this machine lacks is not, as long as there is another one."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            socks_process.listeners(Configuration.of(text_of(port=port)))
    with pytest.raises(OSError, match="assign"):
        socks_process.listeners(Configuration.of(text_of(listen=["203.0.113.1"])))
    (found,) = socks_process.listeners(Configuration.of(text_of(listen=["203.0.113.1", *HERE])))
    found.close()
