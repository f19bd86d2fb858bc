"""Checking a container that is not in a compose file: each format is read as one."""

import json
from base64 import b64encode
from contextlib import suppress
from io import BytesIO, TextIOWrapper
from pathlib import Path
from types import MappingProxyType

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gateway import cli
from gateway.commands.check.compose import name_of
from gateway.commands.check.document import parse_all
from gateway.commands.check.formats import FORMATS, read_format
from gateway.commands.check.trial import Trial, try_service
from gateway.errors import ConfigError
from gateway.model import Secret
from gateway.settings.findings import Findings
from tests.configurations import COMPLETE, OTHER_PRIVATE, PRIVATE, QUICK, put

PORTS = MappingProxyType({"FIREWALL_INPUT_PORTS": "8080/tcp"})


def tried(folder: Path, kind: str, text: str, wanted: str = "gateway") -> Trial:
    """Check a file of some kind."""
    file = folder / "vpn.file"
    put(folder, "vpn.file", text)
    findings = Findings()
    return try_service(read_format(kind, file, wanted, findings), name_of(file), findings)


def said(trial: Trial) -> str:
    """Return all problems and notices, one a line."""
    return "\n".join(map(str, (*trial.problems, *trial.notices)))


def lines(trial: Trial) -> list[str]:
    """Return the advice."""
    assert trial.advice
    return [*trial.advice.lines()]


def inspected(**changed: object) -> dict[str, object]:
    """Return what Docker says about a container of gluetun's image, with its defaults."""
    environ = {
        "PATH": "/usr/bin",
        "VPN_SERVICE_PROVIDER": "custom",
        "VPN_TYPE": "wireguard",
        "DNS_ADDRESS": "127.0.0.1",
        "DOT": "on",
        "HTTPPROXY": "",
        "PUID": "1000",
        "BLOCK_MALICIOUS": "on",
        "WIREGUARD_PRIVATE_KEY_SECRETFILE": "/run/secrets/wireguard_private_key",
        "AMNEZIAWG_JC": "0",
        "FIREWALL_ENABLED_DISABLING_IT_SHOOTS_YOU_IN_YOUR_FOOT": "on",
        **{name: text for name, text in COMPLETE.items() if name != "DNS_ADDRESS"},
    }
    return {
        "Name": "/vpn",
        "Config": {
            "Image": "qmcgaw/gluetun",
            "Env": [f"{name}={text}" for name, text in environ.items()],
            "Entrypoint": ["/gluetun-entrypoint"],
            "Cmd": None,
            "Healthcheck": {"Test": ["CMD-SHELL", "/gluetun-entrypoint healthcheck"]},
            "Labels": {"com.docker.compose.service": "tunnel", "traefik.port": "9090"},
            "User": "",
            "Hostname": "0123456789ab",
        },
        "HostConfig": {
            "CapAdd": ["CAP_NET_ADMIN"],
            "CapDrop": None,
            "NetworkMode": "stack_default",
            "PortBindings": {
                "8080/tcp": [{"HostIp": "", "HostPort": "80"}],
                "6881/udp": [{"HostIp": "", "HostPort": "6881"}],
            },
            "Privileged": False,
            "ReadonlyRootfs": False,
        },
        "Mounts": [],
        **changed,
    }


def test_a_container_that_runs_is_read(tmp_path: Path) -> None:
    """Its image's own variables, entrypoint and health check are not what anybody has written."""
    trial = tried(tmp_path, "inspect", json.dumps([inspected()]))
    assert trial.loaded
    assert trial.loaded.config.tunnels[0].private_key == Secret(PRIVATE)
    notices = {notice.where for notice in trial.notices if notice.where.isupper()}
    assert notices == {"WIREGUARD_PRIVATE_KEY"}
    assert "healthcheck" not in said(trial)
    assert lines(trial) == [
        "To paste into the service tunnel:",
        "      --env FIREWALL_INPUT_PORTS=8080/tcp,9090/tcp",
        "To remove from the ports of tunnel:",
        "      - 6881:6881/udp",
    ]


