"""What is known of a run's levels before they begin, and those that cannot fit."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pytest_kvscale.cluster import tuning
from pytest_kvscale.cluster.tuning import TuningError
from pytest_kvscale.errors import ConfigurationError

if TYPE_CHECKING:
    from pytest_kvscale.cluster.preflight import Plan, Preflight
    from pytest_kvscale.session import Run

Json = dict[str, Any]


class Foreseeing:
    """The preflight of a run."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @functools.cached_property
    def preflight(self) -> Preflight:
        """Looks at the cluster; a canary's pods teach it what a VMI takes."""
        from pytest_kvscale.cluster.preflight import Preflight, Target

        run = self._run
        target = Target(
            node=run.facts.node["name"],
            namespace=run.namespace,
            there=not run.makes_namespace,
            templates=run.templates,
            tuning=tuning.load(run.tuning_name),
        )
        return Preflight(run.connection.client, target)

    def plan(self, level: int) -> Plan:
        """What is known of a level now. Raises as `Preflight.plan`."""
        run = self._run
        return run.connection.run(self.preflight.plan(level, run.templates.canary(run.place)))

    def lines(self, levels: Sequence[int]) -> Iterator[str]:
        """What is known of all levels, for people.

        Raises `ConfigurationError` if the cluster does not answer, or the tuning cannot be.
        """
        run = self._run
        sample = run.templates.canary(run.place)
        more: list[str] = []
        for level in levels:
            try:
                plan = run.connection.ask(self.preflight.plan(level, sample))
            except TuningError as problem:
                raise ConfigurationError(str(problem)) from None
            yield f"plan: {plan.forecast.text()}"
            more = [*(wall.arithmetic() for wall in plan.forecast.walls), *plan.notes]
        yield from (f"plan: {each}" for each in more)
