"""The pace of creation, and what becomes of each create."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.cluster.kinds import KINDS
from pytest_kvscale.cluster.settle import QUIET
from pytest_kvscale.cluster.templates import Planned
from pytest_kvscale.load.create import Creator
from pytest_kvscale.load.delete import Deleter
from pytest_kvscale.load.pacing import offsets
from pytest_kvscale.measure.timeline import Creation
from tests.cluster.scripted import answering, cut, status

KIND = KINDS["kubevirt.io/v1", "VirtualMachineInstance"]

Json = dict[str, Any]
Answers = list[tuple[str, float, int, str]]


@given(st.integers(1, 500), st.floats(0.1, 1000), st.integers(1, 100))
def test_the_pace_is_a_full_bucket_and_then_its_rate(count: int, qps: float, burst: int) -> None:
    found = list(offsets(count, qps, burst))
    assert found[:burst] == [0] * min(count, burst)
    assert found[burst:] == [(index + 1) / qps for index in range(count - burst)]


def test_the_published_pace() -> None:
    found = list(offsets(400, 20, 20))
    assert (found[19], found[20], found[399]) == (0, 0.05, 19.0)


class Api:
    """Creates objects, with faults first."""

    def __init__(self, *faults: str, delay: float = 0.0) -> None:
        self.faults = list(faults)
        self.delay = delay
        self.objects: dict[str, Json] = {}

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        name = request.path.rpartition("/")[2]
        if request.method == "GET":
            found = self.objects.get(name)
            return web.json_response(found) if found else status(404, "NotFound")
        body = await request.read()
        await asyncio.sleep(self.delay)
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "cut before":
            return cut(request)
        if fault.isdecimal():
            return status(int(fault), "Fault")
        obj = json.loads(body)
        name = obj["metadata"]["name"]
        if name in self.objects:
            return status(409, "AlreadyExists")
        self.objects[name] = obj
        if fault == "cut after":
            return cut(request)
        return web.json_response(obj, status=201)


def create(
    clock: VirtualClock, api: Api, count: int = 1, qps: float = 20, burst: int = 20,
    deadline: float = 100.0,
) -> tuple[Answers, list[Creation], list[tuple[float, str, str]]]:  # fmt: skip
    """Create so many; returns answers, creations, and what the API was asked."""
    creations = [
        Creation(f"vmi-{index}", offset) for index, offset in enumerate(offsets(count, qps, burst))
    ]
    answers: Answers = []

    def make(creation: Creation) -> Planned:
        metadata = {"name": creation.name, "labels": {"kvscale.io/run": "r1"}}
        return Planned(creation.name, KIND, 1, {"metadata": metadata})

    async def work() -> list[tuple[float, str, str]]:
        async with answering(api) as (client, script):
            creator = Creator(
                client, "ns", "r1", lambda *told: answers.append((told[0].name, *told[1:]))
            )
            await creator.create_all([(each, make(each)) for each in creations], deadline)
            return script.asked

    return answers, creations, clock.run(work())


def test_the_pace_does_not_depend_on_how_long_the_api_takes(clock: VirtualClock) -> None:
    answers, creations, _ = create(clock, Api(delay=5.0), count=100)
    assert [each.sent for each in creations] == [each.due for each in creations]
    assert [round(at - 5.0, 6) for _, at, _, _ in answers] == [
        round(each.due, 6) for each in creations
    ]
    assert {code for _, _, code, _ in answers} == {201}


def test_a_create_that_is_shed_is_sent_again(clock: VirtualClock) -> None:
    answers, creations, asked = create(clock, Api("429", "503"))
    assert [method for _, method, _ in asked] == ["POST", "POST", "GET", "POST"][: len(asked)]
    assert answers[0][2] == 201
    assert creations[0].sent == 0.0


def test_a_refusal_is_final(clock: VirtualClock) -> None:
    answers, _, asked = create(clock, Api("403"))
    assert len(asked) == 1
    assert answers[0][2] == 403


def test_a_create_that_is_shed_until_the_deadline_says_so(clock: VirtualClock) -> None:
    answers, _, _ = create(clock, Api(*["429"] * 1000), deadline=60.0)
    assert answers[0][2] == 429
    assert answers[0][1] <= 60


def test_a_create_whose_answer_was_lost_is_not_sent_twice(clock: VirtualClock) -> None:
    api = Api("cut after")
    answers, _, asked = create(clock, api)
    assert [method for _, method, _ in asked] == ["POST", "GET"]
    assert answers[0][2] == 201
    assert len(api.objects) == 1


def test_a_create_that_was_lost_is_sent_again(clock: VirtualClock) -> None:
    api = Api("cut before")
    answers, _, asked = create(clock, api)
    assert [method for _, method, _ in asked] == ["POST", "GET", "POST"]
    assert answers[0][2] == 201


def test_an_object_of_that_name_that_is_not_ours_is_a_refusal(clock: VirtualClock) -> None:
    api = Api("cut before")
    api.objects["vmi-0"] = {"metadata": {"name": "vmi-0", "labels": {}}}
    answers, _, _ = create(clock, api)
    assert answers[0][2] == 409


class Inventory:
    """What is there, as the deleter sees it."""

    def __init__(self, **uids: str) -> None:
        self.names = dict(uids)
        self.asked_for: dict[str, str] = {}
        self.strangers: dict[str, str] = {}
        self.on_change: Callable[[], None] = lambda: None
        self.looked = 0
        self.when_looked_at: Callable[[], None] = lambda: None

    @property
    def present(self) -> int:
        return len(self.names)

    def undeleted(self) -> list[str]:
        return [name for name in self.names if name not in self.asked_for]

    def there(self, stream: str) -> dict[str, str]:
        return {uid: name for name, uid in self.names.items()} if stream == "vmis" else {}

    def delete_asked(self, at: float) -> None:
        self.asked_for.update(self.names)

    async def look_again(self) -> None:
        self.looked += 1
        self.when_looked_at()

    def gone(self, *names: str) -> None:
        for name in names:
            self.names.pop(name, None)
        self.on_change()


def delete(
    clock: VirtualClock, inventory: Inventory, plan: Callable[[], None], deadline: float = 100.0
) -> tuple[bool, list[tuple[str, str]]]:
    async def accept(request: web.BaseRequest) -> web.Response:
        return web.json_response({})

    async def work() -> tuple[bool, list[tuple[str, str]]]:
        async with answering(accept) as (client, script):
            plan()
            deleter = Deleter(
                client, [KIND], inventory, "ns", "r1", lambda _: None, inventory.look_again
            )
            gone = await deleter.delete_all(deadline)
            return gone, [
                (method, path.partition("virtualmachineinstances")[2])
                for _, method, path in script.asked
            ]

    return clock.run(work())


def later(seconds: float, action: Callable[..., None], *what: str) -> None:
    asyncio.get_running_loop().call_later(seconds, action, *what)


def test_all_of_ours_go_with_one_request(clock: VirtualClock) -> None:
    inventory = Inventory(a="1", b="2")

    def plan() -> None:
        later(5, inventory.gone, "a")
        later(9, inventory.gone, "b")

    gone, asked = delete(clock, inventory, plan)
    assert gone
    assert asked == [("DELETE", "?labelSelector=kvscale.io/run%3Dr1")]
    assert clock.loop.time() == 9


def test_where_others_carry_our_label_each_of_ours_is_deleted_by_uid(clock: VirtualClock) -> None:
    inventory = Inventory(a="1", b="2")
    inventory.strangers = {"9": "theirs"}
    gone, asked = delete(clock, inventory, lambda: later(5, inventory.gone, "a", "b"))
    assert gone
    assert asked == [("DELETE", "/a"), ("DELETE", "/b")]


def test_what_appears_late_is_deleted_too(clock: VirtualClock) -> None:
    inventory = Inventory(a="1")

    def appear() -> None:
        inventory.names["late"] = "2"
        inventory.gone("a")

    def plan() -> None:
        later(5, appear)
        later(9, inventory.gone, "late")

    gone, asked = delete(clock, inventory, plan)
    assert gone
    assert len(asked) == 2


def test_what_is_still_there_at_the_deadline_is_told(clock: VirtualClock) -> None:
    gone, _ = delete(clock, Inventory(a="1"), lambda: None, deadline=60.0)
    assert not gone
    assert clock.loop.time() == 60


def test_what_only_a_list_shows_is_deleted_too(clock: VirtualClock) -> None:
    """A create came late, and its event was lost: the last look finds it."""
    inventory = Inventory(a="1")

    def appear() -> None:
        if inventory.looked == 1:
            inventory.names["late"] = "2"
            later(5, inventory.gone, "late")

    inventory.when_looked_at = appear
    gone, asked = delete(clock, inventory, lambda: later(5, inventory.gone, "a"))
    assert gone
    assert len(asked) == 2
    assert inventory.looked == 2


def test_what_is_gone_unseen_is_found_gone(clock: VirtualClock) -> None:
    inventory = Inventory(a="1", b="2")
    inventory.when_looked_at = inventory.names.clear
    gone, _ = delete(clock, inventory, lambda: None, deadline=1800.0)
    assert gone
    assert clock.loop.time() == QUIET


def test_what_is_gone_unseen_is_not_left_behind_at_the_deadline(clock: VirtualClock) -> None:
    inventory = Inventory(a="1")
    inventory.when_looked_at = inventory.names.clear
    gone, _ = delete(clock, inventory, lambda: None, deadline=60.0)
    assert gone
    assert clock.loop.time() == 60


def test_it_does_not_look_for_ever(clock: VirtualClock) -> None:
    inventory = Inventory(a="1")
    gone, _ = delete(clock, inventory, lambda: None, deadline=1800.0)
    assert not gone
    assert inventory.looked == 4


def given_up(clock: VirtualClock, api: Api, after: float) -> tuple[Answers, float]:
    """Give a create up after so many seconds; its answers, and when it was decided."""
    creation = Creation("vmi-0", 0.0)
    answers: Answers = []

    async def work() -> tuple[Answers, float]:
        async with answering(api) as (client, _):
            creator = Creator(
                client, "ns", "r1", lambda *told: answers.append((told[0].name, *told[1:]))
            )
            obj = {"metadata": {"name": "vmi-0", "labels": {"kvscale.io/run": "r1"}}}
            planned = Planned("vmi-0", KIND, 1, obj)
            task = asyncio.create_task(creator.create_all([(creation, planned)], 1000.0))
            await asyncio.sleep(after)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await creator.decided(lambda name: name in api.objects)
            return answers, asyncio.get_running_loop().time()

    return clock.run(work())


def test_a_create_given_up_under_way_is_still_answered(clock: VirtualClock) -> None:
    api = Api(delay=20.0)
    answers, moment = given_up(clock, api, 5.0)
    assert answers == [("vmi-0", 20.0, 201, "")]
    assert (list(api.objects), moment) == (["vmi-0"], 20.0)


def test_a_create_given_up_while_it_was_shed_says_so(clock: VirtualClock) -> None:
    answers, moment = given_up(clock, Api(*["429"] * 100), 5.0)
    assert [code for _, _, code, _ in answers] == [429]
    assert moment == 5.0


def test_a_create_whose_answer_was_lost_may_take_effect_for_a_minute(clock: VirtualClock) -> None:
    api = Api("cut before", *["503"] * 100)
    _, moment = given_up(clock, api, 0.05)
    assert moment == 60.0


def test_nothing_to_delete_asks_nothing(clock: VirtualClock) -> None:
    assert delete(clock, Inventory(), lambda: None) == (True, [])


@pytest.mark.parametrize("count", [1, 20, 21, 400])
def test_every_creation_is_sent_when_it_is_due(clock: VirtualClock, count: int) -> None:
    _, creations, asked = create(clock, Api(delay=0.02), count=count)
    assert sorted(at for at, _, _ in asked) == [round(each.due, 6) for each in creations]
