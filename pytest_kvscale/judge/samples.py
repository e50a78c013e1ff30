"""Which numbers of runs are compared, and which runs of levels count.

A run of a level counts if its waiting ended by itself: all had settled, time was up, or nothing
progressed. What then does not run has failed, and is part of the figures. One that was
interrupted, or in which the API or our turn was lost, was not measured to its end. One that fell
behind its pace, or in which KubeVirt's settings changed, is no run of that load on that cluster,
whatever its verdict. One that was refused because it cannot fit created nothing: it speaks of
failures alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from pytest_kvscale.judge.change import Metric, Noise, Pair, Sample
from pytest_kvscale.judge.runs import RunFile
from pytest_kvscale.judge.verdict import (
    CANNOT_FIT,
    CHANGED,
    KEPT,
    LATE,
    SETTLED,
    STALLED,
    TIME_UP,
)

RUNNING_P50 = Metric("Running.p50", "p50 creation to Running", "s", "higher", 1.0)
RUNNING_P95 = Metric("Running.p95", "p95 creation to Running", "s", "higher", 1.0)
DELETION_P95 = Metric("deletion.p95", "p95 deletion to gone", "s", "higher", 1.0)
REQUESTS = Metric("requests_per_vmi", "control-plane requests per VMI", "", "higher", 0.5)
METRICS = (RUNNING_P50, RUNNING_P95, DELETION_P95, REQUESTS)
COMPONENTS = ("virt-api", "virt-controller", "virt-handler")
"""Whose requests are counted: KubeVirt's own, of which there is one set whatever asks for VMIs."""

_WHOLE = (SETTLED, TIME_UP, STALLED)
_DOUBTS = (LATE, CHANGED)
_WALLS = {"memory": "MemoryLimit", "cpu": "CpuLimit", "pods": "PodLimit",
          "addresses": "PodIPExhausted"}  # fmt: skip

Standing = Literal["whole", "refused", "no"]


@dataclasses.dataclass(frozen=True)
class LevelRun:
    """One run of one level, and whether it counts."""

    run: RunFile
    level: Mapping[str, Any]
    """As in the results."""
    standing: Standing
    """`whole`: all its figures count; `refused`: it could not fit; `no`: it does not count."""
    why: str = ""
    """Why it does not."""

    @property
    def number(self) -> int:
        """The level: so many VMIs."""
        return int(self.level["level"])

    @property
    def label(self) -> str:
        """Which run of which level it is, for people."""
        return f"{self.run.id} {self.level['label']}"

    @property
    def failures(self) -> dict[str, int]:
        """VMIs by failure class. Of a level that was refused: those that cannot run."""
        if self.standing != "refused":
            return dict(self.level["failures"])
        first = self.wall
        if first is None:
            return {}
        devices = first["name"].startswith("devices.")
        name = "DeviceLimit" if devices else _WALLS.get(first["name"], "CreateRejected")
        return {name: self.number - first["fits"]}

    @property
    def wall(self) -> Mapping[str, Any] | None:
        """What the level cannot get past, as the preflight told; None: nothing certain."""
        walls = [each for each in self.level["preflight"]["walls"] if each["certain"]]
        first = min(walls, key=lambda each: each["fits"], default=None)
        return None if first is None or first["fits"] >= self.number else first

    def sample(self, metric: Metric) -> Sample | None:
        """A metric's value; None: it was not measured (which is not: it was not reached)."""
        if self.standing != "whole":
            return None
        value: float | None
        if metric == REQUESTS:
            value = self._requests()
            if value is None:
                return None
        elif metric == DELETION_P95:
            value = self.level["deletion"]["p95"]
            if value is None and not self._is_stuck():
                return None
        else:
            value = self.level["phases"]["Running"][metric.key.partition(".")[2]]
        began = self.level["began"]
        return Sample(value, self.run.began if began is None else began, self.label)

    def components(self) -> frozenset[str]:
        """Of which of KubeVirt's components it is known what they sent."""
        per_vmi = self.level["control_plane"]["requests_per_vmi"]
        return frozenset(each for each in COMPONENTS if per_vmi.get(each))

    def _requests(self) -> float | None:
        per_vmi = self.level["control_plane"]["requests_per_vmi"]
        counted = self.components()
        if not counted:
            return None
        return round(math.fsum(number for each in counted for number in per_vmi[each].values()), 3)

    def _is_stuck(self) -> bool:
        """Whether the deletion went on until its time was up, and something was still there."""
        reasons = self.level["reasons"]
        return (
            self.level["left_behind"] > 0
            and self.level["deletion"]["censored"] > 0
            and self.level["test"] is not None
            and not any(each.startswith(KEPT) for each in reasons)
        )


