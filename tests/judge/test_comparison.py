"""Comparing two sides: what may be compared, and what comes of it."""

from __future__ import annotations

import dataclasses
import json

import pytest

from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.judge import samples
from pytest_kvscale.judge.change import DEFAULT, Rules
from pytest_kvscale.judge.comparison import Comparison, NotComparableError, compare
from pytest_kvscale.judge.runs import RunFile
from pytest_kvscale.judge.shift import sides
from tests.runs import level, run, side

BEFORE = [5.0, 5.1, 4.95, 5.05, 5.02]
SAME = [5.01, 5.08, 4.97, 5.04, 5.0]
SLOWER = [8.0, 8.2, 8.1, 7.9, 8.05]


def verdicts(found: Comparison) -> dict[str, str]:
    return {row.id: row.verdict for row in found.rows()}


def test_what_did_not_change_passes_and_what_got_slower_fails() -> None:
    old = side("a", BEFORE)
    same = compare(old, side("b", SAME, kubevirt="v1.10.0"))
    assert same.verdict == "pass"
    assert verdicts(same) == {
        "5 Running.p50": "pass", "5 Running.p95": "pass", "5 deletion.p95": "pass",
        "5 requests_per_vmi": "pass", "5 failures": "pass",
    }  # fmt: skip
    assert same.kubevirt == ("v1.9.0", "v1.10.0")
    assert [each.name for each in same.differs] == ["versions.kubevirt"]
    worse = compare(old, side("b", SLOWER))
    assert worse.verdict == "fail"
    assert verdicts(worse)["5 Running.p95"] == "fail"
    text = next(row.text for row in worse.rows() if row.key == "Running.p95")
    assert text.startswith("level 5: p95 creation to Running +60 % [")
    assert "(5.02 s -> 8.05 s, 5+5 runs, p " in text
    assert worse.attribution[0].level == 5


def test_one_run_on_each_side_is_never_a_pass_by_chance() -> None:
    found = compare(side("a", [5.0]), side("b", [8.0]))
    assert found.verdict == "inconclusive"
    assert verdicts(found)["5 failures"] == "pass"


def test_what_is_inconclusive_says_how_many_runs_would_tell() -> None:
    found = compare(side("a", [29.1, 31.5, 27.7]), side("b", [32.0, 34.9, 30.2]))
    text = next(row.text for row in found.rows() if row.key == "Running.p95")
    assert found.verdict == "inconclusive"
    assert "in 9 of 10 cases; " in text
    assert " more runs on each side would probably tell)" in text


def test_runs_after_that_are_copies_of_those_before_prove_nothing() -> None:
    found = compare(side("a", BEFORE), side("b", BEFORE, kubevirt="v1.10.0"))
    assert found.verdict == "inconclusive"
    assert set(verdicts(found).values()) == {"inconclusive"}
    assert "no run after counts (its figures are those of a0 5" in next(found.rows()).text


def test_a_level_that_no_side_has_is_an_error_and_no_pass() -> None:
    old, new = side("a", BEFORE), side("b", SLOWER)
    for levels, said in (([6], "level 6 was"), ([5, 6, 7], "level 6, 7 was"), ([], "no level was")):
        with pytest.raises(ConfigurationError, match=f"{said} not run on either side: there are 5"):
            compare(old, new, levels=levels)


def test_a_calibration_of_another_cluster_and_runs_of_it_that_do_not_count_are_noted() -> None:
    def of(uid: str, runs: list[RunFile]) -> list[RunFile]:
        comparable = {"simulated": "false"}
        return [
            dataclasses.replace(
                each, uid=uid, simulated="false", comparable={**each.comparable, **comparable}
            )
            for each in runs
        ]

    old, new = of("one", side("a", BEFORE)), of("one", side("b", SLOWER))
    equal = [*side("c", [6.0, 6.1]), run("d", level(5, ended="interrupted"))]
    own = compare(old, new, DEFAULT, of("one", equal)).notes
    assert not any("another cluster" in each for each in own)
    notes = compare(old, new, DEFAULT, of("two", equal)).notes
    assert "calibration run c0 is of another cluster: its noise may be another one" in notes
    assert "calibration d 5 does not count: it was cut short: interrupted" in notes


def test_more_runs_than_anybody_has_can_be_compared() -> None:
    def many(name: str, start: float) -> RunFile:
        return run(name, *(level(5, p95=start + each / 1e4) for each in range(520)))

    found = compare([many("a", 5.0)], [many("b", 8.0)])
    assert verdicts(found)["5 Running.p95"] == "fail"


def test_runs_without_a_date_are_in_the_order_they_were_made() -> None:
    made = run("a", *(level(5, p95=5 + each / 10, began=None) for each in range(12)))
    new = run("b", *(level(5, p95=6 + each / 10, began=None) for each in range(12)))
    pair = next(each for each in samples.pairs([made], [new]) if each.metric.key == "Running.p95")
    assert list(sides(pair).before) == sorted(sides(pair).before)


