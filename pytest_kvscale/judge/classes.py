"""Why a VMI does not run: exactly one class each, from evidence it keeps.

The furthest stage the VMI reached decides; a refusal it has got past no longer speaks. Within a
stage the latest refusal counts, and among reasons of one refusal the order of `CLASSES`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator

from pytest_kvscale.measure.timeline import Sign, Timeline

STAGES = ("create", "schedule", "sandbox", "image", "launcher", "guest", "node")
UNEXPLAINED = "Unexplained"
STUCK_TERMINATING = "StuckTerminating"

CLASSES: dict[str, str] = {
    "DeviceLimit": "schedule",
    "PodLimit": "schedule",
    "MemoryLimit": "schedule",
    "CpuLimit": "schedule",
    "Unschedulable": "schedule",
    "PodIPExhausted": "sandbox",
    "KillPodSandbox": "sandbox",
    "SandboxTimeout": "sandbox",
    "ImagePull": "image",
    "QemuTimeout": "launcher",
    "LauncherCrash": "launcher",
    "GuestCrash": "guest",
    "NodeLost": "node",
    "CreateRejected": "create",
    "Throttled": "create",
    "PodCreateFailed": "create",
}
"""Each class and the stage it belongs to, in the order that decides between equals."""
PENDING = frozenset(name for name, stage in CLASSES.items() if stage == "schedule")
"""The classes reported together as Pending: the scheduler found no place."""

ONE_REFUSAL = 1.0
"""Signs seen within so many seconds are of one refusal: a sandbox that could not be made and its
remains that could not be removed are told by two events, whose order is left to chance."""

FILTER_BURST, FILTER_PAUSE = 25, 300.0
"""A component tells of one object 25 events at once and then one in 300 s; what it has to say
beyond that is dropped before it reaches the API (client-go's spam filter). Of two events that
always come together one then may not be told for a long time."""

_ORDER = {name: index for index, name in enumerate(CLASSES)}
_MOST_EVIDENCE = 5

_DEADLINE = re.compile(r"context deadline exceeded|DeadlineExceeded")
_NO_ADDRESS = re.compile(
    r"no (?:more )?(?:IP|ip) ?(?:addresses|addrs|s)?\b.*available|no IPs available|"
    r"no available IPs?|failed to request IPv[46] addresses|no more free IPs|"
    r"not enough (?:free )?IPs?|range is full|Unable to allocate IP",
    re.IGNORECASE,
)
_QEMU_TIMEOUT = re.compile(
    r"timed out waiting for domain to be defined"
    r"|(?:qemu|monitor).{0,80}(?:timed out|timeout)|(?:timed out|timeout).{0,80}(?:qemu|monitor)",
    re.IGNORECASE,
)
_NODE_LOST = frozenset(
    {
        "NodeLost",
        "NodeNotReady",
        "NodeUnresponsive",
        "TaintManagerEviction",
        "NodeControllerEviction",
    }
)
_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})


@dataclasses.dataclass(frozen=True)
class Finding:
    """What became of a VMI that does not run."""

    name: str
    """The class."""
    evidence: tuple[str, ...]
    """What was seen, each in one line."""


def classify(timeline: Timeline) -> Finding:
    """The class of a VMI that does not run (any more) at the end of its level."""
    reached = STAGES.index(stage_reached(timeline))
    needed = min(reached, STAGES.index("launcher"))
    claims = [
        (STAGES.index(CLASSES[name]), sign, name)
        for sign in _signs(timeline)
        for name in classes_of(sign, timeline)
    ]
    claims = [claim for claim in claims if claim[0] >= needed]
    if not claims:
        return Finding(UNEXPLAINED, tuple(_last_seen(timeline)))
    furthest = max(stage for stage, _, _ in claims)
    here = [(sign, name) for stage, sign, name in claims if stage == furthest]
    moments = _moments([sign for sign, _ in here])
    latest = max(moments) - _one_refusal([sign for sign, _ in here])
    winner = min(
        (name for (_, name), at in zip(here, moments, strict=True) if at >= latest),
        key=_ORDER.__getitem__,
    )
    texts: dict[str, str] = {}
    for sign, _ in sorted(here, key=lambda each: each[1] != winner):
        # The pod, the VMI and an event may say the same: once is enough.
        texts.setdefault(sign.message, sign.text())
    return Finding(winner, tuple(texts.values())[:_MOST_EVIDENCE])


def _one_refusal(signs: list[Sign]) -> float:
    """Within how many seconds signs are of one refusal: longer where events are being dropped."""
    events = {id(sign): sign for sign in signs if sign.source == "event"}
    if sum(sign.count for sign in events.values()) < FILTER_BURST:
        return ONE_REFUSAL
    return FILTER_PAUSE * len(events)


def _moments(signs: list[Sign]) -> list[float]:
    """When each sign was seen; an event that was told late, when it can have been seen at latest.

    Watches may tell events out of order. One that is stamped earlier than another by so many
    seconds happened so many seconds before that other one was seen.
    """
    events = [sign for sign in signs if sign.source == "event" and sign.stamp]
    return [
        min(
            [sign.at]
            + [
                other.at - (other.stamp - sign.stamp)
                for other in (events if sign in events else ())
                if other.stamp >= sign.stamp
            ]
        )
        for sign in signs
    ]


def stage_reached(timeline: Timeline) -> str:
    """The stage a VMI was in when it was last seen before the level's end."""
    pod = timeline.pod
    if timeline.ran:
        return "guest"
    if pod.started is not None or pod.ended or timeline.phase == "Scheduled":
        return "launcher"
    if pod.has_sandbox:
        return "image"
    if pod.scheduled is not None:
        return "sandbox"
    return "schedule" if pod.uid else "create"


def classes_of(sign: Sign, timeline: Timeline) -> Iterator[str]:
    """The classes a sign speaks for; several for a refusal with several reasons."""
    reason, message = sign.reason, sign.message
    if sign.source == "api":
        yield from _of_refusal(timeline.creation.refusal_code)
    elif sign.source == "log":
        yield from _of_launcher_log(message)
    elif sign.source == "node log":
        yield from _of_node_log(message)
    elif reason in ("Unschedulable", "FailedScheduling"):
        yield from scheduling_classes(message)
    elif reason == "FailedCreatePodSandBox" and _NO_ADDRESS.search(message):
        yield "PodIPExhausted"
    elif reason == "FailedCreatePodSandBox" and _DEADLINE.search(message):
        yield "SandboxTimeout"
    elif reason == "FailedKillPod" and "KillPodSandboxError" in message:
        yield "KillPodSandbox"
    elif reason in _IMAGE or (reason == "Failed" and "pull image" in message):
        yield "ImagePull"
    elif sign.source == "container" and reason == "Terminated" and message.startswith("compute "):
        yield "QemuTimeout" if _QEMU_TIMEOUT.search(message) else "LauncherCrash"
    elif reason in ("Stopped", "SyncFailed") and "crashed" in message.lower():
        yield "GuestCrash"
    elif reason in _NODE_LOST:
        yield "NodeLost"
    elif reason == "FailedCreate":
        yield "PodCreateFailed"


def _of_launcher_log(line: str) -> Iterator[str]:
    """What a launcher's own words say of its end; most of what it logs is no end."""
    if re.search(r"panic: ", line):
        yield "QemuTimeout" if _QEMU_TIMEOUT.search(line) else "LauncherCrash"
    elif "dirty virt-launcher shutdown" in line:
        yield "LauncherCrash"


def _of_node_log(line: str) -> Iterator[str]:
    """What the kubelet or the runtime logged of a pod that got no sandbox."""
    if _NO_ADDRESS.search(line):
        yield "PodIPExhausted"
    elif re.search(r"KillPodSandboxError|StopPodSandbox", line):
        yield "KillPodSandbox"
    elif re.search(r"(?:Create|Run)PodSandbox", line) and _DEADLINE.search(line):
        yield "SandboxTimeout"


def scheduling_classes(message: str) -> Iterator[str]:
    """The classes in a scheduler's message (`0/1 nodes are available: 1 Too many pods.`)."""
    for reason in scheduling_reasons(message):
        if "Insufficient devices.kubevirt.io/" in reason:
            yield "DeviceLimit"
        elif "Too many pods" in reason:
            yield "PodLimit"
        elif reason.endswith("Insufficient memory"):
            yield "MemoryLimit"
        elif reason.endswith("Insufficient cpu"):
            yield "CpuLimit"
        else:
            yield "Unschedulable"


def scheduling_reasons(message: str) -> list[str]:
    """The reasons in a scheduler's message, without what it says of claims and preemption."""
    _, found, rest = message.partition("nodes are available: ")
    reasons = re.split(r"\.(?:\s|$)", rest if found else message, maxsplit=1)[0]
    # Reasons may contain commas ("had taint {a: b}, that the pod didn't tolerate").
    return [each.strip() for each in re.split(r",\s+(?=\d+ )", reasons) if each.strip()]


def count(findings: Iterable[Finding]) -> dict[str, int]:
    """How often each class was found, in the order of `CLASSES`."""
    counts: dict[str, int] = {}
    for finding in findings:
        counts[finding.name] = counts.get(finding.name, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: _ORDER.get(item[0], len(_ORDER))))


