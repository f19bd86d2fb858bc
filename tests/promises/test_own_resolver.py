"""The gateway's own resolver: encrypted, in the tunnel or not at all, and started again.

The upstream is unbound in the server's namespace, at the server's address inside the tunnel, with a
certificate of an authority that the gateway is given. A name that it has, and the other resolvers
of the lab do not answer in the same way, shows that it was asked.
"""

import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from gateway.model.name_server import RESOLVER_USER
from gateway.policy.limits import LimitCode
from gateway.policy.states import Reason
from gateway.policy.upstreams import REDIRECTED
from tests.lab.encrypted import NAME, EncryptedResolver
from tests.lab.gateway import Gateway
from tests.lab.internet import LAN_HOST, LAN_SUBNETS
from tests.lab.process import eventually
from tests.lab.server import INSIDE, RESOLVED
from tests.lab.tls import Authority, authority
from tests.lab.topology import Lab

pytestmark = [pytest.mark.lab, pytest.mark.promise("P10")]

ANSWER = "198.51.100.77"
PRIVATE_ANSWER = "192.168.99.9"
AT_ONCE = 1.0


def upstream(lab: Lab, certificate: Path, **names: str) -> EncryptedResolver:
    """Return the lab's encrypted resolver, inside the tunnel."""
    household, namespace = lab.household, lab.server.namespace
    known = {"one_example": ANSWER, "two_example": ANSWER, "private_example": PRIVATE_ANSWER}
    return EncryptedResolver(namespace, household, INSIDE.ipv4, certificate, **(known | names))


def started(lab: Lab, trusted: Authority, **changes: str | None) -> Gateway:
    """Return a gateway that asks the encrypted resolver."""
    gateway = lab.gateway(resolv_conf="nameserver 198.51.100.10\n")
    wanted: dict[str, str | None] = {
        "DNS_SERVER": None,
        "DNS_ADDRESS": None,
        "DNS_UPSTREAM_RESOLVERS": f"{INSIDE.ipv4}@853#{NAME}",
        "SSL_CERT_FILE": str(trusted.certificate),
    }
    return gateway.start(gateway.env(**(wanted | changes)))


def resolved(gateway: Gateway, name: str) -> list[str]:
    """Return the addresses that a workload finds for `name`."""
    return list(gateway.workload().probe("resolve", name=name).fields.get("addresses", []))


def child_of(gateway: Gateway) -> int:
    """Return the process of the gateway's resolver."""

    def found() -> int | None:
        path = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children")
        for pid in map(int, path.read_text("ascii").split()):
            try:
                if Path(f"/proc/{pid}/comm").read_text("ascii").strip() == "unbound":
                    return pid
            except OSError:
                continue
        return None

    return eventually(found, timeout=10, what="the resolver's process")


def reported(gateway: Gateway) -> list[str]:
    """Return the texts of the limit for names."""
    limits = gateway.status().body.get("limits", [])
    return [it["text"] for it in limits if it["code"] == LimitCode.NO_NAMES]


def test_names_resolve_over_tls_in_the_tunnel_and_nothing_is_seen_on_the_uplink(
    lab: Lab, trusted: Authority
) -> None:
    """Without a resolver in the configuration but the upstream; the log and health say which.

    The control is a question to a resolver outside, before the gateway starts: it is seen.
    """
    asked = upstream(lab, trusted.issue(NAME))
    before = lab.gateway(resolv_conf="nameserver 198.51.100.10\n")
    before.workload().probe("resolve", name="before.example")
    assert lab.capture.containing("before"), "control: a question outside is seen"
    gateway = started(lab, trusted)
    health = gateway.wait_healthy()
    assert resolved(gateway, "one.example") == [ANSWER]
    assert asked.was_asked("one.example")
    assert not lab.capture.containing("one")
    assert not lab.server.queries(name="one.example"), "not unencrypted in the tunnel either"
    assert lab.leaks(gateway.started_at + 1) == []
    lines = [it for it in gateway.resolv_conf().splitlines() if it.startswith("nameserver")]
    assert lines == ["nameserver 127.0.0.1"]
    assert health.body["resolver"]["asks"] == f"{INSIDE.ipv4} over TLS"
    assert gateway.events(event="names are asked", of=f"{INSIDE.ipv4} over TLS")


