"""A server that answers like a cluster, as a test tells it, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from pytest_kvscale.cluster.clock import RealClock
from tests.cluster.conftest import write_kubeconfig

Json = dict[str, Any]
READY = {"phase": "Deployed", "observedKubeVirtVersion": "v1.9.0"}
NODE = {
    "metadata": {"name": "node-1", "labels": {"kubevirt.io/schedulable": "true"}},
    "spec": {},
    "status": {
        "conditions": [{"type": "Ready", "status": "True"}],
        "allocatable": {"memory": "1Gi"},
        "capacity": {"memory": "1Gi", "cpu": "4"},
        "nodeInfo": {"containerRuntimeVersion": "containerd://2"},
    },
}


def kubevirts(status: Json | None) -> Json:
    """A list of KubeVirts: one with this status, or none."""
    metadata = {"name": "kubevirt", "namespace": "kubevirt", "generation": 1}
    item = {"metadata": metadata, "spec": {}, "status": status}
    return {"items": [] if status is None else [item]}


def failure(code: int, reason: str, message: str) -> tuple[int, Json]:
    """An answer that is a Status."""
    body = {"kind": "Status", "code": code, "reason": reason, "message": message}
    return code, body


Answers = Mapping[str, Json | tuple[int, Json] | None]
"""By path: what is answered (with a status code), or None for nothing ever."""


@contextlib.contextmanager
def api(answers: Answers, token: str = "") -> Iterator[str]:
    """Serve these answers by path beside those of a cluster that is ready; yields the URL."""
    known: dict[str, Json | tuple[int, Json] | None] = {
        "/version": {"gitVersion": "v1.36.0"},
        "/apis": {"groups": []},
        "/apis/kubevirt.io/v1/kubevirts": kubevirts(READY),
        "/apis/kubevirt.io/v1/virtualmachineinstances": {"items": [], "metadata": {}},
        "/api/v1/nodes": {"items": [NODE]},
        "/api/v1/nodes/node-1": NODE,
        "/api/v1/namespaces/kube-system": {"metadata": {"name": "kube-system", "uid": "u-1"}},
        **answers,
    }

    async def handle(request: web.BaseRequest) -> web.Response:
        if token and request.headers.get("Authorization") != f"Bearer {token}":
            code, body = failure(401, "Unauthorized", "Unauthorized")
        else:
            found = known.get(request.path, failure(404, "NotFound", f"no {request.path}"))
            if found is None:
                await asyncio.sleep(1e6)
            code, body = found if isinstance(found, tuple) else (200, found or {})
        return web.json_response(body, status=code)

    async def start() -> web.ServerRunner:
        runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    clock = RealClock()
    runner = clock.run(start())
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        clock.run(runner.cleanup())
        clock.close()


def kubeconfig_for(folder: Path, server: str, user: Json | None = None, **cluster: Any) -> Path:
    """A kubeconfig for a server, beside the suite."""
    return write_kubeconfig(folder / "kubeconfig", user or {}, {"server": server, **cluster})
