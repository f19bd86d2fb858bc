"""The manifests of docs/kubernetes: composed by kubectl, and the pod played by Podman.

Podman knows no sidecars, so the gateway is moved to the containers, and `gateway hold` closes the
namespace before them. Its probes are run by hand. No test starts a Kubernetes cluster.
"""

import json
import time
from typing import Any

import pytest
import yaml

from tests.docker.box import PYTHON
from tests.docker.images import LAB, PROJECT
from tests.docker.project import NUMBER, gateway_environment
from tests.docker.site import EXIT, HOST, UPLINK, Site, leaks_of
from tests.kustomize import MANIFESTS, OVERLAYS, composed
from tests.lab.capture import Capture
from tests.lab.errors import LabError
from tests.lab.process import eventually
from tests.systemd.machine import Machine, block, refused_by_the_machine

pytestmark = pytest.mark.systemd

GATEWAY, WORKLOAD = "vpn-pod-gateway", "vpn-pod-workload"
MARKER = "must-not-leave"
PROBES = ("startupProbe", "livenessProbe")


def in_any_order(value: Any) -> Any:
    """Return a value whose lists are sorted: kubectl puts what is new first."""
    if isinstance(value, dict):
        return {name: in_any_order(it) for name, it in value.items()}
    if isinstance(value, list):
        return sorted(map(in_any_order, value), key=lambda it: json.dumps(it, sort_keys=True))
    return value


def sidecar() -> Any:
    """Return the gateway's container of the manifest with wireguard-go."""
    return pod()["initContainers"][0]


def pod() -> Any:
    """Return the specification of the pod."""
    (deployment,) = composed(MANIFESTS / "overlays/userspace")
    return deployment["spec"]["template"]["spec"]


def played(site: Site) -> str:
    """Return the manifest for Podman, with a flood as its workload."""
    spec = pod()
    (gateway,) = spec["initContainers"]
    for name in (*PROBES, "restartPolicy", "envFrom", "resources"):
        gateway.pop(name, None)
    variables = gateway_environment(site, NUMBER)
    gateway["env"] = [{"name": name, "value": value} for name, value in variables.items()]
    gateway["image"] = f"localhost/{PROJECT}"
    close = {
        **{name: gateway[name] for name in ("image", "securityContext")},
        "name": "close",
        "args": ["hold", "--once"],
    }
    flood = f"/lab/traffic.py flood host4={HOST.ipv4} marker={MARKER} rate=200 kinds=udp4,tcp4"
    (workload,) = spec["containers"]
    workload |= {
        "image": f"localhost/{LAB}",
        "command": ["sh", "-c", f'sleep infinity | "$@" {flood}', "sh", *PYTHON],
        "volumeMounts": [{"name": "lab", "mountPath": "/lab", "readOnly": True}],
    }
    spec |= {"initContainers": [close], "containers": [gateway, workload]}
    spec["restartPolicy"] = "Always"
    spec["volumes"].append({"name": "lab", "hostPath": {"path": "/lab"}})
    key = site.gateway_keys[NUMBER].private
    secret = {"metadata": {"name": "portcullis"}, "stringData": {"wireguard_private_key": key}}
    made = {
        "metadata": {
            "name": "vpn-pod",
            "annotations": {"io.podman.annotations.init.container.type": "always"},
        },
        "spec": spec,
    }
    return yaml.safe_dump_all(
        [
            {"apiVersion": "v1", "kind": "Secret", **secret},
            {"apiVersion": "v1", "kind": "Pod", **made},
        ]
    )


def podman(machine: Machine, *words: str, check: bool = True) -> str:
    """Run root's Podman."""
    return machine.exec("podman", *words, check=check)


def succeeds(machine: Machine, probe: str) -> bool:
    """Return whether a probe of the manifest succeeds in the gateway's container."""
    try:
        podman(machine, "exec", GATEWAY, *sidecar()[probe]["exec"]["command"])
    except LabError:
        return False
    return True


def kill(machine: Machine) -> None:
    """Kill the gateway's process, as the kernel does without memory; Podman starts it again."""
    machine.shell(f"kill -9 $(podman inspect --format '{{{{.State.Pid}}}}' {GATEWAY}) || true")


def seen_from(machine: Machine) -> str:
    """Return the address that the host beyond the server sees of the workload."""
    code = f"import socket; print(socket.create_connection(({HOST.ipv4!r}, 7), 5).recv(99))"
    return podman(machine, "exec", WORKLOAD, *PYTHON, "-c", code)


@pytest.fixture(scope="module")
def running(site: Site, machine: Machine) -> Capture:
    """Return a capture that began before the pod was played; its gateway is healthy."""
    machine.load()
    capture = site.capture_network(UPLINK)
    site.control(capture)
    machine.write("/root/pod.yaml", played(site), 0o600)
    variables = gateway_environment(site, NUMBER)
    variables["WIREGUARD_PRIVATE_KEY"] = site.gateway_keys[NUMBER].private
    lines = "".join(f"{name}={value}\n" for name, value in variables.items())
    machine.write("/etc/portcullis/again.env", lines, 0o600)
    machine.shell("podman kube play /root/pod.yaml")
    eventually(lambda: succeeds(machine, "startupProbe"), timeout=60, what=gateway_log(machine))
    return capture


def gateway_log(machine: Machine) -> str:
    """Return what the gateway has logged."""
    return podman(machine, "logs", GATEWAY, check=False)


