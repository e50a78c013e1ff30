"""Counters, gauges and histograms between two moments."""

from __future__ import annotations

import gzip
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvscale.cluster.component_metrics import parse
from pytest_kvscale.measure import control_plane
from pytest_kvscale.measure.cost import per_vmi
from pytest_kvscale.measure.histograms import bucketed, buckets_of, contradicts, interval
from pytest_kvscale.measure.phase_metrics import METRIC, phase_metrics
from pytest_kvscale.measure.series import Series, Window, begins_unknown, increase, most
from pytest_kvscale.measure.timeline import Creation, Timeline
from tests.conftest import DATA

EDGES = (0.5, 1, 2, 5, 10, 20, 30, 40, 50, 60, 90, 120, 180, 300, 600)
WINDOW = Window(100.0, 200.0)


def series(*samples: tuple[float, float], **labels: str) -> Series:
    return Series(labels, samples)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([(90, 5), (150, 8), (205, 9)], 4),
        ([(60, 1), (90, 5), (150, 8)], 3),
        ([(90, 5), (150, 8), (205, 9), (230, 50)], 4),
        ([(120, 7), (210, 9)], 9),
        ([(90, 5), (150, 2), (205, 4)], 4),
        ([(90, 5), (130, 9), (150, 1), (170, 0), (205, 2)], 7),
        ([(90, 5)], 0),
        ([], 0),
        ([(90, 5), (205, math.nan), (210, 6)], 1),
        ([(250, 3)], 3),
    ],
)
def test_a_counter_counts_what_was_scraped_of_a_window(
    samples: list[tuple[float, float]], expected: float
) -> None:
    assert increase(series(*samples), WINDOW) == expected


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.sets(st.integers(0, 39)))
def test_no_reset_loses_what_was_scraped(steps: list[int], resets: set[int]) -> None:
    """Each step is scraped at once, after a process that may have begun anew just before it."""
    samples, value = [(99.0, 1000.0)], 1000.0
    for index, step in enumerate(steps):
        # A reset that leaves more than there was cannot be seen, by anybody.
        value = float(step) if index in resets and step < value else value + step
        samples.append((100.5 + index, value))
    assert increase(series(*samples), WINDOW) == sum(steps)


def test_a_gauge_shows_the_most_of_all_its_series_together() -> None:
    found = most([series((90, 1), (150, 5)), series((90, 2), (150, 4), (160, 8))], WINDOW)
    assert found == 9
    assert most([], WINDOW) is None


def test_gauges_that_are_scraped_one_after_the_other_are_shown_together() -> None:
    first, second = series((90, 1), (150, 5), (205, 1)), series((95, 2), (153, 4), (208, 2))
    assert most([first, second], WINDOW) == 9
    # One that ended before the other began was never there beside it.
    assert most([series((90, 5), (120, 5)), series((135, 6), (205, 6))], WINDOW) == 6


