"""What tests of the gateway's own proxies share: a gateway with both, and a client of them."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gateway.model.proxies import PROXY_USER
from tests.lab.encrypted import NAME, EncryptedResolver
from tests.lab.gateway import Gateway
from tests.lab.internet import INTERNET, LAN_HOST, LAN_SUBNETS
from tests.lab.process import PATIENCE, eventually
from tests.lab.server import CLIENT, INSIDE
from tests.lab.tls import Authority
from tests.lab.topology import Lab
from tests.lab.workload import Workload

HTTP, SOCKS = 8888, 1080
ACCOUNT = "reader:Sesame-1.x"
EVERYWHERE = "0.0.0.0/0,::/0"
OK = 200
WAIT = 4 * PATIENCE

NAMES = {
    "web_example": INTERNET[0].ipv4,
    "loopback_example": "127.0.0.1",
    "lan_example": LAN_HOST.ipv4,
    "uplink_example": "172.30.0.2",
    "tunnel_example": CLIENT.ipv4,
}
"""What the resolver in the tunnel answers, private addresses among it."""


def started(
    lab: Lab,
    trusted: Authority,
    *,
    capabilities: Sequence[str] | None = None,
    **changes: str | None,
) -> Gateway:
    """Return a gateway with both proxies, which everyone may use who gets to their ports."""
    EncryptedResolver(
        lab.server.namespace, lab.household, INSIDE.ipv4, trusted.issue(NAME), **NAMES
    )
    options = {} if capabilities is None else {"capabilities": capabilities}
    gateway = lab.gateway(resolv_conf="nameserver 198.51.100.10\n", **options)
    wanted: dict[str, str | None] = {
        "DNS_SERVER": None,
        "DNS_ADDRESS": None,
        "DNS_UPSTREAM_RESOLVERS": f"{INSIDE.ipv4}@853#{NAME}",
        "DNS_REBINDING_PROTECTION_EXEMPT_HOSTNAMES": "example",
        "SSL_CERT_FILE": str(trusted.certificate),
        "FIREWALL_INPUT_PORTS": f"{HTTP},{SOCKS},9999",
        "FIREWALL_OUTBOUND_SUBNETS": f"{LAN_SUBNETS.ipv4},{LAN_SUBNETS.ipv6}",
        "HEALTH_SERVER_ADDRESS": ":9999",
        "HTTPPROXY": "on",
        "SOCKS5_ENABLED": "on",
        "HTTPPROXY_ALLOWED_SUBNETS": EVERYWHERE,
        "SOCKS5_ALLOWED_SUBNETS": EVERYWHERE,
    }
    return gateway.start(gateway.env(**(wanted | changes)))


def running(gateway: Gateway) -> set[str]:
    """Return the names of the services that run, as health reports them."""
    listed = gateway.status().body.get("services", [])
    return {it["name"] for it in listed if it["is_running"]}


def wait_running(gateway: Gateway) -> Gateway:
    """Wait until both proxies run, and the gateway is healthy."""
    gateway.wait_healthy()
    eventually(
        lambda: running(gateway) == {"http proxy", "socks proxy"},
        timeout=10 * PATIENCE,
        what="both proxies",
    )
    return gateway


class Answer(NamedTuple):
    """What curl got: the body, the code of the answer, and of the proxy's to CONNECT, 0 for none.

    `failure` is what curl says, empty if it failed at nothing.
    """

    body: str
    code: int
    of_proxy: int
    failure: str

    @property
    def arrived(self) -> bool:
        """Whether an answer of the target came."""
        return self.code == OK and not self.failure


_CURL = """
import json, subprocess, sys
d = subprocess.run(sys.argv[1:], capture_output=True, text=True, errors="replace", check=False)
print(json.dumps([d.stdout, d.stderr]))
"""


def curl(client: Workload, *words: str, seconds: float = WAIT) -> Answer:
    """Return what curl gets."""
    command = ["curl", "-sS", "-q", "-m", str(seconds), "-w", "\n%{http_code} %{http_connect}"]
    ran = client.run(sys.executable, "-I", "-S", "-c", _CURL, *command, *words)
    output, failure = json.loads(ran)
    body, _, codes = output.rpartition("\n")
    code, of_proxy = map(int, codes.split())
    return Answer(body.strip(), code, of_proxy, failure.strip())


def through(client: Workload, kind: str, host: str, target: str, account: str = "") -> Answer:
    """Return what curl gets of `target` through a proxy of `kind` at `host`.

    `kind` is http (a request), connect (a tunnel of HTTP) or socks5h.
    """
    place = f"[{host}]" if ":" in host else host
    given = f"{account}@" if account else ""
    if kind == "socks5h":
        return curl(client, "-x", f"socks5h://{given}{place}:{SOCKS}", target)
    words = ("-p",) if kind == "connect" else ()
    return curl(client, *words, "-x", f"http://{given}{place}:{HTTP}", target)


def children(gateway: Gateway) -> dict[str, int]:
    """Return the processes of both proxies, by their services."""
    found = {}
    path = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children")
    for pid in map(int, path.read_text("ascii").split()):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"socks_process" in words:
            found["socks proxy"] = pid
        elif b"tinyproxy" in words:
            found["http proxy"] = pid
    return found


def as_proxy(client: Workload, *argv: str) -> list[str]:
    """Return the words that run a program with the user of the proxies."""
    words = ("setpriv", f"--reuid={PROXY_USER}", f"--regid={PROXY_USER}", "--clear-groups", "--")
    return client.command([*words, *argv])
