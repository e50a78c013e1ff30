"""Which cluster a run is for, and the connection to it.

This is the one place that knows whether the cluster is embedded: it picks the cluster and its
clock. What the cluster says of itself (`/version`) is kept in `Identity`; everything else takes
it from there.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import tempfile
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from pytest_kvscale.cluster.clock import Clock, RealClock, VirtualClock
from pytest_kvscale.errors import ConfigurationError

if TYPE_CHECKING:
    from pytest_kvscale.cluster import kubeconfig as kubeconfigs
    from pytest_kvscale.cluster.client import Client, Object
    from pytest_kvscale.options import Settings
    from pytest_kvscale.sim.cluster import EmbeddedCluster

T = TypeVar("T")

HOME_KUBECONFIG = Path("~/.kube/config")
IN_CLUSTER_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
PATIENCE = 15.0
"""Seconds a cluster is given to say what it is and what a run has to know of it."""
SILENCE = 8.0
"""Seconds within which it must say something of that: with the time pytest and xdist's workers
take to start, whoever waits is told within 15 seconds."""


@dataclasses.dataclass(frozen=True)
class Identity:
    """What a cluster says of itself."""

    server: str
    context: str | None
    kubernetes: str
    """`gitVersion`."""
    simulated: str
    """`sim`, `hollow` or `false`."""
    profile: str | None = None
    seed: int | None = None

    def text(self) -> str:
        """One line for people: `SIMULATED` first, where it is.

        One in this process has no context, and its address tells nobody anything.
        """
        where = f" {self.server} (context {self.context})" if self.context else ""
        if self.simulated == "sim":
            return f"SIMULATED cluster{where}: profile {self.profile}, seed {self.seed}"
        mark = "SIMULATED (hollow nodes) " if self.simulated == "hollow" else ""
        return f"{mark}cluster{where or f' {self.server}'}"


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which cluster it shall be: the embedded one, or one by a kubeconfig or service account."""

    embedded: bool
    kubeconfig: str | None = None
    """A path, or several as in KUBECONFIG; None: the pod's service account."""
    context: str | None = None


