"""The kinds the embedded API serves: their names, and what the API may do with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Literal

READ_WRITE = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_NO_COLLECTION = tuple(verb for verb in READ_WRITE if verb != "deletecollection")
NameRule = Literal["subdomain", "label", "service", "segment"]
"""What names may look like: DNS subdomains, labels, labels that begin with a letter, or anything
that is one segment of a path."""


@dataclasses.dataclass(frozen=True, eq=False)
class Resource:
    """One kind of object: where it is served and how it behaves. There is one of each."""

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
    other_versions: tuple[str, ...] = ()
    """Further versions of the group under which the same objects are served."""
    scale: bool = False
    """It has the `scale` subresource."""
    checked: bool = False
    """Its definition has validation rules beyond the schema, which wait for a valid object."""
    names: NameRule = "subdomain"
    verbs: tuple[str, ...] = READ_WRITE
    unconditional: bool = True
    """A PUT without a resource version is taken (built-in kinds only)."""
    create_on_update: bool = False
    """A PUT of an object that is not there creates it."""
    returns_deleted: bool = False
    """A deletion is answered with the object, not with a Status."""

    @property
    def singular(self) -> str:
        """The lower-case singular name."""
        return self.plural if self.plural == "endpoints" else self.kind.lower()

    @property
    def versions(self) -> tuple[str, ...]:
        """All versions it is served in, the preferred one first."""
        return (self.version, *self.other_versions)

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
    field_selectors=("status.phase", "name"), generation=False, names="label",
    verbs=_NO_COLLECTION,
)  # fmt: skip
NODES = Resource(
    "", "v1", "Node", "nodes", ("no",), namespaced=False, status_subresource=True,
    field_selectors=("spec.unschedulable",), generation=False,
)  # fmt: skip
PODS = Resource(
    "", "v1", "Pod", "pods", ("po",), ("all",), status_subresource=True,
    field_selectors=(
        "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
        "spec.hostNetwork", "status.phase", "status.podIP", "status.podIPs",
        "status.nominatedNodeName",
    ),
    generation=False, returns_deleted=True,
)  # fmt: skip
EVENTS = Resource(
    "", "v1", "Event", "events", ("ev",),
    field_selectors=(
        "involvedObject.kind", "involvedObject.namespace", "involvedObject.name",
        "involvedObject.uid", "involvedObject.apiVersion", "involvedObject.resourceVersion",
        "involvedObject.fieldPath", "reason", "reportingComponent", "source", "type",
    ),
    generation=False, names="segment", create_on_update=True,
)  # fmt: skip
CONFIG_MAPS = Resource("", "v1", "ConfigMap", "configmaps", ("cm",), generation=False)
SECRETS = Resource("", "v1", "Secret", "secrets", field_selectors=("type",), generation=False)
SERVICE_ACCOUNTS = Resource(
    "", "v1", "ServiceAccount", "serviceaccounts", ("sa",), generation=False,
    unconditional=False, returns_deleted=True,
)  # fmt: skip


def _of_rbac(kind: str, plural: str, namespaced: bool) -> Resource:
    return Resource(
        "rbac.authorization.k8s.io", "v1", kind, plural, namespaced=namespaced, generation=False,
        names="segment", create_on_update=True,
    )  # fmt: skip


ROLES = _of_rbac("Role", "roles", True)
ROLE_BINDINGS = _of_rbac("RoleBinding", "rolebindings", True)
CLUSTER_ROLES = _of_rbac("ClusterRole", "clusterroles", False)
CLUSTER_ROLE_BINDINGS = _of_rbac("ClusterRoleBinding", "clusterrolebindings", False)


def _review(group: str, kind: str, plural: str, namespaced: bool = False) -> Resource:
    """A question: it is answered when it is created, and not stored."""
    group = f"{group}.k8s.io"
    return Resource(group, "v1", kind, plural, namespaced=namespaced, verbs=("create",))


SELF_ACCESS_REVIEWS = _review(
    "authorization", "SelfSubjectAccessReview", "selfsubjectaccessreviews"
)
ACCESS_REVIEWS = _review("authorization", "SubjectAccessReview", "subjectaccessreviews")
LOCAL_ACCESS_REVIEWS = _review(
    "authorization", "LocalSubjectAccessReview", "localsubjectaccessreviews", namespaced=True
)
SELF_RULES_REVIEWS = _review("authorization", "SelfSubjectRulesReview", "selfsubjectrulesreviews")
SELF_REVIEWS = _review("authentication", "SelfSubjectReview", "selfsubjectreviews")
TOKEN_REVIEWS = _review("authentication", "TokenReview", "tokenreviews")
LEASES = Resource(
    "coordination.k8s.io", "v1", "Lease", "leases", generation=False, unconditional=False,
    create_on_update=True,
)  # fmt: skip
DEPLOYMENTS = Resource(
    "apps", "v1", "Deployment", "deployments", ("deploy",), ("all",), status_subresource=True,
    scale=True,
)  # fmt: skip
DAEMON_SETS = Resource(
    "apps", "v1", "DaemonSet", "daemonsets", ("ds",), ("all",), status_subresource=True
)
CONTROLLER_REVISIONS = Resource("apps", "v1", "ControllerRevision", "controllerrevisions")
VMS = Resource(
    "kubevirt.io", "v1", "VirtualMachine", "virtualmachines", ("vm", "vms"), ("all",),
    custom=True, status_subresource=True, other_versions=("v1alpha3",), checked=True,
)  # fmt: skip
VMIRS = Resource(
    "kubevirt.io", "v1", "VirtualMachineInstanceReplicaSet", "virtualmachineinstancereplicasets",
    ("vmirs", "vmirss"), ("all",), custom=True, status_subresource=True,
    other_versions=("v1alpha3",), scale=True, checked=True,
)  # fmt: skip
VMIS = Resource(
    "kubevirt.io", "v1", "VirtualMachineInstance", "virtualmachineinstances", ("vmi", "vmis"),
    ("all",), custom=True, other_versions=("v1alpha3",), checked=True,
)  # fmt: skip
KUBEVIRTS = Resource(
    "kubevirt.io", "v1", "KubeVirt", "kubevirts", ("kv", "kvs"), ("all",), custom=True,
    status_subresource=True, other_versions=("v1alpha3",),
)  # fmt: skip

CUSTOM_RESOURCE_DEFINITIONS = Resource(
    "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions",
    ("crd", "crds"), ("api-extensions",), namespaced=False, status_subresource=True,
    unconditional=False,
)  # fmt: skip
API_SERVICES = Resource(
    "apiregistration.k8s.io", "v1", "APIService", "apiservices", (), ("api-extensions",),
    namespaced=False, status_subresource=True, generation=False, unconditional=False,
)  # fmt: skip
PRIORITY_CLASSES = Resource(
    "scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", ("pc",), namespaced=False,
)  # fmt: skip
SERVICES = Resource(
    "", "v1", "Service", "services", ("svc",), ("all",), status_subresource=True,
    field_selectors=("spec.clusterIP", "spec.type"),
    generation=False, names="service", create_on_update=True, returns_deleted=True,
)  # fmt: skip
CLAIMS = Resource(
    "", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", ("pvc",),
    status_subresource=True, generation=False, returns_deleted=True,
)  # fmt: skip
REPLICA_SETS = Resource(
    "apps", "v1", "ReplicaSet", "replicasets", ("rs",), ("all",), status_subresource=True,
    field_selectors=("status.replicas",), scale=True,
)  # fmt: skip
STATEFUL_SETS = Resource(
    "apps", "v1", "StatefulSet", "statefulsets", ("sts",), ("all",), status_subresource=True,
    scale=True,
)  # fmt: skip
JOBS = Resource(
    "batch", "v1", "Job", "jobs", (), ("all",), status_subresource=True,
    field_selectors=("status.successful",),
)  # fmt: skip
DISRUPTION_BUDGETS = Resource(
    "policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", ("pdb",),
    status_subresource=True, unconditional=False,
)  # fmt: skip

PLAIN: tuple[Resource, ...] = (
    SERVICES, CLAIMS, REPLICA_SETS, STATEFUL_SETS, JOBS, DISRUPTION_BUDGETS,
    CUSTOM_RESOURCE_DEFINITIONS, API_SERVICES, PRIORITY_CLASSES,
    Resource("", "v1", "Endpoints", "endpoints", ("ep",), generation=False,
             create_on_update=True),
    Resource("", "v1", "LimitRange", "limitranges", ("limits",), generation=False,
             create_on_update=True),
    Resource("", "v1", "ResourceQuota", "resourcequotas", ("quota",), status_subresource=True,
             generation=False, returns_deleted=True),
    Resource("", "v1", "PersistentVolume", "persistentvolumes", ("pv",), namespaced=False,
             status_subresource=True, generation=False, returns_deleted=True),
    Resource("batch", "v1", "CronJob", "cronjobs", ("cj",), ("all",), status_subresource=True),
    Resource("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
    Resource("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", ("netpol",)),
    Resource("storage.k8s.io", "v1", "StorageClass", "storageclasses", ("sc",),
             namespaced=False, generation=False, returns_deleted=True),
    Resource("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", namespaced=False,
             generation=False, unconditional=False),
    Resource("admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration",
             "mutatingwebhookconfigurations", (), ("api-extensions",), namespaced=False,
             unconditional=False),
    Resource("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration",
             "validatingwebhookconfigurations", (), ("api-extensions",), namespaced=False,
             unconditional=False),
)  # fmt: skip
"""Built-in kinds that are stored and watched, and nothing more."""


def _of_kubevirt(
    group: str, version: str, kind: str, plural: str, *short_names: str, older: str = "",
    namespaced: bool = True, status: bool = True, scale: bool = False,
) -> Resource:  # fmt: skip
    return Resource(
        f"{group}kubevirt.io", version, kind, plural, short_names,
        ("all",) if namespaced else (), namespaced, status, custom=True, scale=scale,
        other_versions=(older,) if older else (),
    )  # fmt: skip


OF_KUBEVIRT: tuple[Resource, ...] = (
    _of_kubevirt("", "v1", "VirtualMachineInstanceMigration", "virtualmachineinstancemigrations",
                 "vmim", "vmims", older="v1alpha3"),
    _of_kubevirt("", "v1", "VirtualMachineInstancePreset", "virtualmachineinstancepresets",
                 "vmipreset", "vmipresets", older="v1alpha3", status=False),
    _of_kubevirt("backup.", "v1alpha1", "VirtualMachineBackup", "virtualmachinebackups",
                 "vmbackup", "vmbackups"),
    _of_kubevirt("backup.", "v1alpha1", "VirtualMachineBackupTracker",
                 "virtualmachinebackuptrackers", "vmbackuptracker", "vmbackuptrackers"),
    _of_kubevirt("clone.", "v1beta1", "VirtualMachineClone", "virtualmachineclones",
                 "vmclone", "vmclones", older="v1alpha1"),
    _of_kubevirt("export.", "v1", "VirtualMachineExport", "virtualmachineexports",
                 "vmexport", "vmexports", older="v1beta1"),
    _of_kubevirt("instancetype.", "v1beta1", "VirtualMachineClusterInstancetype",
                 "virtualmachineclusterinstancetypes", "vmclusterinstancetype",
                 "vmclusterinstancetypes", "vmcf", "vmcfs", namespaced=False, status=False),
    _of_kubevirt("instancetype.", "v1beta1", "VirtualMachineClusterPreference",
                 "virtualmachineclusterpreferences", "vmcp", "vmcps", namespaced=False,
                 status=False),
    _of_kubevirt("instancetype.", "v1beta1", "VirtualMachineInstancetype",
                 "virtualmachineinstancetypes", "vminstancetype", "vminstancetypes", "vmf",
                 "vmfs", status=False),
    _of_kubevirt("instancetype.", "v1beta1", "VirtualMachinePreference",
                 "virtualmachinepreferences", "vmpref", "vmprefs", "vmp", "vmps", status=False),
    _of_kubevirt("migrations.", "v1alpha1", "MigrationPolicy", "migrationpolicies",
                 namespaced=False),
    _of_kubevirt("plugin.", "v1alpha1", "Plugin", "plugins", namespaced=False, status=False),
    _of_kubevirt("pool.", "v1beta1", "VirtualMachinePool", "virtualmachinepools", "vmpool",
                 "vmpools", older="v1alpha1", scale=True),
    _of_kubevirt("snapshot.", "v1beta1", "VirtualMachineRestore", "virtualmachinerestores",
                 "vmrestore", "vmrestores", older="v1alpha1"),
    _of_kubevirt("snapshot.", "v1beta1", "VirtualMachineSnapshotContent",
                 "virtualmachinesnapshotcontents", "vmsnapshotcontent", "vmsnapshotcontents",
                 older="v1alpha1"),
    _of_kubevirt("snapshot.", "v1beta1", "VirtualMachineSnapshot", "virtualmachinesnapshots",
                 "vmsnapshot", "vmsnapshots", older="v1alpha1"),
)  # fmt: skip
"""KubeVirt's further kinds, which no player acts on."""

