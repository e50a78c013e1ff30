"""What objectives may name, with operators, units and margins."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.judge import objectives
from pytest_kvscale.judge.objectives import Limit, Objectives, Outcome
from pytest_kvscale.judge.quantities import Measured
from pytest_kvscale.judge.verdict import judge
from pytest_kvscale.measure.cost import Component, Cost
from tests.judge.test_objectives import level as running
from tests.judge.test_objectives import write
from tests.judge.test_verdict import level

CONTROLLER: Component = {
    "requests": {"PATCH virtualmachineinstances": 250.0, "CREATE pods": 100.0,
                 "GET virtualmachineinstances": 10.0},
    "throttled": 42.0,
    "queues": {"virt-controller-vmi": {"depth": 80.0, "latency": 1.5}},
    "cpu": 18.75,
    "memory": 109285376.0,
}  # fmt: skip
COST: Cost = {
    "source": "prometheus", "note": "", "vmis": 100, "components": {"virt-controller": CONTROLLER},
}  # fmt: skip


def outcome(tmp_path: Path, text: str) -> Outcome:
    """The one objective in a file's default, against ten VMIs and a cost."""
    _, found = objectives.load(write(tmp_path, f"default:\n{text}"))
    figures = running(*[float(each) for each in range(1, 11)])
    (one,) = found.check(10, Measured(figures, {"QemuTimeout": 1, "PodLimit": 2}, COST))
    return one


@pytest.mark.parametrize(
    ("text", "value", "ok", "margin"),
    [
        ("  Running p95: 12s", 10.0, True, 2.0),
        ('  Running p95: "< 10s"', 10.0, False, 0.0),
        ('  Running p95: "<= 10s"', 10.0, True, 0.0),
        ("  - Running p50 > 4s", 5.0, True, 1.0),
        ("  - Running p50 >= 1m", 5.0, False, -55.0),
        ("  Running p50: {limit: 5, operator: ==}", 5.0, True, 0.0),
        ("  - Running p50 == 7s", 5.0, False, -2.0),
        ("  failures: 0", 0.0, True, 0.0),
        ("  failures QemuTimeout: 0", 1.0, False, -1.0),
        ("  failures QemuTimeout: 10%", 10.0, True, 0.0),
        ("  failures Pending: 1", 2.0, False, -1.0),
        ("  left_behind: 0", 10.0, False, -10.0),
        ("  running_per_min mean: 60", 60.0, True, 0.0),
        ("  running_per_min peak: 20", 10.0, False, -10.0),
        ("  created_per_s: 9", 100.0, True, 91.0),
        ("  lag_p99: 1s", 0.0, True, 1.0),
        ("  virt-controller PATCH virtualmachineinstances per VMI: 3", 2.5, True, 0.5),
        ("  - virt-controller PATCH virtualmachineinstances per VMI <= 2", 2.5, False, -0.5),
        ("  virt-controller DELETE pods per VMI: 0", 0.0, True, 0.0),
        ("  virt-controller requests per VMI: 3.6", 3.6, True, 0.0),
        ("  virt-controller throttled: 40s", 42.0, False, -2.0),
        ("  virt-controller throttled per VMI: 1s", 0.42, True, 0.58),
        ("  virt-controller cpu per VMI: 200ms", 0.1875, True, 0.0125),
        ("  virt-controller memory: 100Mi", 109285376.0, False, -4427776.0),
        ("  virt-controller queue virt-controller-vmi depth: 100", 80.0, True, 20.0),
        ("  virt-controller queue virt-controller-vmi latency: 1s", 1.5, False, -0.5),
    ],
)
def test_an_objective_has_value_limit_and_margin(
    tmp_path: Path, text: str, value: float, ok: bool, margin: float
) -> None:
    found = outcome(tmp_path, text)
    assert found.value == pytest.approx(value)
    assert found.ok is ok
    assert found.margin == pytest.approx(margin)


