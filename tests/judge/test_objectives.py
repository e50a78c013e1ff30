"""Objectives in a file, and what they say of a level."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.judge import objectives
from pytest_kvscale.judge.objectives import NO_OBJECTIVES, Limit, measured
from pytest_kvscale.measure.figures import Figures, figures
from pytest_kvscale.measure.observe import Observer
from pytest_kvscale.measure.timeline import Creation


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "slo.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def level(*seconds: float | None) -> Figures:
    """A level whose VMIs ran after so many seconds; None: never."""
    observer = Observer()
    for index, each in enumerate(seconds):
        name, uid = f"vmi-{index}", f"u{index}"
        observer.expect(Creation(name, 0.0, 0.0, 0.1))
        status = {"phase": "Running" if each is not None else "Scheduling"}
        observer.take(
            "vmis", "ADDED", {"metadata": {"name": name, "uid": uid}, "status": status}, each or 1.0
        )
    return figures(observer)


def test_a_level_has_its_own_objectives_and_the_defaults(tmp_path: Path) -> None:
    text = """
    default: {Running p95: 5m, Running max: 600}
    levels: {3: {Running p95: {limit: 2.5s, label: mine}}}
    """
    _, found = objectives.load(write(tmp_path, text))
    outcomes = {each.name: each for each in found.check(3, measured(level(1.0, 2.0, 3.0)))}
    assert (outcomes["Running p95"].limit, outcomes["Running p95"].value) == (2.5, 3.0)
    assert not outcomes["Running p95"].ok
    assert outcomes["Running max"].ok
    assert "3.000 s exceeds 2.5 s (mine)" in outcomes["Running p95"].text()
    assert [each.limit for each in found.check(4, measured(level(1.0)))] == [300.0, 600.0]


def test_a_figure_that_was_not_reached_meets_no_objective() -> None:
    found = objectives.Objectives({}, {"Running p95": Limit(limit=1000)})
    (outcome,) = found.check(2, measured(level(1.0, None)))
    assert outcome.value is None
    assert not outcome.ok
    assert "not reached" in outcome.text()


@pytest.mark.parametrize("limit", [3.0, 3.0000001])
def test_a_limit_is_what_a_figure_may_be(limit: float) -> None:
    found = objectives.Objectives({}, {"Running max": Limit(limit=limit)})
    assert found.check(1, measured(level(3.0)))[0].ok


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("levels: {50: {Runing p95: 3s}}", "unknown objective 'Runing p95' (did you mean "
         "'Running p95'?)"),
        ("levels: {50: {Running p96: 3s}}", "unknown objective 'Running p96'"),
        ("levels: {50: {Running p95: soon}}", "levels.50.Running p95.limit: 'soon' is no duration"),
        ("levels: {50: {Running p95: -3}}", "input should be greater than 0, got -3"),
        ("levels: {50: {Running p95: {limt: 3}}}", "unknown key 'levels.50.Running p95.limt'"),
        ("levels: {fifty: {Running p95: 3}}", "expected a level"),
        ("levels: [50]", "expected a mapping of levels"),
        ("levels: {50: 3s}", "expected a mapping of objectives to limits, got '3s'"),
        ("level: {}", "unknown key 'level' (did you mean 'levels'?)"),
        ("applies_to: {simulated: maybe}", "applies_to.simulated: input should be 'sim', 'hollow'"),
        ("just text", "must be a mapping of keys to values, not text"),
        ("", "not empty"),
        ("a: b: c", "is not YAML in line 1"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        objectives.load(write(tmp_path, text))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_python_objects_in_yaml_are_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not YAML"):
        objectives.load(write(tmp_path, "default: !!python/object/apply:os.getcwd []"))


@pytest.mark.parametrize(
    ("applies", "simulated", "profile", "expected"),
    [
        ("{}", "false", None, True),
        ("{simulated: sim}", "sim", "any", True),
        ("{simulated: sim}", "false", None, False),
        ("{simulated: sim, profile: blog-2021}", "sim", "modern", False),
        ("{simulated: sim, profile: blog-2021}", "sim", "blog-2021", True),
        ("{simulated: false}", "false", None, True),
        ("{simulated: false}", "sim", "x", False),
    ],
)
def test_objectives_are_for_the_clusters_they_name(
    tmp_path: Path, applies: str, simulated: str, profile: str | None, expected: bool
) -> None:
    path = write(tmp_path, f"applies_to: {applies}\ndefault: {{Running p95: 1m}}")
    chosen = objectives.for_cluster(objectives.load(path), simulated, profile)
    assert (chosen is not NO_OBJECTIVES) is expected


def test_the_shipped_objectives_are_for_the_default_embedded_cluster() -> None:
    shipped = Path(__file__).parents[2] / "suites" / "density" / "slo.yaml"
    applies_to, found = objectives.load(shipped)
    assert (applies_to.simulated, applies_to.profile) == ("sim", "blog-2021")
    assert found.limits[100]["Running p95"].limit == 240
    assert found.limits[200]["Running p95"].limit == 720
    labels = {level: each["Running p95"].label for level, each in found.limits.items()}
    assert labels[50] == labels[300] == labels[400] == "simulated, not published"
