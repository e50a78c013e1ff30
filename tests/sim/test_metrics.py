"""What the embedded cluster's components tell in their metrics, over HTTP, in virtual time."""

from __future__ import annotations

import asyncio
import datetime
import gzip
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.sim import profile
from pytest_kvscale.sim.metrics import naming, traffic
from pytest_kvscale.sim.metrics.histogram import Histogram, exponential, label
from pytest_kvscale.sim.resources import PODS, VMIS, VMS
from tests.conftest import DATA
from tests.sim.asker import Asker, a_cluster
from tests.sim.staging import template, vm

Json = dict[str, Any]
Work = Callable[[Asker], Coroutine[Any, Any, None]]
RECORDED = DATA / "virt-controller-metrics.txt.gz"
MODERN = """extends: fast
versions: {kubernetes: v1.36.0, kubevirt: v1.9.0}
kubevirt:
  metrics:
    phase_buckets:
      [0.5, 1, 2, 5, 10, 20, 30, 40, 50, 60, 90, 120, 180, 300, 600, 1200, 1800, 3600]
    rest_client_prefix: kubevirt_
    vmi_count: "node:kubevirt_vmi_phase:sum"
"""
FROM_CREATION = "kubevirt_vmi_phase_transition_time_from_creation_seconds"
COUNT = 30


class Scrape:
    """Samples of one exposition."""

    def __init__(self, text: str) -> None:
        self.families = {each.name: each for each in text_string_to_metric_families(text)}
        self.samples = [each for family in self.families.values() for each in family.samples]

    def values(self, metric: str, /, **labels: str) -> list[float]:
        return [
            each.value
            for each in self.samples
            if each.name == metric and labels.items() <= each.labels.items()
        ]

    def value(self, metric: str, /, **labels: str) -> float:
        (value,) = self.values(metric, **labels)
        return value

    def labels(self, name: str) -> set[str]:
        return {key for each in self.samples if each.name == name for key in each.labels}

    def buckets(self, name: str) -> list[str]:
        return list(
            dict.fromkeys(e.labels["le"] for e in self.samples if e.name == f"{name}_bucket")
        )


async def scrape(ask: Asker, path: str) -> Scrape:
    status, text = await ask("GET", path)
    assert status == 200, text
    return Scrape(text)


async def of_component(ask: Asker, component: str, nth: int = 0) -> Scrape:
    _, pods = await ask(
        "GET", f"/api/v1/namespaces/kubevirt/pods?labelSelector=kubevirt.io%3D{component}"
    )
    scrapes = [
        await scrape(
            ask,
            f"/api/v1/namespaces/kubevirt/pods/https:{each['metadata']['name']}:8443/proxy/metrics",
        )
        for each in pods["items"]
    ]
    status = ("kubevirt_virt_controller_leading_status", "leading_virt_controller")
    leads = [e for e in scrapes if any(1.0 in e.values(name) for name in status)] or scrapes
    return leads[nth]


def create(ask: Asker, count: int = COUNT, prefix: str = "v") -> None:
    for index in range(count):
        obj = template()
        obj["metadata"] = {"name": f"{prefix}{index}"}
        ask.cluster.api.create(VMIS, "default", obj)


def run(clock: VirtualClock, work: Work, chosen: str = "fast") -> None:
    async def whole() -> None:
        async with a_cluster(chosen) as ask:
            await work(ask)

    clock.run(whole())


@pytest.fixture
def modern(profile_file: Callable[[str], Path]) -> str:
    return str(profile_file(MODERN))


# The arithmetic ---------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 5000), max_size=50))
def test_a_histogram_counts_each_value_up_to_every_bound_it_does_not_exceed(
    values: list[float],
) -> None:
    held = Histogram((0.5, 1, 600))
    for each in values:
        held.observe(each)
    buckets = dict(held.buckets())
    for bound in held.bounds:
        assert buckets[label(bound)] == sum(each <= bound for each in values)
    assert buckets["+Inf"] == held.count == len(values)
    assert held.sum == pytest.approx(sum(values))


