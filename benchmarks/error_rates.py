"""How often a comparison is wrong: verdicts on simulated pairs whose truth is known.

- *Equal pairs*: nothing changed; how often anything of a family fails. A family of one pair, and
  one of 5 levels with 4 metrics each.
- *Worse pairs*: one level and metric became 10 or 20 % worse. Beside it what is possible at all
  with known noise (a z-test with one-sided alpha of 1 %), what a t-test reaches, and what a fixed
  threshold of twice the value of a single run before would have found.
- *Drift*: equal runs of a cluster that becomes slower by itself, in turns and one side after the
  other, and how often that hides or makes a change.
- *Change points*: steady histories, and such with a shift of 20 % before the last five runs.

It runs what users run, `judge_changes` and `change_points`, on all cores; the draws are keyed, so
that each session prints the same figures. The tables are in `docs/error-rates.md`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from benchmarks.options import Options
from benchmarks.scenarios import DRIFTING, STEADY, Logs, Scenario
from pytest_kvscale.judge.change import Change, Metric, Noise, Pair, Rules, Sample
from pytest_kvscale.judge.change_points import change_points
from pytest_kvscale.judge.noise import noise_of, runs_needed, runs_to_pass
from pytest_kvscale.judge.regression import judge_changes

LEVELS, METRICS = 5, 4
SESSIONS, PAIRS, SERIES = 2000, 4000, 2000
MANY = 100_000
"""Pairs, where a rate should be almost 0."""
FEWER = 200
"""Sessions where a rate need not be exact."""
TYPICAL = 20.0
"""What a metric is about where noise is simulated; the practical threshold is far below."""
TWICE = 2.0
KNOWN = [
    Metric(key, key, "s", "higher", 0.01)
    for key in ("Running.p50", "Running.p95", "deletion.p95", "requests_per_vmi")
]


@dataclasses.dataclass(frozen=True)
class Design:
    """How many runs there are."""

    before: int
    after: int
    calibration: int = 0
    """Equal runs of a calibration; its noise is used."""

    def __str__(self) -> str:
        also = f", calibrated with {self.calibration}" if self.calibration else ""
        return f"{self.before}+{self.after}{also}"


DESIGNS = (Design(3, 3), Design(5, 5), Design(10, 10), Design(1, 1, 10), Design(5, 5, 10))
FEW = (Design(3, 3), Design(5, 5), Design(10, 10))


@dataclasses.dataclass(frozen=True)
class Case:
    """What is played many times."""

    scenario: Scenario
    design: Design
    worse: float = 0.0
    """How much worse it is after, of the first pair."""
    levels: int = 1
    metrics: int = 1


@dataclasses.dataclass(frozen=True)
class Rates:
    """Shares of sessions."""

    any_fail: float
    """Any pair of the family failed."""
    fail: float
    """The first pair did."""
    passed: float
    inconclusive: float
    drift: float
    """The first pair is inconclusive because of drift."""
    twice: float
    """Any single run after is above twice a single run before."""
    t_test: float
    """The first pair fails by Student's t-test alone, one-sided at alpha."""


def measure(options: Options) -> None:
    """Print the tables."""
    del options
    began = time.perf_counter()
    with ProcessPoolExecutor(initializer=_warm) as pool:
        tables = (
            _equal(pool, "Equal pairs", STEADY, DESIGNS), _worse(pool),
            _wrong_passes(pool),
            _equal(pool, "Drift, equal pairs", DRIFTING, FEW[1:]), _worse_in_order(pool),
            _histories(pool), _runs_needed(),
        )  # fmt: skip
        for line in itertools.chain(*tables):
            print(line, flush=True)
    print(f"\n{time.perf_counter() - began:.0f} s")


# Tables ---------------------------------------------------------------------------------------


def _equal(
    pool: ProcessPoolExecutor, title: str, scenarios: Sequence[Scenario], designs: Sequence[Design]
) -> Iterator[str]:
    cases = [(scenario, design) for scenario in scenarios for design in designs]
    family = pool.map(
        _play, [Case(*each, levels=LEVELS, metrics=METRICS) for each in cases],
        [SESSIONS] * len(cases),
    )  # fmt: skip
    alone = pool.map(_play, [Case(*each) for each in cases], [PAIRS] * len(cases))
    yield f"\n### {title}\n"
    yield (
        f"| scenario | runs | fails, family of {LEVELS * METRICS} | fails, one pair | passes | "
        "inconclusive | of that drift | 2x, family | 2x, one pair |"
    )
    yield "|---|---|--:|--:|--:|--:|--:|--:|--:|"
    for (scenario, design), many, one in zip(cases, family, alone, strict=True):
        yield (
            f"| {scenario.name} | {design} | {many.any_fail:.2%} | {one.fail:.2%} | "
            f"{one.passed:.1%} | {one.inconclusive:.1%} | {one.drift:.1%} | {many.twice:.1%} | "
            f"{one.twice:.1%} |"
        )


