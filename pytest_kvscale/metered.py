"""What others count of a level: KubeVirt's own metrics, and what it cost the control plane.

From a Prometheus where there is one, which is asked when the level is over; else from the
components themselves, before and after it. Nothing of this changes what was measured.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence

from pytest_kvscale.cluster import component_metrics
from pytest_kvscale.cluster.client import Client
from pytest_kvscale.cluster.clock import now, utc_now
from pytest_kvscale.cluster.component_metrics import Snapshot
from pytest_kvscale.cluster.prometheus import Access, Prometheus, PrometheusError, by_url, find
from pytest_kvscale.measure import control_plane
from pytest_kvscale.measure.clocks import Clocks
from pytest_kvscale.measure.cost import nothing
from pytest_kvscale.measure.counted import Counted
from pytest_kvscale.measure.observe import Observer
from pytest_kvscale.measure.phase_metrics import METRIC, PhaseMetrics, phase_metrics
from pytest_kvscale.measure.series import Series, Window, begins_unknown, covers

SLACK = 90.0
"""Seconds after a level within which Prometheus must have scraped once more."""
LOOK_BACK = 300.0
"""Seconds before a level in which a counter's last sample is looked for."""
_API = "apiserver"
_LAG = 1.0
"""Seconds by which a component may know of something later than we do."""
_PAUSE = 1.0
_ALL = "|".join(f"(kubevirt_)?{name}" for name in control_plane.NAMES)
_OURS = '{__name__=~"%s",container=~"virt-.*|"}'
_SERVED = f"sum by (instance, job, verb, resource, subresource) ({control_plane.SERVED})"


async def prometheus_of(client: Client, setting: str, access: Access) -> Found:
    """The Prometheus a run asks, or why it asks none: `setting` is a URL, `auto` or `none`."""
    if setting == "none":
        return Found(None, "Prometheus was not asked (--kvscale-prometheus none)")
    if setting == "auto":
        prometheus = await find(client.apart("metrics"))
        if prometheus is None:
            return Found(None, "no Prometheus was found in the cluster (--kvscale-prometheus auto)")
    else:
        prometheus = by_url(setting, access)
    try:
        await prometheus.check(utc_now().timestamp())
    except PrometheusError as problem:
        return Found(None, str(problem))
    return Found(prometheus, "")


@dataclasses.dataclass(frozen=True)
class Found:
    """The Prometheus that is asked; None: `why` there is none."""

    prometheus: Prometheus | None
    why: str


class Meter:
    """Asks for one level, before and after it."""

    def __init__(self, client: Client, namespace: str, node: str, found: Found) -> None:
        """`namespace` is KubeVirt's."""
        # Requests of its own are no cost of the level.
        self._client = client.apart("metrics")
        self._namespace = namespace
        self._node = node
        self._prometheus, self._why = found.prometheus, found.why
        self._before: Snapshot | None = None
        self._began = 0.0

    async def begin(self) -> None:
        """The level is about to begin."""
        if self._prometheus is None:
            self._before, self._began = await self._snapshot(), now()

    async def end(self, observer: Observer, clocks: Clocks, vmis: int) -> Counted:
        """The level is over, its deletion too; so many VMIs were created."""
        if self._prometheus is None:
            return await self._from_components(vmis)
        sent = [each.sent for each in observer.timelines.values() if each.sent is not None]
        distance, unsure = clocks["distance"], clocks["uncertainty"] or 0.0
        if distance is None or not sent or observer.level_end is None:
            note = "Prometheus was not asked: the server stamped nothing, so the time is not known"
            return Counted({}, note, nothing(note), ())
        start, end = min(sent) - distance, observer.level_end - distance
        window = Window(start - unsure, end + unsure + _LAG)
        try:
            return await self._from_prometheus(self._prometheus, window, distance, observer, vmis)
        except PrometheusError as problem:
            return Counted({}, str(problem), nothing(str(problem)), ())

    # Components -----------------------------------------------------------------------------

    async def _snapshot(self) -> Snapshot:
        names = (*control_plane.NAMES, control_plane.SERVED, control_plane.BEGUN)
        return await component_metrics.snapshot(self._client, self._namespace, self._node, names)

    async def _from_components(self, vmis: int) -> Counted:
        before, after = self._before or Snapshot((), ()), await self._snapshot()
        window = Window(self._began, max(now(), self._began + 1e-6))
        new = _begun_anew(before, after)
        note = "; ".join(dict.fromkeys((*before.missing, *after.missing, *new.values())))
        if not after.series:
            return Counted({}, self._why, nothing(note or self._why), ())
        held = {_key(labels): value for labels, value in before.series}
        series = [
            Series(labels, [(window.start, held[_key(labels)]), (window.end, value)])
            if _key(labels) in held and labels["instance"] not in new
            else Series(labels, [(window.end, value)])
            for labels, value in after.series
            # What it stood at before the level must be known, or be 0.
            if (_key(labels) in held or before.knows(labels))
            and not (labels["instance"] in new and labels["container"] == _API)
        ]
        cost = control_plane.cost_of(series, window, vmis, "components", note)
        return Counted({}, self._why, cost, ())

    # Prometheus -----------------------------------------------------------------------------

    async def _from_prometheus(
        self, prometheus: Prometheus, window: Window, distance: float, observer: Observer, vmis: int
    ) -> Counted:
        asking = _Asking(prometheus, window, distance)
        buckets = await asking.scraped(f"{METRIC}_bucket")
        up, started = await asking.targets()
        phases, note = await self._phases(asking, buckets, up, started, observer)
        asked = await asking.samples(_OURS % _ALL) + await asking.samples(_of_jobs())
        # Components without a container's name are in both answers.
        series = {_key(each.labels): each for each in [*asked, *await asking.served()]}
        known, unknown = [], set()
        for each in series.values():
            if control_plane.component_of(each.labels) is None:
                continue
            if begins_unknown(each, window, up, started):
                unknown.add(each.labels.get("pod") or each.labels.get("instance", "an instance"))
            else:
                known.append(each)
        left_out = "; ".join(
            f"{who}: scraped only since the level began, what it had counted before is not known"
            for who in sorted(unknown)
        )
        cost = control_plane.cost_of(known, window, vmis, "prometheus", left_out)
        if not cost["components"]:
            why = f"Prometheus at {prometheus.name} has nothing of the control plane"
            cost = nothing(left_out or why)
        return Counted(phases["phases"], note, cost, phases["warnings"])

    async def _phases(
        self,
        asking: _Asking,
        series: Sequence[Series],
        up: Sequence[Series],
        started: Sequence[Series],
        observer: Observer,
    ) -> tuple[PhaseMetrics, str]:
        bucket, name = f"{METRIC}_bucket", asking.prometheus.name
        empty = f"Prometheus at {name} has no samples of {METRIC} in this level"
        nothing_known = PhaseMetrics(phases={}, warnings=[])
        if not series:
            window = asking.window
            if await asking.prometheus.knows(bucket, window.start - 86400, window.end + SLACK):
                return (
                    nothing_known,
                    f"Prometheus at {name} has no samples of {METRIC} in this level",
                )
            return nothing_known, (
                f"Prometheus at {name} has no metric {METRIC}: does it scrape KubeVirt "
                "(spec.monitorNamespace of the KubeVirt CR, or a ServiceMonitor)?"
            )
        timelines = list(observer.timelines.values())
        found = phase_metrics(series, up, started, asking.window, timelines)
        return found, "" if found["phases"] else empty


