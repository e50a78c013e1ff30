"""A level on an embedded cluster that makes trouble, and what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import json
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from pytest_kvscale.cluster import templates
from pytest_kvscale.cluster.client import NAMESPACES, Client
from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.cluster.lease import Turn
from pytest_kvscale.density import LevelPlan, LevelRun
from pytest_kvscale.judge.verdict import DensityResult, judge
from pytest_kvscale.measure.figures import row
from pytest_kvscale.sim import fault_kinds, resources
from pytest_kvscale.sim.cluster import EmbeddedCluster
from pytest_kvscale.sim.profile import Profile, load
from pytest_kvscale.sim.store import Event

Json = dict[str, Any]
LEVEL = 20
LONGEST = 6 * 3600.0
"""Seconds of cluster time after which a run hangs."""
OUTLINE = """
extends: fast
node: {{heartbeat: 10}}
times:
  sandbox_retry: 20
  sandbox_deadline: 10
  sandbox: {{parallel: 4, work: 1.2, spread: 0.2}}
  launcher: {{parallel: 4, work: 1.2, spread: 0.2}}
faults: {{{shares}}}
"""
WALLS = "create_rejected: 0.1, sandbox_timeout: 0.1, launcher_crash: 0.1, kill_pod_sandbox: 0.1"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a level."""

    result: DensityResult
    rows: list[Json]
    problem: str
    made: list[str]
    """Names of the VMIs the API created, in order; one created twice stands there twice."""
    left: list[str]
    """VMIs, pods and namespaces of the run that are still there."""
    happened: list[int]
    """How often each fault befell something."""
    took: float

    def summary(self) -> Json:
        """All that must be the same as without faults."""
        figures = self.result.figures
        return {
            "verdict": self.result.verdict,
            "requested": figures.requested,
            "created": figures.created,
            "running": figures.running,
            "deleted": figures.deleted,
            "left_behind": figures.left_behind,
            "classes": {name: each.name for name, each in sorted(self.result.findings.items())},
            "made": sorted(self.made),
            "told": [each["name"] for each in self.rows],
            "left": self.left,
            "problem": self.problem,
        }

    def text(self) -> str:
        """All of it, as text."""
        level = [self.summary(), self.rows, self.happened, self.took, self.result.ended]
        return json.dumps(level, default=str)


def profile(folder: Path, shares: str = "") -> Path:
    """A small fast node on which such shares of the VMIs fail."""
    path = folder / "small.yaml"
    path.write_text(OUTLINE.format(shares=shares), encoding="utf-8")
    return path


def play(
    sim_profile: Path, faults: Sequence[Json] = (), level: int = LEVEL, kept: bool = False,
    **plan: Any,
) -> Outcome:  # fmt: skip
    """Run a level; `kept` is in a namespace that was there before."""
    clock = VirtualClock()
    try:
        return clock.run(_play(_load(sim_profile), faults, level, kept, plan))
    finally:
        clock.close()


@functools.cache
def _load(path: Path) -> Profile:
    return load(str(path))


@contextlib.asynccontextmanager
async def a_cluster(profile: Profile) -> AsyncIterator[tuple[EmbeddedCluster, Client]]:
    """An embedded cluster and a client of it; what breaks in the cluster is raised."""
    cluster = EmbeddedCluster(profile, "small", 0)
    await cluster.start()
    session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
    task = asyncio.current_task()
    assert task is not None
    cluster.team.failure.add_done_callback(lambda _: task.cancel())
    try:
        yield cluster, Client(session, cluster.url, {"User-Agent": "pytest-kvscale"})
    except asyncio.CancelledError:
        if cluster.team.failure.done():
            cluster.team.failure.result()
        raise
    finally:
        await session.close()
        await cluster.stop()
    assert cluster.server.problem is None


async def _play(
    chosen: Profile, faults: Sequence[Json], level: int, kept: bool, more: Json
) -> Outcome:
    async with a_cluster(chosen) as (cluster, client):
        return await _level(cluster, client, faults, level, kept, more)


