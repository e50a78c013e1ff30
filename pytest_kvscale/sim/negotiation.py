"""In which format a client takes its answer: JSON or YAML, whole, as a table or metadata only."""

from __future__ import annotations

import dataclasses
import functools

from pytest_kvscale.sim import errors

TABLE = "Table"
METADATA, METADATA_LIST = "PartialObjectMetadata", "PartialObjectMetadataList"
_META_GROUP = "meta.k8s.io"
_META_VERSIONS = ("v1", "v1beta1")
_OFFERED = ("application/json", "application/yaml")
_ALL_OFFERED = ", ".join((*_OFFERED, "application/vnd.kubernetes.protobuf"))
_INCLUDED = ("", "None", "Metadata", "Object")


@dataclasses.dataclass(frozen=True)
class Format:
    """What an answer shall be."""

    yaml: bool = False
    shape: str = ""
    """`Table`, `PartialObjectMetadata` or its list; '' for the objects themselves."""
    version: str = "v1"
    """The version of that shape."""


@dataclasses.dataclass(frozen=True)
class Clause:
    """One media type that a client takes."""

    kind: str
    parameters: dict[str, str]
    weight: float


@functools.lru_cache(maxsize=256)
def clauses(accept: str) -> tuple[Clause, ...]:
    """The media types of an `Accept` header, the liked ones first."""
    found = []
    for part in accept.split(","):
        kind, *rest = (each.strip() for each in part.split(";"))
        parameters = {}
        for each in rest:
            key, _, value = each.partition("=")
            parameters[key.strip().lower()] = value.strip().strip('"')
        if kind:
            found.append(Clause(kind.lower(), parameters, _weight(parameters.pop("q", "1"))))
    return tuple(sorted(found, key=lambda clause: -clause.weight))


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0


@functools.lru_cache(maxsize=256)
def negotiate(accept: str, streamed: bool = False) -> Format:
    """The format for an `Accept` header; 406 if it names none that is offered.

    `streamed`: the answer is a watch, which is never YAML.
    """
    if not accept.strip():
        return Format()
    offered = _OFFERED[:1] if streamed else _OFFERED
    for clause in clauses(accept):
        kind = offered[0] if clause.kind in ("*/*", "application/*") else clause.kind
        if kind not in offered:
            continue
        shape = clause.parameters.get("as", "")
        if not shape:
            return Format(kind == _OFFERED[1])
        version = clause.parameters.get("v", "")
        if clause.parameters.get("g", "") != _META_GROUP or version not in _META_VERSIONS:
            continue
        if shape in (TABLE, METADATA, METADATA_LIST):
            return Format(kind == _OFFERED[1], shape, version)
    message = f"only the following media types are accepted: {_ALL_OFFERED}"
    raise errors.not_acceptable(message)


def check_shape(shape: str, is_list: bool) -> None:
    """406 for a list that shall be one object's metadata, or an object that shall be a list's."""
    if shape == METADATA and is_list:
        raise errors.not_acceptable(f"you requested {shape}, but the requested object is a list")
    if shape == METADATA_LIST and not is_list:
        raise errors.not_acceptable(
            f"you requested {shape}, but the requested object is not a list"
        )


def included(text: str) -> str:
    """What of its object a table's row carries (`includeObject`); 400 for another word."""
    if text not in _INCLUDED:
        raise errors.bad_request(
            f'Unable to convert to Table as requested: includeObject: Invalid value: "{text}": '
            "must be 'Metadata', 'Object', 'None', or empty"
        )
    return text or "Metadata"


def is_pretty(query_value: str | None, agent: str) -> bool:
    """Whether JSON shall be indented: people's programs get it so, unless they say no."""
    if query_value is not None:
        return query_value in ("1", "t", "T", "true", "TRUE", "True")
    return agent.startswith(("curl", "Wget", "Mozilla/5.0"))
