"""Tests of an upgrade: which side of it they are on, and in which order they run.

With a way back, rounds are interleaved (before, after; after, before; before, after; …): what
changes while the tests run then falls on both sides alike. Without one everything before comes
first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import pytest

from pytest_kvscale.collection import is_of_upgrade, is_ours, nth_of, runs_levels
from pytest_kvscale.errors import ConfigurationError

if TYPE_CHECKING:
    from pytest_kvscale.session import Run

Side = Literal["before", "after"]
BEFORE, AFTER, STEP = "kv_before", "kv_after", "kv_upgrade_step"


@dataclasses.dataclass(frozen=True)
class Step:
    """A change of version between the rounds: the parameter of a test of it."""

    nth: int
    """Which of all steps it is, from 1."""

    @property
    def to(self) -> Side:
        """The side it leads to."""
        return "after" if self.nth % 2 else "before"

    @property
    def label(self) -> str:
        """What it is called: `1`, `back-1`, `2`."""
        number = (self.nth + 1) // 2
        return str(number) if self.to == "after" else f"back-{number}"


def parametrize(metafunc: pytest.Metafunc, repeat: int, back: bool) -> None:
    """Give a test of the upgrade one run for each change of version, if there are several."""
    if STEP not in metafunc.fixturenames or not back or repeat == 1:
        return
    steps = [Step(nth) for nth in range(1, repeat + 1)]
    metafunc.parametrize(STEP, steps, ids=[each.label for each in steps], indirect=True)


def step_of(item: pytest.Item) -> Step:
    """The change of version that a test is of."""
    callspec = getattr(item, "callspec", None)
    found = callspec.params.get(STEP) if callspec is not None else None
    return found if isinstance(found, Step) else Step(1)


def side_of(item: pytest.Item) -> Side | None:
    """The side of the upgrade that a test is on; None: it is of the upgrade itself."""
    names = getattr(item, "fixturenames", ())
    if BEFORE in names:
        return "before"
    return "after" if AFTER in names else None


def place(side: Side | None, nth: int, repeat: int, back: bool) -> float:
    """Where a test comes: one of a side in its n-th round, or of the n-th change of version."""
    if side is None:
        return 2 * nth - 1.5 if back else repeat - 0.5
    if not back:
        return nth - 1 + (repeat if side == "after" else 0)
    first = (side == "before") == (nth % 2 == 1)
    return 2 * (nth - 1) + (not first)


def in_order(items: Sequence[pytest.Item], repeat: int, back: bool) -> list[pytest.Item]:
    """The tests of an upgrade in their order, in the places that such tests have."""

    def key(item: pytest.Item) -> float:
        nth = nth_of(item)
        side = side_of(item)
        number = step_of(item).nth if side is None else 1 if nth is None else nth.times
        return place(side, number, max(repeat, number), back)

    ordered = iter(sorted(filter(is_of_upgrade, items), key=key))
    return [next(ordered) if is_of_upgrade(each) else each for each in items]


def arrange(run: Run, items: list[pytest.Item]) -> list[pytest.Item]:
    """Put the tests of an upgrade in order; returns those that are left out.

    They are, with nothing to upgrade to, if there are other tests of ours: `pytest suites` runs
    all that can be run. Raises `ConfigurationError` if there are none, or if other levels would be
    measured in the run of an upgrade: it would not be known on which side they are.
    """
    of_upgrade = [each for each in items if is_of_upgrade(each)]
    if not of_upgrade:
        return []
    others = any(is_ours(each) and not is_of_upgrade(each) for each in items)
    settings = run.settings
    asked = settings.upgrade_to is not None or settings.upgrade_command is not None
    if not asked and others:
        items[:] = [each for each in items if not is_of_upgrade(each)]
        run.upgrading.left_out = len(of_upgrade)
        return of_upgrade
    # From here on it is a run of an upgrade, also if it cannot begin.
    items[:] = in_order(items, settings.repeat, settings.upgrade_back)
    run.upgrading.want(any(runs_levels(each) for each in of_upgrade))
    if not asked:
        raise ConfigurationError(
            "these tests upgrade KubeVirt: say to which version (--kvscale-upgrade-to), or by "
            "which command (--kvscale-upgrade-command)"
        )
    if others:
        raise ConfigurationError(
            "an upgrade is measured in a run of its own, so that it is known of each level on "
            "which side of it it was: select the tests of the upgrade (pytest suites/upgrade), or "
            "the others without --kvscale-upgrade-to and --kvscale-upgrade-command"
        )
    return []
