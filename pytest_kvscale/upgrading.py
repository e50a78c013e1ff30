"""The upgrade of a run: the cluster is brought to the side of it that a test needs.

VMIs run meanwhile and are watched. What came of it stands in the results beside the levels.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_kvscale.errors import ConfigurationError

if TYPE_CHECKING:
    from pytest_kvscale.cluster.migrations import Migrations
    from pytest_kvscale.cluster.upgrade import Upgrader, Way
    from pytest_kvscale.judge.verdict import DensityResult
    from pytest_kvscale.session import Run
    from pytest_kvscale.upgrade_tests import Side

Json = dict[str, Any]
T = TypeVar("T")
_WHAT = "the VMIs that run during the upgrade"
_NO_TURN = "our turn on the cluster is lost"


class UpgradeFailedError(Exception):
    """The cluster is not on the side that was asked for; says why, in a sentence."""


class _TurnLostError(Exception):
    """Another run may be at work; says why."""


@dataclasses.dataclass
class Step:
    """One change of version: what came of it."""

    to_side: Side
    before: str
    """The version that was."""
    after: str
    """The version that is, or was to be."""
    took: float | None = None
    """Seconds until it was rolled out; None: it was not."""
    problem: str = ""
    """Why it failed, in a sentence."""
    vmis: Json | None = None
    """The VMIs that ran meanwhile; None: there were to be none."""
    lost: str = ""
    """Those that were lost, in words, with their evidence."""
    told: bool = False
    """A test has failed with it."""

    def as_json(self) -> Json:
        """For the results."""
        return {
            "direction": "upgrade" if self.to_side == "after" else "back",
            "from": self.before,
            "to": self.after,
            "rolled_out_s": self.took,
            "problem": self.problem,
            "vmis": self.vmis,
        }


class Upgrading:
    """The upgrade of a run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.is_wanted = False
        """Whether this is the run of an upgrade."""
        self.left_out = 0
        """How many tests of an upgrade are not run, because none was asked for."""
        self._side: Side = "before"
        self._steps: list[Step] = []
        self._before: Json | None = None
        """The cluster before the upgrade, as the results have it."""
        self.after: Json | None = None
        """The cluster after it, once it was there."""
        self._failure = ""
        self.failed = ""
        """What failed, if KubeVirt could not be brought to a version."""
        self._gave_up = False
        """It could not be undone."""

    def want(self, compared: bool) -> None:
        """Make it the run of an upgrade; whether levels are measured, and its sides compared."""
        self.is_wanted = True
        if compared:
            self._run.comparing.with_own_before()

    @property
    def side(self) -> Side | None:
        """The side of the upgrade the cluster is on; None: the run is of no upgrade."""
        return self._side if self.is_wanted else None

    # Before anything is done ----------------------------------------------------------------

    def check_settings(self) -> None:
        """Raise `ConfigurationError` for settings that do not go together."""
        settings = self._run.settings
        if settings.upgrade_command is None:
            if settings.upgrade_back_command is not None:
                raise ConfigurationError(
                    "--kvscale-upgrade-back-command undoes what --kvscale-upgrade-command does: "
                    "give both, or neither"
                )
            return
        from pytest_kvscale.cluster import upgrade_command

        if settings.upgrade_registry is not None:
            raise ConfigurationError(
                "--kvscale-upgrade-registry is for the KubeVirt CR: a command "
                "(--kvscale-upgrade-command) says itself where images come from"
            )
        if settings.upgrade_back and settings.upgrade_back_command is None:
            raise ConfigurationError(
                "--kvscale-upgrade-back: what a command has upgraded only a command brings back: "
                "give --kvscale-upgrade-back-command"
            )
        for each in (settings.upgrade_command, settings.upgrade_back_command):
            if each is not None:
                upgrade_command.words(each)

    def check(self) -> None:
        """Find out whether KubeVirt can be upgraded, as far as that is known.

        Raises `ConfigurationError`.
        """
        from pytest_kvscale.cluster import upgrade

        connection, settings = self._run.connection, self._run.settings
        connection.ask(upgrade.check(connection.client, self._way))
        if settings.upgrade_vmis:
            self._run.templates.level(settings.upgrade_vmis, self._run.place, "upgrade")

    @functools.cached_property
    def _way(self) -> Way:
        from pytest_kvscale.cluster.upgrade import Way

        settings = self._run.settings
        return Way(
            to=settings.upgrade_to or "",
            registry=settings.upgrade_registry,
            command=settings.upgrade_command,
            back_command=settings.upgrade_back_command,
            timeout=settings.upgrade_timeout,
            environment=self._run.connection.environment() if settings.upgrade_command else {},
        )

    @functools.cached_property
    def _upgrader(self) -> Upgrader:
        from pytest_kvscale.cluster.upgrade import Upgrader

        run = self._run
        return Upgrader(run.connection.client, run.undoing.journal, self._way)

    def header(self) -> list[str]:
        """What is said of it above the tests."""
        settings = self._run.settings
        if self.left_out:
            n = self.left_out
            return [f"{n} tests of an upgrade are left out: there is no --kvscale-upgrade-to"]
        if not self.is_wanted:
            return []
        how = "the KubeVirt CR" if settings.upgrade_command is None else "a command"
        back = ", and back" if settings.upgrade_back else ""
        to = settings.upgrade_to or "another version"
        vmis = f"{settings.upgrade_vmis} VMIs run meanwhile"
        return [f"upgrade from {self._run.facts.kubevirt} to {to} by {how}{back}, {vmis}"]

    # Changing versions ----------------------------------------------------------------------

    def bring(self, side: Side) -> None:
        """Have the cluster on this side of the upgrade.

        Raises `UpgradeFailedError`, then and whenever that side is asked for again.
        """
        if self._failure:
            # Also for the side it was on: what is there now may be half of another version.
            raise UpgradeFailedError(self._failure)
        if not self._steps and self._run.undoing.has_upgrade():
            self.failed = "a process of this run died after it had begun an upgrade"
            self._failure = f"{self.failed}: on which side KubeVirt is now is not known"
            raise UpgradeFailedError(self._failure)
        if side == self._side:
            return
        if side == "after":
            self._upgrade()
        else:
            self._return()

    def step(self, nth: int) -> Step | None:
        """What came of the n-th change of version (from 1); None: there was none."""
        return self._steps[nth - 1] if nth <= len(self._steps) else None

    def _upgrade(self) -> None:
        run, way = self._run, self._way
        if self._before is None:
            self._before = run.cluster_object()
        step = Step("after", run.facts.kubevirt, way.to)
        self._steps.append(step)
        run.tell(f"upgrading KubeVirt from {step.before} to {way.to or 'another version'}")
        try:
            if run.turn_is_lost:
                step.problem = _NO_TURN
            elif run.settings.upgrade_vmis:
                self._upgrade_beside_vmis(step)
            else:
                run.levels.note_end(run.connection.run(self._make(step)))
        except KeyboardInterrupt:
            step.problem = step.problem or "it was interrupted"
            raise
        finally:
            self._note()
        if step.took is None:
            self._fail(step, f"the upgrade to {step.after or 'another version'} failed")
        if not run.settings.upgrade_back:
            run.connection.run(self._upgrader.keep())
        self._has_changed("after")
        self.after = run.cluster_object()
        self._note()
        run.tell(f"KubeVirt is {step.after}: rolled out in {step.took:.0f} s")

    def _return(self) -> None:
        from pytest_kvscale.cluster.clock import now
        from pytest_kvscale.cluster.upgrade import UpgradeError

        run, upgrader = self._run, self._upgrader
        former = self._steps[-1].before if self._steps else ""
        step = Step("before", run.facts.kubevirt, former)
        self._steps.append(step)
        run.tell(f"bringing KubeVirt back to {former}")

        async def undo() -> float:
            begun = now()
            try:
                step.problem = "; ".join(await self._unless_lost(upgrader.undo()))
            except (UpgradeError, _TurnLostError) as problem:
                step.problem = str(problem)
            if not step.problem:
                step.took = round(now() - begun, 3)
            return now()

        try:
            if run.turn_is_lost:
                step.problem = _NO_TURN
            else:
                run.levels.note_end(run.connection.run(undo()))
        except KeyboardInterrupt:
            step.problem = "it was interrupted"
            raise
        finally:
            self._note()
        if step.took is None:
            self._fail(step, f"KubeVirt could not be brought back to {former}")
        self._has_changed("before")

    def _fail(self, step: Step, what: str) -> None:
        self.failed, self._failure = what, f"{what}: {step.problem}"
        raise UpgradeFailedError(self._failure)

    def _has_changed(self, side: Side) -> None:
        """What is known of KubeVirt is of another version."""
        self._side = side
        self._run.has_another_version()
        self._run.levels.has_another_version()

    async def _make(self, step: Step) -> float:
        """Upgrade; what goes wrong is noted. Returns when it was over (loop time)."""
        from pytest_kvscale.cluster.clock import now
        from pytest_kvscale.cluster.upgrade import UpgradeError

        try:
            reached = await self._unless_lost(self._upgrader.upgrade())
        except (UpgradeError, _TurnLostError) as problem:
            step.problem = str(problem)
        else:
            step.after, step.took = reached.after, reached.took
        return now()

    async def _unless_lost(self, work: Coroutine[Any, Any, T]) -> T:
        """Change the version as long as we have the turn: after that others may do so."""
        import asyncio

        lost = self._run.take_turn(wait=False).lost
        task = asyncio.create_task(work)
        try:
            await asyncio.wait((lost, task), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise _TurnLostError(f"{_NO_TURN}: {lost.result()}")
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])

    # The VMIs that run meanwhile ------------------------------------------------------------

    def _upgrade_beside_vmis(self, step: Step) -> None:
        from pytest_kvscale.cluster import migrations
        from pytest_kvscale.levels import RunStoppedError

        run, number = self._run, self._run.settings.upgrade_vmis
        seen: list[Migrations] = []

        async def meanwhile() -> None:
            client = run.connection.client
            async with migrations.counting(client, run.namespace) as counted:
                seen.append(counted)
                await self._make(step)

        nth = (len(self._steps) + 1) // 2
        label = "upgrade" if nth == 1 else f"upgrade-{nth}"
        try:
            result = run.levels.hold(number, meanwhile, label, _WHAT)
        except RunStoppedError as stopped:
            step.problem = str(stopped)
            return
        step.vmis = _as_json(result, seen[0] if seen else None)
        if not seen:
            step.problem = f"it was not begun: {result.explanation(_WHAT)}"
        elif result.verdict != "pass":
            step.lost = result.explanation(_WHAT)
        if step.took is None and not step.problem:
            # Whoever watched the VMIs could not go on.
            step.problem = f"it broke off: {result.explanation(_WHAT)}"

    # Its end --------------------------------------------------------------------------------

    def end(self) -> str:
        """Return, if that was asked for, and undo what broke off; what no test has told of.

        Raises `UpgradeFailedError`.
        """
        if not self.is_wanted:
            return ""
        self._leave_what_was_undone()
        try:
            if self._side == "after" and not self._failure and self._is_under_way():
                self._return()
        finally:
            self.undo()
        untold = [each.lost for each in self._steps if each.lost and not each.told]
        return "\n".join(untold)

    def undo(self) -> None:
        """Undo an upgrade that is still noted: it broke off. Raises `UpgradeFailedError`."""
        self._leave_what_was_undone()
        if self._gave_up or not self._is_under_way():
            return
        from pytest_kvscale.cluster.upgrade import UpgradeError

        run = self._run
        if run.undoing.is_done_by_others():
            self._upgrader.leave()
            return
        run.tell("undoing the upgrade")
        try:
            left = run.connection.run(self._upgrader.undo())
        except UpgradeError as problem:
            # It stays noted: the end of the run tries again, or the next run.
            self._gave_up = True
            raise UpgradeFailedError(f"the upgrade was not undone: {problem}") from None
        for each in left:
            run.tell(each)

    def _is_under_way(self) -> bool:
        """Whether there is something to undo."""
        return "_upgrader" in vars(self) and self._upgrader.is_under_way

    def _leave_what_was_undone(self) -> None:
        """The end of the run may have undone it by the journal: a command is not run twice."""
        if self._is_under_way() and not self._run.undoing.has_upgrade():
            self._upgrader.leave()

    # What the results say of it -------------------------------------------------------------

    def _note(self) -> None:
        """Write down what there is of it so far."""
        from pytest_kvscale.report import upgrade as report

        first = next((each for each in self._steps if each.to_side == "after"), None)
        if first is None:
            return
        content = {
            **first.as_json(),
            "by": "cr" if self._way.command is None else "command",
            "before": self._before,
            "steps": [each.as_json() for each in self._steps],
        }
        del content["direction"]
        self._run.levels.beside["upgrade"] = content
        self._run.folder.write_shown("change-of-version", report.shown(content))
        self._run.levels.write_results()


def _as_json(result: DensityResult, migrations: Migrations | None) -> Json:
    """The VMIs that ran during an upgrade, for the results."""
    vmis = [each.name for each in result.figures.timelines]
    ran = [each.name for each in result.figures.timelines if each.ran]
    lost = {name: each for name, each in result.findings.items() if name in ran}
    return {
        "requested": result.figures.requested,
        "ran": len(ran),
        "lost": [
            {"name": name, "class": each.name, "evidence": list(each.evidence)}
            for name, each in lost.items()
        ],
        "left_behind": result.figures.left_behind,
        "migrations": None if migrations is None else migrations.counted(vmis),
        "migrations_note": "" if migrations is None else migrations.unknown,
    }
