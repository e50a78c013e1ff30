"""The ways to change a part of an object: JSON patch, merge patch, strategic merge patch."""

from __future__ import annotations

import copy
from typing import Any

import jsonpatch

from pytest_kvscale.sim import schema, strategic
from pytest_kvscale.sim.errors import Object, StatusError, bad_request, unsupported_media_type
from pytest_kvscale.sim.resources import Resource

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

MOST_OPERATIONS = 10_000
"""Operations that one JSON patch may have."""
_PATHS = ("path", "from")


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
        return strategic.merge(obj, _must_be_object(patch), schema.of(resource))
    raise unsupported_media_type(media_types(resource))


def media_types(resource: Resource) -> list[str]:
    """The patch types a kind takes."""
    own = [] if resource.custom else [STRATEGIC_MERGE_PATCH]
    return [JSON_PATCH, MERGE_PATCH, *own, APPLY_PATCH]


def concerns_owners(change: Any, media_type: str) -> bool:
    """Whether a patch names `managedFields`, or what contains them, by a path."""
    if media_type != JSON_PATCH or not isinstance(change, list):
        return False
    named = [str(each.get(key)) for each in change if isinstance(each, dict) for key in _PATHS]
    return any(
        path in ("", "/metadata") or path.startswith("/metadata/managedFields") for path in named
    )


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


def _json_patch(obj: Object, patch: Any) -> Object:
    if not isinstance(patch, list):
        raise bad_request("error decoding patch: a JSON patch is a list of operations")
    if len(patch) > MOST_OPERATIONS:
        raise StatusError(
            413,
            "RequestEntityTooLarge",
            f"Request entity is too large: The allowed maximum operations in a JSON patch is "
            f"{MOST_OPERATIONS}, got {len(patch)}",
        )
    if not all(isinstance(each, dict) for each in patch):
        raise bad_request("error decoding patch: an operation is an object")
    try:
        return _must_be_object(jsonpatch.JsonPatch(patch).apply(copy.deepcopy(obj)))
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException):
        message = "the server rejected our request due to an error in our request"
        raise StatusError(422, "Invalid", message, {}) from None


def _must_be_object(value: Any) -> Object:
    if not isinstance(value, dict):
        raise bad_request("cannot restore a patched object from something that is no object")
    return value
