"""JSON that anybody may have written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvscale import json_files
from pytest_kvscale.errors import ConfigurationError


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b'{"a": [1, 2', "it is cut off"),
        (b'{"a": "x', "it is cut off"),
        (b'{"a"', "it is cut off"),
        (b"a: 1\nb: 2", "is no JSON"),
        (b"\xff\xfe{}", "it is not text"),
        (b'{"a": NaN}', "NaN is no number that JSON has"),
        (b'{"a": -Infinity}', "-Infinity is no number that JSON has"),
        (b'{"a": 1e999}', "the number '1e999' is too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is too large"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' is there twice in one object"),
        (b'{"a": "\\ud800"}', "it has text that is no Unicode"),
        (b'{"\\udfff": 1}', "it has text that is no Unicode"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" * 80 + b"]" * 80, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
    ],
)
def test_what_is_no_json_is_one_sentence(data: bytes, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        json_files.parse(data, "there.json")
    assert str(caught.value).startswith("there.json ")
    assert said in str(caught.value)
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


@given(st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
))  # fmt: skip
def test_json_is_read_as_it_was_written(content: object) -> None:
    assert json_files.parse(json.dumps(content).encode(), "x") == content


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        found = json_files.parse(data, "x")
    except ConfigurationError:
        return
    json.dumps(found, allow_nan=False).encode()


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    huge = tmp_path / "huge.json"
    with huge.open("wb") as file:
        file.truncate(json_files.MOST_BYTES + 1)
    with pytest.raises(ConfigurationError, match=r"huge\.json has 67,108,865 bytes: .* up to"):
        json_files.read(huge)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="pipe is no file"):
        json_files.read(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="missing cannot be read: No such file"):
        json_files.read(tmp_path / "missing")


def test_nothing_that_a_terminal_obeys_is_shown() -> None:
    assert json_files.showable("a\x1b[2Jb\nc\td\x9b") == "a\ufffd[2Jb\nc\td\ufffd"