SERVED: tuple[Resource, ...] = (
    NAMESPACES, NODES, PODS, EVENTS, CONFIG_MAPS, SECRETS, LEASES, DEPLOYMENTS, DAEMON_SETS,
    CONTROLLER_REVISIONS, VMS, VMIRS, VMIS, KUBEVIRTS,
    SERVICE_ACCOUNTS, ROLES, ROLE_BINDINGS, CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS,
    SELF_ACCESS_REVIEWS, ACCESS_REVIEWS, LOCAL_ACCESS_REVIEWS, SELF_RULES_REVIEWS, SELF_REVIEWS,
    TOKEN_REVIEWS, *PLAIN, *OF_KUBEVIRT,
)  # fmt: skip

_BY_PATH = {
    (each.group, version, each.plural): each for each in SERVED for version in each.versions
}


def find(group: str, version: str, plural: str) -> Resource | None:
    """The resource served under this path, if any."""
    return _BY_PATH.get((group, version, plural))


def groups() -> dict[str, list[str]]:
    """The named groups and their versions, in the order served."""
    result: dict[str, list[str]] = {}
    for each in SERVED:
        if each.group:
            held = result.setdefault(each.group, [])
            held += [version for version in each.versions if version not in held]
    return result


def of_group(group: str, version: str) -> Iterable[Resource]:
    """The resources of one group and version."""
    return (each for each in SERVED if each.group == group and version in each.versions)
