"""P18: a key is registered with a provider's servers by connections of the gateway's own.

The lab plays Private Internet Access: its resolver, its list, its login, and servers that answer
only a key that they were given, with certificates of its own authority.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import keys
from tests.lab.frames import TCP, UDP, Frame, addressed_to
from tests.lab.gateway import Gateway
from tests.lab.keys import FORM, PASSWORD, TOKEN, KeyHost
from tests.lab.lists import PROVIDER, RESOLVER, ListHost
from tests.lab.process import eventually
from tests.lab.topology import Lab
from tests.promises.witness import HOST4, flooded, locked
from tests.trust import Trust, trust_in

pytestmark = [pytest.mark.lab, pytest.mark.promise("P18")]

FILE = Path("/config/servers/private-internet-access.registrations")
USER = 65534


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    """Return two authorities that the gateways of this file trust."""
    return trust_in(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def two() -> Iterator[Lab]:
    """Return a lab with two servers, in the Netherlands and in Germany."""
    with Lab(servers=2) as lab:
        yield lab


class Provider:
    """The provider's host, and what takes keys at each server."""

    def __init__(self, lab: Lab, trust: Trust, **login: object) -> None:
        certificate = trust.web.issue(keys.LIST, keys.LOGIN)
        known = {"account": FORM, "token": TOKEN} | login
        self.host = ListHost(lab, certificate, keys.listed(lab.servers), **known)
        self.takers = [
            KeyHost(lab, server, trust.own.issue(keys.name_of(server), alternative=False))
            for server in lab.servers
        ]

    @property
    def logins(self) -> list[object]:
        """The forms of all logins so far."""
        return [it["login"] for it in self.host.requests if "login" in it]


def variables(gateway: Gateway, trust: Trust, **changes: str | None) -> dict[str, str]:
    """Return the variables of a user who lets the gateway make the key."""
    gateway.write("/config/volume", "")
    gateway.write("/run/secrets/openvpn_password", PASSWORD)
    return gateway.env(
        **{
            "VPN_SERVICE_PROVIDER": "private internet access",
            "OPENVPN_USER": keys.USER,
            "WIREGUARD_PRIVATE_KEY": None,
            "WIREGUARD_PRESHARED_KEY": None,
            "WIREGUARD_ADDRESSES": None,
            "WIREGUARD_PUBLIC_KEY": None,
            "WIREGUARD_ENDPOINT_IP": None,
            "WIREGUARD_ENDPOINT_PORT": None,
            "WIREGUARD_ENDPOINT_RESOLVER": RESOLVER,
            "DNS_ADDRESS": None,
            "SSL_CERT_FILE": str(trust.web.certificate),
            "PROVIDER_CERT_FILE": str(trust.own.certificate),
        }
        | changes
    )


def key_requests(lab: Lab) -> list[object]:
    """Return what allows TCP to the port of each server that takes keys."""
    servers = {server.endpoint.ipv4 for server in lab.servers}

    def allowed(frame: Frame) -> bool:
        is_port = (frame.protocol, frame.destination_port) == (TCP, keys.PORT)
        return is_port and frame.destination in servers

    return [allowed]


def outside(lab: Lab) -> list[object]:
    """Return what allows the question, the provider's host, and the requests with keys."""
    return [addressed_to(RESOLVER), addressed_to(PROVIDER), *key_requests(lab)]


def kept(gateway: Gateway) -> list[dict[str, object]]:
    """Return the lines of the file with the registrations, which only root can read."""
    file = gateway.container.root / FILE.relative_to("/")
    assert (file.stat().st_mode & 0o777, file.stat().st_uid) == (0o600, 0)
    return [json.loads(line) for line in file.read_text("ascii").splitlines()]


def secrets(gateway: Gateway) -> list[str]:
    """Return every secret, in the forms in which it could be seen."""
    head = kept(gateway)[0]
    made = [str(head["private_key"])] if head["private_key"] else []
    return [PASSWORD, FORM.rpartition("=")[2], TOKEN, *made]


