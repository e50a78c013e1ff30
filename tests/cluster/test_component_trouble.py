"""A level while components of its cluster stand still, die or dawdle, or its clock jumps.

What the cluster gets over leaves no mark but time: verdict, counts and classes are those of a run
without faults. Durations are the harness's own, so that a clock that jumps changes none.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.trouble import LEVEL, Outcome, play

Json = dict[str, Any]
COMPONENTS = (
    "kube-controller-manager", "kube-scheduler", "kubelet", "virt-api", "virt-controller",
    "virt-handler", "virt-operator",
)  # fmt: skip
SEEDS = 12


def phase_times(outcome: Outcome, phase: str = "Running") -> list[float]:
    return [row["phases"][phase] for row in outcome.rows if phase in row["phases"]]


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("kind", ["freeze", "kill"])
def test_a_component_that_comes_back_leaves_no_mark(
    sound: Path, with_walls: Path, faultless: Outcome, faultless_with_walls: Outcome, kind: str,
    component: str,
) -> None:  # fmt: skip
    fault = {"kind": kind, "component": component, "seconds": 30, "after": 0.6}
    killed = kind == "kill"
    found = play(with_walls if killed else sound, [fault])
    expected = faultless_with_walls if killed else faultless
    assert found.summary() == expected.summary()
    assert found.happened == [1]


def test_a_frozen_virt_controller_is_waited_for(sound: Path, faultless: Outcome) -> None:
    """Its VMIs are late, none is lost, and the lateness stands in their timelines."""
    fault = {"kind": "freeze", "component": "virt-controller", "seconds": 120, "after": 0}
    found = play(sound, [fault])
    assert found.summary() == faultless.summary()
    assert min(phase_times(found)) > 110
    assert max(phase_times(faultless)) < 30


def test_a_virt_controller_that_stays_frozen_ends_the_level(sound: Path) -> None:
    fault = {"kind": "freeze", "component": "virt-controller", "seconds": 100_000, "after": 1}
    found = play(sound, [fault], timeout=1200, stall=300, delete_timeout=600)
    assert found.result.verdict == "fail"
    assert found.result.figures.running < LEVEL
    # Launchers that were started wait for their guests in vain, and say so.
    assert "QemuTimeout" in found.result.failures
    assert set(found.result.failures) <= {"QemuTimeout", "StuckTerminating", "Unexplained"}
    assert found.result.figures.left_behind > 0
    assert found.left


@pytest.mark.parametrize("jump", [7200.0, -7200.0, 1.5])
def test_a_jump_of_the_servers_clock_changes_no_duration(
    sound: Path, faultless: Outcome, jump: float
) -> None:
    found = play(sound, [{"kind": "jump-clock", "seconds": jump, "after": 1}])
    assert found.summary() == faultless.summary()
    assert phase_times(found) == phase_times(faultless)
    deletions = [[row["gone"] for row in each.rows] for each in (found, faultless)]
    assert deletions[0] == deletions[1]


def test_a_slow_cluster_is_slow_and_passes(sound: Path, faultless: Outcome) -> None:
    found = play(sound, [{"kind": "slow", "factor": 5, "after": 0}])
    assert found.summary() == faultless.summary()
    assert max(phase_times(found)) > 2 * max(phase_times(faultless))


def at_random(seed: int) -> Sequence[Json]:
    """One to three faults of components, or of the clock."""
    dice = random.Random(seed)
    return [_one(dice, seed) for _ in range(dice.randint(1, 3))]


def _one(dice: random.Random, seed: int) -> Json:
    fault: Json = {"seed": seed, "after": round(dice.uniform(0, 6), 2)}
    kind = dice.choice(["freeze", "kill", "kill", "jump-clock", "slow"])
    seconds = round(dice.uniform(0.1, 40), 2)
    match kind:
        case "jump-clock":
            return {**fault, "kind": kind, "seconds": dice.choice([-1, 1]) * seconds * 100}
        case "slow":
            who = dice.choice([None, "virt-controller", "kube-apiserver", "container-runtime"])
            return {**fault, "kind": kind, "component": who, "factor": round(1 + seconds / 10, 2)}
    component = dice.choice(COMPONENTS)
    times = {"times": dice.randint(1, 3), "every": round(dice.uniform(0.2, 5), 2)}
    if component == "kubelet":
        # Three in a row must not be silent for longer than nodes are waited for (40 s).
        seconds, times = round(seconds / 5, 2), {"times": 1}
    return {**fault, "kind": kind, "component": component, "seconds": seconds, **times}


@pytest.mark.parametrize("first", range(0, SEEDS, 6))
def test_faults_of_components_at_random_leave_no_mark(
    sound: Path, with_walls: Path, faultless: Outcome, faultless_with_walls: Outcome, first: int
) -> None:
    for seed in range(first, first + 6):
        walled = seed % 3 == 0
        found = play(with_walls if walled else sound, at_random(seed))
        expected = faultless_with_walls if walled else faultless
        assert found.summary() == expected.summary(), (seed, at_random(seed))


@pytest.mark.parametrize("seed", [2, 5])
def test_the_same_faults_give_the_same_to_the_byte(with_walls: Path, seed: int) -> None:
    assert play(with_walls, at_random(seed)).text() == play(with_walls, at_random(seed)).text()
