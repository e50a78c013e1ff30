"""Metric families: what one scrape tells, in the shape the Prometheus client library writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric

from pytest_kvscale.sim.metrics.histogram import Histogram

Labels = tuple[str, ...]


def counter(name: str, text: str, labels: Iterable[str], values: Mapping[Labels, float]) -> Metric:
    """A counter; its name ends on `_total`."""
    family = CounterMetricFamily(name.removesuffix("_total"), text, labels=tuple(labels))
    for key in sorted(values):
        family.add_metric(key, values[key])
    return family


def gauge(name: str, text: str, labels: Iterable[str], values: Mapping[Labels, float]) -> Metric:
    """A gauge."""
    family = GaugeMetricFamily(name, text, labels=tuple(labels))
    for key in sorted(values):
        family.add_metric(key, values[key])
    return family


def histogram(
    name: str, text: str, labels: Iterable[str], values: Mapping[Labels, Histogram]
) -> Metric:
    """A histogram."""
    family = HistogramMetricFamily(name, text, labels=tuple(labels))
    for key in sorted(values):
        held = values[key]
        family.add_metric(key, list(held.buckets()), held.sum)
    return family
