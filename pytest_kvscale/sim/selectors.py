"""Label and field selectors: which objects of a list or watch are meant."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pytest_kvscale.sim.errors import Object, bad_request
from pytest_kvscale.sim.resources import Resource

Matcher = Callable[[Object], bool]

_NAME = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)"
_KEY = rf"(?:{_NAME}/)?{_NAME}"
_VALUE = rf"(?:{_NAME})?"
_REQUIREMENT = re.compile(
    rf"""\s*(?:
        (?P<absent>!)\s*(?P<absent_key>{_KEY})
      | (?P<key>{_KEY})\s*(?:
            (?:\s(?P<set>in|notin)\s*\((?P<values>[^()]*)\))
          | (?P<op>==|=|!=|>|<)\s*(?P<value>{_VALUE})
        )?
    )\s*(?P<end>,|$)""",
    re.VERBOSE,
)


def labels(text: str) -> Matcher:
    """A matcher for a label selector, e.g. `app in (a,b),!canary,tier!=x`."""
    if not text.strip():
        return lambda _: True
    requirements: list[Callable[[dict[str, str]], bool]] = []
    position = 0
    while True:
        match = _REQUIREMENT.match(text, position)
        if match is None:
            rest = text[position:].strip() or text
            raise bad_request(
                f"unable to parse requirement: found '{rest}', expected: a label selector"
            )
        requirements.append(_requirement(match))
        position = match.end()
        if not match["end"]:
            break

    def matches(obj: Object) -> bool:
        held = obj["metadata"].get("labels") or {}
        return all(each(held) for each in requirements)

    return matches


def _requirement(match: re.Match[str]) -> Callable[[dict[str, str]], bool]:  # noqa: PLR0911
    if match["absent"]:
        absent = match["absent_key"]
        return lambda held: absent not in held
    key, value = match["key"], match["value"]
    if match["set"]:
        values = {each.strip() for each in match["values"].split(",")}
        for each in sorted(values):
            if not re.fullmatch(_VALUE, each):
                raise bad_request(f"unable to parse requirement: values[0][{key}]: '{each}'")
        if match["set"] == "in":
            return lambda held: held.get(key) in values
        return lambda held: held.get(key) not in values
    match match["op"]:
        case None:
            return lambda held: key in held
        case "=" | "==":
            return lambda held: held.get(key) == value
        case "!=":
            return lambda held: held.get(key) != value
        case op:
            try:
                bound = int(value)
            except ValueError:
                raise bad_request(
                    f"unable to parse requirement: values[0][{key}]: '{value}' is no integer"
                ) from None
            return lambda held: _compare(held.get(key), op, bound)


def _compare(held: str | None, op: str, bound: int) -> bool:
    try:
        number = int(held or "")
    except ValueError:
        return False
    return number > bound if op == ">" else number < bound


def of_spec(selector: Object) -> str:
    """A `spec.selector` (matchLabels, matchExpressions) as `labels` takes it, sorted by key.

    Raises ValueError for an expression that is none.
    """
    matched = selector.get("matchLabels") or {}
    parts = [(str(key), f"{key}={value}") for key, value in matched.items()]
    for each in selector.get("matchExpressions") or []:
        key, operator = str(each.get("key", "")), each.get("operator")
        values = sorted(map(str, each.get("values") or []))
        match operator:
            case "In" | "NotIn" if values:
                parts.append((key, f"{key} {operator.lower()} ({','.join(values)})"))
            case "Exists" | "DoesNotExist" if not values:
                parts.append((key, key if operator == "Exists" else f"!{key}"))
            case "In" | "NotIn":
                raise ValueError("for 'in', 'notin' operators, values set can't be empty")
            case "Exists" | "DoesNotExist":
                raise ValueError("values set must be empty for exists and does not exist")
            case _:
                raise ValueError(f'"{operator}" is not a valid label selector operator')
    return ",".join(text for _, text in sorted(parts))


def fields(text: str, resource: Resource) -> Matcher:
    """A matcher for a field selector; only the fields this kind supports may be named."""
    requirements: list[tuple[list[str], str, bool]] = []
    for part in text.split(","):
        if not part.strip():
            continue
        match = re.fullmatch(r"([^=!]+)(==|=|!=)([^=]*)", part.strip())
        if match is None:
            raise bad_request(f"invalid field selector: {part!r}: can't understand it")
        path, op, value = match.groups()
        supported = {"metadata.name", *resource.field_selectors}
        if resource.namespaced:
            supported.add("metadata.namespace")
        if path not in supported:
            raise bad_request(f"field label not supported: {path}")
        requirements.append((path.split("."), value, op != "!="))

    def matches(obj: Object) -> bool:
        return all((_field(obj, path) == value) is wanted for path, value, wanted in requirements)

    return matches


def _field(obj: Object, path: list[str]) -> str:
    value: Any = obj
    if path == ["source"]:
        value = (obj.get("source") or {}).get("component") or obj.get("reportingComponent")
    else:
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "false" if path == ["spec", "unschedulable"] else ""
    return str(value)
