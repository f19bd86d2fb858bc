"""The gateway's own resolver with a vault: it runs in there, and what is promised of it holds.

The upstream is that of `test_own_resolver`, at the server's address inside the tunnel.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from gateway.firewall.nft.firewall import HIJACK
from gateway.model.name_server import RESOLVER_USER
from gateway.policy.limits import LimitCode
from gateway.policy.states import Reason
from gateway.policy.unbound import ROOT_KEYS
from gateway.services.resolver.service import LOOK_EVERY
from tests.lab import lists, questions
from tests.lab.encrypted import NAME, EncryptedResolver
from tests.lab.gateway import Gateway, Health
from tests.lab.internet import LAN_HOST, LAN_SUBNETS
from tests.lab.process import PATIENCE, LabError, eventually
from tests.lab.server import INSIDE, RESOLVED
from tests.lab.signed import signed_root
from tests.lab.tls import Authority, authority
from tests.lab.topology import Lab
from tests.promises import test_block_lists as block_lists
from tests.promises.hijacking import TRUE_ANSWER, WAYS, ask
from tests.promises.hijacking import Site as HijackedSite
from tests.promises.test_own_resolver import ANSWER, AT_ONCE, upstream
from tests.promises.test_resolver_load import RATE, SECONDS, counted, is_up
from tests.promises.test_signed_names import NAMES
from tests.promises.test_vault import ready, rules
from tests.promises.test_vault_gateway import Site

pytestmark = [pytest.mark.lab, pytest.mark.promise("P10")]

FOR_LISTS = (lists.RESOLVER, lists.PROVIDER)
"""Where the gateway asks for a list, and from where it fetches it."""


class Resolving(Site):
    """A vault whose workloads ask the gateway's own resolver."""

    def __init__(
        self, lab: Lab, trusted: Authority | None = None, vault: Gateway | None = None
    ) -> None:
        super().__init__(lab, vault)
        self.wanted: dict[str, str | None] = {"DNS_SERVER": None}
        if trusted:
            asked = f"{INSIDE.ipv4}@853#{NAME}"
            self.wanted |= {"DNS_ADDRESS": None, "DNS_UPSTREAM_RESOLVERS": asked}
            self.wanted |= {"SSL_CERT_FILE": str(trusted.certificate)}

    def resolving(self, **changes: str | None) -> Health:
        """Start the gateway and return its health once it is green."""
        self.gateway.start(self.gateway.env(**(self.wanted | changes)))
        return self.gateway.wait_healthy(timeout=20)

    def resolved(self, name: str) -> list[str]:
        """Return the addresses that a workload finds for `name`, through the resolver file."""
        found = self.vault.workload().probe("resolve", name=name)
        return list(found.fields.get("addresses", []))

    def children(self) -> dict[str, int]:
        """Return the processes that the vault has started, by what they run."""
        found: dict[str, int] = {}
        todo = [self.vault.pid]
        while todo:
            parent = todo.pop()
            path = Path(f"/proc/{parent}/task/{parent}/children")
            try:
                ids = [int(it) for it in path.read_text("ascii").split()]
            except OSError:
                continue
            for pid in ids:
                try:
                    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                except OSError:  # it has just ended
                    continue
                name = next((it for it in words if b"vault_keeper" in it), words[0])
                found[os.fsdecode(name).rpartition("/")[2]] = pid
            todo += ids
        return found

    def child(self) -> int:
        """Return the process of the resolver."""
        return eventually(lambda: self.children().get("unbound"), timeout=10, what="the resolver")


def test_names_resolve_in_a_vault_without_any_setting(lab: Lab) -> None:
    """The tunnel's resolver is asked, through the tunnel, by the gateway's own at 127.0.0.1.

    The control is a question to a resolver outside, which is seen.
    """
    before = lab.gateway(resolv_conf="nameserver 198.51.100.10\n")
    before.workload().probe("resolve", name="before.example")
    assert lab.capture.containing("before"), "control: a question outside is seen"
    before.close()
    site = Resolving(lab)
    site.gateway.write("/config/wg0.conf", site.gateway.wg_quick())
    site.gateway.start({"LOG_LEVEL": "debug", "LOG_FORMAT": "json"})
    health = site.gateway.wait_healthy(timeout=20)
    assert set(site.resolved("one.example")) == set(RESOLVED)
    assert lab.server.queries(name="one.example")
    assert not lab.capture.containing("one")
    assert "nameserver 127.0.0.1\n" in site.vault.resolv_conf()
    assert health.body["resolver"]["answers"]
    assert not [it for it in health.body["limits"] if "resolver" in it["code"]]
    assert lab.leaks(site.gateway.started_at + 1) == []
    refused = lab.vault_workload.probe("dns", server="127.0.0.11", name="docker.example")
    assert refused.failed_fast
    code, said = site.gateway.execute(sys.executable, "-m", "gateway", "verify")
    assert code == 0, said


