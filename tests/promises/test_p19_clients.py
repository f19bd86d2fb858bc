"""P19: who may use a proxy: by account, by subnet, and only by a listed input port."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.policy.limits import LimitCode
from tests.lab.hosts import http
from tests.lab.internet import INTERNET, LAN_SUBNETS
from tests.lab.process import eventually
from tests.lab.tls import Authority
from tests.lab.topology import Lab
from tests.lab.workload import DOCKER_CAPABILITIES
from tests.promises.proxying import (
    ACCOUNT,
    HTTP,
    SOCKS,
    children,
    running,
    started,
    through,
    wait_running,
)

pytestmark = [pytest.mark.lab, pytest.mark.promise("P19")]

TARGET = f"http://{INTERNET[0].ipv4}/"
KINDS = ("http", "connect", "socks5h")
USER, PASSWORD = ACCOUNT.split(":")
WITH_ACCOUNT = {
    "HTTPPROXY_USER": USER,
    "HTTPPROXY_PASSWORD": PASSWORD,
    "SOCKS5_USER": USER,
    "SOCKS5_PASSWORD": PASSWORD,
    "HTTPPROXY_ALLOWED_SUBNETS": None,
    "SOCKS5_ALLOWED_SUBNETS": None,
}


def test_only_the_account_lets_a_client_in_and_is_shown_nowhere(
    lab: Lab, trusted: Authority
) -> None:
    """From everywhere; wrong ones are refused, by SOCKS late. No process or log has the password.

    The requests are in the log, without what may be secret in them.
    """
    gateway = wait_running(started(lab, trusted, **WITH_ACCOUNT, HTTPPROXY_LOG="on"))
    host = lab.uplink.gateway.ipv4
    for kind in KINDS:
        assert through(lab.internet, kind, host, TARGET, ACCOUNT).arrived, kind
        for wrong in ("", f"{USER}:wrong", f"other:{PASSWORD}", f"{USER}:{PASSWORD}x"):
            began = time.monotonic()
            answer = through(lab.internet, kind, host, TARGET, wrong)
            assert not answer.arrived, f"{kind} {wrong}"
            if kind == "socks5h" and wrong:
                assert time.monotonic() - began >= 2, "one guess in two seconds"
    private = "http://me:hush-1@web.example/path?key=hush-2"
    through(lab.internet, "http", host, private, ACCOUNT)
    logged = eventually(
        lambda: gateway.events(event="proxy request", to="GET http://web.example/path"),
        timeout=5,
        what="the request in the log",
    )
    assert logged[0]["client"] == lab.uplink.router.ipv4
    for shown in (*gateway.events(), gateway.status().body):
        assert not re.search(f"{PASSWORD}|hush", str(shown)), shown
    for pid in (gateway.pid, *children(gateway).values()):
        for name in ("cmdline", "environ"):
            if pid != gateway.pid or name == "cmdline":
                assert PASSWORD.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()


def test_without_an_account_only_listed_subnets_get_in(lab: Lab, trusted: Authority) -> None:
    """Others are hung up on or get an error, and the log says what to set."""
    subnets = {
        "HTTPPROXY_ALLOWED_SUBNETS": LAN_SUBNETS.ipv4,
        "SOCKS5_ALLOWED_SUBNETS": LAN_SUBNETS.ipv4,
    }
    gateway = wait_running(started(lab, trusted, **subnets))
    host = lab.uplink.gateway.ipv4
    for kind in KINDS:
        assert through(lab.lan, kind, host, TARGET).arrived, f"control: {kind}"
        assert not through(lab.internet, kind, host, TARGET).arrived, kind
        assert not through(lab.workload, kind, "127.0.0.1", TARGET).arrived, kind
    refused = gateway.events(event="proxy refuses a client")
    assert {it["proxy"] for it in refused} == {"http proxy", "socks proxy"}
    assert all("_ALLOWED_SUBNETS" in it["remedy"] for it in refused)


def test_by_default_workloads_alone_get_in_and_by_no_other_way(
    lab: Lab, trusted: Authority
) -> None:
    """Without a variable but the switches; the notices have the lines to paste.

    It runs with the capabilities of Docker alone, and NET_ADMIN. That the ports cannot be reached
    is shown by a workload at another port, which can be.
    """
    changes: dict[str, str | None] = {
        "HTTPPROXY_ALLOWED_SUBNETS": None,
        "SOCKS5_ALLOWED_SUBNETS": None,
        "FIREWALL_INPUT_PORTS": "8085,9999",
    }
    few = (*DOCKER_CAPABILITIES, "net_admin")
    gateway = wait_running(started(lab, trusted, capabilities=few, **changes))
    lab.workload.serve(http("0.0.0.0", 8085))
    host = lab.uplink.gateway.ipv4
    assert lab.lan.probe("tcp", host=host, port=8085).result == "connected", "control"
    for port, kind in ((HTTP, "http"), (SOCKS, "socks5h")):
        assert through(lab.workload, kind, "127.0.0.1", TARGET).arrived, kind
        assert lab.lan.probe("tcp", host=host, port=port).result != "connected", kind
    notices = str(gateway.events())
    assert f"FIREWALL_INPUT_PORTS=8085/tcp,9999/tcp,8085/udp,9999/udp,{HTTP}/tcp" in notices
    assert "HTTPPROXY_ALLOWED_SUBNETS=127.0.0.0/8,192.168.0.0/16" in notices


def test_a_browser_uses_both(lab: Lab, trusted: Authority) -> None:
    """A headless Chromium in the namespace, which resolves names by the proxy."""
    gateway = wait_running(started(lab, trusted))
    for proxy in (f"http://127.0.0.1:{HTTP}", f"socks5://127.0.0.1:{SOCKS}"):
        words = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
        ways = (f"--proxy-server={proxy}", "--proxy-bypass-list=<-loopback>", "--dump-dom")
        argv = ["chromium-headless-shell", *words, *ways]
        workload = gateway.workload(capabilities=None)
        shown = subprocess.run(
            workload.command([*argv, "http://web.example/"]),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert lab.server.exit.ipv4 in shown.stdout, shown.stderr[-500:]


def test_without_the_capabilities_for_another_user_no_proxy_starts(
    lab: Lab, trusted: Authority
) -> None:
    """The limit says what to add; the tunnel works."""
    lab.gateway_namespace.sysctl("ipv4/ip_unprivileged_port_start", 0)  # as Docker sets it
    gateway = started(lab, trusted, capabilities=("net_admin", "net_raw"))
    gateway.wait_healthy()
    limits = [it for it in gateway.status().body["limits"] if it["code"] == LimitCode.SERVICE]
    assert len(limits) == len({HTTP, SOCKS})
    assert all("KILL, SETGID, SETUID" in it["remedy"] for it in limits)
    assert children(gateway) == {}
    assert running(gateway) == set()
    assert lab.workload.probe("tcp", host=INTERNET[0].ipv4).result == "connected"
    for port in (HTTP, SOCKS):
        assert lab.workload.probe("tcp", host="127.0.0.1", port=port).result == "refused"


@pytest.mark.parametrize("owner", ["ours", "another"])
def test_a_network_of_another_user_namespace_is_recognized(owner: str) -> None:
    """The kernel compares the ids of its users there, so a rule for ours would match nothing.

    Control: in a namespace of our own, one that is asked by the same program.
    """
    words = ["--user", "--map-root-user"] if owner == "another" else []
    code = "from gateway.system.features import knows_users; print(knows_users())"
    keeper = subprocess.Popen(
        ["unshare", "--net", *words, "sh", "-c", "echo ready; exec sleep 60"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert keeper.stdout
        assert keeper.stdout.readline() == "ready\n"
        said = subprocess.run(
            ["nsenter", f"--net=/proc/{keeper.pid}/ns/net", sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    finally:
        keeper.kill()
        keeper.communicate()
    assert said == f"{owner == 'ours'}\n"
