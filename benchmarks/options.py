"""What the command line of `python -m benchmarks` asks for."""

from __future__ import annotations

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Options:
    """For all benchmarks; each takes what is for it."""

    kubeconfig: Path | None = None
    """The cluster for those that need one of another process; None: they start one themselves."""