@pytest.mark.parametrize(
    "text",
    [
        "  virt-api requests per VMI: 3",
        "  virt-controller PATCH nodes per VMI: 0",
        "  virt-controller queue other depth: 0",
        "  etcd memory: 1Gi",
    ],
)
def test_what_was_not_measured_meets_no_objective(tmp_path: Path, text: str) -> None:
    found = outcome(tmp_path, text)
    assert (found.value, found.ok, found.margin) == (None, False, None)
    assert "not measured" in found.text()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("  Running p95: 12s", "Running p95 10.0 s <= 12 s"),
        ("  - Running p50 >= 1m", "Running p50 5.000 s falls short of 60 s"),
        ("  failures QemuTimeout: 0", "failures QemuTimeout 1 exceeds 0"),
        ("  failures QemuTimeout: 1%", "failures QemuTimeout 10 % exceeds 1 %"),
        ("  virt-controller memory: 100Mi",
         "virt-controller memory 104.2 MiB exceeds 100.0 MiB"),
        ("  virt-controller PATCH virtualmachineinstances per VMI: 2",
         "virt-controller PATCH virtualmachineinstances per VMI 2.5 exceeds 2"),
    ],
)  # fmt: skip
def test_an_outcome_reads_as_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    assert outcome(tmp_path, text).text() == sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("  failures QemuTimeot: 0", "(did you mean 'failures QemuTimeout'?)"),
        ("  left_behnd: 0", "(did you mean 'left_behind'?)"),
        ("  running_per_mn mean: 0", "(did you mean 'running_per_min mean'?)"),
        ("  virt-controler throttled: 3s", "(did you mean 'virt-controller throttled'?)"),
        ("  virt-controller PACH pods per VMI: 3", "'PACH' is no verb (did you mean 'PATCH'?)"),
        ("  virt-controler PATCH pods per VMI: 3",
         "(did you mean 'virt-controller PATCH pods per VMI'?)"),
        ("  virt-api throtled: 3", "(did you mean 'virt-api throttled'?)"),
        ("  virt-api queue q depht: 3", "expected e.g. virt-api PATCH"),
        ("  virt-api PATCH  per VMI: 3", "expected e.g. virt-api PATCH"),
        ("  virt-api queue  depth: 3", "expected e.g. virt-api PATCH"),
        ("  Running p95: {limit: 3s, operator: =<}", "operator: input should be '<=', '<'"),
        ('  Running p95: {limit: "<= 3s", operator: <}', "the operator is given twice"),
        ("  Running p95: {limit: 3s, margin: 1}", "unknown key 'default.Running p95.margin'"),
        ("  Running p95: {limit: 3s, unit: B}", "the unit of an objective follows from its name"),
        ("  failures: -1", "input should be at least 0, got -1"),
        ("  failures: few", "'few' is no number"),
        ("  virt-api memory: much", "'much' is no size: write e.g. 500Mi"),
        ("  failures: true", "a number is expected"),
        ("  - Running p95 is 3s", "expected a sentence like 'Running p95 <= 5m'"),
        ("  - Running p95 <= 3s\n  - Running p95 < 5s", "'Running p95' is given twice"),
        ("  - 7", "expected a sentence like"),
        ("  Running p95: .nan", "input should be a finite number, got nan"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_the_nearest_that_is_known(
    tmp_path: Path, text: str, sentence: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        objectives.load(write(tmp_path, f"default:\n{text}"))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_both_sides_of_a_figure_may_be_limited_and_each_be_replaced(tmp_path: Path) -> None:
    text = """
    default: [Running p50 <= 5m, Running p50 >= 1s]
    levels: {400: {Running p50: 9m}}
    """
    _, found = objectives.load(write(tmp_path, text))
    outcomes = found.check(400, objectives.measured(running(2.0)))
    assert [(each.operator, each.limit) for each in outcomes] == [("<=", 540.0), (">=", 1.0)]
    assert all(each.ok for each in outcomes)


def test_failures_that_an_objective_allows_fail_no_level(tmp_path: Path) -> None:
    def verdict(text: str) -> str:
        _, found = objectives.load(write(tmp_path, f"default: {{{text}}}"))
        return judge(10, level(8, refused=2), found).verdict

    assert verdict("Running p50: 1h") == "fail"
    assert verdict("failures: 2") == "pass"
    assert verdict("failures: 1") == "fail"
    assert verdict("failures: 20%") == "pass"
    assert verdict("failures DeviceLimit: 2") == "pass"
    assert verdict("failures Pending: 2") == "pass"
    assert verdict("failures DeviceLimit: 1") == "fail"
    assert verdict("failures QemuTimeout: 5") == "fail"


def test_before_the_deletion_only_what_is_known_then_is_judged(tmp_path: Path) -> None:
    text = "[Deletion p95 <= 5m, virt-api cpu <= 9, left_behind <= 0, Running p95 <= 1h]"
    _, found = objectives.load(write(tmp_path, f"default: {text}\nlevels: {{10: {text}}}"))
    figures = running(*[1.0] * 10)
    names = [each.name for each in found.before_deletion().check(10, objectives.measured(figures))]
    assert names == ["Running p95"]


def test_what_is_left_behind_is_never_forgiven(tmp_path: Path) -> None:
    _, found = objectives.load(write(tmp_path, "default: {failures: 100%, left_behind: 9}"))
    assert judge(3, level(3, left=1), found).verdict == "fail"


@given(st.sampled_from(["<=", "<", ">=", ">", "=="]), st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_the_margin_is_negative_only_on_the_wrong_side(
    operator: objectives.Operator, value: float, limit: float
) -> None:
    found = Outcome("x", limit, value, "", operator, "")
    assert found.margin is not None
    if found.ok:
        assert found.margin >= 0
    else:
        assert found.margin <= 0


def test_limits_made_in_python_are_seconds_and_the_most() -> None:
    found = Objectives({}, {"Running max": Limit(limit=3)})
    (one,) = found.check(1, objectives.measured(running(2.5)))
    assert (one.operator, one.unit, one.margin) == ("<=", "s", 0.5)
