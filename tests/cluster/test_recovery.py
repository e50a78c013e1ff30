"""What a run left is undone by its journal, and nothing else; in virtual time."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_kvscale.cluster import journal as journals
from pytest_kvscale.cluster import recovery, system, tuning
from pytest_kvscale.cluster.choose import Connection
from pytest_kvscale.cluster.client import KUBEVIRTS, NAMESPACES, VMIS, Client, Object
from pytest_kvscale.cluster.journal import Journal
from pytest_kvscale.cluster.journal_disk import Folder
from pytest_kvscale.cluster.journal_record import ObjectsNote, Record
from pytest_kvscale.cluster.kinds import VMIRS
from pytest_kvscale.cluster.recovery import NotUndoneError
from pytest_kvscale.cluster.tuner import Tuner
from pytest_kvscale.errors import ConfigurationError

VMI = ("kubevirt.io/v1", "VirtualMachineInstance")


@pytest.fixture
def connection(connect: Callable[..., Connection]) -> Connection:
    return connect()


def vmi(name: str, run: str = "dead") -> Object:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "labels": {"kvscale.io/run": run}},
        "spec": {"domain": {"devices": {}}, "terminationGracePeriodSeconds": 5},
    }


def note(namespace: str, *names: str, own: bool = True, **more: Any) -> ObjectsNote:
    given = {"kinds": (VMI,), **more}
    return ObjectsNote(what="level 3", namespace=namespace, own=own, names=names, **given)


def record(objects: ObjectsNote | None = None, **more: Any) -> Record:
    return Record(run="dead", by="me@here", cluster="u", objects=objects, **more)


async def names_of(client: Client, resource: Any = VMIS) -> list[str]:
    return [each["metadata"]["name"] for each in (await client.list(resource))["items"]]


async def spec_of(client: Client) -> Object:
    found = (await client.list(KUBEVIRTS))["items"][0]
    return copy.deepcopy(dict(found["spec"]))


# Objects --------------------------------------------------------------------------------------


def test_what_a_run_planned_and_labelled_is_removed_and_nothing_else(
    connection: Connection,
) -> None:
    async def work() -> None:
        client, ours = connection.client, {"kvscale.io/run": "dead"}
        await client.create(NAMESPACES, "", {"metadata": {"name": "left", "labels": ours}})
        for name, run in (("a", "dead"), ("b", "dead"), ("c", "alive"), ("stranger", "dead")):
            await client.create(VMIS, "default", vmi(name, run))
        await client.create(VMIS, "left", vmi("d"))
        await asyncio.sleep(60)
        in_default = note("default", "a", "b", "c", own=False)
        undone = await recovery.undo(client, record(in_default), 600)
        assert undone.removed == [f"virtualmachineinstances {name}" for name in "ab"]
        (left,) = undone.left
        assert left.startswith("left alone, though it carries the run's label: ")
        assert left.endswith("stranger, virt-launcher-stranger-" + left[-5:])
        undone = await recovery.undo(client, record(note("left", "d")), 600)
        assert undone.removed == ["virtualmachineinstances d", "namespaces left"]
        assert await names_of(client) == ["c", "stranger"]
        assert "default" in await names_of(client, NAMESPACES)
        assert "left" not in await names_of(client, NAMESPACES)
        undone = await recovery.undo(client, record(note("left", "d")), 600)
        assert undone.text() == "nothing of it was left"

    connection.run(work())


def test_an_object_of_a_planned_name_with_another_uid_is_left(connection: Connection) -> None:
    async def work() -> None:
        client = connection.client
        made = await client.create(VMIS, "default", vmi("a"))
        await client.create(VMIS, "default", vmi("b"))
        uids = {"a": made["metadata"]["uid"], "b": "another"}
        found = note("default", "a", "b", own=False, uids=uids)
        undone = await recovery.undo(client, record(found), 600)
        assert undone.removed == ["virtualmachineinstances a"]
        assert await names_of(client) == ["b"]

    connection.run(work())


def test_a_namespace_made_anew_since_is_left(connection: Connection) -> None:
    async def work() -> None:
        client, labels = connection.client, {"kvscale.io/run": "dead"}
        await client.create(NAMESPACES, "", {"metadata": {"name": "left", "labels": labels}})
        undone = await recovery.undo(client, record(note("left", namespace_uid="former")), 600)
        assert undone.removed == []
        assert "left" in await names_of(client, NAMESPACES)

    connection.run(work())


def test_what_the_objects_own_goes_with_them(connection: Connection) -> None:
    async def work() -> None:
        client = connection.client
        labels = {"kvscale.io/run": "dead", "app": "x"}
        obj = {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstanceReplicaSet",
            "metadata": {"name": "set", "labels": labels},
            "spec": {
                "replicas": 3,
                "selector": {"matchLabels": {"app": "x"}},
                "template": {"metadata": {"labels": labels}, "spec": vmi("x")["spec"]},
            },
        }
        await client.create(VMIRS, "default", obj)
        await asyncio.sleep(60)
        assert len(await names_of(client)) == 3
        kinds = (("kubevirt.io/v1", "VirtualMachineInstanceReplicaSet"),)
        undone = await recovery.undo(
            client, record(note("default", "set", own=False, kinds=kinds)), 600
        )
        assert undone.removed == ["virtualmachineinstancereplicasets set"]
        assert await names_of(client) == []
        assert not undone.left

    connection.run(work())


def test_a_create_that_takes_effect_late_is_removed_too(connection: Connection) -> None:
    async def work() -> None:
        client = connection.client
        await client.create(VMIS, "default", vmi("a"))

        async def late() -> None:
            await asyncio.sleep(0.5)
            await client.create(VMIS, "default", vmi("b"))

        task = asyncio.create_task(late())
        await recovery.undo(client, record(note("default", "a", "b", own=False)), 600)
        await task
        assert await names_of(client) == []

    connection.run(work())


def test_leftovers_that_stay_are_named(connect: Callable[..., Connection], tmp_path: Path) -> None:
    path = tmp_path / "stuck.yaml"
    path.write_text("extends: blog-2021\nfaults: {stuck_terminating: 1}", encoding="utf-8")
    connection = connect(sim_profile=str(path))

    async def work() -> None:
        client = connection.client
        await client.create(VMIS, "default", vmi("a"))
        await asyncio.sleep(60)
        with pytest.raises(NotUndoneError) as caught:
            await recovery.undo(client, record(note("default", "a", own=False)), 600)
        assert "still there in the namespace default: virtualmachineinstances a" in str(
            caught.value
        )
        assert "kubectl get virtualmachineinstances/a -n default -o yaml" in str(caught.value)
        held = await client.get(VMIS, "default", "a")
        assert held["metadata"]["finalizers"]

    connection.run(work())


# The journal ----------------------------------------------------------------------------------


@dataclasses.dataclass
class Place:
    """A cluster and a disk."""

    client: Client
    folder: Folder
    cluster: str = "u"

    def journal(self, run: str) -> Journal:
        return Journal(self.client, run, self.cluster, self.folder)

    async def unfinished(self, run: str = "next", alone: bool = True) -> list[str]:
        found = await journals.unfinished(self.client, self.cluster, self.folder, run, alone)
        return [each.run for each in found]


@pytest.fixture
def here(connection: Connection, tmp_path: Path) -> Place:
    return Place(connection.client, Folder(tmp_path / "state"))


@pytest.fixture
def elsewhere(here: Place, tmp_path: Path) -> Place:
    return Place(here.client, Folder(tmp_path / "another-machine"))


def test_what_is_noted_is_found_by_the_next_run_from_another_machine_too(
    connection: Connection, here: Place, elsewhere: Place
) -> None:
    async def work() -> None:
        journal = here.journal("one")
        await journal.before(objects=note("n", "a"))
        assert await here.unfinished() == ["one"]
        assert await elsewhere.unfinished() == ["one"]
        assert await here.unfinished("one") == []
        await journal.after(objects=None)
        assert await here.unfinished() == await elsewhere.unfinished() == []
        assert not list(here.folder.path.glob("*"))

    connection.run(work())


def test_what_was_undone_from_elsewhere_is_no_news(
    connection: Connection, here: Place, elsewhere: Place
) -> None:
    """Else settings that somebody has made since would be undone."""

    async def work() -> None:
        await here.journal("one").before(objects=note("n", "a"))
        other = elsewhere.journal("one")
        other.record = (await journals.unfinished(
            here.client, "u", elsewhere.folder, "next", alone=True))[0]  # fmt: skip
        await other.after(objects=None)
        assert list(here.folder.records())
        assert await here.unfinished() == []
        assert not list(here.folder.records())

    connection.run(work())


def test_the_disk_remembers_where_the_cluster_does_not(connection: Connection, here: Place) -> None:
    async def work() -> None:
        await here.journal("one").before(objects=note("n", "a"))
        await here.client.delete(NAMESPACES, "", system.NAMESPACE)
        await asyncio.sleep(60)
        assert await here.unfinished() == ["one"]

    connection.run(work())


def test_a_run_that_is_alive_is_left_alone_where_there_are_no_turns(
    connection: Connection, here: Place
) -> None:
    async def work() -> None:
        journal = here.journal("one")
        journal.off = "no namespace"
        alive = journal.alive()
        assert alive is not None
        await journal.before(objects=note("n", "a"))
        assert await here.unfinished(alone=False) == []
        assert await here.unfinished(alone=True) == ["one"]
        alive.close()
        assert await here.unfinished(alone=False) == ["one"]

    connection.run(work())


def test_a_journal_that_cannot_be_read_stops_the_run(connection: Connection, here: Place) -> None:
    async def work() -> None:
        here.folder.path.mkdir()
        (here.folder.path / "x.json").write_text('{"version": 1, "run": 3', encoding="utf-8")
        with pytest.raises(ConfigurationError, match=r"the journal .*x\.json is not JSON"):
            await here.unfinished()

    connection.run(work())


def test_a_disk_that_cannot_be_written_stops_what_it_was_to_note(
    connection: Connection, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    place = Place(connection.client, Folder(tmp_path / "file" / "state"))
    with pytest.raises(ConfigurationError, match="the journal cannot be written"):
        connection.run(place.journal("one").before(objects=note("n", "a")))


def test_a_home_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert not Folder(tmp_path / "file" / "state").is_writable()
    assert Folder(tmp_path / "state").is_writable()


# Settings -------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process ends here."""


