"""An embedded cluster in virtual time, and somebody who asks it over HTTP."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from pytest_kvscale.sim import profile
from pytest_kvscale.sim.cluster import EmbeddedCluster

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
VMIS = "/apis/kubevirt.io/v1/namespaces/default/virtualmachineinstances"
OF_VMIS = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance"}
Json = dict[str, Any]


class Asker:
    """Sends requests and gives back status and JSON."""

    def __init__(self, cluster: EmbeddedCluster, session: aiohttp.ClientSession) -> None:
        self.cluster = cluster
        self.session = session

    async def __call__(
        self, method: str, path: str, body: Any = None, kind: str = "application/json",
        raw: bytes | None = None, accept: str = "application/json",
    ) -> tuple[int, Any]:  # fmt: skip
        text = raw if raw is not None else None if body is None else json.dumps(body).encode()
        data = None if text is None else io.BytesIO(text)
        headers = {"Accept": accept, **({"Content-Type": kind} if data is not None else {})}
        async with self.session.request(
            method, self.cluster.url + path, data=data, headers=headers
        ) as answer:
            content = await answer.text()
            if answer.content_type != "application/json" or not content:
                return answer.status, content
            if "\n{" in content.strip():
                return answer.status, [json.loads(line) for line in content.splitlines()]
            return answer.status, json.loads(content)

    async def watch(self, path: str) -> AsyncIterator[Json]:
        async with self.session.get(self.cluster.url + path) as answer:
            assert answer.status == 200
            async for line in answer.content:
                yield json.loads(line)


Work = Callable[[Asker], Coroutine[Any, Any, None]]


@asynccontextmanager
async def a_cluster(chosen: str = "fast", api_only: bool = False) -> AsyncIterator[Asker]:
    cluster = EmbeddedCluster(profile.load(chosen), "test", 0, api_only=api_only)
    await cluster.start()
    timeout = aiohttp.ClientTimeout(total=None)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            yield Asker(cluster, session)
    finally:
        await cluster.stop()
    assert cluster.server.problem is None
