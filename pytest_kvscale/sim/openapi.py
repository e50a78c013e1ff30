"""What the API says of its kinds' fields and doors: OpenAPI, version 2 and 3.

As much as clients read: types of fields, how lists and maps merge (`x-kubernetes-*`), and the
parameters of each door, by which kubectl learns what the server can do (dry run, validation).
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_kvscale.sim import resources, schema
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.patch import media_types
from pytest_kvscale.sim.resources import Resource

_SCALARS: Mapping[str, Object] = {
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number", "format": "double"},
    "boolean": {"type": "boolean"},
    "time": {"type": "string", "format": "date-time"},
    "micro-time": {"type": "string", "format": "date-time"},
    "bytes": {"type": "string", "format": "byte"},
    "quantity": {"type": "string"},
    "int-or-string": {"type": "string", "format": "int-or-string"},
    "int-or-quantity": {"type": "string", "format": "int-or-string"},
    "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
}
_WORDS = {
    "apiVersion": "The group and version of the API that this object is written in.",
    "kind": "What kind of object this is.",
    "metadata": "What every object has: its name, labels, owners and versions.",
    "spec": "What is asked for.",
    "status": "What is there, as the controllers last saw it.",
}
"""What the fields mean that every kind has."""
_OPEN: Object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_CUSTOM = "io.kubevirt."
"""Types of custom resources are published where they are used, as their definitions have them."""
_OPTIONS = ("dryRun", "fieldManager", "fieldValidation")


class _Published:
    """One version of OpenAPI: where it keeps types and how it refers to them."""

    def __init__(self, prefix: str, three: bool) -> None:
        self.prefix = prefix
        self.three = three
        self.referred: dict[str, None] = {}

    def schema(self, spec: Any) -> Object:
        """The schema of a type."""
        if isinstance(spec, str):
            return self._reference(spec[1:]) if spec.startswith("#") else dict(_SCALARS[spec])
        merging = {
            f"x-kubernetes-{name}": spec[key]
            for key, name in (("strategy", "patch-strategy"), ("merge", "patch-merge-key"))
            if key in spec
        }
        if "ref" in spec:
            referred = self._reference(spec["ref"])
            return {**({"allOf": [referred]} if self.three else referred), **merging}
        if "list" in spec or "map" in spec:
            return {**self._collection(spec), **merging}
        if "scalar" in spec:
            return dict(_SCALARS[spec["scalar"]])
        if "fields" not in spec:
            return {"type": "object"}
        fields = {name: self._field(name, each, spec) for name, each in spec["fields"].items()}
        return {
            "type": "object",
            **({"properties": fields} if fields else {}),
            **({"required": spec["required"]} if "required" in spec else {}),
            **({"x-kubernetes-map-type": "atomic"} if spec.get("atomic") else {}),
        }

    def _collection(self, spec: Mapping[str, Any]) -> Object:
        if "list" in spec:
            keys = {"x-kubernetes-list-map-keys": spec["keys"]} if "keys" in spec else {}
            kind = {"x-kubernetes-list-type": spec.get("type", "atomic")}
            return {"type": "array", "items": self.schema(spec["list"]), **kind, **keys}
        values = {"additionalProperties": self.schema(spec["map"])}
        atomic = {"x-kubernetes-map-type": "atomic"} if spec.get("atomic") else {}
        return {"type": "object", **values, **atomic}

    def _field(self, name: str, spec: Any, owner: Mapping[str, Any]) -> Object:
        published = self.schema(spec)
        defaults = owner.get("defaults", {})
        return {**published, "default": defaults[name]} if name in defaults else published

    def _reference(self, name: str) -> Object:
        if name.startswith(_CUSTOM):
            return self.schema(schema.definitions()[name])
        self.referred[name] = None
        return {"$ref": self.prefix + name}

    def definitions(self, kinds: list[Resource]) -> Object:
        """The types of these kinds, and all that they refer to."""
        found: Object = {}
        for kind in kinds:
            found[schema.definition_name(kind)] = self._kind(kind)
        while self.referred:
            name, _ = self.referred.popitem()
            if name not in found:
                found[name] = self.schema(schema.definitions()[name])
        return dict(sorted(found.items()))

    def _kind(self, kind: Resource) -> Object:
        spec = schema.definitions().get(schema.definition_name(kind))
        # What is not described here may have any field.
        published = _OPEN.copy() if spec is None else self.schema(spec)
        for name, words in _WORDS.items():
            field = published.get("properties", {}).get(name)
            if field is not None:
                if self.three and "$ref" in field:
                    field = {"allOf": [field]}
                published["properties"][name] = {**field, "description": words}
        published["description"] = f"A {kind.kind} ({kind.full_name}, {kind.version})."
        published["x-kubernetes-group-version-kind"] = [_kind_of(kind)]
        return published


def _kind_of(kind: Resource) -> Object:
    return {"group": kind.group, "version": kind.version, "kind": kind.kind}


# The doors of each kind -------------------------------------------------------------------------


def _paths(kinds: list[Resource], published: _Published) -> Object:
    return {path: item for kind in kinds for path, item in _doors(kind, published)}


def _doors(kind: Resource, published: _Published) -> Iterator[tuple[str, Object]]:
    base = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    place = f"{base}/namespaces/{{namespace}}" if kind.namespaced else base
    path = f"{place}/{kind.plural}"
    make = functools.partial(_operation, kind, published)
    yield path, {"get": make("list"), "post": make("post"), "delete": make("deletecollection")}
    changing = {"get": make("get"), "put": make("put"), "patch": make("patch")}
    yield f"{path}/{{name}}", {**changing, "delete": make("delete")}
    if kind.status_subresource:
        yield f"{path}/{{name}}/status", changing


def _operation(kind: Resource, published: _Published, action: str) -> Object:
    options = list(_OPTIONS) if action in ("post", "put", "patch") else []
    if action == "patch":
        options.append("force")
    if action in ("delete", "deletecollection"):
        options = ["dryRun", "gracePeriodSeconds", "propagationPolicy"]
    parameters = []
    for name in options:
        flag = {"force": "boolean", "gracePeriodSeconds": "integer"}.get(name, "string")
        kinded = {"schema": {"type": flag}} if published.three else {"type": flag}
        parameters.append({"name": name, "in": "query", **kinded})
    consumed = media_types(kind) if action == "patch" else ["*/*"]
    body: Object = {}
    if published.three and options:
        content = {"schema": {"type": "object"}}
        body = {"requestBody": {"content": dict.fromkeys(consumed, content)}}
    elif not published.three:
        body = {"consumes": consumed, "produces": ["application/json"]}
    verb = {"post": "create", "put": "update"}.get(action, action)
    return {
        "operationId": f"{verb}{kind.kind}{kind.group.title().replace('.', '')}",
        **body,
        **({"parameters": parameters} if parameters else {}),
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _kind_of(kind),
    }


# The documents ----------------------------------------------------------------------------------


def _info(version: str) -> Object:
    return {"title": "Kubernetes", "version": version}


@functools.cache
def version_2(version: str) -> Object:
    """The whole API as OpenAPI 2; `version` is the cluster's."""
    published = _Published("#/definitions/", three=False)
    kinds = list(resources.SERVED)
    return {
        "swagger": "2.0",
        "info": _info(version),
        "paths": _paths(kinds, published),
        "definitions": published.definitions(kinds),
    }


@functools.cache
def version_3(path: str, version: str) -> Object | None:
    """One group and version (`api/v1`, `apis/GROUP/VERSION`) as OpenAPI 3; None for another."""
    kinds = [kind for kind in resources.SERVED if _place(kind) == path]
    if not kinds:
        return None
    published = _Published("#/components/schemas/", three=True)
    return {
        "openapi": "3.0.0",
        "info": _info(version),
        "paths": _paths(kinds, published),
        "components": {"schemas": published.definitions(kinds)},
    }


@functools.cache
def index(version: str) -> Object:
    """Where the OpenAPI 3 documents are; the hash changes when a document does."""
    paths: Object = {}
    for place in dict.fromkeys(_place(kind) for kind in resources.SERVED):
        text = json.dumps(version_3(place, version), sort_keys=True).encode()
        name = hashlib.sha512(text).hexdigest().upper()
        paths[place] = {"serverRelativeURL": f"/openapi/v3/{place}?hash={name}"}
    return {"paths": paths}


def _place(kind: Resource) -> str:
    return f"apis/{kind.group}/{kind.version}" if kind.group else f"api/{kind.version}"
