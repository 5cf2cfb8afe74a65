"""What is particular to SQLite: kill -9, one process at a time, and what it costs."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import stat
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from controlplane.galley import sqlite_store
from controlplane.galley.open_store import open_store
from controlplane.galley.sqlite_ledger import Ledger, copy
from controlplane.galley.sqlite_store import SqliteStore
from controlplane.model.store import Action, Compacted, Unavailable
from tests.controlplane.galley.stores import key, take


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(main())


WRITER = """
import asyncio, os, sys
from pathlib import Path
from controlplane.galley.sqlite_store import SqliteStore
from controlplane.model.resource import ResourceKey

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]), keep=200)
    life = sys.argv[2]

    async def write(writer):
        n = 0
        while True:
            key = ResourceKey("VirtualService", f"writer{writer}", f"n{n % 5}")
            if n % 7 == 6:
                gone = await store.delete(key, expected=None, who=life)
                line = f"{gone.revision if gone else 0} {key.namespace} {key.name} -"
            else:
                document = f"{life}.{writer}.{n}" + "x" * 2000
                put = await store.put(key, document.encode(), expected=None, who=life)
                line = f"{put.revision} {key.namespace} {key.name} {life}.{writer}.{n}"
            os.write(1, f"{line}\\n".encode())
            n += 1

    await asyncio.gather(*(write(writer) for writer in range(8)))

