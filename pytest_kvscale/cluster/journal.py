"""The journal: what a run is about to create or change is noted before it does, to be undone.

It is noted on this machine's disk and in the cluster (a ConfigMap in `kvscale-system`), where the
next run finds it, from whatever machine. What has been undone is noted after it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import IO, Any

from pytest_kvscale.cluster import system
from pytest_kvscale.cluster.client import (
    NAMESPACES,
    ApiError,
    Client,
    LostConnectionError,
    Object,
    repeat_until,
)
from pytest_kvscale.cluster.clock import now
from pytest_kvscale.cluster.journal_disk import Folder
from pytest_kvscale.cluster.journal_record import Record, read
from pytest_kvscale.cluster.system import CONFIG_MAPS, NAMESPACE
from pytest_kvscale.cluster.who import who
from pytest_kvscale.errors import ConfigurationError

LABEL = "kvscale.io/journal"
_DATA = "journal"
_LARGEST = 1_000_000
"""Characters that are kept in the cluster; the API takes a MiB."""
PATIENCE = 120.0
"""Seconds the API is given to take a note: a run does not end because it restarts."""
_AFTERWARDS = 30.0
"""Seconds it is given for what was undone: a note too many does no harm."""


class Journal:
    """The journal of one run; all processes of a run write the same one, one after the other."""

    def __init__(self, client: Client, run: str, cluster: str, folder: Folder) -> None:
        # The journal is no part of what a level costs.
        self._client = client.apart("journal")
        self._folder = folder
        self._run = run
        self._cluster = cluster
        self.record = Record(run=run, by=who(), cluster=cluster)
        self.off = ""
        """Why there is no journal in the cluster, if there is none."""

    def load(self) -> Record:
        """What another process of this run has written last."""
        found = self._folder.find(self._run)
        self.record = found or Record(run=self._run, by=who(), cluster=self._cluster)
        return self.record

    def alive(self) -> IO[str] | None:
        """Show that the run is alive, until the file returned is closed."""
        return self._folder.hold(self._run)

    async def before(self, **parts: Any) -> None:
        """Note what is about to be done; when this returns it is safe to do it.

        Raises `ApiError`, `LostConnectionError`, TimeoutError, `ConfigurationError`.
        """
        if not self.record.system and not self.off:
            await self._find_system()
        self._advance(parts)
        self._folder.write(self.record)
        await self._keep(self.record, PATIENCE)

    async def after(self, **parts: Any) -> None:
        """Note what has been done."""
        self._advance(parts)
        if self.record.idle:
            # The cluster's first: one on disk that the cluster has not is known to be undone.
            with contextlib.suppress(ApiError, LostConnectionError, TimeoutError):
                await remove(self._client, self._run, _AFTERWARDS)
            self._folder.remove(self._run)
            return
        # What has been done is not undone by a disk that is full.
        with contextlib.suppress(ConfigurationError):
            self._folder.write(self.record)
        with contextlib.suppress(ApiError, LostConnectionError, TimeoutError):
            # If it is gone, somebody has undone what it said: it is not made anew.
            await self._keep(self.record, _AFTERWARDS, anew=False)

    def _advance(self, parts: dict[str, Any]) -> None:
        self.record = self.record.model_copy(update={**parts, "step": self.record.step + 1})

    async def _find_system(self) -> None:
        client = self._client
        try:
            await system.ensure(client)
            found = await repeat_until(
                now() + PATIENCE, lambda: client.get(NAMESPACES, "", NAMESPACE)
            )
        except ApiError as problem:
            if not system.is_closed(problem):
                raise
            self._have_none(problem)
            return
        self.record = self.record.model_copy(update={"system": found["metadata"]["uid"]})

    async def _keep(self, record: Record, patience: float, anew: bool = True) -> None:
        if self.off:
            return
        client, name, deadline = self._client, _name(record.run), now() + patience
        data = {"data": {_DATA: _text(record)}}
        try:
            try:
                await repeat_until(
                    deadline, lambda: client.patch(CONFIG_MAPS, NAMESPACE, name, data)
                )
            except ApiError as problem:
                if problem.code != 404 or not anew:
                    raise
                await self._make(name, data, deadline)
        except ApiError as problem:
            if not system.is_closed(problem) or not anew:
                raise
            self._have_none(problem)
            # Whoever finds it on the disk alone must not take it for undone from elsewhere.
            self.record = record.model_copy(update={"system": ""})
            with contextlib.suppress(ConfigurationError):
                self._folder.write(self.record)

    async def is_gone(self) -> bool:
        """Whether somebody else has undone what this run noted: the cluster's copy is gone.

        False where that cannot be told. It is asked by a run that had lost its turn.
        """
        # Another process of the run may have noted more than we know of.
        noted = self._folder.find(self._run) or self.record
        if self.off or not noted.system:
            return False
        try:
            kept, uid = await _in_cluster(self._client)
        except (ApiError, LostConnectionError, TimeoutError, ConfigurationError):
            return False
        return uid == noted.system and all(each.run != self._run for each in kept)

    async def _make(self, name: str, data: Object, deadline: float) -> None:
        metadata = {"name": name, "labels": {LABEL: "run"}}
        obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, **data}
        client = self._client
        try:
            await repeat_until(deadline, lambda: client.create(CONFIG_MAPS, NAMESPACE, obj))
        except ApiError as problem:
            if problem.code != 409:
                raise
            # An earlier send was carried out though its answer was lost.
            await repeat_until(deadline, lambda: client.patch(CONFIG_MAPS, NAMESPACE, name, data))

    def _have_none(self, problem: ApiError) -> None:
        self.off = (
            "what this run changes is noted on this machine only: ConfigMaps in the namespace "
            f"{NAMESPACE} cannot be written ({problem.reason or problem.code})"
        )


async def remove(client: Client, run: str, patience: float = PATIENCE) -> None:
    """Remove a run's journal from the cluster."""
    try:
        await repeat_until(
            now() + patience, lambda: client.delete(CONFIG_MAPS, NAMESPACE, _name(run))
        )
    except ApiError as problem:
        if not system.is_closed(problem):
            raise


