"""Bodies in protobuf, which Go clients send for built-in kinds: `kubectl auth can-i`, `create`.

Kubernetes frames such a body as four bytes, then a message that names kind and version and holds
the object. The messages are described in `protobuf.yaml`; only requests come this way, answers
are JSON, which all clients accept too.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from pytest_kvscale.sim.errors import Object

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\0"
_DESCRIBED = Path(__file__).parent / "protobuf.yaml"


class UnknownMessageError(Exception):
    """A kind that is not described: its bodies are taken as JSON only."""


@dataclasses.dataclass(frozen=True)
class _Field:
    """A field: its name in JSON, its type, and how it is held."""

    name: str
    type: str
    repeated: bool = False
    mapped: bool = False
    optional: bool = False
    """Told apart from absent when it is empty or 0."""


def decode(body: bytes) -> Object:
    """The object in a body.

    Raises ValueError for one that is no protobuf, `UnknownMessageError` for a kind
    that is not known.
    """
    if not body.startswith(_MAGIC):
        raise ValueError("the body does not begin as Kubernetes' protobuf does")
    try:
        envelope = _message("Unknown", body[len(_MAGIC) :])
        head = envelope.get("typeMeta", {})
        kind, content = head.get("kind", ""), base64.b64decode(envelope.get("raw", ""))
        return {"apiVersion": head.get("apiVersion", ""), "kind": kind, **_message(kind, content)}
    except (IndexError, UnicodeDecodeError, OverflowError, OSError) as problem:
        raise ValueError(f"the body is no protobuf: {problem}") from None


@functools.cache
def _messages() -> dict[str, dict[int, _Field]]:
    with _DESCRIBED.open(encoding="utf-8") as file:
        described: dict[str, dict[int, str]] = yaml.safe_load(file)
    return {
        name: {number: _field(text) for number, text in fields.items()}
        for name, fields in described.items()
    }


def _field(text: str) -> _Field:
    """A field's description: `name`, `name type`, `name type?`, `name [type]`, `name {type}`."""
    name, _, kind = text.partition(" ")
    kind = kind or "string"
    bare = kind.strip("[]{}?")
    return _Field(name, bare, kind.startswith("["), kind.startswith("{"), kind.endswith("?"))


def _message(name: str, content: bytes) -> Object:
    fields = _messages().get(name)
    if fields is None:
        raise UnknownMessageError(f"the kind {name!r} is not known in protobuf")
    result: Object = {}
    for number, raw in _parts(content):
        field = fields.get(number)
        if field is None:
            raise ValueError(f"field {number} of {name} is not known in protobuf")
        if field.mapped:
            entry = dict(_parts(_bytes(raw)))
            key = _bytes(entry.get(1, b"")).decode()
            result.setdefault(field.name, {})[key] = _value(field.type, entry.get(2, b""))
        elif field.repeated:
            result.setdefault(field.name, []).append(_value(field.type, raw))
        else:
            value = _value(field.type, raw)
            # Go writes out texts and numbers that JSON leaves out when they are empty.
            if field.optional or value not in ("", 0, None):
                result[field.name] = value
    return result


def _value(kind: str, raw: int | bytes) -> Any:
    read = _READERS.get(kind)
    return _message(kind, _bytes(raw)) if read is None else read(raw)


def _text(raw: int | bytes) -> str:
    return _bytes(raw).decode()


def _quantity(raw: int | bytes) -> str:
    return _text(dict(_parts(_bytes(raw))).get(1, b""))


def _signed(raw: int | bytes) -> int:
    number = raw if isinstance(raw, int) else 0
    return number - (1 << 64) if number >= 1 << 63 else number


def _time(raw: int | bytes, precision: str = "seconds") -> str | None:
    parts = dict(_parts(_bytes(raw)))
    seconds, nanos = parts.get(1, 0), parts.get(2, 0)
    if not isinstance(seconds, int) or not isinstance(nanos, int) or not seconds:
        return None
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    moment = moment.replace(microsecond=nanos // 1000 if precision == "microseconds" else 0)
    return moment.isoformat(timespec=precision).replace("+00:00", "Z")


def _bytes(raw: int | bytes) -> bytes:
    if isinstance(raw, int):
        # Not a TypeError: what is wrong is the body that was sent.
        raise ValueError(  # noqa: TRY004
            "the body is no protobuf: a number where there should be bytes"
        )
    return raw


def _parts(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The numbers and raw values of a message's fields: numbers, or bytes of a given length."""
    at = 0
    while at < len(content):
        tag, at = _number(content, at)
        if tag & 7 == 0:
            value, at = _number(content, at)
            yield tag >> 3, value
        elif tag & 7 == 2:
            length, at = _number(content, at)
            if at + length > len(content):
                raise ValueError("the body is no protobuf: it ends too early")
            yield tag >> 3, content[at : at + length]
            at += length
        else:
            raise ValueError(f"the body is no protobuf: wire type {tag & 7}")


def _number(content: bytes, at: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    number = shift = 0
    while True:
        byte = content[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, at
        if shift > 63:
            raise ValueError("the body is no protobuf: a number is too long")


_READERS: dict[str, Callable[[int | bytes], Any]] = {
    "string": _text,
    "bytes": lambda raw: base64.b64encode(_bytes(raw)).decode(),
    "bool": bool,
    "int": _signed,
    "Time": _time,
    "MicroTime": lambda raw: _time(raw, "microseconds"),
    "Quantity": _quantity,
}
"""How values that are no messages are read."""
