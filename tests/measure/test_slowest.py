"""Where the slowest VMIs spent their time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvscale.measure.slowest import slowest
from pytest_kvscale.measure.timeline import Creation, PodFacts, Timeline

MOMENTS = ("acked", "Scheduling", "scheduled", "sandbox", "initialised", "started", "Scheduled")


def vmi(running: float | None, name: str = "one", **moments: float | None) -> Timeline:
    made = Timeline(name, Creation(name, 0.0, 0.0, moments.pop("acked", 0.0)), uid=name)
    for phase in ("Scheduling", "Scheduled"):
        moment = moments.pop(phase, None)
        if moment is not None:
            made.phases[phase] = moment
    if running is not None:
        made.phases["Running"] = running
    made.pod = PodFacts(name, **moments)  # type: ignore[arg-type]
    return made


WHOLE: dict[str, Any] = {
    "acked": 1.0, "Scheduling": 3.0, "scheduled": 6.0, "sandbox": 10.0, "initialised": 15.0,
    "started": 21.0, "Scheduled": 28.0,
}  # fmt: skip


def test_each_stretch_has_its_name() -> None:
    found = slowest([vmi(36.0, **WHOLE)])
    assert found is not None
    assert found["slow"] == {
        "seconds": 36.0,
        "steps": {
            "Pending: the API creating it": 1.0,
            "Pending: virt-controller making its pod": 2.0,
            "Scheduling: waiting for a node": 3.0,
            "Scheduling: its sandbox being made": 4.0,
            "Scheduling: init containers": 5.0,
            "Scheduling: containers starting": 6.0,
            "Scheduling: virt-controller seeing it ready": 7.0,
            "Scheduled: launcher starting": 8.0,
        },
    }


def test_a_plain_pod_has_no_launcher() -> None:
    """It is Scheduled when it has a node; a VMI may stand beside it."""
    pod = vmi(9.0, "pod", **{**WHOLE, "acked": 0.5, "Scheduling": 1.0, "scheduled": 2.0,
                             "Scheduled": 2.0, "sandbox": 4.0, "initialised": 5.0,
                             "started": 7.0})  # fmt: skip
    pod.creation.is_pod = True
    found = slowest([pod, vmi(36.0, **WHOLE)])
    assert found is not None
    assert found["median"] == {
        "seconds": 9.0,
        "steps": {
            "Pending: the API creating it": 0.5,
            "Pending: the watch telling of it": 0.5,
            "Scheduling: waiting for a node": 1.0,
            "Scheduled: its sandbox being made": 2.0,
            "Scheduled: init containers": 1.0,
            "Scheduled: containers starting": 2.0,
            "Scheduled: the kubelet seeing it ready": 2.0,
        },
    }
    assert found["slow"]["steps"]["Scheduled: launcher starting"] == 8.0


def test_the_slowest_twentieth_stands_beside_the_median() -> None:
    timelines = [
        vmi(10.0 + index, f"vmi-{index}", Scheduling=1.0, Scheduled=5.0) for index in range(40)
    ]
    timelines[7] = vmi(212.0, "slow", Scheduling=1.0, Scheduled=32.0)
    found = slowest(timelines)
    assert found is not None
    assert (found["vmis"], found["of"], found["median_vmi"]) == (2, 40, "vmi-20")
    assert found["slow"]["seconds"] == pytest.approx((212 + 49) / 2)
    assert found["slow"]["steps"]["Scheduled: launcher starting"] == pytest.approx((180 + 44) / 2)
    assert found["text"] == (
        "the slowest 5 % (2 of 40 VMIs): of 130 s, 112 in Scheduled: launcher starting (25); in "
        "brackets the median VMI, of 30 s"
    )


def test_what_was_seen_in_one_moment_is_one_stretch() -> None:
    found = slowest([vmi(9.0, Scheduling=1.0, scheduled=2.0, sandbox=6.0, initialised=6.0,
                         started=6.0, Scheduled=7.0)])  # fmt: skip
    assert found is not None
    name = "Scheduling: its sandbox being made, init containers, containers starting"
    assert found["slow"]["steps"][name] == 4.0


def test_one_alone_is_called_the_slowest_vmi() -> None:
    found = slowest([vmi(212.0, Scheduling=1.0, Scheduled=32.0)])
    assert found is not None
    assert found["text"].startswith("the slowest VMI: of 212 s, 180 in Scheduled: launcher st")


def test_where_none_ran_nothing_is_said() -> None:
    assert slowest([vmi(None, Scheduling=1.0)]) is None
    assert slowest([]) is None


MAYBE = st.one_of(st.none(), st.floats(0, 120))


@given(
    st.lists(
        st.tuples(st.floats(0.001, 100), st.fixed_dictionaries(dict.fromkeys(MOMENTS, MAYBE))),
        min_size=1,
        max_size=40,
    )
)
def test_however_watches_told_it_the_stretches_add_up(
    told: list[tuple[float, dict[str, float | None]]],
) -> None:
    """Moments that are missing, out of order or too late lose and double no second."""
    found = slowest(vmi(running, f"v{index}", **more) for index, (running, more) in enumerate(told))
    assert found is not None
    for way in (found["slow"], found["median"]):
        assert sum(way["steps"].values()) == pytest.approx(way["seconds"], abs=1e-4)
        assert all(each >= 0 for each in way["steps"].values())
    ordered = sorted(running for running, _ in told)
    slow = ordered[-found["vmis"] :]
    assert found["slow"]["seconds"] == pytest.approx(sum(slow) / len(slow), abs=1e-4)
    assert found["median"]["seconds"] == pytest.approx(ordered[(len(ordered) - 1) // 2], abs=1e-4)
