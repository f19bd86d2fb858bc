"""What every WireGuard implementation has to do: one list for all, the fake included."""

import base64
import errno
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_interface
from pathlib import Path

import pytest

from gateway.errors import NetworkError, TunnelError, TunnelGone
from gateway.model import INTERFACE, Interface
from gateway.policy.link import SMALLEST_MTU
from gateway.system.links import Links
from gateway.system.namespace import Namespace as SeenNamespace
from gateway.system.netns import Netns
from tests.tunnels import (
    ADDRESSES,
    InMemory,
    Real,
    Subject,
    real_implementations,
    wait_for_handshake,
)

MTU = 1380
REAL = [pytest.param(name, marks=pytest.mark.lab) for name in real_implementations()]


@pytest.fixture(params=["in memory", *REAL])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """Return each backend in turn, with nothing set up yet."""
    made = InMemory() if request.param == "in memory" else Real(request.param)
    yield made
    made.close()


@pytest.fixture(params=REAL)
def real(request: pytest.FixtureRequest) -> Iterator[Real]:
    """Return each backend that the kernel sees something of."""
    made = Real(request.param)
    yield made
    made.close()


def test_what_was_never_made_is_gone(subject: Subject) -> None:
    """No interface: its status and its peers are gone, and it can be removed."""
    with pytest.raises(TunnelGone):
        subject.call("status")
    with pytest.raises(TunnelGone):
        subject.call("configure", subject.tunnel)
    subject.call("down")


def test_status_prints_what_was_asked_for(subject: Subject) -> None:
    """Port, mark, peers and their endpoints, and what went over the wire."""
    wanted = replace(subject.tunnel, listen_port=40000, fwmark=0x1234)
    subject.call("up", wanted, MTU)
    status = wait_for_handshake(subject)
    assert (status.listen_port, status.fwmark) == (40000, 0x1234)
    assert [p.public_key for p in status.peers] == [p.public_key for p in wanted.peers]
    assert [p.endpoint for p in status.peers] == list(wanted.endpoints)
    assert status.received
    assert status.sent


@pytest.mark.parametrize("keepalive", [25, 0])
def test_a_handshake_follows_without_a_packet_to_send(subject: Subject, keepalive: int) -> None:
    """Also without a keepalive: the firewall lets nothing into the tunnel before it."""
    peers = tuple(replace(peer, persistent_keepalive=keepalive) for peer in subject.tunnel.peers)
    subject.call("up", replace(subject.tunnel, peers=peers), MTU)
    first = wait_for_handshake(subject).peers[0].handshake
    time.sleep(0.05)
    subject.call("configure", replace(subject.tunnel, peers=peers))
    assert wait_for_handshake(subject, not_at=first)


@pytest.mark.parametrize("keepalive", [25, 0])
def test_a_handshake_can_be_timed(subject: Subject, keepalive: int) -> None:
    """Without peers there is none; `configure` returns when it begins, by WireGuard's clock."""
    peers = tuple(replace(peer, persistent_keepalive=keepalive) for peer in subject.tunnel.peers)
    subject.call("up", replace(subject.tunnel, peers=()), MTU)
    begun_at = subject.call("configure", replace(subject.tunnel, peers=peers))
    (peer,) = wait_for_handshake(subject).peers
    assert peer.handshake
    assert 0 < peer.handshake - begun_at < 5, "no repetition of the first message"


def test_configure_replaces_the_peers(subject: Subject) -> None:
    """The former peers are gone, and the handshake with the new ones begins."""
    subject.call("up", subject.tunnel, MTU)
    wait_for_handshake(subject)
    subject.call("configure", subject.other)
    status = wait_for_handshake(subject)
    assert [peer.public_key for peer in status.peers] == [subject.other.peers[0].public_key]
    assert status.listen_port == subject.tunnel.listen_port


