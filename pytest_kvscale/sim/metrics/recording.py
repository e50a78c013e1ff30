"""Samples of all metrics over a run, for a Prometheus that was not there: OpenMetrics with dates.

A virtual hour is over in a second, so nobody can scrape it. Instead the recorder takes all
components' metrics every so many seconds of the cluster's time, as a Prometheus with these targets
would have, and writes a file for `promtool tsdb create-blocks-from openmetrics`. Dates are of the
scraper's clock: the cluster's epoch, and the time since; a server's clock that jumps does not
shift them. A component that was not reached has no samples at that time.
"""

from __future__ import annotations

import array
import asyncio
import dataclasses
import fnmatch
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client.core import Timestamp
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.samples import Sample

from pytest_kvscale.sim.metrics.served import Told

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
Labels = tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Target:
    """What is scraped: labels Prometheus would add, and what is told there now."""

    labels: dict[str, str]
    tell: Callable[[], Iterable[Metric]]


@dataclasses.dataclass
class _Series:
    """One series: values, and at which of the recording's moments each was taken."""

    moments: array.array[int] = dataclasses.field(default_factory=lambda: array.array("L"))
    values: array.array[float] = dataclasses.field(default_factory=lambda: array.array("d"))


@dataclasses.dataclass
class _Family:
    """One metric family, with its series by sample name and labels, in the order first seen."""

    type: str
    text: str
    series: dict[tuple[str, Labels], _Series] = dataclasses.field(default_factory=dict)


class Recording:
    """Samples taken of these targets; `date` is Unix time by the scraper's clock.

    Only families whose name matches one of the patterns are kept.
    """

    def __init__(
        self,
        targets: Callable[[], Iterable[Target]],
        date: Callable[[], float],
        names: Sequence[str] = ("*",),
    ) -> None:
        self._targets = targets
        self._date = date
        self._names = names
        self._dates: array.array[float] = array.array("d")
        self._families: dict[str, _Family] = {}

    @property
    def samples(self) -> int:
        """How many times all targets were asked."""
        return len(self._dates)

    async def run(self, every: float) -> None:
        """Take samples at once, and then every so many seconds, until cancelled."""
        while True:
            self.take()
            await asyncio.sleep(every)

    def take(self) -> None:
        """Take one sample of all."""
        moment = len(self._dates)
        self._dates.append(round(self._date(), 3))
        for target in self._targets():
            fixed = target.labels
            for metric in target.tell():
                if not any(fnmatch.fnmatchcase(metric.name, each) for each in self._names):
                    continue
                family = self._families.get(metric.name)
                if family is None:
                    family = _Family(metric.type, metric.documentation)
                    self._families[metric.name] = family
                for sample in metric.samples:
                    key = sample.name, (*sorted({**sample.labels, **fixed}.items()),)
                    series = family.series.get(key)
                    if series is None:
                        series = family.series[key] = _Series()
                    series.moments.append(moment)
                    series.values.append(sample.value)

    def openmetrics(self) -> str:
        """All samples as an OpenMetrics text."""
        written: bytes = generate_latest(Told(self._metrics()))  # type: ignore[no-untyped-call]
        return written.decode()

    def _metrics(self) -> Iterator[Metric]:
        stamps = [Timestamp(int(date), round(date % 1 * 1e9)) for date in self._dates]
        for name in sorted(self._families):
            family = self._families[name]
            metric = Metric(name, family.text, family.type)
            for (sample, labels), series in family.series.items():
                named = dict(labels)
                metric.samples.extend(
                    Sample(sample, named, value, stamps[moment])
                    for moment, value in zip(series.moments, series.values, strict=True)
                )
            yield metric
