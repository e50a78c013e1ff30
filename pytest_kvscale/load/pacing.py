"""When each creation is due: a token bucket that starts full."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator


def offsets(count: int, qps: float, burst: int) -> Iterator[float]:
    """Seconds after the start at which each of `count` creations is due.

    The first `burst` at once, then one every `1/qps` seconds. Each is worked out of its number,
    so that no error adds up.
    """
    for index in range(count):
        yield max(0, index + 1 - burst) / qps


async def sleep_until(moment: float) -> float:
    """Wait until a moment of the loop's time; returns the seconds that took."""
    loop = asyncio.get_running_loop()
    before = loop.time()
    if moment > before:
        await asyncio.sleep(moment - before)
    return loop.time() - before
