"""Watches: streams of changes from a version on, for as long as the client wants, with bookmarks.

Source: Kubernetes' API concepts, "Efficient detection of changes", "Watch bookmarks", "Streaming lists".
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import orjson

from controlplane.api.listing import Query, list_at, parse_revision
from controlplane.api.resources import Document, Place, told
from controlplane.api.status import ApiError, expired
from controlplane.api.tables import Form, Shape, shaped
from controlplane.model.resource import ResourceKey
from controlplane.model.store import Action, Compacted, Event, Store, Stored, Unavailable

_REMEMBERED = 1024
_SHORTEST, _LONGEST = 1800.0, 3600.0
_SLICE = 250


@dataclass(frozen=True, slots=True)
class WatchQuery:
    """How a watch goes: for how long (seconds; None for the server to say), with bookmarks, with a list to begin with."""

    timeout: float | None = None
    bookmarks: bool = False
    initial_events: bool | None = None


class Watches:
    """Gives streams of changes; a change is encoded once for all who watch it. ``close`` ends them all."""

    def __init__(self, store: Store, *, bookmark_every: float) -> None:
        self._store = store
        self._bookmark_every = bookmark_every
        self._encoded: OrderedDict[tuple[int, str, str], tuple[Document, bytes]] = OrderedDict()
        self._closed = asyncio.Event()
        self.open = 0

    def close(self) -> None:
        """End all streams, as clients expect it: they watch again from where they were."""
        self._closed.set()

    def watch(self, place: Place, query: Query, how: WatchQuery, form: Form) -> AsyncGenerator[bytes, None]:
        """A stream of lines. What is wrong with the request is raised now (ApiError 400, 422), what comes later is told in
        the stream.
        """
        if how.initial_events is not None and query.revision_match != "NotOlderThan":
            raise ApiError(422, "sendInitialEvents needs resourceVersionMatch=NotOlderThan", reason="Invalid")
        if how.initial_events and not how.bookmarks:
            raise ApiError(422, "sendInitialEvents needs allowWatchBookmarks=true", reason="Invalid")
        if how.initial_events is None and query.revision_match:
            raise ApiError(
                422,
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                reason="Invalid",
            )
        since = parse_revision(query.revision) if query.revision else 0
        lister = how.initial_events if how.initial_events is not None else since == 0
        return self._stream(place, query, how, form, since, lister)

    async def _stream(
        self, place: Place, query: Query, how: WatchQuery, form: Form, since: int, lister: bool
    ) -> AsyncGenerator[bytes, None]:
        seconds = random.uniform(_SHORTEST, _LONGEST) if how.timeout is None else how.timeout
        deadline = time.monotonic() + seconds
        self.open += 1
        try:
            headed = True
            admitted: set[ResourceKey] = set()
            if lister:
                listing = await self._store.list(place.kind.name, place.namespace or None)
                for count, stored in enumerate(listing.items):
                    document = told(stored, place)
                    if query.admits(document):
                        admitted.add(stored.key)
                        yield _line("ADDED", place, document, form, headed)
                        headed = False
                    if count % _SLICE == 0:
                        await asyncio.sleep(0)
                since = listing.revision
                if how.initial_events:
                    yield self._bookmark(place, since, form, initial=True)
            elif query.labels is not None or query.fields is not None:
                # What stops to match is told as deleted, so what matched before must be known.
                admitted.update(
                    stored.key
                    for stored in (await list_at(self._store, place, since or await self._store.revision())).items
                    if query.admits(told(stored, place))
                )
            async with aclosing(self._changes(place, query, how, form, since, admitted, deadline, headed)) as changes:
                async for line in changes:
                    yield line
        except Compacted as error:
            yield _error(expired(f"too old resource version: {error.wanted} ({error.oldest})"))
        except ApiError as refused:
            yield _error(refused)
        except Unavailable as unavailable:
            yield _error(ApiError(503, str(unavailable)))
        finally:
            self.open -= 1

    async def _changes(
        self,
        place: Place,
        query: Query,
        how: WatchQuery,
        form: Form,
        since: int,
        admitted: set[ResourceKey],
        deadline: float,
        headed: bool,
    ) -> AsyncGenerator[bytes, None]:
        events = self._store.watch(since, (place.kind.name,))
        closed = asyncio.ensure_future(self._closed.wait())
        upcoming: asyncio.Future[Event] | None = None
        next_bookmark = time.monotonic() + self._bookmark_every
        try:
            while True:
                if upcoming is None:
                    upcoming = asyncio.ensure_future(anext(events))
                now = time.monotonic()
                until = min(deadline, next_bookmark) if how.bookmarks else deadline
                if not upcoming.done():
                    either: tuple[asyncio.Future[Any], ...] = (upcoming, closed)
                    await asyncio.wait(either, timeout=max(0.0, until - now), return_when=asyncio.FIRST_COMPLETED)
                if closed.done() or time.monotonic() >= deadline:
                    return
                if upcoming.done():
                    event = upcoming.result()
                    upcoming = None
                    since = event.stored.revision
                    line = self._told(event, place, query, form, admitted, headed)
                    if line is not None:
                        headed = False
                        yield line
                elif how.bookmarks and time.monotonic() >= next_bookmark:
                    next_bookmark = time.monotonic() + self._bookmark_every
                    yield self._bookmark(place, since, form)
        except StopAsyncIteration:
            return  # the store was closed
        finally:
            closed.cancel()
            if upcoming is not None:
                upcoming.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await upcoming
            await events.aclose()

    def _told(
        self, event: Event, place: Place, query: Query, form: Form, admitted: set[ResourceKey], headed: bool
    ) -> bytes | None:
        key = event.stored.key
        if place.namespace and key.namespace != place.namespace:
            return None
        document, encoded = self._shared(event.stored, place)
        action = event.action.value
        if query.labels is not None or query.fields is not None:
            before, after = key in admitted, event.action is not Action.DELETED and query.admits(document)
            if after:
                admitted.add(key)
                action = "MODIFIED" if before else "ADDED"
            elif before:
                admitted.discard(key)
                action = "DELETED"
            else:
                return None
        if form.shape is Shape.OBJECT:
            return b'{"type":"%b","object":%b}\n' % (action.encode(), encoded)
        return _line(action, place, document, form, headed)

    def _shared(self, stored: Stored, place: Place) -> tuple[Document, bytes]:
        identity = (stored.revision, str(stored.key), place.version)
        found = self._encoded.get(identity)
        if found is None:
            document = told(stored, place)
            found = self._encoded[identity] = (document, orjson.dumps(document))
            if len(self._encoded) > _REMEMBERED:
                self._encoded.popitem(last=False)
        return found

    def _bookmark(self, place: Place, revision: int, form: Form, initial: bool = False) -> bytes:
        metadata: Document = {"resourceVersion": str(revision), "creationTimestamp": None}
        if initial:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        bookmark: Document
        match form.shape:
            case Shape.OBJECT:
                bookmark = {"kind": place.kind.name, "apiVersion": place.api_version, "metadata": metadata}
            case Shape.METADATA:
                bookmark = {"kind": "PartialObjectMetadata", "apiVersion": form.api_version, "metadata": metadata}
            case Shape.TABLE:
                partial = {"kind": "PartialObjectMetadata", "apiVersion": form.api_version, "metadata": metadata}
                bookmark = {
                    "kind": "Table",
                    "apiVersion": form.api_version,
                    "metadata": {"resourceVersion": str(revision)},
                    "columnDefinitions": [],
                    "rows": [{"cells": [], "object": partial}],
                }
        return orjson.dumps({"type": "BOOKMARK", "object": bookmark}) + b"\n"


def _line(action: str, place: Place, document: Document, form: Form, headed: bool) -> bytes:
    return orjson.dumps({"type": action, "object": shaped(place.kind, document, form, headed=headed)}) + b"\n"


def _error(error: ApiError) -> bytes:
    return orjson.dumps({"type": "ERROR", "object": error.status()}) + b"\n"
