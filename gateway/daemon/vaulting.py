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
from gateway.policy.passage import INSIDE as HOLE
from gateway.policy.topology import VAULT, LinkKind
from gateway.system.features import missing_capabilities
from gateway.system.link_down import IFF_UP, links_down
from gateway.system.links import Links
from gateway.system.namespace import Namespace
from gateway.system.process import find_program
from gateway.system.vault import PLACE

INSIDE = VAULT.holder_of(LinkKind.TUNNEL)
PROGRAM = Path(__file__).parents[1] / "system" / "vault_process.py"
CAPABILITY = "net_admin"
"""The one that is kept: a netlink socket can do what who opened it may do."""


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
    patiently(_make_place)
    closed = _closed_rules()
    program = [sys.executable, "-I", "-S", str(PROGRAM)]
    argv = [*program, str(PLACE), str(closed), INTERFACE, HOLE]
    if not missing_capabilities("SETPCAP"):
        bounds = f"--bounding-set=-all,+{CAPABILITY}"
        limited = [find_program("setpriv"), bounds, "--inh-caps=-all", "--no-new-privs", "--"]
        argv = [*limited, *argv]
    patiently(lambda: os.execve(argv[0], argv, {}))  # noqa: S606 - that is the purpose
    raise AssertionError("execve(2) returned")


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


def _make_place() -> None:
    """Make the directory that the vault listens in, and remove the socket of an earlier one."""
    try:
        PLACE.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        PLACE.parent.chmod(0o700)
        PLACE.unlink(missing_ok=True)
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
