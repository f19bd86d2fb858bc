"""The control API with its real process: what clients get, and what they cannot do."""

import asyncio
import json
import os
import signal
import socket
from base64 import b64encode
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, replace
from types import ModuleType

import pytest
from structlog.testing import capture_logs

from gateway.control.messages import Order
from gateway.control.server import LARGEST_BODY, MOST_CONNECTIONS, Shared
from gateway.control.streams import MOST_STREAMS
from gateway.model import Config, HostPort, Secret
from gateway.model.control import ROUTES, Control, every_route
from gateway.services.control import service as control
from gateway.services.control import talk as control_talk
from gateway.system.child import Restart
from tests.fakes.controlled import ALL, KEY, Controlled
from tests.scenarios import IPV4_ONLY
from tests.served_control import (
    FREE,
    PATIENCE,
    PORT,
    events,
    next_event,
    read,
    serving,
    until,
)

Replace = Callable[[ModuleType, str], None]

MOST_MEMORY = 60_000
"""KiB of the process with a thousand clients."""


def test_clients_of_gluetun_get_the_json_that_they_read() -> None:
    """The same words and forms, without a space, and nothing of a key."""

    async def run() -> None:
        async with serving() as it:
            it.gateway.lease(51820, 40000)
            bodies = {
                "/v1/vpn/status": {"status": "running"},
                "/v1/openvpn/status": {"status": "running"},
                "/v1/dns/status": {"status": "stopped"},
                "/v1/openvpn/portforwarded": {"port": 51820, "ports": [51820, 40000]},
                "/v1/portforward": {"port": 51820, "ports": [51820, 40000]},
                "/v1/vpn/settings": {
                    "type": "wireguard",
                    "provider": {
                        "name": "mullvad",
                        "server_selection": {"vpn": "wireguard", "countries": ["Sweden"]},
                    },
                },
            }
            for path, body in bodies.items():
                reply = await it.ask(f"GET {path}")
                assert (reply.code, reply.content) == (200, body), path
                assert reply.headers["content-type"] == "application/json"
            compact = (await it.ask("GET /v1/portforward")).body
            assert compact == b'{"port":51820,"ports":[51820,40000]}\n'
            address = (await it.ask("GET /v1/publicip/ip")).content
            assert {"public_ip", "region", "country", "city"} <= set(address)
            assert (await it.ask("GET /v1/version")).content["version"]
            status = (await it.ask("GET /api/v1/status")).content
            assert (status["state"], status["reason_code"]) == ("connected", "server_answers")
            document = (await it.ask("GET /api/v1/openapi.json")).content
            assert {
                (path, method.upper())
                for path, item in document["paths"].items()
                for method in item
            } == {(path, method) for path, methods in ROUTES.items() for method in methods}

    asyncio.run(run())


def test_a_rotator_stops_and_starts_the_tunnel() -> None:
    """PUT waits until it is so, and answers as gluetun does."""

    async def run() -> None:
        async with serving() as it:
            for path in ("/v1/vpn/status", "/v1/openvpn/status"):
                for wanted, outcome in (
                    ("running", "already running"),
                    ("stopped", "stopped"),
                    ("stopped", "already stopped"),
                    ("running", "running"),
                ):
                    body = json.dumps({"status": wanted}).encode()
                    reply = await it.ask(f"PUT {path}", body=body)
                    assert (reply.code, reply.content) == (200, {"outcome": outcome})
            assert it.gateway.orders == [Order.PAUSE, Order.RESUME] * 2
            for bad in (b"", b"{", b"[]", b'{"status":"crashed"}', b"[" * 4000, b'{"status":{}}'):
                assert (await it.ask("PUT /v1/vpn/status", body=bad)).code == 400
            assert len(it.gateway.orders) == 4

    asyncio.run(run())


