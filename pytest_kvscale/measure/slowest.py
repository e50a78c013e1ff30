"""Where the slowest VMIs spent their time, beside the median one.

A VMI's way from the first send to Running is cut at what was seen of it: the API's answer, its
phases, and how far its launcher pod was. Each stretch is named by the phase it lies in and by
what was waited for; what was seen in one moment makes one stretch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypedDict

from pytest_kvscale.measure.percentiles import DIGITS, nearest_rank
from pytest_kvscale.measure.timeline import Timeline

SHARE = 0.05
"""The part of the VMIs that are called the slowest."""
_WORTH_SAYING = 0.8
"""The stretches that make up so much of the time are put into words."""
_MOST_WORDS = 2

_PHASES = ("Pending", "Scheduling", "Scheduled")
_WAITS = (
    ("Pending", "the API creating it"),
    ("Pending", "virt-controller making its pod"),
    ("Scheduling", "waiting for a node"),
    ("Scheduling", "its sandbox being made"),
    ("Scheduling", "init containers"),
    ("Scheduling", "containers starting"),
    ("Scheduling", "virt-controller seeing it ready"),
    ("Scheduled", "launcher starting"),
)
"""The phase a stretch lies in, and what is waited for until its end, in order."""
_WAITS_OF_PODS = (
    ("Pending", "the API creating it"),
    ("Pending", "the watch telling of it"),
    ("Scheduling", "waiting for a node"),
    ("Scheduled", "its sandbox being made"),
    ("Scheduled", "init containers"),
    ("Scheduled", "containers starting"),
    ("Scheduled", "the kubelet seeing it ready"),
)
"""Of plain pods: they are Scheduled as soon as they have a node, and no launcher comes after."""
_ALL_WAITS = (*_WAITS, *_WAITS_OF_PODS)


class Way(TypedDict):
    """A VMI's way (or the average of several) to Running, in seconds."""

    seconds: float
    steps: dict[str, float]


class Slowest(TypedDict):
    """The slowest VMIs of those that ran, and the median one."""

    vmis: int
    of: int
    """How many ran, and so were looked at."""
    slow: Way
    median: Way
    median_vmi: str
    text: str


def slowest(timelines: Iterable[Timeline]) -> Slowest | None:
    """Where the slowest `SHARE` of the VMIs that ran spent their time; None if none ran."""
    ran = [(_total(each), each) for each in timelines if each.ran and each.sent is not None]
    if not ran:
        return None
    ran.sort(key=lambda pair: pair[0])
    number = math.ceil(SHARE * len(ran))
    slow = _average([_way(each) for _, each in ran[-number:]])
    middle = nearest_rank(range(len(ran)), len(ran), 50)
    median = ran[int(middle or 0)][1]
    beside = _average([_way(median)])
    return Slowest(
        vmis=number,
        of=len(ran),
        slow=slow,
        median=beside,
        median_vmi=median.name,
        text=_text(number, len(ran), slow, beside),
    )


def _total(timeline: Timeline) -> float:
    return timeline.phases["Running"] - (timeline.sent or 0.0)


def _moments(timeline: Timeline) -> tuple[float | None, ...]:
    """When each of the waits was over, in their order."""
    pod, phases = timeline.pod, timeline.phases
    if timeline.creation.is_pod:
        return (
            timeline.creation.acked, phases.get("Scheduling"), pod.scheduled, pod.sandbox,
            pod.initialised, pod.started, phases["Running"],
        )  # fmt: skip
    return (
        timeline.creation.acked, phases.get("Scheduling"), pod.scheduled, pod.sandbox,
        pod.initialised, pod.started, phases.get("Scheduled"), phases["Running"],
    )  # fmt: skip


def _way(timeline: Timeline) -> dict[tuple[int, ...], float]:
    """Seconds by the waits (their numbers in `_ALL_WAITS`) that ended together.

    One whose end was not seen goes with the next one; one that was over before an earlier one was
    (watches lag behind each other) took no time that is known.
    """
    found: dict[tuple[int, ...], float] = {}
    group: tuple[int, ...] = ()
    first = len(_WAITS) if timeline.creation.is_pod else 0
    last, ends = timeline.sent or 0.0, timeline.phases["Running"]
    moments = [None if each is None else min(each, ends) for each in _moments(timeline)]
    for number, moment in enumerate(moments):
        group = (*group, first + number)
        if moment is None or moment in moments[number + 1 : number + 2]:
            continue
        if moment > last:
            found[group], last = moment - last, moment
        group = ()
    return found


def _average(ways: Sequence[dict[tuple[int, ...], float]]) -> Way:
    groups = sorted({group for way in ways for group in way})
    steps = {
        _name(group): round(math.fsum(way.get(group, 0.0) for way in ways) / len(ways), DIGITS)
        for group in groups
    }
    total = math.fsum(value for way in ways for value in way.values()) / len(ways)
    return Way(seconds=round(total, DIGITS), steps=steps)


def _name(group: tuple[int, ...]) -> str:
    """`Scheduled: launcher starting`; of several phases, the one most of the waits are in."""
    phases = [_ALL_WAITS[number][0] for number in group]
    phase = max(_PHASES, key=phases.count)
    return f"{phase}: " + ", ".join(_ALL_WAITS[number][1] for number in group)


def _text(number: int, ran: int, slow: Way, median: Way) -> str:
    """In words: the stretches that make up most of the slow ones' time."""
    parts: list[str] = []
    said = 0.0
    for name, seconds in sorted(slow["steps"].items(), key=lambda item: -item[1]):
        parts.append(f"{_figure(seconds)} in {name} ({_figure(median['steps'].get(name, 0.0))})")
        said += seconds
        if said >= _WORTH_SAYING * slow["seconds"] or len(parts) == _MOST_WORDS:
            break
    who = "the slowest VMI" if number == 1 else f"the slowest 5 % ({number} of {ran} VMIs)"
    return (
        f"{who}: of {_figure(slow['seconds'])} s, {', '.join(parts)}; in brackets the median VMI, "
        f"of {_figure(median['seconds'])} s"
    )


def _figure(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:.0f}"
