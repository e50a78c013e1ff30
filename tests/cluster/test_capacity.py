"""What fits, counted: pure arithmetic, on made-up nodes, on recordings, on the embedded walls."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvscale.cluster import capacity, preflight, quotas, slowing, templates
from pytest_kvscale.cluster.capacity import Forecast, Room, Wall, fitting, in_order, node_walls
from pytest_kvscale.cluster.choose import Connection
from pytest_kvscale.cluster.client import NAMESPACES
from pytest_kvscale.cluster.nodes import amount
from pytest_kvscale.cluster.pod_needs import Need, launcher, requests_of, version_of
from pytest_kvscale.cluster.preflight import Preflight, Target
from tests.cluster.scripted import answering, status
from tests.conftest import DATA

Json = dict[str, Any]
AMOUNTS = st.decimals(0, 1000, places=3)


def container(
    name: str = "c", policy: str = "", limits: Json | None = None, **requests: str
) -> Json:
    resources = {"requests": {key.replace("_", "/"): value for key, value in requests.items()}}
    made: Json = {"name": name, "resources": {**resources, "limits": limits or {}}}
    return {**made, "restartPolicy": policy} if policy else made


def need(**requests: str) -> Need:
    return Need({"containers": [container("c", "", None, **requests)]}, certain=True)


# What a pod takes -----------------------------------------------------------------------------


def test_the_schedulers_rule_counts_init_containers_beside_the_sidecars_before_them() -> None:
    spec = {
        "containers": [container(cpu="1"), container(cpu="500m", memory="1Gi")],
        "initContainers": [
            container(cpu="1"),
            container(policy="Always", cpu="200m"),
            container(cpu="3"),
        ],
        "overhead": {"cpu": "100m"},
    }
    # 1.7 while it runs; 3.2 while the last init container does.
    assert requests_of(spec) == {"cpu": Decimal("3.3"), "memory": Decimal(2**30)}


def test_a_missing_request_is_the_limit() -> None:
    spec = {"containers": [container(limits={"cpu": "2", "memory": "1Mi"}, memory="2Mi")]}
    assert requests_of(spec) == {"cpu": Decimal(2), "memory": Decimal(2 * 2**20)}


@given(AMOUNTS, st.lists(AMOUNTS, min_size=1, max_size=4))
def test_one_more_than_fits_does_not_fit(available: Decimal, each: list[Decimal]) -> None:
    number = fitting(available, each)
    if number is None:
        assert sum(each) == 0
        return
    total = [each[index % len(each)] for index in range(number + 1)]
    assert sum(total[:-1]) <= available < sum(total) or (not number and available < each[0])


# Launchers, against recordings of a real control plane ------------------------------------------


def recorded(name: str) -> tuple[list[Json], Json]:
    """The pods of a recording as they were last seen, and a VMI."""
    pods: dict[str, Json] = {}
    vmi: Json = {}
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt") as file:
        for line in map(json.loads, file):
            if line["stream"] == "delete":
                break
            event = line.get("event") or {}
            if event.get("type") == "BOOKMARK":
                continue
            if line["stream"] == "pods" and event:
                pods[event["object"]["metadata"]["uid"]] = event["object"]
            if line["stream"] == "vmis" and event:
                vmi = vmi or event["object"]
    return list(pods.values()), vmi


@pytest.mark.parametrize("name", ["a-100", "b-devices110-130", "c-crash-sandbox-60", "e-vm-10",
                                  "f-vmirs-10", "g-controller-qps5-60"])  # fmt: skip
def test_a_launcher_asks_for_what_kubevirt_really_asked_for(name: str) -> None:
    pods, vmi = recorded(name)
    foreseen = launcher(vmi["spec"], {}, "v1.9.0")
    assert foreseen.certain
    for pod in pods:
        assert requests_of(pod["spec"]) == foreseen.requests


def recorded_room(devices: int, **more: str) -> Room:
    given = {"cpu": "47500m", "memory": "127Gi", "pods": "1022", "ephemeral-storage": "400G",
             **{f"devices.kubevirt.io/{each}": str(devices) for each in ("kvm", "tun",
                                                                       "vhost-net")},
             **more}  # fmt: skip
    allocatable = {key: Decimal(str(amount(value))) for key, value in given.items()}
    return Room(allocatable, {}, None)


@pytest.mark.parametrize(
    ("name", "devices"), [("a-100", 1000), ("b-devices110-130", 110), ("c-crash-sandbox-60", 1000)]
)
def test_as_many_are_refused_as_were_on_a_real_node(name: str, devices: int) -> None:
    pods, _ = recorded(name)
    needs = [Need(pod["spec"], certain=True) for pod in pods]
    first = in_order(node_walls(recorded_room(devices), needs))[0]
    refused = sum(
        any(each.get("reason") == "Unschedulable" for each in pod["status"].get("conditions", []))
        for pod in pods
    )
    assert max(0, len(pods) - first.fits) == refused
    if refused:
        assert first.name == "devices.kubevirt.io/kvm"


@pytest.mark.parametrize(
    ("more", "certain"),
    [
        ({}, True),
        ({"launchSecurity": {"sev": {}}}, False),
        ({"devices": {"gpus": [{"name": "x"}]}}, False),
        ({"memory": {"hugepages": {"pageSize": "2Mi"}}}, False),
    ],
)
def test_what_is_not_counted_is_no_certainty(more: Json, certain: bool) -> None:
    domain = {"resources": {"requests": {"memory": "1Gi"}}, **more}
    assert launcher({"domain": domain}, {}, "v1.9.0").certain is certain
    assert not launcher({"domain": domain}, {}, "v0.46.1").certain
    assert not launcher({"domain": domain}, {"additionalGuestMemoryOverheadRatio": "1.5"},
                        "v1.9.0").certain  # fmt: skip


def test_vcpus_graphics_guarantees_and_emulation_are_counted() -> None:
    plain = launcher({"domain": {"resources": {"requests": {"memory": "1Gi"}}}}, {}, "v1.9.0")
    mebibytes = plain.requests["memory"] / 2**20

    def with_domain(**domain: Any) -> Need:
        asked = {"resources": {"requests": {"memory": "1Gi"}}, **domain}
        return launcher({"domain": asked}, {}, "v1.9.0")

    more = with_domain(cpu={"cores": 3}).requests
    assert more["memory"] / 2**20 == mebibytes + 16
    assert more["cpu"] == Decimal("0.306") - Decimal("0.001")
    bare = with_domain(devices={"autoattachGraphicsDevice": False})
    assert bare.requests["memory"] / 2**20 == mebibytes - 32
    same = {"cpu": "1", "memory": "1Gi"}
    sure = with_domain(resources={"requests": same, "limits": same})
    assert sure.requests["memory"] / 2**20 == mebibytes + 100
    emulated = {"developerConfiguration": {"useEmulation": True}}
    soft = launcher({"domain": {"resources": {"requests": {"memory": "1Gi"}}}}, emulated, "v1.9.0")
    assert "devices.kubevirt.io/kvm" not in soft.requests
    assert "devices.kubevirt.io/tun" in soft.requests


@pytest.mark.parametrize(
    ("text", "found"), [("v1.9.0", (1, 9)), ("1.10.3-rc", (1, 10)), ("", (0, 0))]
)
def test_versions(text: str, found: tuple[int, int]) -> None:
    assert version_of(text) == found


# The sentence ---------------------------------------------------------------------------------


def forecast(level: int, *walls: Wall, unknown: tuple[str, ...] = ()) -> Forecast:
    return Forecast(level, tuple(in_order(walls)), unknown)


DEVICES = Wall("devices.kubevirt.io/kvm", 110, capacity.PER_NODE, "110, 0 taken, 1 each")
MEMORY = Wall("memory", 428, "the node's memory", "…")
GUESSED = Wall("memory", 90, "the node's memory", "…", certain=False)


@pytest.mark.parametrize(
    ("found", "refused", "text"),
    [
        (forecast(400, MEMORY, DEVICES), True,
         "400 requested, 110 fit: devices.kubevirt.io/kvm is the first limit "
         "(`virtualMachineInstancesPerNode`); next: memory at 428 (the node's memory)"),
        (forecast(100, DEVICES), False,
         "100 requested, 110 fit: devices.kubevirt.io/kvm would be the first limit "
         "(`virtualMachineInstancesPerNode`)"),
        (forecast(100, GUESSED), False,
         "100 requested, about 90 fit: memory is the first limit (the node's memory)"),
        (forecast(400, GUESSED, DEVICES), True,
         "400 requested, 110 fit: devices.kubevirt.io/kvm is the first limit "
         "(`virtualMachineInstancesPerNode`); next: memory at about 90 (the node's memory)"),
        (forecast(9, unknown=("quotas",)), False,
         "9 requested, how many fit is unknown; unknown: quotas"),
    ],
)  # fmt: skip
def test_the_sentence_says_what_is_first(found: Forecast, refused: bool, text: str) -> None:
    assert (found.is_refused, found.text()) == (refused, text)


def test_at_one_number_devices_come_first_then_pods_addresses_memory() -> None:
    names = ["cpu", "memory", "addresses", "x", "devices.kubevirt.io/kvm", "pods"]
    order = [each.name for each in in_order([Wall(name, 3, "", "") for name in names])]
    assert order == ["devices.kubevirt.io/kvm", "pods", "addresses", "memory", "cpu", "x"]


def test_what_is_not_known_is_no_wall() -> None:
    allocatable = {"pods": Decimal(10)}
    assert node_walls(Room(allocatable, None, 5), [need(cpu="1")]) == []
    found = node_walls(Room(allocatable, {"pods": Decimal(3)}, None), [need(cpu="1")])
    assert [(each.name, each.fits) for each in found] == [("pods", 7)]


def test_a_device_nobody_offers_lets_nothing_in() -> None:
    asked = need(**{"devices.kubevirt.io_kvm": "1"})
    (kvm, *_) = in_order(node_walls(Room({}, {}, None), [asked]))
    assert (kvm.name, kvm.fits) == ("devices.kubevirt.io/kvm", 0)


# Quotas and limit ranges ------------------------------------------------------------------------


def quota(hard: Json, used: Json | None = None, **spec: Any) -> Json:
    return {"metadata": {"name": "q"}, "spec": {"hard": hard, **spec},
            "status": {"hard": hard, "used": used or {}}}  # fmt: skip


@pytest.mark.parametrize(
    ("hard", "used", "fits"),
    [
        ({"pods": "10"}, {"pods": "4"}, 6),
        ({"count/virtualmachineinstances.kubevirt.io": "3"}, {}, 3),
        ({"requests.cpu": "1"}, {"requests.cpu": "500m"}, 5),
        ({"cpu": "1"}, {}, 10),
        ({"memory": "1Gi"}, {}, 8),
        ({"requests.devices.kubevirt.io/kvm": "2"}, {}, 2),
        ({"limits.memory": "1Gi"}, {}, 0),
        ({"count/secrets": "1"}, {}, None),
    ],
)
def test_quotas(hard: Json, used: Json, fits: int | None) -> None:
    asked = need(cpu="100m", memory="128Mi", **{"devices.kubevirt.io_kvm": "1"})
    found = quotas.quota_walls([quota(hard, used)], [asked])
    assert [each.fits for each in found] == ([] if fits is None else [fits])


def test_a_quota_for_limits_counts_limits() -> None:
    limited = Need({"containers": [container(limits={"memory": "256Mi"})]}, certain=True)
    (wall,) = quotas.quota_walls([quota({"limits.memory": "1Gi"})], [limited])
    assert (wall.fits, wall.setting) == (4, "ResourceQuota q")


def test_a_quota_with_scopes_is_unknown() -> None:
    scoped = quota({"pods": "1"}, scopes=["BestEffort"])
    assert quotas.quota_walls([scoped], [need(cpu="1")]) == []
    assert quotas.unknown_quotas([scoped]) == ["quota q (it has scopes)"]


@pytest.mark.parametrize(
    ("limit", "why"),
    [
        ({"type": "Container", "min": {"memory": "4Mi"}},
         "container c asks for 1 MiB of memory, at least 4Mi is allowed"),
        ({"type": "Container", "max": {"cpu": "100m"}},
         "container c asks for 1 of cpu, at most 100m is allowed"),
        ({"type": "Pod", "max": {"cpu": "100m"}},
         "the pod asks for 1 of cpu, at most 100m is allowed"),
        ({"type": "Container", "max": {"cpu": "2"}}, ""),
        ({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}}, ""),
    ],
)  # fmt: skip
def test_limit_ranges(limit: Json, why: str) -> None:
    ranges = [{"metadata": {"name": "l"}, "spec": {"limits": [limit]}}]
    found = quotas.limit_walls(ranges, [need(cpu="1", memory="1Mi")])
    assert [(each.fits, each.why) for each in found] == ([(0, why)] if why else [])


# What slows down --------------------------------------------------------------------------------


def noted(level: int = 60, configuration: Json | None = None, version: str = "v1.9.0",
          node: Json | None = None, pods: Any = (), configz: Any = None) -> str:  # fmt: skip
    kubevirt = {"status": {"observedKubeVirtVersion": version}}
    spec = {"configuration": configuration or {}}
    there = {"status": {"nodeInfo": {}, **(node or {})}}
    return "\n".join(slowing.notes(level, kubevirt, spec, there, pods, configz, ["cirros:1"]))


def limit(qps: int, burst: int) -> Json:
    return {"restClient": {"rateLimiter": {"tokenBucketRateLimiter": {"qps": qps, "burst": burst}}}}


def test_a_rate_limit_is_told_with_the_time_it_takes() -> None:
    """Measured on a real virt-controller at 5/10: 60 VMIs were scheduled after 65 s (p95)."""
    text = noted(configuration={"controllerConfiguration": limit(5, 10)})
    assert "virt-controller's rate limit (5 a second, burst 10) alone takes about 1m4s" in text
    assert "controller 5/10, handler 50/100 by default" in text
    assert "controller unknown" in noted(version="v0.46.1")


@pytest.mark.parametrize(
    ("node", "configz", "said"),
    [
        ({}, None, "swap: unknown"),
        ({}, {"kubeletconfig": {"failSwapOn": True}}, "swap: off"),
        ({"nodeInfo": {"swap": {"capacity": 0}}}, None, "swap: off"),
        ({"nodeInfo": {"swap": {"capacity": 5}}}, None, "swap is on (5 bytes)"),
        ({"nodeInfo": {"containerRuntimeVersion": "docker://20"}}, None, "runtime: docker://20"),
        ({}, {"kubeletconfig": {"kubeAPIQPS": 5, "kubeAPIBurst": 10}}, "limit (QPS/burst): 5/10"),
        ({}, None, "images on the node: unknown"),
        ({"images": [{"names": ["x:2"]}]}, None, "the image cirros:1 is not on the node"),
        ({"images": [{"names": [f"x:{n}"]} for n in range(50)]}, None, "cirros:1 may not be on"),
    ],
)  # fmt: skip
def test_what_is_told_of_a_node(node: Json, configz: Any, said: str) -> None:
    assert said in noted(node=node, configz=configz)


def test_an_image_that_is_there_is_not_told() -> None:
    assert "cirros" not in noted(node={"images": [{"names": ["docker.io/cirros:1"]}]})


def test_prometheus_and_kubevirts_own_on_the_node_are_told() -> None:
    def pod(name: str, **labels: str) -> Json:
        return {"metadata": {"name": name, "namespace": "n", "labels": labels}}

    pods = [pod("a", **{"kubevirt.io": "virt-handler"}),
            pod("b", **{"kubevirt.io": "virt-controller"}),
            pod("c", **{"app.kubernetes.io/name": "prometheus"})]  # fmt: skip
    assert "on the node under test run n/b, n/c: " in noted(pods=pods)


# Against the embedded cluster's walls ----------------------------------------------------------


def look(
    connection: Connection, level: int, namespace: str = "", tuning: Json | None = None
) -> preflight.Plan:
    chosen = templates.Templates([], {})
    there = bool(namespace)
    place = templates.Place("r", namespace or "n", "node", {"kubernetes.io/hostname": "node"})
    target = Target("node", place.namespace, there, chosen, tuning or {})
    work = Preflight(connection.client, target).plan(level, chosen.canary(place))
    return connection.run(work)


@pytest.mark.parametrize(
    ("profile", "first", "fits"),
    [
        ("", "devices.kubevirt.io/kvm", 110),
        ("node: {max_pods: 70}", "pods", 70),
        ("node: {pod_network_prefix: 26}", "addresses", 62),
        ("node: {cpu: 1000m}", "cpu", 45),
    ],
)
def test_the_walls_of_the_embedded_cluster_are_foreseen(
    connect: Callable[..., Connection], profile_file: Callable[[str], Path], profile: str,
    first: str, fits: int,
) -> None:  # fmt: skip
    connection = connect(sim_profile=str(profile_file(profile or "description: as it is")))
    found = look(connection, 200).forecast
    assert found.walls[0].name == first
    assert found.fits == fits


def test_settings_that_will_be_made_are_counted(connect: Callable[..., Connection]) -> None:
    tuning = {"configuration": {"virtualMachineInstancesPerNode": 300}}
    found = look(connect(), 400, tuning=tuning).forecast
    devices = [each for each in found.walls if each.name.startswith("devices")]
    assert [each.fits for each in devices] == [300]


def test_an_object_that_a_webhook_refuses_is_told_by_a_dry_run(
    connect: Callable[..., Connection], profile_file: Callable[[str], Path]
) -> None:
    connection = connect(sim_profile=str(profile_file("faults: {create_rejected: 1}")))
    connection.run(connection.client.create(NAMESPACES, "", {"metadata": {"name": "mine"}}))
    found = look(connection, 1, "mine").forecast
    assert (found.first and found.first.name, found.fits) == ("admission", 0)
    assert "a dry run of canary-1-0000" in found.text()


def test_a_webhook_that_takes_no_dry_run_refuses_nothing(clock: Any) -> None:
    node = {"metadata": {"name": "node"}, "spec": {},
            "status": {"allocatable": {"pods": "10"}, "nodeInfo": {}}}  # fmt: skip
    custom = {"metadata": {}, "spec": {}, "status": {"observedKubeVirtVersion": "v1.9.0"}}
    said = 'admission webhook "sidecar.example.com" does not support dry run'

    async def answer(request: Any) -> Any:
        from aiohttp import web

        if request.method == "POST":
            return web.json_response({"reason": "BadRequest", "message": said}, status=400)
        if request.path == "/api/v1/nodes/node":
            return web.json_response(node)
        items = [custom] if request.path.endswith("/kubevirts") else []
        return web.json_response({"items": items, "metadata": {}})

    async def work() -> preflight.Plan:
        chosen = templates.Templates([], {})
        place = templates.Place("r", "n", "node", {"kubernetes.io/hostname": "node"})
        async with answering(answer) as (client, _):
            target = Target("node", "n", True, chosen, {})
            return await Preflight(client, target).plan(5, chosen.canary(place))

    found = clock.run(work()).forecast
    assert not [each for each in found.walls if each.name == "admission"]
    assert "what admission webhooks refuse (one takes no dry run)" in found.unknown


def test_facts_that_may_not_be_read_are_unknown_and_the_rest_is_told(
    clock: Any,
) -> None:
    node = {"metadata": {"name": "node"}, "spec": {},
            "status": {"allocatable": {"pods": "10"}, "nodeInfo": {}}}  # fmt: skip
    custom = {"metadata": {}, "spec": {}, "status": {"observedKubeVirtVersion": "v1.9.0"}}

    async def answer(request: Any) -> Any:
        from aiohttp import web

        if request.path.endswith("/kubevirts"):
            return web.json_response({"items": [custom]})
        if request.path == "/api/v1/nodes/node":
            return web.json_response(node)
        return status(403, "Forbidden")

    async def work() -> preflight.Plan:
        chosen = templates.Templates([], {})
        place = templates.Place("r", "n", "node", {"kubernetes.io/hostname": "node"})
        async with answering(answer) as (client, _):
            target = Target("node", "n", False, chosen, {})
            return await Preflight(client, target).plan(5, chosen.canary(place))

    found = clock.run(work()).forecast
    assert found.fits is None
    assert not found.is_refused
    assert [each.partition(" (")[0] for each in found.unknown] == [
        "what else runs on the node", "the kubelet's settings",
        "what admission webhooks refuse", "pod addresses",
    ]  # fmt: skip
