"""The whole policy as text: what each state allows, in the words of the three kernel tools.

A reviewer reads the files in tests/golden and sees the security argument. After a change of the
policy on purpose, `GOLDEN=write` writes them anew, and the difference is what is to be reviewed.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.firewall.nft import render as render_nftables
from gateway.firewall.xtables import render as render_iptables
from gateway.policy.firewall import ruleset_for
from gateway.policy.routing import (
    LOCKED,
    PolicyRule,
    Routing,
    TableRoute,
    routing_for,
    routing_for_question,
)
from gateway.policy.rules import Family
from gateway.policy.states import Connected, Connecting, Resolving
from tests.conftest import skip_or_fail
from tests.scenarios import SCENARIOS

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def words(thing: TableRoute | PolicyRule) -> str:
    """Return a route or rule as an operator would type it after `ip`."""
    if isinstance(thing, PolicyRule):
        parts = [
            f"-{thing.family} rule add priority {thing.priority}",
            f"from {thing.source}" if thing.source else "",
            f"to {thing.destination}" if thing.destination else "",
            f"fwmark {thing.fwmark:#x}" if thing.fwmark else "",
            _from_ports(thing),
            f"lookup {thing.table}",
            "suppress_prefixlength 0" if thing.but_default else "",
            f" # {thing.why}",
        ]
    else:
        parts = [
            f"-{thing.destination.version} route add",
            f"{'unreachable ' if thing.unreachable else ''}{thing.destination}",
            f"via {thing.gateway}" if thing.gateway else "",
            f"dev {thing.interface}" if thing.interface else "",
            f"table {thing.table}",
            f"metric {thing.metric}" if thing.metric else "",
        ]
    return " ".join(filter(None, parts))


def _from_ports(rule: PolicyRule) -> str:
    """Return the words for the source ports of a rule."""
    ports = rule.source_ports
    return f"ipproto {ports.protocol} sport {ports.first}-{ports.last}" if ports else ""


def routing_text(routing: Routing) -> str:
    """Return all routes and rules, one a line."""
    return "\n".join(map(words, (*routing.routes, *routing.rules))) + "\n"


def rendered(name: str) -> dict[str, str]:
    """Return the text of each golden file of the scenario `name`, by suffix."""
    state, config, facts = SCENARIOS[name]
    ruleset = ruleset_for(state, config, facts)
    routing = LOCKED
    if isinstance(state, Connecting | Connected):
        routing = routing_for(state.tunnel, config, facts)
    if isinstance(state, Resolving) and state.query:
        routing = routing_for_question(state.query.resolver)
    return {
        "ipt4": render_iptables.render(ruleset, Family.IPV4),
        "ipt6": render_iptables.render(ruleset, Family.IPV6),
        "nft": render_nftables.render(ruleset),
        "routes": routing_text(routing),
    }


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_policy_reads_as_its_golden_files_say(name: str) -> None:
    """Every line that a state adds or drops is seen and agreed to."""
    texts = rendered(name)
    if os.environ.get("GOLDEN") == "write":
        for suffix, text in texts.items():
            (GOLDEN / f"{name}.{suffix}").write_text(text, "utf-8")
    assert texts == {suffix: (GOLDEN / f"{name}.{suffix}").read_text("utf-8") for suffix in texts}


def test_every_golden_file_belongs_to_a_scenario() -> None:
    """A file that no test reads would be a claim that nobody checks."""
    assert {path.stem for path in GOLDEN.iterdir() if path.is_file()} == set(SCENARIOS)


COMMANDS = {
    "ipt4": ("iptables-legacy-restore", "--test"),
    "ipt6": ("ip6tables-legacy-restore", "--test"),
    "nft": ("nft", "--check", "--file", "-"),
}


@pytest.mark.parametrize("suffix", COMMANDS)
def test_the_kernels_own_tools_accept_every_golden_file(suffix: str) -> None:
    """Syntax and families are right, as the tool that belongs to the kernel reads them."""
    program = shutil.which(COMMANDS[suffix][0], path="/usr/sbin:/usr/bin:/sbin:/bin")
    if program is None:
        skip_or_fail(f"{COMMANDS[suffix][0]} is not installed")
    own = ["unshare", "--net", "--map-root-user"]
    if subprocess.run([*own, "true"], check=False, capture_output=True).returncode:
        skip_or_fail("this machine allows no network namespace to this user")
    for path in sorted(GOLDEN.glob(f"*.{suffix}")):
        done = subprocess.run(
            [*own, str(program), *COMMANDS[suffix][1:]],
            input=path.read_text("utf-8"),
            env={"XTABLES_LOCKFILE": "/dev/null", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, f"{path.name}: {done.stderr}"
