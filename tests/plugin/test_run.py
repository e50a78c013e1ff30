"""Density runs from pytest's command line to the verdict, on the embedded cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_kvscale.__main__ import replay
from pytest_kvscale.cluster import client
from tests.plugin.conftest import Suite

SHIPPED = Path(__file__).parents[2] / "suites" / "density"


def of_level(suite: Suite, index: int = 0) -> dict[str, Any]:
    level: dict[str, Any] = suite.results["levels"][index]
    return level


def is_replayed(suite: Suite) -> None:
    """Assert that each level's recording is judged as the level was."""
    for live in suite.results["levels"]:
        again = replay(suite.latest / f"{live['level']}-recording.jsonl.gz")
        for key in (
            "requested", "created", "running", "deleted", "left_behind", "failures", "phases",
            "deletion", "rates", "pacing", "ended", "verdict", "reasons",
        ):  # fmt: skip
            assert again[key] == live[key], key


def ship(suite: Suite) -> None:
    """Put the shipped suite in the place of the suite."""
    for name in ("test_density.py", "slo.yaml"):
        text = (SHIPPED / name).read_text(encoding="utf-8")
        (suite.path / name).write_text(text, encoding="utf-8")


def test_the_main_job(suite: Suite) -> None:
    """400 VMIs on one node: all run in time, all go, and the table says so."""
    ship(suite)
    result = suite.run("-k", "400")
    result.assert_outcomes(passed=1, deselected=4)
    result.stdout.fnmatch_lines(
        [
            "kvscale: SIMULATED cluster: profile blog-2021, seed 0",
            "kvscale: node node (48 CPUs, 128 GiB, containerd://*), Kubernetes v1.21.5, *",
            "*= kvscale =*",
            "SIMULATED (sim): these are not figures of real hardware",
            "level  running *p50 *p95 *p99  VMIs/min (peak)  failures  verdict",
            "  400  400/400 * s * s * s * none      pass",
            "report: reports/*/report.html",
        ]
    )
    readme = (SHIPPED.parents[1] / "README.md").read_text(encoding="utf-8")
    (row,) = (line for line in result.outlines if line.startswith("  400 "))
    assert f"{row}\n" in readme  # What it shows is what one gets.
    level = of_level(suite)
    assert (level["requested"], level["running"], level["deleted"]) == (400, 400, 400)
    assert (level["left_behind"], level["failures"], level["verdict"]) == (0, {}, "pass")
    assert level["slo"][0]["ok"]
    assert level["pacing"] == {"qps": 20.0, "achieved_qps": 21.0, "lag_p99": 0.0}
    rows = suite.vmis(400)
    assert len(rows) == 400
    assert all(row["gone"] > row["deleted"] >= row["phases"]["Running"] for row in rows)
    requests = sum(level["harness"]["api_requests"].values())
    assert requests <= 1.05 * 400 + 20


def test_the_published_walls_untuned(suite: Suite) -> None:
    """Out of the box the 2021 cluster stops at 110."""
    ship(suite)
    result = suite.run("-k", "200", "--kvscale-tune=none", "--kvscale-force")
    result.assert_outcomes(failed=1, deselected=4)
    level = of_level(suite)
    assert (level["running"], level["failures"]) == (110, {"DeviceLimit": 90})
    result.stdout.fnmatch_lines(
        [
            "level 200: fail: 110 of 200 running (nothing progressed for 10m (--kvscale-stall))",
            "  90 of 200 VMIs did not run",
            "  Pending: 90 (DeviceLimit 90)",
            "  DeviceLimit: 90",
            "    density-200-*: * 1 Insufficient devices.kubevirt.io/kvm*",
            "    density-200-*: * 1 Insufficient devices.kubevirt.io/kvm*",
            "    density-200-*: * 1 Insufficient devices.kubevirt.io/kvm*",
            "    remedy: raise virt-handler's device count*virtualMachineInstancesPerNode*",
        ]
    )
    assert str(result.stdout).count("1 Insufficient devices.kubevirt.io/kvm,") == 3
    assert suite.results["cluster"]["tuning"] == {"applied": "none", "changes": []}
    assert suite.results["cluster"]["node"]["devices"] == 110


