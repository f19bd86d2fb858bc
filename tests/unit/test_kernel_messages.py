"""Netlink messages: nothing that was asked for is left out on the way to the bytes."""

from typing import Any

import pytest
from pyroute2.netlink.generic.wireguard import wgmsg
from pyroute2.netlink.rtnl.fibmsg import fibmsg

from gateway.system.netlink import message
from gateway.system.route_messages import WHOLE_PORT, RuleMessage
from gateway.tunnel import kernel
from tests.unit.test_uapi import TUNNEL


def decoded(request: Any) -> Any:
    """Encode a message and read its bytes again."""
    request.reset()
    request.encode()
    answer = type(request)(bytes(request.data))
    answer.decode()
    return answer


def test_a_name_that_pyroute2_does_not_know_is_an_error() -> None:
    """The library would leave it out without a word."""
    assert message(fibmsg, {"family": 2}, [("FRA_SUPPRESS_PREFIXLEN", 0)])
    with pytest.raises(KeyError, match="suppress_prefixlength"):
        message(fibmsg, {}, [("suppress_prefixlength", 0)])
    with pytest.raises(KeyError, match="mark"):
        message(fibmsg, {"mark": 1})


def test_every_attribute_of_a_rule_can_be_read_whatever_else_was_read_before() -> None:
    """pyroute2 keeps what it knows of a class there, and its subclasses would inherit that."""
    decoded(message(fibmsg, {}, [("FRA_PRIORITY", 1)]))
    rule = message(RuleMessage, {}, [("FRA_SPORT_RANGE", "80:80"), ("FRA_SPORT_MASK", WHOLE_PORT)])
    assert decoded(rule).get_attr("FRA_SPORT_RANGE") == "80:80"
    assert decoded(rule).get_attr("FRA_SPORT_MASK") == WHOLE_PORT


def test_a_tunnel_survives_the_way_through_the_bytes_of_the_kernel() -> None:
    """Key, port, mark, both families' endpoints, preshared key and allowed IPs come back."""
    request = message(wgmsg, {"cmd": kernel.SET_DEVICE}, kernel.whole_device(TUNNEL))
    device = kernel.device_of([decoded(request)])
    assert device.differences(TUNNEL) == ()
    assert [peer.persistent_keepalive for peer in device.peers] == [25, 3600]
    assert decoded(request).get_attr("WGDEVICE_A_FLAGS") == kernel.REPLACE_PEERS


def test_a_peer_in_two_parts_of_an_answer_is_one() -> None:
    """The kernel continues in another message where the allowed IPs do not fit."""
    parts = [
        decoded(message(wgmsg, {}, kernel.whole_device(TUNNEL))),
        decoded(
            message(
                wgmsg,
                {},
                [
                    (
                        "WGDEVICE_A_PEERS",
                        [
                            {
                                "attrs": [
                                    ("WGPEER_A_PUBLIC_KEY", TUNNEL.peers[1].public_key),
                                    (
                                        "WGPEER_A_ALLOWEDIPS",
                                        [
                                            {
                                                "attrs": [
                                                    ("WGALLOWEDIP_A_FAMILY", 2),
                                                    ("WGALLOWEDIP_A_IPADDR", bytes([192, 0, 2, 0])),
                                                    ("WGALLOWEDIP_A_CIDR_MASK", 24),
                                                ]
                                            }
                                        ],
                                    ),
                                ]
                            }
                        ],
                    )
                ],
            )
        ),
    ]
    device = kernel.device_of(parts)
    assert device.private_key is not None
    assert [str(n) for n in sorted(device.peers[1].allowed_ips)] == ["10.0.0.0/8", "192.0.2.0/24"]