def test_what_a_container_was_started_with_is_compared(tmp_path: Path) -> None:
    """Files, keys, capabilities; of several containers, the one that is asked for."""
    put(tmp_path, "wg0.conf", QUICK)
    container = inspected(
        Mounts=[
            {"Type": "bind", "Source": str(tmp_path / "wg0.conf"), "Destination": "/config/x.conf"}
        ],
        HostConfig={"NetworkMode": "host", "CapAdd": None, "Privileged": False},
        Config={"Env": ["HTTPPROXY=on"], "Entrypoint": ["/bin/sh"], "User": "1000"},
    )
    both = json.dumps([{"Name": "/other", "Config": {"Image": "nginx"}}, container])
    trial = tried(tmp_path, "inspect", both, "vpn")
    for line in (
        "network_mode: host would close",
        "entrypoint '/bin/sh' replaces",
        "user '1000'",
        "cap_add lacks NET_ADMIN",
        "HTTPPROXY: port 8888 of the proxy",
    ):
        assert line in said(trial)
    assert "/config/x.conf" in said(trial)
    assert "      --cap-add NET_ADMIN" in lines(trial)
    with pytest.raises(ConfigError, match=r"has no container 'gateway'.*other, vpn"):
        tried(tmp_path, "inspect", both)


QUADLET = """\
# mine
[Unit]
Description=VPN

[Container]
Image=docker.io/qmcgaw/gluetun
ContainerName=tunnel
Environment=WIREGUARD_ADDRESSES=10.64.1.2/32 "WIREGUARD_ENDPOINT_IP=203.0.113.7"
Environment=WIREGUARD_ENDPOINT_PORT=51820 \\
  DNS_ADDRESS=10.64.0.1
EnvironmentFile=./vpn.env
; more
Secret=wg_key,type=env,target=WIREGUARD_PRIVATE_KEY
AddCapability=NET_ADMIN
PublishPort=80:8080
PublishPort=6881:6881/udp
Network=media.network
Label=traefik.port=9090
HealthCmd=none

[Service]
Environment=WIREGUARD_MTU=9
"""


def test_a_quadlet_is_read(tmp_path: Path) -> None:
    """Several entries in a line, in quotes, over several lines; a secret's value is not known."""
    put(tmp_path, "vpn.env", f"WIREGUARD_PUBLIC_KEY={COMPLETE['WIREGUARD_PUBLIC_KEY']}\n")
    trial = tried(tmp_path, "quadlet", QUADLET)
    assert trial.loaded
    assert str(trial.loaded.config.tunnels[0].endpoints[0]) == "203.0.113.7:51820"
    assert "WIREGUARD_PRIVATE_KEY comes from the secret wg_key and is not checked" in said(trial)
    assert "healthcheck is switched off" in said(trial)
    assert lines(trial)[:2] == [
        "To paste into the service tunnel:",
        "Environment=FIREWALL_INPUT_PORTS=8080/tcp,9090/tcp",
    ]


def test_a_quadlets_keys_are_compared(tmp_path: Path) -> None:
    """An empty assignment resets; PodmanArgs say the same as keys do."""
    put(tmp_path, "wg/wg0.conf", QUICK)
    text = (
        "[Container]\nImage=x\nAddCapability=NET_RAW\nAddCapability=\nVolume=./wg:/config:ro,z\n"
        "Network=host\nExec=sleep 5\nUser=1000\nReadOnly=true\nPodmanArgs=--cap-drop ALL -p 1:2\n"
    )
    trial = tried(tmp_path, "quadlet", text)
    for line in (
        "network_mode: host would close",
        "command 'sleep 5' is not one",
        "user '1000'",
        "read_only without tmpfs",
        "cap_add lacks NET_ADMIN",
        "cap_drop ALL takes NET_RAW",
    ):
        assert line in said(trial)
    assert "/config/wg0.conf line 3" in said(trial)
    shared = "[Container]\nNetwork=other.container\nVolume=./wg:/config\nPodmanArgs=-p 8080:8080\n"
    trial = tried(tmp_path, "quadlet", shared)
    assert "network_mode: container:other" in said(trial)
    assert "Environment=FIREWALL_INPUT_PORTS=8080/tcp" in lines(trial)
    home = tried(tmp_path, "quadlet", "[Container]\nVolume=%h/none/such:/config\n")
    assert "mounts ~/none/such at /config, but it does not exist" in said(home)
    with pytest.raises(ConfigError, match=r"has no \[Container\] section"):
        tried(tmp_path, "quadlet", "[Service]\nExecStart=x\n")
    broken = tried(tmp_path, "quadlet", "[Container]\n\nEnvironment=A='x\nImage=y\n")
    assert "line 3: has an unclosed quote; close it" in said(broken)


