"""Two sides of runs compared: whether they may be, and what came of it.

Before anything is compared it is made sure that only what may differ does. Each level then has a
row for every metric and one for its failures; the worst of them is the verdict.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.judge import failure_changes, fitting, samples
from pytest_kvscale.judge.change import DEFAULT, Change, Metric, Pair, Rules, Sample, Verdict
from pytest_kvscale.judge.comparable import Difference, differences
from pytest_kvscale.judge.failure_changes import FailureChange
from pytest_kvscale.judge.fitting import NotComparableError
from pytest_kvscale.judge.rows import FAILURES, Row, change_text, failure_text
from pytest_kvscale.judge.runs import RunFile
from pytest_kvscale.judge.samples import LevelRun

__all__ = ["FAILURES", "SCHEMA", "Comparison", "NotComparableError", "Row", "compare"]

if TYPE_CHECKING:
    from pytest_kvscale.judge.attribution import Attribution

SCHEMA = "kvscale-comparison/v1"

Json = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What came of comparing two sides."""

    verdict: Verdict
    before: tuple[str, ...]
    """Ids of the runs that were used."""
    after: tuple[str, ...]
    levels: tuple[int, ...]
    changes: tuple[Change, ...]
    failures: tuple[FailureChange, ...]
    attribution: tuple[Attribution, ...]
    """Where the changes are, of each level that was measured on both sides."""
    differs: tuple[Difference, ...]
    """What differs between the sides, and may."""
    notes: tuple[str, ...]
    """What was left out, and why; one sentence each."""
    rules: Rules = DEFAULT
    simulated: str = "false"
    kubevirt: tuple[str, str] = ("", "")
    """Its version before and after."""
    confidence: float = 0.0
    """Of the changes' intervals: 0.98 is 98 %."""

    def rows(self) -> Iterator[Row]:
        """All that was judged: by level, its metrics, then its failures."""
        for level in self.levels:
            for change in self.changes:
                if change.pair.level == level:
                    yield Row(level, change.pair.metric.key, change.verdict, change_text(change))
            for failure in self.failures:
                if failure.level == level:
                    yield Row(level, FAILURES, failure.verdict, failure_text(failure))

    def where(self, change: Change) -> str:
        """In which part of the VMIs' life a change is; empty: not known."""
        found = (each for each in self.attribution if each.level == change.pair.level)
        return next((each.text(change) for each in found), "")

    def as_json(self) -> Json:
        """As it stands in `results.json`; strictly JSON, whatever the numbers are."""
        content = {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "simulated": self.simulated,
            "rules": dataclasses.asdict(self.rules),
            "confidence": round(self.confidence, 6),
            "kubevirt": {"before": self.kubevirt[0], "after": self.kubevirt[1]},
            "before": list(self.before),
            "after": list(self.after),
            "levels": list(self.levels),
            "changes": [_change_json(each) for each in self.changes],
            "failures": [
                {**dataclasses.asdict(each), "text": failure_text(each)} for each in self.failures
            ],
            "attribution": [each.as_json() for each in self.attribution],
            "differs": [dataclasses.asdict(each) for each in self.differs],
            "notes": list(self.notes),
        }
        plain: Json = _plain(content)
        return plain


