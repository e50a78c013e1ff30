"""Whole runs with faults of any kind at any moment: nothing hangs, nothing is left.

A few seeds; 300 of them: `tests/killing/every_seed.py` (tox -e chaos).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.chaos import LEVEL, Remains, play

FEW = 8


def check(found: Remains) -> None:
    """Settings as they were, nothing left, every VMI made once and accounted for."""
    assert found.spec == found.spec_before
    assert found.left == []
    assert len(found.made) == len(set(found.made))
    assert found.killed or set(found.made) <= set(found.accounted)
    assert len(found.accounted) in (0, LEVEL)


@pytest.mark.parametrize("seed", range(FEW))
def test_trouble_of_any_kind_leaves_nothing(tmp_path: Path, seed: int) -> None:
    check(play(tmp_path, seed))
