"""Looking up host names without keeping the process alive for an answer.

aiohttp's own resolver uses the loop's thread pool, whose threads Python waits for at exit: a name
server that does not answer would hold up the end of a run by minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult


class Resolver(AbstractResolver):
    """Resolves names in threads that nobody waits for."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a host."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Any]] = loop.create_future()

        def work() -> None:
            result: list[Any] | OSError
            try:
                result = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
            except OSError as problem:
                result = problem
            with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits.
                loop.call_soon_threadsafe(deliver, result)

        def deliver(result: list[Any] | OSError) -> None:
            if answer.done():
                return
            if isinstance(result, OSError):
                answer.set_exception(result)
            else:
                answer.set_result(result)

        threading.Thread(target=work, name="kvscale-resolver", daemon=True).start()
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in await answer
        ]

    async def close(self) -> None:
        """Nothing is kept."""
