"""Whatever a client asks, it gets an answer, no 500, and the store stays whole.

`KVSCALE_REQUESTS` says how many requests are generated (default: 1500).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from typing import Any

import aiohttp
import pytest

from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.sim import http
from tests.sim.asker import Asker, a_cluster
from tests.sim.invariants import Invariants

REQUESTS = int(os.environ.get("KVSCALE_REQUESTS", "1500"))
CHUNK = 250
"""Requests after which the store is checked."""

GROUPS = ("/api/v1", "/apis/kubevirt.io/v1", "/apis/kubevirt.io/v1alpha3", "/apis/apps/v1",
          "/apis/coordination.k8s.io/v1", "/apis/none.example.com/v1", "/api/v9",
          "/apis/rbac.authorization.k8s.io/v1", "/apis/authorization.k8s.io/v1")  # fmt: skip
PLURALS = ("pods", "events", "configmaps", "secrets", "namespaces", "nodes", "services",
           "virtualmachineinstances", "virtualmachines", "virtualmachineinstancereplicasets",
           "kubevirts", "deployments", "leases", "roles", "selfsubjectaccessreviews",
           "serviceaccounts", "persistentvolumeclaims", "nothings")  # fmt: skip
NAMES = (
    "a",
    "b",
    "c",
    "default",
    "Bad_Name",
    "x" * 300,
    "%C3%BC",
    "%2e%2e",
    "kubevirt",
    "wat%20ch",
)
NAMESPACES = ("default", "n", "kubevirt", "missing", "BAD")
SUBRESOURCES = ("status", "scale", "binding", "eviction", "finalize", "token", "log", "nothing")
PATHS = ("/", "/api", "/apis", "/version", "/healthz", "/readyz?verbose", "/livez/ping", "/nope",
         "/openapi/v2", "/openapi/v3", "/apis/kubevirt.io", "/apis/apps", "/metrics",
         "/api/v1/watch/pods", "/api//v1///pods/")  # fmt: skip
METHODS = (
    "GET",
    "GET",
    "GET",
    "POST",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "HEAD",
    "OPTIONS",
    "PROPFIND",
)
KINDS = ("application/json", "application/json", "application/json-patch+json",
         "application/merge-patch+json", "application/strategic-merge-patch+json",
         "application/apply-patch+yaml", "application/yaml", "text/plain",
         "application/vnd.kubernetes.protobuf", "")  # fmt: skip
ACCEPTS = ("", "application/json", "*/*", "application/yaml", "text/html", "image/png;q=x",
           "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
           "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
           "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
           "application/vnd.kubernetes.protobuf")  # fmt: skip
TOKEN = "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiIvYVx1MDAwMCJ9"
QUERY = {
    "labelSelector": ("set=x", "set in (x,y)", "!set", "a=b=c", "((", "a in", "x,,y", "ü=1", ","),
    "fieldSelector": ("metadata.name=a", "metadata.name!=a", "spec.nodeName=", "x=y", "a\\", "=="),
    "limit": ("1", "0", "-1", "abc", "99999999999999999999"),
    "continue": ("garbage", "e30", TOKEN),
    "resourceVersion": ("0", "1", "40", "abc", "-1", "99999999999999999999999", "²"),
    "resourceVersionMatch": ("Exact", "NotOlderThan", "Sideways"),
    "watch": ("1", "true", "false", "maybe"),
    "timeoutSeconds": ("1", "-1", "0", "x"),
    "allowWatchBookmarks": ("true", "x"),
    "sendInitialEvents": ("true", "false"),
    "dryRun": ("All", "Some", ""),
    "fieldManager": ("me", "x" * 200, "\t"),
    "fieldValidation": ("Strict", "Warn", "Ignore", "Hard"),
    "force": ("true", "1"),
    "pretty": ("true", "x"),
    "gracePeriodSeconds": ("0", "-1", "x", "30"),
    "propagationPolicy": ("Foreground", "Orphan", "Background", "Sideways"),
    "orphanDependents": ("true", "false"),
    "includeObject": ("None", "Object", "All"),
}  # fmt: skip
MORE_FIELDS = (
    "data", "status", "rules", "involvedObject", "target", "kind", "apiVersion", "type",
    "propagationPolicy", "preconditions", "stringData", "roleRef",
)  # fmt: skip


class Generator:
    """Makes requests from a seed: some sensible, some nearly so, some not at all."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.bodies: list[Any] = []
        """Objects that were answered: they come back, changed."""

    def request(self) -> tuple[str, str, dict[str, str], bytes | None]:
        """Method, path, headers and body."""
        pick = self._random.choice
        method = pick(METHODS)
        headers = {"Accept": pick(ACCEPTS)}
        body = None
        if method in ("POST", "PUT", "PATCH", "DELETE") and self._random.random() < 0.9:
            headers["Content-Type"] = pick(KINDS) if method == "PATCH" else pick(KINDS[:2] + KINDS)
            body = self._body(method)
        path = self._path()
        query = "?timeoutSeconds=1" if "/watch/" in path else self._query()
        return method, path + query, headers, body

    def _path(self) -> str:
        pick, chance = self._random.choice, self._random.random
        if chance() < 0.05:
            return pick(PATHS)
        path = pick(GROUPS[:2] + GROUPS)
        if chance() < 0.7:
            path += f"/namespaces/{pick(NAMESPACES[:2] * 3 + NAMESPACES)}"
        path += "/" + pick(PLURALS)
        if chance() < 0.6:
            path += "/" + pick(NAMES[:3] * 4 + NAMES)
            if chance() < 0.2:
                path += "/" + pick(SUBRESOURCES)
        return path

    def _query(self) -> str:
        chosen = self._random.sample(sorted(QUERY), self._random.choice((0, 0, 1, 1, 2, 4)))
        pairs = [(key, self._random.choice(QUERY[key])) for key in chosen]
        if any(key == "watch" for key, _ in pairs):
            pairs.append(("timeoutSeconds", "1"))
        return "?" + "&".join(f"{key}={_quoted(value)}" for key, value in pairs) if pairs else ""

    def _body(self, method: str) -> bytes:
        chance = self._random.random()
        if chance < 0.08:
            return self._random.choice((
                b"", b"{", b"[]", b"null", b"1", b'"x"', b"\xff\xfe", b"[" * 500, b'{"a":1e999}',
                b'{"metadata":{"name":"\\ud800"}}', b"{" + b'"a":{' * 300, b"a: &a [*a]",
                b'{"metadata":{"name":"a","name":"b"}}',
            ))  # fmt: skip
        if chance < 0.2 and self.bodies:
            return json.dumps(self._mutated(self._random.choice(self.bodies))).encode()
        if method == "PATCH" and chance < 0.4:
            paths = ("/metadata/labels", "/spec/x", "", "/metadata/name", "/-", "/metadata/uid/0")
            operations = [
                {"op": self._random.choice(("add", "remove", "replace", "test", "move", "x")),
                 "path": self._random.choice(paths), "value": self._value()}
                for _ in range(self._random.randrange(3))
            ]  # fmt: skip
            return json.dumps(operations).encode()
        return json.dumps(self._object()).encode()

    def _object(self) -> Any:
        pick, chance = self._random.choice, self._random.random
        metadata: dict[str, Any] = {"name": pick(NAMES[:3] * 4 + NAMES)}
        for key, values in (
            ("labels", ({"set": "x"}, {"set": "y"}, {"bad key": "x"}, {"a": 1}, [])),
            ("finalizers", (["example.com/x"], ["x"], [1], None)),
            ("generateName", ("gen-", "Bad_", 3, "\ud83d")),
            ("resourceVersion", ("1", "x", "", 5)),
            ("ownerReferences", ([{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "u"}],
                                 [{}], "x")),
            ("namespace", ("default", "n", 7)),
            ("uid", ("u", {})),
            ("annotations", ({"k": "v"}, {"k": None}, "x")),
        ):  # fmt: skip
            if chance() < 0.15:
                metadata[key] = pick(values)
        if chance() < 0.05:
            del metadata["name"]
        made: dict[str, Any] = {"metadata": metadata if chance() < 0.97 else self._value()}
        template = {"metadata": {"labels": {"a": "b"}}, "spec": {"domain": {"devices": {}}}}
        made["spec"] = pick((
            {}, {"domain": {"devices": {}}}, {"domain": {}}, {"replicas": pick((1, -1, "x", 2))},
            {"containers": [{"name": "c", "image": "i"}]}, {"containers": [{"name": 1}, "x"]},
            {"template": template, "selector": {"matchLabels": {"a": "b"}}, "replicas": 1},
            {"template": template, "runStrategy": pick(("Halted", "Always", "Never", 3))},
            {"ports": [{"port": pick((80, "x", 0))}]}, {"accessModes": ["x"], "resources": "x"},
            {"holderIdentity": pick(("me", "", 4)), "leaseDurationSeconds": pick((15, 0, "x"))},
            {"resourceAttributes": {"verb": "get"}}, {"finalizers": []}, self._value(),
        ))  # fmt: skip
        for key in MORE_FIELDS:
            if chance() < 0.08:
                made[key] = pick((self._value(), {"a": "1"}, {"kind": "Node", "name": "a"}))
        return made

    def _mutated(self, value: Any) -> Any:
        if isinstance(value, dict):
            kept = {
                key: self._mutated(each)
                for key, each in value.items()
                if self._random.random() > 0.03
            }
            if self._random.random() < 0.03:
                kept[self._random.choice(("x", "spec", "name"))] = self._value()
            return kept
        if isinstance(value, list):
            return [self._mutated(each) for each in value]
        return self._value() if self._random.random() < 0.02 else value

    def _value(self) -> Any:
        return self._random.choice((
            None, True, 0, -1, 2**70, 1.5, "", "x", "ü\u0000", [], {}, [1, "a"], {"a": {"b": []}},
            "1e99999999", [[[]]],
        ))  # fmt: skip


