"""Undoing what a run left, by its journal: objects, namespace, KubeVirt's version and settings.

An object is deleted if it carries the run's label and is one the run had planned, by name and, as
far as it was noted, by uid; what they own goes with them. Finalizers are never taken off.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from pytest_kvscale.cluster import namespaces, tuner, upgrade
from pytest_kvscale.cluster.client import (
    NAMESPACES,
    PODS,
    VMIS,
    ApiError,
    Client,
    LostConnectionError,
    Object,
    Resource,
    repeat_until,
)
from pytest_kvscale.cluster.journal_record import ObjectsNote, Record, TuningNote, UpgradeNote
from pytest_kvscale.cluster.kinds import KINDS
from pytest_kvscale.cluster.settle import Mirror, Watched, until
from pytest_kvscale.cluster.templates import RUN_LABEL
from pytest_kvscale.cluster.tuning import MadeAnewError, TuningError
from pytest_kvscale.cluster.upgrade import UpgradeError

_SHOWN = 3
_AGAIN = 60.0
"""Seconds after which one looks again: a create of a process that died may take effect late."""


class NotUndoneError(Exception):
    """Something of a run is still there, or still changed; says what, and what to do.

    `settings_back`: what it changed of KubeVirt is undone all the same.
    """

    def __init__(self, text: str, settings_back: bool = False) -> None:
        super().__init__(text)
        self.settings_back = settings_back


@dataclasses.dataclass(frozen=True)
class Undone:
    """What became of a run's remains."""

    removed: Sequence[str]
    """Objects, as `kind name`."""
    settings: Sequence[str]
    """Fields of the KubeVirt CR that were put back."""
    left: Sequence[str]
    """What was left alone because it is somebody else's, in words."""
    version: str = ""
    """What KubeVirt was brought back to, if it was."""

    def text(self) -> str:
        """In a sentence."""
        parts = []
        if self.removed:
            parts.append(f"removed {len(self.removed)} objects ({_some(self.removed)})")
        if self.settings:
            parts.append(f"put back {len(self.settings)} KubeVirt settings")
        if self.version:
            parts.append(f"brought KubeVirt back to {self.version}")
        parts += self.left
        return "; ".join(parts) or "nothing of it was left"


class _Notes:
    """Stands for the journal of a run that is being undone: it is removed when all is done."""

    async def before(self, **parts: object) -> None:
        """Nothing is begun."""

    async def after(self, **parts: object) -> None:
        """See `undo`."""


@dataclasses.dataclass(frozen=True)
class Back:
    """What brings KubeVirt back where a command has upgraded it."""

    command: str | None = None
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)


NO_BACK = Back()


async def undo(client: Client, record: Record, timeout: float, back: Back = NO_BACK) -> Undone:
    """Undo what a run has left; `timeout` (seconds) is for its objects to go.

    Raises `NotUndoneError`.
    """
    removed: list[str] = []
    left: list[str] = []
    stays = ""
    if record.objects is not None:
        try:
            removed, left = await remove(client, record.objects, record.run, timeout)
        except (ApiError, LostConnectionError, TimeoutError) as problem:
            stays = (
                f"what run {record.run} left could not be removed: {problem or 'no answer'}: "
                + command(record.objects.namespace, record.run, record.objects.own)
            )
    fields: list[str] = []
    # Objects that do not go must not keep KubeVirt changed. What was changed last is undone first.
    try:
        version = ""
        if record.upgrade is not None:
            version, others = await _version(client, record.upgrade, back)
            left = [*left, *others]
        if record.tuning is not None:
            note = record.tuning
            if record.upgrade is not None and not version:
                # How many devices the version that stays offers by itself is not known.
                note = note.model_copy(update={"devices": None})
            fields, others = await _settings(client, note)
            left = [*left, *others]
    except (ApiError, LostConnectionError, TimeoutError, TuningError, UpgradeError) as problem:
        said = f"run {record.run}: {problem}"
        raise NotUndoneError(f"{stays}; {said}" if stays else said) from None
    if stays and version and record.objects is not None:
        # A version that hung half way may have been what let nothing go.
        with contextlib.suppress(ApiError, LostConnectionError, TimeoutError):
            removed, others = await remove(client, record.objects, record.run, timeout)
            left, stays = [*left, *others], ""
    if stays:
        changed = record.tuning is not None or record.upgrade is not None
        raise NotUndoneError(stays, settings_back=changed)
    return Undone(removed, fields, left, version)


async def _version(client: Client, note: UpgradeNote, back: Back) -> tuple[str, list[str]]:
    """Bring KubeVirt back to the version it was; that version, and what was left alone."""
    try:
        left = await upgrade.undo(client, note, back.command, back.environment)
    except MadeAnewError as problem:
        return "", [f"{problem} (KubeVirt was {note.version})"]
    return ("" if left else note.version), left


async def _settings(client: Client, note: TuningNote) -> tuple[list[str], list[str]]:
    """Put settings back; which, and what was left alone, in words."""
    try:
        others = await tuner.put_back(client, note, _Notes())
    except MadeAnewError as problem:
        names = ", ".join(each.name for each in note.changes)
        return [], [f"{problem} (the run had changed: {names})"]
    fields = [each.name for each in note.changes if each not in others]
    names = ", ".join(each.name for each in others)
    return fields, [f"left as somebody else has set them since: {names}"] if others else []


