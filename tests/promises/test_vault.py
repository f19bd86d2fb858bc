"""`gateway vault`: a closed namespace without uplinks, in which its process opens things."""

import errno
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway.errors import FirewallError
from gateway.firewall.nft.firewall import NftablesFirewall
from gateway.firewall.nft.program import Nft
from gateway.model import INTERFACE
from gateway.policy.firewall import closed
from gateway.system.netlink import Netlink
from gateway.system.netns import OWN
from gateway.system.vault import REQUEST, VaultNetns
from gateway.system.vault_process import CLAIM, MOST_CONNECTIONS, OPEN_FILE, OPEN_SOCKET
from tests.lab.gateway import Gateway
from tests.lab.process import PATIENCE, eventually
from tests.lab.topology import Lab

pytestmark = [pytest.mark.lab, pytest.mark.no_gateway, pytest.mark.promise("P1")]

PLACE = "run/portcullis/vault.sock"
MOST_MEMORY = 8 << 10
"""KiB, proportional (Pss of proc_pid_smaps(5))."""
NET_ADMIN = 12
BOUNDS = (5, 6, 7, 8, 10, NET_ADMIN)
"""What a resolver may get that the vault starts: KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE
(linux/capability.h)."""
LINK = struct.Struct("=BxHiII")
RTM_NEWLINK, IFLA_MTU = 16, 4


def ready(container: Gateway) -> VaultNetns:
    """Wait until the vault listens, and return its namespace."""
    place = container.container.root / PLACE

    def connected() -> VaultNetns | None:
        assert container.running, container.logs()
        try:
            return VaultNetns(place)
        except OSError:
            return None

    return eventually(connected, timeout=5, what="the vault")


@pytest.fixture
def container(lab: Lab) -> Gateway:
    """Return the container of a vault that has been started with a wrong configuration."""
    return lab.vault().start({"WIREGUARD_MTU": "9", "LOG_FORMAT": "json"})


@pytest.fixture
def vault(container: Gateway) -> Iterator[VaultNetns]:
    """Return the namespace of a vault that listens."""
    netns = ready(container)
    yield netns
    netns.close()


def open_rules(lab: Lab) -> None:
    """Let everything pass in the vault, and give it a link with the tunnel's name."""
    lab.vault_namespace.nft("add rule inet portcullis output accept; flush table inet portcullis")
    lab.vault_namespace.ip(f"tuntap add {INTERFACE} mode tun")


def rules(lab: Lab) -> str:
    """Return the rules of the vault."""
    return lab.vault_namespace.run("nft", "list", "table", "inet", "portcullis")


def claimed(vault: VaultNetns) -> socket.socket:
    """Return the claim, as soon as the vault is closed."""

    def attempt() -> socket.socket | None:
        try:
            return vault.claim()
        except BlockingIOError:
            return None

    return eventually(attempt, timeout=5, what="the claim")


def test_it_is_closed_small_and_has_one_capability(
    lab: Lab, container: Gateway, vault: VaultNetns
) -> None:
    """The closed rules and routes are there before it listens; it ends at once with 0."""
    del vault
    assert "P1 nothing else leaves" in rules(lab)
    assert "unreachable" in lab.vault_namespace.run("ip", "route", "show", "table", "51820")
    process = Path(f"/proc/{container.pid}")
    status = dict(
        line.split(":\t", 1) for line in (process / "status").read_text("ascii").splitlines()
    )
    assert {int(status[name], 16) for name in ("CapPrm", "CapEff")} == {1 << NET_ADMIN}
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    assert int(status["CapBnd"], 16) == sum(1 << it for it in BOUNDS)
    rollup = (process / "smaps_rollup").read_text("ascii").splitlines()
    assert next(int(line.split()[1]) for line in rollup if line.startswith("Pss:")) <= MOST_MEMORY
    began = time.monotonic()
    assert container.stop() == 0
    assert time.monotonic() - began < 0.2 * PATIENCE
    assert "P1 nothing else leaves" in rules(lab)


