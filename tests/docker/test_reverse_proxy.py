"""A reverse proxy in a container of its own in front of a workload, with its labels on the gateway.

Debian has nginx, and no proxy that reads the labels of Docker. So nginx gets its configuration from
the labels as a generator would write it: the host and the port of the labels, and the address that
the gateway has on the network that both share.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.box import Box
from tests.docker.set_up import Kind, SetUp, remove
from tests.docker.site import EXIT, HOST, LAN_MACHINE, UPLINK, Site, is_link_setup
from tests.lab.frames import TCP, Frame, is_neighbour_discovery, leaks
from tests.lab.hosts import http
from tests.lab.process import eventually

pytestmark = pytest.mark.docker

PROXIED = Path(__file__).parent / "proxied"
NETWORK, SUBNET = "proxy", "172.31.60.0/24"
NAME, PORT, PUBLISHED = "site.example", 8080, 8880
RULE = re.compile(r"traefik\.http\.routers\.(\w+)\.rule")
HOST_RULE = re.compile(r"Host\(`([\w.]+)`\)")
NO_ANSWER = {502, 504}
ASK = """
import http.client, sys
host, port, name = sys.argv[1:]
connection = http.client.HTTPConnection(host, int(port), timeout=10)
connection.request("GET", "/", headers={"Host": name})
answer = connection.getresponse()
print(answer.status, answer.read().decode())
"""
"""Asks for a page, and prints the status and what came."""
CONNECTS = 1
"""Seconds that the proxy waits for a connection."""


class Proxy:
    """The reverse proxy and its network."""

    def __init__(self, site: Site, directory: Path) -> None:
        """Start nginx with nothing to serve, reached at a port of the machine."""
        self.site = site
        self.directory = directory
        self.version = 0
        site.engine.docker("network", "create", f"--subnet={SUBNET}", NETWORK)
        self._write([])
        self.box = site.run(
            # In place of the page that Debian's package serves.
            *("proxy", "-v", f"{directory}:/etc/nginx/sites-enabled:ro", "--network", NETWORK),
            *("-p", f"{PUBLISHED}:80"),
            command=["nginx", "-g", "daemon off;"],
        )

    def read_labels(self, box: Box) -> None:
        """Serve what the labels of a container say, at its address on the proxy's network."""
        labels = json.loads(box.inspect("{{json .Config.Labels}}"))
        address = box.inspect(f"{{{{.NetworkSettings.Networks.{NETWORK}.IPAddress}}}}")
        servers = []
        for label, rule in labels.items():
            if (router := RULE.fullmatch(label)) and (name := HOST_RULE.search(rule)):
                service = f"traefik.http.services.{router[1]}.loadbalancer.server.port"
                servers.append(
                    f"server {{ listen 80; server_name {name[1]}; location / {{"
                    f" proxy_pass http://{address}:{labels[service]};"
                    f" proxy_connect_timeout {CONNECTS}s; }} }}"
                )
        assert servers
        self._write(servers)
        self.box.exec("nginx", "-s", "reload")
        # A worker of before may still answer.
        what = f"version {self.version} of the proxy's configuration"
        eventually(
            lambda: self._fetch("version.example")[1] == str(self.version), timeout=10, what=what
        )

    def _write(self, servers: list[str]) -> None:
        self.version += 1
        own = f"server {{ listen 80 default_server; return 200 {self.version}; }}"
        (self.directory / "labels").write_text("\n".join((own, *servers)))

    def ask(self) -> tuple[int, str]:
        """Return the status and the body of the answer to a host of the LAN."""
        return self._fetch(NAME)

    def _fetch(self, name: str) -> tuple[int, str]:
        words = [sys.executable, "-I", "-c", ASK, LAN_MACHINE, str(PUBLISHED), name]
        status, _, body = self.site.lan.run(*words).partition(" ")
        return int(status), body.strip()

    @property
    def address(self) -> str:
        """Its address on the network that it shares with the gateway."""
        return self.box.inspect(f"{{{{.NetworkSettings.Networks.{NETWORK}.IPAddress}}}}")

    def remove(self) -> None:
        """Remove the container and the network."""
        self.box.remove()
        self.site.engine.docker("network", "rm", NETWORK)