def test_it_runs_as_a_user_of_its_own_without_rights(lab: Lab, trusted: Authority) -> None:
    """Only the capability for port 53 is left, and limits are set."""
    upstream(lab, trusted.issue(NAME))
    gateway = started(lab, trusted)
    gateway.wait_healthy()
    fields = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{child_of(gateway)}/status").read_text("ascii").splitlines()
        if ":\t" in line
    )
    assert set(fields["Uid"].split()) == set(fields["Gid"].split()) == {str(RESOLVER_USER)}
    assert fields["Groups"].strip() == ""
    assert fields["NoNewPrivs"] == "1"
    for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(fields[name], 16) == 1 << 10, name
    before = child_of(gateway)
    gateway.kill()
    eventually(lambda: not Path(f"/proc/{before}").exists(), timeout=5, what="its end")


def test_without_the_capabilities_for_another_user_it_has_none_at_all(
    lab: Lab, trusted: Authority
) -> None:
    """It stays root, without rights, as in the strictest container; the limit says so."""
    upstream(lab, trusted.issue(NAME))
    lab.gateway_namespace.sysctl("ipv4/ip_unprivileged_port_start", 0)  # as Docker sets it
    gateway = lab.gateway(capabilities=("net_admin", "net_raw"))
    wanted = {"DNS_UPSTREAM_RESOLVERS": f"{INSIDE.ipv4}@853#{NAME}"}
    trust = {"SSL_CERT_FILE": str(trusted.certificate)}
    gateway.start(gateway.env(DNS_SERVER=None, DNS_ADDRESS=None, **wanted) | trust)
    health = gateway.wait_healthy()
    assert LimitCode.RESOLVER_NOT_CONFINED in {it["code"] for it in health.body["limits"]}
    status = Path(f"/proc/{child_of(gateway)}/status").read_text("ascii")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split()[0] == "0"
    assert {int(fields[it], 16) for it in ("CapPrm", "CapEff", "CapAmb")} == {0}
    assert fields["NoNewPrivs"] == "1"
    assert resolved(gateway, "one.example") == [ANSWER]


@pytest.mark.parametrize("wrong", ["authority", "name"])
def test_a_wrong_certificate_is_refused_and_reported(
    lab: Lab, trusted: Authority, tmp_path: Path, wrong: str
) -> None:
    """No name resolves, health is red, and the log says it once."""
    issuer = authority(tmp_path, "other") if wrong == "authority" else trusted
    asked = upstream(lab, issuer.issue(NAME if wrong == "authority" else "other.example"))
    gateway = started(lab, trusted)
    gateway.wait_for_state("connected")
    eventually(lambda: gateway.events(event="certificate refused"), timeout=20, what="the warning")
    answer = gateway.workload().probe("dns", server="127.0.0.1", name="one.example")
    assert answer.result != "answered" or not answer.fields.get("addresses")
    assert not asked.was_asked("one.example")
    assert any("certificate" in it for it in reported(gateway))
    health = gateway.wait_unhealthy(timeout=60)
    assert health.body["reason_code"] in {Reason.RESOLVER_SILENT, Reason.RESOLVER_DOWN}
    assert len(gateway.events(event="certificate refused")) == 1


def test_a_killed_resolver_is_started_again(lab: Lab, trusted: Authority) -> None:
    """Names fail at once meanwhile, and health is red with the reason."""
    upstream(lab, trusted.issue(NAME))
    gateway = started(lab, trusted)
    gateway.wait_healthy()
    workload = gateway.workload()
    for _ in range(4):  # the pauses become longer
        os.kill(child_of(gateway), signal.SIGKILL)
    health = gateway.wait_unhealthy(timeout=5)
    assert health.body["reason_code"] == Reason.RESOLVER_DOWN
    answer = workload.probe("dns", server="127.0.0.1", name="one.example")
    assert answer.failed_fast or answer.result == "answered"
    gateway.wait_healthy(timeout=20)
    assert resolved(gateway, "two.example") == [ANSWER]
    assert gateway.status().body["resolver"]["starts"] >= 2
    assert gateway.events(event="resolver failed")