class Deadly(Journal):
    """A journal whose process is killed at a note, before or after it is written."""

    def __init__(self, place: Place, at: int, before: bool) -> None:
        super().__init__(place.client, "one", place.cluster, place.folder)
        self._left = at
        self._before = before

    def _advance(self, parts: Any) -> None:
        self._left -= 1
        if self._left < 0 and self._before:
            raise Killed
        super()._advance(parts)

    async def _keep(self, record: Record, patience: float) -> None:
        await super()._keep(record, patience)
        if self._left < 0:
            raise Killed


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("at", range(2))
@pytest.mark.parametrize("chosen", ["density", "density-patch"])
def test_a_tuning_cut_off_at_any_note_is_undone_by_the_next_run(
    connection: Connection, here: Place, chosen: str, at: int, before: bool
) -> None:
    async def work() -> None:
        spec = await spec_of(here.client)
        tuner = Tuner(here.client, Deadly(here, at, before), "node")
        try:
            await tuner.apply(tuning.load(chosen))
            await tuner.put_back()
        except Killed:
            pass
        found = await journals.unfinished(here.client, "u", here.folder, "next", alone=True)
        for each in found:
            await recovery.undo(here.client, each, 600)
        assert await spec_of(here.client) == spec

    connection.run(work())


def test_settings_somebody_else_made_since_stay_and_are_told(
    connection: Connection, here: Place
) -> None:
    async def work() -> None:
        client = here.client
        await Tuner(client, here.journal("one"), "node").apply(tuning.load("density"))
        change = {"spec": {"configuration": {"virtualMachineInstancesPerNode": 500}}}
        await client.patch(KUBEVIRTS, "kubevirt", "kubevirt", change)
        (found,) = await journals.unfinished(client, "u", here.folder, "next", alone=True)
        undone = await recovery.undo(client, found, 600)
        assert len(undone.settings) == 9
        assert undone.left == [
            "left as somebody else has set them since: configuration.virtualMachineInstancesPerNode"
        ]
        assert await spec_of(client) == change["spec"]

    connection.run(work())


def test_a_kubevirt_made_anew_is_left(connection: Connection, here: Place) -> None:
    async def work() -> None:
        client = here.client
        await Tuner(client, here.journal("one"), "node").apply(tuning.load("density"))
        (found,) = await journals.unfinished(client, "u", here.folder, "next", alone=True)
        assert found.tuning is not None
        other = found.model_copy(
            update={"tuning": found.tuning.model_copy(update={"uid": "former"})}
        )
        with pytest.raises(NotUndoneError, match="has been made anew since: nothing was put back"):
            await recovery.undo(client, other, 600)

    connection.run(work())
