"""A proxy as a supervised child: when it is started again, and what is reported of it."""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.daemon import proxying
from gateway.daemon.services import Tools, services_of
from gateway.errors import MissingError
from gateway.model import Config, HostPort, Secret
from gateway.model.lease import Connection
from gateway.model.proxies import PROXY_USER, Account, HttpProxy, SocksProxy
from gateway.policy import tinyproxy
from gateway.policy.limits import MORE_USERS, Limit, LimitCode
from gateway.services.proxies import kinds as proxy_kinds
from gateway.services.proxies import service as service_module
from gateway.services.proxies.kinds import PROBE, Heard, Kind
from gateway.services.proxies.service import ProxyService, shown
from gateway.system.child import Program
from gateway.system.netns import OWN
from gateway.system.process import reap_orphans
from gateway.system.vault import VaultNetns
from tests.scenarios import DUAL, IPV4_ONLY

SERVER = """
import os, socket, sys
sys.stdout.write(open("/dev/fd/41").read() + "\\n")
sys.stdout.flush()
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = listener.accept()
    connection.recv(100)
    connection.sendall(b"!")
    connection.close()
"""
"""A stand-in for a proxy: it writes what its configuration has, and answers."""


def free_port() -> int:
    """Return a port at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def kind(
    port: int, script: str = SERVER, heard: Callable[[str], Heard | None] | None = None
) -> Kind:
    """Return a kind of proxy that needs no rights."""
    program = Program((sys.executable, "-I", "-S", "-c", script, str(port)))
    known = proxy_kinds.socks(SocksProxy(HostPort("", port)))
    return replace(
        known,
        program=lambda: program,
        configuration=lambda: b"refused 192.0.2.7",
        heard=heard or known.heard,
    )


def running(
    service: ProxyService, work: Callable[[], Awaitable[object]], patience: float = 15
) -> list[dict[str, object]]:
    """Run `service` while `work` is done; return what was logged."""

    async def run() -> None:
        reap_orphans()
        task = asyncio.ensure_future(service.run())
        try:
            await asyncio.wait_for(work(), patience)
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.wait([task])

    with capture_logs() as logs:
        asyncio.run(run())
    return [dict(it) for it in logs]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds."""
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not come")


def children() -> set[int]:
    """Return our children."""
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii")
    return set(map(int, text.split()))


def test_it_runs_and_what_it_says_of_clients_is_logged_once_a_minute() -> None:
    """With its configuration from a descriptor, and no other."""
    service = ProxyService(kind(free_port()), ("", ""), time.monotonic)

    async def work() -> None:
        await until(lambda: service.report().is_running)
        report = service.report()
        assert (report.name, report.problem, report.starts) == ("socks proxy", "", 1)
        await asyncio.sleep(0.1)
        service._heard("refused 192.0.2.8")  # noqa: SLF001 - as the child says it

    logs = running(service, work)
    refused = [it for it in logs if it["event"] == "proxy refuses a client"]
    assert [it["client"] for it in refused] == ["192.0.2.7"]
    assert "SOCKS5_ALLOWED_SUBNETS" in str(refused[0]["remedy"])


def test_one_that_is_killed_or_hangs_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is halted does not answer, and is killed."""
    monkeypatch.setattr(service_module, "LOOK_EVERY", 0.2)
    monkeypatch.setattr(service_module, "ANSWERS_WITHIN", 0.3)
    before = children()
    service = ProxyService(kind(free_port()), ("", ""), time.monotonic)

    async def work() -> None:
        for starts, number in ((1, signal.SIGKILL), (2, signal.SIGSTOP)):
            await until(lambda starts=starts: service.report().starts == starts)
            (pid,) = children() - before
            os.kill(pid, number)
            await until(lambda starts=starts: service.report().starts > starts)
            assert service.report().is_running
            assert pid not in children()

    logs = running(service, work, 30)
    problems = [str(it["problem"]) for it in logs if it["event"] == "proxy failed"]
    assert "SIGKILL" in problems[0]
    assert problems[1] == "it does not answer"


LAST = """
    os.write(1, b"[1]: Request (file descriptor 5): GET http://me:hush-1@web.example/?key=hush-2")
    connection.close()
    import time
    time.sleep(0.3)
    sys.exit(7)