def test_the_objectives_fit_seed_0_and_a_slower_node_misses_them(suite: Suite) -> None:
    ship(suite)
    suite.run("-k", "50 or 100").assert_outcomes(passed=2, deselected=3)
    before = {each["level"]: each["phases"]["Running"]["p95"] for each in suite.results["levels"]}
    slower = f"  sandbox: {{work: {1.3 * 6.3}}}\n  launcher: {{work: {1.3 * 7.5}}}\n"
    profile = suite.path / "blog-2021.yaml"
    profile.write_text(f"extends: blog-2021\ntimes:\n{slower}", encoding="utf-8")
    result = suite.run("-k", "50 or 100", f"--kvscale-sim-profile={profile}")
    result.assert_outcomes(failed=2, deselected=3)
    for level in suite.results["levels"]:
        assert level["running"] == level["level"]
        (objective,) = level["slo"]
        assert not objective["ok"]
        assert objective["value"] == pytest.approx(1.3 * before[level["level"]], rel=0.05)
    assert before[50] * 1.2 == pytest.approx(83, rel=0.01)
    assert before[100] == pytest.approx(200, rel=0.1)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("faults: {names: density-*, kill_pod_sandbox: 0.3}", "KillPodSandbox"),
        ("faults: {names: density-*, sandbox_timeout: 0.3}", "SandboxTimeout"),
        ("faults: {names: density-*, launcher_crash: 0.3}", "LauncherCrash"),
        ("faults: {names: density-*, qemu_timeout: 0.3}", "QemuTimeout"),
        ("faults: {names: density-*, create_rejected: 0.3}", "CreateRejected"),
        ("faults: {names: density-*, stuck: 0.3}", "Unexplained"),
        ("node: {max_pods: 7}", "PodLimit"),
        ("node: {memory: 3300Mi}", "MemoryLimit"),
        ("node: {cpu: 600m}", "CpuLimit"),
        ("node: {pod_network_prefix: 29}", "PodIPExhausted"),
    ],
)
def test_failures_are_told_apart(suite: Suite, fault: str, expected: str) -> None:
    suite.profile(fault)
    result = suite.run("--kvscale-sim-profile=quick.yaml", "--kvscale-levels=10", "--kvscale-force")
    result.assert_outcomes(failed=1)
    level = of_level(suite)
    failed = level["requested"] - level["running"]
    assert 0 < failed < 10
    assert level["failures"] == {expected: failed}
    assert level["left_behind"] == 0
    rows = [row for row in suite.vmis(10) if row["class"]]
    assert {row["class"] for row in rows} == {expected}
    assert all(row["evidence"] for row in rows)
    result.stdout.fnmatch_lines([f"  {expected}: {failed}", "    remedy: *"])


def test_a_selector_that_fits_no_node_is_unschedulable(suite: Suite) -> None:
    text = (Path(__file__).parents[2] / "pytest_kvscale/templates/vmi-cirros.yaml").read_text(
        encoding="utf-8"
    )
    selector = (
        "{% if name[:6] != 'canary' %}{% set _ = node_selector.update(zone='nowhere') %}{% endif %}"
    )
    moved = text.replace("apiVersion:", selector + "\napiVersion:")
    (suite.path / "elsewhere.yaml").write_text(moved, encoding="utf-8")
    suite.quick("--kvscale-template=elsewhere.yaml").assert_outcomes(failed=1)
    assert of_level(suite)["failures"] == {"Unschedulable": 3}


def test_what_does_not_go_is_left_behind_and_told(suite: Suite) -> None:
    suite.profile("faults: {names: density-*, stuck_terminating: 0.4}")
    result = suite.run(
        "--kvscale-sim-profile=quick.yaml", "--kvscale-levels=10", "--kvscale-delete-timeout=20m"
    )
    result.assert_outcomes(failed=1)
    level = of_level(suite)
    assert level["running"] == 10
    left = level["left_behind"]
    assert 0 < left < 10
    assert level["failures"] == {"StuckTerminating": left}
    assert level["deletion"]["censored"] == left
    result.stdout.fnmatch_lines(
        [
            "*the namespace kvscale-* is still there after 20m (--kvscale-delete-timeout): *",
            f"  StuckTerminating: {left}",
            "    vmi density-10-* is still there: kubectl get vmi density-10-* -n kvscale-* *",
        ]
    )


