"""virt-controller's VM controller: keeps the VMI that a VirtualMachine's run strategy asks for."""

from __future__ import annotations

import asyncio
import collections

from pytest_kvscale.sim.client import Client, controller_of, owned_by
from pytest_kvscale.sim.deletion import ORPHAN
from pytest_kvscale.sim.draws import Draws
from pytest_kvscale.sim.errors import Object, StatusError
from pytest_kvscale.sim.patch import merge
from pytest_kvscale.sim.players import vm_status, vm_strategy
from pytest_kvscale.sim.players.recorder import Recorder
from pytest_kvscale.sim.players.team import Team, WorkQueue
from pytest_kvscale.sim.players.virt_controller import OBSERVED, SOURCE, VM_FINALIZER
from pytest_kvscale.sim.players.vm_status import GENERATION, Trouble
from pytest_kvscale.sim.players.vm_strategy import FINAL, Step, phase_of
from pytest_kvscale.sim.profile import Profile
from pytest_kvscale.sim.resources import CONTROLLER_REVISIONS, VMIS, VMS, Resource
from pytest_kvscale.sim.store import Event

_WORKERS = 10
_RETRY, _LONGEST_RETRY = 0.005, 1000.0
"""Seconds until a start or stop that failed is tried again: doubled each time."""