"""
"""How a stand-in ends that has served a client."""


def test_the_last_requests_are_not_shown_when_it_ends() -> None:
    """They may have secrets of clients. Control: the end is reported, and the line was read."""
    lines: list[str] = []
    script = SERVER.replace("    connection.close()", LAST)
    service = ProxyService(
        kind(free_port(), script, lines.append),  # type: ignore[func-returns-value]
        ("", ""),
        time.monotonic,
    )

    async def work() -> None:
        await until(lambda: "exit code 7" in service.report().problem)
        assert "hush" not in service.report().problem

    logs = running(service, work)
    assert "hush-1" in str(lines)
    assert "hush" not in str(logs)


def test_a_question_of_the_gateway_is_not_logged_as_a_client() -> None:
    """Where loopback is in no listed subnet; a workload that is refused after it is one."""
    service = ProxyService(kind(free_port()), ("", ""), time.monotonic)
    refused = "refused 127.0.0.1"

    async def work() -> None:
        await until(lambda: service.report().is_running)
        service._spoke_at = float("-inf")  # noqa: SLF001 - what its configuration says has spoken
        service._heard(refused)  # noqa: SLF001 - as the child says it

    def own(logs: list[dict[str, object]]) -> list[object]:
        return [it["client"] for it in logs if it.get("client") == "127.0.0.1"]

    assert own(running(service, work)) == []
    with capture_logs() as logs:
        service._heard(refused)  # noqa: SLF001 - as the child says it
    assert own([dict(it) for it in logs]) == ["127.0.0.1"]


def test_it_begins_again_when_the_tunnel_is_lost() -> None:
    """Without a pause and without a warning; not when ports change, and not twice."""
    service = ProxyService(kind(free_port()), ("", ""), time.monotonic)
    tunnel = Connection(IPV4_ONLY)

    async def work() -> None:
        await until(lambda: service.report().is_running)
        service.follow(None)
        service.follow(tunnel)
        service.follow(Connection(DUAL))
        await asyncio.sleep(0.2)
        assert service.report().starts == 1
        service.follow(None)
        service.follow(None)
        await until(lambda: service.report().starts == 2)
        await until(lambda: service.report().is_running)

    logs = running(service, work)
    assert not [it for it in logs if it["event"] == "proxy failed"]


def test_a_port_that_is_taken_is_reported_with_what_to_do() -> None:
    """And tried again. When it is free, the proxy runs."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
        service = ProxyService(kind(port), ("", ""), time.monotonic)

        async def work() -> None:
            await until(lambda: bool(service.report().problem))
            report = service.report()
            assert report.problem == f"port {port} is taken by another program of this namespace"
            assert "SOCKS5_LISTENING_ADDRESS" in report.remedy
            taken.close()
            await until(lambda: service.report().is_running)
            assert service.report().problem == ""

        running(service, work)


def test_a_program_that_is_missing_is_reported() -> None:
    """With the remedy; nothing else fails."""

    def program() -> Program:
        raise MissingError("the program tinyproxy is not installed", "install it")

    service = ProxyService(replace(kind(1), program=program), ("", ""), time.monotonic)

    async def work() -> None:
        await until(lambda: bool(service.report().problem))
        assert service.report().remedy == "install it"

    running(service, work)


HTTP = HttpProxy(HostPort("", 8888))
SOCKS = SocksProxy(HostPort("::1", 1080))
WANTED = Config((IPV4_ONLY,), http_proxy=HTTP, socks_proxy=SOCKS)


def test_one_that_cannot_be_confined_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """For want of capabilities, or of a match for its user; the report has the remedy."""
    monkeypatch.setattr(proxying, "missing_capabilities", lambda *names: names[1:])
    why, remedy = proxying.unconfined(OWN, ())
    assert "SETGID, SETUID" in why
    assert "cap_add: [SETGID, SETUID]" in remedy
    monkeypatch.setattr(proxying, "missing_capabilities", lambda *_: ())
    monkeypatch.setattr(proxying, "knows_users", lambda: False)
    assert "another user namespace" in proxying.unconfined(OWN, ())[0]
    monkeypatch.setattr(proxying, "knows_users", lambda: True)
    monkeypatch.setattr(proxying, "lacks_id", lambda number: number == PROXY_USER)
    assert proxying.unconfined(OWN, ())[1] == MORE_USERS
    monkeypatch.setattr(proxying, "lacks_id", lambda _: False)
    limit = Limit(LimitCode.RESOLVER_NOT_CONFINED, "x", "use nftables")
    assert proxying.unconfined(OWN, [limit])[1] == "use nftables"
    assert proxying.unconfined(OWN, [replace(limit, code=LimitCode.NO_GUARD)]) == ("", "")
    service = ProxyService(kind(free_port()), ("it cannot be", "do this"), time.monotonic)
    before = children()

    async def work() -> None:
        await until(lambda: bool(service.report().problem))
        await asyncio.sleep(0.1)
        assert children() == before

    (logged,) = running(service, work)
    assert (logged["problem"], logged["remedy"]) == ("it cannot be", "do this")
    assert not service.report().is_running


def test_a_proxy_is_refused_in_a_vault() -> None:
    """Where the tunnel is, and where the gateway starts no proxy."""
    why, remedy = proxying.unconfined(VaultNetns.__new__(VaultNetns), ())
    assert "vault" in why
    assert "network_mode: service:vault" in remedy


