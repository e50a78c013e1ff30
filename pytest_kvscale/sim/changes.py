"""How a change of an object comes out: what of it counts, and what stays as it was."""

from __future__ import annotations

import itertools

from pytest_kvscale.sim import errors, lists
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.resources import NAMESPACES, Resource

NOT_OF_CLIENTS = (
    "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation", "managedFields",
)  # fmt: skip
NAME_LABEL = "kubernetes.io/metadata.name"
"""The label by which a namespace can be selected by its name; it cannot be taken away."""
SYSTEM_METADATA = (
    "name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generation",
    "deletionTimestamp", "deletionGracePeriodSeconds", "generateName", "selfLink",
)  # fmt: skip


def head(resource: Resource) -> Object:
    """Kind and version, in the order in which the real API has them."""
    if resource.custom:
        return {"apiVersion": resource.api_version, "kind": resource.kind}
    return {"kind": resource.kind, "apiVersion": resource.api_version}


def check_version(resource: Resource, held: Object, given: Object) -> None:
    """409 for a writer who means another version; 422 for one who says none, but must."""
    text = given.get("resourceVersion") or ""
    if lists.version_of(text):
        if text != held["resourceVersion"]:
            raise errors.conflict(resource, held["name"])
    elif resource.custom or not resource.unconditional:
        cause = errors.invalid_value(
            "metadata.resourceVersion", 0, "must be specified for an update"
        )
        raise errors.invalid_kind(resource.group, resource.plural, held["name"], [cause])


def changed(
    resource: Resource, old: Object, wanted: Object, metadata: Object, subresource: str
) -> Object:
    """The object after a write through its own door or through one of its subresources'."""
    held = old["metadata"]
    if subresource == "status":
        labels = {key: metadata[key] for key in ("labels", "annotations") if key in metadata}
        new = {**old, "metadata": held if resource.custom else {**held, **labels}}
        if "status" in wanted:
            new["status"] = wanted["status"]
        return new
    if subresource == "finalize":
        kept = (wanted.get("spec") or {}).get("finalizers") or []
        spec = {key: value for key, value in (old.get("spec") or {}).items() if key != "finalizers"}
        return {**old, "spec": {**spec, "finalizers": kept} if kept else spec}
    new = {**head(resource), **wanted, **head(resource), "metadata": metadata}
    if resource.status_subresource:
        new.pop("status", None)
        if "status" in old:
            new["status"] = old["status"]
    if resource is NAMESPACES:
        named: Object = {**(metadata.get("labels") or {}), NAME_LABEL: held["name"]}
        new = {**new, "metadata": {**metadata, "labels": named}}
        if "spec" in old:
            new["spec"] = old["spec"]
    return new


def counts(resource: Resource, old: Object, new: Object) -> bool:
    """Whether a change counts as a new generation."""
    skip = {"metadata"} | ({"status"} if resource.status_subresource else set())
    return any(
        old.get(field) != new.get(field) for field in itertools.chain(old, new) if field not in skip
    )


def is_released(resource: Resource, old: Object, new: Object) -> bool:
    """Whether this change takes away the last thing that held an object to be deleted."""
    held, metadata = old["metadata"], new["metadata"]
    if "deletionTimestamp" not in metadata or metadata.get("finalizers"):
        return False
    if resource is NAMESPACES:
        return not (new.get("spec") or {}).get("finalizers")
    return bool(held.get("finalizers")) and not metadata.get("deletionGracePeriodSeconds")
