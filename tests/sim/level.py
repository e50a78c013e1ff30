"""One level on the embedded cluster, without the harness: VMIs made 20 a second, and what came."""

from __future__ import annotations

import asyncio
import bisect
import collections
import dataclasses
from pathlib import Path

import pytest
import yaml

from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.sim import profile
from pytest_kvscale.sim.cluster import EmbeddedCluster
from pytest_kvscale.sim.resources import EVENTS, PODS, VMIS
from pytest_kvscale.sim.store import Event
from tests.sim.staging import Json

QUIET = 1100.0
"""Seconds without a change of a VMI or pod after which a level is over: longer than timeouts."""
LIMITS = {name: {"qps": 200, "burst": 400} for name in ("api", "controller", "handler")}
DEVICES: Json = {"kubevirt": {"max_devices": 1000}}
TUNED: Json = {"kubevirt": {"max_devices": 1000, "qemu_timeout": 900}, "rate_limits": LIMITS}


@dataclasses.dataclass(frozen=True)
class Level:
    """What became of a level's VMIs."""

    sent: dict[str, float]
    ran: dict[str, float]
    """When each VMI was seen Running; seconds of the cluster."""
    phases: collections.Counter[str]
    """How many VMIs are in which phase at the end."""
    told: dict[str, set[str]]
    """Reasons of events, by the VMI they are about, itself or its pod."""
    messages: collections.Counter[str]
    """Of refusals by the scheduler."""
    launcher_ends: collections.Counter[str]
    """First lines of what launchers ended with."""

    @property
    def running(self) -> int:
        return self.phases["Running"]

    def p95(self) -> float:
        """Nearest rank over all that were asked for."""
        times = sorted(self.ran[name] - self.sent[name] for name in self.ran)
        return times[-(-95 * len(self.sent) // 100) - 1]

    def busiest_minute(self) -> int:
        moments = sorted(self.ran.values())
        return max(bisect.bisect_left(moments, at + 60) - i for i, at in enumerate(moments))


def play_level(
    folder: Path, count: int, base: str = "blog-2021", over: Json | None = None,
    seed: int = 0, qps: float = 20,
) -> Level:  # fmt: skip
    """Make so many VMIs on a cluster of this profile, and wait until nothing changes."""
    path = folder / "level.yaml"
    path.write_text(yaml.safe_dump({"extends": base, **(over or {})}), encoding="utf-8")
    sent: dict[str, float] = {}
    ran: dict[str, float] = {}
    found: list[Level] = []

    async def whole() -> None:
        cluster, loop = EmbeddedCluster(profile.load(str(path)), "test", seed), _loop()
        moved = [0.0]

        def note(event: Event) -> None:
            vmi = event.stored.obj
            moved[0] = loop.time()
            if vmi["status"]["phase"] == "Running":
                ran.setdefault(vmi["metadata"]["name"], loop.time())

        def note_pod(_: Event) -> None:
            moved[0] = loop.time()

        cluster.store.listen(VMIS, note)
        cluster.store.listen(PODS, note_pod)
        for index in range(count):
            name = f"density-{index:04}"
            sent[name] = loop.time()
            cluster.api.create(VMIS, "default", vmi(name))
            await asyncio.sleep(1 / qps)
        while loop.time() - moved[0] < QUIET and len(ran) < count:  # noqa: ASYNC110 - a quiet time
            await asyncio.sleep(10)
        found.append(_look(cluster, sent, ran))
        failure = cluster.team.failure
        await cluster.stop()
        if failure.done():
            failure.result()

    clock = VirtualClock()
    try:
        clock.run(whole())
    finally:
        clock.close()
    return found[0]


def _look(cluster: EmbeddedCluster, sent: dict[str, float], ran: dict[str, float]) -> Level:
    told: dict[str, set[str]] = {}
    messages: collections.Counter[str] = collections.Counter()
    for event in (stored.obj for stored in cluster.store.all(EVENTS)):
        about = event["involvedObject"]["name"]
        name = about.removeprefix("virt-launcher-").rpartition("-")[0] if "virt" in about else about
        told.setdefault(name, set()).add(event["reason"])
        if event["reason"] == "FailedScheduling":
            messages[event["message"]] += 1
    ends = collections.Counter(_words(stored.obj) for stored in cluster.store.all(PODS))
    del ends[""]
    phases = collections.Counter(
        stored.obj["status"]["phase"] for stored in cluster.store.all(VMIS)
    )
    return Level(sent, ran, phases, told, messages, ends)


def _words(pod: Json) -> str:
    for status in pod["status"].get("containerStatuses") or []:
        if status["name"] == "compute" and "terminated" in status["state"]:
            return str(status["state"]["terminated"].get("message", "")).partition("\n")[0]
    return ""


def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def vmi(name: str, **domain: object) -> Json:
    """The VMI of the published experiment."""
    requests = {"cpu": "10m", "memory": "10Mi"}
    return {
        "metadata": {"name": name},
        "spec": {
            "domain": {"resources": {"requests": requests}, **domain},
            "volumes": [{"name": "disk", "containerDisk": {"image": "cirros:1"}}],
            "terminationGracePeriodSeconds": 180,
        },
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for a module's profiles."""
    return tmp_path_factory.mktemp("level")
