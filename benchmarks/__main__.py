"""`python -m benchmarks [NAME...]`: what the project's parts cost, as figures of this machine.

Each module of this package with a function `measure` is one benchmark. Ratios of one session can
be compared, absolute figures only on one machine.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path

import benchmarks
from benchmarks.options import Options


def main() -> None:
    """Print the figures of all benchmarks, or of those that are named."""
    known = _all()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}")
    parser.add_argument(
        "--kubeconfig", type=Path, metavar="FILE",
        help="the cluster that VMIs are created on (default: an embedded one of its own process)",
    )  # fmt: skip
    given = parser.parse_args()
    for name in given.names:
        if name not in known:
            parser.error(f"there is no benchmark {name!r}: expected {', '.join(known)}")
    for name in given.names or known:
        known[name](Options(kubeconfig=given.kubeconfig))


def _all() -> dict[str, Callable[[Options], None]]:
    found = {}
    for module in pkgutil.iter_modules(benchmarks.__path__):
        if module.name != "__main__":
            measure = getattr(importlib.import_module(f"benchmarks.{module.name}"), "measure", None)
            if measure is not None:
                found[module.name] = measure
    return found


if __name__ == "__main__":
    main()
