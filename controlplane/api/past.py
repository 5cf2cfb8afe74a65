"""What a resource was before: every change that the store remembers, with who made it and when."""

from __future__ import annotations

import datetime
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from controlplane.api.discovery import Registry
from controlplane.api.resources import Place, told
from controlplane.api.status import JSON, ApiError
from controlplane.model.credentials import Identity, Role
from controlplane.model.store import Event, Store

HISTORY = "/mizzen/v1/history"


class Past:
    """`/mizzen/v1/history?kind=VirtualService&namespace=shop&name=reviews`."""

    def __init__(self, registry: Registry, store: Store) -> None:
        self._registry = registry
        self._store = store

    async def history(self, request: Request) -> Response:
        """The changes of one resource, the oldest first; of a deletion, what was deleted."""
        asked = request.query_params
        kind = self._registry.kinds.get(asked.get("kind", ""))
        if kind is None:
            raise ApiError(
                400, f'kind: "{asked.get("kind", "")}" is not served: use one of {", ".join(self._registry.kinds)}'
            )
        if not asked.get("name"):
            raise ApiError(400, "name: is required")
        identity: Identity = request.state.identity
        if kind.name == "Secret" and identity.role is not Role.ADMIN:
            raise ApiError(403, f'secrets is forbidden: "{identity.name}" ({identity.role}) may not read them')
        namespace = asked.get("namespace", "default") if kind.namespaced else ""
        place = Place(kind, kind.versions[0], namespace, asked["name"])
        events = await self._store.history(place.key)
        if not events:
            raise ApiError(404, f"nothing is remembered of {place.key}")
        return Response(orjson.dumps({"items": [_told(event, place) for event in events]}), media_type=JSON)


def _told(event: Event, place: Place) -> dict[str, Any]:
    return {
        "type": event.action.value,
        "who": event.who,
        "when": datetime.datetime.fromtimestamp(event.when, datetime.UTC).isoformat(timespec="milliseconds"),
        "resourceVersion": str(event.stored.revision),
        "object": told(event.stored, place),
    }
