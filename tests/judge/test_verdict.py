"""Verdicts and their words."""

from __future__ import annotations

from pytest_kvscale.judge.objectives import NO_OBJECTIVES, Limit, Objectives
from pytest_kvscale.judge.verdict import judge
from pytest_kvscale.measure.figures import Figures, figures
from pytest_kvscale.measure.observe import Observer
from pytest_kvscale.measure.timeline import Creation

REFUSED = "0/1 nodes are available: 1 Insufficient devices.kubevirt.io/kvm."


def level(running: int, refused: int = 0, left: int = 0, lag: float = 0.0) -> Figures:
    observer = Observer()
    for index in range(running + refused):
        name, uid = f"vmi-{index}", f"u{index}"
        observer.expect(Creation(name, 0.0, lag, lag + 0.1))
        phase = "Running" if index < running else "Scheduling"
        conditions = [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
             "message": REFUSED}
        ]  # fmt: skip
        status = {"phase": phase, "conditions": conditions if phase == "Scheduling" else []}
        vmi = {"metadata": {"name": name, "uid": uid}, "status": status}
        observer.take("vmis", "ADDED", vmi, 10.0)
        if phase == "Scheduling":
            pod = {"metadata": {"name": "p", "uid": f"p{index}",
                                "labels": {"kubevirt.io/created-by": uid}},
                   "spec": {}, "status": {"phase": "Pending"}}  # fmt: skip
            observer.take("pods", "ADDED", pod, 10.0)
    observer.end_level(20.0)
    observer.delete_asked(20.0)
    for index in range(left, running + refused):
        gone = {"metadata": {"name": f"vmi-{index}", "uid": f"u{index}"}}
        observer.take("vmis", "DELETED", gone, 30.0)
        observer.take("pods", "DELETED", {"metadata": {"name": "p", "uid": f"p{index}"}}, 30.0)
    return figures(observer)


def test_all_running_and_gone_is_a_pass() -> None:
    result = judge(3, level(3))
    assert (result.verdict, result.reasons, dict(result.failures)) == ("pass", (), {})
    assert result.objectives_note == "no objective"


def test_a_vmi_that_did_not_run_fails_the_level() -> None:
    result = judge(5, level(3, refused=2), ended="nothing progressed for 10m")
    assert result.verdict == "fail"
    assert result.failures == {"DeviceLimit": 2}
    text = result.explanation()
    assert "level 5: fail: 3 of 5 running (nothing progressed for 10m)" in text
    assert "Pending: 2 (DeviceLimit 2)" in text
    assert "remedy: raise virt-handler's device count" in text


def test_at_most_three_examples_are_told() -> None:
    text = judge(9, level(0, refused=9)).explanation()
    assert text.count(REFUSED) == 3
    assert "DeviceLimit: 9" in text


def test_what_is_left_behind_fails_the_level_beside_any_other_class() -> None:
    result = judge(5, level(3, refused=2, left=5))
    assert result.failures == {"DeviceLimit": 2, "StuckTerminating": 5}
    assert "vmi-0: still there" in result.explanation()


def test_a_missed_objective_fails_the_level() -> None:
    slo = Objectives({}, {"Running p95": Limit(limit=9.5, label="mine")})
    result = judge(3, level(3), slo)
    assert result.verdict == "fail"
    assert result.reasons == ("Running p95 10.0 s exceeds 9.5 s (mine)",)


def test_without_an_objective_failures_alone_judge() -> None:
    assert judge(3, level(3), NO_OBJECTIVES).verdict == "pass"


def test_falling_behind_the_pace_is_inconclusive() -> None:
    result = judge(3, level(3, lag=1.5), max_lag=1.0)
    assert result.verdict == "inconclusive"
    assert "lag_p99" in result.reasons[0]
    assert judge(3, level(3, lag=1.0), max_lag=1.0).verdict == "pass"


def test_falling_behind_excuses_no_failure() -> None:
    assert judge(3, level(2, refused=1, lag=9.0), max_lag=1.0).verdict == "fail"


def test_a_run_that_was_cut_short_fails() -> None:
    result = judge(3, level(3), problem="the API was lost: no answer in time")
    assert (result.verdict, result.reasons[0]) == ("fail", "the API was lost: no answer in time")
