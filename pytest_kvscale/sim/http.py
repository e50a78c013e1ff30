"""Requests to the embedded API as HTTP has them: what a path names, which verb it is, its body."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import orjson
import yaml
from aiohttp import web

from pytest_kvscale.sim import errors, protobuf, resources
from pytest_kvscale.sim.errors import Object, StatusError
from pytest_kvscale.sim.lists import Query
from pytest_kvscale.sim.metrics.apiserver import Asked
from pytest_kvscale.sim.options import flag
from pytest_kvscale.sim.patch import APPLY_PATCH
from pytest_kvscale.sim.request_info import OF_A_NAMESPACE, VERBS
from pytest_kvscale.sim.resources import NAMESPACES, PODS, SERVICE_ACCOUNTS, Resource

MAX_BODY = 3 * 1024 * 1024
BODY_SECONDS = 60
"""How long a body may take to come in."""
_DEEPEST = 200
"""How deep a body may be nested."""


@dataclasses.dataclass(frozen=True)
class Target:
    """What a path names."""

    resource: Resource
    namespace: str
    name: str
    subresource: str
    version: str = ""
    """The version of the group in which it is asked for."""
    watched: bool = False
    """It is one of the old paths with `/watch/`."""

    @property
    def api_version(self) -> str:
        """`group/version` as the client has it."""
        group = self.resource.group
        return f"{group}/{self.version}" if group else self.version


class NoSuchPathError(Exception):
    """Nothing is served under a path, and whoever knows nothing of objects says so."""


def parse(path: str) -> Target | None:
    """What a path names, or None if it is not about objects.

    Raises `NoSuchPathError`, or `StatusError` (404) where the API knows the group, for a path
    under which no objects are.
    """
    match [step for step in path.split("/") if step]:
        case ["api", version, *rest] if rest:
            group = ""
        case ["apis", group, version, *rest] if rest:
            pass
        case _:
            return None
    watched = rest[0] == "watch" and len(rest) > 1
    rest = rest[1:] if watched else rest
    namespace = ""
    if len(rest) >= 3 and rest[0] == "namespaces" and rest[2] not in OF_A_NAMESPACE:
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource = (*rest, "", "")[:3]
    resource = resources.find(group, version, plural)
    if resource is None or len(rest) > 3 or (namespace and not resource.namespaced):
        raise _unknown(group)
    if resource.namespaced and name and not namespace:
        raise _unknown(group)
    if subresource and subresource not in _subresources(resource):
        raise errors.not_found(resource, name) if resource.custom else errors.no_such_path()
    return Target(resource, namespace, name, subresource, version, watched)


def _unknown(group: str) -> Exception:
    """What to raise for a path without objects: built-in groups answer themselves."""
    known = [each for each in resources.SERVED if each.group == group]
    if known and not known[0].custom:
        return errors.no_such_path()
    return NoSuchPathError()


_METHODS = {
    "status": ("GET", "PUT", "PATCH"), "scale": ("GET", "PUT", "PATCH"), "finalize": ("PUT",),
    "binding": ("POST",), "eviction": ("POST",), "token": ("POST",),
}  # fmt: skip
"""What can be done with each subresource."""


def _subresources(resource: Resource) -> list[str]:
    found = ["status"] * resource.status_subresource + ["scale"] * resource.scale
    if resource is NAMESPACES:
        found.append("finalize")
    if resource is PODS:
        found += ["binding", "eviction"]
    if resource is SERVICE_ACCOUNTS:
        found.append("token")
    return found


def verb_of(request: web.BaseRequest, target: Target) -> str:
    """The API verb of a request; 405 where the path has no such verb."""
    resource, method = target.resource, request.method
    if method == "HEAD" and resource.custom:
        method = "GET"
    verb = VERBS.get(method, method.lower())
    collection = not target.name
    if target.watched:
        allowed: tuple[str, ...] = ("GET",)
        verb = "watch" if method == "GET" else verb
    elif target.subresource:
        allowed = _METHODS[target.subresource]
    elif not collection:
        allowed = ("GET", "PUT", "PATCH", "DELETE")
    elif bool(target.namespace) is resource.namespaced:
        allowed = ("GET", "POST", "DELETE")
        verb = {"get": "list", "delete": "deletecollection"}.get(verb, verb)
    elif resource.custom and method in ("POST", "DELETE"):
        raise NoSuchPathError
    else:
        allowed, verb = ("GET",), {"get": "list"}.get(verb, verb)
    if method not in allowed or (not target.subresource and verb not in resource.verbs):
        raise errors.method_not_allowed(resource, verb)
    if verb == "list" and flag(request.query, "watch"):
        return "watch"
    return verb


def asked_of(request: web.BaseRequest) -> Asked | None:
    """What a request is about, for the account; None if about nothing that is counted."""
    try:
        target = parse(request.path)
        if target is None:
            return None
        verb = verb_of(request, target)
    except (StatusError, NoSuchPathError):
        return None
    if verb == "patch" and request.content_type == APPLY_PATCH:
        verb = "apply"
    dry_run = "All" in request.query.getall("dryRun", [])
    kind, sub = target.resource, target.subresource
    return Asked(verb, kind, sub, target.name, target.namespace, dry_run)


def query_of(request: web.BaseRequest, target: Target) -> Query:
    """The objects a request is about."""
    query = request.query
    fields = query.get("fieldSelector", "")
    if target.watched and target.name:
        fields = ",".join(filter(None, (fields, f"metadata.name={target.name}")))
    return Query(target.namespace, query.get("labelSelector", ""), fields)


def name_of(target: Target, body: Any) -> str:
    """The name of the object a request is about, as far as it says."""
    if target.name or not isinstance(body, dict):
        return target.name
    metadata = body.get("metadata")
    return str(metadata.get("name", "")) if isinstance(metadata, dict) else ""


# Bodies -----------------------------------------------------------------------------------------

_BODY_TYPES = ["application/json", "application/yaml", protobuf.MEDIA_TYPE]
_PATCH_TYPES = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
]


async def body_of(request: web.BaseRequest) -> Any:
    """The decoded body, None if there is none; 400, 413, 415 or 504 for one that is not taken."""
    if not request.can_read_body:
        return None
    if request.content_length is not None and request.content_length > MAX_BODY:
        raise errors.too_large_body(MAX_BODY)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            raw = await request.content.read(MAX_BODY + 1)
            while len(raw) <= MAX_BODY and not request.content.at_eof():
                raw += await request.content.read(MAX_BODY + 1 - len(raw))
    except TimeoutError:
        raise errors.too_slow() from None
    if len(raw) > MAX_BODY:
        raise errors.too_large_body(MAX_BODY)
    if not raw:
        return None
    patched = request.method == "PATCH"
    kind = request.content_type if patched or "Content-Type" in request.headers else _BODY_TYPES[0]
    if kind == protobuf.MEDIA_TYPE and not patched:
        return _from_protobuf(raw)
    accepted = _PATCH_TYPES if patched else _BODY_TYPES
    if kind not in accepted:
        raise errors.unsupported_media_type(accepted)
    checked = request.query.get("fieldValidation") in ("Strict", "Warn")
    doubled: list[str] | None = [] if checked else None
    value = decode(raw, kind.endswith("yaml"), doubled)
    request[DOUBLED] = doubled or []
    return value


# Older versions of aiohttp have text as keys, newer ones warn of it.
DOUBLED: Any = getattr(web, "RequestKey", lambda name, _: name)("doubled", list)
"""Where a request keeps the keys that stand twice in an object of its body."""


def decode(raw: bytes, as_yaml: bool = False, doubled: list[str] | None = None) -> Any:
    """The value a body stands for; 400 if it is none, or one that JSON cannot hold.

    Keys that stand twice in an object are noted in `doubled`, if it is given.
    """
    if not as_yaml and doubled is None and raw.count(b"{") + raw.count(b"[") <= _DEEPEST:
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError:
            pass  # It may be JSON all the same, of the kind that Go reads.
    text = raw.decode(errors="replace")
    try:
        if as_yaml:
            value = _as_json_has_it(yaml.load(text, _Loader))  # noqa: S506 - it is a SafeLoader
        else:
            if text.count("{") + text.count("[") > _DEEPEST:
                _check_depth(text)
            pairs = None if doubled is None else _noting(doubled)
            value = json.loads(
                text, parse_constant=_no_number, parse_float=_finite, object_pairs_hook=pairs
            )
    except (ValueError, RecursionError, yaml.YAMLError) as problem:
        message = f"the object provided is unrecognized: {str(problem)[:500]}"
        raise errors.bad_request(message) from None
    return _without_surrogates(value) if "\\ud" in text or "\\uD" in text else value


def _check_depth(text: str) -> None:
    """ValueError for JSON that is nested too deeply for us."""
    depth, quoted, escaped = 0, False, False
    for character in text:
        if quoted:
            quoted = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            quoted = True
        elif character in "{[":
            depth += 1
            if depth > _DEEPEST:
                raise ValueError("exceeded max depth")
        elif character in "}]":
            depth -= 1


def _noting(doubled: list[str]) -> Callable[[list[tuple[str, Any]]], Object]:
    def make(pairs: list[tuple[str, Any]]) -> Object:
        made = dict(pairs)
        if len(made) < len(pairs):
            seen: set[str] = set()
            doubled.extend(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        return made

    return make


def _no_number(text: str) -> float:
    raise ValueError(f"invalid value {text}")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"number {text[:40]} out of range")
    return value


class _Loader(yaml.SafeLoader):
    """YAML with the types of JSON: dates stay text."""


_Loader.yaml_implicit_resolvers = {
    first: [each for each in resolvers if each[0] != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _as_json_has_it(value: Any, depth: int = 0) -> Any:
    if depth > _DEEPEST:
        raise ValueError("exceeded max depth")
    if isinstance(value, dict):
        return {_key(key): _as_json_has_it(each, depth + 1) for key, each in value.items()}
    if isinstance(value, list):
        return [_as_json_has_it(each, depth + 1) for each in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and abs(value) < float("inf"):
        return value
    raise ValueError(f"{type(value).__name__} cannot be JSON")


def _key(key: Any) -> str:
    if isinstance(key, bool):
        return str(key).lower()
    if isinstance(key, str | int | float):
        return str(key)
    raise ValueError("keys must be strings")


def _without_surrogates(value: Any) -> Any:
    """The value with U+FFFD for halves of characters."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_surrogates(each) for each in value]
    return value


def _from_protobuf(raw: bytes) -> Object:
    try:
        return protobuf.decode(raw)
    except protobuf.UnknownMessageError:
        raise errors.unsupported_media_type(_BODY_TYPES[:-1]) from None
    except ValueError as problem:
        raise errors.bad_request(f"the object provided is unrecognized: {problem}") from None


def as_object(body: Any) -> Object:
    """The body as an object; 400 if it is none."""
    if not isinstance(body, dict):
        raise errors.bad_request("the object provided is unrecognized: it must be a JSON object")
    return body
