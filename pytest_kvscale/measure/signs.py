"""Keeping what speaks against a VMI: each sign once, as it was seen last, and how often."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pytest_kvscale.measure.stamps import posix
from pytest_kvscale.measure.timeline import Sign, Timeline

Object = dict[str, Any]


def add(timeline: Timeline, sign: Sign) -> None:
    """Keep a sign; one that says the same as another takes its place, and is counted."""
    for index, held in enumerate(timeline.signs):
        if (held.source, held.reason, held.message) == (sign.source, sign.reason, sign.message):
            if held.source == "event":
                again = sign.stamp > held.stamp or sign.count > held.count
                newer = sign.stamp > held.stamp and sign.count == 1
                sign.count = held.count + 1 if newer else max(held.count, sign.count)
                sign.stamp = max(held.stamp, sign.stamp)
                # Told a second time (by a list, by a watch that was taken up) is not seen anew.
                sign.at = sign.at if again else held.at
            else:
                sign.at = held.at if held.current else sign.at
            timeline.signs[index] = sign
            return
    timeline.signs.append(sign)


def keep_conditions(
    timeline: Timeline, source: str, wrong: dict[str, tuple[str, str, Object]], at: float
) -> None:
    """Keep the conditions that are wrong as signs; those that were and are not, as past."""
    now = {(reason, message) for reason, message, _ in wrong.values()}
    for sign in timeline.signs:
        if sign.source == source and sign.current and (sign.reason, sign.message) not in now:
            sign.current = False
    for reason, message, condition in wrong.values():
        stamp = posix(condition.get("lastTransitionTime")) or 0.0
        add(timeline, Sign(at, source, reason, message, stamp))


def of_event(event: Object, at: float) -> Sign:
    """What an event says."""
    series = event.get("series") or {}
    last = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    return Sign(
        at,
        "event",
        event.get("reason", ""),
        event.get("message") or event.get("note") or "",
        posix(last or event["metadata"].get("creationTimestamp")) or 0.0,
        max(series.get("count") or 0, event.get("count") or 0, 1),
    )


def end_of_container(name: str, over: Object, at: float) -> Sign:
    """What the end of a container says."""
    said = over.get("message") or over.get("reason") or ""
    text = f"{name} ended with exit code {over.get('exitCode')}: {said}"
    return Sign(at, "container", "Terminated", text, posix(over.get("finishedAt")) or 0.0)


def container_statuses(status: Object) -> Iterator[Object]:
    """The statuses of a pod's containers, init containers first."""
    yield from status.get("initContainerStatuses") or []
    yield from status.get("containerStatuses") or []


def is_true(condition: Object | None) -> bool:
    """Whether a condition is there and true."""
    return condition is not None and condition.get("status") == "True"