def _worse(pool: ProcessPoolExecutor) -> Iterator[str]:
    designs = (*FEW, Design(5, 5, 10), Design(1, 1, 10))
    cases = [
        Case(scenario, design, worse)
        for worse in (0.10, 0.20) for scenario in STEADY for design in designs
    ]  # fmt: skip
    alone = pool.map(_play, cases, [PAIRS] * len(cases))
    within = pool.map(
        _play,
        [dataclasses.replace(each, levels=LEVELS, metrics=METRICS) for each in cases],
        [FEWER] * len(cases),
    )
    yield "\n### Worse pairs\n"
    yield (
        "| worse by | scenario | runs | fails | inconclusive | passes | t-test at 1 % | "
        f"known noise | 2x | fails as one of {LEVELS * METRICS} |"
    )
    yield "|--:|---|---|--:|--:|--:|--:|--:|--:|--:|"
    for case, one, many in zip(cases, alone, within, strict=True):
        yield (
            f"| {case.worse:.0%} | {case.scenario.name} | {case.design} | {one.fail:.1%} | "
            f"{one.inconclusive:.1%} | {one.passed:.2%} | {_shown(one.t_test)} | "
            f"{_shown(_bound(case))} | {one.twice:.1%} | {many.fail:.1%} |"
        )


def _wrong_passes(pool: ProcessPoolExecutor) -> Iterator[str]:
    cases = [Case(STEADY[1], design, 0.10) for design in FEW]
    found = pool.map(_play, cases, [MANY] * len(cases))
    passed = ", ".join(
        f"{round(each.passed * MANY)} ({case.design})"
        for case, each in zip(cases, found, strict=True)
    )
    yield f"\nOf {MANY:,} pairs each that are 10 % worse, noise {STEADY[1].name}, pass: {passed}."