@dataclasses.dataclass(frozen=True)
class _Asking:
    """Asks one Prometheus for what was in a window."""

    prometheus: Prometheus
    window: Window
    distance: float

    async def samples(self, selector: str) -> list[Series]:
        """All samples of some series, from before the window to after it."""
        seconds = self.window.end + SLACK - self.window.start + LOOK_BACK
        expression = f"{selector}[{round(seconds)}s]"
        answered = await self.prometheus.query(expression, self.window.end + SLACK)
        return [Series(labels, samples) for labels, samples in answered]

    async def targets(self) -> tuple[list[Series], list[Series]]:
        """What is known of the targets: whether they were scraped, and since when they run."""
        return await self.samples("up"), await self.samples("process_start_time_seconds")

    async def scraped(self, selector: str) -> list[Series]:
        """As `samples`, once one of them was scraped after the window's end."""
        over = self.window.end + SLACK + self.distance
        while True:
            series = await self.samples(selector)
            if any(covers(each, self.window) for each in series) or now() >= over:
                return series
            await asyncio.sleep(min(_PAUSE, max(over - now(), 0.001)))

    async def served(self) -> list[Series]:
        """What API servers answered, summed up: their series are too many for all samples."""
        moments = (self.window.start, self.window.end + SLACK)
        found: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
        for moment in moments:
            for labels, samples in await self.prometheus.query(_SERVED, moment):
                found.setdefault(_key(labels), []).append((moment, samples[-1][1]))
        names = {"__name__": control_plane.SERVED}
        return [Series({**dict(key), **names}, samples) for key, samples in found.items()]


def _begun_anew(before: Snapshot, after: Snapshot) -> dict[str, str]:
    """Instances that are another process than before the level, and what that means."""
    begun = {_key(labels): each for labels, each in before.series}
    found = {}
    for labels, each in after.series:
        if labels["__name__"] == control_plane.BEGUN and begun.get(_key(labels), each) != each:
            who = labels["instance"]
            found[who] = (
                # Behind one address there may be several.
                "another API server answered after the level than before it: what it cost is not "
                "known"
                if labels["container"] == _API
                else f"{who} began anew in the level: what it had counted until then is lost"
            )
    return found


def _of_jobs() -> str:
    names = f"{control_plane.CPU}|{control_plane.MEMORY}"
    jobs = "kubelet|apiserver|kube-apiserver|kubernetes-apiservers|etcd|kube-etcd"
    return f'{{__name__=~"{names}",job=~"{jobs}"}}'


def _key(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))
