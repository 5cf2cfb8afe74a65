"""Routes beside the resources: what is known of proxies, where is served, what has no effect, and xDS by polling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from controlplane.api.access import EVERYBODY, Rule
from controlplane.api.body import read_body
from controlplane.model.credentials import Role
from controlplane.model.problem import Problem
from controlplane.pilot.translator import Pilot
from controlplane.proxy_configuration import encoded_configuration, matches
from controlplane.xds.client_status import proxy_status
from controlplane.xds.hub import Hub
from controlplane.xds.rest import RestDiscovery

_WORKLOADS: Final = frozenset((Role.ADMIN, Role.WORKLOAD))
_NOBODY: Final[frozenset[Role]] = frozenset()

_MOST_CONFIGURATIONS: Final = 20
_LONGEST_POLL: Final = 1 << 20  # bytes; a request names who asks and which version it has

RULES: Final = (
    Rule("/mizzen/v1/addresses", EVERYBODY, _NOBODY),
    Rule("/v3/", _WORKLOADS, _WORKLOADS, any_host=True),
)


def operator_routes(
    hub: Hub,
    pilot: Pilot,
    rest: RestDiscovery,
    addresses: Callable[[], dict[str, str]],
    problems: Callable[[], Sequence[Problem]],
) -> list[Route]:
    """The routes; who may use them is in RULES, else admins, and viewers what only reads. ``problems`` are those of files and
    of what is in the store.
    """

    async def where(request: Request) -> Response:
        return _json(addresses())

    async def proxies(request: Request) -> Response:
        return _json(proxy_status(hub.sessions))

    async def configurations(request: Request) -> Response:
        """Of the proxies that are meant: `namespace` and `name`, or `address`."""
        asked = request.query_params
        found = {
            session.proxy.id: session.proxy
            for session in hub.sessions
            if matches(session.proxy, asked.get("namespace", ""), asked.get("name", ""))
            or asked.get("address", "") in session.proxy.addresses
        }
        hub.flush()
        made = [await encoded_configuration(pilot, found[id]) for id in sorted(found)[:_MOST_CONFIGURATIONS]]
        return Response(b"[%b]" % b",".join(made), media_type="application/json")

    async def discovery(request: Request) -> Response:
        status, body = rest.answer(
            request.path_params["what"], await read_body(request, _LONGEST_POLL), request.state.identity
        )
        return Response(body, status, media_type="application/json" if status == 200 else "text/plain")

    async def wrong(request: Request) -> Response:
        return _json([
            {"source": one.origin.source, "path": one.origin.path, "line": one.origin.line, "message": one.message,
             "kind": one.key.kind if one.key else "", "namespace": one.key.namespace if one.key else "",
             "name": one.key.name if one.key else ""}
            for one in problems()
        ])  # fmt: skip

    return [
        Route("/mizzen/v1/addresses", where),
        Route("/mizzen/v1/problems", wrong),
        Route("/mizzen/v1/proxies", proxies),
        Route("/mizzen/v1/configurations", configurations),
        Route("/v3/discovery:{what}", discovery, methods=["POST"]),
    ]


def metrics_route(text: Callable[[], bytes]) -> Route:
    """`/metrics` for Prometheus, which comes with a viewer's token."""

    async def metrics(request: Request) -> Response:
        return Response(text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return Route("/metrics", metrics)


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")