@pytest.mark.promise("P16")
@pytest.mark.both_firewalls
def test_a_login_and_a_key_lead_to_a_tunnel(two: Lab, trust: Trust) -> None:
    """Under a flood; the network sees two names, the provider's host, and one port of each server.

    A restart makes no request: the key and the servers' answers are kept. Control: the flood is
    seen before the lock.
    """
    lab, (amsterdam, berlin) = two, two.servers
    provider = Provider(lab, trust)
    for taker in provider.takers:
        taker.serve()
    flood = flooded(lab)
    gateway = lab.gateway()
    wanted = variables(gateway, trust)
    gateway.start(wanted).wait_healthy(timeout=30)
    since = locked(gateway)
    head, *answers = kept(gateway)
    by_name = {keys.name_of(server): server for server in lab.servers}
    first = by_name[str(answers[0]["name"])]
    assert lab.workload.probe("tcp", host=HOST4).seen == first.exit.ipv4
    assert provider.logins == [FORM]
    for taker in provider.takers:
        (request,) = taker.requests
        assert (request["path"], request["pt"]) == ("/addKey", TOKEN)
        assert request["pubkey"] == head["public_key"]
    assert {(it["name"], it["tunnel_address"], it["gateway"]) for it in answers} == {
        (keys.name_of(server), keys.client_of(server), "10.64.0.1") for server in lab.servers
    }
    assert gateway.resolv_conf().count("nameserver") == 1
    assert lab.leaks(since, allowed=outside(lab)) == []
    said = gateway.logs() + json.dumps(gateway.status().body)
    assert [secret for secret in secrets(gateway) if secret in said] == []
    connected_at = time.monotonic()
    gateway.stop()
    gateway.start(wanted | {"SERVER_REGIONS": "germany"}).wait_healthy()
    assert lab.workload.probe("tcp", host=HOST4).seen == berlin.exit.ipv4
    assert amsterdam.exit.ipv4 != berlin.exit.ipv4
    assert flood.stop()["sent"] > 0
    assert lab.leaks(connected_at) == []
    assert provider.logins == [FORM]


@pytest.mark.both_firewalls
def test_nothing_rides_along_while_a_key_is_registered(lab: Lab, trust: Trust) -> None:
    """Not to the server's port, nor from the source port of the connection, nor as a raw packet.

    Control: all of it is seen while the namespace is open. The process that talks to the server has
    no rights meanwhile, and no secret in its arguments or environment.
    """
    provider = Provider(lab, trust)
    (taker,) = provider.takers
    taker.serve("stalled")
    workload, server = lab.workload, lab.server.endpoint.ipv4

    def ride(port: int, marker: str) -> None:
        workload.probe("udp", host=server, port=keys.PORT, marker=marker)
        for transport in ("tcp", "udp"):
            workload.probe(
                "packet", device="eth0", source=lab.uplink.gateway.ipv4, source_port=port,
                host=server, port=keys.PORT, transport=transport, marker=marker,
            )  # fmt: skip
            workload.probe(
                "forged", source=lab.uplink.gateway.ipv4, source_port=port,
                host=server, port=keys.PORT, transport=transport, marker=marker,
            )  # fmt: skip
        workload.probe("raw", host=server, marker=marker)

    ride(40000, "before-it")
    seen = lab.capture.containing("before-it")
    assert {TCP, UDP} <= {it.protocol for it in seen}, "control: seen while the namespace is open"
    gateway = lab.gateway()
    gateway.start(variables(gateway, trust))
    eventually(lambda: taker.requests, timeout=20, what="the request")
    assert gateway.status().state == "fetching"
    since = time.monotonic()
    (port,) = {
        frame.source_port
        for frame in lab.capture.frames(locked(gateway))
        if (frame.destination, frame.destination_port) == (server, keys.PORT)
    }
    ride(port, "riding-along")
    (process,) = _processes(gateway)
    status = dict(
        line.split(":\t", 1)
        for line in (process / "status").read_text("ascii").splitlines()
        if ":\t" in line
    )
    assert status["Uid"].split() == [str(USER)] * 4
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}
    seen = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
    assert b"key_process" in seen, "control"
    assert [it for it in (PASSWORD, TOKEN, keys.USER) if it.encode() in seen] == []
    lab.capture.quiet_for(0.1)
    assert not lab.capture.containing("riding-along", since)
    assert lab.leaks(since, allowed=key_requests(lab)) == []
    gateway.kill()
    eventually(lambda: not process.exists(), timeout=2, what="the end of the process")


def _processes(gateway: Gateway) -> list[Path]:
    children = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children").read_text("ascii").split()
    found = [Path(f"/proc/{child}") for child in children]
    return [one for one in found if b"key_process" in (one / "cmdline").read_bytes()]