def test_our_own_orders_are_passed_on_or_refused_with_a_reason() -> None:
    """A refused one has a code."""

    async def run() -> None:
        async with serving() as it:
            assert (await it.ask("POST /api/v1/reconnect")).code == 202
            assert (await it.ask("POST /api/v1/next")).content["outcome"] == "next"
            reply = await it.ask("POST /api/v1/reload")
            assert (reply.code, reply.content["outcome"]) == (200, "unchanged")
            await it.ask("PUT /v1/vpn/status", body=b'{"status":"stopped"}')
            reply = await it.ask("POST /api/v1/next")
            assert (reply.code, reply.content["code"]) == (409, "is_paused")

    asyncio.run(run())


def test_only_who_shows_the_credential_of_a_role_uses_its_routes() -> None:
    """A key, a name with a password, or nothing for what everybody may read."""
    basic = f"Authorization: Basic {b64encode(b'me:a password').decode()}"

    async def run() -> None:
        async with serving(ALL, PORT, FREE) as it:
            assert (await it.ask("GET /v1/portforward", basic, key="")).code == 200
            assert (await it.ask("GET /v1/vpn/status", basic, key="")).code == 403
            assert (await it.ask("GET /v1/version", key="")).code == 200
            bearer = f"Authorization: Bearer {KEY}"
            assert (await it.ask("GET /v1/vpn/status", bearer, key="")).code == 200
            for route in every_route() - FREE.routes:
                reply = await it.ask(route, key="", body=b'{"status":"stopped"}')
                assert reply.code == 401
                assert reply.headers["www-authenticate"]
            for wrong in ("x", KEY[:-1], KEY + "x", KEY.upper()):
                assert (await it.ask("PUT /v1/vpn/status", key=wrong)).code == 401
            assert not it.gateway.orders

    asyncio.run(run())


