"""A run beside its baseline: each row is a test, and what was not compared is never green."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest
import scipy.stats  # noqa: F401 - imported once, not in each inner run
from _pytest.pytester import RunResult

from tests.plugin import baselines
from tests.plugin.baselines import content, level
from tests.plugin.conftest import Suite
from tests.plugin.test_no_cluster import check

RUNNING, GONE = 5.1, 183.0
"""About what the quick node takes for 3 VMIs, in seconds."""
UNTUNED = ("--kvscale-tune=none", "--kvscale-cooldown=0")
KEYS = ("Running.p50", "Running.p95", "deletion.p95", "requests_per_vmi", "failures")


def base(suite: Suite, *levels: int, **more: object) -> str:
    """Write a baseline of one run like what the quick node does; the option that names it."""
    found = content(1, *(level(each, RUNNING, GONE) for each in levels), comparable=more)
    return f"--kvscale-baseline={baselines.write(suite.path / 'base.json', found)}"


def cases(suite: Suite) -> dict[str, str]:
    """The test cases of the newest run's JUnit file, and the message of each that failed."""
    root = ET.parse(suite.latest / "junit.xml").getroot()  # noqa: S314 - our own file
    return {
        each.attrib["name"]: "" if (found := each.find("failure")) is None else found.text or ""
        for each in root.iter("testcase")
    }


def test_what_became_worse_fails_and_says_where(suite: Suite) -> None:
    for number in (1, 2, 3):
        found = content(number, level(3, 3 - number / 100, GONE))
        baselines.write(suite.path / "bases" / f"{number}.json", found)
    result = suite.quick(
        "--kvscale-repeat=3", "--kvscale-baseline=bases", "--kvscale-strict",
        "--kvscale-relative=7%", "--kvscale-summary=job/page.md", *UNTUNED,
    )  # fmt: skip
    rows = [f"comparison[3 {key}]" for key in KEYS]
    found = cases(suite)
    assert [*found] == ["test_density[3]", "test_density[3-2]", "test_density[3-3]", *rows]
    assert [name for name, failure in found.items() if failure] == [rows[0], rows[1], rows[3]]
    assert re.match(r"level 3: p95 creation to Running \+\d+ % \[", found[rows[1]])
    assert "Running" in found[rows[1]].partition("\n")[2]  # Where in the VMIs' life it is.
    assert "inconclusive" in found[rows[3]]  # Strict: nobody had counted requests before.
    assert "Traceback" not in str(result.stdout)
    result.assert_outcomes(passed=5, failed=3)
    result.stdout.fnmatch_lines(
        [
            "level 3: p95 creation to Running +* % [[]*, *[]] (2.98 s -> *, 3+3 runs, *): fail *",
            "*= kvscale =*",
            "  3-3 *",
            "compared with 3 runs *: fail",
            "    3  p95 creation to Running *fail",
            "report: *",
            "FAILED kvscale::comparison[[]3 Running.p50[]] - *",
        ]
    )
    comparison = suite.results["comparison"]
    assert (comparison["verdict"], comparison["rules"]["relative"]) == ("fail", 0.07)
    assert comparison["before"] == ["before-1", "before-2", "before-3"]
    page = (suite.latest / "report.html").read_text(encoding="utf-8")
    assert page.count("p95 creation to Running") > 1
    summary = (suite.latest / "summary.md").read_text(encoding="utf-8")
    assert "| 3-2 |" in summary
    assert "## Comparison: ❌ fail" in summary
    assert (suite.path / "job" / "page.md").read_text(encoding="utf-8") == summary
    properties = (suite.latest / "junit.xml").read_text(encoding="utf-8")
    assert 'name="kvscale.comparison.3.Running.p95" value="fail"' in properties