def manifests(**changed: object) -> str:
    """Return a deployment with a secret, a config map and a service."""
    gateway: dict[str, object] = {
        "name": "gluetun",
        "image": "qmcgaw/gluetun",
        "env": [
            {"name": "WIREGUARD_ENDPOINT_PORT", "value": "51820"},
            {
                "name": "WIREGUARD_PRIVATE_KEY",
                "valueFrom": {"secretKeyRef": {"name": "wg", "key": "key"}},
            },
        ],
        "envFrom": [{"configMapRef": {"name": "vpn"}}],
        "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}},
        "ports": [{"name": "web", "containerPort": 8080}],
        **changed,
    }
    app = {"name": "app", "image": "nginx", "readinessProbe": {"httpGet": {"port": "web"}}}
    pod = {
        "metadata": {"labels": {"app": "vpn", "more": "x"}},
        "spec": {"containers": [app], "initContainers": [gateway], "volumes": VOLUMES},
    }
    config = {name: COMPLETE[name] for name in COMPLETE if "KEY" not in name and "PORT" not in name}
    documents: list[object] = [
        {"kind": "Deployment", "spec": {"template": pod}},
        {
            "kind": "List",
            "items": [
                {
                    "kind": "Secret",
                    "metadata": {"name": "wg"},
                    "data": {"key": b64encode(PRIVATE.encode()).decode()},
                    "stringData": {"wg0.conf": QUICK},
                },
            ],
        },
        {
            "kind": "ConfigMap",
            "metadata": {"name": "vpn"},
            "data": {**config, "WIREGUARD_PUBLIC_KEY": COMPLETE["WIREGUARD_PUBLIC_KEY"]},
        },
        {
            "kind": "Service",
            "spec": {"selector": {"app": "vpn"}, "ports": [{"port": 80, "targetPort": 9090}]},
        },
        {"kind": "Service", "spec": {"selector": {"app": "other"}, "ports": [{"port": 81}]}},
    ]
    return yaml.safe_dump_all(documents)


ITEMS = [{"key": "wg0.conf", "path": "a.conf"}]
VOLUMES = [
    {"name": "files", "secret": {"secretName": "wg", "items": ITEMS}},
    {"name": "whole", "secret": {"secretName": "wg"}},
    {"name": "host", "hostPath": {"path": "/none/such"}},
    {"name": "run", "emptyDir": {}},
    {"name": "claim", "persistentVolumeClaim": {"claimName": "x"}},
]


def test_a_pod_is_read(tmp_path: Path) -> None:
    """Variables of secrets and config maps, ports of services and of probes."""
    trial = tried(tmp_path, "kubernetes", manifests())
    assert trial.loaded
    assert trial.loaded.config.tunnels[0].private_key == Secret(PRIVATE)
    assert lines(trial) == [
        "To paste into the service gluetun:",
        '            - {name: FIREWALL_INPUT_PORTS, value: "9090/tcp,8080/tcp"}',
    ]


@pytest.mark.parametrize(
    "mount",
    [
        {"name": "files", "mountPath": "/config"},
        {"name": "whole", "mountPath": "/config/wg_confs"},
        {"name": "whole", "mountPath": "/config/my.conf", "subPath": "wg0.conf"},
    ],
)
def test_files_of_a_secret_are_read(tmp_path: Path, mount: dict[str, str]) -> None:
    """A folder of them, with other names, or one."""
    text = manifests(volumeMounts=[mount], env=[], envFrom=[])
    trial = tried(tmp_path, "kubernetes", text)
    assert trial.loaded
    assert trial.loaded.config.tunnels[0].private_key == Secret(OTHER_PRIVATE)


def test_a_pods_keys_are_compared(tmp_path: Path) -> None:
    """The image's entrypoint is a pod's command; a secret that is elsewhere is reported."""
    text = manifests(
        command=["/bin/sh"],
        securityContext={"runAsUser": 1000, "readOnlyRootFilesystem": True},
        volumeMounts=[
            {"name": "host", "mountPath": "/config"},
            {"name": "claim", "mountPath": "/gluetun/wireguard"},
        ],
        env=[
            {
                "name": "WIREGUARD_PRIVATE_KEY",
                "valueFrom": {"secretKeyRef": {"name": "far", "key": "key"}},
            },
        ],
        envFrom=[{"secretRef": {"name": "farther"}}],
    )
    trial = tried(tmp_path, "kubernetes", text)
    for line in (
        "entrypoint '/bin/sh' replaces",
        "user '1000'",
        "cap_add lacks NET_ADMIN",
        "read_only without tmpfs",
        "WIREGUARD_PRIVATE_KEY comes from the Secret far and is not checked",
        "Secret farther is not here and is not checked; append its manifest",
        "mounts /none/such at /config, but it does not exist",
        "the volume 'claim' at /gluetun/wireguard cannot be checked",
    ):
        assert line in said(trial)
    writable = manifests(
        securityContext={"readOnlyRootFilesystem": True, "capabilities": {"add": ["NET_ADMIN"]}},
        volumeMounts=[{"name": "run", "mountPath": "/run"}],
    )
    assert "read_only" not in said(tried(tmp_path, "kubernetes", writable))


