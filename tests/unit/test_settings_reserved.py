"""Nothing may have an address of the link between the gateway's namespace and a vault."""

from pathlib import Path

import pytest

from gateway.settings import assemble
from tests.configurations import COMPLETE, problems

IN_IT = {
    "WIREGUARD_ADDRESSES": ("169.254.207.2/32", "fd70:6f72:7463:756c::1/128", "169.254.207.3/16"),
    "DNS_ADDRESS": ("fd70:6f72:7463:756c::2",),
    "FIREWALL_OUTBOUND_SUBNETS": ("169.254.207.0/30", "fd70:6f72:7463:756c::2/128"),
}
BESIDE_IT = {
    "WIREGUARD_ADDRESSES": ("169.254.207.4/32", "fd70:6f72:7463:756c::4/128"),
    "DNS_ADDRESS": ("fd70:6f72:7463:756c::4",),
    "FIREWALL_OUTBOUND_SUBNETS": ("169.254.0.0/16", "169.254.207.0/24", "fd70::/16"),
}


@pytest.mark.parametrize(("name", "text"), [(k, v) for k, all_ in IN_IT.items() for v in all_])
def test_an_address_of_the_link_is_refused_by_the_name_of_its_variable(
    tmp_path: Path, name: str, text: str
) -> None:
    """In every layout: the configuration does not say which one it is for."""
    found = problems({**COMPLETE, name: text}, tmp_path)
    assert [it for it in found if it.startswith(f"{name}: ") and "a vault has" in it]


@pytest.mark.parametrize(("name", "text"), [(k, v) for k, all_ in BESIDE_IT.items() for v in all_])
def test_its_neighbours_and_larger_subnets_are_taken(tmp_path: Path, name: str, text: str) -> None:
    """A list of all link-local addresses is not about the link.

    A resolver may be unreachable, which is a warning.
    """
    assert assemble.load({**COMPLETE, name: text}, tmp_path)
