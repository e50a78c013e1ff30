"""A run's results as far as comparisons need them, checked before anything is made of them.

What is kept of a `results.json` is what the models below name, and no more: this is also the form
in which a baseline is kept. Everything in it may come from a file that somebody else wrote.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.json_files import showable
from pytest_kvscale.judge.comparable import digest

SCHEMA = "kvscale/v1"
_SCHEMAS = re.compile(r"kvscale/v([1-9][0-9]{0,8})")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(:before|:after)?")
_PERCENTILES = ("p50", "p90", "p95", "p99")
_SHOWN = 60
"""Characters of a wrong value that an error shows."""

Json = dict[str, Any]
Side = Literal["before", "after"]
Text = Annotated[str, AfterValidator(showable)]
Name = Annotated[
    str, Field(max_length=300), AfterValidator(lambda text: " ".join(showable(text).split()))
]
"""Text that stands in a line."""
Count = Annotated[int, Field(ge=0, le=10**9)]
Amount = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]
Plain = str | int | float | bool | None


@dataclasses.dataclass(frozen=True)
class RunFile:
    """One run as comparisons see it; the run of an upgrade is two, `ID:before` and `ID:after`."""

    id: str
    started: str | None
    """When it began, as ISO 8601; None: not known."""
    simulated: str
    """`sim`, `hollow` or `false`."""
    profile: str | None
    kubevirt: str
    comparable: Mapping[str, Any]
    """All that makes two runs comparable, by plain names (`judge/comparable.py`)."""
    levels: tuple[Json, ...]
    """Levels as in `results.json`, in the order they ran; of their fields those of `Level`."""
    source: str
    """Where it was read."""
    kubernetes: str = ""
    uid: str = ""
    """The cluster's; empty: not known."""
    seed: int | None = None
    """Of the embedded cluster."""

    @property
    def is_of_upgrade(self) -> bool:
        """Whether it is one side of an upgrade's run."""
        return ":" in self.id

    @property
    def began(self) -> float | None:
        """When it began, in POSIX seconds."""
        if self.started is None:
            return None
        return _moment(self.started).timestamp()

    @property
    def fingerprint(self) -> str:
        """The digest of `comparable`."""
        return digest(self.comparable)

    def as_json(self) -> Json:
        """As a small `results.json`, of what comparisons need."""
        run = {"id": self.id, "started": self.started, "simulated": self.simulated,
               "profile": self.profile, "seed": self.seed}  # fmt: skip
        cluster = {"uid": self.uid, "kubernetes": self.kubernetes, "kubevirt": self.kubevirt,
                   "comparable": dict(self.comparable)}  # fmt: skip
        return {"schema": SCHEMA, "run": run, "cluster": cluster, "levels": list(self.levels)}


def run_file(content: Any, source: str) -> RunFile:
    """A run of the content of a `results.json`; of an upgrade's run what came after it.

    Raises `ConfigurationError` for what is none: one sentence that begins with `source`.
    """
    return run_files(content, source)[-1]


def run_files(content: Any, source: str) -> tuple[RunFile, ...]:
    """As `run_file`, with both sides of an upgrade: before, after."""
    _check_schema(content, source)
    try:
        file = _File.model_validate(content)
    except ValidationError as problem:
        raise ConfigurationError(f"{source} cannot be used: {_explain(problem)}") from None
    if file.upgrade is None:
        return (_of(file, file.cluster, "", source),)
    return (
        _of(file, file.upgrade.before, "before", source),
        _of(file, file.cluster, "after", source),
    )


def _of(file: _File, cluster: _Cluster, side: str, source: str) -> RunFile:
    run = file.run
    levels = _labelled(each for each in file.levels if not side or each.side == side)
    return RunFile(
        id=f"{run.id}:{side}" if side else run.id,
        started=run.started,
        simulated=run.simulated,
        profile=run.profile,
        kubevirt=cluster.kubevirt,
        comparable=cluster.comparable,
        levels=tuple(levels),
        source=source,
        kubernetes=cluster.kubernetes,
        uid=cluster.uid,
        seed=run.seed,
    )