def test_a_pod_on_the_hosts_network_is_a_problem(tmp_path: Path) -> None:
    """In a pod, and in what makes pods; the name of the container is asked for if need be."""
    spec = {"hostNetwork": True, "containers": [{"name": "a"}, {"name": "b"}]}
    for document in (
        {"kind": "Pod", "spec": spec},
        {"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": {"spec": spec}}}}},
    ):
        text = yaml.safe_dump(document)
        assert "network_mode: host would" in said(tried(tmp_path, "kubernetes", text, "a"))
        with pytest.raises(ConfigError, match=r"has no container 'gateway'.*a, b"):
            tried(tmp_path, "kubernetes", text)


TEMPLATE = """\
<?xml version="1.0"?>
<Container version="2">
  <Name>GluetunVPN</Name>
  <Repository>qmcgaw/gluetun</Repository>
  <Network>{network}</Network>
  <Privileged>false</Privileged>
  <ExtraParams>--cap-add=NET_ADMIN --label traefik.port=9090 {extra}</ExtraParams>
  <PostArgs>{post}</PostArgs>
  <Config Name="a" Target="WIREGUARD_ENDPOINT_IP" Default="" Type="Variable">203.0.113.7</Config>
  <Config Name="b" Target="WIREGUARD_ENDPOINT_PORT" Default="51820" Type="Variable"/>
  <Config Name="c" Target="WIREGUARD_PUBLIC_KEY" Type="Variable">{public}</Config>
  <Config Name="d" Target="WIREGUARD_PRIVATE_KEY" Type="Variable" Mask="true">{private}</Config>
  <Config Name="e" Target="WIREGUARD_ADDRESSES" Type="Variable">10.64.1.2/32</Config>
  <Config Name="f" Target="SERVER_CITIES" Type="Variable"></Config>
  <Config Name="g" Target="8080" Mode="tcp" Type="Port">80</Config>
  <Config Name="h" Target="6881" Mode="udp" Type="Port">6881</Config>
  <Config Name="i" Target="/iptables" Mode="rw" Type="Path">/mnt/user/rules</Config>
  <Config Name="j" Target="/dev/net/tun" Type="Device">/dev/net/tun</Config>
</Container>
"""


def template(network: str = "bridge", extra: str = "", post: str = "") -> str:
    """Return a template of Unraid."""
    return TEMPLATE.format(
        network=network,
        extra=extra,
        post=post,
        public=COMPLETE["WIREGUARD_PUBLIC_KEY"],
        private=PRIVATE,
    )


def test_a_template_is_read(tmp_path: Path) -> None:
    """Values, or their defaults; extra parameters as `docker run` has them."""
    trial = tried(tmp_path, "unraid", template())
    assert trial.loaded
    assert str(trial.loaded.config.tunnels[0].endpoints[0]) == "203.0.113.7:51820"
    assert "rules there are never used" in said(trial)
    assert "cap_add" not in said(trial)
    assert lines(trial) == [
        "To paste into the service GluetunVPN:",
        "      variable FIREWALL_INPUT_PORTS, value 8080/tcp,9090/tcp",
        "To remove from the ports of GluetunVPN:",
        "      - 6881:6881/udp",
    ]


def test_of_choices_in_a_template_the_first_counts(tmp_path: Path) -> None:
    """Unless one is chosen; `Default` has them all. A key that is not a name is reported."""
    choices = '<Config Target="{}" Default="{}" Type="Variable">{}</Config>'
    added = [
        choices.format("VPN_TYPE", "wireguard|openvpn", ""),
        choices.format("LOG_LEVEL", "info|debug|error", "error"),
        choices.format("DNS_CACHING", "on|off", "on|off"),
        choices.format(":8388", "", "x"),
    ]
    text = template().replace("</Container>", "\n".join([*added, "</Container>"]))
    trial = tried(tmp_path, "unraid", text)
    assert trial.loaded
    assert trial.loaded.log.level == "error"
    assert "has a variable ':8388', which is not a name" in said(trial)


