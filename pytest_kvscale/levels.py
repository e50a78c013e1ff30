"""The levels of a run: a rest, a canary before the first one, each level, and what is kept of it.

This is done by the process that runs the tests: pytest's own, or one worker of xdist. What it
measured is written after each level; level reports travel with pytest's own test reports, and lie
in a folder as well for a controller whose worker was interrupted.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any

from pytest_kvscale import durations
from pytest_kvscale.cluster import recovery
from pytest_kvscale.cluster.journal_level import Noted
from pytest_kvscale.density import LevelPlan, LevelRun, stall_after
from pytest_kvscale.judge.objectives import NO_OBJECTIVES, Objectives
from pytest_kvscale.judge.verdict import DensityResult, judge
from pytest_kvscale.load.pacing import sleep_until
from pytest_kvscale.measure.figures import occupancy
from pytest_kvscale.report.results import level_object

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_kvscale.cluster.templates import Planned
    from pytest_kvscale.session import Run

Json = dict[str, Any]


class RunStoppedError(Exception):
    """The run cannot go on; says why."""


class AbandonedError(KeyboardInterrupt):
    """A second Ctrl-C: what was created is still there; says how to remove it."""


def level_label(level: int, times: int) -> str:
    """What a level is called in files and reports: `400`, and `400-2` the second time."""
    return str(level) if times == 1 else f"{level}-{times}"


class Levels:
    """Runs the levels of a run, one after the other."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.reports: list[Json] = []
        """Level reports so far, as plain data: the level's object, its plot's data, explanation."""
        self._last_end: float | None = None
        self._rested = 0.0
        """Seconds of rest since the last level."""
        self._times: collections.Counter[int] = collections.Counter()
        """How often each level was run."""
        self._canary: Json | None = None
        self._stopped = ""

    def cool_down(self, level: int | None) -> None:
        """Let the cluster rest since the end of the last level; nothing if there was none."""
        run = self._run
        if self._last_end is None or self._stopped:
            return
        over = self._last_end + run.settings.cooldown
        if run.settings.cooldown and not self._rested:
            before = "" if level is None else f" before level {level}"
            run.tell(
                f"resting {durations.write(run.settings.cooldown)}{before} (--kvscale-cooldown)"
            )
        self._rested += run.connection.run(sleep_until(over))

    def run_level(self, level: int, objectives: Objectives) -> DensityResult:
        """Run one level, judge it, and write it down, however it ends; then raise what ended it.

        Raises `RunStoppedError` if the canary failed or our turn is lost.
        """
        run = self._run
        run.begin()
        self._prove_the_way()
        self.cool_down(level)
        cooldown = {
            "required": 0.0 if self._last_end is None else run.settings.cooldown,
            "waited": round(self._rested, 3), "settled": None, "by": "time",
        }  # fmt: skip
        self._times[level] += 1
        label = level_label(level, self._times[level])
        recording = None
        if run.settings.record:
            recording = run.folder.make() / f"{label}-recording.jsonl.gz"
        plan = self._plan(level, run.templates.level(level, run.place), recording)
        notes = self._notes(f"level {label}", plan)
        running = LevelRun(run.connection.client, plan, run.take_turn(wait=False), notes)
        running.observer.dated = run.connection.clock.dated
        problem = ""
        try:
            run.connection.run(running.run())
        except KeyboardInterrupt:
            problem = "the level was interrupted"
            if running.end is None:
                run.undoing.abandoned = True
                raise AbandonedError(self._left(running)) from None
            raise
        except Exception as broken:
            problem = f"the level broke off: {type(broken).__name__}: {broken}"
            raise
        finally:
            self._last_end, self._rested = running.end, 0.0
            result = judge(
                level,
                running.figures(),
                objectives,
                # Where no pace was asked for, nothing can fall behind it.
                None if plan.pace is None else run.settings.max_lag,
                running.ended,
                running.problem or problem,
                running.harness(),
                cooldown,
                running.left(),
            )
            self._keep(result, running, label)
        return result

    def _notes(self, what: str, plan: LevelPlan) -> Noted:
        run = self._run
        return Noted(
            run.undoing.journal, what, run.namespace, run.makes_namespace, plan.objects
        )  # fmt: skip

    def _plan(
        self, level: int, objects: tuple[Planned, ...], recording: Path | None = None
    ) -> LevelPlan:
        settings, facts = self._run.settings, self._run.facts
        return LevelPlan(
            level=level,
            place=self._run.place,
            objects=objects,
            qps=settings.qps,
            burst=settings.burst,
            timeout=settings.timeout,
            stall=stall_after(settings.stall, facts.qemu_timeout),
            delete_timeout=settings.delete_timeout,
            openshift=facts.openshift,
            recording=recording,
        )

    # The canary -----------------------------------------------------------------------------

    def _prove_the_way(self) -> None:
        """One VMI of each template, not measured: it warms the images and proves the way."""
        run = self._run
        turn = run.take_turn(wait=False)
        if turn.lost.done():
            self._stopped = self._stopped or turn.lost.result()
        if self._stopped:
            raise RunStoppedError(f"nothing was created: {self._stopped}")
        if self._canary is not None:
            return
        objects = run.templates.canary(run.place)
        number = sum(each.vmis for each in objects)
        plan = self._plan(number, objects)
        running = LevelRun(run.connection.client, plan, turn, self._notes("the canary", plan))
        interrupted = False
        try:
            run.connection.run(running.run())
        except KeyboardInterrupt:
            interrupted = True
            if running.end is None:
                run.undoing.abandoned = True
                raise AbandonedError(self._left(running)) from None
            raise
        finally:
            result = self._keep_canary(running, number, interrupted)
        if result.verdict != "pass":
            classes = ", ".join(result.failures) or result.reasons[0]
            self._stopped = f"the canary failed: {classes}"
            raise RunStoppedError(f"{self._stopped}\n{result.explanation('canary')}")

    def _keep_canary(self, running: LevelRun, number: int, interrupted: bool) -> DensityResult:
        problem = running.problem or ("it was interrupted" if interrupted else "")
        figures = running.figures()
        result = judge(number, figures, NO_OBJECTIVES, None, running.ended, problem,
                       left=running.left())  # fmt: skip
        self._canary = {
            "vmis": number,
            "verdict": result.verdict,
            "reasons": list(result.reasons),
            "running_s": figures.phases["Running"]["max"],
            "gone_s": figures.deletion["max"],
            "failures": dict(result.failures),
        }
        self.write_results()
        return result

    # What is kept ---------------------------------------------------------------------------

    def _keep(self, result: DensityResult, running: LevelRun, label: str) -> None:
        figures = result.figures
        sent = min((each.sent for each in figures.timelines if each.sent is not None), default=None)
        end = running.observer.level_end
        report = {
            "label": label,
            "level": level_object(result),
            "explanation": "" if result.verdict == "pass" else result.explanation(),
            "occupancy": occupancy(figures.timelines),
            "end": None if sent is None or end is None else round(end - sent, 3),
            "run": self._run_object(),
            "cluster": self._run.cluster_object(),
        }
        self.reports.append(report)
        self._run.folder.write_level(result, label)
        self._run.folder.write_report(len(self.reports), report)
        self.write_results()

    def _run_object(self) -> Json:
        return {**self._run.run_object(), "canary": self._canary}

    def write_results(self) -> None:
        """Write `results.json` with all levels so far."""
        levels = [each["level"] for each in self.reports]
        self._run.folder.write_results(self._run_object(), self._run.cluster_object(), levels)

    def _left(self, running: LevelRun) -> str:
        """What is left when nobody waits for the deletion any more."""
        left = running.left()
        more = f", and {len(left) - 3} more" if len(left) > 3 else ""
        what = "; ".join(left[:3]) + more if left else "nothing was seen, but look"
        run = self._run
        return (
            f"interrupted twice: what this run created was not seen to go: {what}. To remove it: "
            + recovery.command(run.namespace, run.id, run.makes_namespace)
        )
