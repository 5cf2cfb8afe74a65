"""Tokens over REST: made, listed and revoked by admins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from controlplane.api.access import Rule
from controlplane.api.fields import json_response, lifetime_field, read_fields, refuse_field, text_field
from controlplane.api.status import ApiError
from controlplane.model.credentials import Identity, Role, TokenIssuer
from controlplane.model.values import dns_label_complaint, dns_subdomain_complaint

TOKENS = "/mizzen/v1/tokens"
RULES = (Rule(TOKENS),)

_LIFETIME = 3600.0
_LONGEST = 7 * 86400.0


class TokenRoutes:
    """`/mizzen/v1/tokens`."""

    def __init__(self, tokens: TokenIssuer) -> None:
        self._tokens = tokens

    def routes(self) -> Sequence[BaseRoute]:
        """For the application."""
        return (
            Route(TOKENS, self._list, methods=["GET"]),
            Route(TOKENS, self._create, methods=["POST"]),
            Route(TOKENS + "/{id}", self._revoke, methods=["DELETE"]),
        )

    async def _list(self, request: Request) -> Response:
        return json_response([asdict(token) for token in await self._tokens.list()])

    async def _create(self, request: Request) -> Response:
        """Body: `role` ("workload"), `lifetime` in seconds; for workloads `namespace` ("default") and `serviceAccount`, for
        admins and viewers `name`. Join tokens last an hour unless it is said, the others until they are revoked.
        """
        identity: Identity = request.state.identity
        body = await read_fields(request, "role", "name", "namespace", "serviceAccount", "lifetime")
        role = text_field(body, "role", Role.WORKLOAD.value)
        if role == Role.WORKLOAD:
            if "name" in body:
                raise ApiError(422, "name: a join token has none: its bearer is the service account")
            namespace, account = text_field(body, "namespace", "default"), text_field(body, "serviceAccount")
            refuse_field("namespace", dns_label_complaint(namespace))
            refuse_field("serviceAccount", dns_subdomain_complaint(account))
            lifetime = lifetime_field(body, _LONGEST) or _LIFETIME
            token, text = await self._tokens.create(namespace, account, lifetime=lifetime, who=identity.name)
        elif role in (Role.ADMIN, Role.VIEWER):
            for field in ("namespace", "serviceAccount"):
                if field in body:
                    raise ApiError(422, f"{field}: is of workloads alone: {role}s are of the whole mesh")
            name = text_field(body, "name")
            refuse_field("name", dns_subdomain_complaint(name))
            lifetime_ = lifetime_field(body, None)
            token, text = await self._tokens.issue(Role(role), name, lifetime=lifetime_, who=identity.name)
        else:
            raise ApiError(422, f'role: must be admin, viewer or workload, not "{role}"')
        return json_response({**asdict(token), "token": text}, 201)

    async def _revoke(self, request: Request) -> Response:
        identity: Identity = request.state.identity
        id = request.path_params["id"]
        if not await self._tokens.revoke(id, who=identity.name):
            raise ApiError(404, f'there is no token "{id}"')
        return Response(status_code=204)
