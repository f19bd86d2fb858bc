"""Names of the home network: the gateway's own resolver asks the LAN for them, and no workload may.

The resolver there answers every name with the same private address, which shows that it was asked.
"""

import sys

import pytest

from gateway.model.name_server import RESOLVER_USER
from tests.lab.internet import LAN_HOST, LAN_SUBNETS
from tests.lab.process import LabError, eventually
from tests.lab.server import RESOLVED
from tests.lab.topology import Lab

pytestmark = [pytest.mark.lab, pytest.mark.promise("P10")]

LISTED = {
    "DNS_SERVER": "on",
    "FIREWALL_OUTBOUND_SUBNETS": f"{LAN_SUBNETS.ipv4},{LAN_SUBNETS.ipv6}",
    "DNS_LOCAL_ZONES": f"home.lan={LAN_HOST.ipv4},six.lan={LAN_HOST.ipv6}",
}


def asked(lab: Lab, name: str) -> str | None:
    """Return the IPv4 address that a workload gets for `name` from the gateway's resolver."""
    found = lab.workload.probe("dns", server="127.0.0.1", name=name).fields.get("address")
    return None if found is None else str(found)


@pytest.mark.both_firewalls
def test_the_names_of_a_domain_are_asked_on_the_lan_and_only_by_our_resolver(lab: Lab) -> None:
    """Over both IP versions; all other names in the tunnel. A workload asks it in vain.

    The control is its web server, which a workload reaches: the hole is open.
    """
    gateway = lab.gateway(resolv_conf="nameserver 198.51.100.10\n")
    gateway.start(gateway.env(**LISTED))
    gateway.wait_healthy(timeout=20)
    for zone in ("home.lan", "six.lan"):
        assert asked(lab, f"nas.{zone}") == LAN_HOST.ipv4
        assert lab.arrivals("lan", kind="dns", name=f"nas.{zone}")
    assert asked(lab, "one.example") == RESOLVED.ipv4
    assert lab.server.queries(name="one.example")
    assert not lab.arrivals("lan", kind="dns", name="one.example")
    assert not lab.server.queries(name="nas.home.lan"), "the tunnel learns nothing of it"
    for address in LAN_HOST:
        assert lab.workload.probe("http", host=address).result == "answered", "control"
        for port in (53, 853):
            refused = lab.workload.probe("dns", server=address, port=port, name="mine.home.lan")
            assert refused.failed_fast
    assert not lab.arrivals("lan", kind="dns", name="mine.home.lan")


def test_a_workload_with_the_resolvers_user_id_can_ask_it(lab: Lab) -> None:
    """A known issue: rules know the resolver by its user id alone. At port 53, and nothing else."""
    gateway = lab.gateway(resolv_conf="nameserver 198.51.100.10\n")
    gateway.start(gateway.env(**LISTED))
    gateway.wait_healthy(timeout=20)
    for user, port, open_ in (
        (RESOLVER_USER, 53, True),
        (0, 53, False),
        (RESOLVER_USER, 80, False),
    ):
        assert reaches(lab, LAN_HOST.ipv4, user, port) is open_, (user, port)


def reaches(lab: Lab, address: str, user: int, port: int) -> bool:
    """Return whether a process of `user` in the workloads' namespace can connect to `address`."""
    code = f"import socket; socket.create_connection(({address!r}, {port}), 3).close()"
    words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"]
    try:
        lab.operator.run(*words, "python3", "-c", code)
    except LabError:
        return False
    return True


def test_names_of_extra_hosts_are_answered_without_a_question_and_read_again(lab: Lab) -> None:
    """They may be private, and have a type that is not there; the control is another name.

    A workload can write to that file, too: a name that unbound refuses is left out.
    """
    gateway = lab.gateway(resolv_conf="nameserver 198.51.100.10\n")
    gateway.container.hosts.write_text("192.168.1.9 nas nas.home.lan\n")
    gateway.start(gateway.env(DNS_SERVER="on"))
    gateway.wait_healthy(timeout=20)
    assert asked(lab, "one.example") == RESOLVED.ipv4
    assert lab.server.queries(name="one.example"), "control"
    for name in ("nas", "nas.home.lan"):
        assert asked(lab, name) == "192.168.1.9"
        lab.workload.probe("dns", server="127.0.0.1", name=name, kind=28)
        assert not lab.server.queries(name=name)
    gateway.container.hosts.write_text(f"192.168.1.8 nas.home.lan {'x' * 64}.lan\n")
    code, text = gateway.execute(sys.executable, "-m", "gateway", "reload")
    assert code == 0, text
    assert "/etc/hosts" in text
    eventually(lambda: asked(lab, "nas.home.lan") == "192.168.1.8", timeout=10, what="its answer")
    assert gateway.status().body["state"] == "connected"
