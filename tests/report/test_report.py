"""What people read at the end."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_kvscale.judge.verdict import judge
from pytest_kvscale.measure.cost import Queue, nothing
from pytest_kvscale.measure.counted import Counted
from pytest_kvscale.measure.figures import figures, occupancy
from pytest_kvscale.measure.histograms import bucketed
from pytest_kvscale.measure.observe import Observer
from pytest_kvscale.measure.timeline import Creation
from pytest_kvscale.report import html, junit, plot, terminal
from pytest_kvscale.report.results import level_object, vmi_rows

RUN = {
    "id": "r1", "started": "2026-01-01T00:00:00+00:00", "simulated": "false", "profile": None,
    "seed": None,
}  # fmt: skip
CLUSTER: dict[str, Any] = {
    "kubernetes": "v1.36.0", "kubevirt": "v1.9.0", "fingerprint": "abc",
    "tuning": {"applied": "none", "changes": []},
    "node": {"name": "<n>", "cpu": None, "memory": None, "max_pods": None, "devices": None,
             "pod_ips": None, "runtime": "containerd://2"},
}  # fmt: skip


def measured(*seconds: float | None) -> Observer:
    observer = Observer()
    for index, each in enumerate(seconds):
        name = f"vmi-{index}"
        observer.expect(Creation(name, 0.0, 0.0, 0.1))
        status = {"phase": "Running" if each is not None else "Scheduling"}
        vmi = {"metadata": {"name": name, "uid": name}, "status": status}
        observer.take("vmis", "ADDED", vmi, each or 1.0)
    observer.end_level(200.0)
    observer.delete_asked(200.0)
    for name in list(observer.timelines):
        observer.take("vmis", "DELETED", {"metadata": {"name": name, "uid": name}}, 230.0)
    return observer


def report(*seconds: float | None) -> dict[str, Any]:
    observer = measured(*seconds)
    result = judge(len(seconds), figures(observer), ended="settled")
    return {
        "label": str(result.level),
        "level": level_object(result),
        "explanation": "" if result.verdict == "pass" else result.explanation(),
        "occupancy": occupancy(result.figures.timelines),
        "end": 5.0,
    }


def test_the_table_is_aligned_and_says_what_is_missing() -> None:
    lines = terminal.table([report(1.234, 2.0, 123.45), report(1.0, None)])
    assert lines[0].split() == [
        "level", "running", "p50", "p95", "p99", "VMIs/min", "(peak)", "failures", "verdict",
    ]  # fmt: skip
    assert "  2.00 s  123.5 s  123.5 s" in lines[1]
    assert lines[2].split()[:5] == ["2", "1/2", "1.00", "s", "-"]
    assert "Unexplained 1" in lines[2]
    assert len({line.index("none") for line in lines[1:2]} | {lines[0].index("failures")}) == 1


def test_what_was_judged_of_all_levels_stands_before_each_of_them() -> None:
    page = html.page(RUN, CLUSTER, [report(1.0, 2.0)], ["<h2>Comparison</h2>"])
    places = [
        page.index(each) for each in ("Creation to Running</h3>", "<h2>Comparison</h2>", "<h3 id=")
    ]
    assert places == sorted(places)


def test_a_page_shows_what_is_unknown_as_unknown() -> None:
    page = html.page(RUN, CLUSTER, [report(1.0, None)])
    assert "unknown CPUs" in page
    assert "unknown memory" in page
    assert "&lt;n&gt;" in page
    assert "SIMULATED" not in page
    assert "as they were" in page


def test_a_page_names_what_was_changed() -> None:
    change = {"path": "configuration.x", "before": None, "after": 1000}
    tuned = {**CLUSTER, "tuning": {"applied": "density", "changes": [change]}}
    page = " ".join(html.page(RUN, tuned, [report(1.0)]).split())
    assert "configuration.x: absent → 1000" in page


def test_a_level_that_measured_nothing_has_a_page() -> None:
    observer = Observer()
    observer.expect(Creation("one", 0.0))
    result = judge(1, figures(observer), problem="the API was lost")
    nothing = {
        "label": "3", "level": level_object(result), "explanation": result.explanation(),
        "occupancy": occupancy(result.figures.timelines), "end": None,
    }  # fmt: skip
    page = html.page(RUN, CLUSTER, [nothing])
    assert "the API was lost" in page
    assert "<svg" in page
    (row,) = vmi_rows(result)
    assert (row["sent"], row["uid"], row["class"]) == (None, None, "Unexplained")


def test_a_page_shows_how_sure_a_percentile_is() -> None:
    page = html.page(RUN, CLUSTER, [report(*[float(each) for each in range(1, 101)])])
    assert "95.0 s <small>[90.0 s, 100.0 s]</small>" in page
    assert "the slowest 5 % (5 of 100 VMIs)" in page.replace("The", "the")


def test_a_page_shows_what_others_counted() -> None:
    observer = measured(1.0, 2.0)
    cost = nothing("")
    queue: Queue = {"depth": 9.0, "latency": 0.5}
    cost["vmis"], cost["source"] = 2, "components"
    cost["components"]["virt-controller"] = {
        "requests": {"PATCH virtualmachineinstances": 5.0}, "throttled": 1.5,
        "queues": {"virt-controller-vmi": queue}, "cpu": 2.0, "memory": 2.0**20,
    }  # fmt: skip
    counts = {0.5: 0.0, 600.0: 0.0, float("inf"): 2.0}
    counted = Counted({"Running": bucketed(counts)}, "", cost)
    result = judge(2, figures(observer), counted=counted)
    shown = {
        "label": "2", "level": level_object(result), "explanation": "", "end": 5.0,
        "occupancy": occupancy(result.figures.timelines),
    }  # fmt: skip
    page = html.page(RUN, CLUSTER, [shown])
    assert "saturated: 600.0 s or more" in page
    assert "PATCH virtualmachineinstances 2.5" in page
    assert "virt-controller-vmi 9, 0.50 s" in page
    assert "1.0 MiB" in page


def test_the_same_data_draw_the_same_picture() -> None:
    shown = occupancy(figures(measured(1.0, 2.0, 3.0)).timelines)
    first, second = (plot.phases_over_time(shown, 3, 2.0) for _ in range(2))
    assert first == second
    assert "VMIs in each phase over time, level 3" in first
    assert first.startswith("<svg")
    assert "<script" not in first


def test_junit_leaves_out_what_was_not_reached() -> None:
    found = dict(junit.properties(RUN, CLUSTER, [report(1.0, None)]))
    assert found["kvscale.2.p50"] == "1.0"
    assert "kvscale.2.p95" not in found
    assert found["kvscale.2.failures.Unexplained"] == "1"


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.1234, "0.12 s"), (9.999, "10.00 s"), (2632.44, "2632.4 s")]
)
def test_seconds_have_the_digits_worth_reading(value: float | None, text: str) -> None:
    assert terminal.seconds(value) == text
