"""Pods that clients create: defaults, scheduling, starting, ending."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.sim import pods
from pytest_kvscale.sim.cluster import EmbeddedCluster
from pytest_kvscale.sim.errors import StatusError
from pytest_kvscale.sim.resources import NAMESPACES, NODES, PODS
from tests.sim.staging import Json, change, held, last, now, of_kind, play, pod, told


def ready(obj: Json) -> tuple[str, str | None]:
    listed = obj["status"].get("conditions") or []
    found = next(each for each in listed if each["type"] == "Ready")
    return found["status"], found.get("reason")


def test_a_pod_is_scheduled_started_and_ends_with_grace(clock: VirtualClock) -> None:
    async def script(cluster: EmbeddedCluster) -> None:
        cluster.api.create(PODS, "default", pod(initContainers=[{"name": "a", "image": "a"}]))
        await asyncio.sleep(600)
        found = now(cluster, PODS, "plain")
        assert (found["spec"]["nodeName"], found["status"]["phase"]) == ("node", "Running")
        (state,) = found["status"]["containerStatuses"]
        assert (list(state["state"]), state["ready"], state["restartCount"]) == (
            ["running"], True, 0,
        )  # fmt: skip
        (first,) = found["status"]["initContainerStatuses"]
        assert first["state"]["terminated"]["reason"] == "Completed"
        assert found["status"]["podIP"]
        cluster.api.delete(PODS, "default", "plain")
        assert now(cluster, PODS, "plain")["metadata"]["deletionGracePeriodSeconds"] == 30
        await asyncio.sleep(5)
        assert held(cluster, PODS) == []

    seen = of_kind(play(clock, script), PODS)
    first = next(each.obj for each in seen if "containerStatuses" in each.obj["status"])
    assert first["status"]["phase"] == "Pending"
    assert first["status"]["containerStatuses"][0]["state"] == {
        "waiting": {"reason": "PodInitializing"}
    }
    assert ready(first) == ("False", "ContainersNotReady")
    assert ready(seen[-1].obj) == ("True", None)
    assert seen[-2].obj["metadata"]["deletionGracePeriodSeconds"] == 0


@pytest.mark.parametrize("policy", ["Always", "OnFailure", "Never"])
def test_containers_that_never_end_run_under_any_restart_policy(
    clock: VirtualClock, policy: str
) -> None:
    async def script(cluster: EmbeddedCluster) -> None:
        cluster.api.create(PODS, "default", pod(restartPolicy=policy))
        await asyncio.sleep(3600)
        found = now(cluster, PODS, "plain")
        assert (found["status"]["phase"], ready(found)[0]) == ("Running", "True")

    play(clock, script)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"nodeSelector": {"kubernetes.io/hostname": "another"}}, "node affinity/selector"),
        (
            {"containers": [{"name": "a", "image": "a", "resources": {"limits": {"cpu": "99"}}}]},
            "1 Insufficient cpu",
        ),
        (
            {"containers": [
                {"name": "a", "image": "a", "resources": {"requests": {"memory": "1Ti"}}}
            ]},
            "1 Insufficient memory",
        ),
    ],
)  # fmt: skip
def test_a_pod_that_does_not_fit_waits(clock: VirtualClock, spec: Json, message: str) -> None:
    async def script(cluster: EmbeddedCluster) -> None:
        cluster.api.create(PODS, "default", pod(**spec))
        await asyncio.sleep(10)
        found = now(cluster, PODS, "plain")
        assert found["status"]["phase"] == "Pending"
        (condition,) = found["status"]["conditions"]
        assert condition["reason"] == "Unschedulable"
        assert message in condition["message"]
        cluster.api.delete(PODS, "default", "plain")
        assert held(cluster, PODS) == []

    assert told(play(clock, script), PODS)[0][0] == "FailedScheduling"


def test_a_taint_keeps_pods_away_that_do_not_tolerate_it(clock: VirtualClock) -> None:
    async def script(cluster: EmbeddedCluster) -> None:
        taint = {"key": "mine", "value": "yes", "effect": "NoSchedule"}
        merge = "application/merge-patch+json"
        cluster.api.patch(NODES, "", "node", {"spec": {"taints": [taint]}}, merge)
        cluster.api.create(PODS, "default", pod("kept-away"))
        cluster.api.create(PODS, "default", pod("let-in", tolerations=[{"operator": "Exists"}]))
        await asyncio.sleep(10)
        assert now(cluster, PODS, "kept-away")["status"]["phase"] == "Pending"
        assert now(cluster, PODS, "let-in")["status"]["phase"] == "Running"

    play(clock, script)


def test_another_schedulers_pods_are_left_to_it_and_bound_ones_run(clock: VirtualClock) -> None:
    async def script(cluster: EmbeddedCluster) -> None:
        cluster.api.create(PODS, "default", pod("theirs", schedulerName="mine"))
        cluster.api.create(PODS, "default", pod("bound", nodeName="node"))
        await asyncio.sleep(10)
        assert "nodeName" not in now(cluster, PODS, "theirs")["spec"]
        assert "conditions" not in now(cluster, PODS, "theirs")["status"]
        assert now(cluster, PODS, "bound")["status"]["phase"] == "Running"

    play(clock, script)


def test_faults_meant_for_vmis_leave_other_pods_alone(
    clock: VirtualClock, profile_file: Callable[[str], Path]
) -> None:
    every = "launcher_crash: 1, kill_pod_sandbox: 1, stuck: 1, stuck_terminating: 1"
    path = profile_file(f"faults: {{{every}}}")

    async def script(cluster: EmbeddedCluster) -> None:
        cluster.api.create(PODS, "default", pod())
        await asyncio.sleep(60)
        assert now(cluster, PODS, "plain")["status"]["phase"] == "Running"
        cluster.api.delete(PODS, "default", "plain")
        await asyncio.sleep(60)
        assert held(cluster, PODS) == []

    play(clock, script, str(path))


def test_a_pod_deleted_by_force_at_any_moment_is_gone_and_its_place_is_free(
    clock: VirtualClock, profile_file: Callable[[str], Path]
) -> None:
    path = profile_file("node: {pod_network_prefix: 30}")
    path.write_text(path.read_text().replace("blog-2021", "fast"))

    async def script(cluster: EmbeddedCluster) -> None:
        for index in range(30):
            cluster.api.create(PODS, "default", pod(f"pod-{index}"))
            await asyncio.sleep(index * 0.015)
            cluster.api.delete(PODS, "default", f"pod-{index}", {"gracePeriodSeconds": 0})
            assert held(cluster, PODS) == []
        await asyncio.sleep(10)
        for name in ("one", "two"):
            cluster.api.create(PODS, "default", pod(name))
        await asyncio.sleep(10)
        assert [each["status"]["phase"] for each in held(cluster, PODS)] == ["Running"] * 2

    play(clock, script, str(path))


def test_a_namespace_that_ends_takes_its_pods_along(clock: VirtualClock) -> None:
    async def script(cluster: EmbeddedCluster) -> None:
        for wait in (0, 0.005, 0.02, 0.1, 1):
            cluster.api.create(NAMESPACES, "", {"metadata": {"name": "mine"}})
            for index in range(5):
                cluster.api.create(PODS, "mine", pod(f"pod-{index}"))
            await asyncio.sleep(wait)
            cluster.api.delete(NAMESPACES, "", "mine")
            await asyncio.sleep(60)
            assert cluster.store.get(NAMESPACES, "", "mine") is None

    play(clock, script)


def test_a_label_on_a_pod_may_change_at_any_time(clock: VirtualClock) -> None:
    async def script(cluster: EmbeddedCluster) -> None:
        cluster.api.create(PODS, "default", pod())
        await asyncio.sleep(0.02)
        change(cluster, PODS, "plain", {"metadata": {"labels": {"a": "b"}}})
        await asyncio.sleep(10)

    assert last(play(clock, script), PODS)["status"]["phase"] == "Running"


def test_the_api_fills_in_what_a_pod_leaves_out() -> None:
    limits = {"cpu": "500m", "memory": "64Mi"}
    containers = [
        {"name": "a", "image": "registry.local:5000/a", "resources": {"limits": limits}},
        {"name": "b", "image": "b:1.0", "resources": {"limits": limits, "requests": limits}},
    ]
    spec = pods.admit(pod(containers=containers))["spec"]
    assert spec["restartPolicy"] == "Always"
    assert spec["terminationGracePeriodSeconds"] == 30
    assert [each["resources"]["requests"] for each in spec["containers"]] == [limits, limits]
    assert [each["imagePullPolicy"] for each in spec["containers"]] == ["Always", "IfNotPresent"]
    assert {each["key"]: each["tolerationSeconds"] for each in spec["tolerations"]} == {
        "node.kubernetes.io/not-ready": 300,
        "node.kubernetes.io/unreachable": 300,
    }


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        (
            {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
            "Burstable",
        ),
    ],
)
def test_resources_decide_the_quality_of_service(resources: Json, expected: str) -> None:
    containers = [{"name": "a", "image": "a", "resources": resources}]
    assert pods.admit(pod(containers=containers))["status"]["qosClass"] == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"containers": []}, 'Pod "plain" is invalid: spec.containers: Required value'),
        (
            {"containers": [{"name": "a"}]},
            'Pod "plain" is invalid: spec.containers[0].image: Required value',
        ),
        (
            {"restartPolicy": "Sometimes"},
            'Pod "plain" is invalid: spec.restartPolicy: Unsupported value: "Sometimes": '
            'supported values: "Always", "OnFailure", "Never"',
        ),
    ],
)
def test_a_pod_that_makes_no_sense_is_refused(spec: Json, message: str) -> None:
    with pytest.raises(StatusError) as refusal:
        pods.admit(pod(**spec))
    assert (refusal.value.code, str(refusal.value)) == (422, message)
