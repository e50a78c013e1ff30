"""The players: what a VMI goes through, told by the objects a client sees."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.sim import profile
from pytest_kvscale.sim.client import Client, RateLimiter
from pytest_kvscale.sim.cluster import EmbeddedCluster
from pytest_kvscale.sim.players.settings import effective
from pytest_kvscale.sim.players.team import PlayerError, Team, WorkQueue
from pytest_kvscale.sim.profile import RateLimit
from pytest_kvscale.sim.resources import EVENTS, NODES, PODS, VMIS
from pytest_kvscale.sim.store import Event

Json = dict[str, Any]
Follow = Callable[..., list[tuple[str, str, Json]]]


def vmi(name: str = "one", **spec: Any) -> Json:
    requests = {"cpu": "10m", "memory": "10Mi"}
    volumes = [{"name": "disk", "containerDisk": {"image": "cirros"}}]
    return {
        "metadata": {"name": name, "labels": {"mine": "yes"}},
        "spec": {
            "domain": {"resources": {"requests": requests}},
            "volumes": volumes,
            "terminationGracePeriodSeconds": 180,
            **spec,
        },
    }


@pytest.fixture
def follow(clock: VirtualClock) -> Follow:
    """Create VMIs, wait, delete them, wait; returns every change of VMIs, pods and events."""

    def play(
        *vmis: Json, chosen: str = "blog-2021", wait: float = 100, delete: bool = True
    ) -> list[tuple[str, str, Json]]:
        seen: list[tuple[str, str, Json]] = []

        async def whole() -> None:
            cluster = EmbeddedCluster(profile.load(chosen), "test", 0)
            for kind in (VMIS, PODS, EVENTS):

                def listener(event: Event, plural: str = kind.plural) -> None:
                    seen.append((plural, event.type, event.stored.obj))

                cluster.store.listen(kind, listener)
            for each in vmis:
                cluster.api.create(VMIS, "default", each)
            await asyncio.sleep(wait)
            for stored in cluster.store.all(VMIS) if delete else []:
                cluster.api.delete(VMIS, "default", stored.obj["metadata"]["name"])
            await asyncio.sleep(500 if delete else 0)
            failure = cluster.team.failure
            await cluster.stop()
            if failure.done():
                failure.result()

        clock.run(whole())
        return seen

    return play


def phases(seen: list[tuple[str, str, Json]], name: str = "one") -> list[str]:
    found: list[str] = []
    for plural, _, obj in seen:
        if plural == VMIS.plural and obj["metadata"]["name"] == name:
            phase = obj["status"]["phase"]
            if not found or found[-1] != phase:
                found.append(phase)
    return found


def last(seen: list[tuple[str, str, Json]], plural: str, name: str = "one") -> Json:
    return [obj for kind, _, obj in seen if kind == plural and name in obj["metadata"]["name"]][-1]


def reasons(seen: list[tuple[str, str, Json]]) -> list[str]:
    return [obj["reason"] for plural, _, obj in seen if plural == EVENTS.plural]


def test_a_vmi_runs_and_goes(follow: Follow) -> None:
    seen = follow(vmi())
    assert phases(seen) == ["Pending", "Scheduling", "Scheduled", "Running", "Succeeded"]
    assert reasons(seen) == ["SuccessfulCreate", "Scheduled", "Started", "SuccessfulDelete"]
    gone = [plural for plural, kind, _ in seen if kind == "DELETED"]
    assert gone == [PODS.plural, VMIS.plural]
    ended = last(seen, VMIS.plural)
    stamps = [each["phase"] for each in ended["status"]["phaseTransitionTimestamps"]]
    assert stamps == ["Pending", "Scheduling", "Scheduled", "Running", "Succeeded"]
    assert ended["metadata"]["labels"]["kubevirt.io/nodeName"] == "node"


def test_the_launcher_pod_is_the_vmis(follow: Follow) -> None:
    seen = follow(vmi())
    pod, owner = last(seen, PODS.plural), last(seen, VMIS.plural)["metadata"]
    assert pod["metadata"]["name"].startswith("virt-launcher-one-")
    labels = pod["metadata"]["labels"]
    assert labels["kubevirt.io/created-by"] == owner["uid"]
    assert labels["mine"] == "yes"
    reference = pod["metadata"]["ownerReferences"][0]
    assert (reference["uid"], reference["controller"]) == (owner["uid"], True)
    compute = pod["spec"]["containers"][0]["resources"]["requests"]
    assert compute["memory"] == "305172Ki"  # 312,496,128 bytes
    assert compute["devices.kubevirt.io/kvm"] == "1"


def test_a_guest_that_never_booted_takes_the_whole_grace_period(
    follow: Follow, clock: VirtualClock
) -> None:
    seen = follow(vmi(terminationGracePeriodSeconds=60))
    status = last(seen, VMIS.plural)["status"]["phaseTransitionTimestamps"]
    ended = status[-1]["phaseTransitionTimestamp"]
    asked = last(seen, VMIS.plural)["metadata"]["deletionTimestamp"]
    minutes = [int(stamp[14:16]) * 60 + int(stamp[17:19]) for stamp in (asked, ended)]
    assert minutes[1] - minutes[0] in (60, 61)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        (
            "kubevirt: {max_devices: 0}",
            "1 Insufficient devices.kubevirt.io/kvm, 1 Insufficient devices.kubevirt.io/tun, "
            "1 Insufficient devices.kubevirt.io/vhost-net.",
        ),
        ("node: {max_pods: 0}", "1 Too many pods."),
        ("node: {memory: 1100Mi}", "1 Insufficient memory."),
        ("node: {cpu: 505m}", "1 Insufficient cpu."),
        ("node: {memory: 1100Mi, max_pods: 0}", "1 Insufficient memory, 1 Too many pods."),
    ],
)
def test_a_pod_that_does_not_fit_is_refused_in_the_schedulers_words(
    follow: Follow, profile_file: Callable[[str], Path], yaml: str, message: str
) -> None:
    seen = follow(vmi(), chosen=str(profile_file(yaml)))
    assert phases(seen)[:2] == ["Pending", "Scheduling"]
    assert "Running" not in phases(seen)
    refusals = [obj for plural, _, obj in seen if plural == EVENTS.plural]
    texts = [each["message"] for each in refusals if each["reason"] == "FailedScheduling"]
    assert texts == [f"0/1 nodes are available: {message}"]
    conditions = [
        each
        for plural, _, obj in seen
        if plural == VMIS.plural
        for each in obj["status"].get("conditions", [])
        if each["type"] == "PodScheduled"
    ]
    assert conditions[0]["reason"] == "Unschedulable"
    assert seen[-1][1] == "DELETED"


def test_a_selector_that_fits_no_node_and_a_taint_are_told(
    follow: Follow, profile_file: Callable[[str], Path]
) -> None:
    seen = follow(vmi(nodeSelector={"kubernetes.io/hostname": "another"}))
    messages = [obj["message"] for plural, _, obj in seen if plural == EVENTS.plural]
    assert any("didn't match Pod's node affinity/selector" in each for each in messages)


def test_a_refused_pod_runs_once_there_is_room(
    follow: Follow, profile_file: Callable[[str], Path], clock: VirtualClock
) -> None:
    path = str(profile_file("kubevirt: {max_devices: 1}"))

    async def whole() -> str:
        cluster = EmbeddedCluster(profile.load(path), "test", 0)
        for name in ("first", "second"):
            cluster.api.create(VMIS, "default", vmi(name))
        await asyncio.sleep(100)
        running = [
            stored.obj["metadata"]["name"]
            for stored in cluster.store.all(VMIS)
            if stored.obj["status"]["phase"] == "Running"
        ]
        assert len(running) == 1
        cluster.api.delete(VMIS, "default", running[0])
        await asyncio.sleep(500)
        (left,) = cluster.store.all(VMIS)
        await cluster.stop()
        return str(left.obj["status"]["phase"])

    assert clock.run(whole()) == "Running"


@pytest.mark.parametrize(
    ("fault", "expected_phase", "expected_reason"),
    [
        ("kill_pod_sandbox", "Scheduling", "FailedKillPod"),
        ("sandbox_timeout", "Scheduling", "FailedCreatePodSandBox"),
        ("stuck", "Scheduling", "Scheduled"),
        ("launcher_crash", "Failed", "Scheduled"),
        ("qemu_timeout", "Failed", "Scheduled"),
    ],
)
def test_faults_befall_vmis_on_request(
    follow: Follow, profile_file: Callable[[str], Path],
    fault: str, expected_phase: str, expected_reason: str,
) -> None:  # fmt: skip
    path = profile_file(f"faults: {{{fault}: 1}}")
    seen = follow(vmi(), chosen=str(path), wait=1000, delete=False)
    assert phases(seen)[-1] == expected_phase
    assert expected_reason in reasons(seen)
    if fault == "qemu_timeout":
        status = last(seen, PODS.plural)["status"]["containerStatuses"][0]["state"]
        assert status["terminated"]["message"].startswith("panic: timed out waiting for domain")


def test_whatever_befalls_a_vmi_it_can_be_deleted(
    follow: Follow, profile_file: Callable[[str], Path]
) -> None:
    faults = "kill_pod_sandbox: 0.2, launcher_crash: 0.2, qemu_timeout: 0.2, stuck: 0.2"
    path = profile_file(f"faults: {{{faults}}}")
    seen = follow(*(vmi(f"vmi-{index}") for index in range(40)), chosen=str(path), wait=400)
    gone = [obj["metadata"]["name"] for plural, kind, obj in seen if kind == "DELETED"]
    assert len([name for name in gone if name.startswith("vmi-")]) == 40
    assert len([name for name in gone if name.startswith("virt-launcher")]) == 40


def test_a_vmi_deleted_at_any_moment_goes(follow: Follow) -> None:
    for wait in (0, 0.05, 0.2, 1, 3, 5, 7, 10):
        seen = follow(vmi(), wait=wait)
        assert (seen[-1][0], seen[-1][1]) == (VMIS.plural, "DELETED"), wait


def test_addresses_run_out(follow: Follow, profile_file: Callable[[str], Path]) -> None:
    path = profile_file("node: {pod_network_prefix: 30}")
    seen = follow(*(vmi(f"vmi-{index}") for index in range(3)), chosen=str(path), wait=300)
    running = [index for index in range(3) if "Running" in phases(seen, f"vmi-{index}")]
    assert len(running) == 2
    messages = [obj["message"] for plural, _, obj in seen if plural == EVENTS.plural]
    assert any("no IP addresses available in range set" in each for each in messages)


def test_settings_come_from_the_cr_and_else_from_the_version() -> None:
    base = profile.load("blog-2021")
    assert effective(base, {}).max_devices == 110
    assert effective(base, {}).rate_limits["handler"] == RateLimit(qps=5, burst=10)
    bucket = {"tokenBucketRateLimiter": {"qps": 50, "burst": 100}}
    configuration = {
        "virtualMachineInstancesPerNode": 1000,
        "handlerConfiguration": {"restClient": {"rateLimiter": bucket}},
    }
    found = effective(base, {"configuration": configuration})
    assert found.max_devices == 1000
    assert found.rate_limits["handler"] == RateLimit(qps=50, burst=100)


def test_the_qemu_timeout_comes_from_flags_or_from_the_published_patch() -> None:
    base = profile.load("blog-2021")
    flags = {"flags": {"controller": {"launcher-qemu-timeout": "900"}}}
    assert effective(base, {"customizeComponents": flags}).qemu_timeout == 900
    path = "/spec/template/spec/containers/0/command/-"
    patch = f'[{{"op":"add","path":"{path}","value":"--launcher-qemu-timeout=700"}}]'
    patches = {
        "patches": [
            {
                "resourceName": "virt-controller",
                "resourceType": "Deployment",
                "type": "json",
                "patch": patch,
            }
        ]
    }
    assert effective(base, {"customizeComponents": patches}).qemu_timeout == 700


def test_a_rate_limiter_lets_its_burst_through_and_then_its_rate(clock: VirtualClock) -> None:
    async def work() -> list[float]:
        limiter, loop = RateLimiter(RateLimit(qps=5, burst=3)), asyncio.get_running_loop()
        moments = []
        for _ in range(6):
            await limiter.wait()
            moments.append(round(loop.time(), 9))
        await asyncio.sleep(100)
        waits = [await limiter.wait() for _ in range(3)]
        assert waits == [0, 0, 0]
        return moments

    assert clock.run(work()) == [0, 0, 0, 0.2, 0.4, 0.6]


def test_a_work_queue_looks_at_a_key_once_at_a_time(clock: VirtualClock) -> None:
    async def work() -> list[tuple[str, float]]:
        looked: list[tuple[str, float]] = []
        team, loop = Team(), asyncio.get_running_loop()

        async def look(key: str) -> None:
            looked.append((key, loop.time()))
            await asyncio.sleep(1)

        queue = WorkQueue(team, "queue", look, workers=2)
        for key in ("a", "b", "c", "a", "a"):
            queue.add(key)
        await asyncio.sleep(0.5)
        queue.add("a")
        queue.add("a")
        await asyncio.sleep(10)
        await team.stop()
        return looked

    assert clock.run(work()) == [("a", 0), ("b", 0), ("c", 1), ("a", 1)]


def test_a_player_that_fails_is_the_clusters_failure(clock: VirtualClock) -> None:
    async def work() -> None:
        cluster = EmbeddedCluster(profile.load("fast"), "fast", 0)

        def broken(*_: object) -> None:
            raise ZeroDivisionError("a bug")

        cluster._controller._sync = cluster._controller._queue._sync = broken  # type: ignore[assignment]
        cluster.api.create(VMIS, "default", vmi())
        await asyncio.sleep(1)
        failure = cluster.team.failure
        await cluster.stop()
        failure.result()

    with pytest.raises(PlayerError, match="virt-controller-vmi worker: ZeroDivisionError: a bug"):
        clock.run(work())


def test_the_kubelet_beats_and_offers_what_virt_handler_has(clock: VirtualClock) -> None:
    async def work() -> tuple[str, int]:
        cluster = EmbeddedCluster(profile.load("blog-2021"), "test", 0)
        node = cluster.api.get(NODES, "", "node").obj
        assert node["status"]["allocatable"]["devices.kubevirt.io/kvm"] == "110"
        assert node["spec"]["podCIDR"].endswith("/22")
        kubelet: Client = cluster.clients["kubelet-node"]
        await asyncio.sleep(3600)
        await cluster.stop()
        (verb,) = kubelet.requests
        return verb[1], kubelet.requests[verb]

    assert clock.run(work()) == ("update", 359)
