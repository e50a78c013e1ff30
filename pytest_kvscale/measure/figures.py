"""The figures of a level, worked out of its timelines."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypedDict

from pytest_kvscale.measure.clocks import Clocks, compare
from pytest_kvscale.measure.observe import Observer
from pytest_kvscale.measure.percentiles import (
    DIGITS,
    RATE_DIGITS,
    Rate,
    Summary,
    nearest_rank,
    per_minute,
    summarize,
)
from pytest_kvscale.measure.slowest import Slowest, slowest
from pytest_kvscale.measure.timeline import FINAL, PHASES, Timeline

ENDED = "Ended"
"""Stands for Succeeded and Failed in plots."""
_SHOWN = ("Pending", *PHASES)


class Rates(TypedDict):
    """How fast things went."""

    created_per_s: float | None
    running_per_min: Rate
    containers_per_min: Rate


class Pacing(TypedDict):
    """What was asked of the load, and what it did; `lag_p99` in seconds."""

    qps: float | None
    achieved_qps: float | None
    lag_p99: float | None


class Occupancy(TypedDict):
    """How many VMIs were in each phase; `moments` in seconds since the first send."""

    moments: list[float]
    phases: dict[str, list[int]]


@dataclasses.dataclass(frozen=True)
class Figures:
    """One level in figures; times in seconds."""

    requested: int
    created: int
    running: int
    deleted: int
    left_behind: int
    """VMIs that are still there, or whose pods are, and objects that make VMIs."""
    phases: dict[str, Summary]
    deletion: Summary
    rates: Rates
    pacing: Pacing
    slowest: Slowest | None
    """Where the slowest VMIs spent their time, beside the median one; None if none ran."""
    clocks: Clocks
    """Our clock and the server's."""
    timelines: tuple[Timeline, ...]
    """In the order of their creation."""

    @property
    def not_running(self) -> list[Timeline]:
        """The VMIs that failed: they did not run when the level ended."""
        return [each for each in self.timelines if not each.running]


def figures(observer: Observer, requested: int | None = None, qps: float | None = None) -> Figures:
    """The figures of an observed level.

    `requested` is how many VMIs were to be created (default: as many as were asked for or seen);
    `qps` the pace that was asked for. Raises ValueError if nothing was asked for at all.
    """
    timelines = sorted(observer.timelines.values(), key=lambda each: (each.creation.due, each.name))
    total = len(timelines) if requested is None else max(requested, len(timelines))
    if not total:
        raise ValueError("nothing was created: there is nothing to measure")
    created = [each for each in timelines if each.uid or each.creation.acked is not None]
    asked = [each for each in created if each.delete_asked is not None]
    gone = [each for each in asked if each.gone is not None]
    return Figures(
        requested=total,
        created=len(created),
        running=sum(each.running for each in timelines),
        deleted=len(gone),
        left_behind=sum(_is_left(each) for each in created) + len(observer.there("vms")),
        phases={phase: summarize(_durations(timelines, phase), total) for phase in PHASES},
        deletion=summarize(
            (
                each.gone - each.delete_asked
                for each in gone
                if each.gone is not None and each.delete_asked is not None
            ),
            len(asked),
        ),
        rates=_rates(timelines, created),
        pacing=_pacing(timelines, qps),
        slowest=slowest(timelines),
        clocks=compare(timelines, observer.dated),
        timelines=tuple(timelines),
    )


def _is_left(timeline: Timeline) -> bool:
    """Whether a VMI or its pod is still there."""
    pod = timeline.pod
    return timeline.gone is None or bool(pod.uid and pod.gone is None)


def _durations(timelines: Iterable[Timeline], phase: str) -> list[float]:
    found = (each.since_sent(each.phases.get(phase)) for each in timelines)
    return [each for each in found if each is not None]


def _rates(timelines: Sequence[Timeline], created: Sequence[Timeline]) -> Rates:
    start = min((each.sent for each in timelines if each.sent is not None), default=None)
    acked = [each.creation.acked for each in created if each.creation.acked is not None]
    took = max(acked) - start if acked and start is not None else 0
    started = [each.pod.started for each in timelines if each.pod.started is not None]
    running = [each.phases["Running"] for each in timelines if "Running" in each.phases]
    return Rates(
        created_per_s=round(len(acked) / took, RATE_DIGITS) if took > 0 else None,
        running_per_min=per_minute(running, start),
        containers_per_min=per_minute(started, start),
    )


