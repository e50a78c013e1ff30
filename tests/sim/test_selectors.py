"""Label and field selectors mean what Kubernetes means by them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvscale.sim import resources, selectors
from pytest_kvscale.sim.errors import StatusError

HELD = {"tier": "a", "app": "kv", "size": "12"}


def matches(text: str, held: dict[str, str] | None = None) -> bool:
    return selectors.labels(text)({"metadata": {"labels": HELD if held is None else held}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("tier=a", True),
        ("tier==a", True),
        ("tier = a", True),
        ("tier=b", False),
        ("tier!=b", True),
        ("tier!=a", False),
        ("other!=a", True),
        ("tier in (a,b)", True),
        ("tier in (b, c)", False),
        ("tier notin (b,c)", True),
        ("other notin (b)", True),
        ("tier", True),
        ("other", False),
        ("!other", True),
        ("!tier", False),
        ("size>11", True),
        ("size<12", False),
        ("tier>1", False),
        ("other>1", False),
        ("tier=a,app=kv", True),
        ("tier=a,app=x", False),
        ("tier in (a,b),!other,size>3", True),
        ("example.com/x=1", False),
    ],
)
def test_each_operator_of_a_label_selector(text: str, expected: bool) -> None:
    assert matches(text) is expected


@pytest.mark.parametrize("text", ["a=b=c", "=x", "a in b", "a in (b", "a,,b", "!", "a>x", "a b"])
def test_a_label_selector_that_makes_no_sense_is_a_bad_request(text: str) -> None:
    with pytest.raises(StatusError) as caught:
        selectors.labels(text)
    assert caught.value.code == 400


@given(st.text(max_size=30))
def test_any_text_is_a_selector_or_a_bad_request(text: str) -> None:
    try:
        matcher = selectors.labels(text)
    except StatusError as refusal:
        assert refusal.code == 400  # noqa: PT017 - it need not be refused
    else:
        assert matcher({"metadata": {}}) in (True, False)


KEYS, VALUES = st.sampled_from(["a", "b", "c"]), st.sampled_from(["x", "y", ""])


@given(KEYS, st.lists(VALUES, min_size=1, max_size=3), st.dictionaries(KEYS, VALUES))
def test_in_and_notin_are_opposites(key: str, values: list[str], held: dict[str, str]) -> None:
    listed = ",".join(values)
    assert matches(f"{key} in ({listed})", held) is not matches(f"{key} notin ({listed})", held)


POD = {
    "metadata": {"name": "p", "namespace": "n"},
    "spec": {"nodeName": "node-1"},
    "status": {"phase": "Running"},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("metadata.name=p", True),
        ("metadata.name!=p", False),
        ("spec.nodeName=node-1,status.phase=Running", True),
        ("status.phase==Pending", False),
        ("spec.schedulerName=", True),
    ],
)
def test_field_selectors_of_pods(text: str, expected: bool) -> None:
    assert selectors.fields(text, resources.PODS)(POD) is expected


def test_custom_resources_have_name_and_namespace_only() -> None:
    with pytest.raises(StatusError, match=r"field label not supported: status\.phase"):
        selectors.fields("status.phase=Running", resources.VMIS)


def test_events_can_be_selected_by_what_they_are_about() -> None:
    event = {
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "name": "p"},
        "reason": "Scheduled",
        "type": "Normal",
        "source": {"component": "scheduler"},
    }
    chosen = "involvedObject.name=p,reason=Scheduled,type!=Warning,source=scheduler"
    assert selectors.fields(chosen, resources.EVENTS)(event)


def test_a_node_that_says_nothing_is_schedulable() -> None:
    node = {"metadata": {"name": "n"}, "spec": {}}
    assert selectors.fields("spec.unschedulable=false", resources.NODES)(node)
    assert not selectors.fields("spec.unschedulable=true", resources.NODES)(node)