async def unfinished(
    client: Client, cluster: str, folder: Folder, run: str, alone: bool
) -> Sequence[Record]:
    """The journals of other runs that ended with something undone, as far as they can be found.

    `alone`: we have the turn on the cluster, so that no other run is alive. Without it, those
    that are alive or may be (`doubtful`) are left out. Raises `ConfigurationError` for one that
    cannot be read.
    """
    kept, uid = await _in_cluster(client)
    found = {
        each.run: each for each in kept if not each.idle and (alone or folder.is_dead(each.run))
    }
    for each in folder.records():
        if not alone and folder.is_alive(each.run):
            continue
        if each.run in found or each.idle:
            other = found.get(each.run)
            found[each.run] = each if other is None or each.step > other.step else other
        elif uid is None or each.system != uid:
            found[each.run] = each  # All that is known of it is here.
        elif each.run != run:
            # It is no longer in the cluster: what it says was undone from elsewhere, or was not
            # yet begun.
            folder.remove(each.run)
    return [each for name, each in sorted(found.items()) if name != run and not each.idle]


async def doubtful(client: Client, folder: Folder, run: str) -> Sequence[Record]:
    """The journals in the cluster of other runs that may be alive, where there are no turns."""
    kept, _ = await _in_cluster(client)
    return [each for each in kept
            if not (each.idle or each.run == run or folder.is_dead(each.run))]  # fmt: skip


async def _in_cluster(client: Client) -> tuple[list[Record], str | None]:
    """The journals in the cluster, and the uid of their namespace; None: it cannot be read."""
    deadline = now() + PATIENCE
    try:
        namespace = await repeat_until(deadline, lambda: client.get(NAMESPACES, "", NAMESPACE))
        answer = await repeat_until(
            deadline, lambda: client.list(CONFIG_MAPS, NAMESPACE, labels=f"{LABEL}=run")
        )
    except ApiError as problem:
        if not system.is_closed(problem):
            raise
        return [], None
    records = []
    for each in answer.get("items") or []:
        where = f"the journal {each['metadata']['name']} in the namespace {NAMESPACE}"
        text = (each.get("data") or {}).get(_DATA)
        if not isinstance(text, str):
            raise ConfigurationError(f"{where} is empty; {_look_at(each)}")
        try:
            records.append(read(text, where))
        except ConfigurationError as problem:
            raise ConfigurationError(f"{problem}; {_look_at(each)}") from None
    return records, str(namespace["metadata"]["uid"])


def _text(record: Record) -> str:
    """As the cluster keeps it: without uids, where a ConfigMap would not hold them."""
    text = record.text()
    if len(text) < _LARGEST or record.objects is None:
        return text
    # Names and the run's label are left to tell what is ours.
    bare = record.objects.model_copy(update={"uids": {}})
    return record.model_copy(update={"objects": bare}).text()


def _look_at(config_map: Object) -> str:
    """What to do about a journal that cannot be read."""
    name = config_map["metadata"]["name"]
    return (
        "use the version that wrote it, or see what it says and remove it: "
        f"kubectl get configmap {name} -n {NAMESPACE} -o yaml"
    )


def _name(run: str) -> str:
    return f"run-{run}"
