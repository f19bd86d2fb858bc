"""Further shapes of compose files start on an engine, side by side, by changing the image.

The first round changes the image's name alone. Ports stay closed until they are listed, and a
health check that cannot work keeps the workload waiting: both by design. The second round starts
what `gateway check --migrate` makes of the same files.
"""

import os
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.docker.images import ROOT
from tests.docker.set_up import MIGRATED, Kind, SetUp, remove
from tests.docker.site import EXIT, HOST, LAN_HOST, LAN_MACHINE, UPLINK, Site
from tests.lab.capture import Capture
from tests.lab.errors import LabError

pytestmark = pytest.mark.docker

SHAPES = Path(__file__).parent / "shapes"
PRESHARED = "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM="
AT_ONCE: Final = 3
"""How many set-ups begin at the same time; most of their time they wait."""

KINDS: Final = {
    "nordvpn-proxy": Kind(
        "vpn", "transmission", "ERERERERERERERERERERERERERERERERERERERERERE=", "10.5.0.2",
        provider="nordvpn", ports={9091: 9091},
    ),
    "surfshark-anchors": Kind(
        "gluetun", "sonarr", "EhISEhISEhISEhISEhISEhISEhISEhISEhISEhISEhI=", "10.14.0.2",
        provider="surfshark", ports={18989: 8989, 17878: 7878}, networks={"media": UPLINK},
    ),
    "windscribe-region": Kind(
        "gluetun", "qbittorrent", "ExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTExM=", "100.64.17.9",
        65142, PRESHARED, "windscribe", ports={28080: 8080},
    ),
    "ivpn-extends": Kind(
        "gluetun", "scraper", "FBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQ=", "172.20.3.4", 2049,
        provider="ivpn",
    ),
    "protonvpn-folder": Kind(
        "gluetun", "soulseek", "FRUVFRUVFRUVFRUVFRUVFRUVFRUVFRUVFRUVFRUVFRU=", "10.2.0.2",
        ports={3000: 3000},
    ),
    "custom-env-file": Kind(
        "gluetun", "prowlarr", "FhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhY=", "10.66.7.8",
        ports={9696: 9696, 7879: 7878, 8990: 8989},
    ),
    "custom-secrets": Kind(
        "gluetun", "backup", "FxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxcXFxc=", "10.99.1.2",
    ),
    "linuxserver-client": Kind(
        "wireguard", "immich", "GBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBg=", "10.13.13.2",
        ports={2283: 2283},
    ),
    "wg-quick-image": Kind(
        "tunnel", "jellyfin", "GRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRkZGRk=", "10.7.0.5",
    ),
    "mullvad-and-file": Kind(
        "gluetun", "deluge", "GhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGho=", "10.68.9.10",
        networks={"proxy": UPLINK},
    ),
    "mullvad-healthcheck": Kind(
        "gluetun", "monitor", "ISEhISEhISEhISEhISEhISEhISEhISEhISEhISEhISE=", "10.69.3.4",
        provider="mullvad",
    ),
}  # fmt: skip

README: Final = {
    "readme-provider": Kind(
        "gateway", "workload", "HBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBw=", "10.64.0.2",
        provider="mullvad", owner="anchor",
    ),
    "readme-file": Kind(
        "gateway", "workload", "Hx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8=", "10.68.9.12",
        owner="anchor",
    ),
}  # fmt: skip
"""Both forms of the file in the README, which have to start like those that people have."""

UNHEALTHY: Final = "mullvad-healthcheck"
"""The one whose health check asks for a program that the image does not have."""
ADVISED: Final = (
    tuple(KINDS)
    if os.environ.get("LAB_EVERYTHING") == "1"
    else ("nordvpn-proxy", "surfshark-anchors", UNHEALTHY, "wg-quick-image")
)
"""Those of the second round: one for each kind of advice, or all."""
NAMELESS: Final = ("windscribe-region", "custom-secrets", "wg-quick-image")
"""Those that name no resolver, and whose provider has none that is the same for all."""
NAMELESS_AFTER_ADVICE: Final = NAMELESS[:2]
"""The same, without the one that names it in another image's variable."""
OUTSIDE: Final = ("windscribe-region", "custom-env-file")
"""Those that list the home network."""
AFTER_ADVICE: Final = (*OUTSIDE, "wg-quick-image")
"""The same, and the one that lists it in another image's variable."""


class Round:
    """All set-ups, started side by side, and what the uplink carried meanwhile."""

    def __init__(self, site: Site, set_ups: dict[str, SetUp], file: str) -> None:
        self.site = site
        self.set_ups = set_ups
        self._stack = ExitStack()
        self.capture: Capture = site.capture_network(UPLINK)
        site.control(self.capture)
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._started: dict[str, Future[None]] = {
            name: self._pool.submit(self._start, made, file) for name, made in set_ups.items()
        }

    def _start(self, made: SetUp, file: str) -> None:
        self._stack.enter_context(made.admitted())
        if file == MIGRATED:
            made.migrate()
        made.up(file)
        made.gateway.wait_for_health("healthy")

    def of(self, name: str) -> SetUp:
        """Return a set-up when it has started. Raises what its start has raised."""
        self._started[name].result()
        return self.set_ups[name]

    def without_start(self, name: str) -> SetUp:
        """Return a set-up whose start was given up. Raises AssertionError if it was not."""
        assert isinstance(self._started[name].exception(), LabError)
        return self.set_ups[name]

    def end(self) -> None:
        """Remove all containers, and what the server knows of them."""
        self._pool.shutdown()
        remove(self.site, [box for made in self.set_ups.values() for box in made.boxes])
        self._stack.close()
        self.capture.close()