def test_bounds_are_those_of_a_real_exposition() -> None:
    real = Scrape(gzip.decompress(RECORDED.read_bytes()).decode())
    modern = profile.load("modern")
    names = naming.naming("v1.9.0", "v1.36.0", modern.kubevirt.metrics)
    for name, bounds in (
        ("kubevirt_workqueue_queue_duration_seconds", naming.WORK_QUEUE),
        ("kubevirt_rest_client_rate_limiter_duration_seconds", naming.RATE_LIMITER),
        ("kubevirt_rest_client_request_latency_seconds", names.requests),
        (FROM_CREATION, names.phases),
    ):
        assert real.buckets(name) == [*map(label, bounds), "+Inf"], name
    assert exponential(1, 10, 3) == (1, 10, 100)


@pytest.mark.parametrize(
    ("kubevirt", "counted_as", "counts", "deletion", "largest"),
    [
        ("v0.46.1", "kubevirt_vmi_phase_count", True, False, 0.512),
        ("v1.2.0", "kubevirt_vmi_phase_count", True, True, 60),
        ("v1.8.0", "kubevirt_vmi_phase_count", False, True, 60),
        ("v1.9.0", "node:kubevirt_vmi_phase:sum", False, True, 60),
    ],
)
def test_names_change_with_the_version(
    kubevirt: str, counted_as: str, counts: bool, deletion: bool, largest: float
) -> None:
    told = profile.Metrics(
        phase_buckets=[1, 600], rest_client_prefix="kubevirt_", vmi_count=counted_as
    )
    names = naming.naming(kubevirt, "v1.21.5", told)
    assert (names.prefix, names.phases) == ("kubevirt_", (1, 600))
    assert names.phase_count is counts
    assert names.from_deletion is deletion
    assert names.requests[-1] == pytest.approx(largest)


def test_requests_are_told_by_url_as_client_go_does() -> None:
    found = {traffic.url(("create", PODS, "")), traffic.url(("patch", PODS, "status")),
             traffic.url(("list", VMIS, ""))}  # fmt: skip
    real = Scrape(gzip.decompress(RECORDED.read_bytes()).decode())
    urls = {
        each.labels["url"].replace("127.0.0.1:16443", traffic.HOST)
        for each in real.samples
        if "url" in each.labels
    }
    assert found <= urls


# Names and labels, beside a real exposition -----------------------------------------------------


def test_virt_controller_tells_what_a_real_one_does(clock: VirtualClock, modern: str) -> None:
    real = Scrape(gzip.decompress(RECORDED.read_bytes()).decode())

    async def work(ask: Asker) -> None:
        create(ask)
        await asyncio.sleep(100)
        for stored in ask.cluster.store.all(VMIS):
            ask.cluster.api.delete(VMIS, "default", stored.obj["metadata"]["name"])
        await asyncio.sleep(300)
        ours = await of_component(ask, "virt-controller")
        shared = {
            name
            for name in real.families
            if name.startswith(("kubevirt_rest", "kubevirt_workqueue", "kubevirt_vmi_phase",
                                "kubevirt_virt_controller"))
        }  # fmt: skip
        assert shared <= ours.families.keys()
        for name in shared:
            assert ours.families[name].type == real.families[name].type
            for each in real.families[name].samples:
                assert set(each.labels) == ours.labels(each.name), each.name
        # None of ours is made up: what a real one had not told are the VMIs it had then.
        assert {name for name in ours.families if name not in real.families} == {
            "kubevirt_vmi_info"
        }
        queue = "virt-controller-vmi"
        assert ours.value("kubevirt_workqueue_adds_total", name=queue) > 5 * COUNT
        assert ours.value("kubevirt_workqueue_depth", name=queue) == 0

    run(clock, work, modern)


# The same truth as a client sees ----------------------------------------------------------------


def seconds(begin: str, end: str) -> float:
    read = datetime.datetime.fromisoformat
    return max(0.0, (read(end) - read(begin)).total_seconds())


def stamps(vmi: Json) -> dict[str, str]:
    return {
        each["phase"]: each["phaseTransitionTimestamp"]
        for each in vmi["status"]["phaseTransitionTimestamps"]
    }


