"""Tokens of service accounts (`serviceaccounts/token`): made on request, and known again.

A token is a JSON web token signed with a key of this process (HS256, where kube-apiserver signs
with a key pair). It is good until it expires, and as long as the account it is for, and the
object it is bound to, exist with the same uid.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import json
import secrets
from typing import Any

from pytest_kvscale.sim import errors
from pytest_kvscale.sim.api import Api
from pytest_kvscale.sim.authentication import AUTHENTICATED, User
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.resources import PODS, SECRETS, SERVICE_ACCOUNTS
from pytest_kvscale.sim.store import encode

ISSUER = "https://kubernetes.default.svc.cluster.local"
PREFIX = "system:serviceaccount:"
SHORTEST, USUAL, LONGEST = 600, 3600, 1 << 32
"""Seconds that a token is good for."""
_HEADER = {"alg": "HS256", "typ": "JWT"}
_BOUND = {"Pod": PODS, "Secret": SECRETS}


def groups_of(namespace: str) -> tuple[str, ...]:
    """The groups of every service account of a namespace."""
    return ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")


def parse_user(name: str) -> tuple[str, str] | None:
    """Namespace and name of the service account that a user's name stands for, if it does."""
    namespace, colon, account = name.removeprefix(PREFIX).partition(":")
    known = name.startswith(PREFIX) and colon and namespace and account and ":" not in account
    return (namespace, account) if known else None


class ServiceAccountTokens:
    """Issues tokens and knows them again."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._key = secrets.token_bytes(32)

    def issue(self, namespace: str, name: str, request: Object) -> Object:
        """The answer to a TokenRequest; 404 if there is no such account, 422 for a bad one."""
        account = self._api.get(SERVICE_ACCOUNTS, namespace, name).obj
        spec = request.get("spec") or {}
        seconds = spec.get("expirationSeconds") or USUAL
        audiences = spec.get("audiences") or [ISSUER]
        _check(name, spec, seconds, audiences)
        now = self._api.calendar.now()
        private: Object = {
            "namespace": namespace,
            "serviceaccount": {"name": name, "uid": account["metadata"]["uid"]},
        }
        bound = spec.get("boundObjectRef")
        if bound is not None:
            private[bound["kind"].lower()] = self._bound_to(namespace, name, bound)
        begin = int(now.timestamp())
        claims = {
            "aud": audiences, "exp": begin + seconds, "iat": begin, "iss": ISSUER,
            "kubernetes.io": private, "nbf": begin, "sub": f"{PREFIX}{namespace}:{name}",
        }  # fmt: skip
        signed = _encoded(encode(_HEADER)) + b"." + _encoded(encode(claims))
        end = datetime.datetime.fromtimestamp(begin + seconds, datetime.UTC)
        stamp = self._api.calendar.stamp()
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": name, "namespace": namespace, "creationTimestamp": stamp},
            "spec": {"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": bound},
            "status": {
                "token": (signed + b"." + self._signature(signed)).decode(),
                "expirationTimestamp": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
        }

    def _bound_to(self, namespace: str, name: str, bound: Object) -> Object:
        metadata = self._api.get(_BOUND[bound["kind"]], namespace, str(bound.get("name"))).obj[
            "metadata"
        ]
        if bound.get("uid") not in (None, "", metadata["uid"]):
            why = f"the UID in the bound object reference ({bound['uid']}) does not match the UID"
            raise errors.conflict(SERVICE_ACCOUNTS, name, why)
        return {"name": metadata["name"], "uid": metadata["uid"]}

    def user_of(self, token: str, audiences: tuple[str, ...] = (ISSUER,)) -> User | None:
        """The user that a token of ours is good for, now; None for any other."""
        signed, _, signature = token.encode(errors="surrogateescape").rpartition(b".")
        if not signed or not hmac.compare_digest(self._signature(signed), signature):
            return None
        claims: dict[str, Any] = json.loads(_decoded(signed.partition(b".")[2]))
        if not set(audiences) & set(claims["aud"]):
            return None
        if self._api.calendar.now().timestamp() >= claims["exp"]:
            return None
        private = claims["kubernetes.io"]
        namespace, account = private["namespace"], private["serviceaccount"]
        kept = [(SERVICE_ACCOUNTS, account)]
        kept += [(kind, private[k.lower()]) for k, kind in _BOUND.items() if k.lower() in private]
        for kind, held in kept:
            stored = self._api.store.get(kind, namespace, held["name"])
            if stored is None or stored.obj["metadata"]["uid"] != held["uid"]:
                return None
        return User(claims["sub"], account["uid"], (*groups_of(namespace), AUTHENTICATED))

    def _signature(self, signed: bytes) -> bytes:
        return _encoded(hmac.new(self._key, signed, hashlib.sha256).digest())


def _check(name: str, spec: Object, seconds: Any, audiences: Any) -> None:
    causes = []
    if not isinstance(seconds, int) or not SHORTEST <= seconds <= LONGEST:
        less = not isinstance(seconds, int) or seconds < SHORTEST
        text = f"Invalid value: {seconds!r}: may not specify a duration " + (
            "less than 10 minutes" if less else "larger than 2^32 seconds"
        )
        causes.append(errors.cause("FieldValueInvalid", "spec.expirationSeconds", text))
    if not isinstance(audiences, list) or not all(isinstance(each, str) for each in audiences):
        raise errors.bad_request("spec.audiences must be a list of texts")
    bound = spec.get("boundObjectRef")
    if bound is not None and (not isinstance(bound, dict) or bound.get("kind") not in _BOUND):
        raise errors.bad_request(
            f"cannot bind token to object of kind {bound.get('kind')!r}"
            if isinstance(bound, dict)
            else "spec.boundObjectRef must be an object"
        )
    if causes:
        raise errors.invalid(SERVICE_ACCOUNTS, name, causes)


def _encoded(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def _decoded(text: bytes) -> bytes:
    return base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
