"""The logs of pods, as kubectl and the harness ask for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.sim.resources import PODS, VMIS
from tests.sim.asker import Asker
from tests.sim.staging import pod
from tests.sim.test_metrics import create, run

Json = dict[str, Any]


async def launcher(ask: Asker, name: str = "v0") -> Json:
    _, pods = await ask(
        "GET", f"/api/v1/namespaces/default/pods?labelSelector=vm.kubevirt.io/name%3D{name}"
    )
    (found,) = pods["items"]
    assert isinstance(found, dict)
    return found


async def log(ask: Asker, name: str, query: str = "container=compute") -> tuple[int, Any]:
    url = f"{ask.cluster.url}/api/v1/namespaces/default/pods/{name}/log?{query}"
    async with ask.session.get(url) as answer:
        text = await answer.text()
        return answer.status, text if answer.status == 200 else json.loads(text)


async def lines(ask: Asker, name: str, query: str = "container=compute") -> list[str]:
    status, text = await log(ask, name, query)
    assert status == 200
    return str(text).splitlines()


def test_a_launcher_tells_of_its_start_and_of_its_guest(clock: VirtualClock) -> None:
    async def work(ask: Asker) -> None:
        create(ask, 1)
        await asyncio.sleep(30)
        name = (await launcher(ask))["metadata"]["name"]
        told = [json.loads(line) for line in await lines(ask, name)]
        assert {each["component"] for each in told} == {"virt-launcher"}
        messages = [each["msg"] for each in told]
        assert messages.index("Marked as ready") < messages.index("Domain started.")
        stamps = [each["timestamp"] for each in told]
        assert stamps == sorted(stamps)
        guest = next(each for each in told if each["msg"] == "Domain defined.")
        vmi = ask.cluster.api.get(VMIS, "default", "v0").obj
        assert (guest["name"], guest["uid"]) == ("v0", vmi["metadata"]["uid"])
        running = vmi["status"]["phaseTransitionTimestamps"][-1]["phaseTransitionTimestamp"]
        assert guest["timestamp"][:18] == running[:18]

    run(clock, work)


def test_a_qemu_timeout_ends_in_a_panic(
    clock: VirtualClock, profile_file: Callable[[str], Path]
) -> None:
    async def work(ask: Asker) -> None:
        create(ask, 1)
        await asyncio.sleep(400)
        found = await launcher(ask)
        assert found["status"]["phase"] == "Failed"
        told = await lines(ask, found["metadata"]["name"])
        panic = told.index("panic: timed out waiting for domain to be defined")
        assert "goroutine 1 [running]:" in told[panic:]
        last = json.loads(told[-1])
        assert last["component"] == "virt-launcher-monitor"
        assert last["msg"] == "dirty virt-launcher shutdown: exit-code 2"
        assert not any("Domain started." in line for line in told)
        assert await lines(ask, found["metadata"]["name"], "container=compute&tailLines=1") == [
            told[-1]
        ]

    run(clock, work, str(profile_file("extends: fast\nfaults: {qemu_timeout: 1}\n")))


def test_options_choose_what_is_shown(clock: VirtualClock) -> None:
    async def work(ask: Asker) -> None:
        create(ask, 1)
        await asyncio.sleep(100)
        name = (await launcher(ask))["metadata"]["name"]
        whole = await lines(ask, name)
        assert len(whole) > 5
        assert await lines(ask, name, "container=compute&tailLines=3") == whole[-3:]
        assert await lines(ask, name, "container=compute&tailLines=0") == []
        assert await lines(ask, name, "container=compute&sinceSeconds=10") == []
        assert await lines(ask, name, "container=compute&sinceSeconds=200") == whole
        _, text = await log(ask, name, "container=compute&limitBytes=10")
        assert text == whole[0][:10]
        (stamped, *_) = await lines(ask, name, "container=compute&timestamps=true")
        date, _, rest = stamped.partition(" ")
        assert rest == whole[0]
        assert json.loads(rest)["timestamp"].rstrip("Z") == date[:26]
        assert await lines(ask, name, "container=volumedisk") == []

    run(clock, work)


@pytest.mark.parametrize(
    ("query", "code", "message"),
    [
        ("", 400, "a container name must be specified for pod {pod}, choose one of: "
                  "[compute volumedisk]"),
        ("container=other", 400, "container other is not valid for pod {pod}"),
        ("container=compute&previous=true", 400,
         'previous terminated container "compute" in pod "{pod}" not found'),
        ("container=compute&tailLines=-1", 422,
         'PodLogOptions "{pod}" is invalid: tailLines: Invalid value: -1: must be greater than or '
         "equal to 0"),
        ("container=compute&tailLines=x", 400, 'strconv.ParseInt: parsing "x": invalid syntax'),
    ],
)  # fmt: skip
def test_errors_are_kubernetes_own(
    clock: VirtualClock, query: str, code: int, message: str
) -> None:
    async def work(ask: Asker) -> None:
        create(ask, 1)
        await asyncio.sleep(30)
        name = (await launcher(ask))["metadata"]["name"]
        status, told = await log(ask, name, query)
        assert (status, told["message"]) == (code, message.format(pod=name))

    run(clock, work)


def test_before_a_container_runs_there_is_no_log(
    clock: VirtualClock, profile_file: Callable[[str], Path]
) -> None:
    async def work(ask: Asker) -> None:
        create(ask, 1)
        ask.cluster.api.create(PODS, "default", pod(nodeSelector={"no": "where"}))
        await asyncio.sleep(200)
        assert await log(ask, "plain", "") == (200, "")
        name = (await launcher(ask))["metadata"]["name"]
        status, told = await log(ask, name)
        assert status == 400
        assert told["message"] == (
            f'container "compute" in pod "{name}" is waiting to start: ContainerCreating'
        )
        status, told = await log(ask, "nobody")
        assert (status, told["message"]) == (404, 'pods "nobody" not found')

    run(clock, work, str(profile_file("faults: {sandbox_timeout: 1}\n")))


def test_following_a_log_ends_with_its_container(clock: VirtualClock) -> None:
    async def work(ask: Asker) -> None:
        create(ask, 1)
        await asyncio.sleep(30)
        name = (await launcher(ask))["metadata"]["name"]
        following = asyncio.ensure_future(lines(ask, name, "container=compute&follow=true"))
        await asyncio.sleep(100)
        assert not following.done()
        ask.cluster.api.delete(VMIS, "default", "v0")
        told = await following
        assert "Exiting..." in told[-1]

    run(clock, work)
