"""Who comes in, as whom, and whether they may do what they ask for.

In kube-apiserver's order: authentication (401), impersonation, authorization (403).
"""

from __future__ import annotations

from urllib.parse import unquote

from aiohttp import web

from pytest_kvscale.sim import access_reviews, errors, rbac
from pytest_kvscale.sim.api import Api
from pytest_kvscale.sim.authentication import (
    ANONYMOUS,
    AUTHENTICATED,
    CALLER,
    UNAUTHENTICATED,
    Gate,
    User,
    bearer_token,
)
from pytest_kvscale.sim.authorization import refusal
from pytest_kvscale.sim.errors import Object
from pytest_kvscale.sim.in_flight import InFlight
from pytest_kvscale.sim.request_info import RequestInfo, request_info
from pytest_kvscale.sim.resources import SERVICE_ACCOUNTS, Resource
from pytest_kvscale.sim.service_accounts import (
    ISSUER,
    ServiceAccountTokens,
    groups_of,
    parse_user,
)

_USER, _GROUP, _UID = "Impersonate-User", "Impersonate-Group", "Impersonate-Uid"
_EXTRA = "impersonate-extra-"


class Guard:
    """Stands before one API."""

    def __init__(self, api: Api, gate: Gate, in_flight: InFlight) -> None:
        self.gate = gate
        self.in_flight = in_flight
        self.policy = rbac.keep_policy(api)
        self._tokens = ServiceAccountTokens(api)
        rbac.Grants(api, self.policy)

    def admit(self, request: web.BaseRequest) -> User:
        """Who sent the request, if they may do what they ask for; else 401 or 403."""
        token = bearer_token(request)
        user = (token and self._tokens.user_of(token)) or self.gate.admit(request)
        if user != ANONYMOUS:
            user = user.with_group(AUTHENTICATED)
        user = self._impersonated(request, user)
        self._authorize(user, request_info(request.method, request.path, request.query))
        CALLER.set(user)
        return user

    def answers(self, kind: Resource, subresource: str) -> bool:
        """Whether to create such a thing is to ask a question."""
        return kind in access_reviews.KINDS or _is_token(kind, subresource)

    def answer(self, kind: Resource, namespace: str, name: str, body: Object) -> Object:
        """The answer to a review or a TokenRequest, which the caller has sent."""
        user = CALLER.get()
        assert user is not None, "only requests of users are answered"  # noqa: S101
        if kind is SERVICE_ACCOUNTS:
            return self._tokens.issue(namespace, name, body)
        return access_reviews.review(kind, namespace, body, user, self.policy, self._who_has)

    def _who_has(self, token: str, audiences: tuple[str, ...]) -> User | None:
        user = self._tokens.user_of(token, audiences or (ISSUER,))
        if user is None and not audiences:
            user = self.gate.by_token(token)
        return user and user.with_group(AUTHENTICATED)

    def _authorize(self, user: User, info: RequestInfo) -> None:
        decision = self.policy.decide(user, info)
        if not decision.allowed:
            raise refusal(user, info, decision.reason)

    # Impersonation --------------------------------------------------------------------------

    def _impersonated(self, request: web.BaseRequest, user: User) -> User:
        """The user that a request shall count as another's, if it shall and may."""
        headers = request.headers
        name, groups = headers.get(_USER, ""), tuple(headers.getall(_GROUP, ()))
        uid = headers.get(_UID, "")
        extra: dict[str, tuple[str, ...]] = {}
        for header, value in headers.items():
            if header.lower().startswith(_EXTRA):
                key = unquote(header[len(_EXTRA) :]).lower()
                extra[key] = (*extra.get(key, ()), value)
        if not name:
            if groups or uid or extra:
                what = f"{list(groups)} {sorted(extra)}"
                raise errors.bad_request(f"requested {what} without impersonating a user")
            return user
        account = parse_user(name)
        if account is None:
            self._may_impersonate(user, "users", name)
        else:
            self._may_impersonate(user, "serviceaccounts", account[1], namespace=account[0])
        for group in groups:
            self._may_impersonate(user, "groups", group)
        for key, values in extra.items():
            for value in values:
                self._may_impersonate(user, "userextras", value, "authentication.k8s.io", key)
        if uid:
            self._may_impersonate(user, "uids", uid, "authentication.k8s.io")
        if account is not None and not groups:
            groups = groups_of(account[0])
        taken = User(name, uid, groups, tuple(extra.items()))
        if name == ANONYMOUS.name:
            return taken.with_group(UNAUTHENTICATED)
        return taken if UNAUTHENTICATED in groups else taken.with_group(AUTHENTICATED)

    def _may_impersonate(
        self, user: User, resource: str, name: str, group: str = "", subresource: str = "",
        namespace: str = "",
    ) -> None:  # fmt: skip
        info = RequestInfo("impersonate", "", group, "v1", resource, subresource, namespace, name)
        self._authorize(user, info)


def _is_token(kind: Resource, subresource: str) -> bool:
    return kind is SERVICE_ACCOUNTS and subresource == "token"
