"""The egress guard as text: what each state lets through below the firewall, in the words of nft.

A reviewer reads the files in tests/golden/guard. After a change of the policy on purpose,
`GOLDEN=write` writes them again, and the difference is what is to be reviewed.
"""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.firewall.nft.guard import TABLE, render_devices
from gateway.firewall.nft.render import transaction
from gateway.policy.facts import Facts
from gateway.policy.firewall import ruleset_for
from gateway.policy.guard import GuardRules, guard_for
from tests.conftest import skip_or_fail
from tests.scenarios import GUARD_MARK, SCENARIOS

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "guard"


def guard_of(scenario: str, facts: Facts | None = None, *, routed: bool = True) -> GuardRules:
    """Return the guard of `scenario`, in its own namespace or in one like `facts`."""
    state, config, own = SCENARIOS[scenario]
    facts = replace(facts or own, guard_mark=GUARD_MARK)
    return replace(guard_for(ruleset_for(state, config, facts), facts), routed=routed)


TWO = SCENARIOS["connected-holes-two-uplinks"][2]
GUARDS = {
    "locked": guard_of("locked", replace(TWO, down=("eth2",))),
    "resolving": guard_of("resolving"),
    "resolving-by-docker": guard_of("resolving-by-docker"),
    "fetching": guard_of("fetching"),
    "connecting": guard_of("connecting"),
    "connecting-ipv6-endpoint": guard_of("connecting-ipv6-endpoint"),
    "connected": guard_of("connected"),
    "connected-without-realms": guard_of("connected", routed=False),
    "connected-holes-two-uplinks": guard_of("connected-holes-two-uplinks"),
}


@pytest.mark.parametrize("name", GUARDS)
def test_the_guard_reads_as_its_golden_file_says(name: str) -> None:
    """Every line that a state adds or drops is seen and agreed to."""
    path, text = GOLDEN / f"{name}.nft", transaction(TABLE, render_devices(GUARDS[name]))
    if os.environ.get("GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    assert text == path.read_text("utf-8")


def test_every_golden_file_is_read_by_a_test() -> None:
    """A file that no test reads would be a claim that nothing checks."""
    assert {path.stem for path in GOLDEN.iterdir()} == set(GUARDS)


LINKS = "ip link add eth0 type veth peer name eth1 && ip link add eth2 type veth peer name eth3"


def test_nft_accepts_every_golden_file() -> None:
    """Syntax and hook are right; kernels before 6.16 accept only devices that exist."""
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    if shutil.which("nft", path=path) is None:
        skip_or_fail("nft is not installed")
    trial = f"{LINKS} && nft --check --file -"
    refused = {}
    for file in sorted(GOLDEN.glob("*.nft")):
        done = subprocess.run(
            ["unshare", "--net", "--map-root-user", "sh", "-ec", trial],
            input=file.read_text("utf-8"),
            env={"PATH": path},
            text=True,
            capture_output=True,
            check=False,
        )
        if "Operation not permitted" in done.stderr or "RTNETLINK" in done.stderr:
            skip_or_fail("this machine allows no network namespace with links to this user")
        if done.returncode:
            refused[file.name] = done.stderr
    assert refused == {}
