"""What the guest is for: its kernel has the legacy tables for both families."""

import pytest

from tests.lab.process import run


@pytest.mark.parametrize("program", ["iptables-legacy", "ip6tables-legacy"])
def test_legacy_tables_take_a_rule(program: str) -> None:
    """The legacy filter table of each family takes a rule with a match of its own module."""
    run([program, "-A", "FORWARD", "-m", "conntrack", "--ctstate", "NEW", "-j", "REJECT"])
    assert "--ctstate NEW -j REJECT" in run([program, "-S", "FORWARD"])
    run([program, "-F", "FORWARD"])
