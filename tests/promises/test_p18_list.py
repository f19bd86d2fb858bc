"""P18: a provider's list arrives by one connection of the gateway's own; nothing rides along.

The lab plays the provider: its resolver, its host with a certificate, and its servers.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.frames import TCP, UDP, Frame, addressed_to
from tests.lab.gateway import Gateway
from tests.lab.lists import MULLVAD, PROVIDER, RESOLVER, ListHost, mullvad
from tests.lab.process import eventually
from tests.lab.tls import Authority, authority
from tests.lab.topology import Lab
from tests.promises.witness import HOST4, flooded, locked

pytestmark = [pytest.mark.lab, pytest.mark.promise("P18")]

USER = 65534


@pytest.fixture(scope="module")
def certificate(trusted: Authority) -> Path:
    """Return Mullvad's certificate from it."""
    return trusted.issue(MULLVAD)


@pytest.fixture
def two() -> Iterator[Lab]:
    """Return a lab with two servers, in Amsterdam and Berlin."""
    with Lab(servers=2) as lab:
        yield lab


def variables(gateway: Gateway, trusted: Authority, **changes: str | None) -> dict[str, str]:
    """Return the variables of a user of Mullvad, who trusts the authority of the test.

    The container gets a volume at /config.
    """
    gateway.write("/config/volume", "")
    return gateway.env(
        VPN_SERVICE_PROVIDER="mullvad",
        WIREGUARD_PUBLIC_KEY=None,
        WIREGUARD_ENDPOINT_IP=None,
        WIREGUARD_ENDPOINT_RESOLVER=RESOLVER,
        SSL_CERT_FILE=str(trusted.certificate),
        **changes,
    )


def started(lab: Lab, trusted: Authority) -> Gateway:
    """Return a gateway that has begun to look for its list."""
    gateway = lab.gateway()
    return gateway.start(variables(gateway, trusted))


def to_provider(lab: Lab, since: float = 0.0) -> list[Frame]:
    """Return what was sent to the host of the list."""
    return [frame for frame in lab.capture.frames(since) if frame.destination == PROVIDER]


@pytest.mark.both_firewalls
def test_a_gateway_with_a_providers_name_connects(
    two: Lab, trusted: Authority, certificate: Path
) -> None:
    """Under a flood; the network sees one question, one connection to one port, and the tunnel.

    A start with the list in its file asks no host. Control: the flood is seen before the lock.
    """
    lab, (_, berlin) = two, two.servers
    berlin.preshared_key = lab.server.preshared_key
    berlin.restart()
    host = ListHost(lab, certificate, mullvad(lab.servers))
    flood = flooded(lab)
    gateway = lab.gateway()
    wanted = variables(gateway, trusted, SERVER_COUNTRIES="germany")
    gateway.start(wanted).wait_healthy(timeout=20)
    since = locked(gateway)
    assert lab.workload.probe("tcp", host=HOST4).seen == berlin.exit.ipv4
    assert [request["target"] for request in host.requests] == ["/www/relays/all/"]
    assert {(f.protocol, f.destination_port) for f in to_provider(lab, since)} == {(TCP, 443)}
    assert len({frame.source_port for frame in to_provider(lab, since)}) == 1
    allowed = [addressed_to(RESOLVER), addressed_to(PROVIDER)]
    assert lab.leaks(since, allowed=allowed) == []
    connected_at = time.monotonic()
    gateway.stop()
    gateway.start(wanted | {"SERVER_COUNTRIES": "Netherlands"}).wait_healthy()
    assert lab.workload.probe("tcp", host=HOST4).seen == lab.server.exit.ipv4
    assert flood.stop()["sent"] > 0
    assert to_provider(lab, connected_at) == []
    assert lab.leaks(connected_at) == []


