"""The embedded cluster: a Kubernetes API with KubeVirt on it, in this process or standalone.

It knows nothing of pytest and nothing of the harness, which speaks to it over HTTP only.
"""
