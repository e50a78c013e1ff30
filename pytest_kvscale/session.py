"""One run: what pytest's hooks and our fixtures share, from the first connection to the files.

Without xdist one process does it all. Under xdist the controller checks everything first and
writes what pytest writes (JUnit, HTML, the table); the one worker that runs the levels connects
for itself and writes what it measures. Level reports travel with pytest's own test reports.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_kvscale import __version__
from pytest_kvscale.options import Settings

if TYPE_CHECKING:
    from pytest_kvscale.cluster.choose import Connection, Identity
    from pytest_kvscale.cluster.facts import ClusterFacts
    from pytest_kvscale.cluster.templates import Template
    from pytest_kvscale.cluster.tuning import Change, Tuner
    from pytest_kvscale.density import LevelRun
    from pytest_kvscale.judge.objectives import AppliesTo, Objectives
    from pytest_kvscale.judge.verdict import DensityResult
    from pytest_kvscale.report.results import ResultsFolder

SLO_FILE = "slo.yaml"
Json = dict[str, Any]


def new_run_id() -> str:
    """An id for a run: when it began and something random; fits into a namespace's name."""
    from pytest_kvscale.cluster.clock import utc_now

    return f"{utc_now():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


class Run:
    """One run of density tests."""

    def __init__(self, settings: Settings, run_id: str | None = None) -> None:
        self.settings = settings
        self.reports: list[Json] = []
        """Level reports so far, as plain data: the level's object, its plot's data, explanation."""
        self._id = run_id
        self._started: str | None = None
        self._connection: Connection | None = None
        self._identity: Identity | None = None
        self._facts: ClusterFacts | None = None
        self._tuner: Tuner | None = None
        self._tuning: Json = {"applied": "none", "changes": []}
        self._template: Template | None = None
        self._last_end: float | None = None
        self._cooldown: Json = {}

    # What it is -----------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The run's id."""
        if self._id is None:
            self._id = new_run_id()
        return self._id

    @property
    def namespace(self) -> str:
        """The namespace the VMIs are created in."""
        return self.settings.namespace or f"kvscale-{self.id}"

    @property
    def folder(self) -> ResultsFolder:
        """Where the run's files go."""
        from pytest_kvscale.report.results import ResultsFolder

        return ResultsFolder(self.settings.report_dir, self.id)

    # Connecting -----------------------------------------------------------------------------

    def check(self, suites: Sequence[Path]) -> None:
        """Find out whether the run can begin: every file it needs, and the cluster.

        Raises `ConfigurationError`. `suites` are the folders the density tests lie in.
        """
        from pytest_kvscale.cluster import tuning

        self._read_template()
        for suite in suites:
            self._read_objectives(suite)
        if self.settings.tune is not None:
            tuning.load(self.settings.tune)
        self.facts  # noqa: B018 - connects
        self.folder.make()

    @property
    def connection(self) -> Connection:
        """The cluster; connected when it is first asked for."""
        if self._connection is None:
            from pytest_kvscale.cluster import choose

            self._connection = choose.connect(self.settings)
            self._identity = self._connection.identity
        return self._connection

    @property
    def identity(self) -> Identity:
        """What the cluster says of itself."""
        return self._identity or self.connection.identity

    @property
    def facts(self) -> ClusterFacts:
        """What is known of the cluster and the node under test."""
        if self._facts is None:
            from pytest_kvscale.cluster import facts

            connection, settings = self.connection, self.settings
            work = facts.gather(connection.client, settings.node, settings.node_selector)
            self._facts = connection.ask(work)
        return self._facts

    def header(self) -> list[str]:
        """What stands above the tests: which cluster, which node, which run."""
        identity, facts = self.identity, self.facts
        node = facts.node
        size = []
        if node["cpu"] is not None:
            size.append(f"{node['cpu']:g} CPUs")
        if node["memory"] is not None:
            size.append(f"{node['memory'] / 2**30:.0f} GiB")
        versions = f"Kubernetes {identity.kubernetes}, KubeVirt {facts.kubevirt}"
        return [
            f"kvscale: {identity.text()}",
            f"kvscale: node {node['name']} ({', '.join([*size, node['runtime']])}), {versions}",
            f"kvscale: run {self.id}, namespace {self.namespace}",
        ]

    def close(self) -> None:
        """Disconnect."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # Settings of KubeVirt -------------------------------------------------------------------

    def tune(self) -> list[Change]:
        """Apply the tuning the settings name, once; returns what it changed."""
        from pytest_kvscale.cluster import facts, tuning

        if self._tuner is None:
            name = self.settings.tune or self.connection.default_tuning
            self._tuner = tuning.Tuner(self.connection.client)
            node = self.facts.node["name"]
            made = self.connection.run(self._tuner.apply(tuning.load(name), node))
            self._facts = self.connection.run(facts.refresh(self.connection.client, self.facts))
            self._tuning = {"applied": Path(name).stem, "changes": [_change(each) for each in made]}
        return list(self._tuner.made)

    def put_back(self) -> list[Change]:
        """Put back what `tune` changed; returns what others have changed since, which stays."""
        if self._tuner is None or self._connection is None:
            return []
        return self._connection.run(self._tuner.put_back(self.facts.node["name"]))

    # One level ------------------------------------------------------------------------------

    def cool_down(self) -> None:
        """Let the cluster rest before a level, since the end of the last one."""
        required = self.settings.cooldown if self._last_end is not None else 0.0
        waited = 0.0
        if self._last_end is not None:
            from pytest_kvscale.load.pacing import sleep_until

            waited = self.connection.run(sleep_until(self._last_end + required))
        self._cooldown = {
            "required": required, "waited": round(waited, 3), "settled": None, "by": "time",
        }  # fmt: skip

    def run_level(self, level: int, objectives: Objectives) -> DensityResult:
        """Run one level, judge it, and write it down; on Ctrl-C too, before that is passed on."""
        from pytest_kvscale.density import LevelPlan, LevelRun, stall_after

        settings, connection, facts = self.settings, self.connection, self.facts
        recording = None
        if settings.record:
            recording = self.folder.make() / f"{level}-recording.jsonl.gz"
        plan = LevelPlan(
            level=level,
            run=self.id,
            namespace=self.namespace,
            template=self._read_template(),
            node=facts.node["name"],
            node_selector=dict(facts.selector),
            qps=settings.qps,
            burst=settings.burst,
            timeout=settings.timeout,
            stall=stall_after(settings.stall, facts.qemu_timeout),
            delete_timeout=settings.delete_timeout,
            recording=recording,
        )
        self._begin()
        running = LevelRun(connection.client, plan)
        interrupted = False
        try:
            connection.run(running.run())
        except KeyboardInterrupt:
            interrupted = True
            raise
        finally:
            self._last_end = running.end
            result = self._judge(running, level, objectives, interrupted)
            self._write(result, running)
        return result

    def _judge(
        self, running: LevelRun, level: int, objectives: Objectives, interrupted: bool
    ) -> DensityResult:
        from pytest_kvscale.judge.verdict import judge

        problem = running.problem or ("the level was interrupted" if interrupted else "")
        return judge(
            level,
            running.figures(),
            objectives,
            self.settings.max_lag,
            running.ended,
            problem,
            running.harness(),
            self._cooldown,
        )

    def _write(self, result: DensityResult, running: LevelRun) -> None:
        from pytest_kvscale.measure.figures import occupancy
        from pytest_kvscale.report.results import level_object

        figures = result.figures
        sent = min((each.sent for each in figures.timelines if each.sent is not None), default=None)
        end = running.observer.level_end
        self.reports.append(
            {
                "level": level_object(result),
                "explanation": "" if result.verdict == "pass" else result.explanation(),
                "occupancy": occupancy(figures.timelines),
                "end": None if sent is None or end is None else round(end - sent, 3),
                "run": self.run_object(),
                "cluster": self.cluster_object(),
            }
        )
        self.folder.write_level(result)
        self.write_results()

    # Files ----------------------------------------------------------------------------------

    def _begin(self) -> None:
        from pytest_kvscale.cluster.clock import utc_now

        if self._started is None:
            self._started = utc_now().isoformat(timespec="seconds")

    def write_results(self) -> None:
        """Write `results.json` with all levels so far."""
        levels = [each["level"] for each in self.reports]
        self.folder.write_results(self.run_object(), self.cluster_object(), levels)

    def run_object(self) -> Json:
        """The results' `run`."""
        from pytest_kvscale.cluster.clock import utc_now

        identity = self.identity
        return {
            "id": self.id,
            "started": self._started,
            "finished": utc_now().isoformat(timespec="seconds"),
            "simulated": identity.simulated,
            "profile": identity.profile,
            "seed": identity.seed,
            "version": __version__,
        }

    def cluster_object(self) -> Json:
        """The results' `cluster`."""
        from pytest_kvscale.cluster.facts import fingerprint

        identity, facts, settings = self.identity, self.facts, self.settings
        node = {key: value for key, value in facts.node.items() if key != "name"}
        template = self._read_template()
        return {
            "uid": facts.uid,
            "kubernetes": identity.kubernetes,
            "kubevirt": facts.kubevirt,
            "fingerprint": fingerprint(
                kubernetes=identity.kubernetes,
                kubevirt=facts.kubevirt,
                simulated=identity.simulated,
                profile=identity.profile,
                node=node,
                tuning=self._tuning,
                template=template.source,
                variables=dict(settings.variables),
                qps=settings.qps,
                burst=settings.burst,
            ),
            "tuning": self._tuning,
            "node": dict(facts.node),
        }

    # What is read from files ----------------------------------------------------------------

    def _read_template(self) -> Template:
        if self._template is None:
            from pytest_kvscale.cluster import templates

            path = self.settings.template or templates.DEFAULT
            self._template = templates.Template(path, self.settings.variables)
        return self._template

    def _read_objectives(self, suite: Path) -> tuple[AppliesTo, Objectives] | None:
        from pytest_kvscale.judge import objectives

        path = self.settings.slo or suite / SLO_FILE
        if self.settings.slo is None and not path.is_file():
            return None
        return objectives.load(path)

    def objectives(self, suite: Path) -> Objectives:
        """The objectives for tests in a folder, as far as they are for this cluster."""
        from pytest_kvscale.judge import objectives

        found = self._read_objectives(suite)
        if found is None:
            return objectives.NO_OBJECTIVES
        identity = self.identity
        return objectives.for_cluster(found, identity.simulated, identity.profile)


def _change(change: Change) -> Json:
    from pytest_kvscale.cluster.tuning import ABSENT

    before = None if change.before is ABSENT else change.before
    return {"path": ".".join(change.path), "before": before, "after": change.after}
