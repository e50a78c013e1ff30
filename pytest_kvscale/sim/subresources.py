"""Doors beside an object's own: how many replicas, which node, and going in good order."""

from __future__ import annotations

from typing import Any

from pytest_kvscale.sim import errors, lists, patch, selectors
from pytest_kvscale.sim.api import Api
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.resources import DEPLOYMENTS, PODS, Resource
from pytest_kvscale.sim.validation import check_names

_SCALE = Resource("autoscaling", "v1", "Scale", "scales")
_BINDING = Resource("", "v1", "Binding", "bindings")


# Scale ------------------------------------------------------------------------------------------


def scale(api: Api, resource: Resource, namespace: str, name: str) -> Object:
    """The Scale of an object."""
    return _scale_of(resource, api.get(resource, namespace, name).obj)


def _scale_of(resource: Resource, obj: Object) -> Object:
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    selector = status.get("labelSelector") if resource.custom else _selector(spec)
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: metadata[key] for key in kept if key in metadata},
        "spec": {"replicas": spec["replicas"]} if spec.get("replicas") else {},
        "status": {
            "replicas": status.get("replicas", 0),
            **({"selector": selector} if selector else {}),
        },
    }


def _selector(spec: Object) -> str:
    try:
        return selectors.of_spec(spec.get("selector") or {})
    except (ValueError, AttributeError):
        return ""


def change_scale(
    api: Api, resource: Resource, namespace: str, name: str, wanted: Object, dry_run: bool = False
) -> Object:
    """Set the replicas of an object to those of a Scale."""
    if wanted.get("kind") not in (None, "", "Scale"):
        raise errors.bad_request(f"{wanted['kind']} cannot be handled as a Scale")
    metadata = wanted.get("metadata") or {}
    if not isinstance(metadata, dict) or not isinstance(wanted.get("spec") or {}, dict):
        raise errors.bad_request("json: cannot unmarshal into Go struct field Scale")
    check_names(namespace, name, wanted)
    obj = api.get(resource, namespace, name).obj
    replicas = (wanted.get("spec") or {}).get("replicas", 0)
    if isinstance(replicas, bool) or not isinstance(replicas, int):
        raise errors.bad_request(
            "json: cannot unmarshal into Go struct field ScaleSpec.spec.replicas of type int32"
        )
    if replicas < 0:
        why = "must be greater than or equal to 0"
        cause = errors.invalid_value("spec.replicas", replicas, why)
        raise errors.invalid(_SCALE, name, [cause])
    version = metadata.get("resourceVersion") or obj["metadata"]["resourceVersion"]
    lists.version_of(str(version))
    changed = {
        **obj,
        "metadata": {**obj["metadata"], "resourceVersion": str(version)},
        "spec": {**(obj.get("spec") or {}), "replicas": replicas},
    }
    if metadata.get("uid") not in (None, "", obj["metadata"]["uid"]):
        raise errors.conflict(resource, name)
    return _scale_of(resource, api.replace(resource, namespace, name, changed, dry_run=dry_run))


def patch_scale(
    api: Api, resource: Resource, namespace: str, name: str, change: Any, media_type: str,
    dry_run: bool = False,
) -> Object:  # fmt: skip
    """Change a part of an object's Scale."""
    # The Scale is a built-in kind, whatever it belongs to.
    wanted = patch.apply(DEPLOYMENTS, scale(api, resource, namespace, name), change, media_type)
    return change_scale(api, resource, namespace, name, wanted, dry_run)


# Binding and eviction ---------------------------------------------------------------------------


def bind(api: Api, namespace: str, name: str, binding: Object, dry_run: bool = False) -> None:
    """Bind a pod to a node, as a scheduler from outside does it."""
    _check_kind(binding, "Binding", name)
    target = binding.get("target")
    target = target if isinstance(target, dict) else {}
    causes = []
    if target.get("kind") not in (None, "", "Node"):
        causes.append(errors.unsupported("target.kind", target["kind"], ("Node", "<empty>")))
    node = target.get("name")
    if not isinstance(node, str) or not node:
        causes.append(errors.required("target.name"))
    if causes:
        raise errors.invalid(_BINDING, name, causes)
    pod = api.get(PODS, namespace, name).obj
    uid = (binding.get("metadata") or {}).get("uid")
    if uid not in (None, "", pod["metadata"]["uid"]):
        raise errors.conflict(PODS, name, f"Precondition failed: UID in precondition: {uid}")
    if "deletionTimestamp" in pod["metadata"]:
        raise errors.conflict(PODS, name, f"pod {name} is being deleted, cannot be assigned")
    bound = (pod.get("spec") or {}).get("nodeName")
    if bound:
        raise errors.conflict(PODS, name, f'pod {name} is already assigned to node "{bound}"')
    if dry_run:
        return
    condition = {
        "type": "PodScheduled", "status": "True", "lastProbeTime": None,
        "lastTransitionTime": api.calendar.stamp(),
    }  # fmt: skip
    status = pod.get("status") or {}
    conditions = [e for e in status.get("conditions") or [] if e["type"] != "PodScheduled"]
    api.store.put(
        PODS,
        {
            **pod,
            "spec": {**pod["spec"], "nodeName": node},
            "status": {**status, "conditions": [*conditions, condition]},
        },
    )


def evict(api: Api, namespace: str, name: str, eviction: Object, dry_run: bool = False) -> None:
    """Delete a pod in good order."""
    _check_kind(eviction, "Eviction", name)
    options = eviction.get("deleteOptions") or {}
    if not isinstance(options, dict):
        raise errors.bad_request("json: cannot unmarshal into Go struct field Eviction")
    api.delete(PODS, namespace, name, options, dry_run)


def _check_kind(obj: Object, kind: str, name: str) -> None:
    metadata = obj.get("metadata") or {}
    if obj.get("kind") not in (None, "", kind) or not isinstance(metadata, dict):
        raise errors.bad_request(f"the object provided is unrecognized (must be of type {kind})")
    if metadata.get("name") not in (None, "", name):
        raise errors.bad_request(f"name in URL does not match name in {kind} object")
