"""What proxies refuse at one of several control planes, made known to the one that writes statuses.

Each keeps one document in the store while somebody else is there and one of its own proxies refuses something; whoever leads
reads those of all who run, and throws away what the others have left behind. An identity is another one after each start,
so nobody reads what was written by a life before. Words that change all the time are written now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Final

import orjson

from controlplane.galley.presence import Alone
from controlplane.model.election import Presence
from controlplane.model.resource import ResourceKey
from controlplane.model.store import Conflict, Store, Unavailable

_log = logging.getLogger(__name__)

KIND: Final = "_Refusals"
_WHO: Final = "refusals"
_MOST_WORDS: Final = 5  # refusals told of one resource, as in its status
_LONGEST: Final = 500  # characters of each
_MOST_BYTES: Final = 256 << 10  # of the document, far below what a store takes
PACE: Final = 16 << 10  # bytes each second at most, whatever proxies say: a store keeps for a while what was written

Told = Mapping[ResourceKey, Collection[str]]


class SharedRefusals:
    """Takes in with `tell` what is refused here; ``on_change`` gets that, and while this one leads what is refused at the others.

    ``look`` is how long, in seconds, what changes may go unseen; of very much that is refused longer, by `PACE`.
    """

    def __init__(
        self, store: Store, presence: Presence, on_change: Callable[[Told], None], *, look: float = 1.0
    ) -> None:
        self._store = store
        self._presence = presence
        self._on_change = on_change
        self._look = look
        self._own: Told = {}
        self._next_put = 0.0  # by the loop's clock
        self._others: dict[str, Told] = {}
        self._changed = asyncio.Event()
        self._heard = asyncio.Event()
        self._is_shared = not isinstance(presence, Alone)

    def tell(self, refusals: Told) -> None:
        """All that the proxies of this control plane refuse now, by the resources that it was made from."""
        self._own = refusals
        self._changed.set()
        self._merge()

    async def report(self) -> None:
        """Let the others know, until cancelled."""
        there = False
        try:
            while True:
                self._changed.clear()
                try:
                    document = self._document() if self._own and await self._are_others() else b""
                    if document or there:
                        there = True  # also if it is written and the answer is lost
                        there = await self._write(document)
                except Unavailable as error:
                    _log.info("others are not told of refusals: %s", error)
                await asyncio.sleep(self._look)
                if not (self._is_shared and (self._own or there)):
                    await self._changed.wait()
        finally:
            if there:
                with contextlib.suppress(Unavailable, TimeoutError):
                    async with asyncio.timeout(1):
                        await self._write(b"")

    async def follow(self) -> None:
        """Hear of what the others' proxies refuse, until cancelled."""
        gone: set[str] = set()
        try:
            while True:
                try:
                    found, gone = await self._look_at_others(gone)
                except Unavailable as error:
                    _log.info("what is refused at others is not known: %s", error)
                else:
                    # At the first look whatever was told while this one led before may be mended.
                    if found != self._others or not self._heard.is_set():
                        self._others = found
                        self._merge()
                    self._heard.set()
                await asyncio.sleep(self._look)
        finally:
            self._heard.clear()
            self._others = {}

    async def _look_at_others(self, gone: Collection[str]) -> tuple[dict[str, Told], set[str]]:
        """What they refuse, and who has left a document behind: whoever had at the look before, ``gone``, loses it."""
        found: dict[str, Told] = {}
        silent: set[str] = set()
        if not self._is_shared:
            return found, silent
        listing = await self._store.list(KIND)
        alive = set(await self._presence.alive())
        for stored in listing.items:
            name = stored.key.name
            if name == self._presence.identity:
                continue
            if name in alive:
                found[name] = _read(name, stored.document)
            elif name in gone:
                await self._forget(stored.key, stored.revision)
            else:
                silent.add(name)
        return found, silent

    async def heard(self) -> None:
        """Wait until `follow` has heard of everybody once: before, what the others refuse would seem to be mended."""
        await self._heard.wait()

    async def _are_others(self) -> bool:
        return any(one != self._presence.identity for one in await self._presence.alive())

    async def _write(self, document: bytes) -> bool:
        """Whether there is a document now, as far as is known."""
        key = ResourceKey(KIND, "", self._presence.identity)
        stored = await self._store.get(key)
        if (b"" if stored is None else stored.document) == document:
            return bool(document)
        try:
            if document:
                now = asyncio.get_running_loop().time()
                if now < self._next_put:
                    return stored is not None
                self._next_put = now + len(document) / PACE
                await self._store.put(key, document, expected=0 if stored is None else stored.revision, who=_WHO)
            elif stored is not None:
                await self._store.delete(key, expected=stored.revision, who=_WHO)
        except Conflict:  # somebody has thrown it away; at the next look it is written anew
            return True
        return bool(document)

    async def _forget(self, key: ResourceKey, revision: int) -> None:
        try:
            await self._store.delete(key, expected=revision, who=_WHO)
        except Conflict:
            _log.debug("%s is written after all", key)

    def _document(self) -> bytes:
        entries: list[list[object]] = []
        size = 0
        for key, words in sorted(self._own.items()):
            told = [one[:_LONGEST] for one in sorted(words)]
            if len(told) > _MOST_WORDS:
                told[_MOST_WORDS:] = [f"and {len(told) - _MOST_WORDS} more"]
            size += sum(map(len, (*key, *told)))
            if size > _MOST_BYTES:
                _log.warning("so much is refused that other control planes are told of %d resources only", len(entries))
                break
            entries.append([*key, told])
        return orjson.dumps(entries)

    def _merge(self) -> None:
        merged: dict[ResourceKey, list[str]] = {key: list(words) for key, words in self._own.items()}
        for told in self._others.values():
            for key, words in told.items():
                merged.setdefault(key, []).extend(words)
        self._on_change(merged)


def _read(name: str, document: bytes) -> Told:
    try:
        return {ResourceKey(kind, namespace, of): words for kind, namespace, of, words in orjson.loads(document)}
    except (TypeError, ValueError):
        _log.warning("what is refused at %s is written in another way than this control plane's", name)
        return {}