def fields_of(pid: int) -> dict[str, str]:
    """Return the fields of proc_pid_status(5)."""
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def namespace_of(pid: int) -> int:
    """Return the number of the network namespace of a process."""
    return Path(f"/proc/{pid}/ns/net").stat().st_ino


def test_it_has_a_user_of_its_own_and_asks_over_tls_and_ends_with_the_gateway(
    lab: Lab, trusted: Authority
) -> None:
    """Only the capability for port 53 is left to it. The authorities are those of the gateway.

    It is in the vault's namespace, and what it reads cannot be changed. A gateway that is killed
    leaves no resolver behind, and the vault is closed.
    """
    asked = upstream(lab, trusted.issue(NAME))
    site = Resolving(lab, trusted)
    site.resolving()
    assert site.resolved("one.example") == [ANSWER]
    assert asked.was_asked("one.example")
    assert not lab.server.queries(name="one.example"), "not unencrypted in the tunnel either"
    assert not lab.capture.containing("one")
    pid = site.child()
    fields = fields_of(pid)
    assert namespace_of(pid) == lab.vault_namespace.path.stat().st_ino
    assert set(fields["Uid"].split()) == set(fields["Gid"].split()) == {str(RESOLVER_USER)}
    assert fields["Groups"].strip() == ""
    assert fields["NoNewPrivs"] == "1"
    for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(fields[name], 16) == 1 << 10, name
    assert int(fields["SigBlk"], 16) == 0
    for number in (41, 42):
        with pytest.raises(PermissionError):
            Path(f"/proc/{pid}/fd/{number}").write_bytes(b"x")
    assert int(fields_of(site.vault.pid)["CapPrm"], 16) == 1 << 12
    assert site.children().keys() >= {"vault_keeper.py", "unbound"}
    site.gateway.kill()
    eventually(lambda: not site.children(), timeout=5, what="the end of all of it")
    site.is_closed()


@pytest.mark.parametrize("which", ["unbound", "vault_keeper.py"])
def test_a_killed_resolver_is_started_again(lab: Lab, trusted: Authority, which: str) -> None:
    """Names fail at once meanwhile, and health is red with the reason; none is left over."""
    upstream(lab, trusted.issue(NAME))
    site = Resolving(lab, trusted)
    site.resolving()
    for _ in range(4):  # the pauses become longer
        former = site.child()
        os.kill(site.children()[which], signal.SIGKILL)
        eventually(lambda: site.children().get("unbound") != former, timeout=5, what="its end")  # noqa: B023
    eventually(
        lambda: site.gateway.status().body["reason_code"] == Reason.RESOLVER_DOWN,
        timeout=5,
        what="the reason",
    )
    answer = lab.vault_workload.probe("dns", server="127.0.0.1", name="one.example")
    assert answer.failed_fast or answer.result == "answered"
    site.gateway.wait_healthy(timeout=30)
    assert site.resolved("two.example") == [ANSWER]
    assert site.gateway.status().body["resolver"]["starts"] >= 2
    assert site.gateway.events(event="resolver failed")
    assert len(site.children()) == 2, site.children()


@pytest.mark.parametrize("which", ["unbound", "vault_keeper.py"])
def test_a_resolver_that_hangs_is_started_again_and_halts_nothing(
    lab: Lab, trusted: Authority, which: str
) -> None:
    """Meanwhile the gateway does its work: a tunnel that is lost is there again.

    Without its keeper, a resolver cannot be ended. It is ended once the keeper continues.
    """
    upstream(lab, trusted.issue(NAME))
    site = Resolving(lab, trusted)
    site.resolving()
    former, keeper = site.child(), site.children()["vault_keeper.py"]
    os.kill(former, signal.SIGSTOP)
    if which != "unbound":
        os.kill(keeper, signal.SIGSTOP)
    lab.vault_namespace.run("ip", "link", "delete", "wg0")
    eventually(lambda: "wg0" in site.links(), timeout=5, what="the tunnel")
    site.gateway.wait_for_state("connected", timeout=5)
    site.works()
    if which != "unbound":
        eventually(
            lambda: (
                "does not end in the vault" in site.gateway.logs()
                or site.gateway.status().body["resolver"]["problem"]
            ),
            timeout=90,
            what="the problem",
        )
        os.kill(keeper, signal.SIGCONT)
    eventually(lambda: not Path(f"/proc/{former}").exists(), timeout=60, what="its end")
    site.gateway.wait_healthy(timeout=60)
    assert site.resolved("one.example") == [ANSWER]


