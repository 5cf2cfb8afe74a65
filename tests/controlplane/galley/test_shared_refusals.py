"""What is refused at one control plane is known to the one that leads, on every store, and for no longer than it holds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from controlplane.galley.presence import Alone
from controlplane.galley.shared_refusals import KIND, PACE, SharedRefusals, Told
from controlplane.galley.statuses import StatusWriter
from controlplane.model.parsing import parse
from controlplane.model.resource import ResourceKey
from controlplane.model.store import Store, Unavailable
from tests.controlplane.galley.stores import STORES

SERVICE = ResourceKey("VirtualService", "shop", "reviews")
OTHER = ResourceKey("DestinationRule", "shop", "reviews")
LOOK = 0.02


class Present:
    """One of those in the room."""

    def __init__(self, identity: str, room: set[str]) -> None:
        self.identity = identity
        self.room = room
        room.add(identity)

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def alive(self) -> Collection[str]:
        return {*self.room, self.identity}


class Plane:
    """A control plane as far as refusals go. ``told`` is what statuses would say."""

    def __init__(
        self, store: Store, identity: str, room: set[str], on_change: Callable[[Told], None] | None = None
    ) -> None:
        self.told: dict[ResourceKey, list[str]] = {}
        self.shared = SharedRefusals(store, Present(identity, room), on_change or self._hear, look=LOOK)
        self.tasks = [asyncio.create_task(self.shared.report())]

    def _hear(self, refusals: Told) -> None:
        self.told = {key: sorted(words) for key, words in refusals.items()}

    def lead(self) -> None:
        self.tasks.append(asyncio.create_task(self.shared.follow()))

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


Scenario = Callable[[Store], Awaitable[None]]


@pytest.fixture(params=STORES)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Scenario], None]:
    """Runs a scenario with a new store of each kind."""

    def run(scenario: Scenario) -> None:
        async def main() -> None:
            async with asyncio.timeout(30), request.param(tmp_path) as make:
                await scenario(await make())

        asyncio.run(main())

    return run


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def kept(store: Store) -> list[str]:
    return [one.key.name for one in (await store.list(KIND)).items]


async def gone(store: Store) -> None:
    async with asyncio.timeout(10):
        while await kept(store):
            await asyncio.sleep(0.01)


def test_the_leader_knows_what_the_others_refuse_until_it_is_mended(run: Callable[[Scenario], None]) -> None:
    async def scenario(store: Store) -> None:
        room: set[str] = set()
        async with AsyncExitStack() as stack:
            leader, second, third = (Plane(store, name, room) for name in ("one", "two", "three"))
            for plane in (leader, second, third):
                stack.push_async_callback(plane.stop)
            leader.lead()
            await leader.shared.heard()
            second.shared.tell({SERVICE: ["a refuses CDS"]})
            third.shared.tell({SERVICE: ["b refuses CDS"], OTHER: ["b refuses LDS"]})
            leader.shared.tell({OTHER: ["c refuses LDS"]})
            everything = {SERVICE: ["a refuses CDS", "b refuses CDS"], OTHER: ["b refuses LDS", "c refuses LDS"]}
            await until(lambda: leader.told == everything)
            assert second.told == {SERVICE: ["a refuses CDS"]}  # who does not lead does not ask
            second.shared.tell({})  # its proxy has recovered, or has left
            await until(lambda: leader.told[SERVICE] == ["b refuses CDS"])
            assert sorted(await kept(store)) == ["one", "three"]
            third.shared.tell({})
            leader.shared.tell({})
            await until(lambda: leader.told == {})
            await gone(store)

    run(scenario)


def test_what_one_that_is_gone_has_left_behind_holds_no_more(run: Callable[[Scenario], None]) -> None:
    async def scenario(store: Store) -> None:
        room: set[str] = set()
        leader, second, third = (Plane(store, name, room) for name in ("one", "two", "three"))
        leader.lead()
        for plane in (second, third):
            plane.shared.tell({SERVICE: [f"{plane.shared._presence.identity} refuses"]})
        await until(lambda: leader.told == {SERVICE: ["three refuses", "two refuses"]})
        await third.stop()  # in good order: it takes with it what it has written
        assert await kept(store) == ["two"]
        await until(lambda: leader.told == {SERVICE: ["two refuses"]})
        stored = (await store.list(KIND)).items[0]
        await second.stop()
        await store.put(stored.key, stored.document, expected=None, who="test")  # killed: it would have left that
        room.discard("two")
        await until(lambda: leader.told == {})
        await gone(store)
        await leader.stop()

    run(scenario)


def test_who_is_thought_to_be_gone_and_is_not_tells_it_again(run: Callable[[Scenario], None]) -> None:
    async def scenario(store: Store) -> None:
        room: set[str] = set()
        leader, second = Plane(store, "one", room), Plane(store, "two", room)
        leader.lead()
        second.shared.tell({SERVICE: ["it refuses"]})
        await until(lambda: leader.told == {SERVICE: ["it refuses"]})
        room.discard("two")  # its lease was lost for a while
        await until(lambda: leader.told == {})
        room.add("two")
        await until(lambda: leader.told == {SERVICE: ["it refuses"]})
        await leader.stop()
        await second.stop()
        assert await kept(store) == []

    run(scenario)


def test_a_new_leader_knows_what_is_refused_where_it_was_told_before(run: Callable[[Scenario], None]) -> None:
    async def scenario(store: Store) -> None:
        room: set[str] = set()
        first, second = Plane(store, "one", room), Plane(store, "two", room)
        first.lead()
        first.shared.tell({OTHER: ["a refuses"]})
        second.shared.tell({SERVICE: ["b refuses"]})
        await until(lambda: first.told == {SERVICE: ["b refuses"], OTHER: ["a refuses"]})
        first.tasks.pop().cancel()  # it leads no more, and goes on serving
        second.lead()
        await second.shared.heard()
        assert second.told == {SERVICE: ["b refuses"], OTHER: ["a refuses"]}
        await first.stop()
        await second.stop()

    run(scenario)


def test_who_leads_again_tells_nothing_that_was_mended_meanwhile(run: Callable[[Scenario], None]) -> None:
    async def scenario(store: Store) -> None:
        room: set[str] = set()
        first, second = Plane(store, "one", room), Plane(store, "two", room)
        first.lead()
        second.shared.tell({SERVICE: ["it refuses"]})
        await until(lambda: first.told == {SERVICE: ["it refuses"]})
        led = first.tasks.pop()
        led.cancel()
        await asyncio.wait([led])
        second.shared.tell({})
        await gone(store)
        first.lead()
        await first.shared.heard()
        assert first.told == {}
        await first.stop()
        await second.stop()

    run(scenario)


class Written:
    """A store that counts what is put into it; the answers to the first ``lost`` puts are lost."""

    def __init__(self, store: Store, lost: int = 0) -> None:
        self.store = store
        self.lost = lost
        self.sizes: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def put(self, key: ResourceKey, document: bytes, **options: Any) -> Any:
        self.sizes.append(len(document))
        done = await self.store.put(key, document, **options)
        if self.lost:
            self.lost -= 1
            raise Unavailable("no answer within 5 s")
        return done


def test_words_that_change_all_the_time_are_written_now_and_then(run: Callable[[Scenario], None]) -> None:
    """Proxies say what they like, as often as they like, and a store keeps what is written for a while."""

    async def scenario(store: Store) -> None:
        room: set[str] = set()
        written = Written(store)
        leader, second = Plane(store, "one", room), Plane(written, "two", room)  # type: ignore[arg-type]
        leader.lead()
        clock = asyncio.get_running_loop().time

        async def storm(many: int) -> tuple[int, float]:
            began, number = clock(), 0
            while clock() - began < 0.7:
                number += 1
                words = [f"{number} {'x' * 480}"] * 5
                second.shared.tell({ResourceKey("VirtualService", "shop", f"n{one}"): words for one in range(many)})
                await asyncio.sleep(0.001)
            return number, clock() - began

        told, seconds = await storm(1)
        assert len(written.sizes) <= seconds / LOOK + 1
        await until(lambda: leader.told[ResourceKey("VirtualService", "shop", "n0")][0].startswith(f"{told} "))
        written.sizes.clear()
        _, seconds = await storm(80)
        assert written.sizes and written.sizes[0] > 190_000
        assert sum(written.sizes[:-1]) <= PACE * seconds, "after each there is a pause for its size"
        count = len(written.sizes)
        second.shared.tell({})
        await until(lambda: leader.told == {})  # what is mended does not wait so long
        assert len(written.sizes) == count
        await leader.stop()
        await second.stop()

    run(scenario)


def test_what_was_written_without_an_answer_goes_when_it_is_mended(run: Callable[[Scenario], None]) -> None:
    async def scenario(store: Store) -> None:
        room: set[str] = set()
        written = Written(store, lost=1)
        leader, second = Plane(store, "one", room), Plane(written, "two", room)  # type: ignore[arg-type]
        leader.lead()
        second.shared.tell({SERVICE: ["it refuses"]})
        await until(lambda: written.sizes and not written.lost)
        second.shared.tell({})
        await gone(store)
        await until(lambda: leader.told == {})
        await leader.stop()
        await second.stop()

    run(scenario)


def test_the_status_says_so_and_says_it_no_more(run: Callable[[Scenario], None]) -> None:
    async def scenario(store: Store) -> None:
        room: set[str] = set()
        document = {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "reviews", "namespace": "shop", "generation": 1},
            "spec": {"hosts": ["reviews"], "http": [{"route": [{"destination": {"host": "reviews"}}]}]},
        }
        await store.put(SERVICE, json.dumps(document).encode(), expected=0, who="test")
        statuses = StatusWriter(store, {SERVICE: parse(document)}, quiet=0.01)
        writing = asyncio.create_task(statuses.run())
        leader = Plane(store, "one", room, statuses.tell_refusals)
        second = Plane(store, "two", room)
        leader.lead()

        async def message() -> str:
            stored = await store.get(SERVICE)
            assert stored is not None
            conditions: list[Any] = json.loads(stored.document).get("status", {}).get("conditions", [])
            return "".join(one["message"] for one in conditions)

        async def says(words: str) -> None:
            async with asyncio.timeout(10):
                while await message() != words:
                    await asyncio.sleep(0.01)

        second.shared.tell({SERVICE: ["page.shop refuses 9080: no"]})
        await says("page.shop refuses 9080: no")
        second.shared.tell({})
        await says("")
        writing.cancel()
        await leader.stop()
        await second.stop()

    run(scenario)


def test_there_is_a_bound_to_what_others_are_told(run: Callable[[Scenario], None], caplog: Any) -> None:
    async def scenario(store: Store) -> None:
        room: set[str] = set()
        leader, second = Plane(store, "one", room), Plane(store, "two", room)
        leader.lead()
        second.shared.tell({SERVICE: [f"{number:03} refuses {'x' * 1000}" for number in range(40)]})
        await until(lambda: len(leader.told.get(SERVICE, ())) == 6)
        assert leader.told[SERVICE][-1] == "and 35 more"
        assert {len(one) for one in leader.told[SERVICE][:-1]} == {500}
        many = {ResourceKey("VirtualService", "shop", f"n{number}"): ["x" * 500] * 5 for number in range(1000)}
        second.shared.tell(many)
        await until(lambda: len(leader.told) > 90)
        (stored,) = (await store.list(KIND)).items
        assert len(stored.document) < 300_000
        assert "other control planes are told of" in caplog.text
        await leader.stop()
        await second.stop()

    run(scenario)


def test_nothing_is_written_while_nobody_else_is_there(run: Callable[[Scenario], None]) -> None:
    async def scenario(store: Store) -> None:
        before = await store.revision()
        heard: list[Told] = []
        alone = SharedRefusals(store, Alone("me"), heard.append, look=LOOK)
        tasks = [asyncio.create_task(each()) for each in (alone.report, alone.follow)]
        await alone.heard()
        alone.tell({SERVICE: ["it refuses"]})
        await asyncio.sleep(LOOK * 5)
        assert heard[-1] == {SERVICE: ["it refuses"]}
        assert await store.revision() == before
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(scenario)


def test_a_store_that_is_away_for_a_while_loses_nothing(run: Callable[[Scenario], None]) -> None:
    async def scenario(store: Store) -> None:
        room: set[str] = set()
        leader, second = Plane(store, "one", room), Plane(store, "two", room)
        leader.lead()
        second.shared.tell({SERVICE: ["it refuses"]})
        await until(lambda: leader.told == {SERVICE: ["it refuses"]})
        calls: list[str] = []

        class Away:
            async def list(self, *_: Any, **__: Any) -> Any:
                calls.append("list")
                raise Unavailable("it is away")

            async def get(self, *_: Any) -> Any:
                calls.append("get")
                raise Unavailable("it is away")

        for plane in (leader, second):
            plane.shared._store = Away()  # type: ignore[assignment]
        await until(lambda: calls.count("list") > 2 and calls.count("get") > 2)
        leader.shared.tell({OTHER: ["another"]})
        assert leader.told == {SERVICE: ["it refuses"], OTHER: ["another"]}
        second.shared.tell({})
        for plane in (leader, second):
            plane.shared._store = store
        await until(lambda: leader.told == {OTHER: ["another"]})
        await leader.stop()
        await second.stop()

    run(scenario)


def test_what_another_release_writes_otherwise_is_not_fatal(run: Callable[[Scenario], None]) -> None:
    async def scenario(store: Store) -> None:
        room = {"new"}
        leader = Plane(store, "one", room)
        leader.lead()
        for document in (b'{"v": 2}', b"[[1]]", b"[1]", b"not JSON"):
            await store.put(ResourceKey(KIND, "", "new"), document, expected=None, who="test")
            await leader.shared.heard()
            leader.shared.tell({OTHER: ["another"]})
            await asyncio.sleep(LOOK * 3)
            assert leader.told == {OTHER: ["another"]}
            assert not leader.tasks[-1].done()
        await leader.stop()

    run(scenario)
