"""The ways to change a part of an object: JSON patch, merge patch, strategic merge patch."""

from __future__ import annotations

import copy
from typing import Any

import jsonpatch

from pytest_kvscale.sim.errors import Object, StatusError, bad_request, unsupported_media_type
from pytest_kvscale.sim.resources import Resource

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

_MERGE_KEYS = {
    "conditions": "type",
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
    "ownerReferences": "uid",
    "addresses": "type",
    "hostAliases": "ip",
    "imagePullSecrets": "name",
    "secrets": "name",
    "podIPs": "ip",
    "hostIPs": "ip",
    "taints": "key",
}
"""Lists that strategic merge joins by a key instead of replacing them (patchMergeKey)."""


def apply(resource: Resource, obj: Object, patch: Any, media_type: str) -> Object:
    """The object with the patch applied; the object itself stays as it is.

    Raises `StatusError`: 415 for a patch type this kind does not take, 400 and 422 for a patch
    that makes no sense.
    """
    if media_type == JSON_PATCH:
        return _json_patch(obj, patch)
    if media_type == MERGE_PATCH:
        return _must_be_object(merge(obj, _must_be_object(patch)))
    if media_type == STRATEGIC_MERGE_PATCH and not resource.custom:
        return _must_be_object(_strategic(obj, _must_be_object(patch)))
    accepted = [JSON_PATCH, MERGE_PATCH]
    raise unsupported_media_type(
        accepted if resource.custom else [*accepted, STRATEGIC_MERGE_PATCH]
    )


def concerns_owners(change: Any, media_type: str) -> bool:
    """Whether a patch names `managedFields`, or what contains them, by a path."""
    if media_type != JSON_PATCH or not isinstance(change, list):
        return False
    named = [str(each.get(key)) for each in change if isinstance(each, dict) for key in _PATHS]
    return any(
        path in ("", "/metadata") or path.startswith("/metadata/managedFields") for path in named
    )


_PATHS = ("path", "from")


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386: objects are merged, null removes, anything else replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def _strategic(target: Any, patch: Object) -> Object:
    result = dict(target) if isinstance(target, dict) else {}
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    for key, value in patch.items():
        if key == "$patch" or key.startswith(("$setElementOrder/", "$retainKeys")):
            continue
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.partition("/")[2]
            result[name] = [each for each in result.get(name) or [] if each not in value]
        elif value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = _strategic(result.get(key), value)
        elif isinstance(value, list) and key in _MERGE_KEYS:
            result[key] = _merge_list(result.get(key) or [], value, _MERGE_KEYS[key])
        elif isinstance(value, list) and key == "finalizers":
            result[key] = [*dict.fromkeys([*(result.get(key) or []), *value])]
        else:
            result[key] = value
    return result


def _merge_list(target: list[Any], patch: list[Any], key: str) -> list[Any]:
    result = list(target)
    for each in patch:
        if not isinstance(each, dict) or key not in each:
            raise bad_request(f"map: {each} does not contain declared merge key: {key}")
        place = next((i for i, held in enumerate(result) if held.get(key) == each[key]), None)
        if each.get("$patch") == "delete":
            if place is not None:
                del result[place]
        elif place is None:
            result.append(each)
        else:
            result[place] = _strategic(result[place], each)
    return result


def _json_patch(obj: Object, patch: Any) -> Object:
    if not isinstance(patch, list):
        raise bad_request("error decoding patch: a JSON patch is a list of operations")
    try:
        return _must_be_object(jsonpatch.JsonPatch(patch).apply(copy.deepcopy(obj)))
    except jsonpatch.InvalidJsonPatch as problem:
        raise bad_request(f"error decoding patch: {problem}") from None
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as problem:
        message = f"the server rejected our request due to an error in our request: {problem}"
        raise StatusError(422, "Invalid", message, {}) from None


def _must_be_object(value: Any) -> Object:
    if not isinstance(value, dict):
        raise bad_request("cannot restore a patched object from something that is no object")
    return value
