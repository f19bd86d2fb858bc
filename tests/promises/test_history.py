"""What the gateway remembers, against what happens: connected, cut off, connected again."""

import json
import signal
import sys
import time
from typing import Any

import pytest

from tests.lab.gateway import Gateway
from tests.lab.process import PATIENCE, eventually
from tests.lab.topology import Lab
from tests.promises.stages import answer_again, lose_tunnel
from tests.promises.test_metrics import page, scraped
from tests.promtool import promtool

pytestmark = pytest.mark.lab

STATUS = (sys.executable, "-m", "gateway", "status")
LIMIT = 0.3
"""Seconds that `docker exec gateway gateway status` may take."""
RUNS = 10


def history(gateway: Gateway) -> dict[str, list[dict[str, Any]]]:
    """Return what `/history` answers."""
    answer = gateway.status("/history")
    assert answer.code == 200
    return dict(answer.body)


def test_an_outage_is_remembered_counted_and_seen_live(lab: Lab) -> None:
    """By `/history`, by the command, by the metrics, and by `--watch`."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    watching = lab.household.start(lab.workload.command([*STATUS, "--watch"]), "watch")
    watching.wait_for("healthy: the server answers")
    up = history(gateway)["transitions"]
    assert (up[-1]["state"], up[-1]["reason"]) == ("connected", "server_answers")
    assert abs(up[-1]["at"] - time.time()) < 30 * PATIENCE
    red_at_first = scraped(gateway)["unhealthy_seconds_total", ""]
    assert scraped(gateway)["transitions_total", "interface_lost"] == 0

    lab.server.cut()
    cut_at = time.time()
    lose_tunnel(lab)
    gateway.wait_unhealthy()
    watching.wait_for("not healthy: the tunnel's interface was lost")
    eventually(
        lambda: history(gateway)["transitions"][-1]["reason"] == "no_handshake",
        timeout=20,
        what="a failed attempt",
    )
    _, shown = gateway.execute(*STATUS, "--history")
    assert " so far" in shown.splitlines()[-1]
    answer_again(lab, gateway)
    back_at = time.time()

    after = history(gateway)["transitions"][len(up) :]
    assert after[0]["reason"] == "interface_lost"
    assert [it["healthy"] for it in after] == [False] * (len(after) - 1) + [True]
    assert after[0]["at"] == pytest.approx(cut_at, abs=2 * PATIENCE)
    assert after[-1]["at"] == pytest.approx(back_at, abs=2 * PATIENCE)
    red = sum(it["seconds"] for it in after[1:])
    assert red == pytest.approx(back_at - cut_at, abs=2 * PATIENCE)
    assert red > 8, "the patience with a server"
    found = scraped(gateway)
    assert found["unhealthy_seconds_total", ""] - red_at_first == pytest.approx(red, abs=1)
    assert found["transitions_total", "interface_lost"] >= 1
    assert found["transitions_total", "no_handshake"] == sum(
        it["reason"] == "no_handshake" for it in after
    )
    assert promtool("check", "metrics", given=page(gateway).encode()) == ""
    code, shown = gateway.execute(*STATUS, "--history")
    assert code == 0
    assert "connected   server answers; it was red for" in shown.splitlines()[-1]
    code, printed = gateway.execute(*STATUS, "--history", "--json")
    assert (code, json.loads(printed).keys()) == (0, {"transitions", "samples"})

    tried = gateway.status().body["candidates"]
    assert [it["result"] for it in tried] == ["server_answers"]
    assert tried[0]["endpoint"] == f"{lab.server.endpoint.ipv4}:51820"
    assert 0 < tried[0]["handshake_seconds"] < 5 * PATIENCE

    gateway.stop()
    watching.wait_for("no answer from the gateway")
    lines = len(watching.output().splitlines())
    gateway.start().wait_healthy()
    eventually(
        lambda: "the server answers" in "".join(watching.output().splitlines()[lines:]),
        timeout=10,
        what="a line about the new gateway",
    )
    watching.signal(signal.SIGTERM)
    assert watching.wait() == 0
    assert "Traceback" not in watching.output()


def test_there_is_a_first_sample_soon_and_the_history_ends_with_the_process(lab: Lab) -> None:
    """A minute passes until the next: `unit/test_history.py` has the hour. Nothing is kept."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    (sample,) = history(gateway)["samples"]
    assert sample.keys() == {"at", "handshake_age", "received", "sent"}
    lose_tunnel(lab)
    gateway.wait_unhealthy()
    gateway.wait_healthy()
    assert "interface_lost" in {it["reason"] for it in history(gateway)["transitions"]}
    gateway.restart().wait_healthy()
    assert "interface_lost" not in {it["reason"] for it in history(gateway)["transitions"]}


@pytest.mark.quiet
def test_the_status_is_there_at_once(lab: Lab) -> None:
    """In less time than a person notices, the start of the interpreter included."""
    gateway = lab.gateway().start()
    gateway.wait_healthy()
    took = []
    for _ in range(RUNS):
        since = time.monotonic()
        code, _ = gateway.execute(*STATUS)
        took.append(time.monotonic() - since)
        assert code == 0
    assert sorted(took)[RUNS // 2] < LIMIT * PATIENCE, took