def test_only_what_is_wanted_is_made() -> None:
    """Without a switch no module of a proxy is loaded, and no rule is there."""
    tools = Tools({}, OWN, OWN, time.monotonic, print, print, print, lambda: None)  # type: ignore[arg-type, return-value]
    for config, names in (
        (WANTED, ["http proxy", "socks proxy"]),
        (replace(WANTED, http_proxy=None), ["socks proxy"]),
        (replace(WANTED, http_proxy=None, socks_proxy=None), []),
    ):
        assert [it.name for it in services_of(config, tools).reports()] == names


def test_tinyproxy_gets_its_whole_configuration() -> None:
    """With an account, and with subnets."""
    text = tinyproxy.configuration(HTTP)
    assert text.splitlines() == [
        "Port 8888",
        "MaxClients 256",
        "Timeout 300",
        "LogLevel Notice",
        "DisableViaHeader No",
        'ViaProxyName "proxy"',
        "Allow 127.0.0.0/8",
        "Allow ::1/128",
    ]
    account = Account("me", Secret("pa55"))
    proxy = HttpProxy(HostPort("10.0.0.1", 80), account, None, log=True, stealth=True)
    lines = tinyproxy.configuration(proxy).splitlines()
    assert lines[:2] == ["Port 80", "Listen 10.0.0.1"]
    assert lines[4:6] == ["LogLevel Connect", "DisableViaHeader Yes"]
    assert lines[-1] == "BasicAuth me pa55"
    assert "pa55" not in repr(proxy)


LINES = [
    "CONNECT   Nov 30 17:04:33.215 [15658]: Connect (file descriptor 5): 192.0.2.7",
    "CONNECT   Nov 30 17:04:33.215 [15658]: Connect (file descriptor 6): 192.0.2.8",
    "CONNECT   x [1]: Request (file descriptor 5): CONNECT a.example:443 HTTP/1.1",
    "CONNECT   x [1]: Request (file descriptor 6): GET http://u:p@b.example/c?d=e HTTP/1.1",
    f"CONNECT   x [1]: Request (file descriptor 7): GET {PROBE} HTTP/1.0",
    'NOTICE    x [1]: Unauthorized connection from "192.0.2.9".',
    "ERROR     x [1]: opensock: Could not establish a connection to 127.0.0.1:1",
]


def test_lines_of_tinyproxy_are_understood() -> None:
    """With the client of each request, and nothing that may be secret."""
    heard = proxy_kinds.http(HTTP).heard
    found = [it for it in map(heard, LINES) if it]
    assert [(it.client, it.request) for it in found[:2]] == [
        ("192.0.2.7", "CONNECT a.example:443"),
        ("192.0.2.8", "GET http://b.example/c"),
    ]
    (refused,) = found[2:]
    assert refused.client == "192.0.2.9"
    assert "HTTPPROXY_ALLOWED_SUBNETS" in refused.remedy
    assert heard(LINES[3].replace("u:p@", "u:p@w@")) == Heard("", "GET http://b.example/c")
    assert heard(LINES[2].replace("a.example", "u:p@a.example")) == Heard(
        "", "CONNECT a.example:443"
    )
    long = heard(f"x [1]: Request (file descriptor 5): GET http://x/{'y' * 9999} HTTP/1.1")
    assert long
    assert len(long.request) < 250


@pytest.mark.parametrize("forged", LINES[:6:5])
def test_a_client_cannot_forge_lines(forged: str) -> None:
    """A request that reads as another line is that request. Nothing of it is kept."""
    lines = proxy_kinds.http(HTTP).heard
    for line in (
        f"CONNECT   x [1]: Request (file descriptor 5): GET {it} HTTP/1.1"
        for it in (forged, "x " + forged)
    ):
        found = lines(line)
        assert found
        assert (found.client, found.problem) == ("", "")
    follows = lines("CONNECT   x [1]: Request (file descriptor 5): GET http://y/ HTTP/1.1")
    assert follows == Heard("", "GET http://y/")
    assert lines("CONNECT   x [1]: Connect (file descriptor 123456): 192.0.2.1") is None
    assert lines("CONNECT   x [1]: Request (file descriptor 123456): GET / HTTP/1.1") == Heard(
        "", "GET /"
    )


def test_lines_of_the_socks_server_are_understood() -> None:
    """Others are not."""
    heard = proxy_kinds.socks(SOCKS).heard
    near = heard("refused fe80::1%eth0")
    assert near
    assert near.client == "fe80::1"
    assert heard("wrong password 192.0.2.7") == Heard(
        "192.0.2.7",
        problem="its user name or password is wrong",
        remedy="compare SOCKS5_USER and SOCKS5_PASSWORD with what the client has",
    )
    assert heard("Traceback (most recent call last):") is None


def test_where_it_listens_is_shown_for_people() -> None:
    """In the line of `gateway status`."""
    assert [shown(it) for it in (HostPort("", 1), HostPort("::1", 2), HostPort("10.0.0.1", 3))] == [
        "port 1",
        "[::1]:2",
        "10.0.0.1:3",
    ]