def test_a_side_on_which_nothing_ran_can_be_compared() -> None:
    dead = level(5, p95=None, failures={"QemuTimeout": 5}, running=0)
    dead["phases"]["Running"] = {"n": 0, "censored": 5}
    found = compare([run(f"a{each}", dead) for each in "123"], [run("b", dead), run("c", dead)])
    text = json.dumps(found.as_json(), allow_nan=False)
    assert '"before": null' in text
    assert verdicts(found)["5 Running.p95"] != "fail"
    assert "not reached -> not reached" in "".join(row.text for row in found.rows())


def test_a_comparison_is_strict_json() -> None:
    found = compare(side("a", [5.0, 5.1]), side("b", [None, 5.3], kubevirt="v2"))
    content = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert content["schema"] == "kvscale-comparison/v1"
    assert content["kubevirt"] == {"before": "v1.9.0", "after": "v2"}
    assert [each["metric"]["key"] for each in content["changes"]][:2] == [
        "Running.p50", "Running.p95",
    ]  # fmt: skip
    assert content["changes"][1]["runs"]["after"][0]["value"] is None
    assert content["failures"][0]["verdict"] == "pass"


# Which runs may be compared -----------------------------------------------------------------


def test_a_run_on_both_sides_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"run a0 is on both sides \(a0\.json and a0\.j"):
        compare(side("a", [5.0, 5.1]), side("a", [5.0]))
    with pytest.raises(ConfigurationError, match="there is no run before"):
        compare([], side("a", [5.0]))


def test_runs_that_differ_in_what_must_not_are_refused_with_the_diff() -> None:
    other = side("b", [5.0], node_cpu=64.0, versions_kubernetes="v1.40.0")
    with pytest.raises(NotComparableError) as caught:
        compare(side("a", [5.0]), other)
    assert "node.cpu: 48.0 -> 64.0; versions.kubernetes: v1.36.0 -> v1.40.0 (run a0" in str(
        caught.value
    )
    assert [each.name for each in caught.value.differences] == ["node.cpu", "versions.kubernetes"]
    found = compare(side("a", [5.0]), other, may_differ=["node.*", "versions.kubernetes"])
    assert {each.name for each in found.differs} == {"node.cpu", "versions.kubernetes"}


def test_devices_may_differ_with_kubevirts_version_and_only_then() -> None:
    old = side("a", [5.0])
    found = compare(old, side("b", [5.0], kubevirt="v2", node_devices=110))
    assert [each.name for each in found.differs] == ["node.devices", "versions.kubevirt"]
    with pytest.raises(NotComparableError, match=r"node\.devices: 1000 -> 110"):
        compare(old, side("b", [5.0], node_devices=110))


def test_simulated_and_real_never_meet_whatever_may_differ() -> None:
    with pytest.raises(NotComparableError, match=r"simulated: sim -> false .* never compared"):
        compare(
            side("a", [5.0]), side("b", [5.0], simulated="false"), may_differ=["*", "simulated"]
        )


def test_a_run_without_a_level_is_told_and_not_counted() -> None:
    empty = run("e")
    old = [*side("a", [5.0]), dataclasses.replace(empty, levels=())]
    found = compare(old, side("b", [5.0]))
    assert found.before == ("a0",)
    assert "run e has no level (e.json)" in found.notes
    with pytest.raises(ConfigurationError, match="in common: none before and 5 after"):
        compare(old[1:], side("b", [5.0]))


def test_what_differs_is_told_in_so_many_words_as_can_be_read() -> None:
    other = side("b", [5.0], template_1="x\n" * 500_000, node_runtime="y" * 100_000)
    with pytest.raises(NotComparableError) as caught:
        compare(side("a", [5.0]), other)
    assert "node.runtime: containerd://2.1.4 -> yyy" in str(caught.value)
    assert len(str(caught.value)) < 1500
    assert "\n" not in str(caught.value)


def test_runs_of_one_side_are_repeats_of_each_other() -> None:
    mixed = [*side("b", [5.0]), *side("c", [5.0], node_cpu=64.0)]
    with pytest.raises(NotComparableError, match="the runs after cannot be compared with each"):
        compare(side("a", [5.0]), mixed)
    versions = [*side("b", [5.0]), *side("c", [5.1], kubevirt="v2")]
    with pytest.raises(NotComparableError, match=r"the runs after .* versions\.kubevirt"):
        compare(side("a", [5.0]), versions)


def test_of_a_folder_the_runs_that_fit_are_used_and_the_others_told() -> None:
    old = [*side("a", [5.0, 5.1]), *side("c", [9.0], node_cpu=64.0)]
    found = compare(old, side("b", [5.0]))
    assert found.before == ("a0", "a1")
    assert "run c0 is left out, it cannot be compared: node.cpu: 64.0 -> 48.0" in found.notes
    with pytest.raises(NotComparableError, match=r"the runs cannot be compared: node\.cpu"):
        compare(old, side("b", [5.0]), leave_out=False)
    with pytest.raises(NotComparableError, match=r"none of 2 runs before .* nearest .* node\.cpu"):
        compare(
            [*side("c", [9.0], node_cpu=64.0), *side("d", [9.0], node_cpu=64.0, pace_qps=5.0)],
            side("b", [5.0]),
        )


