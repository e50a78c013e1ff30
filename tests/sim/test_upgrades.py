"""Upgrades of KubeVirt on the embedded cluster: what virt-operator does and says, step by step."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.errors import ConfigurationError
from pytest_kvscale.sim import profile, releases
from pytest_kvscale.sim.cluster import EmbeddedCluster
from pytest_kvscale.sim.players.workload_updater import _seconds
from pytest_kvscale.sim.resources import DAEMON_SETS, DEPLOYMENTS, KUBEVIRTS, NODES, PODS, VMIS
from tests.sim.staging import held, play, template

Json = dict[str, Any]
MERGE = "application/merge-patch+json"
PARTS = {"virt-api": DEPLOYMENTS, "virt-controller": DEPLOYMENTS, "virt-handler": DAEMON_SETS}
SETTLED = 200.0
"""Seconds in which any upgrade is over that does not hang."""


@dataclasses.dataclass(frozen=True)
class View:
    """KubeVirt as a client sees it."""

    cluster: EmbeddedCluster

    @property
    def cr(self) -> Json:
        return self.cluster.api.get(KUBEVIRTS, "kubevirt", "kubevirt").obj

    @property
    def status(self) -> Json:
        found: Json = self.cr["status"]
        return found

    @property
    def conditions(self) -> dict[str, tuple[str, str]]:
        return {e["type"]: (e["status"], e["reason"]) for e in self.status["conditions"]}

    def change(self, **spec: Any) -> None:
        self.cluster.api.patch(KUBEVIRTS, "kubevirt", "kubevirt", {"spec": spec}, MERGE)

    def part(self, name: str) -> Json:
        return self.cluster.api.get(PARTS[name], "kubevirt", name).obj

    def pods(self, name: str) -> list[Json]:
        return [
            each.obj
            for each in self.cluster.store.all(PODS, "kubevirt")
            if each.obj["metadata"]["labels"]["kubevirt.io"] == name
        ]

    def images(self) -> set[str]:
        """The tags of the components' pods."""
        return {
            each["spec"]["containers"][0]["image"].rpartition(":")[2]
            for name in PARTS
            for each in self.pods(name)
        }

    async def run_vmis(self, count: int, prefix: str = "v") -> list[str]:
        names = [f"{prefix}{index}" for index in range(count)]
        for name in names:
            self.cluster.api.create(VMIS, "default", {**template(), "metadata": {"name": name}})
        await asyncio.sleep(60)
        return names

    def phases(self) -> dict[str, str]:
        return {e["metadata"]["name"]: e["status"]["phase"] for e in held(self.cluster, VMIS)}


def watch(
    clock: VirtualClock, work: Callable[[View], Awaitable[None]], chosen: str = "upgrade-from"
) -> None:
    async def script(cluster: EmbeddedCluster) -> None:
        await work(View(cluster))

    play(clock, script, chosen)


def test_an_upgrade_is_rolled_out_to_nodes_first_and_said_when_all_is_ready(
    clock: VirtualClock,
) -> None:
    """The phase stays Deployed; the version observed is the new one only at the end."""

    async def work(kubevirt: View) -> None:
        order, said = [], []

        def note(event: Any) -> None:
            metadata = event.stored.obj["metadata"]
            version = metadata["annotations"]["kubevirt.io/install-strategy-version"]
            if version == "v1.10.0" and metadata["name"] not in order:
                order.append(metadata["name"])
                said.append((kubevirt.status["phase"], kubevirt.status["observedKubeVirtVersion"]))

        for kind in (DEPLOYMENTS, DAEMON_SETS):
            kubevirt.cluster.store.listen(kind, note)
        before = kubevirt.status
        assert kubevirt.images() == {"v1.9.0"}
        kubevirt.change(imageTag="v1.10.0")
        await asyncio.sleep(2)
        status = kubevirt.status
        assert (status["targetKubeVirtVersion"], status["targetKubeVirtRegistry"]) == (
            "v1.10.0", "quay.io/kubevirt",
        )  # fmt: skip
        assert status["observedKubeVirtVersion"] == "v1.9.0"
        assert status["targetDeploymentID"] != status["observedDeploymentID"]
        updating = ("True", "UpdateInProgress")
        assert kubevirt.conditions == dict.fromkeys(
            ("Available", "Progressing", "Degraded"), updating
        )
        await asyncio.sleep(SETTLED)
        assert order == ["virt-handler", "virt-controller", "virt-api"]
        assert said == [("Deployed", "v1.9.0")] * 3
        assert kubevirt.images() == {"v1.10.0"}
        status = kubevirt.status
        assert status["observedKubeVirtVersion"] == "v1.10.0"
        assert status["targetDeploymentID"] == status["observedDeploymentID"]
        assert status["observedGeneration"] == kubevirt.cr["metadata"]["generation"]
        assert kubevirt.conditions["Degraded"] == ("False", "AllComponentsReady")
        for name in PARTS:
            marks = kubevirt.part(name)["metadata"]["annotations"]
            assert marks["kubevirt.io/generation"] == str(kubevirt.cr["metadata"]["generation"])
            (marked,) = {e["metadata"]["annotations"]["kubevirt.io/install-strategy-version"]
                         for e in kubevirt.pods(name)}  # fmt: skip
            assert marked == marks["kubevirt.io/install-strategy-version"] == "v1.10.0"
        kubevirt.change(imageTag=None)
        await asyncio.sleep(SETTLED)
        assert kubevirt.images() == {"v1.9.0"}
        assert kubevirt.status["observedKubeVirtVersion"] == "v1.9.0"
        assert kubevirt.status["observedDeploymentID"] == before["observedDeploymentID"]

    watch(clock, work)


