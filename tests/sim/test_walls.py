"""The arithmetic of what fits and how fast it goes: at each wall one more does not fit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.sim import profile, quantity
from pytest_kvscale.sim.cluster import EmbeddedCluster
from pytest_kvscale.sim.players.launcher_pod import launcher_pod, overhead, requests_of
from pytest_kvscale.sim.processor import Processor
from pytest_kvscale.sim.profile import Profile
from pytest_kvscale.sim.resources import (
    DAEMON_SETS,
    DEPLOYMENTS,
    EVENTS,
    KUBEVIRTS,
    NODES,
    PODS,
    VMIS,
)
from tests.sim.level import vmi
from tests.sim.staging import Json, held, now, play

MERGE = "application/merge-patch+json"
MIB = 2**20


def created(**domain: object) -> Json:
    """A VMI as stored, as far as its launcher needs it."""
    made = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", **vmi("one")}
    made["metadata"] = {"name": "one", "namespace": "default", "uid": "u"}
    made["spec"]["domain"] = {**made["spec"]["domain"], **domain}
    return made


def needs(chosen: Profile, made: Json) -> dict[str, int]:
    return requests_of(launcher_pod(chosen, made, 240))


# What a launcher asks for -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("domain", "mebibytes"),
    [
        ({}, 288 + 10 / 512),
        ({"cpu": {"cores": 2, "sockets": 2}}, 288 + 24 + 10 / 512),
        ({"devices": {"autoattachGraphicsDevice": False}}, 288 - 32 + 10 / 512),
        ({"resources": {"requests": {"memory": "1Gi"}}}, 288 + 2),
        ({"memory": {"guest": "2Gi"}, "resources": {}}, 288 + 4),
        (
            {"resources": {"requests": {"cpu": "1", "memory": "1Gi"},
                           "limits": {"cpu": "1", "memory": "1Gi"}}},
            288 + 2 + 100,
        ),
        (
            {"resources": {"requests": {"cpu": "1", "memory": "1Gi"},
                           "limits": {"cpu": "2", "memory": "1Gi"}}},
            288 + 2,
        ),
    ],
)  # fmt: skip
def test_the_overhead_follows_kubevirts_formula(domain: Json, mebibytes: float) -> None:
    # guest/512 + 25 + 100 + 25 + 40 + 50 + 8 for each vCPU + 8 + 32 for the screen
    assert overhead(profile.load("modern"), created(**domain)) == int(mebibytes * MIB)


def test_the_smallest_launcher_asks_for_what_was_recorded() -> None:
    asked = needs(profile.load("modern"), created())
    assert asked["memory"] == 312_496_128 + 35_000_000  # compute, and the console's sidecar
    assert asked["cpu"] == 10 + 5
    assert [asked[f"devices.kubevirt.io/{each}"] for each in ("kvm", "tun", "vhost-net")] == [1] * 3


def test_the_overhead_of_2021_is_less_by_its_own_formula() -> None:
    # guest/512 + 138 + 8 for each vCPU + 8 + 16 for the screen
    docker = profile.load("blog-2021-docker")
    assert overhead(docker, created()) == int((170 + 10 / 512) * MIB)
    screenless = created(devices={"autoattachGraphicsDevice": False})
    assert overhead(docker, screenless) == int((154 + 10 / 512) * MIB)


# The walls of a node ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("cpu: {cpu}m", "1 Insufficient cpu."),
        ("memory: {memory}", "1 Insufficient memory."),
        ("max_pods: {pods}", "1 Too many pods."),
        ("disk: {disk}", "1 Insufficient ephemeral-storage."),
    ],
)
@pytest.mark.parametrize("base", ["fast", "modern"])
def test_as_many_fit_as_the_division_says_and_one_more_is_refused(
    clock: VirtualClock, tmp_path: Path, base: str, yaml: str, message: str
) -> None:
    count = 5
    chosen = profile.load(base)
    one = needs(chosen, created())
    sizes = {
        "cpu": count * one["cpu"] + quantity.milli(chosen.node.reserved_cpu),
        "memory": count * one["memory"] + quantity.whole(chosen.node.reserved_memory),
        "pods": count,
        "disk": count * one["ephemeral-storage"],
    }
    for more, running in ((0, count), (-1, count - 1)):
        key = next(key for key in sizes if f"{{{key}}}" in yaml)
        wall = yaml.format(**{**sizes, key: sizes[key] + more})
        path = tmp_path / "wall.yaml"
        path.write_text(f"extends: {base}\nnode: {{{wall}}}\n", encoding="utf-8")

        async def script(cluster: EmbeddedCluster, running: int = running) -> None:
            for index in range(count + 1):
                cluster.api.create(VMIS, "default", vmi(f"vmi-{index}"))
            await asyncio.sleep(60)
            states = [each["status"]["phase"] for each in held(cluster, VMIS)]
            assert states.count("Running") == running
            told = {
                e["message"] for e in held(cluster, EVENTS) if e["reason"] == "FailedScheduling"
            }
            note = cluster.profile.scheduler.preemption_note.format(nodes=1)
            assert told == {f"0/1 nodes are available: {message}{note}"}

        play(clock, script, str(path))


def test_several_nodes_are_counted_in_one_sentence(clock: VirtualClock, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("extends: fast\nnode: {count: 3, max_pods: 1}\n", encoding="utf-8")

    async def script(cluster: EmbeddedCluster) -> None:
        taint = {"spec": {"taints": [{"key": "mine", "effect": "NoSchedule"}]}}
        cluster.api.patch(NODES, "", "node-2", taint, MERGE)
        for index in range(3):
            cluster.api.create(VMIS, "default", vmi(f"vmi-{index}"))
        await asyncio.sleep(30)
        (told,) = {e["message"] for e in held(cluster, EVENTS) if e["reason"] == "FailedScheduling"}
        assert told == (
            "0/3 nodes are available: 1 node(s) had untolerated taint {mine: }, 2 Too many pods."
        )

    play(clock, script, str(path))


# How long launchers wait ------------------------------------------------------------------------


def test_each_launcher_waits_the_qemu_timeout_and_up_to_119_seconds_more(
    clock: VirtualClock, profile_file: Callable[[str], Path]
) -> None:
    path = profile_file("faults: {qemu_timeout: 1}\n")
    waited: list[float] = []

    async def script(cluster: EmbeddedCluster) -> None:
        for index in range(60):
            cluster.api.create(VMIS, "default", vmi(f"vmi-{index:02}"))
        await asyncio.sleep(1000)
        for pod in held(cluster, PODS):
            arguments = pod["spec"]["containers"][0]["args"]
            limit = int(arguments[arguments.index("--qemu-timeout") + 1].removesuffix("s"))
            ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
            began, over = (ended[key][11:19] for key in ("startedAt", "finishedAt"))
            took = sum(
                (int(late) - int(early)) * unit
                for early, late, unit in zip(
                    began.split(":"), over.split(":"), (3600, 60, 1), strict=True
                )
            )
            # The pod says when the kubelet got to report the start, which its own limit delays.
            assert limit - 60 <= took <= limit + 1
            waited.append(limit)
        assert {each["status"]["phase"] for each in held(cluster, VMIS)} == {"Failed"}

    play(clock, script, str(path))
    assert 240 <= min(waited) < 255
    assert 345 < max(waited) <= 359


def test_a_sandbox_that_is_not_ready_in_time_is_told_and_tried_again(
    clock: VirtualClock, profile_file: Callable[[str], Path]
) -> None:
    path = profile_file("times: {sandbox: {work: 100, spread: 0}, sandbox_deadline: 60}\n")

    async def script(cluster: EmbeddedCluster) -> None:
        cluster.api.create(VMIS, "default", vmi("one"))
        await asyncio.sleep(61 + 3 * 72)
        (event,) = [e for e in held(cluster, EVENTS) if e["reason"] == "FailedCreatePodSandBox"]
        assert event["count"] == 4
        assert event["source"] == {"component": "kubelet", "host": "node"}
        assert event["message"].endswith("context deadline exceeded")
        assert now(cluster, VMIS, "one")["status"]["phase"] == "Scheduling"
        assert "FailedKillPod" not in {e["reason"] for e in held(cluster, EVENTS)}

    play(clock, script, str(path))


# Rate limits and rollouts -----------------------------------------------------------------------

COMPONENTS = {"controller": "virt-controller", "handler": "virt-handler-node"}


@pytest.mark.parametrize("name", ["controller", "handler"])
def test_a_components_rate_limit_is_in_force_when_the_cr_is_patched_and_goes_with_it(
    clock: VirtualClock, name: str
) -> None:
    async def script(cluster: EmbeddedCluster) -> None:
        limiter = cluster.clients[COMPONENTS[name]].limiter
        before = limiter.limit
        bucket: Any = {"tokenBucketRateLimiter": {"qps": 3, "burst": 4}}
        for asked, expected in ((bucket, (3, 4)), (None, (before.qps, before.burst))):
            client = {"restClient": {"rateLimiter": asked}}
            change = {"spec": {"configuration": {f"{name}Configuration": client}}}
            cluster.api.patch(KUBEVIRTS, "kubevirt", "kubevirt", change, MERGE)
            await asyncio.sleep(0)
            assert (limiter.limit.qps, limiter.limit.burst) == expected

    play(clock, script)


def test_a_rollout_is_told_by_generations_and_replicas_and_conditions_tell_nothing(
    clock: VirtualClock, profile_file: Callable[[str], Path]
) -> None:
    async def script(cluster: EmbeddedCluster) -> None:
        def read() -> tuple[Any, ...]:
            cr = cluster.api.get(KUBEVIRTS, "kubevirt", "kubevirt").obj
            parts = [
                cluster.api.get(kind, "kubevirt", name).obj
                for kind, name in ((DEPLOYMENTS, "virt-controller"), (DAEMON_SETS, "virt-handler"))
            ]
            stamped = [int(each["metadata"]["annotations"]["kubevirt.io/generation"])
                       for each in parts]  # fmt: skip
            ready = [each["status"].get("readyReplicas", each["status"].get("numberReady"))
                     for each in parts]  # fmt: skip
            held = {each["type"]: each["status"] for each in cr["status"]["conditions"]}
            assert cr["status"]["phase"] == "Deployed"
            assert held == {"Available": "True", "Progressing": "False", "Degraded": "False",
                            "Created": "True"}  # fmt: skip
            generation = cr["metadata"]["generation"]
            observed = cr["status"]["observedGeneration"] == generation
            return observed, [each == generation for each in stamped], ready

        assert read() == (True, [True, True], [2, 1])
        flags = {"controller": {"launcher-qemu-timeout": "900"}}
        change = {"spec": {"configuration": {"virtualMachineInstancesPerNode": 300},
                           "customizeComponents": {"flags": flags}}}  # fmt: skip
        cluster.api.patch(KUBEVIRTS, "kubevirt", "kubevirt", change, MERGE)
        # Too early: the operator has not seen it, and everything looks as if it were done.
        assert read() == (False, [False, False], [2, 1])
        await asyncio.sleep(3)
        assert read()[1:] == ([True, False], [0, 1])
        await asyncio.sleep(60)
        assert read() == (True, [True, True], [2, 1])
        node = cluster.api.get(NODES, "", "node").obj
        assert node["status"]["allocatable"]["devices.kubevirt.io/kvm"] == "300"
        cluster.api.create(VMIS, "default", vmi("late"))
        await asyncio.sleep(5)
        (pod,) = held(cluster, PODS)
        arguments = pod["spec"]["containers"][0]["args"]
        assert int(arguments[arguments.index("--qemu-timeout") + 1][:-1]) >= 900

    play(clock, script, "blog-2021")


# The node's CPUs --------------------------------------------------------------------------------


@given(
    cpus=st.integers(1, 8),
    works=st.lists(st.floats(0.1, 50), min_size=1, max_size=12),
    demand=st.floats(0, 30),
)
def test_all_work_gets_its_share_and_no_more_than_one_cpu(
    cpus: int, works: list[float], demand: float
) -> None:
    clock = VirtualClock()

    async def whole() -> list[float]:
        loop = asyncio.get_running_loop()
        processor, ends = Processor(cpus), []
        processor.demand(demand)

        async def work(seconds: float) -> None:
            await processor.run(seconds)
            ends.append(loop.time())

        await asyncio.gather(*map(work, works))
        assert processor.speed == min(1.0, cpus / demand if demand else 1.0)
        return ends

    try:
        ends = clock.run(whole())
    finally:
        clock.close()
    # All share alike: while k are left, each gets min(1, cpus / (k + demand)).
    at, done, expected = 0.0, 0.0, []
    for left, work in zip(range(len(works), 0, -1), sorted(works), strict=True):
        at += (work - done) / min(1.0, cpus / (left + demand))
        done = work
        expected.append(at)
    assert ends == pytest.approx(expected, rel=1e-6)
    assert max(ends) >= max(works) - 1e-9


def test_work_that_is_given_up_leaves_the_cpus_to_others(clock: VirtualClock) -> None:
    async def whole() -> float:
        processor, loop = Processor(1), asyncio.get_running_loop()

        async def give_up() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(4):
                    await processor.run(100)

        await asyncio.gather(give_up(), processor.run(5))
        return loop.time()

    assert clock.run(whole()) == pytest.approx(7)  # 4 s at half speed, the other 3 alone
