"""Workers of one configuration, with processes that are nothing but a few lines."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from sidecar import overload_stack
from sidecar.core.worker import Worker
from sidecar.lifecycle import worker_process
from sidecar.lifecycle.generation import Generation
from sidecar.lifecycle.later_sockets import LaterSockets
from sidecar.overload.monitors import Share
from sidecar.server import load
from sidecar.stack import Stack
from sidecar.telemetry.configured_settings import compile_settings
from sidecar.telemetry.store import StatsStore
from tests.sidecar.bootstraps import bootstrap

NO_SOCKETS = LaterSockets(2, lambda listener, known: {})


class NoExchange:
    ended = 0

    def of_worker(self, number: int) -> Sequence[int]:
        return ()

    def close(self, number: int) -> None: ...

    def end(self) -> None:
        self.ended += 1


def descriptors() -> set[str]:
    return {name for name in os.listdir("/proc/self/fd") if Path(f"/proc/self/fd/{name}").exists()}


def test_a_worker_that_cannot_be_started_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError(24, "Too many open files")

    async def run() -> None:
        exchange = NoExchange()
        before = descriptors()
        generation = Generation(b"", 2, {}, exchange, 0, 1.0, lambda changes: None, NO_SOCKETS)
        monkeypatch.setattr(worker_process, "Child", fails)
        with pytest.raises(OSError, match="Too many open files"):
            await generation.start()
        generation.kill()
        assert descriptors() == before
        assert exchange.ended == 1

    asyncio.run(run())


def test_what_cannot_be_replaced_now_is_tried_again_soon(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-c", "raise SystemExit(3)"])

    def fails(*_: object) -> None:
        raise OSError(24, "Too many open files")

    async def run() -> None:
        generation = Generation(b"", 1, {}, NoExchange(), 0, 1.0, lambda changes: None, NO_SOCKETS)
        assert await generation.start() == "one of them has ended"
        generation.lasts = True
        monkeypatch.setattr(worker_process, "Child", fails)
        async with asyncio.timeout(10):
            generation._replace(generation.workers[0])
            while caplog.text.count("cannot start worker 0") < 3:
                await asyncio.sleep(0.01)
        generation.kill()

    asyncio.run(run())
    waits = [record.args[2] for record in caplog.records if record.args and "cannot start" in record.msg]  # type: ignore[index]
    assert waits == [0.1, 0.2, 0.4]


def test_the_limit_on_memory_is_shared_by_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def most(workers: int) -> float:
        loaded, _, _ = load(bootstrap())
        stack = Stack(
            loaded,
            Worker(asyncio.get_running_loop(), workers=workers),
            StatsStore(compile_settings(loaded.stats_config)),
        )
        watched = {one.name: one.monitor for one in stack.overload.manager.watched}
        await stack.close()
        heap = watched["envoy.resource_monitors.fixed_heap"]
        assert isinstance(heap, Share)
        return heap.most

    monkeypatch.setattr(overload_stack, "memory_limit", lambda: 8 << 30)
    assert asyncio.run(most(4)) == pytest.approx(asyncio.run(most(1)) / 4)
