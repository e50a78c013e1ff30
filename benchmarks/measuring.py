"""What measuring costs: 10,000 VMIs, 500 events a second, on one core.

Lives of VMIs are those of a recorded one, under other names. *Delay*: a server in a process of its
own sends watch events with the time it sent them; the harness follows, observes and records, and
then looks at the clock (CLOCK_MONOTONIC, the same for both). *Memory*: what the observer keeps of
a VMI's whole life. *Judging*: figures, classes, objectives and files.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import multiprocessing
import os
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from benchmarks.options import Options
from pytest_kvscale.cluster.client import VMIS, Client
from pytest_kvscale.cluster.watch import Follower
from pytest_kvscale.judge.objectives import Limit, Objectives
from pytest_kvscale.judge.verdict import judge
from pytest_kvscale.measure.figures import figures
from pytest_kvscale.measure.observe import Observer
from pytest_kvscale.measure.percentiles import nearest_rank
from pytest_kvscale.measure.recording import Recorder
from pytest_kvscale.measure.timeline import Creation
from pytest_kvscale.report.results import ResultsFolder, level_object

VMS, RATE, SECONDS = 10_000, 500, 30
RECORDING = Path(__file__).parents[1] / "tests" / "data" / "a-100.jsonl.gz"
MODEL = "density-0001"
SENT = "benchmark/sent"
WANTED_DELAY, WANTED_BYTES, WANTED_JUDGING = 0.100, 4096, 5.0

Json = dict[str, Any]


def measure(options: Options) -> None:
    """Print delay, memory and the time for judging."""
    del options
    life = _life()
    print(f"{VMS} VMIs, {len(life)} events each")
    delays = sorted(_delays(life))
    p50, p99 = (nearest_rank(delays, len(delays), each) or 0.0 for each in (50, 99))
    print(f"  event to record       {1000 * p50:8.2f} ms (p50), {1000 * p99:.2f} ms (p99) at "
          f"{RATE} events a second, one core (wanted: {1000 * WANTED_DELAY:.0f})")  # fmt: skip
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    observer = _observed(life)
    kept = (tracemalloc.get_traced_memory()[0] - before) / VMS
    tracemalloc.stop()
    print(f"  kept of a VMI         {kept:8.0f} bytes (wanted: below {WANTED_BYTES})")
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        result = judge(
            VMS, figures(observer, VMS, 20.0),
            Objectives({}, {"Running p95": Limit(limit=60)}), ended="settled",
        )  # fmt: skip
        judged = time.perf_counter() - begun
        files = ResultsFolder(Path(folder), "r")
        files.write_level(result, str(VMS))
        files.write_results({"levels": [level_object(result)]})
        print(f"  judging, writing      {judged:8.2f} s, {time.perf_counter() - begun:.2f} s "
              f"together (wanted: below {WANTED_JUDGING:g} s)")  # fmt: skip


# Lives --------------------------------------------------------------------------------------


def _life() -> list[tuple[str, str, str]]:
    """The recorded events of one VMI and its pod until it runs: stream, type, object as text."""
    found, pod = [], ""
    with gzip.open(RECORDING, "rt", encoding="utf-8") as file:
        for line in map(json.loads, file):
            if line["stream"] == "delete":
                break
            event = line.get("event") or {}
            metadata = (event.get("object") or {}).get("metadata") or {}
            name, labels = metadata.get("name", ""), metadata.get("labels") or {}
            mine = name == MODEL or labels.get("vm.kubevirt.io/name") == MODEL
            if line["stream"] in ("vmis", "pods") and mine:
                pod = metadata["uid"] if line["stream"] == "pods" else pod
                found.append((line["stream"], event["type"], json.dumps(event["object"])))
    uid = json.loads(found[0][2])["metadata"]["uid"]
    return [
        (stream, kind, text.replace(MODEL, "@name").replace(uid, "@vmi").replace(pod, "@pod"))
        for stream, kind, text in found
    ]


def _of(text: str, number: int, version: int) -> Json:
    """The object of one VMI's life; every fiftieth launcher panics in the end."""
    made: Json = json.loads(
        text.replace("@name", f"vmi-{number:05d}").replace("@vmi", f"v{number}")
        .replace("@pod", f"p{number}")
    )  # fmt: skip
    made["metadata"]["resourceVersion"] = str(version)
    return made