def compare(
    before: Sequence[RunFile],
    after: Sequence[RunFile],
    rules: Rules = DEFAULT,
    calibration: Sequence[RunFile] = (),
    may_differ: Sequence[str] = (),
    *,
    leave_out: bool = True,
    version: str | None = None,
    levels: Sequence[int] | None = None,
) -> Comparison:
    """Compare the runs of two sides.

    `may_differ` has names or patterns of what may differ beside KubeVirt's version; whether a
    cluster is simulated never may. With `leave_out`, runs of the side before that cannot be
    compared are left out and noted, as long as one can. Of several KubeVirt versions on that side
    it is that of the run that began last, or `version`. `levels` are those to be compared; None:
    all that either side has.

    Raises `NotComparableError` for runs that cannot be compared, `ConfigurationError` for sides
    that are empty, share a run or have no level in common.
    """
    notes: list[str] = []
    before, after = (_with_levels(runs, notes) for runs in (before, after))
    fitting.check_sides(before, after)
    fitting.check_alike(after, may_differ, "after")
    before = fitting.those_that_fit(before, after, may_differ, leave_out, notes)
    before = fitting.one_version(before, may_differ, version, notes)
    fitting.check_alike(before, may_differ, "before")
    calibration = fitting.calibrating(calibration, before, after, may_differ, notes)
    both = samples.both_sides(before, after)
    equal = samples.level_runs(calibration, [*both[0], *both[1]])
    chosen = _levels(both, levels)
    by_level = {
        level: tuple([each for each in side if each.number == level] for side in both)
        for level in chosen
    }
    notes += _not_counted(both, chosen)
    notes += [
        f"calibration {each.label} does not count: {each.why}"
        for each in equal
        if each.why and each.number in chosen
    ]
    notes += _other_clusters(before, after)
    notes += not_calibrated(calibration, chosen)
    notes += _calibrated_elsewhere(calibration, after)
    failures = _failures(by_level, rules)
    # All false alarms together are bounded by alpha: where failures were tested, each half has one.
    tested = any(each.p is not None for found in failures for each in found.classes)
    strict = dataclasses.replace(rules, alpha=rules.alpha / 2) if tested else rules
    changes = _changes(by_level, samples.pairs(before, after, calibration), strict, notes)
    verdicts = [*(each.verdict for each in changes), *(each.verdict for each in failures)]
    return Comparison(
        verdict=_worst(verdicts),
        before=tuple(each.id for each in before),
        after=tuple(each.id for each in after),
        levels=tuple(chosen),
        changes=tuple(changes),
        failures=tuple(failures),
        attribution=tuple(_attribution(by_level, changes)),
        differs=tuple(differences(before[-1].comparable, after[-1].comparable)),
        notes=tuple(notes),
        rules=rules,
        simulated=after[-1].simulated,
        kubevirt=(before[-1].kubevirt, after[-1].kubevirt),
        confidence=1 - 2 * strict.alpha,
    )


def _with_levels(runs: Sequence[RunFile], notes: list[str]) -> Sequence[RunFile]:
    """The runs that ran a level; all of them if none did."""
    found = [run for run in runs if run.levels]
    if not found:
        return runs
    notes += [f"run {run.id} has no level ({run.source})" for run in runs if not run.levels]
    return found


def _levels(
    sides: tuple[list[LevelRun], list[LevelRun]], wanted: Sequence[int] | None
) -> list[int]:
    """The levels to be compared.

    Raises `ConfigurationError` if the sides have none in common, or if one is wanted that neither
    side has: where nothing is compared, nothing may pass.
    """
    old, new = ({each.number for each in side} for side in sides)
    if not old & new:
        told = " and ".join(
            f"{', '.join(map(str, sorted(levels))) or 'none'} {side}"
            for side, levels in (("before", old), ("after", new))
        )
        raise ConfigurationError(f"the sides have no level in common: {told}")
    there = sorted(old | new)
    missing = [each for each in wanted or () if each not in there]
    if missing or wanted == []:
        named = f"level {', '.join(map(str, missing))}" if missing else "no level"
        raise ConfigurationError(
            f"{named} was not run on either side: there are {', '.join(map(str, there))}"
        )
    return there if wanted is None else [each for each in there if each in wanted]


def _not_counted(sides: tuple[list[LevelRun], list[LevelRun]], chosen: Sequence[int]) -> list[str]:
    notes = []
    for level in chosen:
        there = [any(each.number == level for each in side) for side in sides]
        if not all(there):
            notes.append(f"level {level} was run {'before' if there[0] else 'after'} only")
    return notes + [
        f"{each.label} does not count: {each.why}"
        if each.standing == "no"
        else f"{each.label} counts for failures only: {each.why}"
        for side in sides
        for each in side
        if each.why and each.number in chosen
    ]


def not_calibrated(calibration: Sequence[RunFile], chosen: Sequence[int]) -> list[str]:
    """Another level's noise is not used: larger levels have less, and would make false alarms."""
    there = {each["level"] for run in calibration for each in run.levels}
    known = ", ".join(str(each) for each in sorted(there))
    return [
        f"level {level} was not calibrated ({known} was): its noise is told by its own runs alone"
        for level in chosen
        if there and level not in there
    ]


def _other_clusters(before: Sequence[RunFile], after: Sequence[RunFile]) -> list[str]:
    uids = {run.uid for run in (*before, *after) if run.uid}
    if len(uids) < 2 or {run.simulated for run in after} == {"sim"}:
        return []
    return [f"the runs are of {len(uids)} clusters: what differs may be the cluster's"]


