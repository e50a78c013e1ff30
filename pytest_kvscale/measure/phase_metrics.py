"""KubeVirt's own metric of how long phases took, beside what we saw ourselves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

from pytest_kvscale.measure.clocks import DELIVERY, RESOLUTION
from pytest_kvscale.measure.histograms import Bucketed, bucketed, buckets_of, contradicts
from pytest_kvscale.measure.percentiles import nearest_rank
from pytest_kvscale.measure.series import Series, Window, begins_unknown
from pytest_kvscale.measure.timeline import PHASES, Timeline

METRIC = "kubevirt_vmi_phase_transition_time_from_creation_seconds"
"""The same name since 2021; its largest bucket was 600 s then and is 3,600 s now."""


class PhaseMetrics(TypedDict):
    """What the metric says of a level."""

    phases: dict[str, Bucketed]
    warnings: list[str]
    """Where it contradicts what we saw; one sentence each."""


def phase_metrics(
    series: Iterable[Series],
    up: Sequence[Series],
    started: Sequence[Series],
    window: Window,
    timelines: Sequence[Timeline],
) -> PhaseMetrics:
    """The percentiles of each phase that was counted, and whether they agree with ours."""
    found, warnings = [], []
    for each in series:
        if begins_unknown(each, window, up, started):
            who = each.labels.get("pod") or each.labels.get("instance", "an instance")
            told = (
                f"Prometheus has scraped {who} only since the level began: what it had counted "
                "before is not known, and its counts are left out"
            )
            warnings += [] if told in warnings else [told]
        else:
            found.append(each)
    phases = {}
    for phase in PHASES:
        buckets = buckets_of((each for each in found if each.labels.get("phase") == phase), window)
        if not buckets or max(buckets.values()) <= 0:
            continue
        if math.inf in buckets:
            phases[phase] = bucketed(buckets)
        else:
            warnings.append(
                f"Prometheus has no last bucket (le +Inf) of {phase}: how many it counted is not "
                "known, and its figures are left out"
            )
    return PhaseMetrics(phases=phases, warnings=[*warnings, *_compared(phases, timelines)])


def _compared(phases: Mapping[str, Bucketed], timelines: Sequence[Timeline]) -> Iterable[str]:
    requests = [
        each.creation.acked - each.sent
        for each in timelines
        if each.creation.acked is not None and each.sent is not None
    ]
    early = RESOLUTION + DELIVERY + max(requests, default=0.0)
    for phase, found in phases.items():
        took = (each.since_sent(each.phases.get(phase)) for each in timelines)
        ours = sorted(each for each in took if each is not None)
        if len(ours) != found["n"]:
            yield (
                f"Prometheus counted {found['n']} VMIs in {phase}, we saw {len(ours)}: "
                + (
                    "others' VMIs are in its figures (the metric has no namespace)"
                    if found["n"] > len(ours)
                    else "what an instance counted after its last scrape is lost when it ends"
                )
            )
            continue
        p95 = nearest_rank(ours, len(ours), 95)
        if contradicts(found, p95, early, RESOLUTION):
            high = found["p95_high"]
            upper = "or more" if high is None else f"to {high:g} s"
            yield (
                f"Prometheus has p95 of {phase} at {found['p95_low']:g} s {upper}, we saw "
                f"{p95:.1f} s: they do not agree"
            )