def test_a_vault_that_is_halted_keeps_its_resolver(lab: Lab) -> None:
    """It is a shortage: whether the resolver answers cannot be asked. It is the same one then."""
    site = Resolving(lab)
    site.resolving()
    former = site.child()
    site.vault.signal(signal.SIGSTOP)
    eventually(
        lambda: site.gateway.status().body.get("reason_code") == "kernel_unavailable",
        timeout=10,
        what="the shortage",
    )
    time.sleep(2.5 * LOOK_EVERY)
    assert site.resolved("one.example"), "it answers"
    site.vault.signal(signal.SIGCONT)
    site.gateway.wait_healthy(20)
    assert site.child() == former
    site.vault.signal(signal.SIGSTOP)
    began = time.monotonic()
    site.gateway.stop()
    assert time.monotonic() - began < 9 * PATIENCE
    site.vault.signal(signal.SIGCONT)
    eventually(lambda: not site.children(), timeout=5, what="its end")


def test_a_silent_upstream_makes_health_red(lab: Lab, trusted: Authority) -> None:
    """Addresses work, names do not."""
    asked = upstream(lab, trusted.issue(NAME))
    site = Resolving(lab, trusted)
    site.resolving()
    os.kill(asked.pid, signal.SIGSTOP)
    try:
        lab.vault_workload.stream("198.51.100.10", interval=0.2)
        health = site.gateway.wait_unhealthy(timeout=150)
        assert health.body["reason_code"] == Reason.RESOLVER_SILENT
    finally:
        os.kill(asked.pid, signal.SIGCONT)
    site.gateway.wait_healthy(timeout=60)


def test_names_fail_at_once_without_the_tunnel_and_resolve_after_its_return(
    lab: Lab, trusted: Authority
) -> None:
    """What was learnt of the upstream while it could not be reached is forgotten."""
    upstream(lab, trusted.issue(NAME))
    site = Resolving(lab, trusted)
    site.resolving()
    lab.vault_namespace.run("ip", "link", "delete", "wg0")
    lab.server.cut()
    site.gateway.wait_for_state("connecting")
    since = time.monotonic()
    answer = lab.vault_workload.probe("dns", server="127.0.0.1", name="one.example")
    assert time.monotonic() - since < 3 * AT_ONCE, answer
    assert not lab.capture.containing("one")
    lab.server.restore()
    site.gateway.wait_healthy(timeout=30)
    since = time.monotonic()
    assert site.resolved("two.example") == [ANSWER]
    assert time.monotonic() - since < 3 * AT_ONCE
    counted = eventually(
        lambda: dict(site.gateway.status().body["resolver"]["questions"]).get("asked"),
        timeout=30,
        what="its counts",
    )
    assert counted


@pytest.mark.parametrize("end", ["killed", "stopped"])
def test_the_next_gateway_has_a_resolver_in_the_same_vault(lab: Lab, end: str) -> None:
    """Names do not resolve meanwhile, and at once when the tunnel is there."""
    site = Resolving(lab)
    for number in range(2):
        site.resolving()
        assert set(site.resolved(f"name{number}.example")) == set(RESOLVED)
        if end == "killed":
            site.gateway.kill()
        else:
            assert site.gateway.stop() == 0
        eventually(lambda: not site.children(), timeout=5, what="no resolver")
        answer = lab.vault_workload.probe("dns", server="127.0.0.1", name="two.example")
        assert answer.failed_fast
    assert not site.gateway.events(event="resolver failed")


def test_when_the_vault_starts_again_names_come_back(lab: Lab) -> None:
    """It takes its gateway and the resolver with it; both containers start again."""
    site = Resolving(lab)
    site.resolving()
    former = site.child()
    assert site.vault.stop() == 0
    assert site.gateway.wait() != 0
    assert not Path(f"/proc/{former}").exists()
    site.vault.start({})
    ready(site.vault).close()
    site.resolving()
    assert set(site.resolved("one.example")) == set(RESOLVED)
    assert site.child() != former


