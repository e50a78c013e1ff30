"""Keeping what speaks of trouble, each once, and reading it out of events and conditions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pytest_kvscale.measure.stamps import posix
from pytest_kvscale.measure.timeline import Sign, Timeline

Object = dict[str, Any]


_REFUSALS = frozenset(
    {
        "ErrImageNeverPull", "ErrImagePull", "FailedAttachVolume", "FailedCreate",
        "FailedCreatePodSandBox", "FailedGuaranteeResources", "FailedKillPod", "FailedMount",
        "FailedScheduling", "ImagePullBackOff", "InvalidImageName", "Unschedulable",
    }
)  # fmt: skip
"""Reasons by which something is refused that may be granted later."""


def keep(timeline: Timeline, sign: Sign) -> None:
    """Keep a sign; one that says the same as another takes its place, and is counted."""
    first = timeline.first_refusal
    if sign.reason in _REFUSALS and (first is None or sign.at < first[0]):
        timeline.first_refusal = (sign.at, sign.text())
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
    timeline: Timeline, source: str, wrong: Iterable[tuple[str, str, Object]], at: float
) -> None:
    """Keep the conditions that are wrong (reason, message, condition); mark the others as past."""
    wrong = list(wrong)
    now = {(reason, message) for reason, message, _ in wrong}
    for sign in timeline.signs:
        if sign.source == source and sign.current and (sign.reason, sign.message) not in now:
            sign.current = False
    for reason, message, condition in wrong:
        stamp = posix(condition.get("lastTransitionTime")) or 0.0
        keep(timeline, Sign(at, source, reason, message, stamp))


def of_vmi(status: Object) -> Iterable[tuple[str, str, Object]]:
    """What the conditions of a VMI say of trouble."""
    for each in status.get("conditions") or []:
        wrong = each.get("status") == "False" and each.get("type") in (
            "Synchronized", "PodScheduled",
        )  # fmt: skip
        if wrong and each.get("reason"):
            yield each["reason"], each.get("message", ""), each


def of_owner(status: Object) -> Iterable[tuple[str, str, Object]]:
    """What the conditions of a VirtualMachine or a replica set say of VMIs it cannot make."""
    for each in status.get("conditions") or []:
        if each.get("status") == "True" and each.get("type") in ("Failure", "ReplicaFailure"):
            yield each.get("reason") or each["type"], each.get("message", ""), each


def of_event(event: Object, at: float) -> Sign:
    """An event, of whichever of the two APIs for events."""
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
