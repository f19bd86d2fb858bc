"""Encodes and parses the text protocol of userspace WireGuard; no I/O.

Source: https://www.wireguard.com/xplatform/#configuration-protocol. Keys are hexadecimal there and
base64 here. wireguard-go sends `errno` as a negative number (device/uapi.go).
"""

import base64
import errno
from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network

from gateway.errors import TunnelError
from gateway.model import INTERFACE, Endpoint, Peer, Secret, Tunnel
from gateway.tunnel.device import KEY_LENGTH, Device, DevicePeer, endpoint_of, start_keepalive

GET = "get=1\n\n"
END = "\n\n"
"""The end of every request and answer."""


def set_device(tunnel: Tunnel) -> str:
    """Return the request that sets key, listen port and mark, and replaces all peers."""
    lines = [
        f"private_key={_hexadecimal(tunnel.private_key.reveal())}",
        f"listen_port={tunnel.listen_port}",
        f"fwmark={tunnel.fwmark}",
    ]
    return _request([*lines, *_peers(tunnel.peers)])


def set_peers(tunnel: Tunnel) -> str:
    """Return the request that replaces all peers and leaves the rest of the device alone."""
    return _request(_peers(tunnel.peers))


def set_keepalive(peers: tuple[Peer, ...]) -> str:
    """Return the request that sets the keepalive of existing `peers`."""
    lines = []
    for peer in peers:
        lines += [f"public_key={_hexadecimal(peer.public_key)}", "update_only=true"]
        lines += [f"persistent_keepalive_interval={peer.persistent_keepalive}"]
    return _request(lines)


def parse(answer: str) -> Device:
    """Return the device that an answer to GET describes; the answer to a set request has none.

    Raises TunnelError with the errno of the answer, EBADMSG for one that cannot be read. Unknown
    keys are ignored.
    """
    try:
        return _device_in(answer)
    except ValueError:  # not kept as the cause: its text may have a key
        what = "an answer of the WireGuard process cannot be read"
        raise TunnelError(what, INTERFACE, errno.EBADMSG) from None


def _device_in(answer: str) -> Device:
    device = Device()
    peers: list[DevicePeer] = []
    for key, value in _pairs(answer):
        if key == "errno" and int(value) != 0:
            raise TunnelError("the WireGuard process refused", INTERFACE, abs(int(value)))
        if key == "public_key":
            peers.append(DevicePeer(_base64(value)))
        elif peers:
            peers[-1] = _with(peers[-1], key, value)
        elif key == "private_key":
            device = replace(device, private_key=_secret(value))
        elif key == "listen_port":
            device = replace(device, listen_port=int(value))
        elif key == "fwmark":
            device = replace(device, fwmark=int(value))
    return replace(device, peers=tuple(peers))


def _with(peer: DevicePeer, key: str, value: str) -> DevicePeer:
    """Return `peer` with what the line says; an unknown line changes nothing."""
    match key:
        case "preshared_key":
            peer = replace(peer, preshared_key=_secret(value))
        case "endpoint":
            host, _, port = value.rpartition(":")
            peer = replace(peer, endpoint=Endpoint(ip_address(host.strip("[]")), int(port)))
        case "persistent_keepalive_interval":
            peer = replace(peer, persistent_keepalive=int(value))
        case "allowed_ip":
            peer = replace(peer, allowed_ips=peer.allowed_ips | {ip_network(value)})
        case "last_handshake_time_sec":
            peer = replace(peer, handshake=float(value) or None)
        case "last_handshake_time_nsec":
            peer = replace(peer, handshake=peer.handshake and peer.handshake + int(value) / 1e9)
        case "rx_bytes":
            peer = replace(peer, received=int(value))
        case "tx_bytes":
            peer = replace(peer, sent=int(value))
        case _:
            pass
    return peer


def _peers(peers: tuple[Peer, ...]) -> Iterator[str]:
    yield "replace_peers=true"
    for peer in peers:
        yield f"public_key={_hexadecimal(peer.public_key)}"
        if peer.preshared_key:
            yield f"preshared_key={_hexadecimal(peer.preshared_key.reveal())}"
        yield f"endpoint={endpoint_of(peer)}"
        yield f"persistent_keepalive_interval={start_keepalive(peer)}"
        yield "replace_allowed_ips=true"
        for network in peer.allowed_ips:
            yield f"allowed_ip={network}"


def _request(lines: Iterable[str]) -> str:
    return "\n".join(["set=1", *lines]) + END


def _pairs(answer: str) -> Iterator[tuple[str, str]]:
    for line in answer.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            yield key, value


def _hexadecimal(key: str) -> str:
    return base64.b64decode(key).hex()


def _base64(key: str) -> str:
    return base64.b64encode(bytes.fromhex(key)).decode()


def _secret(key: str) -> Secret | None:
    """Return the key, or None for the all-zero key, which means none."""
    return None if key == "0" * 2 * KEY_LENGTH else Secret(_base64(key))