def test_vmis_stay_through_an_upgrade_and_are_outdated_until_it_is_taken_back(
    clock: VirtualClock,
) -> None:
    async def work(kubevirt: View) -> None:
        names = await kubevirt.run_vmis(3)
        kubevirt.change(imageTag="v1.10.0", imageRegistry="mirror.example/kv")
        await asyncio.sleep(SETTLED)
        assert kubevirt.phases() == dict.fromkeys(names, "Running")
        assert kubevirt.status["outdatedVirtualMachineInstanceWorkloads"] == 3
        await kubevirt.run_vmis(1, "new")
        outdated = "kubevirt.io/outdatedLauncherImage"
        marked = {e["metadata"]["name"] for e in held(kubevirt.cluster, VMIS)
                  if outdated in e["metadata"].get("labels", {})}  # fmt: skip
        assert marked == set(names)
        (new,) = (e for e in held(kubevirt.cluster, VMIS) if e["metadata"]["name"] == "new0")
        launcher = new["status"]["launcherContainerImageVersion"]
        assert launcher == "mirror.example/kv/virt-launcher:v1.10.0"
        kubevirt.change(imageTag="v1.9.0", imageRegistry=None)
        await asyncio.sleep(SETTLED)
        assert kubevirt.status["outdatedVirtualMachineInstanceWorkloads"] == 1
        assert set(kubevirt.phases().values()) == {"Running"}

    watch(clock, work)


def test_what_a_version_changes_is_in_force_once_it_is_rolled_out(clock: VirtualClock) -> None:
    async def work(kubevirt: View) -> None:
        def devices() -> str:
            node = kubevirt.cluster.api.get(NODES, "", "node").obj
            return str(node["status"]["allocatable"]["devices.kubevirt.io/kvm"])

        assert devices() == "1k"
        kubevirt.change(imageTag="v1.10.2")
        await asyncio.sleep(3)
        assert devices() == "1k"
        await asyncio.sleep(SETTLED)
        assert devices() == "110"
        kubevirt.change(imageTag="v1.9.0")
        await asyncio.sleep(SETTLED)
        assert devices() == "1k"

    watch(clock, work)


def test_launchers_of_a_slower_version_take_longer(clock: VirtualClock) -> None:
    async def work(kubevirt: View) -> None:
        def took(name: str) -> float:
            found = kubevirt.cluster.api.get(VMIS, "default", name).obj
            launcher = kubevirt.cluster.machines["node"].launcher(
                next(iter(found["status"]["activePods"]))
            )
            assert launcher is not None
            started, defined = launcher.log[:2]
            return (defined.at - started.at).total_seconds()

        await kubevirt.run_vmis(1, "one")
        kubevirt.change(imageTag="v1.10.1")
        await asyncio.sleep(SETTLED)
        await kubevirt.run_vmis(1, "two")
        kubevirt.change(imageTag="v1.9.0")
        await asyncio.sleep(SETTLED)
        await kubevirt.run_vmis(1, "three")
        assert took("two0") > took("one0") + 0.3
        assert took("two0") > took("three0") + 0.3

    watch(clock, work)


