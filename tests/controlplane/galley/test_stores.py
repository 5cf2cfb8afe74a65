"""The contract of `Store`, held against every implementation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from controlplane.model.store import Action, Compacted, Conflict, Store, Unavailable
from tests.controlplane.galley.stores import STORES, key, take

Run = Callable[[Callable[[Store], Awaitable[None]]], None]


@pytest.fixture(params=STORES)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Runs a coroutine function with a new store of each kind."""

    def run(scenario: Callable[[Store], Awaitable[None]]) -> None:
        async def main() -> None:
            async with asyncio.timeout(30), request.param(tmp_path) as make:
                await scenario(await make())

        asyncio.run(main())

    return run


def test_what_is_put_is_there_until_it_is_deleted(run: Run) -> None:
    async def scenario(store: Store) -> None:
        assert await store.get(key("a")) is None
        put = await store.put(key("a"), b'{"a": 1}', expected=0, who="ann")
        assert (put.key, put.document) == (key("a"), b'{"a": 1}')
        assert await store.get(key("a")) == put
        assert await store.get(key("a", "other")) is None
        changed = await store.put(key("a"), b'{"a": 2}', expected=put.revision, who="bob")
        assert changed.revision > put.revision and await store.get(key("a")) == changed
        gone = await store.delete(key("a"), expected=changed.revision, who="ann")
        assert gone is not None and gone.document == b'{"a": 2}' and gone.revision > changed.revision
        assert await store.get(key("a")) is None
        assert await store.delete(key("a"), expected=None, who="ann") is None
        assert await store.revision() == gone.revision

    run(scenario)


def test_a_write_that_expects_another_revision_changes_nothing(run: Run) -> None:
    async def scenario(store: Store) -> None:
        with pytest.raises(Conflict) as refused:
            await store.put(key("a"), b"1", expected=7, who="")
        assert (refused.value.expected, refused.value.found) == (7, 0)
        first = await store.put(key("a"), b"1", expected=None, who="")
        with pytest.raises(Conflict) as refused:
            await store.put(key("a"), b"2", expected=0, who="")
        assert (refused.value.key, refused.value.expected, refused.value.found) == (key("a"), 0, first.revision)
        with pytest.raises(Conflict):
            await store.delete(key("a"), expected=first.revision + 1, who="")
        assert await store.get(key("a")) == first
        assert await store.revision() == first.revision
        assert (await store.put(key("a"), b"3", expected=None, who="")).document == b"3"

    run(scenario)


def test_names_that_a_store_could_not_keep_apart_are_refused(run: Run) -> None:
    async def scenario(store: Store) -> None:
        for wrong in (key(""), key("a b"), key("a", "x\ny"), key("a", kind=""), key("\x00")):
            with pytest.raises(ValueError, match="name"):
                await store.put(wrong, b"1", expected=None, who="")
            with pytest.raises(ValueError, match="name"):
                await store.delete(wrong, expected=None, who="")

    run(scenario)


def test_lists_are_sorted_by_key_and_cut_into_pages(run: Run) -> None:
    async def scenario(store: Store) -> None:
        keys = [
            key(name, namespace) for namespace in ("shop", "shop-2", "shop.x", "a") for name in ("b", "a", "a-1", "é")
        ]
        for each in [
            *keys,
            key("cluster-wide", ""),
            key("other", kind="VirtualServices"),
            key("other", kind="Gateway"),
        ]:
            await store.put(each, str(each).encode(), expected=0, who="")
        whole = await store.list("VirtualService")
        assert [item.key for item in whole.items] == sorted([*keys, key("cluster-wide", "")])
        assert all(item.document == str(item.key).encode() for item in whole.items)
        assert whole.revision == await store.revision() and not whole.more
        shop = await store.list("VirtualService", "shop")
        assert [item.key for item in shop.items] == sorted(each for each in keys if each.namespace == "shop")
        assert [item.key.name for item in (await store.list("VirtualService", "")).items] == ["cluster-wide"]
        assert (await store.list("Sidecar")).items == []

        pages = [await store.list("VirtualService", limit=5)]
        await store.delete(key("é", "shop.x"), expected=None, who="")  # later pages are of the same moment
        await store.put(key("c", "shop"), b"", expected=0, who="")
        while pages[-1].more:
            last = pages[-1].items[-1].key
            pages.append(await store.list("VirtualService", limit=5, after=last, revision=whole.revision))
        assert [len(page.items) for page in pages] == [5, 5, 5, 2]
        assert [item for page in pages for item in page.items] == list(whole.items)
        assert {page.revision for page in pages} == {whole.revision}
        exact = await store.list("VirtualService", "shop", limit=5)
        assert (len(exact.items), exact.more) == (5, False)

    run(scenario)


