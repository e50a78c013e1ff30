"""What tests of the embedded API share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_kvscale.cluster.clock import VirtualClock
from tests.sim.asker import Work, a_cluster


@pytest.fixture
def api_only() -> bool:
    """Whether the API is served alone; a module of such tests says so with one of its own."""
    return False


@pytest.fixture
def run(clock: VirtualClock, api_only: bool) -> Callable[[Work], None]:
    """Ask a cluster of profile fast, in virtual time."""

    def play(work: Work) -> None:
        async def whole() -> None:
            async with a_cluster(api_only=api_only) as asker:
                await work(asker)

        clock.run(whole())

    return play
