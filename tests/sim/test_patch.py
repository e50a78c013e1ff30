"""The three ways to patch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvscale.sim import patch, resources
from pytest_kvscale.sim.errors import StatusError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("abc", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=2), inner),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text("abc", max_size=2), VALUES, max_size=4)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    return value


@given(OBJECTS, OBJECTS)
def test_a_merge_patch_leaves_its_target_as_it_was(target: Any, change: Any) -> None:
    before = copy.deepcopy(target)
    patch.merge(target, change)
    assert target == before


@given(OBJECTS)
def test_a_merge_patch_on_nothing_is_the_patch_without_nulls(change: Any) -> None:
    assert patch.merge({}, change) == without_nulls(change)


@given(OBJECTS, OBJECTS)
def test_a_merge_patch_twice_is_as_once(target: Any, change: Any) -> None:
    once = patch.merge(target, change)
    assert patch.merge(once, change) == once


def test_a_merge_patch_merges_removes_and_replaces() -> None:
    target = {"labels": {"a": "1", "b": "2"}, "list": [1, 2]}
    change = {"labels": {"b": None, "c": "3"}, "list": [3]}
    changed = patch.apply(resources.VMIS, target, change, patch.MERGE_PATCH)
    assert changed == {"labels": {"a": "1", "c": "3"}, "list": [3]}


def test_a_json_patch_is_applied_in_order() -> None:
    operations = [
        {"op": "test", "path": "/a", "value": 1},
        {"op": "add", "path": "/b", "value": [1]},
        {"op": "add", "path": "/b/-", "value": 2},
        {"op": "remove", "path": "/a"},
    ]
    target = {"a": 1}
    assert patch.apply(resources.VMIS, target, operations, patch.JSON_PATCH) == {"b": [1, 2]}
    assert target == {"a": 1}


@pytest.mark.parametrize(
    ("operations", "code"),
    [
        ([{"op": "remove", "path": "/none"}], 422),
        ([{"op": "test", "path": "/a", "value": 2}], 422),
        ([{"op": "fly", "path": "/a"}], 422),
        ([{"op": "add"}], 422),
        (["add"], 400),
        ({"op": "remove"}, 400),
    ],
)
def test_a_json_patch_that_cannot_be_applied_is_refused(operations: Any, code: int) -> None:
    with pytest.raises(StatusError) as caught:
        patch.apply(resources.VMIS, {"a": 1}, operations, patch.JSON_PATCH)
    assert caught.value.code == code


def test_a_strategic_patch_joins_lists_by_their_keys() -> None:
    pod = {
        "status": {
            "conditions": [{"type": "Ready", "status": "False"}, {"type": "X", "status": "True"}]
        },
        "metadata": {"finalizers": ["a"]},
    }
    change = {
        "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Y"}]},
        "metadata": {"finalizers": ["b"]},
    }
    changed = patch.apply(resources.PODS, pod, change, patch.STRATEGIC_MERGE_PATCH)
    assert changed["status"]["conditions"] == [
        {"type": "Ready", "status": "True"},
        {"type": "Y"},
        {"type": "X", "status": "True"},
    ]
    assert changed["metadata"]["finalizers"] == ["b", "a"]


def test_a_strategic_patch_deletes_by_directive() -> None:
    pod = {"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}
    change = {"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}
    changed = patch.apply(resources.PODS, pod, change, patch.STRATEGIC_MERGE_PATCH)
    assert changed == {"spec": {"containers": [{"name": "b"}]}}


def test_custom_resources_take_no_strategic_patch() -> None:
    with pytest.raises(StatusError) as caught:
        patch.apply(resources.VMIS, {}, {}, patch.STRATEGIC_MERGE_PATCH)
    assert caught.value.code == 415