def test_a_list_at_a_revision_is_what_was_there_then(run: Run) -> None:
    async def scenario(store: Store) -> None:
        before = await store.revision()
        one = await store.put(key("a"), b"1", expected=0, who="")
        two = await store.put(key("b"), b"2", expected=0, who="")
        three = await store.put(key("a"), b"3", expected=one.revision, who="")
        four = await store.delete(key("b"), expected=two.revision, who="")
        assert four is not None
        five = await store.put(key("b"), b"5", expected=0, who="")
        at = {revision: (await store.list("VirtualService", revision=revision)).items for revision in
              (before, one.revision, two.revision, three.revision, four.revision, five.revision)}  # fmt: skip
        assert at == {
            before: [], one.revision: [one], two.revision: [one, two], three.revision: [three, two],
            four.revision: [three], five.revision: [three, five]
        }  # fmt: skip
        with pytest.raises(Compacted):
            await store.list("VirtualService", revision=five.revision + 100)

    run(scenario)


def test_a_watch_tells_what_was_and_what_comes_in_order(run: Run) -> None:
    async def scenario(store: Store) -> None:
        start = await store.revision()
        one = await store.put(key("a"), b"1", expected=0, who="ann")
        two = await store.put(key("g", kind="Gateway"), b"2", expected=0, who="bob")
        watching = asyncio.create_task(take(store, 5, start))
        gateways = asyncio.create_task(take(store, 2, start, ["Gateway", "Sidecar"]))
        late = asyncio.create_task(take(store, 3, two.revision))
        await asyncio.sleep(0)
        three = await store.put(key("a"), b"3", expected=one.revision, who="eve")
        four = await store.delete(key("a"), expected=three.revision, who="ann")
        five = await store.put(key("s", kind="Sidecar"), b"5", expected=0, who="")
        assert four is not None
        events = await watching
        assert [(event.action, event.stored, event.who) for event in events] == [
            (Action.ADDED, one, "ann"),
            (Action.ADDED, two, "bob"),
            (Action.MODIFIED, three, "eve"),
            (Action.DELETED, four, "ann"),
            (Action.ADDED, five, ""),
        ]
        assert four.document == b"3"
        assert all(abs(event.when - time.time()) < 60 for event in events)
        assert [event.stored for event in await gateways] == [two, five]
        assert await late == events[2:]
        assert await take(store, 5, start) == events

    run(scenario)


def test_a_watch_that_is_far_behind_misses_nothing(run: Run) -> None:
    async def scenario(store: Store) -> None:
        start = await store.revision()
        puts = await asyncio.gather(
            *(store.put(key(f"n{n}"), b"%d" % n, expected=0, who="") for n in range(1500)),
            *(store.put(key("g", kind="Gateway"), b"%d" % n, expected=None, who="") for n in range(1500)),
        )
        events = await take(store, 3000, start)
        assert [event.stored for event in events] == sorted(puts, key=lambda stored: stored.revision)
        few = await take(store, 1500, start, ["VirtualService"])
        assert {event.stored.key.name for event in few} == {f"n{n}" for n in range(1500)}

    run(scenario)


def test_one_of_many_that_compare_and_swap_wins_each_time(run: Run) -> None:
    async def scenario(store: Store) -> None:
        async def count(times: int) -> int:
            conflicts = 0
            while times:
                found = await store.get(key("counter"))
                value = int(found.document) if found else 0
                try:
                    await store.put(
                        key("counter"), b"%d" % (value + 1), expected=found.revision if found else 0, who=""
                    )
                except Conflict:
                    conflicts += 1
                else:
                    times -= 1
            return conflicts

        conflicts = await asyncio.gather(*(count(10) for _ in range(12)))
        found = await store.get(key("counter"))
        assert found is not None and int(found.document) == 120
        assert sum(conflicts) > 0
        history = await store.history(key("counter"))
        assert [int(event.stored.document) for event in history] == list(range(1, 121))

    run(scenario)


