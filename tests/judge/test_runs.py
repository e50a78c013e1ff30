"""Runs from files: what is read, what is refused and with which words."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.judge.comparison import compare
from pytest_kvscale.judge.runs import run_file, run_files
from tests.runs import REAL, Json, level, results, run

Change = Callable[[Json], object]


def test_a_real_file_is_read() -> None:
    found = run_file(REAL, "here.json")
    assert (found.id, found.kubevirt, found.simulated) == (REAL["run"]["id"], "v1.9.0", "sim")
    assert found.fingerprint == REAL["cluster"]["fingerprint"]
    assert found.began is not None
    (only,) = found.levels
    real = REAL["levels"][0]
    assert only["label"] == "5"
    for key in ("phases", "deletion", "slowest", "control_plane"):
        assert json.dumps(only[key]).count("5") > 0
    assert only["phases"]["Running"]["p95"] == real["phases"]["Running"]["p95"]
    assert only["slowest"]["slow"]["steps"] == real["slowest"]["slow"]["steps"]
    assert only["control_plane"]["components"] == real["control_plane"]["components"]


def test_what_is_kept_of_a_file_reads_as_the_file_did() -> None:
    found = run_file(REAL, "x")
    assert run_file(json.loads(json.dumps(found.as_json())), "x") == found


def test_levels_that_were_run_several_times_have_labels() -> None:
    found = run("r", level(5), level(8), level(5))
    assert [each["label"] for each in found.levels] == ["5", "8", "5-2"]


def test_the_run_of_an_upgrade_is_two() -> None:
    content = results("up", level(5, side="before"), level(5, side="after"), kubevirt="v1.10.0")
    before = copy.deepcopy(content["cluster"])
    before["kubevirt"] = before["comparable"]["versions.kubevirt"] = "v1.9.0"
    content["upgrade"] = {"from": "v1.9.0", "to": "v1.10.0", "before": before}
    old, new = run_files(content, "x")
    assert (old.id, old.kubevirt, new.id, new.kubevirt) == (
        "up:before", "v1.9.0", "up:after", "v1.10.0",
    )  # fmt: skip
    assert run_file(content, "x") == new
    assert [each["side"] for each in (*old.levels, *new.levels)] == ["before", "after"]
    del content["levels"][0]["side"]
    with pytest.raises(ConfigurationError, match="does not say of each level on which side"):
        run_files(content, "x")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "is no results.json of pytest-kvscale: it is a list, not an object"),
        (None, "it is null, not an object"),
        ({"data": {"result": []}}, "it names no schema"),
        ({"schema": "kvscale/v2"}, "x was written by a newer version: its schema is kvscale/v2"),
        ({"schema": "kvscale-comparison/v1"}, "its schema is 'kvscale-comparison/v1', not"),
        ({"schema": ["kvscale/v1"]}, "its schema is a list"),
        ({"schema": "x" * 500}, "its schema is 'xxx"),
        ({"schema": "kvscale/v1"}, "the key run is missing"),
    ],
)
def test_a_foreign_file_is_one_sentence(content: Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        run_file(content, "x")
    assert said in str(caught.value)
    assert str(caught.value).startswith("x ")
    assert len(str(caught.value)) < 200


def _set(path: str, value: object) -> Change:
    def change(content: Json) -> None:
        *way, last = path.split(".")
        here: Any = content
        for step in way:
            here = here[int(step) if step.isdigit() else step]
        here[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_set("levels.0.phases.Running.p95", "5.0"), "Running.p95: input should be a valid number"),
        (_set("levels.0.phases.Running.p95", -1.0), "p95: input should be greater than or equal"),
        (_set("levels.0.phases.Running.p95", True), "p95: input should be a valid number"),
        (_set("levels.0.phases.Running.p95", float("nan")), "p95: "),
        (_set("levels.0.phases.Running.p95", 10**400), "p95: "),
        (_set("levels.0.phases.Running.p50", 400.0), "its percentiles are not in order"),
        (
            _set("levels.0.phases.Running", {"n": 2, "censored": 3, "p50": 4.0}),
            "Running: it has a p50, which 2 values cannot have",
        ),
        (_set("levels.0.phases.Running.n", 2), "level 5 has figures of 2 VMIs for Running"),
        (_set("levels.0.phases.Running.p50", None), "its percentiles are not in order"),
        (_set("levels.0.level", 400), "level 400 asked for 5 VMIs"),
        (_set("levels.0.requested", 9), "level 5 has figures of 5 VMIs for Scheduling, and asked"),
        (_set("levels.0.running", 6), "level 5 has 5 VMIs created, 6 running"),
        (_set("levels.0.level", 0), "level: input should be greater than 0"),
        (_set("levels.0.failures", {"QemuTimeout": -1}), "failures.QemuTimeout: "),
        (_set("levels.0.failures", None), "failures: "),
        (_set("levels", {}), "levels: input should be a valid list, got an object"),
        (_set("run.simulated", "no"), "run.simulated: input should be 'sim', 'hollow' or 'false'"),
        (_set("run.simulated", "false"), "simulated is 'false', and in `comparable` 'sim'"),
        (_set("cluster.kubevirt", "v2"), "versions.kubevirt is 'v2', and in `comparable` 'v1.9.0'"),
        (_set("run.id", "../../etc"), "run.id: it is no id of a run"),
        (_set("run.id", "a\x1b[2J"), "run.id: it is no id of a run"),
        (_set("run.started", "yesterday"), "run.started: it is no date and time"),
        (_set("cluster.comparable", {}), "cluster.comparable: "),
        (_set("cluster.comparable", {"node": {"cpu": 1}}), "comparable.node"),
    ],
)
def test_a_file_that_makes_no_sense_is_one_sentence(change: Change, said: str) -> None:
    content = copy.deepcopy(REAL)
    change(content)
    with pytest.raises(ConfigurationError) as caught:
        run_file(content, "x")
    assert said in str(caught.value)
    assert str(caught.value).startswith("x cannot be used: ")
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


def test_text_of_a_file_has_nothing_that_a_terminal_obeys() -> None:
    content = results("r", level(5, reasons=["a\x1b[2Jb\x07"], failures={"Qemu\x1bTimeout": 1}))
    content["cluster"]["comparable"]["template.1"] = "one\ntwo\x9b"
    found = run_file(content, "x")
    assert found.levels[0]["reasons"] == ["a\ufffd[2Jb\ufffd"]
    assert found.levels[0]["failures"] == {"Qemu\ufffdTimeout": 1}
    assert found.comparable["template.1"] == "one\ntwo\ufffd"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=4)
    | st.sampled_from(["fail", "kvscale/v1", "before", 10**400, -(10**400), 5, 0, 1.5]),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)  # fmt: skip


@given(JSON)
@settings(max_examples=50, deadline=None)
def test_no_json_is_anything_but_a_run_or_a_sentence(content: object) -> None:
    with pytest.raises(ConfigurationError):
        run_file(content, "x")


def _paths(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands that is read."""
    found = [path] if path else []
    keys = (
        list(content) if isinstance(content, dict)
        else range(len(content)) if isinstance(content, list) else []
    )  # fmt: skip
    for key in keys:
        if key not in ("preflight", "tuning", "harness", "template.1", "canary"):
            found += _paths(content[key], (*path, key))
    return found


PATHS = _paths(REAL)


@given(st.lists(st.tuples(st.sampled_from(PATHS), JSON), min_size=1, max_size=2))
@settings(max_examples=150, deadline=None)
def test_a_file_with_anything_in_it_is_a_run_that_can_be_compared_or_a_sentence(
    changes: list[tuple[tuple[Any, ...], Any]],
) -> None:
    content = json.loads(json.dumps(REAL))
    for path, value in changes:
        here = content
        try:
            for step in path[:-1]:
                here = here[step]
            here[path[-1]] = value
        except (TypeError, KeyError, IndexError):
            continue
    try:
        found = run_file(content, "x")
        told = compare([found], [run("other")])
    except ConfigurationError:
        return
    json.dumps(told.as_json(), allow_nan=False)
