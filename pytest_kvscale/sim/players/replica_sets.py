"""virt-controller's replica set controller: keeps so many VMIs of one template."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Coroutine

from pytest_kvscale.sim import selectors
from pytest_kvscale.sim.client import Client, condition_of, controller_of, owned_by
from pytest_kvscale.sim.errors import Object, StatusError
from pytest_kvscale.sim.patch import merge
from pytest_kvscale.sim.players.recorder import Recorder
from pytest_kvscale.sim.players.team import Team, WorkQueue
from pytest_kvscale.sim.players.virt_controller import OBSERVED
from pytest_kvscale.sim.players.vm_strategy import FINAL, phase_of
from pytest_kvscale.sim.profile import Profile
from pytest_kvscale.sim.resources import VMIRS, VMIS
from pytest_kvscale.sim.store import Event

_WORKERS = 10
_BURST = 250
"""VMIs made or deleted in one go, at most."""
_RETRY, _LONGEST_RETRY = 0.005, 1000.0
"""Seconds until a refused creation or deletion is tried again: doubled each time."""
SOURCE = "virtualmachinereplicaset-controller"


class ReplicaSetController:
    """The controller of VirtualMachineInstanceReplicaSets."""

    def __init__(self, team: Team, client: Client, profile: Profile) -> None:
        self._client = client
        self._seconds = profile.times.sync
        self._recorder = Recorder(team, client, SOURCE)
        self._sets: dict[str, Object] = {}
        self._vmis: dict[str, dict[str, Object]] = {}
        """By namespace, by uid."""
        self._failures: collections.Counter[str] = collections.Counter()
        self._queue = WorkQueue(team, "virt-controller-replicaset", self._sync, _WORKERS)
        client.listen(VMIRS, self._on_set)
        client.listen(VMIS, self._on_vmi)

    def _on_set(self, event: Event) -> None:
        replica_set = event.stored.obj
        uid = replica_set["metadata"]["uid"]
        if event.type == "DELETED":
            self._sets.pop(uid, None)
            self._failures.pop(uid, None)
            self._recorder.forget(replica_set)
        else:
            self._sets[uid] = replica_set
            self._queue.add(uid)

    def _on_vmi(self, event: Event) -> None:
        vmi = event.stored.obj
        metadata = vmi["metadata"]
        held = self._vmis.setdefault(metadata["namespace"], {})
        if event.type == "DELETED":
            held.pop(metadata["uid"], None)
        else:
            held[metadata["uid"]] = vmi
        owner = controller_of(vmi)
        if owner is not None:
            if owner["uid"] in self._sets:
                self._queue.add(owner["uid"])
            return
        for uid, each in self._sets.items():
            # One without an owner: a set whose selector it matches may want it.
            if each["metadata"]["namespace"] == metadata["namespace"] and _selects(each, vmi):
                self._queue.add(uid)

    async def _sync(self, uid: str) -> None:
        await self._client.process.work(self._seconds)
        replica_set = self._sets.get(uid)
        if replica_set is None:
            return
        annotations = replica_set["metadata"].get("annotations") or {}
        if not all(each in annotations for each in OBSERVED):
            known = {"metadata": {"annotations": dict.fromkeys(OBSERVED, "v1")}}
            await self._client.patch(VMIRS, replica_set, known)
            return
        vmis = await self._claim(replica_set)
        living = [each for each in vmis if "deletionTimestamp" not in each["metadata"]]
        active = [each for each in living if _is_active(each)]
        trouble = None
        spec = replica_set["spec"]
        if not spec.get("paused") and "deletionTimestamp" not in replica_set["metadata"]:
            trouble = await self._scale(replica_set, active)
            finished = [each for each in living if not _is_active(each)]
            if trouble is None:
                trouble = await self._clean(replica_set, finished)
        await self._report(replica_set, active, trouble)
        self._try_again(uid, trouble)

    async def _claim(self, replica_set: Object) -> list[Object]:
        """The set's VMIs: those it owns and selects, and those it selects that nobody owns."""
        metadata = replica_set["metadata"]
        claimed = []
        for uid in sorted(self._vmis.get(metadata["namespace"], {})):
            vmi = self._vmis[metadata["namespace"]].get(uid)
            owner = controller_of(vmi) if vmi is not None else None
            if vmi is None or (owner is not None and owner["uid"] != metadata["uid"]):
                continue
            owners = vmi["metadata"].get("ownerReferences") or []
            selected = _selects(replica_set, vmi)
            if selected and owner is not None:
                claimed.append(vmi)
            elif "deletionTimestamp" in vmi["metadata"] or "deletionTimestamp" in metadata:
                continue
            elif selected:
                change = {"metadata": {"ownerReferences": [*owners, owned_by(replica_set)]}}
                claimed.append(await self._client.update(VMIS, merge(vmi, change)))
            elif owner is not None:
                change = {"metadata": {"ownerReferences": [e for e in owners if e is not owner]}}
                await self._client.update(VMIS, merge(vmi, change))
        return claimed

    # More and fewer -------------------------------------------------------------------------

    async def _scale(self, replica_set: Object, active: list[Object]) -> StatusError | None:
        missing = _wanted(replica_set) - len(active)
        if missing > 0:
            return await _together([self._make(replica_set) for _ in range(min(missing, _BURST))])
        stopped = "Stopped the virtual machine by deleting the virtual machine instance {}"
        failed = "Error deleting virtual machine instance {}: {}"
        surplus = sorted(active, key=lambda vmi: str(vmi["metadata"]["name"]))[: -missing or 0]
        return await _together(
            [self._delete(replica_set, each, stopped, failed) for each in surplus[:_BURST]]
        )

    async def _clean(self, replica_set: Object, finished: list[Object]) -> StatusError | None:
        deleted = "Deleted finished virtual machine: {}"
        failed = "Error deleting finished virtual machine {}: {}"
        return await _together(
            [self._delete(replica_set, each, deleted, failed) for each in finished[:_BURST]]
        )

    async def _make(self, replica_set: Object) -> StatusError | None:
        metadata, template = replica_set["metadata"], replica_set["spec"]["template"]
        given = template.get("metadata") or {}
        base = given.get("name") or given.get("generateName") or metadata["name"]
        kept = {key: given[key] for key in ("labels", "annotations") if given.get(key)}
        vmi: Object = {
            "metadata": {
                **kept, "generateName": base, "ownerReferences": [owned_by(replica_set)],
            },
            "spec": template.get("spec") or {},
        }  # fmt: skip
        try:
            made = await self._client.create(VMIS, metadata["namespace"], vmi)
        except StatusError as refusal:
            words = f"Error creating virtual machine instance: {refusal}"
            self._recorder.tell(replica_set, "FailedCreate", words, warning=True)
            return refusal
        message = (
            "Started the virtual machine by creating the new virtual machine instance "
            + made["metadata"]["name"]
        )
        self._recorder.tell(replica_set, "SuccessfulCreate", message)
        return None

    async def _delete(
        self, replica_set: Object, vmi: Object, done: str, failed: str
    ) -> StatusError | None:
        metadata = vmi["metadata"]
        try:
            await self._client.delete(VMIS, vmi)
        except StatusError as refusal:
            words = failed.format(metadata["name"], refusal)
            self._recorder.tell(replica_set, "FailedDelete", words, warning=True)
            return refusal
        self._recorder.tell(replica_set, "SuccessfulDelete", done.format(metadata["uid"]))
        return None

    def _try_again(self, uid: str, trouble: StatusError | None) -> None:
        if trouble is None:
            self._failures.pop(uid, None)
            return
        seconds = min(_RETRY * 2.0 ** min(self._failures[uid], 30), _LONGEST_RETRY)
        self._failures[uid] += 1
        asyncio.get_running_loop().call_later(seconds, self._queue.add, uid)

    # Reporting ------------------------------------------------------------------------------

    async def _report(
        self, replica_set: Object, active: list[Object], trouble: StatusError | None
    ) -> None:
        before = replica_set.get("status") or {}
        ready = sum((condition_of(each, "Ready") or {}).get("status") == "True" for each in active)
        counts = {"replicas": len(active), "readyReplicas": ready}
        paused = bool(replica_set["spec"].get("paused"))
        conditions = self._conditions(replica_set, active, trouble, paused)
        status = {
            **{key: value for key, value in before.items() if key not in (*counts, "conditions")},
            "labelSelector": selectors.of_spec(replica_set["spec"]["selector"]),
            **{key: value for key, value in counts.items() if value},
            **({"conditions": conditions} if conditions else {}),
        }
        if status == before:
            return
        await self._client.update(VMIRS, {**replica_set, "status": status}, status=True)
        if paused != (condition_of(replica_set, "Paused") is not None):
            words = ("SuccessfulPaused", "Paused") if paused else ("SuccessfulResumed", "Resumed")
            self._recorder.tell(replica_set, *words)

    def _conditions(
        self, replica_set: Object, active: list[Object], trouble: StatusError | None, paused: bool
    ) -> list[Object]:
        wanted: list[tuple[str, str, str]] = []
        if paused:
            wanted.append(("Paused", "Paused", "Controller got paused"))
        if trouble is not None:
            short = len(active) < _wanted(replica_set)
            wanted.append(
                ("ReplicaFailure", "FailedCreate" if short else "FailedDelete", str(trouble))
            )
        return [
            condition_of(replica_set, kind)
            or {
                "lastProbeTime": None,
                "lastTransitionTime": self._client.stamp(),
                "message": message,
                "reason": reason,
                "status": "True",
                "type": kind,
            }
            for kind, reason, message in wanted
        ]


async def _together(work: list[Coroutine[None, None, StatusError | None]]) -> StatusError | None:
    """Do all at once; returns the first refusal."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in work]
    return next((task.result() for task in tasks if task.result() is not None), None)


def _wanted(replica_set: Object) -> int:
    return int(replica_set["spec"].get("replicas", 1))


def _selects(replica_set: Object, vmi: Object) -> bool:
    return selectors.labels(selectors.of_spec(replica_set["spec"]["selector"]))(vmi)


def _is_active(vmi: Object) -> bool:
    ready = condition_of(vmi, "Ready") or {}
    unknown = ready.get("status") == "False" and ready.get("reason") == "PodTerminating"
    return phase_of(vmi) not in FINAL and not unknown
