"""A server that answers as it is told, for the client's sake: real HTTP, in virtual time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

from pytest_kvscale.cluster.client import Client

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Script:
    """What the server is asked, when (loop time), and how it answers."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[tuple[float, str, str]] = []

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        now = asyncio.get_running_loop().time()
        self.asked.append((round(now, 6), request.method, request.path_qs))
        return await self.answer(request)


def status(code: int, reason: str = "", message: str = "", **headers: str) -> web.Response:
    """An answer with a Status body."""
    body = {"kind": "Status", "code": code, "reason": reason, "message": message}
    return web.json_response(body, status=code, headers=headers)


def cut(request: web.BaseRequest) -> web.StreamResponse:
    """Break the connection off without an answer."""
    assert request.transport is not None
    request.transport.abort()
    raise asyncio.CancelledError


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[tuple[Client, Script]]:
    """A client of a server that answers so."""
    script = Script(answer)
    runner = web.ServerRunner(web.Server(script))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
    client = Client(session, f"http://{host}:{port}", {"Authorization": "Bearer secret-token"})
    try:
        yield client, script
    finally:
        await client.close()
        await runner.cleanup()


def line(kind: str, name: str, version: int, **more: Any) -> bytes:
    """A line of a watch."""
    metadata = {"name": name, "uid": name, "resourceVersion": str(version)}
    return json.dumps({"type": kind, "object": {"metadata": metadata, **more}}).encode() + b"\n"
