"""DNSSEC: the gateway's own resolver gives no answer with a wrong signature.

The upstream is that of test_own_resolver.py, with a root that the lab signs itself.
"""

from pathlib import Path

import pytest

from gateway.policy.unbound import ROOT_KEYS
from tests.lab.encrypted import NAME, EncryptedResolver
from tests.lab.gateway import Gateway
from tests.lab.process import run
from tests.lab.server import INSIDE
from tests.lab.signed import SignedRoot, signed_root
from tests.lab.tls import authority
from tests.lab.topology import Lab

pytestmark = [pytest.mark.lab, pytest.mark.promise("P10")]

ANSWER, FORGED = "198.51.100.77", "198.51.100.66"
NAMES = {"good.example": ANSWER, "forged.example": ANSWER}


def started(lab: Lab, tmp_path: Path, root: SignedRoot, dnssec: str) -> Gateway:
    """Return a healthy gateway that asks a resolver with the signed `root`."""
    trusted = authority(tmp_path)
    EncryptedResolver(
        lab.server.namespace, lab.household, INSIDE.ipv4, trusted.issue(NAME), zone=root.zone
    )
    gateway = lab.gateway(resolv_conf="nameserver 198.51.100.10\n")
    mounts = f"--mount=/proc/{gateway.container.holder}/ns/mnt"
    run(["nsenter", mounts, "mount", "--bind", str(root.anchor), ROOT_KEYS])
    gateway.start(
        gateway.env(
            DNS_SERVER="on",
            DNS_ADDRESS=None,
            DNS_UPSTREAM_RESOLVERS=f"{INSIDE.ipv4}@853#{NAME}",
            DNS_DNSSEC=dnssec,
            SSL_CERT_FILE=str(trusted.certificate),
        )
    )
    gateway.wait_healthy(timeout=20)
    return gateway


def asked(lab: Lab, name: str) -> object:
    """Return the address that a workload gets for `name`, or None."""
    return lab.workload.probe("dns", server="127.0.0.1", name=name).fields.get("address")


@pytest.mark.parametrize("dnssec", ["on", "off"])
def test_a_forged_answer_is_not_given(lab: Lab, tmp_path: Path, dnssec: str) -> None:
    """A right one is. The control is the same upstream without the check."""
    root = signed_root(tmp_path, NAMES, {"forged.example": FORGED})
    started(lab, tmp_path, root, dnssec)
    assert asked(lab, "good.example") == ANSWER
    assert asked(lab, "forged.example") == (None if dnssec == "on" else FORGED)


def test_a_name_without_a_signature_is_not_given(lab: Lab, tmp_path: Path) -> None:
    """As when an upstream takes signatures out."""
    root = signed_root(tmp_path, NAMES, {})
    lines = root.zone.read_text("ascii").splitlines(keepends=True)
    root.zone.write_text("".join(it for it in lines if "RRSIG\tA " not in it), "ascii")
    started(lab, tmp_path, root, "on")
    assert asked(lab, "good.example") is None
