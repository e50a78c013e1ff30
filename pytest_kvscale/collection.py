"""Which tests are ours: density levels as parameters, and what `-k 400` means for them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypedDict

import pytest
from _pytest.mark import expression

from pytest_kvscale import calibrating, options
from pytest_kvscale.after_levels import CalibrationItem, ComparisonItem, JudgedItem
from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.options import Settings

LEVEL = "density_level"
MARKER = "density"
UPGRADE = "kv_upgrade"
_FIXTURES = frozenset(
    {LEVEL, "density_run", "kv_cluster", "kv_node", "kv_namespace", "kv_tuning", UPGRADE}
)
_TOKEN = re.compile(r"[\w:+\-.\[\]\\/=\"']+")
_OURS = "kvscale:density:"
CALIBRATION = "calibration"
"""The marker of tests that make equal runs."""
_ParseError: type[Exception] = getattr(expression, "ParseError", SyntaxError)
"""What pytest raised before 9.1 for what is no expression."""


def level_label(level: int, times: int) -> str:
    """What a run of a level is called in ids, files and reports: `400`, the second one `400-2`."""
    return str(level) if times == 1 else f"{level}-{times}"


@dataclasses.dataclass(frozen=True)
class Nth:
    """A run of a level: the parameter of a density test."""

    level: int
    times: int
    """Which of the level's runs it is, from 1."""

    @property
    def label(self) -> str:
        """What it is called."""
        return level_label(self.level, self.times)


def parametrize(metafunc: pytest.Metafunc, settings: Settings) -> None:
    """Give a test its runs of each level: of those of its marker, else of those of the settings.

    They go in rounds: what changes while the tests run befalls all levels alike.
    """
    if LEVEL not in metafunc.fixturenames:
        return
    levels, repeat = settings.levels, settings.repeat
    if metafunc.definition.get_closest_marker(CALIBRATION) is not None:
        levels = levels if "levels" in settings.given else (calibrating.LEVEL,)
        repeat = repeat if "repeat" in settings.given else calibrating.RUNS
    marker = metafunc.definition.get_closest_marker(MARKER)
    if marker is not None and (marker.args or marker.kwargs):
        levels = _marker_levels(marker, metafunc.definition.nodeid)
    runs = [Nth(level, times) for times in range(1, repeat + 1) for level in levels]
    metafunc.parametrize(LEVEL, runs, ids=[each.label for each in runs], indirect=True)


def _marker_levels(marker: pytest.Mark, where: str) -> tuple[int, ...]:
    unknown = sorted(set(marker.kwargs) - {"levels"})
    if marker.args or unknown:
        raise ConfigurationError(
            f"{where}: the marker density takes levels=(50, 100, ...) and nothing else"
        )
    given = marker.kwargs["levels"]
    parts = [given] if isinstance(given, int) else given
    try:
        return options.levels(",".join(str(part) for part in parts))
    except (ValueError, TypeError) as problem:
        raise ConfigurationError(f"{where}: the marker density: {problem}") from None


def is_ours(item: pytest.Item) -> bool:
    """Whether a test works on a cluster through our fixtures, or judges what such tests did."""
    return isinstance(item, JudgedItem) or not _FIXTURES.isdisjoint(
        getattr(item, "fixturenames", ())
    )


def is_of_upgrade(item: pytest.Item) -> bool:
    """Whether a test is one of an upgrade: before it, after it, or of itself."""
    return UPGRADE in getattr(item, "fixturenames", ())


def runs_levels(item: pytest.Item) -> bool:
    """Whether a test runs density levels, as far as can be told before."""
    return "density_run" in getattr(item, "fixturenames", ()) and not item.get_closest_marker(
        "skip"
    )


def unnamed(items: Iterable[pytest.Item]) -> list[str]:
    """The tests that run levels and do not say which."""
    return [each.nodeid for each in items if runs_levels(each) and nth_of(each) is None]


def nth_of(item: pytest.Item) -> Nth | None:
    """The run of a level that a test is, if it has one."""
    callspec = getattr(item, "callspec", None)
    found = callspec.params.get(LEVEL) if callspec is not None else None
    return found if isinstance(found, Nth) else None


def level_of(item: pytest.Item) -> int | None:
    """The density level a test runs, if it has one."""
    found = nth_of(item)
    return None if found is None else found.level