@pytest.mark.parametrize("change", [{"listen_port": 40000}, {"fwmark": 7}], ids=["port", "mark"])
def test_configure_refuses_a_device_that_is_otherwise_than_wanted(
    subject: Subject, change: dict[str, int]
) -> None:
    """It sets the peers alone; where more is to be set, or others set it, `up` is needed."""
    subject.call("up", subject.tunnel, MTU)
    with pytest.raises(TunnelError):
        subject.call("configure", replace(subject.tunnel, **change))
    subject.call("configure", subject.tunnel)
    assert wait_for_handshake(subject), "control: the same device is taken"


def test_up_again_starts_from_scratch(subject: Subject) -> None:
    """An existing interface does not matter, and nothing of it stays."""
    subject.call("up", subject.tunnel, MTU)
    subject.call("up", replace(subject.other, listen_port=40000), MTU)
    status = subject.call("status")
    assert status.listen_port == 40000
    assert [peer.public_key for peer in status.peers] == [subject.other.peers[0].public_key]


def test_down_is_final_and_no_error_when_repeated(subject: Subject) -> None:
    """After it there is no interface, however often it is said."""
    subject.call("up", subject.tunnel, MTU)
    subject.call("down")
    subject.call("down")
    with pytest.raises(TunnelGone):
        subject.call("status")


def test_an_interface_that_others_removed_is_gone(subject: Subject) -> None:
    """At once, for its status and for its peers; `up` brings it back."""
    subject.call("up", subject.tunnel, MTU)
    subject.delete_interface()
    with pytest.raises(TunnelGone):
        subject.call("status")
    with pytest.raises(TunnelGone):
        subject.call("configure", subject.tunnel)
    subject.call("up", subject.tunnel, MTU)
    assert wait_for_handshake(subject)


def test_a_taken_port_is_reported_by_its_number_and_leaves_nothing(subject: Subject) -> None:
    """EADDRINUSE, so that another port can be taken; then the same one works again."""
    with subject.take_port(subject.tunnel.listen_port):
        with pytest.raises(TunnelError) as caught:
            subject.call("up", subject.tunnel, MTU)
        assert caught.value.errno == errno.EADDRINUSE
        with pytest.raises(TunnelGone):
            subject.call("status")
        subject.call("up", replace(subject.tunnel, listen_port=40000), MTU)
    subject.call("up", subject.tunnel, MTU)


def test_the_interface_is_as_it_was_asked_for(real: Real) -> None:
    """Up, with its MTU, host addresses and no route; keys and peers as wg(8) shows them."""
    peer = replace(real.tunnel.peers[0], persistent_keepalive=0)
    before = real.own.run("ip", "route"), real.own.run("ip", "-6", "route")
    wanted = (*ADDRESSES, ip_interface("10.65.0.2/24"))
    real.call("up", replace(real.tunnel, peers=(peer,), addresses=wanted), MTU)
    link = real.own.run("ip", "-o", "addr", "show", "dev", INTERFACE)
    assert all(f"{address.ip}/{address.max_prefixlen} " in link for address in wanted)
    assert f"mtu {MTU}" in real.own.run("ip", "link", "show", "dev", INTERFACE, "up")
    routes = real.own.run("ip", "route"), real.own.run("ip", "-6", "route")
    assert routes[0] == before[0]
    assert {line for line in routes[1].splitlines() if "fe80::" not in line} == {
        line for line in before[1].splitlines() if "fe80::" not in line
    }
    wait_for_handshake(real)
    shown = real.call_tool("wg", "show", INTERFACE, "dump").splitlines()
    assert shown[0].split("\t") == [real.client.private, real.client.public, "51820", "0xca6c"]
    key, preshared, endpoint, allowed, *_, keepalive = shown[1].split("\t")
    assert peer.preshared_key is not None
    assert (key, preshared) == (peer.public_key, peer.preshared_key.reveal())
    assert (endpoint, allowed, keepalive) == (str(peer.endpoint), "0.0.0.0/0,::/0", "off")