def test_a_level_ends_when_its_time_is_up(suite: Suite) -> None:
    suite.profile("faults: {names: density-*, stuck: 0.3}")
    arguments = ("--kvscale-sim-profile=quick.yaml", "--kvscale-levels=10")
    result = suite.run(*arguments, "--kvscale-timeout=90s")
    result.stdout.fnmatch_lines(["level 10: fail: * (time was up after 1m30s (--kvscale-*))"])
    result = suite.run(*arguments, "--kvscale-stall=2m")
    result.stdout.fnmatch_lines(["level 10: fail: * (nothing progressed for 2m (--kvscale-*))"])


def test_the_stall_leaves_the_qemu_timeout_its_time(suite: Suite) -> None:
    """15 minutes of qemu timeout, up to 2 of its spread: all have ended when the level does."""
    suite.profile("faults: {names: density-*, qemu_timeout: 1}")
    suite.run("--kvscale-sim-profile=quick.yaml", "--kvscale-levels=10").assert_outcomes(failed=1)
    assert of_level(suite)["failures"] == {"QemuTimeout": 10}
    assert of_level(suite)["ended"].startswith("settled after 1")


def test_a_level_that_cannot_fit_fails_at_once_and_creates_nothing(suite: Suite) -> None:
    suite.profile("kubevirt: {max_devices: 2}")
    arguments = ("--kvscale-sim-profile=quick.yaml", "--kvscale-levels=2,3", "--kvscale-tune=none")
    result = suite.run(*arguments, "--kvscale-cooldown=0")
    result.assert_outcomes(failed=1, passed=1)
    sentence = "3 requested, 2 fit: devices.kubevirt.io/kvm is the first limit"
    result.stdout.fnmatch_lines([f"  {sentence} (`virtualMachineInstancesPerNode`); next: *"])
    fitted, refused = suite.results["levels"]
    assert (refused["created"], refused["running"], refused["verdict"]) == (0, 0, "fail")
    assert refused["reasons"][0].startswith(sentence)
    assert refused["preflight"]["fits"] == fitted["preflight"]["fits"] == 2
    page = (suite.latest / "report.html").read_text(encoding="utf-8")
    assert sentence in page


def test_the_plan_creates_nothing(suite: Suite) -> None:
    suite.profile("kubevirt: {max_devices: 2}")
    arguments = ("--kvscale-sim-profile=quick.yaml", "--kvscale-levels=2,3", "--kvscale-plan")
    result = suite.run(*arguments, "--kvscale-tune=none")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "kvscale: plan: 2 requested, 2 fit: devices.kubevirt.io/kvm would be the first *",
            "kvscale: plan: 3 requested, 2 fit: devices.kubevirt.io/kvm is the first limit *",
            "kvscale: plan: devices.kubevirt.io/kvm lets in 2: 2, 0 taken, 1 each",
        ]
    )
    assert not (suite.latest / "results.json").exists()
    # What a tuning will change is counted.
    tuned = suite.run(*arguments)
    tuned.stdout.fnmatch_lines(["kvscale: plan: 3 requested, about 434 fit: memory would be *"])


def test_what_the_canary_needed_is_counted_for_certain(suite: Suite) -> None:
    suite.profile("node: {memory: 3300Mi}")
    result = suite.run("--kvscale-sim-profile=quick.yaml", "--kvscale-levels=10")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["  10 requested, 7 fit: memory is the first limit (the node's*"])
    assert suite.results["run"]["canary"]["verdict"] == "pass"


def test_ctrl_c_ends_a_rest_at_once(suite: Suite) -> None:
    suite.pytester.makepyfile(
        test_density="""
        import os, signal

        def test_first(kv_cluster, density_run):
            loop = kv_cluster.clock.loop
            loop.call_later(600, os.kill, os.getpid(), signal.SIGINT)
            density_run(2)

        def test_second(density_run): density_run(3)
        """
    )
    suite.profile()
    result = suite.pytester.runpytest_subprocess(
        "-p", "no:hypothesispytest", "--kvscale-sim-profile=quick.yaml"
    )
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert [each["level"] for each in suite.results["levels"]] == [2]
    assert len(suite.results["cluster"]["tuning"]["changes"]) == 10


def test_a_canary_that_fails_stops_the_run_with_its_class(suite: Suite) -> None:
    suite.profile("faults: {names: canary-*, launcher_crash: 1}")
    result = suite.run("--kvscale-sim-profile=quick.yaml", "--kvscale-levels=2,3")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        ["the canary failed: LauncherCrash", "nothing was created: the canary failed: LauncherCr*"]
    )
    results = suite.results
    assert results["levels"] == []
    assert results["run"]["canary"]["verdict"] == "fail"
    assert results["run"]["canary"]["failures"] == {"LauncherCrash": 1}


