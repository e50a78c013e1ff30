"""Our clock and the server's: how far apart, how sure, and what contradicts it."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pytest_kvscale.judge.verdict import judge
from pytest_kvscale.measure import recording
from pytest_kvscale.measure.clocks import compare
from pytest_kvscale.measure.figures import figures
from pytest_kvscale.measure.timeline import Creation, Timeline
from pytest_kvscale.report.results import level_object, vmi_rows
from tests.conftest import DATA

EPOCH = 1_700_000_000.0


def vmi(sent: float, ahead: float = EPOCH, name: str = "one", took: float = 0.05) -> Timeline:
    """A VMI that is stamped in the middle of each request, by a clock that is so far ahead."""

    def stamp(moment: float) -> float:
        return float(int(moment + ahead))

    made = Timeline(name, Creation(name, sent, sent, sent + took), uid=name)
    made.created_stamp = stamp(sent + took / 2)
    for phase, after in (("Scheduling", 1.0), ("Scheduled", 4.0), ("Running", 9.0)):
        made.stamps[phase] = stamp(sent + after)
        made.phases[phase] = sent + after + 0.01
    return made


def shifted(sent: float, before: float, jump: float, at: float) -> Timeline:
    """A VMI whose server's clock jumps at a moment of ours."""
    made, later = vmi(sent, before), vmi(sent, before + jump)
    for phase, moment in made.phases.items():
        if moment >= at:
            made.stamps[phase] = later.stamps[phase]
    if sent >= at:
        made.created_stamp = later.created_stamp
    made.name = f"vmi-{sent}"
    return made


def test_many_stamps_enclose_the_distance_to_the_time_a_request_takes() -> None:
    found = compare([vmi(100 + 0.037 * index, EPOCH + 0.4) for index in range(200)], EPOCH)
    assert found["ahead"] == pytest.approx(0.4, abs=0.05)
    assert found["uncertainty"] is not None
    assert found["uncertainty"] < 0.05
    assert (found["jumps"], found["checked"], found["disagreements"]) == ([], 600, 0)


@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(0.001, 1)), min_size=1, max_size=60),
    st.floats(-100, 100),
)
def test_the_true_distance_is_never_outside(sends: list[tuple[float, float]], ahead: float) -> None:
    found = compare([vmi(sent, EPOCH + ahead, took=took) for sent, took in sends], EPOCH)
    assert found["ahead"] is not None
    assert found["uncertainty"] is not None
    assert abs(found["ahead"] - ahead) <= found["uncertainty"] + 0.002
    assert not found["jumps"]


@given(st.floats(-3600, 3600))
def test_one_vmi_alone_is_sure_to_half_a_second_and_its_request(ahead: float) -> None:
    found = compare([vmi(5.0, EPOCH + ahead)], EPOCH)
    assert found["uncertainty"] == pytest.approx(0.525, abs=1e-5)


@given(st.floats(-3600, 3600))
def test_a_jump_of_the_servers_clock_is_found(jump: float) -> None:
    assume(abs(jump) > 1)
    timelines = [shifted(0.1 * index, EPOCH, jump, 10.0) for index in range(200)]
    found = compare(timelines, EPOCH)
    assert len(found["jumps"]) == 1
    assert found["jumps"][0]["by"] == pytest.approx(jump, abs=0.5)
    assert found["jumps"][0]["at"] == pytest.approx(10.05, abs=0.3)
    assert "no duration is measured by it" in found["warnings"][0]


@given(st.floats(-0.09, 0.09))
def test_api_servers_that_disagree_a_little_are_no_clock_that_jumps(skew: float) -> None:
    """Two API servers answer in turn."""
    timelines = [vmi(0.013 * index, EPOCH + skew * (index % 2), took=0.001) for index in range(400)]
    found = compare(timelines, EPOCH)
    assert (found["jumps"], found["warnings"]) == ([], [])
    assert found["ahead"] is not None
    assert found["uncertainty"] is not None
    for each in (0.0, skew):
        assert abs(found["ahead"] - each) <= found["uncertainty"] + 0.02


def test_a_clock_that_drifts_does_not_jump() -> None:
    """50 ms in ten minutes."""
    timelines = [vmi(0.1 * index, EPOCH + 8e-6 * index, took=0.001) for index in range(6000)]
    found = compare(timelines, EPOCH)
    assert (found["jumps"], found["warnings"]) == ([], [])


def test_a_vmi_that_its_owner_replaced_tells_nothing_of_the_clocks() -> None:
    timelines = [vmi(0.1 * index, name=f"vmi-{index}") for index in range(20)]
    again, last = timelines[3], vmi(90.0)
    again.restarts, again.stamps, again.created_stamp = 1, last.stamps, last.created_stamp
    found = compare(timelines, EPOCH)
    assert (found["jumps"], found["warnings"], found["checked"]) == ([], [], 57)


