"""Resources from files, as the API shows them: beside those that were written there, in one order of revisions.

What is in effect from files is copied into the store under kinds of our own (`_Files.VirtualService`), so that lists, watches
and their resourceVersions need no second clock. `ShownStore` is the store as the API reads it.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import uuid
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

import orjson

from controlplane.model.resource import Resource, ResourceKey
from controlplane.model.store import Conflict, Event, Listing, Store, Stored, Unavailable

_log = logging.getLogger(__name__)

_PREFIX: Final = "_Files."
_LOOK_AGAIN: Final = 30.0  # seconds; another control plane may have the same file, and let it go
_ORIGIN: Final = "mizzen.io/origin"  # the annotation that tells the file and the line
_NAMES: Final = uuid.UUID("6f1d6a3e-3c52-4c57-9d4b-1b6f0f0f5a11")


def _mirrored(key: ResourceKey) -> ResourceKey:
    return ResourceKey(_PREFIX + key.kind, key.namespace, key.name)


def _shown(stored: Stored) -> Stored:
    key = stored.key
    if not key.kind.startswith(_PREFIX):
        return stored
    body = orjson.dumps(orjson.loads(stored.document)["document"])
    return Stored(ResourceKey(key.kind.removeprefix(_PREFIX), key.namespace, key.name), body, stored.revision)


class FilesMirror:
    """Keeps the copies as the files are. ``owner`` tells the control planes on one store apart: each has files of its own."""

    def __init__(self, store: Store, kinds: Iterable[str], owner: str) -> None:
        self._store = store
        self._kinds = tuple(kinds)
        self._owner = owner
        self._wanted: dict[ResourceKey, Resource] = {}
        self._something = asyncio.Event()
        self._dirty: set[ResourceKey] = set()

    def changed(self, resources: Mapping[ResourceKey, Resource | None]) -> None:
        """What the catalogue says of any resources; those that are not from files are none of the mirror's."""
        for key, resource in resources.items():
            if resource is not None and resource.origin.source != "api":
                self._wanted[key] = resource
            elif self._wanted.pop(key, None) is None:
                continue
            self._dirty.add(key)
            self._something.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            try:
                while True:
                    await self._begin()
                    await self._show_changes(_LOOK_AGAIN)
            except Unavailable as error:
                _log.warning("files are not shown in the API: %s", error)
                await asyncio.sleep(1)

    async def _begin(self) -> None:
        """Copies of what is not in our files any more go, and all that is in them is looked at."""
        for kind in self._kinds:
            for stored in (await self._store.list(_PREFIX + kind)).items:
                key = ResourceKey(kind, stored.key.namespace, stored.key.name)
                if key not in self._wanted and orjson.loads(stored.document).get("owner") == self._owner:
                    self._dirty.add(key)
        self._dirty.update(self._wanted)

    async def _show_changes(self, seconds: float) -> None:
        """What is to be looked at now, and what changes within this time."""
        now = asyncio.get_running_loop().time
        until = now() + seconds
        while (left := until - now()) > 0:
            self._something.clear()
            dirty, self._dirty = self._dirty, set()
            try:
                await asyncio.gather(*(self._show(key) for key in dirty))
            except BaseException:
                self._dirty |= dirty
                raise
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._something.wait()

    async def _show(self, key: ResourceKey) -> None:
        """A resource that cannot be shown leaves all others as they are."""
        try:
            await self._write(key)
        except Unavailable:
            raise
        except Exception:
            _log.exception("%s is in effect, but cannot be shown in the API", key)

    async def _write(self, key: ResourceKey) -> None:
        for _ in range(5):
            resource = self._wanted.get(key)
            stored = await self._store.get(_mirrored(key))
            before = orjson.loads(stored.document) if stored is not None else None
            try:
                if resource is None:
                    if stored is not None and before is not None and before["owner"] == self._owner:
                        await self._store.delete(_mirrored(key), expected=stored.revision, who="files")
                    return
                after = {"owner": self._owner, "document": _document(resource, before["document"] if before else None)}
                if after != before:
                    revision = stored.revision if stored is not None else 0
                    await self._store.put(_mirrored(key), orjson.dumps(after), expected=revision, who="files")
                return
            except Conflict:
                continue
        self._dirty.add(key)
        self._something.set()


def _document(resource: Resource, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """The document as clients see it, with what the API adds to those that it takes."""
    metadata = {name: value for name, value in resource.document["metadata"].items() if name != "resourceVersion"}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), _ORIGIN: str(resource.origin)}
    metadata["uid"] = str(uuid.uuid5(_NAMES, str(resource.key)))
    had = before["metadata"] if before is not None else {}
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata["creationTimestamp"] = had.get("creationTimestamp", now)
    made = {**resource.document, "metadata": metadata}
    same = before is not None and _content(before) == _content(made)
    metadata["generation"] = had.get("generation", 0) + (0 if same else 1)
    return made


def _content(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in ("metadata", "status")}


class ShownStore:
    """A `Store` that shows resources from files, too; one of the same key that was written by the API is hidden.

    Writes go to the store as they are: who may not write what is from files is for the API to say.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def revision(self) -> int:
        return await self._store.revision()

    async def get(self, key: ResourceKey) -> Stored | None:
        stored = await self._store.get(_mirrored(key))
        return _shown(stored) if stored is not None else await self._store.get(key)

    async def list(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        limit: int = 0,
        after: ResourceKey | None = None,
        revision: int | None = None,
    ) -> Listing:
        written = await self._store.list(kind, namespace, limit=limit, after=after, revision=revision)
        behind = None if after is None else _mirrored(after)
        copies = await self._store.list(
            _PREFIX + kind, namespace, limit=limit, after=behind, revision=revision or written.revision
        )
        if not copies.items:
            return written
        merged = {stored.key: stored for stored in written.items}
        merged.update((stored.key, stored) for stored in map(_shown, copies.items))
        items = sorted(merged.values(), key=lambda stored: stored.key)
        more = written.more or copies.more
        if limit and len(items) > limit:
            items, more = items[:limit], True
        return Listing(written.revision, items, more)

    async def put(self, key: ResourceKey, document: bytes, *, expected: int | None, who: str) -> Stored:
        return await self._store.put(key, document, expected=expected, who=who)

    async def delete(self, key: ResourceKey, *, expected: int | None, who: str) -> Stored | None:
        return await self._store.delete(key, expected=expected, who=who)

    async def watch(self, since: int, kinds: Collection[str] | None = None) -> AsyncGenerator[Event, None]:
        wanted = None if kinds is None else [*kinds, *(_PREFIX + kind for kind in kinds)]
        async with aclosing(self._store.watch(since, wanted)) as events:
            async for event in events:
                yield replace(event, stored=_shown(event.stored))

    async def history(self, key: ResourceKey) -> Sequence[Event]:
        found = [*await self._store.history(key), *await self._store.history(_mirrored(key))]
        return sorted(
            (replace(event, stored=_shown(event.stored)) for event in found), key=lambda event: event.stored.revision
        )

    async def compact(self, revision: int) -> None:
        await self._store.compact(revision)

    async def close(self) -> None:
        await self._store.close()
