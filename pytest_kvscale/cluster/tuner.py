"""KubeVirt settings for the time of a run: applied to the CR, rolled out, watched, put back.

What changes and what was there is noted in the journal before anything is sent. Every patch names
the version of the CR it was made for, so that nothing somebody else has just written is undone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from pytest_kvscale.cluster import kubevirt as kubevirts
from pytest_kvscale.cluster.client import (
    KUBEVIRTS,
    NODES,
    ApiError,
    Client,
    LostConnectionError,
    Object,
    is_passing,
    repeat_until,
)
from pytest_kvscale.cluster.clock import now
from pytest_kvscale.cluster.journal_record import TuningNote, field_note
from pytest_kvscale.cluster.kubevirt_owner import owned_by
from pytest_kvscale.cluster.nodes import DEVICE, amount
from pytest_kvscale.cluster.settle import Mirror, Watched, until
from pytest_kvscale.cluster.tuning import (
    ABSENT,
    IMAGE_FIELDS,
    Change,
    MadeAnewError,
    TuningError,
    as_patch,
    changes,
    differences,
    look_up,
    undo,
)

ROLLOUT_TIMEOUT = 600.0
PATIENCE = 120.0
"""Seconds the API is given to answer: settings must not stay changed because it restarts."""
_PAUSE = 1.0
_PER_NODE = ("configuration", "virtualMachineInstancesPerNode")


class Notes(Protocol):
    """The journal, as far as settings go."""

    async def before(self, **parts: Any) -> None:
        """Note what is about to be done."""
        ...

    async def after(self, **parts: Any) -> None:
        """Note what has been done."""
        ...


class Changed(Protocol):
    """A note of changes of a KubeVirt CR."""

    @property
    def namespace(self) -> str:
        """The CR's."""
        ...

    @property
    def name(self) -> str:
        """The CR's."""
        ...

    @property
    def uid(self) -> str:
        """The CR's."""
        ...

    @property
    def changes(self) -> list[Change]:
        """What was changed."""
        ...


