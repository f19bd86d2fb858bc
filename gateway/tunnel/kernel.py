"""WireGuard in the kernel, over generic netlink.

pyroute2 knows the messages (uapi/linux/wireguard.h); its `WireGuard.set` takes one peer a call and
never replaces the others, so the message is put together here: all of it in one request, which the
kernel handles under one lock (drivers/net/wireguard/netlink.c, wg_set_device).
"""

import base64
import errno
import time
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

from gateway.errors import KernelError, NetworkError, TunnelError, TunnelGone
from gateway.model import INTERFACE, Endpoint, Implementation, Peer, Secret, Tunnel
from gateway.policy.facts import TunnelStatus
from gateway.system import applied
from gateway.system.links import Links
from gateway.system.messages import ctrlmsg, wireguard_message
from gateway.system.netlink import Netlink, message
from gateway.system.netns import OWN, Netns
from gateway.tunnel.device import (
    KEY_LENGTH,
    Device,
    DevicePeer,
    endpoint_of,
    require_none,
    start_keepalive,
    wg_keepalive,
    wg_set,
    without_keepalive,
)

NETLINK_GENERIC = 16
GENL_ID_CTRL = 16
CTRL_CMD_GETFAMILY = 3
FAMILY = "wireguard"
VERSION = 1
GET_DEVICE = 0
SET_DEVICE = 1
REPLACE_PEERS = 1
UPDATE_ONLY = 4
REPLACE_ALLOWED_IPS = 2
"""WGDEVICE_F_* and WGPEER_F_* of uapi/linux/wireguard.h."""
NO_KEY = base64.b64encode(bytes(KEY_LENGTH))
FAMILIES = {4: 2, 6: 10}
"""AF_INET and AF_INET6 by IP version."""


def available(netns: Netns = OWN) -> bool:
    """Return whether the kernel has WireGuard, and make it load its module if it can.

    Asks in `netns` for the generic netlink family, for which the kernel loads the module by itself
    (net/netlink/genetlink.c, ctrl_getfamily), and which leaves nothing behind. Raises TunnelError
    when that cannot be found out.
    """
    return _family(netns) is not None


class Kernel:
    """The interface as the kernel carries it."""

    name = Implementation.KERNELSPACE.value

    def __init__(self, links: Links, origin: Links | None = None) -> None:
        """Have the interface among `links`; its encrypted socket is in the namespace of `origin`.

        The kernel opens that socket where the interface is made (drivers/net/wireguard/device.c,
        wg_newlink). By default both are the same.
        """
        self._links = links
        self._origin = origin or links
        self._genl = Netlink(links.netns, NETLINK_GENERIC, TunnelError)
        self._index: int | None = None

    async def up(self, tunnel: Tunnel, mtu: int) -> None:
        """Make a new interface; see `TunnelBackend.up`."""
        try:
            await self.down()
            self._origin.add_link(INTERFACE, FAMILY)
            if self._origin is not self._links:
                self._origin.move(INTERFACE, self._links)
            self._set(whole_device(tunnel))
            applied.show(lambda: wg_set(tunnel))
            require_none(self.device().differences(tunnel))
            self._links.set_mtu(INTERFACE, mtu)
            self._links.add_addresses(INTERFACE, tunnel.addresses)
            self._links.set_up(INTERFACE)  # EADDRINUSE: the listen port is taken
            self._index = self._links.index(INTERFACE)
            self._take_back_keepalive(tunnel)
        except NetworkError as err:
            await self.down()
            raise TunnelError(err.what, err.subject, err.errno) from err
        except BaseException:
            await self.down()
            raise

    async def configure(self, tunnel: Tunnel) -> float:
        """Replace the peers; see `TunnelBackend.configure`."""
        self._require_interface()
        begun_at = time.time()
        self._set(_all_peers(tunnel.peers))
        applied.show(lambda: wg_set(tunnel, peers_only=True))
        require_none(self.device().differences(tunnel))
        self._take_back_keepalive(tunnel)
        return begun_at

    async def status(self) -> TunnelStatus:
        """Return what the kernel knows; see `TunnelBackend.status`."""
        self._require_interface()
        return self.device().status

    async def down(self) -> None:
        """Remove the interface; see `TunnelBackend.down`."""
        self._index = None
        try:
            self._links.delete_link(INTERFACE)
            self._origin.delete_link(INTERFACE)
        except NetworkError as err:
            raise TunnelError(err.what, err.subject, err.errno) from err

    def _require_interface(self) -> None:
        if self._index is None or self._links.index(INTERFACE) != self._index:
            raise TunnelGone("there is no such interface", INTERFACE, errno.ENODEV)

    def _take_back_keepalive(self, tunnel: Tunnel) -> None:
        quiet = without_keepalive(tunnel)
        if quiet:
            attributes = [
                [
                    ("WGPEER_A_PUBLIC_KEY", p.public_key),
                    ("WGPEER_A_FLAGS", UPDATE_ONLY),
                    ("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL", 0),
                ]
                for p in quiet
            ]
            self._set([("WGDEVICE_A_PEERS", [{"attrs": a} for a in attributes])])
            applied.show(lambda: wg_keepalive(quiet))

    def _set(self, attributes: list[tuple[str, Any]]) -> None:
        request = message(
            wireguard_message(),
            {"cmd": SET_DEVICE, "version": VERSION},
            [("WGDEVICE_A_IFNAME", INTERFACE), *attributes],
        )
        self._genl.change("set WireGuard device", INTERFACE, request, self._message_type())

    def device(self) -> Device:
        """Return the device as the kernel has it. Raises TunnelGone without one, or TunnelError."""
        request = message(
            wireguard_message(),
            {"cmd": GET_DEVICE, "version": VERSION},
            [("WGDEVICE_A_IFNAME", INTERFACE)],
        )
        try:
            parts = self._genl.dump("read WireGuard device", request, self._message_type())
        except TunnelError as err:
            if err.errno in {errno.ENODEV, errno.EOPNOTSUPP}:  # gone, or another kind of link
                raise TunnelGone(err.what, INTERFACE, err.errno) from err
            raise
        return device_of(parts)

    def _message_type(self) -> int:
        family = _family(self._links.netns)
        if family is None:
            raise TunnelGone("the kernel has no WireGuard any more", INTERFACE, errno.ENOENT)
        return family