@pytest.mark.both_firewalls
def test_local_zones_blocked_names_and_extra_hosts(lab: Lab) -> None:
    """A resolver of the LAN is asked for its domain over both IP versions, through the holes.

    No workload may ask it. The control is its web server, which a workload reaches.
    """
    site = Resolving(lab)
    site.gateway.container.hosts.write_text("192.168.1.9 nas.extra\n")
    site.gateway.write("/config/ads.txt", "ads.example\n")
    lab.gateway_namespace.sysctl("ipv6/conf/all/forwarding", 1)
    site.resolving(
        FIREWALL_OUTBOUND_SUBNETS=f"{LAN_SUBNETS.ipv4},{LAN_SUBNETS.ipv6}",
        DNS_LOCAL_ZONES=f"home.lan={LAN_HOST.ipv4},six.lan={LAN_HOST.ipv6}",
        DNS_BLOCK_FILES="/config/ads.txt",
    )

    def asked(name: str) -> str | None:
        fields = lab.vault_workload.probe("dns", server="127.0.0.1", name=name).fields
        found = fields.get("address")
        return None if found is None else str(found)

    for zone in ("home.lan", "six.lan"):
        assert asked(f"nas.{zone}") == LAN_HOST.ipv4
        assert lab.arrivals("lan", kind="dns", name=f"nas.{zone}")
    assert asked("one.example") == RESOLVED.ipv4, "control of the names that follow"
    assert lab.server.queries(name="one.example")
    assert asked("nas.extra") == "192.168.1.9"
    assert asked("ads.example") is None
    for name in ("nas.extra", "ads.example", "nas.home.lan"):
        assert not lab.server.queries(name=name)
    assert not lab.arrivals("lan", kind="dns", name="one.example")
    assert site.gateway.status().body["resolver"]["blocks"] == 1
    for address in LAN_HOST:
        assert lab.vault_workload.probe("http", host=address).result == "answered", "control"
        for port in (53, 853):
            refused = lab.vault_workload.probe("dns", server=address, port=port, name="my.home.lan")
            assert refused.failed_fast
    assert not lab.arrivals("lan", kind="dns", name="my.home.lan")
    assert site.gateway.status().body["drift"] == 0
    code, said = site.gateway.execute(sys.executable, "-m", "gateway", "verify")
    assert code == 0, said


def test_a_list_of_blocked_names_is_fetched_through_the_tunnel_and_used(
    lab: Lab, trusted: Authority
) -> None:
    """The gateway fetches it, and the resolver in the vault reads it without another start.

    Controls: a name that is not in the list resolves, and this one did before; a question to the
    list's resolver is seen outside without a gateway.
    """
    before = lab.gateway(resolv_conf=f"nameserver {lists.RESOLVER}\n")
    before.workload().probe("resolve", name="before.example")
    assert block_lists.outside(lab, lists.RESOLVER), "control"
    before.close()
    since = time.monotonic()
    host = lists.ListHost(lab, trusted.issue(block_lists.HOST), block_lists.LIST)
    site = Resolving(lab)
    # Without a volume of its own, it would use the copy of another test.
    site.gateway.write("/config/volume", "")
    site.resolving(
        DNS_ADDRESS=lists.RESOLVER,
        DNS_BLOCK_URLS=block_lists.URL,
        SSL_CERT_FILE=str(trusted.certificate),
    )
    assert site.resolved("free.example") == [lists.PROVIDER]
    eventually(
        lambda: site.gateway.status().body["resolver"]["blocks"] == 2, timeout=20, what="the list"
    )
    assert site.resolved("ads.example") == []
    assert site.resolved("free.example") == [lists.PROVIDER], "the resolver answers"
    assert {it["client"] for it in host.requests} == {lab.server.exit.ipv4}
    assert site.gateway.status().body["resolver"]["starts"] == 1
    for uplink in lab.uplinks:
        sent = [it for it in uplink.capture.frames(since) if it.destination in FOR_LISTS]
        assert sent == []


