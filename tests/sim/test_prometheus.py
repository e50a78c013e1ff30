"""A real Prometheus reads the embedded cluster: scraping it, and from a record of a virtual run."""

from __future__ import annotations

import asyncio
import datetime
import json
import math
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.sim.resources import KUBEVIRTS, VMIS
from tests import prometheus, standalone
from tests.sim.asker import OF_VMIS, Asker
from tests.sim.staging import template
from tests.sim.test_metrics import run

Json = dict[str, Any]
FROM_CREATION = "kubevirt_vmi_phase_transition_time_from_creation_seconds"
VMIS_PATH = "/apis/kubevirt.io/v1/namespaces/default/virtualmachineinstances"
COUNT = 12
CREATED = 'rest_client_requests_total{container="virt-controller",resource="pods",verb="CREATE"}'
KEPT = ["kubevirt_vmi_*", "rest_client_requests", "kubelet_running_pods"]


def config(cluster: standalone.Standalone) -> str:
    """Scrape the API server, and through its proxies the kubelet and KubeVirt's pods."""
    address = cluster.url.removeprefix("http://")
    kubelet = {"__metrics_path__": "/api/v1/nodes/node/proxy/metrics"}
    pods = []
    for each in fetch(cluster, "/api/v1/namespaces/kubevirt/pods"):
        name = each["metadata"]["name"]
        path = f"/api/v1/namespaces/kubevirt/pods/https:{name}:8443/proxy/metrics"
        labels = {"pod": name, "container": each["spec"]["containers"][0]["name"]}
        pods.append(
            {"targets": [address], "labels": {**labels, "instance": name, "__metrics_path__": path}}
        )
    jobs = {
        "apiserver": [{"targets": [address]}],
        "kubelet": [{"targets": [address], "labels": kubelet}],
        "kubevirt-prometheus-metrics": pods,
    }
    return yaml.safe_dump(
        {
            "global": {"scrape_interval": "500ms"},
            "scrape_configs": [
                {"job_name": name, "static_configs": static} for name, static in jobs.items()
            ],
        }
    )


def fetch(cluster: standalone.Standalone, path: str) -> list[Json]:
    with urllib.request.urlopen(cluster.url + path, timeout=60) as answer:  # noqa: S310
        items: list[Json] = json.load(answer)["items"]
        return items


def quantile(share: float, values: Sequence[float], bounds: Sequence[float]) -> float:
    """What `histogram_quantile` says of values that were sorted into these buckets."""
    rank = share * len(values)
    below = 0.0
    for low, high in zip((0.0, *bounds), (*bounds, math.inf), strict=False):
        count = sum(low < each <= high or (each == low == 0) for each in values)
        if below + count >= rank:
            if math.isinf(high):
                return low
            return low + (high - low) * (rank - below) / count
        below += count
    raise AssertionError


def from_creation(vmi: Json, phase: str) -> float:
    read = datetime.datetime.fromisoformat
    (stamp,) = [
        each["phaseTransitionTimestamp"]
        for each in vmi["status"]["phaseTransitionTimestamps"]
        if each["phase"] == phase
    ]
    return (read(stamp) - read(vmi["metadata"]["creationTimestamp"])).total_seconds()


def test_prometheus_finds_and_scrapes_the_components(tmp_path: Path) -> None:
    with (
        standalone.running(tmp_path) as cluster,
        prometheus.running(tmp_path, config(cluster)) as server,
    ):
        server.wait_for("count(up == 1)", 7)
        for index in range(COUNT):
            obj = {**OF_VMIS, **template()}
            obj["metadata"] = {"name": f"v{index}"}
            cluster.post(VMIS_PATH, obj)
        running = f'{FROM_CREATION}_count{{phase="Running"}}'
        server.wait_for(f"sum({running})", COUNT)
        times = [from_creation(each, "Running") for each in fetch(cluster, VMIS_PATH)]
        assert server.value(f'sum({FROM_CREATION}_sum{{phase="Running"}})') == sum(times)
        bounds = (0.5, 1, 2, 5, 10, 20, 30, 40, 50, 60, 90, 120, 180, 300, 600)
        p95 = f'histogram_quantile(0.95, sum by (le) ({FROM_CREATION}_bucket{{phase="Running"}}))'
        assert server.value(p95) == pytest.approx(quantile(0.95, times, bounds))
        server.wait_for('sum(kubevirt_vmi_phase_count{phase="running"})', COUNT)
        server.wait_for(
            'apiserver_request_total{resource="virtualmachineinstances",verb="POST"}', COUNT
        )
        server.wait_for("kubelet_running_pods", COUNT)
        server.wait_for(f"sum({CREATED})", COUNT)


