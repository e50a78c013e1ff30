"""Sets of fields, and what two objects differ in."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_kvscale.sim import fields, resources, schema

PODS = schema.of(resources.PODS)
NAMES = st.sampled_from("abc")
ELEMENTS = st.builds("f:{}".format, NAMES)
PATHS = st.lists(ELEMENTS, min_size=1, max_size=3).map(tuple)
SETS = st.frozensets(PATHS, max_size=6)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.integers(0, 2) | st.text("xy", max_size=1) | st.none(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=3)


def tree(paths: frozenset[fields.Path]) -> fields.Fields:
    return fields.of_paths(*sorted(paths))


def plain(found: fields.Fields) -> set[fields.Path]:
    return set(fields.paths(found))


@settings(deadline=None)  # Machines differ.
@given(SETS, SETS)
def test_sets_of_fields_are_sets_of_paths(
    one: frozenset[fields.Path], other: frozenset[fields.Path]
) -> None:
    left, right = tree(one), tree(other)
    assert plain(left) == one
    assert plain(fields.union(left, right)) == one | other
    assert plain(fields.difference(left, right)) == one - other
    assert plain(fields.intersection(left, right)) == one & other
    assert all(fields.has(left, path) for path in one)


@settings(deadline=None)  # Machines differ.
@given(OBJECTS, OBJECTS)
def test_what_differs_is_removed_or_changed_and_nothing_else(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    removed, changed = fields.compare(old, new, schema.ANY)
    assert (removed == changed == {}) is (old == new)
    assert not plain(removed) & plain(changed)
    back, forth = fields.compare(new, old, schema.ANY)
    gone = {path for path in plain(removed) if len(path) == 1}
    assert gone == {(f"f:{key}",) for key in old.keys() - new.keys()}
    assert {path for path in plain(back) if len(path) == 1} <= plain(changed)
    assert (forth == back == {}) is (old == new)


@settings(deadline=None)  # Machines differ.
@given(OBJECTS)
def test_all_that_is_made_from_nothing_is_changed(new: dict[str, Any]) -> None:
    removed, changed = fields.compare({}, new, schema.ANY)
    assert removed == {}
    assert {path for path in plain(changed) if len(path) == 1} == {(f"f:{key}",) for key in new}


def test_items_of_lists_are_told_apart_by_the_kinds_keys() -> None:
    container = {"name": "c", "image": "x", "ports": [{"containerPort": 80}]}
    pod = {"metadata": {"finalizers": ["hold"]}, "spec": {"containers": [container]}}
    assert fields.ordered(fields.applied(pod, PODS)) == {
        "f:metadata": {"f:finalizers": {'v:"hold"': {}}},
        "f:spec": {
            "f:containers": {
                'k:{"name":"c"}': {
                    ".": {},
                    "f:image": {},
                    "f:name": {},
                    "f:ports": {
                        'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}
                    },
                }
            }
        },
    }


def test_an_atomic_list_or_map_is_one_field() -> None:
    spec = {"tolerations": [{"key": "a"}], "nodeSelector": {"a": "b"}}
    claimed = fields.applied({"spec": spec}, PODS)
    assert plain(claimed) == {("f:spec", "f:tolerations"), ("f:spec", "f:nodeSelector")}


def test_an_item_that_moves_is_not_changed() -> None:
    one, two = {"name": "a", "image": "x"}, {"name": "b", "image": "y"}
    old, new = {"spec": {"containers": [one, two]}}, {"spec": {"containers": [dict(two), one]}}
    assert fields.compare(old, new, PODS) == ({}, {})


def test_paths_read_as_in_messages() -> None:
    path = ("f:spec", "f:containers", 'k:{"name":"a"}', "f:image")
    assert fields.dotted(path) == '.spec.containers[name="a"].image'
    assert fields.dotted(("f:metadata", "f:finalizers", 'v:"x"')) == '.metadata.finalizers[="x"]'
