"""The columns of the tables of built-in kinds that are stored and nothing more."""

from __future__ import annotations

TITLES = {
    "endpoints": "Endpoints, Age",
    "limitranges": "Created At",
    "persistentvolumes": "Capacity, Access Modes, Reclaim Policy, Status, Claim, StorageClass, "
    "VolumeAttributesClass, Reason, Age, VolumeMode*",
    "replicasets": "Desired, Current, Ready, Age, Containers*, Images*, Selector*",
    "statefulsets": "Ready, Age, Containers*, Images*",
    "jobs": "Status, Completions, Duration, Age, Containers*, Images*, Selector*",
    "cronjobs": "Schedule, Timezone, Suspend, Active, Last Schedule, Age, Containers*, Images*, "
    "Selector*",
    "poddisruptionbudgets": "Min Available, Max Unavailable, Allowed Disruptions, Age",
    "storageclasses": "Provisioner, ReclaimPolicy, VolumeBindingMode, AllowVolumeExpansion, Age",
    "networkpolicies": "Pod-Selector, Age",
    "endpointslices": "AddressType, Ports, Endpoints, Age",
    "runtimeclasses": "Handler, Age",
    "controllerrevisions": "Controller, Revision, Age",
    "mutatingwebhookconfigurations": "Webhooks, Age",
    "validatingwebhookconfigurations": "Webhooks, Age",
}
"""By plural; with a star those of wide tables."""
