"""The store for several control planes side by side: etcd 3.4 or later, any number of members.

A revision is etcd's own, which other users of the same etcd advance as well. A write is one transaction that compares the
revision of its key; if its answer is lost it is repeated, and knows by its mark whether it has been done.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Sequence
from contextlib import aclosing
from typing import Any, Final

from controlplane.galley.etcd_client import EtcdClient, OutOfRange, Refused, raw, text
from controlplane.galley.etcd_records import Layout, Written, stored
from controlplane.galley.etcd_url import EtcdUrl
from controlplane.galley.keys import check_key
from controlplane.model.resource import ResourceKey
from controlplane.model.store import Action, Compacted, Conflict, Event, Listing, Stored, Unavailable

_log = logging.getLogger(__name__)

_PAGE: Final = 500
_LONGEST_PAUSE: Final = 2.0
"""Seconds between two attempts to take up a watch that was broken off."""


class EtcdStore:
    """A `Store` in etcd. Made by `await EtcdStore.open(url)`."""

    def __init__(self, client: EtcdClient, clock: Callable[[], float]) -> None:
        self.client = client
        self.layout = Layout(client.url.prefix.encode())
        self._clock = clock
        self._compacted = 0
        self._compacting: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    @classmethod
    async def open(cls, url: EtcdUrl | str, *, clock: Callable[[], float] = time.time) -> EtcdStore:
        """Raises ValueError for a URL that is wrong, Unavailable if no endpoint answers."""
        store = cls(EtcdClient(url if isinstance(url, EtcdUrl) else EtcdUrl.parse(url)), clock)
        try:
            store._compacted = await store._find_compacted()
        except BaseException:
            await store.close()
            raise
        return store

    def __repr__(self) -> str:
        return f"<EtcdStore {self.client.url}>"

    # The contract.

    async def revision(self) -> int:
        answer = await self._call("kv/range", {"key": text(self.layout.prefix), "count_only": True})
        return int(answer["header"]["revision"])

    async def get(self, key: ResourceKey) -> Stored | None:
        check_key(key)
        pairs = (await self._call("kv/range", {"key": text(self.layout.live(key))})).get("kvs")
        return stored(key, pairs[0]) if pairs else None

    async def list(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        limit: int = 0,
        after: ResourceKey | None = None,
        revision: int | None = None,
    ) -> Listing:
        if revision is not None and revision < 1:
            await self._check(revision)
            return Listing(revision, [])
        start, end = self.layout.all_live(kind, namespace)
        if after is not None:
            start = self.layout.live(after) + b"\0"
        items: list[Stored] = []
        more = True
        while more and (not limit or len(items) < limit):
            asked = {
                "key": text(start),
                "range_end": text(end),
                "limit": min(_PAGE, limit - len(items)) if limit else _PAGE,
                "revision": str(revision or 0),
            }
            try:
                answer = await self._call("kv/range", asked)
            except OutOfRange:
                raise await self._gone(revision or 0) from None
            revision = revision or int(answer["header"]["revision"])
            more = bool(answer.get("more"))
            for pair in answer.get("kvs", ()):
                place = self.layout.read(raw(pair["key"]))
                start = raw(pair["key"]) + b"\0"
                if place is not None:
                    items.append(stored(place[1], pair))
        return Listing(revision or 0, items, more)

    async def put(self, key: ResourceKey, document: bytes, *, expected: int | None, who: str) -> Stored:
        check_key(key)
        written = Written.new(document, who, self._clock())
        put = {"request_put": {"key": text(self.layout.live(key)), "value": text(written.encode())}}
        revision, found = await self._swap(key, expected, [put], self.layout.live(key), written)
        if not revision:
            raise Conflict(key, expected or 0, found)
        return Stored(key, document, revision)

    async def delete(self, key: ResourceKey, *, expected: int | None, who: str) -> Stored | None:
        check_key(key)
        while True:
            there = await self.get(key)
            if there is None:
                return None
            if expected is not None and there.revision != expected:
                raise Conflict(key, expected, there.revision)
            written = Written.new(there.document, who, self._clock())
            changes = [
                {"request_delete_range": {"key": text(self.layout.live(key))}},
                {"request_put": {"key": text(self.layout.ended(key)), "value": text(written.encode())}},
            ]
            revision, _ = await self._swap(key, there.revision, changes, self.layout.ended(key), written)
            if revision:
                return Stored(key, there.document, revision)

    async def watch(self, since: int, kinds: Collection[str] | None = None) -> AsyncGenerator[Event, None]:
        position = since
        pause = 0.05
        while not self._closing.is_set():
            try:
                await self._check(position)
                async with aclosing(self._batches(position + 1)) as batches:
                    async for upto, events in batches:
                        pause = 0.05
                        position = max(position, upto)
                        for event in events:
                            if kinds is None or event.stored.key.kind in kinds:
                                yield event
            except (Unavailable, Refused) as error:
                if self._closing.is_set():
                    return
                _log.warning("%s; taking up the watch again at revision %d", error, position)
                await self._sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def history(self, key: ResourceKey) -> Sequence[Event]:
        check_key(key)
        events: list[Event] = []
        at = 0
        while True:
            try:
                answer = await self._call("kv/txn", {"success": [
                    {"request_range": {"key": text(each), "revision": str(at)}}
                    for each in (self.layout.live(key), self.layout.ended(key))
                ]})  # fmt: skip
            except OutOfRange:  # nothing from before is remembered
                break
            pairs = [pair for each in answer["responses"] for pair in each["response_range"].get("kvs", ())]
            if not pairs:
                break
            last = max(pairs, key=lambda pair: int(pair["mod_revision"]))
            place = self.layout.read(raw(last["key"]))
            assert place is not None  # it is of one of the two keys that were asked for
            events.append(_event(place[0], key, last))
            at = int(last["mod_revision"]) - 1
            if not at:
                break
        return events[::-1]

    async def compact(self, revision: int) -> None:
        at = min(revision, await self.revision()) - 1
        if at > 0:
            with contextlib.suppress(OutOfRange):  # somebody else has, and further
                await self._call("kv/compaction", {"revision": str(at)})
        self._compacted = max(self._compacted, at)
        await self._prune(at)

    async def close(self) -> None:
        if self._closing.is_set():
            return
        self._closing.set()
        if self._compacting is not None:
            self._compacting.cancel()
            await asyncio.wait([self._compacting])
        await self.client.close()

    # Writing.

    async def _call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self.client.call(path, body)
        except Refused as refused:
            raise Unavailable(f"the store {self.client.url} refuses: {refused}") from None

    async def _swap(
        self, key: ResourceKey, expected: int | None, changes: Sequence[dict[str, Any]], place: bytes, written: Written
    ) -> tuple[int, int]:
        """Do ``changes`` if the document is at ``expected``, or in any case: the revision at which it was done, or 0; and
        the one that was found.

        ``place`` is the key at which ``written`` is to be seen if it has been done.
        """
        live = text(self.layout.live(key))
        compare = []
        if expected is not None:
            compare.append({"key": live, "target": "MOD", "result": "EQUAL", "mod_revision": str(expected)})
        look = [{"request_range": {"key": live}}, {"request_range": {"key": text(place)}}]
        try:
            answer, doubtful = await self.client.call_once(
                "kv/txn", {"compare": compare, "success": [*changes], "failure": look}
            )
        except Refused as refused:
            raise Unavailable(f"the store {self.client.url} refuses to write {key}: {refused}") from None
        revision = int(answer["header"]["revision"])
        self._compact_when_due(revision)
        if answer.get("succeeded"):
            return revision, 0
        there, ours = ([*each["response_range"].get("kvs", ()), None][0] for each in answer["responses"])
        if ours is not None and Written.decode(raw(ours.get("value", ""))).mark == written.mark:
            return int(ours["mod_revision"]), 0
        if doubtful:
            raise Unavailable(
                f"the store {self.client.url} gave no answer: whether {key} was written is not known; look"
            )
        return 0, int(there["mod_revision"]) if there else 0

    # Watching.

    async def _batches(self, start: int) -> AsyncGenerator[tuple[int, Sequence[Event]], None]:
        """Changes from a revision on, all of one revision together; and the revision up to which they are complete."""
        first, end = self.layout.everything()
        create = {"key": text(first), "range_end": text(end), "start_revision": str(start), "prev_kv": True}
        stream = self.client.stream("watch", {"create_request": create})
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            async with aclosing(stream):
                while True:
                    coming = asyncio.ensure_future(anext(stream))
                    try:
                        await asyncio.wait([coming, closing], return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        if not coming.done():  # the stream cannot be closed while it is waited for
                            coming.cancel()
                            await asyncio.wait([coming])
                    if closing.done():
                        return
                    answer = await coming
                    if answer.get("canceled"):
                        if oldest := int(answer.get("compact_revision", 0)):
                            raise Compacted(start - 1, oldest + 1)
                        raise Unavailable(f"the watch was cancelled: {answer.get('cancel_reason', 'no reason given')}")
                    pairs = answer.get("events", ())
                    if pairs:
                        yield int(pairs[-1]["kv"]["mod_revision"]), tuple(self._told(pairs))
        finally:
            closing.cancel()

    def _told(self, pairs: Sequence[dict[str, Any]]) -> Iterator[Event]:
        """What etcd's events amount to. A deletion's own record is in the same revision, and so in the same answer."""
        ended: dict[tuple[ResourceKey, int], Written] = {}
        places = [(self.layout.read(raw(pair["kv"]["key"])), pair) for pair in pairs]
        for place, pair in places:
            if place and not place[0] and pair.get("type") != "DELETE":
                revision = int(pair["kv"]["mod_revision"])
                ended[place[1], revision] = Written.decode(raw(pair["kv"].get("value", "")))
        for place, pair in places:
            if not place or not place[0]:
                continue
            key, revision = place[1], int(pair["kv"]["mod_revision"])
            if pair.get("type") != "DELETE":
                yield _event(True, key, pair["kv"])
                continue
            record = ended.get((key, revision))
            if record is None:  # deleted by hand, with etcd's own tools
                record = Written(Written.decode(raw(pair.get("prev_kv", {}).get("value", ""))).document, "", 0, "")
            yield Event(Action.DELETED, Stored(key, record.document, revision), record.who, record.when)

    async def _check(self, revision: int) -> None:
        """Raises Compacted if what came after a revision is not known. A watch of a revision that etcd has not come to
        would wait for it, and miss what is new in an etcd that was restored from a backup.
        """
        if revision < 1:
            if await self._find_compacted():
                raise await self._gone(revision)
            return
        try:
            await self._call(
                "kv/range", {"key": text(self.layout.prefix), "count_only": True, "revision": str(revision)}
            )
        except OutOfRange:
            raise await self._gone(revision) from None

    async def _gone(self, revision: int) -> Compacted:
        self._compacted = await self._find_compacted()
        return Compacted(revision, self._compacted + 1)

    async def _find_compacted(self) -> int:
        """etcd says to which revision it is compacted only to a watch of an older one."""
        with contextlib.suppress(OutOfRange):
            await self._call("kv/range", {"key": text(self.layout.prefix), "count_only": True, "revision": "1"})
            return 0
        create = {"key": text(self.layout.prefix), "start_revision": "1"}
        async with aclosing(self.client.stream("watch", {"create_request": create})) as answers:
            async for answer in answers:
                if answer.get("canceled"):
                    return int(answer["compact_revision"])
        raise AssertionError("a stream ends by an exception")

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()

    # Forgetting.

    def _compact_when_due(self, revision: int) -> None:
        keep = self.client.url.keep
        if keep and revision - self._compacted > keep + keep // 8 and self._compacting is None:
            self._compacting = asyncio.create_task(self._compact_by_itself(revision - keep + 1))

    async def _compact_by_itself(self, revision: int) -> None:
        try:
            await self.compact(revision)
        except Unavailable as error:
            _log.warning("%s; not compacted", error)
        finally:
            self._compacting = None

    async def _prune(self, upto: int) -> None:
        """Remove the records of deletions that nobody can ask for any more."""
        start, end = self.layout.all_ended()
        asked = {
            "key": text(start),
            "range_end": text(end),
            "max_mod_revision": str(upto),
            "keys_only": True,
            "limit": 100,
        }
        while upto > 0:
            pairs = (await self._call("kv/range", asked)).get("kvs", ())
            for pair in pairs:
                same = {"key": pair["key"], "target": "MOD", "result": "EQUAL", "mod_revision": pair["mod_revision"]}
                await self._call(
                    "kv/txn", {"compare": [same], "success": [{"request_delete_range": {"key": pair["key"]}}]}
                )
            if not pairs:
                return


def _event(live: bool, key: ResourceKey, pair: dict[str, Any]) -> Event:
    record = Written.decode(raw(pair.get("value", "")))
    revision = int(pair["mod_revision"])
    if not live:
        action = Action.DELETED
    else:
        action = Action.ADDED if int(pair["create_revision"]) == revision else Action.MODIFIED
    return Event(action, Stored(key, record.document, revision), record.who, record.when)
