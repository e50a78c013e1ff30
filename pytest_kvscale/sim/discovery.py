"""What the API says of itself: its version, its groups and their resources."""

from __future__ import annotations

import functools
import hashlib
import json
from typing import Any

from aiohttp import web

from pytest_kvscale.sim import answers, health, negotiation, resources
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.resources import NAMESPACES, PODS, SERVICE_ACCOUNTS, Resource

_READ, _CHANGE = ("get", "patch", "update"), ("update",)
_SCALE = ("autoscaling", "v1", "Scale")
_AGGREGATED = "APIGroupDiscoveryList"
_AGGREGATED_GROUP = "apidiscovery.k8s.io"
_AGGREGATED_VERSIONS = ("v2", "v2beta1")


def version(git_version: str, profile: str, seed: int) -> Object:
    """`/version`: as a real API server's, with one field more that says it is simulated."""
    major, minor = git_version.removeprefix("v").split(".")[:2]
    return {
        "major": major,
        "minor": minor,
        "gitVersion": git_version,
        "gitCommit": "0" * 40,
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "go1.16.8",
        "compiler": "gc",
        "platform": "linux/amd64",
        "simulated": {"by": "pytest-kvscale", "kind": "sim", "profile": profile, "seed": seed},
    }


def answer(request: web.BaseRequest) -> web.Response | None:
    """The answer of a discovery path; None for any other."""
    path = request.path.rstrip("/") or "/"
    aggregated = path in ("/api", "/apis") and _aggregated_version(request)
    found = _aggregated(path, aggregated) if aggregated else document(path)
    if found is None:
        return None
    if request.method not in ("GET", "HEAD"):
        return answers.text("405: Method Not Allowed\n", 405)
    if not aggregated:
        return answers.answer(found)
    raw = json.dumps(found, separators=(",", ":")).encode()
    tag = f'"{hashlib.sha256(raw).hexdigest().upper()}"'
    headers = {"ETag": tag, "Vary": "Accept", "Cache-Control": "public"}
    if request.headers.get("If-None-Match") in (tag, tag.strip('"')):
        return web.Response(status=304, headers=headers)
    kind = f"application/json;g={_AGGREGATED_GROUP};v={aggregated};as={_AGGREGATED}"
    return web.Response(body=raw, headers={**headers, "Content-Type": kind})


def _aggregated_version(request: web.BaseRequest) -> str:
    """The version in which all is asked for at once; '' if a single list is liked more."""
    for clause in negotiation.clauses(request.headers.get("Accept", "")):
        if clause.kind != "application/json":
            continue
        parameters = clause.parameters
        if "as" not in parameters:
            return ""
        if (parameters["as"], parameters.get("g")) == (_AGGREGATED, _AGGREGATED_GROUP) and (
            parameters.get("v") in _AGGREGATED_VERSIONS
        ):
            return parameters["v"]
    return ""


def document(path: str) -> Object | None:  # noqa: PLR0911 - one for each kind of path
    """The discovery document at a path, or None if there is none."""
    steps = [step for step in path.split("/") if step]
    match steps:
        case []:
            return {"paths": _paths()}
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["api", "v1"]:
            return _resource_list("", "v1")
        case ["apis"]:
            groups = [_group(name, versions) for name, versions in resources.groups().items()]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        case ["apis", name] if name in resources.groups():
            group = _group(name, resources.groups()[name])
            return {"kind": "APIGroup", "apiVersion": "v1", **group}
        case ["apis", name, api_version] if api_version in resources.groups().get(name, []):
            return _resource_list(name, api_version)
    return None


def _paths() -> list[str]:
    found = ["/.well-known/openid-configuration", "/api", "/api/v1", "/apis", "/apis/", "/version"]
    for name, versions in resources.groups().items():
        found += [f"/apis/{name}", *(f"/apis/{name}/{each}" for each in versions)]
    return sorted([*found[1:], *health.paths()])


def _group(name: str, versions: list[str]) -> Object:
    entries = [{"groupVersion": f"{name}/{each}", "version": each} for each in versions]
    return {"name": name, "versions": entries, "preferredVersion": entries[0]}


