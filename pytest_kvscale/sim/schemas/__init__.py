"""What the fields of the kinds served are: names, types, and how lists and maps are merged.

`kubernetes.json` holds Kubernetes 1.36's built-in kinds, `kubevirt.json` KubeVirt's (one type a
line); `empty.json` what an object of a built-in kind has before anybody has written to it (fields
that Go always encodes), by group/version/kind.
"""
