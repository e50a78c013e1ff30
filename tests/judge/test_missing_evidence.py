"""Classes when evidence is missing, late, doubled or merged: right, weaker or Unexplained.

Recordings of a real control plane are judged once more, each time with one kind of evidence taken
away. What then results stands here; a class that is wrong may not.
"""

from __future__ import annotations

import collections
import copy
import functools
import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from pytest_kvscale.judge.classes import UNEXPLAINED
from pytest_kvscale.judge.verdict import judge
from pytest_kvscale.measure import recording
from pytest_kvscale.measure.figures import figures
from tests.conftest import DATA

Json = dict[str, Any]
Edit = Callable[[Json], Json | None]
PANIC = [
    '{"component":"virt-launcher","level":"info","msg":"Collected all requested hook sidecars"}',
    "panic: timed out waiting for domain to be defined",
    "",
    "goroutine 1 [running]:",
    "main.waitForDomainUUID(0x45d964b800, 0xc000120120)",
    '{"component":"virt-launcher-monitor","level":"error","msg":"dirty virt-launcher shutdown: '
    'exit-code 2"}',
]


@functools.cache
def lines_of(name: str) -> list[Json]:
    """A recording, without what nobody reads: copies of it are to be cheap."""
    return [_pruned(line) for line in recording.read(DATA / f"{name}.jsonl.gz")]


def _pruned(line: Json) -> Json:
    obj = line.get("event", {}).get("object", {})
    for key in ("managedFields", "annotations", "finalizers"):
        obj.get("metadata", {}).pop(key, None)
    if line["stream"] in ("vmis", "pods"):
        obj["spec"] = {key: each for key, each in obj.get("spec", {}).items() if key == "nodeName"}
    return line


@functools.cache
def truth_of(name: str) -> dict[str, str]:
    return classes(lines_of(name))


def edited(lines: Iterable[Json], edit: Edit) -> list[Json]:
    return [line for line in (edit(copy.deepcopy(each)) for each in lines) if line is not None]


def classes(lines: list[Json]) -> dict[str, str]:
    found = figures(recording.replay(lines))
    findings = judge(found.requested, found).findings
    assert all(each.evidence for each in findings.values())
    return {name: each.name for name, each in findings.items()}


def without(stream: str) -> Edit:
    return lambda line: None if line["stream"] == stream else line


def stripped(stream: str, *keys: str) -> Edit:
    """Without these parts of the status of a stream's objects."""

    def edit(line: Json) -> Json:
        if line["stream"] == stream and "event" in line:
            status = line["event"]["object"].get("status") or {}
            for key in keys:
                status.pop(key, None)
        return line

    return edit


def speechless(line: Json) -> Json:
    """Containers end without a message, as a launcher's does outside this recording."""
    if line["stream"] == "pods" and "event" in line:
        status = line["event"]["object"].get("status") or {}
        for each in status.get("containerStatuses") or []:
            each["state"].get("terminated", {}).pop("message", None)
    return line


def without_event(reason: str) -> Edit:
    def edit(line: Json) -> Json | None:
        event = line.get("event", {}).get("object", {})
        return None if line["stream"] == "events" and event.get("reason") == reason else line

    return edit


DROPS: dict[str, tuple[Edit, dict[str, str]]] = {
    "nothing": (lambda line: line, {}),
    "events": (without("events"), {"KillPodSandbox": UNEXPLAINED}),
    "FailedKillPod": (without_event("FailedKillPod"), {"KillPodSandbox": "SandboxTimeout"}),
    "FailedCreatePodSandBox": (without_event("FailedCreatePodSandBox"), {}),
    "FailedScheduling": (without_event("FailedScheduling"), {}),
    "pods": (
        without("pods"), {"KillPodSandbox": UNEXPLAINED, "QemuTimeout": UNEXPLAINED},
    ),
    "conditions of VMIs": (stripped("vmis", "conditions"), {}),
    "conditions of pods": (stripped("pods", "conditions"), {}),
    "container states": (
        stripped("pods", "containerStatuses", "initContainerStatuses"),
        {"QemuTimeout": UNEXPLAINED},
    ),
    "termination messages": (speechless, {"QemuTimeout": "LauncherCrash"}),
}  # fmt: skip
"""What is dropped, and which class then results where it is not the right one."""


