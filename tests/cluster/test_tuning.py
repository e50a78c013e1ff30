"""KubeVirt settings: applied, rolled out, put back."""

from __future__ import annotations

import asyncio
import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvscale.cluster import kubevirt, kubevirt_owner, tuning
from pytest_kvscale.cluster import tuner as tuners
from pytest_kvscale.cluster.choose import Connection
from pytest_kvscale.cluster.client import (
    KUBEVIRTS,
    NODES,
    ApiError,
    Client,
    LostConnectionError,
)
from pytest_kvscale.cluster.tuner import Tuner
from pytest_kvscale.cluster.tuning import ABSENT, Change, TuningError
from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.sim.patch import merge

KEYS = st.sampled_from(["a", "b", "c"])
TREES: Any = st.recursive(
    st.integers(0, 3) | st.text("xy", max_size=2),
    lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=3),
    max_leaves=6,
)
SPECS = st.dictionaries(KEYS, TREES, max_size=3)


def apply(spec: Any, found: list[Change]) -> Any:
    return merge(spec, tuning.as_patch(found))


def compatible(spec: Any, wanted: Any) -> bool:
    """Whether no field is a mapping in one and a plain value in the other."""
    if not isinstance(spec, dict) or not isinstance(wanted, dict):
        return isinstance(spec, dict) == isinstance(wanted, dict)
    return all(compatible(spec[key], wanted[key]) for key in spec.keys() & wanted.keys())


@given(SPECS, SPECS)
def test_what_is_applied_and_undone_is_what_was(spec: Any, wanted: Any) -> None:
    if not compatible(spec, wanted):
        return
    found = tuning.changes(spec, wanted)
    during = apply(spec, found)
    assert tuning.changes(during, wanted) == []
    patch, left = tuning.undo(during, found)
    assert merge(during, patch) == spec
    assert left == []


@given(SPECS, SPECS, SPECS)
def test_what_others_set_meanwhile_stays(spec: Any, wanted: Any, theirs: Any) -> None:
    if not (compatible(spec, wanted) and compatible(merge(spec, wanted), theirs)):
        return
    found = tuning.changes(spec, wanted)
    ours = apply(spec, found)
    during = merge(ours, theirs)
    patch, left = tuning.undo(during, found)
    after = merge(during, patch)
    touched = {path for path, value in tuning.leaves(theirs) if tuning.look_up(ours, path) != value}
    for path in touched:
        assert tuning.look_up(after, path) == tuning.look_up(theirs, path)
    for change in found:
        if change.path not in touched:
            assert tuning.look_up(after, change.path) == change.before
    set_otherwise = {
        change.path
        for change in found
        if change.path in touched and tuning.look_up(theirs, change.path) != change.before
    }
    assert {change.path for change in left} == set_otherwise


def test_only_fields_with_another_value_are_changed() -> None:
    spec = {"configuration": {"virtualMachineInstancesPerNode": 1000, "x": 1}}
    wanted = {"configuration": {"virtualMachineInstancesPerNode": 1000, "y": 2}}
    assert tuning.changes(spec, wanted) == [Change(("configuration", "y"), ABSENT, 2, present=1)]


def test_absent_parents_become_absent_again() -> None:
    before: Any = {"configuration": {"x": 1}}
    found = tuning.changes(before, {"customizeComponents": {"flags": {"controller": {"f": "1"}}}})
    patch, _ = tuning.undo(apply(before, found), found)
    assert patch == {"customizeComponents": None}


def test_the_shipped_tuning_is_what_the_experiment_needed() -> None:
    fields = dict(tuning.leaves(tuning.load("density")))
    assert fields[("configuration", "virtualMachineInstancesPerNode")] == 1000
    flag = ("customizeComponents", "flags", "controller", "launcher-qemu-timeout")
    assert fields[flag] == "900"
    for component in ("api", "controller", "handler", "webhook"):
        path = (f"{component}Configuration", "restClient", "rateLimiter", "tokenBucketRateLimiter")
        assert fields[("configuration", *path, "qps")] == 200
        assert fields[("configuration", *path, "burst")] == 400