def test_under_xdist_comparisons_follow_the_levels_on_their_worker(suite: Suite) -> None:
    result = suite.quick(
        base(suite, 3), "--kvscale-repeat=2", "-v", "--kvscale-summary=page.md", *UNTUNED,
        "-k", "3", levels="3,4", workers=2,
    )  # fmt: skip
    result.assert_outcomes(passed=7)
    lines = [line for line in result.outlines if " PASSED " in f"{line} "]
    assert len({re.match(r"\[(gw\d)\]", line)[1] for line in lines}) == 1  # type: ignore[index]
    names = [line.rstrip().partition("::")[2] for line in lines]
    assert names == [
        "test_density[3]",
        "test_density[3-2]",
        *(f"comparison[3 {key}]" for key in KEYS),
    ]
    assert [each["label"] for each in suite.results["levels"]] == ["3", "3-2"]
    # One run before is too little to be sure of anything; but it is told.
    assert suite.results["comparison"]["verdict"] == "inconclusive"
    assert "    3  p95 creation to Running " in str(result.stdout)
    root = ET.parse(suite.latest / "junit.xml").getroot()  # noqa: S314 - our own file
    (row,) = (each for each in root.iter("testcase") if "3 Running.p95" in each.attrib["name"])
    told = {each.attrib["name"]: each.attrib["value"] for each in row.iter("property")}
    assert told["kvscale.verdict"] == "inconclusive"
    assert told["kvscale.reason"].startswith("level 3: p95 creation to Running ")
    page = (suite.path / "page.md").read_text(encoding="utf-8")
    assert page == (suite.latest / "summary.md").read_text(encoding="utf-8")
    assert "## Comparison: " in page


Break = Callable[[Suite], object]


def real(suite: Suite) -> None:
    base(suite, 3, simulated="false")


def other(suite: Suite) -> None:
    base(suite, 3, **{"node.max_pods": 110, "template.1": "kind: Pod"})


ERRORS: list[tuple[Break, tuple[str, ...]]] = [
    (lambda suite: None, ("base.json does not exist",)),
    (lambda suite: (suite.path / "base.json").write_text('{"schema"'), ("it is cut off",)),
    (lambda suite: (suite.path / "base.json").write_text('{"a": 1}'), ("is no results.json",)),
    (real, ("simulated: false -> sim", "are never compared")),
    (other, ("node.max_pods: 110 -> 1022", "template.1: ")),
    (lambda suite: base(suite, 2, 4), ("(base.json) has no run of level 3; it has 2, 4",)),
]


@pytest.mark.parametrize(("broken", "parts"), ERRORS)
def test_a_baseline_that_cannot_be_used_is_told_before_anything_is_created(
    suite: Suite, broken: Break, parts: tuple[str, ...]
) -> None:
    broken(suite)
    result = suite.quick("--kvscale-baseline=base.json", "--kvscale-summary=page.md", *UNTUNED)
    check(suite, result, *parts)
    assert nothing_was_created(suite, result)
    assert "**The run could not begin:** " in (suite.path / "page.md").read_text(encoding="utf-8")


def nothing_was_created(suite: Suite, result: RunResult) -> bool:
    """Whether the run ended before it showed its header."""
    return "kvscale: run" not in str(result.stdout) and not (suite.latest / "results.json").exists()


def test_a_baseline_that_cannot_be_used_is_told_under_xdist(suite: Suite) -> None:
    real(suite)
    result = suite.quick("--kvscale-baseline=base.json", *UNTUNED, workers=1)
    check(suite, result, "simulated: false -> sim")
    assert nothing_was_created(suite, result)


def test_tests_that_name_no_level_are_not_compared_silently(suite: Suite) -> None:
    suite.pytester.makepyfile(test_density="def test_it(density_run): density_run(3)")
    result = suite.quick(base(suite, 3), *UNTUNED)
    check(suite, result, "test_it does not say which level it runs", "nothing could be compared")


def test_levels_that_no_test_names_are_compared_as_well(suite: Suite) -> None:
    suite.pytester.makepyfile(
        test_density="""
        def test_density(density_level, density_run): density_run(density_level)
        def test_soak(density_run): density_run(4)
        """
    )
    row = "comparison[other levels]"
    result = suite.quick(base(suite, 3), *UNTUNED, "-p", "no:html")
    result.assert_outcomes(passed=2 + 5, failed=1)
    assert cases(suite)[row] == "level 4 was not compared: there is no run of it before"
    result = suite.quick(base(suite, 3, 4), *UNTUNED, "-p", "no:html", "-rA")
    result.assert_outcomes(passed=2 + 5 + 1)
    result.stdout.fnmatch_lines(["*comparison?other levels?*", "level 4: p50 creation to *"])


