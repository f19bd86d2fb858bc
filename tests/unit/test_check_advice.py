"""What `gateway check` advises to change in a service, as lines to paste."""

from pathlib import Path

import pytest
import yaml

from gateway import cli
from gateway.commands.check import ports
from gateway.commands.check.advice import Advice
from gateway.commands.check.trial import Trial, try_compose
from tests.configurations import COMPLETE, QUICK, put

LISTED = "FIREWALL_INPUT_PORTS"


def tried(
    folder: Path, service: dict[str, object], others: dict[str, object] | None = None
) -> Trial:
    """Check a service called `vpn`, complete but for what `service` changes."""
    whole = {"cap_add": ["NET_ADMIN"], "environment": dict(COMPLETE), **service}
    text = yaml.safe_dump({"services": {"vpn": whole, **(others or {})}}, sort_keys=False)
    put(folder, "compose.yml", text)
    return try_compose(folder / "compose.yml", "vpn", {})


def advice_of(trial: Trial) -> Advice:
    """Return what to change in the service."""
    assert trial.advice
    return trial.advice


def said(trial: Trial) -> str:
    """Return all problems and notices, one a line."""
    return "\n".join(map(str, (*trial.problems, *trial.notices)))


def test_published_ports_are_one_block_to_paste(tmp_path: Path) -> None:
    """In one line, together with those that are listed; in the form that the service has."""
    service: dict[str, object] = {
        "ports": ["80:8080", "9000-9002:9000-9002/udp", "8080:8080", {"target": 9696}],
        "environment": [f"{name}={text}" for name, text in COMPLETE.items()]
        + [f"{LISTED}=5000/tcp"],
    }
    trial = tried(tmp_path, service)
    line = f"{LISTED}=5000/tcp,8080/tcp,9000-9002/udp,9696/tcp"
    assert [*advice_of(trial).lines()] == [
        "To paste into the service vpn, in place of what is there:",
        f"      - {line}",
    ]
    service["environment"] = {**COMPLETE, LISTED: line.partition("=")[2]}
    assert not [*advice_of(tried(tmp_path, service)).lines()]


def test_the_block_is_complete_where_there_are_no_variables(tmp_path: Path) -> None:
    """It brings its own key."""
    put(tmp_path, "wg0.conf", QUICK)
    service: dict[str, object] = {
        "ports": ["8080:8080"],
        "volumes": ["./wg0.conf:/config/wg0.conf"],
        "environment": {},
    }
    assert [*advice_of(tried(tmp_path, service)).lines()] == [
        "To paste into the service vpn:",
        "    environment:",
        f"      {LISTED}: 8080/tcp",
    ]


def test_the_block_is_printed_with_other_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that one round is enough. What is listed is known from the variables then."""
    environment = {**COMPLETE, "WIREGUARD_MTU": "9", LISTED: "80/tcp"}
    tried(tmp_path, {"ports": ["8080:8080", "80:80"], "environment": environment})
    file = str(tmp_path / "compose.yml")
    assert cli.main(["check", "--compose", file, "--service", "vpn"]) == 2
    shown = capsys.readouterr()
    assert "WIREGUARD_MTU: must be" in shown.err
    assert f"      {LISTED}: 80/tcp,8080/tcp\n" in shown.out


REMOVED = [
    ("6881:6881", {}, "a torrent's peers come through the tunnel"),
    ("6881-6889:6881-6889/udp", {}, "a torrent's peers come through the tunnel"),
    ("51413:51413", {}, "a torrent's peers come through the tunnel"),
    ("51820:51820/udp", {}, "only a WireGuard server needs that"),
    ("4711:4711", {"FIREWALL_VPN_INPUT_PORTS": "4711"}, "clients come through the tunnel"),
    ("8888:8888/tcp", {}, "nothing listens there"),
    ("8388:8388/udp", {}, "nothing listens there"),
    ("1:8000", {}, "nothing listens there"),
]


@pytest.mark.parametrize(("entry", "environ", "reason"), REMOVED)
def test_a_port_that_nothing_needs_is_to_be_removed(
    tmp_path: Path, entry: str, environ: dict[str, str], reason: str
) -> None:
    """And not listed, which would open it. Control: a port of a workload next to it is listed."""
    trial = tried(tmp_path, {"ports": [entry, "3000:3000"], "environment": {**COMPLETE, **environ}})
    assert reason in said(trial)
    assert advice_of(trial).ports == [entry]
    assert advice_of(trial).variables == {LISTED: "3000/tcp"}
    assert f"      - {entry}" in [*advice_of(trial).lines()]


@pytest.mark.parametrize("mode", ["service:vpn", "container:box"])
def test_a_port_that_a_workload_names_is_its_own(tmp_path: Path, mode: str) -> None:
    """8000 is gluetun's control server, or a workload's; a torrent's port may have any number."""
    service: dict[str, object] = {"ports": ["8000:8000", "4711:4711"], "container_name": "box"}
    workload: dict[str, object] = {
        "network_mode": mode,
        "environment": ["WEBUI_PORT=8000", "TORRENTING_PORT=4711"],
    }
    trial = tried(tmp_path, service, {"app": workload})
    assert advice_of(trial).variables == {LISTED: "8000/tcp"}
    assert advice_of(trial).ports == ["4711:4711"]
    control = tried(tmp_path, service, {"app": {**workload, "network_mode": "bridge"}})
    assert advice_of(control).variables == {LISTED: "4711/tcp"}
    assert advice_of(control).ports == ["8000:8000"]


