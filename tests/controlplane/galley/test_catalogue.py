from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from controlplane.galley.directory import DirectorySource
from controlplane.galley.sqlite_store import SqliteStore
from controlplane.galley.store_source import StoreSource
from controlplane.model import parsing
from controlplane.model.resource import Origin, Resource, ResourceKey
from controlplane.model.store import Store
from tests.controlplane.galley.catalogues import document, parse, watched, written
from tests.controlplane.galley.stores import key

KINDS = ("VirtualService", "WorkloadEntry")


def run(scenario: Callable[[Store, Path], Awaitable[None]], tmp_path: Path) -> None:
    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "store.db")
        files = tmp_path / "files"
        files.mkdir()
        try:
            async with asyncio.timeout(30):
                await scenario(store, files)
        finally:
            await store.close()

    asyncio.run(main())


def source(files: Path) -> DirectorySource:
    return DirectorySource(files, settle=0.01)


def test_it_tells_everything_once_and_then_what_changes(tmp_path: Path) -> None:
    async def scenario(store: Store, files: Path) -> None:
        a = await store.put(key("a"), written("a", weight=1), expected=0, who="")
        await store.put(key("t", kind="_Token"), b"secret", expected=0, who="")
        (files / "b.yaml").write_bytes(written("b", weight=2))
        async with watched(source(files), StoreSource(store, KINDS)) as seen:
            assert [set(change) for change in seen.changes] == [{key("a"), key("b")}]
            assert seen.specs == {"a": {"weight": 1}, "b": {"weight": 2}} and seen.problems == []
            first = seen.catalogue.resources[key("a")]
            assert first.metadata.resource_version == str(a.revision)
            assert (str(first.origin), str(seen.catalogue.resources[key("b")].origin)) == ("api", f"{files}/b.yaml:1")
            await store.put(key("a"), written("a", weight=3), expected=None, who="")
            await seen.until(lambda: len(seen.changes) == 2)
            assert seen.changes[1] == {key("a"): seen.catalogue.resources[key("a")]}
            assert first.spec == {"weight": 1}
            await store.delete(key("a"), expected=None, who="")
            await seen.until(lambda: len(seen.changes) == 3)
            assert seen.changes[2] == {key("a"): None} and list(seen.specs) == ["b"]

    run(scenario, tmp_path)


def test_what_cannot_be_parsed_keeps_its_last_good_version_and_is_told(tmp_path: Path) -> None:
    async def scenario(store: Store, files: Path) -> None:
        await store.put(key("a"), written("a", weight=1), expected=0, who="")
        await store.put(key("never"), written("never", bad="no"), expected=0, who="")
        async with watched(StoreSource(store, KINDS)) as seen:
            assert seen.problems == ["api: VirtualService/shop/never: spec.bad: no; it is not in effect"]
            await store.put(key("a"), written("a", bad="worse"), expected=None, who="")
            await seen.until(lambda: len(seen.problems) == 2)
            assert (
                "VirtualService/shop/a: spec.bad: worse; what was written at api before still holds" in seen.problems[1]
            )
            await store.put(key("a"), b"no JSON", expected=None, who="")
            await store.put(key("never"), written("never", weight=5), expected=None, who="")
            await seen.until(lambda: "never" in seen.specs)
            assert seen.specs == {"a": {"weight": 1}, "never": {"weight": 5}}
            assert any("not a document" in problem for problem in seen.problems)
            await store.put(key("a"), written("a", weight=2), expected=None, who="")
            await seen.until(lambda: not seen.problems)
            assert seen.specs["a"] == {"weight": 2}
            await store.put(key("a"), written("a", bad="again"), expected=None, who="")
            await seen.until(lambda: seen.problems)
            await store.delete(key("a"), expected=None, who="")
            await seen.until(lambda: not seen.problems)
            assert list(seen.specs) == ["never"]

    run(scenario, tmp_path)


def test_files_come_before_the_api_and_the_other_one_is_told(tmp_path: Path) -> None:
    async def scenario(store: Store, files: Path) -> None:
        await store.put(key("a"), written("a", of="api"), expected=0, who="")
        (files / "a.yaml").write_bytes(written("a", of="file"))
        async with watched(source(files), StoreSource(store, KINDS)) as seen:
            assert seen.specs == {"a": {"of": "file"}}
            told = f"api: VirtualService/shop/a: has no effect, because {files}/a.yaml:1 has one of that name: remove either"
            assert seen.problems == [told]
            await store.put(key("a"), written("a", of="api, later"), expected=None, who="")
            await store.put(key("b"), written("b"), expected=None, who="")
            await seen.until(lambda: "b" in seen.specs)
            assert seen.specs["a"] == {"of": "file"} and [set(change) for change in seen.changes] == [
                {key("a")},
                {key("b")},
            ]
            (files / "a.yaml").unlink()
            await seen.until(lambda: not seen.problems)
            assert seen.specs["a"] == {"of": "api, later"}
            assert seen.changes[-1] == {key("a"): seen.catalogue.resources[key("a")]}

    run(scenario, tmp_path)