class Tuner:
    """Applies a tuning to a cluster's KubeVirt CR, and puts back what was there."""

    def __init__(self, client: Client, journal: Notes, node: str) -> None:
        self._client = client
        # Looking again is no part of what a level costs.
        self._aside = client.apart("settings")
        self._journal = journal
        self._node = node
        self._note: TuningNote | None = None
        self._during: Object = {}
        """The CR's spec as it is to stay during the run."""
        self._version = ""
        """KubeVirt's, which is to stay too."""
        self._devices_of: dict[str, str | None] = {}
        """By version: what the node offered of kvm before the settings were changed."""

    def leave(self) -> None:
        """Somebody else has put back what was there: what is there now is not ours."""
        self._note = None

    @property
    def made(self) -> list[Change]:
        """What is changed, while it is."""
        return [] if self._note is None else self._note.changes

    async def apply(self, tuning: Object) -> list[Change]:
        """Apply a tuning, and wait until it is rolled out to the node under test.

        Raises `TuningError`, after what was changed has been put back.
        """
        found = await self._find()
        self._version = kubevirts.version(found)
        if not tuning or not changes(found["spec"], tuning):
            self._during = found["spec"]
            return []
        owner = owned_by(found)
        if owner:
            raise TuningError(owner)
        changed = await self._change(found, tuning)
        self._during = changed["spec"]
        hanging = await self._rolled_out(changed, look_up(changed["spec"], _PER_NODE))
        if hanging:
            raise TuningError(
                f"the KubeVirt settings were not rolled out within {ROLLOUT_TIMEOUT:g} s: "
                f"{hanging}; {await self._give_up()}"
            )
        return self.made

    async def put_back(self) -> list[Change]:
        """Put back what was there; returns the changes left alone because others touched them.

        Raises `TuningError` if it cannot be done, or does not roll out.
        """
        if self._note is None:
            return []
        left = await put_back(self._client, self._note, self._journal)
        self._note = None
        return left

    async def upgraded(self) -> None:
        """KubeVirt is of another version now, as the run wanted: that is no drift.

        How many devices a version offers by itself is known only of the one that was there when
        the settings were changed.
        """
        found = await self._find()
        self._version = kubevirts.version(found)
        kept = {key: value for key, value in self._during.items() if key not in IMAGE_FIELDS}
        images = {key: found["spec"][key] for key in IMAGE_FIELDS if key in found["spec"]}
        self._during = {**kept, **images}
        if self._note is not None:
            devices = self._devices_of.get(self._version)
            self._note = self._note.model_copy(update={"devices": devices})
            await self._journal.before(tuning=self._note)

    async def drift(self) -> list[str]:
        """The settings that are not what they were when the run's levels began, in words."""
        found = await _patiently(lambda: kubevirts.find_kubevirt(self._aside))
        version = kubevirts.version(found)
        upgraded = [f"the version was {self._version or 'unknown'}, is {version or 'unknown'}"]
        changed = differences(self._during, found["spec"])
        return (upgraded if version != self._version else []) + changed

    # Applying -------------------------------------------------------------------------------

    async def _find(self) -> Object:
        return await _patiently(lambda: kubevirts.find_kubevirt(self._client))

    async def _change(self, found: Object, tuning: Object) -> Object:
        """Note the changes and make them; the CR as it is then."""
        deadline, devices = now() + PATIENCE, await self._devices()
        self._devices_of[self._version] = devices
        ours: dict[tuple[str, ...], Change] = {}
        unsure = False
        """A patch may have been carried out, and no answer said so."""
        while True:
            wanted = changes(found["spec"], tuning)
            if not wanted:
                if not ours:
                    # Somebody else has just made the same settings: they are not ours to undo.
                    self._note = None
                    await self._journal.after(tuning=None)
                return found
            ours |= {each.path: each for each in wanted}
            self._note = _note(found, self._node, devices, list(ours.values()))
            await self._journal.before(tuning=self._note)
            try:
                return await patch(self._client, found, as_patch(wanted))
            except (ApiError, LostConnectionError, TimeoutError) as problem:
                if not isinstance(problem, ApiError) or problem.passing:
                    unsure = True
                elif not unsure:
                    # Nothing of this was carried out.
                    ours.clear()
                    if problem.code != 409:
                        self._note = None
                        await self._journal.after(tuning=None)
                        raise TuningError(f"KubeVirt refuses the settings: {problem}") from None
                if now() + _PAUSE > deadline:
                    raise TuningError(
                        f"the KubeVirt settings could not be changed: {problem}; "
                        f"{await self._give_up()}"
                    ) from None
            await asyncio.sleep(_PAUSE)
            found = await self._find()

    async def _give_up(self) -> str:
        try:
            await self.put_back()
        except TuningError as problem:
            return str(problem)
        return "they have been put back"

    async def _devices(self) -> str | None:
        node = await _patiently(lambda: self._client.get(NODES, "", self._node))
        found = (node["status"].get("allocatable") or {}).get(DEVICE)
        return None if found is None else str(found)

    async def _rolled_out(self, changed: Object, devices: object) -> str:
        return await rolled_out(self._client, changed, self._node, devices)


def _note(
    found: Object, node: str, devices: str | None, made: Sequence[Change]
) -> TuningNote:  # fmt: skip
    metadata = found["metadata"]
    return TuningNote(
        namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"], node=node,
        devices=devices, fields=tuple(field_note(each) for each in made),
    )  # fmt: skip


async def put_back(client: Client, note: TuningNote, journal: Notes) -> list[Change]:
    """Put back what a note says was there; see `Tuner.put_back`."""
    try:
        changed, left = await former_values(client, note)
    except (ApiError, LostConnectionError, TimeoutError) as problem:
        raise TuningError(
            f"the former KubeVirt settings could not be put back: {problem or 'no answer'}; the "
            "next run does it, or: python -m pytest_kvscale recover"
        ) from None
    await journal.after(tuning=None)
    if changed is not None:
        hanging = await rolled_out(client, changed, note.node, _devices_after(note, left))
        if hanging:
            raise TuningError(
                "the former KubeVirt settings are back, but not rolled out within "
                f"{ROLLOUT_TIMEOUT:g} s: {hanging}"
            )
    return left


