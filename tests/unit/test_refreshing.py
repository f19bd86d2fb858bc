"""A provider's list is fetched again through the tunnel, and nothing depends on it."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.daemon import refreshing
from gateway.daemon.refreshing import Tools, keep_fresh
from gateway.errors import NetworkError
from gateway.model import Address, Config, ServerList
from gateway.policy.states import Query, Transfer
from tests.scenarios import IPV4_ONLY

LISTED = ServerList("mullvad", "api.example", "/relays/")
OTHER = ServerList("ivpn", "api.other", "/servers/")
RUNNING = Config((IPV4_ONLY,), server_list=LISTED)
FIRST, SECOND = ip_address("203.0.113.5"), ip_address("203.0.113.6")


class Tunnel:
    """A resolver and a host in the tunnel, which may be down; what was asked for, in order."""

    def __init__(self) -> None:
        self.is_up = True
        self.config = RUNNING
        self.asked: list[str] = []
        self.refused: set[Address] = set()
        self.hangs = False
        self._server: Address = FIRST

    @property
    def tools(self) -> Tools:
        """What the refresh gets."""
        return Tools(_Resolver(self), _Provider(self), lambda: self.is_up, self.read)

    def read(self) -> None:
        """Note that the configuration is to be read again."""
        self.asked.append("read again")


class _Resolver:
    resolver: Address | None = None

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel

    def open(self) -> Query:
        return Query(FIRST, 40000, 7)

    async def ask(self, names: tuple[str, ...]) -> dict[str, tuple[Address, ...]]:
        assert self.resolver in self._tunnel.config.tunnels[0].dns
        self._tunnel.asked.append("ask")
        return dict.fromkeys(names, (FIRST, SECOND))


class _Provider:
    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel
        self._server: Address = FIRST

    def open(self, listed: ServerList, server: Address) -> Transfer:
        self._server = server
        return Transfer(server, listed.port, 40001, 0)

    async def fetch(self, listed: ServerList) -> None:
        assert listed == self._tunnel.config.server_list
        self._tunnel.asked.append(f"fetch {self._server}")
        if self._tunnel.hangs:
            await asyncio.sleep(1000)
        if self._server in self._tunnel.refused:
            raise NetworkError("connect: refused", str(self._server))


def run(tunnel: Tunnel, period: float, until: Callable[[], bool], place: Path) -> None:
    """Keep the list fresh until something holds, for 5 s at most."""

    async def live() -> None:
        task = asyncio.create_task(
            keep_fresh(lambda: tunnel.config, period, tunnel.tools, [str(place)])
        )
        async with asyncio.timeout(5):
            while not until():  # noqa: ASYNC110 - a test looks
                await asyncio.sleep(0.005)
        task.cancel()

    asyncio.run(live())


def test_a_list_is_fetched_each_period_and_the_configuration_read_again(tmp_path: Path) -> None:
    """Each address of the host is tried."""
    tunnel = Tunnel()
    tunnel.refused = {FIRST}
    run(tunnel, 0.02, lambda: tunnel.asked.count("read again") == 2, tmp_path)
    assert tunnel.asked[:4] == ["ask", f"fetch {FIRST}", f"fetch {SECOND}", "read again"]


def test_a_young_list_is_left_alone(tmp_path: Path) -> None:
    """Its file says how old it is; a restart fetches nothing."""
    (tmp_path / "mullvad.json").write_text("{}")
    tunnel = Tunnel()
    with pytest.raises(TimeoutError):
        run(tunnel, 100.0, lambda: bool(tunnel.asked), tmp_path)


def test_nothing_is_asked_while_the_tunnel_is_down(tmp_path: Path) -> None:
    """What is asked then would be refused."""
    tunnel = Tunnel()
    tunnel.is_up = False
    looked = 0

    def look() -> bool:
        nonlocal looked
        looked += 1
        if looked == 20:
            assert tunnel.asked == []
            tunnel.is_up = True
        return "read again" in tunnel.asked

    run(tunnel, 0.01, look, tmp_path)


@pytest.mark.parametrize("how", ["refused", "hangs"])
def test_a_failure_is_tried_again_and_changes_nothing(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the host refuses or is silent."""
    monkeypatch.setattr(refreshing, "TIME_LIMIT", 0.05)
    tunnel = Tunnel()
    tunnel.refused = {FIRST, SECOND} if how == "refused" else set()
    tunnel.hangs = how == "hangs"
    run(tunnel, 0.01, lambda: tunnel.asked.count("ask") == 3, tmp_path)
    assert "read again" not in tunnel.asked


def test_the_list_is_that_of_the_configuration_in_use(tmp_path: Path) -> None:
    """Another provider, another resolver; without a list nothing is asked."""
    tunnel = Tunnel()
    others = (replace(IPV4_ONLY, dns=(SECOND,)),)
    run(tunnel, 0.01, lambda: "read again" in tunnel.asked, tmp_path)
    tunnel.config = Config(others, server_list=OTHER)
    tunnel.asked.clear()
    run(tunnel, 0.01, lambda: "read again" in tunnel.asked, tmp_path)
    tunnel.config = Config(others)
    tunnel.asked.clear()
    with pytest.raises(TimeoutError):
        run(tunnel, 0.01, lambda: bool(tunnel.asked), tmp_path)


def test_a_tunnel_without_a_resolver_is_named(tmp_path: Path) -> None:
    """With the variable that gives it one."""
    tunnel = Tunnel()
    tunnel.config = Config((replace(IPV4_ONLY, dns=()),), server_list=LISTED)
    with capture_logs() as logs:
        run(tunnel, 0.01, lambda: bool(logs), tmp_path)
    assert tunnel.asked == []
    assert "set DNS_ADDRESS" in logs[0]["problem"]


def test_a_file_that_does_not_answer_holds_nothing_up(tmp_path: Path) -> None:
    """It may be on another machine; the list counts as fetched just now."""
    tunnel = Tunnel()
    (tmp_path / "mullvad.json").symlink_to(tmp_path / "mullvad.json")
    with pytest.raises(TimeoutError):
        run(tunnel, 100.0, lambda: bool(tunnel.asked), tmp_path)