@pytest.mark.parametrize(
    ("port", "variable", "value"),
    [(8888, "HTTPPROXY", "on"), (8000, "HTTP_CONTROL_SERVER_ADDRESS", ":8000")],
)
def test_the_port_of_a_server_of_ours_is_listed_where_it_runs(
    tmp_path: Path, port: int, variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And to be removed where it does not, with the line that has it run, or that there is none."""
    service = {"ports": [f"{port}:{port}"]}
    for known in (False, True):
        for given, is_on in ((None, False), ("off", False), ("", False), (value, True)):
            names = {*ports.KNOWN, variable} if known else {*ports.KNOWN} - {variable}
            monkeypatch.setattr(ports, "KNOWN", names)
            environment = COMPLETE if given is None else {**COMPLETE, variable: given}
            trial = tried(tmp_path, {**service, "environment": environment})
            listed = advice_of(trial).variables.get(LISTED)
            assert listed == (f"{port}/tcp" if known and is_on else None)
            assert advice_of(trial).ports == ([] if listed else service["ports"])
            if not listed:
                text = f"without {variable}={value}" if known else "this image does not have a"
                assert f"nothing listens there{' ' if known else ': '}{text}" in said(trial)


def test_a_port_that_is_listed_on_purpose_stays(tmp_path: Path) -> None:
    """The user has decided."""
    environment = {**COMPLETE, LISTED: "6881,8888", "FIREWALL_VPN_INPUT_PORTS": "6881"}
    trial = tried(tmp_path, {"ports": ["6881:6881", "8888:8888/tcp"], "environment": environment})
    assert not [*advice_of(trial).lines()]


REACHED: list[tuple[dict[str, object], dict[str, object], str]] = [
    ({"expose": [8080]}, {}, "expose"),
    ({"expose": ["8080/tcp"]}, {}, "expose"),
    ({"environment": {**COMPLETE, "VIRTUAL_PORT": "8080"}}, {}, "VIRTUAL_PORT"),
    (
        {"labels": ["traefik.http.services.qbit.loadbalancer.server.port=8080"]},
        {},
        "label traefik.http.services.qbit.loadbalancer.server.port",
    ),
    ({"labels": {"caddy": "a.example", "caddy.reverse_proxy": "{{upstreams 8080}}"}}, {}, "label"),
    ({"labels": {"swag_port": 8080}}, {}, "label swag_port"),
    (
        {},
        {"network_mode": "service:vpn", "labels": ["traefik.port=8080"]},
        "label traefik.port",
    ),
    ({}, {"environment": {"URL": "http://vpn:8080/api"}}, "an address in other"),
    ({"container_name": "box"}, {"environment": ["A=b,box:8080"]}, "an address in other"),
    ({"hostname": "gw"}, {"command": "--to gw:8080"}, "an address in other"),
    (
        {"networks": {"proxy": {"aliases": ["web"]}}},
        {"labels": ["homepage.widget.url=http://web:8080"]},
        "an address in other",
    ),
]


@pytest.mark.parametrize(("service", "other", "reason"), REACHED)
def test_a_port_that_is_reached_without_being_published_is_reported(
    tmp_path: Path, service: dict[str, object], other: dict[str, object], reason: str
) -> None:
    """A reverse proxy or another container reaches it over the Docker network: closed here."""
    trial = tried(tmp_path, service, {"other": other})
    assert f"port 8080/tcp is reached over the Docker network ({reason}" in said(trial)
    assert advice_of(trial).variables == {LISTED: "8080/tcp"}


@pytest.mark.parametrize(
    "text",
    ["http://othervpn:8080", "vpn:80:80", "my-vpn:8080", "vpn:8", "vpn.example:8080", "vpn:8888"],
)
def test_what_is_not_the_gateways_address_is_not_reported(tmp_path: Path, text: str) -> None:
    """Names that only contain its name; a port at which nothing listens."""
    trial = tried(tmp_path, {}, {"other": {"environment": {"URL": text}}})
    assert "reached over the Docker network" not in said(trial)


def test_a_port_that_is_published_and_reached_is_reported_once(tmp_path: Path) -> None:
    """In the block too."""
    trial = tried(tmp_path, {"ports": ["8080:8080"], "expose": [8080]})
    assert "reached" not in said(trial)
    assert advice_of(trial).variables == {LISTED: "8080/tcp"}


PROBLEMS: list[tuple[dict[str, object], str, str]] = [
    ({"network_mode": "host"}, "network_mode: host would close the", "network_mode"),
    ({"network_mode": "none"}, "network_mode: none leaves no way", "network_mode"),
    ({"entrypoint": ["/bin/sh", "-c"]}, "entrypoint '/bin/sh -c' replaces the", "entrypoint"),
    ({"entrypoint": "/gluetun-entrypoint"}, "so nothing would be closed", "entrypoint"),
    ({"command": "sleep infinity"}, "command 'sleep infinity' is not one that", "command"),
    ({"command": ["check"]}, "command 'check' is not one that", "command"),
    ({"user": "1000:1000"}, "user '1000:1000': Docker gives the capability", "user"),
]  # fmt: skip


@pytest.mark.parametrize(("service", "expected", "key"), PROBLEMS)
def test_a_key_that_breaks_the_gateway_is_a_problem(
    tmp_path: Path, service: dict[str, object], expected: str, key: str
) -> None:
    """Each with the key to remove."""
    trial = tried(tmp_path, {**service, "ports": ["80:80"]})
    assert any(expected in str(problem) for problem in trial.problems)
    assert f"    {key}:" in [*advice_of(trial).lines()]


HARMLESS: list[dict[str, object]] = [
    {"network_mode": "bridge"},
    {"entrypoint": []},
    {"entrypoint": None, "command": None},
    {"command": "run"},
    {"command": ["hold"]},
    {"user": "root"},
    {"user": "0:0"},
    {"healthcheck": {"start_interval": "1s"}},
    {"healthcheck": {"test": ["CMD", "/opt/portcullis/bin/gateway", "status"]}},
    {"cap_drop": ["ALL"], "cap_add": ["NET_ADMIN", "NET_RAW"]},
    {"cap_drop": ["SYS_CHROOT"]},
    {"read_only": True, "tmpfs": "/run/wireguard:mode=700"},
    {"read_only": True, "tmpfs": ["/run"]},
]


@pytest.mark.parametrize("service", HARMLESS, ids=str)
def test_a_harmless_key_is_not_reported(tmp_path: Path, service: dict[str, object]) -> None:
    """Control: what the image is, or what it allows."""
    trial = tried(tmp_path, service)
    assert not trial.problems
    assert "compose.yml" not in said(trial)


WARNINGS: list[tuple[dict[str, object], str]] = [
    ({"network_mode": "container:other"}, "network_mode: container:other: the network belongs to"),
    ({"cap_drop": ["ALL"]}, "cap_drop ALL takes NET_RAW"),
    ({"cap_add": ["NET_ADMIN", "SYS_MODULE"]}, "cap_add SYS_MODULE lets it load kernel modules"),
    ({"cap_drop": ["cap_net_raw"]}, "cap_drop NET_RAW takes NET_RAW"),
    ({"read_only": "true"}, "read_only without tmpfs: /run/wireguard"),
    ({"read_only": True, "tmpfs": "/tmp"}, "read_only without tmpfs: /run/wireguard"),  # noqa: S108
    ({"healthcheck": {"disable": True}}, "healthcheck is switched off"),
    ({"healthcheck": {"test": ["NONE"]}}, "healthcheck is switched off"),
    (
        {"healthcheck": {"test": "ping -c 1 1.1.1.1 || exit 1"}},
        "healthcheck replaces the image's own, which follows the tunnel; remove it",
    ),
    (
        {"healthcheck": {"test": "curl -f http://1.1.1.1 | grep -q x || exit 1"}},
        "which follows the tunnel, and this image lacks curl, grep; remove it",
    ),
    (
        {"healthcheck": {"test": ["CMD", "/gluetun-entrypoint", "healthcheck"]}},
        "and this image lacks gluetun-entrypoint; remove it",
    ),
    ({"healthcheck": {"test": ["CMD", "true"]}}, "which follows the tunnel; remove it"),
    ({"image": "binhex/arch-qbittorrentvpn"}, "also runs qbittorrent, which this image does not"),
    ({"image": "haugene/transmission-openvpn:5"}, "with network_mode: service:vpn, and move its"),
    ({"volumes": ["./a:/custom-cont-init.d:ro"]}, "mounts /custom-cont-init.d: scripts there"),
    ({"volumes": ["./a:/iptables/post-rules.txt"]}, "rules there are never used"),
]


@pytest.mark.parametrize(("service", "expected"), WARNINGS, ids=str)
def test_a_key_that_does_not_mean_what_it_did_is_reported(
    tmp_path: Path, service: dict[str, object], expected: str
) -> None:
    """The gateway starts with it."""
    trial = tried(tmp_path, service)
    assert not trial.problems
    assert any(expected in str(notice) for notice in trial.notices)


def test_the_services_own_name_is_in_the_advice(tmp_path: Path) -> None:
    """So that it can be pasted; with an anchor, the anchor's."""
    environment = {**COMPLETE, "SHADOWSOCKS": "on"}
    trial = tried(tmp_path, {"environment": environment})
    assert "a Shadowsocks server with network_mode: service:vpn" in said(trial)
    trial = tried(
        tmp_path,
        {"environment": environment, "network_mode": "service:net"},
        {"net": {"command": "hold", "cap_add": ["NET_ADMIN"]}},
    )
    assert "a Shadowsocks server with network_mode: service:net" in said(trial)


def test_the_ports_of_an_anchor_are_removed_there(tmp_path: Path) -> None:
    """And listed in the gateway's own variables."""
    anchor = {"command": "hold", "cap_add": ["NET_ADMIN"], "ports": ["6881:6881", "80:80"]}
    trial = tried(tmp_path, {"network_mode": "service:net"}, {"net": anchor})
    lines = [*advice_of(trial).lines()]
    assert lines[0] == "To paste into the service vpn:"
    assert "To remove from the ports of net:" in lines


@pytest.mark.parametrize("resolver", ["127.0.0.1", '"127.0.0.1"', "10.64.0.1,::1"])
def test_a_resolver_on_loopback_needs_a_service_that_is_one(tmp_path: Path, resolver: str) -> None:
    """If the gateway's own is switched off. Control: with such a service, and with the own one."""
    environment = {**COMPLETE, "DNS_ADDRESS": resolver, "DOT": "off"}
    service: dict[str, object] = {"environment": environment}
    app: dict[str, object] = {"network_mode": "service:vpn", "image": "nginx"}
    trial = tried(tmp_path, service, {"app": app})
    assert not trial.problems
    assert "DNS_ADDRESS is an address of loopback, but no service" in said(trial)
    assert advice_of(trial).unset == ["DNS_ADDRESS"]
    assert "      DNS_ADDRESS" in [*advice_of(trial).lines()]
    for own in ({**app, "image": "pihole/pihole:latest"}, {**app, "image": "mvance/unbound"}):
        assert not advice_of(tried(tmp_path, service, {"app": own})).unset
    assert advice_of(tried(tmp_path, service, {"dns": {"image": "pihole/pihole"}})).unset
    service["environment"] = {**environment, "DOT": "on"}
    assert not advice_of(tried(tmp_path, service, {"app": app})).unset


def test_a_resolver_of_a_workload_needs_the_port_of_the_gateways_own(tmp_path: Path) -> None:
    """Both would listen at port 53 of 127.0.0.1. Control: a workload that is none."""
    service: dict[str, object] = {"environment": {**COMPLETE, "DNS_ADDRESS": "127.0.0.1"}}
    app: dict[str, object] = {"network_mode": "service:vpn", "image": "pihole/pihole"}
    trial = tried(tmp_path, service, {"app": app})
    assert "the gateway's own resolver has port 53" in said(trial)
    assert advice_of(trial).variables["DNS_SERVER"] == "off"
    control = tried(tmp_path, service, {"app": {**app, "image": "nginx"}})
    assert "DNS_SERVER" not in advice_of(control).variables


def test_another_protocol_is_to_be_replaced(tmp_path: Path) -> None:
    """The problem names the variable; with a WireGuard file, that is all there is to do."""
    put(tmp_path, "wg0.conf", QUICK)
    service: dict[str, object] = {
        "volumes": ["./wg0.conf:/config/wg0.conf"],
        "environment": {"VPN_TYPE": "OpenVPN", "VPN_SERVICE_PROVIDER": "mullvad"},
    }
    trial = tried(tmp_path, service)
    assert [problem.where for problem in trial.problems] == ["VPN_TYPE"]
    assert advice_of(trial).variables == {"VPN_TYPE": "wireguard"}
    service["environment"] = {"VPN_TYPE": "wireguard"}
    assert not advice_of(tried(tmp_path, service)).variables


def test_names_that_are_wrong_are_to_be_changed(tmp_path: Path) -> None:
    """A misspelt one gets the right name, unless that is there; the firewall stays on."""
    environment = {
        **COMPLETE,
        "LOG_LEVLE": "debug",
        "FIREWALL": "off",
        "TZZ": "x",
        "DNS_ADRESS": "1",
    }
    trial = tried(tmp_path, {"environment": environment})
    assert advice_of(trial).renamed == {"LOG_LEVLE": "LOG_LEVEL"}
    assert advice_of(trial).unset == ["FIREWALL"]
    assert "      LOG_LEVLE to LOG_LEVEL" in [*advice_of(trial).lines()]


def test_a_variable_of_another_image_with_the_same_meaning_is_renamed(tmp_path: Path) -> None:
    """Its value stays; a second one of that meaning does not, nor one that is set already."""
    environment = {
        **COMPLETE,
        "LOCAL_NETWORK": "192.168.77.0/24",
        "LAN_NETWORK": "192.168.77.0/24",
        "MTU": "1280",
        "WIREGUARD_MTU": "1300",
        "HTTPPROXY": "on",
    }
    trial = tried(tmp_path, {"environment": environment})
    assert advice_of(trial).renamed == {"LOCAL_NETWORK": "FIREWALL_OUTBOUND_SUBNETS"}
    lines = [*advice_of(trial).lines()]
    assert "      LOCAL_NETWORK to FIREWALL_OUTBOUND_SUBNETS" in lines


def test_the_set_up_of_another_image_is_rewritten(tmp_path: Path) -> None:
    """Its variables get our names, and what it implied is added; the login keeps its value."""
    environment = {"LOC": "swiss", "USER": "p1234567", "PASS": "x", "PORT_FORWARDING": "1"}
    trial = tried(tmp_path, {"environment": environment})
    assert [one.where for one in trial.problems] == ["LOC, USER, PASS"]
    assert advice_of(trial).renamed == {"USER": "OPENVPN_USER", "PASS": "OPENVPN_PASSWORD"}
    assert advice_of(trial).variables == {"VPN_SERVICE_PROVIDER": "private internet access"}
    renamed = {"OPENVPN_USER": "p1234567", "OPENVPN_PASSWORD": "x", "PORT_FORWARDING": "1"}
    after = {**renamed, **advice_of(trial).variables}
    assert not tried(tmp_path, {"environment": after}).problems
