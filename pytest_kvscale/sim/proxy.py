"""What stands behind the API server: its own metrics, and its proxies to kubelets, pods, services.

A component that is dead or frozen is not reached, or not in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from aiohttp import web

from pytest_kvscale.sim import errors, selectors
from pytest_kvscale.sim.answers import answer
from pytest_kvscale.sim.api import Api
from pytest_kvscale.sim.component import Component
from pytest_kvscale.sim.component_pods import PORT, ComponentPods, Runs
from pytest_kvscale.sim.draws import Draws
from pytest_kvscale.sim.errors import Object, StatusError
from pytest_kvscale.sim.kubelet_config import configz
from pytest_kvscale.sim.latency import Latency
from pytest_kvscale.sim.metrics.served import CONTENT_TYPE, Metrics, text
from pytest_kvscale.sim.profile import Profile
from pytest_kvscale.sim.resources import NODES, PODS, SERVICES, Resource

KUBELET_PORT = 10250
PATIENCE = 10.0
"""Seconds the API server waits for a TLS handshake."""


class Proxies:
    """Answers for what is behind the API server."""

    def __init__(
        self,
        api: Api,
        latency: Latency,
        profile: Profile,
        draws: Draws,
        metrics: Metrics,
        components: Iterable[Component],
        pods: ComponentPods | None,
    ) -> None:
        self._api = api
        self._latency = latency
        self._profile = profile
        self._draws = draws
        self._metrics = metrics
        self._components = {(each.name, each.node): each for each in components}
        self._pods = pods

    async def door(self, request: web.BaseRequest, path: str) -> web.StreamResponse | None:
        """The answer to a request of one of these paths, None to any other."""
        match path.split("/")[1:]:
            case ["metrics"]:
                _only_get(request)
                return _exposition(text(self._metrics.told_by("kube-apiserver")))
            case ["api", "v1", "nodes", where, "proxy", *rest]:
                _only_get(request)
                await asyncio.sleep(self._latency.of("get", "nodes", f"{where} by proxy"))
                return await self._kubelet(where, "/".join(rest))
            case ["api", "v1", "namespaces", namespace, "pods", where, "proxy", *rest]:
                _only_get(request)
                await asyncio.sleep(self._latency.of("get", "pods", f"{where} by proxy"))
                return await self._pod(namespace, where, "/".join(rest))
            case ["api", "v1", "namespaces", namespace, "services", where, "proxy", *rest]:
                _only_get(request)
                await asyncio.sleep(self._latency.of("get", "services", f"{where} by proxy"))
                return await self._service(namespace, where, "/".join(rest))
        return None

    # Kubelets -------------------------------------------------------------------------------

    async def _kubelet(self, where: str, path: str) -> web.Response:
        _, name, port = _parts(where)
        node = self._api.get(NODES, "", name).obj
        addresses = (node.get("status") or {}).get("addresses") or []
        host = next((each["address"] for each in addresses if each["type"] == "InternalIP"), name)
        if port not in ("", str(KUBELET_PORT)):
            raise _refused(host, port)
        await self._reach("kubelet", name, host, KUBELET_PORT)
        match path:
            case "metrics":
                return _exposition(text(self._metrics.told_by("kubelet", name)))
            case "configz":
                return answer(configz(self._profile))
            case "healthz":
                return web.Response(text="ok")
        return _no_page()

    # Pods and services ----------------------------------------------------------------------

    async def _pod(self, namespace: str, where: str, path: str) -> web.Response:
        scheme, name, port = _parts(where)
        pod = self._api.get(PODS, namespace, name).obj
        if not port:
            ports = [
                each["containerPort"]
                for container in pod["spec"]["containers"]
                for each in container.get("ports") or []
            ]
            port = str(ports[0]) if ports else ""
        return await self._at(pod, scheme, port, path)

    async def _service(self, namespace: str, where: str, path: str) -> web.Response:
        scheme, name, port = _parts(where)
        spec = self._api.get(SERVICES, namespace, name).obj["spec"]
        ports = spec.get("ports") or []
        found = [
            each
            for each in ports
            if port in (each.get("name") or "", str(each["port"])) or (not port and len(ports) == 1)
        ]
        if not found:
            raise _unavailable(
                SERVICES, name, f'no service port "{port}" found for service "{name}"'
            )
        matches = selectors.labels(
            ",".join(f"{key}={value}" for key, value in (spec.get("selector") or {}).items())
        )
        ready = [
            stored.obj
            for stored in self._api.store.all(PODS, namespace)
            if matches(stored.obj) and _is_ready(stored.obj)
        ]
        if not ready or not spec.get("selector"):
            raise _unavailable(SERVICES, name, f'no endpoints available for service "{name}"')
        nth = self._draws.nth("endpoint", namespace, name)
        pod = ready[self._draws.integer(0, len(ready) - 1, "endpoint", namespace, name, nth)]
        return await self._at(pod, scheme, _target(pod, found[0]), path)

    async def _at(self, pod: Object, scheme: str, port: str, path: str) -> web.Response:
        address = (pod.get("status") or {}).get("podIP")
        if not address:
            raise errors.bad_request("address not allowed")
        running = self._pods.running if self._pods is not None else {}
        runs = running.get(pod["metadata"]["uid"])
        if runs is None or port != str(PORT):
            raise _refused(address, port or "80")
        await self._reach(runs.component, runs.node, address, PORT)
        if scheme != "https":
            return web.Response(
                status=400, text="Client sent an HTTP request to an HTTPS server.\n"
            )
        if path == "metrics":
            return _exposition(self._text(runs))
        if path == "healthz":
            return answer({"apiserver": {"connectivity": "ok"}})
        return _no_page()

    def _text(self, runs: Runs) -> bytes:
        return text(self._metrics.told_by(runs.component, runs.node, runs.leads))

    async def _reach(self, component: str, node: str, host: str, port: int) -> None:
        process = self._components[component, node].process
        if process.dead:
            raise _refused(host, str(port))
        try:
            async with asyncio.timeout(PATIENCE):
                await process.stand()
        except TimeoutError:
            raise _unreachable("net/http: TLS handshake timeout") from None


def _parts(where: str) -> tuple[str, str, str]:
    """Scheme, name and port of `[scheme:]name[:port]`."""
    steps = where.split(":")
    if len(steps) == 1:
        return "", where, ""
    if len(steps) == 2:
        return "", steps[0], steps[1]
    if len(steps) == 3 and steps[0] in ("http", "https", ""):
        return steps[0], steps[1], steps[2]
    raise errors.bad_request(f'invalid name "{where}"')


def _target(pod: Object, port: Object) -> str:
    """The number of the pod's port that a service's port leads to."""
    target = port.get("targetPort", port["port"])
    for container in pod["spec"]["containers"]:
        for each in container.get("ports") or []:
            if each.get("name") == target:
                return str(each["containerPort"])
    return str(target)


def _is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _only_get(request: web.BaseRequest) -> None:
    if request.method not in ("GET", "HEAD"):
        raise errors.method_not_allowed()


def _exposition(body: bytes) -> web.Response:
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})


def _no_page() -> web.Response:
    return web.Response(status=404, text="404 page not found\n")


def _refused(host: str, port: str) -> StatusError:
    return _unreachable(f"dial tcp {host}:{port}: connect: connection refused")


def _unreachable(why: str) -> StatusError:
    return StatusError(503, "ServiceUnavailable", f"error trying to reach service: {why}")


def _unavailable(resource: Resource, name: str, why: str) -> StatusError:
    details = {"name": name, "kind": resource.plural}
    return StatusError(503, "ServiceUnavailable", why, details)
