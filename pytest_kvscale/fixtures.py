"""The fixtures; all work is done elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import pytest

from pytest_kvscale import collection, state

if TYPE_CHECKING:
    from pytest_kvscale.cluster.choose import Connection
    from pytest_kvscale.cluster.nodes import NodeFacts
    from pytest_kvscale.cluster.prometheus import Prometheus
    from pytest_kvscale.cluster.tuning import Change
    from pytest_kvscale.judge.verdict import DensityResult
    from pytest_kvscale.options import Settings
    from pytest_kvscale.session import Run
    from pytest_kvscale.upgrade_tests import Side, Step


@pytest.fixture(scope="session")
def kv_settings(pytestconfig: pytest.Config) -> Settings:
    """The settings of this run, from the command line and the ini file."""
    return state.run_of(pytestconfig).settings


@pytest.fixture(scope="session")
def kv_cluster(pytestconfig: pytest.Config) -> Connection:
    """The cluster: its `client` sends requests, its `run` waits for a coroutine."""
    return state.run_of(pytestconfig).connection


@pytest.fixture(scope="session")
def kv_tuning(pytestconfig: pytest.Config, kv_cluster: Connection) -> Iterator[list[Change]]:
    """KubeVirt's settings changed for this run (`--kvscale-tune`); put back when it ends."""
    from pytest_kvscale.cluster.client import ApiError, LostConnectionError
    from pytest_kvscale.cluster.tuning import TuningError

    run = state.run_of(pytestconfig)
    try:
        made = run.tune()
    except (ApiError, LostConnectionError, TimeoutError, TuningError) as problem:
        pytest.fail(f"KubeVirt could not be tuned: {problem}", pytrace=False)
    yield made
    try:
        left = run.put_back()
    except TuningError as problem:
        pytest.fail(str(problem), pytrace=False)
    if left:
        fields = ", ".join(".".join(change.path) for change in left)
        pytest.fail(
            f"somebody else changed KubeVirt settings during the run; left as they are: {fields}",
            pytrace=False,
        )


@pytest.fixture(scope="session")
def kv_node(pytestconfig: pytest.Config, kv_tuning: list[Change]) -> NodeFacts:
    """The node under test: name, cpu, memory, max_pods, devices, pod_ips, runtime."""
    return state.run_of(pytestconfig).facts.node


@pytest.fixture(scope="session")
def kv_namespace(pytestconfig: pytest.Config) -> str:
    """The namespace a level creates its VMIs in; it is made and removed by each level."""
    return state.run_of(pytestconfig).namespace


class AskedPrometheus:
    """A Prometheus that tests may ask; `name` says which it is."""

    def __init__(self, connection: Connection, prometheus: Prometheus) -> None:
        self.name = prometheus.name
        self._connection = connection
        self._prometheus = prometheus

    def query(
        self, expression: str, at: float | None = None
    ) -> list[tuple[Mapping[str, str], list[tuple[float, float]]]]:
        """The series of an instant query, as labels and samples (date in POSIX seconds, value).

        `at` is the date it is asked for; without it, now. An empty list: there are none.
        """
        from pytest_kvscale.cluster.clock import utc_now

        moment = utc_now().timestamp() if at is None else at
        return self._connection.run(self._prometheus.query(expression, moment))


@pytest.fixture(scope="session")
def kv_prometheus(pytestconfig: pytest.Config, kv_cluster: Connection) -> AskedPrometheus | None:
    """The Prometheus of this run (`--kvscale-prometheus`); None if there is none."""
    found = state.run_of(pytestconfig).prometheus.prometheus
    return None if found is None else AskedPrometheus(kv_cluster, found)


@pytest.fixture
def density_level(request: pytest.FixtureRequest) -> int:
    """The level of this test, one of `--kvscale-levels` or of the marker's."""
    level: int = request.param.level
    return level


@pytest.fixture
def density_run(
    request: pytest.FixtureRequest, kv_node: NodeFacts, kv_namespace: str
) -> Callable[[int], DensityResult]:
    """Call it with a level: creates so many VMIs, waits, deletes them, and returns the result."""
    run = state.run_of(request.config)
    nth = collection.nth_of(request.node)
    times = 1 if nth is None else nth.times

    def density(level: int) -> DensityResult:
        from pytest_kvscale.levels import AbandonedError, RunStoppedError

        __tracebackhide__ = True
        try:
            return run.levels.run_level(level, run.objectives(request.path.parent), times)
        except RunStoppedError as stopped:
            pytest.fail(str(stopped), pytrace=False)
        except AbandonedError as abandoned:
            pytest.exit(str(abandoned), returncode=2)

    return density


class UpgradeCheck:
    """The upgrade of a run; `check` fails a test by what came of it."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def bring(self, side: Side) -> None:
        """Have the cluster on this side of the upgrade; fails the test if it is not there."""
        from pytest_kvscale.levels import AbandonedError
        from pytest_kvscale.upgrading import UpgradeFailedError

        __tracebackhide__ = True
        sentence = ""
        try:
            self._run.upgrading.bring(side)
        except UpgradeFailedError as problem:
            sentence = str(problem)
        except AbandonedError as abandoned:
            pytest.exit(str(abandoned), returncode=2)
        if sentence:
            pytest.fail(sentence, pytrace=False)

    def check(self, step: Step) -> None:
        """Assert that this change of version was rolled out, and that no VMI was lost in it."""
        __tracebackhide__ = True
        self.bring(step.to)
        made = self._run.upgrading.step(step.nth)
        if made is None:
            pytest.fail("KubeVirt was not brought to that version", pytrace=False)
        made.told = True
        if made.lost:
            pytest.fail(made.lost, pytrace=False)


@pytest.fixture(scope="session")
def kv_upgrade(pytestconfig: pytest.Config, kv_tuning: list[Change]) -> Iterator[UpgradeCheck]:
    """The upgrade of KubeVirt (`--kvscale-upgrade-to`); made when a test needs what is after it."""
    from pytest_kvscale.upgrading import UpgradeFailedError

    run = state.run_of(pytestconfig)
    yield UpgradeCheck(run)
    try:
        untold = run.upgrading.end()
    except UpgradeFailedError as problem:
        untold = str(problem)
    if untold:
        pytest.fail(untold, pytrace=False)


@pytest.fixture
def kv_upgrade_step(request: pytest.FixtureRequest) -> Step:
    """Which change of version a test is of, where there are several."""
    from pytest_kvscale.upgrade_tests import step_of

    return step_of(request.node)


@pytest.fixture
def kv_before(kv_upgrade: UpgradeCheck) -> None:
    """KubeVirt is of the version before the upgrade."""
    __tracebackhide__ = True
    kv_upgrade.bring("before")


@pytest.fixture
def kv_after(kv_upgrade: UpgradeCheck) -> None:
    """KubeVirt is of the version after the upgrade."""
    __tracebackhide__ = True
    kv_upgrade.bring("after")


class SloCheck:
    """The objectives of a suite; `check` fails the test if a result is no pass."""

    def __init__(self, strict: bool) -> None:
        self._strict = strict

    def check(self, result: DensityResult) -> None:
        """Assert that all VMIs ran, nothing was left behind and the objectives were met.

        An inconclusive result fails only with `--kvscale-strict`.
        """
        __tracebackhide__ = True
        if result.verdict == "fail" or (result.verdict == "inconclusive" and self._strict):
            pytest.fail(result.explanation(), pytrace=False)


@pytest.fixture
def slo(kv_settings: Settings) -> SloCheck:
    """The objectives: `slo.check(result)` fails the test if a level is no pass."""
    return SloCheck(kv_settings.strict)
