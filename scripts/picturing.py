"""Take the picture of the dashboard: a gateway in the lab, Prometheus, and dashboard_drawing.py.

    scripts/picture-dashboard [MINUTES] [FILE]

The lab's server is lost once, another program adds a policy rule, and workloads try to send around
the tunnel. The data are those that Prometheus has scraped meanwhile; nothing is made up. Grafana is
not in Debian, so the panels are drawn here from docs/prometheus/dashboard.json.
"""

import http.client
import json
import shutil
import socket
import sys
import time
import urllib.parse
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from scripts.dashboard_drawing import draw
from tests.browser import Browser
from tests.lab.gateway import Gateway
from tests.lab.internet import INTERNET
from tests.lab.process import eventually
from tests.lab.topology import Lab
from tests.promises.stages import OWN4

ROOT = Path(__file__).resolve().parent.parent
DASHBOARD = ROOT / "docs" / "prometheus" / "dashboard.json"
PICTURE = ROOT / "docs" / "images" / "dashboard.png"
FETCHED = ROOT / ".cache" / "promtool" / "usr" / "bin" / "prometheus"
GATEWAY, PROMETHEUS = (OWN4, 9999), ("127.0.0.1", 9090)
CONFIG = f"""
scrape_configs:
  - job_name: portcullis
    scrape_interval: 1s
    static_configs:
      - targets: ["{GATEWAY[0]}:{GATEWAY[1]}"]
        labels: {{instance: gateway}}
"""
RATE = "10s"
"""What $__rate_interval becomes: Grafana takes at least four times the interval of scrapes."""


class Prometheus:
    """Prometheus next to a lab's gateway, in the namespace of the lab's internet."""

    def __init__(self, lab: Lab) -> None:
        """Start it, and wait until it answers."""
        program = shutil.which("prometheus") or FETCHED
        place = lab.household.file("prometheus")
        place.mkdir()
        (place / "prometheus.yml").write_text(CONFIG)
        command = (
            f"{program} --config.file={place}/prometheus.yml --storage.tsdb.path={place}/data"
            f" --web.listen-address={PROMETHEUS[0]}:{PROMETHEUS[1]}"
        )
        self._namespace = lab.internet_namespace
        lab.household.start(self._namespace.command(command.split()), "prometheus")
        eventually(self._answers, timeout=20, what="Prometheus", interval=0.2)

    def _answers(self) -> bool:
        try:
            return bool(self.ask("query", query="portcullis_healthy"))
        except (OSError, ValueError):  # it may answer in plain text that it is not ready
            return False

    def ask(self, kind: str, **parameters: object) -> Sequence[dict[str, Any]]:
        """Return the series of a query."""
        connection = http.client.HTTPConnection(*PROMETHEUS)
        connection.sock = self._namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            connection.sock.connect(PROMETHEUS)
            connection.request("GET", f"/api/v1/{kind}?{urllib.parse.urlencode(parameters)}")
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        found: Sequence[dict[str, Any]] = answer["data"]["result"]
        return found


def is_reverted(gateway: Gateway) -> bool:
    """Return whether the gateway has reverted a change, and is healthy again."""
    health = gateway.status()
    return health.code == HTTPStatus.OK and health.body["drift"] > 0


def live(lab: Lab, gateway: Gateway, seconds: float) -> None:
    """Let workloads use the tunnel for this long, and things go wrong meanwhile."""
    begun = time.monotonic()

    def until(part: float) -> None:
        time.sleep(max(0.0, begun + part * seconds - time.monotonic()))

    host, text = INTERNET[0].ipv4, "x" * 1000
    first = lab.workload.stream(host, interval=0.02, marker=text)
    until(0.15)
    second = lab.workload.stream(host, interval=0.005, marker=text)
    until(0.3)
    second.stop()
    for _ in range(5):
        lab.workload.probe("udp", host=host, device="eth0")
    # The rule leads packets around the tunnel, where they are refused, and ends connections.
    lab.operator.run("ip", "rule", "add", "pref", "50", "lookup", "main")
    first.stop()
    eventually(lambda: is_reverted(gateway), timeout=15, what="the end of the rule")
    first = lab.workload.stream(host, interval=0.015, marker=text)
    until(0.5)
    lab.server.cut()
    until(0.65)
    lab.server.restore()
    first.stop()
    until(0.7)
    first = lab.workload.stream(host, interval=0.01, marker=text)
    until(0.8)
    second = lab.workload.stream(host, interval=0.02, marker=text)
    until(1.0)
    first.stop()
    second.stop()


def take(seconds: float, picture: Path) -> str:
    """Run the lab for this long, write the picture, and return the page that it shows."""
    with Lab() as lab:
        gateway = lab.gateway()
        ports = f"{GATEWAY[1]}/tcp"
        gateway.start(
            gateway.env(HEALTH_SERVER_ADDRESS=f":{GATEWAY[1]}", FIREWALL_INPUT_PORTS=ports)
        )
        gateway.wait_healthy()
        prometheus = Prometheus(lab)
        start = time.time()
        live(lab, gateway, seconds)
        end = time.time()

        def ask(expression: str, is_instant: bool) -> Sequence[dict[str, Any]]:  # noqa: FBT001
            text = expression.replace("$instance", ".*").replace("$__rate_interval", RATE)
            if is_instant:
                return prometheus.ask("query", query=text, time=end)
            step = max(1.0, seconds / 300)
            return prometheus.ask("query_range", query=text, start=start, end=end, step=step)

        page = draw(json.loads(DASHBOARD.read_text("utf-8")), ask, start, end)
        file = lab.household.file("dashboard.html")
        file.write_text(page, "utf-8")
        with Browser() as browser:
            browser.show(1200, 900)
            browser.open(f"file://{file}")
            browser.picture(picture)
    return page


def main() -> int:
    """Take the picture."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 6.0
    picture = Path(sys.argv[2]) if len(sys.argv) > 2 else PICTURE  # noqa: PLR2004
    take(60 * minutes, picture)
    print(f"{picture}: {picture.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
