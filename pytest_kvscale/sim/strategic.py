"""Strategic merge patch: a merge patch that knows which lists are joined by a key, and how.

Directives in the patch say more: `$patch` (replace, delete, merge), `$deleteFromPrimitiveList/x`,
`$setElementOrder/x` and `$retainKeys`. Neither the object nor the patch is changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pytest_kvscale.sim.errors import Object, StatusError, bad_request
from pytest_kvscale.sim.schema import Type

_PATCH = "$patch"
_RETAIN_KEYS = "$retainKeys"
_DELETE_FROM = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"


def merge(target: Any, patch: Object, kind: Type) -> Object:
    """An object of a type with a patch merged in; raises `StatusError` (400, 422)."""
    if _PATCH in patch:
        return _directed(patch)
    result = dict(target) if isinstance(target, dict) else {}
    patch = dict(patch)
    _retain_keys(result, patch)
    _merge_ordered(result, patch, kind)
    for key, value in patch.items():
        if key.startswith(_DELETE_FROM):
            name = key[len(_DELETE_FROM) :]
            if not name or not isinstance(value, list):
                raise bad_request("Invalid patch format of primitive list")
            if isinstance(result.get(name), list):
                result[name] = [each for each in result[name] if each not in value]
        elif value is None:
            result.pop(key, None)
        elif key not in result or not _alike(result[key], value):
            result[key] = _plain(value)
        elif isinstance(value, dict):
            child = kind.child(key)
            replaced = "replace" in child.strategy
            result[key] = _plain(value) if replaced else merge(result[key], value, child)
        elif isinstance(value, list):
            result[key] = _merge_list(result[key], value, kind.child(key))
        else:
            result[key] = value
    return result


def _directed(patch: Object) -> Object:
    match patch[_PATCH]:
        case "replace":
            return {key: value for key, value in patch.items() if key != _PATCH}
        case "delete":
            return {}
    raise bad_request(f"unknown patch type: {patch[_PATCH]} in map: {json.dumps(patch)}")


def _retain_keys(result: Object, patch: Object) -> None:
    """Take away what the patch's `$retainKeys` does not name."""
    if _RETAIN_KEYS not in patch:
        return
    kept = patch.pop(_RETAIN_KEYS)
    said = [
        key
        for key, value in patch.items()
        if value is not None and not key.startswith((_DELETE_FROM, _ORDER))
    ]
    if not isinstance(kept, list) or not all(key in kept for key in said):
        raise bad_request("The $retainKeys list doesn't match the patch")
    for key in [key for key in result if key not in kept]:
        del result[key]


def _merge_ordered(result: Object, patch: Object, kind: Type) -> None:
    """Merge the lists whose order the patch sets, and take them out of it."""
    for directive in [key for key in patch if key.startswith(_ORDER)]:
        order, name = patch.pop(directive), directive[len(_ORDER) :]
        held, wanted = result.get(name), patch.get(name)
        lists = [each for each in (order, held, wanted) if each is not None]
        if not name or order is None or not all(isinstance(each, list) for each in lists):
            raise bad_request("Invalid patch format of setElementOrder list")
        child = kind.child(name)
        key = child.merge_key
        identity = _identity(key)
        _check_order(wanted or [], order, identity)
        patch.pop(name, None)
        if wanted is None and held is None:
            continue
        if wanted is None:
            merged = held or []
        elif held is None:
            merged = [_plain(each) for each in wanted if not _is_directive(each)]
        else:
            merged = _merge_list(held, wanted, child)
        result[name] = _arranged(merged, order, held or [], identity)


def _check_order(wanted: list[Any], order: list[Any], identity: Callable[[Any], Any]) -> None:
    places = [identity(each) for each in order]
    start = 0
    for each in wanted:
        if _is_directive(each):
            continue
        try:
            start = places.index(identity(each), start) + 1
        except ValueError:
            raise bad_request(
                f"The order in patch list:\n{json.dumps(wanted)}\n doesn't match "
                f"$setElementOrder list:\n{json.dumps(order)}\n"
            ) from None


