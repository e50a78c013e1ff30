"""A pytest run that selects no test of ours is touched in no way."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HEAVY = (
    "aiohttp", "kubernetes", "yaml", "pydantic", "matplotlib", "numpy", "jinja2", "tenacity",
    "pytest_kvscale.sim", "pytest_kvscale.cluster", "pytest_kvscale.judge",
)  # fmt: skip


def test_nothing_heavy_is_imported(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        f"""
        import sys

        def test_other():
            # pytest-html imports jinja2 for itself.
            heavy = [name for name in {HEAVY!r} if name in sys.modules and name != "jinja2"]
            assert heavy == []
            assert "pytest_kvscale.plugin" in sys.modules
        """
    )
    pytester.run(sys.executable, "-m", "pytest").assert_outcomes(passed=1)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_no_file_is_written_and_nothing_is_said(pytester: pytest.Pytester, workers: str) -> None:
    pytester.makepyfile("def test_other(): pass")
    before = set(pytester.path.rglob("*"))
    result = pytester.run(sys.executable, "-m", "pytest", "-n", workers, "-p", "no:cacheprovider",
                          "-p", "no:metadata")  # fmt: skip
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*kvscale:*")
    result.stdout.no_fnmatch_line("*= kvscale =*")
    new = {path.name for path in set(pytester.path.rglob("*")) - before}
    assert {name for name in new if not name.endswith(".pyc")} <= {
        "stdout",
        "stderr",
        "__pycache__",
    }


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_number_in_a_selection_means_what_it_always_does(
    pytester: pytest.Pytester, workers: str
) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("number", [400, 1400, 5])
        def test_other(number): pass
        """
    )
    pytester.runpytest("-n", workers, "-k", "400").assert_outcomes(passed=2)
    assert pytester.runpytest("-n", workers, "-k", "77").ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_reports_of_other_runs_are_as_they_always_are(
    pytester: pytest.Pytester, tmp_path: Path
) -> None:
    pytester.makepyfile("def test_other(): pass")
    arguments = ("--junitxml=j.xml", "--html=h.html", "--self-contained-html")
    pytester.runpytest(*arguments).assert_outcomes(passed=1)
    assert "kvscale." not in (pytester.path / "j.xml").read_text(encoding="utf-8")
    assert "KubeVirt density" not in (pytester.path / "h.html").read_text(encoding="utf-8")