class VmController:
    """The VM controller."""

    def __init__(self, team: Team, client: Client, profile: Profile, draws: Draws) -> None:
        self._client = client
        self._seconds = profile.times.sync
        self._draws = draws
        self._recorder = Recorder(team, client, SOURCE)
        self._vms: dict[str, Object] = {}
        self._vmis: dict[str, Object] = {}
        self._revisions: dict[str, dict[str, Object]] = {}
        """By the VM's uid: its revisions by name."""
        self._failures: collections.Counter[str] = collections.Counter()
        self._queue = WorkQueue(team, "virt-controller-vm", self._sync, _WORKERS)
        client.listen(VMS, self._on_vm)
        client.listen(VMIS, self._on_vmi)
        client.listen(CONTROLLER_REVISIONS, self._on_revision)

    def _on_vm(self, event: Event) -> None:
        vm = event.stored.obj
        key = _key(vm)
        if event.type == "DELETED":
            self._vms.pop(key, None)
            self._failures.pop(key, None)
            self._recorder.forget(vm)
        else:
            self._vms[key] = vm
        self._queue.add(key)

    def _on_vmi(self, event: Event) -> None:
        vmi = event.stored.obj
        key = _key(vmi)
        if event.type == "DELETED":
            self._vmis.pop(key, None)
        else:
            self._vmis[key] = vmi
        owner = controller_of(vmi)
        if key in self._vms or (owner is not None and owner["kind"] == VMS.kind):
            self._queue.add(key)

    def _on_revision(self, event: Event) -> None:
        revision = event.stored.obj
        owner = controller_of(revision)
        if owner is None or owner["kind"] != VMS.kind:
            return
        held = self._revisions.setdefault(owner["uid"], {})
        if event.type == "DELETED":
            held.pop(revision["metadata"]["name"], None)
            if not held:
                del self._revisions[owner["uid"]]
        else:
            held[revision["metadata"]["name"]] = revision

    async def _sync(self, key: str) -> None:
        await self._client.process.work(self._seconds)
        vm = self._vms.get(key)
        if vm is None:
            await self._release(self._vmis.get(key))
            return
        if "status" not in vm and vm_status.snapshots(vm):
            seen: Object = {
                "printableStatus": "Stopped",
                "volumeSnapshotStatuses": vm_status.snapshots(vm),
            }
            await self._client.update(VMS, {**vm, "status": seen}, status=True)
            return
        annotations = vm["metadata"].get("annotations") or {}
        if not all(each in annotations for each in OBSERVED):
            known = {"metadata": {"annotations": dict.fromkeys(OBSERVED, "v1")}}
            await self._client.update(VMS, merge(vm, known))
            return
        vmi = await self._claim(vm, self._vmis.get(key))
        trouble = None
        if "deletionTimestamp" in vm["metadata"]:
            if vmi is None or ORPHAN in (vm["metadata"].get("finalizers") or []):
                await self._drop_finalizer(VMS, vm)
                return
            trouble = await self._stop(vm, vmi)
        else:
            vm, vmi, trouble = await self._run(vm, vmi)
        await self._report(vm, vmi, trouble)
        if vmi is not None and phase_of(vmi) in FINAL:
            await self._release(self._vmis.get(key))
        self._try_again(key, trouble)

    async def _claim(self, vm: Object, vmi: Object | None) -> Object | None:
        """The VMI of that name if it is this VM's; one without an owner becomes its own."""
        if vmi is None:
            return None
        owner = controller_of(vmi)
        if owner is not None:
            return vmi if owner["uid"] == vm["metadata"]["uid"] else None
        if "deletionTimestamp" in vm["metadata"] or "deletionTimestamp" in vmi["metadata"]:
            return None
        owners = [*(vmi["metadata"].get("ownerReferences") or []), owned_by(vm)]
        return await self._client.update(
            VMIS, merge(vmi, {"metadata": {"ownerReferences": owners}})
        )

    # Starting and stopping ------------------------------------------------------------------

    async def _run(
        self, vm: Object, vmi: Object | None
    ) -> tuple[Object, Object | None, Trouble | None]:
        """Do what the run strategy asks for; returns VM and VMI as they are known then."""
        held = vm["metadata"].get("finalizers") or []
        if VM_FINALIZER not in held:
            change = {"metadata": {"finalizers": [*held, VM_FINALIZER]}}
            vm = await self._client.update(VMS, merge(vm, change))
        if vmi is not None:
            vmi = await self._note_generation(vm, vmi)
        trouble = None
        match vm_strategy.next_step(vm, vmi):
            case Step.START:
                trouble = await self._start_in_time(vm)
            case Step.STOP if vmi is not None:
                trouble = await self._stop(vm, vmi)
            case Step.STOP_AND_REQUEST_START if vmi is not None:
                trouble = await self._stop(vm, vmi)
                if trouble is None:
                    asked = (vm.get("status") or {}).get("stateChangeRequests") or []
                    change = {"status": {"stateChangeRequests": [*asked, {"action": "Start"}]}}
                    vm = await self._client.patch(VMS, vm, change, status=True)
            case Step.TURN_ON:
                on: Object = {"runStrategy": "Always"}
                if "runStrategy" not in vm["spec"]:
                    on = {"running": True}
                vm = await self._client.update(VMS, merge(vm, {"spec": on}))
        return vm, vmi, trouble

    async def _start_in_time(self, vm: Object) -> Trouble | None:
        left = 0.0
        failure = (vm.get("status") or {}).get("startFailure")
        if failure and vm_strategy.waits_after_failures(vm):
            left = self._client.api.calendar.until(failure["retryAfterTimestamp"])
        if left > 0:
            asyncio.get_running_loop().call_later(left, self._queue.add, _key(vm))
            return None
        return await self._start(vm)

    async def _start(self, vm: Object) -> Trouble | None:
        metadata = vm["metadata"]
        revision = await self._revision(vm)
        template = vm["spec"]["template"]
        given = template.get("metadata") or {}
        generation = {GENERATION: str(metadata["generation"])}
        vmi: Object = {
            "metadata": {
                "name": metadata["name"],
                **({"labels": given["labels"]} if given.get("labels") else {}),
                "annotations": {**(given.get("annotations") or {}), **generation},
                "ownerReferences": [owned_by(vm)],
                "finalizers": [VM_FINALIZER],
            },
            "spec": template.get("spec") or {},
            "status": {"virtualMachineRevisionName": revision},
        }
        try:
            made = await self._client.create(VMIS, metadata["namespace"], vmi)
        except StatusError as refusal:
            words = f"Error creating virtual machine instance: {refusal}"
            self._recorder.tell(vm, "FailedCreate", words, warning=True)
            return Trouble("FailedCreate", f"Failure while starting VMI: {refusal}")
        message = (
            "Started the virtual machine by creating the new virtual machine instance "
            + made["metadata"]["name"]
        )
        self._recorder.tell(vm, "SuccessfulCreate", message)
        return None

    async def _stop(self, vm: Object, vmi: Object) -> Trouble | None:
        metadata = vmi["metadata"]
        if "deletionTimestamp" in metadata:
            return None
        try:
            await self._client.delete(VMIS, vmi)
        except StatusError as refusal:
            words = f"Error deleting virtual machine instance {metadata['name']}: {refusal}"
            self._recorder.tell(vm, "FailedDelete", words, warning=True)
            return Trouble("FailedDelete", f"Failure attempting to delete VMI: {refusal}")
        message = (
            "Stopped the virtual machine by deleting the virtual machine instance "
            + metadata["uid"]
        )
        self._recorder.tell(vm, "SuccessfulDelete", message)
        return None

    def _try_again(self, key: str, trouble: Trouble | None) -> None:
        if trouble is None:
            self._failures.pop(key, None)
            return
        seconds = min(_RETRY * 2.0 ** min(self._failures[key], 30), _LONGEST_RETRY)
        self._failures[key] += 1
        asyncio.get_running_loop().call_later(seconds, self._queue.add, key)

    # Revisions: the VM's spec as it was when it was started ---------------------------------

    async def _revision(self, vm: Object) -> str:
        """Keep the spec the VM is started with, in the place of older ones."""
        metadata = vm["metadata"]
        name = f"revision-start-vm-{metadata['uid']}-{metadata['generation']}"
        held = dict(self._revisions.get(metadata["uid"], {}))
        for other, revision in held.items():
            if other != name:
                await self._client.delete(CONTROLLER_REVISIONS, revision)
        if name not in held:
            revision = {
                "metadata": {"name": name, "ownerReferences": [owned_by(vm)]},
                "data": {"spec": vm["spec"]},
                "revision": metadata["generation"],
            }
            await self._client.create(CONTROLLER_REVISIONS, metadata["namespace"], revision)
        return name

    async def _note_generation(self, vm: Object, vmi: Object) -> Object:
        """Tell the VMI the VM's new generation, where that changes nothing about the VMI."""
        generation = str(vm["metadata"]["generation"])
        annotations = vmi["metadata"].get("annotations") or {}
        if annotations.get(GENERATION) == generation or "deletionTimestamp" in vmi["metadata"]:
            return vmi
        started = self._revisions.get(vm["metadata"]["uid"], {}).get(
            (vmi.get("status") or {}).get("virtualMachineRevisionName", "")
        )
        if started is None or started["data"]["spec"]["template"] != vm["spec"]["template"]:
            return vmi
        change = {"metadata": {"annotations": {GENERATION: generation}}}
        return await self._client.patch(VMIS, vmi, change)

    # Reporting ------------------------------------------------------------------------------

    async def _report(self, vm: Object, vmi: Object | None, trouble: Trouble | None) -> None:
        def retry_at(failures: int) -> str:
            seconds, more = vm_strategy.backoff(failures)
            name = vm["metadata"]["name"]
            nth = self._draws.nth("start backoff", name)
            seconds += self._draws.integer(0, more, "start backoff", name, nth)
            return self._client.api.calendar.stamp(vm_strategy.longest(seconds))

        status = vm_status.status_of(vm, vmi, trouble, self._client.stamp(), retry_at)
        if status != vm.get("status"):
            await self._client.update(VMS, {**vm, "status": status}, status=True)

    async def _release(self, vmi: Object | None) -> None:
        """Let go of a VMI that has ended, now that its VM has seen it, or of one without a VM."""
        if vmi is not None:
            await self._drop_finalizer(VMIS, vmi)

    async def _drop_finalizer(self, resource: Resource, obj: Object) -> None:
        held = obj["metadata"].get("finalizers") or []
        if VM_FINALIZER in held:
            left = [each for each in held if each != VM_FINALIZER]
            metadata = {**obj["metadata"], "finalizers": left}
            await self._client.update(resource, {**obj, "metadata": metadata})


def _key(obj: Object) -> str:
    metadata = obj["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}"
