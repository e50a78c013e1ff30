"""How many VMIs one node takes, and how fast: a burst of each level, up to Running, and gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_kvscale.fixtures import SloCheck
    from pytest_kvscale.judge.verdict import DensityResult


@pytest.mark.density
def test_density(
    density_level: int, density_run: Callable[[int], DensityResult], slo: SloCheck
) -> None:
    """All VMIs run, in time, and leave nothing behind."""
    result = density_run(density_level)
    slo.check(result)
