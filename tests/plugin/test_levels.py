"""Levels as tests, and what -k means for them."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Suite

LEVELS = "50,100,400,1400,4000"


def chosen(suite: Suite, *arguments: str) -> list[str]:
    """The tests that are selected."""
    result = suite.run("--collect-only", "-q", *arguments)
    return [line.partition("::")[2] for line in result.outlines if "::" in line]


def levels(suite: Suite, keyword: str) -> list[int]:
    found = chosen(suite, f"--kvscale-levels={LEVELS}", "-k", keyword)
    return [int(name.partition("[")[2].rstrip("]")) for name in found]


def test_the_default_levels_are_the_published_ones(suite: Suite) -> None:
    assert chosen(suite) == [f"test_density[{level}]" for level in (50, 100, 200, 300, 400)]


@pytest.mark.parametrize(
    ("keyword", "expected"),
    [
        ("400", [400]),
        ("50", [50]),
        ("1400", [1400]),
        ("400 or 50", [50, 400]),
        ("not 400", [50, 100, 1400, 4000]),
        ("400 and density", [400]),
        ("400 and nothing", []),
        ("(400 or 100) and not 100", [400]),
        ("density", [50, 100, 400, 1400, 4000]),
        ("test_density[400]", [400]),
        ("not density", []),
        ("400 or 400", [400]),
    ],
)
def test_a_number_means_that_level_and_no_other(
    suite: Suite, keyword: str, expected: list[int]
) -> None:
    assert levels(suite, keyword) == expected


@pytest.mark.parametrize("keyword", ["40", "401", "not 401", "400 or 7", "00400x or 4"])
def test_a_number_that_is_no_level_names_the_levels(suite: Suite, keyword: str) -> None:
    result = suite.run(f"--kvscale-levels={LEVELS}", "-k", keyword)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [f"ERROR: kvscale: -k {keyword}: * is no level; the levels are 50, 100, 400, 1400, 4000"]
    )


def test_other_tests_keep_their_meaning_of_a_number(suite: Suite) -> None:
    suite.pytester.makepyfile(
        test_other="""
        import pytest

        @pytest.mark.parametrize("number", [400, 1400, 7])
        def test_other(number): pass
        """
    )
    assert chosen(suite, "-k", "400") == [
        "test_density[400]", "test_other[400]", "test_other[1400]",
    ]  # fmt: skip
    assert chosen(suite, "-k", "7") == ["test_other[7]"]


def test_levels_come_from_the_command_line_before_the_ini_file(suite: Suite) -> None:
    suite.pytester.makeini("[pytest]\nkvscale_levels = 7,8\n")
    assert chosen(suite) == ["test_density[7]", "test_density[8]"]
    assert chosen(suite, "--kvscale-levels=9") == ["test_density[9]"]


def test_a_marker_has_levels_of_its_own(suite: Suite) -> None:
    suite.pytester.makepyfile(
        test_density="""
        import pytest

        @pytest.mark.density(levels=(2, 5))
        def test_mine(density_level): pass

        @pytest.mark.density(levels=4)
        def test_one(density_level): pass
        """
    )
    assert chosen(suite) == ["test_mine[2]", "test_mine[5]", "test_one[4]"]
    assert chosen(suite, "-k", "5 or 4") == ["test_mine[5]", "test_one[4]"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("levels=(5, 5)", "the level 5 is given twice"),
        ("levels=()", "no level is given"),
        ("levels='x'", "'x' is not a level"),
        ("levels=None", "the marker density: 'NoneType' object is not iterable"),
        ("level=5", "the marker density takes levels="),
        ("5", "the marker density takes levels="),
    ],
)
def test_a_marker_that_is_wrong_is_told(suite: Suite, arguments: str, sentence: str) -> None:
    suite.pytester.makepyfile(
        test_density=f"""
        import pytest

        @pytest.mark.density({arguments})
        def test_mine(density_level): pass
        """
    )
    result = suite.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: kvscale: test_density.py::test_mine: *{sentence}*"])


def test_collecting_only_touches_no_cluster(suite: Suite) -> None:
    assert len(chosen(suite)) == 5
    assert not (suite.path / "reports").exists()