def test_phase_times_are_the_stamps_clients_see(clock: VirtualClock) -> None:
    async def work(ask: Asker) -> None:
        create(ask)
        await asyncio.sleep(200)
        vmis = [stored.obj for stored in ask.cluster.store.all(VMIS)]
        told = await of_component(ask, "virt-controller")
        for phase in ("Scheduling", "Scheduled", "Running"):
            times = [seconds(v["metadata"]["creationTimestamp"], stamps(v)[phase]) for v in vmis]
            assert told.value(f"{FROM_CREATION}_count", phase=phase) == COUNT
            assert told.value(f"{FROM_CREATION}_sum", phase=phase) == sum(times)
            for bound in (1, 5, 20, 120):
                assert told.value(f"{FROM_CREATION}_bucket", phase=phase, le=str(bound)) == sum(
                    each <= bound for each in times
                )
        assert told.values(f"{FROM_CREATION}_count", phase="Pending") == []
        between = "kubevirt_vmi_phase_transition_time_seconds_sum"
        assert told.value(between, last_phase="Scheduled", phase="Running") == sum(
            seconds(stamps(v)["Scheduled"], stamps(v)["Running"]) for v in vmis
        )
        # 2021 knows no transitions from the deletion on, and counts VMIs by phase itself.
        assert "kubevirt_vmi_phase_transition_time_from_deletion_seconds" not in told.families
        assert told.value("kubevirt_vmi_phase_count", phase="running", node="node") == COUNT
        assert told.buckets(FROM_CREATION)[-2:] == ["600", "+Inf"]

    run(clock, work, "blog-2021")


def test_deletion_is_timed_from_its_stamp(clock: VirtualClock, modern: str) -> None:
    async def work(ask: Asker) -> None:
        create(ask, 3)
        await asyncio.sleep(60)
        for index in range(3):
            ask.cluster.api.delete(VMIS, "default", f"v{index}")
        await asyncio.sleep(100)
        told = await of_component(ask, "virt-controller")
        name = "kubevirt_vmi_phase_transition_time_from_deletion_seconds_count"
        assert told.value(name, phase="Succeeded") == 3

    run(clock, work, modern)


def test_requests_are_those_the_api_served(clock: VirtualClock, modern: str) -> None:
    async def work(ask: Asker) -> None:
        create(ask)
        await asyncio.sleep(100)
        told = await of_component(ask, "virt-controller")
        name = "kubevirt_rest_client_requests_total"
        assert told.value(name, verb="CREATE", resource="pods", code="201", method="POST") == COUNT
        assert told.value(name, verb="LIST", resource="virtualmachineinstances", code="200") == 1
        api = await scrape(ask, "/metrics")
        served = "apiserver_request_total"
        assert api.value(served, verb="POST", resource="pods", subresource="", code="201") == COUNT
        assert api.value(served, verb="POST", resource="pods", subresource="binding") == COUNT
        kubelet = await scrape(ask, "/api/v1/nodes/node/proxy/metrics")
        handler = await of_component(ask, "virt-handler")
        scheduler = ask.cluster.clients["default-scheduler"].traffic.requests
        written = sum(api.values(served, verb="PATCH", resource="pods"))
        assert written == sum(
            [
                *told.values(name, verb="PATCH", resource="pods"),
                *kubelet.values("rest_client_requests_total", method="PATCH"),
                scheduler["200", "patch", "pods"],
            ]
        )
        assert handler.value(name, verb="UPDATE", resource="virtualmachineinstances", code="200")
        assert (
            api.value("apiserver_storage_objects", resource="virtualmachineinstances.kubevirt.io")
            == COUNT
        )
        # Our own listing of pods was counted, and is over.
        assert api.value(served, verb="LIST", resource="pods", scope="namespace") >= 1
        assert api.value("apiserver_current_inflight_requests", request_kind="readOnly") == 0

    run(clock, work, modern)


