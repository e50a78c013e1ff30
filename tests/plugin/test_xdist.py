"""Under xdist: one worker runs all levels, in order, and the reports are whole."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from tests.plugin.conftest import Suite


def test_levels_run_on_one_worker_in_order_beside_other_tests(suite: Suite) -> None:
    suite.pytester.makepyfile(
        test_other="""
        import pytest

        @pytest.mark.parametrize("number", range(6))
        def test_other(number): pass
        """
    )
    result = suite.quick("-v", "--kvscale-cooldown=1h", levels="2,3,4", workers=2)
    result.assert_outcomes(passed=9)
    lines = [line for line in result.outlines if "PASSED" in line and "test_density[" in line]
    workers = {re.match(r"\[(gw\d)\]", line)[1] for line in lines}  # type: ignore[index]
    assert len(workers) == 1
    assert [re.search(r"test_density\[(\d)\]", line)[1] for line in lines] == [  # type: ignore[index]
        "2", "3", "4",
    ]  # fmt: skip
    assert [level["level"] for level in suite.results["levels"]] == [2, 3, 4]
    assert [level["cooldown"]["waited"] for level in suite.results["levels"]] == [0, 3600, 3600]


def test_the_reports_are_whole(suite: Suite) -> None:
    suite.profile("kubevirt: {max_devices: 2}")
    result = suite.run(
        "--kvscale-sim-profile=quick.yaml", "--kvscale-levels=2,3", "--kvscale-tune=none",
        "--kvscale-stall=1m", "--junitxml=mine.xml", "--kvscale-force", workers=2,
    )  # fmt: skip
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "kvscale: SIMULATED cluster: profile quick, seed 0",
            "level 3: fail: 2 of 3 running *",
            "*= kvscale =*",
            "    2      2/2 * none           pass",
            "    3      2/3 * DeviceLimit 1  fail",
        ]
    )
    (testsuite,) = ET.parse(suite.latest / "junit.xml").getroot()  # noqa: S314 - our own file
    names = {each.attrib["name"] for each in testsuite.iter("property")}
    assert {"kvscale.2.p95", "kvscale.3.failures.DeviceLimit"} <= names
    assert (suite.path / "mine.xml").read_bytes() == (suite.latest / "junit.xml").read_bytes()
    page = (suite.latest / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 2
    assert "Level 3:" in page


def test_figures_are_the_same_as_alone(suite: Suite) -> None:
    suite.quick(levels="4").assert_outcomes(passed=1)
    alone = suite.results["levels"][0]["phases"]
    suite.quick(levels="4", workers=2).assert_outcomes(passed=1)
    assert suite.results["levels"][0]["phases"] == alone


def test_other_ways_to_distribute_are_kept_for_other_tests(suite: Suite) -> None:
    suite.pytester.makepyfile(
        test_other="""
        def test_one(): pass
        def test_two(): pass
        """
    )
    for dist in ("loadfile", "loadscope", "loadgroup"):
        suite.quick(f"--dist={dist}", levels="1,2", workers=2).assert_outcomes(passed=4)
        assert len(suite.results["levels"]) == 2