def _worse_in_order(pool: ProcessPoolExecutor) -> Iterator[str]:
    steady = [dataclasses.replace(STEADY[1], order="one after the other")]
    cases = [
        Case(scenario, design, worse)
        for worse in (0.10, 0.20) for scenario in (*steady, *DRIFTING) for design in FEW[1:]
    ]  # fmt: skip
    found = pool.map(_play, cases, [PAIRS // 2] * len(cases))
    yield "\n### Drift, worse pairs\n"
    yield "| worse by | scenario | runs | fails | inconclusive | of that drift | passes |"
    yield "|--:|---|---|--:|--:|--:|--:|"
    for case, one in zip(cases, found, strict=True):
        name = case.scenario.name
        if not case.scenario.drifts:
            name = f"no drift, {name}, {case.scenario.order}"
        yield (
            f"| {case.worse:.0%} | {name} | {case.design} | {one.fail:.1%} | "
            f"{one.inconclusive:.1%} | {one.drift:.1%} | {one.passed:.2%} |"
        )


def _histories(pool: ProcessPoolExecutor) -> Iterator[str]:
    cases = [(scenario, runs) for scenario in STEADY for runs in (20, 40, 60)]
    steady = pool.map(partial(_history, 0.0, SERIES), cases)
    shifted = pool.map(partial(_history, 0.20, FEWER), cases)
    yield "\n### Change points\n"
    yield (
        "| scenario | runs | steady: any found | 20 % since five runs: found | and within one run |"
    )
    yield "|---|--:|--:|--:|--:|"
    for (scenario, runs), none, five in zip(cases, steady, shifted, strict=True):
        yield f"| {scenario.name} | {runs} | {none[0]:.2%} | {five[0]:.1%} | {five[1]:.1%} |"


def _runs_needed() -> Iterator[str]:
    worsenings = (0.10, 0.15, 0.20, 0.50, 1.00)
    yield "\n### Runs needed on each side\n"
    found = " | ".join(f"{each:.0%}" for each in worsenings)
    many = f"{LEVELS * METRICS} pairs"
    ends = " | ".join(f"{each:.0%}, {many}" for each in worsenings)
    yield f"| noise | equal passes at 5% | at 10% | {found} | {ends} |"
    yield "|--:|" + "--:|" * (2 + 2 * len(worsenings))
    for sd in (0.01, 0.02, 0.03, 0.05, 0.10, 0.20):
        row = [runs_to_pass(sd, Rules(relative=each)) for each in (0.05, 0.10)]
        row += [
            runs_needed(sd, each, family=family)
            for family in (1, LEVELS * METRICS)
            for each in worsenings
        ]
        yield (
            f"| {sd:.0%} | " + " | ".join("-" if each is None else str(each) for each in row) + " |"
        )


# Playing --------------------------------------------------------------------------------------


def _warm() -> None:
    """Import the libraries of a worker before its first case."""
    judge_changes([_pair(0, np.zeros(6), Design(3, 3), list(range(6)), None)])


def _play(case: Case, sessions: int) -> Rates:
    scenario, design = case.scenario, case.design
    runs = design.before + design.after
    rng = _draws(f"{scenario.name} {design} {case.worse} {case.levels}")
    logs = scenario.draw(rng, (sessions, case.levels, case.metrics, runs))
    # A calibration is of the steady cluster, or of another session of one that is not.
    equal = scenario.draw(rng, (sessions, case.levels, case.metrics, max(design.calibration, 1)))
    places = scenario.places(design.before, design.after)
    logs = logs[..., places]
    logs[:, 0, 0, design.before :] += math.log1p(case.worse)
    counts: Counter[str] = Counter()
    for session, calibration in zip(logs, equal, strict=True):
        changes = _judged(session, calibration, design, places)
        first = changes[0]
        counts[first.verdict] += 1
        counts["drift"] += first.verdict == "inconclusive" and first.reason.startswith("drift")
        counts["any"] += any(each.verdict == "fail" for each in changes)
    apart = logs[:, :, :, design.before] - logs[:, :, :, 0]
    return Rates(
        any_fail=counts["any"] / sessions, fail=counts["fail"] / sessions,
        passed=counts["pass"] / sessions, inconclusive=counts["inconclusive"] / sessions,
        drift=counts["drift"] / sessions,
        twice=float(np.mean((apart > math.log(TWICE)).any(axis=(1, 2)))),
        t_test=_t_test(logs[:, 0, 0], design.before),
    )  # fmt: skip


def _judged(session: Logs, calibration: Logs, design: Design, places: list[int]) -> list[Change]:
    noises: list[Noise | None] = [None] * session[..., 0].size
    if design.calibration:
        noises = [
            noise_of([[_sample(each) for each in metric]])
            for level in calibration
            for metric in level
        ]
    rows = session.reshape(-1, session.shape[-1])
    return judge_changes(
        [
            _pair(number, row, design, places, noise)
            for number, (row, noise) in enumerate(zip(rows, noises, strict=True))
        ]
    )


def _pair(number: int, row: Logs, design: Design, places: list[int], noise: Noise | None) -> Pair:
    level = number // METRICS
    samples = [
        _sample(log, place, f"{level}-{place}") for log, place in zip(row, places, strict=True)
    ]
    return Pair(
        level, KNOWN[number % METRICS], tuple(samples[: design.before]),
        tuple(samples[design.before :]), noise,
    )  # fmt: skip


def _sample(log: float, place: int = 0, run: str = "") -> Sample:
    return Sample(TYPICAL * math.exp(log), 1800.0 * place, run)


def _history(worse: float, series: int, case: tuple[Scenario, int]) -> tuple[float, float]:
    """How often any change point is found, and how often one is within a run of the right one."""
    scenario, runs = case
    rng = _draws(f"history {scenario.name} {runs} {worse}")
    logs = scenario.draw(rng, (series, 1, 1, runs))[:, 0, 0]
    logs[:, -5:] += math.log1p(worse)
    found = [change_points([TYPICAL * math.exp(each) for each in one]) for one in logs]
    near = [any(abs(each.index - (runs - 5)) <= 1 for each in points) for points in found]
    return sum(map(bool, found)) / series, sum(near) / series


def _draws(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


# What others would have done ------------------------------------------------------------------


def _t_test(logs: Logs, before: int) -> float:
    from scipy import stats

    if before < 2:
        return math.nan
    with warnings.catch_warnings():
        # Runs of the embedded cluster may be alike.
        warnings.simplefilter("ignore", RuntimeWarning)
        found = stats.ttest_ind(logs[:, before:], logs[:, :before], axis=1, alternative="greater")
    return float(np.mean(found.pvalue <= Rules().alpha))


def _bound(case: Case) -> float:
    """How often a z-test that knows the noise finds the change."""
    from scipy import stats

    if case.scenario.sd is None:
        return math.nan
    error = case.scenario.sd * math.sqrt(1 / case.design.before + 1 / case.design.after)
    return float(
        stats.norm.sf(stats.norm.isf(Rules().alpha) - math.log1p(case.worse) / error)
    )  # fmt: skip


def _shown(rate: float) -> str:
    return "" if math.isnan(rate) else f"{rate:.1%}"
