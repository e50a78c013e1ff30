"""VMIs recorded on a real control plane and played: what a client can see is the same."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.sim.api import Query
from pytest_kvscale.sim.cluster import EmbeddedCluster
from pytest_kvscale.sim.resources import KUBEVIRTS, NODES, PODS, VMIS
from tests.sim import recordings
from tests.sim.recordings import by_vmi, pod_made, pod_states, recorded, vmi_story
from tests.sim.staging import Change, Json, collapsed, of_kind, play

Play = Callable[..., dict[str, list[Change]]]
MERGE = "application/merge-patch+json"


def vmi(index: int) -> Json:
    """A VMI as the recorded runs made them."""
    disk = {"image": "quay.io/kubevirt/cirros-container-disk-demo"}
    return {
        "metadata": {"name": f"density-{index:04}", "labels": {"kvscale/run": "rec"}},
        "spec": {
            "domain": {"devices": {}, "resources": {"requests": {"cpu": "10m", "memory": "10Mi"}}},
            "nodeSelector": {"kubernetes.io/hostname": "node"},
            "terminationGracePeriodSeconds": 0,
            "volumes": [{"name": "containerdisk", "containerDisk": disk}],
        },
    }


def run(
    count: int, tmp_path: Path, more: str = "", wait: float = 120, limit: tuple[int, int] = (0, 0)
) -> dict[str, list[Change]]:
    """Make so many VMIs, 20 a second, wait, delete them all; what was seen of each."""
    path = tmp_path / "profile.yaml"
    path.write_text(f"extends: modern\n{more}", encoding="utf-8")

    async def script(cluster: EmbeddedCluster) -> None:
        # As on the recorded node: only kvm devices are few.
        plenty = {"devices.kubevirt.io/tun": "1000", "devices.kubevirt.io/vhost-net": "1000"}
        change: Json = {"status": {"capacity": plenty, "allocatable": plenty}}
        cluster.api.patch(NODES, "", "node", change, MERGE, "status")
        if limit[0]:
            bucket = {"tokenBucketRateLimiter": {"qps": limit[0], "burst": limit[1]}}
            client = {"restClient": {"rateLimiter": bucket}}
            change = {"spec": {"configuration": {"controllerConfiguration": client}}}
            cluster.api.patch(KUBEVIRTS, "kubevirt", "kubevirt", change, MERGE)
        for index in range(count):
            cluster.api.create(VMIS, "default", vmi(index))
            await asyncio.sleep(0.05)
        await asyncio.sleep(wait)
        cluster.api.delete_collection(VMIS, Query("default"))
        await asyncio.sleep(wait)

    clock = VirtualClock()
    try:
        return by_vmi(play(clock, script, str(path)))
    finally:
        clock.close()


def phases(seen: list[Change]) -> tuple[str, ...]:
    return tuple(collapsed([each.obj["status"]["phase"] for each in of_kind(seen, VMIS)]))


RAN = ("Pending", "Scheduling", "Scheduled", "Running", "Succeeded")
WAITED = ("Pending", "Scheduling", "Failed")


def select(found: dict[str, list[Change]], wanted: tuple[str, ...]) -> list[list[Change]]:
    return [seen for seen in found.values() if phases(seen) == wanted]


@pytest.fixture(scope="module")
def a() -> dict[str, list[Change]]:
    return by_vmi(recorded("a-100"))


@pytest.fixture(scope="module")
def played_a(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Change]]:
    return run(100, tmp_path_factory.mktemp("a"))


@pytest.fixture(scope="module")
def b() -> dict[str, list[Change]]:
    return by_vmi(recorded("b-devices110-130"))


@pytest.fixture(scope="module")
def played_b(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Change]]:
    return run(
        130, tmp_path_factory.mktemp("b"), "kubevirt: {max_devices: 110}\nnode: {max_pods: 500}\n"
    )


@pytest.fixture(scope="module")
def c() -> dict[str, list[Change]]:
    return by_vmi(recorded("c-crash-sandbox-60"))


@pytest.fixture(scope="module")
def played_c(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Change]]:
    shares = "faults: {qemu_timeout: 0.1, kill_pod_sandbox: 0.13}\n"
    quick = "kubevirt: {qemu_timeout: 20, qemu_timeout_spread: 0}\ntimes: {sandbox_deadline: 20}\n"
    return run(60, tmp_path_factory.mktemp("c"), shares + quick, wait=300)


# All that runs ----------------------------------------------------------------------------------


def test_all_vmis_of_a_pass_the_recorded_phases(
    a: dict[str, list[Change]], played_a: dict[str, list[Change]]
) -> None:
    assert len(select(a, RAN)) == len(select(played_a, RAN)) == 100
    assert a.keys() == played_a.keys()


def test_a_launcher_pod_is_made_as_recorded(
    a: dict[str, list[Change]], played_a: dict[str, list[Change]]
) -> None:
    expected = [pod_made(seen) for seen in a.values()]
    assert all(each == expected[0] for each in expected)
    for seen in played_a.values():
        assert pod_made(seen) == expected[0]


def until_deleted(states: list[Json]) -> list[Json]:
    return [each for each in states if each["deleting"] is None]


def after(states: list[Json]) -> list[Json]:
    return [each for each in states if each["deleting"] is not None]


def bound(states: list[Json]) -> list[Json]:
    """Without a look at a pod that was just being bound: chance, whoever is faster."""
    pairs = itertools.pairwise([*states, states[-1]])
    known = "pod's node known"
    return [now for now, then in pairs if (now[known], then[known]) != ([False], [True])]


def test_a_vmis_states_come_as_recorded(
    a: dict[str, list[Change]], played_a: dict[str, list[Change]]
) -> None:
    expected = [bound(vmi_story(seen)) for seen in a.values()]
    starts = [until_deleted(each) for each in expected]
    ends = [after(each) for each in expected]
    for seen in played_a.values():
        states = bound(vmi_story(seen))
        assert until_deleted(states) in starts
        assert after(states) in ends


def pod_story(seen: list[Change]) -> list[Json]:
    return collapsed(list(pod_states(seen)))


def test_a_pods_states_come_as_recorded(
    a: dict[str, list[Change]], played_a: dict[str, list[Change]]
) -> None:
    # Its conditions come from two writers: only the pairs of states that follow each other differ.
    expected = [pod_story(seen) for seen in a.values()]
    for seen in played_a.values():
        assert pod_story(seen) in expected


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_events_read_as_recorded(name: str, request: pytest.FixtureRequest) -> None:
    recording = request.getfixturevalue(name)
    of_running = [recordings.told(seen) for seen in select(recording, RAN)]
    of_all = [event for seen in recording.values() for event in recordings.told(seen)]
    played = request.getfixturevalue(f"played_{name}")
    for seen in select(played, RAN):
        assert recordings.told(seen) in of_running
    # Whether the devices that the first VMIs leave are given to one that waits before that one is
    # deleted too depends on how fast the deletions follow each other.
    for seen in played.values():
        assert all(event in of_all for event in recordings.told(seen))


def test_what_is_left_out_of_comparisons_has_a_reason_and_the_players_do_better(
    a: dict[str, list[Change]], played_a: dict[str, list[Change]]
) -> None:
    def losses(seen: list[Change]) -> int:
        held = [
            any(each["type"] == recordings.UNPAUSED for each in obj["status"].get("conditions", []))
            for obj in (each.obj for each in of_kind(seen, PODS))
        ]
        return sum(before and not now for before, now in itertools.pairwise(held))

    assert all(len(reason) > 40 for reason in recordings.STAND_IN.values())
    assert {losses(seen) for seen in a.values()} == {1}
    assert {losses(seen) for seen in played_a.values()} == {0}


# What does not fit ------------------------------------------------------------------------------


def test_as_many_run_as_there_are_devices_and_the_others_wait(
    b: dict[str, list[Change]], played_b: dict[str, list[Change]]
) -> None:
    for found in (b, played_b):
        assert (len(select(found, RAN)), len(select(found, WAITED))) == (110, 20)


def test_a_vmi_that_waits_shows_what_was_recorded(
    b: dict[str, list[Change]], played_b: dict[str, list[Change]]
) -> None:
    expected = [until_deleted(vmi_story(seen)) for seen in select(b, WAITED)]
    for seen in select(played_b, WAITED):
        states = until_deleted(vmi_story(seen))
        # Whether the refusal comes together with the pod's quality of service or after it is
        # chance, and what a VMI shows after the first was deleted depends on when it is its turn.
        assert states[-1] in [each for story in expected for each in story]
        assert states[0] == expected[0][0]
        assert {each["phase"] for each in states} == {"Pending", "Scheduling"}


def test_a_vmi_that_is_deleted_before_it_runs_ends_in_a_recorded_way(
    b: dict[str, list[Change]], played_b: dict[str, list[Change]]
) -> None:
    def last(found: dict[str, list[Change]]) -> list[Any]:
        ends = [vmi_story(seen)[-1] for seen in select(found, WAITED)]
        return [(each["phase"], each["stamps"], each["conditions"], each["finalizers"])
                for each in ends]  # fmt: skip

    assert all(each in last(b) for each in last(played_b))


# What breaks ------------------------------------------------------------------------------------


def broken(found: dict[str, list[Change]], sandbox: bool) -> Iterator[list[Change]]:
    for seen in found.values():
        if "Running" not in phases(seen):
            reasons = {each.obj["reason"] for each in seen if each.kind == "Event"}
            if ("FailedKillPod" in reasons) is sandbox:
                yield seen


def test_a_launcher_that_panics_ends_as_recorded(
    c: dict[str, list[Change]], played_c: dict[str, list[Change]]
) -> None:
    def ends(found: dict[str, list[Change]]) -> list[Any]:
        result = []
        for seen in broken(found, sandbox=False):
            (over, *_) = [each for each in pod_states(seen) if each["phase"] == "Failed"]
            failed = next(each for each in vmi_story(seen) if each["phase"] == "Failed")
            own = over["containers"][0][6]
            conditions = [e for e in over["conditions"] if e[0] != "PodReadyToStartContainers"]
            result.append(
                (over["containers"][0][:6], own, conditions, failed["conditions"],
                 failed["finalizers"], vmi_story(seen)[-1]["conditions"])
            )  # fmt: skip
        return result

    expected, found = ends(c), ends(played_c)
    assert len(expected) == 6
    assert 2 <= len(found) <= 12
    for each in found:
        assert each in expected


def test_a_stuck_sandbox_looks_as_recorded(
    c: dict[str, list[Change]], played_c: dict[str, list[Change]]
) -> None:
    expected = [
        (collapsed(list(pod_states(seen)))[-3:], vmi_story(seen))
        for seen in broken(c, sandbox=True)
    ]
    found = list(broken(played_c, sandbox=True))
    assert len(expected) == 8
    assert 2 <= len(found) <= 16
    for seen in found:
        pods = collapsed(list(pod_states(seen)))[-3:]
        assert pods in [each[0] for each in expected]
        assert vmi_story(seen) in [each[1] for each in expected]


# A slow client ----------------------------------------------------------------------------------


def quantiles(found: dict[str, list[Change]], phase: str) -> tuple[float, float]:
    """Median and p95 of the time from the first sight of a VMI to a phase."""
    times = []
    for seen in found.values():
        mine = of_kind(seen, VMIS)
        when = next(each.at for each in mine if each.obj["status"]["phase"] == phase)
        times.append(when - mine[0].at)
    times.sort()
    return times[len(times) // 2], times[int(len(times) * 0.95)]


def test_a_controller_held_to_5_requests_a_second_is_as_slow_as_recorded(tmp_path: Path) -> None:
    expected = by_vmi(recorded("g-controller-qps5-60"))
    found = run(60, tmp_path, limit=(5, 10))
    for phase in ("Scheduling", "Scheduled", "Running"):
        for value, reference in zip(
            quantiles(found, phase), quantiles(expected, phase), strict=True
        ):
            assert value == pytest.approx(reference, rel=0.25), phase