class Connection:
    """A cluster to work with: its clock, its API, and what it says of itself."""

    def __init__(
        self,
        clock: Clock,
        client: Client,
        identity: Identity,
        embedded: EmbeddedCluster | None,
        programs: Mapping[str, str] | None = None,
    ) -> None:
        self.clock = clock
        self.client = client
        self.identity = identity
        self.shared = embedded is None
        """Whether other processes see the same cluster."""
        self.default_tuning = "density" if embedded is not None else "none"
        self._embedded = embedded
        self._programs = dict(programs or {})
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._patience = PATIENCE

    def __repr__(self) -> str:
        return f"<Connection to {self.client.name}>"

    def ask(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for an answer the run cannot begin without.

        Raises `ConfigurationError` for what requests can end with, and if the cluster has not
        answered when the time that connecting has left is over.
        """

        async def in_time() -> T:
            begin = asyncio.get_running_loop().time()
            try:
                return await _or_explain(work, self.client, min(SILENCE, self._patience))
            finally:
                self._patience -= asyncio.get_running_loop().time() - begin

        return self.run(in_time())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for work in the cluster's loop; see `Clock.run`."""
        return self.clock.run(self._unless_it_fails(work))

    async def _unless_it_fails(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work, but do not wait for a cluster in this process that has broken down."""
        if self._embedded is None:
            return await work
        task, failure = asyncio.ensure_future(work), self._embedded.team.failure
        try:
            await asyncio.wait((task, failure), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait((task,))
            raise
        if not task.done():
            task.cancel()
            await asyncio.wait((task,), timeout=PATIENCE)
            failure.result()
        return task.result()

    def environment(self) -> Mapping[str, str]:
        """Variables that lead a program to this cluster: KUBECONFIG and KVSCALE_CONTEXT.

        None of them where the program finds it as we did. With a context, the first file of
        KUBECONFIG names it: of several files the first one's current context counts.
        """
        if self._folder is not None:
            return self._programs
        context = self._programs.get("KVSCALE_CONTEXT")
        if self._embedded is not None or context is not None:
            self._folder = tempfile.TemporaryDirectory(prefix="kvscale-")
            path = Path(self._folder.name) / "kubeconfig"
            files = [str(path)]
            if self._embedded is not None:
                self._embedded.write_kubeconfig(path)
            else:
                said = {"apiVersion": "v1", "kind": "Config", "current-context": context}
                path.write_text(json.dumps(said), encoding="utf-8")
                files += filter(None, [self._programs.get("KUBECONFIG")])
            self._programs["KUBECONFIG"] = os.pathsep.join(files)
        return self._programs

    def close(self) -> None:
        """Disconnect; an embedded cluster ends with that."""
        if self._folder is not None:
            self._folder.cleanup()
        self.clock.run(self._close())
        self.clock.close()

    async def _close(self) -> None:
        await self.client.close()
        if self._embedded is not None:
            await self._embedded.stop()


def connect(
    settings: Settings,
    environment: Mapping[str, str] | None = None,
    in_cluster_token: Path = IN_CLUSTER_TOKEN,
) -> Connection:
    """Connect to the cluster the settings and the environment name.

    Raises `ConfigurationError`: which cluster is meant is not clear, it does not answer, or it is
    of another kind than asked for.
    """
    try:
        found = os.environ if environment is None else environment
        return _connect(settings, found, in_cluster_token)
    except ConfigurationError as problem:
        sentence = str(problem)
    # Without the frames that hold kubeconfig and environment.
    raise ConfigurationError(sentence)


def _connect(
    settings: Settings, environment: Mapping[str, str], in_cluster_token: Path
) -> Connection:
    choice = choose(settings, environment, in_cluster_token)
    clock: Clock = VirtualClock() if choice.embedded else RealClock()
    try:
        return clock.run(_open(clock, choice, settings, environment, in_cluster_token))
    except BaseException:
        clock.close()
        raise


def choose(
    settings: Settings, environment: Mapping[str, str], in_cluster_token: Path = IN_CLUSTER_TOKEN
) -> Choice:
    """Which cluster is meant; with `auto`, nobody's current context is taken by accident."""
    if settings.cluster == "sim":
        return Choice(embedded=True)
    explicit = settings.kubeconfig or environment.get("KUBECONFIG") or None
    home = _home_kubeconfig(environment)
    in_cluster = "KUBERNETES_SERVICE_HOST" in environment and in_cluster_token.exists()
    kubeconfig = str(explicit) if explicit else str(home) if home else None
    if explicit or settings.context or settings.cluster == "kube":
        if kubeconfig is None and not in_cluster:
            raise ConfigurationError(
                "no cluster to connect to: there is no kubeconfig (--kvscale-kubeconfig, "
                f"KUBECONFIG, {HOME_KUBECONFIG}) and no service account"
            )
        return Choice(embedded=False, kubeconfig=kubeconfig, context=settings.context)
    if home or in_cluster:
        raise ConfigurationError(
            f"{_describe(home, environment)} would be used only because it is there: say "
            "--kvscale-cluster kube to run on it, or --kvscale-cluster sim for the embedded "
            "cluster (or kvscale_cluster in the ini file)"
        )
    return Choice(embedded=True)


def _home_kubeconfig(environment: Mapping[str, str]) -> Path | None:
    home = environment.get("HOME")
    path = Path(home) / ".kube" / "config" if home else HOME_KUBECONFIG.expanduser()
    return path if path.is_file() else None


def _describe(kubeconfig: Path | None, environment: Mapping[str, str]) -> str:
    if kubeconfig is None:
        host = environment.get("KUBERNETES_SERVICE_HOST")
        return f"the cluster of this pod's service account ({host})"
    try:
        content = yaml.safe_load(kubeconfig.read_text(encoding="utf-8")) or {}
        context = content.get("current-context")
        entry = next(each["context"] for each in content["contexts"] if each["name"] == context)
        server = next(
            each["cluster"]["server"]
            for each in content["clusters"]
            if each["name"] == entry["cluster"]
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration,
            yaml.YAMLError):  # fmt: skip
        return f"the cluster in {kubeconfig}"
    return f"the cluster {server} (context {context} in {kubeconfig})"


async def _open(
    clock: Clock,
    choice: Choice,
    settings: Settings,
    environment: Mapping[str, str],
    in_cluster_token: Path,
) -> Connection:
    from pytest_kvscale.cluster import transport

    begin = clock.loop.time()
    embedded: EmbeddedCluster | None = None
    if choice.embedded:
        embedded = await _start_embedded(settings)
        client = transport.open_plain(embedded.url)
    else:
        client = transport.open_access(_access(choice, environment, in_cluster_token), environment)
    try:
        identity = await _or_explain(_identify(client), client, SILENCE)
        if not choice.embedded and identity.simulated != "false":
            _refuse_simulated(settings, identity)
    except BaseException:
        await client.close()
        if embedded is not None:
            await embedded.stop()
        raise
    connection = Connection(clock, client, identity, embedded, _for_programs(choice))
    connection._patience -= clock.loop.time() - begin
    return connection


def _for_programs(choice: Choice) -> dict[str, str]:
    found = {}
    if choice.kubeconfig is not None:
        files = [each for each in choice.kubeconfig.split(os.pathsep) if each]
        found["KUBECONFIG"] = os.pathsep.join(str(Path(each).absolute()) for each in files)
    if choice.context is not None:
        found["KVSCALE_CONTEXT"] = choice.context
    return found


def _access(
    choice: Choice, environment: Mapping[str, str], in_cluster_token: Path
) -> kubeconfigs.Access:
    from pytest_kvscale.cluster import kubeconfig as kubeconfigs

    if choice.kubeconfig is not None:
        return kubeconfigs.from_files(choice.kubeconfig, choice.context)
    if choice.context is not None:
        raise ConfigurationError(
            f"there is no kubeconfig that could have the context {choice.context!r}"
        )
    return kubeconfigs.from_service_account(environment, in_cluster_token)


def _refuse_simulated(settings: Settings, identity: Identity) -> None:
    if not settings.allow_simulated:
        raise ConfigurationError(
            f"{identity.server} says it is simulated ({identity.simulated}): a cluster named by "
            "a kubeconfig must be real, unless --kvscale-allow-simulated is given"
        )


async def _start_embedded(settings: Settings) -> EmbeddedCluster:
    from pytest_kvscale.sim import profile
    from pytest_kvscale.sim.cluster import EmbeddedCluster

    name = settings.sim_profile
    cluster = EmbeddedCluster(profile.load(name), Path(name).stem, settings.sim_seed)
    await cluster.start()
    return cluster


async def _identify(client: Client) -> Identity:
    version: Object = await client.about("/version")
    simulated = version.get("simulated") or {}
    return Identity(
        server=client.server,
        context=client.context,
        kubernetes=str(version.get("gitVersion", "")),
        simulated=str(simulated.get("kind", "false")),
        profile=simulated.get("profile"),
        seed=simulated.get("seed"),
    )


async def _or_explain(work: Coroutine[Any, Any, T], client: Client, patience: float) -> T:
    """Do the work in so many seconds; what requests can end with becomes one sentence."""
    from pytest_kvscale.cluster.client import ApiError, LostConnectionError
    from pytest_kvscale.cluster.troubles import explain

    patience = max(round(patience, 1), 0.0)
    try:
        async with asyncio.timeout(patience):
            return await work
    except (ApiError, LostConnectionError, TimeoutError) as problem:
        sentence = explain(problem, client, patience)
    raise ConfigurationError(sentence)
