"""The resolver file that workloads share with the gateway: written in place, names inside only."""

import pytest

from gateway.policy.limits import LimitCode
from tests.lab.gateway import Gateway
from tests.lab.process import eventually
from tests.lab.server import INSIDE, RESOLVED
from tests.lab.topology import Lab
from tests.promises.witness import open_everything

pytestmark = [pytest.mark.lab, pytest.mark.promise("P10")]


def test_the_file_is_written_in_place_and_names_resolve_in_the_tunnel(lab: Lab) -> None:
    """The same inode, because it is a mount; applications resolve by it, which is not seen outside.

    The control is an open namespace: the same question to a resolver outside is seen there.
    """
    gateway = lab.gateway(resolv_conf="search lan.example\nnameserver 198.51.100.10\n")
    asked = gateway.workload().probe("resolve", name="before.example")
    assert asked.result == "answered"
    assert lab.capture.containing("before"), "control: a question outside is seen"
    file = gateway.container.root / "etc/resolv.conf"
    inode = file.stat().st_ino
    gateway.start().wait_healthy()
    assert file.stat().st_ino == inode
    words = [line.split() for line in gateway.resolv_conf().splitlines() if line[:1] != "#"]
    assert [word[1] for word in words if word[0] == "nameserver"] == [INSIDE.ipv4]
    assert ["search", "lan.example"] not in words
    answer = gateway.workload().probe("resolve", name="inside.example")
    assert set(answer.fields["addresses"]) == set(RESOLVED)
    assert lab.server.queries(name="inside.example")
    assert not lab.capture.containing("inside")
    assert lab.leaks(gateway.started_at + 1) == []


def test_search_domains_are_gone_so_that_no_name_grows_a_tail(lab: Lab) -> None:
    """A short name is asked for as it is, or not at all; the host's domain does not come in."""
    gateway = lab.gateway(resolv_conf="search lan.example\nnameserver 127.0.0.11\n").start()
    gateway.wait_healthy()
    gateway.workload().probe("resolve", name="printer")
    asked = {str(event["name"]) for event in lab.server.queries()}
    assert asked <= {"printer", ""}, "the gateway's own probe asks for the root"
    assert not lab.arrivals(kind="dns", name="printer.lan.example")


def test_it_is_the_same_file_after_a_start_in_place_and_stays_after_a_stop(lab: Lab) -> None:
    """No process writes the former resolvers back: names must not resolve outside."""
    gateway = lab.gateway(resolv_conf="nameserver 198.51.100.10\n").start()
    gateway.wait_healthy()
    first = gateway.resolv_conf()
    gateway.kill()
    gateway.restart().wait_healthy()
    assert gateway.resolv_conf() == first
    assert gateway.stop() == 0
    assert gateway.resolv_conf() == first


def test_a_file_that_cannot_be_written_is_reported_and_leaks_nothing(lab: Lab) -> None:
    """Read-only mounts exist; the tunnel works, names do not, and health says so."""
    gateway = lab.gateway()
    gateway.workload(capabilities=None).run("mount", "-o", "remount,ro,bind", "/etc/resolv.conf")
    gateway.start()
    health = gateway.wait_healthy()
    assert LimitCode.NO_NAMES in {limit["code"] for limit in health.body["limits"]}
    before = gateway.workload().probe("resolve", name="a.example")
    assert before.result == "error"
    assert lab.leaks(gateway.started_at + 1) == []


OUTSIDE = "198.51.100.53"
"""A resolver of the internet's, which a workload would like the gateway to ask."""


def asked(lab: Lab, since: float, resolver: str = OUTSIDE) -> bool:
    """Return whether a question was seen on its way to `resolver`."""
    return any(frame.destination == resolver for frame in lab.capture.frames(since))


def by_name(lab: Lab, resolv_conf: str) -> Gateway:
    """Return a gateway, not started, that has to look its endpoint up."""
    gateway = lab.gateway(resolv_conf=resolv_conf)
    gateway.environment = gateway.env(WIREGUARD_ENDPOINT_IP="vpn.example")
    return gateway


