"""A whole run, settings included, on an embedded cluster where anything may go wrong."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import random
from pathlib import Path
from typing import Any

from pytest_kvscale.cluster import journal as journals
from pytest_kvscale.cluster import recovery, templates, tuning
from pytest_kvscale.cluster.client import ApiError, LostConnectionError
from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.cluster.journal import Journal
from pytest_kvscale.cluster.journal_disk import Folder
from pytest_kvscale.cluster.journal_level import Noted
from pytest_kvscale.cluster.lease import Turn
from pytest_kvscale.cluster.tuner import Tuner
from pytest_kvscale.cluster.tuning import TuningError
from pytest_kvscale.density import LevelPlan, LevelRun
from pytest_kvscale.sim import fault_kinds, resources
from pytest_kvscale.sim.profile import load
from tests.cluster import trouble

Json = dict[str, Any]
LEVEL = 12
LONGEST = 12 * 3600.0
"""Seconds of cluster time after which a run hangs."""
OVER = 600.0
"""Seconds until the next run, in which what was under way comes to its end."""


@dataclasses.dataclass(frozen=True)
class Remains:
    """What is left after a run with trouble, and the run after it."""

    spec_before: Json
    spec: Json
    left: list[str]
    made: list[str]
    """Names of the VMIs the API created; one created twice stands there twice."""
    accounted: list[str]
    """Names of the VMIs the run knows of."""
    killed: bool
    problem: str


def faults(seed: int) -> list[Json]:
    """Faults of any kind at random moments of a run that takes about a minute."""
    dice = random.Random(seed)
    kinds = dice.choices(sorted(trouble._MAKERS), k=dice.randint(1, 5))
    return [
        {"kind": kind, "seed": seed, "after": round(dice.uniform(0, 60), 2),
         **trouble._MAKERS[kind](dice)}
        for kind in kinds
    ]  # fmt: skip


def play(folder: Path, seed: int) -> Remains:
    """A run with the faults of a seed; one in three is killed at a random moment."""
    clock = VirtualClock()
    try:
        return clock.run(_play(folder, seed))
    finally:
        clock.close()


async def _play(folder: Path, seed: int) -> Remains:
    dice = random.Random(~seed)
    walls = trouble.WALLS if seed % 4 == 0 else ""
    profile = load(str(trouble.profile(folder, walls)))
    async with trouble.a_cluster(profile) as (cluster, client):
        store, made = cluster.store, list[str]()
        before = copy.deepcopy(dict(_kubevirt(cluster)))

        def count(event: Any) -> None:
            if event.type == "ADDED":
                made.append(event.stored.obj["metadata"]["name"])

        store.listen(resources.VMIS, count)
        for each in faults(seed):
            cluster.faults.add(fault_kinds.read(each))
        run = _Run(client, folder / f"state-{seed}")
        async with asyncio.timeout(LONGEST):
            work = asyncio.create_task(run.whole())
            killed = seed % 3 == 0
            if killed:
                await asyncio.wait((work,), timeout=dice.uniform(0, 60))
                killed = not work.done()
                run.die()
            await asyncio.wait((work,))
        if not killed:
            work.result()
        cluster.faults.remove()
        await asyncio.sleep(OVER)
        await _next_run(client, folder / f"state-{seed}")
        left = [
            each.obj["metadata"]["name"]
            for kind in (resources.VMIS, resources.PODS)
            for each in store.all(kind, "n")
        ]
        if store.get(resources.NAMESPACES, "", "n") is not None:
            left.append("the namespace")
        left += [each.obj["metadata"]["name"] for each in
                 store.all(resources.CONFIG_MAPS, "kvscale-system")]  # fmt: skip
        known = list(run.level.observer.timelines) if run.level is not None else []
        return Remains(before, dict(_kubevirt(cluster)), left, made, known, killed, run.problem)


def _kubevirt(cluster: Any) -> Json:
    spec: Json = cluster.store.get(resources.KUBEVIRTS, "kubevirt", "kubevirt").obj["spec"]
    return spec


async def _next_run(client: Any, state: Path) -> None:
    found = await journals.unfinished(client, "u", Folder(state), "next", alone=True)
    for record in found:
        await recovery.undo(client, record, 3600)
        journal = Journal(client, record.run, "u", Folder(state))
        journal.record = record
        await journal.after(objects=None, tuning=None)


class _Run:
    """One run: settings, a level, settings back."""

    def __init__(self, client: Any, state: Path) -> None:
        self._client = client.apart("run")
        self._journal = Journal(self._client, "r", "u", Folder(state))
        self.level: LevelRun | None = None
        self.problem = ""

    def die(self) -> None:
        """Nothing that this run sends gets out any more."""
        for each in (self._client, self._journal._client):
            each.server = "http://127.0.0.1:9"

    async def whole(self) -> None:
        """All of it; what goes wrong is kept, not raised."""
        client = self._client
        tuner = Tuner(client, self._journal, "node")
        try:
            await tuner.apply(tuning.load("density"))
            await self._levels()
            await tuner.put_back()
        except (TuningError, *_LOST) as problem:
            self.problem = f"{type(problem).__name__}: {problem}"

    async def _levels(self) -> None:
        client = self._client
        place = templates.Place("r", "n", "node", {"kubernetes.io/hostname": "node"})
        objects = templates.Templates([], {}).level(LEVEL, place)
        plan = LevelPlan(
            level=LEVEL, place=place, objects=objects, qps=20, burst=5, timeout=3600, stall=400,
            delete_timeout=1800,
        )  # fmt: skip
        notes = Noted(self._journal, "level", "n", own=True, objects=objects)
        self.level = LevelRun(client, plan, Turn(client, "r"), notes)
        await self.level.run()
        self.problem = self.level.problem


_LOST = (ApiError, LostConnectionError, TimeoutError)