def test_what_is_not_a_request_for_a_route_is_refused_with_a_reason() -> None:
    """Other paths and methods, large ones, garbage, keys in the address, pages of others."""

    async def run() -> None:
        async with serving(ALL, FREE) as it:
            assert (await it.ask("GET /v1/openvpn/settings")).code == 404
            assert (await it.ask("PUT /v1/vpn/settings", body=b"{}")).code == 405
            reply = await it.ask("DELETE /v1/vpn/status")
            assert (reply.code, reply.headers["allow"]) == (405, "get, head, put, options")
            reply = await it.ask("OPTIONS /api/v1/next", key="")
            assert (reply.code, reply.headers["allow"]) == (204, "post, options")
            reply = await it.ask("HEAD /v1/portforward")
            assert (reply.code, reply.body) == (200, b"")
            assert int(reply.headers["content-length"]) > 0
            assert (await it.ask("HEAD /api/v1/events")).code == 200
            reply = await it.ask(f"GET /v1/version?apikey={KEY}", key="")
            assert reply.code == 400
            assert KEY.encode() not in reply.body
            origin = await it.ask("POST /api/v1/next", "Origin: http://evil.example")
            assert origin.code == 403
            site = await it.ask("GET /v1/version", "Sec-Fetch-Site: cross-site", key="")
            assert site.code == 403
            assert (await it.ask("GET /v1/version", "Host: evil.example", key="")).code == 403
            assert (await it.ask("GET /v1/version", "Host: gateway.example.org")).code == 200
            large = b"x" * (LARGEST_BODY + 1)
            assert (await it.ask("PUT /v1/vpn/status", body=large)).code == 413
            assert (await it.ask("GET /v1/version", "X: " + "x" * 20000)).code == 431
            chunked = (
                b"PUT /v1/vpn/status HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            many = b"800\r\n" + b"x" * 2048 + b"\r\n"
            assert read(await it.raw(chunked + many * 4)).code == 413
            assert read(await it.raw(b"nonsense\r\n\r\n")).code == 400
            assert read(await it.raw(b"\x16\x03\x01" + os.urandom(200) + b"\r\n\r\n")).code == 400
            assert not it.gateway.orders
            for reply in (origin, site, await it.ask("GET /v1/version")):
                assert not [name for name in reply.headers if name.startswith("access-control")]
                assert reply.headers["cache-control"] == "no-store"

    asyncio.run(run())


def test_a_guesser_waits_and_the_right_user_does_not() -> None:
    """Even from the guesser's address the right credential is taken."""

    async def run() -> None:
        async with serving() as it:
            loop = asyncio.get_running_loop()
            wrong = b"GET /v1/version HTTP/1.1\r\nHost: g\r\nX-API-Key: wrong\r\n\r\n"
            right = wrong.replace(b"wrong", KEY.encode())
            for _ in range(4):
                assert read(await it.raw(wrong)).code == 401
            guesses = [asyncio.create_task(it.raw(wrong)) for _ in range(50)]
            began = loop.time()
            assert read(await it.raw(right, source="127.0.0.2")).code == 200
            assert loop.time() - began < 0.5
            began = loop.time()
            assert read(await it.raw(right)).code == 200
            assert 0.3 < loop.time() - began < 5
            await asyncio.gather(*guesses)

    asyncio.run(run())


def test_encodings_that_the_process_has_not_loaded_cause_no_fault() -> None:
    """A Host header that is not ASCII, and a body in UTF-16: nothing is logged for any of them."""

    async def run() -> None:
        async with serving(ALL, FREE) as it:
            host = b"GET /v1/version HTTP/1.1\r\nHost: g\xc3\xa4te.lan\r\n\r\n"
            assert read(await it.raw(host)).code == 403
            body = '{"status":"stopped"}'.encode("utf-16-le")
            assert (await it.ask("PUT /v1/vpn/status", body=body)).code == 400
            assert (await it.ask("PUT /v1/vpn/status", body=b"\xff\xfe\x00")).code == 400
            assert it.gateway.orders == []

    with capture_logs() as logs:
        asyncio.run(run())
    assert "control API says" not in [it["event"] for it in logs]


def test_unexpected_errors_are_reported_with_their_place_and_seldom(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Any client may cause them, so the log is not to be flooded."""

    async def run() -> None:
        shared = Shared(None, None, lambda _: None)  # type: ignore[arg-type]
        for number in range(50):
            try:
                {}[f"secret {number}"]
            except KeyError as err:
                shared.report(err)

    asyncio.run(run())
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("unexpected KeyError at ")
    assert "secret" not in line


def test_clients_that_are_silent_slow_or_many_keep_no_one_out() -> None:
    """A thousand connections that never finish a request, one that drips, one that floods."""

    async def run() -> None:
        async with serving() as it:
            silent = []
            for number in range(1000):
                client = socket.create_connection(("127.0.0.1", it.port))
                if number % 2:
                    client.send(b"GET /v1/version HTTP/1.1\r\nHost: g\r\n")
                silent.append(client)
            right = f"GET /v1/version HTTP/1.1\r\nHost: g\r\nX-API-Key: {KEY}\r\n\r\n".encode()
            for _ in range(20):
                reply = await it.raw(right, source="127.0.0.3")
                assert read(reply).code == 200
            lines = (it.process / "status").read_text().splitlines()
            size = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
            assert size < MOST_MEMORY
            assert len([*(it.process / "fd").iterdir()]) < MOST_CONNECTIONS + 30
            for client in silent:
                client.close()

    asyncio.run(run())


@dataclass(eq=False)
class Client:
    """A connection that is only counted."""

    place: str
    has_request: bool
    is_open: bool = True

    def drop(self) -> None:
        """Hang up."""
        self.is_open = False


@pytest.mark.parametrize("guess", [True, False])
def test_neither_silent_clients_nor_guessers_keep_others_out(*, guess: bool) -> None:
    """With all connections of one address, each with a whole request or each without one."""

    async def run() -> None:
        greedy = [Client("192.0.2.1", has_request=guess) for _ in range(MOST_CONNECTIONS)]
        others = [
            Client("192.0.2.1", has_request=not guess),
            Client("192.0.2.2", has_request=guess),
        ]
        for other in (*others, Client("192.0.2.3", has_request=not guess)):
            shared = Shared(None, None, lambda _: None)  # type: ignore[arg-type]
            shared.open = dict.fromkeys([*greedy, other])  # type: ignore[list-item]
            shared.make_room()
            assert other.is_open
            assert [it.is_open for it in greedy[:2]] == [False, True]
            greedy[0].is_open = True

    asyncio.run(run())


def test_every_transition_lease_and_reload_is_an_event() -> None:
    """In the order in which they happen, each once."""

    async def run() -> None:
        async with serving() as it, events(it) as stream:
            await asyncio.sleep(1.2)
            await it.ask("PUT /v1/vpn/status", body=b'{"status":"stopped"}')
            name, data = await next_event(stream)
            assert (name, data["state"]) == ("transition", "paused")
            it.gateway.lease(51820)
            assert await next_event(stream) == ("ports", {"ports": [51820]})
            await it.ask("POST /api/v1/reload")
            name, data = await next_event(stream)
            assert (name, data["outcome"]) == ("reload", "unchanged")

    asyncio.run(run())


def test_few_streams_are_served_and_the_address_with_most_of_them_loses_one() -> None:
    """So a client with one keeps it, however many others ask for."""

    async def run() -> None:
        async with serving() as it, AsyncExitStack() as stack:
            mine = await stack.enter_async_context(events(it, "127.0.0.2"))
            others = [await stack.enter_async_context(events(it)) for _ in range(MOST_STREAMS + 5)]
            async with asyncio.timeout(PATIENCE):
                await others[0].read()
            await asyncio.sleep(1.2)
            it.gateway.lease(1234)
            assert await next_event(mine) == ("ports", {"ports": [1234]})
            assert (await it.ask("GET /v1/version")).code == 200

    asyncio.run(run())


def test_a_process_that_is_killed_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The port stays open meanwhile, so clients only wait."""
    monkeypatch.setattr(control, "RESTART", Restart(first=0.1))

    async def run() -> None:
        async with serving() as it:
            former = it.process
            os.kill(int(former.name), signal.SIGKILL)
            reply = await it.ask("GET /v1/version")
            assert reply.code == 200
            await until(lambda: it.server.report().is_running)
            assert it.process != former
            assert it.server.report().starts == 2
            assert not it.server.report().problem

    asyncio.run(run())


def test_a_process_that_is_halted_is_killed_and_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The gateway notices, reports it, and does not wait for it."""
    monkeypatch.setattr(control, "RESTART", Restart(first=0.1))
    monkeypatch.setattr(control_talk, "PING_EVERY", 0.2)
    monkeypatch.setattr(control_talk, "PONG_TIME", 4.0)

    async def run() -> None:
        async with serving() as it:
            former = it.process
            os.kill(int(former.name), signal.SIGSTOP)
            await until(lambda: not it.server.report().is_running)
            assert "no answer" in it.server.report().problem
            await until(lambda: it.server.report().is_running)
            assert it.process != former
            assert (await it.ask("GET /v1/version")).code == 200

    asyncio.run(run())


HOSTILE = "import json, socket, time; s = socket.socket(fileno=4); send = s.sendall; "


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("send(b'nonsense\\n'); time.sleep(60)", "else than a message"),
        ("send(b'x' * 100000); time.sleep(60)", "else than a message"),
        (
            'send(b\'{"do":"open","id":1,"role":"a","client":"b"}\\n\'); time.sleep(60)',
            "else than a message",
        ),
        ("send(b'[' * 900 + b'\\n'); time.sleep(60)", "else than a message"),
        ("s.shutdown(2); time.sleep(60)", "hung up"),
        ("raise SystemExit(3)", "exit code 3"),
    ],
)
def test_a_process_that_was_taken_over_can_only_be_ended(
    replaced_process: Replace, program: str, problem: str
) -> None:
    """At the first thing that is not a message of ours."""
    replaced_process(control, HOSTILE + program)

    async def run() -> None:
        gateway = Controlled()
        server = gateway.server(HostPort("127.0.0.1", 0))
        task = asyncio.create_task(server.run())
        await until(lambda: bool(server.report().problem))
        assert problem in server.report().problem
        assert not gateway.orders
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(run())


def test_a_process_that_read_nothing_leaves_no_number_of_a_descriptor_behind(
    monkeypatch: pytest.MonkeyPatch, replaced_process: Replace
) -> None:
    """The next socket with that number could not be watched."""
    monkeypatch.setattr(control_talk, "PACE", 0)
    ask = '{"ask":"status","id":1}'
    replaced_process(control, f"{HOSTILE}\nwhile True: send(b'{ask}\\n')")

    async def run() -> None:
        server = Controlled().server(HostPort("127.0.0.1", 0))
        task = asyncio.create_task(server.run())
        await until(lambda: bool(server.report().problem))
        assert server.report().problem == "it does not read what it is sent"
        with ExitStack() as sockets:
            for _ in range(16):
                for it in map(sockets.enter_context, socket.socketpair()):
                    asyncio.get_running_loop().add_reader(it, print)
                    asyncio.get_running_loop().remove_reader(it)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(run())


def test_a_flood_of_a_process_that_was_taken_over_is_read_at_a_pace(
    replaced_process: Replace,
) -> None:
    """Few orders a second, and the loop has time for everything else."""
    order = '{"do":"next","id":1,"role":"forged","client":"x"}'
    replaced_process(control, f"{HOSTILE}\nwhile True: send(b'{order}\\n')")

    async def run() -> None:
        gateway = Controlled()
        task = asyncio.create_task(gateway.server(HostPort("127.0.0.1", 0)).run())
        await until(lambda: bool(gateway.orders))
        late = 0.0
        loop = asyncio.get_running_loop()
        for _ in range(100):
            before = loop.time()
            await asyncio.sleep(0.01)
            late = max(late, loop.time() - before - 0.01)
        assert len(gateway.orders) <= 10
        assert late < 0.5
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(run())


def test_roles_that_were_read_again_are_in_force_at_once() -> None:
    """The former key is not known any more."""

    async def run() -> None:
        async with serving() as it:
            other = replace(ALL, credential=Secret("another-key-of-the-tests"))
            it.server.adopt(replace(Config((IPV4_ONLY,)), control=Control((other,))))
            await asyncio.sleep(0.3)
            assert (await it.ask("GET /v1/version")).code == 401
            assert (await it.ask("GET /v1/version", key="another-key-of-the-tests")).code == 200

    asyncio.run(run())


def test_no_credential_is_in_the_log_the_arguments_or_the_report(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Neither the right one nor a wrong one."""

    async def run() -> None:
        async with serving() as it:
            await it.ask("POST /api/v1/next")
            await it.ask("POST /api/v1/next", key="wrong-key-of-the-tests")
            await it.ask("GET /v1/version?token=wrong-key-of-the-tests", key="")
            await it.raw(
                b"POST /api/v1/next HTTP/1.1\r\nX-API-Key: wrong-key-of-the-tests\0\r\n\r\n"
            )
            await asyncio.sleep(0.5)
            shown = (it.process / "cmdline").read_text()
            captured = capfd.readouterr()
            assert "control API order" in captured.out + captured.err
            assert "control API refused a credential" in captured.out + captured.err
            shown += captured.out + captured.err + repr(it.server.report())
            assert KEY not in shown
            assert "wrong-key" not in shown

    asyncio.run(run())


def test_an_address_that_is_taken_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report says so meanwhile, and the gateway continues."""
    monkeypatch.setattr(control, "BIND_AGAIN", 0.05)

    async def run() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            server = Controlled().server(HostPort("127.0.0.1", taken.getsockname()[1]))
            task = asyncio.create_task(server.run())
            await until(lambda: bool(server.report().problem))
            assert "in use" in server.report().problem
            assert "HTTP_CONTROL_SERVER_ADDRESS" in server.report().remedy
            await asyncio.sleep(0.3)
            assert [it["event"] for it in logs] == ["control API does not answer"], "once"
        await until(lambda: server.report().is_running)
        assert not server.report().problem
        task.cancel()
        await asyncio.wait([task])

    with capture_logs() as logs:
        asyncio.run(run())
