"""The text protocol of userspace WireGuard, word for word.

The examples follow https://www.wireguard.com/xplatform/#example-dialog.
"""

import errno
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from gateway.errors import TunnelError
from gateway.model import EVERYTHING, Endpoint, Peer, Secret, Tunnel
from gateway.tunnel import uapi
from gateway.tunnel.device import Device, DevicePeer

PRIVATE = Secret("6Es05UbD8PVhXSjXX9ZGmGcqZ0Bb77xu9Vf4+5aKNWI=")
PUBLIC = "uFmW/Ycx6LhjtrWXSCl0Vb69wTmJhVVA8g/Rr5ErExk="
OTHER = "WAIMLYUoN5GkFVvF8rRwUU1ODKIvZ8CjhQ4yiadr5zY="
PRESHARED = Secret("GIUVCUS8MopkXprKaYyGm/TRqcMrbzzZDZvnQ6+nUlI=")

ONE = Peer(PUBLIC, Endpoint(ip_address("192.0.2.1"), 51820), EVERYTHING, PRESHARED)
TWO = Peer(
    OTHER,
    Endpoint(ip_address("2001:db8::1"), 443),
    (ip_network("10.0.0.0/8"),),
    persistent_keepalive=0,
)
TUNNEL = Tunnel(PRIVATE, (ip_interface("10.64.0.2/32"),), (ONE, TWO), fwmark=51820)

SET_DEVICE = """\
set=1
private_key=e84b34e546c3f0f5615d28d75fd64698672a67405befbc6ef557f8fb968a3562
listen_port=51820
fwmark=51820
replace_peers=true
public_key=b85996fd8731e8b863b6b59748297455bebdc13989855540f20fd1af912b1319
preshared_key=1885150944bc328a645e9aca698c869bf4d1a9c32b6f3cd90d9be743afa75252
endpoint=192.0.2.1:51820
persistent_keepalive_interval=25
replace_allowed_ips=true
allowed_ip=0.0.0.0/0
allowed_ip=::/0
public_key=58020c2d85283791a4155bc5f2b470514d4e0ca22f67c0a3850e3289a76be736
endpoint=[2001:db8::1]:443
persistent_keepalive_interval=3600
replace_allowed_ips=true
allowed_ip=10.0.0.0/8

"""

SET_KEEPALIVE = """\
set=1
public_key=58020c2d85283791a4155bc5f2b470514d4e0ca22f67c0a3850e3289a76be736
update_only=true
persistent_keepalive_interval=0

"""

ANSWER = """\
private_key=e84b34e546c3f0f5615d28d75fd64698672a67405befbc6ef557f8fb968a3562
listen_port=51820
fwmark=51820
public_key=b85996fd8731e8b863b6b59748297455bebdc13989855540f20fd1af912b1319
preshared_key=1885150944bc328a645e9aca698c869bf4d1a9c32b6f3cd90d9be743afa75252
protocol_version=1
endpoint=192.0.2.1:51820
last_handshake_time_sec=1700000000
last_handshake_time_nsec=500000000
tx_bytes=148
rx_bytes=92
persistent_keepalive_interval=25
allowed_ip=0.0.0.0/0
allowed_ip=::/0
public_key=58020c2d85283791a4155bc5f2b470514d4e0ca22f67c0a3850e3289a76be736
preshared_key=0000000000000000000000000000000000000000000000000000000000000000
protocol_version=1
endpoint=[2001:db8::1]:443
last_handshake_time_sec=0
last_handshake_time_nsec=0
tx_bytes=0
rx_bytes=0
persistent_keepalive_interval=3600
allowed_ip=10.0.0.0/8
something_new=7
errno=0

"""

DEVICE = Device(
    PRIVATE,
    51820,
    51820,
    (
        DevicePeer(
            PUBLIC, ONE.endpoint, frozenset(EVERYTHING), PRESHARED, 25, 1700000000.5, 92, 148
        ),
        DevicePeer(OTHER, TWO.endpoint, frozenset(TWO.allowed_ips), None, 3600),
    ),
)


