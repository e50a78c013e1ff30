"""Server-side apply: merging, ownership and conflicts, as arithmetic."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_kvscale.sim import apply, fields, managed_fields, resources, schema
from pytest_kvscale.sim.errors import StatusError
from pytest_kvscale.sim.managed_fields import Managed, Writer

Json = dict[str, Any]
MAPS, PODS = resources.CONFIG_MAPS, resources.PODS
DATA = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("12"), max_size=4)
ANOTHER = st.dictionaries(st.sampled_from("wxyz"), st.sampled_from("12"), max_size=4)
ENTRY = {"operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1"}


def config(data: Json, **metadata: Any) -> Json:
    head = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm", **metadata}}
    return {**head, "data": data} if data else head


def put(
    live: Json, managed: Managed, wanted: Json, manager: str = "me", force: bool = False,
    kind: resources.Resource = MAPS,
) -> tuple[Json, Managed]:  # fmt: skip
    return apply.apply(
        kind, live, managed, apply.Request(wanted, manager, force, "", "2026-01-01T00:00:00Z")
    )


def owned(managed: Managed, manager: str) -> set[str]:
    return {
        fields.dotted(path)
        for entry in managed.values()
        if entry.manager == manager
        for path in fields.paths(entry.fields)
    }


@settings(deadline=None)  # Machines differ.
@given(DATA)
def test_applying_twice_is_applying_once(data: Json) -> None:
    once = put({}, {}, config(data))
    assert put(*once, config(data)) == once


@settings(deadline=None)  # Machines differ.
@given(DATA, DATA)
def test_what_a_manager_applies_no_more_goes_away(first: Json, second: Json) -> None:
    new, managed = put(*put({}, {}, config(first)), config(second))
    assert (new.get("data") or {}) == second
    assert owned(managed, "me") == {f".data.{key}" for key in second}


@settings(deadline=None)  # Machines differ.
@given(DATA, ANOTHER)
def test_managers_of_other_fields_never_conflict(mine: Json, theirs: Json) -> None:
    new, managed = put(*put({}, {}, config(mine)), config(theirs), "they")
    assert (new.get("data") or {}) == mine | theirs
    restored, left = put(new, managed, config({}), "they")
    assert (restored.get("data") or {}) == mine
    assert owned(left, "they") == set()
    assert owned(left, "me") == {f".data.{key}" for key in mine}


@settings(deadline=None)  # Machines differ.
@given(DATA, DATA)
def test_a_conflict_names_each_field_that_would_change(mine: Json, theirs: Json) -> None:
    live = put({}, {}, config(mine))
    clashes = {key for key in mine.keys() & theirs.keys() if mine[key] != theirs[key]}
    if not clashes:
        new, managed = put(*live, config(theirs), "they")
        shared = mine.keys() & theirs.keys()
        assert owned(managed, "they") & owned(managed, "me") == {f".data.{key}" for key in shared}
        return
    with pytest.raises(StatusError) as caught:
        put(*live, config(theirs), "they")
    assert caught.value.code == 409
    causes = caught.value.body["details"]["causes"]
    assert {each["field"] for each in causes} == {f".data.{key}" for key in clashes}
    assert {each["message"] for each in causes} == {'conflict with "me"'}
    new, managed = put(*live, config(theirs), "they", force=True)
    assert new["data"] == mine | theirs
    assert owned(managed, "me") == {f".data.{key}" for key in mine.keys() - clashes}


def test_an_update_takes_the_fields_it_changes() -> None:
    live, managed = put({}, {}, config({"a": "1", "b": "1"}))
    changed = {**live, "data": {"a": "2", "c": "1"}}
    kind, writer = schema.of(MAPS), Writer("editor")
    managed = managed_fields.after_update(managed, live, changed, kind, writer, "v1", "t")
    assert owned(managed, "me") == set()
    assert owned(managed, "editor") == {".data.a", ".data.c"}
    with pytest.raises(StatusError) as caught:
        put(changed, managed, config({"a": "1"}))
    message = 'Apply failed with 1 conflict: conflict with "editor" using v1: .data.a'
    assert caught.value.body["message"] == message


def test_containers_are_joined_by_name_and_keep_the_appliers_order() -> None:
    def wanted(*names: str) -> Json:
        containers = [{"name": name, "image": name} for name in names]
        return {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"containers": containers},
        }  # fmt: skip

    live = put({}, {}, wanted("a", "b"), kind=PODS)
    new, managed = put(*live, wanted("c", "b"), "they", kind=PODS)
    assert [each["name"] for each in new["spec"]["containers"]] == ["a", "c", "b"]
    new, managed = put(new, managed, wanted("b"), kind=PODS)
    assert [each["name"] for each in new["spec"]["containers"]] == ["c", "b"]
    assert '.spec.containers[name="b"]' in owned(managed, "me") & owned(managed, "they")


def test_what_was_applied_by_kubectl_before_may_be_applied_at_the_server() -> None:
    last = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"cm"},"data":{"a":"1"}}'
    live = config({"a": "1", "b": "1"}, annotations={apply.LAST_APPLIED: last}, uid="u")
    kind, writer = schema.of(MAPS), Writer("kubectl-client-side-apply")
    managed = managed_fields.after_update({}, {}, live, kind, writer, "v1", "t")
    new, _ = put(live, managed, config({"a": "2"}), "kubectl")
    assert new["data"] == {"a": "2", "b": "1"}
    assert '"a":"2"' in new["metadata"]["annotations"][apply.LAST_APPLIED]
    with pytest.raises(StatusError):
        put(live, managed, config({"b": "2"}), "kubectl")
    with pytest.raises(StatusError):
        put(live, managed, config({"a": "2"}), "another")


def test_what_nobody_owned_belongs_to_those_before_the_first_apply() -> None:
    live = config({"a": "1"}, uid="u")
    with pytest.raises(StatusError) as caught:
        put(live, {}, config({"a": "2"}))
    assert 'conflict with "before-first-apply" using v1' in caught.value.body["message"]


def test_of_many_updaters_the_oldest_become_one() -> None:
    live = config({})
    managed: Managed = {}
    for number in range(15):
        after = {**live, "data": {**(live.get("data") or {}), f"k{number:02}": "1"}}
        writer, now = Writer(f"m{number:02}"), f"2026-01-01T00:00:{number:02}Z"
        managed = managed_fields.after_update(
            managed, live, after, schema.of(MAPS), writer, "v1", now
        )
        live = after
    assert len(managed) == managed_fields.MOST_UPDATERS
    assert {".data.k00", ".data.k05"} <= owned(managed, managed_fields.ANCIENT)
    assert owned(managed, "m14") == {".data.k14"}


def test_owners_are_written_and_read_back() -> None:
    _, managed = put({}, {}, config({"a": "1"}, labels={"x": "y"}))
    assert managed_fields.decode(managed_fields.encode(managed)) == managed


@pytest.mark.parametrize(
    "entries",
    [
        {},
        ["x"],
        [{"operation": "Delete"}],
        [{"operation": "Apply", "apiVersion": "v1"}],
        [{"operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": {}}],
        [ENTRY | {"fieldsV1": {"a": {}}}],
        [ENTRY | {"fieldsV1": {"k:{": {}}}],
        [ENTRY | {"fieldsV1": {".": 1}}],
        [ENTRY | {"manager": 1}],
    ],
)
def test_owners_that_make_no_sense_are_not_read(entries: Any) -> None:
    assert managed_fields.decode(entries) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"kind": "Pod"}, "invalid object type: /v1, Kind=Pod"),
        ({"dat": {}}, ".dat: field not declared in schema"),
        ({"data": []}, ".data: expected map"),
        ({"metadata": {"managedFields": []}}, "metadata.managedFields must be nil"),
        ({"metadata": {"ownerReferences": [{"name": "x"}]}}, 'omits key field "uid"'),
        ({"metadata": {"finalizers": ["a", "a"]}}, 'duplicate entries for key [="a"]'),
    ],
)
def test_a_configuration_that_is_not_of_its_kind_is_refused(change: Json, why: str) -> None:
    with pytest.raises(StatusError) as caught:
        apply.check(MAPS, {**config({}), **change})
    assert caught.value.code == 400
    assert why in caught.value.body["message"]
