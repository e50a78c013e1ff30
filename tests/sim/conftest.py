"""What tests of the embedded API share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_kvscale.cluster.clock import VirtualClock
from tests.sim.asker import Work, a_cluster


@pytest.fixture
def run(clock: VirtualClock) -> Callable[[Work], None]:
    """Ask a cluster of profile fast, in virtual time."""

    def play(work: Work) -> None:
        async def whole() -> None:
            async with a_cluster() as asker:
                await work(asker)

        clock.run(whole())

    return play