def test_it_reaps_what_it_inherits(container: Gateway, vault: VaultNetns) -> None:
    """As process 1; control: an orphan has come."""
    del vault
    code, _ = container.execute("sh", "-c", "sleep 1 >/dev/null 2>&1 & exec true")
    assert code == 0
    children = Path(f"/proc/{container.pid}/task/{container.pid}/children")
    assert children.read_text("ascii")
    eventually(lambda: not children.read_text("ascii"), timeout=4, what="no zombie")


def test_a_second_one_leaves_the_first_alone(container: Gateway, vault: VaultNetns) -> None:
    """By hand in the same container; the first one still listens."""
    code, said = container.execute(sys.executable, "-m", "gateway", "vault")
    assert (code, "a vault runs here already" in said) == (1, True)
    assert vault.links()
    ready(container).close()


def test_what_it_opens_belongs_to_its_namespace(lab: Lab, vault: VaultNetns) -> None:
    """Netlink, ioctl and files of /proc; here is another namespace, with other links."""
    lab.vault_namespace.ip("link add only index 77 type veth peer name other")
    assert vault.index_of("only") == 77
    assert vault.links()[77] == "only"
    assert "only" not in OWN.links().values()
    assert "only:" in vault.read("/proc/thread-self/net/dev")
    setting = "/proc/sys/net/ipv4/conf/only/arp_ignore"
    assert vault.is_writable(setting)
    vault.write(setting, "2")
    assert lab.vault_namespace.run("cat", setting) == "2\n"
    body = LINK.pack(0, 0, 77, 0, 0) + struct.pack("=HHI", 8, IFLA_MTU, 1300)
    Netlink(vault, socket.NETLINK_ROUTE).send("set mtu", "only", body, RTM_NEWLINK)
    assert "mtu 1300" in lab.vault_namespace.run("ip", "link", "show", "only")
    assert os.fstat(vault.descriptor()).st_ino == lab.vault_namespace.path.stat().st_ino


@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/../etc/passwd", "proc/self/net/dev"])
def test_it_opens_no_other_files(vault: VaultNetns, path: str) -> None:
    """Control: the same call with a file of /proc."""
    assert vault.read("/proc/self/net/dev")
    with pytest.raises(PermissionError):
        vault.read(path)


def test_it_cannot_be_entered(vault: VaultNetns) -> None:
    """So no program and no connection ends up in the wrong namespace."""
    with pytest.raises(PermissionError):
        vault.entered()
    assert not vault.can_be_entered


def test_one_at_a_time_has_the_claim_and_its_end_closes_the_vault(
    lab: Lab, vault: VaultNetns
) -> None:
    """The tunnel's link goes and the rules are closed before another one gets it.

    Control: both are open before.
    """
    claim = vault.claim()
    with pytest.raises(OSError, match="busy") as caught:
        vault.claim()
    assert caught.value.errno == errno.EBUSY
    open_rules(lab)
    assert INTERFACE in vault.links().values()
    assert "P1" not in rules(lab)
    claim.close()
    with claimed(vault):
        assert INTERFACE not in vault.links().values()
        assert "P1 nothing else leaves" in rules(lab)


def test_a_vault_that_starts_again_closes_what_it_finds(lab: Lab, container: Gateway) -> None:
    """A namespace that the container of the vault has kept, or a vault that is run twice."""
    ready(container).close()
    container.signal(9)
    container.wait()
    open_rules(lab)
    vault = ready(container.start({}))
    assert INTERFACE not in vault.links().values()
    assert "P1 nothing else leaves" in rules(lab)
    vault.close()