def test_history_says_who_and_when_across_deletions(run: Run) -> None:
    async def scenario(store: Store) -> None:
        one = await store.put(key("a"), b"1", expected=0, who="ann")
        await store.put(key("b"), b"-", expected=0, who="eve")
        two = await store.put(key("a"), b"2", expected=one.revision, who="bob")
        gone = await store.delete(key("a"), expected=None, who="eve")
        again = await store.put(key("a"), b"3", expected=0, who="ann")
        history = await store.history(key("a"))
        assert [(event.action, event.stored, event.who) for event in history] == [
            (Action.ADDED, one, "ann"), (Action.MODIFIED, two, "bob"),
            (Action.DELETED, gone, "eve"), (Action.ADDED, again, "ann"),
        ]  # fmt: skip
        assert all(abs(event.when - time.time()) < 60 for event in history)
        assert await store.history(key("never")) == []

    run(scenario)


def test_compaction_forgets_changes_but_nothing_that_is_there(run: Run) -> None:
    async def scenario(store: Store) -> None:
        kept = await store.put(key("kept"), b"k", expected=0, who="ann")
        await store.put(key("gone"), b"g", expected=0, who="")
        await store.delete(key("gone"), expected=None, who="")
        old = [await store.put(key("a"), b"%d" % n, expected=None, who="") for n in range(5)]
        await store.compact(old[3].revision)
        for since in (kept.revision, old[1].revision):
            with pytest.raises(Compacted) as gone:
                await take(store, 1, since)
            assert gone.value.wanted == since and since < gone.value.oldest <= old[3].revision
            with pytest.raises(Compacted):
                await store.list("VirtualService", revision=since)
        assert [event.stored for event in await take(store, 2, old[2].revision)] == old[3:]
        assert (await store.list("VirtualService")).items == [old[4], kept]
        assert (await store.list("VirtualService", revision=old[3].revision)).items == [old[3], kept]
        assert [event.stored for event in await store.history(key("kept"))] == [kept]
        with pytest.raises(Compacted):
            await take(store, 1, old[4].revision + 10)
        await store.compact(old[3].revision)  # again: no harm
        assert (await store.put(key("kept"), b"k2", expected=kept.revision, who="")).revision > old[4].revision

    run(scenario)


def test_a_watch_that_compaction_overtakes_says_so(run: Run) -> None:
    async def scenario(store: Store) -> None:
        start = await store.revision()
        for n in range(10):
            await store.put(key("a"), b"%d" % n, expected=None, who="")
        last = await store.revision()
        watch = store.watch(start)
        assert (await anext(watch)).stored.document == b"0"
        await store.compact(last)
        await store.put(key("a"), b"last", expected=None, who="")
        heard = []
        try:
            while not heard or heard[-1] != b"last":
                heard.append((await asyncio.wait_for(anext(watch), 10)).stored.document)
        except Compacted as gone:
            assert gone.oldest == last
        else:  # it was told all before that: then nothing may be missing
            assert heard == [*(b"%d" % n for n in range(1, 10)), b"last"]
        await watch.aclose()

    run(scenario)


def test_a_closed_store_ends_its_watches_and_refuses_work(run: Run) -> None:
    async def scenario(store: Store) -> None:
        put = await store.put(key("a"), b"1", expected=0, who="")
        watch = store.watch(put.revision - 1)
        assert (await anext(watch)).stored == put
        waiting = asyncio.create_task(anext(watch, None))
        await asyncio.sleep(0.01)
        await store.close()
        assert await waiting is None
        for call in (store.get(key("a")), store.put(key("a"), b"", expected=None, who=""), store.history(key("a"))):
            with pytest.raises(Unavailable, match="closed"):
                await call
        await store.close()

    run(scenario)
