"""The embedded API's door: its port, its connections, and breaking them.

A restart is what clients of a real API server see of one: every connection is reset, nobody
listens for some seconds, and then the same port answers again.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Iterator

from aiohttp import web

KEEP_ALIVE_SECONDS = 7 * 24 * 3600
_LONGEST_LINE = 1024 * 1024
_TICK = 0.001
"""Seconds between the first half of an answer and the reset that follows it."""

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class CutError(Exception):
    """The connection is to be reset; after the first half of this answer, if there is one."""

    def __init__(self, answer: bytes = b"", status: int = 200) -> None:
        super().__init__("the connection is to be reset")
        self._answer = answer
        self._status = status

    async def carry_out(self, request: web.BaseRequest) -> None:
        """Reset the connection a request came by."""
        if self._answer:
            half = web.StreamResponse(status=self._status)
            half.content_type = "application/json"
            half.content_length = len(self._answer)
            with contextlib.suppress(ConnectionError):
                await half.prepare(request)
                await half.write(self._answer[: len(self._answer) // 2])
                await asyncio.sleep(_TICK)
        reset(request.transport)


class Listener:
    """Listens on one port, and hands requests to a handler."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._runner: web.ServerRunner | None = None
        self._tls: ssl.SSLContext | None = None

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> str:
        """Begin to listen; returns the URL."""
        self._tls = tls
        server = web.Server(
            self._handler,
            handler_cancellation=True,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            access_log=None,
            # Selectors are long; the real server takes a megabyte of them, too.
            max_line_size=_LONGEST_LINE,
            max_field_size=_LONGEST_LINE,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=1)
        await self._runner.setup()
        await self._listen(self._runner, host, port)
        address = self._runner.addresses[0]
        return f"{'https' if tls else 'http'}://{address[0]}:{address[1]}"

    async def stop(self) -> None:
        """Stop listening and end all connections."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def restart(self, seconds: float) -> None:
        """Reset all connections, and do not listen for some seconds; nothing if it is down."""
        if self._runner is None or self._runner.server is None or not self._runner.addresses:
            return
        host, port = self._runner.addresses[0][:2]
        for site in list(self._runner.sites):
            await site.stop()
        for connection in self._runner.server.connections:
            reset(connection.transport)
        with _reserved(host, port):
            await asyncio.sleep(seconds)
        # It may have been stopped for good meanwhile.
        if self._runner is not None:
            await self._listen(self._runner, host, port)

    async def _listen(self, runner: web.ServerRunner, host: str, port: int) -> None:
        await web.TCPSite(runner, host, port, ssl_context=self._tls).start()


def reset(transport: asyncio.BaseTransport | None) -> None:
    """Break a connection off, so that the other end sees a reset and not an orderly end."""
    if not isinstance(transport, asyncio.Transport):
        return  # It is gone already.
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


@contextlib.contextmanager
def _reserved(host: str, port: int) -> Iterator[None]:
    """Keep a port from being given to somebody else, without listening on it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((host, port))
        yield
