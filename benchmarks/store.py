"""What the embedded API's store costs with thousands of VMIs, their pods and their events.

Objects are written as controllers write them: a VMI is created and changed ten times, its pod six
times, and there are five events each. Then lists, pages and watches are read through `Api`.
"""

from __future__ import annotations

import asyncio
import datetime
import resource
import subprocess
import sys
import time
from typing import Any

from benchmarks.options import Options
from pytest_kvscale.sim.answers import encode_list
from pytest_kvscale.sim.api import Api, Paging, Query
from pytest_kvscale.sim.clock import Calendar
from pytest_kvscale.sim.draws import Draws
from pytest_kvscale.sim.http import Target
from pytest_kvscale.sim.resources import EVENTS, NAMESPACES, PODS, VMIS, Resource
from pytest_kvscale.sim.store import Store

SIZES = (1_000, 3_000, 10_000)
WATCHERS = 10
PAGE = 500
_CHANGES = {VMIS: 10, PODS: 6}
_EVENTS_EACH = 5


def measure(_: Options) -> None:
    """Print the figures of each size, measured in a process of its own."""
    print("store: VMIs with pods and events, times of one core")
    for size in SIZES:
        command = [sys.executable, "-m", "benchmarks.store", str(size)]
        subprocess.run(command, check=True)


async def measure_one(size: int) -> None:
    """Print the figures of one size."""
    before, store = _memory(), Store()
    epoch = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    api = Api(store, Calendar(epoch), Draws(0))
    api.create(NAMESPACES, "", {"metadata": {"name": "n"}})
    begun = time.perf_counter()
    _fill(api, size)
    filled = time.perf_counter() - begun
    writes = store.version
    listed = _timed(lambda: encode_list(_target(VMIS), api.list(VMIS, Query("n"))))
    again = _timed(lambda: encode_list(_target(VMIS), api.list(VMIS, Query("n"))))
    first, last = _pages(api)
    selected = _timed(lambda: api.list(PODS, Query("n", labels="app=none")))
    fan_out = await _fan_out(api, size)
    print(f"{size:6d} VMIs, {size} pods, {_EVENTS_EACH * size} events, {writes} writes")
    print(f"  a write               {1e6 * filled / writes:8.0f} us")
    print(f"  list, first time      {1e3 * listed:8.1f} ms")
    print(f"  list, encoded before  {1e3 * again:8.1f} ms")
    print(f"  page of {PAGE}, first    {1e3 * first:8.1f} ms")
    print(f"  page of {PAGE}, last     {1e3 * last:8.1f} ms, of a snapshot {size} writes old")
    print(f"  list by a selector    {1e3 * selected:8.1f} ms")
    print(f"  event to {WATCHERS} watchers  {1e6 * fan_out:8.0f} us, encoded")
    print(f"  memory                {_memory() - before:8.0f} MiB")


def _fill(api: Api, size: int) -> None:
    for index in range(size):
        for kind, make in ((VMIS, _vmi), (PODS, _pod)):
            obj = api.create(kind, "n", make(index))
            for step in range(_CHANGES[kind]):
                status = {**(obj.get("status") or {}), "phase": f"Phase{step}", "step": step}
                name = obj["metadata"]["name"]
                door = "status" if kind.status_subresource else ""
                obj = api.replace(kind, "n", name, {**obj, "status": status}, door)
        for number in range(_EVENTS_EACH):
            api.create(EVENTS, "n", _event(index, number))


def _pages(api: Api) -> tuple[float, float]:
    """Seconds for the first and the last page of a list, with changes between them."""
    begun = time.perf_counter()
    page = api.list(VMIS, Query("n"), Paging(limit=PAGE))
    first = time.perf_counter() - begun
    for stored in api.store.all(VMIS, "n"):
        api.store.put(VMIS, {**stored.obj, "status": {"phase": "Later"}})
    took = first
    while page.proceed:
        begun = time.perf_counter()
        page = api.list(VMIS, Query("n"), Paging(limit=PAGE, proceed=page.proceed))
        took = time.perf_counter() - begun
    return first, took


async def _fan_out(api: Api, size: int) -> float:
    """Seconds from a change to the encoded event for all watchers."""
    watches = [api.watch(VMIS, Query("n"), api.store.version) for _ in range(WATCHERS)]
    objects = [stored.obj for stored in api.store.all(VMIS, "n")][: min(size, 2000)]
    begun = time.perf_counter()
    for obj in objects:
        api.store.put(VMIS, {**obj, "status": {"phase": "Told"}})
        for watch in watches:
            for _, stored in watch.take():
                _ = stored.raw
    return (time.perf_counter() - begun) / len(objects)


def _target(kind: Resource) -> Target:
    return Target(kind, "n", "", "", kind.version)


def _timed(act: Any) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _vmi(index: int) -> dict[str, Any]:
    requests = {"cpu": "10m", "memory": "10Mi"}
    devices = {"disks": [{"name": "disk", "disk": {"bus": "virtio"}}], "interfaces": []}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": f"vmi-{index:05d}", "labels": {"kvscale.io/run": "r"}},
        "spec": {
            "domain": {"devices": devices, "resources": {"requests": requests}},
            "volumes": [{"name": "disk", "containerDisk": {"image": "cirros"}}],
            "nodeSelector": {"kubernetes.io/hostname": "node"},
        },
    }


def _pod(index: int) -> dict[str, Any]:
    container = {
        "name": "compute",
        "image": "virt-launcher",
        "command": ["/usr/bin/virt-launcher-monitor", *(f"--flag-{each}" for each in range(12))],
        "env": [{"name": f"NAME_{each}", "value": "value"} for each in range(6)],
        "volumeMounts": [{"name": f"v{each}", "mountPath": f"/v{each}"} for each in range(8)],
    }
    return {
        "metadata": {"name": f"virt-launcher-vmi-{index:05d}", "labels": {"app": "launcher"}},
        "spec": {
            "containers": [container],
            "volumes": [{"name": f"v{each}", "emptyDir": {}} for each in range(8)],
        },
    }


def _event(index: int, number: int) -> dict[str, Any]:
    about = {"kind": "Pod", "name": f"virt-launcher-vmi-{index:05d}", "namespace": "n"}
    return {
        "metadata": {"name": f"event-{index}-{number}"},
        "involvedObject": about,
        "reason": "Scheduled",
        "message": "Successfully assigned the pod to the node",
        "type": "Normal",
    }


if __name__ == "__main__":
    asyncio.run(measure_one(int(sys.argv[1])))