@pytest.mark.parametrize("wrong", ["authority", "name"])
def test_a_server_without_the_right_certificate_gets_no_token(
    lab: Lab, trust: Trust, wrong: str
) -> None:
    """From an authority of the web, which is not the provider's own, or for another server.

    Once it has the right one, the gateway connects by itself.
    """
    provider = Provider(lab, trust)
    name = keys.name_of(lab.server)
    issuer = trust.web if wrong == "authority" else trust.own
    certificate = issuer.issue(name if wrong == "authority" else "germany402")
    (taker,) = provider.takers
    right, taker.certificate = taker.certificate, certificate
    taker.serve()
    gateway = lab.gateway()
    gateway.start(variables(gateway, trust))
    eventually(
        lambda: "certificate: " in str(gateway.status().body.get("detail")),
        timeout=20,
        what="the reason in the status",
    )
    health = gateway.status()
    assert (health.code, health.body["reason_code"]) == (503, "key_not_registered")
    assert taker.requests == []
    assert lab.leaks(locked(gateway), allowed=outside(lab)) == []
    if wrong == "name":
        taker.close()
        taker.certificate = right
        taker.serve()
        gateway.wait_healthy(timeout=60)


def test_a_refused_login_names_the_variables_and_is_not_repeated(lab: Lab, trust: Trust) -> None:
    """What the provider says about it, and what was sent, is nowhere; another password helps."""
    provider = Provider(lab, trust)
    provider.takers[0].serve()
    gateway = lab.gateway()
    wanted = variables(gateway, trust)
    wrong = "wrong-one-0123"
    gateway.write("/run/secrets/openvpn_password", wrong)
    gateway.start(wanted)
    eventually(
        lambda: gateway.status().body.get("reason_code") == "login_refused",
        timeout=20,
        what="the reason in the status",
    )
    detail = str(gateway.status().body["detail"])
    assert "OPENVPN_USER and OPENVPN_PASSWORD are not accepted (HTTP 401)" in detail
    time.sleep(8)
    assert len(provider.logins) == 1
    assert wrong not in gateway.logs() + json.dumps(gateway.status().body)
    assert provider.takers[0].requests == []
    gateway.write("/run/secrets/openvpn_password", PASSWORD)
    gateway.signal(1)
    gateway.wait_healthy(timeout=30)
    assert len(provider.logins) == 2


def test_a_server_that_forgets_the_key_is_given_it_again(lab: Lab, trust: Trust) -> None:
    """By itself, once it does not answer: closed meanwhile, and then connected."""
    provider = Provider(lab, trust)
    (taker,) = provider.takers
    taker.serve()
    gateway = lab.gateway()
    gateway.start(variables(gateway, trust)).wait_healthy(timeout=30)
    since = locked(gateway)
    taker.forget()
    gateway.wait_unhealthy(timeout=60)
    gateway.wait_healthy(timeout=90)
    assert lab.workload.probe("tcp", host=HOST4).seen == lab.server.exit.ipv4
    first, again = taker.requests
    assert first["pubkey"] == again["pubkey"]
    assert provider.logins == [FORM, FORM]
    assert lab.leaks(since, allowed=outside(lab)) == []


@pytest.mark.parametrize(
    ("manner", "answer"),
    [
        ("odd", {"peer_ip": "198.51.100.7"}),
        ("odd", {"peer_ip": "127.0.0.2"}),
        ("odd", {"server_key": 5}),
        ("odd", {"status": "ERROR"}),
        ("huge", {}),
    ],
    ids=["public address", "loopback", "wrong type", "error", "huge"],
)
def test_an_answer_that_cannot_be_used_leaves_the_server_out(
    two: Lab, trust: Trust, manner: str, answer: dict[str, object]
) -> None:
    """The other server is used; nothing else passes."""
    lab = two
    provider = Provider(lab, trust)
    provider.takers[0].serve(manner, **answer)
    provider.takers[1].serve()
    gateway = lab.gateway()
    gateway.start(variables(gateway, trust)).wait_healthy(timeout=30)
    assert lab.workload.probe("tcp", host=HOST4).seen == lab.servers[1].exit.ipv4
    assert [it["name"] for it in kept(gateway)[1:]] == [keys.name_of(lab.servers[1])]
    assert lab.leaks(locked(gateway), allowed=outside(lab)) == []
