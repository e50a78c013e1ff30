"""Fingerprints: readable, the same for the same, and with what differs."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pytest_kvscale.judge.comparable import ABSENT, Difference, differences, digest, fingerprint

PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5))
NESTED = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    ),
    max_leaves=8,
)


def test_what_is_nested_gets_a_plain_name() -> None:
    found = fingerprint(
        versions={"kubevirt": "v1.9.0"}, template=["one", "two"], node={"cpu": 48.0}, settings={}
    )
    assert found == {
        "node.cpu": 48.0, "settings": None, "template.1": "one", "template.2": "two",
        "versions.kubevirt": "v1.9.0",
    }  # fmt: skip


@given(st.dictionaries(st.sampled_from(["node", "pace", "x"]), NESTED, max_size=3))
def test_the_same_has_the_same_digest_and_no_difference(what: dict[str, Any]) -> None:
    found, again = fingerprint(**what), fingerprint(**dict(reversed(what.items())))
    assert found == again
    assert digest(found) == digest(again)
    assert differences(found, again) == []


@given(st.dictionaries(st.text(max_size=3), PLAIN), st.dictionaries(st.text(max_size=3), PLAIN))
def test_any_difference_is_told_and_changes_the_digest(
    a: dict[str, Any], b: dict[str, Any]
) -> None:
    found = differences(a, b)
    assert bool(found) is (a != b)
    assert {each.name for each in found} <= {*a, *b}
    assert [(each.before, each.after) for each in found] == [
        (each.after, each.before) for each in differences(b, a)
    ]


def test_what_may_differ_does_not_count() -> None:
    before = fingerprint(versions={"kubevirt": "1"}, settings={"a": 1, "b": 2}, node={"cpu": 4})
    after = fingerprint(versions={"kubevirt": "2"}, settings={"a": 9}, node={"cpu": 8})
    found = differences(before, after, ("versions.kubevirt", "settings.*"))
    assert [each.text() for each in found] == ["node.cpu: 4 -> 8"]
    assert Difference("settings.b", 2, ABSENT) in differences(before, after)


def test_of_templates_the_lines_that_differ_are_shown() -> None:
    change = Difference("template.1", "a: 1\nb: 2\nc: 3\n", "a: 1\nb: 9\nc: 3\n")
    assert change.text() == "template.1: -b: 2 | +b: 9"
    long = Difference("template.1", "\n".join("abcdefgh"), "\n".join("ABCDEFGH"))
    assert long.text().endswith(", and 10 more lines")