def test_none_is_empty() -> None:
    assert tuning.load("none") == {}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("configuraton: {a: 1}", "unknown key 'configuraton' (did you mean 'configuration'?)"),
        ("configuration: 3", "configuration: expected a mapping, got 3"),
        ("configuration: {a: {b: }}", "configuration.a.b: a value is missing"),
        ("[]", "must be a mapping"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        tuning.load(str(path))
    assert sentence in str(caught.value)


def test_an_unknown_tuning_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'density'"):
        tuning.load("densty")


class NoJournal:
    """Keeps what was noted last."""

    def __init__(self) -> None:
        self.noted: list[Any] = []

    async def before(self, **parts: Any) -> None:
        self.noted.append(parts["tuning"])

    async def after(self, **parts: Any) -> None:
        self.noted.append(parts["tuning"])


def spec_of(connection: Connection) -> Any:
    found = connection.run(kubevirt.find_kubevirt(connection.client))
    return found["spec"]


def test_a_tuning_is_rolled_out_and_put_back(connect: Callable[..., Connection]) -> None:
    connection = connect()
    before = copy.deepcopy(spec_of(connection))
    tuner = Tuner(connection.client, NoJournal(), "node")
    made = connection.run(tuner.apply(tuning.load("density")))
    assert len(made) == 10
    node = connection.run(connection.client.get(NODES, "", "node"))
    assert node["status"]["allocatable"]["devices.kubevirt.io/kvm"] == "1k"
    assert connection.run(tuner.put_back()) == []
    assert spec_of(connection) == before


def test_an_api_that_restarts_leaves_no_setting_changed(
    connect: Callable[..., Connection],
) -> None:
    connection = connect()
    before = copy.deepcopy(spec_of(connection))
    tuner = Tuner(connection.client, NoJournal(), "node")
    trouble = (
        {"kind": "restart", "seconds": 20, "times": 3, "every": 25},
        {"kind": "cut", "when": "after", "verbs": ["patch"], "times": 2},
    )

    def make_trouble() -> None:
        for fault in trouble:
            connection.run(connection.client.request("create", "POST", "/_sim/faults", body=fault))

    make_trouble()
    connection.run(tuner.apply(tuning.load("density")))
    assert spec_of(connection) != before
    make_trouble()
    connection.run(tuner.put_back())
    assert spec_of(connection) == before


def test_a_tuning_that_is_there_already_changes_nothing(connect: Callable[..., Connection]) -> None:
    connection = connect()
    first, second = (
        Tuner(connection.client, NoJournal(), "node"),
        Tuner(connection.client, NoJournal(), "node"),
    )
    connection.run(first.apply(tuning.load("density")))
    requests = connection.client.requests["patch"]
    assert connection.run(second.apply(tuning.load("density"))) == []
    assert connection.client.requests["patch"] == requests


def test_what_somebody_else_changed_meanwhile_is_left_and_told(
    connect: Callable[..., Connection],
) -> None:
    connection = connect()
    tuner = Tuner(connection.client, NoJournal(), "node")
    connection.run(tuner.apply(tuning.load("density")))
    change = {"spec": {"configuration": {"virtualMachineInstancesPerNode": 500}}}
    connection.run(connection.client.patch(KUBEVIRTS, "kubevirt", "kubevirt", change))
    (left,) = connection.run(tuner.put_back())
    assert left.path == ("configuration", "virtualMachineInstancesPerNode")
    assert spec_of(connection) == {"configuration": {"virtualMachineInstancesPerNode": 500}}


def test_a_rollout_that_hangs_is_put_back_and_says_where(
    connect: Callable[..., Connection], profile_file: Callable[[str], Path]
) -> None:
    connection = connect(sim_profile=str(profile_file("times: {rollout: 100000}")))
    before = copy.deepcopy(spec_of(connection))
    tuner = Tuner(connection.client, NoJournal(), "node")
    with pytest.raises(TuningError) as caught:
        connection.run(tuner.apply(tuning.load("density")))
    assert "virt-controller" in str(caught.value)
    assert spec_of(connection) == before


def test_a_rollout_that_may_not_be_watched_is_put_back(
    connect: Callable[..., Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any) -> str:
        raise ApiError(403, {"reason": "Forbidden"})

    connection = connect()
    before = copy.deepcopy(spec_of(connection))
    monkeypatch.setattr(kubevirt, "rolled_out", refuse)
    tuner = Tuner(connection.client, NoJournal(), "node")
    with pytest.raises(TuningError, match=r"could not be watched \(HTTP 403 Forbidden"):
        connection.run(tuner.apply(tuning.load("density")))
    assert spec_of(connection) == before


def test_it_is_rolled_out_only_when_every_part_says_so(
    connect: Callable[..., Connection],
) -> None:
    """The CR's phase stays Deployed all the while: it tells nothing."""
    connection = connect()

    async def work() -> tuple[str, float]:
        loop = asyncio.get_running_loop()
        change = {"spec": {"configuration": {"virtualMachineInstancesPerNode": 300}}}
        changed = await connection.client.patch(KUBEVIRTS, "kubevirt", "kubevirt", change)
        assert changed["status"]["phase"] == "Deployed"
        begun = loop.time()
        return await kubevirt.rolled_out(connection.client, changed, 600), loop.time() - begun

    hanging, took = connection.run(work())
    assert hanging == ""
    assert took > 8


@pytest.mark.parametrize(
    ("spec", "seconds"),
    [
        ({}, 240.0),
        ({"customizeComponents": {"flags": {"controller": {"launcher-qemu-timeout": "900"}}}}, 900),
        (
            {
                "customizeComponents": {
                    "patches": [{"patch": '[{"value":"--launcher-qemu-timeout=700"}]'}]
                }
            },
            700,
        ),
        (
            {
                "customizeComponents": {
                    "patches": [{"patch": '[{"value":"--launcher-qemu-timeout"},{"value":"60"}]'}]
                }
            },
            60,
        ),
    ],
)
def test_the_qemu_timeout_is_read_from_the_cr(spec: Any, seconds: float) -> None:
    assert kubevirt.qemu_timeout(spec) == seconds


def patches(*names: str) -> Any:
    return {"customizeComponents": {"patches": [{"resourceName": each} for each in names]}}


@pytest.mark.parametrize(
    ("before", "during", "after"),
    [
        ({}, None, {}),
        (patches("theirs"), None, patches("theirs")),
        ({}, patches("ours", "later"), patches("later")),
        (patches("theirs"), patches("theirs", "ours", "later"), patches("theirs", "later")),
        (patches("theirs"), patches("theirs"), patches("theirs")),
    ],
)
def test_json_patches_are_added_to_others_and_only_ours_are_taken_out(
    before: Any, during: Any, after: Any
) -> None:
    made = tuning.changes(before, patches("ours"))
    applied = apply(before, made)
    assert {"resourceName": "ours"} in applied["customizeComponents"]["patches"]
    patch, left = tuning.undo(during or applied, made)
    assert merge(during or applied, patch) == after
    assert not left


def test_a_patch_that_is_there_already_is_not_added() -> None:
    assert tuning.changes(patches("ours", "x"), patches("ours")) == []


def test_a_mapping_where_a_value_is_cannot_be_put_back_and_is_refused() -> None:
    wanted = {"configuration": {"a": {"b": 1}}}
    with pytest.raises(TuningError, match=r"the field configuration\.a of the KubeVirt CR is not"):
        tuning.changes({"configuration": {"a": 3}}, wanted)
    with pytest.raises(TuningError, match=r"configuration\.a"):
        tuning.changes({"configuration": {"a": {"b": 1}}}, {"configuration": {"a": 3}})


def test_the_published_patch_may_be_chosen_for_the_flag(connect: Callable[..., Connection]) -> None:
    connection = connect()
    before = copy.deepcopy(spec_of(connection))
    notes = NoJournal()
    tuner = Tuner(connection.client, notes, "node")
    connection.run(tuner.apply(tuning.load("density-patch")))
    assert kubevirt.qemu_timeout(spec_of(connection)) == 900
    assert connection.run(tuner.put_back()) == []
    assert spec_of(connection) == before
    assert [each is None for each in notes.noted] == [False, True]


def test_drift_is_told_in_words(connect: Callable[..., Connection]) -> None:
    connection = connect()
    tuner = Tuner(connection.client, NoJournal(), "node")
    connection.run(tuner.apply(tuning.load("density")))
    assert connection.run(tuner.drift()) == []
    change = {
        "spec": {
            "configuration": {"virtualMachineInstancesPerNode": 500, "defaultRuntimeClass": "x"}
        }
    }
    connection.run(connection.client.patch(KUBEVIRTS, "kubevirt", "kubevirt", change))
    assert connection.run(tuner.drift()) == [
        "configuration.defaultRuntimeClass was absent, is 'x'",
        "configuration.virtualMachineInstancesPerNode was 1000, is 500",
    ]


def test_an_upgrade_meanwhile_is_told(connect: Callable[..., Connection]) -> None:
    connection = connect()
    tuner = Tuner(connection.client, NoJournal(), "node")
    connection.run(tuner.apply({}))
    assert connection.run(tuner.drift()) == []
    path = f"{KUBEVIRTS.path('kubevirt', 'kubevirt')}/status"
    change = {"status": {"observedKubeVirtVersion": "v9.9.9"}}
    work = connection.client.request(
        "patch", "PATCH", path, body=change, content_type="application/merge-patch+json"
    )
    connection.run(work)
    (told,) = connection.run(tuner.drift())
    assert re.fullmatch(r"the version was v\d.*, is v9\.9\.9", told)


def test_settings_that_kubevirt_refuses_change_nothing(connect: Callable[..., Connection]) -> None:
    connection = connect()
    before, notes = copy.deepcopy(spec_of(connection)), NoJournal()
    tuner = Tuner(connection.client, notes, "node")
    wrong = {"configuration": {"virtualMachineInstancesPerNode": "many"}}
    with pytest.raises(TuningError, match="KubeVirt refuses the settings: HTTP 4"):
        connection.run(tuner.apply(wrong))
    assert (spec_of(connection), notes.noted[-1], tuner.made) == (before, None, [])


def test_what_somebody_writes_between_look_and_change_is_kept(
    connect: Callable[..., Connection],
) -> None:
    """The first patch meets a CR that has just changed, and is made anew for it."""
    connection = connect()
    client, raced = connection.client, False

    class Racing(NoJournal):
        async def before(self, **parts: Any) -> None:
            nonlocal raced
            await super().before(**parts)
            if not raced:
                raced = True
                change = {"spec": {"configuration": {"virtualMachineInstancesPerNode": 77}}}
                await client.patch(KUBEVIRTS, "kubevirt", "kubevirt", change)

    tuner = Tuner(client, Racing(), "node")
    connection.run(tuner.apply(tuning.load("density")))
    connection.run(tuner.put_back())
    assert spec_of(connection) == {"configuration": {"virtualMachineInstancesPerNode": 77}}


def test_settings_that_somebody_else_makes_first_are_not_ours_to_undo(
    connect: Callable[..., Connection],
) -> None:
    connection = connect()
    client, wanted = connection.client, tuning.load("density")

    class Racing(NoJournal):
        async def before(self, **parts: Any) -> None:
            await super().before(**parts)
            await client.patch(KUBEVIRTS, "kubevirt", "kubevirt", {"spec": wanted})

    notes = Racing()
    tuner = Tuner(client, notes, "node")
    assert connection.run(tuner.apply(wanted)) == []
    assert notes.noted[-1] is None
    theirs = spec_of(connection)
    connection.run(tuner.put_back())
    assert spec_of(connection) == theirs


def test_a_change_whose_answer_was_lost_is_ours_though_the_next_send_meets_a_conflict(
    connect: Callable[..., Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = connect()
    before = copy.deepcopy(spec_of(connection))
    send, sent = tuners.patch, list[Any]()

    async def late(client: Client, found: Any, change: Any) -> Any:
        """The first takes effect only while the second is on its way."""
        sent.append((found, change))
        if len(sent) == 1:
            raise LostConnectionError
        if len(sent) == 2:
            await send(client, *sent[0])
        return await send(client, found, change)

    monkeypatch.setattr(tuners, "patch", late)
    tuner = Tuner(connection.client, NoJournal(), "node")
    assert len(connection.run(tuner.apply(tuning.load("density")))) == 10
    connection.run(tuner.put_back())
    assert spec_of(connection) == before


@pytest.mark.parametrize(
    ("metadata", "owner"),
    [
        ({"ownerReferences": [{"apiVersion": "hco.kubevirt.io/v1beta1", "kind": "HyperConverged",
                               "name": "kubevirt-hyperconverged"}]},
         "owned by the HyperConverged kubevirt-hyperconverged, .*kubevirt.kubevirt.io/jsonpatch"),
        ({"labels": {"app": "kubevirt-hyperconverged"}}, "owned by the HyperConverged"),
        ({"annotations": {"argocd.argoproj.io/tracking-id": "x"}}, "kept by Argo CD"),
        ({"labels": {"kustomize.toolkit.fluxcd.io/name": "x"}}, "kept by Flux"),
        ({"managedFields": [{"manager": "helm-controller"}]}, "kept by Flux"),
        ({"ownerReferences": [{"apiVersion": "x/v1", "kind": "Platform", "controller": True,
                               "name": "p"}]}, "owned by a Platform"),
    ],
)  # fmt: skip
def test_a_cr_that_somebody_else_keeps_is_refused_in_a_sentence(metadata: Any, owner: str) -> None:
    found = {"metadata": {"name": "kubevirt", "namespace": "kubevirt", **metadata}}
    assert re.search(owner, kubevirt_owner.owned_by(found))
    assert "--kvscale-tune none" in kubevirt_owner.owned_by(found)


def test_a_cr_of_ones_own_may_be_tuned() -> None:
    metadata = {"name": "kubevirt", "namespace": "kubevirt", "labels": {"app": "mine"},
                "managedFields": [{"manager": "kubectl-client-side-apply"}]}  # fmt: skip
    assert kubevirt_owner.owned_by({"metadata": metadata}) == ""


def test_an_owned_cr_is_not_touched(connect: Callable[..., Connection]) -> None:
    connection = connect()
    label = {"metadata": {"labels": {"app": "kubevirt-hyperconverged"}}}
    connection.run(connection.client.patch(KUBEVIRTS, "kubevirt", "kubevirt", label))
    before = copy.deepcopy(spec_of(connection))
    with pytest.raises(TuningError, match="owned by the HyperConverged"):
        connection.run(Tuner(connection.client, NoJournal(), "node").apply(tuning.load("density")))
    assert spec_of(connection) == before
