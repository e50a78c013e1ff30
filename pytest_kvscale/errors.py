"""The one exception for a user's mistake; any room may raise it, the plugin shows it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConfigurationError(Exception):
    """Something the user gave cannot be used: an option, a file, a cluster.

    Its text is one sentence that says what, where and what was expected. pytest shows it without
    a traceback and ends with exit code 4.
    """


def nearest(word: str, known: Iterable[object]) -> str:
    """`" (did you mean x?)"` for the known word most like this one, or nothing."""
    close = difflib.get_close_matches(word, [str(each) for each in known], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
