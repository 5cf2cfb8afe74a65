"""``--concurrency N``: the parent of several workers, which owns every listening socket and the administration interface.

Each worker is a process with our command line and one socket for each address (SO_REUSEPORT), which is passed to it and stays
open here: one that dies loses no connection that was queued for it, and its replacement serves on the same socket.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from sidecar.config.bootstrap import Bootstrap
from sidecar.config.problems import ConfigurationError
from sidecar.core.hot_restart import RESTART_TIMEOUT
from sidecar.core.worker import Worker
from sidecar.fleet_answers import FleetAnswers
from sidecar.fleet_counts import Counts
from sidecar.fleet_sockets import close_left, close_new, close_own, named, take
from sidecar.lifecycle.generation import SOON, Generation
from sidecar.lifecycle.handover import HandoverError, Predecessor, Sockets, Successor, close_all
from sidecar.lifecycle.later_sockets import LaterSockets
from sidecar.lifecycle.phases import Event, Life, Phase
from sidecar.lifecycle.supervisor import notify_supervisor
from sidecar.lifecycle.worker_process import State, WorkerProcess
from sidecar.listener.balanced import Exchange
from sidecar.listener.sockets import listen_for_each
from sidecar.server import FIRST_WORDS
from sidecar.stack import Stack
from sidecar.telemetry.configured_settings import compile_settings
from sidecar.telemetry.store import StatsStore

log = logging.getLogger("sidecar.fleet")

Loaded = tuple[Bootstrap, bytes, list[str]]
"""The checked bootstrap, its serialised message, and warnings."""


class Fleet:
    """The parent. ``load`` reads the configuration as it is now; it raises ConfigurationError. Times are in seconds."""

    def __init__(
        self,
        load: Callable[[], Loaded],
        concurrency: int,
        *,
        drain_time: float,
        announce_time: float,
        parent_shutdown_time: float,
        restart_timeout: float = RESTART_TIMEOUT,
        base_id: Any = None,
        successor: Successor | None = None,
    ) -> None:
        self._load = load
        self._loaded = load()
        self.concurrency = concurrency
        self.drain_time = drain_time
        self.announce_time = announce_time
        self.parent_shutdown_time = parent_shutdown_time
        self.restart_timeout = restart_timeout
        self.base_id = base_id
        self.successor = successor
        self.epoch = 0
        self.loop = asyncio.get_running_loop()
        self.life = Life(self._entered)
        self.stack: Stack | None = None
        self.sockets: Sockets = {}
        self.later = LaterSockets(concurrency, self._listen_later)
        self._unclaimed: Sockets = {}
        self.current: Generation | None = None
        self.coming: Generation | None = None
        self.leaving: list[Generation] = []
        self.health_check_failed = False
        self.started_at = time.time()
        self._others: frozenset[str] = frozenset()  # keys of sockets on which another process serves
        self._now = asyncio.Event()
        self._starting: asyncio.Task[bool] | None = None
        self._rolling: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._counts = Counts(self.serving)
        self._predecessors: list[Predecessor] = []

    @property
    def bootstrap(self) -> Bootstrap:
        """The configuration that is served."""
        return self._loaded[0]

    # the beginning

    async def run(self) -> int:
        """Start all workers, and keep them running until a signal; the exit status."""
        self._starting = self.loop.create_task(self._start())
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self._on_end_signal, number)
        self.loop.add_signal_handler(signal.SIGHUP, self._on_hang_up)
        self.loop.add_signal_handler(signal.SIGUSR1, self._on_reopen)
        try:
            if not await self._starting:
                return 1
        except (OSError, HandoverError) as error:
            log.critical("cannot start: %s", error)
            return 1
        except asyncio.CancelledError:
            return 0
        else:
            self._starting = None
            await self._now.wait()
            return 0
        finally:
            await self._stop()
            log.info("stopped")

    async def _start(self) -> bool:
        self.stack = stack = self._build()
        if self.base_id is not None:
            self.base_id.prepare()
        inherited = {} if self.successor is None else await self.successor.take_sockets()
        self._others = frozenset(inherited)
        try:
            take(self.bootstrap, self.concurrency, inherited, self.sockets)
            stack.bind(inherited)
        except BaseException:
            close_all(inherited)
            raise
        self._unclaimed = inherited  # what is discovered may be for these
        if self.successor is not None:
            self.epoch = self.successor.epoch
        self.life.on(Event.BOUND)
        coming = self.coming = self._generation(self._loaded, self.sockets, self.epoch)
        try:
            if await coming.start():
                return False
        finally:
            close_all(self._unclaimed)
            self._unclaimed = {}
        self.coming, self.current = None, coming
        self.life.on(Event.INITIALIZED)
        stack.listen()
        if self.successor is not None:
            self._succeed(self.successor, stack)
        if self.base_id is not None:
            self.base_id.listen(self.loop, self._on_successor)
        notify_supervisor("READY=1")
        log.info("%d workers serve", len(coming.workers))
        return True

    def _succeed(self, successor: Successor, stack: Stack) -> None:
        self._others = frozenset()
        successor.on_statistics = self._counts.add
        if stack.admin_listener is not None:
            stack.admin_listener.shared = frozenset()
            stack.admin_listener.pause_accepting()  # until it is told where counters go on
            resume = stack.admin_listener.resume_accepting
            successor.on_connections = lambda connections: resume()
            self.loop.call_later(FIRST_WORDS, resume)
            successor.serving([*self.sockets, *self.later.sockets, *stack.admin_listener.keys])
        else:
            successor.serving([*self.sockets, *self.later.sockets])
        self.loop.call_later(self.parent_shutdown_time, successor.end_predecessor)

    def _build(self) -> Stack:
        """Of the whole stack, the administration interface alone."""
        whole = self.bootstrap
        bare = Bootstrap(
            node=whole.node, admin=whole.admin, stats_config=whole.stats_config, layered_runtime=whole.layered_runtime
        )
        stack = Stack(bare, Worker(self.loop), StatsStore(compile_settings(bare.stats_config)))
        if whole.admin is not None and whole.admin.address is not None:
            stack.add_admin(FleetAnswers(self, stack).admin(whole.admin.allow_paths))
        return stack

    def _generation(self, loaded: Loaded, sockets: Sockets, epoch: int) -> Generation:
        _, serialized, warnings = loaded
        for warning in warnings:
            log.warning("%s", warning)
        exchange = Exchange(self.concurrency)
        return Generation(serialized, self.concurrency, sockets, exchange, epoch, self.restart_timeout, self._counts.add,
                          self.later)  # fmt: skip

    def serving(self) -> list[WorkerProcess]:
        """The workers that serve now, by their numbers."""
        return [] if self.current is None else self.current.serving()

    # restarts

    def _on_hang_up(self) -> None:
        if self.life.phase is not Phase.SERVING or self._rolling is not None:
            log.warning("SIGHUP: there is no restart while one is under way, or while this process starts or drains")
            return
        log.info("SIGHUP: starting the next workers")
        notify_supervisor("RELOADING=1")
        self._rolling = self.loop.create_task(self._roll())

    async def _roll(self) -> None:
        try:
            if reason := await self._try_to_roll():
                log.error("the next workers do not serve: %s; these go on", reason)
        finally:
            self._rolling = None
            notify_supervisor("READY=1")

    async def _try_to_roll(self) -> str:
        """Why it has failed, if it has."""
        try:
            loaded = await asyncio.to_thread(self._load)
        except ConfigurationError as error:
            return str(error)
        if loaded[0].admin != self.bootstrap.admin:
            log.warning("admin: what has changed there takes effect with the next start, not with SIGHUP")
        before = self.sockets
        after: Sockets = {}
        try:
            take(loaded[0], self.concurrency, {key: list(each) for key, each in before.items()}, after)
            coming = self.coming = self._generation(loaded, after, self.epoch + 1)
            reason = await coming.start()
        except OSError as error:
            reason = str(error)
        if reason:
            if self.coming is not None:
                self._retire(self.coming, frozenset((*before, *self.later.sockets)))
                self.coming = None
            close_new(after, before)
            return reason
        assert self.current is not None
        old, self.current, self.coming = self.current, coming, None
        self._loaded = loaded
        self.sockets = after
        self.epoch = coming.epoch
        self.health_check_failed = False  # the new workers do not know of it
        close_left(before, after)
        self._retire(old, frozenset((*after, *self.later.sockets)))
        return ""

    def _listen_later(self, listener: bytes, known: Sockets) -> Sockets:
        """The sockets of a listener that workers have discovered."""
        from sidecar.xds_worker import parse_addresses  # only for those who discover listeners

        inherited = {**{key: list(each) for key, each in self._unclaimed.items()}, **known}
        try:
            found = listen_for_each(parse_addresses(listener), self.concurrency, inherited)
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        for key in found:
            self._unclaimed.pop(key, None)
        return found

    def _retire(self, generation: Generation, keys: frozenset[str]) -> None:
        self.leaving = [one for one in self.leaving if one.alive()]
        self.leaving.append(generation)
        generation.hand_over(keys, self.parent_shutdown_time)

    # the next parent

    def _on_successor(self, sock: socket.socket) -> None:
        predecessor = Predecessor(self.loop, sock, self, lambda handed_over: self._on_done(predecessor, handed_over))
        self._predecessors.append(predecessor)

    def _on_done(self, predecessor: Predecessor, handed_over: bool) -> None:
        if not handed_over:
            self._predecessors.remove(predecessor)

    def sockets_to_hand_over(self) -> Sockets:
        """All of them, and that of the administration interface."""
        admin = None if self.stack is None else self.stack.admin_listener
        own = {} if admin is None else dict(zip(admin.keys, ([sock] for sock in admin.sockets), strict=True))
        return {**self.sockets, **self.later.sockets, **own}

    def hand_over(self, keys: frozenset[str]) -> None:
        """Another parent's workers serve: drain ours."""
        log.info("another process serves: draining for at most %.0f seconds", self.parent_shutdown_time)
        self.life.on(Event.HANDED_OVER)
        if self.base_id is not None:
            self.base_id.give_up(remove=False)
        assert self.stack is not None and self.current is not None
        if self.stack.admin_listener is not None:
            self.stack.admin_listener.shared = keys.intersection(self.stack.admin_listener.keys)
            self.stack.admin_listener.stop_accepting()
        self._stop_rolling()
        close_all(self.sockets)
        self.later.close()
        self.sockets = {}
        self._retire(self.current, keys)
        self._ending = self.loop.create_task(self._when_empty(self.parent_shutdown_time))

    def _stop_rolling(self) -> None:
        """No next generation: what of it serves already drains with the others."""
        if self._rolling is not None:
            self._rolling.cancel()
        coming, self.coming = self.coming, None
        if coming is not None:
            close_new(coming.sockets, self.sockets)
            self._retire(coming, frozenset((*self.sockets, *self.later.sockets)))

    def changes(self, *, ending: bool = False) -> Iterator[list[Any]]:
        """What our workers have told since the last call."""
        return self._counts.take()

    def connections(self) -> int:
        """How many downstream connections our workers have."""
        return sum(worker.connections for worker in self._alive())

    def stop_soon(self) -> None:
        """End: the time for the drain is over."""
        self._now.set()

    # the end

    def _entered(self, before: Phase, event: Event, after: Phase) -> None:
        log.info("%s: %s", after.name.lower(), event.value)

    def _on_end_signal(self, number: signal.Signals) -> None:
        if self._starting is not None and not self._starting.done():
            log.info("%s: stopping before the start was complete", number.name)
            self._starting.cancel()
        elif self._ending is not None or self.life.phase is not Phase.SERVING:
            log.warning("%s: stopping at once", number.name)
            self._now.set()
        else:
            log.info("%s: draining for at most %.0f seconds", number.name, self.drain_time)
            notify_supervisor("STOPPING=1")
            self._ending = self.loop.create_task(self._drain())

    async def _drain(self) -> None:
        self._stop_rolling()
        self.life.on(Event.ASKED_TO_END)
        for worker in self.serving():
            worker.order(announce=True)
        await asyncio.sleep(self.announce_time)
        self.life.on(Event.ANNOUNCED_LONG_ENOUGH)
        close_all(self.sockets)
        self.later.close()
        if self.current is not None:
            self.current.drain(self.drain_time)
        for generation in self.leaving:
            for worker in generation.alive():
                worker.order(hurry=True)
        await self._when_empty(self.drain_time)

    async def _when_empty(self, limit: float) -> None:
        until = time.monotonic() + limit + SOON
        while (left := self._alive()) and time.monotonic() < until:
            await asyncio.sleep(0.02)
        self.life.on(Event.OUT_OF_TIME if left else Event.EMPTY)
        self._now.set()

    def _generations(self) -> list[Generation]:
        return [one for one in (self.current, self.coming, *self.leaving) if one is not None]

    def _alive(self) -> set[WorkerProcess]:
        return {worker for generation in self._generations() for worker in generation.alive()}

    async def _stop(self) -> None:
        if self.stack is not None:
            await self.stack.finish_answers()
        self.life.on(Event.STOPPED)
        for task in (self._rolling, self._ending):
            if task is not None:
                task.cancel()
        for generation in self._generations():
            generation.kill()
        until = time.monotonic() + SOON
        while self._alive() and time.monotonic() < until:
            await asyncio.sleep(0.01)
        if self.base_id is not None:
            self.base_id.give_up(remove=True)
        for predecessor in self._predecessors:
            predecessor.end()
        if self.successor is not None:
            self.successor.close()
        close_own(self.sockets, self._others)
        if self.stack is not None:
            await self.stack.close()

    def _on_reopen(self) -> None:
        for worker in self.serving():
            worker.order(reopen=True)

    # what the administration interface asks for: `fleet_answers.py`

    def state(self) -> str:
        """As /ready says it."""
        if self.life.phase is Phase.SERVING and (self.health_check_failed or not self.serving()):
            return "DRAINING" if self.health_check_failed else "INITIALIZING"
        return self.life.state

    def answering(self) -> list[WorkerProcess]:
        """The workers whose numbers are ours: those that serve, or drain the last of the sockets."""
        return [] if self.current is None else self.current.answering()

    def moving(self) -> list[WorkerProcess]:
        """The workers that leave, and have not told yet what they had counted before."""
        return [one for each in self.leaving for one in each.alive() if one.state is State.DRAINING and not one.told]

    def quit(self) -> None:
        """End at once."""
        self._now.set()

    def give_up_sockets(self, *, inboundonly: bool, after: float) -> list[str]:
        """Close the sockets of listeners here, too, after so many seconds, so that nothing is queued there that nobody serves.
        The names of the listeners, whose workers must own the sockets then.
        """
        names, keys = named(self.bootstrap, inboundonly)

        def close() -> None:
            for key in keys:
                close_all({key: self.sockets.pop(key, [])})

        if after:
            self.loop.call_later(after, close)
        else:
            close()
        return names

    def __repr__(self) -> str:
        return f"<Fleet of {self.concurrency} workers>"
