"""A network that another user namespace owns than the gateway's: rules know no user of ours there.

So it is where the container that has the network has its users mapped, and the gateway has not.
"""

from collections.abc import Callable

import pytest

from gateway.model import INTERFACE
from gateway.policy.limits import SAME_USERS, LimitCode
from tests.lab.encrypted import NAME
from tests.lab.gateway import Gateway
from tests.lab.internet import LAN_HOST, LAN_SUBNETS
from tests.lab.tls import Authority
from tests.lab.topology import Lab
from tests.promises.test_own_resolver import ANSWER, resolved, started, upstream

pytestmark = [pytest.mark.lab, pytest.mark.promise("P10")]


def reported(gateway: Gateway) -> dict[str, str]:
    """Return the text of each limit about the resolver's user, with its remedy."""
    code = LimitCode.RESOLVER_NOT_CONFINED
    listed = gateway.status().body["limits"]
    return {it["text"]: it["remedy"] for it in listed if it["code"] == code}


@pytest.mark.parametrize("backend", ["auto", "iptables"])
def test_there_names_resolve_in_the_tunnel_and_health_says_what_is_missing(
    make_lab: Callable[..., Lab], trusted: Authority, backend: str
) -> None:
    """With each firewall. Rules for the resolver's user would be refused, or match nothing.

    The control is `test_its_user_cannot_use_a_hole_and_another_one_can`, without this limit.
    """
    lab = make_lab(other_users=True)
    upstream(lab, trusted.issue(NAME))
    listed = {
        "FIREWALL_BACKEND": backend,
        "FIREWALL_OUTBOUND_SUBNETS": f"{LAN_SUBNETS.ipv4},{LAN_SUBNETS.ipv6}",
        "DNS_LOCAL_ZONES": f"home.lan={LAN_HOST.ipv4}",
    }
    gateway = started(lab, trusted, **listed)
    body = gateway.wait_healthy(timeout=20).body
    assert body["firewall"] == {"auto": "nftables"}.get(backend, backend)
    assert resolved(gateway, "one.example") == [ANSWER]
    assert not lab.arrivals(kind="dns", name="one.example")
    said = reported(gateway)
    assert set(said.values()) == {SAME_USERS}
    assert any("so DNS_LOCAL_ZONES has no effect" in text for text in said)
    assert not lab.leaks(gateway.started_at + 1)


def test_there_questions_for_others_cannot_be_redirected(
    make_lab: Callable[..., Lab], trusted: Authority
) -> None:
    """Those of our resolver would come back to it. The gateway says so, and lets nothing pass."""
    lab = make_lab(other_users=True)
    upstream(lab, trusted.issue(NAME))
    gateway = started(lab, trusted, DNS_HIJACK="on")
    assert gateway.wait() != 0
    said = gateway.logs()
    assert "DNS_HIJACK=on" in said
    assert SAME_USERS in said
    assert "set DNS_HIJACK=off" in said
    assert INTERFACE not in lab.operator.run("ip", "link", "show", "up")
    assert lab.workload.probe("tcp", host="198.51.100.10").result != "connected"
