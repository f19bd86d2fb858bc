"""What a vault and its gateway's own namespace must hold, state by state.

The golden files in tests/golden/vault are to be read as those of `test_policy_golden`: `.inside`
for the vault, `.outside` for the namespace with the uplinks.
"""

import os
from dataclasses import replace
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest

from gateway.firewall.nft import render as render_nftables
from gateway.firewall.nft.render import transaction
from gateway.firewall.nft.translation import TABLE, render_translation
from gateway.firewall.xtables import render as render_iptables
from gateway.model import INTERFACE, Config, HostPort, PortRange, Protocol
from gateway.policy.facts import Facts, Uplink
from gateway.policy.firewall import closed
from gateway.policy.holes import open_in
from gateway.policy.marks import SHOWN as SHOWN_MARK
from gateway.policy.passage import (
    INNER,
    OUTSIDE,
    collision,
    divided,
    inner_end,
    with_mtu,
    within_reach,
)
from gateway.policy.routing import LOCKED
from gateway.policy.rules import Accept, Chain, CtDirection, Family
from gateway.policy.states import Connected, Locked, State, Stopping
from gateway.policy.wanted import Vault, wanted_in
from tests.scenarios import CHOSEN_MARK, DUAL, FLOW_MARK, SCENARIOS
from tests.unit.test_policy_golden import routing_text

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "vault"
SHOWN = (
    "locked",
    "resolving",
    "resolving-by-docker",
    "connecting",
    "connected",
    "connected-ipv6-endpoint",
    "connected-holes-two-uplinks",
    "connected-many-holes",
    "connected-guarded",
    "connected-resolver",
    "connected-local-zones",
)


def vault_for(config: Config) -> Vault:
    """Return a vault on a machine that can forward IPv6; `config` decides what it is used for."""
    del config
    return Vault(inner_end((4, 6)))


def texts_of(state: State, config: Config, facts: Facts) -> dict[str, str]:
    """Return the text of each golden file by its suffix."""
    wanted = wanted_in(state, config, facts, vault=vault_for(config))
    assert wanted.inside is not None
    return {
        "inside.nft": render_nftables.render(wanted.inside.rules),
        "inside.routes": routing_text(wanted.inside.routing),
        "outside.ipt4": render_iptables.render(wanted.rules, Family.IPV4),
        "outside.ipt6": render_iptables.render(wanted.rules, Family.IPV6),
        "outside.nft": render_nftables.render(wanted.rules),
        "outside.routes": routing_text(wanted.routing),
        "translation.nft": transaction(TABLE, render_translation(wanted.inside.translation)),
    }


@pytest.mark.parametrize("name", SHOWN)
def test_the_policy_of_both_namespaces_reads_as_its_golden_files_say(name: str) -> None:
    """`GOLDEN=write` writes them again."""
    texts = texts_of(*SCENARIOS[name])
    if os.environ.get("GOLDEN") == "write":
        GOLDEN.mkdir(exist_ok=True)
        for suffix, text in texts.items():
            (GOLDEN / f"{name}.{suffix}").write_text(text, "utf-8")
    assert texts == {suffix: (GOLDEN / f"{name}.{suffix}").read_text("utf-8") for suffix in texts}


def test_every_golden_file_of_a_vault_is_read() -> None:
    """A file that no test reads would be an unchecked claim."""
    assert {path.name.split(".")[0] for path in GOLDEN.iterdir()} == set(SHOWN)


@pytest.mark.parametrize("name", [name for name in SCENARIOS if not name.startswith("connected")])
def test_a_vault_that_is_not_connected_has_input_ports_and_nothing_else(name: str) -> None:
    """No rule of its own prepares anything."""
    state, config, facts = SCENARIOS[name]
    for while_down in (True, False):
        listed = replace(config, input_ports_while_down=while_down)
        inside = wanted_in(state, listed, facts, vault=vault_for(config)).inside
        assert inside is not None
        serves = while_down and config.input_ports and not isinstance(state, Locked | Stopping)
        assert (inside.rules == closed()) == (not serves)
        for family in Family:
            for rules in inside.rules.of(family).values():
                accepting = [it for it in rules if it.verdict == Accept() and it.why != "loopback"]
                assert all(rule.why[:3] in {"P8 ", "P12"} for rule in accepting)


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_mark_and_no_endpoint_is_in_a_vault(name: str) -> None:
    """What distinguishes the encrypted flow is of no use there, so it is not shown there."""
    state, config, facts = SCENARIOS[name]
    texts = texts_of(state, config, facts)
    assert f"{SHOWN_MARK:#x}/" not in texts["inside.routes"]
    assert f"{FLOW_MARK:#x}" not in texts["inside.nft"]
    assert f"{CHOSEN_MARK:#x}" not in texts["inside.nft"]
    assert "P3" not in texts["inside.nft"]