def test_signatures_are_checked_there_too(lab: Lab, tmp_path: Path) -> None:
    """With the keys of the vault's image. The control is a name with the right signature."""
    root = signed_root(tmp_path, NAMES, {"forged.example": FORGED})
    trusted = authority(tmp_path)
    certificate = trusted.issue(NAME)
    EncryptedResolver(lab.server.namespace, lab.household, INSIDE.ipv4, certificate, zone=root.zone)
    vault = lab.vault()
    vault.workload(capabilities=None).run("mount", "--bind", str(root.anchor), ROOT_KEYS)
    site = Resolving(lab, trusted, vault)
    site.resolving(DNS_DNSSEC="on")
    assert site.resolved("good.example") == [NAMES["good.example"]]
    assert site.resolved("forged.example") == []


@pytest.mark.quiet
def test_ten_thousand_questions_a_second_leave_health_green(lab: Lab, trusted: Authority) -> None:
    """The tunnel and the resolver's process stay, and so does the vault's."""
    upstream(lab, trusted.issue(NAME))
    site = Resolving(lab, trusted)
    site.resolving()
    former = site.child()
    words = [questions.__file__, "127.0.0.1", str(RATE), str(SECONDS)]
    argv = lab.vault_workload.command([sys.executable, "-I", "-S", *words])
    flood = lab.household.start(argv, "questions")
    looks = []
    for _ in range(SECONDS):
        time.sleep(1)
        looks.append(is_up(site.gateway))
    sent, answered = counted(flood)
    assert sent >= 0.9 * RATE * SECONDS, "control: they were sent"
    assert answered > 0, "control: it was asked"
    assert all(looks), looks
    assert site.child() == former
    assert site.resolved("one.example") == [ANSWER]


def test_questions_for_others_are_redirected_there_on_request(lab: Lab, trusted: Authority) -> None:
    """They do not leave, by neither protocol; what the gateway has left behind goes with the next.

    The control is the next gateway, without the redirection: they leave in the tunnel.
    """
    other = HijackedSite(lab, trusted)
    site = Resolving(lab, trusted)
    site.resolving(DNS_HIJACK="on")
    before = other.counted
    for address, transport in WAYS:
        assert ask(lab.vault_workload, address, transport).fields["address"] == ANSWER
    assert other.counted == before
    assert not lab.arrivals(kind="dns", name="one.example")
    assert site.gateway.status().body["drift"] == 0
    code, said = site.gateway.execute(sys.executable, "-m", "gateway", "verify")
    assert code == 0, said
    lab.vault_namespace.nft(f"delete table {HIJACK}")
    eventually(lambda: hijacks(lab), timeout=10, what="its return")
    site.gateway.kill()
    eventually(lambda: "P4" not in rules(lab), timeout=2, what="closed rules")
    assert hijacks(lab)
    site.resolving()
    assert not hijacks(lab)
    for address, transport in WAYS:
        assert ask(lab.vault_workload, address, transport).fields["address"] == TRUE_ANSWER
    assert other.counted > before, "control"


def hijacks(lab: Lab) -> bool:
    """Return whether the vault has the table of the redirection."""
    return HIJACK in lab.vault_namespace.run("nft", "list", "tables")


@contextmanager
def port_taken(lab: Lab) -> Iterator[ExitStack]:
    """Have port 53 of the vault's loopback, as Pi-hole would; closing the result gives it up."""
    with ExitStack() as stack:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            one = stack.enter_context(lab.vault_namespace.socket(socket.AF_INET, kind))
            one.bind(("127.0.0.1", 53))
        one.listen()
        yield stack


def test_a_taken_port_is_reported_with_the_remedy(lab: Lab) -> None:
    """A workload has port 53; when it is gone, the resolver starts."""
    site = Resolving(lab)
    with port_taken(lab) as taken:
        health = site.resolving()
        eventually(
            lambda: site.gateway.status().body["resolver"]["others_answer"],
            timeout=20,
            what="the reason",
        )
        limits = site.gateway.status().body["limits"]
        (limit,) = [it for it in limits if it["code"] == LimitCode.NO_NAMES]
        assert "taken by another program" in limit["text"]
        assert "DNS_SERVER=off" in limit["remedy"]
        assert not health.body["resolver"]["answers"]
        taken.close()
    eventually(
        lambda: site.gateway.status().body["resolver"]["answers"], timeout=60, what="the resolver"
    )
    assert set(site.resolved("one.example")) == set(RESOLVED)


def codes(health: Health) -> dict[str, str]:
    """Return the remedies of the limits by their codes."""
    return {it["code"]: it["remedy"] for it in health.body["limits"]}


