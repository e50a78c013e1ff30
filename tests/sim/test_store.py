"""Versions, history and watchers of the store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.sim.errors import StatusError
from pytest_kvscale.sim.resources import PODS, VMIS
from pytest_kvscale.sim.store import Store, Watch


def pod(name: str, namespace: str = "a", **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace, "labels": labels}}


def seen(watch: Watch) -> list[tuple[str, str]]:
    return [(kind, stored.obj["metadata"]["name"]) for kind, stored in watch.take()]


@pytest.fixture
def store() -> Iterator[Store]:
    async def make() -> Store:
        return Store()

    clock = VirtualClock()
    yield clock.run(make())
    clock.close()


def everything(_: Any) -> bool:
    return True


def test_every_write_has_a_higher_version(store: Store) -> None:
    versions = [int(store.put(PODS, pod("p"))["metadata"]["resourceVersion"]) for _ in range(3)]
    assert versions == sorted(set(versions))
    assert store.version == versions[-1]


def test_an_object_handed_out_stays_as_it_was(store: Store) -> None:
    first = store.put(PODS, pod("p"))
    store.put(PODS, {**first, "status": {"phase": "Running"}})
    assert "status" not in first


def test_objects_are_listed_by_namespace_and_name(store: Store) -> None:
    for name, namespace in (("z", "a"), ("b", "b"), ("a", "b")):
        store.put(PODS, pod(name, namespace))
    assert [each.obj["metadata"]["name"] for each in store.all(PODS)] == ["z", "a", "b"]
    assert [each.obj["metadata"]["name"] for each in store.all(PODS, "b")] == ["a", "b"]
    assert store.all(VMIS) == []


def test_a_watch_replays_what_came_after_its_version(store: Store) -> None:
    store.put(PODS, pod("old"))
    since = store.version
    new = store.put(PODS, pod("new"))
    store.remove(PODS, new)
    assert seen(store.watch(PODS, since, everything)) == [("ADDED", "new"), ("DELETED", "new")]


def test_a_watch_from_nothing_begins_with_what_is_there(store: Store) -> None:
    store.put(PODS, pod("b"))
    store.put(PODS, pod("a"))
    assert seen(store.watch(PODS, None, everything)) == [("ADDED", "a"), ("ADDED", "b")]


def test_a_selector_makes_objects_come_and_go(store: Store) -> None:
    watch = store.watch(PODS, store.version, lambda obj: obj["metadata"]["labels"].get("x") == "1")
    store.put(PODS, pod("p"))
    store.put(PODS, pod("p", x="1"))
    store.put(PODS, pod("p", x="1", y="2"))
    store.put(PODS, pod("p", x="2"))
    store.put(PODS, pod("p", x="3"))
    assert seen(watch) == [("ADDED", "p"), ("MODIFIED", "p"), ("DELETED", "p")]


def test_a_watch_from_before_the_history_is_expired() -> None:
    store = Store(history=3)
    for index in range(5):
        store.put(PODS, pod(f"p{index}"))
    with pytest.raises(StatusError) as caught:
        store.watch(PODS, 2, everything)
    assert caught.value.code == 410


def test_after_compaction_only_the_present_can_be_watched(store: Store) -> None:
    store.put(PODS, pod("p"))
    before = store.version
    store.put(PODS, pod("q"))
    store.compact()
    with pytest.raises(StatusError):
        store.watch(PODS, before, everything)
    assert seen(store.watch(PODS, store.version, everything)) == []


def test_a_waiter_wakes_up_when_something_comes_and_when_the_watch_ends(
    clock: VirtualClock,
) -> None:
    async def wait() -> list[bool]:
        store, loop = Store(), asyncio.get_running_loop()
        watch = store.watch(PODS, 1, everything)
        loop.call_later(5, store.put, PODS, pod("p"))
        loop.call_later(10, watch.close)
        results = [await watch.wait(1), await watch.wait(10)]
        assert loop.time() == 5
        list(watch.take())
        results.append(await watch.wait(None))
        assert loop.time() == 10
        return results

    assert clock.run(wait()) == [False, True, True]


NAMES = st.sampled_from(["a", "b", "c"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), NAMES, st.sampled_from(["1", "2", ""])),
        st.tuples(st.just("remove"), NAMES, st.just("")),
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(STEPS, STEPS)
def test_what_a_watcher_was_told_adds_up_to_the_list(before: Any, after: Any) -> None:
    """List, then watch from there: the replayed state equals what is there, at any selector."""
    clock = VirtualClock()

    async def play() -> None:
        store = Store()

        def chosen(obj: Any) -> bool:
            return bool(obj["metadata"]["labels"].get("x") == "1")

        def step(action: str, name: str, label: str) -> None:
            held = store.get(PODS, "a", name)
            if action == "put":
                store.put(PODS, pod(name, x=label))
            elif held is not None:
                store.remove(PODS, held.obj)

        for each in before:
            step(*each)
        state = {
            each.obj["metadata"]["name"]: each.obj for each in store.all(PODS) if chosen(each.obj)
        }
        watch = store.watch(PODS, store.version, chosen)
        late = store.version
        for each in after:
            step(*each)
        for follower in (watch, store.watch(PODS, late, chosen)):
            replayed = dict(state)
            for kind, stored in follower.take():
                name = stored.obj["metadata"]["name"]
                assert (kind == "ADDED") == (name not in replayed)
                if kind == "DELETED":
                    del replayed[name]
                else:
                    replayed[name] = stored.obj
            assert replayed == {
                each.obj["metadata"]["name"]: each.obj
                for each in store.all(PODS)
                if chosen(each.obj)
            }

    clock.run(play())
    clock.close()


SPACES = st.sampled_from(["a", "a-b", "b"])
WRITES = st.lists(st.tuples(st.booleans(), SPACES, NAMES), max_size=30)


@settings(max_examples=100, deadline=None)
@given(WRITES, SPACES | st.just(""), SPACES, NAMES)
def test_the_store_knows_how_it_was(
    writes: Any, namespace: str, after_space: str, after_name: str
) -> None:
    """Every past version, in any namespace, from any place on, is what was there then."""
    clock = VirtualClock()

    async def play() -> None:
        store = Store()
        past: dict[int, dict[str, Any]] = {store.version: {}}
        for adds, space, name in writes:
            now = dict(past[store.version])
            held = store.get(PODS, space, name)
            if adds:
                now[f"{space}/{name}"] = store.put(PODS, pod(name, space))
            elif held is not None:
                store.remove(PODS, held.obj)
                del now[f"{space}/{name}"]
            past[store.version] = now
        after = f"{after_space}/{after_name}"
        for version, then in past.items():
            wanted = [
                then[path]
                for path in sorted(then)
                if path > after and (not namespace or path.startswith(f"{namespace}/"))
            ]
            found = store.select(PODS, namespace, after, version)
            assert [stored.obj for stored in found] == wanted
            if version == store.version:
                assert store.count(PODS, namespace, after) == len(wanted)

    clock.run(play())
    clock.close()
