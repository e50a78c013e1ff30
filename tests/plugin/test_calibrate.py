"""The calibration suite: equal runs, what they tell, and comparisons that use it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import scipy.stats  # noqa: F401 - imported once, not in each inner run

from tests.plugin.conftest import Suite
from tests.plugin.test_baseline import UNTUNED, base
from tests.plugin.test_no_cluster import check

SHIPPED = Path(__file__).parents[2] / "suites" / "calibrate" / "test_calibrate.py"


def ship(suite: Suite) -> None:
    """Put the shipped suite beside the other one."""
    text = SHIPPED.read_text(encoding="utf-8")
    (suite.path / "test_calibrate.py").write_text(text, encoding="utf-8")


def test_a_calibration_tells_the_noise_and_a_comparison_uses_it(suite: Suite) -> None:
    ship(suite)
    result = suite.quick("test_calibrate.py", "--kvscale-repeat=3", *UNTUNED)
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        [
            "calibration: noise is how far equal runs lie apart *",
            "level  what * median * noise  1 run  3 runs  5 runs  10 runs  20 runs",
            "    3  p95 creation to Running * s * % [[]*[]] *",
        ]
    )
    (found,) = suite.results["calibration"]["levels"]
    assert (found["level"], found["runs"], found["usable"]) == (3, 3, 3)
    p95 = next(each for each in found["metrics"] if each["metric"] == "Running.p95")
    assert p95["df"] == 2
    assert p95["sd_low"] < p95["sd"] < p95["sd_high"]
    assert "## Calibration" in (suite.latest / "summary.md").read_text(encoding="utf-8")
    assert "Calibration</h2>" in (suite.latest / "report.html").read_text(encoding="utf-8")
    root = ET.parse(suite.latest / "junit.xml").getroot()  # noqa: S314 - our own file
    assert [each.attrib["name"] for each in root.iter("testcase")][-1] == "calibration[3]"
    calibration = f"--kvscale-calibration={suite.latest}"

    other = (*UNTUNED, "--kvscale-sim-seed=1")
    suite.quick(base(suite, 3), calibration, *other, "test_density.py", "-p", "no:html")
    changes = {each["metric"]["key"]: each for each in suite.results["comparison"]["changes"]}
    assert changes["Running.p95"]["noise"] == {"sd": pytest.approx(p95["sd"], rel=1e-3), "df": 2}


def test_a_calibration_runs_level_100_ten_times_unless_told_otherwise(suite: Suite) -> None:
    ship(suite)

    def chosen(*arguments: str) -> list[str]:
        result = suite.run("--collect-only", "-q", "test_calibrate.py", *arguments)
        return [line.partition("::")[2] for line in result.outlines if "::" in line]

    tests = [f"test_equal_runs[100{'' if n == 1 else f'-{n}'}]" for n in range(1, 11)]
    assert chosen() == [*tests, "calibration[100]"]
    # It is compared with nothing, though the ini file names a baseline.
    suite.pytester.makeini("[pytest]\nkvscale_baseline = base.json\nkvscale_levels = 5\n")
    assert chosen("--kvscale-repeat=1") == ["test_equal_runs[5]", "calibration[5]"]


@pytest.mark.parametrize(
    ("arguments", "runs"), [(("--kvscale-repeat=2",), "2 runs"), (("-k", "3-2"), "1 run")]
)
def test_too_few_runs_are_refused_before_they_are_made(
    suite: Suite, arguments: tuple[str, ...], runs: str
) -> None:
    ship(suite)
    result = suite.quick("test_calibrate.py", *arguments, *UNTUNED)
    check(suite, result, f"level 3 cannot be calibrated by {runs}: at least 3 are needed")


def test_a_calibration_that_was_not_measured_is_not_green(suite: Suite) -> None:
    ship(suite)
    suite.profile("kubevirt: {max_devices: 2}")
    result = suite.run(
        "--kvscale-sim-profile=quick.yaml", "--kvscale-levels=3", "--kvscale-repeat=3", *UNTUNED,
        "test_calibrate.py",
    )  # fmt: skip
    result.assert_outcomes(failed=4)
    result.stdout.fnmatch_lines(
        ["level 3: 0 of 3 runs can be used: too few, a calibration needs 3"]
    )
