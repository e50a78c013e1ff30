"""Whether two runs can be compared: all that makes them so, readable, with what differs.

A fingerprint is a mapping of plain names to plain values (`versions.kubevirt`, `node.cpu`,
`template.1`), and a short digest of it for a glance. What may differ is the reader's to say: an
upgrade compares two runs whose `versions.kubevirt` does.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

ABSENT = "absent"
_DIGITS = 16
_MOST_LINES = 6
"""Lines of a template that are shown where it differs."""
_LONGEST = 200
"""Characters of a line or a value that are shown."""
_MOST_COMPARED = 50_000
"""Characters of a text whose lines are compared; more take for ever, if somebody wants it so."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """One thing that is not the same in two runs."""

    name: str
    before: Any
    """`ABSENT`: it was not there."""
    after: Any

    def text(self) -> str:
        """One line; of long texts the lines that differ."""
        both = f"{self.before}{self.after}"
        if "\n" not in both or len(both) > _MOST_COMPARED:
            return f"{self.name}: {_show(self.before)} -> {_show(self.after)}"
        lines = [
            line
            for line in difflib.unified_diff(
                str(self.before).splitlines(), str(self.after).splitlines(), lineterm="", n=0
            )
            if line[:3] not in ("---", "+++") and not line.startswith("@@")
        ]
        more = f", and {len(lines) - _MOST_LINES} more lines" if len(lines) > _MOST_LINES else ""
        return f"{self.name}: " + " | ".join(map(_short, lines[:_MOST_LINES])) + more


def fingerprint(**what: Any) -> dict[str, Any]:
    """All that makes two runs comparable, flat: nested mappings and lists become dotted names."""
    return dict(sorted(_flat(what, "")))


def digest(mapping: Mapping[str, Any]) -> str:
    """A short text that is the same for the same fingerprint."""
    text = json.dumps(mapping, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def differences(
    before: Mapping[str, Any], after: Mapping[str, Any], may_differ: Iterable[str] = ()
) -> list[Difference]:
    """What is not the same in two fingerprints, by name.

    `may_differ` names what does not count: `versions.kubevirt`, or a pattern (`settings.*`).
    """
    allowed = tuple(may_differ)
    return [
        Difference(name, before.get(name, ABSENT), after.get(name, ABSENT))
        for name in sorted({*before, *after})
        if before.get(name, ABSENT) != after.get(name, ABSENT)
        and not any(fnmatch.fnmatchcase(name, pattern) for pattern in allowed)
    ]


def _flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, each in value.items():
            yield from _flat(each, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple) and value:
        for number, each in enumerate(value, 1):
            yield from _flat(each, f"{name}.{number}")
    else:
        # An empty mapping or list is told from none at all, and stays plain data.
        yield name, None if isinstance(value, Mapping | list | tuple) else value


def _show(value: Any) -> str:
    return _short(value if isinstance(value, str) else json.dumps(value, default=str))


def _short(text: str) -> str:
    """One line, of a length that can be read."""
    line = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return line.replace("\n", " | ")