def _merge_list(held: list[Any], wanted: list[Any], kind: Type) -> list[Any]:
    if "merge" not in kind.strategy:
        return [_plain(each) for each in wanted]
    if not held and not wanted:
        return held
    _check_elements(held + wanted)
    key = kind.merge_key
    identity = _identity(key)
    if not isinstance((held or wanted)[0], dict):
        joined = list(dict.fromkeys([*held, *wanted]))
        return _arranged(joined, wanted, held, identity)
    if not key:
        raise bad_request("cannot merge lists without merge key")
    held, wanted = _special_elements(held, wanted, identity)
    merged = list(held)
    for each in wanted:
        places = [i for i, item in enumerate(merged) if item.get(key) == identity(each)]
        if places:
            merged[places[0]] = merge(merged[places[0]], each, kind.element)
        else:
            merged.append(_plain(each))
    return _arranged(merged, wanted, held, identity)


def _special_elements(
    held: list[Any], wanted: list[Any], identity: Callable[[Any], Any]
) -> tuple[list[Any], list[Any]]:
    """What is there after the directives among the items, and the items that are none."""
    plain = []
    replaced = False
    for each in wanted:
        match each.get(_PATCH):
            case None if _PATCH not in each:
                plain.append(each)
            case "delete":
                gone = identity(each)
                held = [item for item in held if identity(item) != gone]
            case "replace":
                replaced = True
            case "merge":
                raise bad_request("merging lists cannot yet be specified in the patch")
            case other:
                raise bad_request(f"unknown patch type: {other} in map: {json.dumps(each)}")
    return ([_plain(each) for each in plain], []) if replaced else (held, plain)


def _check_elements(items: list[Any]) -> None:
    if any(isinstance(each, list) for each in items):
        raise StatusError(422, "Invalid", "lists of lists are not supported", {})
    if len({isinstance(each, dict) for each in items}) > 1:
        raise bad_request(f"list element types are not identical: {json.dumps(items)}")


def _arranged(
    merged: list[Any], order: list[Any], before: list[Any], identity: Callable[[Any], Any]
) -> list[Any]:
    """The items in the order the patch gives them, the others about them as they stood.

    An item that is only there goes before one of the patch if it stood before it.
    """
    wanted, stood = _places(order, identity), _places(before, identity)
    ours = [each for each in merged if identity(each) in wanted]
    others = [each for each in merged if identity(each) not in wanted]
    ours.sort(key=lambda each: wanted[identity(each)])
    others.sort(key=lambda each: stood.get(identity(each), len(stood)))
    result: list[Any] = []
    while ours and others:
        left, right = stood.get(identity(others[0])), stood.get(identity(ours[0]))
        first = left is not None and right is not None and left < right
        result.append((others if first else ours).pop(0))
    return [*result, *others, *ours]


def _places(items: list[Any], identity: Callable[[Any], Any]) -> dict[Any, int]:
    places: dict[Any, int] = {}
    for index, each in enumerate(items):
        places.setdefault(identity(each), index)
    return places


def _identity(key: str) -> Callable[[Any], Any]:
    """What tells the items of a list apart: the value of a key, or the item itself."""

    def of(item: Any) -> Any:
        if not key:
            return item if not isinstance(item, dict | list) else json.dumps(item)
        if not isinstance(item, dict) or isinstance(item.get(key), dict | list | None):
            text = json.dumps(item)
            raise bad_request(f"map: {text} does not contain declared merge key: {key}")
        return item[key]

    return of


def _alike(one: Any, other: Any) -> bool:
    return isinstance(one, dict) == isinstance(other, dict) and (
        isinstance(one, list) == isinstance(other, list)
    )


def _is_directive(item: Any) -> bool:
    return isinstance(item, dict) and _PATCH in item


def _plain(value: Any) -> Any:
    """A value that is new: without directives, and without fields that are null."""
    if isinstance(value, dict):
        return {
            key: _plain(each)
            for key, each in value.items()
            if each is not None
            and key not in (_PATCH, _RETAIN_KEYS)
            and not key.startswith((_DELETE_FROM, _ORDER))
        }
    if isinstance(value, list):
        return [_plain(each) for each in value if not _is_directive(each)]
    return value
