"""VirtualMachines, replica sets and pods over HTTP: tables, discovery, selectors, refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.sim.asker import Asker
from tests.sim.staging import Json, pod, replica_set, vm

GROUP = "/apis/kubevirt.io/v1"
VMS = f"{GROUP}/namespaces/default/virtualmachines"
VMIRS = f"{GROUP}/namespaces/default/virtualmachineinstancereplicasets"
VMIS = f"{GROUP}/namespaces/default/virtualmachineinstances"
PODS = "/api/v1/namespaces/default/pods"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
Work = Callable[[Asker], Coroutine[Any, Any, None]]


def test_discovery_names_the_kinds_as_kubevirt_does(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        _, found = await ask("GET", GROUP)
        entries = {each["name"]: each for each in found["resources"]}
        short = {name: each["shortNames"] for name, each in entries.items() if "/" not in name}
        assert short == {
            "virtualmachines": ["vm", "vms"],
            "virtualmachineinstancereplicasets": ["vmirs", "vmirss"],
            "virtualmachineinstances": ["vmi", "vmis"],
            "kubevirts": ["kv", "kvs"],
            "virtualmachineinstancemigrations": ["vmim", "vmims"],
            "virtualmachineinstancepresets": ["vmipreset", "vmipresets"],
        }
        with_status = {name for name in entries if name.endswith("/status")}
        assert with_status == {
            "virtualmachines/status", "virtualmachineinstancereplicasets/status",
            "kubevirts/status", "virtualmachineinstancemigrations/status",
        }  # fmt: skip

    run(work)


def test_tables_have_kubevirts_columns(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        await ask("POST", VMS, vm())
        await ask("POST", VMIRS, replica_set(2))
        await asyncio.sleep(10)
        _, vms = await ask("GET", VMS, accept=TABLE)
        columns = [(each["name"], each["type"]) for each in vms["columnDefinitions"]]
        assert columns == [
            ("Name", "string"), ("Age", "date"), ("Status", "string"), ("Ready", "string"),
        ]  # fmt: skip
        assert vms["rows"][0]["cells"] == ["one", "10s", "Running", "True"]
        _, sets = await ask("GET", VMIRS, accept=TABLE)
        columns = [(each["name"], each["type"]) for each in sets["columnDefinitions"]]
        assert columns == [
            ("Name", "string"), ("Desired", "integer"), ("Current", "integer"),
            ("Ready", "integer"), ("Age", "date"),
        ]  # fmt: skip
        assert sets["rows"][0]["cells"] == ["set", 2, 2, 2, "10s"]

    run(work)


def test_status_has_a_door_of_its_own_where_the_kind_has_one(
    run: Callable[[Work], None],
) -> None:
    async def work(ask: Asker) -> None:
        await ask("POST", VMS, {**vm(strategy="Halted"), "status": {"ready": True}})
        await asyncio.sleep(5)
        merge = "application/merge-patch+json"
        for path, seen in ((VMS + "/one", None), (VMS + "/one/status", "x")):
            await ask("PATCH", path, {"status": {"snapshotInProgress": "x"}}, merge)
            _, found = await ask("GET", VMS + "/one")
            assert found["status"].get("snapshotInProgress") == seen
            assert "ready" not in found["status"]
            assert found["metadata"]["generation"] == 1
        await ask("PATCH", VMS + "/one", {"spec": {"runStrategy": "Manual"}}, merge)
        _, found = await ask("GET", VMS + "/one")
        assert found["metadata"]["generation"] == 2

    run(work)


def test_lists_are_selected_by_labels_and_by_fields(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        for name in ("one", "two"):
            await ask("POST", VMS, vm(name))
            await ask("POST", PODS, pod(name))
        await asyncio.sleep(5)
        for query, expected in (
            ("labelSelector=mine%3Dyes", 2),
            ("labelSelector=mine%3Dno", 0),
            ("fieldSelector=metadata.name%3Dtwo", 1),
        ):
            _, found = await ask("GET", f"{VMS}?{query}")
            assert len(found["items"]) == expected
        for path in (VMS, VMIS, VMIRS):
            status, refusal = await ask("GET", f"{path}?fieldSelector=status.phase%3DRunning")
            assert (status, refusal["message"]) == (
                400, "field label not supported: status.phase",
            )  # fmt: skip
        _, found = await ask("GET", f"{PODS}?fieldSelector=status.phase%3DRunning")
        assert len(found["items"]) == 4

    run(work)


def spec_without(obj: Json, *path: str) -> Json:
    """The object without the field at a path of its spec."""
    *steps, gone = path
    place = obj["spec"]
    for step in steps:
        place = place[step]
    del place[gone]
    return obj


MUTATOR = 'admission webhook "virtualmachines-mutator.kubevirt.io" denied the request: '
VALIDATOR = 'admission webhook "virtualmachine-validator.kubevirt.io" denied the request: '
SET_VALIDATOR = (
    'admission webhook "virtualmachinereplicaset-validator.kubevirt.io" denied the request: '
)
INVALID_SET = 'VirtualMachineInstanceReplicaSet.kubevirt.io "set" is invalid: '


@pytest.mark.parametrize(
    ("path", "obj", "message"),
    [
        (VMS, spec_without(vm(), "template"), MUTATOR + "spec.template in body is required"),
        (
            VMS, spec_without(vm(), "template", "spec", "domain"),
            MUTATOR + "spec.template.spec.domain in body is required",
        ),
        (VMS, spec_without(vm(), "runStrategy"), VALIDATOR + "RunStrategy must be specified"),
        (VMS, vm(strategy="Sometimes"), VALIDATOR + "Invalid RunStrategy (Sometimes)"),
        (
            VMS, vm(running=True),
            VALIDATOR + "Running and RunStrategy are mutually exclusive. Note that Running is "
            "deprecated, please use RunStrategy instead",
        ),
        (VMIRS, replica_set(-1),
         INVALID_SET + ".spec.replicas: Invalid value: -1: should be a non-negative integer"),
        (VMIRS, spec_without(replica_set(), "template"),
         INVALID_SET + "spec.template: Required value"),
        (VMIRS, spec_without(replica_set(), "selector"),
         INVALID_SET + "spec.selector: Required value"),
        (VMIRS, replica_set(selector={"matchLabels": {"rs": "other"}}),
         SET_VALIDATOR + "selector does not match labels."),
        (
            VMIRS,
            replica_set(selector={"matchExpressions": [{"key": "rs", "operator": "Near"}]}),
            SET_VALIDATOR + '"Near" is not a valid label selector operator',
        ),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_in_the_real_words(
    run: Callable[[Work], None], path: str, obj: Json, message: str
) -> None:
    async def work(ask: Asker) -> None:
        status, refusal = await ask("POST", path, obj)
        assert (status, refusal["reason"], refusal["message"]) == (422, "Invalid", message)
        assert refusal["details"]["causes"]
        _, found = await ask("GET", path)
        assert found["items"] == []

    run(work)


def test_changes_are_checked_as_creations_are(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        await ask("POST", VMS, vm(strategy="Halted"))
        await ask("POST", VMIRS, replica_set())
        merge = "application/merge-patch+json"
        for path, spec in (
            (VMS + "/one", {"runStrategy": "Sometimes"}),
            (VMIRS + "/set", {"replicas": -1}),
            (VMIRS + "/set", {"replicas": "three"}),
        ):
            status, _ = await ask("PATCH", path, {"spec": spec}, merge)
            assert status == 422
        status, refusal = await ask("DELETE", VMS + "/one", {"propagationPolicy": "Sideways"})
        assert (status, refusal["details"]["causes"][0]["field"]) == (422, "propagationPolicy")

    run(work)


def test_many_vms_are_deleted_by_label(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        for index in range(5):
            await ask("POST", VMS, vm(f"vm-{index}"))
        await asyncio.sleep(10)
        status, _ = await ask("DELETE", f"{VMS}?labelSelector=mine%3Dyes")
        assert status == 200
        await asyncio.sleep(30)
        for path in (VMS, VMIS, PODS):
            _, found = await ask("GET", path)
            assert found["items"] == []

    run(work)