def _labelled(levels: Iterable[Level]) -> Iterator[Json]:
    """Levels as plain data, each with what its run is called: `400`, the second one `400-2`."""
    times: collections.Counter[int] = collections.Counter()
    for each in levels:
        times[each.level] += 1
        number = times[each.level]
        label = each.label or (f"{each.level}-{number}" if number > 1 else str(each.level))
        yield {**each.model_dump(), "label": label}


class _Part(BaseModel):
    """A part of the file: values have the type they should have; other keys are left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class Summary(_Part):
    """A sample's percentiles in seconds, as `measure/percentiles.py` makes them."""

    n: Count
    censored: Count
    p50: Amount | None = None
    p90: Amount | None = None
    p95: Amount | None = None
    p99: Amount | None = None
    max: Amount | None = None
    mean: Amount | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        values = [getattr(self, each) for each in _PERCENTILES]
        reached = [each for each in values if each is not None]
        if reached != sorted(reached) or None in values[: len(reached)]:
            raise ValueError("its percentiles are not in order")
        for name in _PERCENTILES:
            rank = -(-int(name[1:]) * (self.n + self.censored) // 100)
            if getattr(self, name) is not None and not 0 < rank <= self.n:
                raise ValueError(f"it has a {name}, which {self.n} values cannot have")
        if self.p50 is None and self.n > self.censored:
            raise ValueError("it has no p50, which most values reached")
        return self


class _Way(_Part):
    seconds: Amount
    steps: dict[Name, Amount] = {}


class _Slowest(_Part):
    vmis: Count
    of: Count
    slow: _Way
    median: _Way


class _Rate(_Part):
    mean: Amount | None = None
    peak: Amount | None = None


class _Rates(_Part):
    created_per_s: Amount | None = None
    running_per_min: _Rate = _Rate()
    containers_per_min: _Rate = _Rate()


class _Pacing(_Part):
    qps: Amount | None = None
    achieved_qps: Amount | None = None
    lag_p99: Amount | None = None


class _Queue(_Part):
    depth: Amount | None = None
    latency: Amount | None = None


class _Component(_Part):
    requests: dict[Name, Amount] | None = None
    throttled: Amount | None = None
    queues: dict[Name, _Queue] = {}
    cpu: Amount | None = None
    memory: Amount | None = None


class _ControlPlane(_Part):
    source: Name = "none"
    note: Text = ""
    vmis: Count = 0
    components: dict[Name, _Component] = {}
    requests_per_vmi: dict[Name, dict[Name, Amount]] = {}


class _Wall(_Part):
    name: Name
    fits: Count
    certain: bool = False


class _Preflight(_Part):
    walls: list[_Wall] = []


class Level(_Part):
    """One run of a level: what comparisons, trends and attributions read of it."""

    level: Annotated[int, Field(gt=0, le=10**9)]
    label: Name | None = None
    side: Side | None = None
    began: Annotated[float, Field(gt=-1e15, lt=1e15)] | None = None
    """POSIX seconds; None: its time has no date, or is not known."""
    verdict: Literal["pass", "fail", "inconclusive"]
    reasons: list[Text] = []
    test: Name | None = None
    ended: Text
    requested: Count
    created: Count
    running: Count
    deleted: Count = 0
    left_behind: Count = 0
    failures: dict[Name, Count]
    phases: dict[Literal["Scheduling", "Scheduled", "Running"], Summary]
    slowest: _Slowest | None = None
    deletion: Summary
    rates: _Rates = _Rates()
    pacing: _Pacing = _Pacing()
    control_plane: _ControlPlane = _ControlPlane()
    preflight: _Preflight = _Preflight()

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        what = f"level {self.level}"
        if "Running" not in self.phases:
            raise ValueError(f"{what} has no figures of Running")
        if self.requested < self.level:
            raise ValueError(f"{what} asked for {self.requested} VMIs")
        if max(self.created, self.running) > self.requested or self.deleted > self.created:
            raise ValueError(
                f"{what} has {self.created} VMIs created, {self.running} running and "
                f"{self.deleted} deleted of {self.requested}"
            )
        for phase, found in self.phases.items():
            if found.n + found.censored != self.requested:
                raise ValueError(
                    f"{what} has figures of {found.n + found.censored} VMIs for {phase}, and asked "
                    f"for {self.requested}"
                )
        return self


class _Run(_Part):
    id: str
    started: str | None = None
    simulated: Literal["sim", "hollow", "false"]
    profile: Name | None = None
    seed: Annotated[int, Field(ge=0)] | None = None

    @field_validator("id")
    @classmethod
    def _is_id(cls, value: str) -> str:
        if not _ID.fullmatch(value):
            raise ValueError("it is no id of a run")
        return value

    @field_validator("started")
    @classmethod
    def _is_date(cls, value: str | None) -> str | None:
        if value is not None:
            _moment(value)
        return value


class _Cluster(_Part):
    uid: Name = ""
    kubernetes: Name = ""
    kubevirt: Name
    comparable: Annotated[dict[Name, Text | Plain], Field(min_length=1)]


class _Upgrade(_Part):
    before: _Cluster


class _File(_Part):
    run: _Run
    cluster: _Cluster
    levels: Annotated[list[Level], Field(max_length=2_000)]
    upgrade: _Upgrade | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        sides = [self.cluster, *([self.upgrade.before] if self.upgrade else [])]
        for cluster in sides:
            said = {"simulated": self.run.simulated, "versions.kubevirt": cluster.kubevirt}
            for name, value in said.items():
                if cluster.comparable.get(name) != value:
                    raise ValueError(
                        f"it contradicts itself: {name} is {value!r}, and in `comparable` "
                        f"{cluster.comparable.get(name)!r}"
                    )
        if self.upgrade and not all(each.side for each in self.levels):
            raise ValueError("it is of an upgrade, and does not say of each level on which side")
        return self


def _check_schema(content: Any, source: str) -> None:
    """Say what it is, if it is no results of a version that is known."""
    other = f"{source} is no results.json of pytest-kvscale"
    if not isinstance(content, dict):
        raise ConfigurationError(f"{other}: it is {_kind(content)}, not an object")
    schema = content.get("schema")
    if schema == SCHEMA:
        return
    if "schema" not in content:
        raise ConfigurationError(f"{other}: it names no schema")
    found = _SCHEMAS.fullmatch(schema) if isinstance(schema, str) else None
    if found:
        raise ConfigurationError(
            f"{source} was written by a newer version: its schema is {schema}, and this one reads "
            f"{SCHEMA}"
        )
    raise ConfigurationError(f"{other}: its schema is {_brief(schema)}, not {SCHEMA}")


def _moment(text: str) -> datetime.datetime:
    try:
        moment = datetime.datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
        moment.timestamp()
    except (ValueError, OverflowError):
        raise ValueError("it is no date and time") from None
    return moment


def _explain(problem: ValidationError) -> str:
    first = problem.errors()[0]
    # Branches of unions stand in the path, too; they are no keys of the file.
    path = ".".join(str(each) for each in first["loc"] if "[" not in str(each))
    where = f"{showable(path)[:200]}: " if path else ""
    if first["type"] == "missing":
        return f"the key {where[:-2]} is missing"
    if first["type"] == "value_error":
        said = str(first["ctx"]["error"])
        return f"{where}{said}" if path.count(".") != 1 or "level" not in said else said
    said = str(first["msg"])
    return f"{where}{said[:1].lower()}{said[1:]}, got {_brief(first['input'])}"


def _brief(value: Any) -> str:
    if isinstance(value, dict | list):
        return _kind(value)
    shown = repr(showable(value) if isinstance(value, str) else value)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"


def _kind(content: Any) -> str:
    names: dict[type, str] = {
        list: "a list", dict: "an object", str: "text", bool: "true or false", type(None): "null",
        int: "a number", float: "a number",
    }  # fmt: skip
    return names.get(type(content), type(content).__name__)
