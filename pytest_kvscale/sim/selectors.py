"""Label and field selectors: which objects of a list or watch are meant."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from pytest_kvscale.sim.errors import Object, bad_request
from pytest_kvscale.sim.object_meta import label_value_problems, qualified_name_problems
from pytest_kvscale.sim.resources import NAMESPACES, NODES, Resource

Matcher = Callable[[Object], bool]

_OPERATORS = ("==", "!=", "=", ">", "<", "!", "(", ")", ",")
_TOKEN = re.compile(r"\s*(==|!=|[=><!(),]|[^\s=><!(),]+)")


def labels(text: str) -> Matcher:
    """A matcher for a label selector, e.g. `app in (a,b),!canary,tier!=x`."""
    parser = _Parser(text)
    requirements = list(parser.requirements())
    if not requirements:
        return lambda _: True
    if len(requirements) == 1:
        only = requirements[0]
        return lambda obj: only(obj["metadata"].get("labels") or {})

    def matches(obj: Object) -> bool:
        held = obj["metadata"].get("labels") or {}
        return all(each(held) for each in requirements)

    return matches


Requirement = Callable[[dict[str, str]], bool]


class _Parser:
    """Reads one label selector, as Kubernetes does: a name may be anything but an operator."""

    def __init__(self, text: str) -> None:
        self._tokens = _TOKEN.findall(text)
        self._at = 0

    def requirements(self) -> Iterator[Requirement]:
        """The requirements, all of which must be met."""
        if not self._tokens:
            return
        while True:
            yield self._requirement()
            found = self._next()
            if not found:
                return
            if found != ",":
                raise bad_request(f"found '{found}', expected: ',' or 'end of string'")
            if not self._peek() or self._peek() == ",":
                raise bad_request(f"found '{self._peek()}', expected: identifier after ','")

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def _requirement(self) -> Requirement:
        absent = self._peek() == "!"
        if absent:
            self._next()
        key = self._next()
        if not key or key in _OPERATORS:
            raise bad_request(f"unable to parse requirement: found '{key}', expected: identifier")
        self._check(key, qualified_name_problems(key), "key")
        if absent:
            return lambda held: key not in held
        if self._peek() in ("", ","):
            return lambda held: key in held
        return self._compared(key, self._next())

    def _compared(self, key: str, operator: str) -> Requirement:
        if operator in ("in", "notin"):
            values = self._values(key)
            if operator == "in":
                return lambda held: held.get(key) in values
            return lambda held: held.get(key) not in values
        if operator not in ("=", "==", "!=", ">", "<"):
            known = "in, notin, =, ==, !=, gt, lt"
            raise bad_request(f"unable to parse requirement: found '{operator}', expected: {known}")
        value = "" if self._peek() in ("", ",") else self._next()
        if value in _OPERATORS:
            raise bad_request(f"unable to parse requirement: found '{value}', expected: identifier")
        self._check(value, label_value_problems(value), f"values[0][{key}]")
        if operator == "!=":
            return lambda held: held.get(key) != value
        if operator in ("=", "=="):
            return lambda held: held.get(key) == value
        bound = _integer(value)
        if bound is None:
            raise bad_request(
                f"values[0][{key}]: Invalid value: \"{value}\": for 'Gt', 'Lt' operators, the "
                "value must be an integer"
            )
        return lambda held: _compare(held.get(key), operator, bound)

    def _values(self, key: str) -> frozenset[str]:
        found = self._next()
        if found != "(":
            raise bad_request(f"unable to parse requirement: found '{found}', expected: '('")
        values, waiting = [], True
        while (found := self._next()) != ")":
            if not found:
                raise bad_request("unable to parse requirement: found '', expected: ',' or ')'")
            if found == ",":
                if waiting:
                    values.append("")
                waiting = True
            elif found in _OPERATORS or not waiting:
                raise bad_request(f"unable to parse requirement: found '{found}', expected: ','")
            else:
                values.append(found)
                waiting = False
        if waiting:
            values.append("")
        for index, value in enumerate(values):
            self._check(value, label_value_problems(value), f"values[{index}][{key}]")
        return frozenset(values)

    @staticmethod
    def _check(value: str, problems: tuple[str, ...], field: str) -> None:
        if problems:
            why = f'{field}: Invalid value: "{value}": {problems[0]}'
            raise bad_request(f"unable to parse requirement: {why}")


def _integer(text: str | None) -> int | None:
    try:
        return int(text) if text is not None and text.isascii() else None
    except ValueError:
        return None


def _compare(held: str | None, op: str, bound: int) -> bool:
    number = _integer(held)
    if number is None:
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


_TERM = re.compile(r"((?:[^\\,]|\\.)*)(,|$)", re.DOTALL)


def fields(text: str, resource: Resource) -> Matcher:
    """A matcher for a field selector; only the fields this kind supports may be named."""
    requirements: list[tuple[list[str], str, bool]] = []
    for part in _terms(text):
        match = re.fullmatch(r"((?:[^=!\\]|\\.|!(?!=))*)(==|=|!=)(.*)", part, re.DOTALL)
        if match is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        path, op, value = match.groups()
        supported = {"metadata.name", *resource.field_selectors}
        if resource not in (NODES, NAMESPACES):
            supported.add("metadata.namespace")
        if path not in supported:
            raise bad_request(f"field label not supported: {path}")
        path = "metadata.name" if path == "name" else path
        requirements.append((path.split("."), _unescaped(value), op != "!="))

    def matches(obj: Object) -> bool:
        return all((_field(obj, path) == value) is wanted for path, value, wanted in requirements)

    return matches


def _terms(text: str) -> Iterator[str]:
    """The parts of a field selector; a comma after a backslash belongs to a value."""
    for match in _TERM.finditer(text):
        if match[1]:
            yield match[1]


def _unescaped(value: str) -> str:
    """A value without its backslashes; 400 for one that escapes what needs none."""
    result, escaped = [], False
    for character in value:
        if escaped:
            if character not in "\\,=":
                raise bad_request(f"invalid field selector: invalid escape sequence: \\{character}")
            result.append(character)
            escaped = False
        elif character == "\\":
            escaped = True
        elif character in ",=":
            raise bad_request(f"invalid field selector: unescaped character in value: {character}")
        else:
            result.append(character)
    if escaped:
        raise bad_request("invalid field selector: invalid escape sequence: \\")
    return "".join(result)


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
        return "false" if path[-1] in ("unschedulable", "hostNetwork") else ""
    return str(value)
