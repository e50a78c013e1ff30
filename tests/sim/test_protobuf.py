"""Bodies in protobuf, as Go clients write them."""

from __future__ import annotations

import base64
import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvscale.sim import protobuf


def number(value: int) -> bytes:
    """A number of variable length, as protobuf writes it."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(place: int, value: Any) -> bytes:
    if isinstance(value, int):
        return number(place << 3) + number(value)
    content = value.encode() if isinstance(value, str) else value
    return number(place << 3 | 2) + number(len(content)) + content


def body(kind: str, *parts: bytes, version: str = "v1") -> bytes:
    head = field(1, version) + field(2, kind)
    return b"k8s\0" + field(1, head) + field(2, b"".join(parts)) + field(3, "") + field(4, "")


def labels(place: int, **values: str) -> bytes:
    return b"".join(field(place, field(1, key) + field(2, value)) for key, value in values.items())


def test_an_object_is_read_as_json_has_it() -> None:
    metadata = b"".join(
        [
            field(1, "one"), field(2, ""), field(3, "default"), field(7, 0),
            field(8, b""), field(9, field(1, 1_600_000_000) + field(2, 5)), field(10, 0),
            labels(11, app="x", tier=""), field(14, "a/b"), field(14, "c/d"), field(15, ""),
        ]
    )  # fmt: skip
    secret = body("Secret", field(1, metadata), labels(2, key="value"), field(3, "Opaque"))
    assert protobuf.decode(secret) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "one",
            "namespace": "default",
            "deletionTimestamp": "2020-09-13T12:26:40Z",
            "deletionGracePeriodSeconds": 0,
            "labels": {"app": "x", "tier": ""},
            "finalizers": ["a/b", "c/d"],
        },
        "data": {"key": base64.b64encode(b"value").decode()},
        "type": "Opaque",
    }


def test_options_of_a_deletion_keep_their_zeros() -> None:
    options = body("DeleteOptions", field(1, 0), field(3, 0), field(4, "Orphan"), field(5, "All"))
    assert protobuf.decode(options) == {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "gracePeriodSeconds": 0,
        "orphanDependents": False,
        "propagationPolicy": "Orphan",
        "dryRun": ["All"],
    }


def test_messages_lie_in_each_other() -> None:
    attributes = field(1, "ns") + field(2, "get") + field(3, "") + field(5, "pods")
    review = body(
        "SelfSubjectAccessReview", field(1, b""), field(2, field(1, attributes)), field(3, b""),
        version="authorization.k8s.io/v1",
    )  # fmt: skip
    spec = {"resourceAttributes": {"namespace": "ns", "verb": "get", "resource": "pods"}}
    assert protobuf.decode(review)["spec"] == spec
    limits = field(1, field(1, "cpu") + field(2, field(1, "10m")))
    container = field(1, "c") + field(2, "image") + field(8, limits)
    pod = field(2, field(2, container) + field(4, 30))
    deployment = protobuf.decode(body("Deployment", field(2, field(1, 0) + field(3, pod))))
    assert deployment["spec"] == {
        "replicas": 0,
        "template": {
            "spec": {
                "containers": [
                    {"name": "c", "image": "image", "resources": {"limits": {"cpu": "10m"}}}
                ],
                "terminationGracePeriodSeconds": 30,
            }
        },
    }


def test_a_time_keeps_its_microseconds_where_it_has_them() -> None:
    moment = field(1, 1_600_000_000) + field(2, 123_456_789)
    lease = body("Lease", field(2, field(1, "") + field(2, -1) + field(4, moment)))
    assert protobuf.decode(lease)["spec"] == {
        "holderIdentity": "",
        "leaseDurationSeconds": -1,
        "renewTime": "2020-09-13T12:26:40.123456Z",
    }


def test_a_kind_that_is_not_described_is_not_taken() -> None:
    with pytest.raises(protobuf.UnknownMessageError):
        protobuf.decode(body("VirtualMachineInstance"))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "does not begin"),
        (b"k8s\0\xff", "is no protobuf"),
        (body("Namespace", field(77, "x")), "field 77 of Namespace is not known"),
        (body("Namespace", field(1, 3)), "a number where there should be bytes"),
        (body("Namespace", field(1, "x" * 9)[:-3]), "is no protobuf"),
        (body("Namespace", b"\x0d\0\0\0\0"), "wire type 5"),
        (body("Namespace", field(1, field(1, b"\xff"))), "is no protobuf"),
        (body("Namespace", b"\x80" * 12), "too long"),
        (body("Lease", field(2, field(4, field(1, 1 << 60)))), "is no protobuf"),
    ],
)
def test_what_is_no_protobuf_is_told(content: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        protobuf.decode(content)


KINDS = st.sampled_from(["Namespace", "Role", "Secret", "Lease", "TokenRequest", "Deployment"])


@given(KINDS, st.binary(max_size=60))
def test_nothing_else_comes_of_any_bytes(kind: str, content: bytes) -> None:
    for sent in (content, b"k8s\0" + content, body(kind, content)):
        with contextlib.suppress(ValueError, protobuf.UnknownMessageError):
            assert isinstance(protobuf.decode(sent), dict)
