"""The embedded API over HTTP, as a client sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.sim import profile
from pytest_kvscale.sim.cluster import EmbeddedCluster
from tests.sim.asker import CONFIG_MAPS, OF_VMIS, VMIS, Asker, Json, Work


def config_map(name: str = "one", **labels: str) -> Json:
    return {"metadata": {"name": name, "labels": labels}, "data": {"a": "1"}}


def vmi(name: str = "one") -> Json:
    requests = {"cpu": "10m", "memory": "10Mi"}
    spec = {"domain": {"resources": {"requests": requests}}}
    return {**OF_VMIS, "metadata": {"name": name}, "spec": spec}


def names(answer: Json) -> list[str]:
    return [each["metadata"]["name"] for each in answer["items"]]


def test_an_object_is_created_read_changed_and_deleted(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        status, made = await ask("POST", CONFIG_MAPS, config_map())
        assert status == 201
        assert made["kind"], made["apiVersion"] == ("ConfigMap", "v1")
        assert made["metadata"]["uid"]
        assert made["metadata"]["creationTimestamp"] == "2026-01-01T00:00:00Z"
        assert await ask("GET", CONFIG_MAPS + "/one") == (200, made)
        made["data"]["a"] = "2"
        status, changed = await ask("PUT", CONFIG_MAPS + "/one", made)
        assert (status, changed["data"]) == (200, {"a": "2"})
        status, refusal = await ask("PUT", CONFIG_MAPS + "/one", made)
        assert (status, refusal["reason"]) == (409, "Conflict")
        status, answer = await ask("DELETE", CONFIG_MAPS + "/one")
        assert (status, answer["status"]) == (200, "Success")
        status, refusal = await ask("GET", CONFIG_MAPS + "/one")
        assert (status, refusal["reason"]) == (404, "NotFound")
        assert refusal["details"] == {"name": "one", "kind": "configmaps"}

    run(work)


def test_refusals_have_a_status_body(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        await ask("POST", CONFIG_MAPS, config_map())
        other = {"metadata": {"name": "x", "namespace": "other"}}
        cases: list[tuple[tuple[Any, ...], int, str]] = [
            (("POST", CONFIG_MAPS, config_map()), 409, "AlreadyExists"),
            (("POST", CONFIG_MAPS, {"metadata": {}}), 422, "Invalid"),
            (("POST", CONFIG_MAPS, config_map("Not_A_Name")), 422, "Invalid"),
            (("POST", CONFIG_MAPS, other), 400, "BadRequest"),
            (("POST", CONFIG_MAPS, {"kind": "Pod", "metadata": {"name": "x"}}), 400, "BadRequest"),
            (("POST", CONFIG_MAPS, [1]), 400, "BadRequest"),
            (("POST", CONFIG_MAPS.replace("default", "none"), config_map()), 404, "NotFound"),
            (("POST", CONFIG_MAPS, None, "text/plain", b"hello"), 415, "UnsupportedMediaType"),
            (("POST", CONFIG_MAPS, None, "application/json", b"{no"), 400, "BadRequest"),
            (("PUT", CONFIG_MAPS, config_map()), 405, "MethodNotAllowed"),
            (("POST", CONFIG_MAPS + "/one", config_map()), 405, "MethodNotAllowed"),
            (("POST", "/api/v1/configmaps", config_map()), 405, "MethodNotAllowed"),
            (("OPTIONS", CONFIG_MAPS), 405, "MethodNotAllowed"),
            (("GET", CONFIG_MAPS + "?labelSelector=a%3Db%3Dc"), 400, "BadRequest"),
            (("GET", CONFIG_MAPS + "?resourceVersion=abc"), 400, "BadRequest"),
            (("GET", CONFIG_MAPS + "?resourceVersion=999999"), 504, "Timeout"),
            (("GET", CONFIG_MAPS + "?limit=2&continue=garbage"), 400, "BadRequest"),
            (("POST", VMIS, {**OF_VMIS, "metadata": {"name": "x"}}), 422, "Invalid"),
        ]
        for arguments, code, reason in cases:
            status, body = await ask(*arguments)
            assert isinstance(body, dict), (arguments, status, body)
            assert (status, body["code"], body["reason"]) == (code, code, reason), arguments
            assert (body["kind"], body["status"]) == ("Status", "Failure")
        too_large = b'{"a":"' + b"x" * (3 * 1024 * 1024) + b'"}'
        assert (await ask("POST", CONFIG_MAPS, raw=too_large))[0] == 413
        assert await ask("GET", "/apis/nope.example.com/v1/things") == (404, "404 page not found\n")

    run(work)


def test_a_patch_changes_a_part(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        await ask("POST", CONFIG_MAPS, config_map(tier="a"))
        path, merge = CONFIG_MAPS + "/one", "application/merge-patch+json"
        change = {"metadata": {"labels": {"tier": None, "x": "1"}}}
        _, changed = await ask("PATCH", path, change, merge)
        assert changed["metadata"]["labels"] == {"x": "1"}
        version = changed["metadata"]["resourceVersion"]
        _, same = await ask("PATCH", path, change, merge)
        assert same["metadata"]["resourceVersion"] == version
        stale = {"metadata": {"resourceVersion": "1"}, "data": {"a": "9"}}
        assert (await ask("PATCH", path, stale, merge))[0] == 409
        dry = path + "?dryRun=All"
        assert (await ask("PATCH", dry, {"data": {"a": "9"}}, merge))[1]["data"] == {"a": "9"}
        assert (await ask("GET", path))[1]["data"] == {"a": "1"}

    run(work)


def test_lists_can_be_selected_and_come_in_pages(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        for index in range(5):
            label = {"set": "x"} if index else {}
            await ask("POST", CONFIG_MAPS, config_map(f"cm-{index}", **label))
        _, page = await ask("GET", CONFIG_MAPS + "?limit=2")
        assert names(page) == ["cm-0", "cm-1"]
        assert page["metadata"]["remainingItemCount"] == 3
        rest: list[str] = []
        while page["metadata"].get("continue"):
            token = page["metadata"]["continue"]
            _, page = await ask("GET", CONFIG_MAPS + f"?limit=2&continue={token}")
            rest += names(page)
        assert rest == ["cm-2", "cm-3", "cm-4"]
        _, chosen = await ask("GET", "/api/v1/configmaps?labelSelector=set%3Dx&limit=0")
        assert len(chosen["items"]) == 4
        _, one = await ask("GET", CONFIG_MAPS + "?fieldSelector=metadata.name%3Dcm-3")
        assert names(one) == ["cm-3"]
        _, gone = await ask("DELETE", CONFIG_MAPS + "?labelSelector=set%3Dx")
        assert len(gone["items"]) == 4
        assert names((await ask("GET", CONFIG_MAPS))[1]) == ["cm-0"]

    run(work)


def test_a_watch_resumes_after_a_version_and_ends_in_time(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        loop = asyncio.get_running_loop()
        _, listed = await ask("GET", CONFIG_MAPS)
        version = listed["metadata"]["resourceVersion"]
        await ask("POST", CONFIG_MAPS, config_map("a"))
        await ask("POST", CONFIG_MAPS, config_map("b"))
        await ask("DELETE", CONFIG_MAPS + "/a")
        begun = loop.time()
        path = CONFIG_MAPS + f"?watch=1&resourceVersion={version}&timeoutSeconds=100"
        events = [event async for event in ask.watch(path + "&allowWatchBookmarks=true")]
        assert loop.time() - begun == pytest.approx(100, abs=1e-6)
        told = [(event["type"], event["object"]["metadata"].get("name")) for event in events]
        # A bookmark comes every minute, and two seconds before the end.
        bookmarks = [("BOOKMARK", None)] * 2
        assert told == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a"), *bookmarks]
        events = [event async for event in ask.watch(path.replace("100", "3"))]
        assert len(events) == 3

    run(work)


def test_a_watch_can_begin_with_what_is_there(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        await ask("POST", CONFIG_MAPS, config_map("a"))
        query = "?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&timeoutSeconds=1"
        assert (await ask("GET", CONFIG_MAPS + query))[0] == 422
        query += "&resourceVersionMatch=NotOlderThan"
        events = [event async for event in ask.watch(CONFIG_MAPS + query)]
        assert [event["type"] for event in events] == ["ADDED", "BOOKMARK"]
        annotations = events[1]["object"]["metadata"]["annotations"]
        assert annotations == {"k8s.io/initial-events-end": "true"}

    run(work)


def test_a_watch_from_before_the_history_is_gone(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        await ask("POST", CONFIG_MAPS, config_map("a"))
        ask.cluster.store.compact()
        await ask("POST", CONFIG_MAPS, config_map("b"))
        status, told = await ask("GET", CONFIG_MAPS + "?watch=1&resourceVersion=2")
        assert (status, told["type"]) == (200, "ERROR")
        assert (told["object"]["code"], told["object"]["reason"]) == (410, "Expired")

    run(work)


def test_finalizers_hold_an_object(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        held = config_map()
        held["metadata"]["finalizers"] = ["example.com/hold"]
        await ask("POST", CONFIG_MAPS, held)
        status, answer = await ask("DELETE", CONFIG_MAPS + "/one")
        assert (status, "deletionTimestamp" in answer["metadata"]) == (200, True)
        assert (await ask("GET", CONFIG_MAPS + "/one"))[0] == 200
        change = {"metadata": {"finalizers": None}}
        await ask("PATCH", CONFIG_MAPS + "/one", change, "application/merge-patch+json")
        assert (await ask("GET", CONFIG_MAPS + "/one"))[0] == 404

    run(work)


def test_a_deletion_can_have_preconditions(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        _, made = await ask("POST", CONFIG_MAPS, config_map())
        wrong = {"preconditions": {"uid": "another"}}
        assert (await ask("DELETE", CONFIG_MAPS + "/one", wrong))[0] == 409
        right = {"preconditions": {"uid": made["metadata"]["uid"]}}
        assert (await ask("DELETE", CONFIG_MAPS + "/one", right))[0] == 200

    run(work)


def test_a_namespace_that_ends_takes_nothing_new_and_all_with_it(
    run: Callable[[Work], None],
) -> None:
    async def work(ask: Asker) -> None:
        await ask("POST", "/api/v1/namespaces", {"metadata": {"name": "n"}})
        inside = CONFIG_MAPS.replace("default", "n")
        await ask("POST", inside, config_map())
        _, ending = await ask("DELETE", "/api/v1/namespaces/n")
        assert ending["status"]["phase"] == "Terminating"
        status, refusal = await ask("POST", inside, config_map("two"))
        assert status == 403
        assert refusal["details"]["causes"][0]["reason"] == "NamespaceTerminating"
        await asyncio.sleep(5)
        assert (await ask("GET", "/api/v1/namespaces/n"))[0] == 404
        assert names((await ask("GET", inside))[1]) == []

    run(work)


def test_only_some_kinds_have_a_door_for_their_status(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        path = "/apis/kubevirt.io/v1/namespaces/kubevirt/kubevirts/kubevirt"
        merge = "application/merge-patch+json"
        both = {"spec": {"imageTag": "x"}, "status": {"phase": "Broken"}}
        _, changed = await ask("PATCH", path, both, merge)
        assert (changed["spec"]["imageTag"], changed["status"]["phase"]) == ("x", "Deployed")
        assert changed["metadata"]["generation"] == 2
        both = {"spec": {"imageTag": "y"}, "status": {"phase": "Deploying"}}
        _, changed = await ask("PATCH", path + "/status", both, merge)
        assert (changed["spec"]["imageTag"], changed["status"]["phase"]) == ("x", "Deploying")
        await ask("POST", VMIS, vmi())
        assert (await ask("PATCH", VMIS + "/one/status", both, merge))[0] == 404

    run(work)


def test_a_generated_name_is_another_each_time(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        made = [
            (await ask("POST", CONFIG_MAPS, {"metadata": {"generateName": "gen-"}}))[1]
            for _ in range(3)
        ]
        generated = {each["metadata"]["name"] for each in made}
        assert len(generated) == 3
        assert all(len(each) == 9 and each.startswith("gen-") for each in generated)

    run(work)


def test_tables_have_the_columns_of_kubevirt(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        await ask("POST", VMIS, vmi())
        accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
        _, table = await ask("GET", VMIS, accept=accept)
        columns = [each["name"] for each in table["columnDefinitions"]]
        assert columns == [
            "Name", "Age", "Phase", "IP", "NodeName", "Ready", "Live-Migratable", "Paused",
        ]  # fmt: skip
        assert table["rows"][0]["cells"][:3] == ["one", "0s", "Pending"]
        for path in ("/api/v1/pods", "/api/v1/nodes", "/api/v1/events", "/api/v1/namespaces"):
            assert (await ask("GET", path, accept=accept))[1]["kind"] == "Table"

    run(work)


def test_the_server_says_what_it_serves_and_that_it_is_simulated(
    run: Callable[[Work], None],
) -> None:
    async def work(ask: Asker) -> None:
        _, version = await ask("GET", "/version")
        assert version["simulated"]["kind"] == "sim"
        assert (version["major"], version["minor"]) == ("1", "21")
        for path in ("/healthz", "/livez", "/readyz"):
            assert await ask("GET", path) == (200, "ok")
        _, groups = await ask("GET", "/apis")
        assert {each["name"] for each in groups["groups"]} >= {"kubevirt.io", "apps"}
        _, resources = await ask("GET", "/apis/kubevirt.io/v1")
        by_name = {each["name"]: each for each in resources["resources"]}
        assert by_name["virtualmachineinstances"]["shortNames"] == ["vmi", "vmis"]
        assert "kubevirts/status" in by_name
        assert "virtualmachineinstances/status" not in by_name

    run(work)


def test_every_request_is_counted_by_caller(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        ask.session.headers["User-Agent"] = "me"
        await ask("POST", CONFIG_MAPS, config_map())
        await ask("GET", CONFIG_MAPS + "/one")
        await ask("GET", CONFIG_MAPS + "/two")
        counted = ask.cluster.server.requests
        assert counted["me", "create", "configmaps", 201] == 1
        assert counted["me", "get", "configmaps", 200] == 1
        assert counted["me", "get", "configmaps", 404] == 1
        _, served = await ask("GET", "/_sim/served")
        assert {"agent": "me", "verb": "create", "resource": "configmaps", "code": 201,
                "count": 1} in served["rows"]  # fmt: skip

    run(work)


def test_requests_take_the_profiles_time(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        loop, times = asyncio.get_running_loop(), ask.cluster.profile.api
        before = loop.time()
        await ask("POST", CONFIG_MAPS, config_map())
        took = loop.time() - before
        assert times.write / (1 + times.spread) <= took <= times.write * (1 + times.spread)

    run(work)


def test_a_bug_in_the_cluster_is_answered_and_kept(clock: VirtualClock) -> None:
    async def work() -> tuple[int, str, BaseException | None]:
        cluster = EmbeddedCluster(profile.load("fast"), "fast", 0)
        await cluster.start()
        cluster.api.get = None  # type: ignore[assignment,method-assign]
        async with aiohttp.ClientSession() as session:
            status, body = await Asker(cluster, session)("GET", CONFIG_MAPS + "/one")
        await cluster.stop()
        return status, body["reason"], cluster.server.problem

    status, reason, problem = clock.run(work())
    assert (status, reason) == (500, "InternalError")
    assert isinstance(problem, TypeError)
