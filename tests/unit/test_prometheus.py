"""What docs/prometheus has: promtool accepts it, and it names only metrics that are served."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.policy.history import History
from gateway.policy.limits import LimitCode
from gateway.policy.report import Status
from gateway.policy.states import Reason
from gateway.services.health import metrics
from gateway.settings import assemble
from tests.configurations import COMPLETE
from tests.promtool import promtool

PROJECT = Path(__file__).resolve().parents[2]
FILES = PROJECT / "docs" / "prometheus"
RULES = FILES / "portcullis.rules.yml"
DASHBOARD = json.loads((FILES / "dashboard.json").read_text("utf-8"))
TESTS = PROJECT / "tests" / "prometheus" / "portcullis.test.yml"
PAGE = (PROJECT / "docs" / "monitoring.md").read_text("utf-8")

VARIABLES = {"$instance": ".*", "$__rate_interval": "5m"}
"""What Grafana replaces in an expression."""

METRIC = re.compile(r"\b(?:portcullis|process)_[a-z_]+")

ALERTS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text("utf-8"))["groups"][0]["rules"]


def expressions() -> Iterator[str]:
    """Yield every expression of the dashboard, as Grafana sends it."""
    targets = [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
    for one in (*targets, *DASHBOARD["annotations"]["list"]):
        text = one["expr"]
        for name, value in VARIABLES.items():
            text = text.replace(name, value)
        yield text


def page() -> bytes:
    """Return /metrics with a value for everything."""
    status = Status(
        1.0,
        "connected",
        healthy=True,
        reason=Reason.ANSWERS,
        since=0.0,
        handshake_age=1.0,
        mtu=1420,
        path_mtu=1420,
        verified_age=1.0,
        reconnects=(("server_silent", 1),),
        refused=(("ipv4", "out", 3),),
    )
    return metrics.exposition(status, History(), 1.0, healthy=True)


def served() -> set[str]:
    """Return the names of all samples."""
    return set(re.findall(r"^(\w+)[{ ]", page().decode(), re.MULTILINE))


def test_the_alert_rules_are_accepted_and_fire_when_they_should() -> None:
    """Every one of them, at its time and not before; and none of them in the control series."""
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", str(RULES))
    assert "SUCCESS" in promtool("test", "rules", str(TESTS))


def test_every_alert_has_a_test_in_which_it_fires() -> None:
    """A rule without one could be wrong for years."""
    cases = [
        case for test in yaml.safe_load(TESTS.read_text("utf-8"))["tests"]
        for case in test["alert_rule_test"]
    ]  # fmt: skip
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == {
        rule["alert"] for rule in ALERTS
    }


def test_every_expression_of_the_dashboard_is_accepted(tmp_path: Path) -> None:
    """As rules, because promtool reads no dashboard. Control: a wrong one is refused."""
    found = list(expressions())
    assert len(found) > 15
    assert not any("$" in text for text in found), "a variable that is not in the list above"
    rules = [{"record": f"panel:{n}", "expr": text} for n, text in enumerate(found)]

    def check(rules: list[dict[str, str]]) -> str:
        file = tmp_path / "rules.yml"
        file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
        return promtool("check", "rules", str(file))

    assert f"{len(found)} rules found" in check(rules)
    with pytest.raises(AssertionError, match="parse error"):
        check([*rules, {"record": "wrong", "expr": found[0] + ")"}])


def test_every_metric_that_is_asked_for_is_served() -> None:
    """In the rules and in the dashboard, and of limits and reasons only those that exist."""
    texts = [rule["expr"] for rule in ALERTS] + [*expressions()]
    asked = {name for text in texts for name in METRIC.findall(text)}
    assert "portcullis_healthy" in asked
    assert asked - served() == set()
    codes = {code for text in texts for code in re.findall(r'code="(\w+)"', text)}
    assert codes <= set(LimitCode)


def test_promtool_accepts_the_metrics() -> None:
    """Also their names and help texts, which it compares with the conventions.

    Control: it refuses a counter without `_total`.
    """
    assert promtool("check", "metrics", given=page()) == ""
    with pytest.raises(AssertionError, match="_total"):
        promtool("check", "metrics", given=b"# HELP x y\n# TYPE x counter\nx 1\n")


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    """Grafana would move them about."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_the_page_explains_every_alert() -> None:
    """Both ways."""
    assert set(re.findall(r"^\| `(Portcullis\w+)`", PAGE, re.MULTILINE)) == {
        rule["alert"] for rule in ALERTS
    }


def test_the_version_and_the_process_are_among_the_metrics() -> None:
    """What a dashboard shows, and what alerts about restarts need."""
    assert {"portcullis_build_info", "process_start_time_seconds"} <= served()
    assert 'portcullis_build_info{version="' in page().decode()


def test_the_examples_of_the_page_are_accepted(tmp_path: Path) -> None:
    """The gateway's variables by the gateway, the file of Prometheus by promtool."""
    gateway, prometheus = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    environment = yaml.safe_load(gateway)["services"]["gateway"]["environment"]
    config = assemble.load({**COMPLETE, **environment}, tmp_path).config
    assert (config.health_server.host, config.health_server.port) == ("", 9999)
    assert [str(port) for port in config.input_ports] == ["9999/tcp"]
    shutil.copy(RULES, tmp_path)
    (tmp_path / "prometheus.yml").write_text(prometheus)
    said = promtool("check", "config", str(tmp_path / "prometheus.yml"))
    assert f"{len(ALERTS)} rules found" in said
    jobs = yaml.safe_load(prometheus)["scrape_configs"]
    (pattern,) = {m for rule in ALERTS for m in re.findall(r'job=~"(.*?)"', rule["expr"])}
    assert all(re.fullmatch(pattern, job["job_name"]) for job in jobs)
