"""What others counted of levels on the embedded cluster: a real Prometheus, and the components."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_kvscale.cluster import choose, component_metrics, facts
from pytest_kvscale.cluster.choose import Connection
from pytest_kvscale.cluster.client import KUBEVIRTS
from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.cluster.component_metrics import Snapshot
from pytest_kvscale.cluster.lease import Turn
from pytest_kvscale.cluster.prometheus import Access
from pytest_kvscale.cluster.templates import Place, Templates
from pytest_kvscale.density import LevelPlan, LevelRun
from pytest_kvscale.judge.classes import classify
from pytest_kvscale.judge.objectives import load
from pytest_kvscale.judge.verdict import judge
from pytest_kvscale.measure.clocks import compare
from pytest_kvscale.measure.cost import per_vmi
from pytest_kvscale.measure.counted import Counted
from pytest_kvscale.measure.figures import Figures
from pytest_kvscale.measure.observe import Observer
from pytest_kvscale.metered import Found, Meter, prometheus_of
from pytest_kvscale.options import Settings
from tests import prometheus, standalone
from tests.cluster.scripted import answering
from tests.cluster.trouble import play
from tests.judge.test_confusion import profile
from tests.sim.test_prometheus import KEPT, TUNED, config

Connect = Callable[..., Connection]
NONE = Found(None, "no Prometheus")


class Level:
    """A level on a connected cluster, and what others counted of it."""

    def __init__(self, connection: Connection, number: int, found: Found = NONE) -> None:
        self.connection = connection
        client = connection.client
        templates = Templates((), {})
        node = connection.run(facts.gather(client, None, {}, templates))
        place = Place("r", "kvscale-r", node.node["name"], dict(node.selector))
        plan = LevelPlan(
            level=number, place=place, objects=templates.level(number, place), qps=20, burst=20,
            timeout=7200, stall=3600, delete_timeout=3600,
        )  # fmt: skip
        self.meter = Meter(client, node.kubevirt_namespace, node.node["name"], found)
        connection.run(self.meter.begin())
        self.run = LevelRun(client, plan, connection.run(_turn(client)))
        self.run.observer.dated = connection.clock.dated
        connection.run(self.run.run())
        self.figures: Figures = self.run.figures()

    def counted(self, meter: Meter | None = None) -> Counted:
        figures = self.figures
        work = (meter or self.meter).end(self.run.observer, figures.clocks, figures.created)
        return self.connection.run(work)


async def _turn(client: Any) -> Turn:
    return Turn(client, "r")


def test_without_a_prometheus_the_components_tell(connect: Connect, tmp_path: Path) -> None:
    level = Level(connect(sim_profile="fast"), 20)
    found = level.counted()
    assert (found.phases, found.note, found.cost["source"]) == ({}, "no Prometheus", "components")
    assert found.cost["note"] == ""
    assert per_vmi(found.cost, "virt-controller", "CREATE pods") == 1
    assert set(found.cost["components"]) >= {"virt-controller", "virt-handler", "apiserver"}
    served = found.cost["components"]["apiserver"]["requests"]
    assert served is not None
    assert served["CREATE virtualmachineinstances"] == 20
    slo = tmp_path / "slo.yaml"
    slo.write_text(
        "default: [virt-controller CREATE pods per VMI <= 1,"
        " virt-controller CREATE pods per VMI > 1]",
        encoding="utf-8",
    )
    outcomes = judge(20, level.figures, load(slo)[1], counted=found).objectives
    assert [each.ok for each in outcomes] == [True, False]


def told(begun: float, value: float) -> Snapshot:
    """What virt-api and the API server tell that have begun at a date and counted so much."""
    series = []
    for name in ("virt-api", "apiserver"):
        own = {"container": name, "instance": name}
        series.append(({"__name__": "process_start_time_seconds", **own}, begun))
        series.append(({"__name__": "process_cpu_seconds_total", **own}, value))
    return Snapshot(tuple(series), ())


@pytest.mark.parametrize(
    ("begun", "cpu", "note"),
    [
        (100.0, {"virt-api": 3.0, "apiserver": 3.0}, ""),
        (
            160.0,
            {"virt-api": 8.0},
            "virt-api began anew in the level: what it had counted until then is lost; another API "
            "server answered after the level than before it: what it cost is not known",
        ),
    ],
)
def test_a_component_that_began_anew_counts_from_zero_and_is_named(
    monkeypatch: pytest.MonkeyPatch, begun: float, cpu: dict[str, float], note: str
) -> None:
    answers = [told(100.0, 5.0), told(begun, 8.0)]

    async def snapshot(*_: Any) -> Snapshot:
        return answers.pop(0)

    monkeypatch.setattr(component_metrics, "snapshot", snapshot)
    clock = VirtualClock()

    async def level() -> Counted:
        async with answering(_never) as (client, _):
            meter = Meter(client, "kubevirt", "node", NONE)
            await meter.begin()
            await asyncio.sleep(60)
            return await meter.end(Observer(), compare([]), 1)

    cost = clock.run(level()).cost
    clock.close()
    assert {name: each["cpu"] for name, each in cost["components"].items()} == cpu
    assert cost["note"] == note


async def _never(_: Any) -> Any:
    raise AssertionError("nobody is to ask this")


def test_of_a_component_that_did_not_answer_before_the_level_nothing_is_counted(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had counted in its whole life must not pass for the level's."""
    silent, ask = ["virt-controller"], component_metrics._ask

    async def asked(client: Any, path: str) -> str | Exception:
        if any(each in path for each in silent):
            return TimeoutError()
        return await ask(client, path)

    monkeypatch.setattr(component_metrics, "_ask", asked)
    level = Level(connect(sim_profile="fast"), 3)
    silent.clear()
    found = level.counted().cost
    assert "virt-controller" not in found["components"]
    assert "virt-handler" in found["components"]
    assert found["note"].startswith("virt-controller-")
    assert found["note"].endswith(": no answer")


