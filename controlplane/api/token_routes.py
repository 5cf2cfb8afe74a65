"""Tokens over REST: made, listed and revoked by admins; those of workloads are traded for a certificate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from controlplane.api.access import Rule
from controlplane.api.body import as_object, decode_json, read_body
from controlplane.api.status import JSON, ApiError
from controlplane.model.credentials import Identity, Role, TokenIssuer, Unauthenticated
from controlplane.model.values import dns_label_complaint, dns_subdomain_complaint

TOKENS = "/mizzen/v1/tokens"
JOIN = "/mizzen/v1/join"
RENEW = "/mizzen/v1/renew"
ROOT = "/mizzen/v1/root"
RULES = (
    Rule(TOKENS),
    Rule(ROOT, public=True),
    Rule(JOIN, public=True),  # the token is the credential of those who join
    Rule(RENEW, frozenset(), frozenset((Role.WORKLOAD,))),
)

_LIFETIME = 3600.0
_LONGEST = 7 * 86400.0
_LARGEST = 64 * 1024


class TokenRoutes:
    """`/mizzen/v1/tokens`, and what workloads need to come in and stay: `root`, `join`, `renew`."""

    def __init__(self, tokens: TokenIssuer) -> None:
        self._tokens = tokens

    def routes(self) -> Sequence[BaseRoute]:
        """For the application."""
        return (
            Route(TOKENS, self._list, methods=["GET"]),
            Route(TOKENS, self._create, methods=["POST"]),
            Route(TOKENS + "/{id}", self._revoke, methods=["DELETE"]),
            Route(JOIN, self._join, methods=["POST"]),
            Route(RENEW, self._renew, methods=["POST"]),
            Route(ROOT, self._root, methods=["GET"]),
        )

    async def _list(self, request: Request) -> Response:
        return _json([asdict(token) for token in await self._tokens.list()])

    async def _create(self, request: Request) -> Response:
        """Body: `role` ("workload"), `lifetime` in seconds; for workloads `namespace` ("default") and `serviceAccount`, for
        admins and viewers `name`. Join tokens last an hour unless it is said, the others until they are revoked.
        """
        identity: Identity = request.state.identity
        body = await _body(request, "role", "name", "namespace", "serviceAccount", "lifetime")
        role = _text(body, "role", Role.WORKLOAD.value)
        if role == Role.WORKLOAD:
            if "name" in body:
                raise ApiError(422, "name: a join token has none: its bearer is the service account")
            namespace, account = _text(body, "namespace", "default"), _text(body, "serviceAccount")
            _refuse("namespace", dns_label_complaint(namespace))
            _refuse("serviceAccount", dns_subdomain_complaint(account))
            lifetime = _lifetime(body, _LONGEST) or _LIFETIME
            token, text = await self._tokens.create(namespace, account, lifetime=lifetime, who=identity.name)
        elif role in (Role.ADMIN, Role.VIEWER):
            for field in ("namespace", "serviceAccount"):
                if field in body:
                    raise ApiError(422, f"{field}: is of workloads alone: {role}s are of the whole mesh")
            name = _text(body, "name")
            _refuse("name", dns_subdomain_complaint(name))
            lifetime_ = _lifetime(body, None)
            token, text = await self._tokens.issue(Role(role), name, lifetime=lifetime_, who=identity.name)
        else:
            raise ApiError(422, f'role: must be admin, viewer or workload, not "{role}"')
        return _json({**asdict(token), "token": text}, 201)

    async def _revoke(self, request: Request) -> Response:
        identity: Identity = request.state.identity
        id = request.path_params["id"]
        if not await self._tokens.revoke(id, who=identity.name):
            raise ApiError(404, f'there is no token "{id}"')
        return Response(status_code=204)

    async def _join(self, request: Request) -> Response:
        """Body: `token`, and `certificateSigningRequest` in PEM. The answer: `certificateChain` in PEM, the root last."""
        body = await _body(request, "token", "certificateSigningRequest")
        token, signing_request = _text(body, "token"), _text(body, "certificateSigningRequest")
        try:
            chain = await self._tokens.join(token, signing_request.encode())
        except Unauthenticated as error:
            raise ApiError(401, f"Unauthorized: {error}") from None
        except ValueError as error:
            raise ApiError(422, f"certificateSigningRequest: {error}") from None
        return _json({"certificateChain": chain.decode()}, 201)

    async def _renew(self, request: Request) -> Response:
        """By a certificate that is still good: another one. Body and answer as of `join`, without the token."""
        identity: Identity = request.state.identity
        body = await _body(request, "certificateSigningRequest")
        try:
            chain = await self._tokens.renew(identity, _text(body, "certificateSigningRequest").encode())
        except ValueError as error:
            raise ApiError(422, f"certificateSigningRequest: {error}") from None
        return _json({"certificateChain": chain.decode()}, 201)

    async def _root(self, request: Request) -> Response:
        return _json({"root": self._tokens.root().decode()})


async def _body(request: Request, *fields: str) -> dict[str, Any]:
    body = as_object(decode_json(await read_body(request, _LARGEST) or b"{}"))
    unknown = sorted(set(body) - set(fields))
    if unknown:
        raise ApiError(422, f"{unknown[0]}: is not a field that is known here: use {', '.join(fields)}")
    return body


def _text(body: dict[str, Any], field: str, default: str | None = None) -> str:
    value = body.get(field, default)
    if not isinstance(value, str) or not value:
        raise ApiError(422, f"{field}: {'is required' if field not in body else 'must be a text that is not empty'}")
    return value


def _lifetime(body: dict[str, Any], longest: float | None) -> float | None:
    value = body.get("lifetime")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 1 or (longest and value > longest):
        most = f" to {longest:.0f}" if longest else ""
        raise ApiError(422, f"lifetime: must be a number of seconds from 1{most}, not {value!r}")
    return float(value)


def _refuse(field: str, complaint: str) -> None:
    if complaint:
        raise ApiError(422, f"{field}: {complaint}")


def _json(value: Any, code: int = 200) -> Response:
    return Response(orjson.dumps(value), code, media_type=JSON)
