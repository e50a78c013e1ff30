"""Sets of fields, as `managedFields` writes them (FieldsV1), and what two objects differ in.

A set is a tree of path elements: `f:name` (a field), `k:{"key":"value"}` (an item of a list by its
keys), `v:"value"` (a value of a set). A node that is empty is itself in the set, one that has
children is if it has a `.` among them. Sets are never changed once they are made: they share parts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pytest_kvscale.sim.schema import ANY, Type

Fields = dict[str, Any]
"""A set of fields; the root itself is never in it."""
Path = tuple[str, ...]
LEAF: Fields = {}
_SELF = "."
_MISSING = object()
_dumps = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode


# Sets -------------------------------------------------------------------------------------------


def union(one: Fields, other: Fields) -> Fields:
    """What is in either set."""
    if not one or one is other:
        return other
    return _join(one, other) if other else one


def _join(one: Fields, other: Fields) -> Fields:
    if one is other:
        return one
    if not one:
        return other if not other or _SELF in other else {_SELF: LEAF, **other}
    if not other:
        return one if _SELF in one else {_SELF: LEAF, **one}
    joined = dict(one)
    for element, below in other.items():
        held = joined.get(element)
        joined[element] = below if held is None else _join(held, below)
    return joined


def difference(one: Fields, other: Fields) -> Fields:
    """What is in one set and not in the other."""
    if not one or not other:
        return one
    kept: Fields = {}
    changed = False
    for element, below in one.items():
        against = other.get(element)
        rest = below if against is None else _without(below, against)
        changed = changed or rest is not below
        if rest is not None:
            kept[element] = rest
    return kept if changed else one


def _without(one: Fields, other: Fields) -> Fields | None:
    inside = _is_in(one) and not _is_in(other)
    below = difference(_below(one), _below(other))
    if inside:
        return {_SELF: LEAF, **below} if below else LEAF
    return below or None


def intersection(one: Fields, other: Fields) -> Fields:
    """What is in both sets."""
    kept: Fields = {}
    for element, below in one.items():
        against = other.get(element)
        if against is None:
            continue
        inside = _is_in(below) and _is_in(against)
        children = intersection(_below(below), _below(against))
        if children:
            kept[element] = {_SELF: LEAF, **children} if inside else children
        elif inside:
            kept[element] = LEAF
    return kept


def without_trees(fields: Fields, roots: Fields) -> Fields:
    """What is in a set, but for the given fields and all below them."""
    kept: Fields = {}
    for element, below in fields.items():
        against = roots.get(element)
        if against is None:
            kept[element] = below
        elif not _is_in(against):
            rest = without_trees(_below(below), against)
            if rest:
                kept[element] = {_SELF: LEAF, **rest} if _is_in(below) else rest
            elif _is_in(below):
                kept[element] = LEAF
    return kept


def paths(fields: Fields) -> Iterator[Path]:
    """All paths of a set, in order."""
    for element in sorted(fields):
        below = fields[element]
        if element != _SELF:
            if _is_in(below):
                yield (element,)
            for path in paths(below):
                yield (element, *path)


def of_paths(*wanted: Path) -> Fields:
    """The set of these paths."""
    result: Fields = {}
    for path in wanted:
        tree: Fields = LEAF
        for element in reversed(path):
            tree = {element: tree}
        result = union(result, tree)
    return result


def has(fields: Fields, path: Path) -> bool:
    """Whether a path is in a set."""
    for element in path:
        found = fields.get(element)
        if found is None:
            return False
        fields = found
    return _is_in(fields)


def ordered(fields: Fields) -> Fields:
    """The set with its elements in the order Kubernetes writes them."""
    return {element: ordered(fields[element]) for element in sorted(fields)}


def dotted(path: Path) -> str:
    """A path as messages show it: `.spec.containers[name="a"].image`."""
    return "".join(_shown(element) for element in path)


def _shown(element: str) -> str:
    kind, _, rest = element.partition(":")
    match kind:
        case "f":
            return f".{rest}"
        case "k":
            pairs = json.loads(rest).items()
            return "[" + ",".join(f"{key}={_dumps(value)}" for key, value in pairs) + "]"
        case "v":
            return f"[={rest}]"
    return f"[{rest}]"


def _is_in(node: Fields) -> bool:
    return not node or _SELF in node


def _below(node: Fields) -> Fields:
    if _SELF not in node:
        return node
    return {element: below for element, below in node.items() if element != _SELF}


# Objects ----------------------------------------------------------------------------------------


def shape(value: Any, kind: Type) -> str:
    """How a value is walked: "map" by its keys, "list" by its items, else "leaf"."""
    if kind.atomic:
        return "leaf"
    if isinstance(value, dict):
        return "map" if kind.form != "scalar" else "leaf"
    if isinstance(value, list) and kind.form == "list":
        return "list"
    return "leaf"


def element_of(item: Any, kind: Type) -> str:
    """The path element of a list's item."""
    keys = kind.keys
    if not keys:
        return "v:" + _dumps(item)
    if not isinstance(item, dict):
        return "k:" + _dumps({})
    held = {}
    for key in keys:
        if key in item:
            held[key] = item[key]
        elif key in kind.element.defaults:
            held[key] = kind.element.defaults[key]
    return "k:" + _dumps(held)


