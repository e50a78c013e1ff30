"""The files of a run: what stands in them, and that they are written whatever happens."""

from __future__ import annotations

import json
import re
import subprocess
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.plugin.conftest import Suite
from tests.programs import program

LEVEL_KEYS = {
    "level", "verdict", "requested", "created", "running", "deleted", "left_behind", "failures",
    "phases", "deletion", "rates", "pacing", "slo", "prometheus", "harness", "cooldown",
}  # fmt: skip


def properties(path: Path) -> dict[str, str]:
    (testsuite,) = ET.parse(path).getroot()  # noqa: S314 - our own file
    (group,) = testsuite.findall("properties")
    return {each.attrib["name"]: each.attrib["value"] for each in group}


def test_results_have_the_designs_form(suite: Suite) -> None:
    (suite.path / "slo.yaml").write_text("default: {Running p95: 10m}", encoding="utf-8")
    suite.quick(levels="2,3").assert_outcomes(passed=2)
    results = suite.results
    assert results["schema"] == "kvscale/v1"
    assert set(results["run"]) == {
        "id", "started", "finished", "canary", "simulated", "profile", "seed", "version",
    }  # fmt: skip
    assert results["run"]["id"] == suite.latest.name
    cluster = results["cluster"]
    assert set(cluster) >= {"uid", "kubernetes", "kubevirt", "fingerprint", "tuning", "node"}
    assert set(cluster["node"]) == {
        "name", "cpu", "memory", "max_pods", "devices", "pod_ips", "runtime",
    }  # fmt: skip
    assert [level["level"] for level in results["levels"]] == [2, 3]
    for level in results["levels"]:
        assert set(level) >= LEVEL_KEYS
        assert set(level["phases"]) == {"Scheduling", "Scheduled", "Running"}
        for summary in (*level["phases"].values(), level["deletion"]):
            assert set(summary) >= {
                "n", "censored", "p50", "p90", "p95", "p99", "max", "mean",
            }  # fmt: skip
        assert set(level["rates"]) == {"created_per_s", "running_per_min", "containers_per_min"}
        assert set(level["pacing"]) == {"qps", "achieved_qps", "lag_p99"}
        assert set(level["harness"]) == {"api_requests", "cpu_s", "max_rss"}
        assert set(level["cooldown"]) >= {"required", "waited", "settled"}
        assert set(level["slo"][0]) >= {"name", "limit", "value", "ok"}


def test_each_vmi_has_a_line(suite: Suite) -> None:
    suite.quick().assert_outcomes(passed=1)
    rows = suite.vmis(3)
    assert [row["name"] for row in rows] == [f"density-3-{index:04d}" for index in range(3)]
    for row in rows:
        assert set(row) >= {
            "name", "uid", "intended", "sent", "acked", "phases", "server", "deleted", "gone",
            "class", "evidence",
        }  # fmt: skip
        assert row["sent"] == 0
        phases = list(row["phases"].values())
        assert phases == sorted(phases)
        for phase, second in row["server"].items():
            assert abs(second - row["phases"][phase]) <= 1.1


def test_junit_has_the_figures_as_properties_of_the_suite(suite: Suite) -> None:
    (suite.path / "slo.yaml").write_text("default: {Running p95: 10m}", encoding="utf-8")
    suite.quick(levels="2,3").assert_outcomes(passed=2)
    found = properties(suite.latest / "junit.xml")
    for level in suite.results["levels"]:
        number = level["level"]
        assert float(found[f"kvscale.{number}.p95"]) == level["phases"]["Running"]["p95"]
        assert found[f"kvscale.{number}.running"] == str(number)
        assert found[f"kvscale.{number}.verdict"] == "pass"
        assert float(found[f"kvscale.{number}.slo.Running.p95"]) == 600
        assert float(found[f"kvscale.{number}.cooldown.waited"]) == level["cooldown"]["waited"]
    assert found["kvscale.simulated"] == "sim"


def test_junit_is_valid_for_xunit2(suite: Suite) -> None:
    """xunit2 knows no properties of testcases, and these attributes only."""
    suite.profile("kubevirt: {max_devices: 1}")
    suite.run(
        "--kvscale-sim-profile=quick.yaml", "--kvscale-levels=2,1", "--kvscale-tune=none",
        "--kvscale-stall=1m", "--kvscale-force",
    ).assert_outcomes(failed=1, passed=1)  # fmt: skip
    (testsuite,) = ET.parse(suite.latest / "junit.xml").getroot()  # noqa: S314 - our own file
    assert testsuite[0].tag == "properties"
    for case in testsuite.findall("testcase"):
        assert set(case.attrib) == {"classname", "name", "time"}
        assert {each.tag for each in case} <= {"failure", "error", "skipped", "system-out",
                                               "system-err"}  # fmt: skip
    (failure,) = testsuite.iter("failure")
    text = failure.text or ""
    assert "DeviceLimit: 1" in text
    assert "remedy: " in text
    assert "1 Insufficient devices.kubevirt.io/kvm" in text
    assert properties(suite.latest / "junit.xml")["kvscale.2.failures.DeviceLimit"] == "1"


