"""The command itself: which parts the report has, and in which order."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial

from gateway.commands.asking import status_at
from gateway.commands.check.explain import explain
from gateway.commands.check.trial import try_variables
from gateway.commands.doctor import machine, network
from gateway.commands.doctor.hiding import Hiding, known_secrets
from gateway.commands.doctor.parts import Part, text_of
from gateway.commands.exit_codes import OK
from gateway.commands.showing import lines
from gateway.errors import GatewayError, NetworkError
from gateway.settings import early
from gateway.system import vault as vaults
from gateway.system.netns import OWN, Netns

RULES = 10000
"""Characters of the rules in nftables: enough for a dozen holes and Docker's own table."""

RULES_OF_VAULT = 9000
OF_VAULT = " of the vault"

INTRODUCTION = """\
# gateway doctor

For a bug report. It shows addresses of your networks, of the tunnel and of its server, ports, names
of links and of files, and a label for each public key. It does not show keys, user names, passwords
or your commands. Read it before you publish it. Add the end of the log, which shows no keys either:
docker logs --tail 200 CONTAINER"""


def doctor() -> int:
    """Print the report; a part that cannot be read says why, and the result is OK."""
    environ = early.environment()
    print(INTRODUCTION)
    for line in text_of(parts(environ), Hiding(known_secrets(environ))):
        print(line, flush=True)
    return OK


def parts(environ: Mapping[str, str]) -> list[Part]:
    """Return the parts of the report, the most useful ones first."""
    return [
        Part("Versions and machine", machine.versions, 1500),
        Part("Status", partial(status, environ)),
        Part("Configuration, as `gateway check` reports it", partial(configuration, environ), 7000),
        Part("Processes", machine.processes, 2500),
        Part("WireGuard", lambda: network.wireguard(_vault() or OWN), 3000),
        Part("Resolver file", network.resolver, 500),
        *of_namespace("", OWN, RULES),
        Part("Legacy tables", partial(network.legacy_tables, OWN), 7000),
        *_of_vault(),
    ]


def of_namespace(which: str, netns: Netns, rules: int) -> list[Part]:
    """Return the parts that each namespace has."""
    return [
        Part(f"Links{which}", partial(network.links, netns), 2000),
        Part(f"Policy rules{which}", partial(network.policy_rules, netns), 1500),
        Part(f"Routes{which}", partial(network.routing, netns), 2000),
        Part(f"Rules{which}, nftables", partial(network.tables, netns), rules),
        Part(f"Counters{which}", partial(network.counters, netns), 1500),
    ]


def _of_vault() -> list[Part]:
    """Return the parts of the vault next to this container, none without a vault."""
    try:
        vault = _vault()
    except GatewayError as err:
        return [Part("The vault", partial(_raise, err))]
    return of_namespace(OF_VAULT, vault, RULES_OF_VAULT) if vault else []


def _raise(error: GatewayError) -> Iterable[str]:
    raise error


def _vault() -> Netns | None:
    """Return the namespace of a vault, if it is not this one. Raises GatewayError."""
    vault = vaults.find()
    try:
        is_here = vault is not None and OWN.is_same(vault)
    except OSError as err:
        raise NetworkError(f"find the vault: {err.strerror}", "", err.errno) from err
    return None if is_here else vault


def status(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield what the gateway's health server answers."""
    address = early.health_address(environ)
    yield from lines(status_at(address.host, address.port))


def configuration(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the values in force with their origins, or what is wrong with them."""
    trial = try_variables(environ)
    if trial.loaded:
        yield explain(trial.loaded)
        return
    yield "This configuration is refused. In the container of an anchor or a vault it is empty."
    yield from map(str, trial.problems)
    yield from (f"{notice.weight}: {notice}" for notice in trial.notices)
