"""Where a change is: step, cost, failure class, deletion."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvscale.judge.attribution import Attribution, attribute
from pytest_kvscale.judge.change import Change, Metric, Pair
from tests.judge.made_levels import LEVEL, levels

SANDBOX = "its sandbox being made, init containers, containers starting"


def change(key: str, shift: float | None, low: float | None, high: float | None) -> Change:
    metric = Metric(key, f"the title of {key}", "s", "higher", 1.0)
    pair = Pair(LEVEL, metric, (), ())
    return Change(pair, "fail", 10.0, 12.3, shift, low, high, 0.001, 0, 0.1, "it is worse")


def changed_to(name: str, runs: int = 3) -> Attribution:
    return attribute(LEVEL, levels("before")[:runs], levels(name)[:runs])


def level(running: float | None, scheduled: float = 2.0, **more: Any) -> dict[str, Any]:
    """A level object with p95 of 1 s to Scheduling, and of so much to Scheduled and Running."""
    censored = 1 if running is None else 0
    return {
        "level": LEVEL,
        "requested": 20,
        "failures": {},
        "phases": {
            "Scheduling": {"p95": 1.0, "p50": 0.5, "censored": 0},
            "Scheduled": {"p95": scheduled, "p50": 1.0, "censored": 0},
            "Running": {"p95": running, "p50": 2.0, "censored": censored},
        },
        **more,
    }


def costing(**requests: float) -> dict[str, Any]:
    return level(
        10.0,
        control_plane={
            "vmis": 10,
            "components": {
                "virt-handler": {"requests": {"PATCH virtualmachineinstances": 31.0, **requests}},
                "apiserver": {"requests": {"PATCH virtualmachineinstances": 31.0, **requests}},
            },
        },
    )


@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ("slower launcher", "p95 +27 %, all of it in Scheduled→Running"),
        ("slower controller", "p95 +139 %, all of it in created→Scheduling"),
        ("slower sandbox", f"p95 +8 %, Scheduling→Scheduled ({SANDBOX}) +2."),
        ("slower deletion", "p95 unchanged, no step changed"),
    ],
)
def test_what_became_slower_in_the_embedded_cluster_is_named(
    changed: str, words: str, runs: int
) -> None:
    assert changed_to(changed, runs).text().startswith(words)


def test_the_way_back_is_told_as_faster() -> None:
    found = attribute(LEVEL, levels("slower launcher"), levels("before"))
    assert found.text() == "p95 -22 % (faster), all of it in Scheduled→Running"
    told = found.text(change("Running.p95", -0.22, -0.25, -0.19))
    assert told == "p95 -22 % [-25, -19] (faster), all of it in Scheduled→Running"
    unsure = found.text(change("Running.p95", -0.22, -0.5, 0.1))
    assert unsure == "p95 -22 % [-50, 10], all of it in Scheduled→Running"


def test_a_rate_limit_that_was_lowered_is_told_as_throttling() -> None:
    text = changed_to("slower controller").text()
    assert "virt-controller throttled by its own rate limit 0 → 17.0 s per VMI" in text
    assert "virt-controller queue virt-controller-vmi latency" in text


def test_a_slower_deletion_is_told_of_the_deletion_alone() -> None:
    found = changed_to("slower deletion")
    assert found.text().endswith("; deletion p95 +98 %")
    assert "deletion" not in changed_to("slower launcher").text()


def test_vmis_that_no_longer_run_are_told_by_their_class() -> None:
    found = changed_to("fewer devices")
    assert found.text() == "p95 10.5 s before, no longer reached; DeviceLimit 0 → 8 of 20"
    assert [each.as_json()["runs"] for each in found.failures] == [[3, 3]]


def test_equal_runs_change_in_nothing() -> None:
    first, second, third = levels("before")
    for before, after in (([first, second], [third]), ([third], [second]), ([first], [first])):
        found = attribute(LEVEL, before, after)
        assert not found.requests
        assert not found.failures
        assert "DeviceLimit" not in found.text()
    assert changed_to("before").text() == (
        "p95 unchanged, no step changed by more than equal runs differ"
    )


def test_the_interval_of_the_change_that_is_explained_is_quoted() -> None:
    found = changed_to("slower launcher")
    told = found.text(change("Running.p95", 0.23, 0.15, 0.31))
    assert told == "p95 +23 % [15, 31], all of it in Scheduled→Running"
    assert found.where() == "all of it in Scheduled→Running"
    assert found.text(change("Running.p50", 0.2, None, 0.3)).startswith("p50 +20 % […, 30], all")
    assert found.text(change("deletion.p95", 0.4, None, None)) == "deletion p95 +40 %"
    assert (
        found.text(change("requests_per_vmi", 0.4, 0.3, 0.5)) == "requests per VMI +40 % [30, 50]"
    )
    assert found.text(change("rate", None, None, None)) == "the title of rate +23 %"


def test_requests_are_told_of_who_sent_them_with_new_kinds_and_the_largest_first() -> None:
    before = [costing()]
    after = [costing(**{"PATCH virtualmachineinstances": 50.0, "GET pods": 100.0, "PUT x": 1.0})]
    found = attribute(LEVEL, before, after)
    assert [each.text() for each in found.requests] == [
        "virt-handler GET pods per VMI 0 → 10.0",
        "virt-handler PATCH virtualmachineinstances per VMI 3.1 → 5.0",
    ]
    back = attribute(LEVEL, after, before)
    assert back.requests[0].text() == "virt-handler GET pods per VMI 10.0 → 0"


def test_more_requests_than_equal_runs_differ_by_is_what_counts() -> None:
    before = [costing(**{"GET pods": number}) for number in (10.0, 30.0, 20.0)]
    assert not attribute(LEVEL, before, [costing(**{"GET pods": 28.0})] * 3).requests
    assert attribute(LEVEL, before, [costing(**{"GET pods": 90.0})] * 3).requests


def test_what_goes_by_the_clock_is_no_cost_of_a_vmi() -> None:
    found = attribute(LEVEL, [costing()], [costing(**{"UPDATE leases": 500.0, "PATCH": 500.0})])
    assert not found.requests


@pytest.mark.parametrize(
    ("scheduled", "running", "words"),
    [
        (4.0, 12.0, "p95 +20 %, all of it in Scheduling→Scheduled"),
        (3.0, 12.0, "p95 +20 %, half each in Scheduling→Scheduled and Scheduled→Running"),
        (2.5, 12.0, "p95 +20 %, most of it (75 %) in Scheduled→Running, 25 % in Scheduling→"
         "Scheduled"),
        (5.0, 12.0, "p95 +20 %, Scheduling→Scheduled +3.00 s, Scheduled→Running -1.00 s"),
    ],
)  # fmt: skip
def test_shares_are_told_as_people_say_them(scheduled: float, running: float, words: str) -> None:
    assert attribute(LEVEL, [level(10.0)], [level(running, scheduled)]).text() == words


def test_a_step_that_scatters_as_much_between_equal_runs_is_not_blamed() -> None:
    before = [level(each + 8, each) for each in (2.0, 4.0, 3.0)]
    after = [level(each + 12, each) for each in (3.9, 2.9, 4.9)]
    found = attribute(LEVEL, before, after)
    assert [each.counts for each in found.steps] == [False, False, True]
    assert found.text() == "p95 +45 %, most of it (82 %) in Scheduled→Running"


def test_stretches_that_one_side_could_not_tell_apart_are_taken_together() -> None:
    before, after = level(10.0), level(20.0, 12.0)
    before["slowest"] = {"slow": {"steps": {"Scheduling: a, b": 1.0, "Scheduling: c": 1.0}}}
    after["slowest"] = {
        "slow": {"steps": {"Scheduling: a": 3.0, "Scheduling: b": 8.0, "Scheduling: c": 1.0}}
    }
    assert attribute(LEVEL, [before], [after]).text() == (
        "p95 +100 %, all of it in Scheduling→Scheduled (a, b)"
    )


def test_a_percentile_that_was_reached_on_one_side_only_is_no_number() -> None:
    lost, kept = level(None), level(10.0)
    assert "no longer reached" in attribute(LEVEL, [kept], [lost]).text()
    assert "not reached before, 10.0 s after" in attribute(LEVEL, [lost], [kept]).text()
    assert "neither before nor after" in attribute(LEVEL, [lost], [lost]).text()


def test_a_failure_in_one_of_several_runs_is_told_so() -> None:
    failed = [level(10.0, failures=each) for each in ({}, {"QemuTimeout": 3}, {})]
    found = attribute(LEVEL, [level(10.0)] * 3, failed)
    assert found.text().endswith("QemuTimeout 0 → 1 of 20 (in 1 of 3 runs)")
    assert not attribute(LEVEL, failed, failed).failures
    # As often in fewer runs is no growth, but all of them is.
    assert not attribute(LEVEL, [*failed, *failed, level(10.0)], failed).failures
    assert attribute(LEVEL, failed * 3, [failed[1]] * 3).failures


def test_what_files_lack_is_said_and_not_guessed() -> None:
    found = attribute(LEVEL, [{}], levels("before"))
    assert found.text() == "p95 not known"
    assert found.unknown == (
        "p95 to Running", "p50 to Running", "deletion", "control-plane cost: not measured before",
        "failures",
    )  # fmt: skip
    without = levels("before")[0]
    del without["control_plane"]["components"]["virt-handler"]
    found = attribute(LEVEL, levels("before"), [without])
    assert found.unknown == ("cost of virt-handler: not measured after",)
    assert not found.requests


def paths(content: Any) -> list[tuple[str, ...]]:
    """The way to everything in a level object."""
    if not isinstance(content, dict):
        return []
    inner = [(key, *path) for key, each in content.items() for path in [(), *paths(each)]]
    return [tuple(each) for each in inner]


_WRONG: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, -1, 0, 10**400, math.nan, math.inf, "x", [], {}, {"": 1}, {"Scheduling: ": 1}]
)


@given(wrong=st.lists(st.tuples(st.sampled_from(paths(levels("before")[0])), _WRONG), max_size=9))
def test_no_file_is_so_broken_that_it_raises(wrong: list[tuple[tuple[str, ...], Any]]) -> None:
    broken, whole = levels("fewer devices")[0], levels("before")
    for (*path, last), value in wrong:
        part = broken
        for step in path:
            part = part.get(step, {}) if isinstance(part, dict) else {}
        if isinstance(part, dict):
            part[last] = value
    for found in (attribute(LEVEL, [broken], whole), attribute(LEVEL, whole, [broken])):
        assert found.text()
        json.dumps(found.as_json(), allow_nan=False)
