"""Did more VMIs fail: what is evidence, and what may be chance."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_kvscale.judge.failure_changes import FailureChange, judge_failures

Side = list[dict[str, int]]


def judged(before: Side, after: Side, alpha: float = 0.005) -> FailureChange:
    (found,) = judge_failures({400: (before, after)}, alpha)
    return found


def test_no_failures_on_either_side_pass() -> None:
    found = judged([{}], [{}, {}])
    assert (found.verdict, found.classes, found.reason) == (
        "pass", (), "no VMI failed, before or after",
    )  # fmt: skip


def test_a_limit_that_was_not_there_before_fails_with_one_run() -> None:
    found = judged([{}], [{"DeviceLimit": 290}])
    assert found.verdict == "fail"
    assert "a limit that no run met before" in found.reason


def test_a_few_vmis_at_the_edge_of_what_others_leave_are_no_new_limit() -> None:
    assert judged([{}], [{"MemoryLimit": 3}]).verdict == "inconclusive"
    assert judged([{}], [{"MemoryLimit": 30}]).verdict == "fail"
    assert judged([{}], [{"DeviceLimit": 1}]).verdict == "fail"


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ([{"DeviceLimit": 290}], [{"DeviceLimit": 290}], "pass"),
        ([{"DeviceLimit": 290}], [{"PodLimit": 290}], "inconclusive"),  # One wall for another.
        ([{}, {}], [{"DeviceLimit": 290}, {}], "inconclusive"),
        ([{"DeviceLimit": 290}], [{}], "pass"),
    ],
)
def test_a_limit_that_is_not_new_for_every_run_does_not(
    before: Side, after: Side, verdict: str
) -> None:
    assert judged(before, after).verdict == verdict


def test_another_failure_of_one_run_may_be_chance_and_says_how_many_runs_would_do() -> None:
    found = judged([{}], [{"QemuTimeout": 3}])
    assert found.verdict == "inconclusive"
    (only,) = found.classes
    assert only.more_runs == 4
    assert "4 more runs on each side would do" in only.reason
    assert judged([{}] * 5, [{"QemuTimeout": 3}] * 5).verdict == "fail"


def test_one_bad_run_in_many_is_no_evidence() -> None:
    bad: Side = [{"NodeLost": 300}]
    assert judged([{}] * 200, bad).verdict == "inconclusive"
    assert judged([{}] * 10, bad + [{}] * 9).verdict == "inconclusive"


def test_more_of_a_failure_that_was_always_there_is_found() -> None:
    before: Side = [{"QemuTimeout": each} for each in (1, 2, 1, 0, 2, 1)]
    after: Side = [{"QemuTimeout": each} for each in (30, 25, 40, 28, 31, 22)]
    assert judged(before, after).verdict == "fail"
    assert judged(after, before).verdict == "pass"
    assert judged(before, before).verdict == "pass"


def test_many_classes_and_levels_are_one_family() -> None:
    one: tuple[Side, Side] = ([{}] * 5, [{"QemuTimeout": 1}] * 5)
    many = dict.fromkeys((50, 100, 200), one)
    assert [each.verdict for each in judge_failures({50: one}, 0.005)] == ["fail"]
    assert {each.verdict for each in judge_failures(many, 0.005)} == {"inconclusive"}


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=5),
    st.lists(st.integers(0, 3), min_size=1, max_size=5),
)
@settings(max_examples=40, deadline=None)
def test_the_same_counts_have_the_same_verdict_and_fewer_failures_pass(
    before: list[int], after: list[int]
) -> None:
    sides = ([{"X": each} for each in before], [{"X": each} for each in after])
    found = judged(*sides)
    assert found == judged(*sides)
    if sum(after) / len(after) <= sum(before) / len(before):
        assert found.verdict == "pass"
    for each in found.classes:
        assert each.p is None or 0 < each.p <= 1