def test_a_workload_does_not_choose_the_resolver_a_gateway_asks_that_starts_again(lab: Lab) -> None:
    """It can write to the file, and the gateway believes its own copy, or else its own seal.

    The copy goes with a container that is made again; some engines keep the namespace then.
    Control: the same line is believed at the first start, before there is any workload.
    """
    lab.docker_resolver(A=lab.server.endpoint.ipv4)
    gateway = by_name(lab, f"nameserver {OUTSIDE}\n")
    gateway.start(gateway.environment)
    eventually(lambda: asked(lab, gateway.started_at), timeout=5, what="control: a question")
    gateway.close()
    with Lab() as other:
        other.docker_resolver(A=other.server.endpoint.ipv4)
        gateway = by_name(other, "nameserver 127.0.0.11\n")
        gateway.start(gateway.environment).wait_healthy()
        workload = gateway.workload()
        lines = f"nameserver {OUTSIDE}\\n# Found here: {OUTSIDE}\\n"
        workload.run("sh", "-c", f"printf '{lines}' >>/etc/resolv.conf")
        gateway.kill()
        gateway.restart().wait_healthy()
        assert not asked(other, gateway.started_at)
        workload.run("sh", "-c", f"printf '{lines}' >/etc/resolv.conf")
        gateway.kill()
        gateway.restart().wait_healthy()
        assert not asked(other, gateway.started_at)
        workload.run("sh", "-c", f"printf '{lines}' >/etc/resolv.conf")
        gateway.kill()
        (gateway.container.root / "var/lib/portcullis/resolvers").unlink()
        gateway.restart().wait_for_state("resolving")
        reported = eventually(
            lambda: gateway.status().body.get("detail"), timeout=5, what="the reason"
        )
        assert "/etc/resolv.conf was changed by another program" in reported
        assert "WIREGUARD_ENDPOINT_RESOLVER" in reported
        assert not asked(other, gateway.started_at)


def like_new(lab: Lab) -> None:
    """Make the namespace look like one in which no gateway has been, as after `docker restart`."""
    open_everything(lab)
    for family in ("-4", "-6"):
        lab.operator.run("ip", family, "rule", "flush")
        for table, priority in (("main", "32766"), ("default", "32767")):
            lab.operator.run("ip", family, "rule", "add", "pref", priority, "table", table)
        lab.operator.run("ip", family, "route", "flush", "table", "51820", check=False)


def test_a_workload_does_not_choose_the_resolver_a_gateway_asks_in_a_new_namespace(
    lab: Lab,
) -> None:
    """As after `docker restart`: the namespace is new, the file is the same, and shared.

    The gateway asks the resolver of its first start. Control: without the copy that it keeps, it
    asks the one that the workload has written.
    """
    gateway = by_name(lab, f"nameserver {lab.server.router.ipv4}\n")
    gateway.start(gateway.environment).wait_for_state("resolving")
    since = gateway.started_at
    eventually(
        lambda: asked(lab, since, lab.server.router.ipv4), timeout=5, what="the first question"
    )
    workload = gateway.workload()
    for is_control in (False, True):
        gateway.kill()
        workload.run("sh", "-c", f"echo nameserver {OUTSIDE} >/etc/resolv.conf")
        like_new(lab)
        if is_control:
            (gateway.container.root / "var/lib/portcullis/resolvers").unlink()
        gateway.restart().wait_for_state("resolving")
        wanted = OUTSIDE if is_control else lab.server.router.ipv4
        eventually(
            lambda wanted=wanted: asked(lab, gateway.started_at, wanted),
            timeout=5,
            what=f"a question to {wanted}",
        )
        assert asked(lab, gateway.started_at) == is_control


def test_no_contents_of_the_file_end_the_gateway(lab: Lab) -> None:
    """Bytes that are not text, and more of them than the gateway reads."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    file, workload = gateway.container.root / "etc/resolv.conf", gateway.workload()
    size, pid = file.stat().st_size, gateway.pid
    for command in ("printf '\\377' >>/etc/resolv.conf", "truncate -s 100G /etc/resolv.conf"):
        workload.run("sh", "-c", command)
        lab.operator.run("ip", "link", "del", "wg0")
        eventually(lambda: file.stat().st_size == size, timeout=5, what="the file as it was")
        gateway.wait_healthy()
        assert gateway.pid == pid
        workload.run("sh", "-c", command)
        gateway.kill()
        gateway.restart().wait_healthy()
        assert file.stat().st_size == size
        pid = gateway.pid
