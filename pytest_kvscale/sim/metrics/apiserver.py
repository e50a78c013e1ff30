"""What kube-apiserver counts: requests answered, under way, and objects stored."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from pytest_kvscale.sim.metrics import families
from pytest_kvscale.sim.metrics.histogram import Histogram
from pytest_kvscale.sim.metrics.naming import Naming
from pytest_kvscale.sim.resources import SERVED, Resource
from pytest_kvscale.sim.store import Store

_VERBS = {
    "get": "GET", "list": "LIST", "watch": "WATCH", "create": "POST", "update": "PUT",
    "patch": "PATCH", "apply": "APPLY", "delete": "DELETE", "deletecollection": "DELETECOLLECTION",
}  # fmt: skip
_READING = ("get", "list")
_LABELS = ("component", "dry_run", "group", "resource", "scope", "subresource", "verb", "version")


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a request is about, as the API server's labels tell it."""

    verb: str
    resource: Resource
    subresource: str = ""
    name: str = ""
    """Of the object; '' for a collection."""
    namespace: str = ""
    dry_run: bool = False

    @property
    def scope(self) -> str:
        """Whether it is about an object, a namespace, or all."""
        if self.name or self.verb == "create":
            return "resource"
        return "namespace" if self.namespace else "cluster"

    def labels(self) -> tuple[str, ...]:
        """The values of the labels every count has, in their order."""
        kind = self.resource
        return (
            "apiserver", "All" if self.dry_run else "", kind.group, kind.plural, self.scope,
            self.subresource, _VERBS[self.verb], kind.version,
        )  # fmt: skip


class ApiAccount:
    """The account of the API server."""

    def __init__(self, store: Store, names: Naming) -> None:
        self._store = store
        self._names = names
        self.requests: collections.Counter[tuple[str, ...]] = collections.Counter()
        self.took: dict[tuple[str, ...], Histogram] = {}
        self.inflight: collections.Counter[str] = collections.Counter(readOnly=0, mutating=0)
        self.watches: collections.Counter[tuple[str, ...]] = collections.Counter()

    @contextlib.contextmanager
    def under_way(self, asked: Asked) -> Iterator[None]:
        """A request is being served; a watch is none of those in flight."""
        if asked.verb == "watch":
            labels = asked.labels()
            self.watches[labels] += 1
            try:
                yield
            finally:
                self.watches[labels] -= 1
            return
        kind = "readOnly" if asked.verb in _READING else "mutating"
        self.inflight[kind] += 1
        try:
            yield
        finally:
            self.inflight[kind] -= 1

    def answered(self, asked: Asked, code: int, began: float) -> None:
        """A request that came at this loop time was answered with a status code."""
        labels = asked.labels()
        self.requests[*labels, str(code)] += 1
        held = self.took.get(labels)
        if held is None:
            held = self.took[labels] = Histogram(self._names.api_requests)
        held.observe(asyncio.get_running_loop().time() - began)

    def families(self) -> Iterator[Metric]:
        """The metrics of the API server."""
        yield families.gauge(
            "apiserver_current_inflight_requests",
            "Maximal number of currently used inflight request limit of this apiserver per "
            "request kind in last second.",
            ("request_kind",),
            {(kind,): count for kind, count in self.inflight.items()},
        )
        yield families.gauge(
            self._names.long_running,
            "Gauge of all active long-running apiserver requests broken out by verb, group, "
            "version, resource, scope and component. Not all requests are tracked this way.",
            (each for each in _LABELS if each != "dry_run"),
            {(*key[:1], *key[2:]): count for key, count in self.watches.items()},
        )
        yield families.histogram(
            "apiserver_request_duration_seconds",
            "Response latency distribution in seconds for each verb, dry run value, group, "
            "version, resource, subresource, scope and component.",
            _LABELS, self.took,
        )  # fmt: skip
        yield families.counter(
            "apiserver_request_total",
            "Counter of apiserver requests broken out for each verb, dry run value, group, "
            "version, resource, scope, component, and HTTP response code.",
            (*_LABELS, "code"), self.requests,
        )  # fmt: skip
        for name in self._names.stored_objects:
            yield families.gauge(
                name, "Number of stored objects at the time of last check split by kind.",
                ("resource",),
                {(each.full_name,): self._store.count(each, "", "") for each in SERVED},
            )  # fmt: skip
