"""P19: with DNS_HIJACK=on no proxy reaches the gateway's own resolver on loopback by TCP."""

import subprocess
import sys

import pytest

from tests.lab.internet import INTERNET
from tests.lab.tls import Authority
from tests.lab.topology import Lab
from tests.promises.proxying import as_proxy, started, through, wait_running
from tests.promises.test_p19_proxies import ASKS

pytestmark = [pytest.mark.lab, pytest.mark.promise("P10", "P19")]


@pytest.mark.both_firewalls
def test_a_question_through_a_proxy_is_refused_and_not_redirected(
    lab: Lab, trusted: Authority
) -> None:
    """To port 53 of any address, by both protocols. A workload's question is redirected: control.

    Names are looked up for clients as before.
    """
    gateway = wait_running(started(lab, trusted, DNS_HIJACK="on"))
    workload = gateway.workload(capabilities=None)

    def answered(kind: str, host: str, *, confined: bool) -> bool:
        words = [sys.executable, "-I", "-S", "-c", ASKS, kind, host, "53"]
        argv = as_proxy(workload, *words) if confined else workload.command(words)
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0

    for host in INTERNET[0]:
        for kind in ("tcp", "udp"):
            assert answered(kind, host, confined=False), f"control: {kind} {host}"
            assert not answered(kind, host, confined=True), f"{kind} {host}"
    target = f"http://{INTERNET[0].ipv4}:53/"
    for kind in ("connect", "socks5h"):
        assert through(lab.lan, kind, lab.uplink.gateway.ipv4, target).of_proxy != 200
        assert through(lab.lan, kind, lab.uplink.gateway.ipv4, "http://web.example/").arrived
