"""Programs that say who we are (`exec` in a kubeconfig), as client-go runs them.

`kubernetes.aio` runs them too, but puts what they print into logs and errors.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import signal
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_kvscale.cluster.client_errors import NoCredentialsError
from pytest_kvscale.cluster.clock import utc_now
from pytest_kvscale.cluster.credentials import Issued, Pass, bearer, issued
from pytest_kvscale.cluster.kubeconfig import Access, Exec
from pytest_kvscale.cluster.secrecy import sealed_async
from pytest_kvscale.errors import ConfigurationError

VERSIONS = tuple(f"client.authentication.k8s.io/{version}" for version in ("v1", "v1beta1"))
PATIENCE = 60.0
"""Seconds a plugin may take."""
MakeTls = Callable[[bytes, bytes], ssl.SSLContext]
"""Makes a TLS context of a certificate and its key (PEM)."""


class ExecPlugin:
    """A source of passes: each one asks the program."""

    def __init__(
        self,
        access: Access,
        plugin: Exec,
        more: tuple[tuple[str, str], ...],
        tls: ssl.SSLContext | None,
        make_tls: MakeTls,
    ) -> None:
        self._access = access
        self._plugin = plugin
        self._more = more
        self._tls = tls
        self._make_tls = make_tls
        self.name = f"the exec plugin {plugin.command} of user {access.user_name!r}"
        if plugin.api_version not in VERSIONS:
            raise ConfigurationError(
                f"{self.name} speaks {plugin.api_version!r}: expected {' or '.join(VERSIONS)}"
            )
        if plugin.interactive_mode == "Always":
            raise ConfigurationError(
                f"{self.name} wants to ask questions (interactiveMode: Always), which a test run "
                "cannot answer: log in beforehand, or use another way"
            )

    @sealed_async
    async def issue(self) -> Issued:
        """See `Source.issue`."""
        credential = self._credential(await self._output())
        token = credential.get("token")
        certificate, key = (
            str(credential.get(name) or "").encode()
            for name in ("clientCertificateData", "clientKeyData")
        )
        if bool(certificate) is not bool(key):
            raise NoCredentialsError(f"{self.name} gave only one of certificate and key")
        if not token and not certificate:
            raise NoCredentialsError(f"{self.name} gave neither a token nor a certificate")
        headers = bearer(str(token), f"what {self.name} printed") if token else ()
        tls = self._tls
        if certificate:
            try:
                tls = self._make_tls(certificate, key)
            except ConfigurationError as problem:
                raise NoCredentialsError(f"{self.name}: {problem}") from None
        life = self._life(credential.get("expirationTimestamp"))
        return issued(Pass((*headers, *self._more), tls, certificate), life)

    def _credential(self, output: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(output)
        except ValueError:
            raise NoCredentialsError(f"{self.name} did not print JSON") from None
        status = answer.get("status") if isinstance(answer, dict) else None
        if not isinstance(status, dict) or answer.get("kind") != "ExecCredential":
            raise NoCredentialsError(f"{self.name} did not print an ExecCredential with a status")
        if answer.get("apiVersion") != self._plugin.api_version:
            raise NoCredentialsError(
                f"{self.name} does not answer in the version the kubeconfig names, "
                f"{self._plugin.api_version}"
            )
        return status

    def _life(self, expires: object) -> float | None:
        if not expires:
            return None
        try:
            when = datetime.datetime.fromisoformat(str(expires))
        except ValueError:
            when = None
        if when is None or when.tzinfo is None:
            raise NoCredentialsError(
                f"{self.name} gave an expirationTimestamp that is no RFC 3339 time"
            )
        return max(0.0, (when - utc_now()).total_seconds())

    async def _output(self) -> bytes:
        """What the program prints. It runs beside the loop, in a process group of its own."""
        try:
            process = await asyncio.to_thread(self._begin)
        except FileNotFoundError:
            hint = " ".join((self._plugin.install_hint or "").split())
            raise NoCredentialsError(
                f"{self.name} is not installed{f' ({hint[:200]})' if hint else ''}"
            ) from None
        except OSError as problem:
            raise NoCredentialsError(f"{self.name} cannot be run: {problem.strerror}") from None
        try:
            async with asyncio.timeout(PATIENCE):
                output, _ = await asyncio.to_thread(process.communicate)
        except (TimeoutError, asyncio.CancelledError) as problem:
            # Also what it has started: a thread waits for the end of their output.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(problem, asyncio.CancelledError):
                raise
            raise NoCredentialsError(f"{self.name} did not end within {PATIENCE:g} s") from None
        if process.returncode != 0:
            raise NoCredentialsError(
                f"{self.name} failed with exit code {process.returncode}: run it by hand to see "
                "what it says"
            )
        return output

    def _begin(self) -> subprocess.Popen[bytes]:
        plugin = self._plugin
        environment = dict(os.environ)
        for variable in plugin.env or []:
            environment[variable.name] = variable.value.get_secret_value()
        environment["KUBERNETES_EXEC_INFO"] = json.dumps(self._info())
        command = plugin.command
        if os.sep in command:
            command = str(self._access.user_folder / Path(command).expanduser())
        return subprocess.Popen(  # noqa: S603 - the kubeconfig names it
            [command, *(each.get_secret_value() for each in plugin.args or [])],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            # What it complains about may name what it was given.
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _info(self) -> dict[str, Any]:
        spec: dict[str, Any] = {"interactive": False}
        if self._plugin.provide_cluster_info:
            cluster = self._access.cluster
            proxy = cluster.proxy_url.get_secret_value() if cluster.proxy_url else None
            known = {
                "server": cluster.server,
                "tls-server-name": cluster.tls_server_name,
                "insecure-skip-tls-verify": cluster.insecure_skip_tls_verify or None,
                "certificate-authority-data": cluster.certificate_authority_data,
                "proxy-url": proxy,
                "config": cluster.exec_config(),
            }
            spec["cluster"] = {key: value for key, value in known.items() if value is not None}
        return {"apiVersion": self._plugin.api_version, "kind": "ExecCredential", "spec": spec}