def test_throttled_requests_show_in_the_rate_limiter(
    clock: VirtualClock, profile_file: Callable[[str], Path]
) -> None:
    async def work(ask: Asker) -> None:
        create(ask, 60)
        await asyncio.sleep(300)
        told = await of_component(ask, "virt-controller")
        name = "kubevirt_rest_client_rate_limiter_duration_seconds"
        waited = sum(told.values(f"{name}_sum"))
        requests = sum(told.values(f"{name}_count"))
        # Ten workers at five requests a second: each request waits for some two seconds.
        assert waited > requests
        assert told.values(f"{name}_bucket", le="0.512", verb="CREATE") < [60, 60]

    slow = profile_file(MODERN + "rate_limits: {controller: {qps: 5, burst: 10}}\n")
    run(clock, work, str(slow))


def test_a_kubelet_tells_of_its_pods(clock: VirtualClock, modern: str) -> None:
    async def work(ask: Asker) -> None:
        create(ask)
        await asyncio.sleep(0.3)
        early = await scrape(ask, "/api/v1/nodes/node/proxy/metrics")
        assert early.value("kubelet_running_pods") < COUNT
        await asyncio.sleep(100)
        told = await scrape(ask, "/api/v1/nodes/node/proxy/metrics")
        assert told.value("kubelet_running_pods") == COUNT
        assert told.value("kubelet_pod_start_duration_seconds_count") == COUNT
        assert told.value("kubelet_running_containers", container_state="running") == 2 * COUNT
        assert told.buckets("kubelet_pod_start_duration_seconds")[-2] == "3600"
        assert told.value("kubelet_node_name", node="node") == 1

    run(clock, work, modern)


def test_watches_are_long_running_and_not_in_flight(clock: VirtualClock, modern: str) -> None:
    async def work(ask: Asker) -> None:
        async def follow() -> None:
            async for _ in ask.watch(
                f"/apis/kubevirt.io/v1/namespaces/default/{VMIS.plural}?watch=1"
            ):
                pass

        task = asyncio.ensure_future(follow())
        await asyncio.sleep(1)
        told = await scrape(ask, "/metrics")
        gauge = "apiserver_longrunning_requests"
        assert told.value(gauge, verb="WATCH", resource=VMIS.plural, scope="namespace") == 1
        assert told.values("apiserver_current_inflight_requests") == [0, 0]
        task.cancel()
        await asyncio.sleep(1)
        assert (await scrape(ask, "/metrics")).value(gauge, resource=VMIS.plural) == 0

    run(clock, work, modern)


def test_virt_api_counts_the_vms_it_lets_in(clock: VirtualClock, modern: str) -> None:
    async def work(ask: Asker) -> None:
        ask.cluster.api.create(VMS, "default", vm())
        told = await of_component(ask, "virt-api", 0)
        other = await of_component(ask, "virt-api", 1)
        counted = [
            *told.values("kubevirt_vm_created_by_pod_total"),
            *other.values("kubevirt_vm_created_by_pod_total"),
        ]
        assert counted == [1]

    run(clock, work, modern)


# Lives ------------------------------------------------------------------------------------------


def test_a_rollout_brings_new_pods_that_count_from_zero(clock: VirtualClock) -> None:
    async def work(ask: Asker) -> None:
        create(ask, 5)
        await asyncio.sleep(60)
        path = "/api/v1/namespaces/kubevirt/pods?labelSelector=kubevirt.io%3Dvirt-controller"
        _, before = await ask("GET", path)
        flags = {"controller": {"launcher-qemu-timeout": "900"}}
        await ask(
            "PATCH", "/apis/kubevirt.io/v1/namespaces/kubevirt/kubevirts/kubevirt",
            {"spec": {"customizeComponents": {"flags": flags}}}, "application/merge-patch+json",
        )  # fmt: skip
        await asyncio.sleep(60)
        _, after = await ask("GET", path)
        names = [{e["metadata"]["name"] for e in each["items"]} for each in (before, after)]
        assert len(names[1]) == 2
        assert not names[0] & names[1]
        create(ask, 2, "w")
        await asyncio.sleep(60)
        told = await of_component(ask, "virt-controller")
        assert told.value(f"{FROM_CREATION}_count", phase="Running") == 2

    run(clock, work)


