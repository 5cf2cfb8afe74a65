"""Routes beside the resources: what the control plane knows of proxies, where it serves, tokens, and xDS by polling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from controlplane.api.access import EVERYBODY, Rule
from controlplane.api.status import ApiError
from controlplane.model.credentials import JoinTokens, Role, Unauthenticated
from controlplane.xds.client_status import proxy_status
from controlplane.xds.hub import Hub
from controlplane.xds.rest import RestDiscovery

_LONGEST_TOKEN: Final = 7 * 86400.0  # seconds
_WORKLOADS: Final = frozenset((Role.ADMIN, Role.WORKLOAD))
_NOBODY: Final[frozenset[Role]] = frozenset()

RULES: Final = (
    Rule("/mizzen/v1/addresses", EVERYBODY, _NOBODY),
    Rule("/mizzen/v1/join", public=True),
    Rule("/v3/", _WORKLOADS, _WORKLOADS),
)


def operator_routes(
    hub: Hub, rest: RestDiscovery, tokens: JoinTokens, addresses: Callable[[], dict[str, str]]
) -> list[Route]:
    """The routes; who may use them is in RULES, else admins, and viewers what only reads."""

    async def where(request: Request) -> Response:
        return _json(addresses())

    async def proxies(request: Request) -> Response:
        return _json(proxy_status(hub.sessions))

    async def discovery(request: Request) -> Response:
        status, body = rest.answer(request.path_params["what"], await request.body(), request.state.identity)
        return Response(body, status, media_type="application/json" if status == 200 else "text/plain")

    async def list_tokens(request: Request) -> Response:
        return _json([asdict(one) for one in await tokens.list()])

    async def create_token(request: Request) -> Response:
        asked = await _object(request)
        namespace, account = asked.get("namespace", "default"), asked.get("serviceAccount")
        lifetime = asked.get("lifetime", 3600)
        if not isinstance(account, str) or not account or not isinstance(namespace, str) or not namespace:
            raise ApiError(400, "serviceAccount and namespace are names")
        if not isinstance(lifetime, int | float) or not 0 < lifetime <= _LONGEST_TOKEN:
            raise ApiError(400, f"lifetime is in seconds, above 0 and at most {_LONGEST_TOKEN:.0f}")
        token, text = await tokens.create(namespace, account, lifetime=float(lifetime), who=request.state.identity.name)
        return _json({**asdict(token), "token": text}, 201)

    async def revoke_token(request: Request) -> Response:
        if not await tokens.revoke(request.path_params["id"], who=request.state.identity.name):
            raise ApiError(404, "there is no token of that id")
        return Response(status_code=204)

    async def join(request: Request) -> Response:
        asked = await _object(request)
        token, csr = asked.get("token"), asked.get("certificateSigningRequest")
        if not isinstance(token, str) or not isinstance(csr, str):
            raise ApiError(400, "token and certificateSigningRequest (PEM) are texts")
        try:
            chain = await tokens.join(token, csr.encode())
        except Unauthenticated as error:
            raise ApiError(401, str(error)) from error
        except ValueError as error:
            raise ApiError(400, str(error)) from error
        return _json({"certificateChain": chain.decode()}, 201)

    return [
        Route("/mizzen/v1/addresses", where),
        Route("/mizzen/v1/proxies", proxies),
        Route("/mizzen/v1/tokens", list_tokens),
        Route("/mizzen/v1/tokens", create_token, methods=["POST"]),
        Route("/mizzen/v1/tokens/{id}", revoke_token, methods=["DELETE"]),
        Route("/mizzen/v1/join", join, methods=["POST"]),
        Route("/v3/discovery:{what}", discovery, methods=["POST"]),
    ]


async def _object(request: Request) -> dict[str, Any]:
    try:
        found = orjson.loads(await request.body())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ApiError(400, "the body is not a JSON object")
    return found


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")
