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

from sidecar.admin.fleet import FleetAdmin, FleetContext
from sidecar.admin.page import Page
from sidecar.config.bootstrap import Bootstrap
from sidecar.config.problems import ConfigurationError
from sidecar.core.worker import Worker
from sidecar.lifecycle.handover import HandoverError, Predecessor, Sockets, Successor, close_all
from sidecar.lifecycle.phases import Event, Life, Phase
from sidecar.lifecycle.supervisor import notify_supervisor
from sidecar.lifecycle.worker_process import State, WorkerProcess
from sidecar.listener.balanced import Exchange
from sidecar.listener.sockets import close as close_socket
from sidecar.listener.sockets import listen_for_each
from sidecar.stack import Stack
from sidecar.telemetry.configured_settings import compile_settings
from sidecar.telemetry.merged import Merged, snapshot
from sidecar.telemetry.stats_query import stats_page
from sidecar.telemetry.store import StatsStore

log = logging.getLogger("sidecar.fleet")

_BACK_OFF = 0.1
_LONGEST_BACK_OFF = 30.0
_FORGIVEN_AFTER = 60.0
"""Seconds after which the death of a worker does not lengthen the wait for its replacement any more."""

_SOON = 5.0
"""Seconds that a worker has to end after the time for its drain is over."""