def test_the_users_own_reports_are_written_too(suite: Suite) -> None:
    arguments = ("--junitxml=mine.xml", "--html=mine.html")
    suite.quick(*arguments).assert_outcomes(passed=1)
    assert (suite.path / "mine.xml").read_bytes() == (suite.latest / "junit.xml").read_bytes()
    for path in (suite.path / "mine.html", suite.latest / "report.html"):
        assert "KubeVirt density" in path.read_text(encoding="utf-8")


class Page(HTMLParser):
    """What a page shows without scripts, and what it loads from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.loads: list[str] = []
        self.tags: list[str] = []
        self._hidden = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self._hidden += tag in ("script", "style", "template")
        if tag != "a":
            self.loads += [
                value for key in ("src", "href", "data") if (value := given.get(key) or "")
            ]

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style", "template")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text.append(data)


def test_the_report_reads_without_scripts_and_without_a_network(suite: Suite) -> None:
    suite.quick(levels="2,3").assert_outcomes(passed=2)
    source = (suite.latest / "report.html").read_text(encoding="utf-8")
    page = Page(source)
    shown = " ".join(" ".join(page.text).split())
    assert "SIMULATED" in shown
    assert "Level 2: pass" in shown
    assert "Level 3: pass" in shown
    assert page.tags.count("svg") == 2
    assert [each for each in page.loads if not each.startswith(("#", "data:"))] == []
    style = "".join(re.findall(r"<style.*?</style>", source, re.DOTALL))
    assert "url(http" not in style
    assert "@import" not in style
    running = suite.results["levels"][1]["phases"]["Running"]
    assert f"{running['p95']:.2f} s" in shown or f"{running['p95']:.1f} s" in shown


def test_a_browser_shows_the_report_without_its_scripts(suite: Suite, tmp_path: Path) -> None:
    """A real browser lays the page out, its scripts taken away, and says what can be seen."""
    suite.quick(levels="2,3").assert_outcomes(passed=2)
    source = (suite.latest / "report.html").read_text(encoding="utf-8")
    silent = re.sub(r"<script>.*</script>", "", source, flags=re.DOTALL)
    asking = "<script>document.body.innerText = document.body.innerText</script>"
    page = tmp_path / "page.html"
    page.write_text(silent.replace("</body>", f"{asking}</body>"), encoding="utf-8")
    seen = subprocess.run(
        [program("chromium", "google-chrome"), "--headless", "--no-sandbox", "--disable-gpu",
         "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path}",
         "--dump-dom", page.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    shown = " ".join(Page(seen).text)
    assert "SIMULATED (sim): these figures come from the embedded cluster" in shown
    assert "Level 2: pass" in shown
    assert "Level 3: pass" in shown
    assert "VMIs in each phase" in shown
    assert "Running p95" not in shown
    assert "no objective" in shown


def test_text_from_the_cluster_is_escaped(suite: Suite) -> None:
    """A webhook, a node, an image: whoever can name one must not run scripts in the report."""
    text = """
    from pytest_kvscale.sim.players import virt_api

    def test_hostile(monkeypatch, density_run, slo):
        evil = "<script>alert(1)</script><img src=x onerror=alert(2)>"
        monkeypatch.setattr(virt_api, "_VALIDATOR", evil)
        slo.check(density_run(3))
    """
    suite.pytester.makepyfile(test_density=text)
    suite.profile("faults: {names: density-*, create_rejected: 1}")
    suite.run("--kvscale-sim-profile=quick.yaml").assert_outcomes(failed=1)
    source = (suite.latest / "report.html").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in source
    assert "<img src=x" not in source
    assert "&lt;script&gt;alert(1)" in source


def test_results_are_json_however_fast_was_asked_for(suite: Suite) -> None:
    suite.quick("--kvscale-qps=max").assert_outcomes(passed=1)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    text = (suite.latest / "results.json").read_text(encoding="utf-8")
    results = json.loads(text, parse_constant=refuse)
    assert results["cluster"]["comparable"]["pace.qps"] == "max"
    assert results["levels"][0]["pacing"]["qps"] is None


def test_junit_can_be_read_whatever_a_log_says(suite: Suite) -> None:
    """Colours, a null byte and other characters that XML cannot have."""
    text = """
    from pytest_kvscale.sim.players import virt_api

    def test_hostile(monkeypatch, density_run, slo):
        evil = "\\x1b[31mred\\x1b[0m \\x00 \\x08 \\ufffe ]]> &"
        monkeypatch.setattr(virt_api, "_VALIDATOR", evil)
        slo.check(density_run(3))
    """
    suite.pytester.makepyfile(test_density=text)
    suite.profile("faults: {names: density-*, create_rejected: 1}")
    result = suite.run("--kvscale-sim-profile=quick.yaml")
    result.assert_outcomes(failed=1)
    root = ET.parse(suite.latest / "junit.xml").getroot()  # noqa: S314 - our own file
    (failure,) = root.iter("failure")
    assert "red" in (failure.text or "")
    assert "]]> &" in (failure.text or "")
    for file in ("report.html", "3-vmis.jsonl"):
        text = (suite.latest / file).read_text(encoding="utf-8")
        assert "[31mred" in text
        assert not re.search(r"[\x00\x08\x1b\ufffe]", text)
    assert "\x1b[31mred" not in result.stdout.str()


def test_files_are_written_when_a_level_fails(suite: Suite) -> None:
    suite.profile("faults: {names: density-*, launcher_crash: 1}")
    suite.run("--kvscale-sim-profile=quick.yaml", "--kvscale-levels=3").assert_outcomes(failed=1)
    names = {path.name for path in suite.latest.iterdir()}
    assert names == {"results.json", "report.html", "junit.xml", "summary.md", "3-vmis.jsonl"}
    assert {row["class"] for row in suite.vmis(3)} == {"LauncherCrash"}
    page = (suite.latest / "report.html").read_text(encoding="utf-8")
    assert "LauncherCrash" in page
    assert "kubectl logs POD" in page


def test_what_was_measured_before_the_test_failed_is_kept(suite: Suite) -> None:
    suite.pytester.makepyfile(
        test_density="""
        def test_breaks(density_run):
            density_run(2)
            raise LookupError("after the level")
        """
    )
    suite.quick().assert_outcomes(failed=1)
    assert suite.results["levels"][0]["running"] == 2
    assert properties(suite.latest / "junit.xml")["kvscale.2.running"] == "2"


def test_what_was_measured_before_the_cluster_broke_down_is_kept(suite: Suite) -> None:
    suite.pytester.makepyfile(
        test_density="""
        import asyncio

        async def break_down(): raise ZeroDivisionError("a bug")

        def test_first(density_run): density_run(2)

        def test_second(kv_cluster, density_run):
            team = kv_cluster._embedded.team
            kv_cluster.clock.loop.call_later(
                7, lambda: team.spawn(break_down(), "the broken player"))
            density_run(3)
        """
    )
    result = suite.quick("--kvscale-cooldown=1s")
    assert result.parseoutcomes()["failed"] == 1
    result.stdout.fnmatch_lines(["*PlayerError: the embedded cluster failed: the broken player*"])
    levels = suite.results["levels"]
    assert [level["verdict"] for level in levels] == ["pass", "fail"]
    assert levels[1]["created"] == 3


def test_an_interrupt_deletes_writes_and_names_the_level(suite: Suite) -> None:
    suite.pytester.makepyfile(
        test_density="""
        import os, signal

        def test_stopped(kv_cluster, density_run):
            density_run(2)
            kv_cluster.clock.loop.call_later(7, os.kill, os.getpid(), signal.SIGINT)
            density_run(3)
        """
    )
    suite.profile()
    result = suite.pytester.runpytest_subprocess(
        "-p", "no:hypothesispytest", "--kvscale-sim-profile=quick.yaml", "--kvscale-cooldown=0"
    )
    assert result.ret == pytest.ExitCode.INTERRUPTED
    _, level = suite.results["levels"]
    assert level["verdict"] == "fail"
    assert level["reasons"][0] == "the level was interrupted"
    assert (level["created"], level["deleted"], level["left_behind"]) == (3, 3, 0)
    assert properties(suite.latest / "junit.xml")["kvscale.3.verdict"] == "fail"


def test_the_newest_run_is_latest(suite: Suite) -> None:
    suite.quick().assert_outcomes(passed=1)
    first = suite.latest
    suite.quick().assert_outcomes(passed=1)
    assert suite.latest != first
    assert (suite.path / "reports" / "latest").is_symlink()
    assert json.loads((first / "results.json").read_text(encoding="utf-8"))["levels"]


def test_results_go_where_they_shall(suite: Suite) -> None:
    suite.quick("--kvscale-report-dir=elsewhere/deep").assert_outcomes(passed=1)
    found: dict[str, Any] = json.loads(
        (suite.path / "elsewhere/deep/latest/results.json").read_text(encoding="utf-8")
    )
    assert found["levels"]
    assert not (suite.path / "reports").exists()


def test_without_pytest_html_there_is_no_report_and_the_summary_says_so(suite: Suite) -> None:
    result = suite.quick("-p", "no:html")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*no report.html: pytest-html is switched off (-p no:html)"])
    assert not (suite.latest / "report.html").exists()


def test_without_junitxml_the_rest_is_written(suite: Suite) -> None:
    suite.quick("-p", "no:junitxml").assert_outcomes(passed=1)
    assert (suite.latest / "report.html").exists()
    assert not (suite.latest / "junit.xml").exists()