def _observed(life: list[tuple[str, str, str]]) -> Observer:
    observer = Observer()
    for number in range(VMS):
        observer.expect(Creation(f"vmi-{number:05d}", number / 20, number / 20, number / 20 + 0.01))
    for step, (stream, kind, text) in enumerate(life):
        for number in range(VMS):
            if number % 50 or step < len(life) - 2:
                at = number / 20 + step + 1.0
                observer.take(stream, kind, _of(text, number, step + 1), at)
    end = VMS / 20 + len(life) + 10.0
    observer.end_level(end)
    observer.delete_asked(end)
    for number in range(VMS):
        for stream, uid in (("pods", f"p{number}"), ("vmis", f"v{number}")):
            observer.take(stream, "DELETED", {"metadata": {"name": uid, "uid": uid}}, end + 5)
    return observer


# Delay --------------------------------------------------------------------------------------


def _delays(life: list[tuple[str, str, str]]) -> list[float]:
    """Seconds from the sending of each event until it was recorded."""
    ours, theirs = multiprocessing.Pipe()
    serving = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, life))
    serving.start()
    try:
        with _one_core():
            return asyncio.run(_follow(ours.recv()))
    finally:
        serving.terminate()
        serving.join()


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
    all_cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(all_cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_cores)


class _Taken:
    """Observes and records what a watch tells, as a level does."""

    def __init__(self, observer: Observer, recorder: Recorder) -> None:
        self._observer = observer
        self._recorder = recorder
        self.delays: list[float] = []
        self.all = asyncio.Event()

    def listed(self, objects: list[Json], version: str, at: float, since: float | None) -> None:
        """See `watch.Receiver`."""

    def resumed(self, since: float, at: float) -> None:
        """See `watch.Receiver`."""

    def changed(self, kind: str, obj: Json, at: float) -> None:
        """See `watch.Receiver`."""
        stream = "pods" if obj["kind"] == "Pod" else "vmis"
        self._observer.take(stream, kind, obj, at)
        self._recorder.write(stream, at, event={"type": kind, "object": obj})
        self.delays.append(time.monotonic() - float(obj["metadata"]["annotations"][SENT]))
        if len(self.delays) == RATE * SECONDS:
            self.all.set()


async def _follow(url: str) -> list[float]:
    observer = Observer()
    for number in range(VMS):
        observer.expect(Creation(f"vmi-{number:05d}", 0.0, 0.0, 0.01))
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(Path(folder, "r.jsonl.gz"), 0.0)
        taken = _Taken(observer, recorder)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
            follower = Follower(Client(session, url, {}), VMIS, "n", taken)
            following = asyncio.create_task(follower.run())
            await taken.all.wait()
            following.cancel()
        recorder.close()
    return taken.delays


def _serve(told: Any, life: list[tuple[str, str, str]]) -> None:
    """Serve a list without objects, and a watch that sends events at its pace."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if "watch" not in request.query:
            return web.json_response({"metadata": {"resourceVersion": "1"}, "items": []})
        response = web.StreamResponse()
        await response.prepare(request)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for count in range(RATE * SECONDS):
            _, kind, text = life[count // VMS]
            obj = _of(text, count % VMS, count + 2)
            await asyncio.sleep(max(0.0, begun + count / RATE - loop.time()))
            obj["metadata"].setdefault("annotations", {})[SENT] = str(time.monotonic())
            await response.write(json.dumps({"type": kind, "object": obj}).encode() + b"\n")
        await asyncio.sleep(60)
        return response

    async def run() -> None:
        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        told.send(f"http://{host}:{port}")
        await asyncio.sleep(3600)

    asyncio.run(run())
