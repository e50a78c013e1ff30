"""Objectives: limits for the figures of a level, from a YAML file.

    applies_to: {simulated: sim, profile: blog-2021}   # optional: which cluster they are for
    default:
      Running p95: 5m
      running_per_min mean: ">= 40"
      failures: "<= 1%"
    levels:
      100:
        Running p95: {limit: 240s, label: "published: 200 s"}
        virt-controller PATCH virtualmachineinstances per VMI: 3
      400:
      - Running p95 <= 45m
      - Running p50 > 1m

What may be named stands in `quantities`. A bare limit is the most a figure may be (of rates: the
least). What a level names replaces the default of the same name that limits it from the same side.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from pytest_kvscale import durations
from pytest_kvscale.documents import Document, read_mapping, validate
from pytest_kvscale.judge import quantities
from pytest_kvscale.judge.classes import PENDING, STUCK_TERMINATING
from pytest_kvscale.judge.quantities import ALL_PENDING, FAILURES, Measured, Unit
from pytest_kvscale.measure.cost import COMPONENTS, nothing
from pytest_kvscale.measure.figures import Figures
from pytest_kvscale.measure.percentiles import DIGITS

Operator = Literal["<=", "<", ">=", ">", "=="]
_COMPARE: dict[Operator, Callable[[float, float], bool]] = {
    "<=": operator.le, "<": operator.lt, ">=": operator.ge, ">": operator.gt, "==": operator.eq,
}  # fmt: skip
_MISSED: dict[Operator, str] = {
    "<=": "exceeds", "<": "is not below", ">=": "falls short of", ">": "is not above",
    "==": "is not",
}  # fmt: skip
_WITH_OPERATOR = re.compile(r"\s*(?P<operator><=|>=|==|<|>)\s*(?P<limit>.+)", re.DOTALL)
_SENTENCE = re.compile(r"(?P<name>[^<>=]+?)\s*(?P<limit>(?:<=|>=|==|<|>).+)", re.DOTALL)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(Ki|Mi|Gi|Ti|k|M|G|T)?B?")
_FACTORS = {
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
}  # fmt: skip


class Limit(Document):
    """What a figure may be."""

    unit: Unit = "s"
    """Of the limit: seconds, per cent, bytes, or (empty) a number."""
    operator: Operator = "<="
    limit: float = Field(allow_inf_nan=False)
    label: str = ""
    """Where the limit comes from; shown beside it."""

    @field_validator("limit", mode="before")
    @classmethod
    def _read(cls, value: Any, info: ValidationInfo) -> Any:
        unit = info.data.get("unit", "s")
        if isinstance(value, bool):
            example = {"s": "a duration is expected, e.g. 5m", "%": "a share is expected, e.g. 1%"}
            raise ValueError(example.get(unit, "a number is expected"))  # noqa: TRY004
        number = _parse(value, unit) if isinstance(value, str) else value
        if isinstance(number, int | float) and number <= 0 and (unit in ("s", "B") or number < 0):
            least = "greater than 0" if unit in ("s", "B") else "at least 0"
            raise ValueError(f"input should be {least}, got {value}")
        return number


def _parse(text: str, unit: Unit) -> float:
    if unit == "s":
        return durations.parse(text)
    if unit == "B":
        match = _SIZE.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is no size: write e.g. 500Mi or 2Gi")
        return float(match[1]) * _FACTORS.get(match[2] or "", 1)
    try:
        return float(text.strip().removesuffix("%") if unit == "%" else text)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None


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
    """Objectives as a mapping of names to limits, or as sentences; checked by their names."""
    if isinstance(value, list):
        pairs = [_sentence(each) for each in value]
    elif isinstance(value, Mapping):
        pairs = list(value.items())
    else:
        raise ValueError(  # noqa: TRY004 - what pydantic takes for a wrong value
            f"expected a mapping of objectives to limits, got {value!r}"
        )
    found: dict[str, Any] = {}
    for name, limit in pairs:
        key, made = _limit(str(name), limit)
        if key in found:
            raise ValueError(f"the objective {key!r} is given twice")
        found[key] = made
    return found


def _sentence(text: Any) -> tuple[str, Any]:
    match = _SENTENCE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"expected a sentence like 'Running p95 <= 5m', got {text!r}")
    return match["name"].strip(), match["limit"]


def _limit(name: str, given: Any) -> tuple[str, Any]:
    """The key an objective stands under, and its fields: a bare limit gets its operator."""
    unit = quantities.unit_of(name)
    usual: Operator = ">=" if quantities.is_more_better(name) else "<="
    fields = dict(given) if isinstance(given, Mapping) else {"limit": given}
    if "unit" in fields:
        raise ValueError(f"{name}: the unit of an objective follows from its name")
    text = fields.get("limit")
    match = _WITH_OPERATOR.fullmatch(text) if isinstance(text, str) else None
    if match is not None:
        if "operator" in fields:
            raise ValueError(f"{name}: the operator is given twice")
        fields.update(match.groupdict())
        text = fields["limit"]
    if (
        name.split(" ", maxsplit=1)[0] == FAILURES
        and isinstance(text, str)
        and text.rstrip().endswith("%")
    ):
        unit = "%"
    chosen = fields.setdefault("operator", usual)
    other_side = str(chosen)[:1] != usual[:1]
    return (f"{name} {chosen}" if other_side else name), {"unit": unit, **fields}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One objective against what was measured; `value` is None if there is no figure."""

    name: str
    limit: float
    value: float | None
    label: str
    operator: Operator = "<="
    unit: Unit = "s"
    note: str = "not reached"
    """What to say where there is no value."""

    @property
    def ok(self) -> bool:
        """Whether the objective was met: without a value it never is."""
        return self.value is not None and _COMPARE[self.operator](self.value, self.limit)

    @property
    def margin(self) -> float | None:
        """How far the value is from the limit, in its unit; negative if it is on the wrong side."""
        if self.value is None:
            return None
        room = self.limit - self.value
        if self.operator == "==":
            room = -abs(room)
        return round(-room if self.operator in (">=", ">") else room, DIGITS)

    def text(self) -> str:
        """One line for people."""
        label = f" ({self.label})" if self.label else ""
        limit = show(self.limit, self.unit)
        if self.value is None:
            return f"{self.name} {self.note} against {self.operator} {limit}{label}".replace(
                "against <= ", "against "
            )
        relation = self.operator if self.ok else _MISSED[self.operator]
        return f"{self.name} {show(self.value, self.unit, exact=True)} {relation} {limit}{label}"


