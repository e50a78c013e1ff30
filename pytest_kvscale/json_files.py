"""Reading JSON that anybody may have written, with errors of one sentence.

Like `documents.py` it imports no room. Python's own reader takes more than JSON is (NaN, a key
twice of which the last one wins) and can be brought down by what is nested deeply; a file of
results is compared with others, so that nothing in it may be read as something else.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, NoReturn

from pytest_kvscale.errors import ConfigurationError

MOST_BYTES = 64 * 2**20
"""The largest file that is read: a run of 50 levels needs about 1 MB."""
_DEEPEST = 64
_UNSHOWABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_HALF = re.compile(r"[\ud800-\udfff]")
"""Half a character: Python holds it, no file can."""


def read(path: Path) -> Any:
    """The content of a JSON file. Raises `ConfigurationError`, beginning with the file's name."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise ConfigurationError(f"{path} is no file")
        if size > MOST_BYTES:
            raise ConfigurationError(
                f"{path} has {size:,} bytes: files of results are read up to {MOST_BYTES:,}"
            )
        data = path.read_bytes()
    except OSError as problem:
        raise ConfigurationError(f"{path} cannot be read: {problem.strerror or problem}") from None
    return parse(data, str(path))


def write(path: Path, text: str) -> None:
    """Write a file of text, the old one being replaced at once, and its folder if need be.

    Raises `ConfigurationError` if that cannot be.
    """
    new = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(text, encoding="utf-8")
        new.replace(path)
    except OSError as problem:
        raise ConfigurationError(
            f"{path} cannot be written: {problem.strerror or problem}"
        ) from None


def parse(data: bytes, where: str) -> Any:
    """JSON as plain data. `where` begins the sentence of an error."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{where} is no JSON: it is not text (UTF-8)") from None
    if not text.strip():
        raise ConfigurationError(f"{where} is empty")
    try:
        content = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_no_number,
            parse_float=_finite,
            parse_int=_whole,
        )
    except json.JSONDecodeError as problem:
        cut = len(text.rstrip()) <= problem.pos + 1 or problem.msg.startswith("Unterminated")
        said = "it is cut off" if cut else f"{problem.msg[:1].lower()}{problem.msg[1:]}"
        raise ConfigurationError(f"{where} is no JSON: {said} (line {problem.lineno})") from None
    except _RefusedError as problem:
        raise ConfigurationError(f"{where} cannot be used: {problem}") from None
    except RecursionError:
        raise ConfigurationError(f"{where} cannot be used: it is nested too deeply") from None
    if _is_deep(content):
        raise ConfigurationError(f"{where} cannot be used: it is nested too deeply")
    if _HALF.search(text) or ("\\u" in text and _has_halves(content)):
        raise ConfigurationError(f"{where} cannot be used: it has text that is no Unicode")
    return content


def showable(text: str) -> str:
    """Text of a file with nothing in it that a terminal would obey; line breaks and tabs stay."""
    return _UNSHOWABLE.sub("\N{REPLACEMENT CHARACTER}", text)


class _RefusedError(Exception):
    """Python would read it, and it means nothing."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _RefusedError(f"the key {_brief(twice)} is there twice in one object")
    return made


def _no_number(word: str) -> NoReturn:
    raise _RefusedError(f"{word} is no number that JSON has")


def _finite(word: str) -> float:
    value = float(word)
    if not math.isfinite(value):
        raise _RefusedError(f"the number {_brief(word)} is too large")
    return value


def _whole(word: str) -> int:
    if len(word) > 20:
        raise _RefusedError(f"the number {_brief(word)} is too large")
    return int(word)


def _brief(text: str) -> str:
    shown = repr(showable(text))
    return shown if len(shown) <= 40 else f"{shown[:30]}…'"


def _is_deep(content: Any) -> bool:
    here = [content]
    for _ in range(_DEEPEST):
        here = [
            inner
            for each in here
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not here:
            return False
    return True


def _has_halves(content: Any) -> bool:
    """Whether some text, key or value, has half a character (escaped in the file)."""
    if isinstance(content, str):
        return _HALF.search(content) is not None
    if isinstance(content, dict):
        return any(_has_halves(key) or _has_halves(each) for key, each in content.items())
    return isinstance(content, list) and any(_has_halves(each) for each in content)
