"""Randomness by seed and purpose."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pytest_kvscale.sim.draws import Draws


@given(st.integers(), st.text(max_size=8))
def test_a_draw_depends_on_seed_and_key_only(seed: int, key: str) -> None:
    first, second = Draws(seed), Draws(seed)
    second.uniform(0, 1, "something else")
    assert first.uniform(0, 1, key) == second.uniform(0, 1, key)
    assert first.uid(key) == second.uid(key)


def test_other_seeds_and_other_keys_draw_otherwise() -> None:
    values = {Draws(seed).uniform(0, 1, key) for seed in range(10) for key in "abc"}
    assert len(values) == 30


@given(st.integers(0, 1000), st.floats(0, 5))
def test_a_spread_stays_in_its_bounds(seed: int, relative: float) -> None:
    factor = Draws(seed).spread(relative, "x")
    assert 1 / (1 + relative) * 0.999999 <= factor <= (1 + relative) * 1.000001


def test_a_chance_comes_as_often_as_it_should() -> None:
    draws = Draws(0)
    assert 2800 < sum(draws.chance(0.3, index) for index in range(10_000)) < 3200
    assert not any(draws.chance(0, index) for index in range(1000))
    assert all(draws.chance(1, index) for index in range(1000))


def test_the_nth_time_counts_up_by_key() -> None:
    draws = Draws(0)
    assert [draws.nth("a"), draws.nth("a"), draws.nth("b")] == [0, 1, 0]


def test_a_suffix_has_five_characters_of_kubernetes() -> None:
    draws = Draws(0)
    suffixes = {draws.suffix("pod", index) for index in range(1000)}
    assert len(suffixes) > 990
    assert all(len(each) == 5 and each.isalnum() for each in suffixes)
