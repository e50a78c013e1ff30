"""The API alone answers as a real kube-apiserver with KubeVirt's definitions did."""

from __future__ import annotations

import asyncio

import pytest

from pytest_kvscale.cluster.clock import VirtualClock
from tests.sim.asker import a_cluster
from tests.sim.wire import Player, recorded

RECORDED = recorded()


@pytest.fixture(scope="module")
def answers() -> dict[str, object]:
    clock = VirtualClock()

    async def play() -> dict[str, object]:
        async with a_cluster(api_only=True) as ask:
            player = Player(ask)
            await player.play()
            await asyncio.sleep(10)
            await player("namespace gone", "GET", "/api/v1/namespaces/wire-a")
            return player.answers

    played = clock.run(play())
    clock.close()
    return played


def test_every_recorded_case_is_played(answers: dict[str, object]) -> None:
    assert answers.keys() == RECORDED.keys()


@pytest.mark.parametrize("case", RECORDED)
def test_the_answer_is_the_real_one(answers: dict[str, object], case: str) -> None:
    assert answers[case] == RECORDED[case]