def test_a_former_interface_of_the_name_goes_first(real: Real) -> None:
    """Whichever program made it."""
    real.own.ip("tuntap add wg0 mode tun")
    real.call("up", real.tunnel, MTU)
    assert wait_for_handshake(real)


def test_another_programs_uplink_of_the_name_stays_and_is_named(real: Real) -> None:
    """A network's interface may be called so; it is not ours to remove."""
    real.own.ip("link add wg0 type veth peer name other")
    for method in (("up", real.tunnel, MTU), ("down",)):
        with pytest.raises(TunnelError, match=r"not a tunnel.*wg0"):
            real.call(*method)
    assert "other" in real.own.run("ip", "link")
    real.own.ip("link del other")
    real.call("up", real.tunnel, MTU)
    assert wait_for_handshake(real)


@pytest.mark.parametrize(
    ("mtu", "addresses"),
    [(2**31 - 1, ADDRESSES), (MTU, (*ADDRESSES, ip_interface("ff02::1/128")))],
    ids=["mtu", "address"],
)
def test_a_failure_on_the_way_leaves_nothing(
    real: Real, mtu: int, addresses: tuple[Interface, ...]
) -> None:
    """What the kernel refuses comes with its number; interface and process are gone."""
    with pytest.raises(TunnelError) as caught:
        real.call("up", replace(real.tunnel, addresses=addresses), mtu)
    assert caught.value.errno in {errno.EINVAL, errno.EADDRNOTAVAIL}
    assert INTERFACE not in real.own.run("ip", "link")
    assert real.children() == []
    real.call("up", real.tunnel, MTU)
    assert wait_for_handshake(real)


def test_the_mtu_of_an_interface_that_carries_traffic_can_be_lowered(real: Real) -> None:
    """It stays the same interface, with its addresses and its session."""
    real.call("up", real.tunnel, MTU)
    session = wait_for_handshake(real).peers[0].handshake
    namespace = SeenNamespace(Links(INTERFACE, Netns.at(real.own.path)))
    namespace.set_mtu(INTERFACE, SMALLEST_MTU)
    assert f"mtu {SMALLEST_MTU}" in real.own.run("ip", "link", "show", "dev", INTERFACE, "up")
    assert namespace.fault_of(INTERFACE, ADDRESSES) == ""
    assert real.call("status").peers[0].handshake == session
    with pytest.raises(NetworkError):
        namespace.set_mtu(INTERFACE, 2**31 - 1)
    assert f"mtu {SMALLEST_MTU}" in real.own.run("ip", "link", "show", "dev", INTERFACE, "up")
    real.call("down")
    with pytest.raises(NetworkError):
        namespace.set_mtu(INTERFACE, SMALLEST_MTU)


def test_an_interface_that_others_renamed_is_gone(real: Real) -> None:
    """The rules name `wg0`; an interface with another name is not the tunnel."""
    real.call("up", real.tunnel, MTU)
    real.own.ip(f"link set {INTERFACE} down", f"link set {INTERFACE} name other")
    with pytest.raises(TunnelGone):
        real.call("status")


@pytest.mark.promise("P16")
def test_no_key_is_seen_in_a_process_a_log_or_an_error(real: Real) -> None:
    """Neither in the arguments and environments of processes, nor where failures are reported."""
    preshared = real.tunnel.peers[0].preshared_key
    assert preshared is not None
    real.call("up", real.tunnel, MTU)
    wait_for_handshake(real)
    reported = [repr(real.tunnel)]
    for pid in [real.pid, *real.children()]:
        reported += [
            Path(f"/proc/{pid}/{name}").read_text("utf-8") for name in ("cmdline", "environ")
        ]
    with real.take_port(40000), pytest.raises(TunnelError) as caught:
        real.call("up", replace(real.tunnel, listen_port=40000), MTU)
    reported += [repr(caught.value), str(caught.value), real.log.read_text("utf-8")]
    for key in (real.tunnel.private_key.reveal(), preshared.reveal()):
        for form in (key, base64.b64decode(key).hex()):
            assert not any(form in text for text in reported)
