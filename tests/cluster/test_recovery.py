"""What a run left is undone by its journal, and nothing else; in virtual time."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_kvscale.cluster import cooldown, recovery, system, tuning
from pytest_kvscale.cluster import journal as journals
from pytest_kvscale.cluster.choose import Connection
from pytest_kvscale.cluster.client import (
    KUBEVIRTS,
    NAMESPACES,
    VMIS,
    ApiError,
    Client,
    Object,
)
from pytest_kvscale.cluster.journal import Journal
from pytest_kvscale.cluster.journal_disk import Folder
from pytest_kvscale.cluster.journal_level import Noted
from pytest_kvscale.cluster.journal_record import ObjectsNote, Record, TuningNote
from pytest_kvscale.cluster.kinds import KINDS, VMIRS
from pytest_kvscale.cluster.recovery import NotUndoneError
from pytest_kvscale.cluster.templates import Planned
from pytest_kvscale.cluster.tuner import Tuner
from pytest_kvscale.cluster.tuning import TuningError
from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.options import Settings
from pytest_kvscale.session import Run

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


def test_a_run_that_may_be_alive_is_left_alone_where_there_are_no_turns(
    connection: Connection, here: Place, elsewhere: Place
) -> None:
    """Its journal in the cluster does not make it a dead one."""

    async def doubtful(place: Place) -> list[str]:
        return [each.run for each in await journals.doubtful(place.client, place.folder, "next")]

    async def work() -> None:
        journal = here.journal("one")
        alive = journal.alive()
        assert alive is not None
        await journal.before(objects=note("n", "a"))
        for place in (here, elsewhere):
            assert await place.unfinished(alone=False) == []
            assert await doubtful(place) == ["one"]
        alive.close()
        assert await here.unfinished(alone=False) == ["one"]
        assert await doubtful(here) == []
        assert await elsewhere.unfinished(alone=False) == []
        assert await doubtful(elsewhere) == ["one"]
        assert await elsewhere.unfinished(alone=True) == ["one"]

    connection.run(work())


def test_what_only_the_disk_could_take_is_found_when_the_cluster_may_be_read(
    connection: Connection, here: Place
) -> None:
    class Refused(Journal):
        async def _make(self, name: str, data: Object, deadline: float) -> None:
            raise ApiError(403, {"reason": "Forbidden"})

    async def work() -> None:
        journal = Refused(here.client, "one", "u", here.folder)
        await journal.before(objects=note("n", "a"))
        assert "cannot be written (Forbidden)" in journal.off
        assert await here.unfinished() == ["one"]
        # Another process of the run tries again.
        other = Refused(here.client, "one", "u", here.folder)
        other.load()
        await other.before(objects=note("n", "a", "b"))
        assert await here.unfinished() == ["one"]

    connection.run(work())


def test_a_very_large_level_fits_into_the_cluster_too(connection: Connection, here: Place) -> None:
    async def work() -> None:
        uids = {f"density-20000-{each:04d}": str(uuid.UUID(int=each)) for each in range(20_000)}
        await here.journal("one").before(objects=note("n", *uids, uids=uids))
        (kept,) = (await here.client.list(system.CONFIG_MAPS, system.NAMESPACE))["items"]
        assert len(kept["data"]["journal"]) < 2**20
        (found,) = await journals.unfinished(here.client, "u", here.folder, "next", alone=True)
        assert found.objects is not None
        assert found.objects.names == tuple(uids)

    connection.run(work())


def test_a_journal_that_was_undone_from_elsewhere_is_not_made_anew(
    connection: Connection, here: Place
) -> None:
    async def work() -> None:
        journal = here.journal("one")
        assert not await journal.is_gone()
        fields = {"namespace": "k", "name": "k", "uid": "u", "node": "n", "devices": None,
                  "fields": ()}  # fmt: skip
        await journal.before(objects=note("n", "a"), tuning=TuningNote.model_validate(fields))
        assert not await journal.is_gone()
        await journals.remove(here.client, "one")
        await journal.after(objects=None)
        assert await journal.is_gone()
        assert await here.journal("one").is_gone()
        assert await here.unfinished() == []

    connection.run(work())


def test_what_a_level_left_is_not_forgotten_by_the_next(
    connection: Connection, here: Place
) -> None:
    async def level(journal: Journal, number: int, gone: bool) -> list[Record]:
        vmi = KINDS[VMI]
        planned = [Planned(f"density-{number}-{each}", vmi, 1, {}) for each in range(2)]
        notes = Noted(journal, f"level {number}", "n", own=False, objects=planned)
        await notes.planned()
        await notes.created({f"density-{number}-0": f"uid-{number}"})
        await notes.over(gone, kept=False)
        return list(
            await journals.unfinished(here.client, "u", here.folder, "next", alone=True)
        )  # fmt: skip

    async def work() -> None:
        journal = here.journal("one")
        (left,) = await level(journal, 1, gone=False)
        (after,) = await level(journal, 2, gone=True)
        assert after.objects == left.objects
        (both,) = await level(journal, 3, gone=False)
        assert both.objects is not None
        assert both.objects.what == "level 1 and level 3"
        assert both.objects.names == ("density-1-0", "density-1-1", "density-3-0", "density-3-1")
        assert both.objects.uids == {"density-1-0": "uid-1", "density-3-0": "uid-3"}

    connection.run(work())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe", r"x\.json is not text"),
        (b"[]", "is no journal of this version"),
        (b'{"version": 0}', "is no journal of this version"),
        (record(note("n", "a", kinds=(("x/v1", "Foo"),))).text().encode(), "unknown kind x/v1/Foo"),
    ],
)
def test_garbage_on_the_disk_is_told_in_a_sentence(
    connection: Connection, here: Place, content: bytes, said: str
) -> None:
    here.folder.path.mkdir()
    (here.folder.path / "x.json").write_bytes(content)
    with pytest.raises(ConfigurationError, match=said):
        connection.run(here.unfinished())


def test_garbage_in_the_cluster_is_told_with_what_to_do(
    connection: Connection, here: Place
) -> None:
    async def work() -> None:
        await here.journal("one").before(objects=note("n", "a"))
        change = {"data": {"journal": "{"}}
        await here.client.patch(system.CONFIG_MAPS, system.NAMESPACE, "run-one", change)
        with pytest.raises(ConfigurationError, match="kubectl get configmap run-one -n kvscale-s"):
            await here.unfinished()

    connection.run(work())


def test_a_disk_that_fills_up_or_is_read_only_does_not_stop_what_is_undone(
    connection: Connection, here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    async def work() -> None:
        journal = here.journal("one")
        await journal.before(objects=note("n", "a"))
        monkeypatch.setattr(Path, "replace", full)
        monkeypatch.setattr(Path, "unlink", full)
        over = note("n", "a", over=True)
        await journal.after(objects=over)
        (found,) = await journals.unfinished(here.client, "u", here.folder, "next", alone=True)
        assert found.objects == over
        await journal.after(objects=None)
        assert await here.unfinished() == []

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

    async def _keep(self, record: Record, patience: float, anew: bool = True) -> None:
        await super()._keep(record, patience, anew)
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


def test_objects_that_do_not_go_do_not_keep_the_settings_changed(
    connect: Callable[..., Connection], tmp_path: Path
) -> None:
    path = tmp_path / "stuck.yaml"
    path.write_text("extends: blog-2021\nfaults: {stuck_terminating: 1}", encoding="utf-8")
    connection = connect(sim_profile=str(path))

    async def work() -> None:
        client, folder = connection.client, Folder(tmp_path / "state")
        spec = await spec_of(client)
        journal = Journal(client, "dead", "u", folder)
        await Tuner(client, journal, "node").apply(tuning.load("density"))
        await journal.before(objects=note("default", "a", own=False))
        await client.create(VMIS, "default", vmi("a"))
        await asyncio.sleep(60)
        (found,) = await journals.unfinished(client, "u", folder, "next", alone=True)
        with pytest.raises(NotUndoneError, match="still there") as caught:
            await recovery.undo(client, found, 600)
        assert caught.value.settings_back
        assert await spec_of(client) == spec

    connection.run(work())


def own_run(connection: Connection, name: str, folder: Path) -> Run:
    """A run on a cluster that is there."""
    run = Run(Settings(cluster="sim", report_dir=folder, tune="density"), name)
    run._connection, run._identity = connection, connection.identity
    return run


def test_a_run_that_lost_its_turn_changes_no_settings(
    connection: Connection, tmp_path: Path
) -> None:
    run, before = own_run(connection, "one", tmp_path), connection.run(spec_of(connection.client))
    run.take_turn(wait=False).lost.set_result("our turn is lost")
    with pytest.raises(TuningError, match="our turn is lost"):
        run.tune()
    assert connection.run(spec_of(connection.client)) == before


def test_a_run_that_lost_its_turn_leaves_the_settings_of_the_next(
    connection: Connection, tmp_path: Path
) -> None:
    """They have the same values as its own, which the next run has put back."""
    client, run = connection.client, own_run(connection, "one", tmp_path)
    assert len(run.tune()) == 10
    run.take_turn(wait=False).lost.set_result("our turn is lost")

    async def taken_over() -> Object:
        folder = Folder(tmp_path / "another-machine")
        (found,) = await journals.unfinished(client, "u", folder, "two", alone=True)
        await recovery.undo(client, found, 600)
        await journals.remove(client, "one")
        await Tuner(client, Journal(client, "two", "u", folder), "node").apply(
            tuning.load("density")
        )
        return await spec_of(client)

    theirs = connection.run(taken_over())
    assert run.put_back() == []
    assert connection.run(spec_of(client)) == theirs


def test_the_cluster_rests_after_what_a_dead_run_left_has_gone(
    connection: Connection, tmp_path: Path
) -> None:
    client, run = connection.client, own_run(connection, "two", tmp_path)

    async def left() -> None:
        dead = Journal(client, "dead", "u", run.undoing._folder)
        await dead.before(objects=note("default", "a", own=False))
        await client.create(VMIS, "default", vmi("a"))
        await asyncio.sleep(60)

    assert run.undoing.journal
    connection.run(left())
    assert run.undoing.undo_others(alone=True, kept=False) == 1
    last = connection.run(cooldown.last_level(client))
    assert last is not None
    assert (last.run, last.node) == ("dead", "")
    assert last.ago < 5


def test_a_kubevirt_made_anew_is_left(connection: Connection, here: Place) -> None:
    async def work() -> None:
        client = here.client
        await Tuner(client, here.journal("one"), "node").apply(tuning.load("density"))
        (found,) = await journals.unfinished(client, "u", here.folder, "next", alone=True)
        assert found.tuning is not None
        other = found.model_copy(
            update={"tuning": found.tuning.model_copy(update={"uid": "former"})}
        )
        undone = await recovery.undo(client, other, 600)
        assert undone.settings == []
        (left,) = undone.left
        assert "has been made anew since: nothing was put back (the run had changed: " in left
        await client.delete(KUBEVIRTS, "kubevirt", "kubevirt")
        await asyncio.sleep(60)
        (left,) = (await recovery.undo(client, found, 600)).left
        assert "has been removed since: nothing was put back" in left

    connection.run(work())