@pytest.mark.parametrize("strange", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_no_sample(strange: float) -> None:
    assert increase(series((90, 5), (150, strange), (205, 8)), WINDOW) == 3
    assert most([series((90, 5), (150, strange))], WINDOW) == 5


def test_what_a_counter_stood_at_is_unknown_only_if_its_target_is_new_to_prometheus() -> None:
    target = {"job": "kubevirt", "instance": "a"}
    new = series((150, 40), (205, 50), **target)
    scraped = [series((50, 1), (150, 1), **target)]
    since = [series((150, 1), **target)]
    young, old = [series((150, 120.0), **target)], [series((150, 10.0), **target)]
    assert not begins_unknown(series((90, 1), (150, 2), **target), WINDOW, since, old)
    assert not begins_unknown(new, WINDOW, scraped, [])
    assert not begins_unknown(new, WINDOW, [], [])
    assert not begins_unknown(new, WINDOW, since, young)
    assert begins_unknown(new, WINDOW, since, old)
    assert begins_unknown(new, WINDOW, since, [])


# Histograms -----------------------------------------------------------------------------------


def counted(values: list[float]) -> dict[float, float]:
    return {edge: float(sum(each <= edge for each in values)) for edge in (*EDGES, math.inf)}


@given(st.lists(st.floats(0, 900), min_size=1, max_size=80), st.sampled_from([0.5, 0.95, 0.99]))
def test_the_true_percentile_lies_between_the_edges(values: list[float], share: float) -> None:
    found = interval(counted(values), share)
    assert found is not None
    value, low, high = found
    truth = sorted(values)[math.ceil(round(share * len(values), 9)) - 1]
    assert low < truth or low == truth == 0
    assert truth <= (math.inf if high is None else high)
    assert low <= value <= (math.inf if high is None else high)
    assert (high is None) is (truth > 600)


def test_all_in_one_bucket_is_that_bucket_whatever_the_number_says() -> None:
    """KubeVirt's own lane publishes 19.5 for this, whatever the truth was."""
    found = bucketed(counted([11.0] * 100))
    assert (found["p95"], found["p95_low"], found["p95_high"]) == (19.5, 10, 20)
    assert (found["p50"], found["n"], found["saturated"]) == (15.0, 100, False)


def test_in_the_last_bucket_it_is_saturated() -> None:
    found = bucketed(counted([700.0] * 20 + [5.0] * 80))
    assert (found["p95"], found["p95_low"], found["p95_high"]) == (600, 600, None)
    assert found["saturated"]


def test_nothing_counted_is_no_number() -> None:
    found = bucketed(dict.fromkeys((*EDGES, math.inf), 0.0))
    assert found["p95"] is None
    assert (found["n"], found["saturated"]) == (0, False)
    with pytest.raises(ValueError, match="without an upper edge"):
        interval({1.0: 3.0}, 0.5)


def histogram(values: list[float], **labels: str) -> list[Series]:
    return [
        series((205, count), le="+Inf" if math.isinf(edge) else f"{edge:g}", **labels)
        for edge, count in counted(values).items()
    ]


def test_instances_are_summed_before_a_percentile_is_taken() -> None:
    parts = [*histogram([1.5] * 50, pod="a"), *histogram([200.0] * 50, pod="b")]
    assert bucketed(buckets_of(parts, WINDOW))["p95_high"] == 300
    assert bucketed(buckets_of(parts, WINDOW))["n"] == 100


def test_an_edge_is_the_same_however_it_is_written() -> None:
    """Old clients write `1`, new ones `1.0`."""
    new = [
        Series({**each.labels, "le": str(float(each.labels["le"].replace("+Inf", "inf")))},
               each.samples)
        for each in histogram([200.0] * 50, pod="b")
    ]  # fmt: skip
    found = buckets_of([*histogram([1.5] * 50, pod="a"), *new], WINDOW)
    assert len(found) == len(EDGES) + 1
    assert (found[1.0], found[2.0], found[300.0], found[math.inf]) == (0, 50, 100, 100)


def test_a_histogram_without_its_last_bucket_is_left_out_and_said() -> None:
    told = [each for each in histogram([5.0], phase="Running") if each.labels["le"] != "+Inf"]
    found = phase_metrics(told, [], [], WINDOW, vmis([5.0]))
    assert found["phases"] == {}
    assert "has no last bucket (le +Inf) of Running" in found["warnings"][0]


@pytest.mark.parametrize(
    ("ours", "expected"), [(9.5, False), (8.9, True), (20.1, False), (22.4, True), (None, False)]
)
def test_a_p95_outside_of_the_bucket_contradicts_it(ours: float | None, expected: bool) -> None:
    assert contradicts(bucketed(counted([11.0] * 100)), ours, 2.0, 1.0) is expected


def vmis(seconds: list[float]) -> list[Timeline]:
    made = []
    for index, each in enumerate(seconds):
        timeline = Timeline(f"v{index}", Creation(f"v{index}", 0.0, 0.0, 0.1))
        timeline.phases["Running"] = each
        made.append(timeline)
    return made


def test_the_metric_of_phases_is_compared_with_what_we_saw() -> None:
    values = [float(each) for each in range(1, 101)]
    told = histogram(values, phase="Running", __name__=f"{METRIC}_bucket")
    assert phase_metrics(told, [], [], WINDOW, vmis(values))["warnings"] == []
    (few,) = phase_metrics(told, [], [], WINDOW, vmis(values[:90]))["warnings"]
    assert "counted 100 VMIs in Running, we saw 90: others' VMIs" in few
    (slow,) = phase_metrics(told, [], [], WINDOW, vmis([2 * each for each in values]))["warnings"]
    assert "p95 of Running at 90 s to 120 s, we saw 190.0 s: they do not agree" in slow


def test_an_instance_scraped_too_late_is_left_out_and_named() -> None:
    values = [float(each) for each in range(1, 11)]
    target = {"job": "j", "instance": "i", "pod": "virt-controller-x"}
    told = histogram(values, phase="Running", **target)
    found = phase_metrics(told, [series((205, 1), **target)], [], WINDOW, vmis(values))
    assert found["phases"] == {}
    assert found["warnings"][0].startswith("Prometheus has scraped virt-controller-x only since")


# The control plane ----------------------------------------------------------------------------


def test_the_exposition_of_a_real_virt_controller_is_accounted_for() -> None:
    with gzip.open(DATA / "virt-controller-metrics.txt.gz", "rt", encoding="utf-8") as file:
        told = list(parse(file.read(), control_plane.NAMES))
    found = [
        series((205.0, value), container="virt-controller", **labels) for labels, value in told
    ]
    cost = control_plane.cost_of(found, WINDOW, 334, "components")
    controller = cost["components"]["virt-controller"]
    assert controller["cpu"] == 18.75
    assert controller["memory"] == 109285376
    assert controller["requests"] is not None
    assert controller["requests"]["CREATE events"] > 800
    assert per_vmi(cost, "virt-controller", "PATCH pods") == pytest.approx(
        controller["requests"]["PATCH pods"] / 334
    )
    assert controller["queues"]["virt-controller-vmi"]["latency"] is not None
    assert controller["throttled"] is not None


@pytest.mark.parametrize("prefix", ["", "kubevirt_"])
def test_old_and_new_names_are_the_same(prefix: str) -> None:
    labels = {"pod": "virt-handler-abcde", "verb": "PATCH", "resource": "virtualmachineinstances"}
    name = f"{prefix}rest_client_requests_total"
    found = [
        series((90, 5), (205, 35), __name__=name, code="200", **labels),
        series((205, 2), __name__=name, code="409", **labels),
    ]
    cost = control_plane.cost_of(found, WINDOW, 10, "prometheus")
    assert per_vmi(cost, "virt-handler", "PATCH virtualmachineinstances") == 3.2
    assert per_vmi(cost, "virt-handler", "GET virtualmachineinstances") == 0
    assert per_vmi(cost, "virt-handler", "GET nodes") is None
    assert per_vmi(cost, "virt-api") is None


@pytest.mark.parametrize(
    ("labels", "component"),
    [
        ({"container": "virt-api"}, "virt-api"),
        ({"pod": "virt-controller-7d-x"}, "virt-controller"),
        ({"job": "kubelet"}, "kubelet"),
        ({"job": "apiserver"}, "apiserver"),
        ({"pod": "etcd-master-0"}, "etcd"),
        ({"pod": "virt-launcher-x"}, None),
        ({"job": "node-exporter"}, None),
        ({}, None),
    ],
)
def test_a_series_belongs_to_a_component_by_its_labels(
    labels: dict[str, str], component: str | None
) -> None:
    assert control_plane.component_of(labels) == component


def test_requests_of_the_api_server_have_the_verbs_of_everybody_else() -> None:
    found = [
        series((90, 0), (205, 7), __name__="apiserver_request_total", job="apiserver", verb=verb,
               resource="pods")
        for verb in ("POST", "PUT", "LIST")
    ]  # fmt: skip
    found.append(Series({**found[0].labels, "subresource": "binding"}, found[0].samples))
    cost = control_plane.cost_of(found, WINDOW, 7, "prometheus")
    requests = cost["components"]["apiserver"]["requests"]
    assert requests == {
        "CREATE pods": 7.0, "CREATE pods/binding": 7.0, "LIST pods": 7.0, "UPDATE pods": 7.0,
    }  # fmt: skip


def test_text_that_is_no_exposition_has_no_metrics() -> None:
    names = control_plane.NAMES
    for text in ("", "<html>", "workqueue_depth{", "workqueue_depth x"):
        assert list(parse(text, names)) == []
    pairs = list(itertools.chain(parse('workqueue_depth{name="a"} 3\n', names)))
    assert pairs == [({"__name__": "workqueue_depth", "name": "a"}, 3.0)]
