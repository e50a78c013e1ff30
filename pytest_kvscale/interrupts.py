"""Ctrl-C and SIGTERM, beyond what a level does with them (`cluster.clock`).

SIGTERM, by which CI systems cancel a job, is taken for the first Ctrl-C. It never counts as the
second one, after which nothing is deleted any more: a system that sends both, or the controller
of xdist that passes an interrupt on, means the same thing twice.

Once a run is ending, a further Ctrl-C ends what waits; it does not tear apart what is written.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupts:
    """Listens from `begin` to `end`, where nobody else does."""

    def __init__(self) -> None:
        self._listens = False
        self._ending = False
        self._again = 0
        """Ctrl-Cs since the run is ending, while nothing waited."""

    def begin(self) -> None:
        """Take SIGTERM for Ctrl-C from here on."""
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._terminate)
            self._listens = True

    def ending(self) -> None:
        """The run is ending: let it."""
        self._ending = True
        if self._listens and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._once_more)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Raise KeyboardInterrupt for a further Ctrl-C, also for one that came before."""
        held = signal.getsignal(signal.SIGINT) == self._once_more
        if held:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            if self._again:
                self._again = 0
                raise KeyboardInterrupt
            yield
        finally:
            if held:
                signal.signal(signal.SIGINT, self._once_more)

    def end(self) -> None:
        """Leave signals as they were."""
        if self._listens:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._listens = False
        if signal.getsignal(signal.SIGINT) == self._once_more:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        on_interrupt = signal.getsignal(signal.SIGINT)
        if not self._ending and callable(on_interrupt):
            self._ending = True
            on_interrupt(number, frame)

    def _once_more(self, number: int, frame: FrameType | None) -> None:
        self._again += 1
        if self._again > 1:
            signal.default_int_handler(number, frame)  # Something hangs.
