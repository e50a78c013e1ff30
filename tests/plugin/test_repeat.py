"""Levels that are run several times: in rounds, each run with a name of its own."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from pytest_kvscale.levels import Levels
from pytest_kvscale.options import Settings
from pytest_kvscale.session import Run
from tests.plugin.conftest import Suite
from tests.plugin.test_levels import chosen


def selected(suite: Suite, keyword: str) -> list[str]:
    """The runs that are selected, by their labels."""
    names = chosen(suite, "--kvscale-levels=50,400,1400", "--kvscale-repeat=2", "-k", keyword)
    return [name.partition("[")[2].rstrip("]") for name in names]


def test_levels_are_repeated_in_rounds(suite: Suite) -> None:
    suite.pytester.makeini("[pytest]\nkvscale_repeat = 3\n")
    assert chosen(suite, "--kvscale-levels=9,5") == [
        f"test_density[{label}]" for label in ("9", "5", "9-2", "5-2", "9-3", "5-3")
    ]
    assert chosen(suite, "--kvscale-levels=9", "--kvscale-repeat=1") == ["test_density[9]"]


@pytest.mark.parametrize(
    ("keyword", "expected"),
    [
        ("400", ["400", "400-2"]),
        ("400 and not 50", ["400", "400-2"]),
        ("not 400", ["50", "1400", "50-2", "1400-2"]),
        ("400-2", ["400-2"]),
        ("400-2 or 50", ["50", "50-2", "400-2"]),
        ("400 and not 400-2", ["400"]),
        ("test_density[400]", ["400"]),
    ],
)
def test_a_level_in_a_selection_is_all_its_runs_and_a_label_one(
    suite: Suite, keyword: str, expected: list[str]
) -> None:
    assert selected(suite, keyword) == expected


@pytest.mark.parametrize("keyword", ["2", "400 or 3"])
def test_the_number_of_a_run_is_no_level(suite: Suite, keyword: str) -> None:
    result = suite.run("--kvscale-levels=50,400", "--kvscale-repeat=2", "-k", keyword)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*is no level; the levels are 50, 400"])


def test_a_label_that_is_none_means_what_it_always_does(suite: Suite) -> None:
    """It may be of the user's own parameters."""
    suite.pytester.makepyfile(
        test_density="""
        import pytest

        @pytest.mark.density(levels=(50, 150))
        @pytest.mark.parametrize("number", [1, 2])
        def test_mine(density_level, number): pass
        """
    )
    assert chosen(suite, "-k", "50-2") == ["test_mine[50-2]", "test_mine[150-2]"]


@pytest.mark.parametrize("number", ["0", "-1", "many", "1.5"])
def test_a_number_of_runs_that_is_none_is_told(suite: Suite, number: str) -> None:
    result = suite.run(f"--kvscale-repeat={number}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: kvscale: --kvscale-repeat: '{number}' is *"])


def labels(suite: Suite) -> list[str]:
    """Of the newest run's levels."""
    return [each["label"] for each in suite.results["levels"]]


def test_every_run_of_a_level_is_reported_under_its_label(suite: Suite) -> None:
    result = suite.quick(
        "--kvscale-repeat=2", "-k", "3", "-v", "--kvscale-cooldown=1h", levels="3,9"
    )
    result.assert_outcomes(passed=2, deselected=2)
    result.stdout.fnmatch_lines(
        [
            "kvscale: run *, up to 3 VMIs at once (levels 3, 2 runs of each)",
            "kvscale: resting 1h before level 3*",
            "*= kvscale =*", "level *", "    3      3/3 *", "  3-2      3/3 *",
        ]
    )  # fmt: skip
    assert labels(suite) == ["3", "3-2"]
    assert [each["cooldown"]["waited"] for each in suite.results["levels"]] == [0, 3600]
    assert {each.name for each in suite.latest.glob("*-vmis.jsonl")} == {
        "3-vmis.jsonl", "3-2-vmis.jsonl",
    }  # fmt: skip
    (testsuite,) = ET.parse(suite.latest / "junit.xml").getroot()  # noqa: S314 - our own file
    assert [each.attrib["name"] for each in testsuite.iter("testcase")] == [
        "test_density[3]", "test_density[3-2]",
    ]  # fmt: skip
    assert {"kvscale.3.p95", "kvscale.3-2.p95"} <= {
        each.attrib["name"] for each in testsuite.iter("property")
    }
    page = (suite.latest / "report.html").read_text(encoding="utf-8")
    for text in ('id="kvscale-3-2"', ">Level 3-2:", "over time, level 3-2</title>"):
        assert text in page


def test_rounds_go_around_a_suites_own_parameters_and_tests_keep_their_order(suite: Suite) -> None:
    suite.pytester.makepyfile(
        test_density="""
        import pytest

        @pytest.mark.density(levels=(2,))
        @pytest.mark.parametrize("way", ["a", "b"])
        def test_ways(density_level, density_run, way): pass

        @pytest.mark.density(levels=(1, 2))
        def test_more(density_level, density_run): pass
        """
    )
    names = chosen(suite, "--kvscale-repeat=2")
    assert [name.partition("[")[2].rstrip("]") for name in names] == [
        "2-a", "2-b", "2-2-a", "2-2-b", "1", "2", "1-2", "2-2",
    ]  # fmt: skip


def test_labels_are_those_of_the_tests_ids() -> None:
    """What runs a level beyond its rounds gets a number that no test has."""
    levels = Levels(Run(Settings(repeat=2)))
    ways = [(2, 1), (2, 1), (2, 2), (2, 2), (1, 1), (2, 1), (1, 2), (2, 2)]
    assert [levels._label(level, times) for level, times in ways] == [
        "2", "2-3", "2-2", "2-4", "1", "2-5", "1-2", "2-6",
    ]  # fmt: skip
    assert Levels(Run(Settings(repeat=2)))._label(400, 2) == "400-2"  # It alone was selected.
    once = Levels(Run(Settings()))
    assert [once._label(400, 1) for _ in range(3)] == ["400", "400-2", "400-3"]
