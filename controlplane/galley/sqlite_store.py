"""The store that is embedded: one SQLite file, for one control plane. https://www.sqlite.org/wal.html

Writes go to one thread. It takes all that wait, does them in one transaction, and acknowledges them together after the
fsync that they share: the event loop never waits for the disk, and a thousand puts at once cost a few fsyncs. Reads have
a thread and a snapshot of their own, and never wait for a writer.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from controlplane.galley.keys import check_key
from controlplane.galley.sqlite_ledger import Ledger, Progress, Write
from controlplane.model.resource import ResourceKey
from controlplane.model.store import Conflict, Event, Listing, Stored, Unavailable

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_BATCH: Final = 512
"""So many writes share one transaction at most: it bounds what the first of them waits for."""

_PAGE: Final = 256
"""Changes that a watch which is far behind reads at once."""

_RECENT: Final = 1024
"""Changes kept in memory, so that watches which are up to date (all, nearly always) read no file."""

_SWEEP: Final = 500
"""Changes that are swept between two batches of writes."""


class SqliteStore:
    """A `Store` in a file. Made by `await SqliteStore.open(path)`, for the event loop that runs then."""

    def __init__(self, path: Path, lock: int, keep: int, clock: Callable[[], float]) -> None:
        self.path = path
        self._lock = lock
        self._keep = keep
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._writer = Ledger(path)
        self._reader = Ledger(path, read_only=True)
        self._reading = ThreadPoolExecutor(1, "store-reader")
        self._work: queue.SimpleQueue[tuple[Write | int, asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._progress = self._writer.progress()
        self._recent: list[Event] = []
        self._news = asyncio.Event()
        self._closed = False
        self._thread = threading.Thread(
            target=self._write_all, args=(self._progress,), name="store-writer", daemon=True
        )
        self._thread.start()

    @classmethod
    async def open(cls, path: Path, *, keep: int = 100_000, clock: Callable[[], float] = time.time) -> SqliteStore:
        """Open or create the store in a file. ``keep`` bounds how many changes are remembered beyond what holds now.

        Raises Unavailable if another process has it open, or the file is not a store.
        """
        lock = await asyncio.to_thread(_lock, path)
        try:
            return cls(path, lock, keep, clock)
        except BaseException:
            os.close(lock)
            raise

    def __repr__(self) -> str:
        return f"<SqliteStore {self.path} at {self._progress.revision}>"

    # The contract.

    async def revision(self) -> int:
        return self._progress.revision

    async def get(self, key: ResourceKey) -> Stored | None:
        return await self._read(self._reader.get, key)

    async def list(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        limit: int = 0,
        after: ResourceKey | None = None,
        revision: int | None = None,
    ) -> Listing:
        return await self._read(self._reader.list, kind, namespace, limit, after, revision)

    async def put(self, key: ResourceKey, document: bytes, *, expected: int | None, who: str) -> Stored:
        check_key(key)
        event = await self._change(Write(key, document, expected, who))
        assert event is not None  # of a put there is always one
        return event.stored

    async def delete(self, key: ResourceKey, *, expected: int | None, who: str) -> Stored | None:
        check_key(key)
        event = await self._change(Write(key, None, expected, who))
        return event.stored if event else None

    async def watch(self, since: int, kinds: Collection[str] | None = None) -> AsyncGenerator[Event, None]:
        position = since
        checked = False
        while not self._closed:
            news = self._news
            first = self._recent[0].stored.revision if self._recent else self._progress.revision + 1
            if checked and position + 1 >= first:
                behind = self._recent[position + 1 - first :]
                if not behind:
                    await news.wait()
                    continue
                position = behind[-1].stored.revision
                for event in behind:
                    if kinds is None or event.stored.key.kind in kinds:
                        yield event
            else:
                page = await self._read(self._reader.changes, position, kinds, _PAGE)
                checked = True
                position = page.upto
                for event in page.events:
                    yield event

    async def history(self, key: ResourceKey) -> Sequence[Event]:
        return await self._read(self._reader.history, key)

    async def compact(self, revision: int) -> None:
        await self._submit(revision)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._work.put(None)
        await asyncio.to_thread(self._thread.join)
        self._news.set()
        await asyncio.to_thread(self._reading.shutdown)
        self._reader.close()
        self._writer.close()
        os.close(self._lock)

    # In the event loop.

    async def _read(self, function: Callable[..., _T], *arguments: Any) -> _T:
        if self._closed:
            raise Unavailable(f"the store {self.path} is closed")
        try:
            return await self._loop.run_in_executor(self._reading, partial(function, *arguments))
        except sqlite3.Error as error:
            raise Unavailable(f"the store cannot read {self.path}: {error}") from error

    async def _submit(self, work: Write | int) -> Any:
        if self._closed:
            raise Unavailable(f"the store {self.path} is closed")
        future: asyncio.Future[Any] = self._loop.create_future()
        self._work.put((work, future))
        return await future

    async def _change(self, write: Write) -> Event | None:
        outcome: Event | Conflict | None = await self._submit(write)
        if isinstance(outcome, Conflict):
            raise outcome
        return outcome

    def _done(
        self, outcomes: Sequence[tuple[asyncio.Future[Any], Any]], events: Sequence[Event], progress: Progress
    ) -> None:
        """What the writer has made durable: watches hear of it, and whoever waits for it goes on."""
        self._progress = progress
        self._recent += events
        if len(self._recent) > 2 * _RECENT:
            del self._recent[:-_RECENT]
        for future, outcome in outcomes:
            if future.done():
                continue  # nobody waits any more
            if isinstance(outcome, Unavailable):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
        if events:
            news, self._news = self._news, asyncio.Event()
            news.set()

    # In the writer's thread.

    def _write_all(self, progress: Progress) -> None:
        while True:
            sweeping = progress.swept < progress.compacted
            try:
                first = self._work.get(block=not sweeping)
            except queue.Empty:
                progress = self._sweep(progress)
                continue
            batch = [first]
            with contextlib.suppress(queue.Empty):
                while len(batch) < _BATCH and batch[-1] is not None:
                    batch.append(self._work.get_nowait())
            progress = self._write_batch([work for work in batch if work is not None], progress)
            if batch[-1] is None:
                return
            if sweeping:
                progress = self._sweep(progress)

    def _write_batch(self, batch: Sequence[tuple[Write | int, asyncio.Future[Any]]], progress: Progress) -> Progress:
        writes = [(work, future) for work, future in batch if isinstance(work, Write)]
        outcomes: list[tuple[asyncio.Future[Any], Any]] = []
        events: list[Event] = []
        try:
            results = self._writer.apply([write for write, _ in writes], self._clock()) if writes else []
            outcomes += zip([future for _, future in writes], results, strict=True)
            events += [result for result in results if isinstance(result, Event)]
            progress = self._writer.progress()
            for work, future in batch:
                if isinstance(work, int):
                    self._writer.compact(work)
                    outcomes.append((future, None))
            if progress.revision - progress.compacted > self._keep + self._keep // 8:
                self._writer.compact(progress.revision - self._keep + 1)
            progress = self._writer.progress()
        except (Unavailable, sqlite3.Error) as error:
            _log.error("%s", error)
            failure = error if isinstance(error, Unavailable) else Unavailable(f"the store {self.path}: {error}")
            told = {future for future, _ in outcomes}
            outcomes += [(future, failure) for _, future in batch if future not in told]
        with contextlib.suppress(RuntimeError):  # the event loop was closed under the store
            self._loop.call_soon_threadsafe(self._done, outcomes, events, progress)
        return progress

    def _sweep(self, progress: Progress) -> Progress:
        try:
            self._writer.sweep(_SWEEP)
            return self._writer.progress()
        except sqlite3.Error as error:
            _log.error("the store cannot compact %s: %s", self.path, error)
            return Progress(progress.revision, progress.compacted, progress.compacted)  # not again before the next one


def _lock(path: Path) -> int:
    """Take the store for this process. The lock is on a file beside it: closing a descriptor of the database itself would
    drop SQLite's own locks. It ends with the process, however that ends.
    """
    try:
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unavailable(f"the store {path} cannot be opened: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.pread(lock, 20, 0).decode(errors="replace").strip()
        os.close(lock)
        raise Unavailable(
            f"the store {path} is in use by process {owner}: stop that control plane, or share one etcd among several"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    return lock
