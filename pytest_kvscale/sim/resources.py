"""The kinds the embedded API serves: their names, and what the API may do with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

READ_WRITE = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclasses.dataclass(frozen=True)
class Resource:
    """One kind of object: where it is served and how it behaves."""

    group: str
    version: str
    kind: str
    plural: str
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    namespaced: bool = True
    status_subresource: bool = False
    """`/status` is a door of its own: writes to the object itself leave the status alone."""
    custom: bool = False
    """Defined by a CustomResourceDefinition: no strategic merge, generation counts any change."""
    field_selectors: tuple[str, ...] = ()
    """Fields, beside name and namespace, that a field selector may name."""
    generation: bool = True
    verbs: tuple[str, ...] = READ_WRITE
    """What can be done with it; a review is answered when it is created, and not stored."""

    @property
    def singular(self) -> str:
        """The lower-case singular name."""
        return self.kind.lower()

    @property
    def api_version(self) -> str:
        """`group/version`, or the version alone for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def full_name(self) -> str:
        """Plural name and group, as messages have it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


NAMESPACES = Resource(
    "", "v1", "Namespace", "namespaces", ("ns",), namespaced=False, status_subresource=True,
    field_selectors=("status.phase",), generation=False,
)  # fmt: skip
NODES = Resource(
    "", "v1", "Node", "nodes", ("no",), namespaced=False, status_subresource=True,
    field_selectors=("spec.unschedulable",), generation=False,
)  # fmt: skip
PODS = Resource(
    "", "v1", "Pod", "pods", ("po",), ("all",), status_subresource=True,
    field_selectors=(
        "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
        "status.phase", "status.podIP", "status.nominatedNodeName",
    ),
    generation=False,
)  # fmt: skip
EVENTS = Resource(
    "", "v1", "Event", "events", ("ev",),
    field_selectors=(
        "involvedObject.kind", "involvedObject.namespace", "involvedObject.name",
        "involvedObject.uid", "involvedObject.apiVersion", "involvedObject.resourceVersion",
        "involvedObject.fieldPath", "reason", "reportingComponent", "source", "type",
    ),
    generation=False,
)  # fmt: skip
CONFIG_MAPS = Resource("", "v1", "ConfigMap", "configmaps", ("cm",), generation=False)
SECRETS = Resource("", "v1", "Secret", "secrets", field_selectors=("type",), generation=False)
SERVICES = Resource(
    "", "v1", "Service", "services", ("svc",), ("all",), status_subresource=True,
    field_selectors=("spec.clusterIP", "spec.type"), generation=False,
)  # fmt: skip
LEASES = Resource("coordination.k8s.io", "v1", "Lease", "leases", generation=False)
SERVICE_ACCOUNTS = Resource(
    "", "v1", "ServiceAccount", "serviceaccounts", ("sa",), generation=False
)
ROLES = Resource("rbac.authorization.k8s.io", "v1", "Role", "roles", generation=False)
ROLE_BINDINGS = Resource(
    "rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", generation=False
)
CLUSTER_ROLES = Resource(
    "rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", namespaced=False,
    generation=False,
)  # fmt: skip
CLUSTER_ROLE_BINDINGS = Resource(
    "rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings",
    namespaced=False, generation=False,
)  # fmt: skip
SELF_ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews",
    namespaced=False, verbs=("create",),
)  # fmt: skip
ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews",
    namespaced=False, verbs=("create",),
)  # fmt: skip
LOCAL_ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews",
    verbs=("create",),
)  # fmt: skip
SELF_RULES_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews",
    namespaced=False, verbs=("create",),
)  # fmt: skip
SELF_REVIEWS = Resource(
    "authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews",
    namespaced=False, verbs=("create",),
)  # fmt: skip
TOKEN_REVIEWS = Resource(
    "authentication.k8s.io", "v1", "TokenReview", "tokenreviews", namespaced=False,
    verbs=("create",),
)  # fmt: skip
DEPLOYMENTS = Resource(
    "apps", "v1", "Deployment", "deployments", ("deploy",), ("all",), status_subresource=True
)
DAEMON_SETS = Resource(
    "apps", "v1", "DaemonSet", "daemonsets", ("ds",), ("all",), status_subresource=True
)
CONTROLLER_REVISIONS = Resource("apps", "v1", "ControllerRevision", "controllerrevisions")
VMS = Resource(
    "kubevirt.io", "v1", "VirtualMachine", "virtualmachines", ("vm", "vms"), ("all",),
    custom=True, status_subresource=True,
)  # fmt: skip
VMIRS = Resource(
    "kubevirt.io", "v1", "VirtualMachineInstanceReplicaSet", "virtualmachineinstancereplicasets",
    ("vmirs", "vmirss"), ("all",), custom=True, status_subresource=True,
)  # fmt: skip
VMIS = Resource(
    "kubevirt.io", "v1", "VirtualMachineInstance", "virtualmachineinstances", ("vmi", "vmis"),
    ("all",), custom=True,
)  # fmt: skip
KUBEVIRTS = Resource(
    "kubevirt.io", "v1", "KubeVirt", "kubevirts", ("kv", "kvs"), ("all",), custom=True,
    status_subresource=True,
)  # fmt: skip

SERVED: tuple[Resource, ...] = (
    NAMESPACES, NODES, PODS, EVENTS, CONFIG_MAPS, SECRETS, SERVICES, LEASES, DEPLOYMENTS,
    DAEMON_SETS, CONTROLLER_REVISIONS, VMS, VMIRS, VMIS, KUBEVIRTS,
    SERVICE_ACCOUNTS, ROLES, ROLE_BINDINGS, CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS,
    SELF_ACCESS_REVIEWS, ACCESS_REVIEWS, LOCAL_ACCESS_REVIEWS, SELF_RULES_REVIEWS, SELF_REVIEWS,
    TOKEN_REVIEWS,
)  # fmt: skip

_BY_PATH = {(each.group, each.version, each.plural): each for each in SERVED}


def find(group: str, version: str, plural: str) -> Resource | None:
    """The resource served under this path, if any."""
    return _BY_PATH.get((group, version, plural))


def groups() -> dict[str, list[str]]:
    """The named groups and their versions, in the order served."""
    result: dict[str, list[str]] = {}
    for each in SERVED:
        if each.group and each.version not in result.setdefault(each.group, []):
            result[each.group].append(each.version)
    return result


def of_group(group: str, version: str) -> Iterable[Resource]:
    """The resources of one group and version."""
    return (each for each in SERVED if (each.group, each.version) == (group, version))
