"""What usually helps against a failure class: a setting, with the command that applies it."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from pytest_kvscale.measure.timeline import Timeline

_RUNTIME_LOG = "on the node: journalctl -u kubelet -u containerd"
_PATCH = "kubectl -n kubevirt patch kubevirt kubevirt --type merge -p '{patch}'"

REMEDIES: dict[str, str] = {
    "DeviceLimit": "raise virt-handler's device count (--kvscale-tune density does): "
    + _PATCH.format(patch='{"spec":{"configuration":{"virtualMachineInstancesPerNode":1000}}}'),
    "PodLimit": "raise maxPods in the kubelet's configuration on the node "
    "(/var/lib/kubelet/config.yaml), then: systemctl restart kubelet",
    "MemoryLimit": "the node's memory is spoken for: fewer VMIs, smaller guests, or a larger node; "
    "kubectl describe node shows what is allocated",
    "CpuLimit": "lower the VMIs' CPU request, or use a larger node; kubectl describe node shows "
    "what is allocated",
    "Unschedulable": "the pod does not fit the node (taint, selector, affinity or volume): "
    "kubectl describe pod names it; tolerations and selectors are the template's",
    "PodIPExhausted": "widen the node's pod network (controller-manager "
    "--node-cidr-mask-size, e.g. 22 for 1022 addresses) or the CNI's range",
    "KillPodSandbox": "the container runtime cannot keep up: use containerd instead of docker, "
    f"or raise the kubelet's runtimeRequestTimeout; {_RUNTIME_LOG}",
    "SandboxTimeout": "the container runtime cannot keep up: lower --kvscale-qps, or raise the "
    f"kubelet's runtimeRequestTimeout; {_RUNTIME_LOG}",
    "ImagePull": "the image cannot be pulled: check its name and the pull secret, or load it on "
    "the node beforehand; kubectl describe pod has the registry's answer",
    "QemuTimeout": "give virt-launcher more time (--kvscale-tune density does): "
    + _PATCH.format(
        patch='{"spec":{"customizeComponents":{"flags":{"controller":'
        '{"launcher-qemu-timeout":"900"}}}}}'
    ),
    "LauncherCrash": "read the launcher's last words: kubectl logs POD -c compute",
    "GuestCrash": "read the guest's and QEMU's log: kubectl logs POD -c compute; and the node's "
    "kernel log for the OOM killer: journalctl -k",
    "NodeLost": "the node stopped answering: kubectl describe node, then journalctl -u kubelet "
    "on it",
    "CreateRejected": "the API refuses the object: its answer stands above; quotas: kubectl "
    "describe quota; webhooks: kubectl get validatingwebhookconfigurations",
    "Throttled": "the API server sheds load: lower --kvscale-qps, or look at kubectl get "
    "flowschemas,prioritylevelconfigurations",
    "PodCreateFailed": "virt-controller could not create the launcher pod: kubectl describe vmi; "
    "often a quota or a pod security level",
    "StuckTerminating": "see what holds it: kubectl get vmi NAME -o yaml (finalizers), then "
    "kubectl -n kubevirt logs -l kubevirt.io=virt-handler",
    "Unexplained": "nothing was said: kubectl describe vmi and pod, and "
    "kubectl -n kubevirt logs -l kubevirt.io=virt-controller",
}
"""By failure class; one sentence each."""


def node_log_command(timelines: Iterable[Timeline]) -> str | None:
    """The command that shows, on their node, what its services logged of these VMIs' pods.

    It was there that the published experiment found why sandboxes were not made. The times are
    the server's, from the first creation to the last refusal; None if no pod came to a node.
    """
    of_node = [each for each in timelines if each.pod.node and each.pod.uid]
    begun = [each.created_stamp for each in of_node if each.created_stamp is not None]
    if not begun:
        return None
    told = [sign.stamp for each in of_node for sign in each.signs]
    since, until = min(begun), max([*begun, *told]) + _SLACK
    return (
        f"on {of_node[0].pod.node}: journalctl --utc -u kubelet -u containerd -u crio "
        f"--since '{_date(since)}' --until '{_date(until)}' | grep {of_node[0].pod.uid}"
    )


_SLACK = 60.0
"""Seconds beyond the last refusal that are of interest."""


def _date(stamp: float) -> str:
    return datetime.datetime.fromtimestamp(stamp, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