@pytest.mark.parametrize("strict", ["capabilities", "no-new-privileges"])
def test_where_it_cannot_have_another_user_it_has_no_rights_and_health_says_so(
    lab: Lab, strict: str
) -> None:
    """As with `cap_drop: [ALL]` and `cap_add: [NET_ADMIN]` for the vault and the gateway."""
    lab.vault_namespace.sysctl("ipv4/ip_unprivileged_port_start", 0)  # as Docker sets it
    if strict == "capabilities":
        site = Resolving(lab, vault=lab.vault(capabilities=("net_admin",)))
        site.gateway = site.another(capabilities=("net_admin", "net_raw"))
    else:
        site = Resolving(lab, vault=lab.vault(outside=("setpriv", "--no-new-privs")))
    found = codes(site.resolving())
    assert "no-new-privileges" in found[LimitCode.RESOLVER_NOT_CONFINED]
    fields = fields_of(site.child())
    assert fields["Uid"].split()[0] == "0"
    assert {int(fields[it], 16) for it in ("CapPrm", "CapEff", "CapAmb")} == {0}
    assert fields["NoNewPrivs"] == "1"
    assert set(site.resolved("one.example")) == set(RESOLVED)
    site.gateway.kill()
    eventually(lambda: not site.children(), timeout=5, what="its end")


def test_a_vault_without_the_program_is_a_limit(lab: Lab) -> None:
    """Workloads ask the tunnel's resolver themselves, and health names the remedy."""
    vault = lab.vault()
    vault.workload(capabilities=None).run("mount", "--bind", "/dev/null", "/usr/sbin/unbound")
    site = Resolving(lab, vault=vault)
    health = site.resolving()
    assert health.body["resolver"] is None
    assert "use our image for the vault" in codes(health)[LimitCode.NO_RESOLVER]
    assert f"nameserver {INSIDE.ipv4}\n" in site.vault.resolv_conf()
    assert set(site.resolved("one.example")) == set(RESOLVED)
    assert site.gateway.stop() == 0
    site.gateway = site.another()
    health = site.resolving(DNS_ADDRESS=None)
    assert "use our image for the vault" in codes(health)[LimitCode.NO_NAMES]


def test_switched_off_nothing_of_it_is_in_the_vault(lab: Lab) -> None:
    """No process, and no rule with its user."""
    site = Resolving(lab)
    health = site.resolving(DNS_SERVER="off", FIREWALL_OUTBOUND_SUBNETS=LAN_SUBNETS.ipv4)
    assert health.body["resolver"] is None
    assert site.children() == {}
    assert "skuid" not in rules(lab)


def test_what_a_workload_of_the_vault_cannot_do_to_it(lab: Lab) -> None:
    """It shares its network, and so neither its sockets nor its processes; it has no open port.

    The control of the sockets: they are shown in the namespace that both share.
    """
    site = Resolving(lab)
    site.resolving()
    shown = lab.vault_workload.run("cat", "/proc/net/unix")
    assert "/run/portcullis/vault.sock" in shown
    assert "@" not in shown, "an abstract socket is reached by everyone in the namespace"
    for path in ("/run/portcullis/vault.sock", "/run/portcullis/names/control"):
        code = f"import socket; socket.socket(socket.AF_UNIX, 1).connect({path!r})"
        with pytest.raises(LabError, match="FileNotFoundError"):
            lab.vault_workload.run("python3", "-I", "-c", code)
    listening = lab.vault_namespace.run("ss", "-Hlntu").split("\n")
    assert {line.split()[4] for line in listening if line} == {"127.0.0.1:53"}
    inside = site.vault.workload()
    code = "import socket; socket.socket(socket.AF_UNIX, 5).connect('/run/portcullis/vault.sock')"
    words = ["setpriv", f"--reuid={RESOLVER_USER}", f"--regid={RESOLVER_USER}", "--clear-groups"]
    inside.run("python3", "-I", "-c", code)
    with pytest.raises(LabError, match="PermissionError"):
        inside.run(*words, "--", "python3", "-I", "-c", code)