TUNED = {
    "configuration": {
        "virtualMachineInstancesPerNode": 1000,
        **{
            f"{name}Configuration": {
                "restClient": {
                    "rateLimiter": {"tokenBucketRateLimiter": {"qps": 200, "burst": 400}}
                }
            }
            for name in ("api", "controller", "handler", "webhook")
        },
    },
    "customizeComponents": {"flags": {"controller": {"launcher-qemu-timeout": "3000"}}},
}


def recorded(level: int) -> tuple[str, float, list[float]]:
    """A burst on the tuned node of 2021, as OpenMetrics; when it ended, and how long each took."""
    found: list[tuple[str, float, list[float]]] = []

    async def work(ask: Asker) -> None:
        cluster = ask.cluster
        spec = {"spec": TUNED}
        merge = "application/merge-patch+json"
        cluster.api.patch(KUBEVIRTS, "kubevirt", "kubevirt", spec, merge)
        await asyncio.sleep(120)
        assert (await ask("POST", "/_sim/openmetrics", {"every": 15, "names": KEPT}))[0] == 201
        await asyncio.sleep(60)
        for index in range(level):
            obj = {**OF_VMIS, **template()}
            obj["metadata"] = {"name": f"v{index}"}
            cluster.api.create(VMIS, "default", obj)
            await asyncio.sleep(0.05)
        await asyncio.sleep(1800)
        times = [from_creation(each.obj, "Running") for each in cluster.store.all(VMIS)]
        status, text = await ask("GET", "/_sim/openmetrics")
        assert status == 200
        found.append((text, cluster.api.calendar.true_time(), times))

    clock = VirtualClock()
    run(clock, work, "blog-2021")
    clock.close()
    return found[0]


def test_a_virtual_run_is_read_at_its_virtual_times(tmp_path: Path) -> None:
    text, end, times = recorded(200)
    assert text.endswith("# EOF\n")
    tsdb = prometheus.backfill(text, tmp_path)
    with prometheus.running(tmp_path, prometheus.NOTHING_TO_SCRAPE, tsdb) as server:
        running = f'{FROM_CREATION}_count{{phase="Running"}}'
        assert server.value(f"sum({running})", end) == 200
        assert server.value(f"sum({running})", end + 3600) is None
        assert datetime.datetime.fromtimestamp(end, datetime.UTC).year == 2021
        halfway = server.value(f"sum({running})", end - 1500)
        assert halfway is not None
        assert 0 < halfway < 200
        bucket = f'{FROM_CREATION}_bucket{{phase="Running"}}'
        # The published figure: the largest bucket of 2021 ends at ten minutes, and so does p95.
        assert sum(each > 600 for each in times) > 10
        assert server.value(f"histogram_quantile(0.95, sum by (le) ({bucket}))", end) == 600
        increased = f"sum by (le) (increase({bucket}[40m]))"
        assert server.value(f"histogram_quantile(0.95, {increased})", end) == 600
        p50 = server.value(f"histogram_quantile(0.5, sum by (le) ({bucket}))", end)
        bounds = (0.5, 1, 2, 5, 10, 20, 30, 40, 50, 60, 90, 120, 180, 300, 600)
        assert p50 == pytest.approx(quantile(0.5, times, bounds))
        assert server.value(f"sum({CREATED})", end) == 200


def test_a_record_is_the_same_in_every_run() -> None:
    assert recorded(5) == recorded(5)


def test_a_record_begins_and_ends_on_request(clock: VirtualClock) -> None:
    async def work(ask: Asker) -> None:
        path = "/_sim/openmetrics"
        assert (await ask("GET", path))[0] == 404
        status, told = await ask("POST", path, {"every": 0})
        assert status == 400
        assert "every" in told["message"]
        assert (await ask("POST", path))[1] == {"every": 15, "names": ["*"]}
        await asyncio.sleep(46)
        _, text = await ask("GET", path)
        stamps = {
            line.rsplit(" ", 1)[1]
            for line in text.splitlines()
            if line.startswith("kubelet_running_pods{")
        }
        assert len(stamps) == 4
        await ask("POST", "/_sim/faults", {"kind": "kill", "component": "kubelet", "seconds": 60})
        await asyncio.sleep(30)
        _, text = await ask("GET", path)
        assert sum(line.startswith("kubelet_running_pods{") for line in text.splitlines()) == 4
        assert (await ask("DELETE", path))[1] == {"samples": 6}
        assert (await ask("GET", path))[0] == 404

    run(clock, work)
