"""Figures over runs: sections, points, noise, changes, and what is accepted of them."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Sequence
from typing import Any

import pytest

from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.judge.acknowledged import Entry, Key, entries
from pytest_kvscale.judge.change import Metric
from pytest_kvscale.judge.runs import RunFile
from pytest_kvscale.judge.samples import REQUESTS, RUNNING_P50, RUNNING_P95
from pytest_kvscale.judge.trend import METRICS, Trend, trend
from pytest_kvscale.judge.trend_series import RATE
from tests.judge.made_runs import level, run


@dataclasses.dataclass(frozen=True)
class Step:
    """A change point that a test puts there."""

    index: int
    ratio: float
    low: float
    high: float
    p: float = 1e-6


def steps(*at: int) -> Any:
    """A finder of changes at these places, of the size that is there."""

    def find(values: Sequence[float], _: float) -> list[Step]:
        found, bounds = [], [0, *at, len(values)]
        for number, index in enumerate(at):
            before = sorted(values[bounds[number] : index])
            after = sorted(values[index : bounds[number + 2]])
            ratio = after[len(after) // 2] / before[len(before) // 2]
            found.append(Step(index, ratio, 0.95 * ratio, 1.05 * ratio))
        return found

    return find


def nights(*p95: float | None, versions: Sequence[str] = ()) -> list[RunFile]:
    """One run a night; no two are equal, or they would count once."""
    named = versions or ["v1.9.0"] * len(p95)
    return [
        run(number, [level(value, deletion=20 + number / 1000)], named[number])
        for number, value in enumerate(p95)
    ]


def accepted(content: dict[str, Any]) -> tuple[Entry, ...]:
    told = {"level": 100, "metric": "Running.p95", "reason": "known", "by": "me",
            "date": "2026-09-20"}  # fmt: skip
    return entries({"acknowledged": [{**told, **content}]}, "the file")


def only(found: Trend, metric: Metric = RUNNING_P95) -> Any:
    [section] = found.sections
    [of_level] = section.levels
    return next(each for each in of_level.series if each.metric == metric)


WORSE = (30.0, 31.0, 30.0, 38.0, 37.0, 39.0)
P95 = (RUNNING_P95,)


def test_runs_of_all_versions_of_kubevirt_are_one_series_and_nothing_else_is() -> None:
    runs = [
        run(0, [level(30.0)], "v1.8.0"),
        run(1, [level(31.0)], "v1.9.0"),
        run(2, [level(32.0)], "v1.9.0", **{"node.cpu": 96.0}),
        run(3, [level(33.0)], simulated="hollow"),
    ]
    found = trend(runs, find=steps())
    assert [each.runs for each in found.sections] == [2, 1, 1]
    assert [[each.text() for each in section.differs] for section in found.sections] == [
        [], ["node.cpu: 48.0 -> 96.0"], ["simulated: false -> hollow"],
    ]  # fmt: skip
    together = trend(runs, may_differ=["*"], find=steps())
    assert [(each.simulated, each.runs) for each in together.sections] == [
        ("false", 3), ("hollow", 1),
    ]  # fmt: skip


def test_a_version_that_offers_fewer_devices_is_put_beside_those_before() -> None:
    def of(number: int, version: str, devices: int) -> RunFile:
        return run(number, [level(30.0 + number)], version, **{"node.devices": devices})

    upgraded = [of(0, "v1.9.0", 1000), of(1, "v1.10.0", 110), of(2, "v1.10.0", 110)]
    assert [each.runs for each in trend(upgraded, find=steps()).sections] == [3]
    # With one version it is a setting, and another cluster.
    reset = [*upgraded, of(3, "v1.10.0", 1000)]
    found = trend(reset, find=steps())
    assert sorted(each.runs for each in found.sections) == [2, 2]
    assert any("node.devices" in each.name for each in found.sections[1].differs)


def test_a_level_that_cannot_fit_any_more_is_not_reached() -> None:
    def refused(fits: int) -> dict[str, Any]:
        walls = [{"name": "devices.kubevirt.io/kvm", "fits": fits, "certain": True}]
        made = level(None, ended="not begun: it cannot fit", preflight={"walls": walls}, running=0,
                     created=0, deleted=0)  # fmt: skip
        made["phases"]["Running"] = {"n": 0, "censored": 100}
        return made

    before = nights(*(30.0 + each / 10 for each in range(9)))
    after = [run(number, [refused(90)], "v1.10.0") for number in range(9, 16)]
    found = trend([*before, *after])
    assert [(each.metric.key, each.after, each.worse) for each in found.failing] == [
        ("Running.p95", None, True)
    ]
    fitting = trend([*before, run(20, [refused(96)])])
    assert not fitting.sections[0].levels[0].rows[-1].points


def test_a_run_is_the_median_of_its_executions_and_their_spread_its_interval() -> None:
    runs = [
        run(number, [level(p95, deletion=20 + number) for p95 in (28.0, 30.0, 33.0)])
        for number in range(3)
    ]
    found = trend(runs, metrics=P95, find=steps())
    [row, *_] = found.sections[0].levels[0].rows
    point = row.points["Running.p95"]
    assert (row.executions, point.value) == (3, 30.0)
    assert only(found).noise_from == "repeats"
    assert only(found).sd == pytest.approx(0.082, abs=0.001)
    assert point.low is not None
    assert point.high is not None
    # Six degrees of freedom: 2.447 standard errors of three executions.
    assert math.log(point.high / 30) == pytest.approx(2.447 * 0.0823 / math.sqrt(3), rel=0.01)
    assert point.low * point.high == pytest.approx(900)


def test_without_repeats_the_noise_is_what_lies_between_runs_and_not_the_changes() -> None:
    values = [30.0, 30.9, 30.0, 30.9, 30.0, 60.0, 61.8, 60.0, 61.8]
    found = only(trend(nights(*values), metrics=P95, find=steps()))
    assert found.noise_from == "successive runs"
    assert found.sd == pytest.approx(1.4826 * math.log(1.03) / math.sqrt(2), rel=0.01)
    few = only(trend(nights(30.0, 31.0, 30.0), metrics=P95, find=steps()))
    assert (few.sd, few.noise_from) == (None, "")


def test_a_change_names_the_run_the_versions_the_size_and_where_it_is() -> None:
    versions = ["v1.9.0"] * 3 + ["v1.10.0"] * 3
    found = trend(nights(*WORSE, versions=versions), metrics=P95, find=steps(3))
    [change] = found.failing
    assert (change.run, change.from_kubevirt, change.kubevirt) == ("night-003", "v1.9.0", "v1.10.0")
    assert (change.before, change.after) == (30.0, 38.0)
    assert change.where == "all of it in Scheduled→Running"


def test_a_change_for_the_better_or_too_small_to_care_fails_nothing() -> None:
    better = trend(nights(*reversed(WORSE)), metrics=P95, find=steps(3))
    assert [each.worse for each in better.changes] == [False]
    assert not better.failing
    assert not trend(nights(1.0, 1.0, 1.0, 1.5, 1.5, 1.5), metrics=P95, find=steps(3)).changes
    assert not trend(nights(100, 101, 100, 103, 104, 103), metrics=P95, find=steps(3)).changes


def test_a_lower_rate_is_worse() -> None:
    runs = [
        run(each, [level(30.0 + each / 100, rate=40.0 if each > 2 else 60.0)]) for each in range(6)
    ]
    [change] = trend(runs, metrics=(RATE,), find=steps(3)).failing
    assert (change.before, change.after) == (60.0, 40.0)
    assert change.accepting["accepted"] == 0.66
    assert not change.where


def test_what_is_no_longer_reached_is_worse_than_any_value() -> None:
    found = trend(nights(30.0, 31.0, 30.5, None, None, None), metrics=P95, find=steps(3))
    [change] = found.failing
    assert (change.before, change.after, change.ratio) == (30.5, None, None)
    assert change.where == "QemuTimeout 0 → 10 of 100"
    assert change.accepting["accepted"] == "not reached"


def test_runs_with_the_very_same_figures_count_once() -> None:
    runs = [run(number, [level(30.0)]) for number in range(3)]
    rows = trend(runs, find=steps()).sections[0].levels[0].rows
    assert [row.executions for row in rows] == [1, 0, 0]
    assert "its figures are those of night-000 100" in rows[1].note


def test_a_run_that_does_not_count_is_in_the_table_with_its_reason() -> None:
    runs = nights(30.0, 31.0)
    broken = run(2, [level(9.0, ended="interrupted", verdict="fail")])
    [*_, row] = trend([*runs, broken], find=steps()).sections[0].levels[0].rows
    assert (row.executions, row.verdict) == (0, "fail")
    assert row.note == "100: it was cut short: interrupted"
    assert not row.points


def test_requests_counted_elsewhere_are_no_point_of_the_series() -> None:
    runs = nights(30.0, 31.0, 32.0)
    runs[0].levels[0]["control_plane"]["source"] = "prometheus"
    rows = trend(runs, find=steps()).sections[0].levels[0].rows
    assert [REQUESTS.key in row.points for row in rows] == [False, True, True]


def test_only_what_is_wanted_is_looked_at() -> None:
    runs = [run(each, [level(30.0 + each), level(60.0 + each, 200)]) for each in range(5)]
    found = trend(runs, levels=[200], metrics=(RUNNING_P50,), last=2, find=steps())
    [of_level] = found.sections[0].levels
    assert of_level.level == 200
    assert [row.run for row in of_level.rows] == ["night-003", "night-004"]
    assert [each.metric for each in of_level.series] == [RUNNING_P50]
    none = run(9, [level(30.0, 300)], simulated="sim")
    assert len(trend([*runs, none], levels=[200], find=steps()).sections) == 1


def test_every_metric_can_be_acknowledged() -> None:
    assert set(typing.get_args(Key)) == {each.key for each in METRICS}


@pytest.mark.parametrize("place", [{"run": "night-003"}, {"run": "night-001"}, {"run": "night-005"},
                                   {"version": "v1.10.0"}])  # fmt: skip
def test_an_acknowledged_change_fails_no_more_though_its_place_moves_a_little(
    place: dict[str, str],
) -> None:
    versions = ["v1.9.0"] * 3 + ["v1.10.0"] * 3
    found = trend(
        nights(*WORSE, versions=versions), accepted({**place, "accepted": 1.27}), metrics=P95,
        find=steps(3),
    )  # fmt: skip
    assert [each.is_accepted for each in found.changes] == [True]
    assert not found.failing
    assert not found.stale


def test_a_further_change_fails_though_the_first_is_acknowledged() -> None:
    runs = nights(*WORSE, 50.0, 51.0, 52.0)
    found = trend(
        runs, accepted({"run": "night-003", "accepted": 1.27}), metrics=P95, find=steps(3, 6)
    )
    assert [(each.run, each.fails) for each in found.changes] == [
        ("night-003", False), ("night-006", True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("limit", "fails"), [(1.27, False), (1.25, False), (1.22, False), (1.15, True)]
)
def test_an_acknowledged_change_that_has_certainly_grown_fails_again(
    limit: float, fails: bool
) -> None:
    """It is +27 %, and lies between +20 and +33 %."""
    found = trend(nights(*WORSE), accepted({"run": "night-003", "accepted": limit}), metrics=P95,
                  find=steps(3))  # fmt: skip
    assert bool(found.failing) == fails
    assert not found.stale


def test_a_ratio_accepts_no_percentile_that_is_not_reached() -> None:
    runs = nights(30.0, 31.0, 30.5, None, None, None)
    for limit, fails in ((9.9, True), ("not reached", False)):
        entry = accepted({"run": "night-003", "accepted": limit})
        assert bool(trend(runs, entry, metrics=P95, find=steps(3)).failing) == fails


def test_an_acknowledgement_that_nothing_is_found_for_is_stale() -> None:
    elsewhere = accepted({"run": "night-000", "accepted": 1.5})
    assert trend(nights(*WORSE), elsewhere, metrics=P95, find=steps(3)).stale == elsewhere
    gone = accepted({"run": "another", "accepted": 1.5})
    assert trend(nights(*WORSE), gone, metrics=P95, find=steps(3)).stale == gone
    # Unless it is not looked at.
    assert not trend(nights(*WORSE), gone, metrics=(RATE,), find=steps()).stale
    assert not trend(nights(*WORSE), gone, levels=[200], find=steps()).stale
    assert not trend(nights(*WORSE), elsewhere, metrics=P95, last=4, find=steps()).stale


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"run": None}, "it must name either the run or the version at which it changed"),
        ({"version": "v1"}, "it must name either the run or the version at which it changed"),
        ({"metric": "p95"}, "acknowledged.0.metric: input should be 'Running.p50'"),
        ({"accepted": 0}, "acknowledged.0.accepted"),
        ({"accepted": math.nan}, "acknowledged.0.accepted"),
        ({"reason": ""}, "acknowledged.0.reason: string should have at least 1 character"),
        ({"by": None}, "acknowledged.0.by: input should be a valid string"),
        ({"date": ""}, "acknowledged.0.date: input should be a valid date"),
        ({"raeson": "x"}, "unknown key 'acknowledged.0.raeson'"),
        ({"level": -1}, "acknowledged.0.level: input should be greater than 0"),
    ],
)
def test_a_mistake_in_the_file_is_told_in_a_sentence(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        accepted({"run": "night-003", "accepted": 1.2, **change})
    assert str(raised.value).startswith("the file: ")
    assert sentence in str(raised.value)


def test_one_change_is_accepted_once() -> None:
    [entry] = accepted({"run": "night-003", "accepted": 1.2})
    twice = {"acknowledged": [entry.model_dump(), entry.model_dump()]}
    with pytest.raises(
        ConfigurationError, match=r"level 100 Running.p95 at run night-003 is there"
    ):
        entries(twice, "the file")


def test_false_alarms_of_a_search_are_shared_out_among_all_series() -> None:
    asked: list[float] = []

    def find(values: Sequence[float], alpha: float) -> list[Step]:
        asked.append(alpha)
        return []

    trend(nights(*WORSE), metrics=P95, find=find)
    alone = asked.pop()
    trend(nights(*WORSE), find=find)
    assert len(asked) > 1
    assert asked == pytest.approx([alone / len(asked)] * len(asked))


STEADY = (30.0, 30.6, 29.7, 30.3, 29.4, 30.1, 30.9, 29.8, 30.2, 29.6)


@pytest.mark.parametrize("worse", [(40.0, 41.0, 40.5), (40.0, 41.0, 40.5, 39.9, 40.3)])
def test_the_latest_runs_are_compared_with_those_before(worse: tuple[float, ...]) -> None:
    [change] = trend(nights(*STEADY, *worse), metrics=P95, find=steps()).failing
    assert change.run == "night-010"
    assert change.ratio == pytest.approx(40.3 / 30.0, rel=0.02)
    # Two bad nights are no regression yet, and noise is none at all.
    assert not trend(nights(*STEADY, *worse[:2]), metrics=P95, find=steps()).changes
    assert not trend(nights(*STEADY, *STEADY[::-1]), metrics=P95, find=steps()).changes


def test_a_version_that_is_worse_is_found_though_it_has_few_runs_and_is_not_the_latest() -> None:
    versions = ["v1.9.0"] * 4 + ["v1.10.0"] * 4 + ["v1.11.0"] * 4
    p95 = (*STEADY[:4], 40.0, 41.0, 40.5, 39.9, 40.3, 40.6, 39.7, 40.1)
    [change] = trend(nights(*p95, versions=versions), metrics=P95, find=steps()).failing
    assert (change.run, change.kubevirt) == ("night-004", "v1.10.0")


def test_the_latest_runs_are_compared_with_those_since_the_last_change() -> None:
    p95 = (*STEADY, 40.0, 41.0, 40.5, 39.9, 40.3, 40.6, 50.0, 51.0, 50.4)
    found = trend(nights(*p95), accepted({"run": "night-010", "accepted": 1.35}), metrics=P95,
                  find=steps(10))  # fmt: skip
    assert [(each.run, each.fails) for each in found.changes] == [
        ("night-010", False), ("night-016", True),
    ]  # fmt: skip
