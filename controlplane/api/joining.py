"""Join tokens over REST: made, listed and revoked by operators, traded by workloads for a certificate."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from controlplane.api.access import Rule
from controlplane.api.body import as_object, decode_json, read_body
from controlplane.api.status import JSON, ApiError
from controlplane.model.credentials import Identity, JoinToken, JoinTokens, Unauthenticated
from controlplane.model.values import dns_label_complaint, dns_subdomain_complaint

TOKENS = "/mizzen/v1/join-tokens"
JOIN = "/mizzen/v1/join"
RULES = (Rule(TOKENS), Rule(JOIN, public=True))  # the token is the credential of those who join

_LIFETIME = 3600.0
_LONGEST = 86400.0
_LARGEST = 64 * 1024


class Joining:
    """`/mizzen/v1/join-tokens` and `/mizzen/v1/join`."""

    def __init__(self, tokens: JoinTokens) -> None:
        self._tokens = tokens

    def routes(self) -> Sequence[BaseRoute]:
        """For the application."""
        return (
            Route(TOKENS, self._list, methods=["GET"]),
            Route(TOKENS, self._create, methods=["POST"]),
            Route(TOKENS + "/{id}", self._revoke, methods=["DELETE"]),
            Route(JOIN, self._join, methods=["POST"]),
        )

    async def _list(self, request: Request) -> Response:
        return _json({"items": [_told(token) for token in await self._tokens.list()]})

    async def _create(self, request: Request) -> Response:
        """Body: `namespace`, `serviceAccount` ("default"), `lifetimeSeconds` (an hour)."""
        body = await _body(request, "namespace", "serviceAccount", "lifetimeSeconds")
        namespace, account = body.get("namespace", "default"), body.get("serviceAccount", "default")
        lifetime = body.get("lifetimeSeconds", _LIFETIME)
        if not isinstance(namespace, str) or dns_label_complaint(namespace):
            raise ApiError(422, f"namespace: {dns_label_complaint(str(namespace)) or 'must be a text'}")
        if not isinstance(account, str) or dns_subdomain_complaint(account):
            raise ApiError(422, f"serviceAccount: {dns_subdomain_complaint(str(account)) or 'must be a text'}")
        if isinstance(lifetime, bool) or not isinstance(lifetime, int | float) or not 1 <= lifetime <= _LONGEST:
            raise ApiError(422, f"lifetimeSeconds: must be a number from 1 to {_LONGEST:.0f}, not {lifetime!r}")
        identity: Identity = request.state.identity
        token, text = await self._tokens.create(namespace, account, lifetime=float(lifetime), who=identity.name)
        return _json({**_told(token), "token": text}, 201)

    async def _revoke(self, request: Request) -> Response:
        id = request.path_params["id"]
        identity: Identity = request.state.identity
        known = {token.id for token in await self._tokens.list()}
        if id not in known or not await self._tokens.revoke(id, who=identity.name):
            raise ApiError(404, f'join token "{id}" not found')
        return _json({"id": id, "revoked": True})

    async def _join(self, request: Request) -> Response:
        """Body: `token`, and `certificateSigningRequest` in PEM. The answer: `certificateChain` in PEM, the root last."""
        body = await _body(request, "token", "certificateSigningRequest")
        token, signing_request = body.get("token"), body.get("certificateSigningRequest")
        if not isinstance(token, str) or not isinstance(signing_request, str):
            raise ApiError(422, "token and certificateSigningRequest are required, both texts")
        try:
            chain = await self._tokens.join(token, signing_request.encode())
        except Unauthenticated as error:
            raise ApiError(401, f"Unauthorized: {error}") from None
        except ValueError as error:
            raise ApiError(422, f"certificateSigningRequest: {error}") from None
        return _json({"certificateChain": chain.decode()}, 201)


async def _body(request: Request, *fields: str) -> dict[str, Any]:
    body = as_object(decode_json(await read_body(request, _LARGEST) or b"{}"))
    unknown = sorted(set(body) - set(fields))
    if unknown:
        raise ApiError(422, f"{unknown[0]}: is not a field that is known here: use {', '.join(fields)}")
    return body


def _told(token: JoinToken) -> dict[str, Any]:
    return {
        "id": token.id,
        "namespace": token.namespace,
        "serviceAccount": token.service_account,
        "created": _time(token.created),
        "expires": _time(token.expires),
        "createdBy": token.created_by,
        "used": token.used,
    }


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _json(value: Any, code: int = 200) -> Response:
    return Response(orjson.dumps(value), code, media_type=JSON)
