"""The published experiment of 2021, step by step: which wall comes when.

Untuned, then each setting that the experiment changed, in its order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.sim.level import DEVICES, LIMITS, TUNED, Level, folder, play_level

__all__ = ["folder"]
PANIC = "panic: timed out waiting for domain to be defined"
BLOG_OVERHEAD = 302010368
"""Bytes: the about 288 MB of a launcher that were published."""


@pytest.fixture(scope="module")
def at_400(folder: Path) -> Level:
    return play_level(folder, 400, over=TUNED)


@pytest.mark.parametrize("count", [200, 350])
def test_untuned_110_run_at_any_higher_level_and_the_rest_is_pending(
    folder: Path, count: int
) -> None:
    level = play_level(folder, count)
    assert level.phases == {"Running": 110, "Scheduling": count - 110}
    (message,) = level.messages
    assert message.startswith("0/1 nodes are available: 1 Insufficient devices.kubevirt.io/kvm,")
    assert level.messages[message] == count - 110


@pytest.mark.parametrize(("count", "least", "most"), [(150, 0, 0), (220, 1, 20), (300, 50, 120)])
def test_with_more_devices_launchers_panic_from_about_200_on(
    folder: Path, count: int, least: int, most: int
) -> None:
    level = play_level(folder, count, over=DEVICES)
    assert least <= level.launcher_ends[PANIC] <= most
    assert level.phases["Failed"] == level.launcher_ends[PANIC]
    assert level.running == count - level.phases["Failed"]


@pytest.mark.parametrize("seed", [0, 1])
def test_with_a_longer_timeout_on_docker_353_of_500_run_and_the_others_cannot_be_killed(
    folder: Path, seed: int
) -> None:
    level = play_level(folder, 500, "blog-2021-docker", TUNED, seed)
    assert abs(level.running - 353) <= 5
    assert not level.messages
    others = level.sent.keys() - level.ran.keys()
    for name in others:
        assert {"FailedKillPod", "FailedCreatePodSandBox"} <= level.told[name]


def test_with_the_published_overhead_memory_refuses_some_on_docker_first(folder: Path) -> None:
    over: Any = {**TUNED, "kubevirt": {**TUNED["kubevirt"]}}
    over["kubevirt"]["launcher"] = {"overhead": BLOG_OVERHEAD}
    level = play_level(folder, 500, "blog-2021-docker", over)
    assert abs(level.running - 353) <= 5
    refused = level.messages["0/1 nodes are available: 1 Insufficient memory."]
    assert 60 <= refused <= 70
    stuck = {name for name, reasons in level.told.items() if "FailedKillPod" in reasons}
    assert len(stuck - level.ran.keys()) == 500 - level.running - refused


def test_on_containerd_400_run(at_400: Level) -> None:
    assert at_400.phases == {"Running": 400}


def test_beyond_memory_refuses_the_rest(folder: Path) -> None:
    level = play_level(folder, 450, over={**TUNED, "times": {"guest_demand": 0}})
    assert level.messages == {"0/1 nodes are available: 1 Insufficient memory.": 450 - 434}
    assert level.running == 434


def test_a_kubelet_with_110_pods_takes_no_more(folder: Path) -> None:
    level = play_level(folder, 130, over={**TUNED, "node": {"max_pods": 110}})
    assert level.phases == {"Running": 110, "Scheduling": 20}
    assert level.messages == {"0/1 nodes are available: 1 Too many pods.": 20}


def test_a_pod_network_of_24_bits_has_254_addresses(folder: Path) -> None:
    more = {"node": {"pod_network_prefix": 24}, "times": {"guest_demand": 0}}
    level = play_level(folder, 260, over={**TUNED, **more})
    assert level.running == 254
    for name in level.sent.keys() - level.ran.keys():
        assert "FailedCreatePodSandBox" in level.told[name]


def test_clients_of_5_requests_a_second_slow_creation_down(folder: Path) -> None:
    slow = {**LIMITS, "controller": {"qps": 5, "burst": 10}}
    quick: Any = {**TUNED, "times": {"guest_demand": 0}}
    before = play_level(folder, 100, over=quick)
    after = play_level(folder, 100, over={**quick, "rate_limits": slow})
    assert before.running == after.running == 100
    # virt-controller needs about 5.5 requests of a VMI until it is Scheduled.
    assert after.p95() > 100 * 5 / 5 * 0.95 - 5
    assert before.p95() < after.p95()


# Tuned, on containerd ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_p95_at_100_is_the_published_200_seconds(folder: Path, seed: int) -> None:
    level = play_level(folder, 100, over=TUNED, seed=seed)
    assert level.p95() == pytest.approx(200, rel=0.1)


@pytest.mark.parametrize("seed", [0, 1])
def test_p95_at_200_is_at_the_end_of_the_histogram_of_2021(folder: Path, seed: int) -> None:
    assert 540 <= play_level(folder, 200, over=TUNED, seed=seed).p95() <= 720


@pytest.mark.parametrize("seed", [1, 2])
def test_48_start_in_the_busiest_minute_at_300(folder: Path, seed: int) -> None:
    level = play_level(folder, 300, over=TUNED, seed=seed)
    assert level.busiest_minute() == pytest.approx(48, rel=0.1)


def test_48_start_in_the_busiest_minute_at_400_too(at_400: Level) -> None:
    assert at_400.busiest_minute() == pytest.approx(48, rel=0.1)


def test_it_is_the_guests_that_slow_the_start_of_others_down(folder: Path) -> None:
    idle = play_level(folder, 100, over={**TUNED, "times": {"guest_demand": 0.01}})
    hungry = play_level(folder, 100, over=TUNED)
    assert idle.p95() < 0.7 * hungry.p95()


# Another version --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_kubevirt_19_starts_100_as_fast_as_it_publishes(folder: Path, seed: int) -> None:
    level = play_level(folder, 100, "modern", seed=seed, qps=10)
    assert level.p95() == pytest.approx(28, rel=0.1)
