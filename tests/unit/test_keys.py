"""Keys that the gateway makes and computes: as RFC 7748 and `wg pubkey` have them."""

import shutil
import subprocess
from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Secret
from gateway.settings import assemble, keys
from tests.configurations import COMPLETE, PRIVATE, problems
from tests.conftest import skip_or_fail

PAIRS = (
    (
        "ta1F3JMrJFoviPcpzjCkoJjIaL1Unei/jYZBs3pehQE=",
        "tWsNosEnYrRjqDGAsPi2pxSpzfVsk5o3b9qt3IiJnUo=",
    ),
    (
        "dVhXiA4SDZRZ+KlnlY9L+DLgKs25RRjeUE81xkQ9gYo=",
        "7Gf/cSVOaWeLu1d0ODzlXe75G2awABotFGF9fB2gmhs=",
    ),
    (
        "2jYO4iZrHFIEKk2HNdWU+F0SnJDU3cHMXqtPSReHJwQ=",
        "1KYtU0pIt/GJfrT9K3lsBAGbqSKZOK59jqdF9oE8c2E=",
    ),
    (
        "gB2LVFDhLSqBsmvQvatHnbrAefqXF9S6Di35vI0Hux0=",
        "QQPyvLuq4P7oGhiubnErJGOgHlMueh4ro6VZX9KiGlc=",
    ),
    (
        "goU8ILfjn9VZOgS8Pw0nJ7Og3PJpK5LBgmhP8fnS3HA=",
        "eZ5jguk6n97Tq0ZAOIAeZiBm9gLGZ1FTOShLnJtxySg=",
    ),
    (
        "qiOjr3L4aGGFotoX+9a88xh5RUohx/cJxob4g3jeWvE=",
        "ickZblau7Ik0Pd2IUOaPZzSZmG5jP2MYRfQ0CkQKumE=",
    ),
    (
        "//////////////////////////////////////////8=",
        "hHwNLDdSNPNl5mCVUYejc1oPdhPRYJ06ak2MU66qWiI=",
    ),
    (
        "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "L+V9o0fNYkMVKNqsX7spBzD/9oSvxM/C7ZCZX1jLO3Q=",
    ),
)
"""Private keys, the last two at the ends of their range, and what `wg pubkey` printed."""


@pytest.mark.parametrize(("private", "public"), PAIRS)
def test_the_public_key_of_a_private_key(private: str, public: str) -> None:
    """Also where bits are set that X25519 clears."""
    assert keys.public_of(Secret(private)) == public


def test_a_public_key_is_that_of_rfc_7748() -> None:
    """Section 6.1 has both pairs."""
    alice, bob = (
        ("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=",
         "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="),
        ("XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=",
         "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08="),
    )  # fmt: skip
    for private, public in (alice, bob):
        assert keys.public_of(Secret(private)) == public
    made = keys.generated()
    assert made != keys.generated()
    assert len(keys.public_of(made)) == 44


@settings(max_examples=10)
@given(st.binary(min_size=32, max_size=32))
def test_any_key_has_the_one_that_wireguard_tools_compute(octets: bytes) -> None:
    """The other implementation is the reference."""
    if shutil.which("wg") is None:
        skip_or_fail("wg is not installed")
    private = b64encode(octets).decode()
    run = subprocess.run(["wg", "pubkey"], input=private, capture_output=True, text=True)  # noqa: PLW1510
    assert keys.public_of(Secret(private)) == run.stdout.strip()


def test_the_gateways_own_key_is_not_the_servers(tmp_path: Path) -> None:
    """A handshake with oneself never ends; the problem says which key it is."""
    own = COMPLETE | {"WIREGUARD_PUBLIC_KEY": keys.public_of(Secret(PRIVATE))}
    (problem,) = problems(own, tmp_path)
    assert problem.startswith("WIREGUARD_PUBLIC_KEY: the public key is your own")
    assert PRIVATE not in problem


def test_a_library_without_the_curve_refuses_no_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WireGuard computes by itself. Only the mistake above is not found."""
    own = COMPLETE | {"WIREGUARD_PUBLIC_KEY": keys.public_of(Secret(PRIVATE))}
    monkeypatch.setattr(keys, "EVP_PKEY_X25519", 0)
    assert assemble.load(own, tmp_path)
