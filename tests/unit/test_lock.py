"""The lock before everything else: what it says, and what it costs to import."""

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.firewall.nft import render as render_nftables
from gateway.firewall.nft.guard import TABLE, render_devices
from gateway.firewall.nft.render import transaction
from gateway.firewall.xtables import render as render_iptables
from gateway.lock import lockdown
from gateway.lock import rules as lock_rules
from gateway.policy.firewall import closed
from gateway.policy.guard import DeviceGuard, GuardRules
from gateway.policy.rules import Family, is_nameable

pytestmark = pytest.mark.promise("P1")

PROJECT = Path(__file__).resolve().parents[2]

IMPORTED = """
import sys
before = set(sys.modules)
import gateway.__main__
print(*sorted(set(sys.modules) - before))
"""


def test_the_static_rules_are_the_locked_state_of_the_policy() -> None:
    """The lock and the policy cannot drift apart, in any of the three languages."""
    assert render_iptables.render(closed(), Family.IPV4) == lock_rules.IPV4
    assert render_iptables.render(closed(), Family.IPV6) == lock_rules.IPV6
    assert render_nftables.render(closed()) == lock_rules.NFTABLES


def test_the_static_guard_is_the_guard_that_lets_nothing_pass() -> None:
    """What `app.secure` puts later is the same table with the same chains."""
    names = {"eth0": "eth0", "net.1_a-b": "net.1_a-b", "a@b": "a/ab", "wg0": "wg0"}
    chains = "\n".join(
        lock_rules.GUARD_CHAIN.format(name=name, chain=chain) for name, chain in names.items()
    )
    rules = GuardRules(1, tuple(map(DeviceGuard, names)))
    assert lock_rules.GUARD.format(chains=chains) == transaction(TABLE, render_devices(rules))


def test_the_lock_and_the_policy_agree_on_the_names_that_rules_can_carry() -> None:
    """The lock cannot import the policy's word; the kernel allows no colon in a name.

    With every character from `!` to the end of Latin Extended-B.
    """
    names = [f"eth{chr(number)}0" for number in range(33, 0x250)]
    by_lock = [name for name in names if lockdown.is_nameable(name)]
    assert by_lock == [name for name in names if is_nameable(name)]
    assert 0 < len(by_lock) < len(names)
    assert not is_nameable("")
    assert not is_nameable("x" * 16)


def test_nothing_is_imported_before_the_lock_but_the_lock() -> None:
    """Each millisecond before the lock is open; os, sys and time are there anyway."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(PROJECT)!r}){IMPORTED}"],
        capture_output=True,
        text=True,
        check=True,
    )
    lock = ["gateway.lock", "gateway.lock.lockdown", "gateway.lock.rules"]
    assert done.stdout.split() == ["gateway", "gateway.__main__", *lock]
