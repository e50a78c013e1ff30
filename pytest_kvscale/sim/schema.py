"""What kind of thing each field of an object is: struct, map, list or scalar, and how it merges.

A list is *atomic* (one value as a whole), a *set* of values, or a *map* whose items are told apart
by keys; a map or struct may be atomic as well. The types come from the data files in `schemas`,
read when they are first needed.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from importlib import resources as files
from typing import Any, Literal

from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.resources import Resource

Form = Literal["struct", "map", "list", "scalar", "any"]
OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_SOURCES = ("kubernetes.json", "kubevirt.json")
_GROUPS = {
    "apps": "apps", "authentication.k8s.io": "authentication",
    "authorization.k8s.io": "authorization", "batch": "batch",
    "coordination.k8s.io": "coordination", "discovery.k8s.io": "discovery",
    "events.k8s.io": "events", "policy": "policy", "rbac.authorization.k8s.io": "rbac",
    "scheduling.k8s.io": "scheduling", "storage.k8s.io": "storage", "": "core",
}  # fmt: skip
"""Where the types of a group's kinds are in Kubernetes."""


class Type:
    """One type: what values look like, and how two of them merge.

    The types of its fields are made when they are first asked for: types may contain themselves.
    """

    __slots__ = ("_element", "_fields", "_spec", "atomic", "form", "keys", "name", "scalar")

    def __init__(self, spec: Mapping[str, Any], name: str = "") -> None:
        self._spec = spec
        self._fields: dict[str, Type | None] = {}
        self._element: Type | None = None
        self.name = name
        """The name of its definition; '' for one that stands where it is used."""
        self.form = _form(spec)
        self.atomic: bool = bool(spec.get("atomic")) or (
            self.form == "list" and spec.get("type", "atomic") == "atomic"
        )
        self.keys: tuple[str, ...] = tuple(spec.get("keys", ()))
        """Of a list that is a map: the fields that tell its items apart. Of a set: none."""
        self.scalar: str = spec.get("scalar", "")

    @property
    def field_names(self) -> list[str]:
        """The fields of a struct."""
        return list(self._spec.get("fields", ()))

    @property
    def required(self) -> list[str]:
        """The fields of a struct that must be there."""
        return list(self._spec.get("required", ()))

    @property
    def open(self) -> bool:
        """Whether a struct keeps fields it does not declare."""
        return bool(self._spec.get("open"))

    @property
    def defaults(self) -> Mapping[str, Any]:
        """What stands for a field that is left out, where that tells items apart."""
        return self._spec.get("defaults", {})  # type: ignore[no-any-return]

    @property
    def merge_key(self) -> str:
        """The field by which strategic merge joins the items of this list."""
        return str(self._spec.get("merge", ""))

    @property
    def strategy(self) -> tuple[str, ...]:
        """How strategic merge treats this field."""
        return tuple(filter(None, self._spec.get("strategy", "").split(",")))

    def field(self, name: str) -> Type | None:
        """The type of a declared field; None for one that is not declared."""
        try:
            return self._fields[name]
        except KeyError:
            spec = self._spec.get("fields", {}).get(name)
            found = self._fields[name] = None if spec is None else _type_of(spec)
            return found

    def child(self, name: str) -> Type:
        """The type of what stands under a key of this struct or map."""
        return self.field(name) or self.element

    @property
    def element(self) -> Type:
        """The type of a list's items or a map's values."""
        if self._element is None:
            spec = self._spec.get("list", self._spec.get("map"))
            self._element = ANY if spec is None else _type_of(spec)
        return self._element


def _form(spec: Mapping[str, Any]) -> Form:
    for form in ("list", "map", "scalar"):
        if form in spec:
            return form
    return "struct" if "fields" in spec else "any"


ANY = Type({"any": True})
"""A value nobody has described: objects are merged, lists are not."""


@functools.cache
def definitions() -> dict[str, Mapping[str, Any]]:
    """All types that have a name, as the data files describe them."""
    folder = files.files("pytest_kvscale.sim.schemas")
    found: dict[str, Mapping[str, Any]] = {}
    for source in _SOURCES:
        found.update(json.loads((folder / source).read_text(encoding="utf-8")))
    return found


@functools.cache
def _empty() -> dict[str, Object]:
    folder = files.files("pytest_kvscale.sim.schemas")
    found: dict[str, Object] = json.loads((folder / "empty.json").read_text(encoding="utf-8"))
    return found


@functools.cache
def named(name: str) -> Type:
    """The type of that name; `ANY` if there is none."""
    spec = definitions().get(name)
    return ANY if spec is None else Type(spec, name)


@functools.cache
def _scalar(name: str) -> Type:
    return ANY if name == "any" else Type({"scalar": name})


def _type_of(spec: Any) -> Type:
    if isinstance(spec, str):
        return named(spec[1:]) if spec.startswith("#") else _scalar(spec)
    if "ref" in spec:
        referred = named(spec["ref"])
        return Type({**definitions()[spec["ref"]], **spec}, referred.name)
    return Type(spec)


def definition_name(resource: Resource) -> str:
    """The name under which Kubernetes publishes a kind's type."""
    if resource.custom:
        group = ".".join(reversed(resource.group.split(".")))
        return f"{group}.{resource.version}.{resource.kind}"
    return f"io.k8s.api.{_GROUPS.get(resource.group, '')}.{resource.version}.{resource.kind}"


@functools.cache
def of(resource: Resource) -> Type:
    """The type of a kind's objects."""
    found = named(definition_name(resource))
    if found is not ANY:
        return found
    meta = {"apiVersion": "string", "kind": "string", "metadata": f"#{OBJECT_META}"}
    return Type({"fields": meta, "open": True})


def empty(resource: Resource) -> Object:
    """An object of a kind before anybody has written to it."""
    head: Object = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {}}
    return head | _empty().get(f"{resource.api_version}/{resource.kind}", {})