@pytest.mark.parametrize("name", SCENARIOS)
def test_outside_nothing_uses_the_tunnel(name: str) -> None:
    """The interface is elsewhere: no route, and no rule that accepts."""
    state, config, facts = SCENARIOS[name]
    wanted = wanted_in(state, config, facts, vault=vault_for(config))
    assert all(route.interface != INTERFACE for route in wanted.routing.routes)
    for family in Family:
        for rules in wanted.rules.of(family).values():
            assert all(INTERFACE not in {it.in_interface, it.out_interface} for it in rules)


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_is_forwarded_passes_between_the_vault_and_one_uplink(name: str) -> None:
    """Each accepting rule names both links, the vault's address and how its flow began."""
    state, config, facts = SCENARIOS[name]
    wanted = wanted_in(state, config, facts, vault=vault_for(config))
    uplinks = {uplink.name for uplink in facts.uplinks}
    for family in Family:
        inner = ip_network(INNER[family.value].ip)
        accepted = [
            rule for rule in wanted.rules.of(family)[Chain.FORWARD] if rule.verdict == Accept()
        ]
        for rule in accepted:
            out = rule.in_interface == OUTSIDE
            assert {rule.in_interface, rule.out_interface} & uplinks
            assert OUTSIDE in {rule.in_interface, rule.out_interface}
            assert (rule.source if out else rule.destination) == inner
            assert rule.ct_states
            assert rule.protocol or (rule.source and rule.ct_direction is CtDirection.REPLY)
        listed, _ = open_in(state, config)
        assert bool(accepted) == _has(family, facts, listed)


def _has(family: Family, facts: Facts, config: Config) -> bool:
    """Return whether a hole of `family` is listed, and an uplink has an address of it."""
    subnets = within_reach(config, facts).outbound_subnets
    listed = config.input_ports or any(map(family.has, subnets))
    return bool(listed) and any(family.has(it) for up in facts.uplinks for it in up.addresses)


def test_the_way_to_the_server_is_made_before_the_interface() -> None:
    """Outside; the vault has no route into a tunnel that is not there."""
    state, config, facts = SCENARIOS["locked"]
    wanted = wanted_in(state, config, facts, DUAL, vault=vault_for(config))
    assert wanted.inside is not None
    assert wanted.inside.routing == LOCKED
    assert wanted.routing != LOCKED


def test_without_a_vault_there_is_one_namespace() -> None:
    """With the same rules as ever."""
    state, config, facts = SCENARIOS["connected"]
    assert isinstance(state, Connected)
    wanted = wanted_in(state, config, facts)
    assert wanted.inside is None
    accepted = wanted.rules.of(Family.IPV4)[Chain.OUTPUT]
    assert any(it.out_interface == INTERFACE and it.verdict == Accept() for it in accepted)


@pytest.mark.parametrize(
    ("versions", "mtus", "expected"),
    [
        ((4, 6), (), 1500),
        ((4, 6), (1500, 1500), 1500),
        ((4, 6), (1500, 1400), 1400),
        ((4, 6), (9000,), 1500),
        ((4, 6), (1000,), 1280),
        ((4,), (1000,), 1000),
    ],
)
def test_packets_of_a_hole_fit_every_uplink(
    versions: tuple[int, ...], mtus: tuple[int, ...], expected: int
) -> None:
    """IPv6 has a smallest size, below which a link loses its addresses."""
    facts = Facts(tuple(Uplink(f"eth{n}", n, mtu) for n, mtu in enumerate(mtus, 2)))
    assert with_mtu(inner_end(versions), facts).mtu == expected


@pytest.mark.parametrize(
    ("address", "collides"),
    [
        ("169.254.207.2/30", True),
        ("169.254.1.1/16", True),
        ("fd70:6f72:7463:756c::9/64", True),
        ("172.17.0.2/16", False),
        ("169.254.207.5/30", False),
    ],
)
def test_an_uplink_may_not_have_addresses_of_the_link(address: str, *, collides: bool) -> None:
    """The text names both."""
    found = collision(Facts((Uplink("eth7", 7, 1500, (ip_interface(address),)),)))
    assert bool(found) == collides
    assert (address in found and "eth7" in found) == collides


@pytest.mark.parametrize(
    ("host", "listed", "forwarded", "served"),
    [
        ("127.0.0.1", "9999/tcp", "9999/tcp", ""),
        ("::1", "9999/tcp", "9999/tcp", ""),
        ("", "9999/tcp", "", "9999/tcp"),
        ("0.0.0.0", "80/tcp 9999/udp", "80/tcp 9999/udp", ""),
        ("172.17.0.2", "80/tcp 9990-10000/tcp", "80/tcp 9990-9998/tcp 10000/tcp", "9999/tcp"),
        ("::", "9999-10000/tcp 9990-9999/udp", "10000/tcp 9990-9999/udp", "9999/tcp"),
    ],
)
def test_the_port_of_the_health_server_does_not_lead_to_the_vault(
    host: str, listed: str, forwarded: str, served: str
) -> None:
    """Unless only the gateway's own namespace reaches the server: then the port is a workload's."""
    server = HostPort(host, 9999)
    config = Config((DUAL,), input_ports=tuple(map(_port, listed.split())), health_server=server)
    there, here = divided(config)
    assert [str(it) for it in there.input_ports] == forwarded.split()
    assert [str(it) for it in here.input_ports] == served.split()
    assert there.health_server == here.health_server == server


def test_the_port_of_the_control_api_does_not_lead_to_the_vault_either() -> None:
    """Both servers keep theirs, and what is between them is a workload's."""
    listed = (_port("7999-8001/tcp"), _port("8000/udp"), _port("9999/tcp"))
    config = Config((DUAL,), input_ports=listed, health_server=HostPort("", 9999))
    config = replace(config, control_server=HostPort("", 8000))
    there, here = divided(config)
    assert [str(it) for it in there.input_ports] == ["7999/tcp", "8001/tcp", "8000/udp"]
    assert [str(it) for it in here.input_ports] == ["9999/tcp", "8000/tcp"]


def _port(text: str) -> PortRange:
    ports, _, protocol = text.partition("/")
    first, _, last = ports.partition("-")
    return PortRange(Protocol(protocol), int(first), int(last or first))