def _quoted(value: str) -> str:
    from urllib.parse import quote

    return quote(value, safe="")


@pytest.mark.parametrize("api_only", [True, False])
def test_thousands_of_requests_are_answered_and_leave_the_store_whole(
    clock: VirtualClock, api_only: bool
) -> None:
    generator = Generator(int(api_only))

    async def work() -> None:
        async with a_cluster(api_only=api_only) as ask:
            await ask("POST", "/api/v1/namespaces", {"metadata": {"name": "n"}})
            invariants = Invariants(ask.cluster.store)
            for number in range(REQUESTS // 2):
                await one(ask, generator)
                if number % CHUNK == 0:
                    invariants.check()
            await asyncio.sleep(1)
            invariants.check()
            failure = ask.cluster.team.failure
            if failure.done():
                failure.result()

    clock.run(work())


async def one(ask: Asker, generator: Generator) -> None:
    method, path, headers, body = generator.request()
    what = (method, path, headers, body)
    try:
        async with asyncio.timeout(100):
            async with ask.session.request(
                method, aiohttp_url(ask.cluster.url + path), data=body, headers=headers,
                skip_auto_headers=["Content-Type"],
            ) as answer:  # fmt: skip
                status, text = answer.status, await answer.read()
                kind = answer.content_type
    except TimeoutError:
        pytest.fail(f"no answer to {what}")
    assert status < 500 or status == 504, (what, text)
    if kind == "application/json" and text.strip() and "\n{" not in text.decode().strip():
        content = json.loads(text)
        if status >= 400:
            assert (content["kind"], content["code"]) == ("Status", status), (what, content)
            assert content["reason"] or status == 404, (what, content)
        elif isinstance(content.get("metadata"), dict) and content["metadata"].get("name"):
            generator.bodies = [*generator.bodies[-50:], content]
    elif status >= 400:
        assert status in (404, 405) or not text, (what, status, text)


def aiohttp_url(text: str) -> Any:
    from yarl import URL

    return URL(text, encoded=True)


# Slow and half-open clients ---------------------------------------------------------------------

VMIS = "/apis/kubevirt.io/v1/namespaces/default/virtualmachineinstances"


def test_a_body_that_does_not_come_is_not_waited_for_for_ever(clock: VirtualClock) -> None:
    async def work() -> None:
        async with a_cluster(api_only=True) as ask:
            port = ask.cluster.url.rpartition(":")[2]
            reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
            head = f"POST {VMIS} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n" + "{"
            writer.write(head.encode())
            loop = asyncio.get_running_loop()
            begun = loop.time()
            line = await reader.readline()
            assert b" 504 " in line
            assert loop.time() - begun == pytest.approx(http.BODY_SECONDS, abs=1)
            writer.close()

    clock.run(work())


def test_a_watcher_that_does_not_read_is_dropped_and_holds_up_nobody(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pytest_kvscale.sim import store

    monkeypatch.setattr(store, "MOST_WAITING", 500)

    async def work() -> None:
        async with a_cluster(api_only=True) as ask:
            port = ask.cluster.url.rpartition(":")[2]
            _, writer = await asyncio.open_connection("127.0.0.1", int(port), limit=1)
            path = "/api/v1/configmaps?watch=1"
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await asyncio.sleep(1)
            namespace = "/api/v1/namespaces/default/configmaps"
            body = {"metadata": {"name": "big"}, "data": {"a": "x" * 100_000}}
            await ask("POST", namespace, body)
            for number in range(900):
                obj = ask.cluster.store.get
                stored = obj(_config_maps(), "default", "big")
                assert stored is not None
                data = {"a": str(number) * 20_000}
                ask.cluster.store.put(_config_maps(), {**stored.obj, "data": data})
                if number % 100 == 0:
                    await asyncio.sleep(0.1)
            await asyncio.sleep(1)
            assert not ask.cluster.server.open_watches
            assert (await ask("GET", namespace + "/big"))[0] == 200
            writer.close()

    clock.run(work())


def _config_maps() -> Any:
    from pytest_kvscale.sim.resources import CONFIG_MAPS

    return CONFIG_MAPS


def test_a_client_that_goes_away_takes_its_watch_with_it(clock: VirtualClock) -> None:
    async def work() -> None:
        async with a_cluster(api_only=True) as ask:
            timeout = aiohttp.ClientTimeout(total=None)
            async with aiohttp.ClientSession(timeout=timeout) as session:
                answer = await session.get(ask.cluster.url + VMIS + "?watch=1")
                assert ask.cluster.server.open_watches == 1
                answer.close()
            await asyncio.sleep(1)
            assert ask.cluster.server.open_watches == 0

    clock.run(work())