def items_of(value: list[Any] | None, kind: Type) -> dict[str, Any]:
    """The items of a list that is a map or a set, by their path elements."""
    found: dict[str, Any] = {}
    for item in value or ():
        found.setdefault(element_of(item, kind), item)
    return found


def compare(old: Any, new: Any, kind: Type) -> tuple[Fields, Fields]:
    """Which fields the change took away, and which it made or changed."""
    removed, changed = _compare(old, new, kind)
    return removed or LEAF, changed or LEAF


def _compare(old: Any, new: Any, kind: Type) -> tuple[Fields | None, Fields | None]:
    if old is new:
        return None, None
    if old is _MISSING:
        return None, every(new, kind)
    if new is _MISSING:
        return every(old, kind), None
    walk = shape(new if new is not None else old, kind)
    if walk != "leaf":
        other = shape(old, kind)
        if (old and new and other != walk) or not (old or new):
            walk = "leaf"
    if walk == "leaf":
        same = old == new and isinstance(old, bool) == isinstance(new, bool)
        return None, None if same else LEAF
    if walk == "map":
        return _compare_maps(old or {}, new or {}, kind)
    return _compare_items(items_of(old, kind), items_of(new, kind), kind.element)


def _compare_maps(old: Any, new: Any, kind: Type) -> tuple[Fields | None, Fields | None]:
    removed: Fields = {}
    changed: Fields = {}
    for key, value in new.items():
        before = old.get(key, _MISSING)
        if before is value:
            continue
        gone, made = _compare(before, value, kind.child(key))
        if gone is not None:
            removed["f:" + key] = gone
        if made is not None:
            changed["f:" + key] = made
    for key, value in old.items():
        if key not in new:
            removed["f:" + key] = every(value, kind.child(key))
    return removed or None, changed or None


def _compare_items(
    old: dict[str, Any], new: dict[str, Any], kind: Type
) -> tuple[Fields | None, Fields | None]:
    removed: Fields = {}
    changed: Fields = {}
    for element, value in new.items():
        gone, made = _compare(old.get(element, _MISSING), value, kind)
        if gone is not None:
            removed[element] = gone
        if made is not None:
            changed[element] = made
    for element, value in old.items():
        if element not in new:
            removed[element] = every(value, kind)
    return removed or None, changed or None


def every(value: Any, kind: Type) -> Fields:
    """The node of a value with all that is in it."""
    if not value or kind.atomic:
        return LEAF
    if isinstance(value, dict):
        if kind.form == "scalar":
            return LEAF
        node: Fields = {_SELF: LEAF}
        for key, each in value.items():
            simple = not each or isinstance(each, str)
            node["f:" + key] = LEAF if simple else every(each, kind.child(key))
        return node
    if isinstance(value, list) and kind.form == "list":
        node = {_SELF: LEAF}
        for element, each in items_of(value, kind).items():
            node[element] = every(each, kind.element)
        return node
    return LEAF


def applied(config: Any, kind: Type) -> Fields:
    """The fields that an applied configuration claims: leaves, entries of maps, items of lists."""
    return _applied(config, kind) or LEAF


def _applied(value: Any, kind: Type) -> Fields | None:
    """The node of a value; None if there is nothing in it to claim."""
    walk = shape(value, kind)
    if walk == "leaf" or value == {}:
        return LEAF
    node: Fields = {}
    if walk == "map":
        for key, each in value.items():
            declared = kind.field(key)
            below = _applied(each, declared or kind.element)
            if declared is None and kind.form in ("map", "any", "struct"):
                below = {_SELF: LEAF, **below} if below else LEAF
            if below is not None:
                node["f:" + key] = below
    else:
        for element, each in items_of(value, kind).items():
            below = _applied(each, kind.element)
            node[element] = {_SELF: LEAF, **below} if below else LEAF
    return node or None


def with_named_parents(fields: Fields, kind: Type) -> Fields:
    """The set with every declared field that has something of the set below it."""
    result: Fields = {}
    for element, below in fields.items():
        if element == _SELF or not below:
            result[element] = below
            continue
        is_field = element.startswith("f:")
        name = element[2:]
        declared = kind.field(name) if is_field else None
        under = declared or kind.element
        node = with_named_parents(below, under if kind is not ANY else ANY)
        if declared is not None and _SELF not in node:
            node = {_SELF: LEAF, **node}
        result[element] = node
    return result
