"""A level loses sight of its cluster: no VMI is lost, none counted twice, no create doubled.

What can be survived leaves no mark: verdict, counts and classes are those of a run without
faults. What cannot is told. Nothing hangs (`trouble.LONGEST`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.trouble import LEVEL, Outcome, play, profile, survivable

Json = dict[str, Any]
RUNS = 100
BATCH = 10
NAMES = [f"density-{LEVEL}-{index:04d}" for index in range(LEVEL)]


def fault(kind: str, **more: Any) -> Json:
    return {"kind": kind, "after": 2, **more}


def test_without_faults(faultless: Outcome, faultless_with_walls: Outcome) -> None:
    assert faultless.result.verdict == "pass"
    assert sorted(faultless.made) == NAMES
    assert faultless.summary()["told"] == NAMES
    assert faultless.left == []
    assert set(faultless_with_walls.result.failures) == {
        "KillPodSandbox", "SandboxTimeout", "LauncherCrash", "CreateRejected",
    }  # fmt: skip


SURVIVABLE = {
    "watches closed": [fault("close-watches", times=5, every=0.7)],
    "watches reset": [fault("close-watches", how="reset", times=5, every=0.7)],
    "watches half open": [fault("silence-watches", times=2, every=2)],
    "one watch half open": [fault("silence-watches", resources=["virtualmachineinstances"])],
    "history compacted, watches closed": [
        fault("compact", times=8, every=0.5),
        fault("close-watches", times=8, every=0.5),
    ],
    "410 in running watches": [fault("compact", running_watches=True, times=4, every=1)],
    "resets before requests": [fault("cut", share=0.5, lasts=20, after=0)],
    "answers lost": [fault("cut", share=0.5, lasts=20, when="after", after=0)],
    "answers cut off": [fault("cut", share=0.5, lasts=20, when="middle", after=0)],
    "429": [fault("answer", status=429, retry_after=3, share=0.7, lasts=20, after=0)],
    "500": [fault("answer", status=500, share=0.7, lasts=20, after=0)],
    "504 after the write": [
        fault("answer", status=504, carried_out=True, share=0.7, lasts=20, after=0)
    ],
    "a slow API": [fault("delay", seconds=40, share=0.3, lasts=5, after=0)],
    "requests that hang": [fault("delay", seconds=10_000, times=6, verbs=["create", "watch"])],
    "events dropped": [fault("drop-events", share=0.3, after=0)],
    "events doubled": [fault("duplicate-events", after=0)],
    "events out of order": [fault("reorder-events", share=0.5, seconds=3, after=0)],
    "the API restarted": [fault("restart", seconds=20)],
    "the API restarted again and again": [fault("restart", seconds=5, times=5, every=7)],
    "players refused": [
        fault("answer", status=503, callers="players", share=0.5, lasts=20, after=0)
    ],
    "all at once": [
        fault("restart", seconds=10),
        fault("drop-events", share=0.3),
        fault("reorder-events", share=0.3, seconds=2),
        fault("cut", share=0.3, lasts=30, when="after", after=0),
        fault("compact", times=5, every=2, running_watches=True),
    ],
}


@pytest.mark.parametrize("faults", SURVIVABLE.values(), ids=SURVIVABLE)
def test_what_can_be_survived_leaves_no_mark(
    sound: Path, with_walls: Path, faultless: Outcome, faultless_with_walls: Outcome,
    faults: Sequence[Json],
) -> None:  # fmt: skip
    for path, expected in ((sound, faultless), (with_walls, faultless_with_walls)):
        found = play(path, faults)
        assert found.summary() == expected.summary()
        assert all(found.happened)


@pytest.mark.parametrize("first", range(0, RUNS, BATCH))
def test_faults_at_random_leave_no_mark(
    sound: Path, with_walls: Path, faultless: Outcome, faultless_with_walls: Outcome, first: int
) -> None:
    """Each seed draws up to four faults; every fourth run is on the cluster with walls."""
    befell = 0
    for seed in range(first, first + BATCH):
        walled = seed % 4 == 0
        found = play(with_walls if walled else sound, survivable(seed))
        expected = faultless_with_walls if walled else faultless
        assert found.summary() == expected.summary(), (seed, survivable(seed))
        befell += any(found.happened)
    assert befell >= BATCH - 1


@pytest.mark.parametrize("seed", [3, 16, 51])
def test_the_same_seed_gives_the_same_to_the_byte(with_walls: Path, seed: int) -> None:
    assert play(with_walls, survivable(seed)).text() == play(with_walls, survivable(seed)).text()


# Times ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "faults",
    [
        [fault("silence-watches", resources=["virtualmachineinstances"])],
        [fault("restart", seconds=30, after=4)],
        [fault("compact", running_watches=True), fault("answer", status=500, verbs=["list"],
                                                       after=1.9, lasts=60)],
    ],
    ids=["half open", "restart", "410 and no list"],
)  # fmt: skip
def test_what_was_missed_is_timed_by_the_servers_stamp(
    sound: Path, faultless: Outcome, faults: list[Json]
) -> None:
    """Not by when the harness could see again, which may be minutes later."""
    found = play(sound, faults)
    late = [row for row in found.rows if "Running" in row.get("bounds", {})]
    assert late
    for row, true in zip(found.rows, faultless.rows, strict=True):
        if faults[0]["kind"] == "restart":
            # The players were held up as well: their stamps are what is true.
            assert row["phases"]["Running"] == pytest.approx(row["server"]["Running"], abs=2.5)
        else:
            assert row["phases"]["Running"] == pytest.approx(true["phases"]["Running"], abs=1.1)
    for row in late:
        low, high = row["bounds"]["Running"]
        assert low <= row["phases"]["Running"] <= high


# What cannot be survived ----------------------------------------------------------------------


def test_creates_that_are_shed_for_ever_are_told(sound: Path) -> None:
    found = play(
        sound, [fault("answer", status=429, verbs=["create"], after=0.5,
                      resources=["virtualmachineinstances"])], timeout=600,
    )  # fmt: skip
    made = len(found.made)
    assert 0 < made < LEVEL
    assert found.result.failures == {"Throttled": LEVEL - made}
    assert found.summary()["deleted"] == made
    assert (found.left, found.result.figures.left_behind) == ([], 0)


def test_an_api_that_is_lost_for_good_is_told(sound: Path) -> None:
    found = play(
        sound, [fault("restart", seconds=100_000)], timeout=600, stall=120, delete_timeout=900
    )
    assert found.result.verdict == "fail"
    assert "the API was lost" in found.problem
    assert found.left


def test_an_api_that_comes_back_late_finds_its_vmis_deleted(sound: Path) -> None:
    """The level is lost, and what it created is removed all the same."""
    found = play(sound, [fault("restart", seconds=1000)], timeout=300, stall=120)
    assert "the API was lost" in found.problem
    assert found.left == []


def test_watches_that_are_forbidden_are_told_and_nothing_is_left(sound: Path) -> None:
    forbidden = fault("answer", status=403, verbs=["watch"], resources=["virtualmachineinstances"])
    closing = fault("close-watches", after=2.5)
    for kept in (False, True):
        found = play(sound, [forbidden, closing], kept=kept)
        assert found.problem.startswith("the API refused: HTTP 403 Forbidden")
        assert found.left == []
        assert found.result.figures.left_behind == 0
        assert found.result.figures.deleted == len(found.made)


def test_events_of_vmis_that_all_get_lost(sound: Path, faultless: Outcome) -> None:
    """The lists at the end are enough to see everything."""
    found = play(sound, [fault("drop-events", after=0)])
    assert found.summary() == faultless.summary()


def test_a_slow_deletion_is_still_told_at_its_deadline(tmp_path: Path) -> None:
    found = play(profile(tmp_path, "stuck_terminating: 0.2"), delete_timeout=300)
    assert found.result.failures["StuckTerminating"] == found.result.figures.left_behind > 0


# Creates that are given up --------------------------------------------------------------------


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("seconds", [3, 30, 59])
def test_a_create_under_way_when_the_level_ends_is_deleted_too(
    sound: Path, kept: bool, seconds: float
) -> None:
    """In a namespace that is kept nothing else would remove what it makes."""
    creates = {"verbs": ["create"], "resources": ["virtualmachineinstances"]}
    found = play(sound, [fault("delay", seconds=seconds, after=0.2, **creates)], kept=kept,
                 timeout=1)  # fmt: skip
    assert found.left == []
    assert found.result.figures.created == len(found.made)
    assert found.result.figures.left_behind == 0


def test_a_create_that_takes_effect_unseen_is_deleted_too(sound: Path) -> None:
    """Its answer is lost, no event tells of it, and the level ends."""
    creates = {"verbs": ["create"], "resources": ["virtualmachineinstances"]}
    faults = [
        fault("cut", when="after", after=0.2, **creates),
        fault("drop-events", after=0.2, resources=["virtualmachineinstances"]),
        fault("answer", status=503, verbs=["get"], resources=creates["resources"]),
    ]
    found = play(sound, faults, kept=True, timeout=30, stall=30)
    assert found.left == []
    assert found.result.figures.created == len(found.made) == LEVEL
    assert found.result.figures.deleted == LEVEL


def test_a_namespace_whose_creation_nobody_confirmed_is_removed(sound: Path) -> None:
    faults = [
        fault("answer", status=504, carried_out=True, resources=["namespaces"], verbs=["create"],
              after=0, lasts=61),
        fault("answer", status=503, resources=["namespaces"], verbs=["get"], after=0, lasts=61),
    ]  # fmt: skip
    found = play(sound, faults)
    assert found.left == []
