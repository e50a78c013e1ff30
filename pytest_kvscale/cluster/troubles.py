"""Why a cluster cannot be used, in one sentence: what, which cluster, what to do."""

from __future__ import annotations

from pytest_kvscale.cluster.client import Client
from pytest_kvscale.cluster.client_errors import (
    ApiError,
    LostConnectionError,
    NoCredentialsError,
    UntrustedServerError,
)

RULES = "docs/how-to.md, 'Connect to your cluster'"
_MISMATCH = ("hostname mismatch", "ip address mismatch")


def explain(
    problem: ApiError | LostConnectionError | TimeoutError, client: Client, patience: float
) -> str:
    """The sentence for what a request to the cluster ended with."""
    check = "check the server's URL and the network"
    if isinstance(problem, ApiError):
        said = _refusal(problem, client)
    elif isinstance(problem, TimeoutError) and client.awaited:
        said = f"cannot be logged in to: {client.awaited} did not end within {patience:g} s"
    elif isinstance(problem, TimeoutError):
        said = f"did not answer within {patience:g} s: {check}"
    elif isinstance(problem, NoCredentialsError):
        said = f"cannot be logged in to: {problem}"
    elif not isinstance(problem, UntrustedServerError):
        said = f"does not answer: {problem}: {check}"
    elif any(each in str(problem).lower() for each in _MISMATCH):
        said = (
            f"does not answer: {problem}: use a name the certificate is for, or set "
            "tls-server-name in the kubeconfig"
        )
    else:
        said = f"does not answer: {problem}: set certificate-authority-data in the kubeconfig"
    return f"the cluster {client.name} {said}"


def _refusal(problem: ApiError, client: Client) -> str:
    message = _one_line(problem.status_message or problem.reason)
    if problem.code == 401:
        who = f" of user {client.user!r}" if client.user else ""
        return (
            f"does not accept the credentials{who} (HTTP 401): log in again, or renew them in "
            "the kubeconfig"
        )
    if problem.code == 403:
        return f"forbids what a run needs ({message}): give the user the rules of {RULES}"
    what = f"HTTP {problem.code}{f', {message}' if message else ''}"
    if problem.passing:
        return f"is not able to answer ({what}): try again when it is"
    return f"does not answer as a Kubernetes API ({what}): is the server's URL right?"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300].rstrip(".:")
