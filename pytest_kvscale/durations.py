"""Durations as people write them: `90`, `90s`, `5m`, `1h30m`, `250ms`."""

from __future__ import annotations

import re

_DURATION = re.compile(
    r"(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m(?!s))?(?:(?P<s>\d+(?:\.\d+)?)s)?"
    r"(?:(?P<ms>\d+(?:\.\d+)?)ms)?"
)
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def parse(text: str) -> float:
    """Seconds in a duration; a bare number is seconds. Raises ValueError with what to write."""
    text = text.strip()
    if re.fullmatch(r"\d+(?:\.\d+)?", text):
        return float(text)
    match = _DURATION.fullmatch(text)
    if not text or match is None or not any(match.groups()):
        raise ValueError(f"{text!r} is no duration: write e.g. 90, 90s, 5m or 1h30m")
    return sum(float(value) * _UNITS[unit] for unit, value in match.groupdict().items() if value)


def write(seconds: float) -> str:
    """A duration for people: `42.1s`, `5m30s`, `1h`."""
    if seconds < 60:
        return f"{seconds:.3g}s" if seconds < 10 else f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "m"), (rest, "s"))
    return "".join(f"{value}{unit}" for value, unit in parts if value)
