"""A store as a source of documents: a list, then a watch, and a list again whenever the watch has fallen too far behind."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from typing import Any, Final

import orjson

from controlplane.galley.source import Document, Update
from controlplane.model.problem import Problem
from controlplane.model.resource import Origin, ResourceKey
from controlplane.model.store import Action, Compacted, Event, Store, Stored, Unavailable

_log = logging.getLogger(__name__)

_PAGE: Final = 500
_BURST: Final = 1024
"""So many changes at most are one update: what waits for a catalogue that is busy comes to it together."""


class StoreSource:
    """The documents of some kinds in a store."""

    def __init__(self, store: Store, kinds: Collection[str], *, name: str = "api", retry: float = 5.0) -> None:
        """``retry`` is the longest time in seconds between two attempts to reach a store that is out of reach."""
        self.name = name
        self._store = store
        self._kinds = tuple(kinds)
        self._origin = Origin(name)
        self._retry = retry
        self._broken: dict[ResourceKey, Problem] = {}

    async def updates(self) -> AsyncGenerator[Update, None]:
        position: int | None = None
        wait = 0.05
        while True:
            try:
                if position is None:
                    position, update = await self._list()
                    yield update
                wait = 0.05
                async with aclosing(self._bursts(position)) as bursts:
                    async for burst in bursts:
                        position = burst[-1].stored.revision
                        yield self._update(burst)
                return
            except Compacted as gone:
                _log.info("%s: %s; listing again", self.name, gone)
                position = None
            except Unavailable as error:
                _log.warning("%s: %s; trying again", self.name, error)
                yield Update(problems=[Problem(self._origin, str(error)), *self._broken.values()])
                await asyncio.sleep(wait * random.uniform(0.8, 1.2))
                wait = min(wait * 2, self._retry)

    async def _list(self) -> tuple[int, Update]:
        """Everything, at one revision."""
        self._broken.clear()
        revision: int | None = None
        documents: dict[ResourceKey, Document | None] = {}
        for kind in self._kinds:
            after: ResourceKey | None = None
            more = True
            while more:
                page = await self._store.list(kind, limit=_PAGE, after=after, revision=revision)
                revision, more = page.revision, page.more
                for stored in page.items:
                    after = stored.key
                    document = self._read(stored)
                    if document is not None:
                        documents[stored.key] = document
        if revision is None:
            revision = await self._store.revision()
        return revision, Update(documents, True, list(self._broken.values()))

    async def _bursts(self, since: int) -> AsyncGenerator[list[Event], None]:
        """The watch, with all changes that have come meanwhile at once."""
        events: asyncio.Queue[Event | Exception | None] = asyncio.Queue(_BURST)

        async def pump() -> None:
            try:
                async with aclosing(self._store.watch(since, self._kinds)) as watch:
                    async for event in watch:
                        await events.put(event)
            except Exception as error:  # it is raised where the changes are read
                await events.put(error)
            else:
                await events.put(None)

        pumping = asyncio.create_task(pump())
        try:
            while True:
                burst = [await events.get()]
                while not events.empty():
                    burst.append(events.get_nowait())
                told = [event for event in burst if isinstance(event, Event)]
                if told:
                    yield told
                last = burst[-1]
                if isinstance(last, Exception):
                    raise last
                if last is None:
                    return
        finally:
            pumping.cancel()

    def _update(self, burst: list[Event]) -> Update:
        documents: dict[ResourceKey, Document | None] = {}
        for event in burst:
            key = event.stored.key
            if event.action is Action.DELETED:
                self._broken.pop(key, None)
                documents[key] = None
            else:
                document = self._read(event.stored)
                if document is not None:
                    documents[key] = document
        return Update(documents, problems=list(self._broken.values()))

    def _read(self, stored: Stored) -> Document | None:
        try:
            body: dict[str, Any] = orjson.loads(stored.document)
            metadata = {**body["metadata"], "resourceVersion": str(stored.revision)}
        except (ValueError, TypeError, KeyError) as error:
            self._broken[stored.key] = Problem(
                self._origin,
                f"what the store has is not a document with metadata ({error!r}): write it again; until then its last good "
                "version holds",
                stored.key,
            )
            return None
        self._broken.pop(stored.key, None)
        return Document(stored.key, {**body, "metadata": metadata}, self._origin)
