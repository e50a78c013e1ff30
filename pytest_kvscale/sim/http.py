"""Requests and answers of the embedded API as HTTP has them: paths, queries, bodies, lists."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import yaml
from aiohttp import web

from pytest_kvscale.sim import errors, resources
from pytest_kvscale.sim.api import Page, Query
from pytest_kvscale.sim.errors import Object, StatusError
from pytest_kvscale.sim.metrics.apiserver import Asked
from pytest_kvscale.sim.patch import APPLY_PATCH
from pytest_kvscale.sim.resources import Resource
from pytest_kvscale.sim.store import encode

MAX_BODY = 3 * 1024 * 1024
VERBS = {
    "GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Target:
    """What a path names."""

    resource: Resource
    namespace: str
    name: str
    subresource: str


def parse(path: str) -> Target | None:
    """What a path names, if it names objects of a kind that is served."""
    steps = [step for step in path.split("/") if step]
    match steps:
        case ["api", version, *rest]:
            group = ""
        case ["apis", group, version, *rest]:
            pass
        case _:
            return None
    namespace = ""
    if len(rest) >= 3 and rest[0] == "namespaces" and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    if not rest or len(rest) > 3:
        return None
    resource = resources.find(group, version, rest[0])
    if resource is None or (namespace and not resource.namespaced):
        return None
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    if subresource and not (
        (subresource == "status" and resource.status_subresource)
        or (subresource == "token" and resource is resources.SERVICE_ACCOUNTS)
    ):
        return None
    if resource.namespaced and name and not namespace:
        return None
    return Target(resource, namespace, name, subresource)


def verb_of(request: web.BaseRequest, target: Target) -> str:
    """The API verb of a request; 405 where the path has no such verb."""
    verb = VERBS.get(request.method, "")
    if "get" not in target.resource.verbs or target.subresource == "token":
        in_place = bool(target.namespace) is target.resource.namespaced
        if verb == "create" and in_place and bool(target.name) is bool(target.subresource):
            return verb
        raise errors.method_not_allowed()
    if target.name:
        if verb in ("get", "update", "patch", "delete"):
            return verb
        raise errors.method_not_allowed()
    if verb == "get":
        return "watch" if request.query.get("watch") in ("true", "1") else "list"
    if verb == "delete":
        return "deletecollection"
    if verb == "create" and bool(target.namespace) is target.resource.namespaced:
        return verb
    raise errors.method_not_allowed()


def asked_of(request: web.BaseRequest) -> Asked | None:
    """What a request is about, for the account; None if about nothing that is counted."""
    target = parse(request.path)
    if target is None:
        return None
    try:
        verb = verb_of(request, target)
    except StatusError:
        return None
    if verb == "patch" and request.content_type == APPLY_PATCH:
        verb = "apply"
    dry_run = "All" in request.query.getall("dryRun", [])
    kind, sub = target.resource, target.subresource
    return Asked(verb, kind, sub, target.name, target.namespace, dry_run)


def query_of(request: web.BaseRequest, target: Target) -> Query:
    """The objects a request is about."""
    query = request.query
    return Query(target.namespace, query.get("labelSelector", ""), query.get("fieldSelector", ""))


def number(text: str, name: str) -> int:
    """A whole number of a query; 400 if it is none. Empty is 0."""
    if not text:
        return 0
    if not text.isdecimal():
        raise errors.bad_request(f"invalid {name}: Invalid value: {text!r}: not a whole number")
    return int(text)


def name_of(target: Target, body: Any) -> str:
    """The name of the object a request is about, as far as it says."""
    if target.name or not isinstance(body, dict):
        return target.name
    metadata = body.get("metadata")
    return str(metadata.get("name", "")) if isinstance(metadata, dict) else ""


# Bodies -----------------------------------------------------------------------------------------

_BODY_TYPES = ["application/json", "application/yaml"]
_PATCH_TYPES = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
]


async def body_of(request: web.BaseRequest) -> Any:
    """The decoded body; 400, 413 or 415 for one that cannot be taken."""
    if not request.can_read_body:
        return None
    if request.content_length is not None and request.content_length > MAX_BODY:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY, request.content_length)
    raw = await request.content.read(MAX_BODY + 1)
    while len(raw) <= MAX_BODY and not request.content.at_eof():
        raw += await request.content.read(MAX_BODY + 1 - len(raw))
    if len(raw) > MAX_BODY:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY, len(raw))
    if not raw:
        return None
    accepted = _PATCH_TYPES if request.method == "PATCH" else _BODY_TYPES
    if request.content_type not in accepted and request.method != "DELETE":
        raise errors.unsupported_media_type(accepted)
    try:
        if request.content_type in ("application/yaml", "application/apply-patch+yaml"):
            return yaml.safe_load(raw)
        return json.loads(raw)
    except (ValueError, yaml.YAMLError) as problem:
        raise errors.bad_request(f"the object provided is unrecognized: {problem}") from None


def as_object(body: Any) -> Object:
    """The body as an object; 400 if it is none."""
    if not isinstance(body, dict):
        raise errors.bad_request("the object provided is unrecognized: it must be a JSON object")
    return body


def delete_options(request: web.BaseRequest, body: Any) -> Object:
    """The DeleteOptions of a request."""
    options = dict(body) if isinstance(body, dict) else {}
    if "gracePeriodSeconds" in request.query:
        options["gracePeriodSeconds"] = number(
            request.query["gracePeriodSeconds"], "gracePeriodSeconds"
        )
    return options


def answer(value: Any, code: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    return answer_raw(encode(value), code, headers)


def answer_raw(raw: bytes, code: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """An answer that is JSON already."""
    return web.Response(body=raw, status=code, headers=headers, content_type="application/json")


def list_metadata(page: Page) -> Object:
    """The metadata of a list."""
    metadata: Object = {"resourceVersion": str(page.version)}
    if page.proceed:
        metadata["continue"] = page.proceed
        if page.remaining is not None:
            metadata["remainingItemCount"] = page.remaining
    return metadata


def encode_list(kind: Resource, page: Page) -> bytes:
    """A list as JSON."""
    items = b",".join(stored.raw for stored in page.items)
    head = encode(
        {
            "kind": f"{kind.kind}List",
            "apiVersion": kind.api_version,
            "metadata": list_metadata(page),
        }
    )
    return head[:-1] + b',"items":[' + items + b"]}\n"


def bookmark(kind: Resource, version: int, end_of_initial: bool = False) -> bytes:
    """A BOOKMARK event, as a line of a watch."""
    metadata: Object = {"resourceVersion": str(version), "creationTimestamp": None}
    if end_of_initial:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    obj = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}
    return encode({"type": "BOOKMARK", "object": obj}) + b"\n"


def expired_event() -> bytes:
    """The ERROR event of a watch whose place in the history is no longer kept (410)."""
    refusal = errors.expired("The resourceVersion for the provided watch is too old.")
    return encode({"type": "ERROR", "object": refusal.body}) + b"\n"


def deleted(kind: Resource, obj: Object) -> Object:
    """The Status that answers a deletion which is done."""
    group = {"group": kind.group} if kind.group else {}
    metadata = obj["metadata"]
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {
            "name": metadata["name"], **group, "kind": kind.plural, "uid": metadata["uid"],
        },
    }  # fmt: skip


def internal_error(problem: BaseException) -> Object:
    """The Status for a bug in the embedded cluster."""
    message = f"Internal error occurred: {type(problem).__name__}: {problem}"
    return StatusError(500, "InternalError", message).body


def status_of(refusal: web.HTTPException) -> Object:
    """The Status for what the HTTP layer refuses."""
    reason = "RequestEntityTooLarge" if refusal.status == 413 else "Unknown"
    return StatusError(refusal.status, reason, refusal.text or refusal.reason).body