@pytest.mark.both_firewalls
def test_nothing_rides_along_while_a_list_arrives(
    lab: Lab, trusted: Authority, certificate: Path
) -> None:
    """Not to the host's port, nor from the source port of the connection, nor as a raw packet.

    Control: all of it is seen while the namespace is open. The process that reads the list has no
    rights meanwhile.
    """
    host = ListHost(lab, certificate, mullvad(lab.servers), manner="stalled")
    workload = lab.workload

    def ride(port: int, marker: str) -> None:
        workload.probe("udp", host=PROVIDER, port=443, marker=marker)
        for transport in ("tcp", "udp"):
            workload.probe(
                "packet", device="eth0", source=lab.uplink.gateway.ipv4, source_port=port,
                host=PROVIDER, port=443, transport=transport, marker=marker,
            )  # fmt: skip
            workload.probe(
                "forged", source=lab.uplink.gateway.ipv4, source_port=port,
                host=PROVIDER, port=443, transport=transport, marker=marker,
            )  # fmt: skip
        workload.probe("raw", host=PROVIDER, marker=marker)

    ride(40000, "before-it")
    seen = lab.capture.containing("before-it")
    assert {TCP, UDP} <= {it.protocol for it in seen}, "control: seen while the namespace is open"
    gateway = started(lab, trusted)
    eventually(lambda: host.requests, timeout=20, what="the request")
    assert gateway.status().state == "fetching"
    since = time.monotonic()
    (port,) = {frame.source_port for frame in to_provider(lab, locked(gateway))}
    ride(port, "riding-along")
    (process,) = _processes(gateway)
    status = dict(
        line.split(":\t", 1)
        for line in (process / "status").read_text("ascii").splitlines()
        if ":\t" in line
    )
    assert status["Uid"].split() == [str(USER)] * 4
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"
    lab.capture.quiet_for(0.1)
    assert not lab.capture.containing("riding-along", since)
    assert lab.leaks(since, allowed=[addressed_to(PROVIDER)]) == []


def _processes(gateway: Gateway) -> list[Path]:
    children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text("ascii").split()
    found = [Path(f"/proc/{child}") for child in children]
    return [one for one in found if b"list_process" in (one / "cmdline").read_bytes()]


@pytest.mark.parametrize(
    ("manner", "said"),
    [
        ("refused", "HTTP 503"),
        ("redirected", "HTTP 302"),
        ("huge", "larger than 24 MiB"),
        ("truncated", "ends early"),
        ("garbage", "it is not JSON"),
        ("deep", "nested too deeply"),
    ],
)
def test_a_list_that_cannot_be_used_is_named_and_nothing_opens(
    lab: Lab, trusted: Authority, certificate: Path, manner: str, said: str
) -> None:
    """Then it is served well, and the gateway connects by itself."""
    host = ListHost(lab, certificate, mullvad(lab.servers), manner=manner)
    gateway = started(lab, trusted)
    eventually(
        lambda: said in str(gateway.status().body.get("detail")),
        timeout=20,
        what=f"{said!r} in the status",
    )
    health = gateway.status()
    assert (health.state, health.code) == ("fetching", 503)
    assert (
        lab.leaks(locked(gateway), allowed=[addressed_to(RESOLVER), addressed_to(PROVIDER)]) == []
    )
    host.close()
    host.serve("well")
    gateway.wait_healthy(timeout=30)
    assert lab.workload.probe("tcp", host=HOST4).seen == lab.server.exit.ipv4


@pytest.mark.parametrize("wrong", ["authority", "name"])
def test_a_host_without_the_right_certificate_gets_no_request(
    lab: Lab, trusted: Authority, tmp_path: Path, wrong: str
) -> None:
    """From another authority, or for another name."""
    issuer = authority(tmp_path, "other") if wrong == "authority" else trusted
    name = MULLVAD if wrong == "authority" else "other.example"
    host = ListHost(lab, issuer.issue(name), mullvad(lab.servers))
    gateway = started(lab, trusted)
    eventually(
        lambda: "certificate: " in str(gateway.status().body.get("detail")),
        timeout=20,
        what="the reason in the status",
    )
    assert host.requests == []
    assert gateway.status().code == 503
