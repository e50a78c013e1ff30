"""How fast VMIs can be created through an API: the harness beside bare aiohttp.

Both create the same objects, in one process and in turns, against a cluster given by its
kubeconfig, by default an embedded one in a process of its own with a node that has room for all:

- *bare*: 32 workers on 32 connections post bodies that were encoded beforehand, and read the
  answers. Nobody watches.
- *creator*: the harness's own way to create (`load.create.Creator`), unpaced, and nothing else.
- *level*: a whole level as the suite runs it, once: it creates unpaced while it watches VMIs, pods
  and events, waits until all run, deletes them, and waits until they are gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import aiohttp
import orjson

from benchmarks.options import Options
from pytest_kvscale.cluster import choose, facts, namespaces
from pytest_kvscale.cluster.choose import Connection
from pytest_kvscale.cluster.client import PODS, VMIS
from pytest_kvscale.cluster.clock import now
from pytest_kvscale.cluster.facts import ClusterFacts
from pytest_kvscale.cluster.settle import Mirror, Watched, until
from pytest_kvscale.cluster.templates import RUN_LABEL, Place, Planned, Templates
from pytest_kvscale.density import LevelPlan, LevelRun
from pytest_kvscale.load.create import Creator
from pytest_kvscale.measure.timeline import Creation
from pytest_kvscale.options import Settings
from pytest_kvscale.session import new_run_id

VMS, CONNECTIONS, ROUNDS = 2000, 32, 3
WANTED, MOST_CPU = 0.90, 2.0
"""Rate of the creator beside bare aiohttp; milliseconds of CPU a VMI."""
PATIENCE = 1800.0
NODE = """\
extends: fast
node: {cpu: 480, memory: 2Ti, max_pods: 9000, pod_network_prefix: 18}
kubevirt: {max_devices: 9000}
rate_limits:
  api: &limit {qps: 5000, burst: 5000}
  controller: *limit
  handler: *limit
  kubelet: *limit
"""


@dataclasses.dataclass
class Round:
    """What one way to create did once."""

    rate: float
    """VMIs a second, from the first send to the last answer."""
    cpu: float
    """Milliseconds of this process's CPU a VMI."""
    all_cpu: float = 0.0
    """The same, until all were gone."""


class Never:
    """A turn that is not lost."""

    def __init__(self) -> None:
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()


class TimedRun(LevelRun):
    """A level that notes the CPU seconds of the process when all its VMIs run."""

    cpu_at_end = 0.0

    def _end_level(self) -> None:
        self.cpu_at_end = time.process_time()
        super()._end_level()


