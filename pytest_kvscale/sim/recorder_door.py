"""`/_sim/openmetrics`: begin to record all metrics, get what was recorded, end it.

`POST {"every": 15, "names": ["kubevirt_*"]}` begins anew, `GET` gives the samples so far,
`DELETE` ends and forgets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated

from aiohttp import web
from pydantic import ConfigDict, Field

from pytest_kvscale.documents import Document, validate
from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.sim import errors
from pytest_kvscale.sim.answers import answer
from pytest_kvscale.sim.api import Api
from pytest_kvscale.sim.component import Component
from pytest_kvscale.sim.component_pods import METRICS_SERVICE, PORT, ComponentPods
from pytest_kvscale.sim.http import as_object, body_of
from pytest_kvscale.sim.metrics.recording import CONTENT_TYPE, Recording, Target
from pytest_kvscale.sim.metrics.served import Metrics
from pytest_kvscale.sim.players.team import Team
from pytest_kvscale.sim.resources import PODS

PATH = "/_sim/openmetrics"


class Wish(Document):
    """How a recording is to be made."""

    model_config = ConfigDict(strict=True)

    every: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 15
    """Seconds between two samples."""
    names: list[str] = Field(default_factory=lambda: ["*"])
    """Patterns of the metrics to keep, by their family's name: a counter's without `_total`."""


class RecorderDoor:
    """Records the metrics of one cluster on request."""

    def __init__(
        self,
        team: Team,
        api: Api,
        metrics: Metrics,
        components: list[Component],
        pods: ComponentPods | None,
    ) -> None:
        self._team = team
        self._api = api
        self._metrics = metrics
        self._components = components
        self._pods = pods
        self._recording: Recording | None = None
        self._task: asyncio.Task[None] | None = None

    async def door(self, request: web.BaseRequest, path: str) -> web.StreamResponse | None:
        """The answer to a request for this path, None to any other."""
        if path != PATH:
            return None
        match request.method:
            case "POST":
                try:
                    given = await body_of(request)
                    wish = validate(
                        Wish, as_object({} if given is None else given), "the recording"
                    )
                except ConfigurationError as mistake:
                    raise errors.bad_request(str(mistake)) from None
                self._begin(wish)
                return answer(wish.model_dump(), 201)
            case "GET":
                if self._recording is None:
                    raise errors.StatusError(404, "NotFound", "nothing is recorded: POST first")
                text = self._recording.openmetrics()
                return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})
            case "DELETE":
                samples = self._recording.samples if self._recording is not None else 0
                self._end()
                return answer({"samples": samples})
        raise errors.method_not_allowed()

    def _begin(self, wish: Wish) -> None:
        self._end()
        self._recording = Recording(self._targets, self._api.calendar.true_time, wish.names)
        self._task = self._team.spawn(self._recording.run(wish.every), "recorder of metrics")

    def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._recording = self._task = None

    def _targets(self) -> Iterator[Target]:
        """Who is reached now, with the labels a Prometheus in the cluster gives to each."""
        yield Target(
            {"job": "apiserver", "instance": "10.96.0.1:443"},
            lambda: self._metrics.told_by("kube-apiserver"),
        )
        standing = {(each.name, each.node) for each in self._components if not each.process.frozen}
        for name, node in sorted(standing):
            if name == "kubelet":
                labels = {"job": "kubelet", "instance": f"{node}:10250", "node": node}
                yield Target(labels, lambda node=node: self._metrics.told_by("kubelet", node))  # type: ignore[misc]
        if self._pods is None:
            return
        namespace = self._pods.namespace
        for stored in self._api.store.all(PODS, namespace):
            runs = self._pods.running.get(stored.obj["metadata"]["uid"])
            if runs is None or (runs.component, runs.node) not in standing:
                continue
            address = stored.obj["status"]["podIP"]
            labels = {
                "job": METRICS_SERVICE, "service": METRICS_SERVICE, "namespace": namespace,
                "pod": stored.obj["metadata"]["name"], "container": runs.component,
                "endpoint": "metrics", "instance": f"{address}:{PORT}",
            }  # fmt: skip
            yield Target(
                labels,
                lambda runs=runs: self._metrics.told_by(runs.component, runs.node, runs.leads),  # type: ignore[misc]
            )
