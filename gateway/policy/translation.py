"""Which packets get another address on their way between the uplinks and a vault, as a value."""

from ipaddress import ip_network

from gateway.model import Address, Config
from gateway.model.frozen import frozen
from gateway.policy.facts import Facts, Uplink
from gateway.policy.rules import Accept, Drop, Family, Rule
from gateway.policy.sets import ports


@frozen
class Translation:
    """Which packets get another address on their way.

    `arriving` get another destination before they are routed. `leaving` get the address of their
    uplink as their source after that; the kernel forgets their flows when the address goes. The
    rules say which packets are meant, and accept nothing: their verdicts do not count.
    `untranslated` are dropped after that: the kernel translates a flow at its first packet or
    never, and forgets a flow whose first packet was dropped.
    """

    arriving: tuple[tuple[Family, Rule, Address], ...] = ()
    leaving: tuple[tuple[Family, Rule], ...] = ()
    untranslated: tuple[tuple[Family, Rule], ...] = ()


def translation_for(config: Config, facts: Facts, hole: Uplink | None) -> Translation:
    """Return which addresses are translated between the uplinks of `facts` and the vault.

    `hole` is the end in the vault, None where there can be no holes.
    """
    if hole is None:
        return Translation()
    inner = {Family(address.version): address.ip for address in hole.addresses}
    pairs = [
        (Family(address.version), uplink, address)
        for uplink in facts.uplinks
        for address in uplink.addresses
        if Family(address.version) in inner
    ]
    listed = ports("input_ports", "P8 the listed input ports", config.input_ports)
    arriving = tuple(
        (
            family,
            Rule(
                why="P8 a listed input port, to the vault",
                verdict=Accept(),
                in_interface=uplink.name,
                destination=ip_network(address.ip),
                protocol=protocol,
                destination_ports=listening,
            ),
            inner[family],
        )
        for family, uplink, address in pairs
        for protocol, listening in listed
    )
    leaving = tuple(
        (
            family,
            Rule(
                why="P7 from the vault, as this uplink",
                verdict=Accept(),
                out_interface=link,
                source=ip_network(inner[family]),
            ),
        )
        for family, link in dict.fromkeys((family, uplink.name) for family, uplink, _ in pairs)
        if config.outbound_subnets
    )
    untranslated = tuple(
        (
            family,
            Rule(
                why="P7 the vault's own address",
                verdict=Drop(),
                source=ip_network(address),
            ),
        )
        for family, address in inner.items()
    )
    return Translation(arriving, leaving, untranslated)
