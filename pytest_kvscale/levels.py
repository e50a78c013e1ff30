"""The levels of a run: a rest, a canary before the first one, each level, and what is kept of it.

This is done by the process that runs the tests: pytest's own, or one worker of xdist. What it
measured is written after each level; level reports travel with pytest's own test reports, and lie
in a folder as well for a controller whose worker was interrupted.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from pytest_kvscale.cluster import recovery
from pytest_kvscale.cluster.client import ApiError, LostConnectionError
from pytest_kvscale.cluster.cooldown import NotSettledError
from pytest_kvscale.cluster.journal_level import Noted
from pytest_kvscale.collection import level_label
from pytest_kvscale.density import LevelPlan, LevelRun, stall_after
from pytest_kvscale.judge.objectives import NO_OBJECTIVES, Objectives
from pytest_kvscale.judge.verdict import CANNOT_FIT, CHANGED, KEPT, DensityResult, judge
from pytest_kvscale.measure.counted import NOT_COUNTED
from pytest_kvscale.measure.figures import occupancy
from pytest_kvscale.report.results import SCHEMA, level_object
from pytest_kvscale.resting import Resting

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from pytest_kvscale.cluster.preflight import Plan
    from pytest_kvscale.cluster.templates import Planned
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
        self._resting = Resting(run)
        self._labels: set[str] = set()
        """Of the levels that were run."""
        self._tested = 0
        """How many levels' tests have ended."""
        self.beside: Json = {}
        """What else stands in the results, by its key."""
        self.summary: list[str] = []
        """What else stands in the summary: sections in Markdown."""
        self._canary: Json | None = None
        self._stopped = ""

    def cool_down(self, level: int | None) -> None:
        """Let the cluster rest since the end of the last level; nothing if there was none."""
        if not self._stopped:
            self._resting.rest(level)

    def run_level(self, level: int, objectives: Objectives, times: int = 1) -> DensityResult:
        """Run one level, judge it, and write it down, however it ends; then raise what ended it.

        `times` says which of its runs it is, as in the id of its test. Raises `RunStoppedError` if
        the canary failed or our turn is lost.
        """
        run = self._run
        run.begin()
        self._go_on()
        self._rest(level)
        foreseen = self._foresee(level)
        if self._canary is None and not self._is_refused(foreseen):
            self._resting.begin()
            self._prove_the_way()
            foreseen = self._foresee(level)
        label = self._label(level, times)
        if self._is_refused(foreseen):
            return self._refuse(level, label, foreseen, objectives)
        doubts = self._drift("before")
        cooldown = self._resting.as_json()
        objects = run.templates.level(level, run.place)
        plan = dataclasses.replace(self._plan(level, objects, self._recording(label)), label=label)
        if run.settings.keep:
            plan = dataclasses.replace(plan, keep_if=lambda: self._failed(running, objectives))
        notes = self._notes(f"level {label}", plan)
        running = LevelRun(run.connection.client, plan, run.take_turn(wait=False), notes, run.tell)
        running.observer.dated = run.connection.clock.dated
        meter, counted = run.meter(), NOT_COUNTED
        run.connection.run(meter.begin())
        problem = ""
        try:
            run.connection.run(running.run())
            doubts += self._drift("after")
            figures = running.figures()
            work = meter.end(running.observer, figures.clocks, figures.created)
            counted = run.connection.run(work)
        except KeyboardInterrupt:
            problem = "the level was interrupted"
            if running.is_abandoned:
                run.undoing.abandoned = True
                raise AbandonedError(self._left(running)) from None
            raise
        except Exception as broken:
            problem = f"the level broke off: {type(broken).__name__}: {broken}"
            raise
        finally:
            # Where no pace was asked for, nothing can fall behind it.
            max_lag = None if plan.pace is None else run.settings.max_lag
            problem = running.problem or problem
            kept = self._say_kept(level) if running.kept else ""
            running.note_judged(max_lag=max_lag, problem=problem, doubts=doubts, kept=kept)
            result = judge(
                level,
                running.figures(),
                objectives,
                max_lag,
                running.ended,
                problem,
                running.harness(),
                cooldown,
                () if running.kept else running.left(),
                doubts,
                kept,
                counted,
            )
            self._keep(result, running, label, foreseen)
            self._resting.ended(running.end)
        return result

    def _label(self, level: int, times: int) -> str:
        """What a run of a level is called: as its test, or by a number that no test has.

        Those of the two sides of an upgrade are told apart: `before-400`, `after-400`.
        """
        side = self._run.upgrading.side
        prefix = "" if side is None else f"{side}-"
        label, beyond = prefix + level_label(level, times), max(times, self._run.settings.repeat)
        while label in self._labels:
            beyond += 1
            label = prefix + level_label(level, beyond)
        self._labels.add(label)
        return label

    def _recording(self, label: str) -> Path | None:
        """Where a level is recorded, if it is."""
        run = self._run
        if not run.settings.record:
            return None
        return run.folder.make() / f"{label}-recording.jsonl.gz"

    @staticmethod
    def _failed(running: LevelRun, objectives: Objectives) -> bool:
        """Whether a level has failed before anything of it is deleted."""
        figures = dataclasses.replace(running.figures(), left_behind=0)
        known = objectives.before_deletion()
        return judge(running.level, figures, known).verdict == "fail"

    def _say_kept(self, level: int) -> str:
        """Nothing more can run beside what is kept."""
        run = self._run
        where = f"{KEPT} {run.namespace} (--kvscale-keep)"
        self._stopped = f"level {level} failed, and {where}"
        return f"{where}: python -m pytest_kvscale recover removes them"

    # Before it begins -----------------------------------------------------------------------

    def _go_on(self) -> None:
        """Raise `RunStoppedError` if nothing more may be created."""
        turn = self._run.take_turn(wait=False)
        if turn.lost.done():
            self._stopped = self._stopped or turn.lost.result()
        if self._stopped:
            raise RunStoppedError(f"nothing was created: {self._stopped}")

    def _rest(self, level: int) -> None:
        try:
            self.cool_down(level)
        except NotSettledError as problem:
            raise RunStoppedError(str(problem)) from None

    def _foresee(self, level: int) -> Plan:
        try:
            return self._run.foreseeing.plan(level)
        except (ApiError, LostConnectionError, TimeoutError) as problem:
            raise RunStoppedError(
                f"nothing was created: the API was lost: {problem or 'no answer in time'}"
            ) from None

    def _is_refused(self, foreseen: Plan) -> bool:
        return foreseen.forecast.is_refused and not self._run.settings.force

    def _refuse(
        self, level: int, label: str, foreseen: Plan, objectives: Objectives
    ) -> DensityResult:
        """A level that cannot fit fails at once, and says why."""
        run = self._run
        running = LevelRun(run.connection.client, self._plan(level, ()), run.take_turn(wait=False))
        problem = f"{foreseen.forecast.text()} (--kvscale-force runs it all the same)"
        result = judge(
            level, running.figures(), objectives, ended=CANNOT_FIT,
            problem=problem, harness=running.harness(), cooldown=self._resting.as_json(),
        )  # fmt: skip
        self._keep(result, running, label, foreseen)
        return result

    def _drift(self, when: str) -> list[str]:
        """What became of KubeVirt's settings, if they are not what the run says they are."""
        try:
            found = self._run.drift()
        except (ApiError, LostConnectionError, TimeoutError) as problem:
            found = [f"they could not be read: {problem or 'no answer in time'}"]
        return [f"{CHANGED} ({when} the level): {each}" for each in found]

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
            namespace_there=not self._run.makes_namespace,
            recording=recording,
        )

    # The canary -----------------------------------------------------------------------------

    def _prove_the_way(self) -> None:
        """One VMI of each template, not measured: it warms the images and proves the way."""
        run = self._run
        objects = run.templates.canary(run.place)
        number = sum(each.vmis for each in objects)
        plan = self._plan(number, objects)
        running = LevelRun(
            run.connection.client, plan, run.take_turn(wait=False), self._notes("the canary", plan)
        )
        running.pods_seen = {}
        interrupted = False
        try:
            run.connection.run(running.run())
        except KeyboardInterrupt:
            interrupted = True
            if running.is_abandoned:
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
        run_pods = running.pods_seen or {}
        self._run.foreseeing.preflight.learn(run_pods)
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

    # While KubeVirt is brought to another version -------------------------------------------

    def hold(
        self, number: int, meanwhile: Callable[[], Coroutine[Any, Any, None]], label: str, what: str
    ) -> DensityResult:
        """Have so many VMIs run while something is done: watched, and not measured.

        It is not done if one of them does not come to run; the result says which were lost, or
        never ran. Raises `RunStoppedError` if nothing may be created.
        """
        run = self._run
        run.begin()
        self._go_on()
        if self._canary is None:
            self._resting.begin()
            self._prove_the_way()
        objects = run.templates.level(number, run.place, "upgrade")
        plan = dataclasses.replace(self._plan(number, objects), meanwhile=meanwhile, label=label)
        notes, turn = self._notes(what, plan), run.take_turn(wait=False)
        running = LevelRun(run.connection.client, plan, turn, notes)
        problem = ""
        try:
            run.connection.run(running.run())
        except KeyboardInterrupt:
            problem = "it was interrupted"
            if running.is_abandoned:
                run.undoing.abandoned = True
                raise AbandonedError(self._left(running)) from None
            raise
        finally:
            result = judge(
                number, running.figures(), NO_OBJECTIVES, None, running.ended,
                running.problem or problem, left=running.left(),
            )  # fmt: skip
            run.folder.write_level(result, label)
            self.note_end(running.end)
        return result

    def note_end(self, at: float | None) -> None:
        """Something that the cluster has to rest from has ended (loop time)."""
        self._resting.ended(at)

    def has_another_version(self) -> None:
        """The way has to be proven again: launchers have another image, and may need more."""
        self._canary = None
        self._run.foreseeing.preflight.forget()

    # What is kept ---------------------------------------------------------------------------

    def _keep(self, result: DensityResult, running: LevelRun, label: str, plan: Plan) -> None:
        figures = result.figures
        sent = min((each.sent for each in figures.timelines if each.sent is not None), default=None)
        end = running.observer.level_end
        report = {
            "label": label,
            "level": {
                **level_object(result, label),
                **({} if self._run.upgrading.side is None else {"side": self._run.upgrading.side}),
                "began": self._date(running.began),
                "preflight": plan.as_json(),
            },
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

    def _date(self, moment: float | None) -> float | None:
        """The date (POSIX) of a moment of the loop; None if its time has none."""
        dated = self._run.connection.clock.dated
        return None if moment is None or dated is None else round(dated + moment, 3)

    def test_ended(self, outcome: str) -> None:
        """The test that ran the last levels has passed, failed or been skipped: keep that.

        A suite's own assertion may fail after a level that passed.
        """
        begun, self._tested = self._tested, len(self.reports)
        for number, report in enumerate(self.reports[begun:], begun + 1):
            report["level"]["test"] = outcome
            self._run.folder.write_report(number, report)
        if begun < self._tested:
            self.write_results()

    def _run_object(self) -> Json:
        return {**self._run.run_object(), "canary": self._canary}

    def results(self) -> Json:
        """The content of `results.json`, with all levels so far."""
        return {
            "schema": SCHEMA,
            "run": self._run_object(),
            "cluster": self._run.upgrading.after or self._run.cluster_object(),
            "levels": [each["level"] for each in self.reports],
            **self.beside,
        }

    def write_results(self) -> None:
        """Write `results.json` and the summary as they are now."""
        from pytest_kvscale.report import markdown

        results, run = self.results(), self._run
        run.folder.write_results(results)
        text = markdown.summary(
            results["run"], results["cluster"], self.reports, run.comparing.comparison,
            results.get("upgrade"),
        )  # fmt: skip
        run.folder.write_summary("\n".join([text, *self.summary]))

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
