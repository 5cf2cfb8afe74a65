"""The stores of the tests: one of each implementation, made anew for each test, and a loop to run it in."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from controlplane.galley.etcd_store import EtcdStore
from controlplane.galley.sqlite_store import SqliteStore
from controlplane.model.resource import ResourceKey
from controlplane.model.store import Event, Store
from tests.controlplane.galley import etcds

T = TypeVar("T")
MakeStore = Callable[[], Awaitable[Store]]


def key(name: str, namespace: str = "shop", kind: str = "VirtualService") -> ResourceKey:
    return ResourceKey(kind, namespace, name)


@asynccontextmanager
async def sqlite(directory: Path) -> AsyncIterator[MakeStore]:
    """Gives a function that opens the same store again, after it was closed."""
    opened: list[SqliteStore] = []

    async def make() -> Store:
        opened.append(await SqliteStore.open(directory / "store.db"))
        return opened[-1]

    try:
        yield make
    finally:
        for store in opened:
            await store.close()


@asynccontextmanager
async def etcd(directory: Path) -> AsyncIterator[MakeStore]:
    """Likewise: stores below one prefix, which no other test uses."""
    opened: list[EtcdStore] = []
    url = f"{etcds.shared().url}/test-{uuid.uuid4().hex}?keep=0"

    async def make() -> Store:
        opened.append(await EtcdStore.open(url))
        return opened[-1]

    try:
        yield make
    finally:
        for store in opened:
            await store.close()


STORES = [pytest.param(sqlite, id="sqlite"), pytest.param(etcd, id="etcd", marks=etcds.needs_etcd)]


async def take(store: Store, count: int, since: int, kinds: Collection[str] | None = None) -> list[Event]:
    """The next events of a watch, at most ``count``."""
    found: list[Event] = []
    async with asyncio.timeout(10), aclosing(store.watch(since, kinds)) as events:
        async for event in events:
            found.append(event)
            if len(found) == count:
                break
    return found
