"""Made-up lists of servers in the form that each provider publishes, for tests."""

import base64
import json
from collections.abc import Callable
from typing import Any


def key(number: int) -> str:
    """Return a public key that is different for each number."""
    return base64.b64encode(number.to_bytes(32)).decode()


def mullvad() -> Any:
    """Return three relays: one in Amsterdam that is owned, one in Berlin, and one that is off."""
    return [
        {
            "hostname": f"{code}-wg-00{number}",
            "country_name": country,
            "city_name": city,
            "active": active,
            "owned": number == 1,
            "provider": isp,
            "ipv4_addr_in": f"198.51.100.{number}",
            "ipv6_addr_in": f"2001:db8:100::{number}",
            "type": "wireguard",
            "pubkey": key(number),
            "daita": False,
        }
        for number, (code, country, city, isp, active) in enumerate(
            [
                ("nl-ams", "Netherlands", "Amsterdam", "31173", True),
                ("de-ber", "Germany", "Berlin", "M247", True),
                ("se-got", "Sweden", "Gothenburg", "31173", False),
            ],
            1,
        )
    ]


def ivpn() -> Any:
    """Return a server with a WireGuard name, one without, and one that is off."""
    return {
        "servers": [
            {
                "hostnames": {"openvpn": "at1.gw.example", "wireguard": name},
                "is_active": active,
                "country": "Austria",
                "city": "Vienna",
                "isp": "Datapacket",
                "wg_public_key": key(number),
            }
            for number, (name, active) in enumerate(
                [("at1.wg.example", True), ("", True), ("at3.wg.example", False)], 1
            )
        ]
    }


def airvpn() -> Any:
    """Return a server that is well, and one that is not."""
    return {
        "servers": [
            {
                "public_name": name,
                "country_name": "Netherlands",
                "country_code": "nl",
                "location": "Alblasserdam",
                "continent": "Europe",
                "ip_v4_in1": f"198.51.100.{number}",
                "ip_v4_in3": f"198.51.100.{number + 100}",
                "ip_v6_in1": f"2001:db8:100::{number}",
                "health": health,
            }
            for number, (name, health) in enumerate([("Alchiba", "ok"), ("Diphda", "error")], 1)
        ],
        "result": "ok",
    }


def nordvpn() -> Any:
    """Return a server with WireGuard, one without, and one that is offline."""
    return {
        "servers": [
            {
                "hostname": f"pl{number}.nordvpn.example",
                "station": f"198.51.100.{number}",
                "status": status,
                "location_ids": [7],
                "group_ids": [11, 19],
                "technologies": [
                    {"id": technology, "metadata": [{"name": "public_key", "value": key(number)}]}
                ],
            }
            for number, (technology, status) in enumerate(
                [(35, "online"), (3, "online"), (35, "offline")], 1
            )
        ],
        "locations": [
            {"id": 7, "country": {"id": 174, "name": "Poland", "city": {"name": "Warsaw"}}}
        ],
        "groups": [
            {"id": 11, "title": "Standard VPN servers", "type": {"identifier": "legacy_group"}},
            {"id": 19, "title": "Europe", "type": {"identifier": "regions"}},
        ],
        "technologies": [
            {"id": 35, "identifier": "wireguard_udp"},
            {"id": 3, "identifier": "openvpn_udp"},
        ],
    }


def surfshark() -> Any:
    """Return a cluster with a key, and one without."""
    return [
        {
            "country": "Albania",
            "region": "Europe",
            "location": "Tirana",
            "connectionName": f"al-tia{number}.prod.example",
            "pubKey": public_key,
            "tags": ["p2p", "physical"],
        }
        for number, public_key in enumerate([key(1), ""], 1)
    ]


def windscribe() -> Any:
    """Return a group with two nodes, one of them without an address for WireGuard."""
    return {
        "data": [
            {
                "name": "US Central",
                "groups": [
                    {
                        "city": "Chicago",
                        "wg_pubkey": key(1),
                        "nodes": [
                            {"hostname": "us-c-1.example", "ip": "192.0.2.1", "ip3": "192.0.2.3"},
                            {"hostname": "us-c-2.example", "ip": "192.0.2.4"},
                        ],
                    }
                ],
            }
        ]
    }


def private_internet_access() -> Any:
    """Return a region with two servers, one that is offline, and one without WireGuard."""
    return {
        "groups": {"wg": [{"name": "wireguard", "ports": [1337]}]},
        "regions": [
            {
                "id": number,
                "name": name,
                "country": code,
                "dns": f"{code.lower()}.privacy.example",
                "port_forward": code == "NL",
                "geo": False,
                "offline": offline,
                "servers": {
                    "ovpnudp": [{"ip": "198.51.100.9", "cn": f"{code}9"}],
                    kind: [
                        {"ip": f"198.51.100.{each}", "cn": f"{name.lower()}40{each}"}
                        for each in (1, 2)
                    ],
                },
            }
            for number, (name, code, offline, kind) in enumerate(
                [
                    ("Netherlands", "NL", False, "wg"),
                    ("Sweden", "SE", True, "wg"),
                    ("Austria", "AT", False, "ikev2"),
                ]
            )
        ],
    }


LISTS: dict[str, Callable[[], Any]] = {
    made.__name__.replace("_", " "): made
    for made in (
        *(airvpn, ivpn, mullvad, nordvpn, private_internet_access, surfshark),
        windscribe,
    )
}
SIGNATURE = b"\n\nc2lnbmF0dXJl\n"
"""What Private Internet Access puts after its list."""


def raw(name: str) -> bytes:
    """Return the list of the provider `name` as its server sends it."""
    signature = SIGNATURE if name == "private internet access" else b""
    return json.dumps(LISTS[name]()).encode() + signature
