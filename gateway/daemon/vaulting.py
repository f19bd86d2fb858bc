"""`gateway vault`: closes a namespace that has workloads and no uplink, for a gateway elsewhere.

The gateway's container keeps the uplinks, makes the tunnel's link there and moves it in here, so
that the encrypted socket stays outside (docs/layouts.md). Here, nothing reads a configuration or
has a key. What stays is `system.vault_process`, which the gateway reaches with `system.vault`.
"""

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import structlog

from gateway.daemon.securing import (
    UPLINKS,
    log_limits,
    older_flows_forgotten,
    patiently,
)
from gateway.errors import FirewallError, MissingError, NetworkError
from gateway.firewall.nft.firewall import NftablesFirewall
from gateway.firewall.nft.program import Nft
from gateway.firewall.nft.render import TABLE, render_chains, transaction
from gateway.model import INTERFACE
from gateway.model.name_server import RESOLVER_USER
from gateway.policy.passage import INSIDE as HOLE
from gateway.policy.topology import VAULT, LinkKind
from gateway.services.confined import command
from gateway.services.resolver.in_vault import CONFIGURED
from gateway.system.features import gains_no_privileges, lacks_id, missing_capabilities
from gateway.system.link_down import IFF_UP, links_down
from gateway.system.links import Links
from gateway.system.namespace import Namespace
from gateway.system.process import find_program
from gateway.system.vault import NAMES, PLACE
from gateway.system.vault_process import CHANNEL

INSIDE = VAULT.holder_of(LinkKind.TUNNEL)
SYSTEM = Path(__file__).parents[1] / "system"
PROGRAM, KEEPER = SYSTEM / "vault_process.py", SYSTEM / "vault_keeper.py"
CAPABILITY = "net_admin"
"""The one that is kept: a netlink socket can do what who opened it may do."""
OF_RESOLVER = ("kill", "net_bind_service", "setgid", "setpcap", "setuid")
"""Those that a resolver with a user of its own takes. Its keeper gets them, and gives up none: it
reads no more than the number of a signal."""


def close() -> None:
    """Close the namespace and read that back; needs no configuration.

    Raises MissingError or KernelError; what is closed stays so. A vault that runs here already is
    left alone.
    """
    _refuse_second()
    links = Links(INTERFACE, UPLINKS)
    firewall = patiently(lambda: NftablesFirewall.find(Nft(netns=UPLINKS)))
    patiently(lambda: _closed(firewall, links))
    structlog.get_logger().info("locked", firewall=firewall.name)


def wait() -> NoReturn:
    """Become the process that opens things for a gateway, and ends with 0 on SIGTERM or SIGINT."""
    user = RESOLVER_USER if _may_have_users() else 0
    patiently(lambda: _make_place(user))
    closed = _closed_rules()
    links = f"{INTERFACE},{HOLE}"
    argv = [*_python(PROGRAM), str(PLACE), str(closed), links, str(user), *_resolver(user)]
    if not missing_capabilities("SETPCAP"):
        kept = (CAPABILITY, *(OF_RESOLVER if user else ()))
        bounds = ",".join(["-all", *(f"+{it}" for it in kept)])
        limited = [find_program("setpriv"), f"--bounding-set={bounds}", "--inh-caps=-all"]
        argv = [*limited, *(() if user else ("--no-new-privs",)), "--", *argv]
    patiently(lambda: os.execve(argv[0], argv, {}))  # noqa: S606 - that is the purpose
    raise AssertionError("execve(2) returned")


def _may_have_users() -> bool:
    """Return whether a resolver can have a user of its own here, by which rules know it."""
    lacks = missing_capabilities("CHOWN", "KILL", "SETGID", "SETUID")
    return not lacks and not lacks_id(RESOLVER_USER) and not gains_no_privileges()


def _resolver(user: int) -> list[str]:
    """Return the command of the resolver with its keeper, nothing if it is not installed."""
    try:
        unbound = find_program("unbound")
    except MissingError:
        return []
    return [*_python(KEEPER), str(CHANNEL), *command(user, unbound, "-c", CONFIGURED)]


def _python(program: Path) -> list[str]:
    return [sys.executable, "-I", "-S", str(program)]


def _closed(firewall: NftablesFirewall, links: Links) -> None:
    """Put the closed rules and routes into force; refuse a namespace with an uplink."""
    firewall.apply(INSIDE.closed)
    if problems := firewall.verify(INSIDE.closed):
        raise FirewallError("closing the vault", "; ".join(problems))
    _refuse_uplinks(links)
    namespace = Namespace(links)
    if not namespace.has_routing(INSIDE.locked):
        log_limits(older_flows_forgotten())
        namespace.apply_routing(INSIDE.locked)


def _refuse_uplinks(links: Links) -> None:
    """Set every uplink down, and raise MissingError if there is one.

    A link that is down is none: some modules give every namespace one, such as tunl0 of ipip.
    """
    links.leave_out(HOLE)
    others = links.others().values()
    names = [link.get_attr("IFLA_IFNAME") for link in others if link["flags"] & IFF_UP]
    if names:
        up = links_down(names, links.netns)
        state = f"still up: {', '.join(map(ascii, up))}" if up else "it is down"
        raise MissingError(
            f"a vault has no uplink, and this one has {', '.join(map(ascii, names))} ({state})",
            "give the vault `network_mode: none`, and its networks and ports to the gateway",
        )


def _refuse_second() -> None:
    """Raise MissingError if another process of this container listens as its vault."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel, suppress(OSError):
        channel.connect(str(PLACE))
        raise MissingError("a vault runs here already", "run `gateway vault` once in a container")


def _make_place(user: int) -> None:
    """Make the directory that the vault listens in, and remove the socket of an earlier one.

    In it, a resolver that runs as `user` has a directory for its own socket. That gets the group of
    the directory, so a gateway reaches it as root without a capability.
    """
    try:
        PLACE.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        PLACE.parent.chmod(0o711)
        PLACE.unlink(missing_ok=True)
        NAMES.mkdir(mode=0o700, exist_ok=True)
        os.chown(NAMES, 0, 0, follow_symlinks=False)  # else the next call takes a capability
        NAMES.chmod(0o2770)
        os.chown(NAMES, user, 0, follow_symlinks=False)
    except PermissionError as err:
        raise _not_writable(err) from err
    except OSError as err:
        raise NetworkError(f"make: {err.strerror}", str(PLACE.parent), err.errno) from err


def _not_writable(error: OSError) -> MissingError:
    return MissingError(
        f"{PLACE.parent} cannot be written ({error.strerror})",
        "give the vault a directory of its own there: `tmpfs: [/run]` in compose",
    )


def _closed_rules() -> int:
    """Return a descriptor of the closed rules as nft reads them, which the next program keeps."""
    descriptor = os.memfd_create("closed", 0)
    os.write(descriptor, transaction(TABLE, render_chains(INSIDE.closed)).encode())
    return descriptor