def test_settings_that_drift_make_a_level_inconclusive(suite: Suite) -> None:
    suite.pytester.makepyfile(
        test_density="""
        from pytest_kvscale.cluster.client import KUBEVIRTS

        def test_meddled(kv_cluster, density_run):
            assert density_run(2).verdict == "pass"
            change = {"spec": {"configuration": {"virtualMachineInstancesPerNode": 900}}}
            kv_cluster.run(kv_cluster.client.patch(KUBEVIRTS, "kubevirt", "kubevirt", change))
            result = density_run(3)
            assert result.verdict == "inconclusive"
            said = "configuration.virtualMachineInstancesPerNode was 1000, is 900"
            assert [each.endswith(said) for each in result.reasons] == [True, True]
        """
    )
    result = suite.quick("--kvscale-record")
    result.assert_outcomes(passed=1, errors=1)
    is_replayed(suite)
    result.stdout.fnmatch_lines(["somebody else changed KubeVirt settings during the run; left *"])


def test_a_run_that_loses_its_turn_creates_nothing_more(suite: Suite) -> None:
    suite.pytester.makepyfile(
        test_density="""
        import asyncio
        from pytest_kvscale.cluster.client import VMIS
        from pytest_kvscale.cluster.lease import LEASES, NAME
        from pytest_kvscale.cluster.system import NAMESPACE

        def test_robbed(kv_cluster, density_run):
            client = kv_cluster.client

            async def steal():
                while len((await client.list(VMIS))["items"]) < 5:  # The canary is one.
                    await asyncio.sleep(1)
                found = await client.get(LEASES, NAMESPACE, NAME)
                found["spec"]["holderIdentity"] = "thief"
                path = LEASES.path(NAMESPACE, NAME)
                await client.request("update", "PUT", path, body=found)

            async def begin():
                kv_cluster.thief = asyncio.create_task(steal())

            kv_cluster.run(begin())
            result = density_run(200)
            assert result.verdict == "fail"
            assert result.reasons[0].startswith("our turn on the cluster is lost to run thief (")
            assert 0 < result.figures.created == result.figures.deleted < 100

        def test_after_it(density_run):
            density_run(2)
        """
    )
    result = suite.quick("--kvscale-qps=1", "--kvscale-burst=1", "--kvscale-max-lag=1h")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*nothing was created: our turn on the cluster is lost to run*"])


def test_a_failed_level_may_be_kept_and_recovered(suite: Suite) -> None:
    """On a cluster of this process, keeping is all that can be seen."""
    suite.profile("faults: {names: density-*, launcher_crash: 1}")
    arguments = ("--kvscale-sim-profile=quick.yaml", "--kvscale-levels=2,3", "--kvscale-keep",
                 "--kvscale-record")  # fmt: skip
    result = suite.run(*arguments)
    result.assert_outcomes(failed=2)
    kept = of_level(suite)
    assert (kept["deleted"], kept["left_behind"]) == (0, 0)
    assert "its objects are kept" in kept["reasons"][-1]
    is_replayed(suite)
    result.stdout.fnmatch_lines(["nothing was created: level 2 failed, and its objects are kept*"])


def test_a_level_that_passes_is_not_kept_whatever_is_known_only_later(suite: Suite) -> None:
    """A limit for the deletion, or for a cost, is not missed before there is one."""
    (suite.path / "slo.yaml").write_text(
        "default: [Deletion p95 <= 1h, virt-controller CREATE pods per VMI <= 1]", encoding="utf-8"
    )
    suite.quick("--kvscale-keep").assert_outcomes(passed=1)
    level = of_level(suite)
    assert (level["verdict"], level["deleted"], level["reasons"]) == ("pass", 3, [])
    assert [each["ok"] for each in level["slo"]] == [True, True]


def test_levels_rest_between_each_other_and_not_before_the_first(suite: Suite) -> None:
    suite.quick("--kvscale-cooldown=2h", levels="2,3,4").assert_outcomes(passed=3)
    rests = [level["cooldown"] for level in suite.results["levels"]]
    assert [each["required"] for each in rests] == [0, 7200, 7200]
    assert [each["waited"] for each in rests] == [0, 7200, 7200]
    assert {each["by"] for each in rests} == {"time"}
    assert [each["settled"] for each in rests] == [None, True, True]
    page = (suite.latest / "report.html").read_text(encoding="utf-8")
    assert "the cluster had settled" in page