def test_a_prometheus_that_scrapes_a_live_cluster_agrees_with_us(tmp_path: Path) -> None:
    with (
        standalone.running(tmp_path) as cluster,
        prometheus.running(tmp_path, config(cluster)) as server,
    ):
        server.wait_for("count(up == 1)", 7)
        # It has been there for some time when a level begins.
        server.wait_for("min(count_over_time(up[1m])) >= bool 5", 1)
        settings = Settings(cluster="kube", kubeconfig=cluster.kubeconfig, allow_simulated=True)
        connection = choose.connect(settings)
        try:
            work = prometheus_of(connection.client, server.url, Access())
            found = connection.run(work)
            counted = Level(connection, 15, found).counted()
        finally:
            connection.close()
    assert counted.note == ""
    assert list(counted.warnings) == []
    assert {name: each["n"] for name, each in counted.phases.items()} == {
        "Scheduling": 15, "Scheduled": 15, "Running": 15,
    }  # fmt: skip
    assert per_vmi(counted.cost, "virt-controller", "CREATE pods") == 1


@pytest.mark.parametrize(("level", "saturated"), [(40, False), (200, True)])
def test_a_virtual_run_of_2021_is_told_as_prometheus_told_it_then(
    connect: Connect, tmp_path: Path, level: int, saturated: bool
) -> None:
    connection = connect(sim_profile="blog-2021")
    client = connection.client
    kubevirt = client.patch(KUBEVIRTS, "kubevirt", "kubevirt", {"spec": TUNED})
    connection.run(kubevirt)
    connection.run(asyncio.sleep(120))  # Until it has been rolled out.
    record = {"every": 15, "names": [*KEPT, "up", "process_start_time_seconds"]}
    connection.run(client.request("create", "POST", "/_sim/openmetrics", body=record))
    done = Level(connection, level)
    text = connection.run(client.text("/_sim/openmetrics"))
    tsdb = prometheus.backfill(text, tmp_path)
    with prometheus.running(tmp_path, prometheus.NOTHING_TO_SCRAPE, tsdb) as server:
        found = connection.run(prometheus_of(client, server.url, Access()))
        counted = done.counted(Meter(client, "kubevirt", "node", found))
    running = counted.phases["Running"]
    assert list(counted.warnings) == []
    assert (running["n"], running["saturated"]) == (level, saturated)
    ours = done.figures.phases["Running"]["p95"]
    assert ours is not None
    if saturated:
        assert (running["p95"], running["p95_low"], running["p95_high"]) == (600, 600, None)
        assert ours > 599
    else:
        assert running["p95_low"] is not None
        assert running["p95_high"] is not None
        assert running["p95_low"] - 1 <= ours <= running["p95_high"] + 2


# What only the embedded cluster can do ---------------------------------------------------------


@pytest.mark.parametrize("seconds", [3600, -600])
def test_a_jump_of_the_servers_clock_changes_no_duration(tmp_path: Path, seconds: int) -> None:
    path = profile(tmp_path, "")
    fault = {"kind": "jump-clock", "after": 1.5, "seconds": seconds}
    plain, jumped = play(path, level=40), play(path, [fault], level=40)
    assert jumped.happened == [1]
    before, after = plain.result.figures, jumped.result.figures
    assert after.phases == before.phases
    assert after.deletion == before.deletion
    assert before.clocks["jumps"] == []
    assert after.clocks["jumps"][0]["by"] == pytest.approx(seconds, abs=1)
    assert any("clock jumped" in each for each in jumped.result.warnings)


def logged(outcome: Any) -> Sequence[str]:
    return [
        sign.message
        for timeline in outcome.result.figures.timelines
        for sign in timeline.signs
        if sign.source == "log"
    ]


def test_launchers_last_words_are_read_while_they_are_there(tmp_path: Path) -> None:
    outcome = play(profile(tmp_path, "faults: {qemu_timeout: 1}"), level=6)
    assert outcome.result.failures == {"QemuTimeout": 6}
    told = logged(outcome)
    assert "panic: timed out waiting for domain to be defined" in told
    readers = {
        timeline.name
        for timeline in outcome.result.figures.timelines
        if any(sign.source == "log" for sign in timeline.signs)
    }
    assert len(readers) == 3
    assert json.dumps(outcome.rows).count("log virt-launcher: panic") == 3
    # The log alone is enough.
    for timeline in outcome.result.figures.timelines:
        if timeline.name in readers:
            timeline.signs = [sign for sign in timeline.signs if sign.source == "log"]
            assert classify(timeline).name == "QemuTimeout"
