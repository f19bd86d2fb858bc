"""The process that reads a provider's list: whatever the host answers, it ends with a reason.

A real one, over TLS on loopback; what a kept list was before stays.
"""

import asyncio
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import pytest

from gateway.errors import GatewayError
from gateway.model import ServerList
from gateway.providers.lists import MOST_CATEGORIES, kept, servers_in
from gateway.services.fetching.lists import RESULT, ListFetcher
from tests.lab.process import eventually
from tests.lab.tls import Authority, serve
from tests.provider_lists import key, raw
from tests.unit.test_process import alive
from tests.unit.test_providers import provider

HOST = "localhost"
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def answers(trusted: Authority) -> Callable[[bytes], int]:
    """Return what makes a host that answers one request with these bytes, and returns its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted.issue(HOST))

    def serve(answer: bytes) -> int:
        listening = socket.create_server(("127.0.0.1", 0))

        def run() -> None:
            with (
                suppress(OSError),
                listening,
                listening.accept()[0] as accepted,
                context.wrap_socket(accepted, server_side=True) as channel,
            ):
                channel.recv(1 << 16)
                channel.sendall(answer)
                channel.unwrap()

        threading.Thread(target=run, daemon=True).start()
        return int(listening.getsockname()[1])

    return serve


def fetch(name: str, port: int, trusted: Authority, place: Path) -> str:
    """Fetch a list into `place`; return why that failed, "" where it did not."""
    fetcher = ListFetcher({"SSL_CERT_FILE": str(trusted.certificate)}, device="lo", places=[place])
    listed = ServerList(name, HOST, "/list", port)
    fetcher.open(listed, ip_address("127.0.0.1"))
    try:
        asyncio.run(fetcher.fetch(listed))
    except GatewayError as err:
        return str(err)
    return ""


def whole(body: bytes) -> bytes:
    """Return the answer that has this body."""
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


def nordvpn(servers: int, groups: int) -> bytes:
    """Return a list whose servers refer to the same group, with the longest name, many times."""
    metadata = [{"name": "public_key", "value": key(1)}]
    return json.dumps(
        {
            "servers": [
                {
                    "hostname": f"s{number}",
                    "station": f"198.18.{number >> 8}.{number & 255}",
                    "status": "online",
                    "group_ids": [1] * groups,
                    "technologies": [{"id": 2, "metadata": metadata}],
                }
                for number in range(servers)
            ],
            "groups": [{"id": 1, "title": "é" * 100, "type": {"identifier": "kind"}}],
            "technologies": [{"id": 2, "identifier": "wireguard_udp"}],
        }
    ).encode()  # fmt: skip


def test_a_list_is_fetched_and_kept(
    answers: Callable[[bytes], int], trusted: Authority, tmp_path: Path
) -> None:
    """The control of the others."""
    assert fetch("mullvad", answers(whole(raw("mullvad"))), trusted, tmp_path) == ""
    found = kept((tmp_path / "mullvad.json").read_bytes())
    assert found.servers == servers_in(provider("mullvad"), raw("mullvad"))


@pytest.mark.parametrize(
    ("name", "answer", "why"),
    [
        ("mullvad", CHUNKED + b"-5\r\n[    \r\n0\r\n\r\n", "the answer is not HTTP"),
        ("mullvad", CHUNKED + b"ffffffffffffffff\r\n[", "IncompleteRead"),
        ("mullvad", HEAD + b"X: y\r\n" * 101 + b"\r\n[]", "more than 100 headers"),
        ("mullvad", b"HTTP/1.1 \x1b[2J\r\n\r\n", "?[2J"),
        ("mullvad", b"[]", "[]"),
        ("nordvpn", whole(nordvpn(5000, MOST_CATEGORIES)), "servers take more than 16 MiB"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_a_reason_and_replaces_nothing(
    answers: Callable[[bytes], int],
    trusted: Authority,
    tmp_path: Path,
    name: str,
    answer: bytes,
    why: str,
) -> None:
    """Also a result that is too large: a part of it would take the place of a good list."""
    file = tmp_path / f"{name}.json"
    file.write_text("former")
    reason = fetch(name, answers(answer), trusted, tmp_path)
    assert why in reason
    assert reason.isprintable()
    assert "File" not in reason, "no traceback"
    assert file.read_text() == "former"


def test_a_server_has_no_more_categories_than_are_kept() -> None:
    """A small list could become a large one: each category is named by its number."""
    [server] = servers_in(provider("nordvpn"), nordvpn(1, 5000))
    assert len(server.categories) == MOST_CATEGORIES


def test_a_process_that_is_not_done_in_time_is_ended(trusted: Authority, tmp_path: Path) -> None:
    """A host that sends one octet after the other would keep it for as long as it likes."""

    def drops() -> Iterator[bytes]:
        while True:
            yield b" "
            time.sleep(0.1)

    async def live(port: int) -> list[int]:
        environ = {"SSL_CERT_FILE": str(trusted.certificate)}
        fetcher = ListFetcher(environ, device="lo", places=[tmp_path])
        listed = ServerList("mullvad", HOST, "/list", port)
        fetcher.open(listed, ip_address("127.0.0.1"))
        task = asyncio.create_task(fetcher.fetch(listed))
        while not (found := readers()):  # noqa: ASYNC110 - a test looks
            await asyncio.sleep(0.05)
        assert found, "control"
        task.cancel()
        await asyncio.wait([task])
        return readers()

    with serve(trusted.issue(HOST), drops()) as port:
        assert asyncio.run(live(port)) == []


def readers() -> list[int]:
    """Return the processes of ours that read lists."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text("ascii").split()
    found = []
    for pid in children:
        with suppress(OSError):
            if b"list_process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(int(pid))
    return found


def test_nothing_that_the_process_has_started_outlives_it(tmp_path: Path) -> None:
    """As root without CAP_SETUID it could start others, which would keep the file of the result."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        fetcher = ListFetcher({}, device="lo", places=[tmp_path])
        port = server.getsockname()[1]
        fetcher.open(ServerList("mullvad", HOST, "/list", port), ip_address("127.0.0.1"))

        async def work() -> int:
            words = ("sh", "-c", f"sleep 60 & printf %s $! >&{RESULT}")
            async with fetcher._answer(words, HOST) as result:  # noqa: SLF001 - with a program
                return int(os.pread(result, 20, 0))

        pid = asyncio.run(work())
    eventually(lambda: not alive(pid), timeout=1, what="its end")
