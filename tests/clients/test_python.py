"""What programs do with the official Python clients, unmodified."""

# Half of these clients carry no types, and the others say that every field may be missing.
# mypy: disable-error-code="no-untyped-call,union-attr,arg-type,index,operator"

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes.aio.client
import kubernetes.aio.config
import kubernetes.aio.watch
import pytest
from kubernetes import client, config, dynamic, informer, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.leaderelection.electionconfig import Config
from kubernetes.leaderelection.leaderelection import LeaderElection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

from tests.clients.kubectl import vmi
from tests.standalone import PATIENCE, Standalone

NAMESPACE = "python"
VMIS = ("kubevirt.io", "v1", NAMESPACE, "virtualmachineinstances")


@pytest.fixture(scope="module")
def api(served: Standalone) -> Iterator[client.ApiClient]:
    """A client of the synchronous library; it is the library's default one too."""
    config.load_kube_config(str(served.kubeconfig))
    with client.ApiClient() as made:
        client.CoreV1Api(made).create_namespace({"metadata": {"name": NAMESPACE}})
        yield made


@pytest.fixture
def core(api: client.ApiClient) -> client.CoreV1Api:
    return client.CoreV1Api(api)


def config_map(name: str, **data: str) -> Any:
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name), data=data)


def test_typed_objects_are_made_read_changed_and_deleted(core: client.CoreV1Api) -> None:
    made = core.create_namespaced_config_map(NAMESPACE, config_map("typed", a="1"))
    assert (made.kind, made.metadata.namespace) == ("ConfigMap", NAMESPACE)
    assert made.metadata.creation_timestamp.tzinfo is not None
    core.patch_namespaced_config_map("typed", NAMESPACE, {"data": {"b": "2"}})
    held = core.read_namespaced_config_map("typed", NAMESPACE)
    assert held.data == {"a": "1", "b": "2"}
    with pytest.raises(ApiException) as conflict:
        core.replace_namespaced_config_map("typed", NAMESPACE, made)
    assert (conflict.value.status, conflict.value.reason) == (409, "Conflict")
    held.data = {"c": "3"}
    core.replace_namespaced_config_map("typed", NAMESPACE, held)
    listed = core.list_namespaced_config_map(NAMESPACE, field_selector="metadata.name=typed")
    assert [each.data for each in listed.items] == [{"c": "3"}]
    core.delete_namespaced_config_map("typed", NAMESPACE)
    with pytest.raises(ApiException) as gone:
        core.read_namespaced_config_map("typed", NAMESPACE)
    assert gone.value.status == 404
    node = core.list_node().items[0]
    assert "devices.kubevirt.io/kvm" in node.status.allocatable
    assert len(node.status.node_info.machine_id) == 32
    assert core.list_namespace(limit=1).metadata._continue


def test_what_is_there_has_all_that_its_kind_must_have(
    api: client.ApiClient, core: client.CoreV1Api
) -> None:
    """This client refuses objects that lack a required field."""
    apps, rbac = client.AppsV1Api(api), client.RbacAuthorizationV1Api(api)
    core.list_event_for_all_namespaces()
    core.list_service_account_for_all_namespaces()
    client.CoordinationV1Api(api).list_lease_for_all_namespaces()
    deployments = apps.list_deployment_for_all_namespaces().items
    assert {each.metadata.name for each in deployments} >= {"virt-api", "virt-controller"}
    assert apps.list_daemon_set_for_all_namespaces().items[0].status.number_ready == 1
    roles = {role.metadata.name: role for role in rbac.list_cluster_role().items}
    assert len(roles["edit"].rules) > len(roles["view"].rules) > 5
    assert {each.role_ref.name for each in rbac.list_cluster_role_binding().items} <= set(roles)
    assert client.VersionApi(api).get_code().major == "1"
    assert "v1" in client.CoreApi(api).get_api_versions().versions


