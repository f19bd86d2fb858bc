"""Proton VPN: its list takes a login, so its servers come from the files that it generates."""

from ipaddress import ip_address, ip_interface

from gateway.providers.server import Provider

PROTONVPN = Provider(
    name="protonvpn",
    title="Proton VPN",
    ports=(51820,),
    filters=(),
    addresses=(ip_interface("10.2.0.2/32"),),
    resolvers=(ip_address("10.2.0.1"),),
    other_names=("proton", "proton vpn"),
    remark="Proton VPN shows its list only after a login. Download a WireGuard file from "
    "account.protonvpn.com, under Downloads (with NAT-PMP for a forwarded port), and mount it at "
    "`/config/wg0.conf`; with several, mount their folder at `/config`. All variables can stay.",
)
