"""What the query of a write says beside the object: who writes, and how seriously it is meant."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from pytest_kvscale.sim import errors
from pytest_kvscale.sim.errors import Object, StatusError

LONGEST_MANAGER = 128
"""Bytes of a field manager's name."""
_VALIDATIONS = ("Ignore", "Strict", "Warn")
_KINDS = {"create": "CreateOptions", "update": "UpdateOptions", "patch": "PatchOptions"}


@dataclasses.dataclass(frozen=True, slots=True)
class WriteOptions:
    """The options of one write."""

    manager: str
    force: bool
    dry_run: bool


def read(verb: str, query: Mapping[str, str], user_agent: str, applies: bool) -> WriteOptions:
    """The options of a create, update or patch; raises `StatusError` (400, 422) for wrong ones."""
    force = _boolean(query.get("force"))
    causes = list(_problems(query, force, applies))
    if causes:
        raise _invalid(_KINDS[verb], causes)
    manager = query.get("fieldManager") or _program(user_agent)
    return WriteOptions(manager, bool(force), query.get("dryRun") == "All")


def _problems(query: Mapping[str, str], force: bool | None, applies: bool) -> Iterator[Object]:
    manager = query.get("fieldManager", "")
    if applies and not manager:
        text = "Required value: is required for apply patch"
        yield errors.cause("FieldValueRequired", "fieldManager", text)
    if not applies and force is not None:
        text = "Forbidden: may not be specified for non-apply patch"
        yield errors.cause("FieldValueForbidden", "force", text)
    if len(manager.encode()) > LONGEST_MANAGER:
        text = f"Too long: may not be more than {LONGEST_MANAGER} bytes"
        yield errors.cause("FieldValueTooLong", "fieldManager", text)
    if not manager.isprintable():
        text = f'Invalid value: "{manager}": should only contain printable characters'
        yield errors.cause("FieldValueInvalid", "fieldManager", text)
    dry_run = query.get("dryRun", "All")
    if dry_run not in ("All", ""):
        text = f'Unsupported value: ["{dry_run}"]: supported values: "All"'
        yield errors.cause("FieldValueNotSupported", "dryRun", text)
    validation = query.get("fieldValidation", "")
    if validation and validation not in _VALIDATIONS:
        known = ", ".join(f'"{each}"' for each in ("", *_VALIDATIONS))
        text = f'Unsupported value: "{validation}": supported values: {known}'
        yield errors.cause("FieldValueNotSupported", "fieldValidation", text)


def _invalid(kind: str, causes: list[Object]) -> StatusError:
    reasons = [f"{each['field']}: {each['message']}" for each in causes]
    text = reasons[0] if len(reasons) == 1 else f"[{', '.join(reasons)}]"
    details = {"group": "meta.k8s.io", "kind": kind, "causes": causes}
    return StatusError(422, "Invalid", f'{kind}.meta.k8s.io "" is invalid: {text}', details)


def _boolean(text: str | None) -> bool | None:
    """A flag as Go reads it from a query; None if it is not there."""
    if text is None:
        return None
    # Go's conversion of query parameters takes all but these for true.
    return text.lower() not in ("false", "0")


def _program(user_agent: str) -> str:
    """The name of the program that asks: what its User-Agent says before the first slash."""
    name = "".join(each for each in user_agent.partition("/")[0] if each.isprintable())
    while len(name.encode()) > LONGEST_MANAGER:
        name = name[:-1]
    return name