def test_custom_objects_run(api: client.ApiClient, core: client.CoreV1Api) -> None:
    objects = client.CustomObjectsApi(api)
    objects.create_namespaced_custom_object(*VMIS, vmi("custom"))
    seen = []
    for event in watch.Watch().stream(
        objects.list_namespaced_custom_object, *VMIS, timeout_seconds=PATIENCE
    ):
        seen.append(event["object"].get("status", {}).get("phase"))
        if seen[-1] == "Running":
            break
    assert seen[-1] == "Running"
    pods = core.list_namespaced_pod(NAMESPACE, label_selector="kubevirt.io=virt-launcher").items
    assert [(pod.status.phase, pod.spec.node_name) for pod in pods] == [("Running", "node")]
    change = {"metadata": {"labels": {"a": "b"}}}
    patched = objects.patch_namespaced_custom_object(*VMIS, "custom", change)
    assert patched["metadata"]["labels"]["a"] == "b"
    objects.delete_namespaced_custom_object(*VMIS, "custom")


def test_a_watch_goes_on_where_it_was(core: client.CoreV1Api, served: Standalone) -> None:
    def names(**options: Any) -> list[tuple[str, str]]:
        stream = watch.Watch().stream(
            core.list_namespaced_config_map, NAMESPACE, timeout_seconds=1, **options
        )
        return [(each["type"], each["object"].metadata.name) for each in stream]

    since = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    core.create_namespaced_config_map(NAMESPACE, config_map("first"))
    second = core.create_namespaced_config_map(NAMESPACE, config_map("second"))
    core.delete_namespaced_config_map("first", NAMESPACE)
    ours = [("ADDED", "first"), ("ADDED", "second"), ("DELETED", "first")]
    assert names(resource_version=since) == ours
    assert names(resource_version=second.metadata.resource_version) == ours[2:]
    served.post("/_sim/faults", {"kind": "compact"})

    def watch_until_it_is_compacted() -> None:
        while True:  # That is a moment after it was asked for.
            names(resource_version=since)

    with pytest.raises(ApiException) as expired:
        watch_until_it_is_compacted()
    assert expired.value.status == 410
    core.delete_namespaced_config_map("second", NAMESPACE)


def test_the_dynamic_client_finds_kinds_by_discovery(api: client.ApiClient, tmp_path: Path) -> None:
    found = dynamic.DynamicClient(api, cache_file=str(tmp_path / "discovery"))
    machines = found.resources.get(api_version="kubevirt.io/v1", kind="VirtualMachineInstance")
    assert (machines.name, machines.namespaced) == ("virtualmachineinstances", True)
    made = machines.create(body=vmi("dynamic"), namespace=NAMESPACE)
    assert made.metadata.name == "dynamic"
    patched = machines.patch(
        body={"metadata": {"labels": {"x": "y"}}}, name="dynamic", namespace=NAMESPACE,
        content_type="application/merge-patch+json",
    )  # fmt: skip
    assert patched.metadata.labels["x"] == "y"
    for event in machines.watch(namespace=NAMESPACE, name="dynamic", timeout=PATIENCE):
        if event["object"].status.phase == "Running":
            break
    machines.delete(name="dynamic", namespace=NAMESPACE)
    maps = found.resources.get(api_version="v1", kind="ConfigMap")
    applied = maps.server_side_apply(
        body={"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ours"}, "data": {}},
        namespace=NAMESPACE, field_manager="tests",
    )  # fmt: skip
    assert applied.metadata.managedFields[0].manager == "tests"
    maps.delete(name="ours", namespace=NAMESPACE)


def test_an_informer_keeps_up(core: client.CoreV1Api) -> None:
    told: queue.Queue[tuple[str, str]] = queue.Queue()
    shared = informer.SharedInformer(
        core.list_namespaced_config_map, namespace=NAMESPACE, label_selector="informed=yes",
        resync_period=1,
    )  # fmt: skip
    for kind in ("ADDED", "MODIFIED", "DELETED"):
        shared.add_event_handler(
            kind, lambda each, kind=kind: told.put((kind, (each.data or {}).get("n", "")))
        )
    body = config_map("informed", n="1")
    body.metadata.labels = {"informed": "yes"}
    core.create_namespaced_config_map(NAMESPACE, body)
    shared.start()
    try:
        assert told.get(timeout=PATIENCE) == ("ADDED", "1")
        core.patch_namespaced_config_map("informed", NAMESPACE, {"data": {"n": "2"}})
        while told.get(timeout=PATIENCE) != ("MODIFIED", "2"):
            pass
        assert [each.data for each in shared.cache.list()] == [{"n": "2"}]
        # What no longer matches is gone for who watches by label.
        core.patch_namespaced_config_map(
            "informed", NAMESPACE, {"metadata": {"labels": {"informed": "no"}}}
        )
        while told.get(timeout=PATIENCE)[0] != "DELETED":
            pass
        assert shared.cache.list() == []
    finally:
        shared.stop()
    core.delete_namespaced_config_map("informed", NAMESPACE)


