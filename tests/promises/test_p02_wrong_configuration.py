"""P2: a wrong configuration, or a machine that lacks something, leaves the namespace closed.

Every case begins in an open namespace, with a flood that is seen outside: what is closed
afterwards has been closed by the start that failed.
"""

import time
from collections.abc import Iterator

import pytest

from tests.lab.container import GATEWAY_CAPABILITIES
from tests.lab.gateway import Gateway
from tests.lab.server import kernel_has_wireguard
from tests.lab.topology import Lab
from tests.promises.witness import (
    flooded,
    links,
    locked,
    not_by_the_exit,
    not_refused_at_once,
    open_everything,
    ordinary,
    wait_for_flood,
)
from tests.unit.test_settings_load import FAULTS

pytestmark = [pytest.mark.lab, pytest.mark.promise("P2")]

HONEST = ("udp4", "udp6", "tcp4", "tcp6")
NO_KEY = "this-is-no-key-and-must-not-be-shown"
KEEP_ONLY = """
mkdir /run/former
mount --bind /usr/sbin /run/former
mount -t tmpfs tmpfs /usr/sbin
for tool; do ln -s /run/former/$tool /usr/sbin/$tool; done
"""
FAILING = """
for tool in nft iptables-legacy-restore ip6tables-legacy-restore; do
    printf '#!/bin/sh\necho "Protocol not supported" >&2; exit 1\n' >/usr/sbin/$tool
    chmod +x /usr/sbin/$tool
done
"""
AFTERWARDS = 0.05
"""Seconds to watch a namespace whose gateway has ended."""