def _family(netns: Netns) -> int | None:
    """Return the message type of the family, which changes when its module is loaded again."""
    request = message(
        ctrlmsg, {"cmd": CTRL_CMD_GETFAMILY, "version": 1}, [("CTRL_ATTR_FAMILY_NAME", FAMILY)]
    )
    genl = Netlink(netns, NETLINK_GENERIC, TunnelError)
    try:
        answer = genl.get("ask for the kernel's WireGuard", FAMILY, request, GENL_ID_CTRL)
    except KernelError as err:
        if err.errno == errno.ENOENT:
            return None
        raise
    family: int = answer.get_attr("CTRL_ATTR_FAMILY_ID")
    return family


def whole_device(tunnel: Tunnel) -> list[tuple[str, Any]]:
    """Return the attributes that make a device exactly `tunnel`."""
    return [
        ("WGDEVICE_A_PRIVATE_KEY", tunnel.private_key.reveal()),
        ("WGDEVICE_A_LISTEN_PORT", tunnel.listen_port),
        ("WGDEVICE_A_FWMARK", tunnel.fwmark),
        *_all_peers(tunnel.peers),
    ]


def _all_peers(peers: tuple[Peer, ...]) -> list[tuple[str, Any]]:
    return [
        ("WGDEVICE_A_FLAGS", REPLACE_PEERS),
        ("WGDEVICE_A_PEERS", [{"attrs": _peer_attributes(peer)} for peer in peers]),
    ]


def _peer_attributes(peer: Peer) -> list[tuple[str, Any]]:
    endpoint = endpoint_of(peer)
    attributes: list[tuple[str, Any]] = [
        ("WGPEER_A_PUBLIC_KEY", peer.public_key),
        ("WGPEER_A_FLAGS", REPLACE_ALLOWED_IPS),
        ("WGPEER_A_ENDPOINT", {"addr": str(endpoint.address), "port": endpoint.port}),
        ("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL", start_keepalive(peer)),
    ]
    if peer.preshared_key:
        attributes.append(("WGPEER_A_PRESHARED_KEY", peer.preshared_key.reveal()))
    allowed = [
        {
            "attrs": [
                ("WGALLOWEDIP_A_FAMILY", FAMILIES[network.version]),
                ("WGALLOWEDIP_A_IPADDR", network.network_address.packed),
                ("WGALLOWEDIP_A_CIDR_MASK", network.prefixlen),
            ]
        }
        for network in peer.allowed_ips
    ]
    return [*attributes, ("WGPEER_A_ALLOWEDIPS", allowed)]


def device_of(parts: list[Any]) -> Device:
    """Put the parts of one answer together; a peer that spans two of them is in both."""
    peers: dict[str, DevicePeer] = {}
    for part in parts:
        for entry in part.get_attr("WGDEVICE_A_PEERS") or ():
            key = entry.get_attr("WGPEER_A_PUBLIC_KEY").decode()
            peer = peers.get(key) or _peer(key, entry)
            allowed = {ip_network(a["addr"]) for a in entry.get_attr("WGPEER_A_ALLOWEDIPS") or ()}
            peers[key] = replace(peer, allowed_ips=peer.allowed_ips | allowed)
    device = parts[0]
    return Device(
        _secret(device.get_attr("WGDEVICE_A_PRIVATE_KEY")),
        device.get_attr("WGDEVICE_A_LISTEN_PORT"),
        device.get_attr("WGDEVICE_A_FWMARK"),
        tuple(peers.values()),
    )


def _peer(key: str, entry: Any) -> DevicePeer:
    endpoint = entry.get_attr("WGPEER_A_ENDPOINT")
    handshake = entry.get_attr("WGPEER_A_LAST_HANDSHAKE_TIME")
    return DevicePeer(
        public_key=key,
        endpoint=endpoint and Endpoint(ip_address(endpoint["addr"]), endpoint["port"]),
        preshared_key=_secret(entry.get_attr("WGPEER_A_PRESHARED_KEY")),
        persistent_keepalive=entry.get_attr("WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL") or 0,
        handshake=(handshake and handshake["tv_sec"] + handshake["tv_nsec"] / 1e9) or None,
        received=entry.get_attr("WGPEER_A_RX_BYTES") or 0,
        sent=entry.get_attr("WGPEER_A_TX_BYTES") or 0,
    )


def _secret(key: bytes | None) -> Secret | None:
    """Return the base64 `key`, or None for the all-zero one, which means none."""
    return None if key in {None, NO_KEY} else Secret(key.decode())
