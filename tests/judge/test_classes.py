"""One class for each failed VMI, by the furthest stage, the latest refusal, the table's order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvscale.judge.classes import (
    CLASSES,
    PENDING,
    STAGES,
    UNEXPLAINED,
    classify,
    count,
    scheduling_classes,
    scheduling_reasons,
)
from pytest_kvscale.judge.remedies import REMEDIES
from pytest_kvscale.measure.timeline import Creation, PodFacts, Sign, Timeline

DEADLINE = "rpc error: code = DeadlineExceeded desc = context deadline exceeded"
PANIC = "compute ended with exit code 2: panic: timed out waiting for domain to be defined"


def timeline(*signs: Sign, stage: str = "schedule", **more: object) -> Timeline:
    """A VMI that came to a stage, with what spoke against it."""
    made = Timeline("one", Creation("one", 0.0, 0.0, 0.1), uid="u1", phase="Scheduling")
    made.signs = list(signs)
    reached = STAGES.index(stage)
    if reached >= STAGES.index("schedule"):
        made.pod = PodFacts("p1", "virt-launcher-one-x", "Pending")
    if reached >= STAGES.index("sandbox"):
        made.pod.scheduled = 1.0
    if reached >= STAGES.index("image"):
        made.pod.has_sandbox = True
    if reached >= STAGES.index("launcher"):
        made.pod.started = 2.0
    if reached >= STAGES.index("guest"):
        made.phases["Running"] = 3.0
    for key, value in more.items():
        setattr(made, key, value)
    return made


def event(reason: str, message: str, at: float = 10.0) -> Sign:
    return Sign(at, "event", reason, message)


def ended(message: str, at: float = 10.0) -> Sign:
    return Sign(at, "container", "Terminated", message)


def refusal(*reasons: str) -> str:
    return f"0/1 nodes are available: {', '.join(reasons)}."


@pytest.mark.parametrize(
    ("sign", "stage", "expected"),
    [
        (event("FailedScheduling", refusal("1 Insufficient devices.kubevirt.io/kvm")), "schedule",
         "DeviceLimit"),
        (event("FailedScheduling", refusal("1 Too many pods")), "schedule", "PodLimit"),
        (event("FailedScheduling", refusal("1 Insufficient memory")), "schedule", "MemoryLimit"),
        (Sign(1, "pod", "Unschedulable", refusal("1 Insufficient cpu")), "schedule", "CpuLimit"),
        (Sign(1, "vmi", "Unschedulable", refusal("1 node(s) were unschedulable")), "schedule",
         "Unschedulable"),
        (event("FailedCreatePodSandBox", "x: failed to allocate for range 0: no IP addresses "
               "available in range set: 10.1.0.1-10.1.0.254"), "sandbox", "PodIPExhausted"),
        (event("FailedCreatePodSandBox", "plugin calico failed: failed to request IPv4 addresses: "
               "Assigned 0 out of 1 requested"), "sandbox", "PodIPExhausted"),
        (event("FailedKillPod", 'failed to "KillPodSandbox" for "u" with KillPodSandboxError: '
               f'"{DEADLINE}"'), "sandbox", "KillPodSandbox"),
        (event("FailedCreatePodSandBox", f"Failed to create pod sandbox: {DEADLINE}"), "sandbox",
         "SandboxTimeout"),
        (Sign(1, "container", "ImagePullBackOff", "compute: back-off"), "image", "ImagePull"),
        (Sign(1, "vmi", "ErrImagePull", "x"), "sandbox", "ImagePull"),
        (event("Failed", 'Failed to pull image "x": not found'), "image", "ImagePull"),
        (ended(PANIC), "launcher", "QemuTimeout"),
        (ended("compute ended with exit code 1: qemu monitor connection timed out"), "launcher",
         "QemuTimeout"),
        (ended("compute ended with exit code 1: panic: something else"), "launcher",
         "LauncherCrash"),
        (ended("compute ended with exit code 137: OOMKilled"), "launcher", "LauncherCrash"),
        (event("Stopped", "The VirtualMachineInstance crashed."), "guest", "GuestCrash"),
        (event("NodeNotReady", "Node is not ready"), "guest", "NodeLost"),
        (Sign(1, "pod", "NodeLost", "Node node-1 was lost"), "launcher", "NodeLost"),
        (event("FailedCreate", "Error creating pod: exceeded quota"), "create", "PodCreateFailed"),
    ],
)  # fmt: skip
def test_each_class_by_its_evidence(sign: Sign, stage: str, expected: str) -> None:
    finding = classify(timeline(sign, stage=stage))
    assert finding.name == expected
    assert sign.message.partition("\n")[0] in finding.evidence[0]


@pytest.mark.parametrize(
    ("code", "expected"),
    [(403, "CreateRejected"), (422, "CreateRejected"), (429, "Throttled"), (500, UNEXPLAINED),
     (0, UNEXPLAINED)],
)  # fmt: skip
def test_a_create_that_was_refused(code: int, expected: str) -> None:
    creation = Creation("one", 0.0, 0.0, None, Sign(1.0, "api", "create", "quota exceeded"), code)
    finding = classify(Timeline("one", creation))
    assert finding.name == expected
    assert "quota exceeded" in finding.evidence[0]


def test_the_furthest_stage_decides() -> None:
    signs = (
        event("FailedScheduling", refusal("1 Insufficient memory"), 50.0),
        event("FailedCreatePodSandBox", f"x {DEADLINE}", 40.0),
        ended(PANIC, 30.0),
    )
    assert classify(timeline(*signs, stage="launcher")).name == "QemuTimeout"
    assert classify(timeline(*signs[:2], stage="sandbox")).name == "SandboxTimeout"


def test_what_a_vmi_got_past_no_longer_speaks() -> None:
    refused = event("FailedScheduling", refusal("1 Insufficient memory"))
    finding = classify(timeline(refused, stage="sandbox"))
    assert finding.name == UNEXPLAINED
    assert "last phase Scheduling" in finding.evidence[0]


def test_within_a_stage_the_latest_refusal_decides() -> None:
    first = event("FailedScheduling", refusal("1 Insufficient devices.kubevirt.io/kvm"), 10.0)
    second = event("FailedScheduling", refusal("1 Insufficient memory"), 20.0)
    assert classify(timeline(first, second)).name == "MemoryLimit"
    assert classify(timeline(second, first)).name == "MemoryLimit"


def test_of_several_reasons_in_one_refusal_the_tables_order_decides() -> None:
    message = refusal("1 Insufficient cpu", "1 Insufficient memory", "1 Too many pods")
    finding = classify(timeline(event("FailedScheduling", message)))
    assert finding.name == "PodLimit"
    assert "Insufficient cpu, 1 Insufficient memory, 1 Too many pods" in finding.evidence[0]


def test_a_sandbox_that_cannot_be_made_nor_killed_is_one_refusal() -> None:
    killed = event("FailedKillPod", f"KillPodSandboxError: {DEADLINE}", 20.000)
    made = event("FailedCreatePodSandBox", f"sandbox: {DEADLINE}", 20.004)
    assert classify(timeline(killed, made, stage="sandbox")).name == "KillPodSandbox"
    assert classify(timeline(made, killed, stage="sandbox")).name == "KillPodSandbox"


def test_a_vmi_that_ran_and_whose_launcher_ended_is_explained() -> None:
    crash = timeline(ended("compute ended with exit code 139: x"), stage="guest", lost=True)
    assert classify(crash).name == "LauncherCrash"
    told = event("Stopped", "The VirtualMachineInstance crashed.")
    crash.signs.append(told)
    assert classify(crash).name == "GuestCrash"


def test_nothing_said_is_unexplained_and_says_what_was_seen_last() -> None:
    made = timeline(stage="launcher", phase="Scheduled")
    made.pod.phase = "Running"
    made.pod.state = ("Running", True, ("compute", "running"))
    finding = classify(made)
    assert finding.name == UNEXPLAINED
    assert finding.evidence == ("last phase Scheduled", "pod Running (compute running)")


def test_a_vmi_that_was_never_sent_says_so() -> None:
    finding = classify(Timeline("one", Creation("one", 0.0)))
    assert (finding.name, finding.evidence) == (UNEXPLAINED, ("create never sent",))


def test_a_vmi_deleted_by_somebody_else_says_so() -> None:
    gone = timeline(stage="guest", phase="Running", gone=9.0, lost=True)
    assert "deleted by somebody else" in classify(gone).evidence[0]


def test_evidence_that_says_the_same_stands_once() -> None:
    message = refusal("1 Too many pods")
    signs = [
        event("FailedScheduling", message),
        Sign(10, "pod", "Unschedulable", message),
        Sign(10, "vmi", "Unschedulable", message),
    ]
    assert len(classify(timeline(*signs)).evidence) == 1


@pytest.mark.parametrize(
    ("message", "reasons"),
    [
        (
            "0/1 nodes are available: 1 Insufficient devices.kubevirt.io/kvm. no new claims to "
            "deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for "
            "incoming pod.",
            ["1 Insufficient devices.kubevirt.io/kvm"],
        ),
        (
            "0/3 nodes are available: 1 Insufficient memory, 2 node(s) had taint {a: b}, that the "
            "pod didn't tolerate.",
            ["1 Insufficient memory", "2 node(s) had taint {a: b}, that the pod didn't tolerate"],
        ),
        ("0/1 nodes are available: 1 Insufficient memory, 1 Too many pods. preemption: no",
         ["1 Insufficient memory", "1 Too many pods"]),
        ("no nodes available to schedule pods", ["no nodes available to schedule pods"]),
        ("", []),
    ],
)  # fmt: skip
def test_a_schedulers_message_is_taken_apart(message: str, reasons: list[str]) -> None:
    assert scheduling_reasons(message) == reasons


@given(st.text(max_size=80))
def test_any_message_has_scheduling_classes_or_none(message: str) -> None:
    assert set(scheduling_classes(message)) <= PENDING


def test_counts_are_in_the_tables_order() -> None:
    names = ["QemuTimeout", UNEXPLAINED, "DeviceLimit", "QemuTimeout"]
    findings = [classify(timeline(ended(PANIC), stage="launcher")) for _ in range(2)]
    findings += [classify(timeline(stage="launcher"))]
    findings += [classify(timeline(event("FailedScheduling", refusal(
        "1 Insufficient devices.kubevirt.io/kvm"))))]  # fmt: skip
    assert list(count(findings).items()) == [
        ("DeviceLimit", 1), ("QemuTimeout", 2), (UNEXPLAINED, 1),
    ]  # fmt: skip
    assert len(names) == sum(count(findings).values())


def test_every_class_has_a_remedy() -> None:
    assert set(REMEDIES) == {*CLASSES, UNEXPLAINED, "StuckTerminating"}


SIGNS = st.lists(
    st.builds(
        Sign,
        at=st.floats(0, 100),
        source=st.sampled_from(["event", "pod", "container", "vmi"]),
        reason=st.sampled_from(
            ["FailedScheduling", "FailedKillPod", "FailedCreatePodSandBox", "Terminated",
             "ErrImagePull", "FailedCreate", "Stopped", "NodeLost", "Odd"]
        ),
        message=st.sampled_from([refusal("1 Too many pods"), DEADLINE, PANIC, "crashed", ""]),
    ),
    max_size=5,
)  # fmt: skip


@given(SIGNS, st.sampled_from(STAGES[:6]))
def test_whatever_was_seen_there_is_one_class_with_evidence(signs: list[Sign], stage: str) -> None:
    finding = classify(timeline(*signs, stage=stage))
    assert finding.name in {*CLASSES, UNEXPLAINED}
    assert finding.evidence
    assert classify(timeline(*reversed(signs), stage=stage)).name == finding.name


@pytest.mark.parametrize("late", ["FailedKillPod", "FailedCreatePodSandBox"])
def test_an_event_that_is_told_late_still_belongs_to_its_refusal(late: str) -> None:
    """Its stamp says when it happened, beside those of the other events."""
    signs = [
        Sign(10.0, "event", "FailedKillPod", "KillPodSandboxError: x", stamp=1000.0),
        Sign(10.0, "event", "FailedCreatePodSandBox", DEADLINE, stamp=1000.0),
    ]
    for sign in signs:
        if sign.reason == late:
            sign.at = 15.0
    assert classify(timeline(*signs, stage="sandbox")).name == "KillPodSandbox"


def test_where_events_are_dropped_the_one_told_less_often_still_counts() -> None:
    """client-go lets 25 through, then one in 300 s: of two that come in pairs one falls behind."""
    signs = [
        Sign(610.0, "event", "FailedCreatePodSandBox", DEADLINE, 1610.0, 14),
        Sign(370.0, "event", "FailedKillPod", "KillPodSandboxError: x", 1370.0, 13),
    ]
    assert classify(timeline(*signs, stage="sandbox")).name == "KillPodSandbox"
    signs[1].count = 3
    assert classify(timeline(*signs, stage="sandbox")).name == "SandboxTimeout"


def test_a_refusal_that_came_first_and_is_told_last_is_not_the_latest() -> None:
    signs = [
        Sign(60.0, "event", "FailedKillPod", "KillPodSandboxError: x", stamp=1000.0),
        Sign(50.0, "event", "FailedCreatePodSandBox", DEADLINE, stamp=1040.0),
    ]
    assert classify(timeline(*signs, stage="sandbox")).name == "SandboxTimeout"