class Site:
    """A lab with a flood in it, opened by hand before each start."""

    def __init__(self, lab: Lab) -> None:
        """Start the flood."""
        self.lab = lab
        self.gateway = lab.gateway()
        self.flood = flooded(lab, *HONEST, rate=200)

    def refused(self, **changes: str | None) -> Gateway:
        """Start with a changed environment that must not be accepted; check that it closes."""
        since = time.monotonic()
        open_everything(self.lab)
        wait_for_flood(self.lab, *HONEST, since=since)
        gateway = self.gateway.start(self.gateway.env(**changes))
        assert gateway.wait() == 2
        self.lab.capture.quiet_for(AFTERWARDS)
        assert self.lab.leaks(locked(gateway), endpoints=[]) == []
        assert gateway.status().code == 0
        return gateway


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Return one site for all that is refused for its configuration: it leaves nothing behind."""
    with Lab() as lab:
        yield Site(lab)


READ_AS_JSON = [fault for fault in FAULTS if fault[0] != "LOG_FORMAT"]
"""Without that variable the log is for people, and has no events to look for."""


@pytest.mark.parametrize(("name", "value", "expected"), READ_AS_JSON)
def test_each_malformed_variable_is_named_and_the_namespace_closed(
    site: Site, name: str, value: str, expected: str
) -> None:
    """Exit code 2; variable, value and remedy in the log. The unit tests see to completeness."""
    gateway = site.refused(**{name: value})
    reported = gateway.events(event="invalid configuration", variable=name)
    assert [event for event in reported if expected in event["problem"]], gateway.logs()


def test_a_malformed_form_of_the_log_is_named_in_text(site: Site) -> None:
    """The default form is for people; the namespace is closed as for any other variable."""
    open_everything(site.lab)
    gateway = site.gateway.start(site.gateway.env(LOG_FORMAT="xml"))
    assert gateway.wait() == 2
    assert "error   LOG_FORMAT: must be text or json" in gateway.logs()
    since = time.monotonic()
    assert not_refused_at_once(ordinary(site.lab.workload, "no-form")) == {}
    assert site.lab.leaks(since, endpoints=[]) == []


def test_all_malformed_variables_are_reported_at_once(site: Site) -> None:
    """And workloads are refused at once afterwards, though no process is there any more."""
    wrong = {name: value for name, value, _ in READ_AS_JSON}
    gateway = site.refused(**wrong)
    reported = {event["variable"] for event in gateway.events(event="invalid configuration")}
    assert reported >= set(wrong)
    since = time.monotonic()
    assert not_refused_at_once(ordinary(site.lab.workload, "after-the-end")) == {}
    assert site.lab.leaks(since, endpoints=[]) == []


def test_without_any_variable_it_says_what_is_required(site: Site) -> None:
    """An empty environment is the commonest mistake."""
    everything = dict.fromkeys(site.gateway.env())
    gateway = site.refused(**everything | {"LOG_FORMAT": "json"})
    assert "/config/wg0.conf" in gateway.logs()
    for name in ("PRIVATE_KEY", "ADDRESSES", "PUBLIC_KEY", "ENDPOINT_IP", "ENDPOINT_PORT"):
        assert gateway.events(variable=f"WIREGUARD_{name}"), name


def test_a_misspelt_variable_is_named_with_the_one_that_was_meant(site: Site) -> None:
    """Else a hole that was meant would be missing, without a message."""
    gateway = site.refused(WIREGUARD_ENDPIONT_IP="192.0.2.10", PUID="1000")
    (reported,) = gateway.events(variable="WIREGUARD_ENDPIONT_IP")
    assert "WIREGUARD_ENDPOINT_IP" in reported["problem"]
    assert gateway.events(event="configuration notice", variable="PUID"), "notices are logged too"


@pytest.mark.parametrize("name", ["WIREGUARD_PRIVATE_KEY", "WIREGUARD_PRESHARED_KEY"])
def test_a_secret_that_is_wrong_is_not_shown(site: Site, name: str) -> None:
    """Neither from a variable, with everything else wrong too, nor from a file."""
    gateway = site.refused(**{name: NO_KEY}, WIREGUARD_MTU="9", FIREWALL_INPUT_PORTS="http")
    assert gateway.events(variable=name)
    gateway.write("/run/secrets/bad", NO_KEY + "\n")
    site.refused(**{name: None, f"{name}_SECRETFILE": "/run/secrets/bad"})
    assert NO_KEY not in gateway.logs(all_starts=True)


def test_a_malformed_file_is_named_with_its_line(lab: Lab) -> None:
    """As its variables are; the key in it is not shown."""
    site = Site(lab)
    text = site.gateway.wg_quick().replace("AllowedIPs = 0.0.0.0/0", "AllowedIPs = everywhere")
    site.gateway.write("/run/secrets/wg0.conf", text)
    gateway = site.refused(
        **dict.fromkeys(name for name in site.gateway.env() if "WIREGUARD_" in name)
    )
    (reported,) = gateway.events(event="invalid configuration")
    assert reported["variable"].startswith("/run/secrets/wg0.conf line ")
    assert "everywhere" in reported["problem"]
    assert lab.client.private not in gateway.logs()


# -- a machine that lacks something -----------------------------------------------------------


def ends_closed(lab: Lab, gateway: Gateway, **changes: str | None) -> str:
    """Start where something is missing; check that it ends closed, and return its log."""
    flood = flooded(lab, *HONEST, rate=200)
    gateway.start(gateway.env(**changes))
    assert gateway.wait() == 1
    ended_at = time.monotonic()
    lab.capture.quiet_for(AFTERWARDS)
    assert lab.leaks(ended_at, endpoints=[]) == []
    assert flood.stop()["errors"], "the flood continued and was refused"
    return gateway.logs()


def keep_only(gateway: Gateway, *tools: str) -> None:
    """Take everything but `tools` out of the container's /usr/sbin."""
    gateway.workload(capabilities=None).run("sh", "-ec", KEEP_ONLY, "sh", *tools)


def test_without_dev_net_tun_userspace_is_refused_with_the_remedy(lab: Lab) -> None:
    """The device, and how to give it to a container."""
    gateway = lab.gateway(without_tun=True)
    log = ends_closed(lab, gateway, WIREGUARD_IMPLEMENTATION="userspace")
    assert "/dev/net/tun" in log
    assert "devices" in log


