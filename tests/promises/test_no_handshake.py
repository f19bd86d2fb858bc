"""Why there is no handshake: the log, health and status say what can be known."""

import pytest

from tests.lab.gateway import Gateway
from tests.lab.process import eventually
from tests.lab.topology import Lab

pytestmark = [pytest.mark.lab, pytest.mark.promise("P15")]

OTHER_KEY = "WGFtcGxlUHJlc2hhcmVkS2V5Rm9yVGVzdHMwMDAwMDA="


def explained(gateway: Gateway, cause: str) -> dict[str, object]:
    """Wait until the log explains two failed attempts by `cause`; return that event."""
    found = eventually(
        lambda: gateway.events(event="no handshake", cause=cause), timeout=40, what=cause
    )
    health = gateway.status()
    assert health.body["diagnosis"] == cause
    assert health.body["attempts"] >= 2
    assert health.body["detail"] == found[0]["detail"]
    return found[0]


def test_a_silent_server_is_explained_once(lab: Lab) -> None:
    """Nothing returns: each of the usual causes is named, after the second attempt."""
    lab.server.cut()
    gateway = lab.gateway()
    gateway.start(gateway.env())
    event = explained(gateway, "no_answer")
    assert event["attempts"] == 2
    assert "UDP may be blocked" in str(event["detail"])
    eventually(lambda: gateway.status().body["attempts"] >= 3, timeout=30, what="more attempts")
    assert len(gateway.events(event="no handshake")) == 1


def test_a_wrong_preshared_key_is_named(lab: Lab) -> None:
    """The server answers, and its answer does not fit."""
    gateway = lab.gateway()
    gateway.start(gateway.env(WIREGUARD_PRESHARED_KEY=OTHER_KEY))
    assert "preshared key" in str(explained(gateway, "answer_not_accepted")["detail"])


@pytest.mark.parametrize("family", [4, 6])
def test_a_port_where_nothing_listens_is_named(lab: Lab, family: int) -> None:
    """With the host that says so, in both families."""
    address = tuple(lab.server.endpoint)[family == 6]
    gateway = lab.gateway()
    gateway.start(gateway.env(WIREGUARD_ENDPOINT_IP=address, WIREGUARD_ENDPOINT_PORT="9"))
    assert "port unreachable" in str(explained(gateway, "unreachable")["detail"])


def test_without_net_raw_the_usual_causes_are_listed(lab: Lab) -> None:
    """Listening takes CAP_NET_RAW; without it the gateway works, and knows less."""
    gateway = lab.gateway(capabilities=("NET_ADMIN",))
    gateway.start(gateway.env(WIREGUARD_ENDPOINT_PORT="9", FIREWALL_BACKEND="nftables"))
    explained(gateway, "no_answer")
