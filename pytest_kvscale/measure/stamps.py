"""The API's time stamps (`metav1.Time`, `metav1.MicroTime`) as POSIX seconds."""

from __future__ import annotations

import datetime
from functools import lru_cache


@lru_cache(maxsize=4096)
def posix(stamp: str | None) -> float | None:
    """Seconds since 1970 of a stamp like `2021-11-01T08:00:04Z`; None if it is none."""
    if not stamp:
        return None
    try:
        return datetime.datetime.fromisoformat(stamp).timestamp()
    except ValueError:
        return None
