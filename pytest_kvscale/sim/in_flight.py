"""How many requests the API works on at a time; what comes on top is shed with a 429.

As kube-apiserver's `--max-requests-inflight` and `--max-mutating-requests-inflight`: those that
read and those that write are counted apart, and watches are not counted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pytest_kvscale.sim import errors

_WRITING = ("create", "update", "patch", "delete", "deletecollection")
_COME_BACK_IN = 1
"""Seconds that a client is told to wait."""


class InFlight:
    """The requests that are being worked on."""

    def __init__(self, reading: int, writing: int) -> None:
        self._most = {False: reading, True: writing}
        self._now = {False: 0, True: 0}

    @contextlib.contextmanager
    def hold(self, verb: str) -> Iterator[None]:
        """Count a request while it is worked on; 429 if there are too many. 0: no limit."""
        if verb == "watch":
            yield
            return
        writes = verb in _WRITING
        if 0 < self._most[writes] <= self._now[writes]:
            raise errors.too_many_requests(
                _COME_BACK_IN, "Too many requests, please try again later."
            )
        self._now[writes] += 1
        try:
            yield
        finally:
            self._now[writes] -= 1