@pytest.mark.parametrize("encoding", ["utf-16", "iso-8859-1", "foo"])
def test_the_encoding_that_a_template_names_does_not_count(tmp_path: Path, encoding: str) -> None:
    """It is read as UTF-8; one that Python does not know ended in a traceback."""
    text = template().replace('"1.0"', f'"1.0" encoding="{encoding}"', 1)
    assert tried(tmp_path, "unraid", text).loaded


def test_a_templates_keys_are_compared(tmp_path: Path) -> None:
    """The network, the arguments of the container, and those of the program in it."""
    trial = tried(tmp_path, "unraid", template("host", "--user 1000 --read-only", "sleep 5"))
    for line in (
        "network_mode: host would close",
        "user '1000'",
        "command 'sleep 5'",
        "read_only without tmpfs",
    ):
        assert line in said(trial)


WRONG = {
    "inspect": ["", "[", "5", "[5]", '{"a": 1}', "[" * 100_000],
    "quadlet": ["", "[Container]\n", "x"],
    "kubernetes": ["", "5", "a: b", "- 1", "a: &a {spec: *a}", "kind: List\nitems: [5]", "{"],
    "unraid": [
        "",
        "<a/>",
        "<Container>",
        '<!DOCTYPE a [<!ENTITY b "c">]><Container><Repository>&b;</Repository></Container>',
        "<Container>" + "<x/>" * 10_001 + "<Repository/></Container>",
        "<Container><Repository>x</Repository><ExtraParams>'</ExtraParams></Container>",
    ],
}


@pytest.mark.parametrize(("kind", "text"), [(k, text) for k in WRONG for text in WRONG[k]])
def test_what_is_not_the_format_is_reported(tmp_path: Path, kind: str, text: str) -> None:
    """In words, and at once."""
    with pytest.raises(ConfigError):
        tried(tmp_path, kind, text)


@pytest.mark.parametrize("kind", FORMATS)
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_nothing_makes_a_traceback(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    """Any text, and any change of one that is right."""
    right = {
        "inspect": json.dumps([inspected()]),
        "quadlet": QUADLET,
        "kubernetes": manifests(),
        "unraid": template(),
    }[kind]
    at = data.draw(st.integers(0, len(right)))
    cut = data.draw(st.integers(0, 40))
    new = data.draw(st.text(alphabet="{}[]<>\"'=:&*!$\\\n a1", max_size=10))
    with suppress(ConfigError):
        tried(tmp_path, kind, right[:at] + new + right[at + cut :])


def test_each_of_many_documents_is_read_in_full() -> None:
    """Merge keys too: what was seen in one document says nothing about the next."""
    text = "---\na: &a {b: c}\nd:\n  <<: *a\n  e: f\n" * 100
    found = parse_all(text, "x", Findings())
    assert found == [{"a": {"b": "c"}, "d": {"b": "c", "e": "f"}}] * 100


def test_a_dollar_sign_is_one(tmp_path: Path) -> None:
    """None of these formats replaces variables as Compose does."""
    text = template(extra="-e VPN_UP_COMMAND=/bin/x$HOME")
    trial = tried(tmp_path, "unraid", text)
    assert trial.loaded
    assert trial.loaded.config.up_command == ("/bin/x$HOME",)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_command_reads_each_format(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    """From a file, and from the standard input."""
    put(tmp_path, "vpn.env", f"WIREGUARD_PUBLIC_KEY={COMPLETE['WIREGUARD_PUBLIC_KEY']}\n")
    text = {
        "inspect": json.dumps([inspected()]),
        "quadlet": QUADLET,
        "kubernetes": manifests(),
        "unraid": template(),
    }[kind]
    put(tmp_path, "x", text)
    assert cli.main(["check", f"--{kind}", str(tmp_path / "x")]) == 0
    first = capsys.readouterr().out
    assert "FIREWALL_INPUT_PORTS" in first
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(text.encode())))
    assert cli.main(["check", f"--{kind}", "-"]) == 0
    assert capsys.readouterr().out.replace("standard input", "") == first.replace(
        str(tmp_path / "x"), ""
    )


def test_an_env_file_is_read_from_the_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Compose reads it."""
    text = "\n".join(f"{name}={value}" for name, value in COMPLETE.items())
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(text.encode())))
    assert cli.main(["check", "--env-file", "-"]) == 0
    assert "203.0.113.7" in capsys.readouterr().out