def _devices_after(note: TuningNote, left: Sequence[Change]) -> object:
    """How many devices a node is to offer again; `ABSENT`: that does not change, or is not known.

    Where the CR did not say, as many as it offered before.
    """
    for change in note.changes:
        if change.path == _PER_NODE and change not in left:
            former = note.devices if change.before is ABSENT else change.before
            return ABSENT if former is None else former
    return ABSENT


async def former_values(
    client: Client, note: Changed, whole: bool = False
) -> tuple[Object | None, list[Change]]:
    """Put the values back; the CR if it had to be changed, and what was left alone.

    `whole`: all of them, or none if somebody else has changed one.
    """
    deadline, made = now() + PATIENCE, note.changes
    changed: Object | None = None
    left: list[Change] = []
    while True:
        found = await _changed_one(client, note)
        change, still_left = undo(found["spec"], made)
        # What was put back reads like what others have changed: only the first look tells.
        left = left or still_left
        if not change or (whole and left):
            return changed and found, left
        try:
            changed = await patch(client, found, change)
        except (ApiError, LostConnectionError, TimeoutError) as problem:
            conflict = isinstance(problem, ApiError) and problem.code == 409
            if not (conflict or is_passing(problem)) or now() + _PAUSE > deadline:
                raise
            changed = found  # It may have been carried out.
            await asyncio.sleep(_PAUSE)


async def _changed_one(client: Client, note: Changed) -> Object:
    """The CR that was changed. Raises `MadeAnewError` if it is no more."""
    where = f"the KubeVirt CR {note.namespace}/{note.name}"
    try:
        found = await _patiently(
            lambda: client.get(KUBEVIRTS, note.namespace, note.name)
        )  # fmt: skip
    except ApiError as problem:
        # Where the kind is not served, the answer names no object.
        if problem.code == 404 and f'"{note.name}"' in problem.status_message:
            raise MadeAnewError(f"{where} has been removed since: nothing was put back") from None
        raise
    if found["metadata"]["uid"] != note.uid:
        raise MadeAnewError(f"{where} has been made anew since: nothing was put back")
    return found


async def patch(client: Client, found: Object, change: Object) -> Object:
    """Merge a change into the CR's spec, if the CR is still as it was found."""
    metadata = found["metadata"]
    body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "spec": change}
    return await client.patch(KUBEVIRTS, metadata["namespace"], metadata["name"], body)


async def rolled_out(client: Client, changed: Object, node: str, devices: object) -> str:
    """Wait until a changed CR is in force on a node; "" or what hangs.

    `devices` is how many the node is to offer; `ABSENT`: that does not change.
    """
    try:
        return await _in_force(client, changed, node, devices)
    except (ApiError, LostConnectionError, TimeoutError) as problem:
        return f"it could not be watched ({problem or 'no answer in time'})"


async def _in_force(client: Client, changed: Object, node: str, devices: object) -> str:
    hanging = await kubevirts.rolled_out(client, changed, ROLLOUT_TIMEOUT)
    if hanging or devices is ABSENT:
        return hanging
    have: object = None

    def reached(mirrors: Sequence[Mirror]) -> bool:
        nonlocal have
        status = mirrors[0].objects.get(node, {}).get("status") or {}
        have = (status.get("allocatable") or {}).get(DEVICE)
        return amount(have) == amount(devices)

    # virt-handler is ready a little before the kubelet offers its devices.
    fields = [Watched(NODES, fields=f"metadata.name={node}")]
    if await until(client, fields, reached, ROLLOUT_TIMEOUT):
        return ""
    return f"node {node} offers {have} of {devices} {DEVICE}"


async def _patiently(request: Callable[[], Awaitable[Object]]) -> Object:
    return await repeat_until(now() + PATIENCE, request)