def test_tests_that_run_no_level_need_no_baseline_to_compare_with(suite: Suite) -> None:
    suite.pytester.makepyfile(test_density="def test_it(kv_cluster): assert kv_cluster.identity")
    result = suite.quick(base(suite, 7), "--kvscale-calibration=base.json", *UNTUNED)
    result.assert_outcomes(passed=1)
    suite.pytester.makepyfile(test_density="def test_it(kv_cluster): pass")
    result = suite.quick("--kvscale-calibration=base.json", *UNTUNED, "-p", "no:html")
    result.stdout.fnmatch_lines(["kvscale: note: nothing is compared: --kvscale-calibration has *"])


def test_a_level_that_was_not_measured_fails_its_comparison(suite: Suite) -> None:
    """It is refused, as it cannot fit; that the failures are new is a comparison, though."""
    named = base(suite, 3)
    suite.profile("kubevirt: {max_devices: 2}")
    arguments = (
        "--kvscale-sim-profile=quick.yaml", "--kvscale-levels=3", named, *UNTUNED,
        "--kvscale-may-differ=node.devices",
    )  # fmt: skip
    suite.run(*arguments).assert_outcomes(failed=6)
    found = cases(suite)
    for key in KEYS[:-1]:
        assert found[f"comparison[3 {key}]"].startswith("level 3 was not measured: nothing was")
    assert "DeviceLimit 0 -> 1" in found["comparison[3 failures]"]
    # Whatever ends the run before its comparisons: what was measured is there.
    result = suite.run(*arguments, "-x")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["nothing was compared with the baseline"])
    assert [each["level"] for each in suite.results["levels"]] == [3]
    assert "comparison" not in suite.results


def test_what_turns_out_to_differ_when_settings_are_tuned_fails(suite: Suite) -> None:
    result = suite.quick(base(suite, 2), "--kvscale-cooldown=0", levels="2")
    result.assert_outcomes(passed=1, failed=5)
    for failure in [*cases(suite).values()][1:]:
        assert failure.startswith("nothing was compared: the runs cannot be compared: ")
        assert "node.devices: 110 -> 1000" in failure


def test_comparisons_are_collected_for_the_selected_levels_only(suite: Suite) -> None:
    suite.pytester.makepyfile(
        test_density="""
        import pytest

        @pytest.mark.skip
        def test_no(density_level, density_run): pass

        @pytest.mark.density(levels=(3, 5))
        def test_one(density_level, density_run): pass

        @pytest.mark.density(levels=(5, 7))
        def test_two(density_level, density_run): pass

        def test_other(): pass
        """
    )
    asked = ("--collect-only", "-q", "--kvscale-baseline=base.json", "--kvscale-levels=9")
    result = suite.run(*asked, "-k", "5 or 7 or other")
    found = [line for line in result.outlines if "::" in line]
    assert found == [
        "test_density.py::test_one[5]", "test_density.py::test_two[5]",
        "test_density.py::test_two[7]", "test_density.py::test_other",
        *(f"kvscale::comparison[{number} {key}]" for number in (5, 7) for key in KEYS),
    ]  # fmt: skip
    assert "comparison" not in str(suite.run(*asked, "-k", "other").stdout)


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("--kvscale-relative=much", ("--kvscale-relative: 'much' is not a percentage",)),
        ("--kvscale-relative=-1", ("--kvscale-relative: '-1' is no percentage",)),
        ("--kvscale-summary=.", ("--kvscale-summary: ", " cannot be written: Is a directory")),
        ("--kvscale-calibration=none.json", ("none.json does not exist",)),
        ("--kvscale-may-differ=", ("--kvscale-may-differ: it is empty",)),
    ],
)
def test_options_that_cannot_be_used_are_told(
    suite: Suite, given: str, parts: tuple[str, ...]
) -> None:
    check(suite, suite.quick(base(suite, 3), given, *UNTUNED), *parts)