def _calibrated_elsewhere(calibration: Sequence[RunFile], after: Sequence[RunFile]) -> list[str]:
    own = {run.uid for run in after if run.uid}
    if not own or {run.simulated for run in after} == {"sim"}:
        return []
    return [
        f"calibration run {run.id} is of another cluster: its noise may be another one"
        for run in calibration
        if run.uid and run.uid not in own
    ]


# What came of it ----------------------------------------------------------------------------

_ByLevel = Mapping[int, tuple[list[LevelRun], ...]]


def _failures(by_level: _ByLevel, rules: Rules) -> list[FailureChange]:
    counted = {}
    for level, sides in by_level.items():
        counts = tuple([each.failures for each in side if each.standing != "no"] for side in sides)
        if all(counts):
            counted[level] = (counts[0], counts[1])
    judged = failure_changes.judge_failures(counted, rules.alpha / 2)
    found = {each.level: each for each in judged}
    return [
        found.get(level)
        or FailureChange(level, "inconclusive", 0, 0, (), _missing(sides, "was not measured"))
        for level, sides in by_level.items()
    ]


def _changes(
    by_level: _ByLevel, pairs: Sequence[Pair], rules: Rules, notes: list[str]
) -> list[Change]:
    from pytest_kvscale.judge.regression import judge_changes

    wanted = [each for each in pairs if each.level in by_level]
    judged = {
        (each.pair.level, each.pair.metric.key): each for each in judge_changes(wanted, rules)
    }
    changes = []
    for level, sides in by_level.items():
        for metric in samples.METRICS:
            change = judged.get((level, metric.key)) or _unjudged(level, metric, sides)
            if change is not None:
                changes.append(change)
            else:
                notes.append(f"level {level}: {metric.title} was not measured on either side")
    return changes


def _unjudged(level: int, metric: Metric, sides: tuple[list[LevelRun], ...]) -> Change | None:
    """A metric that one side has, or that the sides do not have alike."""
    found = [samples.samples(side, metric) for side in sides]
    if not any(found) and metric not in (samples.RUNNING_P50, samples.RUNNING_P95):
        return None
    if all(found):
        reason = "requests were not counted of the same components, or not in the same way"
    else:
        reason = _missing(sides, f"has no {metric.title}", found)
    return Change(
        pair=Pair(level, metric, found[0], found[1]), verdict="inconclusive",
        before=_middle(found[0]), after=_middle(found[1]), shift=None, low=None, high=None, p=None,
        more_runs=None, detectable=None, reason=reason,
    )  # fmt: skip


def _missing(
    sides: tuple[list[LevelRun], ...],
    what: str,
    found: Sequence[Sequence[Sample]] | None = None,
) -> str:
    """Why a level has nothing to compare: by side, that it was not run, or what became of it."""
    told = []
    for index, (name, side) in enumerate(zip(("before", "after"), sides, strict=True)):
        if found is not None and found[index]:
            continue
        if not side:
            told.append(f"it was not run {name}")
        elif all(each.standing == "no" for each in side):
            told.append(f"no run {name} counts ({side[0].why})")
        elif found is not None:
            why = next((each.why for each in side if each.why), "")
            told.append(f"it {what} {name}" + (f" ({why})" if why else ""))
    return " and ".join(told) or f"it {what}"


def _attribution(by_level: _ByLevel, changes: Sequence[Change]) -> Iterator[Attribution]:
    from pytest_kvscale.judge.attribution import attribute

    of = {each.pair.level: each for each in changes if each.pair.metric == samples.RUNNING_P95}
    for level, sides in by_level.items():
        whole = [[each.level for each in side if each.standing == "whole"] for side in sides]
        if all(whole):
            yield attribute(level, whole[0], whole[1], of.get(level))


def _worst(found: Iterable[Verdict]) -> Verdict:
    found = set(found)
    if "fail" in found:
        return "fail"
    return "inconclusive" if "inconclusive" in found else "pass"


def _middle(side: Sequence[Sample]) -> float | None:
    """The upper median; None: it was not reached."""
    values = sorted(math.inf if each.value is None else each.value for each in side)
    middle = values[len(values) // 2] if values else math.inf
    return middle if math.isfinite(middle) else None


def _change_json(change: Change) -> Json:
    content = dataclasses.asdict(change)
    pair = content.pop("pair")
    return {
        "level": pair["level"],
        "metric": pair["metric"],
        **content,
        "noise": pair["noise"],
        "runs": {side: pair[side] for side in ("before", "after")},
        "text": change_text(change),
    }


def _plain(value: Any) -> Any:
    """Strict JSON: what is no number is null, tuples are lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
