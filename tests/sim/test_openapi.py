"""What the API says of its kinds: schemas, and the same as old clients read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pytest_kvscale.sim import openapi, openapi_proto, resources, schema
from pytest_kvscale.sim.resources import Resource
from tests.sim.asker import Asker, Work

VERSION = "v1.32.0"


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            if key == "$ref" and isinstance(each, str):
                yield each.rpartition("/")[2]
            else:
                yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


@pytest.mark.parametrize("kind", resources.SERVED, ids=lambda kind: kind.full_name)
def test_every_kind_says_what_its_fields_are(kind: Resource) -> None:
    found = openapi.version_2(VERSION)["definitions"][schema.definition_name(kind)]
    assert found["x-kubernetes-group-version-kind"][0]["kind"] == kind.kind
    if schema.definition_name(kind) in schema.definitions():
        assert {"apiVersion", "kind", "metadata"} <= found["properties"].keys()
    else:
        assert found["x-kubernetes-preserve-unknown-fields"]


def test_documents_refer_only_to_what_they_have() -> None:
    two = openapi.version_2(VERSION)
    assert set(references(two)) <= two["definitions"].keys()
    for place in openapi.index(VERSION)["paths"]:
        three = openapi.version_3(place, VERSION)
        assert three is not None
        assert set(references(three)) <= three["components"]["schemas"].keys()


def test_the_data_name_only_types_that_are_there() -> None:
    def named(value: Any) -> Iterator[str]:
        if isinstance(value, str) and value.startswith("#"):
            yield value[1:]
        elif isinstance(value, dict):
            if isinstance(value.get("ref"), str):
                yield value["ref"]
            for each in value.values():
                yield from named(each)

    known = schema.definitions()
    assert {name for spec in known.values() for name in named(spec)} <= known.keys()


def messages(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a protocol buffer that has texts and messages only."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = raw[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(raw):
        tag = varint()
        assert tag & 7 == 2
        length = varint()
        yield tag >> 3, raw[at : at + length]
        at += length


def only(raw: bytes, number: int) -> list[bytes]:
    return [content for field, content in messages(raw) if field == number]


def test_the_protocol_buffer_says_the_same() -> None:
    raw, document = openapi_proto.version_2(VERSION), openapi.version_2(VERSION)
    assert only(raw, 1) == [b"2.0"]
    (definitions,) = only(raw, 9)
    found = {}
    for entry in only(definitions, 1):
        (name,), (content,) = only(entry, 1), only(entry, 2)
        found[name.decode()] = content
    assert found.keys() == document["definitions"].keys()
    pod = found["io.k8s.api.core.v1.PodSpec"]
    (properties,) = only(pod, 25)
    fields = [only(each, 1)[0].decode() for each in only(properties, 1)]
    expected = document["definitions"]["io.k8s.api.core.v1.PodSpec"]["properties"]
    assert fields == list(expected)
    containers = next(
        only(each, 2)[0] for each in only(properties, 1) if only(each, 1) == [b"containers"]
    )
    extensions = {
        only(each, 1)[0].decode(): only(only(each, 2)[0], 2)[0].decode()
        for each in only(containers, 31)
    }
    assert extensions["x-kubernetes-patch-merge-key"] == '"name"'
    (paths,) = only(raw, 8)
    assert len(only(paths, 2)) == len(document["paths"])


def test_documents_are_served_in_the_form_that_is_asked_for(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        status, index = await ask("GET", "/openapi/v3")
        assert status == 200
        place = index["paths"]["apis/kubevirt.io/v1"]["serverRelativeURL"]
        status, document = await ask("GET", place)
        assert status == 200
        assert "io.kubevirt.v1.VirtualMachineInstance" in document["components"]["schemas"]
        assert (await ask("GET", "/openapi/v3/apis/nope/v1"))[0] == 404
        assert (await ask("GET", "/openapi/v2"))[1]["swagger"] == "2.0"
        for accepted in openapi_proto.ASKED_FOR:
            headers = {"Accept": accepted}
            url = ask.cluster.url + "/openapi/v2"
            async with ask.session.get(url, headers=headers) as answer:
                assert answer.content_type == openapi_proto.MEDIA_TYPE
                assert (await answer.read())[:5] == b"\n\x032.0"

    run(work)
