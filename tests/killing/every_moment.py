"""Runs that are killed, interrupted or cut off at any moment leave nothing, in real time.

This takes half an hour: tox -e killing. `test_killing.py` tries a few moments.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.killing.doomed import STEPS, Ground, undone_by_the_next
from tests.standalone import running

LONGEST = 10.0
"""Seconds within which a run is killed at random; a whole one takes a little less."""
every_step = pytest.mark.parametrize("step", range(1, STEPS + 1))


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("ground")
    with running(folder) as cluster:
        yield Ground(folder, cluster)


@every_step
def test_killed(ground: Ground, step: int) -> None:
    code, output = ground.run(f"kill:{step}")
    assert code == -9, output
    # Every other time from a machine that knows nothing but what the cluster says.
    undone_by_the_next(ground, "here" if step % 4 > 1 else "elsewhere")


@every_step
def test_an_api_that_is_unreachable_for_a_time(ground: Ground, step: int) -> None:
    code, output = ground.run(f"unreachable:{step}")
    assert code in (0, 1), output
    assert (ground.left(), ground.spec) == ([], ground.undisturbed), (
        ground.left(),
        ground.spec,
        output,
    )


@every_step
def test_one_ctrl_c(ground: Ground, step: int) -> None:
    code, output = ground.run(f"interrupt:{step}")
    assert code == 2, output
    assert "Traceback" not in output
    assert (ground.left(), ground.spec) == ([], ground.undisturbed), (
        ground.left(),
        ground.spec,
        output,
    )


@every_step
def test_two_ctrl_c(ground: Ground, step: int) -> None:
    code, output = ground.run(f"interrupt-twice:{step}")
    assert code == 2, output
    assert "Traceback" not in output
    undone_by_the_next(ground, "here")


@pytest.mark.parametrize("step", [2, 6, 12])
def test_two_runs_after_a_killed_one(ground: Ground, step: int) -> None:
    """Both find what it left; they take turns at undoing it, and at running."""
    code, output = ground.run(f"kill:{step}")
    assert code == -9, output
    ground.meddle()
    for code, output in ground.run_two():
        assert code == 0, output
    assert (ground.left(), ground.spec) == ([], ground.undisturbed)


@pytest.mark.parametrize("seed", range(200))
def test_killed_at_a_moment_at_random(ground: Ground, seed: int) -> None:
    ground.run(f"time:{random.Random(seed).uniform(0.5, LONGEST):.2f}")
    undone_by_the_next(ground, "here" if seed % 2 else "elsewhere")