@pytest.mark.parametrize(
    ("request_text", "golden"),
    [
        (uapi.set_device(TUNNEL), SET_DEVICE),
        (uapi.set_peers(TUNNEL), "set=1\n" + SET_DEVICE[SET_DEVICE.index("replace_peers") :]),
        (uapi.set_keepalive((TWO,)), SET_KEEPALIVE),
        (uapi.GET, "get=1\n\n"),
    ],
    ids=["device", "peers", "keepalive", "get"],
)
def test_requests_read_as_the_protocol_says(request_text: str, golden: str) -> None:
    """Keys in hexadecimal, IPv6 endpoints in brackets, an empty line at the end."""
    assert request_text == golden


def test_an_answer_becomes_a_device() -> None:
    """Both peers with all that is known of them; what is new in the protocol is passed over."""
    assert uapi.parse(ANSWER) == DEVICE


@pytest.mark.parametrize(
    ("answer", "device"),
    [
        ("errno=0\n\n", Device()),
        ("listen_port=7\nerrno=0\n\n", Device(listen_port=7)),
        (f"private_key={'0' * 64}\nerrno=0\n\n", Device()),
    ],
    ids=["nothing set", "no key", "key of zeros"],
)
def test_a_bare_device_has_no_key(answer: str, device: Device) -> None:
    """Absence and the key of zeros both mean none."""
    assert uapi.parse(answer) == device


@pytest.mark.parametrize("number", ["-98", "98"])
def test_a_refusal_keeps_its_number(number: str) -> None:
    """wireguard-go sends it negative, the protocol's text does not say."""
    with pytest.raises(TunnelError) as caught:
        uapi.parse(f"errno={number}\n\n")
    assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize(
    "line",
    [
        "private_key=zz",
        "listen_port=x",
        "errno=",
        "public_key=0\n",
        f"public_key={'0' * 64}\nendpoint=x:y",
    ],
)
def test_an_answer_that_cannot_be_read_is_an_error_without_its_text(line: str) -> None:
    """It is about the tunnel, and its text may have a key."""
    with pytest.raises(TunnelError, match="cannot be read") as caught:
        uapi.parse(f"{line}\n\n")
    assert caught.value.errno == errno.EBADMSG
    assert caught.value.__cause__ is None


def test_what_was_set_is_not_a_difference() -> None:
    """The read-back of the golden request agrees with what was asked for, clamped key or not."""
    assert DEVICE.differences(TUNNEL) == ()
    unclamped = replace(TUNNEL, private_key=Secret("//////////////////////////////////////////8="))
    clamped = replace(DEVICE, private_key=Secret("+P///////////////////////////////////////38="))
    assert clamped.differences(unclamped) == ()


@pytest.mark.parametrize(
    ("device", "difference"),
    [
        (replace(DEVICE, private_key=None), "private key"),
        (replace(DEVICE, private_key=PRESHARED), "private key"),
        (replace(DEVICE, listen_port=1), "listen port 1"),
        (replace(DEVICE, fwmark=0), "mark 0x0"),
        (replace(DEVICE, peers=DEVICE.peers[:1]), "the set of peers"),
        (replace(DEVICE, peers=(*DEVICE.peers, DevicePeer("new"))), "the set of peers"),
        (
            replace(DEVICE, peers=(replace(DEVICE.peers[0], endpoint=None), DEVICE.peers[1])),
            f"endpoint None of peer {PUBLIC}",
        ),
        (
            replace(DEVICE, peers=(replace(DEVICE.peers[0], preshared_key=None), DEVICE.peers[1])),
            f"preshared key of peer {PUBLIC}",
        ),
        (
            replace(
                DEVICE, peers=(replace(DEVICE.peers[0], allowed_ips=frozenset()), DEVICE.peers[1])
            ),
            f"allowed IPs of peer {PUBLIC}",
        ),
    ],
)
def test_a_difference_is_named_without_a_secret(device: Device, difference: str) -> None:
    """Each thing that was not set as wanted, and no key that has to stay secret."""
    assert device.differences(TUNNEL) == (difference,)


def test_the_status_prints_no_secret() -> None:
    """Traffic, handshake and public names of peers are all there is."""
    status = DEVICE.status
    assert [peer.handshake for peer in status.peers] == [1700000000.5, None]
    assert (status.received, status.sent) == (92, 148)
    assert PRIVATE.reveal() not in repr(status) + repr(DEVICE)