asyncio.run(main())
"""


def test_kill_9_at_any_moment_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """Eight writers at once, killed over and over, while compaction goes on; each time the file has all that was told."""

    async def scenario() -> None:
        path = tmp_path / "store.db"
        chance = random.Random(7)
        told: dict[tuple[str, str], tuple[int, str]] = {}
        total = last = 0
        begun = time.monotonic()
        for life in range(100):
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", WRITER, str(path), f"life{life}", stdout=asyncio.subprocess.PIPE, limit=1 << 24
            )
            assert child.stdout is not None
            lines = [await child.stdout.readline()]  # it works
            await asyncio.sleep(chance.uniform(0, 0.12))
            os.kill(child.pid, signal.SIGKILL)
            lines += (await child.stdout.read()).splitlines(keepends=True)
            await child.wait()
            for line in lines:
                assert line.endswith(b"\n")
                revision, namespace, name, value = line.decode().split()
                if int(revision):
                    told[namespace, name] = max(told.get((namespace, name), (0, "")), (int(revision), value))
                    total += 1
            store = await SqliteStore.open(path)
            try:
                assert await store.revision() >= max(revision for revision, _ in told.values())
                assert await store.revision() > last
                last = await store.revision()
                found = {
                    (item.key.namespace, item.key.name): item for item in (await store.list("VirtualService")).items
                }
                for (namespace, name), (revision, value) in told.items():
                    item = found.get((namespace, name))
                    if item is not None and item.revision == revision:
                        assert item.document.decode().rstrip("x") == value
                    elif item is None and value == "-":
                        continue
                    else:  # something later was done and could not be told any more
                        history = await store.history(key(name, namespace))
                        assert history and history[-1].stored.revision > revision
            finally:
                await store.close()
            assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)
            if time.monotonic() - begun > 6:
                break
        assert life >= 3 and total > 50
        print(f"{life + 1} kills, {total} acknowledged writes")

    run(scenario)


def test_many_writes_share_a_transaction_and_leave_the_event_loop_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    apply = Ledger.apply

    def slow(self: Ledger, writes: Any, now: float) -> Any:
        batches.append(len(writes))
        time.sleep(0.5)  # a disk that takes its time
        return apply(self, writes, now)

    monkeypatch.setattr(Ledger, "apply", slow)

    async def scenario() -> None:
        store = await SqliteStore.open(tmp_path / "store.db")
        loop = asyncio.get_running_loop()
        longest, last = 0.0, loop.time()

        async def tick() -> None:
            nonlocal longest, last
            while True:
                longest, last = max(longest, loop.time() - last), loop.time()
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        puts = await asyncio.gather(*(store.put(key(f"n{n}"), b"x", expected=0, who="") for n in range(1000)))
        ticking.cancel()
        assert sorted(put.revision for put in puts) == list(range(1, 1001))
        assert sum(batches) == 1000 and len(batches) <= 6
        assert longest < 0.4  # less than one transaction takes
        await store.close()

    run(scenario)


def test_every_acknowledged_write_was_synced_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = await SqliteStore.open(tmp_path / "store.db")
        ledger = store._writer
        assert ledger._file.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert ledger._file.execute("PRAGMA synchronous").fetchone() == (2,)
        await store.close()

    run(scenario)


def test_it_is_there_again_after_it_was_closed(tmp_path: Path) -> None:
    async def scenario() -> None:
        store, _, _ = await open_store(f"sqlite:{tmp_path / 'store.db'}")
        one = await store.put(key("a"), b"1", expected=0, who="ann")
        gone = await store.put(key("b"), b"2", expected=0, who="ann")
        await store.delete(gone.key, expected=None, who="bob")
        await store.close()
        store, election, presence = await open_store(str(tmp_path / "store.db"))
        assert election.leading and await presence.alive() == (presence.identity,)
        assert await store.get(one.key) == one and await store.revision() == 3
        assert [event.action for event in await take(store, 3, 0)] == [Action.ADDED, Action.ADDED, Action.DELETED]
        assert (await store.put(key("c"), b"", expected=0, who="")).revision == 4
        await store.close()

    run(scenario)


def test_it_holds_secrets_and_nobody_else_reads_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        before = os.umask(0)
        try:
            store = await SqliteStore.open(tmp_path / "store.db")
            await store.put(key("a"), b"1", expected=0, who="")
            modes = {name: stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in os.listdir(tmp_path)}
            assert len(modes) == 4 and set(modes.values()) == {0o600}
        finally:
            os.umask(before)
            await store.close()

    run(scenario)


def test_a_second_process_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "store.db"
        store = await SqliteStore.open(path)
        with pytest.raises(Unavailable, match=f"store.db is in use by process {os.getpid()}: stop that control plane"):
            await SqliteStore.open(path)
        await store.close()
        await (await SqliteStore.open(path)).close()

    run(scenario)


def test_what_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        text = tmp_path / "text.db"
        text.write_text("this is no database, and it is longer than a header of one " * 20)
        before = text.read_bytes()
        with pytest.raises(Unavailable, match=r"text.db cannot be used as a store: file is not a database"):
            await SqliteStore.open(text)
        assert text.read_bytes() == before
        other = tmp_path / "other.db"
        with sqlite3.connect(other) as file:
            file.execute("CREATE TABLE mine (x)")
        with pytest.raises(Unavailable, match="database of another program"):
            await SqliteStore.open(other)
        newer = tmp_path / "newer.db"
        await (await SqliteStore.open(newer)).close()
        with sqlite3.connect(newer) as file:
            file.execute("PRAGMA user_version = 9")
        with pytest.raises(Unavailable, match=r"newer Mizzen .schema 9, known is 1."):
            await SqliteStore.open(newer)
        with pytest.raises(Unavailable, match="No such file or directory"):
            await SqliteStore.open(tmp_path / "nowhere" / "store.db")
        for wrong in ("postgres://h", "sqlite:", "http://x"):
            with pytest.raises(ValueError, match="a store is etcd://host:port"):
                await open_store(wrong)

    run(scenario)


def test_a_disk_that_is_full_fails_the_write_and_nothing_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = await SqliteStore.open(tmp_path / "store.db")
        one = await store.put(key("a"), b"1", expected=0, who="")
        pages = store._writer._file.execute("PRAGMA page_count").fetchone()[0]
        store._writer._file.execute(f"PRAGMA max_page_count = {pages + 3}")
        with pytest.raises(Unavailable, match=r"cannot write to .*store.db: database or disk is full"):
            await store.put(key("big"), b"x" * 100_000, expected=0, who="")
        assert await store.get(key("big")) is None and await store.revision() == 1
        store._writer._file.execute("PRAGMA max_page_count = 1000000")
        two = await store.put(key("a"), b"2", expected=one.revision, who="")
        assert two.revision == 2 and await store.get(key("a")) == two
        await store.close()

    run(scenario)


def test_it_compacts_by_itself_within_its_bound(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "store.db"
        store = await SqliteStore.open(path, keep=1000)
        await store.put(key("kept"), b"k", expected=0, who="")
        sizes = []
        for _ in range(8):
            await asyncio.gather(
                *(store.put(key(f"n{n % 20}"), b"x" * 1000, expected=None, who="") for n in range(1000)),
                store.delete(key("n3"), expected=None, who=""),
            )
            while store._work.qsize() or Ledger(path, read_only=True).progress().swept < store._progress.compacted:
                await asyncio.sleep(0.01)
            sizes.append(path.stat().st_size)
        with pytest.raises(Compacted):
            await take(store, 1, 0)
        revision = await store.revision()
        rows = store._reader._file.execute("SELECT count(*) FROM changes").fetchone()[0]
        assert 1000 <= rows <= 1000 + 1000 // 8 + 21
        assert len(await take(store, 1000, revision - 1000)) == 1000
        assert (await store.list("VirtualService")).items[0].key == key("kept")
        assert sizes[-1] < 1.5 * sizes[3]
        await store.close()

    run(scenario)


def test_what_was_not_swept_before_a_kill_is_swept_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        path = tmp_path / "store.db"
        monkeypatch.setattr(Ledger, "sweep", lambda self, limit: False)
        ledger = Ledger(path)
        for n in range(50):
            ledger.apply([sqlite_store.Write(key("a"), b"%d" % n, None, "")], 1.0)
        ledger.compact(41)
        ledger.close()
        monkeypatch.undo()
        store = await SqliteStore.open(path)
        while len(await store.history(key("a"))) != 11:
            await asyncio.sleep(0.01)
        await store.close()

    run(scenario)


def test_a_backup_is_a_whole_store_of_one_moment(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = await SqliteStore.open(tmp_path / "store.db")
        puts = [await store.put(key(f"n{n}"), b"x", expected=0, who="ann") for n in range(20)]
        writing = asyncio.create_task(store.put(key("later"), b"", expected=0, who=""))
        await asyncio.to_thread(copy, store.path, tmp_path / "backup.db")
        await writing
        assert stat.S_IMODE((tmp_path / "backup.db").stat().st_mode) == 0o600
        with pytest.raises(FileExistsError, match=r"backup.db exists: name a file that does not"):
            await asyncio.to_thread(copy, store.path, tmp_path / "backup.db")
        await store.close()
        restored = await SqliteStore.open(tmp_path / "backup.db")
        assert [item for item in (await restored.list("VirtualService")).items if item.key.name != "later"] == sorted(
            puts, key=lambda put: put.key
        )
        assert (await restored.history(key("n3")))[0].who == "ann"
        await restored.close()

    run(scenario)
