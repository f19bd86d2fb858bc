"""The whole policy as text: what each state allows, in the words of the three kernel tools.

A reviewer reads the files in tests/golden and sees the security argument. After a change of the
policy on purpose, `GOLDEN=write` writes them again, and the difference is what is to be reviewed.
"""

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.firewall.nft import render as render_nftables
from gateway.firewall.xtables import render as render_iptables
from gateway.model import Candidate, Config
from gateway.policy.facts import Facts
from gateway.policy.firewall import ruleset_for
from gateway.policy.marks import WHOLE, with_secret_mark
from gateway.policy.rules import Family
from gateway.policy.states import Connected, Connecting, State, Turn
from gateway.policy.tables import PolicyRule, Routing, TableRoute
from gateway.policy.wanted import routing_in
from tests.conftest import skip_or_fail
from tests.scenarios import FLOW_MARK, SCENARIOS

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def words(thing: TableRoute | PolicyRule) -> str:
    """Return a route or rule as an operator would type it after `ip`."""
    if isinstance(thing, PolicyRule):
        parts = [
            f"-{thing.family} rule add priority {thing.priority}",
            f"from {thing.source}" if thing.source else "",
            f"to {thing.destination}" if thing.destination else "",
            _fwmark(thing),
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
            f"src {thing.source}" if thing.source else "",
            f"table {thing.table}",
            f"metric {thing.metric}" if thing.metric else "",
        ]
    return " ".join(filter(None, parts))


def _fwmark(rule: PolicyRule) -> str:
    """Return the words for the mark of a rule; ip leaves a mask of all bits out."""
    if not rule.fwmark:
        return ""
    mask = "" if rule.fwmask == WHOLE else f"/{rule.fwmask:#x}"
    return f"fwmark {rule.fwmark:#x}{mask}"


def _from_ports(rule: PolicyRule) -> str:
    """Return the words for the source ports of a rule."""
    ports = rule.source_ports
    return f"ipproto {ports.protocol} sport {ports.first}-{ports.last}" if ports else ""


def routing_text(routing: Routing) -> str:
    """Return all routes and rules, one a line."""
    return "\n".join(map(words, (*routing.routes, *routing.rules))) + "\n"


def rendered(name: str) -> dict[str, str]:
    """Return the text of each golden file of the scenario `name`, by suffix."""
    return rendered_of(*SCENARIOS[name])


def rendered_of(state: State, config: Config, facts: Facts) -> dict[str, str]:
    """Return the text of each kind of golden file for a situation."""
    ruleset = ruleset_for(state, config, facts)
    routing = routing_in(state, config, facts)
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


WITH_TUNNEL = [name for name in SCENARIOS if isinstance(SCENARIOS[name][0], Connecting | Connected)]
DRAWN = [name for name in WITH_TUNNEL if name != "connected-chosen-mark"]


@pytest.mark.parametrize("number", [0, 1, 0x7FFF_FFFF, 0x1234_ABCE])
@pytest.mark.parametrize("name", DRAWN)
def test_a_real_gateway_has_the_golden_rules_apart_from_the_secret_bits(
    name: str, number: int
) -> None:
    """The mark is drawn as a gateway draws it; no other word of any kind of text depends on it."""
    state, config, facts = SCENARIOS[name]
    assert isinstance(state, Connecting | Connected)
    unmarked = Config((Candidate(**vars(state.tunnel) | {"fwmark": None}),))
    (drawn,) = with_secret_mark(unmarked, number).tunnels
    assert drawn.fwmark is not None
    tunnel = replace(state.tunnel, fwmark=drawn.fwmark)
    texts = rendered_of(replace(state, tunnel=tunnel, turn=Turn((tunnel,))), config, facts)
    for suffix, text in texts.items():
        golden = (GOLDEN / f"{name}.{suffix}").read_text("utf-8")
        assert text == re.sub(rf"\b{FLOW_MARK:#x}\b", f"{drawn.fwmark:#x}", golden), suffix


@pytest.mark.parametrize("name", DRAWN)
def test_the_shown_bit_is_in_the_golden_files_and_the_secret_bits_are_not_in_routes(
    name: str,
) -> None:
    """Everyone can read the rules of ip; the firewall's rules need CAP_NET_ADMIN."""
    texts = {path.suffix: path.read_text("utf-8") for path in GOLDEN.glob(f"{name}.*")}
    assert "fwmark 0x80000000/0x80000000" in texts[".routes"]
    assert f"{FLOW_MARK:#x}" not in texts[".routes"]
    assert f"{FLOW_MARK:#x}" in texts[".nft"]
    if SCENARIOS[name][2].uplinks:
        assert "meta mark set 0x80000000 " in texts[".nft"]
        assert "--set-xmark 0x80000000/0xffffffff" in texts[".ipt4"] + texts[".ipt6"]


def test_every_golden_file_belongs_to_a_scenario() -> None:
    """A file that no test reads would be an unchecked claim."""
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
