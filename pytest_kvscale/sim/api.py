"""What the embedded API does with a request, once it is known who asks for what.

Everything happens at one moment; how long a request takes is the callers' business (the HTTP
server's for clients, the players' client's for players). Admission, the mutating and validating
webhooks, is a function given per kind.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable
from typing import Any

from pytest_kvscale.sim import apply, deletion, errors, ownership, patch, selectors
from pytest_kvscale.sim.clock import Calendar
from pytest_kvscale.sim.draws import Draws
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.managed_fields import Writer
from pytest_kvscale.sim.ownership import BY_ITSELF, By, Ownership
from pytest_kvscale.sim.resources import NAMESPACES, PODS, Resource
from pytest_kvscale.sim.store import Store, Stored, Watch
from pytest_kvscale.sim.validation import check_name, check_type

Admission = Callable[[Object], Object]
"""Takes an object that is to be created, returns it as it shall be, or raises `StatusError`."""
Rule = Callable[[Object], None]
"""Raises `StatusError` for an object that may not be stored like this, new or changed."""


@dataclasses.dataclass(frozen=True)
class Page:
    """A part of a list: encoded objects, the version they stand at, and where to go on."""

    items: list[Stored]
    version: int
    proceed: str = ""
    remaining: int | None = None


@dataclasses.dataclass(frozen=True)
class Query:
    """Which objects a list, watch or deletecollection is about."""

    namespace: str = ""
    labels: str = ""
    fields: str = ""


class Api:
    """The operations of the API on one store."""

    def __init__(self, store: Store, calendar: Calendar, draws: Draws) -> None:
        self.store = store
        self.calendar = calendar
        self._draws = draws
        self.admission: dict[Resource, Admission] = {}
        self.rules: dict[Resource, Rule] = {}

    # Reading --------------------------------------------------------------------------------

    def get(self, resource: Resource, namespace: str, name: str) -> Stored:
        """The object of that name; 404 if there is none."""
        stored = self.store.get(resource, namespace, name)
        if stored is None:
            raise errors.not_found(resource, name)
        return stored

    def list(
        self,
        resource: Resource,
        query: Query,
        limit: int = 0,
        proceed: str = "",
        version: str = "",
        exact: bool = False,
    ) -> Page:
        """The objects a query means, at most `limit` of them, from `proceed` on."""
        wanted = self._version(version)
        if wanted > self.store.version:
            raise errors.too_large_version(wanted, self.store.version)
        if exact and 0 < wanted < self.store.version:
            raise errors.expired(f"The resourceVersion {wanted} for the provided list is too old.")
        after, at = ("", ""), self.store.version
        if proceed:
            after, at = self._decode_continue(proceed)
        matches = self._matcher(resource, query)
        items = [
            stored
            for stored in self.store.all(resource, query.namespace)
            if self._key(stored.obj) > after and matches(stored.obj)
        ]
        if not limit or len(items) <= limit:
            return Page(items, at)
        token = self._encode_continue(self._key(items[limit - 1].obj), at)
        remaining = None if query.labels or query.fields else len(items) - limit
        return Page(items[:limit], at, token, remaining)

    def watch(self, resource: Resource, query: Query, since: int | None) -> Watch:
        """The changes a query means, after a version (None: first all there is, as ADDED)."""
        if since is not None and since > self.store.version:
            raise errors.too_large_version(since, self.store.version)
        return self.store.watch(resource, since, self._matcher(resource, query))

    # Writing --------------------------------------------------------------------------------

    def create(
        self,
        resource: Resource,
        namespace: str,
        obj: Object,
        dry_run: bool = False,
        by: By = BY_ITSELF,
    ) -> Object:
        """Make a new object."""
        check_type(resource, obj)
        metadata = dict(obj.get("metadata") or {})
        if resource.namespaced:
            if metadata.get("namespace", namespace) != namespace:
                raise errors.bad_request(
                    "the namespace of the provided object does not match the namespace sent on "
                    "the request"
                )
            metadata["namespace"] = namespace
        if not metadata.get("name") and metadata.get("generateName"):
            base = metadata["generateName"]
            nth = self._draws.nth("generate", resource.plural, base)
            metadata["name"] = base + self._draws.suffix(resource.plural, base, nth)
        name = metadata.get("name") or ""
        check_name(resource, name)
        if resource.namespaced:
            self._check_namespace(resource, namespace, name)
        if self.store.get(resource, namespace, name) is not None:
            raise errors.already_exists(resource, name)
        # A run's namespace has another name every time, and must be the same otherwise.
        draw = (resource.plural, "" if resource is NAMESPACES else name)
        metadata["uid"] = self._draws.uid(*draw, self._draws.nth("create", *draw))
        metadata["creationTimestamp"] = self.calendar.stamp()
        for key in ("resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds"):
            metadata.pop(key, None)
        if resource.generation:
            metadata["generation"] = 1
        obj = {"apiVersion": resource.api_version, "kind": resource.kind, **obj}
        obj["metadata"] = metadata
        if resource.status_subresource and resource is not NAMESPACES and resource.custom:
            obj.pop("status", None)
        metadata.pop("managedFields", None)
        asked, admit = obj, self.admission.get(resource)
        if admit is not None:
            obj = admit(obj)
        if resource in self.rules:
            self.rules[resource](obj)
        now = self.calendar.stamp()
        owners = ownership.of_new(resource, asked if resource.custom else obj, by, now)
        return ownership.shown(obj, owners) if dry_run else self.store.put(resource, obj, owners)

    def replace(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        obj: Object,
        subresource: str = "",
        dry_run: bool = False,
        by: By = BY_ITSELF,
    ) -> Object:
        """Put another object in the place of one that is there."""
        check_type(resource, obj)
        metadata = obj.get("metadata") or {}
        if metadata.get("name", name) != name:
            raise errors.bad_request(
                f"the name of the object ({metadata['name']}) does not match the name on the URL "
                f"({name})"
            )
        if resource.namespaced and metadata.get("namespace", namespace) != namespace:
            raise errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the "
                "request"
            )
        stored = self.get(resource, namespace, name)
        return self._write(resource, stored, obj, subresource, dry_run, by)

    def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        change: Any,
        media_type: str,
        subresource: str = "",
        dry_run: bool = False,
        by: By = BY_ITSELF,
    ) -> Object:
        """Change a part of an object."""
        stored = self.get(resource, namespace, name)
        obj = stored.obj
        if patch.concerns_owners(change, media_type):
            obj = ownership.shown(obj, stored.ownership)
        changed = patch.apply(resource, obj, change, media_type)
        return self._write(resource, stored, changed, subresource, dry_run, by)

    def apply(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        config: Any,
        by: Writer,
        force: bool = False,
        dry_run: bool = False,
    ) -> tuple[Object, bool]:
        """Server-side apply; returns the object and whether it was made."""
        stored = self.store.get(resource, namespace, name)
        if stored is None and by.subresource:
            raise errors.not_found(resource, name)
        config = apply.check(resource, config)
        apply.check_place(config, resource, namespace, name, stored is not None)
        request = apply.Request(config, by.manager, force, by.subresource, self.calendar.stamp())
        if stored is None:
            new, managed = apply.apply(resource, {}, {}, request)
            made = self.create(resource, namespace, new, dry_run, Ownership(managed))
            return made, True
        new, managed = apply.apply(resource, stored.obj, stored.ownership.managed, request)
        owners = stored.ownership if managed == stored.ownership.managed else Ownership(managed)
        return self._write(resource, stored, new, by.subresource, dry_run, owners), False

    def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        options: Object | None = None,
        dry_run: bool = False,
    ) -> tuple[Object, bool]:
        """Delete an object, or mark it as to be deleted; returns it and whether it is gone."""
        stored = self.get(resource, namespace, name)
        options = options or {}
        expected = options.get("preconditions") or {}
        held = stored.obj["metadata"]
        for key, word in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
            if expected.get(key) not in (None, held[key]):
                raise errors.conflict(
                    resource,
                    name,
                    f"Precondition failed: {word} in precondition: {expected[key]}, "
                    f"{word} in object meta: {held[key]}",
                )
        obj = deletion.hold(stored.obj, options)
        if dry_run:
            return stored.obj, False
        held = obj["metadata"]
        grace = self._grace(resource, obj, options)
        if grace or held.get("finalizers") or resource in (NAMESPACES, PODS):
            obj = self._mark(resource, obj, grace)
            if grace or held.get("finalizers") or resource is NAMESPACES:
                return obj, False
        return self.store.remove(resource, obj), True

    def delete_collection(
        self, resource: Resource, query: Query, options: Object | None = None, dry_run: bool = False
    ) -> Page:
        """Delete all objects a query means; returns them."""
        page = self.list(resource, query)
        for stored in page.items:
            namespace, name = self._key(stored.obj)
            self.delete(resource, namespace, name, options, dry_run)
        return page

    # The rules of writing -------------------------------------------------------------------

    def _write(
        self,
        resource: Resource,
        stored: Stored,
        wanted: Object,
        subresource: str,
        dry_run: bool,
        by: By,
    ) -> Object:
        old, new = stored.obj, dict(wanted)
        held, given = old["metadata"], dict(new.get("metadata") or {})
        _check_precondition(resource, held, given)
        before = ownership.asked_for(
            stored.ownership, given.pop("managedFields", None), subresource
        )
        for key in _SYSTEM_METADATA:
            given.pop(key, None)
            if key in held:
                given[key] = held[key]
        if subresource == "status":
            metadata = {**held, **{k: given[k] for k in ("labels", "annotations") if k in given}}
            new = {**old, "metadata": held if resource.custom else metadata}
            if "status" in wanted:
                new["status"] = wanted["status"]
        else:
            new = {**new, "apiVersion": old["apiVersion"], "kind": old["kind"], "metadata": given}
            if resource.status_subresource:
                new.pop("status", None)
                if "status" in old:
                    new["status"] = old["status"]
        if resource.generation and self._counts(resource, old, new):
            new["metadata"] = {**new["metadata"], "generation": held.get("generation", 1) + 1}
        owners = ownership.of_changed(before, old, new, resource, by, self.calendar.stamp())
        if old == new and owners is stored.ownership:
            return ownership.shown(old, owners) if dry_run else old
        if resource in self.rules and not subresource and "deletionTimestamp" not in held:
            self.rules[resource](new)
        if dry_run:
            return ownership.shown(new, owners)
        metadata = new["metadata"]
        if (
            "deletionTimestamp" in metadata
            and not metadata.get("finalizers")
            and held.get("finalizers")
            and resource is not NAMESPACES
        ):
            # Its watchers see it as it was last stored, the writer as it would have been.
            gone = self.store.remove(resource, old)
            version = gone["metadata"]["resourceVersion"]
            seen = {**new, "metadata": {**metadata, "resourceVersion": version}}
            return ownership.shown(seen, owners)
        return self.store.put(resource, new, owners)

    @staticmethod
    def _counts(resource: Resource, old: Object, new: Object) -> bool:
        """Whether a change counts as a new generation."""
        skip = {"metadata"} | ({"status"} if resource.status_subresource else set())
        fields = (old.keys() | new.keys()) - skip
        return any(old.get(field) != new.get(field) for field in fields)

    def _grace(self, resource: Resource, obj: Object, options: Object) -> int:
        if resource is not PODS:
            return 0
        spec = obj.get("spec") or {}
        grace = options.get("gracePeriodSeconds", spec.get("terminationGracePeriodSeconds", 30))
        finished = (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        return 0 if finished or not spec.get("nodeName") else max(0, int(grace))

    def _mark(self, resource: Resource, obj: Object, grace: int) -> Object:
        """Set the deletion timestamp; whoever holds the object (finalizer, kubelet) ends it."""
        metadata = dict(obj["metadata"])
        shorter = grace < metadata.get("deletionGracePeriodSeconds", 0)
        if "deletionTimestamp" in metadata and not shorter:
            kept = self.get(resource, metadata.get("namespace", ""), metadata["name"]).obj
            return obj if obj == kept else self.store.put(resource, obj)
        metadata["deletionTimestamp"] = self.calendar.stamp(grace)
        if resource is not NAMESPACES:
            metadata["deletionGracePeriodSeconds"] = grace
        if resource.generation:
            metadata["generation"] = metadata.get("generation", 1) + 1
        marked = {**obj, "metadata": metadata}
        if resource is NAMESPACES:
            marked["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
        return self.store.put(resource, marked)

    # Checks ---------------------------------------------------------------------------------

    def _check_namespace(self, resource: Resource, namespace: str, name: str) -> None:
        stored = self.store.get(NAMESPACES, "", namespace)
        if stored is None:
            raise errors.not_found(NAMESPACES, namespace)
        if "deletionTimestamp" in stored.obj["metadata"]:
            text = f"namespace {namespace} is being terminated"
            raise errors.forbidden(
                resource,
                name,
                f"unable to create new content in namespace {namespace} because it is being "
                "terminated",
                [errors.cause("NamespaceTerminating", "metadata.namespace", text)],
            )

    @staticmethod
    def _matcher(resource: Resource, query: Query) -> selectors.Matcher:
        namespace = query.namespace
        parts: list[selectors.Matcher] = []
        if namespace:
            parts.append(lambda obj: obj["metadata"].get("namespace") == namespace)
        if query.labels:
            parts.append(selectors.labels(query.labels))
        if query.fields:
            parts.append(selectors.fields(query.fields, resource))
        if len(parts) == 1:
            return parts[0]
        return lambda obj: all(part(obj) for part in parts)

    @staticmethod
    def _version(text: str) -> int:
        if not text:
            return 0
        if not text.isdecimal():
            raise errors.bad_request(f"invalid resource version {text!r}: not a number")
        return int(text)

    @staticmethod
    def _key(obj: Object) -> tuple[str, str]:
        return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]

    @staticmethod
    def _encode_continue(key: tuple[str, str], version: int) -> str:
        return base64.urlsafe_b64encode(json.dumps([*key, version]).encode()).decode()

    @staticmethod
    def _decode_continue(token: str) -> tuple[tuple[str, str], int]:
        try:
            namespace, name, version = json.loads(base64.urlsafe_b64decode(token))
            return (str(namespace), str(name)), int(version)
        except (ValueError, TypeError):
            raise errors.bad_request("continue key is not valid: it was not issued here") from None


_SYSTEM_METADATA = (
    "name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generation",
    "deletionTimestamp", "deletionGracePeriodSeconds", "generateName", "selfLink",
)  # fmt: skip


def _check_precondition(resource: Resource, held: Object, given: Object) -> None:
    """409 for a writer who means another version or another object of that name."""
    if given.get("resourceVersion") not in (None, "", held["resourceVersion"]):
        raise errors.conflict(resource, held["name"])
    if given.get("uid") not in (None, "", held["uid"]):
        raise errors.conflict(
            resource,
            held["name"],
            f"Precondition failed: UID in precondition: {given['uid']}, UID in object meta: "
            f"{held['uid']}",
        )
