"""The options of reading and deleting: what stands in a query string, or in a deletion's body.

Parameters that are not known are ignored, and of one that is given twice the first counts, as in
Kubernetes. What cannot be read is a 400; what can be read and may not be is a 422.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pytest_kvscale.sim import deletion, errors
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.lists import EXACT, NOT_OLDER_THAN, Paging

if TYPE_CHECKING:
    from multidict import MultiMapping as Parameters  # What a request's query is.


def number(text: str, name: str) -> int:
    """A whole number of a query; 400 if it is none. Empty is 0."""
    if not text:
        return 0
    try:
        value = int(text) if text.isascii() and "_" not in text and text == text.strip() else None
    except ValueError:
        value = None
    if value is None or not -(2**63) <= value < 2**63:
        raise errors.bad_request(
            f'strconv.ParseInt: parsing "{text}": invalid syntax ({name} is no whole number)'
        )
    return value


def flag(query: Parameters[str], name: str) -> bool | None:
    """A truth value of a query: anything but `false` and `0` is true; None if it is not there."""
    value = query.get(name)
    return None if value is None else value.lower() not in ("false", "0")


@dataclasses.dataclass(frozen=True)
class ListOptions:
    """What a list or watch is asked with."""

    paging: Paging
    bookmarks: bool
    initial: bool | None
    """Whether a watch begins with what is there (`sendInitialEvents`)."""
    seconds: int | None
    """How long a watch lasts."""


def list_options(query: Parameters[str], watch: bool) -> ListOptions:
    """The options of a list or a watch."""
    timeout = query.get("timeoutSeconds", "")
    paging = Paging(
        number(query.get("limit", ""), "limit"), query.get("continue", ""),
        query.get("resourceVersion", ""), query.get("resourceVersionMatch", ""),
    )  # fmt: skip
    initial = flag(query, "sendInitialEvents")
    seconds = number(timeout, "timeoutSeconds") if timeout else None
    options = ListOptions(paging, bool(flag(query, "allowWatchBookmarks")), initial, seconds)
    if watch and initial is None and not paging.match and paging.version in ("", "0"):
        match = dataclasses.replace(paging, match=NOT_OLDER_THAN)
        options = dataclasses.replace(options, initial=True, paging=match)
    causes = list(_watch_problems(options) if watch else _list_problems(options))
    if causes:
        raise errors.invalid_options("ListOptions", causes)
    return options


def _list_problems(options: ListOptions) -> Iterator[Object]:
    paging, field = options.paging, "resourceVersionMatch"
    if paging.match:
        if not paging.version:
            yield errors.not_allowed(
                field, f"{field} is forbidden unless resourceVersion is provided"
            )
        if paging.proceed:
            yield errors.not_allowed(field, f"{field} is forbidden when continue is provided")
        if paging.match not in (EXACT, NOT_OLDER_THAN):
            yield errors.unsupported(field, paging.match, (EXACT, NOT_OLDER_THAN, ""))
        if paging.match == EXACT and paging.version == "0":
            why = f'{field} "exact" is forbidden for resourceVersion "0"'
            yield errors.not_allowed(field, why)
    if options.initial is not None:
        why = "sendInitialEvents is forbidden for list"
        yield errors.not_allowed("sendInitialEvents", why)


def _watch_problems(options: ListOptions) -> Iterator[Object]:
    paging, field = options.paging, "resourceVersionMatch"
    if options.initial is not None and paging.match != NOT_OLDER_THAN:
        why = f"sendInitialEvents requires setting {field} to {NOT_OLDER_THAN}"
        yield errors.not_allowed(field, why)
    if not paging.match:
        return
    if options.initial is None:
        why = f"{field} is forbidden for watch unless sendInitialEvents is provided"
        yield errors.not_allowed(field, why)
    if paging.match != NOT_OLDER_THAN:
        yield errors.unsupported(field, paging.match, (NOT_OLDER_THAN,))
    if paging.proceed:
        yield errors.not_allowed(field, f"{field} is forbidden when continue is provided")


# Deleting ---------------------------------------------------------------------------------------


def _dry_run_problems(values: list[str]) -> Iterator[Object]:
    if any(each != "All" for each in values):
        yield errors.unsupported("dryRun", values, ("All",))


def delete_options(query: Parameters[str], body: Any) -> Object:
    """The DeleteOptions of a request: its body, or its query if it has none."""
    options = _from_query(query) if body is None else _from_body(body)
    dry = options.get("dryRun") or []
    causes = [*deletion.problems(options), *_dry_run_problems(dry)]
    if causes:
        raise errors.invalid_options("DeleteOptions", causes)
    return options


def _from_query(query: Parameters[str]) -> Object:
    options: Object = {}
    if query.get("gracePeriodSeconds"):
        name = "gracePeriodSeconds"
        options[name] = number(query[name], name)
    if query.get("propagationPolicy"):
        options["propagationPolicy"] = query["propagationPolicy"]
    orphan = flag(query, "orphanDependents")
    if orphan is not None:
        options["orphanDependents"] = orphan
    if "dryRun" in query:
        options["dryRun"] = query.getall("dryRun")
    return options


_OPTION_TYPES: dict[str, type | tuple[type, ...]] = {
    "gracePeriodSeconds": int, "propagationPolicy": str, "orphanDependents": bool,
    "dryRun": list, "preconditions": dict, "kind": str, "apiVersion": str,
}  # fmt: skip


def _from_body(body: Any) -> Object:
    if not isinstance(body, dict):
        raise errors.bad_request("the object provided is unrecognized: expected DeleteOptions")
    if body.get("kind") not in (None, "", "DeleteOptions"):
        raise errors.bad_request(
            f"decoded object cannot be converted to DeleteOptions: {body['kind']}"
        )
    for key, kind in _OPTION_TYPES.items():
        value = body.get(key)
        wrong = isinstance(value, bool) and kind is int
        if value is not None and (wrong or not isinstance(value, kind)):
            raise errors.bad_request(
                f"json: cannot unmarshal into Go struct field DeleteOptions.{key}"
            )
    texts = [*(body.get("dryRun") or []), *(body.get("preconditions") or {}).values()]
    if not all(isinstance(each, str | None) for each in texts):
        raise errors.bad_request("json: cannot unmarshal into Go struct field DeleteOptions")
    return dict(body)