def test_of_several_versions_before_the_last_is_used_or_the_one_asked_for() -> None:
    early = [run("a", level(5, p95=5.0), kubevirt="v1.8.0")]
    late = [run("b", level(5, p95=5.5), kubevirt="v1.9.0")]
    assert (early[0].began or 0) < (late[0].began or 0)
    new = [run("n", level(5), kubevirt="v1.10.0")]
    found = compare([*late, *early], new)
    assert (found.before, found.kubevirt[0]) == (("b",), "v1.9.0")
    assert any("v1.8.0 (1), v1.9.0 (1); compared with v1.9.0, of the run that" in each
               for each in found.notes)  # fmt: skip
    assert compare([*early, *late], new, version="v1.8.0").before == ("a",)
    with pytest.raises(
        ConfigurationError, match=r"no run of KubeVirt v7 before: there are v1\.8\.0"
    ):
        compare([*early, *late], new, version="v7")
    both = compare([*early, *late], new, may_differ=["versions.kubevirt"])
    assert both.before == ("a", "b")


def test_a_calibration_of_another_cluster_is_refused_and_compared_runs_are_none() -> None:
    old, new = side("a", BEFORE[:2]), side("b", SLOWER[:2])
    with pytest.raises(NotComparableError, match="the calibration is of another cluster"):
        compare(old, new, calibration=side("c", SAME, node_cpu=64.0))
    found = compare(old, new, calibration=[*old, *side("c", SAME)])
    assert "run a0 is compared, and no calibration beside that" in found.notes
    noise = found.changes[1].pair.noise
    assert noise is not None
    assert noise.df <= 4


# Levels that do not match -------------------------------------------------------------------


def test_no_level_in_common_is_an_error_that_names_both_sides_levels() -> None:
    with pytest.raises(ConfigurationError, match="in common: 5, 8 before and 6 after"):
        compare([run("a", level(5), level(8))], [run("b", level(6))])


def test_a_level_of_one_side_is_inconclusive_and_told() -> None:
    old = [run("a", level(5, p95=5.0), level(8)), run("c", level(5, p95=5.1))]
    new = [run("b", level(5, p95=5.05))]
    found = compare(old, new)
    assert "level 8 was run before only" in found.notes
    rows = {row.id: row for row in found.rows()}
    assert rows["8 failures"].verdict == rows["8 Running.p95"].verdict == "inconclusive"
    assert "it was not run after" in rows["8 Running.p95"].text
    assert compare(old, new, levels=[5]).levels == (5,)


def test_a_level_that_was_cut_short_is_inconclusive_and_told() -> None:
    cut = [run("b", level(5, ended="interrupted", verdict="fail", test=None))]
    found = compare(side("a", BEFORE), cut)
    assert found.verdict == "inconclusive"
    assert "b 5 does not count: it was cut short: interrupted" in found.notes
    assert "no run after counts (it was cut short" in next(found.rows()).text


def test_an_upgrade_after_which_the_level_cannot_fit_fails_with_its_class() -> None:
    walls = [{"name": "devices.kubevirt.io/kvm", "fits": 3, "certain": True}]
    refused = level(
        5, ended="not begun: it cannot fit", running=0, created=0, deleted=0, verdict="fail",
        preflight={"walls": walls},
    )  # fmt: skip
    refused["phases"]["Running"] = {"n": 0, "censored": 5}
    found = compare(side("a", BEFORE), [run("b", refused)])
    assert found.verdict == "fail"
    rows = {row.id: row for row in found.rows()}
    assert "DeviceLimit 0 -> 2" in rows["5 failures"].text
    assert rows["5 Running.p95"].verdict == "inconclusive"


def test_a_metric_that_one_side_has_not_is_inconclusive_and_one_that_none_has_is_told() -> None:
    bare = level(5, p95=5.1)
    bare["control_plane"]["requests_per_vmi"] = {}
    found = compare(side("a", [5.0]), [run("b", bare)])
    row = next(each for each in found.rows() if each.key == "requests_per_vmi")
    assert row.verdict == "inconclusive"
    assert "it has no control-plane requests per VMI after" in row.text
    none = compare([run("a", bare)], [run("b", {**bare, "label": "5"})])
    assert "requests_per_vmi" not in {each.key for each in none.rows()}
    assert any("requests per VMI was not measured on either side" in each for each in none.notes)


def test_failures_and_metrics_share_what_may_be_wrong_by_chance() -> None:
    failing = [
        run(f"b{index}", level(5, p95=each, failures={"NodeLost": 1}, running=4))
        for index, each in enumerate(SLOWER)
    ]
    with_failures = compare(side("a", BEFORE), failing, Rules(alpha=0.01))
    without = compare(side("a", BEFORE), side("b", SLOWER), Rules(alpha=0.01))
    widths = [(each.changes[1].high or 0) - (each.changes[1].low or 0)
              for each in (with_failures, without)]  # fmt: skip
    assert widths[0] > widths[1]
    assert verdicts(with_failures)["5 failures"] == "fail"
