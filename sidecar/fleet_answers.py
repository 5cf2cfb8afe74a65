"""What the administration interface of several workers asks them, with patience that has an end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sidecar.admin.fleet import FleetAdmin, FleetContext
from sidecar.admin.page import Page
from sidecar.config.matcher import StringMatcher
from sidecar.stack import Stack
from sidecar.telemetry import tags
from sidecar.telemetry.groups.lifecycle import WorkerPresence
from sidecar.telemetry.merged import Merged, snapshot
from sidecar.telemetry.stats_query import StatsPage, stats_page

if TYPE_CHECKING:
    from sidecar.fleet import Fleet
    from sidecar.lifecycle.worker_process import Reply, WorkerProcess

log = logging.getLogger("sidecar.fleet")

_PATIENCE = 3.0
"""Seconds without a word from a worker after which its answer is not waited for any more."""

_MOVING = 1.0
"""Seconds that statistics wait for those that are on their way from workers that leave to those that stay."""


class FleetAnswers:
    """Asks the workers of a fleet. ``stack`` is the parent's own, with the statistics of the administration interface."""

    def __init__(self, fleet: Fleet, stack: Stack) -> None:
        self._fleet = fleet
        self._stack = stack

    def admin(self, allow_paths: tuple[StringMatcher, ...]) -> FleetAdmin:
        """The administration interface that asks here."""
        fleet = self._fleet
        context = FleetContext(
            self.one, self.all, self.stats, fleet.state, self._set_health_check, self.drain_listeners, fleet.quit,
            fleet.started_at, time.time, allow_paths,
        )  # fmt: skip
        return FleetAdmin(context)

    def _set_health_check(self, failed: bool) -> None:
        self._fleet.health_check_failed = failed

    async def one(self, method: bytes, target: bytes) -> Page:
        """The page of the first worker that answers. Raises ConnectionError if there is none."""
        for worker in self._fleet.answering():
            try:
                return _page(await worker.ask(_PATIENCE, **_question(method, target)))
            except (ConnectionError, TimeoutError):
                continue
        raise ConnectionRefusedError("no worker serves")

    async def all(self, method: bytes, target: bytes) -> tuple[list[Page], list[int]]:
        """The pages of all workers, and the numbers of those that do not answer. Raises ConnectionError if none does."""
        replies, missing = await self._ask(_question(method, target))
        if not replies:
            raise ConnectionRefusedError("no worker answers")
        return [_page(reply) for reply in replies], missing

    async def _ask(self, question: dict[str, Any]) -> tuple[list[Reply], list[int]]:
        workers = self._fleet.answering()
        asked = await asyncio.gather(*(worker.ask(_PATIENCE, **question) for worker in workers), return_exceptions=True)
        replies = [reply for reply in asked if not isinstance(reply, BaseException)]
        return replies, _silent(workers, asked)

    async def stats(self, parameters: dict[str, str], as_prometheus: bool) -> tuple[StatsPage, list[int]]:
        """The statistics of all workers, and the numbers of those that are missing there."""
        until = time.monotonic() + _MOVING
        while any(not one.silent for one in self._fleet.moving()) and time.monotonic() < until:
            await asyncio.sleep(0.005)
        merged = Merged(self._stack.store.settings)
        for part in snapshot(self._stack.scraped_store()):
            merged.add(part, "admin.")
        replies, missing = await self._ask({"snapshot": None})
        for reply in replies:
            for part in reply.parts:
                merged.add(part)
                await asyncio.sleep(0)
        for number in range(self._fleet.concurrency):
            presence = merged.store.add(WorkerPresence(), *tags.worker(tags.Naming("server."), number))
            presence.missing = int(number in missing)
        return stats_page(merged.store, parameters, as_prometheus=as_prometheus), missing

    async def drain_listeners(self, target: bytes, *, graceful: bool, skip_exit: bool, inboundonly: bool) -> list[int]:
        """Let all workers drain their listeners; the numbers of those that do not answer."""
        fleet = self._fleet
        if not skip_exit or not graceful:
            after = max(0.0, fleet.drain_time - 0.05) if graceful else 0.0
            names = fleet.give_up_sockets(inboundonly=inboundonly, after=after)
            for worker in fleet.serving():
                worker.order(own=names)
        _, missing = await self.all(b"POST", target)
        return missing

    def __repr__(self) -> str:
        return f"<FleetAnswers of {self._fleet!r}>"


def _silent(workers: Sequence[WorkerProcess], asked: Sequence[object]) -> list[int]:
    missing = [worker for worker, reply in zip(workers, asked, strict=True) if isinstance(reply, TimeoutError)]
    for worker in missing:
        log.warning("worker %d (process %d) does not answer", worker.number, worker.pid)
    return [worker.number for worker in missing]


def _question(method: bytes, target: bytes) -> dict[str, Any]:
    return {"ask": None, "method": method.decode("latin-1"), "target": target.decode("latin-1")}


def _page(reply: Reply) -> Page:
    return Page(reply.status, reply.content_type, b"".join(part["data"].encode("latin-1") for part in reply.parts))