async def remove(
    client: Client, note: ObjectsNote, run: str, timeout: float
) -> tuple[list[str], list[str]]:
    """Delete a run's objects and its own namespace, and wait until they are gone.

    Returns what was there, as `kind name`, and what was left because it is none of the run's.
    Raises TimeoutError, naming them, if some are still there after `timeout` seconds.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    remains = _Remains(client, note, run)
    while True:
        await remains.look(deadline)
        await remains.delete(deadline)
        if await remains.gone(min(_AGAIN, max(0.0, deadline - loop.time()))):
            break
        if loop.time() >= deadline:
            raise TimeoutError(remains.complaint())
    left = remains.strangers
    left = [f"left alone, though it carries the run's label: {_some(left)}"] if left else []
    removed = remains.removed
    if note.own:
        removed += await _remove_namespace(client, note, run, deadline, left)
    return removed, left


class _Remains:
    """The objects with a run's label in a namespace."""

    def __init__(self, client: Client, note: ObjectsNote, run: str) -> None:
        self._client = client
        self._note = note
        self._labels = f"{RUN_LABEL}={run}"
        self._planned = dict.fromkeys(KINDS[each].resource for each in note.kinds)
        self._resources = [*dict.fromkeys([*self._planned, VMIS, PODS])]
        self._there: list[tuple[Resource, Object]] = []
        self._ours: set[str] = set()
        """Uids of what the run made, and of what that owns."""
        self._still: list[str] = []
        self.removed: list[str] = []

    @property
    def strangers(self) -> list[str]:
        """The names of what carries the label and is none of the run's."""
        return sorted(obj["metadata"]["name"] for _, obj in self._there
                      if obj["metadata"]["uid"] not in self._ours)  # fmt: skip

    async def look(self, deadline: float) -> None:
        """See what is there: a create may take effect late."""
        self._there = [
            (resource, obj)
            for resource in self._resources
            for obj in await _all(
                self._client, resource, self._note.namespace, self._labels, deadline
            )
        ]
        made = {
            obj["metadata"]["uid"]
            for resource, obj in self._there
            if resource in self._planned and is_planned(self._note, obj["metadata"])
        }
        self._ours = made | _owned(self._there, made)

    async def delete(self, deadline: float) -> None:
        """Ask for the deletion of what the run made."""
        for resource, obj in self._there:
            metadata = obj["metadata"]
            if metadata["uid"] not in self._ours or resource not in self._planned:
                continue
            name, uid = metadata["name"], metadata["uid"]
            if f"{resource.plural} {name}" not in self.removed:
                self.removed.append(f"{resource.plural} {name}")
            await _delete(self._client, resource, self._note.namespace, name, uid, deadline)

    async def gone(self, timeout: float) -> bool:
        """Wait until all is gone but what is others'; False if it is not in so many seconds."""
        others = {obj["metadata"]["uid"] for _, obj in self._there} - self._ours

        def none_left(mirrors: Sequence[Mirror]) -> bool:
            self._still = [
                f"{resource.plural} {name}"
                for resource, mirror in zip(self._resources, mirrors, strict=True)
                for name, obj in mirror.objects.items()
                if obj["metadata"]["uid"] not in others
            ]
            return not self._still

        namespace = self._note.namespace
        wanted = [Watched(each, namespace, labels=self._labels) for each in self._resources]
        return await until(self._client, wanted, none_left, timeout)

    def complaint(self) -> str:
        """What is still there, with the command that looks into it."""
        what = self._still[0].replace(" ", "/") if self._still else "all"
        namespace = self._note.namespace
        return (
            f"still there in the namespace {namespace}: {_some(self._still)}: kubectl get {what} "
            f"-n {namespace} -o yaml"
        )


async def _remove_namespace(
    client: Client, note: ObjectsNote, run: str, deadline: float, left: list[str]
) -> list[str]:
    try:
        there = await repeat_until(
            deadline, lambda: client.get(NAMESPACES, "", note.namespace)
        )  # fmt: skip
    except ApiError as problem:
        if problem.code == 404:
            return []
        raise
    uid = there["metadata"]["uid"]
    if not namespaces.is_ours(there, run) or note.namespace_uid not in ("", uid):
        return []
    if left:
        left.append(f"and with it the namespace {note.namespace}")
        return []
    if not await namespaces.remove(client, there, deadline):
        raise TimeoutError(f"the namespace {note.namespace} is still there")
    return [f"namespaces {note.namespace}"]


def is_planned(note: ObjectsNote, metadata: Object) -> bool:
    """Whether an object is one that a run was to make, and no other of its name."""
    name, uid = metadata["name"], metadata["uid"]
    return name in note.names and note.uids.get(name, uid) == uid


def _owned(there: Iterable[tuple[Resource, Object]], above: set[str]) -> set[str]:
    """The uids of what objects own, and of what that owns."""
    owners = {
        obj["metadata"]["uid"]: {
            each.get("uid") for each in obj["metadata"].get("ownerReferences") or []
        }
        for _, obj in there
    }
    found = set(above)
    while more := {uid for uid, its in owners.items() if its & found} - found:
        found |= more
    return found


async def _all(
    client: Client, resource: Resource, namespace: str, labels: str, deadline: float
) -> list[Object]:
    async def every_page() -> list[Object]:
        return [each async for page in client.pages(resource, namespace, labels) for each in page]

    return await repeat_until(deadline, every_page)


async def _delete(
    client: Client, resource: Resource, namespace: str, name: str, uid: str, deadline: float
) -> None:
    try:
        await repeat_until(deadline, lambda: client.delete(resource, namespace, name, uid))
    except ApiError as problem:
        if problem.code not in (404, 409):
            raise


def command(namespace: str, run: str, own: bool) -> str:
    """The command that removes what a run left; `own`: the namespace too."""
    objects = f"kubectl delete vm,vmirs,vmi,pod -n {namespace} -l {RUN_LABEL}={run}"
    return f"{objects} && kubectl delete namespace {namespace}" if own else objects


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
