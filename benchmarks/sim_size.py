"""What many VMIs on many embedded nodes cost: created, run and deleted in virtual time.

The harness is left out (the benchmark `level` has it): VMIs are made through the API, 100 a
second, and a listener counts them.
"""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.options import Options
from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.sim import profile
from pytest_kvscale.sim.api import Query
from pytest_kvscale.sim.cluster import EmbeddedCluster
from pytest_kvscale.sim.resources import VMIS
from pytest_kvscale.sim.store import Event

SIZES = ((400, 1), (1_000, 3), (3_000, 8), (10_000, 25))
"""VMIs and nodes."""
_PROFILE = """\
extends: blog-2021
description: nodes of the published experiment, tuned
node: {{count: {nodes}}}
rate_limits:
  api: {{qps: 200, burst: 400}}
  controller: {{qps: 200, burst: 400}}
  handler: {{qps: 200, burst: 400}}
kubevirt: {{max_devices: 1000, qemu_timeout: 3600}}
"""


def measure(_: Options) -> None:
    """Print the figures of each size, measured in a process of its own."""
    print("the embedded cluster: VMIs on nodes of the published experiment, in virtual time")
    for vmis, nodes in SIZES:
        command = [sys.executable, "-m", "benchmarks.sim_size", str(vmis), str(nodes)]
        subprocess.run(command, check=True)


async def play(vmis: int, nodes: int) -> float:
    """Create, run and delete; returns the seconds of the cluster that took."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "size.yaml"
        path.write_text(_PROFILE.format(nodes=nodes), encoding="utf-8")
        cluster = EmbeddedCluster(profile.load(str(path)), "size", 0)
    running, gone = set[str](), set[str]()
    all_run, all_gone = asyncio.Event(), asyncio.Event()

    def note(event: Event) -> None:
        uid = event.stored.obj["metadata"]["uid"]
        if event.type == "DELETED":
            gone.add(uid)
        elif event.stored.obj["status"]["phase"] == "Running":
            running.add(uid)
        if len(running) == vmis:
            all_run.set()
        if len(gone) == vmis:
            all_gone.set()

    cluster.store.listen(VMIS, note)
    for index in range(vmis):
        cluster.api.create(VMIS, "default", _vmi(index))
        await asyncio.sleep(0.01)
    await all_run.wait()
    cluster.api.delete_collection(VMIS, Query("default"))
    await all_gone.wait()
    took = asyncio.get_running_loop().time()
    await cluster.stop()
    if cluster.team.failure.done():
        cluster.team.failure.result()
    return took


def _vmi(index: int) -> dict[str, object]:
    requests = {"cpu": "10m", "memory": "10Mi"}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": f"density-{index:05}", "labels": {"kvscale.io/run": "size"}},
        "spec": {
            "domain": {"resources": {"requests": requests}},
            "volumes": [{"name": "disk", "containerDisk": {"image": "cirros:1"}}],
            "terminationGracePeriodSeconds": 180,
        },
    }


def _measure_one(vmis: int, nodes: int) -> None:
    clock = VirtualClock()
    begun = time.perf_counter()
    took = clock.run(play(vmis, nodes))
    wall = time.perf_counter() - begun
    clock.close()
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(f"{vmis:6d} VMIs, {nodes} nodes, {took:.0f} s of cluster time")
    print(f"  CPU                   {used.ru_utime + used.ru_stime:8.1f} s, "
          f"{1000 * used.ru_utime / vmis:.1f} ms a VMI")  # fmt: skip
    print(f"  wall                  {wall:8.1f} s")
    print(f"  peak memory           {used.ru_maxrss / 1024:8.0f} MiB")


if __name__ == "__main__":
    _measure_one(int(sys.argv[1]), int(sys.argv[2]))