def test_a_resolver_that_hangs_is_started_again(lab: Lab, trusted: Authority) -> None:
    """It is asked now and then, and ended if it does not answer."""
    upstream(lab, trusted.issue(NAME))
    gateway = started(lab, trusted)
    gateway.wait_healthy()
    hung = child_of(gateway)
    os.kill(hung, signal.SIGSTOP)
    eventually(lambda: not Path(f"/proc/{hung}").exists(), timeout=60, what="its end")
    gateway.wait_healthy(timeout=20)
    assert resolved(gateway, "one.example") == [ANSWER]


def test_a_silent_upstream_makes_health_red(lab: Lab, trusted: Authority) -> None:
    """Addresses work, names do not, as with a resolver that workloads ask themselves."""
    asked = upstream(lab, trusted.issue(NAME))
    gateway = started(lab, trusted)
    gateway.wait_healthy()
    os.kill(asked.pid, signal.SIGSTOP)
    try:
        lab.workload.stream("198.51.100.10", interval=0.2)
        health = gateway.wait_unhealthy(timeout=150)
        assert health.body["reason_code"] == Reason.RESOLVER_SILENT
    finally:
        os.kill(asked.pid, signal.SIGCONT)
    gateway.wait_healthy(timeout=60)


def test_names_fail_at_once_without_the_tunnel_and_resolve_after_its_return(
    lab: Lab, trusted: Authority
) -> None:
    """What was learnt of the upstream while it could not be reached is forgotten."""
    upstream(lab, trusted.issue(NAME))
    gateway = started(lab, trusted)
    gateway.wait_healthy()
    lab.operator.run("ip", "link", "delete", "wg0")
    lab.server.cut()
    gateway.wait_for_state("connecting")
    since = time.monotonic()
    answer = gateway.workload().probe("dns", server="127.0.0.1", name="one.example")
    assert time.monotonic() - since < 3 * AT_ONCE, answer
    assert not lab.capture.containing("one")
    lab.server.restore()
    gateway.wait_healthy(timeout=30)
    since = time.monotonic()
    assert resolved(gateway, "two.example") == [ANSWER]
    assert time.monotonic() - since < 3 * AT_ONCE


@pytest.mark.both_firewalls
def test_its_user_cannot_use_a_hole_and_another_one_can(lab: Lab, trusted: Authority) -> None:
    """A socket of the resolver's user is refused at a listed subnet; the control is root's."""
    upstream(lab, trusted.issue(NAME))
    listed = f"{LAN_SUBNETS.ipv4},{LAN_SUBNETS.ipv6}"
    gateway = started(lab, trusted, FIREWALL_OUTBOUND_SUBNETS=listed)
    gateway.wait_healthy()
    for address in LAN_HOST:
        assert reaches(lab, address, 0), "control: the hole is open for others"
        assert not reaches(lab, address, RESOLVER_USER)
    limits = gateway.status().body["limits"]
    assert LimitCode.RESOLVER_NOT_CONFINED not in {it["code"] for it in limits}
    code, said = gateway.execute(sys.executable, "-m", "gateway", "verify")
    assert code == 0, said


def reaches(lab: Lab, address: str, user: int) -> bool:
    """Return whether a process of `user` can connect to `address` from the gateway's namespace."""
    code = f"import socket; socket.create_connection(({address!r}, 80), 3).close()"
    words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"]
    try:
        lab.operator.run(*words, "python3", "-c", code)
    except Exception:  # noqa: BLE001 - any failure of the program means no
        return False
    return True


def test_the_resolver_of_the_tunnel_is_asked_where_there_is_one(
    lab: Lab, trusted: Authority
) -> None:
    """`DNS` of a file, or `DNS_ADDRESS`: unencrypted, in the tunnel."""
    gateway = started(lab, trusted, DNS_UPSTREAM_RESOLVERS=None, DNS_ADDRESS=INSIDE.ipv4)
    gateway.wait_healthy()
    assert set(resolved(gateway, "plain.example")) == set(RESOLVED)
    assert lab.server.queries(name="plain.example")
    assert lab.leaks(gateway.started_at + 1) == []