@pytest.mark.parametrize(
    ("tag", "stuck", "tags"),
    [
        ("v3.0.0", "virt-handler", {"v1.9.0", "v3.0.0"}),
        ("v1.10.4", "virt-controller", {"v1.9.0", "v1.10.4"}),
    ],
)
def test_an_upgrade_whose_pods_do_not_come_hangs_until_it_is_taken_back(
    clock: VirtualClock, tag: str, stuck: str, tags: set[str]
) -> None:
    async def work(kubevirt: View) -> None:
        names = await kubevirt.run_vmis(2)
        kubevirt.change(imageTag=tag)
        await asyncio.sleep(3600)
        assert kubevirt.status["observedKubeVirtVersion"] == "v1.9.0"
        assert kubevirt.status["observedGeneration"] < kubevirt.cr["metadata"]["generation"]
        assert kubevirt.conditions["Progressing"] == ("True", "UpdateInProgress")
        waiting = [
            each["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]
            for each in kubevirt.pods(stuck)
            if each["status"]["phase"] == "Pending"
        ]
        assert waiting == ["ImagePullBackOff"]
        assert kubevirt.images() == tags
        status = kubevirt.part(stuck)["status"]
        ready = status.get("readyReplicas", status.get("numberReady"))
        assert (ready, status.get("updatedReplicas", status.get("updatedNumberScheduled"))) == (
            (2, 1) if stuck == "virt-controller" else (0, 1)
        )
        kubevirt.change(imageTag="v1.9.0")
        await asyncio.sleep(SETTLED)
        assert kubevirt.images() == {"v1.9.0"}
        assert [len(kubevirt.pods(name)) for name in PARTS] == [2, 2, 1]
        assert kubevirt.conditions["Progressing"] == ("False", "AllComponentsReady")
        assert kubevirt.phases() == dict.fromkeys(names, "Running")

    watch(clock, work)


def test_an_upgrade_may_lose_vmis_by_seed(clock: VirtualClock) -> None:
    async def work(kubevirt: View) -> None:
        await kubevirt.run_vmis(12)
        kubevirt.change(imageTag="v1.10.3")
        await asyncio.sleep(SETTLED)
        phases = list(kubevirt.phases().values())
        assert 0 < phases.count("Failed") < 12
        assert phases.count("Running") + phases.count("Failed") == 12

    watch(clock, work)


def test_outdated_vmis_are_evicted_in_batches_if_the_cr_says_so(clock: VirtualClock) -> None:
    async def work(kubevirt: View) -> None:
        await kubevirt.run_vmis(3)
        kubevirt.change(
            imageTag="v1.10.0",
            workloadUpdateStrategy={"workloadUpdateMethods": ["LiveMigrate", "Evict"],
                                    "batchEvictionSize": 2, "batchEvictionInterval": "10m0s"},
        )  # fmt: skip
        await asyncio.sleep(SETTLED)
        assert [*kubevirt.phases().values()].count("Running") == 1
        await asyncio.sleep(600)
        assert "Running" not in kubevirt.phases().values()
        assert kubevirt.status["outdatedVirtualMachineInstanceWorkloads"] == 0

    watch(clock, work)


@pytest.mark.parametrize(
    ("text", "seconds"), [("1m0s", 60), ("1h1m", 3660), ("1.5s", 1.5), (None, 60), ("soon", 60)]
)
def test_intervals_are_read_as_go_writes_them(text: str | None, seconds: float) -> None:
    assert _seconds(text) == seconds


def test_only_what_is_kubevirts_comes_from_the_profile_of_a_version(tmp_path: Path) -> None:
    (tmp_path / "next.yaml").write_text(
        "extends: upgrade-from\nversions: {kubevirt: v2.0.0, kubernetes: v1.99.0}\n"
        "node: {cpu: 3}\nrate_limits: {handler: {qps: 1, burst: 2}}\n", encoding="utf-8",
    )  # fmt: skip
    (tmp_path / "mine.yaml").write_text("extends: fast\nupgrades: [next.yaml]\n", encoding="utf-8")
    mine = profile.load(str(tmp_path / "mine.yaml"))
    found = releases.find(mine, "v2.0.0", "r")
    assert found is not None
    assert found.versions.kubevirt == "v2.0.0"
    assert found.rate_limits.handler.qps == 1
    assert (found.node, found.versions.kubernetes) == (mine.node, mine.versions.kubernetes)
    assert releases.find(mine, "v1.10.0", "r") is None
    (tmp_path / "next.yaml").write_text("extends: fast\nnode: {cpu: many}\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"the profile .*next\.yaml: node\.cpu"):
        profile.load(str(tmp_path / "mine.yaml"))
    (tmp_path / "mine.yaml").write_text("extends: fast\nupgrades: [upgrade-sme]\n")
    with pytest.raises(ConfigurationError, match="did you mean 'upgrade-same'"):
        profile.load(str(tmp_path / "mine.yaml"))
