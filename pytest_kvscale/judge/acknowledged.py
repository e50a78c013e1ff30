"""Changes for the worse that somebody has looked at and accepted, so that each fails once.

An entry accepts one change of one metric of one level: the one at a run, or at the first runs of a
version, up to a ratio. It covers nothing else: a further change fails, and so does this one once it
is certain that it has grown beyond what was accepted.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pytest_kvscale.documents import Document, validate

NEAR = 2
"""So many runs from where it was acknowledged a change may be found: with further runs the place
that fits best may move."""
_GROWTH = 0.05
"""A ratio this much beyond the accepted one is no longer it, if its interval says so too."""

Key = Literal["Running.p50", "Running.p95", "deletion.p95", "requests_per_vmi", "running_per_min"]
Text = Annotated[str, Field(min_length=1, max_length=1000)]


class Entry(Document):
    """One accepted change."""

    level: Annotated[int, Field(gt=0)]
    metric: Key
    run: Text | None = None
    """The id of the first run that had it; or"""
    version: Text | None = None
    """the version of KubeVirt that brought it."""
    accepted: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["not reached"]
    """After / before, up to which it is accepted: 1.25 is 25 % more. `not reached`: also that too
    many VMIs never got there."""
    reason: Text
    by: Text
    date: datetime.date

    @model_validator(mode="after")
    def _names_one_place(self) -> Self:
        if (self.run is None) == (self.version is None):
            raise ValueError("it must name either the run or the version at which it changed")
        return self

    @property
    def where(self) -> str:
        """For people: the place and what is accepted."""
        place = f"run {self.run}" if self.run is not None else f"version {self.version}"
        return f"level {self.level} {self.metric} at {place}"

    def place(self, runs: Sequence[str], versions: Sequence[str]) -> int | None:
        """Where in these runs (with their versions of KubeVirt) it begins; None: it does not."""
        names, name = (runs, self.run) if self.run is not None else (versions, self.version)
        return names.index(name) if name in names else None

    def accepts(self, ratio: float | None, bound: float | None, higher_is_worse: bool) -> bool:
        """Whether a change of this ratio is no more than was accepted.

        `bound` is the better end of the ratio's interval, None if it has none. A ratio of None: the
        value is not reached any more.
        """
        if self.accepted == "not reached":
            return True
        if ratio is None:
            return False
        excess, certain = ratio / self.accepted, (bound or ratio) / self.accepted
        if not higher_is_worse:
            excess, certain = 1 / excess, 1 / certain
        return excess <= 1 + _GROWTH or certain <= 1


class _File(Document):
    acknowledged: list[Entry]

    @model_validator(mode="after")
    def _is_said_once(self) -> Self:
        seen: set[str] = set()
        for each in self.acknowledged:
            if each.where in seen:
                raise ValueError(f"{each.where} is there twice")
            seen.add(each.where)
        return self


def entries(content: Mapping[str, Any], where: str) -> tuple[Entry, ...]:
    """The entries of a file's content.

    Raises `ConfigurationError`, a sentence that begins with `where`, for the first mistake in it.
    """
    return tuple(validate(_File, content, where).acknowledged)


def cover(
    given: Sequence[Entry], changes: Sequence[int], runs: Sequence[str], versions: Sequence[str]
) -> dict[int, list[Entry]]:
    """The entries that speak of each change, by the index of its first run.

    `given` are those of the series' level and metric, `changes` the indices of its changes for the
    worse in `runs`. An entry speaks of one change, the nearest, if that is near enough.
    """
    found: dict[int, list[Entry]] = {}
    for entry in given:
        place = entry.place(runs, versions)
        if place is None or not changes:
            continue
        nearest = min(changes, key=lambda index: abs(index - place))
        if abs(nearest - place) <= NEAR:
            found.setdefault(nearest, []).append(entry)
    return found