def measure(options: Options) -> None:
    """Print rates, their ratio, CPU and memory."""
    with _cluster(options.kubeconfig) as kubeconfig:
        settings = Settings(cluster="kube", kubeconfig=kubeconfig, allow_simulated=True)
        connection = choose.connect(settings)
        try:
            rounds = _play(connection)
            server = connection.identity.text()
        finally:
            connection.close()
    bare, creator, (level,) = _median(rounds["bare"]), _median(rounds["creator"]), rounds["level"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{VMS} VMIs as fast as possible on {server}, median of {ROUNDS} rounds in turns")
    _print(f"bare aiohttp, {CONNECTIONS} connections", bare)
    _print("the harness, creating", creator)
    _print("the harness, a whole level", level)
    ratio = statistics.median(
        mine.rate / theirs.rate
        for mine, theirs in zip(rounds["creator"], rounds["bare"], strict=True)
    )
    print(f"  creating : bare       {ratio:8.2f}   (wanted: at least {WANTED:.2f})")
    print(f"  level : bare          {level.rate / bare.rate:8.2f}")
    print(f"  CPU of a level        {level.cpu:8.2f} ms a VMI until all run "
          f"(wanted: at most {MOST_CPU:g}), {level.all_cpu:.2f} until all are gone")  # fmt: skip
    print(f"  peak memory           {peak:8.0f} MiB")


def _print(what: str, found: Round) -> None:
    print(f"  {what:<29} {found.rate:6.0f} VMIs/s, {found.cpu:5.2f} ms of CPU a VMI")


def _median(rounds: Sequence[Round]) -> Round:
    return Round(
        statistics.median(each.rate for each in rounds),
        statistics.median(each.cpu for each in rounds),
    )


@contextlib.contextmanager
def _cluster(kubeconfig: Path | None) -> Iterator[Path]:
    if kubeconfig is not None:
        yield kubeconfig
        return
    with tempfile.TemporaryDirectory() as folder:
        profile, path = Path(folder, "roomy.yaml"), Path(folder, "kubeconfig.yaml")
        profile.write_text(NODE, encoding="utf-8")
        command = [sys.executable, "-m", "pytest_kvscale.sim", "--profile", str(profile),
                   "--kubeconfig", str(path)]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None  # noqa: S101 - it was asked for
            process.stdout.readline()
            try:
                yield path
            finally:
                process.terminate()


# Playing ------------------------------------------------------------------------------------


def _play(connection: Connection) -> dict[str, list[Round]]:
    templates = Templates((), {})
    found = connection.run(facts.gather(connection.client, None, {}, templates))
    ways = {"bare": _bare, "creator": _creator, "level": _level}
    rounds: dict[str, list[Round]] = {name: [] for name in ways}
    turns = ["bare", "creator", "creator", "bare"] * ROUNDS
    for number, name in enumerate([*turns[: 2 * ROUNDS], "level"]):
        run = f"bench-{number}-{new_run_id()[-6:]}"
        place = Place(run, f"kvscale-{run}", found.node["name"], dict(found.selector))
        objects = templates.level(VMS, place)
        rounds[name].append(connection.run(ways[name](connection, found, place, objects)))
    return rounds


async def _bare(
    connection: Connection, found: ClusterFacts, place: Place, objects: Sequence[Planned]
) -> Round:
    client = connection.client
    shown = await client._credentials.current()
    url = client.server + VMIS.path(place.namespace)
    bodies = [orjson.dumps(each.obj) for each in objects]
    headers = {"Content-Type": "application/json", **dict(shown._headers)}
    extra = client._extra if shown.tls is None else {**client._extra, "ssl": shown.tls}

    async def work(session: aiohttp.ClientSession) -> None:
        while bodies:
            async with session.post(url, data=bodies.pop(), headers=headers, **extra) as response:
                await response.read()
                assert response.status == 201  # noqa: S101 - else there is nothing to compare

    async with _namespace(connection, found, place):
        connector = aiohttp.TCPConnector(limit=CONNECTIONS)
        async with aiohttp.ClientSession(connector=connector) as session:
            cpu, begun = time.process_time(), now()
            await asyncio.gather(*(work(session) for _ in range(CONNECTIONS)))
            return _round(begun, cpu)


async def _creator(
    connection: Connection, found: ClusterFacts, place: Place, objects: Sequence[Planned]
) -> Round:
    def answered(_: object, __: float, code: int, message: str) -> None:
        assert code == 201, message  # noqa: S101 - else there is nothing to compare

    creator = Creator(connection.client, place.namespace, place.run, answered)
    async with _namespace(connection, found, place):
        cpu, begun = time.process_time(), now()
        creations = [Creation(each.name, begun) for each in objects]
        await creator.create_all(zip(creations, objects, strict=True), begun + PATIENCE)
        return _round(begun, cpu)


async def _level(
    connection: Connection, found: ClusterFacts, place: Place, objects: Sequence[Planned]
) -> Round:
    plan = LevelPlan(
        level=VMS, place=place, objects=tuple(objects), qps=math.inf, burst=1, timeout=PATIENCE,
        stall=PATIENCE, delete_timeout=PATIENCE, openshift=found.openshift,
    )  # fmt: skip
    running = TimedRun(connection.client, plan, Never())
    begun = time.process_time()
    await running.run()
    all_cpu, cpu = time.process_time() - begun, running.cpu_at_end - begun
    figures = running.figures()
    assert figures.running == VMS, running.problem or running.ended  # noqa: S101 - as above
    rate = figures.rates["created_per_s"] or 0.0
    return Round(rate, 1000 * cpu / VMS, 1000 * all_cpu / VMS)


def _round(begun: float, cpu: float) -> Round:
    return Round(VMS / (now() - begun), 1000 * (time.process_time() - cpu) / VMS)


def _all_gone(mirrors: Sequence[Mirror]) -> bool:
    return not any(each.objects for each in mirrors)


@contextlib.asynccontextmanager
async def _namespace(
    connection: Connection, found: ClusterFacts, place: Place
) -> AsyncIterator[None]:
    """A namespace for one round; what is created in it goes with it."""
    own = namespaces.Own(connection.client, place.namespace, place.run, found.openshift)
    made = await own.make(now() + PATIENCE)
    assert made is not None, f"there is a namespace {place.namespace}"  # noqa: S101 - as above
    try:
        yield
    finally:
        labels = f"{RUN_LABEL}={place.run}"
        await connection.client.delete_collection(VMIS, place.namespace, labels)
        wanted = [Watched(each, place.namespace) for each in (VMIS, PODS)]
        gone = await until(connection.client, wanted, _all_gone, PATIENCE)
        assert gone  # noqa: S101
        assert await namespaces.remove(connection.client, made, now() + PATIENCE)  # noqa: S101