def test_a_deleted_component_pod_is_replaced(clock: VirtualClock) -> None:
    async def work(ask: Asker) -> None:
        path = "/api/v1/namespaces/kubevirt/pods"
        _, pods = await ask("GET", path)
        gone = pods["items"][0]["metadata"]["name"]
        await ask("DELETE", f"{path}/{gone}")
        await asyncio.sleep(1)
        _, now = await ask("GET", path)
        assert len(now["items"]) == len(pods["items"])
        assert gone not in {each["metadata"]["name"] for each in now["items"]}

    run(clock, work)


# The ways there ---------------------------------------------------------------------------------


def test_the_content_type_is_prometheus_text(clock: VirtualClock) -> None:
    async def work(ask: Asker) -> None:
        async with ask.session.get(ask.cluster.url + "/metrics") as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"

    run(clock, work)


def test_a_service_leads_to_one_of_its_pods(clock: VirtualClock) -> None:
    async def work(ask: Asker) -> None:
        base = "/api/v1/namespaces/kubevirt/services"
        for where in ("https:virt-api:443", "https:kubevirt-prometheus-metrics:metrics"):
            status, _ = await ask("GET", f"{base}/{where}/proxy/metrics")
            assert status == 200
        status, told = await ask("GET", f"{base}/https:virt-api:80/proxy/metrics")
        assert (status, told["reason"]) == (503, "ServiceUnavailable")
        assert told["message"] == 'no service port "80" found for service "virt-api"'

    run(clock, work)


def test_what_is_not_there_is_not_reached(clock: VirtualClock) -> None:
    async def work(ask: Asker) -> None:
        create(ask, 1)
        await asyncio.sleep(30)
        _, pods = await ask("GET", "/api/v1/namespaces/default/pods")
        launcher = pods["items"][0]["metadata"]["name"]
        pod = f"/api/v1/namespaces/default/pods/{launcher}:80/proxy/"
        status, told = await ask("GET", pod)
        assert (status, told["reason"]) == (503, "ServiceUnavailable")
        assert "connection refused" in told["message"]
        status, told = await ask("GET", "/api/v1/nodes/other/proxy/metrics")
        assert (status, told["message"]) == (404, 'nodes "other" not found')
        status, _ = await ask("GET", "/api/v1/nodes/node/proxy/stats/summary")
        assert status == 404
        _, mine = await ask("GET", "/api/v1/namespaces/kubevirt/pods")
        name = mine["items"][0]["metadata"]["name"]
        status, told = await ask(
            "GET", f"/api/v1/namespaces/kubevirt/pods/{name}:8443/proxy/metrics"
        )
        assert (status, told) == (400, "Client sent an HTTP request to an HTTPS server.\n")

    run(clock, work)


def test_configz_has_the_profiles_limits(clock: VirtualClock) -> None:
    async def work(ask: Asker) -> None:
        _, told = await ask("GET", "/api/v1/nodes/node/proxy/configz")
        config = told["kubeletconfig"]
        assert (config["maxPods"], config["kubeAPIQPS"], config["kubeAPIBurst"]) == (1022, 5, 10)
        assert config["evictionHard"]["memory.available"] == "100Mi"
        assert config["runtimeRequestTimeout"] == "4m0s"
        _, node = await ask("GET", "/api/v1/nodes/node")
        held = {key: int(node["status"][key]["memory"]) for key in ("capacity", "allocatable")}
        reserved = int(config["systemReserved"]["memory"]) + 100 * 2**20
        assert held["capacity"] - held["allocatable"] == reserved

    run(clock, work, "blog-2021")


def test_metrics_are_the_same_in_every_run(clock: VirtualClock) -> None:
    def once() -> str:
        texts: list[str] = []

        async def work(ask: Asker) -> None:
            create(ask)
            await asyncio.sleep(60)
            texts.append((await ask("GET", "/metrics"))[1])
            texts.append((await ask("GET", "/api/v1/nodes/node/proxy/metrics"))[1])
            _, pods = await ask("GET", "/api/v1/namespaces/kubevirt/pods")
            for each in pods["items"]:
                name = each["metadata"]["name"]
                path = f"/api/v1/namespaces/kubevirt/pods/https:{name}:8443/proxy/metrics"
                texts.append((await ask("GET", path))[1])

        other = VirtualClock()
        run(other, work)
        other.close()
        return "".join(texts)

    assert once() == once()
