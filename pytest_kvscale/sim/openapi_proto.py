"""OpenAPI 2 as a protocol buffer: kubectl before 1.27 reads it in no other form.

The messages are gnostic's `openapi.v2.Document` and what stands in it; a number below is a field's
number there. Only what our documents have is written.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from pytest_kvscale.sim import openapi
from pytest_kvscale.sim.errors import Object

MEDIA_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
ASKED_FOR = (MEDIA_TYPE, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")
"""How clients ask for it; the older name is no media type, and no answer can carry it."""
_METHODS = {"get": 2, "put": 3, "post": 4, "delete": 5, "patch": 8}


@functools.cache
def version_2(version: str) -> bytes:
    """The document of `openapi.version_2`."""
    document = openapi.version_2(version)
    info = _text(1, document["info"]["title"]) + _text(2, document["info"]["version"])
    paths = b"".join(
        _message(2, _text(1, path) + _message(2, _path_item(item)))
        for path, item in document["paths"].items()
    )
    definitions = b"".join(_named_schema(*each) for each in document["definitions"].items())
    return b"".join(
        (
            _text(1, document["swagger"]),
            _message(2, info),
            _message(8, paths),
            _message(9, definitions),
        )
    )


def _path_item(item: Object) -> bytes:
    return b"".join(_message(_METHODS[method], _operation(each)) for method, each in item.items())


def _operation(operation: Object) -> bytes:
    parameters = b"".join(_message(8, _parameter(each)) for each in operation.get("parameters", ()))
    response = _text(1, operation["responses"]["200"]["description"])
    responses = _message(1, _text(1, "200") + _message(2, _message(1, response)))
    return b"".join(
        (
            _text(5, operation["operationId"]),
            *(_text(6, each) for each in operation["produces"]),
            *(_text(7, each) for each in operation["consumes"]),
            parameters,
            _message(9, responses),
            _extensions(13, operation),
        )
    )


def _parameter(parameter: Object) -> bytes:
    """A parameter of the query: ParametersItem, Parameter, NonBodyParameter, QueryParameter."""
    query = _text(2, "query") + _text(4, parameter["name"]) + _text(6, parameter["type"])
    return _message(1, _message(2, _message(3, query)))


def _named_schema(name: str, schema: Object) -> bytes:
    return _message(1, _text(1, name) + _message(2, _schema(schema)))


def _schema(schema: Mapping[str, Any]) -> bytes:
    parts = []
    if "$ref" in schema:
        parts.append(_text(1, schema["$ref"]))
    if "format" in schema:
        parts.append(_text(2, schema["format"]))
    if "description" in schema:
        parts.append(_text(4, schema["description"]))
    if "default" in schema:
        parts.append(_message(5, _text(2, json.dumps(schema["default"]))))
    parts += [_text(19, each) for each in schema.get("required", ())]
    if "additionalProperties" in schema:
        parts.append(_message(21, _message(1, _schema(schema["additionalProperties"]))))
    if "type" in schema:
        parts.append(_message(22, _text(1, schema["type"])))
    if "items" in schema:
        parts.append(_message(23, _message(1, _schema(schema["items"]))))
    if "properties" in schema:
        fields = b"".join(_named_schema(*each) for each in schema["properties"].items())
        parts.append(_message(25, fields))
    parts.append(_extensions(31, schema))
    return b"".join(parts)


def _extensions(number: int, owner: Mapping[str, Any]) -> bytes:
    """The `x-` fields: names, and values as YAML, of which JSON is a part."""
    return b"".join(
        _message(number, _text(1, key) + _message(2, _text(2, json.dumps(value))))
        for key, value in owner.items()
        if key.startswith("x-")
    )


# The wire ---------------------------------------------------------------------------------------


def _text(number: int, text: str) -> bytes:
    return _message(number, text.encode())


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