def level_runs(runs: Iterable[RunFile], besides: Iterable[LevelRun] = ()) -> list[LevelRun]:
    """All runs of all levels. What was measured once and is there twice counts once.

    `besides` are the runs of the other side: what is there is no news on this one.
    """
    found: list[LevelRun] = []
    seen = {_measured(each.run, each.level): each for each in besides if each.standing == "whole"}
    for run in runs:
        for level in run.levels:
            each = LevelRun(run, level, *_standing(level))
            if each.standing == "whole":
                first = seen.setdefault(_measured(run, level), each)
                if first is not each:
                    why = f"its figures are those of {first.label}" + _one_seed(first.run, run)
                    each = dataclasses.replace(each, standing="no", why=why)
            found.append(each)
    return found


def both_sides(
    before: Iterable[RunFile], after: Iterable[RunFile]
) -> tuple[list[LevelRun], list[LevelRun]]:
    """All runs of all levels before and after; a copy of a run before is none after."""
    old = level_runs(before)
    return old, level_runs(after, old)


def _standing(level: Mapping[str, Any]) -> tuple[Standing, str]:
    ended = level["ended"]
    if ended == CANNOT_FIT:
        return "refused", "it was refused: it cannot fit"
    if not ended.startswith(_WHOLE):
        return "no", f"it was cut short: {ended}"
    doubts = [each for each in level["reasons"] if each.startswith(_DOUBTS)]
    if doubts or level["verdict"] == "inconclusive":
        return "no", f"it is inconclusive: {next(iter(doubts or level['reasons']), 'no reason')}"
    return "whole", ""


def _measured(run: RunFile, level: Mapping[str, Any]) -> str:
    """The same text for the same measurement: times have microseconds, none are alike by chance."""
    told = (run.simulated, level["level"], level["phases"], level["deletion"], level["failures"],
            *([] if level["running"] else [run.id, level["label"]]))  # fmt: skip
    return repr(told)


def _one_seed(first: RunFile, second: RunFile) -> str:
    if first.seed is None or (first.seed, first.profile) != (second.seed, second.profile):
        return ""
    return f" (seed {second.seed} of the embedded cluster in both: give another one)"


def pairs(
    before: Sequence[RunFile], after: Sequence[RunFile], calibration: Sequence[RunFile] = ()
) -> list[Pair]:
    """Each metric of each level that both sides have measured; levels in ascending order."""
    sides = both_sides(before, after)
    equal = level_runs(calibration, [*sides[0], *sides[1]])
    levels = sorted({each.number for each in sides[0]} & {each.number for each in sides[1]})
    found: list[Pair] = []
    for level in levels:
        old, new = ([each for each in side if each.number == level] for side in sides)
        found += _of_level(level, old, new, equal)
    return found


def _of_level(
    level: int, before: list[LevelRun], after: list[LevelRun], equal: list[LevelRun]
) -> Iterator[Pair]:
    for metric in METRICS:
        old, new = samples(before, metric), samples(after, metric)
        if not old or not new:
            continue
        if metric == REQUESTS and not is_counted_alike([*before, *after]):
            continue
        yield Pair(level, metric, old, new, _noise(level, metric, equal))


def samples(runs: Iterable[LevelRun], metric: Metric) -> tuple[Sample, ...]:
    """A metric's samples of runs of a level; without those in which it was not measured."""
    return tuple(found for each in runs if (found := each.sample(metric)) is not None)


def is_counted_alike(runs: Iterable[LevelRun]) -> bool:
    """Whether the requests of the same components were counted, and from the same source."""
    counted = {
        (each.components(), each.level["control_plane"]["source"])
        for each in runs
        if each.standing == "whole" and each.components()
    }
    return len(counted) <= 1


def _noise(level: int, metric: Metric, equal: Sequence[LevelRun]) -> Noise | None:
    """What equal runs of this level (of one cluster and fingerprint each) tell of the metric."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for each in equal:
        found = each.sample(metric) if each.number == level else None
        if found is not None:
            groups.setdefault((each.run.fingerprint, each.run.uid), []).append(found)
    if not groups:
        return None
    from pytest_kvscale.judge.noise import noise_of

    return noise_of([*groups.values()])