def test_kernelspace_on_a_kernel_without_it_is_refused_with_the_remedy(lab: Lab) -> None:
    """Where the kernel has it, it is used."""
    gateway = lab.gateway()
    if kernel_has_wireguard(lab.internet_namespace):
        gateway.start(gateway.env(WIREGUARD_IMPLEMENTATION="kernelspace"))
        assert gateway.wait_healthy().body["tunnel"] == "kernelspace"
        return
    log = ends_closed(lab, gateway, WIREGUARD_IMPLEMENTATION="kernelspace")
    assert "WIREGUARD_IMPLEMENTATION" in log


def test_where_no_tunnel_works_both_reasons_are_reported(lab: Lab) -> None:
    """`auto` has tried both."""
    gateway = lab.gateway(without_tun=True)
    if kernel_has_wireguard(lab.internet_namespace):
        gateway.start()
        assert gateway.wait_healthy().body["tunnel"] == "kernelspace"
        return
    log = ends_closed(lab, gateway, WIREGUARD_IMPLEMENTATION="auto")
    assert "/dev/net/tun" in log


def test_without_net_admin_it_ends_and_names_the_capability(lab: Lab) -> None:
    """No program can close a namespace without it, so nothing is promised but the word and the end.

    Limitations: the namespace stays as open as it was.
    """
    kept = [name for name in GATEWAY_CAPABILITIES if name != "net_admin"]
    gateway = lab.gateway(capabilities=kept).start()
    assert gateway.wait() == 1
    assert "NET_ADMIN" in gateway.logs()
    assert "cap_add" in gateway.logs()
    assert links(lab) == ["eth0", "lo"]


def test_without_net_raw_the_legacy_tables_are_refused_by_the_capabilitys_name(lab: Lab) -> None:
    """They need it in addition to NET_ADMIN; nftables does not, and does the work where it may."""
    kept = [name for name in GATEWAY_CAPABILITIES if name != "net_raw"]
    gateway = lab.gateway(capabilities=kept)
    log = ends_closed(lab, gateway, FIREWALL_BACKEND="iptables")
    assert "NET_RAW" in log
    assert "cap_add" in log
    gateway.start(gateway.env(FIREWALL_BACKEND=None))
    assert gateway.wait_healthy(10).body["firewall"] == "nftables"
    assert not_by_the_exit(lab, ordinary(lab.workload)) == {}


def test_a_machine_without_the_tool_for_one_family_is_locked_all_the_same(lab: Lab) -> None:
    """Both families are closed by whatever works for both, and no rule of the rest stays."""
    flood = flooded(lab, *HONEST, rate=200)
    gateway = lab.gateway()
    keep_only(gateway, "iptables-legacy-restore", "nft", "setpriv")
    gateway.start(gateway.env(FIREWALL_BACKEND=None))
    closed_at = locked(gateway)
    gateway.wait_healthy()
    assert lab.leaks(closed_at) == []
    assert flood.stop()["errors"]
    assert not_by_the_exit(lab, ordinary(lab.workload)) == {}


def test_without_any_firewall_the_links_go_down(lab: Lab) -> None:
    """The last resort; the error says which programs are missing, and how to get them."""
    gateway = lab.gateway()
    keep_only(gateway, "setpriv")
    log = ends_closed(lab, gateway)
    assert "neither nft nor iptables-legacy-restore" in log
    assert "apt install nftables" in log
    assert "state DOWN" in lab.operator.run("ip", "link", "show", "eth0")


def test_with_firewalls_that_do_not_work_the_links_go_down(lab: Lab) -> None:
    """The last resort; the error says what the kernel would need."""
    gateway = lab.gateway()
    keep_only(gateway, "setpriv")
    gateway.workload(capabilities=None).run("sh", "-ec", FAILING)
    log = ends_closed(lab, gateway)
    assert "Protocol not supported" in log
    assert "ip6table_filter" in log
    assert "nf_tables" in log
    assert "state DOWN" in lab.operator.run("ip", "link", "show", "eth0")