def test_nftables_are_set_read_and_compared_there(lab: Lab, vault: VaultNetns) -> None:
    """With the library of the program nft; the caller's own namespace has no table of ours.

    A rule of another program is found, what is refused is an error, and nothing changes then.
    """
    firewall = NftablesFirewall.find(Nft(netns=vault))
    assert firewall.verify(closed()) == ()
    lab.vault_namespace.nft("add rule inet portcullis output accept")
    assert firewall.verify(closed()) == ("chain output: not ours: accept",)
    firewall.apply(closed())
    assert firewall.verify(closed()) == ()
    assert firewall.refused()["ipv4", "out"] == 0
    nft = Nft(netns=vault)
    with pytest.raises(FirewallError, match="syntax error"):
        nft.load("add table inet portcullis_other\nnonsense\n")
    assert not nft.has("inet portcullis_other")
    assert not nft.accepts("add rule inet nowhere output accept")
    assert not Nft().has("inet portcullis")


def test_other_legacy_tables_in_a_vault_are_left_alone(lab: Lab, vault: VaultNetns) -> None:
    """They can only refuse more, and a gateway could not change them."""
    firewall = NftablesFirewall.find(Nft(netns=vault))
    lab.vault_namespace.run("iptables-legacy", "-P", "FORWARD", "DROP")
    assert firewall.verify(closed()) == ()


def test_nonsense_ends_only_the_connection_that_it_comes_on(vault: VaultNetns) -> None:
    """An operation that it does not know is an error; what is too short, the end."""
    with ExitStack() as stack:
        other = stack.enter_context(vault.claim())
        for request, number in (
            (REQUEST.pack(99, 0, 0, 0), errno.EINVAL),
            (REQUEST.pack(OPEN_SOCKET, 999, 1, 0), errno.EAFNOSUPPORT),
            (REQUEST.pack(OPEN_FILE, 0, 0, 0) + b"/proc/a\0b", errno.EINVAL),
        ):
            other.send(request)
            assert struct.unpack("i", other.recv(4)) == (number,)
        other.send(b"short")
        assert other.recv(4) == b""
    assert vault.links()


def test_too_many_connections_are_hung_up(vault: VaultNetns) -> None:
    """Those that it has continue."""
    with ExitStack() as stack:
        channels = [
            stack.enter_context(vault._connected())  # noqa: SLF001
            for _ in range(MOST_CONNECTIONS + 1)
        ]
        ends = []
        for channel in channels:
            try:
                channel.send(REQUEST.pack(CLAIM, 0, 0, 0))
                ends.append(channel.recv(4) == b"")
            except ConnectionError:
                ends.append(True)
        assert ends == [False] * (MOST_CONNECTIONS - 1) + [True] * 2
        assert vault.links()


@pytest.mark.promise("P2")
def test_it_refuses_a_namespace_with_an_uplink(lab: Lab) -> None:
    """The link is down then, and the remedy is in the log."""
    lab.vault_namespace.ip("link add eth0 type veth peer name far0", "link set eth0 up")
    container = lab.vault().start({})
    assert container.wait() == 1
    assert "network_mode: none" in container.logs()
    assert "state DOWN" in lab.vault_namespace.run("ip", "link", "show", "eth0")


def test_a_link_that_is_down_is_not_an_uplink(lab: Lab) -> None:
    """The kernel's modules for tunnels give every namespace one; it is left as it is."""
    lab.vault_namespace.ip("tuntap add tunl0 mode tun")
    ready(lab.vault().start({})).close()
    assert "DOWN" in lab.vault_namespace.run("ip", "link", "show", "tunl0")


@pytest.mark.promise("P2")
@pytest.mark.parametrize("lacks", ["net_admin", "setpcap"])
def test_what_it_may_not_do_is_said(lab: Lab, lacks: str) -> None:
    """NET_ADMIN is all that it needs; without SETPCAP it keeps what it was given."""
    given = {"net_admin", "net_raw", "setpcap"} - {lacks}
    container = lab.vault(capabilities=tuple(sorted(given))).start({})
    if lacks == "net_admin":
        assert container.wait() == 1
        assert "add NET_ADMIN to cap_add" in container.logs()
    else:
        ready(container).close()
