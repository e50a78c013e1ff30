"""One run: what pytest's hooks and our fixtures share, from the first connection to the files.

Without xdist one process does it all. Under xdist the controller checks everything first, holds
the turn on the cluster, and writes what pytest writes (JUnit, HTML, the table); the one worker
that runs the levels connects for itself and writes what it measures (`levels`).
"""

from __future__ import annotations

import collections
import functools
import math
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_kvscale import __version__
from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.options import Settings

if TYPE_CHECKING:
    from pytest_kvscale.calibrating import Calibrating
    from pytest_kvscale.cluster.choose import Connection, Identity
    from pytest_kvscale.cluster.facts import ClusterFacts
    from pytest_kvscale.cluster.lease import Turn
    from pytest_kvscale.cluster.prometheus import Access
    from pytest_kvscale.cluster.templates import Place, Templates
    from pytest_kvscale.cluster.tuner import Tuner
    from pytest_kvscale.cluster.tuning import Change
    from pytest_kvscale.foreseeing import Foreseeing
    from pytest_kvscale.gating import Comparing
    from pytest_kvscale.judge.objectives import AppliesTo, Objectives
    from pytest_kvscale.levels import Levels
    from pytest_kvscale.metered import Found, Meter
    from pytest_kvscale.report.results import ResultsFolder
    from pytest_kvscale.undoing import Undoing
    from pytest_kvscale.upgrading import Upgrading

SLO_FILE = "slo.yaml"
Json = dict[str, Any]


def new_run_id() -> str:
    """An id for a run: when it began and something random; fits into a namespace's name."""
    from pytest_kvscale.cluster.clock import utc_now

    return f"{utc_now():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def say_nothing(_: str) -> None:
    """Stands for whoever could be told something, where there is nobody."""


