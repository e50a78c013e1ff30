"""Did the upgrade of KubeVirt make it worse? The same levels before and after it, compared.

    pytest suites/upgrade --kvscale-upgrade-to VERSION --kvscale-repeat 5

What is compared has tests of its own, after these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_kvscale.fixtures import SloCheck, UpgradeCheck
    from pytest_kvscale.judge.verdict import DensityResult
    from pytest_kvscale.upgrade_tests import Step


@pytest.mark.density
def test_before(
    kv_before: None,
    density_level: int,
    density_run: Callable[[int], DensityResult],
    slo: SloCheck,
) -> None:
    """Before the upgrade all VMIs run, in time, and leave nothing behind."""
    slo.check(density_run(density_level))


def test_upgrade(kv_upgrade: UpgradeCheck, kv_upgrade_step: Step) -> None:
    """KubeVirt comes to be of the other version, and VMIs that run meanwhile are not lost."""
    kv_upgrade.check(kv_upgrade_step)


@pytest.mark.density
def test_after(
    kv_after: None,
    density_level: int,
    density_run: Callable[[int], DensityResult],
    slo: SloCheck,
) -> None:
    """After it they do so too."""
    slo.check(density_run(density_level))
