"""Requests whose answers were recorded on a real kube-apiserver, and what of an answer counts.

`tests/data/wire` has the answers of Kubernetes 1.36 with KubeVirt's definitions and without its
webhooks, reduced by `reduced`: without uids, versions, times, wording and what KubeVirt's own
controllers added.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.sim.asker import Asker

Json = dict[str, Any]
RECORDED = Path(__file__).parents[1] / "data" / "wire" / "kube-apiserver-1.36.json"
VMIS = "/apis/kubevirt.io/v1/namespaces/{}/virtualmachineinstances"
A, B = VMIS.format("wire-a"), VMIS.format("wire-b")
LEASES = "/apis/coordination.k8s.io/v1/namespaces/wire-a/leases"
EVENTS = "/api/v1/namespaces/wire-a/events"
CONFIG_MAPS = "/api/v1/namespaces/wire-a/configmaps"
JSON_PATCH, MERGE = "application/json-patch+json", "application/merge-patch+json"
APPLY, STRATEGIC = "application/apply-patch+yaml", "application/strategic-merge-patch+json"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


def recorded() -> dict[str, Any]:
    """The recorded answers by case, in order."""
    lines = json.loads(RECORDED.read_text(encoding="utf-8"))
    return {line["case"]: line["answer"] for line in lines}


def vmi(name: str = "", namespace: str = "wire-a", **metadata: Any) -> Json:
    """A VMI as the recording's client sent it."""
    requests = {"memory": "10Mi", "cpu": "10m"}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"namespace": namespace, **({"name": name} if name else {}), **metadata},
        "spec": {"domain": {"devices": {}, "resources": {"requests": requests}}},
    }


