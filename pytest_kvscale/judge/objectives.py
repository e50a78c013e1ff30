"""Objectives: limits for the figures of a level, from a YAML file.

    applies_to: {simulated: sim, profile: blog-2021}   # optional: which cluster they are for
    default:
      Running p95: 5m
    levels:
      100:
        Running p95: {limit: 240s, label: "published: 200 s"}

A name is a phase (Scheduling, Scheduled, Running) or `Deletion`, and one of its figures. What a
level names replaces the default of the same name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, field_validator

from pytest_kvscale import durations
from pytest_kvscale.documents import Document, read_mapping, validate
from pytest_kvscale.errors import nearest
from pytest_kvscale.measure.figures import Figures
from pytest_kvscale.measure.percentiles import DIGITS
from pytest_kvscale.measure.timeline import PHASES

Statistic = Literal["p50", "p90", "p95", "p99", "max", "mean"]
DELETION = "Deletion"
_NAMES = tuple(
    f"{subject} {statistic}" for subject in (*PHASES, DELETION) for statistic in get_args(Statistic)
)


class Limit(Document):
    """The most a figure may be."""

    limit: float = Field(gt=0, allow_inf_nan=False)
    """Seconds."""
    label: str = ""
    """Where the limit comes from; shown beside it."""

    @field_validator("limit", mode="before")
    @classmethod
    def _duration(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("a duration is expected, e.g. 5m")  # noqa: TRY004 - pydantic's way
        return durations.parse(value) if isinstance(value, str) else value


class AppliesTo(Document):
    """The clusters objectives are for; what is not named may be anything."""

    simulated: Literal["sim", "hollow", "false"] | None = None
    profile: str | None = None

    @field_validator("simulated", mode="before")
    @classmethod
    def _yaml_false(cls, value: Any) -> Any:
        return "false" if value is False else value


class _File(Document):
    applies_to: AppliesTo = AppliesTo()
    default: dict[str, Limit] = Field(default_factory=dict)
    levels: dict[int, dict[str, Limit]] = Field(default_factory=dict)

    @field_validator("default", mode="before")
    @classmethod
    def _default(cls, value: Any) -> Any:
        return _limits(value)

    @field_validator("levels", mode="before")
    @classmethod
    def _levels(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError(  # noqa: TRY004 - what pydantic takes for a wrong value
                f"expected a mapping of levels to objectives, got {value!r}"
            )
        for level in value:
            if isinstance(level, bool) or not isinstance(level, int) or level < 1:
                raise ValueError(f"expected a level (a whole number above 0), got {level!r}")
        return {level: _limits(each) for level, each in value.items()}


def _limits(value: Any) -> Any:
    """Check names, and let a bare duration stand for its limit."""
    if not isinstance(value, Mapping):
        raise ValueError(  # noqa: TRY004 - what pydantic takes for a wrong value
            f"expected a mapping of objectives to limits, got {value!r}"
        )
    for name in value:
        if name not in _NAMES:
            raise ValueError(
                f"unknown objective {name!r}{nearest(str(name), _NAMES)}: expected a phase and a "
                f"figure, e.g. 'Running p95'"
            )
    return {
        name: each if isinstance(each, Mapping) else {"limit": each} for name, each in value.items()
    }


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One objective against what was measured; `value` is None if the figure was not reached."""

    name: str
    limit: float
    value: float | None
    label: str

    @property
    def ok(self) -> bool:
        """Whether the objective was met: a figure that was not reached never is."""
        return self.value is not None and self.value <= self.limit

    def text(self) -> str:
        """One line for people."""
        if self.value is None:
            value = "not reached"
        else:
            value = f"{self.value:.{3 if self.value < 10 else 1}f} s"
        label = f" ({self.label})" if self.label else ""
        relation = "<=" if self.ok else "exceeds" if self.value is not None else "against"
        return f"{self.name} {value} {relation} {self.limit:g} s{label}"


@dataclasses.dataclass(frozen=True)
class Objectives:
    """The objectives of a suite, for the cluster they apply to."""

    limits: Mapping[int, Mapping[str, Limit]]
    default: Mapping[str, Limit]
    note: str = ""
    """Why there are none, if that needs to be said."""

    def check(self, level: int, figures: Figures) -> tuple[Outcome, ...]:
        """Each objective of a level against its figures."""
        limits = {**self.default, **self.limits.get(level, {})}
        return tuple(
            Outcome(name, limit.limit, _figure(figures, name), limit.label)
            for name, limit in limits.items()
        )


NO_OBJECTIVES = Objectives({}, {}, "no objective")


def load(path: Path) -> tuple[AppliesTo, Objectives]:
    """The objectives in a file, and which clusters they are for.

    Raises `ConfigurationError`: which key is wrong, and what was expected.
    """
    file = validate(_File, read_mapping(path, "objectives"), f"the objectives {path}")
    return file.applies_to, Objectives(file.levels, file.default)


def for_cluster(
    found: tuple[AppliesTo, Objectives], simulated: str, profile: str | None
) -> Objectives:
    """The objectives found in a file, if they are for a cluster of this kind; else none."""
    applies_to, objectives = found
    if applies_to.simulated not in (None, simulated) or applies_to.profile not in (None, profile):
        return NO_OBJECTIVES
    return objectives


def _figure(figures: Figures, name: str) -> float | None:
    subject, statistic = name.split(" ")
    summary = figures.deletion if subject == DELETION else figures.phases[subject]
    value: Any = dict(summary).get(statistic)
    return None if value is None else round(float(value), DIGITS)