def _signs(timeline: Timeline) -> Iterator[Sign]:
    if timeline.creation.refusal is not None:
        yield timeline.creation.refusal
    yield from timeline.signs


def _of_refusal(code: int) -> Iterator[str]:
    if code == 429:
        yield "Throttled"
    elif 400 <= code < 500:
        yield "CreateRejected"


def _last_seen(timeline: Timeline) -> Iterator[str]:
    """What an unexplained failure is left with: last phase, pod, and the last sign."""
    if timeline.creation.acked is None and not timeline.uid:
        refusal = timeline.creation.refusal
        sent = "never sent" if timeline.sent is None else "sent, never answered"
        yield refusal.text() if refusal is not None else f"create {sent}"
        return
    gone = timeline.gone is not None and timeline.delete_asked is None
    yield f"last phase {timeline.phase or 'none'}" + (", deleted by somebody else" if gone else "")
    if timeline.pod.uid:
        containers = [
            f"{name} {state}" for name, *states in _containers(timeline) for state in states
        ]
        yield f"pod {timeline.pod.phase or 'unknown'}" + (
            f" ({', '.join(containers)})" if containers else ""
        )
    else:
        yield "no launcher pod seen"
    if timeline.signs:
        yield max(timeline.signs, key=lambda sign: sign.at).text()


def _containers(timeline: Timeline) -> Iterator[tuple[str, ...]]:
    for each in timeline.pod.state:
        if isinstance(each, tuple):
            yield tuple(str(part) for part in each)
