"""Ownership of fields and server-side apply over HTTP, in virtual time."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.sim.patch import APPLY_PATCH, JSON_PATCH, MERGE_PATCH
from tests.sim.asker import CONFIG_MAPS, VMIS, Asker, Json, Work, a_cluster

DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"


def config_map(name: str = "cm", **data: str) -> Json:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def vmi(name: str = "one", **metadata: Any) -> Json:
    requests = {"memory": "10Mi", "cpu": "10m"}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "namespace": "default", **metadata},
        "spec": {"domain": {"devices": {}, "resources": {"requests": requests}}},
    }


async def put(
    ask: Asker, wanted: Json, manager: str = "me", query: str = "", path: str = CONFIG_MAPS
) -> tuple[int, Json]:
    """Apply a configuration."""
    name = wanted["metadata"]["name"]
    return await ask("PATCH", f"{path}/{name}?fieldManager={manager}{query}", wanted, APPLY_PATCH)


def owners(obj: Json) -> dict[tuple[str, str, str], Json]:
    return {
        (each["manager"], each["operation"], each.get("subresource", "")): each["fieldsV1"]
        for each in obj["metadata"].get("managedFields", [])
    }


SPEC: Json = {
    "f:domain": {"f:devices": {}, "f:resources": {"f:requests": {"f:cpu": {}, "f:memory": {}}}}
}  # fmt: skip


def test_apply_creates_with_the_fields_it_names(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        status, made = await put(ask, vmi(), path=VMIS)
        assert status == 201
        assert owners(made) == {("me", "Apply", ""): {"f:spec": SPEC}}
        assert made["metadata"]["managedFields"][0]["time"] == "2026-01-01T00:00:00Z"
        status, created = await ask("POST", VMIS, vmi("two", labels={"a": "b"}))
        assert status == 201
        (key,) = owners(created)
        assert key[1] == "Update"
        assert owners(created)[key]["f:metadata"] == {"f:labels": {".": {}, "f:a": {}}}
        assert "." in owners(created)[key]["f:spec"]

    run(work)


def test_apply_without_a_change_writes_nothing(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        _, made = await put(ask, config_map(a="1"))
        assert await put(ask, config_map(a="1")) == (200, made)
        _, shared = await put(ask, config_map(a="1"), "they")
        assert shared["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]
        assert set(owners(shared)) == {("me", "Apply", ""), ("they", "Apply", "")}
        status, dry = await put(ask, config_map(a="2"), query="&dryRun=All&force=true")
        assert (status, dry["data"]) == (200, {"a": "2"})
        assert ("they", "Apply", "") not in owners(dry)
        assert (await ask("GET", CONFIG_MAPS + "/cm"))[1] == shared

    run(work)


def test_conflicts_are_told_and_force_overrules_them(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        await put(ask, config_map(a="1", b="1"))
        await ask(
            "PATCH", CONFIG_MAPS + "/cm?fieldManager=editor", {"data": {"b": "2"}}, MERGE_PATCH
        )
        status, refusal = await put(ask, config_map(a="2", b="3"), "they")
        assert (status, refusal["reason"]) == (409, "Conflict")
        reasons = {"reason": "FieldManagerConflict"}
        assert refusal["details"]["causes"] == [
            reasons | {"message": 'conflict with "me"', "field": ".data.a"},
            reasons | {"message": 'conflict with "editor" using v1', "field": ".data.b"},
        ]
        assert refusal["message"].startswith("Apply failed with 2 conflicts: conflicts with")
        status, forced = await put(ask, config_map(a="2", b="3"), "they", "&force=true")
        assert (status, forced["data"]) == (200, {"a": "2", "b": "3"})
        assert set(owners(forced)) == {("they", "Apply", "")}
        _, less = await put(ask, config_map(a="2"), "they")
        assert less["data"] == {"a": "2"}

    run(work)


@pytest.mark.parametrize(
    ("query", "change", "kind", "code", "field"),
    [
        ("", {}, APPLY_PATCH, 422, "fieldManager"),
        ("?fieldManager=me&force=true", {}, MERGE_PATCH, 422, "force"),
        (f"?fieldManager={'x' * 129}", {}, MERGE_PATCH, 422, "fieldManager"),
        ("?fieldManager=a%0Ab", {}, MERGE_PATCH, 422, "fieldManager"),
        ("?fieldValidation=Never", {}, MERGE_PATCH, 422, "fieldValidation"),
        ("?dryRun=some", {}, MERGE_PATCH, 422, "dryRun"),
        ("?fieldManager=me", {"metadata": {"name": "other"}}, APPLY_PATCH, 400, ""),
        ("?fieldManager=me", {"metadata": {"name": "cm", "namespace": "x"}}, APPLY_PATCH, 400, ""),
        ("?fieldManager=me", {"metadata": None}, APPLY_PATCH, 400, ""),
        ("?fieldManager=me", {"kind": ""}, APPLY_PATCH, 400, ""),
        ("?fieldManager=me", {"metadata": {"name": "cm", "uid": "u"}}, APPLY_PATCH, 409, ""),
        ("?fieldManager=me", {}, "application/apply-patch+cbor", 415, ""),
    ],
)  # fmt: skip
def test_an_apply_that_makes_no_sense_is_refused(
    run: Callable[[Work], None], query: str, change: Json, kind: str, code: int, field: str
) -> None:
    async def work(ask: Asker) -> None:
        body = {**config_map(), **change}
        status, refusal = await ask("PATCH", CONFIG_MAPS + "/cm" + query, body, kind)
        assert (status, refusal["kind"]) == (code, "Status"), refusal
        if field:
            assert [each["field"] for each in refusal["details"]["causes"]] == [field]
            assert refusal["details"]["kind"] == "PatchOptions"

    run(work)


def test_preconditions_of_an_applied_configuration_hold(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        _, made = await put(ask, config_map(a="1"))
        for key, value, code in (("resourceVersion", "1", 409), ("uid", "other", 422)):
            wanted = config_map(a="2")
            wanted["metadata"][key] = value
            assert (await put(ask, wanted))[0] == code
            wanted["metadata"][key] = made["metadata"][key]
            assert (await put(ask, wanted, query="&dryRun=All"))[0] == 200

    run(work)


def test_other_writers_take_what_they_change(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        _, made = await ask("POST", CONFIG_MAPS + "?fieldManager=maker", config_map(a="1", b="1"))
        data = owners(made)["maker", "Update", ""]
        assert data == {"f:data": {".": {}, "f:a": {}, "f:b": {}}}
        made["data"]["a"] = "2"
        _, changed = await ask("PUT", CONFIG_MAPS + "/cm?fieldManager=editor", made)
        assert owners(changed) == {
            ("maker", "Update", ""): {"f:data": {".": {}, "f:b": {}}},
            ("editor", "Update", ""): {"f:data": {"f:a": {}}},
        }
        _, same = await ask("PUT", CONFIG_MAPS + "/cm?fieldManager=nobody", changed)
        assert same == changed
        _, patched = await ask("PATCH", CONFIG_MAPS + "/cm", {"data": None}, MERGE_PATCH)
        assert owners(patched) == {}

    run(work)


def test_owners_are_forgotten_on_request_and_told_anew_by_an_apply(
    run: Callable[[Work], None],
) -> None:
    async def work(ask: Asker) -> None:
        await put(ask, config_map(a="1"))
        replace = [{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}]
        status, bare = await ask("PATCH", CONFIG_MAPS + "/cm", replace, JSON_PATCH)
        assert (status, owners(bare)) == (200, {})
        _, changed = await ask("PATCH", CONFIG_MAPS + "/cm", {"data": {"b": "2"}}, MERGE_PATCH)
        assert owners(changed) == {}
        status, refusal = await put(ask, config_map(a="2"))
        assert status == 409
        assert "before-first-apply" in refusal["message"]
        _, forced = await put(ask, config_map(a="2"), query="&force=true")
        assert owners(forced)["me", "Apply", ""] == {"f:data": {"f:a": {}}}
        entries = forced["metadata"]["managedFields"]
        for each in entries:
            each["manager"] = "renamed-" + each["manager"]
        renaming = [{"op": "replace", "path": "/metadata/managedFields", "value": entries}]
        _, renamed = await ask("PATCH", CONFIG_MAPS + "/cm", renaming, JSON_PATCH)
        assert ("renamed-me", "Apply", "") in owners(renamed)

    run(work)


def test_status_is_owned_through_its_own_door(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        template = {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "x"}]},
        }
        spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
        head = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}}
        status, made = await put(ask, {**head, "spec": spec}, path=DEPLOYMENTS)
        assert status == 201
        path = f"{DEPLOYMENTS}/d/status?fieldManager=controller"
        wanted = {**head, "status": {"replicas": 3}, "spec": {"replicas": 9}}
        status, changed = await ask("PATCH", path, wanted, APPLY_PATCH)
        assert (status, changed["status"]["replicas"]) == (200, 3)
        assert changed["spec"] == made["spec"]
        fields = owners(changed)["controller", "Apply", "status"]
        assert fields == {"f:status": {"f:replicas": {}}}
        missing = path.replace("/d/", "/none/")
        assert (await ask("PATCH", missing, wanted, APPLY_PATCH))[0] in (400, 404)

    run(work)


def test_the_clusters_own_components_own_what_they_write(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        await ask("POST", VMIS + "?fieldManager=me", vmi())
        async for event in ask.watch(VMIS + "?watch=true"):
            if event["object"].get("status", {}).get("phase") == "Running":
                break
        found = owners(event["object"])
        assert {"me", "virt-controller", "virt-handler"} == {manager for manager, *_ in found}
        assert "f:phase" in found["virt-handler", "Update", ""]["f:status"]
        _, pods = await ask("GET", "/api/v1/namespaces/default/pods")
        assert ("kubelet", "Update", "status") in owners(pods["items"][0])
        _, nodes = await ask("GET", "/api/v1/nodes")
        assert ("kubelet", "Update", "") in owners(nodes["items"][0])

    run(work)


def test_a_client_cannot_take_a_vmis_status_away(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        _, made = await ask("POST", VMIS, vmi())
        version = made["metadata"]["resourceVersion"]
        wanted = vmi(labels={"a": "b"}, resourceVersion=version)
        status, replaced = await ask("PUT", VMIS + "/one", wanted)
        assert status == 200
        assert replaced["metadata"]["labels"] == {"a": "b"}
        assert "phase" in replaced["status"]

    run(work)


def test_the_same_run_tells_the_same_owners(clock: VirtualClock) -> None:
    told: list[str] = []

    async def whole() -> None:
        async with a_cluster() as ask:
            await ask("POST", VMIS, vmi())
            async for event in ask.watch(VMIS + "?watch=true"):
                told.append(json.dumps(event))
                if event["object"].get("status", {}).get("phase") == "Running":
                    return

    clock.run(whole())
    first, told = told, []
    again = VirtualClock()
    again.run(whole())
    again.close()
    assert told == first