class Run:
    """One run of density tests.

    `leads` is False in a worker of xdist, whose controller leads; `tell` writes a line for people.
    """

    def __init__(self, settings: Settings, run_id: str | None = None, leads: bool = True) -> None:
        self.settings = settings.absolute()  # A test may change the working directory.
        self.leads = leads
        self.tell: Callable[[str], None] = say_nothing
        self._id = run_id
        self._started: str | None = None
        self._connection: Connection | None = None
        self._identity: Identity | None = None
        self._facts: ClusterFacts | None = None
        self._turn: Turn | None = None
        self._tuner: Tuner | None = None
        self._tuning: Json = {"applied": "none", "changes": []}
        self._levels: list[int] = []
        self._objectives: dict[Path, tuple[AppliesTo, Objectives] | None] = {}
        self._plan: list[str] = []
        """What is known beforehand, if that is all that was asked for."""

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

    @functools.cached_property
    def templates(self) -> Templates:
        """What is created. Raises `ConfigurationError` for a template that cannot be."""
        from pytest_kvscale.cluster.templates import Templates

        return Templates(self.settings.templates, self.settings.variables)

    @property
    def place(self) -> Place:
        """Where it is created."""
        from pytest_kvscale.cluster.templates import Place

        facts = self.facts
        return Place(self.id, self.namespace, facts.node["name"], dict(facts.selector))

    @functools.cached_property
    def undoing(self) -> Undoing:
        """The journal of this run, and how what is left is undone."""
        from pytest_kvscale.undoing import Undoing

        return Undoing(self)

    @functools.cached_property
    def calibrating(self) -> Calibrating:
        """The calibration, if this run is one."""
        from pytest_kvscale.calibrating import Calibrating

        return Calibrating(self)

    @functools.cached_property
    def foreseeing(self) -> Foreseeing:
        """What is known of the levels before they begin."""
        from pytest_kvscale.foreseeing import Foreseeing

        return Foreseeing(self)

    @functools.cached_property
    def comparing(self) -> Comparing:
        """The comparison of this run with others."""
        from pytest_kvscale.gating import Comparing

        return Comparing(self)

    @functools.cached_property
    def upgrading(self) -> Upgrading:
        """The upgrade of this run, if it is one of an upgrade."""
        from pytest_kvscale.upgrading import Upgrading

        return Upgrading(self)

    @property
    def tuning_name(self) -> str:
        """The tuning that is applied."""
        return self.settings.tune or self.connection.default_tuning

    @functools.cached_property
    def makes_namespace(self) -> bool:
        """Whether the namespace is made by the run, and goes with it."""
        from pytest_kvscale.cluster import namespaces

        if self.settings.namespace is None:
            return True
        return not self.connection.ask(namespaces.check(self.connection.client, self.namespace))

    @property
    def connected(self) -> bool:
        """Whether there is a connection to the cluster."""
        return self._connection is not None

    @functools.cached_property
    def levels(self) -> Levels:
        """The levels of this run."""
        from pytest_kvscale.levels import Levels

        return Levels(self)

    # Connecting -----------------------------------------------------------------------------

    def check(
        self, suites: Sequence[Path], levels: Sequence[int], compared: Sequence[int] = ()
    ) -> None:
        """Find out whether the run can begin: every file it needs, the cluster, and our turn.

        Raises `ConfigurationError`. `suites` are the folders the density tests lie in; `compared`
        are the levels that are compared with others.
        """
        from pytest_kvscale.cluster import prometheus, tuning

        templates = self.templates
        for suite in suites:
            self._read_objectives(suite)
        if self.settings.tune is not None:
            tuning.load(self.settings.tune)
        self.comparing.read()
        if self.upgrading.is_wanted:
            self.upgrading.check_settings()
        if self.settings.prometheus not in ("auto", "none"):
            prometheus.by_url(self.settings.prometheus, self._prometheus_access())
        self._check_permissions()
        place = self.place
        for level in dict.fromkeys(levels):
            templates.level(level, place)
        self.comparing.check(compared)
        self._levels = list(levels)  # Each as often as it is run.
        self.folder.make()
        if not self.settings.plan:
            alone = self.connection.shared and not self.take_turn(self.settings.wait).off
            if self.undoing.begin(alone):
                self._refresh()  # KubeVirt's settings, or its version, are others now.
        if self.upgrading.is_wanted:
            self.upgrading.check()
        self._look_around()
        if self.settings.plan:
            self._plan = list(self.foreseeing.lines([*dict.fromkeys(levels)]))

    def _check_permissions(self) -> None:
        """Refuse to begin what the API would refuse in the middle."""
        from pytest_kvscale.cluster import permissions

        connection, settings = self.connection, self.settings
        intent = permissions.Intent(
            kinds=self.templates.kinds,
            namespace=self.namespace,
            makes_namespace=self.makes_namespace,
            tunes=self.tuning_name != "none",
            beside_others=settings.beside_others,
            upgrades=self.upgrading.is_wanted,
        )
        for each in connection.ask(permissions.check(connection.client, intent)):
            self.tell(f"note: {each}")

    def _look_around(self) -> None:
        """Refuse a node that carries others' VMIs."""
        from pytest_kvscale.cluster import guard

        connection = self.connection
        if not self.settings.beside_others and not self.settings.plan:
            work = guard.check_alone(connection.client, self.facts.node["name"], self.id)
            connection.ask(work)

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
            work = facts.gather(
                connection.client, settings.node, settings.node_selector, self.templates
            )
            self._facts = connection.ask(work)
            if not self.leads:
                # A worker does what its controller did, so that its figures are those of a run
                # without workers.
                self._look_around()
        return self._facts

    @functools.cached_property
    def prometheus(self) -> Found:
        """The Prometheus that is asked, or why none is."""
        from pytest_kvscale import metered

        work = metered.prometheus_of(
            self.connection.client, self.settings.prometheus, self._prometheus_access()
        )
        return self.connection.run(work)

    def _prometheus_access(self) -> Access:
        from pytest_kvscale.cluster.prometheus import Access

        return Access(self.settings.prometheus_token_file, self.settings.prometheus_ca)

    def meter(self) -> Meter:
        """What counts one level's cost."""
        from pytest_kvscale.metered import Meter

        facts = self.facts
        return Meter(
            self.connection.client, facts.kubevirt_namespace, facts.node["name"], self.prometheus
        )

    @functools.cached_property
    def cluster_uid(self) -> str:
        """The uid of the namespace kube-system, which lives as long as the cluster."""
        from pytest_kvscale.cluster import facts

        return self.connection.ask(facts.uid_of(self.connection.client))

    def take_turn(self, wait: bool) -> Turn:
        """Our turn on the cluster, taken when it is first asked for.

        Raises `ConfigurationError` if it is another run's and we do not wait.
        """
        from pytest_kvscale.cluster.client import ApiError, LostConnectionError
        from pytest_kvscale.cluster.lease import Turn

        if self._turn is None:
            client = self.connection.client

            async def take() -> Turn:
                turn = Turn(client, self.id)
                await turn.take(wait, self.tell)
                return turn

            try:
                self._turn = self.connection.run(take())
            except (ApiError, LostConnectionError, TimeoutError) as problem:
                raise ConfigurationError(
                    f"no turn on the cluster {self.identity.server} could be taken: "
                    f"{problem or 'no answer in time'}"
                ) from None
            if self._turn.off and self.leads:
                self.tell(f"note: {self._turn.off}")
        return self._turn

    def header(self) -> list[str]:
        """What stands above the tests: which cluster, which node, which run, how many VMIs."""
        identity, facts = self.identity, self.facts
        node = facts.node
        size = []
        if node["cpu"] is not None:
            size.append(f"{node['cpu']:g} CPUs")
        if node["memory"] is not None:
            size.append(f"{node['memory'] / 2**30:.0f} GiB")
        versions = f"Kubernetes {identity.kubernetes}, KubeVirt {facts.kubevirt}"
        vmis = f"up to {max(self._levels, default=0)} VMIs at once (levels {_runs(self._levels)})"
        return [
            f"kvscale: {identity.text()}",
            f"kvscale: node {node['name']} ({', '.join([*size, node['runtime']])}), {versions}",
            f"kvscale: run {self.id}, namespace {self.namespace}, {vmis}",
            *(f"kvscale: {each}" for each in (*self.upgrading.header(), *self._plan)),
        ]

    def close_unless_shared(self) -> None:
        """Disconnect from a cluster that no other process of this run can see."""
        if self._connection is not None and not self._connection.shared:
            self.close()

    def close(self) -> None:
        """End our turn and disconnect."""
        connection, turn = self._connection, self._turn
        self._connection = self._turn = None
        if connection is None:
            return
        try:
            if turn is not None:
                connection.run(turn.give_back() if self.leads else turn.stop())
        finally:
            self.undoing.close()
            connection.close()

    # Settings of KubeVirt -------------------------------------------------------------------

    def tune(self) -> list[Change]:
        """Apply the tuning the settings name, once; returns what it changed."""
        from pytest_kvscale.cluster import tuning
        from pytest_kvscale.cluster.tuner import Tuner

        if self._tuner is None:
            name = self.tuning_name
            if name != tuning.NONE:
                self._check_turn()
            node = self.facts.node["name"]
            self._tuner = Tuner(self.connection.client, self.undoing.journal, node)
            made = self.connection.run(self._tuner.apply(tuning.load(name)))
            self._refresh()
            self._tuning = {"applied": Path(name).stem, "changes": [_change(each) for each in made]}
        return list(self._tuner.made)

    def has_another_version(self) -> None:
        """KubeVirt was brought to another version: what is known of it is not so any more."""
        if self._tuner is not None:
            self.connection.run(self._tuner.upgraded())
        self._refresh()

    def _refresh(self) -> None:
        from pytest_kvscale.cluster import facts

        self._facts = self.connection.run(facts.refresh(self.connection.client, self.facts))

    @property
    def turn_is_lost(self) -> bool:
        """Whether we had a turn, and have it no more."""
        return self._turn is not None and self._turn.lost.done()

    def _check_turn(self) -> None:
        """Raise `TuningError` if another run may be at work: it is not to find other settings."""
        from pytest_kvscale.cluster.tuning import TuningError

        turn = self.take_turn(wait=False)
        if turn.lost.done():
            raise TuningError(turn.lost.result())

    def put_back(self) -> list[Change]:
        """Put back what `tune` changed; returns what others have changed since, which stays."""
        if self._tuner is None or self._connection is None:
            return []
        from pytest_kvscale.cluster.tuning import TuningError
        from pytest_kvscale.upgrading import UpgradeFailedError

        stuck = ""
        try:
            self.upgrading.undo()  # What was changed last is undone first.
        except UpgradeFailedError as problem:
            stuck = str(problem)
        if self._tuner.made and self.undoing.is_done_by_others():
            self._tuner.leave()
        left = self._connection.run(self._tuner.put_back())
        if stuck:
            raise TuningError(stuck)
        return left

    def drift(self) -> list[str]:
        """The KubeVirt settings that are not what they were when the levels began."""
        return [] if self._tuner is None else self.connection.run(self._tuner.drift())

    # What the results say of it -------------------------------------------------------------

    def begin(self) -> None:
        """The first objects are about to be created."""
        from pytest_kvscale.cluster.clock import utc_now

        if self._started is None:
            self._started = utc_now().isoformat(timespec="seconds")

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
        from pytest_kvscale.judge.comparable import digest, fingerprint

        identity, facts, settings = self.identity, self.facts, self.settings
        node = {key: value for key, value in facts.node.items() if key != "name"}
        comparable = fingerprint(
            versions={"kubernetes": identity.kubernetes, "kubevirt": facts.kubevirt},
            simulated=identity.simulated,
            profile=identity.profile,
            node=node,
            settings=facts.settings,
            template=self.templates.sources,
            variables=dict(settings.variables),
            # As fast as possible is no number that JSON has.
            pace={
                "qps": settings.qps if math.isfinite(settings.qps) else "max",
                "burst": settings.burst,
            },
        )
        return {
            "uid": facts.uid,
            "kubernetes": identity.kubernetes,
            "kubevirt": facts.kubevirt,
            "fingerprint": digest(comparable),
            "comparable": comparable,
            "tuning": self._tuning,
            "node": dict(facts.node),
        }

    # What is read from files ----------------------------------------------------------------

    def _read_objectives(self, suite: Path) -> tuple[AppliesTo, Objectives] | None:
        from pytest_kvscale.judge import objectives

        path = self.settings.slo or suite / SLO_FILE
        if path not in self._objectives:
            there = self.settings.slo is not None or path.is_file()
            self._objectives[path] = objectives.load(path) if there else None
        return self._objectives[path]

    def objectives(self, suite: Path) -> Objectives:
        """The objectives for tests in a folder, as far as they are for this cluster."""
        from pytest_kvscale.judge import objectives

        found = self._read_objectives(suite)
        if found is None:
            return objectives.NO_OBJECTIVES
        identity = self.identity
        return objectives.for_cluster(found, identity.simulated, identity.profile)


def _runs(levels: Sequence[int]) -> str:
    """The levels for people, with how often each is run: `50, 100, 3 runs of each`."""
    runs = collections.Counter(levels)
    if len(set(runs.values())) == 1:
        (number,) = set(runs.values())
        more = "" if number == 1 else f", {number} runs of each"
        return ", ".join(str(each) for each in runs) + more
    return ", ".join(str(each) if n == 1 else f"{each} {n} times" for each, n in runs.items())


def _change(change: Change) -> Json:
    from pytest_kvscale.cluster.tuning import ABSENT

    before = None if change.before is ABSENT else change.before
    return {"path": ".".join(change.path), "before": before, "after": change.after}
