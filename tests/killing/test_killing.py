"""Runs that are killed leave nothing, in real time: a few moments.

Every moment of the journal, and 200 at random: `every_moment.py` (tox -e killing).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.killing.doomed import Ground, undone_by_the_next
from tests.standalone import running


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("ground")
    with running(folder) as cluster:
        yield Ground(folder, cluster)


def test_settings_of_a_killed_run_are_put_back_from_another_machine(ground: Ground) -> None:
    code, output = ground.run("kill:3")
    assert code == -9, output
    assert ground.spec != ground.undisturbed
    undone_by_the_next(ground, "elsewhere")


def test_the_next_run_undoes_what_a_killed_one_left(ground: Ground) -> None:
    code, output = ground.run("kill:15")
    assert code == -9, output
    assert ground.left()
    ground.meddle()
    code, output = ground.run()
    assert code == 0, output
    assert "did not finish: undoing level 3 and 10 KubeVirt settings" in output
    assert (ground.left(), ground.spec) == ([], ground.undisturbed)


def test_what_was_kept_on_purpose_is_removed_by_recover_only(ground: Ground) -> None:
    slo = ground.folder / "strict.yaml"
    slo.write_text("default: {Running p95: 1ms}", encoding="utf-8")
    code, output = ground.run("none:0", "--kvscale-keep", f"--kvscale-slo={slo}")
    assert code == 1, output
    assert "its objects are kept in the namespace kvscale-" in output
    assert len(ground.left()) == 8  # VMIs, pods, namespace, journal
    assert ground.spec == ground.undisturbed
    code, output = ground.run()
    assert code == 4, output
    assert "kept the objects of level 3 in the namespace" in output
    assert "3 VMIs that are not of this run" in output
    undone_by_the_next(ground, "here")