async def _level(
    cluster: EmbeddedCluster, client: Client, faults: Sequence[Json], level: int, kept: bool,
    more: Json,
) -> Outcome:  # fmt: skip
    store = cluster.store
    if kept:
        await client.create(NAMESPACES, "", {"metadata": {"name": "n"}})
    made: list[str] = []

    def count(event: Event) -> None:
        if event.type == "ADDED":
            made.append(event.stored.obj["metadata"]["name"])

    store.listen(resources.VMIS, count)
    active = [cluster.faults.add(fault_kinds.read(each)) for each in faults]
    place = templates.Place("r", "n", "node", {"kubernetes.io/hostname": "node"})
    plan = LevelPlan(
        level=level, place=place, objects=templates.Templates([], {}).level(level, place),
        **{"qps": 20, "burst": 5, "timeout": 3600, "stall": 400, "delete_timeout": 1800, **more},
    )  # fmt: skip
    running = LevelRun(client, plan, Turn(client, "r"))
    start = asyncio.get_running_loop().time()
    async with asyncio.timeout(LONGEST):
        await running.run()
    took = round(asyncio.get_running_loop().time() - start, 6)
    result = judge(level, running.figures(), ended=running.ended, problem=running.problem)
    left = [
        each.obj["metadata"]["name"]
        for kind in (resources.VMIS, resources.PODS)
        for each in store.all(kind, "n")
    ]
    if not kept and store.get(resources.NAMESPACES, "", "n") is not None:
        left.append("n")
    rows = []
    for timeline in result.figures.timelines:
        finding = result.findings.get(timeline.name)
        name, evidence = (finding.name, finding.evidence) if finding else (None, ())
        rows.append(row(timeline, name, evidence))
    return Outcome(
        result, rows, running.problem, made, left, [each.happened for each in active], took
    )


def survivable(seed: int) -> list[Json]:
    """One to four faults at random that a run has to survive."""
    dice = random.Random(seed)
    kinds = dice.choices(sorted(_MAKERS), k=dice.randint(1, 4))
    return [
        {"kind": kind, "seed": seed, "after": round(dice.uniform(0, 8), 2), **_MAKERS[kind](dice)}
        for kind in kinds
    ]


def _requests(dice: random.Random) -> Json:
    found: Json = {
        "share": round(dice.uniform(0.2, 1), 2),
        "verbs": dice.choice([[], ["create"], ["list", "watch"], ["deletecollection", "delete"]]),
    }
    found[dice.choice(["times", "lasts"])] = dice.randint(1, 30)
    return found


def _moments(dice: random.Random) -> Json:
    return {"times": dice.randint(1, 3), "every": round(dice.uniform(0.2, 5), 2)}


def _events(dice: random.Random) -> Json:
    return {"share": round(dice.uniform(0.05, 0.6), 2)}


def _answer(dice: random.Random) -> Json:
    found = {**_requests(dice), "status": dice.choice([429, 500, 503, 504])}
    if found["status"] == 429:
        found["retry_after"] = dice.randint(0, 5)
        found["callers"] = dice.choice(["clients", "players", "all"])
    else:
        found["carried_out"] = dice.random() < 0.5
    return found


_MAKERS: dict[str, Any] = {
    "answer": _answer,
    "delay": lambda dice: {**_requests(dice), "seconds": round(dice.uniform(0.1, 58), 2)},
    "cut": lambda dice: {
        **_requests(dice), "when": dice.choice(["before", "middle", "after"]),
    },
    "close-watches": lambda dice: {**_moments(dice), "how": dice.choice(["end", "reset"])},
    "silence-watches": _moments,
    "compact": lambda dice: {**_moments(dice), "running_watches": dice.random() < 0.5},
    "drop-events": _events,
    "duplicate-events": _events,
    "reorder-events": lambda dice: {**_events(dice), "seconds": round(dice.uniform(0.01, 5), 2)},
    "restart": lambda dice: {
        "times": 2, "every": 40, "seconds": round(dice.uniform(0.5, 25), 2),
    },
}  # fmt: skip
