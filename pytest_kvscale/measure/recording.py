"""Recordings: what a run's watches told, one JSON object a line, gzipped.

`t` is seconds since the recording began, by the client's clock; `stream` is one of

* `plan`: the `level` (how many VMIs were asked for) and the `qps` of their creation;
* `create`: `name`, `sent`, `status` (HTTP status of the answer; 0 if none came until the deadline,
  null if the level ended before), and, where the API refused, `message`; `due` if it was
  recorded; `turned_away`, if it was sent more than once: when it was first answered by no
  success, and how; `vmis`, if the object makes several; `pod`, if it is a plain one;
* `vmis`, `pods`, `events` (and `vms`, the objects that make VMIs): `event` as received, with
  `type` and `object`; or `list`, with `resourceVersion` and the number of `items`; a list that
  came later has all its `objects`, and `since`, when all was known last; or `resumed`, when a
  watch that was lost, and is taken up now, was last heard of;
* `log`: the `lines` of a log (`source`) that speak of the VMI `name`, as it was at `of`;
* `delete`: the moment the deletion was asked for; `end`: the moment the level ended;
* `judged`, last: what else the level was judged by: `max_lag` (seconds, null without a pace), the
  `problem` that cut it short, `doubts`, and `kept`, if its objects were left on purpose.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.measure.observe import Observer
from pytest_kvscale.measure.timeline import Creation, Sign

Line = dict[str, Any]
_STREAMS = ("vmis", "vms", "pods", "events")


class Recorder:
    """Writes a recording; every call takes the cluster's time (the loop's)."""

    def __init__(self, path: Path, start: float) -> None:
        self._start = start
        # No file name and time stamp in the header: the same run writes the same bytes.
        self._raw = path.open("wb")
        self._file = gzip.GzipFile(filename="", mode="wb", fileobj=self._raw, mtime=0)

    def write(self, stream: str, at: float, **content: Any) -> None:
        """Write one line."""
        line = {"t": round(at - self._start, 6), "stream": stream, **content}
        self._file.write(_bytes(line))

    def create(self, creation: Creation, at: float, status: int | None, message: str = "") -> None:
        """Write down how a create was answered; status None: not before the level ended."""
        more: Line = {"message": message} if message else {}
        if creation.vmis != 1:
            more["vmis"] = creation.vmis
        if creation.is_pod:
            more["pod"] = True
        if creation.turned_away is not None:
            moment, words = creation.turned_away
            more["turned_away"] = [round(moment - self._start, 6), words]
        sent = None if creation.sent is None else round(creation.sent - self._start, 6)
        due = round(creation.due - self._start, 6)
        self.write("create", at, name=creation.name, due=due, sent=sent, status=status, **more)

    def close(self) -> None:
        """End the recording."""
        self._file.close()
        self._raw.close()


def add(path: Path, t: float, stream: str, **content: Any) -> None:
    """Write one more line to a recording that has ended; `t` as in its other lines."""
    line = {"t": round(t, 6), "stream": stream, **content}
    with path.open("ab") as file:
        # A gzip file may consist of several.
        file.write(gzip.compress(_bytes(line), mtime=0))


def _bytes(line: Line) -> bytes:
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def read(path: Path) -> list[Line]:
    """The lines of a recording, gzipped or not.

    Raises `ConfigurationError` if it cannot be read, is cut off, or is no recording.
    """
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        raw_text = gzip.decompress(path.read_bytes()) if zipped else path.read_bytes()
        texts = raw_text.decode("utf-8").splitlines()
        return [_line(path, number, text) for number, text in enumerate(texts, 1) if text.strip()]
    except OSError as problem:
        reason = problem.strerror or problem
        raise ConfigurationError(f"the recording {path} cannot be read: {reason}") from None
    except (EOFError, zlib.error, UnicodeDecodeError) as problem:
        raise ConfigurationError(f"the recording {path} is damaged: {problem}") from None


def _line(path: Path, number: int, text: str) -> Line:
    try:
        line: Line = json.loads(text)
    except ValueError as problem:
        raise ConfigurationError(f"the recording {path}, line {number}: {problem}") from None
    valid = isinstance(line, dict) and isinstance(line.get("stream"), str)
    if not valid or not isinstance(line.get("t"), int | float):
        raise ConfigurationError(
            f"the recording {path}, line {number}: expected an object with 't' and 'stream'"
        )
    return line


def replay(lines: Iterable[Line]) -> Observer:
    """Feed a recording to an observer, as if its watches told it now.

    The level ends at the recorded `end`, else at `delete`, else with the last line.
    """
    ordered = sorted(lines, key=lambda line: float(line["t"]))
    observer = Observer()
    for line in ordered:
        if line["stream"] == "create":
            due = line.get("due", line.get("sent"))
            creation = Creation(line["name"], due if due is not None else line["t"])
            creation.sent = line.get("sent")
            creation.vmis = int(line.get("vmis", 1))
            creation.is_pod = bool(line.get("pod"))
            if "turned_away" in line:
                moment, words = line["turned_away"]
                creation.turned_away = (float(moment), str(words))
            observer.expect(creation)
            status = line.get("status", 0)
            if status is None:
                continue
            if 200 <= status < 300:
                creation.acked = line["t"]
            else:
                text = line.get("message", f"HTTP status {status}")
                observer.refused(creation, Sign(line["t"], "api", "create", text), status)
    ends = [line["t"] for line in ordered if line["stream"] in ("end", "delete")]
    end = min(ends, default=ordered[-1]["t"] if ordered else 0.0)
    observer.end_level(end)
    for line in ordered:
        stream, at = line["stream"], line["t"]
        if stream == "log":
            observer.take_log(line["name"], line["source"], line["lines"], float(line["of"]))
        elif stream == "delete":
            observer.delete_asked(at)
        elif stream in _STREAMS and "objects" in line:
            since = line.get("since")
            observer.take_list(stream, line["objects"], at, at if since is None else float(since))
        elif stream in _STREAMS and "resumed" in line:
            observer.resumed(stream, float(line["resumed"]), at)
        elif stream in _STREAMS and _is_event(line.get("event")):
            observer.take(stream, line["event"]["type"], line["event"]["object"], at)
    return observer


def _is_event(event: Any) -> bool:
    return (
        isinstance(event, dict)
        and event.get("type") in ("ADDED", "MODIFIED", "DELETED")
        and isinstance(event.get("object"), dict)
        and isinstance(event["object"].get("metadata"), dict)
    )