def _pacing(timelines: Sequence[Timeline], qps: float | None) -> Pacing:
    creations = {id(each.creation): each.creation for each in timelines}.values()
    sent = sorted(each.sent for each in creations if each.sent is not None)
    lags = sorted(max(0.0, each.sent - each.due) for each in creations if each.sent is not None)
    took = sent[-1] - sent[0] if sent else 0
    lag = nearest_rank(lags, len(lags), 99) if lags else None
    return Pacing(
        qps=qps,
        achieved_qps=round((len(sent) - 1) / took, RATE_DIGITS) if took > 0 else None,
        lag_p99=None if lag is None else round(lag, DIGITS),
    )


def row(
    timeline: Timeline,
    failure_class: str | None,
    evidence: Sequence[str],
    disagrees: Sequence[str] = (),
) -> dict[str, Any]:
    """One VMI as a line of `<level>-vmis.jsonl`.

    `intended`, `acked`, `phases`, `pod`, `refused`, `deleted`, `final` and `gone` count from
    `sent`, by the client's clock; `server` holds the API's stamps, from the server's own
    `creationTimestamp`. `bounds` stands where a phase was learnt from a list after a lost watch,
    `disagrees` where stamps contradict what was seen.
    """
    since = timeline.since_sent
    made = timeline.created_stamp
    line: dict[str, Any] = {
        "name": timeline.name,
        "uid": timeline.uid or None,
        "intended": since(timeline.creation.due),
        "sent": None if timeline.sent is None else 0.0,
        "acked": since(timeline.creation.acked),
        "phases": {phase: since(at) for phase, at in timeline.phases.items()},
        "server": {
            phase: stamp - made for phase, stamp in timeline.stamps.items() if made is not None
        },
        "pod": _pod(timeline),
        "refused": _first_refusal(timeline),
        "deleted": since(timeline.delete_asked),
        "final": since(timeline.final_phase),
        "final_phase": timeline.final or None,
        "gone": since(timeline.gone),
        "class": failure_class,
        "evidence": list(evidence),
    }
    if disagrees:
        line["disagrees"] = list(disagrees)
    if timeline.bounds:
        line["bounds"] = {
            phase: [since(low), since(high)] for phase, (low, high) in timeline.bounds.items()
        }
    return line


def _pod(timeline: Timeline) -> dict[str, Any] | None:
    """How far the launcher pod came, and when; `server` by stamps of the API and the kubelet."""
    pod, since, made = timeline.pod, timeline.since_sent, timeline.created_stamp
    if not pod.uid:
        return None
    moments = ("seen", "scheduled", "sandbox", "initialised", "started", "gone")
    return {
        "name": pod.name,
        **{each: since(getattr(pod, each)) for each in moments},
        "server": {each: at - made for each, at in pod.stamps.items() if made is not None},
    }


def _first_refusal(timeline: Timeline) -> dict[str, Any] | None:
    """What was refused first: the create, a place, a sandbox, an image; and when."""
    told = [each for each in (timeline.creation.turned_away, timeline.first_refusal) if each]
    if not told:
        return None
    at, words = min(told)
    return {"at": timeline.since_sent(at), "what": words}


def occupancy(timelines: Sequence[Timeline], points: int = 240) -> Occupancy:
    """How many VMIs were in each phase at so many moments, from the first send to the end."""
    start = min((each.sent for each in timelines if each.sent is not None), default=None)
    if start is None:
        return Occupancy(moments=[], phases={})
    stays = [stay for each in timelines for stay in _stays(each)]
    end = max((until for _, _, until in stays if until is not None), default=start)
    moments = [start + (end - start) * step / points for step in range(points + 1)]
    phases: dict[str, list[int]] = {}
    for name in (*_SHOWN, ENDED):
        entered = sorted(begin for phase, begin, _ in stays if phase == name)
        left = sorted(until for phase, _, until in stays if phase == name and until is not None)
        phases[name] = [
            bisect.bisect_right(entered, each) - bisect.bisect_right(left, each) for each in moments
        ]
    return Occupancy(moments=[round(each - start, 3) for each in moments], phases=phases)


def _stays(timeline: Timeline) -> Iterator[tuple[str, float, float | None]]:
    """The phases a VMI was in: name, since when, until when (None: it never left)."""
    reached = [(phase, timeline.phases[phase]) for phase in _SHOWN if phase in timeline.phases]
    ended = [at for phase, at in timeline.phases.items() if phase in FINAL]
    over = min([*ended, *filter(None, (timeline.final_phase,))], default=None)
    if over is not None:
        reached.append((ENDED, over))
    for (phase, begin), (_, until) in itertools.zip_longest(
        reached, reached[1:], fillvalue=("", timeline.gone)
    ):
        if begin is not None:
            yield phase, begin, until
