"""The logs of pods: `GET …/pods/NAME/log`, with the options and errors of the real one."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import Mapping

from aiohttp import web

from pytest_kvscale.sim import errors
from pytest_kvscale.sim.api import Api
from pytest_kvscale.sim.errors import Object, StatusError
from pytest_kvscale.sim.latency import Latency
from pytest_kvscale.sim.launcher_log import Line, lines
from pytest_kvscale.sim.machine import Launcher, Machine
from pytest_kvscale.sim.resources import PODS

_LOOK = 1.0
"""Seconds between two looks for new lines."""


class Logs:
    """Serves the logs of pods on these machines; only virt-launchers have anything to say."""

    def __init__(self, api: Api, latency: Latency, machines: Mapping[str, Machine]) -> None:
        self._api = api
        self._latency = latency
        self._machines = machines

    async def door(self, request: web.BaseRequest, path: str) -> web.StreamResponse | None:
        """The answer to a request for a log, None to any other."""
        match path.split("/")[1:]:
            case ["api", "v1", "namespaces", namespace, "pods", name, "log"]:
                if request.method != "GET":
                    raise errors.method_not_allowed()
                await asyncio.sleep(self._latency.of("get", "pods", f"log of {name}"))
                return await self._log(request, namespace, name)
        return None

    async def _log(self, request: web.BaseRequest, namespace: str, name: str) -> web.StreamResponse:
        query = request.query
        options = {
            key: _count(name, query.get(key, ""), key, least)
            for key, least in (("tailLines", 0), ("sinceSeconds", 1), ("limitBytes", 1))
        }
        pod = self._api.get(PODS, namespace, name).obj
        container = _container(pod, query.get("container", ""))
        if not pod["spec"].get("nodeName"):
            return web.Response(text="")
        _check_state(pod, container, previous=_is_true(query.get("previous", "")))
        launcher = self._launcher(pod, container)
        held = list(lines(launcher.log, pod)) if launcher is not None else []
        stamped = _is_true(query.get("timestamps", ""))
        since = self._since(options["sinceSeconds"], query.get("sinceTime", ""))
        shown = [line for line in held if since is None or line[0] >= since]
        if options["tailLines"] is not None:
            shown = shown[len(shown) - min(len(shown), options["tailLines"]) :]
        body = _encode(shown, stamped)
        if options["limitBytes"] is not None:
            body = body[: options["limitBytes"]]
        if not _is_true(query.get("follow", "")):
            return web.Response(body=body, content_type="text/plain")
        return await self._follow(request, pod, launcher, body, len(held), stamped)

    def _launcher(self, pod: Object, container: str) -> Launcher | None:
        machine = self._machines.get(pod["spec"]["nodeName"])
        if machine is None or container != "compute":
            return None
        return machine.launcher(pod["metadata"]["uid"])

    def _since(self, seconds: int | None, date: str) -> datetime.datetime | None:
        if seconds is not None:
            return self._api.calendar.now() - datetime.timedelta(seconds=seconds)
        if not date:
            return None
        try:
            moment = datetime.datetime.fromisoformat(date)
        except ValueError:
            raise errors.bad_request(f'parsing time "{date}" failed') from None
        return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)

    async def _follow(
        self,
        request: web.BaseRequest,
        pod: Object,
        launcher: Launcher | None,
        body: bytes,
        told: int,
        stamped: bool,
    ) -> web.StreamResponse:
        """Send what there is, and what comes, until the container has ended."""
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        uid, key = pod["metadata"]["uid"], (pod["metadata"]["namespace"], pod["metadata"]["name"])
        with contextlib.suppress(ConnectionError):
            await response.write(body)
            while True:
                over = launcher.exited.done() if launcher is not None else False
                new = list(lines(launcher.log, pod))[told:] if launcher is not None else []
                if new:
                    await response.write(_encode(new, stamped))
                    told += len(new)
                now = self._api.store.get(PODS, *key)
                if over or now is None or now.obj["metadata"]["uid"] != uid:
                    break
                await asyncio.sleep(_LOOK)
            await response.write_eof()
        return response


def _encode(shown: list[Line], stamped: bool) -> bytes:
    parts = [
        f"{at.strftime('%Y-%m-%dT%H:%M:%S.%f')}000Z {line}\n" if stamped else f"{line}\n"
        for at, line in shown
    ]
    return "".join(parts).encode()


def _container(pod: Object, asked: str) -> str:
    """The container whose log is meant; 400 if none is, or there is no such one."""
    name, spec = pod["metadata"]["name"], pod["spec"]
    names = [each["name"] for each in spec["containers"]]
    initial = [each["name"] for each in spec.get("initContainers") or []]
    if asked:
        if asked not in (*names, *initial):
            raise errors.bad_request(f"container {asked} is not valid for pod {name}")
        return asked
    if len(names) == 1:
        return str(names[0])
    why = f"a container name must be specified for pod {name}, choose one of: [{' '.join(names)}]"
    if initial:
        why += f" or one of the init containers: [{' '.join(initial)}]"
    raise errors.bad_request(why)


def _check_state(pod: Object, container: str, previous: bool) -> None:
    """400 for a container that has no log (yet)."""
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    statuses = [*(status.get("containerStatuses") or []),
                *(status.get("initContainerStatuses") or [])]  # fmt: skip
    found: Object | None = next((each for each in statuses if each["name"] == container), None)
    named = f'container "{container}" in pod "{name}"'
    if previous:
        raise errors.bad_request(f"previous terminated {named} not found")
    waiting = ((found or {}).get("state") or {}).get("waiting")
    if found is None:
        waiting = {"reason": "ContainerCreating"}
    if waiting is None:
        return
    why = {
        "ErrImagePull": "image can't be pulled",
        "ImagePullBackOff": "trying and failing to pull image",
    }.get(waiting["reason"], waiting["reason"])
    raise errors.bad_request(f"{named} is waiting to start: {why}")


def _count(name: str, text: str, key: str, least: int) -> int | None:
    if not text:
        return None
    try:
        value = int(text)
    except ValueError:
        raise errors.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
    if value < least:
        why = f"Invalid value: {value}: must be greater than or equal to {least}"
        causes = [errors.cause("FieldValueInvalid", key, why)]
        message = f'PodLogOptions "{name}" is invalid: {key}: {why}'
        details = {"kind": "PodLogOptions", "name": name, "causes": causes}
        raise StatusError(422, "Invalid", message, details)
    return value


def _is_true(text: str) -> bool:
    return text in ("true", "1")
