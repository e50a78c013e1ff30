"""Rules of Kubernetes' API that clients lean on, over HTTP, on the API alone."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.sim.asker import CONFIG_MAPS, Asker, Work
from tests.sim.test_server import config_map, names
from tests.sim.wire import LEASES, MERGE, VMIS, vmi

Json = dict[str, Any]
HERE = VMIS.format("default")
PODS = "/api/v1/namespaces/default/pods"
POD = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}


@pytest.fixture
def api_only() -> bool:
    return True


def mine(name: str = "one", **metadata: Any) -> Json:
    return vmi(name, "default", **metadata)


def causes(body: Json) -> list[tuple[str, str]]:
    return sorted((each["reason"], each.get("field", "")) for each in body["details"]["causes"])


def version(body: Json) -> str:
    return str(body["metadata"]["resourceVersion"])


# Versions ---------------------------------------------------------------------------------------


def test_who_must_say_a_version_in_a_put_and_who_need_not(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        _, made = await ask("POST", HERE, mine())
        _, plain = await ask("POST", CONFIG_MAPS, config_map())
        for obj in (made, plain):
            del obj["metadata"]["resourceVersion"]
        status, refusal = await ask("PUT", HERE + "/one", made)
        assert (status, causes(refusal)) == (
            422, [("FieldValueInvalid", "metadata.resourceVersion")],
        )  # fmt: skip
        assert refusal["details"]["kind"] == "virtualmachineinstances"
        assert (await ask("PUT", CONFIG_MAPS + "/one", plain))[0] == 200
        made["metadata"]["resourceVersion"] = "abc"
        assert (await ask("PUT", HERE + "/one", made))[0] == 400
        plain["metadata"]["resourceVersion"] = "1"
        assert (await ask("PUT", CONFIG_MAPS + "/one", plain))[0] == 409
        del plain["metadata"]["resourceVersion"]
        plain["metadata"]["uid"] = "another"
        assert (await ask("PUT", CONFIG_MAPS + "/one", plain))[0] == 409

    run(work)


def test_a_put_names_the_object_of_its_path(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        await ask("POST", CONFIG_MAPS, config_map())
        for metadata in ({"name": "two"}, {}, {"name": "one", "namespace": "other"}):
            status, refusal = await ask("PUT", CONFIG_MAPS + "/one", {"metadata": metadata})
            assert (status, refusal["reason"]) == (400, "BadRequest")
        assert (await ask("PUT", CONFIG_MAPS + "/two", config_map("two")))[0] == 404
        # Some kinds are created by a PUT.
        assert (await ask("PUT", LEASES.replace("wire-a", "default") + "/l",
                          {"metadata": {"name": "l"}, "spec": {}}))[0] == 201  # fmt: skip

    run(work)


# Lists ------------------------------------------------------------------------------------------


def test_every_page_shows_the_list_as_it_was_at_first(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        for name in ("a", "b", "c", "d"):
            await ask("POST", CONFIG_MAPS, config_map(name))
        _, page = await ask("GET", CONFIG_MAPS + "?limit=1")
        at, first = version(page), page
        await ask("DELETE", CONFIG_MAPS + "/b")
        await ask("POST", CONFIG_MAPS, config_map("bb"))
        await ask("PATCH", CONFIG_MAPS + "/c", {"data": {"a": "new"}}, MERGE)
        seen = list(page["items"])
        while page["metadata"].get("continue"):
            token = page["metadata"]["continue"]
            _, page = await ask("GET", f"{CONFIG_MAPS}?limit=1&continue={token}")
            assert version(page) == at
            seen += page["items"]
        assert [each["metadata"]["name"] for each in seen] == ["a", "b", "c", "d"]
        assert seen[2]["data"] == {"a": "1"}
        assert first["metadata"]["remainingItemCount"] == 3
        for query in (f"resourceVersion={at}&resourceVersionMatch=Exact",
                      f"resourceVersion={at}&limit=9"):  # fmt: skip
            _, past = await ask("GET", f"{CONFIG_MAPS}?{query}")
            assert (names(past), version(past)) == (["a", "b", "c", "d"], at)
        for query in (f"resourceVersion={at}&resourceVersionMatch=NotOlderThan",
                      f"resourceVersion={at}", "resourceVersion=0&limit=1"):  # fmt: skip
            _, now = await ask("GET", f"{CONFIG_MAPS}?{query}")
            assert names(now) == ["a", "bb", "c", "d"]

    run(work)


def test_a_list_of_a_forgotten_version_is_expired_and_can_go_on(
    run: Callable[[Work], None],
) -> None:
    async def work(ask: Asker) -> None:
        for name in ("a", "b", "c"):
            await ask("POST", CONFIG_MAPS, config_map(name))
        _, page = await ask("GET", CONFIG_MAPS + "?limit=1")
        await ask("POST", CONFIG_MAPS, config_map("bb"))
        ask.cluster.store.compact()
        await ask("POST", CONFIG_MAPS, config_map("bbb"))
        exact = f"?resourceVersion={version(page)}&resourceVersionMatch=Exact"
        status, refusal = await ask("GET", CONFIG_MAPS + exact)
        assert (status, refusal["reason"], refusal["metadata"]) == (410, "Expired", {})
        token = page["metadata"]["continue"]
        status, refusal = await ask("GET", f"{CONFIG_MAPS}?limit=1&continue={token}")
        assert (status, refusal["reason"]) == (410, "Expired")
        token = refusal["metadata"]["continue"]
        _, rest = await ask("GET", f"{CONFIG_MAPS}?continue={token}")
        assert names(rest) == ["b", "bb", "bbb", "c"]

    run(work)


def a_token(**content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("query", "code", "cause"),
    [
        ("resourceVersionMatch=Exact", 422, "FieldValueForbidden"),
        ("resourceVersion=0&resourceVersionMatch=Exact", 422, "FieldValueForbidden"),
        ("resourceVersion=1&resourceVersionMatch=Older", 422, "FieldValueNotSupported"),
        ("sendInitialEvents=true", 422, "FieldValueForbidden"),
        ("watch=1&resourceVersionMatch=NotOlderThan", 422, "FieldValueForbidden"),
        ("watch=1&sendInitialEvents=true", 422, "FieldValueForbidden"),
        ("resourceVersion=999999", 504, "ResourceVersionTooLarge"),
        ("resourceVersion=999999&resourceVersionMatch=Exact", 504, "ResourceVersionTooLarge"),
        ("resourceVersion=-1", 400, ""),
        ("limit=abc", 400, ""),
        ("timeoutSeconds=x", 400, ""),
        ("fieldSelector=spec.x%3D1", 400, ""),
        ("fieldSelector=metadata.name", 400, ""),
        ("labelSelector=a%20in%20b", 400, ""),
        ("labelSelector=bad%2Fkey%2Ftwo", 400, ""),
        (f"continue={a_token(v='meta.k8s.io/v1', rv=0, start='/a')}", 400, ""),
        (f"continue={a_token(v='meta.k8s.io/v1', rv=5, start='/../a')}", 400, ""),
        (f"continue={a_token(v='v9', rv=5, start='/a')}", 400, ""),
        (f"resourceVersion=5&continue={a_token(v='meta.k8s.io/v1', rv=5, start='/a')}", 400, ""),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(
    run: Callable[[Work], None], query: str, code: int, cause: str
) -> None:
    async def work(ask: Asker) -> None:
        status, refusal = await ask("GET", f"{CONFIG_MAPS}?{query}")
        assert (status, refusal["code"]) == (code, code)
        if cause:
            assert {each["reason"] for each in refusal["details"]["causes"]} == {cause}
        if code == 422:
            assert refusal["details"]["kind"] == "ListOptions"

    run(work)


# Watches ----------------------------------------------------------------------------------------


async def told(ask: Asker, path: str) -> list[Json]:
    return [event async for event in ask.watch(path)]


def test_an_object_that_stops_matching_is_shown_as_it_was(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        _, listed = await ask("GET", CONFIG_MAPS)
        await ask("POST", CONFIG_MAPS, config_map(x="1"))
        change = {"metadata": {"labels": {"x": "2"}}, "data": {"a": "2"}}
        _, changed = await ask("PATCH", CONFIG_MAPS + "/one", change, MERGE)
        path = f"{CONFIG_MAPS}?watch=1&timeoutSeconds=1&resourceVersion={version(listed)}"
        added, deleted = await told(ask, path + "&labelSelector=x%3D1")
        assert (added["type"], deleted["type"]) == ("ADDED", "DELETED")
        assert deleted["object"]["data"] == {"a": "1"}
        assert deleted["object"]["metadata"]["labels"] == {"x": "1"}
        assert version(deleted["object"]) == version(changed)

    run(work)


def test_where_a_watch_begins(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        await ask("POST", CONFIG_MAPS, config_map("a"))
        watch = CONFIG_MAPS + "?watch=true&timeoutSeconds=1"
        initial = "&sendInitialEvents={}&resourceVersionMatch=NotOlderThan"
        for query, expected in (
            ("", ["ADDED"]),
            ("&resourceVersion=0", ["ADDED"]),
            ("&resourceVersion=0&allowWatchBookmarks=1", ["ADDED", "BOOKMARK"]),
            (initial.format("false"), []),
            (initial.format("true"), ["ADDED"]),
            ("&resourceVersion=999999", []),
            # Nobody can have seen what was before the server was there.
            ("&resourceVersion=1", ["ERROR"]),
            (initial.format("true") + "&resourceVersion=999999", ["ERROR"]),
            ("&fieldSelector=metadata.name%3Da", ["ADDED"]),
            ("&fieldSelector=metadata.name%3Db", []),
        ):
            assert [event["type"] for event in await told(ask, watch + query)] == expected, query
        old = "/api/v1/watch/namespaces/default/configmaps"
        assert [event["type"] for event in await told(ask, old + "/a?timeoutSeconds=1")] == [
            "ADDED"
        ]
        # On one object's own path the parameter means nothing.
        assert (await ask("GET", CONFIG_MAPS + "/a?watch=1"))[1]["kind"] == "ConfigMap"

    run(work)


def test_a_watch_can_be_a_table_or_metadata_alone(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        await ask("POST", HERE, mine("a"))
        await ask("POST", HERE, mine("b"))
        path = HERE + "?watch=1&timeoutSeconds=1"
        shape = "application/json;as={};v=v1;g=meta.k8s.io"
        _, events = await ask("GET", path, accept=shape.format("Table"))
        assert [bool(each["object"]["columnDefinitions"]) for each in events] == [True, False]
        assert [each["object"]["rows"][0]["cells"][0] for each in events] == ["a", "b"]
        _, events = await ask("GET", path, accept=shape.format("PartialObjectMetadata"))
        assert {each["object"]["kind"] for each in events} == {"PartialObjectMetadata"}
        assert (await ask("GET", path, accept="application/yaml"))[0] == 406

    run(work)


# Writing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "code", "fields"),
    [
        ({"name": "a", "labels": {"bad key": "x"}}, 422, ["metadata.labels"]),
        ({"name": "a", "labels": {"a": "b c"}}, 422, ["metadata.labels"]),
        ({"name": "a", "annotations": {"b c": "x"}}, 422, ["metadata.annotations"]),
        ({"name": "a", "finalizers": ["mine"]}, 422, ["metadata.finalizers[0]"]),
        ({"name": "a", "finalizers": ["b/c d"]}, 422, ["metadata.finalizers"]),
        ({"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod"}]}, 422,
         ["metadata.ownerReferences.name", "metadata.ownerReferences.uid"]),
        ({"generateName": "Bad_"}, 422, ["metadata.generateName", "metadata.name"]),
        ({}, 422, ["metadata.name"]),
        ({"name": "a" * 254}, 422, ["metadata.name"]),
        ({"name": "a", "labels": {"a": 1}}, 400, []),
        ({"name": 7}, 400, []),
        ({"name": "a", "resourceVersion": "5"}, 400, []),
        ({"name": "a", "namespace": "other"}, 400, []),
    ],
)  # fmt: skip
def test_metadata_that_may_not_be(
    run: Callable[[Work], None], metadata: Json, code: int, fields: list[str]
) -> None:
    async def work(ask: Asker) -> None:
        status, refusal = await ask("POST", CONFIG_MAPS, {"metadata": metadata})
        assert (status, refusal["code"]) == (code, code)
        if fields:
            assert [field for _, field in causes(refusal)] == fields

    run(work)


def test_fields_are_checked_as_is_asked_for(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        wrong = mine()
        wrong["spec"]["domain"]["bogus"] = 1
        status, refusal = await ask("POST", HERE + "?fieldValidation=Strict", wrong)
        assert (status, refusal["reason"]) == (400, "BadRequest")
        assert 'unknown field "spec.domain.bogus"' in refusal["message"]
        async with ask.session.post(ask.cluster.url + HERE, json=wrong) as answer:
            assert answer.status == 201
            assert answer.headers["Warning"] == '299 - "unknown field \\"spec.domain.bogus\\""'
            assert "bogus" not in (await answer.json())["spec"]["domain"]
        twice = b'{"metadata":{"name":"x"},"data":{"a":"1","a":"2"}}'
        status, refusal = await ask("POST", CONFIG_MAPS + "?fieldValidation=Strict", raw=twice)
        assert (status, 'duplicate field "a"' in refusal["message"]) == (400, True)
        assert (await ask("POST", CONFIG_MAPS + "?fieldValidation=Hard", config_map()))[0] == 422

    run(work)


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        (None, [("FieldValueInvalid", "<nil>"), ("FieldValueTypeInvalid", "spec")]),
        ({}, [("FieldValueInvalid", "<nil>"), ("FieldValueRequired", "spec.domain")]),
        ({"domain": {}}, [("FieldValueInvalid", "<nil>"),
                          ("FieldValueRequired", "spec.domain.devices")]),
        ({"domain": {"devices": "x"}}, [("FieldValueInvalid", "<nil>"),
                                        ("FieldValueTypeInvalid", "spec.domain.devices")]),
        ({"domain": {"devices": {}}, "terminationGracePeriodSeconds": "5"},
         [("FieldValueInvalid", "<nil>"),
          ("FieldValueTypeInvalid", "spec.terminationGracePeriodSeconds")]),
    ],
)  # fmt: skip
def test_a_custom_object_that_breaks_its_definition(
    run: Callable[[Work], None], spec: Any, fields: list[tuple[str, str]]
) -> None:
    async def work(ask: Asker) -> None:
        status, refusal = await ask("POST", HERE, {**mine(), "spec": spec})
        assert (status, causes(refusal)) == (422, fields)

    run(work)


def test_a_built_in_object_of_wrong_types_cannot_be_read(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        for path, body in (
            (CONFIG_MAPS, {"data": {"a": 1}}),
            (CONFIG_MAPS, {"data": "x"}),
            (PODS, {"spec": {"containers": "x"}}),
            (LEASES.replace("wire-a", "default"), {"spec": {"leaseDurationSeconds": "15"}}),
        ):
            status, refusal = await ask("POST", path, {"metadata": {"name": "x"}, **body})
            assert (status, refusal["reason"]) == (400, "BadRequest"), path

    run(work)


def test_rules_of_single_kinds(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        leases = LEASES.replace("wire-a", "default")
        events = "/api/v1/namespaces/default/events"
        for path, body, field in (
            (leases, {"spec": {"leaseDurationSeconds": 0}}, "spec.leaseDurationSeconds"),
            (events, {"involvedObject": {"namespace": "other"}}, "involvedObject.namespace"),
            (CONFIG_MAPS, {"data": {"b c": "1"}}, "data[b c]"),
            (PODS, {"spec": {"containers": []}}, "spec.containers"),
            ("/api/v1/namespaces/default/services", {"spec": {}}, "spec.ports"),
            ("/api/v1/namespaces/default/secrets", {"type": "kubernetes.io/tls",
                                                    "data": {"tls.crt": ""}}, "data[tls.key]"),
        ):  # fmt: skip
            status, refusal = await ask("POST", path, {"metadata": {"name": "x"}, **body})
            assert (status, [field for _, field in causes(refusal)]) == (422, [field]), path
        deployment = {"metadata": {"name": "d"}, "spec": {}}
        deployments = "/apis/apps/v1/namespaces/default/deployments"
        status, refusal = await ask("POST", deployments, deployment)
        assert [field for _, field in causes(refusal)] == [
            "spec.template.metadata.labels", "spec.selector", "spec.template.spec.containers",
        ]  # fmt: skip
        await ask("POST", CONFIG_MAPS, {**config_map(), "immutable": True})
        status, refusal = await ask("PATCH", CONFIG_MAPS + "/one", {"data": {"b": "1"}}, MERGE)
        assert (status, causes(refusal)) == (422, [("FieldValueForbidden", "data")])
        await ask("POST", PODS, POD)
        status, refusal = await ask("PATCH", PODS + "/p", {"spec": {"nodeName": "x"}}, MERGE)
        assert (status, causes(refusal)) == (422, [("FieldValueForbidden", "spec")])

    run(work)


# Deleting ---------------------------------------------------------------------------------------


def test_options_of_a_deletion(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        _, made = await ask("POST", CONFIG_MAPS, config_map())
        one = CONFIG_MAPS + "/one"
        for options, code in (
            ({"propagationPolicy": "Sideways"}, 422),
            ({"propagationPolicy": "Orphan", "orphanDependents": True}, 422),
            ({"dryRun": ["Some"]}, 422),
            ({"kind": "Pod"}, 400),
            ({"gracePeriodSeconds": "x"}, 400),
            ({"preconditions": {"uid": "x"}}, 409),
            ({"preconditions": {"resourceVersion": "1"}}, 409),
            ({"dryRun": ["All"]}, 200),
        ):
            assert (await ask("DELETE", one, options))[0] == code, options
        assert (await ask("DELETE", one + "?propagationPolicy=Sideways"))[0] == 422
        assert (await ask("GET", one))[1] == made
        _, held = await ask("DELETE", one, {"propagationPolicy": "Foreground"})
        assert held["metadata"]["finalizers"] == ["foregroundDeletion"]
        await asyncio.sleep(1)
        assert (await ask("GET", one))[0] == 404
        await ask("POST", PODS, POD)
        _, gone = await ask("DELETE", PODS + "/p")
        assert gone["kind"] == "Pod"

    run(work)


def test_nothing_new_holds_an_object_that_is_being_deleted(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        await ask("POST", HERE, mine(finalizers=["example.com/a"]))
        await ask("DELETE", HERE + "/one")
        more = {"metadata": {"finalizers": ["example.com/a", "example.com/b"]}}
        status, refusal = await ask("PATCH", HERE + "/one", more, MERGE)
        assert (status, causes(refusal)) == (422, [("FieldValueForbidden", "metadata.finalizers")])

    run(work)


def test_namespaces_end_when_nothing_holds_them(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        for name in ("default", "kube-system", "kube-public"):
            status, refusal = await ask("DELETE", f"/api/v1/namespaces/{name}")
            assert (status, refusal["reason"]) == (403, "Forbidden")
        assert (await ask("DELETE", "/api/v1/namespaces"))[0] == 405
        path = "/api/v1/namespaces/n"
        await ask("POST", "/api/v1/namespaces", {"metadata": {"name": "n"}})
        held = CONFIG_MAPS.replace("default", "n")
        content = config_map()
        content["metadata"]["finalizers"] = ["example.com/hold"]
        await ask("POST", held, content)
        await ask("DELETE", path)
        await asyncio.sleep(2)
        _, ending = await ask("GET", path)
        conditions = {each["type"]: each["status"] for each in ending["status"]["conditions"]}
        assert conditions["NamespaceContentRemaining"] == "True"
        assert conditions["NamespaceFinalizersRemaining"] == "True"
        await ask("PATCH", held + "/one", {"metadata": {"finalizers": None}}, MERGE)
        await asyncio.sleep(2)
        assert (await ask("GET", path))[0] == 404

    run(work)


# Formats and paths ------------------------------------------------------------------------------


def test_formats_that_a_client_may_ask_for(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        await ask("POST", CONFIG_MAPS, config_map())
        one = CONFIG_MAPS + "/one"
        assert (await ask("GET", one, accept="text/html"))[0] == 406
        assert (await ask("GET", one, accept="text/html, */*;q=0.8"))[0] == 200
        protobuf = "application/vnd.kubernetes.protobuf"
        assert (await ask("GET", one, accept=protobuf + ",application/json"))[0] == 200
        _, text = await ask("GET", one, accept="application/yaml")
        assert text.startswith("kind: ConfigMap\napiVersion: v1\n")
        shape = "application/json;as={};v=v1;g=meta.k8s.io"
        assert (await ask("GET", one, accept=shape.format("PartialObjectMetadataList")))[0] == 406
        _, partial = await ask("GET", one, accept=shape.format("PartialObjectMetadata"))
        assert partial.keys() == {"kind", "apiVersion", "metadata"}
        table = shape.format("Table")
        for include, kind in (("None", None), ("Object", "ConfigMap"),
                              ("Metadata", "PartialObjectMetadata")):  # fmt: skip
            _, rows = await ask("GET", f"{one}?includeObject={include}", accept=table)
            assert (rows["rows"][0]["object"] or {}).get("kind") == kind
        assert (await ask("GET", one + "?includeObject=All", accept=table))[0] == 400
        as_yaml = b"metadata: {name: two, creationTimestamp: 2020-01-01T00:00:00Z}\ndata: {b: x}\n"
        status, made = await ask("POST", CONFIG_MAPS, kind="application/yaml", raw=as_yaml)
        assert (status, made["data"]) == (201, {"b": "x"})
        _, listed = await ask("GET", CONFIG_MAPS)
        assert "kind" not in listed["items"][0]
        text = await (await ask.session.get(ask.cluster.url + one + "?pretty=1")).text()
        assert text.startswith('{\n  "kind": "ConfigMap",\n')

    run(work)


def test_large_answers_are_packed_for_those_who_take_it(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        big = {"metadata": {"name": "big"}, "data": {"a": "x" * 200_000}}
        await ask("POST", CONFIG_MAPS, big)
        for encoding, packed in (("gzip", "gzip"), ("identity", None), ("gzip;q=0", None)):
            headers = {"Accept-Encoding": encoding}
            url = ask.cluster.url + CONFIG_MAPS + "/big"
            async with ask.session.get(url, headers=headers) as answer:
                assert answer.headers.get("Content-Encoding") == packed
                assert (await answer.json())["data"] == big["data"]

    run(work)


def test_paths_where_nothing_is(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        _, made = await ask("POST", HERE, mine())
        nothing = "404 page not found\n"
        for path in ("/nope", "/apis/none.io/v1/x", "/apis/kubevirt.io/v1/nothings",
                     "/apis/kubevirt.io/v1/virtualmachineinstances/one"):  # fmt: skip
            assert await ask("GET", path) == (404, nothing)
        for path in ("/api/v1/nothings", "/apis/apps/v1/x", "/api/v1/pods/p",
                     CONFIG_MAPS + "/one/status"):  # fmt: skip
            status, refusal = await ask("GET", path)
            assert (status, refusal["reason"], refusal["details"]) == (404, "NotFound", {})
        status, refusal = await ask("GET", HERE + "/one/status")
        assert (status, refusal["details"]["name"]) == (404, "one")
        status, refusal = await ask("POST", HERE + "/one", made)
        assert (status, refusal["details"]["kind"]) == (405, "virtualmachineinstances")
        assert (await ask("GET", CONFIG_MAPS + "/"))[0] == 200
        _, healthy = await ask("GET", "/readyz?verbose")
        assert healthy.endswith("readyz check passed\n")
        assert await ask("GET", "/healthz/ping") == (200, "ok")
        assert (await ask("GET", "/healthz/none"))[0] == 404
        _, index = await ask("GET", "/")
        assert "/apis/kubevirt.io/v1" in index["paths"]

    run(work)


def test_all_of_discovery_at_once_has_a_tag(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        for api in ("v2", "v2beta1"):
            accept = f"application/json;g=apidiscovery.k8s.io;v={api};as=APIGroupDiscoveryList"
            url = ask.cluster.url + "/apis"
            async with ask.session.get(url, headers={"Accept": accept}) as answer:
                found = await answer.json(content_type=None)
                tag = answer.headers["ETag"]
            assert found["apiVersion"] == f"apidiscovery.k8s.io/{api}"
            (group,) = [e for e in found["items"] if e["metadata"]["name"] == "kubevirt.io"]
            assert [each["version"] for each in group["versions"]] == ["v1", "v1alpha3"]
            headers = {"Accept": accept, "If-None-Match": tag}
            async with ask.session.get(url, headers=headers) as answer:
                assert answer.status == 304

    run(work)


# Further doors ----------------------------------------------------------------------------------


def test_the_old_version_of_kubevirt_shows_the_same_objects(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        await ask("POST", HERE, mine())
        old = HERE.replace("/v1/", "/v1alpha3/")
        async with ask.session.get(ask.cluster.url + old + "/one") as answer:
            assert (await answer.json())["apiVersion"] == "kubevirt.io/v1alpha3"
            assert "deprecated" in answer.headers["Warning"]
        assert (await ask("POST", old, mine("two")))[0] == 400
        two = {**mine("two"), "apiVersion": "kubevirt.io/v1alpha3"}
        assert (await ask("POST", old, two))[0] == 201
        _, listed = await ask("GET", HERE)
        assert {each["apiVersion"] for each in listed["items"]} == {"kubevirt.io/v1"}

    run(work)


def test_replicas_are_read_and_set_through_scale(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        path = HERE.replace("instances", "instancereplicasets")
        template = {"spec": mine()["spec"]}
        selector = {"matchLabels": {"a": "b"}}
        body = {
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstanceReplicaSet",
            "metadata": {"name": "set"}, "spec": {"template": template, "selector": selector},
        }  # fmt: skip
        assert (await ask("POST", path, body))[0] == 201
        _, scale = await ask("GET", path + "/set/scale")
        assert (scale["kind"], scale["spec"]) == ("Scale", {})
        scale["spec"]["replicas"] = 3
        status, scaled = await ask("PUT", path + "/set/scale", scale)
        assert (status, scaled["spec"]) == (200, {"replicas": 3})
        assert (await ask("PUT", path + "/set/scale", scale))[0] == 409
        status, scaled = await ask("PATCH", path + "/set/scale", {"spec": {"replicas": 1}}, MERGE)
        assert (await ask("GET", path + "/set"))[1]["spec"]["replicas"] == 1
        status, refusal = await ask("PATCH", path + "/set/scale", {"spec": {"replicas": -1}}, MERGE)
        assert (status, causes(refusal)) == (422, [("FieldValueInvalid", "spec.replicas")])

    run(work)


def test_a_scheduler_from_outside_binds_and_an_eviction_deletes(
    run: Callable[[Work], None],
) -> None:
    async def work(ask: Asker) -> None:
        await ask("POST", PODS, POD)
        binding = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "here"}}
        status, done = await ask("POST", PODS + "/p/binding", binding)
        assert (status, done["status"]) == (201, "Success")
        assert (await ask("GET", PODS + "/p"))[1]["spec"]["nodeName"] == "here"
        assert (await ask("POST", PODS + "/p/binding", binding))[0] == 409
        nowhere = {"metadata": {"name": "p"}, "target": {"kind": "Node"}}
        assert (await ask("POST", PODS + "/p/binding", nowhere))[0] == 422
        eviction = {"metadata": {"name": "p"}, "deleteOptions": {"gracePeriodSeconds": 0}}
        assert (await ask("POST", PODS + "/p/eviction", eviction))[0] == 201
        assert (await ask("GET", PODS + "/p"))[0] == 404
        assert (await ask("POST", PODS + "/p/eviction", eviction))[0] == 404

    run(work)


def test_definitions_of_kubevirts_kinds_can_be_read(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        _, found = await ask("GET", f"{path}/virtualmachineinstances.kubevirt.io")
        conditions = {each["type"]: each["status"] for each in found["status"]["conditions"]}
        assert conditions["Established"] == "True"
        assert found["spec"]["names"]["shortNames"] == ["vmi", "vmis"]
        own = {"metadata": {"name": "xs.example.com"}, "spec": {}}
        assert (await ask("POST", path, own))[0] == 422
        _, services = await ask("GET", "/apis/apiregistration.k8s.io/v1/apiservices")
        assert "v1.kubevirt.io" in names(services)

    run(work)
