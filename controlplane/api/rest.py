"""Kubernetes-style REST: a request's path, query and body become one of the verbs of `resources.py`, and the answer JSON.

Source: Kubernetes' API concepts and conventions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any
from urllib.parse import unquote

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from controlplane.api.body import (
    as_object,
    decode_json,
    media_type_of,
    read_body,
    read_document,
    unsupported_media_type,
)
from controlplane.api.discovery import Registry
from controlplane.api.listing import Query, list_resources
from controlplane.api.patches import json_patch, merge_patch
from controlplane.api.resources import Document, Place, Resources
from controlplane.api.selectors import field_selector, label_selector
from controlplane.api.status import JSON, ApiError, success
from controlplane.api.strategic import is_built_in, strategic_merge
from controlplane.api.tables import Form, form_of, shaped
from controlplane.api.watching import Watches, WatchQuery
from controlplane.model.credentials import Identity, Role
from controlplane.model.kinds import Kind
from controlplane.model.parsing import parse, warnings

_JSON_PATCH = "application/json-patch+json"
_MERGE_PATCH = "application/merge-patch+json"
_STRATEGIC_PATCH = "application/strategic-merge-patch+json"
_AT_ONCE = 100
_PART = 128 * 1024
_TRUE = ("1", "true", "True", "t", "T")


class Rest:
    """Answers what is below `/api/VERSION/` and `/apis/GROUP/VERSION/`."""

    def __init__(self, registry: Registry, resources: Resources, watches: Watches) -> None:
        self._registry = registry
        self._resources = resources
        self._watches = watches

    async def core(self, request: Request) -> Response:
        """`/api/VERSION/...`."""
        return await self._answer(request, "", request.path_params["version"])

    async def group(self, request: Request) -> Response:
        """`/apis/GROUP/VERSION/...`."""
        return await self._answer(request, request.path_params["group"], request.path_params["version"])

    async def _answer(self, request: Request, group: str, version: str) -> Response:
        place, status = self._place(group, version, request.path_params["rest"])
        identity: Identity = request.state.identity
        if identity.role is Role.VIEWER and place.kind.name == "Secret":
            raise ApiError(403, f'secrets is forbidden: "{identity.name}" ({identity.role}) may not read them')
        match request.method, bool(place.name):
            case (("GET" | "HEAD"), True):
                return await self._get(request, place)
            case (("GET" | "HEAD"), False):
                return await self._list(request, place)
            case "POST", False if not status:
                return await self._create(request, place, identity)
            case "PUT", True:
                return await self._replace(request, place, identity, status)
            case "PATCH", True:
                return await self._patch(request, place, identity, status)
            case "DELETE", True if not status:
                return await self._delete(request, place, identity)
            case "DELETE", False:
                return await self._delete_all(request, place, identity)
        raise ApiError(405, f"{request.method} is not supported here: {request.url.path}")

    def _place(self, group: str, version: str, rest: str) -> tuple[Place, bool]:
        parts = [unquote(part) for part in rest.split("/")]
        namespace = ""
        if (
            len(parts) >= 3
            and parts[0] == "namespaces"
            and not (len(parts) == 3 and parts[2] == "status" and not group)
        ):
            namespace, parts = parts[1], parts[2:]
        kind = self._registry.find(group, version, parts[0])
        status = len(parts) == 3 and parts[2] == "status"
        if kind is None or len(parts) > (3 if status else 2) or "" in parts or (namespace and not kind.namespaced):
            raise ApiError(404, "the server could not find the requested resource", details={})
        name = parts[1] if len(parts) > 1 else ""
        if kind.namespaced and name and not namespace:
            raise ApiError(404, "the server could not find the requested resource: its path names no namespace")
        return Place(kind, version, namespace, name), status

    # --- Reading

    async def _get(self, request: Request, place: Place) -> Response:
        if _flag(request, "watch"):
            return self._watch(request, place, f"metadata.name={place.name}")
        form = _form(request)
        return _json(shaped(place.kind, await self._resources.get(place), form))

    async def _list(self, request: Request, place: Place) -> Response:
        if _flag(request, "watch"):
            return self._watch(request, place)
        query = _query(request, place.kind)
        return _InParts(await list_resources(self._resources.store, place, query, _form(request)), media_type=JSON)

    def _watch(self, request: Request, place: Place, fields: str = "") -> Response:
        query = _query(request, place.kind, fields)
        seconds = request.query_params.get("timeoutSeconds")
        if seconds is not None and not (seconds.isascii() and seconds.isdigit()):
            raise ApiError(400, f'timeoutSeconds must be a number of seconds, not "{seconds}"')
        initial = request.query_params.get("sendInitialEvents")
        how = WatchQuery(
            timeout=float(seconds) if seconds and seconds != "0" else None,
            bookmarks=_flag(request, "allowWatchBookmarks"),
            initial_events=None if initial is None else initial in _TRUE,
        )
        everywhere = Place(place.kind, place.version, place.namespace)
        stream = self._watches.watch(everywhere, query, how, _form(request))
        return _Stream(stream, media_type=JSON, headers={"Cache-Control": "no-cache, private"})

    # --- Writing

    async def _create(self, request: Request, place: Place, identity: Identity) -> Response:
        dry_run = _dry_run(request)
        document = await read_document(request)
        if place.kind.namespaced and not place.namespace:
            raise ApiError(400, "an empty namespace may not be set during creation: post to /namespaces/NAMESPACE/...")
        made = await self._resources.create(place, document, who=identity.name, dry_run=dry_run)
        return _json(shaped(place.kind, made, _form(request)), 201, _warnings(made, document))

    async def _replace(self, request: Request, place: Place, identity: Identity, status: bool) -> Response:
        dry_run = _dry_run(request)
        document = await read_document(request)
        result = await self._resources.change(
            place, lambda current: document, who=identity.name, dry_run=dry_run, status=status
        )
        return _json(shaped(place.kind, result, _form(request)), headers=_warnings(result))

    async def _patch(self, request: Request, place: Place, identity: Identity, status: bool) -> Response:
        dry_run = _dry_run(request)
        edit = _edit(media_type_of(request), place.kind, await read_body(request))
        result = await self._resources.change(place, edit, who=identity.name, dry_run=dry_run, status=status)
        return _json(shaped(place.kind, result, _form(request)), headers=_warnings(result))

    async def _delete(self, request: Request, place: Place, identity: Identity) -> Response:
        dry_run, uid, revision = await _delete_options(request)
        gone = await self._resources.delete(place, who=identity.name, dry_run=dry_run, uid=uid, revision=revision)
        return _json(success(place.kind, place.name, gone["metadata"].get("uid", "")))

    async def _delete_all(self, request: Request, place: Place, identity: Identity) -> Response:
        dry_run, uid, revision = await _delete_options(request)
        if uid or revision:
            raise ApiError(400, "preconditions are of one resource: they cannot be given for a collection")
        if place.kind.namespaced and not place.namespace:
            raise ApiError(405, "a collection is deleted namespace by namespace")
        query = _query(request, place.kind)
        listed = orjson.loads(await list_resources(self._resources.store, place, query, Form()))
        names = [document["metadata"]["name"] for document in listed["items"]]
        for start in range(0, len(names), _AT_ONCE):
            some = (Place(place.kind, place.version, place.namespace, name) for name in names[start : start + _AT_ONCE])
            deletions = (self._resources.delete(one, who=identity.name, dry_run=dry_run) for one in some)
            for outcome in await asyncio.gather(*deletions, return_exceptions=True):
                if isinstance(outcome, BaseException) and not (isinstance(outcome, ApiError) and outcome.code == 404):
                    raise outcome
        return _json(listed)


class _InParts(Response):
    """A large body goes in parts: encrypting all of it at once would hold up everybody else."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for start in range(0, len(self.body), _PART):
            await send({"type": "http.response.body", "body": self.body[start : start + _PART], "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Stream(StreamingResponse):
    """Ends what makes its lines when the client is gone, wherever that is then."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        assert isinstance(self.body_iterator, AsyncGenerator)
        async with aclosing(self.body_iterator):
            await super().__call__(scope, receive, send)


def _edit(media_type: str, kind: Kind, body: bytes) -> Callable[[Document], Document]:
    """What a patch does to a document."""
    accepted = [_JSON_PATCH, _MERGE_PATCH, *([_STRATEGIC_PATCH] if is_built_in(kind) else [])]
    if media_type not in accepted:
        raise unsupported_media_type(*accepted)
    patch = decode_json(body)
    if media_type == _JSON_PATCH:
        return lambda current: as_object(json_patch(current, patch))
    as_object(patch)
    if media_type == _MERGE_PATCH:
        return lambda current: as_object(merge_patch(current, patch))
    return lambda current: as_object(strategic_merge(current, patch, kind.name))


def _json(value: Any, code: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), code, headers, JSON)


def _form(request: Request) -> Form:
    return form_of(request.headers.get("accept", ""), request.query_params.get("includeObject", ""))


def _flag(request: Request, name: str) -> bool:
    return request.query_params.get(name) in _TRUE


def _query(request: Request, kind: Kind, fields: str = "") -> Query:
    told = request.query_params
    limit = told.get("limit") or "0"
    if not (limit.isascii() and limit.isdigit() and len(limit) < 10):
        raise ApiError(400, f'limit must be a number, not "{limit}"')
    selected = ",".join(filter(None, (told.get("fieldSelector", ""), fields)))
    field, name = field_selector(selected, kind.name)
    return Query(
        labels=label_selector(told.get("labelSelector", "")),
        fields=field,
        name=name,
        limit=int(limit),
        continue_=told.get("continue", ""),
        revision=told.get("resourceVersion", ""),
        revision_match=told.get("resourceVersionMatch", ""),
    )


def _dry_run(request: Request) -> bool:
    validation = request.query_params.get("fieldValidation", "")
    if validation not in ("", "Strict", "Warn", "Ignore"):
        raise ApiError(422, f'fieldValidation must be Strict, Warn or Ignore, not "{validation}"')
    return _is_dry(request.query_params.getlist("dryRun"))


def _is_dry(told: list[Any]) -> bool:
    if any(value != "All" for value in told):
        raise ApiError(422, f"dryRun must be All, not {told!r}")
    return bool(told)


async def _delete_options(request: Request) -> tuple[bool, str | None, str | None]:
    dry_run = _dry_run(request)
    body = await read_body(request)
    if not body:
        return dry_run, None, None
    if media_type_of(request) not in ("", JSON):
        raise unsupported_media_type(JSON)
    options = as_object(decode_json(body))
    preconditions = as_object(options.get("preconditions") or {})
    told = options.get("dryRun") or []
    if not isinstance(told, list):
        raise ApiError(400, "dryRun must be an array")
    uid, revision = preconditions.get("uid"), preconditions.get("resourceVersion")
    return dry_run or _is_dry(told), uid, revision


def _warnings(kept: Document, sent: Document | None = None) -> dict[str, str] | None:
    """Kubernetes' `Warning` headers, which kubectl shows: for what is dropped, and for what nothing acts upon."""
    told = [f"{kept['kind']} {kept['metadata']['name']}: {cause}" for cause in warnings(parse(kept))]
    if sent is not None and _says_something(sent.get("status")):
        told.append("status is not taken here: write it to the status subresource")
    quoted = (f'299 - "{text}"' for text in (_quotable(text) for text in told))
    return {"Warning": ", ".join(quoted)} if told else None


def _quotable(text: str) -> str:
    return text.encode("ascii", "replace").decode().replace("\\", "\\\\").replace('"', '\\"')


def _says_something(value: Any) -> bool:
    """Whether there is more than the empty objects that clients send where they have nothing to say."""
    return any(map(_says_something, value.values())) if isinstance(value, dict) else bool(value)
