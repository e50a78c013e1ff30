"""The levels of a run: a rest, a canary before the first one, each level, and what is kept of it.

This is done by the process that runs the tests: pytest's own, or one worker of xdist. What it
measured is written after each level; level reports travel with pytest's own test reports, and lie
in a folder as well for a controller whose worker was interrupted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_kvscale import durations
from pytest_kvscale.cluster import leftovers
from pytest_kvscale.density import LevelPlan, LevelRun, stall_after
from pytest_kvscale.judge.objectives import NO_OBJECTIVES, Objectives
from pytest_kvscale.judge.verdict import DensityResult, judge
from pytest_kvscale.load.pacing import sleep_until
from pytest_kvscale.measure.figures import occupancy
from pytest_kvscale.report.results import level_object

if TYPE_CHECKING:
    from pytest_kvscale.session import Run

Json = dict[str, Any]


class RunStoppedError(Exception):
    """The run cannot go on; says why."""


class AbandonedError(KeyboardInterrupt):
    """A second Ctrl-C: what was created is still there; says how to remove it."""


class Levels:
    """Runs the levels of a run, one after the other."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.reports: list[Json] = []
        """Level reports so far, as plain data: the level's object, its plot's data, explanation."""
        self._last_end: float | None = None
        self._cooldown: Json = {}
        self._canary: Json | None = None
        self._stopped = ""

    def cool_down(self, level: int | None) -> None:
        """Let the cluster rest before a level, since the end of the last one."""
        run = self._run
        required = run.settings.cooldown if self._last_end is not None else 0.0
        waited = 0.0
        if self._last_end is not None and not self._stopped:
            if required:
                before = "" if level is None else f" before level {level}"
                run.tell(f"resting {durations.write(required)}{before} (--kvscale-cooldown)")
            waited = run.connection.run(sleep_until(self._last_end + required))
        self._cooldown = {
            "required": required, "waited": round(waited, 3), "settled": None, "by": "time",
        }  # fmt: skip

    def run_level(self, level: int, objectives: Objectives) -> DensityResult:
        """Run one level, judge it, and write it down; on Ctrl-C too, before that is passed on.

        Raises `RunStoppedError` if the canary failed or our turn is lost.
        """
        run = self._run
        run.begin()
        self._prove_the_way()
        recording = None
        if run.settings.record:
            recording = run.folder.make() / f"{level}-recording.jsonl.gz"
        plan = self._plan(level, recording=recording)
        running = LevelRun(run.connection.client, plan, run.take_turn(wait=False))
        interrupted = False
        run.folder.note_under_way({"level": level})
        try:
            run.connection.run(running.run())
        except KeyboardInterrupt:
            interrupted = True
            if running.end is None:
                raise AbandonedError(self._left(running)) from None
            raise
        finally:
            self._last_end = running.end
            result = self._judge(running, level, objectives, interrupted)
            self._keep(result, running)
            if running.end is not None:
                run.folder.note_under_way(None)
        return result

    def _plan(self, level: int, **more: Any) -> LevelPlan:
        settings, facts, place = self._run.settings, self._run.facts, self._run.place
        templates = self._run.templates
        return LevelPlan(
            **{
                "level": level,
                "place": place,
                "templates": templates,
                "shares": tuple(templates.share_out(level, place)),
                "qps": settings.qps,
                "burst": settings.burst,
                "timeout": settings.timeout,
                "stall": stall_after(settings.stall, facts.qemu_timeout),
                "delete_timeout": settings.delete_timeout,
                "openshift": facts.openshift,
                **more,
            }
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
        shares = tuple(run.templates.one_each(run.place))
        number = sum(vmis for _, vmis in shares)
        plan = self._plan(number, shares=shares, name="canary")
        running = LevelRun(run.connection.client, plan, turn)
        run.folder.note_under_way({"canary": number})
        interrupted = False
        try:
            run.connection.run(running.run())
        except KeyboardInterrupt:
            interrupted = True
            if running.end is None:
                raise AbandonedError(self._left(running)) from None
            raise
        finally:
            if running.end is not None:
                run.folder.note_under_way(None)
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

    def _judge(
        self, running: LevelRun, level: int, objectives: Objectives, interrupted: bool
    ) -> DensityResult:
        problem = running.problem or ("the level was interrupted" if interrupted else "")
        return judge(
            level,
            running.figures(),
            objectives,
            self._run.settings.max_lag,
            running.ended,
            problem,
            running.harness(),
            self._cooldown,
            running.left(),
        )

    def _keep(self, result: DensityResult, running: LevelRun) -> None:
        figures = result.figures
        sent = min((each.sent for each in figures.timelines if each.sent is not None), default=None)
        end = running.observer.level_end
        report = {
            "level": level_object(result),
            "explanation": "" if result.verdict == "pass" else result.explanation(),
            "occupancy": occupancy(figures.timelines),
            "end": None if sent is None or end is None else round(end - sent, 3),
            "run": self._run_object(),
            "cluster": self._run.cluster_object(),
        }
        self.reports.append(report)
        self._run.folder.write_level(result)
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
            + leftovers.command(run.namespace, run.id, run.settings.namespace is None)
        )