def test_each_server_brings_its_own_resolver() -> None:
    """`DNS` of the file in use is asked; the other one's is not, once the tunnel is another."""
    with Lab(servers=2) as lab:
        first, second = lab.servers
        gateway = lab.gateway(resolv_conf="nameserver 198.51.100.10\n")
        gateway.write("/config/0.conf", gateway.wg_quick(first))
        other = gateway.wg_quick(second).replace(f"DNS = {INSIDE.ipv4}", f"DNS = {INSIDE.ipv6}")
        gateway.write("/config/1.conf", other)
        gateway.start({"LOG_LEVEL": "debug", "LOG_FORMAT": "json"})
        health = gateway.wait_healthy()
        assert health.body["resolver"]["asks"].startswith(INSIDE.ipv4)
        assert set(resolved(gateway, "one.example")) == set(RESOLVED)
        assert first.queries(name="one.example")
        first.cut()
        eventually(
            lambda: gateway.status().body.get("switches") == 1, timeout=90, what="the other server"
        )
        health = gateway.wait_healthy(timeout=30)
        assert health.body["resolver"]["asks"].startswith(INSIDE.ipv6)
        assert set(resolved(gateway, "two.example")) == set(RESOLVED)
        (asked,) = {str(it["address"]) for it in second.queries(name="two.example")}
        assert asked == INSIDE.ipv6


def test_where_it_cannot_run_workloads_ask_the_tunnels_resolver_themselves(lab: Lab) -> None:
    """Its directory cannot be made, as with a read-only root; health is green and names the limit.

    A tunnel without a resolver has no names then.
    """
    gateway = lab.gateway(resolv_conf="nameserver 198.51.100.10\n")
    (gateway.container.root / "run/portcullis").write_text("in the way")
    gateway.start(gateway.env(DNS_SERVER=None, FIREWALL_OUTBOUND_SUBNETS=LAN_SUBNETS.ipv4))
    health = gateway.wait_healthy()
    code, said = gateway.execute(sys.executable, "-m", "gateway", "verify")
    assert code == 0, said
    assert health.body["resolver"] is None
    (limit,) = [it for it in health.body["limits"] if it["code"] == LimitCode.NO_RESOLVER]
    assert "tmpfs: [/run/portcullis]" in limit["remedy"]
    assert set(resolved(gateway, "one.example")) == set(RESOLVED)
    gateway.stop()
    gateway.start(gateway.env(DNS_SERVER=None, DNS_ADDRESS=None)).wait_healthy()
    assert any("/run/portcullis cannot be written" in it for it in reported(gateway))


def test_private_addresses_are_taken_out_of_answers_but_for_listed_domains(
    lab: Lab, trusted: Authority
) -> None:
    """The control is the domain on the list."""
    upstream(lab, trusted.issue(NAME), private_allowed=PRIVATE_ANSWER)
    gateway = started(lab, trusted, DNS_REBINDING_PROTECTION_EXEMPT_HOSTNAMES="allowed")
    gateway.wait_healthy()
    assert resolved(gateway, "private.allowed") == [PRIVATE_ANSWER], "control"
    assert resolved(gateway, "private.example") == []


def test_a_taken_port_is_reported_with_the_remedy(lab: Lab, trusted: Authority) -> None:
    """Another program has port 53; when it is gone, the resolver starts."""
    upstream(lab, trusted.issue(NAME))
    with taken(lab) as sockets:
        gateway = started(lab, trusted)
        health = gateway.wait_healthy(timeout=20)
        eventually(lambda: reported(gateway), timeout=20, what="the limit")
        assert any("taken by another program" in it for it in reported(gateway))
        remedies = [it["remedy"] for it in gateway.status().body["limits"]]
        assert any("DNS_SERVER=off" in it for it in remedies)
        assert not health.body["resolver"]["answers"]
        for it in sockets:
            it.close()
    eventually(
        lambda: gateway.status().body["resolver"]["answers"], timeout=60, what="the resolver"
    )
    assert resolved(gateway, "one.example") == [ANSWER]