def test_a_status_is_no_change_but_of_kinds_where_it_says_something(tmp_path: Path) -> None:
    async def scenario(store: Store, files: Path) -> None:
        def with_status(kind: str, status: str) -> bytes:
            return orjson.dumps({**document("a", kind=kind, weight=1), "status": {"is": status}})

        entry = key("a", kind="WorkloadEntry")
        await store.put(key("a"), with_status("VirtualService", "one"), expected=0, who="")
        await store.put(entry, with_status("WorkloadEntry", "one"), expected=0, who="")
        async with watched(StoreSource(store, KINDS)) as seen:
            stored = await store.put(key("a"), with_status("VirtualService", "two"), expected=None, who="")
            await store.put(entry, with_status("WorkloadEntry", "two"), expected=None, who="")
            await seen.until(lambda: len(seen.changes) == 2)
            assert set(seen.changes[1]) == {entry}
            quiet = seen.catalogue.resources[key("a")]
            assert (quiet.document["status"], quiet.metadata.resource_version) == ({"is": "two"}, str(stored.revision))

    run(scenario, tmp_path)


def test_a_compacted_watch_lists_again_and_tells_only_what_is_different(tmp_path: Path) -> None:
    class Forgetful:
        """A store whose first watch finds its revision gone, as after a long pause."""

        def __init__(self, store: Store) -> None:
            self.store = store
            self.watches = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.store, name)

        async def watch(self, since: int, kinds: Any) -> Any:
            self.watches += 1
            if self.watches == 1:
                await self.store.put(key("a"), written("a", weight=2), expected=None, who="")
                await self.store.delete(key("gone"), expected=None, who="")
                await self.store.compact(await self.store.revision())
            async for event in self.store.watch(since, kinds):
                yield event

    async def scenario(store: Store, files: Path) -> None:
        for name in ("a", "same", "gone"):
            await store.put(key(name), written(name, weight=1), expected=0, who="")
        forgetful: Any = Forgetful(store)
        async with watched(StoreSource(forgetful, KINDS)) as seen:
            await seen.until(lambda: len(seen.changes) == 2)
            assert seen.changes[1] == {key("a"): seen.catalogue.resources[key("a")], key("gone"): None}
            assert forgetful.watches == 2

    run(scenario, tmp_path)


def test_many_documents_do_not_hold_the_event_loop(tmp_path: Path) -> None:
    async def scenario(store: Store, files: Path) -> None:
        await asyncio.gather(*(store.put(key(f"n{n}"), written(f"n{n}"), expected=0, who="") for n in range(60)))
        loop = asyncio.get_running_loop()
        turns = 0

        def turn() -> None:
            nonlocal turns
            turns += 1
            loop.call_soon(turn)

        def slow(body: Mapping[str, Any], origin: Origin) -> Resource:
            begun = loop.time()
            while loop.time() - begun < 0.001:
                pass
            seen_at.append(turns)
            return parse(body, origin)

        seen_at: list[int] = []
        loop.call_soon(turn)
        async with watched(StoreSource(store, KINDS), judge=slow) as seen:
            assert len(seen.specs) == 60
            most = max(seen_at.count(each) for each in set(seen_at))
            assert most <= 8

    run(scenario, tmp_path)


def test_a_burst_is_told_together(tmp_path: Path) -> None:
    async def scenario(store: Store, files: Path) -> None:
        async with watched(StoreSource(store, KINDS)) as seen:
            await asyncio.gather(*(store.put(key(f"n{n}"), written(f"n{n}"), expected=0, who="") for n in range(500)))
            await seen.until(lambda: len(seen.specs) == 500)
            told: list[ResourceKey] = [key for change in seen.changes for key in change]
            assert len(told) == len(set(told)) == 500
            assert len(seen.changes) < 60

    run(scenario, tmp_path)


def test_real_resources_are_judged_by_their_models(tmp_path: Path) -> None:
    async def scenario(store: Store, files: Path) -> None:
        route = {"route": [{"destination": {"host": "reviews"}}]}
        await store.put(key("good"), written("good", hosts=["reviews"], http=[route]), expected=0, who="")
        (files / "all.yaml").write_text(
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n---\n"
            "apiVersion: v1\nkind: Service\nmetadata: {name: reviews}\nspec: {ports: [{name: http, port: 80}]}\n---\n"
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: reviews}\n---\n"
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: bad}\nspec: {hots: [a]}\n"
        )
        async with watched(source(files), StoreSource(store, KINDS), judge=parsing.parse) as seen:
            assert {str(key): type(each.spec).__name__ for key, each in seen.catalogue.resources.items()} == {
                "VirtualService/shop/good": "VirtualService",
                "Namespace/shop": "Namespace",
                "Service/default/reviews": "Service",
            }
            deployment, bad = seen.problems
            assert deployment.startswith(f"{files}/all.yaml:10: Deployment/default/reviews: kind: ")
            assert bad.startswith(f"{files}/all.yaml:14: VirtualService/default/bad: spec.hots: ") and "hosts" in bad

    run(scenario, tmp_path)