class Player:
    """Plays the cases and keeps the reduced answers."""

    def __init__(self, ask: Asker) -> None:
        self._ask = ask
        self.answers: dict[str, Any] = {}

    async def __call__(self, case: str, *what: Any, **more: Any) -> Any:
        status, body = await self._ask(*what, **more)
        self.answers[case] = json.loads(json.dumps(reduced(case, status, body)))
        return body

    async def play(self) -> None:
        """All cases, in the order in which they were recorded."""
        for act in (
            self._look_around, self._create, self._change, self._list, self._watch, self._delete,
            self._other_kinds,
        ):  # fmt: skip
            await act()

    async def _look_around(self) -> None:
        for path in ("/version", "/healthz", "/readyz", "/livez", "/api", "/apis", "/api/v1",
                     "/apis/kubevirt.io", "/apis/kubevirt.io/v1"):  # fmt: skip
            await self(f"discovery {path}", "GET", path)
        await self("discovery aggregated", "GET", "/apis", accept=AGGREGATED)
        await self("unknown path", "GET", "/apis/nope.example.com/v1/things")
        self._ask.session.headers["Authorization"] = "Bearer not-a-token"
        await self("bad token", "GET", "/api/v1/nodes")
        del self._ask.session.headers["Authorization"]
        for name in ("wire-a", "wire-b"):
            body = {"metadata": {"name": name}}
            await self(f"namespace create {name}", "POST", "/api/v1/namespaces", body)

    async def _create(self) -> None:
        await self("create", "POST", A, vmi("one", labels={"tier": "a"}))
        await self("create again", "POST", A, vmi("one"))
        await self("create generateName", "POST", A, vmi(generateName="gen-"))
        await self("create no name", "POST", A, vmi())
        await self("create other namespace in body", "POST", A, vmi("two", "wire-b"))
        nowhere = VMIS.format("wire-none")
        await self("create in missing namespace", "POST", nowhere, vmi("two", "wire-none"))
        await self("create bad json", "POST", A, raw=b"{not json")
        await self("create wrong media type", "POST", A, raw=b"hello", kind="text/plain")
        await self("create bad name", "POST", A, vmi("Not_A_Name"))
        await self("create dry run", "POST", A + "?dryRun=All", vmi("dry"))
        await self("get after dry run", "GET", A + "/dry")

    async def _change(self) -> None:
        one = A + "/one"
        await self("get", "GET", one)
        await self("get missing", "GET", A + "/nobody")
        obj = await self("get before update", "GET", one)
        # The recording shows this answer as it was changed for the next requests.
        _, body = self.answers["get before update"]
        body["metadata"]["annotations"] = {"k": "v2"}
        obj["metadata"].setdefault("annotations", {})["k"] = "v1"
        await self("update", "PUT", one, obj)
        obj["metadata"]["annotations"]["k"] = "v2"
        await self("update with stale version", "PUT", one, obj)
        labels: list[tuple[str, Any, str]] = [
            ("merge patch", {"tier": "b", "x": "1"}, MERGE),
            ("merge patch removes with null", {"x": None}, MERGE),
        ]
        for case, change, kind in labels:
            await self(case, "PATCH", one, {"metadata": {"labels": change}}, kind)
        add = [{"op": "add", "path": "/metadata/labels/y", "value": "2"}]
        await self("json patch", "PATCH", one, add, JSON_PATCH)
        remove = [{"op": "remove", "path": "/metadata/labels/none"}]
        await self("json patch missing path", "PATCH", one, remove, JSON_PATCH)
        change = {"metadata": {"labels": {"z": "1"}}}
        await self("strategic patch on custom resource", "PATCH", one, change, STRATEGIC)
        applied, managed = A + "/applied", "?fieldManager=probe"
        await self("apply creates", "PATCH", applied + managed, vmi("applied"), APPLY)
        await self("apply without field manager", "PATCH", applied, vmi("applied"), APPLY)
        change = {"metadata": {"labels": {"q": "1"}}}
        await self("patch missing", "PATCH", A + "/nobody", change, MERGE)

    async def _list(self) -> None:
        for index in range(5):
            page = vmi(f"page-{index}", labels={"set": "page"})
            await self(f"create for paging {index}", "POST", A, page)
        chosen = "labelSelector=set%3Dpage"
        first = await self("list first page", "GET", f"{A}?limit=2&{chosen}")
        token = first["metadata"]["continue"]
        await self("list second page", "GET", f"{A}?limit=2&{chosen}&continue={token}")
        await self("list bad continue", "GET", A + "?limit=2&continue=garbage")
        for case, selector in (
            ("equality", "set=page"), ("inequality", "set!=page"), ("in", "set in (page,other)"),
            ("exists", "set"), ("not exists", "!set"),
        ):  # fmt: skip
            path = f"{A}?labelSelector={quote(selector)}"
            await self(f"list selector {case}", "GET", path)
        await self("list bad selector", "GET", A + "?labelSelector=a%3Db%3Dc")
        await self("list field selector name", "GET", A + "?fieldSelector=metadata.name%3Done")
        everywhere = "/apis/kubevirt.io/v1/virtualmachineinstances"
        await self("list all namespaces", "GET", f"{everywhere}?{chosen}")
        await self("list version zero", "GET", f"{A}?resourceVersion=0&{chosen}")
        await self("list bad version", "GET", A + "?resourceVersion=abc")
        await self("table", "GET", f"{A}?{chosen}&limit=1", accept=TABLE)

    async def _watch(self) -> None:
        listed = await self("list for watch", "GET", A)
        since = f"{A}?watch=1&resourceVersion={listed['metadata']['resourceVersion']}"
        await self("create before watch", "POST", A, vmi("watched", labels={"w": "1"}))
        note = {"metadata": {"annotations": {"n": "1"}}}
        await self("patch before watch", "PATCH", A + "/watched", note, MERGE)
        await self("delete before watch", "DELETE", A + "/watched")
        since += "&timeoutSeconds=2"
        bookmarks = "&allowWatchBookmarks=true"
        await self("watch replays after version", "GET", since)
        await self("watch with bookmark allowed", "GET", since + bookmarks)
        await self("watch by selector", "GET", since + "&labelSelector=w%3D1")
        initial = "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
        path = f"{A}?watch=1&timeoutSeconds=2&labelSelector=set%3Dpage{bookmarks}{initial}"
        await self("watch list", "GET", path)

    async def _delete(self) -> None:
        final = A + "/final"
        held = vmi("final", finalizers=["example.com/hold"])
        await self("create with finalizer", "POST", A, held)
        await self("delete with finalizer", "DELETE", final)
        await self("get while deleting", "GET", final)
        let_go = {"metadata": {"finalizers": None}}
        await self("remove finalizer", "PATCH", final, let_go, MERGE)
        await self("get after finalizer", "GET", final)
        await self("delete missing", "DELETE", A + "/nobody")
        await self("delete", "DELETE", A + "/one")
        chosen = A + "?labelSelector=set%3Dpage"
        await self("delete collection by selector", "DELETE", chosen)
        await self("list after delete collection", "GET", chosen)

    async def _other_kinds(self) -> None:
        spec = {"holderIdentity": "me", "leaseDurationSeconds": 15}
        lease = {"metadata": {"name": "lock"}, "spec": spec}
        held = await self("lease create", "POST", LEASES, lease)
        self.answers["lease create"][1]["spec"]["holderIdentity"] = "you"  # As recorded, see above.
        held["spec"]["holderIdentity"] = "you"
        await self("lease update", "PUT", LEASES + "/lock", held)
        await self("lease update stale", "PUT", LEASES + "/lock", held)
        event = {
            "metadata": {"name": "e1"},
            "involvedObject": {"kind": "Pod", "name": "p", "namespace": "wire-a"},
            "reason": "FailedScheduling", "message": "m", "type": "Warning",
        }  # fmt: skip
        await self("event create", "POST", EVENTS, event)
        path = EVENTS + "?fieldSelector="
        await self("event list by object", "GET", path + "involvedObject.name%3Dp")
        reason = "reason%3DFailedScheduling%2Ctype%3DWarning"
        await self("event list by reason", "GET", path + reason)
        asked = {
            "verb": "create", "group": "kubevirt.io", "resource": "virtualmachineinstances",
            "namespace": "wire-a",
        }  # fmt: skip
        review = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        await self("access review", "POST", review, {"spec": {"resourceAttributes": asked}})
        content = {"metadata": {"name": "cm"}, "data": {"a": "1"}}
        await self("configmap create", "POST", CONFIG_MAPS, content)
        more = {"data": {"b": "2"}}
        await self("configmap strategic patch", "PATCH", CONFIG_MAPS + "/cm", more, STRATEGIC)
        for name in ("wire-a", "wire-b"):
            path = f"/api/v1/namespaces/{name}"
            await self(f"namespace delete {name}", "DELETE", path)