def _resource_list(group: str, api_version: str) -> Object:
    entries: list[Object] = []
    for each in resources.of_group(group, api_version):
        entries.append(_entry(each))
        for name, verbs, (kind_group, kind_version, kind) in subresources(each):
            other = {"group": kind_group, "version": kind_version} if kind_version else {}
            entries.append(
                {
                    "name": f"{each.plural}/{name}",
                    "singularName": "",
                    "namespaced": each.namespaced,
                    **other,
                    "kind": kind,
                    "verbs": list(verbs),
                }
            )
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{api_version}" if group else api_version,
        "resources": entries,
    }


Subresource = tuple[str, tuple[str, ...], tuple[str, str, str]]
"""Name, verbs, and the group, version and name of its kind (no version: that of the object)."""


def subresources(resource: Resource) -> list[Subresource]:
    """The subresources of a kind."""
    found: list[Subresource] = []
    if resource is NAMESPACES:
        found.append(("finalize", _CHANGE, ("", "", resource.kind)))
    if resource is PODS:
        found.append(("binding", ("create",), ("", "", "Binding")))
        found.append(("eviction", ("create",), ("policy", "v1", "Eviction")))
    if resource is SERVICE_ACCOUNTS:
        kind = ("authentication.k8s.io", "v1", "TokenRequest")
        found.append(("token", ("create",), kind))
    if resource.status_subresource:
        found.append(("status", _READ, ("", "", resource.kind)))
    if resource.scale:
        found.append(("scale", _READ, _SCALE))
    return found


_CUSTOM_ORDER = (
    "delete", "deletecollection", "get", "list", "patch", "create", "update", "watch",
)  # fmt: skip


def _verbs(resource: Resource) -> list[str]:
    """The verbs of a kind, in the order in which whoever serves it names them."""
    order = _CUSTOM_ORDER if resource.custom else resource.verbs
    return [verb for verb in order if verb in resource.verbs]


def _entry(resource: Resource) -> Object:
    tag = hashlib.sha256(f"{resource.api_version}/{resource.kind}".encode()).hexdigest()[:11]
    return {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": _verbs(resource),
        **({"shortNames": list(resource.short_names)} if resource.short_names else {}),
        **({"categories": list(resource.categories)} if resource.categories else {}),
        "storageVersionHash": f"{tag}=",
    }


# All at once ------------------------------------------------------------------------------------


@functools.cache
def _aggregated(path: str, api_version: str) -> Object:
    groups = {"": ["v1"]} if path == "/api" else resources.groups()
    return {
        "kind": _AGGREGATED,
        "apiVersion": f"{_AGGREGATED_GROUP}/{api_version}",
        "metadata": {},
        "items": [
            {
                "metadata": {"name": name, "creationTimestamp": None} if name else {},
                "versions": [_aggregated_group(name, each) for each in versions],
            }
            for name, versions in groups.items()
        ],
    }


def _aggregated_group(group: str, api_version: str) -> Object:
    return {
        "version": api_version,
        "resources": [
            _aggregated_entry(each, api_version) for each in resources.of_group(group, api_version)
        ],
        "freshness": "Current",
    }


def _aggregated_entry(resource: Resource, api_version: str) -> Object:
    def kind_of(group: str, kind_version: str, kind: str) -> dict[str, Any]:
        if resource.custom and not kind_version:
            group, kind_version = resource.group, api_version
        return {"group": group, "version": kind_version, "kind": kind}

    beside = [
        {"subresource": name, "responseKind": kind_of(*kind), "verbs": list(verbs)}
        for name, verbs, kind in subresources(resource)
    ]
    return {
        "resource": resource.plural,
        "responseKind": kind_of("", "", resource.kind),
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": _verbs(resource),
        **({"shortNames": list(resource.short_names)} if resource.short_names else {}),
        **({"categories": list(resource.categories)} if resource.categories else {}),
        **({"subresources": beside} if beside else {}),
    }
