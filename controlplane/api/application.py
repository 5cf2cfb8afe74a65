"""The REST application, put together: discovery, resources, and routes of our own beside them."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from controlplane.api import gnostic
from controlplane.api.access import Gate, Rule
from controlplane.api.authority_routes import RULES as AUTHORITY_RULES
from controlplane.api.authority_routes import AuthorityRoutes
from controlplane.api.certificate_routes import RULES as CERTIFICATE_RULES
from controlplane.api.certificate_routes import CertificateRoutes
from controlplane.api.discovery import AGGREGATED_VERSIONS, Registry
from controlplane.api.openapi import OpenApi
from controlplane.api.past import HISTORY, Past
from controlplane.api.resources import Parse, Resources
from controlplane.api.rest import Rest
from controlplane.api.status import JSON, ApiError
from controlplane.api.token_routes import RULES as TOKEN_RULES
from controlplane.api.token_routes import TokenRoutes
from controlplane.api.watching import Watches
from controlplane.model.authority_operations import AuthorityOperations
from controlplane.model.certificates import CertificateIssuer
from controlplane.model.credentials import Authenticator, TokenIssuer
from controlplane.model.kinds import Kind
from controlplane.model.resource import Origin, ResourceKey
from controlplane.model.store import Store, Unavailable

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_KUBERNETES = ("1", "32")  # the version whose API this is like; kubectl warns of versions that are far apart


class Application:
    """The API. ``asgi`` is served by ApiServer; ``start`` before that; ``close`` ends the watches, so that it can stop.

    ``routes`` are further routes, of other parts of the control plane, and ``rules`` say who may use them (see Rule; without
    one, admins may do everything and viewers read). Handlers find who asks in `request.state.identity`, and raise ApiError.
    """

    def __init__(
        self,
        store: Store,
        kinds: Mapping[str, Kind],
        parse: Parse,
        authenticator: Authenticator,
        *,
        tokens: TokenIssuer | None = None,
        certificates: CertificateIssuer | None = None,
        operations: AuthorityOperations | None = None,
        routes: Sequence[BaseRoute] = (),
        rules: Sequence[Rule] = (),
        names: Collection[str] = (),
        origin_of: Callable[[ResourceKey], Origin | None] = lambda key: None,
        ready: Callable[[], bool] = lambda: True,
        version: str = "0",
        most_requests: int = 400,
        most_watches: int = 2000,
        bookmark_every: float = 30.0,
    ) -> None:
        self.resources = Resources(store, kinds, parse, origin_of)
        self.watches = Watches(store, bookmark_every=bookmark_every)
        self._registry = Registry(kinds)
        self._ready = ready
        self._version = version
        self._openapi: asyncio.Task[OpenApi] | None = None
        rest = Rest(self._registry, self.resources, self.watches)
        token_routes = () if tokens is None else TokenRoutes(tokens).routes()
        certificate_routes = None if certificates is None else CertificateRoutes(certificates, authenticator)
        starlette = Starlette(
            routes=[
                *(() if certificate_routes is None else certificate_routes.routes()),  # asked most: found first
                *(Route(path, self._health) for path in ("/healthz", "/livez")),
                Route("/readyz", self._readiness),
                Route("/version", self._told_version),
                Route("/api", self._core_versions),
                Route("/apis", self._groups),
                Route("/api/{version}", self._core_resources),
                Route("/apis/{group}", self._group),
                Route("/apis/{group}/{version}", self._group_resources),
                Route("/openapi/v2", self._openapi_v2),
                Route("/openapi/v3", self._openapi_v3_index),
                Route("/openapi/v3/api/{version}", self._openapi_v3),
                Route("/openapi/v3/apis/{group}/{version}", self._openapi_v3),
                Route("/api/{version}/{rest:path}", rest.core, methods=_METHODS),
                Route("/apis/{group}/{version}/{rest:path}", rest.group, methods=_METHODS),
                Route(HISTORY, Past(self._registry, store).history),
                *token_routes,
                *(() if operations is None else AuthorityRoutes(operations).routes()),
                *routes,
            ],
            exception_handlers={
                ApiError: _render_error,
                HTTPException: _render_http_error,
                Unavailable: _render_unavailable,
            },
        )
        starlette.router.redirect_slashes = False
        self.asgi: ASGIApp = Gate(
            starlette,
            authenticator,
            names=names,
            rules=(*TOKEN_RULES, *CERTIFICATE_RULES, *AUTHORITY_RULES, *rules),
            most=most_requests,
            most_watches=most_watches,
            **({} if certificate_routes is None else {"turned_away": certificate_routes.turned_away}),
        )

    async def start(self) -> None:
        """Make what every mesh has. Raises Unavailable when the store is out of reach."""
        await self.resources.start()

    def close(self) -> None:
        """End all watches."""
        self.watches.close()

    # --- Health and version

    async def _health(self, request: Request) -> Response:
        return PlainTextResponse("ok")

    async def _readiness(self, request: Request) -> Response:
        return PlainTextResponse("ok") if self._ready() else PlainTextResponse("not ready", 503)

    async def _told_version(self, request: Request) -> Response:
        major, minor = _KUBERNETES
        told = {
            "major": major,
            "minor": minor,
            "gitVersion": f"v{major}.{minor}.0+mizzen-{self._version}",
            "platform": f"{platform.system().lower()}/{platform.machine()}",
            "compiler": platform.python_implementation(),
        }
        # Typed clients take none of Kubernetes' own fields for missing.
        return _json({**told, **dict.fromkeys(("gitCommit", "gitTreeState", "buildDate", "goVersion"), "")})

    # --- Discovery

    async def _core_versions(self, request: Request) -> Response:
        return self._aggregated(request, core=True) or _json(self._registry.core_versions())

    async def _groups(self, request: Request) -> Response:
        return self._aggregated(request, core=False) or _json(self._registry.group_list())

    async def _core_resources(self, request: Request) -> Response:
        return _found(self._registry.resource_list("", request.path_params["version"]))

    async def _group(self, request: Request) -> Response:
        return _found(self._registry.group(request.path_params["group"]))

    async def _group_resources(self, request: Request) -> Response:
        return _found(self._registry.resource_list(request.path_params["group"], request.path_params["version"]))

    def _aggregated(self, request: Request, *, core: bool) -> Response | None:
        for choice in request.headers.get("accept", "").split(","):
            media_type, *parameters = (part.strip() for part in choice.split(";"))
            told = dict(part.partition("=")[::2] for part in parameters)
            if media_type != JSON:
                continue
            if "as" not in told:
                return None
            if told["as"] == "APIGroupDiscoveryList" and told.get("v") in AGGREGATED_VERSIONS:
                document = self._registry.aggregated(core=core, version=told["v"])
                content_type = f"{JSON};g=apidiscovery.k8s.io;v={told['v']};as=APIGroupDiscoveryList"
                return Response(orjson.dumps(document), headers={"Content-Type": content_type})
        return None

    # --- OpenAPI

    async def _openapi_documents(self) -> OpenApi:
        if self._openapi is None:
            self._openapi = asyncio.ensure_future(asyncio.to_thread(OpenApi, self._registry, self._version))
        return await asyncio.shield(self._openapi)

    async def _openapi_v2(self, request: Request) -> Response:
        document = (await self._openapi_documents()).v2()
        if any(media_type in request.headers.get("accept", "") for media_type in gnostic.ACCEPTED):
            return Response(gnostic.encode_document(document), media_type=gnostic.MEDIA_TYPE)
        return _json(document)

    async def _openapi_v3_index(self, request: Request) -> Response:
        return _json((await self._openapi_documents()).v3_index())

    async def _openapi_v3(self, request: Request) -> Response:
        place = request.path_params
        return _found((await self._openapi_documents()).v3(place.get("group", ""), place["version"]))


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type=JSON)


def _found(document: Mapping[str, Any] | None) -> Response:
    if document is None:
        raise ApiError(404, "the server could not find the requested resource")
    return _json(document)


async def _render_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def _render_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    messages = {404: "the server could not find the requested resource", 405: "the method is not supported here"}
    return ApiError(error.status_code, messages.get(error.status_code, error.detail)).response()


async def _render_unavailable(request: Request, error: Exception) -> Response:
    return ApiError(503, str(error), headers={"Retry-After": "1"}).response()