# What counts ------------------------------------------------------------------------------------

_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_LEFT_OUT = {
    "uid", "resourceVersion", "managedFields", "selfLink", "continue", "message",
    "creationTimestamp", "remainingItemCount", "storageVersionHash", "generation",
    "deletionGracePeriodSeconds", "status",
}  # fmt: skip
_STATUS_ONLY = ("discovery /api", "create bad json", "bad token", "unknown path")
_KIND_ONLY = ("discovery /apis", "discovery aggregated", "discovery /api/v1")
_SHOWN = ("virtualmachineinstances", "virtualmachines", "kubevirts", "kubevirts/status")


def reduced(case: str, status: int, body: Any) -> list[Any]:  # noqa: PLR0911 - kinds of answers
    """What of an answer a client can depend on."""
    if case in _STATUS_ONLY:
        return [status, None]
    if case == "discovery /version":
        return [status, sorted(body.keys() & {"major", "minor", "gitVersion", "platform"})]
    if case in _KIND_ONLY:
        return [status, body["kind"]]
    if case == "discovery /apis/kubevirt.io/v1":
        keys = ("name", "kind", "namespaced", "shortNames", "singularName")
        shown = [each for each in body["resources"] if each["name"] in _SHOWN]
        shown.sort(key=lambda each: each["name"])
        return [status, [{key: each.get(key) for key in keys} for each in shown]]
    if case == "create generateName":
        name = body["metadata"].pop("name")
        return [status, [bool(re.fullmatch(r"gen-[a-z0-9]{5}", name)), plain(body)]]
    if case.startswith("list selector") or case == "list for watch":
        return [status, sorted(re.sub("^gen-.*", "gen-X", name) for name in _names(body))]
    if case.startswith("watch "):
        return [status, _told(case, body)]
    if case == "delete collection by selector":
        return [status, sorted(_names(body))]
    if case.startswith("namespace"):
        return [status, body.get("reason") or body["kind"]]
    if isinstance(body, dict) and body.get("kind") == "Status":
        return [status, _refusal(body)]
    return [status, plain(body)]


def _names(body: Json) -> list[str]:
    return [each["metadata"]["name"] for each in body["items"]]


def _refusal(body: Json) -> Json:
    details = body.get("details") or {}
    causes = details.get("causes") or []
    return {
        "kind": "Status",
        "reason": body.get("reason"),
        "code": body.get("code"),
        "details": {key: details[key] for key in ("name", "group", "kind") if details.get(key)},
        "causes": sorted([each.get("reason") or "", each.get("field") or ""] for each in causes),
    }


def _told(case: str, body: Any) -> list[list[Any]]:
    """The events of a watch: of bookmarks whether they end the beginning; runs of changes once."""
    told: list[list[Any]] = []
    for line in body if isinstance(body, list) else [body]:
        metadata = line["object"].get("metadata") or {}
        if case != "watch list" and metadata.get("name") not in ("watched", None):
            continue
        if line["type"] == "BOOKMARK":
            if case == "watch with bookmark allowed":
                continue
            ends = (metadata.get("annotations") or {}).get("k8s.io/initial-events-end")
            told.append(["BOOKMARK", ends])
        elif not (told and told[-1] == ["MODIFIED", metadata["name"]] == [
            line["type"], metadata["name"]]):  # fmt: skip
            told.append([line["type"], metadata["name"]])
    return told


def plain(value: Any) -> Any:
    """A value without what differs between any two servers."""
    if isinstance(value, dict):
        if value.get("kind") == "Table":
            columns = [each["name"] for each in value["columnDefinitions"]]
            return {"kind": "Table", "columns": columns, "rows": len(value["rows"])}
        kept = {
            key: "TIME" if isinstance(each, str) and _STAMP.fullmatch(each) else plain(each)
            for key, each in value.items()
            if key not in _LEFT_OUT and "kubevirt.io/" not in key
        }
        return {key: each for key, each in kept.items() if each not in (None, {}, [], "")}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value
