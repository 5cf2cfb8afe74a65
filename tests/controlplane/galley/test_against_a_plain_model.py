"""Every store, step by step beside a list of changes and a dict: hypothesis looks for steps after which they differ."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from controlplane.galley.etcd_store import EtcdStore
from controlplane.galley.sqlite_store import SqliteStore
from controlplane.model.resource import ResourceKey
from controlplane.model.store import Action, Compacted, Conflict, Event, Store
from tests.controlplane.galley import etcds
from tests.controlplane.galley.stores import key, take

NAMES = st.sampled_from([key("a"), key("b"), key("a", "other"), key("a", kind="Gateway")])
States = dict[ResourceKey, tuple[bytes, int]]


class Against(RuleBasedStateMachine):
    """``log`` has the changes, ``revisions`` that of each, after the one at the beginning; ``past`` what was there then."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.begin()
        self.store: Store = self.do(self.open())
        self.there: States = {}
        self.log: list[tuple[Action, ResourceKey, bytes, int, str]] = []
        self.revisions: list[int] = [self.do(self.store.revision())]
        self.past: list[States] = [{}]
        self.compacted = 0

    def begin(self) -> None:
        """A place for a new store."""
        raise NotImplementedError

    async def open(self) -> Store:
        """The store that is there."""
        raise NotImplementedError

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, 20))

    def teardown(self) -> None:
        self.do(self.store.close())
        self.loop.close()

    def expectation(self, key: ResourceKey, guess: int) -> int | None:
        """None, what is there, or something else."""
        return [None, self.there.get(key, (b"", 0))[1], guess][guess % 3]

    def note(self, action: Action, key: ResourceKey, document: bytes, revision: int, who: str) -> None:
        assert revision > self.revisions[-1]
        self.log.append((action, key, document, revision, who))
        self.revisions.append(revision)
        self.past.append(dict(self.there))

    @rule(key=NAMES, document=st.binary(max_size=4), guess=st.integers(0, 40), who=st.sampled_from(["ann", "bob"]))
    def put(self, key: ResourceKey, document: bytes, guess: int, who: str) -> None:
        expected, found = self.expectation(key, guess), self.there.get(key, (b"", 0))[1]
        if expected is not None and expected != found:
            with pytest.raises(Conflict) as refused:
                self.do(self.store.put(key, document, expected=expected, who=who))
            assert refused.value.found == found
            return
        stored = self.do(self.store.put(key, document, expected=expected, who=who))
        self.there[key] = (document, stored.revision)
        self.note(Action.MODIFIED if found else Action.ADDED, key, document, stored.revision, who)

    @rule(key=NAMES, guess=st.integers(0, 40))
    def delete(self, key: ResourceKey, guess: int) -> None:
        expected = self.expectation(key, guess)
        if key not in self.there:
            assert self.do(self.store.delete(key, expected=expected, who="x")) is None
            return
        document, found = self.there[key]
        if expected is not None and expected != found:
            with pytest.raises(Conflict):
                self.do(self.store.delete(key, expected=expected, who="x"))
            return
        gone = self.do(self.store.delete(key, expected=expected, who="x"))
        assert gone.document == document
        del self.there[key]
        self.note(Action.DELETED, key, document, gone.revision, "x")

    @rule(back=st.integers(0, 12))
    def compact(self, back: int) -> None:
        revision = self.revisions[max(0, len(self.log) - back)]
        self.do(self.store.compact(revision))
        self.compacted = max(self.compacted, revision - 1)

    @rule()
    def reopen(self) -> None:
        self.do(self.store.close())
        self.store = self.do(self.open())

    @rule(back=st.integers(0, 12), kind=st.sampled_from(["VirtualService", "Gateway"]), limit=st.integers(0, 3))
    def list_at(self, back: int, kind: str, limit: int) -> None:
        index = max(0, len(self.log) - back)
        revision = self.revisions[index]
        if revision < self.compacted:
            with pytest.raises(Compacted):
                self.do(self.store.list(kind, revision=revision))
            return
        wanted = sorted((key, *value) for key, value in self.past[index].items() if key.kind == kind)
        found, after, more = [], None, True
        while more:
            page = self.do(self.store.list(kind, limit=limit, after=after, revision=revision))
            found += [(item.key, item.document, item.revision) for item in page.items]
            more, after = page.more, page.items[-1].key if page.items else None
        assert found == wanted

    @rule(back=st.integers(0, 20))
    def watch_from(self, back: int) -> None:
        index = max(0, len(self.log) - back)
        since = self.revisions[index]
        if since < self.compacted:
            with pytest.raises(Compacted):
                self.do(take(self.store, 1, since))
        elif index < len(self.log):
            events: list[Event] = self.do(take(self.store, len(self.log) - index, since))
            told = [(e.action, e.stored.key, e.stored.document, e.stored.revision, e.who) for e in events]
            assert told == self.log[index:]

    @rule(key=NAMES)
    def history(self, key: ResourceKey) -> None:
        told = [(e.action, e.stored.document, e.stored.revision) for e in self.do(self.store.history(key))]
        wanted = [(action, document, at) for action, of, document, at, _ in self.log if of == key]
        recent = [each for each in wanted if each[2] > self.compacted]
        assert told[len(told) - len(recent) :] == recent and set(told) <= set(wanted)

    @invariant()
    def is_the_same(self) -> None:
        for each in (key("a"), key("a", kind="Gateway")):
            found = self.do(self.store.get(each))
            assert (found and (found.document, found.revision)) == self.there.get(each)
        assert self.do(self.store.revision()) >= self.revisions[-1]


class Sqlite(Against):
    """Where revisions have no gaps."""

    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory()

    async def open(self) -> Store:
        return await SqliteStore.open(Path(self.directory.name) / "store.db")

    def teardown(self) -> None:
        super().teardown()
        self.directory.cleanup()

    @invariant()
    def has_no_gaps(self) -> None:
        assert self.revisions == list(range(len(self.log) + 1))
        assert self.do(self.store.revision()) == len(self.log)


class Etcd(Against):
    """Where others may advance the revision: the records of deletions that are forgotten do."""

    def begin(self) -> None:
        self.url = f"{etcds.shared().url}/plain-{uuid.uuid4().hex}?keep=0"

    async def open(self) -> Store:
        return await EtcdStore.open(self.url)


Sqlite.TestCase.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
Etcd.TestCase.settings = settings(max_examples=12, stateful_step_count=25, deadline=None)
TestSqlite = Sqlite.TestCase
TestEtcd = etcds.needs_etcd(Etcd.TestCase)
