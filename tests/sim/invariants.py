"""What must hold of a store at all times, whatever was asked of the API."""

from __future__ import annotations

from typing import Any

from pytest_kvscale.sim.resources import SERVED, Resource
from pytest_kvscale.sim.store import Event, Store, Watch, path_of

Json = dict[str, Any]


class Invariants:
    """Follows a store from now on, and checks it when asked.

    It listens to every kind as the players do, and watches every kind as clients do, with and
    without a selector: what they were told must add up to what is there.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._newest = store.version
        self._told: dict[Resource, dict[str, Json]] = {}
        self._watched: dict[Resource, tuple[Watch, dict[str, Json]]] = {}
        self._chosen: dict[Resource, tuple[Watch, dict[str, Json]]] = {}
        for kind in SERVED:
            self._told[kind] = {}
            self._listen(kind)
            self._watched[kind] = (store.watch(kind, None), {})
            self._chosen[kind] = (store.watch(kind, None, is_chosen), {})
        self._newest = store.version

    def _listen(self, kind: Resource) -> None:
        def on_change(event: Event) -> None:
            path, state = path_of(event.stored.obj), self._told[kind]
            if event.version > self._newest:
                # Those from before are told in no order.
                self._newest = event.version
            else:
                assert event.type == "ADDED", f"version {event.version} after {self._newest}"
                assert path not in state
            assert (event.before is None) is (event.type == "ADDED")
            if event.before is not None:
                assert event.before.version < event.version
                assert state.get(path) is event.before.obj
            if event.type == "DELETED":
                del state[path]
            else:
                assert event.stored.obj["metadata"]["resourceVersion"] == str(event.version)
                state[path] = event.stored.obj

        self._store.listen(kind, on_change)

    def check(self) -> None:
        """Raise AssertionError for what does not hold."""
        assert self._newest <= self._store.version
        for kind in SERVED:
            there = {path_of(stored.obj): stored.obj for stored in self._store.all(kind)}
            assert list(there) == sorted(there), f"{kind.plural} are not in order"
            assert self._told[kind] == there, f"listeners of {kind.plural} know other objects"
            self._check_objects(kind, there)
            self._check_watch(self._watched[kind], there)
            chosen = {path: obj for path, obj in there.items() if is_chosen(obj)}
            self._check_watch(self._chosen[kind], chosen)

    def _check_objects(self, kind: Resource, there: dict[str, Json]) -> None:
        uids = set()
        for path, obj in there.items():
            metadata = obj["metadata"]
            stored = self._store.get(kind, metadata.get("namespace", ""), metadata["name"])
            assert stored is not None, f"{path} is listed and not found"
            assert stored.obj is obj
            assert (obj["kind"], obj["apiVersion"]) == (kind.kind, kind.api_version)
            assert bool(metadata.get("namespace")) is kind.namespaced
            assert int(metadata["resourceVersion"]) <= self._store.version
            uids.add(metadata["uid"])
            if "deletionTimestamp" in metadata and not metadata.get("deletionGracePeriodSeconds"):
                held = metadata.get("finalizers") or (obj.get("spec") or {}).get("finalizers")
                assert held or kind.plural == "namespaces", f"nothing holds {path}"
        assert len(uids) == len(there), f"two {kind.plural} have one uid"
        for namespace in {path.partition("/")[0] for path in there} - {""}:
            inside = [path_of(stored.obj) for stored in self._store.all(kind, namespace)]
            assert inside == [path for path in there if path.startswith(f"{namespace}/")]

    @staticmethod
    def _check_watch(followed: tuple[Watch, dict[str, Json]], there: dict[str, Json]) -> None:
        watch, state = followed
        newest = 0
        for kind, stored in watch.take():
            path = path_of(stored.obj)
            assert (kind == "ADDED") is (path not in state)
            if kind == "DELETED":
                del state[path]
            else:
                state[path] = stored.obj
            if kind != "ADDED":
                assert stored.version > newest
                newest = stored.version
        assert state == there


def is_chosen(obj: Json) -> bool:
    """Whether an object has the label that one of the two watches asks for."""
    return (obj["metadata"].get("labels") or {}).get("set") == "x"
