"""Strategic merge patch: lists by their keys, directives and order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_kvscale.sim import resources, schema, strategic
from pytest_kvscale.sim.errors import StatusError

Json = dict[str, Any]
POD = schema.of(resources.PODS)
NAMES = st.lists(st.sampled_from("abcd"), unique=True, max_size=4)


def containers(*names: str, **more: Any) -> Json:
    return {"spec": {"containers": [{"name": name, **more} for name in names]}}


def merged(pod: Json, patch: Json) -> Json:
    return strategic.merge(pod, patch, POD)


def names_of(pod: Json) -> list[str]:
    return [each["name"] for each in pod["spec"]["containers"]]


@settings(deadline=None)  # Machines differ.
@given(NAMES, NAMES)
def test_a_patch_keeps_every_item_and_adds_each_new_one_once(
    held: list[str], wanted: list[str]
) -> None:
    pod, patch = containers(*held, image="x"), containers(*wanted, image="y")
    result = merged(pod, patch)
    assert sorted(names_of(result)) == sorted({*held, *wanted})
    assert [name for name in names_of(result) if name in wanted] == wanted
    assert all(
        each["image"] == ("y" if each["name"] in wanted else "x")
        for each in result["spec"]["containers"]
    )
    assert merged(result, patch) == result


@settings(deadline=None)  # Machines differ.
@given(NAMES, NAMES)
def test_the_order_of_a_patch_is_honoured(held: list[str], order: list[str]) -> None:
    directive = {"$setElementOrder/containers": [{"name": name} for name in order]}
    result = merged(containers(*held), {"spec": directive})
    shared = [name for name in order if name in held]
    assert [name for name in names_of(result) if name in order] == shared
    assert sorted(names_of(result)) == sorted(held)


@pytest.mark.parametrize(
    ("pod", "patch", "expected"),
    [
        (
            containers("a", "b"),
            {"spec": {"containers": [{"name": "a", "$patch": "delete"}]}},
            containers("b"),
        ),
        (
            containers("a", "b"),
            {"spec": {"containers": [{"$patch": "replace"}, {"name": "c"}]}},
            containers("c"),
        ),
        (containers("a"), {"spec": {"$patch": "replace", "x": "y"}}, {"spec": {"x": "y"}}),
        (containers("a"), {"spec": {"$patch": "delete"}}, {"spec": {}}),
        (
            {"metadata": {"finalizers": ["a", "b"]}},
            {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a", "z"]}},
            {"metadata": {"finalizers": ["b"]}},
        ),
        (
            {"metadata": {"finalizers": ["a"]}},
            {"metadata": {"finalizers": ["b"], "$setElementOrder/finalizers": ["a", "b"]}},
            {"metadata": {"finalizers": ["a", "b"]}},
        ),
        (
            {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}},
            {"spec": {"volumes": [
                {"name": "v", "hostPath": {"path": "/"}, "$retainKeys": ["name", "hostPath"]}
            ]}},
            {"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}},
        ),
        (
            {"spec": {"tolerations": [{"key": "a"}]}},
            {"spec": {"tolerations": [{"key": "b"}]}},
            {"spec": {"tolerations": [{"key": "b"}]}},
        ),
        (
            {"spec": {"nodeSelector": {"a": "1", "b": "1"}}},
            {"spec": {"nodeSelector": {"a": None, "c": "1"}}},
            {"spec": {"nodeSelector": {"b": "1", "c": "1"}}},
        ),
        ({}, {"spec": {"affinity": {"podAffinity": None}, "x": {"$patch": "merge"}}},
         {"spec": {"affinity": {}, "x": {}}}),
    ],
)  # fmt: skip
def test_directives_are_followed(pod: Json, patch: Json, expected: Json) -> None:
    assert merged(pod, patch) == expected


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        ({"spec": {"containers": [{"image": "x"}]}}, "does not contain declared merge key: name"),
        ({"spec": {"$patch": "burn"}}, "unknown patch type: burn"),
        ({"spec": {"containers": [{"name": "a", "$patch": "merge"}]}}, "merging lists cannot yet"),
        ({"spec": {"containers": ["x"]}}, "list element types are not identical"),
        ({"spec": {"containers": [["x"]]}}, "lists of lists"),
        ({"spec": {"$retainKeys": ["a"], "b": 1}}, "$retainKeys"),
        ({"spec": {"$setElementOrder/containers": "a"}}, "setElementOrder"),
        ({"spec": {"$deleteFromPrimitiveList/x": 1}}, "primitive list"),
        (
            {"spec": {"containers": [{"name": "b"}], "$setElementOrder/containers": []}},
            "doesn't match $setElementOrder list",
        ),
    ],
)
def test_a_patch_that_makes_no_sense_is_refused(patch: Json, why: str) -> None:
    with pytest.raises(StatusError) as caught:
        merged(containers("a"), patch)
    assert caught.value.code in (400, 422)
    assert why in str(caught.value)