@pytest.mark.parametrize("means", ["user id", "packet socket"])
def test_a_workload_can_ask_the_resolver_of_a_local_zone(lab: Lab, means: str) -> None:
    """A known issue: with the resolver's user id, or with a packet socket on the hole.

    At port 53, and no other. An ordinary question is refused.
    """
    site = Resolving(lab)
    zones = {"DNS_LOCAL_ZONES": f"home.lan={LAN_HOST.ipv4}"}
    site.resolving(FIREWALL_OUTBOUND_SUBNETS=LAN_SUBNETS.ipv4, **zones)
    ask = BY_PACKET if means == "packet socket" else BY_USER
    script = ask.format(host=LAN_HOST.ipv4, user=RESOLVER_USER, question=QUESTION)
    for port in (853, 53):
        assert not lab.capture.containing("home")
        lab.vault_workload.run("python3", "-I", "-c", script, str(port), check=False)
        time.sleep(0.5)
    assert lab.capture.containing("home")
    assert lab.arrivals("lan", kind="dns", name="my.home.lan")
    refused = lab.vault_workload.probe("dns", server=LAN_HOST.ipv4, name="ordinary.home.lan")
    assert refused.failed_fast


def test_no_workload_can_answer_in_its_place(lab: Lab) -> None:
    """Its port is kept for it, also after it has been started again. Control: another address."""
    site = Resolving(lab)
    site.resolving()
    for _ in range(2):
        with lab.vault_namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError, match="in use"):
                thief.bind(("127.0.0.1", 53))
            thief.bind(("127.0.0.53", 53))
        assert set(site.resolved("one.example")) == set(RESOLVED)
        os.kill(former := site.child(), signal.SIGKILL)
        eventually(lambda old=former: site.child() != old, timeout=10, what="another one")
        eventually(lambda: site.resolved("one.example"), timeout=10, what="an answer")


def test_a_workload_can_forge_an_answer_that_is_not_over_tls(lab: Lab) -> None:
    """A known issue: with a packet socket it reads the question, and answers it on loopback.

    The control is a name that it does not answer for.
    """
    site = Resolving(lab)
    site.resolving()
    argv = lab.vault_workload.command(["python3", "-I", "-c", FORGES.format(tunnel="wg0")])
    forger = lab.household.start(argv, "forger")
    forger.wait_for("ready")

    def asked(name: str) -> object:
        return lab.vault_workload.probe("dns", server="127.0.0.1", name=name).fields.get("address")

    assert asked("right.example") == RESOLVED.ipv4, "control"
    assert eventually(
        lambda: asked(f"{time.monotonic_ns()}.forged") == FORGED, timeout=10, what="it"
    )
    forger.close()


QUESTION = (b"\0\7\1\0\0\1" + bytes(6) + b"\2my\4home\3lan\0\0\1\0\1").hex()
"""For my.home.lan (RFC 1035, section 4.1)."""
BY_USER = """
import os, socket, sys
os.setgid({user}); os.setuid({user})
channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
channel.sendto(bytes.fromhex("{question}"), ("{host}", int(sys.argv[1])))
"""
BY_PACKET = """
import socket, struct, sys
question, port = bytes.fromhex("{question}"), int(sys.argv[1])
udp = struct.pack("!4H", 40000, port, 8 + len(question), 0) + question
ends = socket.inet_aton("169.254.207.2") + socket.inet_aton("{host}")
head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0) + ends
total = sum(struct.unpack("!10H", head))
total = (total & 0xFFFF) + (total >> 16)
head = head[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + head[12:]
channel = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
channel.bind(("hole0", 0x0800))
channel.send(bytes.fromhex("0270630000010270630000010800") + head + udp)
"""

FORGED = "203.0.113.66"
FORGES = """
import socket, struct
tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
tap.bind(("{tunnel}", 3))
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
print("ready", flush=True)
while True:
    packet, _ = tap.recvfrom(2000)
    if packet[0] != 0x45 or packet[9] != 17 or packet[22:24] != bytes([0, 53]):
        continue
    question = packet[28:]
    end = question.index(0, 12) + 5
    if b"forged" not in question[:end]:
        continue
    answer = question[:2] + struct.pack("!5H", 0x8180, 1, 1, 0, 0) + question[12:end]
    answer += struct.pack("!HHHIH4B", 0xC00C, 1, 1, 60, 4, 203, 0, 113, 66)
    udp = packet[22:24] + packet[20:22] + struct.pack("!2H", 8 + len(answer), 0) + answer
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0)
    raw.sendto(head + packet[16:20] + packet[12:16] + udp, (socket.inet_ntoa(packet[12:16]), 0))
"""
