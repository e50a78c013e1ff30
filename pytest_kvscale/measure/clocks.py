"""Our clock against the server's, from what the API stamps with whole seconds.

Whatever the API stamps happened after we asked for it and before we were told: that encloses how
far the two clocks lie apart. One stamp does so to a second and more; many together, cut at all
parts of a second, to about the time a request takes. A stretch of time in which no one distance
fits all stamps had a clock that jumped.

No duration is measured by the server's stamps: they only cross-check. A phase that was stamped
much later or earlier than we saw it is told, with the VMI's name.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypedDict

from pytest_kvscale.measure.timeline import PHASES, Timeline

RESOLUTION = 1.0
"""Of the API's stamps, in seconds: they are cut off, not rounded."""
SKEW = 0.1
"""Seconds by which stamps may contradict each other without a clock having jumped: API servers
beside each other are not of one opinion, and clocks drift."""
_NOISE = 1e-3
"""Seconds below which a contradiction is one of arithmetic."""
DELIVERY = 1.0
"""Seconds a watch may take to tell before it counts as a disagreement."""
EXAMPLES = 3
_LOW_DIGITS = 3


@dataclasses.dataclass(frozen=True)
class Enclosure:
    """The distance (ours minus the server's, in seconds) that something seen at `at` allows."""

    at: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Stretch:
    """From a moment on, until the next stretch: the distances that fit all that was seen.

    `low` may lie above `high`, by `SKEW`: then there were all distances in between.
    """

    since: float
    low: float
    high: float

    @property
    def distance(self) -> float:
        """Ours minus the server's: the middle of what fits."""
        return (self.low + self.high) / 2

    @property
    def uncertainty(self) -> float:
        """By how much it may be wrong."""
        return abs(self.high - self.low) / 2


class Jump(TypedDict):
    """A jump of the server's clock: when, from the first send, and by how many seconds."""

    at: float
    by: float


class Clocks(TypedDict):
    """How far the clocks lie apart, and whether the stamps agree with what was seen."""

    ahead: float | None
    """The server's date minus ours at the level's beginning, in seconds; None if our time has no
    date (virtual time), or nothing was stamped."""
    distance: float | None
    """Ours minus the server's date, at the level's beginning; None if nothing was stamped."""
    uncertainty: float | None
    jumps: list[Jump]
    checked: int
    """Stamps that were compared with what was seen."""
    disagreements: int
    by_vmi: dict[str, list[str]]
    """What disagrees, by the VMI's name."""
    warnings: list[str]


def compare(timelines: Sequence[Timeline], dated: float | None = None) -> Clocks:
    """What the stamps of a level say of the two clocks.

    `dated` is the date (POSIX) at which our clock showed 0, if its time has a date.
    """
    start = min((each.sent for each in timelines if each.sent is not None), default=0.0)
    found = stretches(each for timeline in timelines for each in _enclosures(timeline))
    checked = 0
    wrong: dict[str, list[str]] = {}
    for timeline in timelines:
        for phase, seen, stamp in _stamped(timeline):
            checked += 1
            told = _disagreement(found, seen, stamp)
            if told is not None:
                wrong.setdefault(timeline.name, []).append(f"{phase} {told}")
    jumps = [
        Jump(
            at=round(after.since - start, _LOW_DIGITS),
            by=round(before.distance - after.distance, _LOW_DIGITS),
        )
        for before, after in itertools.pairwise(found)
    ]
    ahead = None
    if found and dated is not None:
        ahead = round(-found[0].distance - dated, _LOW_DIGITS)
    return Clocks(
        ahead=ahead,
        distance=found[0].distance if found else None,
        uncertainty=round(max(each.uncertainty for each in found), 6) if found else None,
        jumps=jumps,
        checked=checked,
        disagreements=sum(map(len, wrong.values())),
        by_vmi=wrong,
        warnings=[*map(_jumped, jumps), *_some(wrong)],
    )


def stretches(enclosures: Iterable[Enclosure]) -> list[Stretch]:
    """The stretches of time in each of which one distance fits all enclosures, but for `SKEW`."""
    found: list[Stretch] = []
    for each in sorted(enclosures, key=lambda one: one.at):
        if found:
            last = found[-1]
            low, high = max(last.low, each.low), min(last.high, each.high)
            if low - high <= SKEW:
                found[-1] = Stretch(last.since, low, high)
                continue
        found.append(Stretch(each.at, each.low, each.high))
    return found


def _enclosures(timeline: Timeline) -> Iterator[Enclosure]:
    """What the stamps of a VMI's creation and deletion allow."""
    if timeline.restarts:
        return  # What was seen of its first VMI says nothing of the stamps of its last.
    told = [at for phase, at in timeline.phases.items() if phase not in timeline.bounds]
    if timeline.creation.acked is not None and not timeline.creation.is_owner:
        # Of an owner the answer says nothing: it makes its VMIs after it.
        told.append(timeline.creation.acked)
    seen = min(told, default=None)
    if timeline.created_stamp is not None and timeline.sent is not None and seen is not None:
        yield _between(timeline.sent, seen, timeline.created_stamp)
    deleted, asked, going = timeline.deleted_stamp, timeline.delete_asked, timeline.terminating
    if deleted is not None and asked is not None and going is not None and asked <= going:
        yield _between(asked, going, deleted)


def _between(earliest: float, latest: float, stamp: float) -> Enclosure:
    return Enclosure(latest, earliest - stamp - RESOLUTION, latest - stamp)


def _stamped(timeline: Timeline) -> Iterator[tuple[str, float, float]]:
    """Phases that were told when they happened and have a stamp: phase, seen, stamp."""
    if timeline.restarts:
        return  # The times are those of its first VMI, the stamps of its last.
    for phase in PHASES:
        seen, stamp = timeline.phases.get(phase), timeline.stamps.get(phase)
        if seen is not None and stamp is not None and phase not in timeline.bounds:
            yield phase, seen, stamp


def _disagreement(found: Sequence[Stretch], seen: float, stamp: float) -> str | None:
    """How a stamp contradicts when it was seen, in words; None if it does not."""
    fitting = [each for each in found if each.since <= seen] or found[:1]
    if not fitting:
        return None
    stretch = fitting[-1]
    late = seen - stamp - stretch.distance
    unsure = stretch.uncertainty
    if late < -unsure - _NOISE:
        return f"was stamped {-late:.3f} s after it was seen (uncertainty {unsure:.3f} s)"
    if late > RESOLUTION + DELIVERY + unsure:
        return f"was seen {late:.3f} s after its stamp (uncertainty {unsure:.3f} s)"
    return None


def _jumped(jump: Jump) -> str:
    way = "forward" if jump["by"] > 0 else "back"
    return (
        f"the server's clock jumped {way} by about {abs(jump['by']):.1f} s, seen "
        f"{jump['at']:.1f} s after the first send; no duration is measured by it"
    )


def _some(wrong: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """The first few VMIs, and how many more."""
    for name in list(wrong)[:EXAMPLES]:
        yield f"{name}: {'; '.join(wrong[name])}"
    if len(wrong) > EXAMPLES:
        yield (
            f"the stamps of {len(wrong) - EXAMPLES} more VMIs disagree with what was seen: each "
            "line of the level's -vmis.jsonl says which (disagrees)"
        )