class Fleet:
    """The parent. ``load`` reads the configuration as it is now; it raises ConfigurationError. Times are in seconds."""

    def __init__(
        self,
        load: Callable[[], Bootstrap],
        concurrency: int,
        *,
        drain_time: float,
        announce_time: float,
        parent_shutdown_time: float,
        base_id: Any = None,
        successor: Successor | None = None,
    ) -> None:
        self._load = load
        self.bootstrap = load()
        self.concurrency = concurrency
        self.drain_time = drain_time
        self.announce_time = announce_time
        self.parent_shutdown_time = parent_shutdown_time
        self.base_id = base_id
        self.successor = successor
        self.epoch = 0
        self.loop = asyncio.get_running_loop()
        self.life = Life(self._entered)
        self.stack: Stack | None = None
        self.sockets: Sockets = {}
        self.workers: dict[int, WorkerProcess] = {}
        self.leaving: set[WorkerProcess] = set()
        self.health_check_failed = False
        self.started_at = time.time()
        self._now = asyncio.Event()
        self._changed = asyncio.Event()
        self._rolling: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._deaths: dict[int, list[float]] = {}
        self._pending: list[Any] = []
        self._predecessors: list[Predecessor] = []
        self._coming: dict[int, WorkerProcess] = {}
        self._exchange = Exchange(concurrency)

    # the beginning

    async def run(self) -> int:
        """Start all workers, and keep them running until a signal; the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self._on_end_signal, number)
        self.loop.add_signal_handler(signal.SIGHUP, self._on_hang_up)
        self.loop.add_signal_handler(signal.SIGUSR1, self._on_reopen)
        try:
            if not await self._start():
                return 1
        except (OSError, HandoverError) as error:
            log.critical("cannot start: %s", error)
            return 1
        else:
            await self._now.wait()
            return 0
        finally:
            await self._stop()
            log.info("stopped")

    async def _start(self) -> bool:
        self.stack = stack = self._build()
        inherited = {} if self.successor is None else await self.successor.take_sockets()
        try:
            for config in self.bootstrap.static_resources.listeners:
                if config.bind_to_port:
                    self.sockets |= listen_for_each(config, self.concurrency, inherited)
            stack.bind(inherited)
        finally:
            close_all(inherited)
        if self.successor is not None:
            self.epoch = self.successor.epoch
        self.life.on(Event.BOUND)
        if not await self._start_all():
            return False
        for number, worker in self._coming.items():
            self.workers[number] = worker
        self._coming = {}
        self.life.on(Event.INITIALIZED)
        stack.listen()
        if self.successor is not None:
            self._succeed(self.successor, stack)
        if self.base_id is not None:
            self.base_id.listen(self.loop, self._on_successor)
        notify_supervisor("READY=1")
        log.info("%d workers serve", len(self.workers))
        return True

    def _succeed(self, successor: Successor, stack: Stack) -> None:
        successor.on_statistics = lambda changes: self.workers[0].order(changes=changes)
        if stack.admin_listener is not None:
            stack.admin_listener.shared = False
            successor.serving([*self.sockets, *stack.admin_listener.keys])
        else:
            successor.serving(self.sockets)
        self.loop.call_later(self.parent_shutdown_time, successor.end_predecessor)

    def _build(self) -> Stack:
        """Of the whole stack, the administration interface alone."""
        whole = self.bootstrap
        bare = Bootstrap(
            node=whole.node, admin=whole.admin, stats_config=whole.stats_config, layered_runtime=whole.layered_runtime
        )
        stack = Stack(bare, Worker(self.loop), StatsStore(compile_settings(bare.stats_config)))
        admin = self.bootstrap.admin
        if admin is not None and admin.address is not None:
            context = FleetContext(
                self._ask_one, self._ask_all, self._stats, self._state, self._set_health_check, self._drain_listeners,
                self._now.set, self.started_at, time.time, admin.allow_paths,
            )  # fmt: skip
            stack.add_admin(FleetAdmin(context))
        return stack

    def _sockets_of(self, number: int) -> Sockets:
        """Those that a worker serves on: every Nth, or the one that all share."""
        step = self.concurrency
        return {key: each[number::step] if len(each) >= step else each for key, each in self.sockets.items()}

    async def _start_all(self) -> bool:
        """A generation of workers in ``_coming``: one first, so that what is wrong is said once. Whether all serve."""
        self._coming = {}
        exchange = self._exchange
        for numbers in ((0,), range(1, self.concurrency)):
            for number in numbers:
                self._coming[number] = WorkerProcess(self, number, self._sockets_of(number), exchange.of_worker(number))
            while any(worker.state is State.STARTING for worker in self._coming.values()):
                self._changed.clear()
                await self._changed.wait()
                if self._now.is_set():
                    return False
            if not all(worker.state is State.SERVING for worker in self._coming.values()):
                return False
        return True

    # what workers tell

    def on_serving(self, worker: WorkerProcess) -> None:
        self._changed.set()

    def on_changes(self, worker: WorkerProcess, changes: list[Any]) -> None:
        """A worker that leaves tells what it has counted: its replacement counts on from there."""
        replacement = self.workers.get(worker.number)
        if replacement is not None and replacement is not worker and self.life.phase is Phase.SERVING:
            replacement.order(changes=changes)
        else:
            self._pending.append(changes)

    def on_exit(self, worker: WorkerProcess, status: int, before: State) -> None:
        self.leaving.discard(worker)
        self._changed.set()
        if self.workers.get(worker.number) is not worker:
            return
        if self.life.phase is not Phase.SERVING or before is State.DRAINING:
            del self.workers[worker.number]
            return
        self._exchange.board.close(worker.number)
        now = time.monotonic()
        deaths = self._deaths[worker.number] = [
            death for death in self._deaths.get(worker.number, ()) if now - death < _FORGIVEN_AFTER
        ]
        wait = min(_LONGEST_BACK_OFF, _BACK_OFF * 2 ** len(deaths))
        deaths.append(now)
        log.error("worker %d (process %d) has ended with status %d; starting another in %.1f s", worker.number,
                  worker.pid, status, wait)  # fmt: skip
        self.loop.call_later(wait, self._replace, worker)

    def _replace(self, dead: WorkerProcess) -> None:
        if self.life.phase is Phase.SERVING and self.workers.get(dead.number) is dead:
            try:
                self.workers[dead.number] = WorkerProcess(
                    self, dead.number, self._sockets_of(dead.number), self._exchange.of_worker(dead.number)
                )
            except OSError as error:
                log.error("cannot start worker %d: %s", dead.number, error)
                self.loop.call_later(_LONGEST_BACK_OFF, self._replace, dead)

    def serving(self) -> list[WorkerProcess]:
        """The workers that serve now, by their numbers."""
        return [worker for _, worker in sorted(self.workers.items()) if worker.state is State.SERVING]

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
            bootstrap = await asyncio.to_thread(self._load)
        except ConfigurationError as error:
            return str(error)
        if bootstrap.admin != self.bootstrap.admin:
            log.warning("admin: what has changed there takes effect with the next start, not with SIGHUP")
        before = self.sockets
        known = {key: list(each) for key, each in before.items()}
        after: Sockets = {}
        try:
            for config in bootstrap.static_resources.listeners:
                if config.bind_to_port:
                    after |= listen_for_each(config, self.concurrency, known)
        except OSError as error:
            close_all({key: each for key, each in after.items() if key not in before})
            return str(error)
        self.sockets = after
        exchange, self._exchange = self._exchange, Exchange(self.concurrency)
        self.epoch += 1
        try:
            started = await self._start_all()
        except OSError as error:
            started = False
            log.error("cannot start a worker: %s", error)
        if not started:
            self.epoch -= 1
            self.sockets = before
            exchange, self._exchange = self._exchange, exchange
            exchange.end()
            self._send_away(self._coming, frozenset(before))
            close_all({key: each for key, each in after.items() if key not in before})
            self._coming = {}
            return "one of them has ended"
        exchange.end()
        old, self.workers = self.workers, self._coming
        self._coming = {}
        self.bootstrap = bootstrap
        for key in before.keys() - after.keys():
            close_all({key: before[key]})  # the old workers serve what is queued there
        self._send_away(old, frozenset(after))
        return ""

    def _send_away(self, workers: dict[int, WorkerProcess], keys: frozenset[str]) -> None:
        for worker in workers.values():
            if worker.state is State.SERVING:
                worker.hand_over(keys, self.parent_shutdown_time)
                self.leaving.add(worker)
                self.loop.call_later(self.parent_shutdown_time + _SOON, self._kill, worker)
            elif worker.state is State.STARTING:
                worker.kill()

    def _kill(self, worker: WorkerProcess) -> None:
        if worker.state is not State.ENDED:
            worker.kill()

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
        return {**self.sockets, **own}

    def hand_over(self, keys: frozenset[str]) -> None:
        """Another parent's workers serve: drain ours."""
        log.info("another process serves: draining for at most %.0f seconds", self.parent_shutdown_time)
        self.life.on(Event.HANDED_OVER)
        if self.base_id is not None:
            self.base_id.give_up(remove=False)
        assert self.stack is not None
        if self.stack.admin_listener is not None:
            self.stack.admin_listener.shared = True
            self.stack.admin_listener.stop_accepting()
        close_all(self.sockets)
        self.sockets = {}
        self._send_away(self.workers, keys)
        self._ending = self.loop.create_task(self._when_empty(self.parent_shutdown_time))

    def changes(self, *, ending: bool = False) -> Iterator[list[Any]]:
        """What our workers have told since the last call."""
        pending, self._pending = self._pending, []
        return iter(pending)

    def connections(self) -> int:
        """How many downstream connections our workers have."""
        return sum(worker.connections for worker in (*self.workers.values(), *self.leaving))

    def stop_soon(self) -> None:
        """End: the time for the drain is over."""
        self._now.set()

    # the end

    def _entered(self, before: Phase, event: Event, after: Phase) -> None:
        log.info("%s: %s", after.name.lower(), event.value)

    def _on_end_signal(self, number: signal.Signals) -> None:
        if self._ending is not None or self.life.phase is not Phase.SERVING:
            log.warning("%s: stopping at once", number.name)
            self._now.set()
            self._changed.set()
            return
        log.info("%s: draining for at most %.0f seconds", number.name, self.drain_time)
        notify_supervisor("STOPPING=1")
        self._ending = self.loop.create_task(self._drain())

    async def _drain(self) -> None:
        self.life.on(Event.ASKED_TO_END)
        for worker in self.serving():
            worker.order(announce=True)
        await asyncio.sleep(self.announce_time)
        self.life.on(Event.ANNOUNCED_LONG_ENOUGH)
        close_all(self.sockets)
        for worker in (*self.workers.values(), *self._coming.values()):
            if worker.state is State.SERVING:
                worker.drain(self.drain_time)
            elif worker.state is State.STARTING:
                worker.kill()
        for worker in self.leaving:
            worker.order(hurry=True)
        await self._when_empty(self.drain_time)

    async def _when_empty(self, limit: float) -> None:
        until = time.monotonic() + limit + _SOON
        while (left := self._alive()) and time.monotonic() < until:
            await asyncio.sleep(0.02)
        self.life.on(Event.OUT_OF_TIME if left else Event.EMPTY)
        self._now.set()

    def _alive(self) -> list[WorkerProcess]:
        known = {*self.workers.values(), *self._coming.values(), *self.leaving}
        return [worker for worker in known if worker.state is not State.ENDED]

    async def _stop(self) -> None:
        self.life.on(Event.STOPPED)
        for task in (self._rolling, self._ending):
            if task is not None:
                task.cancel()
        for worker in self._alive():
            worker.kill()
        async with asyncio.timeout(_SOON):
            while self._alive():
                await asyncio.sleep(0.01)
        if self.base_id is not None:
            self.base_id.give_up(remove=True)
        for predecessor in self._predecessors:
            predecessor.end()
        if self.successor is not None:
            self.successor.close()
        for sock in (sock for each in self.sockets.values() for sock in each):
            close_socket(sock) if sock.fileno() >= 0 else None
        if self.stack is not None:
            await self.stack.close()

    def _on_reopen(self) -> None:
        for worker in self.serving():
            worker.order(reopen=True)

    # the administration interface

    def _state(self) -> str:
        if self.life.phase is Phase.SERVING and (self.health_check_failed or not self.serving()):
            return "DRAINING" if self.health_check_failed else "INITIALIZING"
        return self.life.state

    def _set_health_check(self, failed: bool) -> None:
        self.health_check_failed = failed

    async def _ask_one(self, method: bytes, target: bytes) -> Page:
        return _page(await _first(self.serving()).ask(**_question(method, target)))

    async def _ask_all(self, method: bytes, target: bytes) -> list[Page]:
        _first(self.serving())
        asked = [worker.ask(**_question(method, target)) for worker in self.serving()]
        replies = await asyncio.gather(*asked, return_exceptions=True)
        pages = [_page(reply) for reply in replies if not isinstance(reply, BaseException)]
        if not pages:
            raise ConnectionResetError("the workers have ended")
        return pages

    async def _stats(self, parameters: dict[str, str], as_prometheus: bool) -> Any:
        assert self.stack is not None
        asked = [worker.ask(snapshot=None) for worker in self.serving()]
        merged = Merged(self.stack.store.settings)
        for part in snapshot(self.stack.scraped_store()):
            merged.add(part, "admin.")
        for reply in await asyncio.gather(*asked, return_exceptions=True):
            if not isinstance(reply, BaseException):
                for part in reply.parts:
                    merged.add(part)
                    await asyncio.sleep(0)
        return stats_page(merged.store, parameters, as_prometheus=as_prometheus)

    async def _drain_listeners(self, target: bytes, *, graceful: bool, skip_exit: bool, inboundonly: bool) -> None:
        """The sockets are closed here, too, so that nothing is queued there that nobody serves."""
        chosen = [
            config
            for config in self.bootstrap.static_resources.listeners
            if not inboundonly or config.traffic_direction == "INBOUND"
        ]
        names = {config.name for config in chosen}
        if not skip_exit or not graceful:
            for worker in self.serving():
                worker.order(own=sorted(names))
            if graceful:
                self.loop.call_later(max(0.0, self.drain_time - 0.05), self._give_up_sockets, chosen)
            else:
                self._give_up_sockets(chosen)
        await self._ask_all(b"POST", target)

    def _give_up_sockets(self, chosen: list[Any]) -> None:
        from sidecar.listener.sockets import addresses_of, key_of

        for config in chosen:
            for address, _ in addresses_of(config):
                close_all({"": self.sockets.pop(key_of(config, address), [])})

    def __repr__(self) -> str:
        return f"<Fleet of {len(self.workers)} workers>"


def _question(method: bytes, target: bytes) -> dict[str, Any]:
    return {"ask": None, "method": method.decode("latin-1"), "target": target.decode("latin-1")}


def _first(workers: list[WorkerProcess]) -> WorkerProcess:
    if not workers:
        raise ConnectionRefusedError("no worker serves")
    return workers[0]


def _page(reply: Any) -> Page:
    return Page(reply.status, reply.content_type, b"".join(part["data"].encode("latin-1") for part in reply.parts))
