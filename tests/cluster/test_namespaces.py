"""The namespace of a run: when it is ready for pods."""

from __future__ import annotations

import pytest
from aiohttp import web

from pytest_kvscale.cluster import namespaces
from pytest_kvscale.cluster.clock import VirtualClock
from tests.cluster.scripted import answering, status

MISSING = 'serviceaccounts "default" not found'


@pytest.mark.parametrize(
    ("answers", "asked", "seconds"),
    [
        ([(404, MISSING), (404, MISSING), (200, "")], 3, 0.2),
        ([(404, "the server could not find the requested resource")], 1, 0.0),
        ([(403, "forbidden")], 1, 0.0),
        ([(404, MISSING)] * 1000, 100, 10.0),
    ],
    ids=["it comes", "it is not served", "it may not be seen", "it never comes"],
)
def test_pods_are_not_created_before_their_service_account(
    clock: VirtualClock, answers: list[tuple[int, str]], asked: int, seconds: float
) -> None:
    left = list(answers)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "POST":
            return web.json_response({"metadata": {"name": "n", "uid": "1"}}, status=201)
        code, message = left.pop(0)
        return web.json_response({}) if code == 200 else status(code, "NotFound", message)

    async def work() -> tuple[int, float]:
        async with answering(answer) as (client, script):
            made = await namespaces.Own(client, "n", "r1", openshift=False).make(100.0)
            assert made is not None
            reads = [path for _, method, path in script.asked if method == "GET"]
            assert set(reads) == {"/api/v1/namespaces/n/serviceaccounts/default"}
            return len(reads), clock.loop.time()

    reads, took = clock.run(work())
    assert abs(reads - asked) <= 1
    assert took == pytest.approx(seconds, abs=0.01)