@pytest.fixture
def proxy(site: Site, tmp_path: Path) -> Iterator[Proxy]:
    """Yield a reverse proxy."""
    directory = tmp_path / "nginx"
    directory.mkdir()
    proxy = Proxy(site, directory)
    yield proxy
    proxy.remove()


@pytest.fixture
def set_up(site: Site, providers: None, proxy: Proxy, tmp_path: Path) -> Iterator[SetUp]:
    """Yield the set-up behind the proxy, before it is started."""
    del providers, proxy
    key = "GxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxs="
    kind = Kind(
        "gluetun", "site", key, "10.68.9.11",
        ports={PUBLISHED: PORT}, serves=http, networks={"default": UPLINK, "proxy": NETWORK},
    )  # fmt: skip
    made = SetUp(site, kind, PROXIED, tmp_path)
    with made.admitted():
        yield made
        remove(site, made.boxes)


def paste(set_up: SetUp, lines: str) -> None:
    """Put the lines below the service's variables."""
    compose = set_up.directory / "compose.yml"
    text = compose.read_text("utf-8")
    compose.write_text(text.replace("    environment:\n", f"    environment:\n{lines}"), "utf-8")


def cut(set_up: SetUp) -> None:
    """Take the tunnel away, whose server does not answer any more."""
    site = set_up.site
    site.cut()
    network = f"container:{set_up.gateway.name}"
    site.run(
        *("operator", "--network", network, "--cap-add", "NET_ADMIN"),
        command=["ip", "link", "delete", "wg0"],
    )
    set_up.gateway.wait_for_health("unhealthy")


def leaks_to_proxy(set_up: SetUp, frames: list[Frame]) -> list[Frame]:
    """Return what the gateway sent on the proxy's network besides answers from the port."""
    mac, address = set_up.on(NETWORK, "MacAddress"), set_up.on(NETWORK, "IPAddress")
    own = [frame for frame in frames if frame.source_mac == mac]

    def answer(frame: Frame) -> bool:
        sent = (frame.protocol, frame.source, frame.source_port)
        return sent == (TCP, address, PORT)

    def neighbour(frame: Frame) -> bool:
        return is_neighbour_discovery(frame, {address}, [SUBNET])

    assert any(map(answer, own)), "control: the answers are seen"
    return leaks(own, [answer, neighbour, is_link_setup])


def test_a_reverse_proxy_reaches_the_workload_with_the_lines_of_the_check(
    set_up: SetUp, proxy: Proxy
) -> None:
    """Without them it gets no answer; with them it serves the workload's page.

    The gateway sends the encrypted flow, and answers to the proxy. While the tunnel is down, the
    page is served too, and the workload cannot leave.
    """
    site = set_up.site
    set_up.up()
    proxy.read_labels(set_up.gateway)
    assert proxy.ask()[0] in NO_ANSWER, "control: closed until it is listed"
    (lines,) = re.findall(r"To paste into the service gluetun:\n((?:      .*\n)+)", set_up.check())
    assert lines == f"      - FIREWALL_INPUT_PORTS={PORT}/tcp\n"
    remove(site, set_up.boxes)
    paste(set_up, lines)
    captures = {network: site.capture_network(network) for network in (UPLINK, NETWORK)}
    set_up.up()
    proxy.read_labels(set_up.gateway)
    assert proxy.ask() == (200, proxy.address)
    assert set_up.workload.probe("tcp", host=HOST.ipv4).seen == EXIT.ipv4
    assert set_up.leaks(captures[UPLINK].frames()) == []
    assert leaks_to_proxy(set_up, captures[NETWORK].frames()) == []
    cut(set_up)
    assert proxy.ask() == (200, proxy.address)
    assert set_up.workload.probe("tcp", host=HOST.ipv4).failed_fast
    site.restore()
    set_up.gateway.wait_for_health("healthy")
    assert proxy.ask() == (200, proxy.address)
    assert leaks_to_proxy(set_up, captures[NETWORK].frames()) == []
    assert set_up.leaks(captures[UPLINK].frames()) == []
