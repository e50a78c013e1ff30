"""Whether a version of KubeVirt has really been rolled out: what must be seen of it, all at once.

The CR's phase stays Deployed while versions change, its conditions may be true too early, and the
version it says it observes may be set before every node has it. So all of it is looked at: the CR,
the components' annotations and replicas, and the pods themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pytest_kvscale.cluster import kubevirt as kubevirts
from pytest_kvscale.cluster.client import (
    DAEMON_SETS,
    DEPLOYMENTS,
    KUBEVIRTS,
    PODS,
    Client,
    Object,
)
from pytest_kvscale.cluster.settle import Mirror, Watched, until

VERSION = "kubevirt.io/install-strategy-version"
"""The annotation of components that says of which version they are."""
COMPONENT = "kubevirt.io"
"""The label of KubeVirt's pods that names their component."""
_SHOWN = 3
_OPERATOR, _LAUNCHER = "virt-operator", "--launcher-image"
_NAMED = ("VIRT_API_IMAGE", "VIRT_CONTROLLER_IMAGE", "VIRT_HANDLER_IMAGE", "VIRT_LAUNCHER_IMAGE")
"""Variables by which virt-operator is told of images; the CR's tag does not count for them."""


def hanging(
    kubevirt: Object | None,
    parts: Mapping[str, Object],
    pods: Sequence[Object],
    version: str,
    other_than: str = "",
) -> str:
    """What a version still lacks to be rolled out, in words; "" once it is.

    `parts` are Deployments and DaemonSets by name. Without `version`, any will do but `other_than`.
    """
    if kubevirt is None:
        return "the KubeVirt CR is gone"
    stuck = "; ".join(_stuck(pods))
    more = f" ({stuck})" if stuck else ""
    found = kubevirts.hanging(kubevirt, parts, int(kubevirt["metadata"]["generation"]))
    if found:
        return found + more
    is_version = kubevirts.version(kubevirt)
    if is_version != version if version else is_version in ("", other_than):
        wanted = version or f"another version than {other_than}"
        return f"KubeVirt says it is {is_version or 'of no version'}, not {wanted}{more}"
    for name in kubevirts.PARTS:
        wrong = _not_of(parts[name], [e for e in pods if _component(e) == name], is_version)
        if wrong:
            return wrong + more
    return ""


def _not_of(part: Object, pods: Sequence[Object], version: str) -> str:
    """Why a component is not of a version; "" if it is."""
    metadata, status = part["metadata"], part.get("status") or {}
    name = metadata["name"]
    if int(status.get("observedGeneration") or 0) < int(metadata.get("generation") or 0):
        return f"{name} has just been changed"
    marked = (metadata.get("annotations") or {}).get(VERSION, version)
    if marked != version:
        return f"{name} is of {marked}"
    image = _image(part["spec"]["template"], name)
    for pod in pods:
        which = f"the pod {pod['metadata']['name']}"
        if _image(pod, name) != image:
            return f"{which} is made of {_image(pod, name)}, not of {image}"
        if pod["metadata"].get("deletionTimestamp"):
            return f"{which} has not ended"
    return ""


def _image(pod: Object, component: str) -> str:
    containers = (pod.get("spec") or {}).get("containers") or [{}]
    own = next((each for each in containers if each.get("name") == component), containers[0])
    return str(own.get("image") or "")


def _component(pod: Object) -> str:
    return str((pod["metadata"].get("labels") or {}).get(COMPONENT) or "")


def _stuck(pods: Sequence[Object]) -> Iterator[str]:
    """KubeVirt's pods that do not come to run, and why."""
    shown = 0
    for pod in pods:
        status = pod.get("status") or {}
        for each in status.get("containerStatuses") or []:
            waiting = (each.get("state") or {}).get("waiting") or {}
            reason = waiting.get("reason")
            if reason in (None, "", "ContainerCreating", "PodInitializing") or shown == _SHOWN:
                continue
            shown += 1
            yield f"{pod['metadata']['name']}: {reason}, image {each.get('image')}"


async def images(client: Client, namespace: str) -> dict[str, str]:
    """The image that each component is to be made of, and launchers, as far as they are told."""
    parts = await _parts(client, namespace)
    templates = {name: parts[name]["spec"]["template"] for name in kubevirts.PARTS if name in parts}
    found = {name: _image(each, name) for name, each in templates.items()}
    for container in templates.get("virt-controller", {}).get("spec", {}).get("containers") or []:
        words = [*(container.get("command") or []), *(container.get("args") or [])]
        if _LAUNCHER in words[:-1]:
            found["virt-launcher"] = str(words[words.index(_LAUNCHER) + 1])
    return found


def unchanged(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Which components are of the image they were of, in words.

    virt-operator says that it observes whatever version it was told, whichever images it uses.
    """
    return [f"{name} is still of {image}" for name, image in after.items()
            if before.get(name) == image]  # fmt: skip


async def named_by_operator(client: Client, namespace: str) -> str:
    """Why the CR's tag decides on no image, in a sentence; "" if it does, as far as is known."""
    operator = (await _parts(client, namespace)).get(_OPERATOR)
    if operator is None:
        return ""
    containers = operator["spec"]["template"]["spec"].get("containers") or []
    told = {
        str(each.get("name"))
        for container in containers
        for each in container.get("env") or []
        if each.get("value") or each.get("valueFrom")
    }
    names = [each for each in _NAMED if each in told]
    if not names:
        return ""
    return (
        f"the Deployment {namespace}/{_OPERATOR} names KubeVirt's images itself "
        f"({', '.join(names)}), so that the KubeVirt CR's imageTag would change its version's name "
        "and nothing else: upgrade virt-operator, by --kvscale-upgrade-command"
    )


async def _parts(client: Client, namespace: str) -> dict[str, Object]:
    """Deployments and DaemonSets by name."""
    parts: dict[str, Object] = {}
    for kind in (DEPLOYMENTS, DAEMON_SETS):
        answer = await client.list(kind, namespace)
        parts |= {each["metadata"]["name"]: each for each in answer.get("items") or []}
    return parts


async def look(client: Client, namespace: str, name: str, version: str) -> str:
    """What a version lacks now; see `hanging`."""
    custom = await client.list(KUBEVIRTS, namespace)
    found = [e for e in custom.get("items") or [] if e["metadata"]["name"] == name]
    parts = await _parts(client, namespace)
    pods = await client.list(PODS, namespace, labels=COMPONENT)
    return hanging(found[0] if found else None, parts, pods.get("items") or [], version)


async def rolled_out(
    client: Client, namespace: str, name: str, version: str, timeout: float, other_than: str = ""
) -> str:
    """Wait until a version is rolled out; "" once it is, else what hangs after so many seconds."""
    found = ""

    def reached(mirrors: Sequence[Mirror]) -> bool:
        nonlocal found
        custom, deployments, daemon_sets, pods = (mirror.objects for mirror in mirrors)
        parts = {**deployments, **daemon_sets}
        found = hanging(custom.get(name), parts, [*pods.values()], version, other_than)
        return not found

    wanted = [
        Watched(KUBEVIRTS, namespace, f"metadata.name={name}"),
        Watched(DEPLOYMENTS, namespace),
        Watched(DAEMON_SETS, namespace),
        Watched(PODS, namespace, labels=COMPONENT),
    ]
    return "" if await until(client, wanted, reached, timeout) else found or "no answer"