@pytest.mark.parametrize("name", ["b-devices110-130", "c-crash-sandbox-60"])
@pytest.mark.parametrize("dropped", DROPS)
def test_without_a_kind_of_evidence(name: str, dropped: str) -> None:
    lines = lines_of(name)
    edit, weaker = DROPS[dropped]
    expected = {vmi: weaker.get(found, found) for vmi, found in truth_of(name).items()}
    assert classes(edited(lines, edit)) == expected


def with_logs(lines: list[Json], name: str, source: str, text: list[str]) -> list[Json]:
    at = next(line["t"] for line in lines if line["stream"] == "delete")
    log = {"t": at, "stream": "log", "name": name, "source": source, "lines": text, "of": at}
    return [*lines, log]


@pytest.mark.parametrize("dropped", ["termination messages", "container states"])
def test_a_launchers_log_says_what_its_pod_does_not(dropped: str) -> None:
    lines = lines_of("c-crash-sandbox-60")
    truth = truth_of("c-crash-sandbox-60")
    poorer = edited(lines, DROPS[dropped][0])
    for name, found in truth.items():
        if found == "QemuTimeout":
            poorer = with_logs(poorer, name, "log", PANIC)
    assert classes(poorer) == truth


def test_the_nodes_log_says_what_no_event_did() -> None:
    lines = lines_of("c-crash-sandbox-60")
    truth = truth_of("c-crash-sandbox-60")
    poorer = edited(lines, without("events"))
    for name, found in truth.items():
        if found == "KillPodSandbox":
            said = (
                'E1123 kubelet.go:1234] "Failed to kill pod" err="failed to \\"KillPodSandbox\\" '
                'for \\"uid\\" with KillPodSandboxError: \\"rpc error: code = DeadlineExceeded\\""'
            )
            poorer = with_logs(poorer, name, "node log", [said])
    assert classes(poorer) == truth


def test_a_log_that_speaks_of_other_things_gives_no_class() -> None:
    lines = lines_of("c-crash-sandbox-60")
    truth = truth_of("c-crash-sandbox-60")
    chatty = edited(lines, without("events"))
    for name, each in truth.items():
        if each == "KillPodSandbox":
            chatty = with_logs(chatty, name, "log", ["starting", "an error that passed"])
    assert {
        classes(chatty)[name] for name, found in truth.items() if found == "KillPodSandbox"
    } == {UNEXPLAINED}


def doubled(lines: list[Json]) -> list[Json]:
    return [each for line in lines for each in (line, line)]


def late(lines: list[Json], stream: str, seconds: float) -> list[Json]:
    return [
        {**line, "t": line["t"] + seconds} if line["stream"] == stream else line for line in lines
    ]


def merged(line: Json) -> Json:
    """As the events' correlator merges many that are alike."""
    if line["stream"] == "events" and "event" in line:
        event = line["event"]["object"]
        if event.get("type") == "Warning":
            event["message"] = f"(combined from similar events): {event['message']}"
            event["count"] = 17
    return line


@pytest.mark.parametrize("name", ["b-devices110-130", "c-crash-sandbox-60"])
def test_evidence_that_is_doubled_late_or_merged_changes_no_class(name: str) -> None:
    lines = lines_of(name)
    truth = truth_of(name)
    assert classes(doubled(lines)) == truth
    assert classes(edited(lines, merged)) == truth
    for stream in ("events", "pods", "vmis"):
        assert classes(late(lines, stream, 0.9)) == truth


def test_whatever_is_lost_no_class_is_wrong() -> None:
    """Watch events at random are lost; what results is right, weaker or Unexplained."""
    allowed = {
        "QemuTimeout": {"QemuTimeout", "LauncherCrash", UNEXPLAINED},
        "KillPodSandbox": {"KillPodSandbox", "SandboxTimeout", UNEXPLAINED},
    }
    lines = lines_of("c-crash-sandbox-60")
    truth = truth_of("c-crash-sandbox-60")
    for seed in range(8):
        dice = random.Random(seed)
        share = dice.uniform(0.2, 0.9)
        kept = [
            line for line in lines
            if line["stream"] in ("create", "delete") or dice.random() > share
        ]  # fmt: skip
        found = classes(kept)
        for name, right in truth.items():
            assert found.get(name, UNEXPLAINED) in allowed[right]
        # A VMI whose last phases were lost is not known to run: that is no class either.
        others = {found[name] for name in found if name not in truth}
        assert others <= {UNEXPLAINED}
        assert collections.Counter(found.values())
