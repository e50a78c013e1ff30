"""Who may do what in the embedded cluster, over HTTP as a client sees it."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import io
import json
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import pytest

from pytest_kvscale.cluster.clock import VirtualClock
from pytest_kvscale.sim import profile
from pytest_kvscale.sim.authentication import ADMINS, Gate, User
from pytest_kvscale.sim.cluster import EmbeddedCluster

Json = dict[str, Any]
GROUP = "rbac.authorization.k8s.io"
RBAC = f"/apis/{GROUP}/v1"
PODS = "/api/v1/namespaces/default/pods"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
SELF_REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
PEOPLE = {
    "root": User("root", groups=(ADMINS,)),
    "ann": User("ann", "7", ("devs",)),
    "bob": User("bob"),
}
CLOSED = Gate(PEOPLE)


class Caller:
    """Sends requests with a token, and gives back status and JSON."""

    def __init__(self, cluster: EmbeddedCluster, session: aiohttp.ClientSession) -> None:
        self.cluster = cluster
        self._session = session
        self.retry_after: list[tuple[int, str | None]] = []
        """Of every answer: its status, and when it says to come back."""

    async def __call__(
        self,
        token: str,
        method: str,
        path: str,
        body: Any = None,
        kind: str = "application/json",
        **headers: str,
    ) -> tuple[int, Any]:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        data = None if body is None else io.BytesIO(json.dumps(body).encode())
        if data is not None:
            sent["Content-Type"] = kind
        async with self._session.request(
            method, self.cluster.url + path, data=data, headers=sent
        ) as answer:
            text = await answer.text()
            self.retry_after.append((answer.status, answer.headers.get("Retry-After")))
            return answer.status, json.loads(text) if text.startswith(("{", "[")) else text

    async def ok(self, *what: Any, **headers: str) -> Any:
        """The answer to a request that must succeed."""
        code, body = await self(*what, **headers)
        assert code < 300, body
        return body

    async def refused(self, *what: Any, **headers: str) -> Json:
        """The details of a 403, with its message."""
        code, body = await self(*what, **headers)
        assert (code, body["reason"], body["kind"]) == (403, "Forbidden", "Status"), body
        return {"message": body["message"], **body["details"]}

    async def role(self, name: str, *rules: Json, namespace: str = "default") -> None:
        """Make a role."""
        body = {"metadata": {"name": name}, "rules": list(rules)}
        await self.ok("root", "POST", f"{RBAC}/namespaces/{namespace}/roles", body)

    async def bind(self, name: str, user: str, role: str, namespace: str = "default") -> None:
        """Bind a user to `Kind/name` of a role, in a namespace or ('') in the whole cluster."""
        where = f"namespaces/{namespace}/rolebindings" if namespace else "clusterrolebindings"
        await self.ok("root", "POST", f"{RBAC}/{where}", binding(name, user, role))


def binding(name: str, user: str, role: str) -> Json:
    kind, _, role_name = role.partition("/")
    return {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": GROUP, "kind": kind, "name": role_name},
        "subjects": [{"kind": "User", "name": user}],
    }


def rule(verbs: str, resources: str, group: str = "", **more: Any) -> Json:
    return {"verbs": verbs.split(), "apiGroups": [group], "resources": resources.split(), **more}


Script = Callable[[Caller], Coroutine[Any, Any, None]]


def run(clock: VirtualClock, script: Script, gate: Gate = CLOSED, **api: int) -> None:
    """Run a script on a cluster with this gate and these limits of its API."""

    async def whole() -> None:
        chosen = profile.load("fast")
        chosen = chosen.model_copy(update={"api": chosen.api.model_copy(update=api)})
        cluster = EmbeddedCluster(chosen, "fast", 0, gate=gate)
        await cluster.start()
        try:
            timeout = aiohttp.ClientTimeout(total=None)
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
                await script(Caller(cluster, session))
        finally:
            await cluster.stop()
        if cluster.team.failure.done():
            cluster.team.failure.result()
        assert cluster.server.problem is None

    clock.run(whole())


# Who is let in ----------------------------------------------------------------------------------


def test_a_wrong_token_is_refused_even_where_nobody_has_to_say_who_they_are(
    clock: VirtualClock,
) -> None:
    async def script(call: Caller) -> None:
        for path in ("/api/v1/nodes", "/version", "/nowhere"):
            code, body = await call("not-a-token", "GET", path)
            assert (code, body["message"], body["reason"]) == (401, "Unauthorized", "Unauthorized")
        await call.ok("", "GET", "/api/v1/nodes")
        await call.ok("", "GET", "/api/v1/nodes", Authorization="Basic eDp5")
        assert (await call("", "GET", "/api/v1/nodes", Authorization="Bearer tök€n"))[0] == 401

    run(clock, script, Gate())


def test_who_has_no_token_can_be_let_in_as_nobody(clock: VirtualClock) -> None:
    async def script(call: Caller) -> None:
        assert await call.ok("", "GET", "/healthz") == "ok"
        await call.ok("", "GET", "/version")
        assert await call.refused("", "GET", "/api") == {
            "message": 'forbidden: User "system:anonymous" cannot get path "/api"'
        }
        assert (await call("wrong", "GET", "/version"))[0] == 401

    run(clock, script, dataclasses.replace(CLOSED, anonymous=True))


def test_everybody_who_is_known_may_look_around(clock: VirtualClock) -> None:
    async def script(call: Caller) -> None:
        assert (await call("", "GET", "/version"))[0] == 401
        for path in ("/version", "/api", "/apis", "/api/v1", f"{RBAC}", "/apis/kubevirt.io"):
            await call.ok("bob", "GET", path)
        served = {each["name"]: each for each in (await call.ok("bob", "GET", RBAC))["resources"]}
        assert {"roles", "rolebindings", "clusterroles", "clusterrolebindings"} <= set(served)
        reviews = (await call.ok("bob", "GET", "/apis/authorization.k8s.io/v1"))["resources"]
        assert [each["verbs"] for each in reviews] == [["create"]] * 4

    run(clock, script)


# What they may do -------------------------------------------------------------------------------


def test_who_has_no_role_may_do_nothing(clock: VirtualClock) -> None:
    async def script(call: Caller) -> None:
        pods = 'pods is forbidden: User "ann" cannot {} resource "pods" in API group "" {}'
        here = 'in the namespace "default"'
        for path, verb, where in (
            (PODS, "list", here),
            ("/api/v1/pods", "list", "at the cluster scope"),
            (f"{PODS}?watch=1", "watch", here),
        ):
            assert await call.refused("ann", "GET", path) == {
                "message": pods.format(verb, where), "kind": "pods",
            }  # fmt: skip
        refused = await call.refused("ann", "DELETE", f"{PODS}/x")
        assert (refused["name"], refused["kind"]) == ("x", "pods")
        assert "group" in await call.refused("ann", "GET", "/apis/kubevirt.io/v1/kubevirts")
        # It is not told whether there is such a kind.
        nothing = await call.refused("ann", "GET", "/apis/nope.example.com/v1/things")
        assert nothing == {
            "message": 'things.nope.example.com is forbidden: User "ann" cannot list resource '
            '"things" in API group "nope.example.com" at the cluster scope',
            "group": "nope.example.com",
            "kind": "things",
        }
        await call.refused("ann", "GET", "/_sim/faults")
        await call.refused("ann", "POST", PODS, {"metadata": {"name": "p"}})

    run(clock, script)


def test_a_role_opens_what_it_names_and_a_binding_gone_closes_it(clock: VirtualClock) -> None:
    async def script(call: Caller) -> None:
        await call.role("reader", rule("get list watch", "configmaps"))
        await call.bind("ann-reads", "ann", "Role/reader")
        await call.ok("root", "POST", CONFIG_MAPS, {"metadata": {"name": "c"}})
        assert len((await call.ok("ann", "GET", CONFIG_MAPS))["items"]) == 1
        await call.ok("ann", "GET", f"{CONFIG_MAPS}/c")
        await call.refused("ann", "DELETE", f"{CONFIG_MAPS}/c")
        await call.refused("ann", "GET", "/api/v1/configmaps")
        await call.refused("bob", "GET", CONFIG_MAPS)
        change = {"rules": [rule("get", "configmaps", resourceNames=["other"])]}
        path = f"{RBAC}/namespaces/default/roles/reader"
        await call.ok("root", "PATCH", path, change, "application/merge-patch+json")
        await call.refused("ann", "GET", f"{CONFIG_MAPS}/c")
        code, _ = await call("ann", "GET", f"{CONFIG_MAPS}/other")
        assert code == 404
        await call.ok("root", "DELETE", f"{RBAC}/namespaces/default/rolebindings/ann-reads")
        await call.refused("ann", "GET", f"{CONFIG_MAPS}/other")

    run(clock, script)


def test_the_usual_roles_let_users_work_with_vms(clock: VirtualClock) -> None:
    async def script(call: Caller) -> None:
        vmis = "/apis/kubevirt.io/v1/namespaces/default/virtualmachineinstances"
        await call.bind("views", "bob", "ClusterRole/view")
        await call.bind("edits", "ann", "ClusterRole/edit", namespace="")
        vmi = {
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": {"name": "v"}, "spec": {"domain": {"devices": {}}},
        }  # fmt: skip
        await call.refused("bob", "POST", vmis, vmi)
        await call.ok("ann", "POST", vmis, vmi)
        await call.ok("bob", "GET", f"{vmis}/v")
        await call.refused("bob", "GET", "/api/v1/namespaces/default/secrets")
        await call.ok("ann", "GET", "/api/v1/namespaces/kubevirt/secrets")
        refused = await call.refused("ann", "DELETE", vmis)
        assert "cannot deletecollection" in refused["message"]
        await call.refused("ann", "GET", f"{RBAC}/clusterroles")

    run(clock, script)


def test_roles_are_collected_by_label(clock: VirtualClock) -> None:
    async def script(call: Caller) -> None:
        label = {"rbac.authorization.k8s.io/aggregate-to-view": "true"}
        extra = {
            "metadata": {"name": "mine", "labels": label},
            "rules": [rule("get", "things", "example.com")],
        }
        await call.ok("root", "POST", f"{RBAC}/clusterroles", extra)
        await asyncio.sleep(1)
        for name in ("view", "edit", "admin"):
            role = await call.ok("root", "GET", f"{RBAC}/clusterroles/{name}")
            assert rule("get", "things", "example.com") in role["rules"], name
            assert any("kubevirt.io" in each["apiGroups"] for each in role["rules"])
        await call.ok("root", "DELETE", f"{RBAC}/clusterroles/mine")
        await asyncio.sleep(1)
        role = await call.ok("root", "GET", f"{RBAC}/clusterroles/admin")
        assert rule("get", "things", "example.com") not in role["rules"]

    run(clock, script)


def test_nobody_can_grant_what_they_do_not_have(clock: VirtualClock) -> None:
    async def script(call: Caller) -> None:
        roles = f"{RBAC}/namespaces/default/roles"
        bindings = f"{RBAC}/namespaces/default/rolebindings"
        await call.bind("ann-administers", "ann", "ClusterRole/admin")
        mine = {"metadata": {"name": "mine"}, "rules": [rule("get list", "pods")]}
        await call.ok("ann", "POST", roles, mine)
        more = {"metadata": {"name": "more"}, "rules": [rule("get bind", "nodes pods")]}
        refused = await call.refused("ann", "POST", roles, more)
        assert refused == {
            "message": f'roles.{GROUP} "more" is forbidden: user "ann" (groups=["devs" '
            '"system:authenticated"]) is attempting to grant RBAC permissions not currently held:\n'
            '{APIGroups:[""], Resources:["nodes"], Verbs:["get" "bind"]}\n'
            '{APIGroups:[""], Resources:["pods"], Verbs:["bind"]}',
            "name": "more", "group": GROUP, "kind": "roles",
        }  # fmt: skip
        merge = "application/merge-patch+json"
        change = {"rules": [rule("*", "*")]}
        await call.refused("ann", "PATCH", f"{roles}/mine", change, merge)
        await call.ok("ann", "PATCH", f"{roles}/mine", {"metadata": {"labels": {"a": "b"}}}, merge)
        await call.ok("ann", "POST", bindings, binding("one", "bob", "Role/mine"))
        await call.ok("ann", "POST", bindings, binding("two", "bob", "ClusterRole/view"))
        message = (await call.refused(
            "ann", "POST", bindings, binding("three", "ann", "ClusterRole/cluster-admin")
        ))["message"]  # fmt: skip
        assert message.endswith(
            'held:\n{APIGroups:["*"], Resources:["*"], Verbs:["*"]}\n'
            '{NonResourceURLs:["*"], Verbs:["*"]}'
        )
        code, body = await call("ann", "POST", bindings, binding("x", "bob", "Role/none"))
        assert (code, body["message"]) == (404, f'roles.{GROUP} "none" not found')

    run(clock, script)


def test_escalate_and_bind_lift_that(clock: VirtualClock) -> None:
    async def script(call: Caller) -> None:
        roles = f"{RBAC}/namespaces/default/roles"
        bindings = f"{RBAC}/namespaces/default/rolebindings"
        names = {"resourceNames": ["cluster-admin"]}
        await call.role(
            "lifted", rule("create escalate", "roles", GROUP), rule("create", "rolebindings", GROUP)
        )
        await call.bind("ann-lifts", "ann", "Role/lifted")
        every = {"metadata": {"name": "all"}, "rules": [rule("*", "*")]}
        await call.ok("ann", "POST", roles, every)
        to_all = binding("to-all", "ann", "ClusterRole/cluster-admin")
        await call.refused("ann", "POST", bindings, to_all)
        await call.role("binds", rule("bind", "clusterroles", GROUP, **names))
        await call.bind("ann-binds", "ann", "Role/binds")
        await call.refused("ann", "POST", bindings, binding("x", "ann", "ClusterRole/admin"))
        await call.ok("ann", "POST", bindings, to_all)
        await call.ok("ann", "DELETE", f"{bindings}/to-all")

    run(clock, script)


def test_only_who_may_do_all_collects_roles(clock: VirtualClock) -> None:
    async def script(call: Caller) -> None:
        maker = {"metadata": {"name": "maker"}, "rules": [rule("create", "clusterroles", GROUP)]}
        await call.ok("root", "POST", f"{RBAC}/clusterroles", maker)
        await call.bind("ann-makes", "ann", "ClusterRole/maker", namespace="")
        collecting = {"metadata": {"name": "c"}, "aggregationRule": {"clusterRoleSelectors": [{}]}}
        refused = await call.refused("ann", "POST", f"{RBAC}/clusterroles", collecting)
        why = "must have cluster-admin privileges to use the aggregationRule"
        assert refused["message"] == f'clusterroles.{GROUP} "c" is forbidden: {why}'

    run(clock, script)


@pytest.mark.parametrize(
    ("path", "body", "code", "fields"),
    [
        ("roles", {"rules": [{"apiGroups": [""], "resources": ["pods"]}]}, 422, ["rules[0].verbs"]),
        (
            "roles",
            {"rules": [{"verbs": ["get"]}]},
            422,
            ["rules[0].apiGroups", "rules[0].resources"],
        ),
        (
            "roles",
            {"rules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}]},
            422,
            ["rules[0].nonResourceURLs"],
        ),
        ("roles", {"rules": "all"}, 400, []),
        ("roles", {"rules": [{"verbs": [1]}]}, 400, []),
        ("rolebindings", {}, 422, ["roleRef.kind", "roleRef.name"]),
        ("rolebindings", {"roleRef": ["x"]}, 400, []),
        ("rolebindings", {"roleRef": {"kind": "Pod", "name": "x"}}, 422, ["roleRef.kind"]),
        (
            "rolebindings",
            {"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "Dog"}]},
            422,
            ["subjects[0].name", "subjects[0].kind"],
        ),
    ],
)
def test_roles_and_bindings_that_are_none_are_refused(
    clock: VirtualClock, path: str, body: Json, code: int, fields: list[str]
) -> None:
    async def script(call: Caller) -> None:
        named = {"metadata": {"name": "bad:name is fine"}, **body}
        got, answer = await call("root", "POST", f"{RBAC}/namespaces/default/{path}", named)
        assert got == code, answer
        causes = answer.get("details", {}).get("causes", [])
        assert [each["field"] for each in causes] == fields

    run(clock, script)


def test_a_binding_keeps_its_role(clock: VirtualClock) -> None:
    async def script(call: Caller) -> None:
        await call.bind("b", "ann", "ClusterRole/view")
        path = f"{RBAC}/namespaces/default/rolebindings/b"
        held = await call.ok("root", "GET", path)
        assert held["subjects"] == [{"apiGroup": GROUP, "kind": "User", "name": "ann"}]
        code, answer = await call("root", "PUT", path, {**held, **binding("b", "ann", "Role/x")})
        assert (code, answer["details"]["causes"]) == (
            422,
            [
                {
                    "reason": "FieldValueInvalid",
                    "message": f'Invalid value: rbac.RoleRef{{APIGroup:"{GROUP}", Kind:"Role", '
                    'Name:"x"}: cannot change roleRef',
                    "field": "roleRef",
                }
            ],
        )

    run(clock, script)


# Reviews ----------------------------------------------------------------------------------------


def attributes(verb: str, resource: str, namespace: str = "default", **more: str) -> Json:
    return {"verb": verb, "resource": resource, "namespace": namespace, **more}


def test_a_user_can_ask_what_they_may_do(clock: VirtualClock) -> None:
    async def script(call: Caller) -> None:
        await call.role("reader", rule("get", "pods pods/log", resourceNames=["mine"]))
        await call.bind("ann-reads", "ann", "Role/reader")

        async def may(token: str, **spec: Json) -> Json:
            body = await call.ok(token, "POST", SELF_REVIEW, {"spec": spec})
            assert (body["kind"], body["spec"]) == ("SelfSubjectAccessReview", spec)
            status: Json = body["status"]
            return status

        reason = 'RBAC: allowed by RoleBinding "ann-reads/default" of Role "reader" to User "ann"'
        wanted = attributes("get", "pods", name="mine")
        assert await may("ann", resourceAttributes=wanted) == {"allowed": True, "reason": reason}
        for other in (
            attributes("get", "pods"), attributes("list", "pods", name="mine"),
            attributes("get", "pods", "kubevirt", name="mine"), attributes("*", "*"),
            attributes("get", ""),
        ):  # fmt: skip
            assert await may("ann", resourceAttributes=other) == {"allowed": False}, other
        log = attributes("get", "pods", name="mine", subresource="log")
        assert (await may("ann", resourceAttributes=log))["allowed"]
        assert await may("root", resourceAttributes=attributes("*", "*")) == {"allowed": True}
        path = {"verb": "get", "path": "/version"}
        assert (await may("bob", nonResourceAttributes=path))["allowed"]

    run(clock, script)


def test_reviews_are_created_only_and_not_kept(clock: VirtualClock) -> None:
    async def script(call: Caller) -> None:
        before = call.cluster.store.version
        await call.ok("root", "POST", SELF_REVIEW, {"spec": {"resourceAttributes": {}}})
        assert call.cluster.store.version == before
        for method, path in (
            ("GET", SELF_REVIEW), ("DELETE", SELF_REVIEW), ("PUT", f"{SELF_REVIEW}/x"),
        ):  # fmt: skip
            assert (await call("root", method, path, {}))[0] in (404, 405), path
        for keys in ([], ["resourceAttributes", "nonResourceAttributes"]):
            spec = {key: {"verb": "get"} for key in keys}
            code, body = await call("root", "POST", SELF_REVIEW, {"spec": spec})
            assert (code, body["reason"]) == (422, "Invalid")
        for bad in (["x"], {"resourceAttributes": "x"}, {"resourceAttributes": {"verb": 1}}):
            assert (await call("root", "POST", SELF_REVIEW, {"spec": bad}))[0] == 400

    run(clock, script)


def test_an_administrator_can_ask_about_others(clock: VirtualClock) -> None:
    async def script(call: Caller) -> None:
        await call.bind("devs-view", "ann", "ClusterRole/view")
        authorization = "/apis/authorization.k8s.io/v1"
        spec = {"resourceAttributes": attributes("list", "pods"), "user": "ann"}
        review = f"{authorization}/subjectaccessreviews"
        assert (await call.ok("root", "POST", review, {"spec": spec}))["status"]["allowed"]
        await call.refused("ann", "POST", review, {"spec": spec})
        code, _ = await call("root", "POST", review, {"spec": {**spec, "user": ""}})
        assert code == 422
        local = f"{authorization}/namespaces/{{}}/localsubjectaccessreviews"
        here = await call.ok("root", "POST", local.format("default"), {"spec": spec})
        assert here["status"]["allowed"]
        code, _ = await call("root", "POST", local.format("kubevirt"), {"spec": spec})
        assert code == 422

    run(clock, script)


def test_rules_and_names_can_be_asked_for(clock: VirtualClock) -> None:
    async def script(call: Caller) -> None:
        await call.role("reader", rule("get", "pods", resourceNames=["mine"]))
        await call.bind("ann-reads", "ann", "Role/reader")
        path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
        found = await call.ok("ann", "POST", path, {"spec": {"namespace": "default"}})
        assert rule("get", "pods", resourceNames=["mine"]) in found["status"]["resourceRules"]
        urls = [each["nonResourceURLs"] for each in found["status"]["nonResourceRules"]]
        assert ["/healthz", "/livez", "/readyz", "/version", "/version/"] in urls
        elsewhere = await call.ok("ann", "POST", path, {"spec": {"namespace": "kubevirt"}})
        assert (
            rule("get", "pods", resourceNames=["mine"])
            not in (elsewhere["status"]["resourceRules"])
        )
        assert (await call("ann", "POST", path, {"spec": {}}))[0] == 400
        who = await call.ok("ann", "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
        groups = ["devs", "system:authenticated"]
        assert who["status"] == {"userInfo": {"username": "ann", "uid": "7", "groups": groups}}

    run(clock, script)


def test_a_token_can_be_reviewed(clock: VirtualClock) -> None:
    async def script(call: Caller) -> None:
        path = "/apis/authentication.k8s.io/v1/tokenreviews"
        known = await call.ok("root", "POST", path, {"spec": {"token": "bob"}})
        assert known["status"] == {
            "authenticated": True,
            "user": {"username": "bob", "groups": ["system:authenticated"]},
        }
        unknown = await call.ok("root", "POST", path, {"spec": {"token": "x"}})
        assert unknown["status"] == {"user": {}, "error": "invalid bearer token"}
        await call.refused("bob", "POST", path, {"spec": {"token": "ann"}})

    run(clock, script)


# As somebody else -------------------------------------------------------------------------------


def test_who_may_impersonate_acts_as_another(clock: VirtualClock) -> None:
    async def script(call: Caller) -> None:
        who = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        as_ann = {"Impersonate_User": "ann", "Impersonate_Group": "ops"}
        seen = await call.ok("root", "POST", who, {}, **as_ann, Impersonate_Extra_Scope="x")
        assert seen["status"]["userInfo"] == {
            "username": "ann", "groups": ["ops", "system:authenticated"], "extra": {"scope": ["x"]},
        }  # fmt: skip
        refused = await call.refused("root", "GET", PODS, **as_ann)
        assert refused["message"].startswith('pods is forbidden: User "ann" cannot list')
        account = "system:serviceaccount:default:default"
        seen = await call.ok("root", "POST", who, {}, Impersonate_User=account)
        assert seen["status"]["userInfo"]["groups"] == [
            "system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated",
        ]  # fmt: skip
        assert (await call("root", "GET", PODS, Impersonate_Group="ops"))[0] == 400

    run(clock, script)


def test_who_may_not_impersonate_is_told_so(clock: VirtualClock) -> None:
    async def script(call: Caller) -> None:
        refused = await call.refused("ann", "GET", PODS, Impersonate_User="bob")
        assert refused == {
            "message": 'users "bob" is forbidden: User "ann" cannot impersonate resource "users" '
            'in API group "" at the cluster scope',
            "name": "bob", "kind": "users",
        }  # fmt: skip
        role = {
            "metadata": {"name": "as-bob"},
            "rules": [rule("impersonate", "users", resourceNames=["bob"])],
        }
        await call.ok("root", "POST", f"{RBAC}/clusterroles", role)
        await call.bind("ann-as-bob", "ann", "ClusterRole/as-bob", namespace="")
        refused = await call.refused("ann", "GET", PODS, Impersonate_User="bob")
        assert 'User "bob" cannot list' in refused["message"]
        await call.refused("ann", "GET", PODS, Impersonate_User="root")
        refused = await call.refused(
            "ann", "GET", PODS, Impersonate_User="bob", Impersonate_Group=ADMINS
        )
        assert (refused["name"], refused["kind"]) == (ADMINS, "groups")
        account = "system:serviceaccount:kubevirt:default"
        refused = await call.refused("ann", "GET", PODS, Impersonate_User=account)
        assert (
            'resource "serviceaccounts" in API group "" in the namespace "kubevirt"'
            in (refused["message"])
        )

    run(clock, script)


# Service accounts -------------------------------------------------------------------------------


def test_every_namespace_has_a_default_account(clock: VirtualClock) -> None:
    async def script(call: Caller) -> None:
        await call.ok("root", "POST", "/api/v1/namespaces", {"metadata": {"name": "new"}})
        await asyncio.sleep(1)
        path = "/api/v1/namespaces/new/serviceaccounts"
        first = await call.ok("root", "GET", f"{path}/default")
        await call.ok("root", "DELETE", f"{path}/default")
        await asyncio.sleep(1)
        again = await call.ok("root", "GET", f"{path}/default")
        assert again["metadata"]["uid"] != first["metadata"]["uid"]
        await call.ok("root", "DELETE", "/api/v1/namespaces/new")
        await asyncio.sleep(5)
        assert (await call("root", "GET", "/api/v1/namespaces/new"))[0] == 404
        every = await call.ok("root", "GET", "/api/v1/serviceaccounts")
        found = {each["metadata"]["namespace"] for each in every["items"]}
        assert {"default", "kube-system", "kubevirt"} <= found
        assert "new" not in found

    run(clock, script)


def test_a_service_accounts_token_lets_it_in(clock: VirtualClock) -> None:
    async def script(call: Caller) -> None:
        await call.ok("root", "POST", ACCOUNTS, {"metadata": {"name": "robot"}})
        path = f"{ACCOUNTS}/robot/token"
        made = await call.ok("root", "POST", path, {"spec": {"expirationSeconds": 600}})
        assert (made["kind"], made["spec"]["expirationSeconds"]) == ("TokenRequest", 600)
        token = made["status"]["token"]
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        name = "system:serviceaccount:default:robot"
        assert (claims["sub"], claims["exp"] - claims["iat"]) == (name, 600)
        refused = await call.refused(token, "GET", PODS)
        assert f'User "{name}" cannot list' in refused["message"]
        grant = binding("robots", "", "ClusterRole/view")
        grant["subjects"] = [{"kind": "ServiceAccount", "name": "robot", "namespace": "default"}]
        await call.ok("root", "POST", f"{RBAC}/namespaces/default/rolebindings", grant)
        await call.ok(token, "GET", PODS)
        assert (await call(token[:-2] + "xx", "GET", PODS))[0] == 401
        await asyncio.sleep(598)
        await call.ok(token, "GET", PODS)
        await asyncio.sleep(3)
        assert (await call(token, "GET", PODS))[0] == 401
        token = (await call.ok("root", "POST", path, {}))["status"]["token"]
        await call.ok(token, "GET", PODS)
        await call.ok("root", "DELETE", f"{ACCOUNTS}/robot")
        await call.ok("root", "POST", ACCOUNTS, {"metadata": {"name": "robot"}})
        assert (await call(token, "GET", PODS))[0] == 401

    run(clock, script)


def test_a_token_is_for_its_audience_and_what_it_is_bound_to(clock: VirtualClock) -> None:
    async def script(call: Caller) -> None:
        await asyncio.sleep(1)
        path = f"{ACCOUNTS}/default/token"
        review = "/apis/authentication.k8s.io/v1/tokenreviews"
        vault = (await call.ok("root", "POST", path, {"spec": {"audiences": ["vault"]}}))["status"]
        assert (await call(vault["token"], "GET", "/version"))[0] == 401
        asked = {"spec": {"token": vault["token"], "audiences": ["vault"]}}
        assert (await call.ok("root", "POST", review, asked))["status"]["authenticated"]
        await call.ok(
            "root", "POST", "/api/v1/namespaces/default/secrets", {"metadata": {"name": "s"}}
        )
        bound = {"boundObjectRef": {"kind": "Secret", "apiVersion": "v1", "name": "s"}}
        token = (await call.ok("root", "POST", path, {"spec": bound}))["status"]["token"]
        await call.ok(token, "GET", "/version")
        await call.ok("root", "DELETE", "/api/v1/namespaces/default/secrets/s")
        assert (await call(token, "GET", "/version"))[0] == 401
        assert (await call("root", "POST", path, {"spec": bound}))[0] == 404
        assert (await call("root", "POST", f"{ACCOUNTS}/none/token", {}))[0] == 404
        for seconds in (1, 1 << 33):
            code, _ = await call("root", "POST", path, {"spec": {"expirationSeconds": seconds}})
            assert code == 422
        await call.refused("ann", "POST", path, {})

    run(clock, script)


# Too many at once -------------------------------------------------------------------------------


def test_requests_beyond_the_limit_are_shed(clock: VirtualClock) -> None:
    async def script(call: Caller) -> None:
        loop = asyncio.get_running_loop()
        watch = loop.create_task(call("root", "GET", f"{PODS}?watch=1&timeoutSeconds=5"))
        await asyncio.sleep(0.1)
        reads = await asyncio.gather(*(call("root", "GET", PODS) for _ in range(5)))
        assert sorted(code for code, _ in reads) == [200, 200, 429, 429, 429]
        shed = next(body for code, body in reads if code == 429)
        assert shed == {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "Too many requests, please try again later.",
            "reason": "TooManyRequests", "details": {"retryAfterSeconds": 1}, "code": 429,
        }  # fmt: skip
        assert set(call.retry_after) == {(200, None), (429, "1")}
        writes = [
            call("root", "POST", CONFIG_MAPS, {"metadata": {"name": f"c{number}"}})
            for number in range(3)
        ]
        both = await asyncio.gather(call("root", "GET", PODS), *writes)
        assert sorted(code for code, _ in both) == [200, 201, 429, 429]
        await call.ok("root", "GET", PODS)
        assert (await watch)[0] == 200

    run(clock, script, max_requests_inflight=2, max_mutating_requests_inflight=1)


def test_no_limit_sheds_nothing(clock: VirtualClock) -> None:
    async def script(call: Caller) -> None:
        answers = await asyncio.gather(*(call("root", "GET", PODS) for _ in range(500)))
        assert {code for code, _ in answers} == {200}

    run(clock, script, max_requests_inflight=0)