def show(value: float, unit: Unit, exact: bool = False) -> str:
    """A quantity for people; `exact` with the digits of what was measured."""
    if unit == "s" and exact:
        return f"{value:.{3 if value < 10 else 1}f} s"
    if unit == "B":
        return f"{value / 2**20:.1f} MiB"
    text = f"{value:.4g}" if math.isfinite(value) and abs(value) < 10000 else f"{value:g}"
    return f"{text} {unit}".rstrip()


@dataclasses.dataclass(frozen=True)
class Objectives:
    """The objectives of a suite, for the cluster they apply to."""

    limits: Mapping[int, Mapping[str, Limit]]
    default: Mapping[str, Limit]
    note: str = ""
    """Why there are none, if that needs to be said."""

    def check(self, level: int, measured: Measured) -> tuple[Outcome, ...]:
        """Each objective of a level against its figures."""
        limits = {**self.default, **self.limits.get(level, {})}
        return tuple(_outcome(key, limit, measured) for key, limit in limits.items())

    def before_deletion(self) -> Objectives:
        """Those that can be judged before anything is deleted, and what it cost is counted."""
        limits = {level: _known_before(each) for level, each in self.limits.items()}
        return dataclasses.replace(self, limits=limits, default=_known_before(self.default))


def _known_before(limits: Mapping[str, Limit]) -> dict[str, Limit]:
    later = (*COMPONENTS, quantities.DELETION, "left_behind")
    return {key: each for key, each in limits.items() if key.partition(" ")[0] not in later}


NO_OBJECTIVES = Objectives({}, {}, "no objective")


def _outcome(key: str, limit: Limit, measured: Measured) -> Outcome:
    name = key.removesuffix(f" {limit.operator}")
    value = quantities.value_of(name, measured)
    if value is not None and limit.unit == "%":
        value = 100 * value / measured.figures.requested
    is_cost = name.partition(" ")[0] in COMPONENTS
    return Outcome(
        name,
        limit.limit,
        None if value is None else round(value, DIGITS),
        limit.label,
        limit.operator,
        limit.unit,
        "not measured" if is_cost else "not reached",
    )


def judged_by(outcomes: Iterable[Outcome], failures: Iterable[str]) -> set[str]:
    """The failure classes that an objective judges.

    Who writes down how many failures may be has taken the rule that none may be into his hands.
    """
    named = {each.name.partition(" ")[2] for each in outcomes if _is_of_failures(each.name)}
    return {
        each
        for each in failures
        if each != STUCK_TERMINATING
        and ("" in named or each in named or (each in PENDING and ALL_PENDING in named))
    }


def _is_of_failures(name: str) -> bool:
    return name.partition(" ")[0] == FAILURES


def measured(figures: Figures, failures: Mapping[str, int] | None = None) -> Measured:
    """A level of which no cost is known."""
    return Measured(figures, failures or {}, nothing(""))


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
