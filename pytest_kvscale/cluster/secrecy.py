"""Keeping secrets out of what is shown.

pytest can print the local variables of every frame of a traceback (`--showlocals`). Code that
handles secrets in plain text therefore lets no exception pass with its frames: `sealed` and
`sealed_async` raise it anew outside, with nothing but its text.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class ShutError(Exception):
    """Something unforeseen went wrong where secrets are handled; says what kind, and where."""


def sealed(work: Callable[P, T]) -> Callable[P, T]:
    """Let errors of the function out as their text only, without its frames."""

    @functools.wraps(work)
    def shut(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return work(*args, **kwargs)
        except Exception as problem:  # noqa: BLE001 - raised anew below
            again = _bare(problem)
        raise again

    return shut


def sealed_async(
    work: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[P, Coroutine[Any, Any, T]]:
    """`sealed`, for a coroutine function."""

    @functools.wraps(work)
    async def shut(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await work(*args, **kwargs)
        except Exception as problem:  # noqa: BLE001 - raised anew below
            again = _bare(problem)
        raise again

    return shut


def _bare(problem: Exception) -> Exception:
    """The same error without traceback and causes; one whose text we did not write loses it."""
    if type(problem).__module__.partition(".")[0] == __name__.partition(".")[0]:
        return type(problem)(*problem.args)
    place = problem.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = "" if place is None else f" ({place.tb_frame.f_code.co_filename}:{place.tb_lineno})"
    return ShutError(f"{type(problem).__name__}{where}")