def levels_of(items: Iterable[pytest.Item]) -> list[int]:
    """The levels tests run, in their order, each as often as it is run."""
    return [level for item in items if (level := level_of(item)) is not None]


def levels_run(items: Iterable[pytest.Item]) -> tuple[list[int], list[int]]:
    """The levels that tests say they run, each once: of ordinary tests, and of calibrations."""
    found: tuple[dict[int, None], dict[int, None]] = {}, {}
    for item in items:
        level = level_of(item)
        if level is not None and runs_levels(item):
            found[item.get_closest_marker(CALIBRATION) is not None][level] = None
    return [*found[0]], [*found[1]]


def suites_of(items: Iterable[pytest.Item]) -> list[Path]:
    """The folders tests lie in, each once."""
    return [*dict.fromkeys(
        item.path.parent for item in items if not isinstance(item, JudgedItem)
    )]  # fmt: skip


class Found(TypedDict):
    """What was found of our tests, as plain data."""

    suites: list[str]
    """The folders they lie in."""
    calibrated: list[int]
    """The levels of a calibration, each once."""
    unnamed: list[str]
    """The tests that run levels and do not say which."""
    levels: list[int]
    """The levels they run, each as often as it is run."""
    compared: list[int]
    """The levels that are compared with others, each once."""
    upgrade: bool
    """They are of an upgrade."""
    left_out: int
    """How many tests of an upgrade are not run, because none was asked for."""


def found(items: Sequence[pytest.Item], left_out: int = 0) -> Found:
    """What there is of our tests."""
    return {
        "suites": [str(each) for each in suites_of(items)],
        "calibrated": [each.level for each in items if isinstance(each, CalibrationItem)],
        "unnamed": unnamed(items),
        "levels": levels_of(items),
        "compared": [*dict.fromkeys(
            each.level for each in items if isinstance(each, ComparisonItem)
        )],
        "upgrade": any(is_of_upgrade(each) for each in items),
        "left_out": left_out,
    }  # fmt: skip


def select_levels(items: Sequence[pytest.Item], keyword: str) -> str:
    """The `-k` expression in which a number means a level of ours, and that level only.

    pytest matches words as parts of names, so that 400 would take 1400 too. Tests with a level
    get a keyword for it, and each number in the expression is replaced by that keyword for them;
    for all other tests it means what it always does. Raises `ConfigurationError` for a number
    that is no level (and no part of another test's name either). All runs of a level have its
    keyword; `400-2` means the second one, where there are several.
    """
    leveled = {item: nth for item in items if (nth := nth_of(item)) is not None}
    if not leveled or not _is_expression(keyword):
        return keyword
    labels = {nth.label for nth in leveled.values() if nth.times > 1}
    if not any(_numbers(keyword)) and labels.isdisjoint(_TOKEN.findall(keyword)):
        return keyword
    known = sorted({nth.level for nth in leveled.values()})
    others = [item for item in items if item not in leveled]
    for item, nth in leveled.items():
        item.extra_keyword_matches.update({_OURS, _keyword(nth.level), _keyword(nth.label)})
    for number in _numbers(keyword):
        if int(number) in known or any(_plain_match(item, number) for item in others):
            continue
        raise ConfigurationError(
            f"-k {keyword}: {number} is no level; the levels are "
            + ", ".join(str(each) for each in known)
        )

    def replace(match: re.Match[str]) -> str:
        word = match[0]
        if word in labels:
            return f"({_keyword(word)} or ({word} and not {_OURS}))"
        if not word.isdecimal():
            return word
        return f"({_keyword(int(word))} or ({word} and not {_OURS}))"

    return _TOKEN.sub(replace, keyword)


def _is_expression(keyword: str) -> bool:
    """Whether pytest will accept it; what is wrong with it, it tells best itself."""
    try:
        expression.Expression.compile(keyword)
    except (SyntaxError, _ParseError):
        return False
    return True


def _numbers(keyword: str) -> Iterator[str]:
    return (word for word in _TOKEN.findall(keyword) if word.isdecimal())


def _keyword(level: int | str) -> str:
    """The keyword of a level, or of a run of it by its label."""
    return f"kvscale:{'level' if isinstance(level, int) else 'run'}:{level}:"


def _plain_match(item: pytest.Item, word: str) -> bool:
    names = [node.name for node in item.listchain()[1:]]
    return any(word in name for name in (*names, *item.extra_keyword_matches))