def test_no_workload_can_answer_in_its_place(lab: Lab, trusted: Authority) -> None:
    """Not even one with the resolver's user id, also while it is away, and after a new start.

    Control: before, it shares the port with a socket such as the resolver's.
    """
    upstream(lab, trusted.issue(NAME))
    lab.gateway_namespace.sysctl("ipv4/ip_unprivileged_port_start", 0)  # as Docker does
    with lab.gateway_namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as such:
        such.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        such.bind(("127.0.0.1", 53))
        assert "udp" in listening(lab, 1000), "control"
    gateway = started(lab, trusted, DNS_HIJACK="on")
    gateway.wait_healthy()
    for _ in range(2):
        assert listening(lab, 1000) == listening(lab, RESOLVER_USER) == []
        assert resolved(gateway, "one.example") == [ANSWER]
        before = child_of(gateway)
        os.kill(gateway.pid, signal.SIGSTOP)  # else it is started again at once
        try:
            os.kill(before, signal.SIGKILL)
            eventually(lambda old=before: not serves(old), timeout=5, what="its end")
            assert listening(lab, 1000) == listening(lab, RESOLVER_USER) == []
        finally:
            os.kill(gateway.pid, signal.SIGCONT)
        eventually(lambda old=before: child_of(gateway) != old, timeout=10, what="another one")
        eventually(lambda: resolved(gateway, "one.example"), timeout=10, what="an answer")


def serves(pid: int) -> bool:
    """Return whether a process still has its sockets."""
    try:
        return bool(list(Path(f"/proc/{pid}/fd").iterdir()))
    except OSError:
        return False


def listening(lab: Lab, user: int) -> list[str]:
    """Return at which transports a process of `user` could listen where the resolver does."""
    code = (
        "import os, socket, sys; os.setresuid(*[int(sys.argv[1])] * 3)\n"
        f"for at in ('127.0.0.1', 53), ('127.0.0.1', {REDIRECTED}), ('::1', {REDIRECTED}):\n"
        "  for name, kind in ('udp', 2), ('tcp', 1):\n"
        "    one = socket.socket(10 if ':' in at[0] else 2, kind)\n"
        "    for option in 2, 15:\n"  # SO_REUSEADDR, SO_REUSEPORT
        "        one.setsockopt(1, option, 1)\n"
        "    try:\n"
        "        one.bind(at), kind == 1 and one.listen(), print(name)\n"
        "    except OSError: pass\n"
    )
    return lab.operator.run(sys.executable, "-c", code, str(user)).split()


class taken:  # noqa: N801 - reads as a statement
    """Has port 53 of the gateway's namespace."""

    def __init__(self, lab: Lab) -> None:
        self._namespace = lab.gateway_namespace
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> list[socket.socket]:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            one = self._namespace.socket(socket.AF_INET, kind)
            one.bind(("127.0.0.1", 53))
            self._sockets.append(one)
        self._sockets[-1].listen()
        return self._sockets

    def __exit__(self, *_: object) -> None:
        for one in self._sockets:
            one.close()


def test_switched_off_nothing_of_it_is_there(lab: Lab) -> None:
    """No process, no rule, no field in health; workloads ask the tunnel's resolver themselves."""
    gateway = lab.gateway(resolv_conf="nameserver 198.51.100.10\n")
    gateway.start(gateway.env(DNS_SERVER="off", FIREWALL_OUTBOUND_SUBNETS=LAN_SUBNETS.ipv4))
    health = gateway.wait_healthy()
    assert health.body["resolver"] is None
    assert f"nameserver {INSIDE.ipv4}\n" in gateway.resolv_conf()
    path = Path(f"/proc/{gateway.pid}/task/{gateway.pid}/children")
    names = [
        Path(f"/proc/{pid}/comm").read_text("ascii") for pid in path.read_text("ascii").split()
    ]
    assert "unbound\n" not in names
    code, rules = gateway.execute("sh", "-c", "iptables-legacy -S; nft list ruleset")
    assert code == 0
    assert "uid" not in rules
    maps = Path(f"/proc/{gateway.pid}/maps").read_text("ascii")
    assert "unbound" not in maps
