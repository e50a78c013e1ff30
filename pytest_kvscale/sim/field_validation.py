"""Fields that a kind does not have: refused or warned of, as the writer asks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pytest_kvscale.sim import errors, schema
from pytest_kvscale.sim.errors import StatusError
from pytest_kvscale.sim.resources import Resource
from pytest_kvscale.sim.schema import Type

MOST_WARNINGS = 100


def check(resource: Resource, body: Any, validation: str, verb: str) -> list[str]:
    """What to warn a writer of; raises `StatusError` (400, 422) if it asked to be refused."""
    if validation == "Ignore" or not isinstance(body, dict):
        return []
    problems = [f'unknown field "{path}"' for path in unknown(body, schema.of(resource))]
    if problems and validation == "Strict":
        raise _refusal(resource, body, problems, verb == "patch")
    return problems[:MOST_WARNINGS]


def unknown(value: Any, kind: Type, path: str = "") -> Iterator[str]:
    """The paths of all fields that a value has and its type has not."""
    if isinstance(value, dict) and kind.form in ("struct", "map"):
        for key, each in value.items():
            where = f"{path}.{key}" if path else key
            declared = kind.field(key)
            if declared is None and kind.form == "struct":
                if not kind.open and not key.startswith("$"):
                    yield where
                continue
            yield from unknown(each, declared or kind.element, where)
    elif isinstance(value, list) and kind.form == "list":
        for index, each in enumerate(value):
            yield from unknown(each, kind.element, f"{path}[{index}]")


def _refusal(resource: Resource, body: Any, problems: list[str], patches: bool) -> StatusError:
    what = f"strict decoding error: {', '.join(problems)}"
    if not patches:
        kind = resource.kind
        return errors.bad_request(
            f'{kind} in version "{resource.version}" cannot be handled as a {kind}: {what}'
        )
    text = f"Invalid value: {json.dumps(json.dumps(body))}: {what}"
    causes = [errors.cause("FieldValueInvalid", "patch", text)]
    return StatusError(422, "Invalid", f' "" is invalid: patch: {text}', {"causes": causes})
