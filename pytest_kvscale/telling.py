"""Telling people how far a level is, while it goes on: often at first, seldom later."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

from pytest_kvscale.report.progress import Progress

_OFTEN, _SELDOM = 60.0, 300.0


def _moments() -> Iterator[float]:
    """Seconds after the beginning at which to tell: 1, 2, 3, 4, 5, 10, 15 … minutes."""
    moment = 0.0
    while True:
        moment += _OFTEN if moment < _SELDOM else _SELDOM
        yield moment


@contextlib.asynccontextmanager
async def telling(progress: Progress, tell: Callable[[str], None]) -> AsyncIterator[None]:
    """Tell how far it is, by the loop's clock, while the block runs."""
    loop = asyncio.get_running_loop()
    begun = loop.time()

    async def work() -> None:
        for moment in _moments():
            await asyncio.sleep(begun + moment - loop.time())
            tell(progress.line(moment, loop.time()))

    task = asyncio.create_task(work(), name="progress")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