def test_a_stamp_later_than_it_was_seen_is_told_with_the_vmis_name() -> None:
    timelines = [vmi(0.013 * index, name=f"vmi-{index}") for index in range(100)]
    timelines[7].stamps["Running"] += 2
    found = compare(timelines, EPOCH)
    assert found["disagreements"] == 1
    (told,) = found["warnings"]
    assert told.startswith("vmi-7: Running was stamped ")
    assert "after it was seen (uncertainty" in told


def test_a_stamp_much_earlier_than_it_was_seen_is_told_too() -> None:
    timelines = [vmi(0.013 * index, name=f"vmi-{index}") for index in range(100)]
    timelines[3].stamps["Scheduled"] -= 5
    found = compare(timelines, EPOCH)
    assert list(found["by_vmi"]) == ["vmi-3"]
    assert "Scheduled was seen 5." in found["warnings"][0]


def test_of_many_that_disagree_some_are_told_and_all_are_marked() -> None:
    timelines = [vmi(0.013 * index, name=f"vmi-{index}") for index in range(100)]
    for each in timelines[:10]:
        each.stamps["Running"] += 9
    found = compare(timelines, EPOCH)
    assert len(found["by_vmi"]) == 10
    assert len(found["warnings"]) == 4
    assert "7 more VMIs disagree" in found["warnings"][-1]


def test_time_without_a_date_has_no_distance_and_is_checked_all_the_same() -> None:
    found = compare([vmi(0.1 * index, 0.0) for index in range(20)])
    assert found["ahead"] is None
    assert found["uncertainty"] is not None
    assert found["checked"] == 60


def test_nothing_stamped_is_nothing_known() -> None:
    found = compare([Timeline("one", Creation("one", 0.0, 0.0))], EPOCH)
    assert found["ahead"] is found["uncertainty"] is None
    assert not found["warnings"]


def test_a_phase_learnt_late_is_not_compared_with_the_stamp_it_was_taken_from() -> None:
    made = vmi(1.0)
    made.stamps["Running"] += 60
    made.bounds["Running"] = (2.0, 100.0)
    assert compare([made], EPOCH)["checked"] == 2


# On recordings --------------------------------------------------------------------------------


def jumped(lines: list[dict[str, Any]], after: str, seconds: int) -> list[dict[str, Any]]:
    """The same recording, if the server's clock had jumped at a stamp."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: walk(each) for key, each in value.items()}
        if isinstance(value, list):
            return [walk(each) for each in value]
        if isinstance(value, str) and len(value) == 20 and value.endswith("Z") and value > after:
            moment = datetime.datetime.fromisoformat(value) + datetime.timedelta(seconds=seconds)
            return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
        return value

    return [walk(line) for line in lines]


@pytest.mark.parametrize("seconds", [3600, 30, -30, -3600])
def test_a_clock_that_jumps_changes_no_duration(seconds: int) -> None:
    lines = recording.read(DATA / "c-crash-sandbox-60.jsonl.gz")
    plain = figures(recording.replay(lines))
    other = figures(recording.replay(jumped(lines, "2026-11-23T18:51:22Z", seconds)))
    for name in ("phases", "deletion", "rates", "pacing", "slowest", "left_behind"):
        assert getattr(other, name) == getattr(plain, name)
    assert judge(60, other).failures == judge(60, plain).failures
    assert not plain.clocks["warnings"]
    assert other.clocks["jumps"]
    assert other.clocks["jumps"][0]["by"] == pytest.approx(seconds, abs=0.6)
    before, after = (
        [row["phases"] for row in vmi_rows(judge(60, each))] for each in (plain, other)
    )
    assert before == after


def test_stamps_that_wait_in_a_throttled_client_are_told() -> None:
    """virt-controller stamped the phases, and its client limit let them out seconds later."""
    found = figures(recording.replay(recording.read(DATA / "g-controller-qps5-60.jsonl.gz")))
    result = judge(60, found)
    level = level_object(result)
    assert level["clocks"]["disagreements"] > 60
    assert level["warnings"][0].startswith("density-00")
    marked = [row for row in vmi_rows(result) if "disagrees" in row]
    assert len(marked) == 60


@pytest.mark.parametrize("name", ["a-100", "b-devices110-130", "c-crash-sandbox-60", "e-vm-10"])
def test_stamps_of_a_real_control_plane_agree_with_what_was_seen(name: str) -> None:
    found = figures(recording.replay(recording.read(DATA / f"{name}.jsonl.gz")))
    assert found.clocks["warnings"] == []
    assert found.clocks["checked"] > 0
