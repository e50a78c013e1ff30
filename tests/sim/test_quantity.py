"""Kubernetes quantities."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvscale.sim import quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("48", 48),
        ("10m", Fraction(1, 100)),
        ("1.5", Fraction(3, 2)),
        (".5", Fraction(1, 2)),
        ("128Gi", 128 * 2**30),
        ("50M", 50_000_000),
        ("1e3", 1000),
        ("12E2", 1200),
        ("305172Ki", 312_496_128),
    ],
)
def test_quantities_are_exact(text: str, value: Fraction) -> None:
    assert quantity.parse(text) == value


@pytest.mark.parametrize("text", ["", "abc", "1 Gi", "1GiB", "--1", "1.2.3", None])
def test_what_is_no_quantity_is_an_error(text: object) -> None:
    with pytest.raises(ValueError, match="is no quantity"):
        quantity.parse(text)


@given(st.integers(0, 10**6))
def test_milli_cores_round_up_as_the_scheduler_does(micro: int) -> None:
    assert quantity.milli(f"{micro}u") == -(-micro // 1000)
