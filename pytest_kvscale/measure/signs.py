"""Keeping what speaks of trouble, each once, and reading it out of events and conditions."""

from __future__ import annotations

import json
import re
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
_TELLING = re.compile(
    r"panic:|dirty virt-launcher shutdown|timed out|[Tt]imeout|DeadlineExceeded|deadline exceeded"
    r"|no (?:more )?IP|Failed to|failed to|error|Error"
)
_STACK = re.compile(r"goroutine \d+ \[|\t|main\.|created by |runtime\.|/")
"""How lines of a Go stack trace begin."""
_MOST_LINES = 3
_LONGEST_LINE = 500


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
    if status.get("reason"):
        # virt-controller's own word for a VMI it gave up: its node does not answer.
        yield status["reason"], "", {}


def of_owner(status: Object) -> Iterable[tuple[str, str, Object]]:
    """What the conditions of a VirtualMachine or a replica set say of VMIs it cannot make."""
    for each in status.get("conditions") or []:
        if each.get("status") == "True" and each.get("type") in ("Failure", "ReplicaFailure"):
            yield each.get("reason") or each["type"], each.get("message", ""), each


def of_log(source: str, lines: Iterable[str], at: float) -> list[Sign]:
    """The lines of a log that tell most: those that speak of an end or a refusal, else the last.

    KubeVirt's components log JSON; a panic is plain text.
    """
    said = [text for text in (_words(line) for line in lines) if text]
    telling = list(dict.fromkeys(each for each in said if _TELLING.search(each)))
    chosen = telling[-_MOST_LINES:] or said[-1:]
    reason = "virt-launcher" if source == "log" else "services"
    return [Sign(at, source, reason, each) for each in chosen]


def _words(line: str) -> str:
    """What a line says, without time and place; empty for one that says nothing."""
    line = line.strip()
    if line.startswith("{"):
        try:
            said = json.loads(line)
        except ValueError:
            return line[:_LONGEST_LINE]
        parts = (said.get("msg"), said.get("reason")) if isinstance(said, dict) else (line,)
        line = ": ".join(str(each) for each in parts if each)
    return "" if _STACK.match(line) else line[:_LONGEST_LINE]


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
