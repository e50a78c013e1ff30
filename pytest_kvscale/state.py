"""Where the run of this pytest session is kept."""

from __future__ import annotations

import pytest

from pytest_kvscale.session import Run

RUN = pytest.StashKey[Run]()


def run_of(config: pytest.Config) -> Run:
    """The run of this pytest session."""
    return config.stash[RUN]
