"""The manifests of docs/kubernetes: valid for Kubernetes, and for the gateway."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway import cli
from tests.configurations import PRIVATE, PUBLIC, put
from tests.conftest import skip_or_fail
from tests.kustomize import MANIFESTS, OVERLAYS, composed

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / ".cache/kubernetes"
VALIDATE = PLACE / "bin/kubernetes-validate"
VERSIONS = ("1.29", "1.33", "1.37")
"""The first with sidecars, one in between, and the last that the schemas are published for."""


def pod_of(overlay: str) -> Any:
    """Return the specification of the pod."""
    (found,) = (it for it in composed(MANIFESTS / overlay) if it["kind"] == "Deployment")
    return found["spec"]["template"]["spec"]


def gateway_of(overlay: str) -> Any:
    """Return the gateway's container, which is the first: what runs before it is not closed in."""
    return pod_of(overlay)["initContainers"][0]


def validated(text: str, version: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Validate manifests strictly: unknown fields are errors."""
    if not VALIDATE.exists():
        skip_or_fail("the manifests need their schemas: scripts/install-kubernetes-schemas")
    schemas = PLACE.glob(f"lib/*/site-packages/*/*/v{version}.0-local-strict/_definitions.json")
    assert list(schemas), "another version would be taken in its place"
    put(folder, "all.yaml", text)
    return subprocess.run(
        [str(VALIDATE), "--strict", "-k", version, str(folder / "all.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_every_overlay_is_valid_for_kubernetes(tmp_path: Path, version: str) -> None:
    """Against the published schemas of the first version with sidecars, and of later ones."""
    text = "---\n".join(
        yaml.safe_dump(it) for overlay in OVERLAYS for it in composed(MANIFESTS / overlay)
    )
    done = validated(text, version, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"against version {version}" in done.stdout + done.stderr
    wrong = text.replace("restartPolicy: Always", "restartPolicies: Always", 1)
    assert validated(wrong, version, tmp_path).returncode != 0, "control"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_gateway_has_no_more_rights_than_it_uses(overlay: str) -> None:
    """All capabilities are dropped, the root is read-only, and workloads have no raw sockets."""
    context = gateway_of(overlay)["securityContext"]
    assert context["capabilities"]["drop"] == ["ALL"]
    assert context["readOnlyRootFilesystem"] is True
    raw = "NET_RAW" in context["capabilities"]["add"]
    assert raw is (overlay == "overlays/example")
    assert "privileged" not in context
    for container in pod_of(overlay)["containers"]:
        assert container["securityContext"]["capabilities"]["drop"] == ["NET_RAW"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_gateway_starts_first_and_an_outage_does_not_restart_it(overlay: str) -> None:
    """A sidecar whose startup probe is the health check; the liveness probe asks something else."""
    pod = pod_of(overlay)
    gateway = gateway_of(overlay)
    assert (gateway["name"], gateway["restartPolicy"]) == ("gateway", "Always")
    assert gateway["startupProbe"]["exec"]["command"][-1] == "/opt/portcullis/healthcheck.pyc"
    assert '"/livez"' in gateway["livenessProbe"]["exec"]["command"][-1]
    assert "readinessProbe" not in gateway
    assert (pod["dnsPolicy"], pod["dnsConfig"]) == ("None", {"nameservers": ["127.0.0.1"]})
    assert pod["automountServiceAccountToken"] is False
    assert "hostNetwork" not in pod


def test_the_manifests_pass_the_gateways_own_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the secret and the ConfigMap that the page makes."""
    values = {
        "WIREGUARD_ENDPOINT_IP": "192.0.2.10",
        "WIREGUARD_ENDPOINT_PORT": "51820",
        "WIREGUARD_PUBLIC_KEY": PUBLIC,
        "WIREGUARD_ADDRESSES": "10.64.0.2/32",
    }
    documents = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "portcullis"},
            "data": values,
        },
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "portcullis"},
            "stringData": {"wireguard_private_key": PRIVATE},
        },
        *composed(MANIFESTS / "overlays/example"),
    ]
    put(tmp_path, "all.yaml", "---\n".join(map(yaml.safe_dump, documents)))
    code = cli.main(["check", "--kubernetes", str(tmp_path / "all.yaml"), "--service", "gateway"])
    assert code == 0, capsys.readouterr()
