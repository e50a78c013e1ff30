"""Writes that a real API server refuses, or changes, and how it says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pytest_kvscale.sim import quantity
from tests.sim.asker import Asker, Work
from tests.sim.staging import Json
from tests.sim.wire import APPLY, JSON_PATCH, MERGE, STRATEGIC, vmi

VMIS = "/apis/kubevirt.io/v1/namespaces/default/virtualmachineinstances"
CORE = "/api/v1/namespaces/default"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
INVALID, TYPE, DOUBLE = "FieldValueInvalid", "FieldValueTypeInvalid", "FieldValueDuplicate"
UNSUPPORTED = "FieldValueNotSupported"


@pytest.fixture
def api_only() -> bool:
    return True


def mine(name: str = "one", **metadata: Any) -> Json:
    return vmi(name, "default", **metadata)


def pod(name: str = "p", **spec: Any) -> Json:
    return {
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i:1"}], **spec},
    }


def holding(**container: Any) -> Json:
    return pod(containers=[{"name": "c", "image": "i:1", **container}])


def causes(body: Json) -> list[tuple[str, str]]:
    found = (body.get("details") or {}).get("causes") or []
    return sorted((each["reason"], each.get("field", "")) for each in found)


# Patches ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "media_type"),
    [
        ({"spec": {"hostname": 5}}, MERGE),
        ({"spec": {"hostname": 5}}, STRATEGIC),
        ({"metadata": {"labels": {"a": 1}}}, MERGE),
        ({"metadata": {"creationTimestamp": "soon"}}, MERGE),
        ({"kind": "ConfigMap"}, MERGE),
        ([{"op": "add", "path": "/spec/hostname", "value": []}], JSON_PATCH),
    ],
)
def test_what_a_patch_makes_of_an_object_must_be_readable(
    run: Callable[[Work], None], change: Any, media_type: str
) -> None:
    async def work(ask: Asker) -> None:
        await ask("POST", f"{CORE}/pods", pod())
        status, refusal = await ask("PATCH", f"{CORE}/pods/p", change, media_type)
        assert (status, causes(refusal)) == (422, [(INVALID, "patch")])
        assert set(refusal["details"]) == {"causes"}

    run(work)


def test_a_strict_patch_with_an_unknown_field_is_invalid(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        await ask("POST", VMIS, mine())
        path = f"{VMIS}/one?fieldValidation=Strict"
        status, refusal = await ask("PATCH", path, {"spec": {"frob": 1}}, MERGE)
        assert (status, causes(refusal)) == (422, [(INVALID, "patch")])

    run(work)


# Custom objects ---------------------------------------------------------------------------------


def test_a_custom_object_of_another_kind_is_read_and_refused(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        status, refusal = await ask("POST", VMIS, {**mine(), "kind": "VirtualMachine"})
        assert (status, causes(refusal)) == (422, [(INVALID, "kind")])
        await ask("POST", VMIS, mine())
        change = {"kind": "Pod", "apiVersion": "v1"}
        status, refusal = await ask("PATCH", f"{VMIS}/one", change, MERGE)
        assert (status, causes(refusal)) == (422, [(INVALID, "apiVersion"), (INVALID, "kind")])
        status, refusal = await ask("POST", VMIS, {**mine(), **change})
        assert (status, refusal["reason"]) == (400, "BadRequest")

    run(work)


@pytest.mark.parametrize("key", ["kind", "apiVersion"])
def test_a_custom_object_says_what_it_is(run: Callable[[Work], None], key: str) -> None:
    async def work(ask: Asker) -> None:
        anonymous = {name: value for name, value in mine().items() if name != key}
        assert (await ask("POST", VMIS, anonymous))[0] == 400
        await ask("POST", VMIS, mine())
        status, refusal = await ask("PATCH", f"{VMIS}/one", {key: None}, MERGE)
        assert (status, causes(refusal)) == (422, [(INVALID, "patch")])

    run(work)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("lots", [(INVALID, "PATH")]),
        (1.5, [(INVALID, "<nil>"), (INVALID, "<nil>"), (TYPE, "PATH"), (TYPE, "PATH")]),
        ({}, [(INVALID, "<nil>"), (INVALID, "<nil>"), (TYPE, "PATH"), (TYPE, "PATH")]),
    ],
)
def test_a_quantity_of_a_custom_object_is_a_whole_number_or_looks_like_one(
    run: Callable[[Work], None], value: Any, expected: list[tuple[str, str]]
) -> None:
    async def work(ask: Asker) -> None:
        wrong = mine()
        wrong["spec"]["domain"]["resources"] = {"requests": {"memory": value}}
        status, refusal = await ask("POST", VMIS, wrong)
        path = "spec.domain.resources.requests.memory"
        named = [(reason, field.replace("PATH", path)) for reason, field in expected]
        assert (status, causes(refusal)) == (422, named)

    run(work)


def test_a_number_beyond_64_bits_is_no_whole_number(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        wrong = mine()
        wrong["spec"]["terminationGracePeriodSeconds"] = 10**20
        status, refusal = await ask("POST", VMIS, wrong)
        assert status == 422
        assert (TYPE, "spec.terminationGracePeriodSeconds") in causes(refusal)

    run(work)


# What cannot be decoded -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"{CORE}/secrets", {"data": {"a": "not base64!"}}),
        (f"{CORE}/configmaps", {"binaryData": {"a": "%%"}}),
        (f"{CORE}/configmaps", {"metadata": {"name": "x", "creationTimestamp": "soon"}}),
        (LEASES, {"spec": {"renewTime": "soon"}}),
        (LEASES, {"spec": {"renewTime": "2026-01-01T00:00:00Z"}}),
        (f"{CORE}/events", {"eventTime": "soon"}),
    ],
)
def test_texts_that_stand_for_something_else_must_do_so(
    run: Callable[[Work], None], path: str, body: Json
) -> None:
    async def work(ask: Asker) -> None:
        status, refusal = await ask("POST", path, {"metadata": {"name": "x"}, **body})
        assert (status, refusal["reason"]) == (400, "BadRequest")

    run(work)


# Rules of single kinds --------------------------------------------------------------------------

CONTAINER = "spec.containers[0]"


@pytest.mark.parametrize(
    ("body", "reason", "field"),
    [
        (pod(containers=[{"name": "c", "image": "i"}] * 2), DOUBLE, "spec.containers[1].name"),
        (holding(name="A_b"), INVALID, f"{CONTAINER}.name"),
        (holding(imagePullPolicy="Often"), UNSUPPORTED, f"{CONTAINER}.imagePullPolicy"),
        (holding(ports=[{"containerPort": 99999}]), INVALID, f"{CONTAINER}.ports[0].containerPort"),
        (holding(env=[{"name": ""}]), "FieldValueRequired", f"{CONTAINER}.env[0].name"),
        (
            holding(volumeMounts=[{"name": "v", "mountPath": "/x"}]),
            "FieldValueNotFound", f"{CONTAINER}.volumeMounts[0].name",
        ),
        (
            holding(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
            INVALID, f"{CONTAINER}.resources.requests",
        ),
        (pod(volumes=[{"name": "v", "emptyDir": {}}] * 2), DOUBLE, "spec.volumes[1].name"),
        (pod(dnsPolicy="Odd"), "FieldValueNotSupported", "spec.dnsPolicy"),
        (pod(nodeSelector={"a b": "c"}), INVALID, "spec.nodeSelector"),
        (
            pod(tolerations=[{"key": "a", "operator": "Like"}]),
            "FieldValueNotSupported", "spec.tolerations[0].operator",
        ),
    ],
)  # fmt: skip
def test_pods_that_make_no_sense(
    run: Callable[[Work], None], body: Json, reason: str, field: str
) -> None:
    async def work(ask: Asker) -> None:
        status, refusal = await ask("POST", f"{CORE}/pods", body)
        assert (status, causes(refusal)) == (422, [(reason, field)])

    run(work)


@pytest.mark.parametrize(
    ("ports", "reason", "field"),
    [
        ([{"port": 80, "name": "a"}, {"port": 80, "name": "b"}], DOUBLE, "spec.ports[1]"),
        ([{"port": 80, "name": "a"}, {"port": 81, "name": "a"}], DOUBLE, "spec.ports[1].name"),
        ([{"port": 80, "protocol": "X"}], "FieldValueNotSupported", "spec.ports[0].protocol"),
    ],
)
def test_services_whose_ports_make_no_sense(
    run: Callable[[Work], None], ports: list[Json], reason: str, field: str
) -> None:
    async def work(ask: Asker) -> None:
        body = {"metadata": {"name": "s"}, "spec": {"ports": ports}}
        status, refusal = await ask("POST", f"{CORE}/services", body)
        assert (status, causes(refusal)) == (422, [(reason, field)])

    run(work)


def test_secrets_have_what_their_type_asks_for(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        for kind, fields in (
            ("service-account-token", ["metadata.annotations[kubernetes.io/service-account.name]"]),
            ("basic-auth", ["data[password]", "data[username]"]),
        ):
            body = {"metadata": {"name": "s"}, "type": f"kubernetes.io/{kind}"}
            status, refusal = await ask("POST", f"{CORE}/secrets", body)
            required = [("FieldValueRequired", field) for field in fields]
            assert (status, causes(refusal)) == (422, required)

    run(work)


def test_what_a_node_may_not_become(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        body = {
            "metadata": {"name": "n"},
            "spec": {"providerID": "a", "podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]},
            "status": {"capacity": {"devices.kubevirt.io/kvm": "1000", "cpu": "4000m"}},
        }
        _, made = await ask("POST", "/api/v1/nodes", body)
        assert made["status"]["capacity"] == {"devices.kubevirt.io/kvm": "1k", "cpu": "4"}
        not_ready = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
        assert made["spec"]["taints"] == [not_ready]
        for change, cause in (
            ({"providerID": "b"}, ("FieldValueForbidden", "spec.providerID")),
            ({"podCIDRs": ["10.0.1.0/24"]}, ("FieldValueForbidden", "spec.podCIDRs")),
            (
                {"taints": [{"key": "a", "effect": "Bad"}]},
                ("FieldValueNotSupported", "spec.taints[0].effect"),
            ),
        ):
            status, refusal = await ask("PATCH", "/api/v1/nodes/n", {"spec": change}, MERGE)
            assert (status, causes(refusal)) == (422, [cause])

    run(work)


def test_a_review_has_one_question_and_no_name(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        about = {"resourceAttributes": {"verb": "get", "resource": "pods"}}
        path = {"nonResourceAttributes": {"verb": "get", "path": "/healthz"}}
        for body, field in (
            ({"spec": {}}, "spec.resourceAttributes"),
            ({"spec": {**about, **path}}, "spec.nonResourceAttributes"),
            ({"metadata": {"name": "x"}, "spec": about}, "metadata"),
        ):
            status, refusal = await ask("POST", REVIEWS, body)
            assert (status, causes(refusal)) == (422, [(INVALID, field)])

    run(work)


# What the server makes of an object -------------------------------------------------------------


def test_a_pod_gets_what_every_pod_has(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        resources = {"requests": {"cpu": "1000m", "memory": "1024Mi"}, "limits": {"cpu": 2}}
        _, made = await ask("POST", f"{CORE}/pods", holding(resources=resources))
        spec = made["spec"]
        container = spec["containers"][0]
        assert container["resources"] == {
            "requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2"},
        }  # fmt: skip
        assert container["terminationMessagePath"] == "/dev/termination-log"
        assert container["terminationMessagePolicy"] == "File"
        probe = {"httpGet": {"port": 80}}
        volumes = [{"name": "e"}, {"name": "s", "secret": {"secretName": "x"}}]
        more = {**holding(livenessProbe=probe)["spec"], "volumes": volumes}
        _, other = await ask("POST", f"{CORE}/pods", pod("q", **more))
        assert other["spec"]["volumes"] == [
            {"name": "e", "emptyDir": {}},
            {"name": "s", "secret": {"secretName": "x", "defaultMode": 420}},
        ]
        assert other["spec"]["containers"][0]["livenessProbe"] == {
            "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
            "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
        }  # fmt: skip
        filled = (
            "priority", "preemptionPolicy", "enableServiceLinks", "serviceAccount",
            "securityContext",
        )  # fmt: skip
        assert [spec[key] for key in filled] == [0, "PreemptLowerPriority", True, "default", {}]

    run(work)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("1000m", "1"), ("0.5", "500m"), ("1500m", "1500m"), (2, "2"), ("1000", "1k"),
        ("1500", "1500"), ("1024Mi", "1Gi"), ("1.5Gi", "1536Mi"), ("1000Mi", "1000Mi"),
        ("0", "0"), ("0Ki", "0"), ("0.5Ki", "512"), ("1e3", "1e3"), ("100E", "100E"),
        ("-1000m", "-1"), ("0.1n", "1n"), ("2Ei", "2Ei"),
    ],
)  # fmt: skip
def test_a_quantity_is_written_in_the_largest_unit_that_leaves_it_whole(
    given: object, expected: str
) -> None:
    assert quantity.canonical(given) == expected


def test_a_namespace_keeps_the_label_with_its_name(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        label = "kubernetes.io/metadata.name"
        body = {"metadata": {"name": "n", "labels": {label: "other"}}}
        _, made = await ask("POST", "/api/v1/namespaces", body)
        assert made["metadata"]["labels"] == {label: "n"}
        _, put = await ask("PUT", "/api/v1/namespaces/n", {"metadata": {"name": "n"}})
        assert put["metadata"]["labels"] == {label: "n"}

    run(work)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"containers": [None]}, f"{CONTAINER}.name"),
        ({"initContainers": [None]}, "spec.initContainers[0].name"),
        ({"tolerations": [None]}, "spec.tolerations[0].operator"),
        ({"volumes": [None]}, "spec.volumes[0].name"),
    ],
)
def test_null_in_a_list_of_a_pod_is_an_entry_with_nothing_in_it(
    run: Callable[[Work], None], spec: Json, field: str
) -> None:
    async def work(ask: Asker) -> None:
        status, refusal = await ask("POST", f"{CORE}/pods", pod(**spec))
        assert status == 422
        assert field in [each for _, each in causes(refusal)]
        nothing: Json = {
            "dnsPolicy": None,
            "restartPolicy": "",
            "volumes": None,
            "nodeSelector": None,
        }
        _, made = await ask("POST", f"{CORE}/pods", pod(**nothing))
        assert made["spec"]["dnsPolicy"] == "ClusterFirst"
        assert made["spec"]["restartPolicy"] == "Always"
        data = {"metadata": {"name": "c"}, "data": {"a": None}}
        _, made = await ask("POST", f"{CORE}/configmaps", data)
        assert made["data"] == {"a": ""}

    run(work)


def test_an_applied_pod_is_made_like_any_other(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        path = f"{CORE}/pods/p?fieldManager=me"
        head = {"apiVersion": "v1", "kind": "Pod"}
        wanted = {**head, **holding(resources={"requests": {"cpu": "1000m"}})}
        status, made = await ask("PATCH", path, wanted, APPLY)
        assert status == 201
        assert made["spec"]["containers"][0]["resources"] == {"requests": {"cpu": "1"}}
        assert (await ask("PATCH", path, wanted, APPLY))[0] == 200
        wrong = {**head, **pod("q", dnsPolicy="Odd")}
        status, refusal = await ask("PATCH", f"{CORE}/pods/q?fieldManager=me", wrong, APPLY)
        assert (status, causes(refusal)) == (422, [(UNSUPPORTED, "spec.dnsPolicy")])

    run(work)


# Versions and selectors -------------------------------------------------------------------------


def test_an_object_can_be_asked_for_at_a_version_that_is_there(
    run: Callable[[Work], None],
) -> None:
    async def work(ask: Asker) -> None:
        _, made = await ask("POST", VMIS, mine())
        version = made["metadata"]["resourceVersion"]
        for asked, code in (("0", 200), (version, 200), ("99999999", 504), ("abc", 400)):
            status, _ = await ask("GET", f"{VMIS}/one?resourceVersion={asked}")
            assert status == code, asked

    run(work)


def test_a_version_that_is_no_number_makes_no_difference_to_a_new_object(
    run: Callable[[Work], None],
) -> None:
    async def work(ask: Asker) -> None:
        assert (await ask("POST", VMIS, mine(resourceVersion="abc")))[0] == 201
        assert (await ask("POST", VMIS, mine("two", resourceVersion="5")))[0] == 400

    run(work)


def test_fields_by_which_services_and_pods_are_selected(run: Callable[[Work], None]) -> None:
    async def work(ask: Asker) -> None:
        body = {"metadata": {"name": "s"}, "spec": {"clusterIP": "None"}}
        await ask("POST", f"{CORE}/services", body)
        for selector, names in (("spec.clusterIP=None", ["s"]), ("spec.type!=ClusterIP", [])):
            _, found = await ask("GET", f"{CORE}/services?fieldSelector={selector}")
            assert [each["metadata"]["name"] for each in found["items"]] == names
        assert (await ask("GET", f"{CORE}/pods?fieldSelector=status.podIPs=x"))[0] == 200
        assert (await ask("GET", f"{CORE}/services?fieldSelector=spec.ports=x"))[0] == 400

    run(work)


def test_no_name_is_made_up_for_what_a_dying_namespace_refuses(
    run: Callable[[Work], None],
) -> None:
    async def work(ask: Asker) -> None:
        await ask("POST", "/api/v1/namespaces", {"metadata": {"name": "n"}})
        held = {"metadata": {"name": "h", "finalizers": ["example.com/hold"]}}
        await ask("POST", "/api/v1/namespaces/n/configmaps", held)
        await ask("DELETE", "/api/v1/namespaces/n")
        nameless = {"metadata": {"generateName": "x-"}}
        status, refusal = await ask("POST", "/api/v1/namespaces/n/configmaps", nameless)
        assert (status, refusal["details"]["name"]) == (403, "x-")

    run(work)
