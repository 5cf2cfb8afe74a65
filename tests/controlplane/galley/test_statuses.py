"""What is written into statuses, and how often."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from controlplane.galley.sqlite_store import SqliteStore
from controlplane.galley.statuses import StatusWriter
from controlplane.model.parsing import parse
from controlplane.model.resource import ResourceKey

KEY = ResourceKey("VirtualService", "shop", "reviews")
DOCUMENT: dict[str, Any] = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "VirtualService",
    "metadata": {"name": "reviews", "namespace": "shop", "generation": 1},
    "spec": {"hosts": ["reviews"], "http": [{"route": [{"destination": {"host": "reviews"}}]}]},
}


class Written:
    """A store with one resource, and what its status says."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store

    async def document(self) -> tuple[int, Any]:
        stored = await self.store.get(KEY)
        assert stored is not None
        return stored.revision, json.loads(stored.document)

    async def message(self) -> str:
        _, document = await self.document()
        conditions: list[Any] = document.get("status", {}).get("conditions", [])
        return "".join(one["message"] for one in conditions)

    async def says(self, words: str) -> None:
        async with asyncio.timeout(10):
            while await self.message() != words:
                await asyncio.sleep(0.005)


def run(tmp_path: Path, pause: float, scenario: Callable[[StatusWriter, Written], Awaitable[None]]) -> None:
    async def whole() -> None:
        store = await SqliteStore.open(tmp_path / "store.db")
        try:
            await store.put(KEY, json.dumps(DOCUMENT).encode(), expected=0, who="test")
            statuses = StatusWriter(store, {KEY: parse(DOCUMENT)}, quiet=0.001, pause=pause)
            writing = asyncio.create_task(statuses.run())
            await scenario(statuses, Written(store))
            writing.cancel()
        finally:
            await store.close()

    asyncio.run(whole())


def test_other_words_for_a_refusal_are_not_written_again_and_again(tmp_path: Path) -> None:
    async def scenario(statuses: StatusWriter, written: Written) -> None:
        statuses.tell_refusals({KEY: ["refused: 0"]})
        await written.says("refused: 0")
        before, _ = await written.document()
        for number in range(1, 30):
            statuses.tell_refusals({KEY: [f"refused: {number}"]})
            await asyncio.sleep(0.005)
        assert (await written.document())[0] == before
        statuses.tell_refusals({})
        await written.says("")

    run(tmp_path, 60.0, scenario)


def test_refusing_and_taking_in_turns_is_not_written_each_time(tmp_path: Path) -> None:
    async def scenario(statuses: StatusWriter, written: Written) -> None:
        statuses.tell_refusals({KEY: ["refused"]})
        await written.says("refused")
        statuses.tell_refusals({})
        await written.says("")
        before, _ = await written.document()
        for number in range(30):
            statuses.tell_refusals({KEY: ["refused"]} if number % 2 else {})
            await asyncio.sleep(0.005)
        assert (await written.document())[0] == before

    run(tmp_path, 60.0, scenario)


def test_the_last_words_are_written_in_the_end(tmp_path: Path) -> None:
    async def scenario(statuses: StatusWriter, written: Written) -> None:
        statuses.tell_refusals({KEY: ["refused: first"]})
        await written.says("refused: first")
        statuses.tell_refusals({KEY: ["refused: second"]})
        await written.says("refused: second")

    run(tmp_path, 0.3, scenario)


def test_a_refusal_of_what_was_changed_is_written_at_once(tmp_path: Path) -> None:
    async def scenario(statuses: StatusWriter, written: Written) -> None:
        statuses.tell_refusals({KEY: ["refused: first"]})
        await written.says("refused: first")
        revision, document = await written.document()
        document["metadata"]["generation"] = 2
        await written.store.put(KEY, json.dumps(document).encode(), expected=revision, who="test")
        statuses.tell_refusals({KEY: ["refused: second"]})
        await written.says("refused: second")

    run(tmp_path, 60.0, scenario)


def test_findings_do_not_wait_for_refusals(tmp_path: Path) -> None:
    async def scenario(statuses: StatusWriter, written: Written) -> None:
        statuses.tell_refusals({KEY: ["refused: first"]})
        await written.says("refused: first")
        statuses.tell_findings({KEY: [{"code": "IST0101"}]})
        statuses.tell_refusals({KEY: ["refused: second"]})
        await written.says("refused: second")

    run(tmp_path, 60.0, scenario)