def test_falling_behind_the_pace_is_inconclusive_and_fails_only_if_strict(
    suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More creations at once than the client has places for: the API's time then sets the pace."""
    monkeypatch.setattr(client, "CONNECTIONS", 8)
    suite.profile("api: {webhooks: 30}\n")
    arguments = (
        "--kvscale-sim-profile=quick.yaml", "--kvscale-levels=12", "--kvscale-burst=12",
        "--kvscale-record",
    )  # fmt: skip
    suite.run(*arguments, "--kvscale-strict").assert_outcomes(failed=1)
    level = of_level(suite)
    assert level["verdict"] == "inconclusive"
    assert level["pacing"]["lag_p99"] > 1
    is_replayed(suite)
    suite.run(*arguments).assert_outcomes(passed=1)


def test_a_failing_assertion_of_ones_own_stands_beside_the_verdict(suite: Suite) -> None:
    suite.pytester.makepyfile(
        test_density="""
        import pytest

        @pytest.mark.density(levels=(2, 3))
        def test_density(density_level, density_run):
            assert density_run(density_level).figures.running == 3
        """
    )
    result = suite.quick()
    result.assert_outcomes(passed=1, failed=1)
    assert [(each["verdict"], each["test"]) for each in suite.results["levels"]] == [
        ("pass", "failed"), ("pass", "passed"),
    ]  # fmt: skip
    result.stdout.fnmatch_lines(["    2      2/2 *  pass (but its test failed)", "    3 *  pass"])


def test_a_long_level_tells_how_far_it_is_unless_it_is_to_be_quiet(suite: Suite) -> None:
    suite.profile("kubevirt: {max_devices: 2}")
    arguments = ("--kvscale-sim-profile=quick.yaml", "--kvscale-levels=3", "--kvscale-tune=none",
                 "--kvscale-stall=6m", "--kvscale-force")  # fmt: skip
    result = suite.run(*arguments)
    result.stdout.fnmatch_lines(
        [
            "kvscale: level 3, 1m: 2/3 running (2 a minute), 1 Scheduling; last progress *s ago",
            "kvscale: level 3, 5m: 2/3 running (0 a minute), 1 Scheduling; last progress 4m*s ago",
        ]
    )
    suite.run(*arguments, "-q").stdout.no_fnmatch_line("kvscale: level 3, 1m*")


def test_without_a_pace_nothing_falls_behind(suite: Suite) -> None:
    suite.profile("api: {write: 0.5}")
    arguments = ("--kvscale-sim-profile=quick.yaml", "--kvscale-levels=30", "--kvscale-max-lag=0")
    suite.run(*arguments, "--kvscale-qps=max", "--kvscale-strict").assert_outcomes(passed=1)
    (level,) = suite.results["levels"]
    assert (level["verdict"], level["pacing"]["qps"]) == ("pass", None)
    assert level["rates"]["created_per_s"] > 20


def test_objectives_beside_the_suite_apply_unless_a_file_is_named(suite: Suite) -> None:
    (suite.path / "slo.yaml").write_text("default: {Running p95: 1s}", encoding="utf-8")
    (suite.path / "mine.yaml").write_text("default: {Running p95: 10m}", encoding="utf-8")
    result = suite.quick()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["  Running p95 * s exceeds 1 s"])
    suite.quick("--kvscale-slo=mine.yaml").assert_outcomes(passed=1)
    assert of_level(suite)["slo"][0]["limit"] == 600


def test_objectives_for_another_cluster_are_no_objectives(suite: Suite) -> None:
    text = "applies_to: {simulated: false}\ndefault: {Running p95: 1s}"
    (suite.path / "slo.yaml").write_text(text, encoding="utf-8")
    suite.quick().assert_outcomes(passed=1)
    assert of_level(suite)["slo"] == []
    assert of_level(suite)["slo_note"] == "no objective"


def test_another_seed_gives_other_figures(suite: Suite) -> None:
    figures = []
    for seed in ("0", "1", "0"):
        suite.quick(f"--kvscale-sim-seed={seed}").assert_outcomes(passed=1)
        figures.append(of_level(suite)["phases"])
        assert suite.results["run"]["seed"] == int(seed)
    assert figures[0] == figures[2] != figures[1]


