"""300 whole runs with faults of any kind at any moment, in virtual time: tox -e chaos."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.chaos import play
from tests.cluster.test_chaos import check


@pytest.mark.parametrize("seed", range(300))
def test_trouble_of_any_kind_leaves_nothing(tmp_path: Path, seed: int) -> None:
    check(play(tmp_path, seed))