def write_readme(directory: Path, kind: Kind, *, with_file: bool) -> None:
    """Write one form of the file in the README, and the secret that it names."""
    text = (ROOT / "README.md").read_text("utf-8")
    provider, file = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))
    if with_file:
        for part in ("services", "secrets"):
            provider[part] |= file[part]
        quick = (SHAPES / "mullvad-and-file/wg0.conf").read_text("utf-8")
        quick = re.sub(r"(?<=PrivateKey = ).*", kind.private, quick)
        secret = re.sub(r"(?<=Address = ).*", f"{kind.address}/32", quick)
    else:
        secret = f"{kind.private}\n"
    name = "wg0.conf" if with_file else "wireguard_private_key"
    (directory / "secrets").mkdir(parents=True)
    (directory / "secrets" / name).write_text(secret, "utf-8")
    (directory / "compose.yml").write_text(yaml.safe_dump(provider), "utf-8")


@pytest.fixture(scope="module")
def set_ups(
    site: Site, providers: None, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, SetUp]:
    """Return every set-up, before it is started."""
    del providers
    folder = tmp_path_factory.mktemp("shapes")
    written = {name: tmp_path_factory.mktemp("readme") / name for name in README}
    for name, path in written.items():
        write_readme(path, README[name], with_file=name == "readme-file")
    return {
        name: SetUp(site, kind, written.get(name, SHAPES / name), folder)
        for name, kind in (KINDS | README).items()
    }


@pytest.fixture(scope="module")
def first(site: Site, set_ups: dict[str, SetUp]) -> Iterator[Round]:
    """Yield the round in which only the image's name was changed."""
    started = Round(site, set_ups, "compose.yml")
    yield started
    started.end()


@pytest.fixture(scope="module")
def second(site: Site, set_ups: dict[str, SetUp], first: Round) -> Iterator[Round]:
    """Yield the round with what the check makes of the files."""
    first.end()
    started = Round(site, {name: set_ups[name] for name in ADVISED}, MIGRATED)
    yield started
    started.end()


def leaves_through_the_server(made: SetUp, capture: Capture, *, outside: bool, names: bool) -> None:
    """Check that the workload leaves through the server, and around it to a listed home network.

    To one that is not listed, it leaves through the server as well. Where there is a resolver,
    names resolve, in the tunnel.
    """
    if names:
        resolved = made.workload.probe("resolve", name="host.example")
        assert HOST.ipv4 in resolved.fields.get("addresses", ()), resolved
    for host, seen in ((HOST.ipv4, EXIT.ipv4), (LAN_HOST, LAN_MACHINE)):
        assert made.workload.probe("tcp", host=host).seen == seen, made.gateway.logs()
    assert made.workload.probe("udp", host=HOST.ipv4, marker=made.name).seen == EXIT.ipv4
    frames = capture.frames()
    mac = made.on(UPLINK, "MacAddress")
    home = [one for one in frames if one.source_mac == mac and one.destination == LAN_HOST]
    assert bool(home) is outside
    assert made.leaks(frames, *([LAN_HOST] if outside else [])) == []


@pytest.mark.parametrize("name", [name for name in (*KINDS, *README) if name != UNHEALTHY])
def test_a_shape_starts_with_another_image(first: Round, name: str) -> None:
    """The workload leaves through the server, nothing else leaves, published ports are closed."""
    made = first.of(name)
    capture, names = first.capture, name not in NAMELESS
    leaves_through_the_server(made, capture, outside=name in OUTSIDE, names=names)
    for port in made.kind.ports:
        asked = first.site.lan.probe("tcp", host=LAN_MACHINE, port=port, timeout=0.5)
        assert asked.result == "timeout"


def test_a_health_check_without_its_program_is_named(first: Round) -> None:
    """The gateway works, Docker does not see it, the workload waits; the check says why."""
    made = first.without_start(UNHEALTHY)
    assert made.gateway.health == "unhealthy"
    assert "wget" in made.gateway.reported()
    assert not made.workload.started_ever
    assert "To remove from the service gluetun:\n    healthcheck:" in made.check()


@pytest.mark.parametrize("name", ADVISED)
def test_a_shape_is_reached_after_the_advice(second: Round, name: str) -> None:
    """What the check writes starts as well, and opens the ports that it says; nothing else."""
    made = second.of(name)
    capture, names = second.capture, name not in NAMELESS_AFTER_ADVICE
    leaves_through_the_server(made, capture, outside=name in AFTER_ADVICE, names=names)
    for port in made.kind.ports:
        asked = second.site.lan.probe("tcp", host=LAN_MACHINE, port=port)
        assert asked.seen == LAN_HOST, (asked, made.check())
