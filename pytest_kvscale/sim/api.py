"""What the embedded API does with a request, once it is known who asks for what.

Everything happens at one moment; how long a request takes is the callers' business (the HTTP
server's for clients, the players' client's for players). Admission, the mutating and validating
webhooks, is a function given per kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_kvscale.sim import (
    apply,
    deletion,
    errors,
    kind_rules,
    lists,
    object_meta,
    ownership,
    patch,
    pod_rules,
    workloads,
)
from pytest_kvscale.sim.changes import (
    NOT_OF_CLIENTS,
    SYSTEM_METADATA,
    changed,
    check_version,
    counts,
    head,
    is_released,
)
from pytest_kvscale.sim.clock import Calendar
from pytest_kvscale.sim.draws import Draws
from pytest_kvscale.sim.errors import Object, StatusError
from pytest_kvscale.sim.field_check import IGNORE, FieldCheck
from pytest_kvscale.sim.lists import Page, Paging, Query
from pytest_kvscale.sim.managed_fields import Writer
from pytest_kvscale.sim.ownership import BY_ITSELF, By, Ownership
from pytest_kvscale.sim.resources import NAMESPACES, PODS, Resource
from pytest_kvscale.sim.store import Store, Stored, Watch
from pytest_kvscale.sim.validation import check_names, check_type, custom_problems

__all__ = ["Admission", "Api", "Page", "Paging", "Query", "Rule"]

Admission = Callable[[Object], Object]
"""Takes an object that is to be created, returns it as it shall be, or raises `StatusError`."""
Rule = Callable[[Object], None]
"""Raises `StatusError` for an object that may not be stored like this, new or changed."""
Restriction = Callable[[Object, Object], Object]
"""Takes an object and what a client would make of it, returns what it may make of it."""
PROTECTED_NAMESPACES = ("default", "kube-system", "kube-public")
_ATTEMPTS = 8
"""How many names are generated until one is free."""


class Api:
    """The operations of the API on one store."""

    def __init__(self, store: Store, calendar: Calendar, draws: Draws) -> None:
        self.store = store
        self.calendar = calendar
        self._draws = draws
        self.admission: dict[Resource, Admission] = {}
        self.rules: dict[Resource, Rule] = {}
        self.restrictions: dict[Resource, Restriction] = {}

    # Reading --------------------------------------------------------------------------------

    def get(self, resource: Resource, namespace: str, name: str) -> Stored:
        """The object of that name; 404 if there is none."""
        stored = self.store.get(resource, namespace, name)
        if stored is None:
            raise errors.not_found(resource, name)
        return stored

    def list(self, resource: Resource, query: Query, paging: Paging | None = None) -> Page:
        """The objects a query means, or a page of them."""
        return lists.list_page(self.store, resource, query, paging or Paging())

    def watch(self, resource: Resource, query: Query, since: int | None) -> Watch:
        """The changes a query means, after a version (None: first all there is, as ADDED)."""
        return self.store.watch(resource, since, query.matcher(resource))

    # Writing --------------------------------------------------------------------------------

    def create(
        self,
        resource: Resource,
        namespace: str,
        obj: Object,
        dry_run: bool = False,
        by: By = BY_ITSELF,
        fields: FieldCheck | None = None,
    ) -> Object:
        """Make a new object; with `fields` one that may not be of its type yet."""
        check_type(resource, obj)
        object_meta.check_types(resource, obj)
        if fields is not None:
            obj = fields.read(resource, obj)
        metadata = dict(obj.get("metadata") or {})
        if resource.namespaced:
            if (metadata.get("namespace") or namespace) != namespace:
                raise errors.bad_request(
                    "the namespace of the provided object does not match the namespace sent on "
                    "the request"
                )
            metadata["namespace"] = namespace
        else:
            metadata.pop("namespace", None)
        asked_name = metadata.get("name")
        if not asked_name and metadata.get("generateName"):
            metadata["name"] = self._generate(resource, namespace, metadata["generateName"])
        name = metadata.get("name") or ""
        if resource.namespaced:
            asked_name = asked_name or metadata.get("generateName") or "Unknown"
            self._check_namespace(resource, namespace, asked_name)
        if lists.is_version(metadata.pop("resourceVersion", None)):
            raise errors.bad_request("resourceVersion should not be set on objects to be created")
        obj = self.prepared(resource, name, {**obj, "metadata": metadata})
        if resource.status_subresource and resource.custom:
            obj.pop("status", None)
        asked, admit = obj, self.admission.get(resource)
        if admit is not None and name:
            obj = admit(obj)
        obj = kind_rules.fill(resource, obj)
        if fields is not None:
            obj = kind_rules.fill_of_client(resource, obj)
        self._check(resource, name, obj, fields)
        if self.store.get(resource, namespace, name) is not None:
            raise errors.already_exists(resource, name)
        now = self.calendar.stamp()
        owners = ownership.of_new(resource, asked if resource.custom else obj, by, now)
        return ownership.shown(obj, owners) if dry_run else self.store.put(resource, obj, owners)

    def prepared(self, resource: Resource, name: str, obj: Object) -> Object:
        """The object with what the API itself writes into a new one, and no client can."""
        metadata = {"name": name, **(obj.get("metadata") or {})}
        # A run's namespace has another name every time, and must be the same otherwise.
        draw = (resource.plural, "" if resource is NAMESPACES else name)
        metadata["uid"] = self._draws.uid(*draw, self._draws.nth("create", *draw))
        metadata["creationTimestamp"] = self.calendar.stamp()
        for key in NOT_OF_CLIENTS:
            metadata.pop(key, None)
        if resource.generation:
            metadata["generation"] = 1
        return {**head(resource), **obj, **head(resource), "metadata": metadata}

    def _check(self, resource: Resource, name: str, obj: Object, fields: FieldCheck | None) -> None:
        causes = [
            *object_meta.problems_of_new(resource, obj["metadata"]),
            *(kind_rules.problems(resource, obj, None) if name else ()),
        ]
        if fields is not None:
            causes += workloads.problems(resource, obj)
            causes += pod_rules.problems_of_new(obj) if resource is PODS else ()
        if name and resource in self.rules:
            self.rules[resource](obj)
        if resource.custom:
            causes = custom_problems(resource, obj, None, causes, fields)
        if causes:
            raise errors.invalid(resource, name, causes)

    def _generate(self, resource: Resource, namespace: str, base: str) -> str:
        """A name that begins like this and is not taken (if there is one)."""
        longest = object_meta.LONGEST_GENERATED - object_meta.SUFFIX_LENGTH
        name = ""
        for _ in range(_ATTEMPTS):
            nth = self._draws.nth("generate", resource.plural, base)
            name = base[:longest] + self._draws.suffix(resource.plural, base, nth)
            if self.store.get(resource, namespace, name) is None:
                break
        return name

    def replace(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        obj: Object,
        subresource: str = "",
        dry_run: bool = False,
        by: By = BY_ITSELF,
        fields: FieldCheck | None = None,
    ) -> Object:
        """Put another object in the place of one that is there."""
        check_type(resource, obj)
        object_meta.check_types(resource, obj)
        check_names(namespace, name, obj)
        stored = self.store.get(resource, namespace, name)
        if stored is None and (not resource.create_on_update or subresource):
            raise errors.not_found(resource, name)
        uid = obj["metadata"].get("uid")
        held = stored.obj["metadata"]["uid"] if stored is not None else ""
        if uid and uid != held:
            why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {held}"
            raise errors.conflict(resource, name, why)
        if stored is None:
            metadata = {**obj["metadata"], "resourceVersion": ""}
            made = {**obj, "metadata": metadata}
            return self.create(resource, namespace, made, dry_run, by, fields)
        if fields is not None:
            obj = fields.read(resource, obj, stored.obj)
        return self._write(resource, stored, obj, subresource, dry_run, by, fields)

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
        fields: FieldCheck | None = None,
    ) -> Object:
        """Change a part of an object."""
        stored = self.get(resource, namespace, name)
        obj = stored.obj
        if patch.concerns_owners(change, media_type):
            obj = ownership.shown(obj, stored.ownership)
        wanted = patch.apply(resource, obj, change, media_type)
        try:
            check_type(resource, wanted, patched=True)
            object_meta.check_types(resource, wanted)
            if fields is not None:
                wanted = fields.read(resource, wanted, stored.obj)
        except StatusError as refusal:
            raise errors.invalid_patch(str(refusal)) if refusal.code == 400 else refusal from None
        check_names(namespace, name, wanted)
        return self._write(resource, stored, wanted, subresource, dry_run, by, fields)

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
        # Its fields are known to be its kind's; what is merged is checked like any other object.
        fields = FieldCheck(IGNORE, [])
        if stored is None:
            new, managed = apply.apply(resource, {}, {}, request)
            made = self.create(resource, namespace, new, dry_run, Ownership(managed), fields)
            return made, True
        new, managed = apply.apply(resource, stored.obj, stored.ownership.managed, request)
        owners = stored.ownership if managed == stored.ownership.managed else Ownership(managed)
        new = fields.read(resource, new, stored.obj)
        return self._write(resource, stored, new, by.subresource, dry_run, owners, fields), False

    def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        options: Object | None = None,
        dry_run: bool = False,
    ) -> tuple[Object, bool]:
        """Delete an object, or mark it as to be deleted; returns it and whether it is gone."""
        if resource is NAMESPACES and name in PROTECTED_NAMESPACES:
            raise errors.forbidden(resource, name, "this namespace may not be deleted")
        stored = self.get(resource, namespace, name)
        options = options or {}
        why = deletion.unmet(stored.obj["metadata"], options)
        if why:
            raise errors.conflict(resource, name, why)
        obj = deletion.hold(stored.obj, options)
        held = obj["metadata"]
        grace = self._grace(resource, obj, options)
        stays = bool(grace or held.get("finalizers") or resource is NAMESPACES)
        if dry_run:
            return stored.obj, not stays
        if stays or resource is PODS:
            obj = self._mark(resource, obj, grace)
        return (obj, False) if stays else (self.store.remove(resource, obj), True)

    def delete_collection(
        self,
        resource: Resource,
        query: Query,
        options: Object | None = None,
        dry_run: bool = False,
        paging: Paging | None = None,
    ) -> Page:
        """Delete all objects a query means; returns them."""
        page = self.list(resource, query, paging)
        for stored in page.items:
            metadata = stored.obj["metadata"]
            namespace, name = metadata.get("namespace", ""), metadata["name"]
            if self.store.get(resource, namespace, name) is not None:
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
        fields: FieldCheck | None = None,
    ) -> Object:
        old, held = stored.obj, stored.obj["metadata"]
        given = dict(wanted.get("metadata") or {})
        check_version(resource, held, given)
        causes = list(object_meta.problems_of_change(resource, held, given))
        before = ownership.asked_for(
            stored.ownership, given.pop("managedFields", None), subresource
        )
        for key in SYSTEM_METADATA:
            given.pop(key, None)
            if key in held:
                given[key] = held[key]
        new = changed(resource, old, wanted, given, subresource)
        new = self._restricted(resource, old, new, by)
        if resource.generation and counts(resource, old, new):
            new["metadata"] = {**new["metadata"], "generation": held.get("generation", 1) + 1}
        owners = ownership.of_changed(before, old, new, resource, by, self.calendar.stamp())
        if old == new and owners is stored.ownership and not causes:
            return ownership.shown(old, owners) if dry_run else old
        if not subresource:
            causes += kind_rules.problems(resource, new, old)
        if resource in self.rules and not subresource and "deletionTimestamp" not in held:
            self.rules[resource](new)
        if resource.custom:
            causes = custom_problems(resource, new, old, causes, fields)
        if causes:
            raise errors.invalid(resource, held["name"], causes)
        if dry_run:
            return ownership.shown(new, owners)
        if is_released(resource, old, new):
            # Its watchers see it as it was last stored, the writer as it would have been.
            gone = self.store.remove(resource, old)
            version = gone["metadata"]["resourceVersion"]
            seen = {**new, "metadata": {**new["metadata"], "resourceVersion": version}}
            return ownership.shown(seen, owners)
        return self.store.put(resource, new, owners)

    def _restricted(self, resource: Resource, old: Object, new: Object, by: By) -> Object:
        """What a writer may make of an object: the cluster's own components anything."""
        restrict = self.restrictions.get(resource)
        if restrict is None or (isinstance(by, Writer) and by.player):
            return new
        return restrict(old, new)

    def _grace(self, resource: Resource, obj: Object, options: Object) -> int:
        if resource is not PODS:
            return 0
        spec = obj.get("spec") or {}
        grace = options.get("gracePeriodSeconds")
        if grace is None:
            grace = spec.get("terminationGracePeriodSeconds", 30)
        finished = (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        if finished or not spec.get("nodeName"):
            return 0
        return 1 if grace < 0 else int(grace)

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
