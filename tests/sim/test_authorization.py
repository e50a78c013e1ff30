"""What roles and bindings allow: the evaluator alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvscale.sim.authentication import ADMINS, User
from pytest_kvscale.sim.authorization import (
    FULL_AUTHORITY,
    Binding,
    Policy,
    PolicyRule,
    Subject,
    missing,
    refusal,
)
from pytest_kvscale.sim.request_info import RequestInfo, request_info

ANN = User("ann", groups=("devs",))


def rule(verbs: str, groups: str = "", resources: str = "", names: str = "") -> PolicyRule:
    """Values are separated by spaces; `core` is the group without a name."""
    named = tuple("" if each == "core" else each for each in groups.split())
    return PolicyRule(tuple(verbs.split()), named, tuple(resources.split()), tuple(names.split()))


def asked(path: str, method: str = "GET", **query: str) -> RequestInfo:
    return request_info(method, path, query)


def bound(subject: Subject, *rules: PolicyRule, namespace: str = "") -> Policy:
    policy = Policy()
    policy.roles["", "role"] = rules
    policy.bind(Binding("binding", namespace, "ClusterRole", "role", (subject,)))
    return policy


@pytest.mark.parametrize(
    ("method", "path", "query", "expected"),
    [
        ("GET", "/api/v1/pods", {}, "list  pods///"),
        ("GET", "/api/v1/pods", {"watch": "1"}, "watch  pods///"),
        ("GET", "/api/v1/namespaces/a/pods", {}, "list  pods//a/"),
        ("HEAD", "/api/v1/namespaces/a/pods/p", {}, "get  pods//a/p"),
        ("GET", "/api/v1/namespaces/a/pods/p/log", {}, "get  pods/log/a/p"),
        ("POST", "/api/v1/namespaces/a/pods/p/eviction", {}, "create  pods/eviction/a/p"),
        ("POST", "/apis/apps/v1/namespaces/a/deployments", {}, "create apps deployments//a/"),
        ("PUT", "/apis/apps/v1/namespaces/a/deployments/d", {}, "update apps deployments//a/d"),
        ("PATCH", "/api/v1/nodes/n/status", {}, "patch  nodes/status//n"),
        ("DELETE", "/api/v1/namespaces/a/pods", {}, "deletecollection  pods//a/"),
        ("DELETE", "/api/v1/namespaces/a", {}, "delete  namespaces//a/a"),
        ("GET", "/api/v1/namespaces/a", {}, "get  namespaces//a/a"),
        ("GET", "/api/v1/namespaces", {}, "list  namespaces///"),
        ("PUT", "/api/v1/namespaces/a/finalize", {}, "update  namespaces/finalize/a/a"),
        ("GET", "/api/v1/pods", {"fieldSelector": "metadata.name=p"}, "list  pods///p"),
        ("GET", "/api/v1/pods", {"fieldSelector": "a=b,metadata.name==p"}, "list  pods///p"),
        ("GET", "/api/v1/pods", {"fieldSelector": "metadata.name!=p"}, "list  pods///"),
        ("OPTIONS", "/api/v1/pods", {}, "options  pods///"),
    ],
)
def test_a_path_says_what_is_asked_for(
    method: str, path: str, query: dict[str, str], expected: str
) -> None:
    info = request_info(method, path, query)
    resource = f"{info.resource}/{info.subresource}/{info.namespace}/{info.name}"
    assert f"{info.verb} {info.group} {resource}" == expected


@pytest.mark.parametrize("path", ["/", "/version", "/api", "/api/v1", "/apis/apps/v1", "/x/y/z"])
def test_other_paths_name_no_object(path: str) -> None:
    assert request_info("GET", path, {}) == RequestInfo("get", path)


@pytest.mark.parametrize(
    ("held", "allowed", "refused"),
    [
        (
            rule("get list", "core", "pods"),
            ["GET /api/v1/namespaces/a/pods/p", "GET /api/v1/pods"],
            ["DELETE /api/v1/namespaces/a/pods/p", "GET /api/v1/namespaces/a/pods/p/log",
             "GET /apis/apps/v1/namespaces/a/deployments", "GET /api/v1"],
        ),
        (
            rule("*", "*", "*"),
            ["PATCH /apis/apps/v1/namespaces/a/deployments/d/scale", "GET /api/v1/secrets"],
            ["GET /version"],
        ),
        (
            rule("*", "core", "pods/log"),
            ["GET /api/v1/namespaces/a/pods/p/log"],
            ["GET /api/v1/namespaces/a/pods/p"],
        ),
        (
            rule("patch", "apps", "*/scale"),
            ["PATCH /apis/apps/v1/namespaces/a/deployments/d/scale"],
            ["PATCH /apis/apps/v1/namespaces/a/deployments/d",
             "PATCH /apis/apps/v1/namespaces/a/deployments/d/status"],
        ),
        (
            rule("*", "core", "configmaps", "one two"),
            ["GET /api/v1/namespaces/a/configmaps/two",
             "DELETE /api/v1/namespaces/a/configmaps/one"],
            ["GET /api/v1/namespaces/a/configmaps/three", "GET /api/v1/namespaces/a/configmaps",
             "POST /api/v1/namespaces/a/configmaps"],
        ),
        (
            PolicyRule(("get",), paths=("/healthz", "/apis/*")),
            ["GET /healthz", "GET /apis/apps", "GET /apis/"],
            ["GET /healthz/ping", "POST /healthz", "GET /apis", "GET /apis/apps/v1/deployments"],
        ),
        (PolicyRule(("*",), paths=("*",)), ["POST /anything"], ["GET /api/v1/pods"]),
    ],
)  # fmt: skip
def test_a_rule_allows_what_it_names(
    held: PolicyRule, allowed: list[str], refused: list[str]
) -> None:
    for line in (*allowed, *refused):
        method, path = line.split()
        assert held.allows(asked(path, method)) is (line in allowed), line


def test_a_role_for_names_takes_lists_of_one_name() -> None:
    held = rule("list watch", "core", "configmaps", "one")
    assert held.allows(asked("/api/v1/configmaps", fieldSelector="metadata.name=one"))
    assert not held.allows(asked("/api/v1/configmaps"))


@pytest.mark.parametrize(
    ("subject", "user", "meant"),
    [
        (Subject("User", "ann"), ANN, True),
        (Subject("User", "devs"), ANN, False),
        (Subject("Group", "devs"), ANN, True),
        (Subject("Group", "ann"), ANN, False),
        (Subject("ServiceAccount", "s", "a"), User("system:serviceaccount:a:s"), True),
        (Subject("ServiceAccount", "s", "b"), User("system:serviceaccount:a:s"), False),
        (Subject("ServiceAccount", "ann", "a"), ANN, False),
    ],
)
def test_a_binding_is_for_those_it_names(subject: Subject, user: User, meant: bool) -> None:
    policy = bound(subject, rule("get", "core", "pods"))
    assert policy.decide(user, asked("/api/v1/namespaces/a/pods/p")).allowed is meant


def test_a_role_binding_holds_in_its_namespace_only() -> None:
    policy = bound(Subject("User", "ann"), rule("list", "core", "pods"), namespace="a")
    decision = policy.decide(ANN, asked("/api/v1/namespaces/a/pods"))
    assert decision.reason == (
        'RBAC: allowed by RoleBinding "binding/a" of ClusterRole "role" to User "ann"'
    )
    assert not policy.decide(ANN, asked("/api/v1/namespaces/b/pods")).allowed
    assert not policy.decide(ANN, asked("/api/v1/pods")).allowed
    policy.unbind("a", "binding")
    assert not policy.decide(ANN, asked("/api/v1/namespaces/a/pods")).allowed


def test_a_role_that_is_gone_allows_nothing_and_is_named() -> None:
    policy = Policy()
    policy.bind(Binding("one", "", "ClusterRole", "gone", (Subject("User", "ann"),)))
    only = 'clusterrole.rbac.authorization.k8s.io "gone" not found'
    assert policy.decide(ANN, asked("/api/v1/pods")).reason == f"RBAC: {only}"
    policy.bind(Binding("two", "a", "Role", "lost", (Subject("Group", "devs"),)))
    decision = policy.decide(ANN, asked("/api/v1/namespaces/a/pods"))
    assert decision.reason == f'RBAC: [{only}, role.rbac.authorization.k8s.io "lost" not found]'


def test_masters_may_do_all() -> None:
    assert Policy().decide(User("x", groups=(ADMINS,)), asked("/api/v1/secrets")).allowed


@pytest.mark.parametrize(
    ("info", "message", "details"),
    [
        (
            asked("/api/v1/namespaces/y/pods"),
            'pods is forbidden: User "ann" cannot list resource "pods" in API group "" in the '
            'namespace "y"',
            {"kind": "pods"},
        ),
        (
            asked("/apis/kubevirt.io/v1/virtualmachineinstances"),
            'virtualmachineinstances.kubevirt.io is forbidden: User "ann" cannot list resource '
            '"virtualmachineinstances" in API group "kubevirt.io" at the cluster scope',
            {"group": "kubevirt.io", "kind": "virtualmachineinstances"},
        ),
        (
            asked("/api/v1/namespaces/y/pods/p/log"),
            'pods "p" is forbidden: User "ann" cannot get resource "pods/log" in API group "" in '
            'the namespace "y"',
            {"name": "p", "kind": "pods"},
        ),
        (asked("/metrics"), 'forbidden: User "ann" cannot get path "/metrics"', {}),
        (asked("/<b>"), 'forbidden: User "ann" cannot get path "/&lt;b&gt;"', {}),
    ],
)
def test_a_refusal_is_worded_as_kubernetes_does(
    info: RequestInfo, message: str, details: dict[str, str]
) -> None:
    refused = refusal(ANN, info)
    assert refused.body == {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": "Forbidden", "details": details, "code": 403,
    }  # fmt: skip
    assert refusal(ANN, info, "RBAC: why").body["message"] == f"{message}: RBAC: why"


def test_what_is_missing_is_told_by_resource() -> None:
    held = [rule("get", "core", "pods"), rule("*", "apps", "*", "mine")]
    wanted = [
        rule("get list watch", "core", "pods secrets"),
        rule("get", "apps", "deployments", "mine yours"),
        PolicyRule(("get",), paths=("/metrics",)),
    ]
    assert [str(each) for each in missing(held, wanted)] == [
        '{APIGroups:[""], Resources:["pods"], Verbs:["list" "watch"]}',
        '{APIGroups:[""], Resources:["secrets"], Verbs:["get" "list" "watch"]}',
        '{APIGroups:["apps"], Resources:["deployments"], ResourceNames:["yours"], Verbs:["get"]}',
        '{NonResourceURLs:["/metrics"], Verbs:["get"]}',
    ]
    assert missing(FULL_AUTHORITY, wanted) == []
    assert missing([rule("*", "*", "*", "one")], [rule("get", "core", "pods")]) != []


# Laws -------------------------------------------------------------------------------------------

words = st.sampled_from


def some(*texts: str) -> st.SearchStrategy[list[str]]:
    return st.lists(words(texts), min_size=1, max_size=3, unique=True)


verbs = some("get", "list", "create", "*")
api_groups = some("", "apps", "*")
resources = some("pods", "pods/log", "*/log", "jobs", "jobs/log", "*")
names = st.lists(words(["a", "b", "c"]), max_size=2, unique=True)
paths = some("/a", "/a/*", "/a/b", "*")
rules = st.one_of(
    st.builds(lambda *parts: PolicyRule(*map(tuple, parts)), verbs, api_groups, resources, names),
    st.builds(lambda verbs, paths: PolicyRule(tuple(verbs), paths=tuple(paths)), verbs, paths),
)
requests = st.one_of(
    st.builds(
        RequestInfo,
        verb=words(["get", "list", "create", "delete"]), path=st.just(""),
        group=words(["", "apps", "batch"]), version=st.just("v1"),
        resource=words(["pods", "jobs"]), subresource=words(["", "log", "status"]),
        namespace=words(["", "x"]), name=words(["", "a", "b", "d"]),
    ),
    st.builds(RequestInfo, verb=words(["get", "list"]), path=words(["/a", "/a/b", "/a/b/c", "/b"])),
)  # fmt: skip


@given(rules, requests)
def test_a_rule_allows_exactly_what_its_parts_allow(held: PolicyRule, info: RequestInfo) -> None:
    assert held.allows(info) is any(single.allows(info) for single in held.singles())


@given(st.lists(rules, max_size=3), rules, requests)
def test_what_is_covered_is_allowed(
    held: list[PolicyRule], wanted: PolicyRule, info: RequestInfo
) -> None:
    """Who may grant a rule may do already all that it allows."""
    lacking = missing(held, [wanted])
    if wanted.allows(info):
        assert any(each.allows(info) for each in (*held, *lacking))
    assert missing([*held, *lacking], [wanted]) == []


@given(st.lists(rules, max_size=4), requests)
def test_more_rules_never_allow_less(held: list[PolicyRule], info: RequestInfo) -> None:
    for count in range(len(held)):
        fewer = bound(Subject("User", "ann"), *held[:count]).decide(ANN, info).allowed
        more = bound(Subject("User", "ann"), *held[: count + 1]).decide(ANN, info).allowed
        assert more or not fewer


@given(rules)
def test_rules_are_read_as_they_are_written(held: PolicyRule) -> None:
    assert PolicyRule.read(held.as_object()) == held