def test_two_runs_of_a_seed_are_equal_byte_for_byte(suite: Suite) -> None:
    levels = "5,12"
    suite.profile("faults: {names: density-*, kill_pod_sandbox: 0.1, qemu_timeout: 0.1}")
    seen = set()
    for _ in range(3):
        suite.run("--kvscale-sim-profile=quick.yaml", f"--kvscale-levels={levels}")
        results = suite.results
        for key in ("id", "started", "finished"):
            del results["run"][key]
        for level in results["levels"]:
            del level["harness"]["cpu_s"], level["harness"]["max_rss"]
        rows = [(suite.latest / f"{level}-vmis.jsonl").read_bytes() for level in levels.split(",")]
        seen.add((json.dumps(results), *rows))
    assert len(seen) == 1


def test_a_recording_of_a_live_run_is_judged_as_the_run_was(suite: Suite) -> None:
    suite.profile("faults: {names: density-*, kill_pod_sandbox: 0.2, launcher_crash: 0.2}")
    suite.run(
        "--kvscale-sim-profile=quick.yaml", "--kvscale-levels=15", "--kvscale-record"
    ).assert_outcomes(failed=1)
    is_replayed(suite)


def test_without_the_option_nothing_is_recorded(suite: Suite) -> None:
    suite.quick()
    assert not list(suite.latest.glob("*.gz"))


def test_a_suite_of_ones_own_uses_the_fixtures(suite: Suite) -> None:
    suite.pytester.makepyfile(
        test_density="""
        def test_facts(kv_settings, kv_cluster, kv_node, kv_namespace, kv_tuning):
            assert kv_settings.qps == 20
            assert kv_cluster.identity.simulated == "sim"
            assert (kv_node["name"], kv_node["devices"]) == ("node", 1000)
            assert kv_namespace.startswith("kvscale-")
            assert any("virtualMachineInstancesPerNode" in each.path for each in kv_tuning)

        def test_no_prometheus(kv_prometheus):
            assert kv_prometheus is None

        def test_twice(density_run, slo):
            small, large = density_run(2), density_run(4)
            assert (small.running, large.running) == (2, 4)
            assert large.figures.phases["Running"]["p50"] > 0
            slo.check(large)
        """
    )
    suite.quick().assert_outcomes(passed=3)
    assert [level["level"] for level in suite.results["levels"]] == [2, 4]


def test_a_namespace_that_exists_is_used_and_kept(suite: Suite) -> None:
    suite.pytester.makepyfile(
        test_density="""
        from pytest_kvscale.cluster.client import NAMESPACES, VMIS

        def test_kept(kv_cluster, density_run):
            result = density_run(3)
            assert result.verdict == "pass"
            work = kv_cluster.client.get(NAMESPACES, "", "default")
            assert kv_cluster.run(work)["status"]["phase"] == "Active"
            left = kv_cluster.run(kv_cluster.client.list(VMIS, "default"))
            assert left["items"] == []
        """
    )
    suite.quick("--kvscale-namespace=default").assert_outcomes(passed=1)


def test_variables_of_the_template_reach_the_objects(suite: Suite) -> None:
    suite.quick("--kvscale-set=grace=3", "--kvscale-set", "memory=1Gi").assert_outcomes(passed=1)
    short = of_level(suite)["deletion"]["max"]
    suite.quick().assert_outcomes(passed=1)
    assert of_level(suite)["deletion"]["max"] - short == pytest.approx(177, abs=0.5)


def test_the_servers_count_of_requests_is_the_harness_own(suite: Suite) -> None:
    suite.pytester.makepyfile(
        test_density="""
        from collections import Counter

        def count(cluster):
            rows = cluster.run(cluster.client.request("get", "GET", "/_sim/served"))["rows"]
            counted = Counter()
            for row in rows:
                if row["agent"] == "pytest-kvscale":
                    counted[row["verb"]] += row["count"]
            return counted

        def test_count(kv_cluster, density_run):
            density_run(1)  # The canary has its own requests.
            before = count(kv_cluster)
            result = density_run(40)
            after = count(kv_cluster)
            after["get"] -= 1
            served = {verb: after[verb] - before[verb] for verb in after}
            served = {verb: number for verb, number in served.items() if number}
            assert served == result.harness["api_requests"]
            assert sum(served.values()) <= 1.05 * 40 + 20
        """
    )
    suite.quick().assert_outcomes(passed=1)
