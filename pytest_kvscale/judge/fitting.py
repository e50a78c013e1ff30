"""Which runs may be compared: those that differ in nothing but what may differ.

KubeVirt's version may differ between the sides, and what the user names; whether a cluster is
simulated never may, whatever the user names. The runs of one side are repeats of each other.
"""

from __future__ import annotations

import collections
import fnmatch
from collections.abc import Iterable, Sequence
from typing import NoReturn

from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.judge.comparable import Difference, differences
from pytest_kvscale.judge.runs import RunFile

KUBEVIRT, SIMULATED = "versions.kubevirt", "simulated"
BY_KUBEVIRT = ("node.devices",)
"""What KubeVirt offers itself: another version may offer fewer, and who meets that limit is told so
by what failed."""
_MOST_TOLD = 8
"""Differences that an error names."""


class NotComparableError(ConfigurationError):
    """Two runs differ in what must not."""

    def __init__(self, text: str, found: Sequence[Difference] = ()) -> None:
        super().__init__(text)
        self.differences = tuple(found)


def check_sides(before: Sequence[RunFile], after: Sequence[RunFile]) -> None:
    """Raise `ConfigurationError` if a side is empty, or both have the same run."""
    for side, runs in (("before", before), ("after", after)):
        if not runs:
            raise ConfigurationError(f"there is no run {side}: nothing can be compared")
    there = {each.id: each for each in before}
    for run in after:
        if run.id in there:
            raise ConfigurationError(
                f"run {run.id} is on both sides ({there[run.id].source} and {run.source}): "
                "a run compared with itself says nothing"
            )


def _difference(one: RunFile, other: RunFile, may_differ: Sequence[str]) -> list[Difference]:
    """What differs and must not."""
    upgraded = one.kubevirt != other.kubevirt and is_named(KUBEVIRT, may_differ)
    allowed = (*may_differ, *BY_KUBEVIRT) if upgraded else may_differ
    found = [
        each
        for each in differences(one.comparable, other.comparable, allowed)
        if each.name != SIMULATED
    ]
    if one.simulated != other.simulated:
        found.insert(0, Difference(SIMULATED, one.simulated, other.simulated))
    return found


def _refuse(one: RunFile, other: RunFile, found: Sequence[Difference], what: str) -> NoReturn:
    more = len(found) - _MOST_TOLD
    told = "; ".join(each.text() for each in found[:_MOST_TOLD])
    rest = f"; and {more} more" if more > 0 else ""
    hint = (
        "simulated, hollow and real clusters are never compared"
        if found[0].name == SIMULATED
        else "name what may differ by --may-differ, of a run by --kvscale-may-differ"
    )
    raise NotComparableError(
        f"{what}: {told}{rest} (run {one.id}, {one.source}, and run {other.id}, {other.source}; "
        f"{hint})",
        found,
    )


def check_alike(runs: Sequence[RunFile], may_differ: Sequence[str], side: str) -> None:
    """Runs of one side are repeats of each other."""
    for run in runs[1:]:
        found = _difference(runs[0], run, may_differ)
        if found:
            _refuse(runs[0], run, found, f"the runs {side} cannot be compared with each other")


def those_that_fit(
    before: Sequence[RunFile],
    after: Sequence[RunFile],
    may_differ: Sequence[str],
    leave_out: bool,
    notes: list[str],
) -> list[RunFile]:
    """The runs before that can be compared with those after."""
    allowed = (KUBEVIRT, *may_differ)
    found = {run.id: _difference(run, after[-1], allowed) for run in before}
    fitting = [run for run in before if not found[run.id]]
    others = [run for run in before if found[run.id]]
    if others and not (fitting and leave_out):
        nearest = min(others, key=lambda run: len(found[run.id]))
        many = f"none of {len(others)} runs before can be compared; the nearest differs"
        what = many if len(others) > 1 and not fitting else "the runs cannot be compared"
        _refuse(nearest, after[-1], found[nearest.id], what)
    notes += [
        f"run {run.id} is left out, it cannot be compared: "
        + "; ".join(each.text() for each in found[run.id][:3])
        for run in others
    ]
    return fitting


def one_version(
    before: Sequence[RunFile], may_differ: Sequence[str], version: str | None, notes: list[str]
) -> Sequence[RunFile]:
    """Of several KubeVirt versions those of the one that was asked for, or that began last."""
    runs = collections.Counter(run.kubevirt for run in before)
    if version is not None and version not in runs:
        raise ConfigurationError(
            f"there is no run of KubeVirt {version} before: there are {', '.join(sorted(runs))}"
        )
    if len(runs) == 1 or (version is None and is_named(KUBEVIRT, may_differ)):
        return before
    last = max(before, key=lambda run: (run.began or 0.0, run.id))
    used = last.kubevirt if version is None else version
    counted = ", ".join(f"{each} ({number})" for each, number in sorted(runs.items()))
    why = "asked for" if version is not None else "of the run that began last"
    notes.append(f"KubeVirt versions before: {counted}; compared with {used}, {why}")
    return [run for run in before if run.kubevirt == used]


def is_named(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the user's names or patterns means it."""
    return any(fnmatch.fnmatchcase(name, each) for each in patterns)


def calibrating(
    calibration: Sequence[RunFile],
    before: Sequence[RunFile],
    after: Sequence[RunFile],
    may_differ: Sequence[str],
    notes: list[str],
) -> list[RunFile]:
    """The equal runs that tell the noise: of this cluster, and used for nothing else."""
    used = {run.id for run in (*before, *after)}
    kept, found = [], {}
    for run in calibration:
        if run.id in used:
            notes.append(f"run {run.id} is compared, and no calibration beside that")
            continue
        found[run.id] = _difference(run, after[-1], (KUBEVIRT, *may_differ))
        if not found[run.id]:
            kept.append(run)
    others = [run for run in calibration if found.get(run.id)]
    if others and not kept:
        nearest = min(others, key=lambda run: len(found[run.id]))
        what = "the calibration is of another cluster, or another load"
        _refuse(nearest, after[-1], found[nearest.id], what)
    notes += [
        f"calibration run {run.id} is left out: "
        + "; ".join(each.text() for each in found[run.id][:3])
        for run in others
    ]
    return kept
