"""How far equal runs of this cluster lie apart: one level, again and again, nothing changed.

Level 100 ten times, unless `--kvscale-levels` and `--kvscale-repeat` say otherwise. After the last
run a test of the plugin's own, `calibration[100]`, judges whether it can be used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_kvscale.fixtures import SloCheck
    from pytest_kvscale.judge.verdict import DensityResult


@pytest.mark.density
@pytest.mark.calibration
def test_equal_runs(
    density_level: int, density_run: Callable[[int], DensityResult], slo: SloCheck
) -> None:
    """All VMIs run, and leave nothing behind: else the run is none to learn noise from."""
    slo.check(density_run(density_level))
