"""Which runs of levels count, and for what."""

from __future__ import annotations

import dataclasses

import pytest

from pytest_kvscale.judge import samples
from pytest_kvscale.judge.samples import DELETION_P95, METRICS, REQUESTS, RUNNING_P95
from tests.runs import Json, level, run


def only(made: Json) -> samples.LevelRun:
    (found,) = samples.level_runs([run("r", made)])
    return found


def wall(name: str, fits: int, certain: bool = True) -> Json:
    return {"name": name, "fits": fits, "certain": certain}


@pytest.mark.parametrize(
    "ended",
    [
        "settled after 15.0s",
        "time was up after 1h (--kvscale-timeout)",
        "nothing progressed for 10m (--kvscale-stall)",
    ],
)
def test_a_level_that_was_waited_for_to_its_end_counts(ended: str) -> None:
    found = only(level(5, p95=7.0, ended=ended, verdict="fail", reasons=["p95 7 s > 5 s"]))
    sample = found.sample(RUNNING_P95)
    assert sample is not None
    assert (sample.value, sample.run) == (7.0, "r 5")


@pytest.mark.parametrize(
    "ended",
    ["interrupted", "the API was lost", "the watches failed", "another run has the cluster", ""],
)
def test_a_level_that_was_cut_short_does_not_count(ended: str) -> None:
    found = only(level(5, ended=ended, verdict="fail"))
    assert (found.standing, found.sample(RUNNING_P95)) == ("no", None)
    assert f"it was cut short: {ended}" in found.why


def test_a_level_that_fell_behind_its_pace_does_not_count_whatever_its_verdict() -> None:
    lag = "creates were sent up to 2.100 s late (lag_p99; at most 1 s): the harness or the API"
    for verdict in ("inconclusive", "fail"):
        found = only(level(5, verdict=verdict, reasons=["1 of 5 VMIs did not run", lag]))
        assert (found.standing, found.why) == ("no", f"it is inconclusive: {lag}")


def test_percentiles_that_were_not_reached_are_samples_too() -> None:
    sample = only(level(6, p95=None, failures={"QemuTimeout": 3})).sample(RUNNING_P95)
    assert sample is not None
    assert sample.value is None


def test_a_level_that_cannot_fit_speaks_of_failures_alone() -> None:
    refused = level(
        200, ended="not begun: it cannot fit", created=0, running=0, deleted=0, verdict="fail",
        preflight={"walls": [wall("pods", 150), wall("devices.kubevirt.io/kvm", 110),
                             wall("memory", 100, certain=False)]},
    )  # fmt: skip
    refused["phases"]["Running"] = {"n": 0, "censored": 200}
    found = only(refused)
    assert found.standing == "refused"
    assert found.failures == {"DeviceLimit": 90}
    assert all(found.sample(each) is None for each in METRICS)


def test_a_deletion_that_was_not_measured_is_not_one_that_took_for_ever() -> None:
    nothing = {"n": 0, "censored": 5}
    kept = "its objects are kept in the namespace x (--kvscale-keep)"
    assert only(level(5, deletion=nothing, reasons=[kept])).sample(DELETION_P95) is None
    cut = level(5, deletion=nothing, left_behind=5, test=None)
    assert only(cut).sample(DELETION_P95) is None
    stuck = only(level(5, deletion=nothing, left_behind=5)).sample(DELETION_P95)
    assert stuck is not None
    assert stuck.value is None


def test_requests_are_those_of_kubevirts_components() -> None:
    made = level(5)
    made["control_plane"]["requests_per_vmi"] = {
        "virt-handler": {"PATCH a": 1.5}, "virt-controller": {"UPDATE b": 2.0, "GET c": 0.25},
        "kubelet": {"GET d": 100.0},
    }  # fmt: skip
    sample = only(made).sample(REQUESTS)
    assert sample is not None
    assert sample.value == 3.75
    made["control_plane"]["requests_per_vmi"] = {"kubelet": {"GET d": 1.0}}
    assert only(made).sample(REQUESTS) is None


def test_requests_that_were_counted_otherwise_are_not_compared() -> None:
    one, other = level(5, requests=3.0), level(5, p95=5.1, requests=3.0)
    other["control_plane"]["source"] = "prometheus"
    keys = [each.metric.key for each in samples.pairs([run("a", one)], [run("b", other)])]
    assert keys == ["Running.p50", "Running.p95", "deletion.p95"]
    same = samples.pairs([run("a", one)], [run("b", level(5, p95=5.1, requests=4.0))])
    assert [each.metric.key for each in same][-1] == "requests_per_vmi"


def test_one_measurement_in_two_files_counts_once() -> None:
    runs = [run("a", level(5, p95=6.0)), run("b", level(5, p95=6.0)), run("c", level(5, p95=6.1))]
    first, second, third = samples.level_runs(runs)
    assert [each.standing for each in (first, second, third)] == ["whole", "no", "whole"]
    assert second.why == (
        "its figures are those of a 5 (seed 0 of the embedded cluster in both: give another one)"
    )  # fmt: skip


def test_a_copy_of_a_run_before_is_no_run_after_and_no_calibration() -> None:
    old, copied = [run("a", level(5, p95=6.0))], [run("b", level(5, p95=6.0))]
    before, after = samples.both_sides(old, copied)
    assert [each.standing for each in (*before, *after)] == ["whole", "no"]
    assert after[0].why.startswith("its figures are those of a 5")
    assert samples.pairs(old, copied) == []
    new, equal = [run("c", level(5, p95=6.1))], [run("d", level(5, p95=5.9))]
    calibrations = [*equal, run("e", level(5, p95=6.2))]
    noise = samples.pairs(old, new, calibrations)[0].noise
    assert noise == samples.pairs(old, new, [*calibrations, *copied])[0].noise is not None


def test_runs_of_levels_that_never_ran_a_vmi_are_not_taken_for_one() -> None:
    dead = level(5, p95=None, failures={"QemuTimeout": 5}, running=0)
    dead["phases"]["Running"] = {"n": 0, "censored": 5}
    found = samples.level_runs([run("a", dead), run("b", dead)])
    assert [each.standing for each in found] == ["whole", "whole"]


def test_a_sample_began_when_its_level_did_or_else_its_run() -> None:
    made = run("a", level(5, began=12.5), level(8))
    began = [each.sample(RUNNING_P95) for each in samples.level_runs([made])]
    assert [each and each.began for each in began] == [12.5, made.began]


def test_runs_of_two_clusters_are_no_equal_runs() -> None:
    values = {"one": (4.0, 4.1, 4.2), "two": (8.0, 8.1, 8.2)}
    equal = [
        dataclasses.replace(run(f"{uid}{each}", level(5, p95=each)), uid=uid)
        for uid, side in values.items()
        for each in side
    ]
    noise = samples.pairs([run("a", level(5))], [run("b", level(5, p95=6.0))], equal)[1].noise
    assert noise is not None
    assert noise.sd < 0.05


def test_noise_is_that_of_equal_runs_of_the_same_level() -> None:
    equal = [run(f"c{each}", level(5, p95=each)) for each in (4.0, 5.0, 6.0)]
    other = [run(f"d{each}", level(8, p95=each)) for each in (4.0, 9.0)]
    old, new = [run("a", level(5, p95=5.1))], [run("b", level(5, p95=6.1))]
    noise = {each.metric.key: each.noise for each in samples.pairs(old, new, [*equal, *other])}
    found = noise["Running.p95"]
    assert found is not None
    assert 0.1 < found.sd < 0.4
    assert samples.pairs(old, new, other)[0].noise is None
