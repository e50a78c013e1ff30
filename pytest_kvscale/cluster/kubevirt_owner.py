"""Who owns the KubeVirt CR: what an operator or GitOps writes there, nobody else may change.

It would be undone within minutes, in the middle of a level, so it is refused with the way its
owner offers.
"""

from __future__ import annotations

from pytest_kvscale.cluster.client import Object

HYPERCONVERGED = "HyperConverged"
JSON_PATCH = "kubevirt.kubevirt.io/jsonpatch"
"""The annotation of a HyperConverged whose JSON patch its operator applies to the KubeVirt CR."""
_HCO_LABELS = {
    "app": "kubevirt-hyperconverged",
    "app.kubernetes.io/managed-by": "hco-operator",
}
_MARKS = {
    "argocd.argoproj.io/tracking-id": "Argo CD",
    "argocd.argoproj.io/instance": "Argo CD",
    "kustomize.toolkit.fluxcd.io/name": "Flux",
    "helm.toolkit.fluxcd.io/name": "Flux",
}
"""Labels and annotations."""
_WRITERS = {
    "argocd-controller": "Argo CD",
    "argocd-application-controller": "Argo CD",
    "kustomize-controller": "Flux",
    "helm-controller": "Flux",
}
"""Names under which they write, in the fields' owners the API keeps."""


NOT_TUNED = "make these settings {where}, and run with --kvscale-tune none"
NOT_UPGRADED = "upgrade it {where}, by --kvscale-upgrade-command instead of the KubeVirt CR"
"""What to do instead of changing it; `{where}` is where its owner keeps it."""


def owned_by(kubevirt: Object, instead: str = NOT_TUNED) -> str:
    """Why the CR's settings are not ours to change, in a sentence; "" if they are."""
    metadata = kubevirt["metadata"]
    name = f"the KubeVirt CR {metadata.get('namespace')}/{metadata['name']}"
    for owner in metadata.get("ownerReferences") or []:
        if str(owner.get("apiVersion", "")).startswith("hco.kubevirt.io/"):
            return _by_hco(name, str(owner.get("name")), instead)
    labels = metadata.get("labels") or {}
    if any(labels.get(key) == value for key, value in _HCO_LABELS.items()):
        return _by_hco(name, "kubevirt-hyperconverged", instead)
    owners = [str(each.get("kind")) for each in metadata.get("ownerReferences") or []
              if each.get("controller")]  # fmt: skip
    if owners:
        return f"{name} is owned by a {owners[0]}, which would undo a change: " + instead.format(
            where="there"
        )
    marks = {**labels, **(metadata.get("annotations") or {})}
    tool = next((tool for mark, tool in _MARKS.items() if mark in marks), "")
    if not tool:
        writers = [str(each.get("manager")) for each in metadata.get("managedFields") or []]
        tool = next((_WRITERS[each] for each in writers if each in _WRITERS), "")
    if tool:
        return f"{name} is kept by {tool}, which would undo a change: " + instead.format(
            where="in its repository"
        )
    return ""


def _by_hco(name: str, owner: str, instead: str) -> str:
    where = "there"
    if instead == NOT_TUNED:
        where += f" (its annotation {JSON_PATCH} takes a JSON patch of the KubeVirt CR)"
    return (
        f"{name} is owned by the {HYPERCONVERGED} {owner}, whose operator would undo a change: "
        + instead.format(where=where)
    )
