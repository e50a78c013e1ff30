"""Whether an object that a client sends has the fields its kind has, and values of their types.

For built-in kinds a value of a wrong type is an object that cannot be read (400); for custom ones
it is an object that breaks its definition (422). Fields that a kind does not have are left out;
`fieldValidation` says whether they are an error, a warning or nothing.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

from pytest_kvscale.sim import errors, quantity, schema
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.object_meta import TIME
from pytest_kvscale.sim.resources import Resource
from pytest_kvscale.sim.schema import Type

IGNORE, WARN, STRICT = "Ignore", "Warn", "Strict"
_OWN = ("apiVersion", "kind", "metadata")
"""What is checked for all kinds alike, elsewhere."""
_MOST_WARNINGS = 10
_EITHER = "integer,string"
_PATTERN = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
    r"(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)
"""What the definitions of custom kinds ask of a quantity."""
_QUANTITY = re.compile(_PATTERN)
_MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)")
_NAMES = {"struct": "object", "map": "object", "list": "array"}


class FieldCheck:
    """Checks the fields of the objects of one request."""

    def __init__(self, mode: str, doubled: list[str]) -> None:
        self._mode = mode or WARN
        self._doubled = doubled
        self.warnings: list[str] = []
        """What the client is to be warned of."""

    def read(self, resource: Resource, obj: Object, old: Object | None = None) -> Object:
        """The object without what its kind does not have; 400 for one that cannot be read.

        Parts that are as they were in `old` are not looked at.
        """
        kind = schema.of(resource)
        unknown = [f'duplicate field "{each}"' for each in self._doubled]
        result = dict(obj)
        for key, value in obj.items():
            if old is not None and old.get(key) == value:
                continue
            if key not in _OWN:
                result = self._top_level(resource, kind, result, key, value, unknown)
        metadata = obj.get("metadata")
        if isinstance(metadata, dict) and (old is None or metadata != old.get("metadata")):
            known = schema.named(schema.OBJECT_META)
            result["metadata"] = _known(metadata, known, "metadata", unknown)
        self._tell(resource, unknown)
        return result

    def _top_level(
        self, resource: Resource, kind: Type, obj: Object, key: str, value: Any,
        unknown: list[str],
    ) -> Object:  # fmt: skip
        declared = kind.field(key)
        if declared is None:
            if kind.open:
                return obj
            unknown.append(f'unknown field "{key}"')
            return {each: held for each, held in obj.items() if each != key}
        if not resource.custom:
            problem = next(_type_problems(value, declared, key, False), None)
            if problem is not None:
                field, found, expected = problem
                raise errors.bad_request(
                    f'{resource.kind} in version "{resource.version}" cannot be handled as a '
                    f"{resource.kind}: json: cannot unmarshal {_of(found)} into Go struct field "
                    f"{resource.kind}.{field} of type {expected}"
                )
            if value is None:
                return {each: held for each, held in obj.items() if each != key}
        return {**obj, key: _known(value, declared, key, unknown, resource.custom)}

    def _tell(self, resource: Resource, unknown: list[str]) -> None:
        if not unknown or self._mode == IGNORE:
            return
        if self._mode == STRICT:
            raise errors.bad_request(
                f'{resource.kind} in version "{resource.version}" cannot be handled as a '
                f"{resource.kind}: strict decoding error: {', '.join(unknown)}"
            )
        self.warnings += unknown[:_MOST_WARNINGS]

    @staticmethod
    def problems(resource: Resource, obj: Object, old: Object | None) -> Iterator[Object]:
        """Causes for which the definition of a custom kind refuses an object."""
        kind = schema.of(resource)
        for key in kind.required:
            if key not in obj:
                yield errors.required(key)
        for key, value in obj.items():
            declared = kind.field(key)
            if key in _OWN or declared is None or (old is not None and old.get(key) == value):
                continue
            for problem in _type_problems(value, declared, key, True):
                yield from _type_causes(*problem)
            for field in _missing(value, declared, key):
                yield errors.required(field)


def _type_causes(field: str, found: Any, expected: str) -> Iterator[Object]:
    """The causes for one value of a custom object that its definition does not allow."""
    if expected == _PATTERN:
        why = f"{field} in body should match '{_PATTERN}'"
        yield errors.invalid_value(field, found, why)
        return
    yield _type_cause(field, found, expected)
    if expected == _EITHER and found is not None:
        # The definition says so twice, the second time as a choice of two schemas.
        why = f'"{field}" must validate at least one schema (anyOf)'
        yield errors.invalid_value("<nil>", "", why)
        yield _type_cause(field, found, "integer")


def _type_cause(field: str, found: Any, expected: str) -> Object:
    why = f"{field} in body must be of type {expected}: {json.dumps(_of(found))}"
    return {**errors.invalid_value(field, _of(found), why), "reason": "FieldValueTypeInvalid"}


# Walking ----------------------------------------------------------------------------------------


def _known(value: Any, kind: Type, path: str, unknown: list[str], custom: bool = True) -> Any:
    """The value without fields that are not declared; those are noted.

    In objects of built-in kinds null is the same as nothing, and quantities get their form.
    """
    if value is None and not custom:
        return _nothing(kind)
    if kind.form == "struct" and isinstance(value, dict):
        if kind.open:
            return value
        kept = {}
        for key, each in value.items():
            declared = kind.field(key)
            if declared is None:
                unknown.append(f'unknown field "{path}.{key}"')
            elif custom or each is not None:
                kept[key] = _known(each, declared, f"{path}.{key}", unknown, custom)
        return kept
    if kind.form == "map" and isinstance(value, dict):
        return {
            key: _known(each, kind.element, f"{path}.{key}", unknown, custom)
            for key, each in value.items()
        }
    if kind.form == "list" and isinstance(value, list):
        return [
            _known(each, kind.element, f"{path}[{index}]", unknown, custom)
            for index, each in enumerate(value)
        ]
    return quantity.canonical(value) if kind.scalar == "quantity" else value


def _nothing(kind: Type) -> Any:
    """What null stands for where something has to be."""
    if kind.form in ("struct", "map"):
        return {}
    return {"string": "", "bytes": "", "quantity": "0", "integer": 0}.get(kind.scalar)


def _type_problems(
    value: Any, kind: Type, path: str, custom: bool
) -> Iterator[tuple[str, Any, str]]:
    """Where a value is not of its type: field, value, and what is expected."""
    if kind.form == "any" or (value is None and (not custom or kind.form == "scalar")):
        return
    if kind.form == "scalar":
        if not fits(value, kind.scalar, custom):
            yield path, value, _expected(kind.scalar)
        elif kind.scalar == "int-or-quantity" and not _QUANTITY.fullmatch(str(value or 0)):
            yield path, value, _PATTERN
        return
    if kind.form == "list" and isinstance(value, list):
        for index, each in enumerate(value):
            yield from _type_problems(each, kind.element, f"{path}[{index}]", custom)
    elif kind.form != "list" and isinstance(value, dict):
        for key, each in value.items():
            declared = kind.element if kind.form == "map" else kind.field(key)
            if declared is not None:
                yield from _type_problems(each, declared, f"{path}.{key}", custom)
    else:
        yield path, value, _NAMES[kind.form]


def _missing(value: Any, kind: Type, path: str) -> Iterator[str]:
    """The fields that must be there and are not."""
    if kind.form == "list" and isinstance(value, list):
        for index, each in enumerate(value):
            yield from _missing(each, kind.element, f"{path}[{index}]")
    elif kind.form in ("map", "struct") and isinstance(value, dict):
        for key in kind.required:
            if key not in value:
                yield f"{path}.{key}"
        for key, each in value.items():
            declared = kind.element if kind.form == "map" else kind.field(key)
            if declared is not None:
                yield from _missing(each, declared, f"{path}.{key}")


def fits(value: Any, scalar: str, custom: bool) -> bool:
    """Whether a value is one of this scalar type."""
    if isinstance(value, bool):
        return scalar == "boolean"
    match scalar:
        case "string":
            fitting = isinstance(value, str)
        case "bytes" | "time" | "micro-time":
            fitting = isinstance(value, str) and (custom or _is_coded(value, scalar))
        case "integer":
            whole = custom and isinstance(value, float) and value % 1 == 0
            fitting = (isinstance(value, int) and -(2**63) <= value < 2**63) or (
                whole and abs(value) < 2**53
            )
        case "number":
            fitting = isinstance(value, int | float)
        case "quantity":
            fitting = _is_quantity(value, custom)
        case "int-or-string" | "int-or-quantity":
            fitting = isinstance(value, int | str)
        case _:
            fitting = scalar != "boolean"
    return fitting


def _is_coded(text: str, scalar: str) -> bool:
    """Whether a text can be decoded as what it stands for."""
    if scalar != "bytes":
        return bool((_MICRO_TIME if scalar == "micro-time" else TIME).fullmatch(text))
    try:
        base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True)
    except ValueError:
        return False
    return True


def _is_quantity(value: Any, custom: bool) -> bool:
    if custom or not isinstance(value, int | str | float):
        # A definition asks for a pattern, which admission looks at.
        return isinstance(value, int | str)
    try:
        quantity.parse(value)
    except ValueError:
        return False
    return True


_EXPECTED = {
    "quantity": _EITHER, "int-or-string": _EITHER, "int-or-quantity": _EITHER, "time": "string",
    "micro-time": "string", "bytes": "string",
}  # fmt: skip


def _expected(scalar: str) -> str:
    return _EXPECTED.get(scalar, scalar)


def _of(value: Any) -> str:
    """What a value is, in the words of its type error."""
    for kind, name in (
        (bool, "boolean"), (str, "string"), (int, "integer"), (float, "number"), (dict, "object"),
        (list, "array"),
    ):  # fmt: skip
        if isinstance(value, kind):
            return name
    return "null"