def test_kubectl_composes_what_the_unit_tests_validate(machine: Machine) -> None:
    """Its kustomize is the real one."""
    for overlay in OVERLAYS:
        made = machine.exec("kubectl", "kustomize", f"docs/kubernetes/{overlay}")
        assert in_any_order(list(yaml.safe_load_all(made))) == in_any_order(
            composed(MANIFESTS / overlay)
        )


def test_kubectl_understands_the_overlay_of_the_page(machine: Machine) -> None:
    """With the image and the workload of a user."""
    machine.shell("rm -rf /root/manifests; cp -r docs/kubernetes /root/manifests")
    text = block("kubernetes.md", "overlay")
    machine.write("/root/manifests/overlays/mine/kustomization.yaml", text)
    made = machine.exec("kubectl", "kustomize", "/root/manifests/overlays/mine")
    kinds = {it["kind"]: it for it in yaml.safe_load_all(made)}
    assert {it["metadata"]["namespace"] for it in kinds.values()} == {"vpn"}
    spec = kinds["Deployment"]["spec"]["template"]["spec"]
    (gateway,), (workload,) = spec["initContainers"], spec["containers"]
    assert gateway["image"] == "registry.example/portcullis:0.1.0"
    assert workload["image"] == "lscr.io/linuxserver/transmission:4.0.6"
    # The port of the workload is the one that is open, and the Service leads to it.
    assert gateway["env"] == [{"name": "FIREWALL_INPUT_PORTS", "value": "9091/tcp"}]
    assert workload["ports"] == [{"name": "http", "containerPort": 9091}]
    (port,) = kinds["Service"]["spec"]["ports"]
    assert port["targetPort"] == "http"


def test_the_commands_of_the_page_make_what_the_manifests_name(machine: Machine) -> None:
    """The Secret has the file, the ConfigMap the variables; kubectl asks no cluster for that."""
    machine.write("/root/k/secrets/wireguard_private_key", "key", 0o600)
    machine.write("/root/k/gateway.env", "WIREGUARD_ENDPOINT_IP=192.0.2.10\n")
    made = {}
    for line in block("kubernetes.md", "apply").splitlines():
        if " create " in line:
            done = machine.shell(f"cd /root/k; {line} --dry-run=client -o yaml")
            found = yaml.safe_load(done)
            made[found["kind"]] = found
    (gateway,) = pod()["initContainers"]
    (secrets, *_) = pod()["volumes"]
    assert made["Secret"]["metadata"]["name"] == secrets["secret"]["secretName"]
    assert [*made["Secret"]["data"]] == ["wireguard_private_key"]
    (given,) = gateway["envFrom"]
    assert made["ConfigMap"]["metadata"]["name"] == given["configMapRef"]["name"]
    assert made["ConfigMap"]["data"] == {"WIREGUARD_ENDPOINT_IP": "192.0.2.10"}


def test_the_pod_works_with_the_rights_of_the_manifest(machine: Machine, running: Capture) -> None:
    """A read-only root, and no capability but two; names are asked in the tunnel."""
    assert EXIT.ipv4 in seen_from(machine)
    said = podman(machine, "exec", GATEWAY, "gateway", "status")
    assert "healthy          yes" in said
    # Podman does not write the resolver of the manifest into the file, as a kubelet does.
    (resolver,) = pod()["dnsConfig"]["nameservers"]
    asked = ("dns", f"server={resolver}", "name=any.example")
    assert "answered" in podman(machine, "exec", WORKLOAD, *PYTHON, "/lab/probes.py", *asked)
    assert running.frames()


def test_an_outage_fails_the_health_and_not_the_liveness(
    site: Site, machine: Machine, running: Capture
) -> None:
    """So a kubelet does not restart the gateway for a server that is down."""
    site.cut()
    try:
        kill(machine)  # with the server silent, it stays red from the start
        eventually(lambda: succeeds(machine, "livenessProbe"), timeout=60, what="the process")
        time.sleep(5)
        assert not succeeds(machine, "startupProbe")
        assert succeeds(machine, "livenessProbe")
    finally:
        site.restore()
    eventually(lambda: succeeds(machine, "startupProbe"), timeout=90, what="the tunnel")
    assert running.frames()


def test_the_namespace_stays_closed_while_gateways_come_and_go(
    machine: Machine, running: Capture
) -> None:
    """A crash loop, a container that cannot start, and another image; the workload runs on."""
    started = podman(machine, "inspect", "--format", "{{.State.StartedAt}}", WORKLOAD)
    for _ in range(4):
        kill(machine)
        time.sleep(1.5)
    podman(machine, "rm", "-f", "-t", "0", GATEWAY)
    time.sleep(3)
    podman(machine, "tag", PROJECT, f"localhost/{PROJECT}:next")
    podman(
        machine,
        *("run", "-d", "--pod", "vpn-pod", "--name", GATEWAY, "--cap-drop", "ALL"),
        *("--cap-add", "NET_ADMIN,NET_BIND_SERVICE", "--device", "/dev/net/tun", "--read-only"),
        *("--tmpfs", "/run/wireguard", "--tmpfs", "/run/portcullis"),
        *("--env-file", "/etc/portcullis/again.env", f"localhost/{PROJECT}:next"),
    )
    eventually(lambda: succeeds(machine, "startupProbe"), timeout=60, what=gateway_log(machine))
    assert EXIT.ipv4 in seen_from(machine)
    assert podman(machine, "inspect", "--format", "{{.State.StartedAt}}", WORKLOAD) == started
    assert running.containing(MARKER) == []
    assert leaks_of(running, NUMBER, allowed=[refused_by_the_machine]) == []