class Candidate:
    """One that wants to lead, in a thread of its own."""

    def __init__(self, name: str) -> None:
        self.leads = threading.Event()
        self.resign = threading.Event()
        self.stopped = threading.Event()
        lock = LeaseLock("leader", NAMESPACE, name)
        self._election = LeaderElection(
            Config(lock, 3, 2, 1, onstarted_leading=self._lead, onstopped_leading=self.stopped.set)
        )
        self.thread = threading.Thread(target=self._election.run, daemon=True)
        self.thread.start()

    def _lead(self) -> None:
        self.leads.set()
        self.resign.wait(PATIENCE)
        raise RuntimeError("has led enough")


def test_one_candidate_leads_at_a_time(api: client.ApiClient) -> None:
    first = Candidate("first")
    assert first.leads.wait(PATIENCE)
    second = Candidate("second")
    coordination = client.CoordinationV1Api(api)
    assert not second.leads.wait(1.5)
    assert coordination.read_namespaced_lease("leader", NAMESPACE).spec.holder_identity == "first"
    first.resign.set()
    assert second.leads.wait(PATIENCE)
    assert first.stopped.is_set()
    lease = coordination.read_namespaced_lease("leader", NAMESPACE)
    assert lease.spec.holder_identity == "second"
    assert lease.spec.lease_transitions in (None, 1)
    second.resign.set()
    for each in (first, second):
        each.thread.join(PATIENCE)
        assert each.stopped.is_set()
    coordination.delete_namespaced_lease("leader", NAMESPACE)


def test_the_asynchronous_client_works_beside_its_watch(
    api: client.ApiClient, served: Standalone
) -> None:
    async def work() -> list[str]:
        await kubernetes.aio.config.load_kube_config(str(served.kubeconfig))
        async with kubernetes.aio.client.ApiClient() as asynchronous:
            core = kubernetes.aio.client.CoreV1Api(asynchronous)
            objects = kubernetes.aio.client.CustomObjectsApi(asynchronous)
            phases: list[str] = []

            async def follow() -> None:
                async with kubernetes.aio.watch.Watch() as changes:
                    async for event in changes.stream(
                        objects.list_namespaced_custom_object, *VMIS, timeout_seconds=PATIENCE
                    ):
                        phases.append((event["object"].get("status") or {}).get("phase", ""))
                        if phases[-1] == "Running":
                            return

            following = asyncio.create_task(follow())
            await objects.create_namespaced_custom_object(*VMIS, vmi("asynchronous"))
            await asyncio.gather(
                *(
                    core.create_namespaced_config_map(
                        NAMESPACE, {"metadata": {"name": f"many-{n}"}}
                    )
                    for n in range(10)
                )
            )
            found = await core.list_namespaced_config_map(NAMESPACE, limit=3)
            assert (len(found.items), bool(found.metadata._continue)) == (3, True)
            await following
            await objects.delete_namespaced_custom_object(*VMIS, "asynchronous")
            await core.delete_collection_namespaced_config_map(NAMESPACE)
            return phases

    phases = asyncio.run(work())
    assert phases[-1] == "Running"
    assert len(phases) >= 3


def test_reviews_and_tokens_are_typed(core: client.CoreV1Api, api: client.ApiClient) -> None:
    attributes = client.V1ResourceAttributes(verb="create", resource="pods", namespace=NAMESPACE)
    spec = client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
    review = client.AuthorizationV1Api(api).create_self_subject_access_review(
        client.V1SelfSubjectAccessReview(spec=spec)
    )
    assert review.status.allowed
    core.create_namespaced_service_account(NAMESPACE, {"metadata": {"name": "robot"}})
    request = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[]))
    token = core.create_namespaced_service_account_token("robot", NAMESPACE, request)
    checked = client.AuthenticationV1Api(api).create_token_review(
        client.V1TokenReview(spec=client.V1TokenReviewSpec(token=token.status.token))
    )
    assert checked.status.user.username == f"system:serviceaccount:{NAMESPACE}:robot"
