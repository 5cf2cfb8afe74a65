"""One serving process under a supervisor: signals, readiness, and restarts in which another process takes over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sidecar.core.hot_restart import RESTART_TIMEOUT
from sidecar.lifecycle.environment import BASE_ID, HANDOVER, STOOD_FOR
from sidecar.lifecycle.handover import HandoverError, Predecessor, Successor, pair
from sidecar.lifecycle.supervisor import notify_supervisor

if TYPE_CHECKING:
    from sidecar.lifecycle.base_id import BaseId
    from sidecar.lifecycle.children import Adopted, Child

log = logging.getLogger("sidecar.main")

_LAST_REQUESTS = 1.0
"""Seconds for requests that are under way in a process that ends because nothing listens any more."""


class Serving:
    """Runs a server until it ends. ``base_id`` is that of the command line; ``parent_shutdown_time`` is how many seconds a
    process has to drain when another has taken over, ``restart_timeout`` how many the next one has until it serves.

    A first SIGTERM or SIGINT drains, a second one stops at once; SIGHUP starts the next process, with the same command line,
    and drains when that one serves; SIGUSR1 reopens log files.
    """

    def __init__(
        self,
        server: Any,
        *,
        parent_shutdown_time: float = 900.0,
        restart_timeout: float = RESTART_TIMEOUT,
        base_id: BaseId | None = None,
        successor: Successor | None = None,
    ) -> None:
        self.server = server
        self.parent_shutdown_time = parent_shutdown_time
        self.restart_timeout = restart_timeout
        self.base_id = base_id
        self.successor = successor
        self.loop = asyncio.get_running_loop()
        self.now = asyncio.Event()
        self.next: Child | Adopted | None = None
        self.next_serves = False
        self.status = 0
        self.hurried = False
        self.predecessors: list[Predecessor] = []
        self.draining: asyncio.Task[None] | None = None
        self.starting: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Until the end; the exit status."""
        try:
            if self.base_id is not None:
                self.base_id.prepare()
            return await self._run()
        except (OSError, HandoverError) as error:
            log.critical("cannot start: %s", error)
            return 1
        finally:
            if self.base_id is not None:
                self.base_id.give_up(remove=False)

    async def _run(self) -> int:
        self.starting = self.loop.create_task(self.server.start(self.successor))
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self._on_end_signal, number)
        self.loop.add_signal_handler(signal.SIGHUP, self._on_hang_up)
        self.loop.add_signal_handler(signal.SIGUSR1, self._on_reopen)
        self.server.quit = self.now.set
        if STOOD_FOR in os.environ:
            self._watch_the_first()
        try:
            await self.starting
        except asyncio.CancelledError:
            return 0
        finally:
            self.starting = None
        self._serves()
        await self.now.wait()
        return await self._end()

    def _serves(self) -> None:
        if self.base_id is not None:
            self.base_id.listen(self.loop, lambda sock: self._on_successor(sock, ours=False))
        if self.successor is not None:
            self.loop.call_later(self.parent_shutdown_time, self.successor.end_predecessor)
        notify_supervisor("READY=1")

    async def _end(self) -> int:
        if self.base_id is not None:
            self.base_id.give_up(remove=True)
        await self.server.finish_answers()
        for predecessor in self.predecessors:
            predecessor.end()
        await self.server.stop()
        if self.draining is not None:
            self.draining.cancel()
        if self.successor is not None:
            self.successor.close()
        log.info("stopped")
        if self.next is not None and self.next_serves:
            self._leave_to_next()
        return self.status

    def _leave_to_next(self) -> None:
        from sidecar.lifecycle.stand_in import become_stand_in

        if STOOD_FOR not in os.environ:
            become_stand_in()

    def _watch_the_first(self) -> None:
        """Whoever has started the first process knows no other: when it is killed, this one must not go on without it."""
        from sidecar.lifecycle.children import Watch, first_process

        try:
            Watch(self.loop, first_process(), self._on_first_gone)
        except ProcessLookupError:
            self._on_first_gone()

    def _on_first_gone(self) -> None:
        log.error("the process that was started first is gone, and so is whoever would end this one: draining")
        if self.draining is None:
            self._on_end_signal(signal.SIGTERM)

    # signals

    def _on_end_signal(self, number: signal.Signals) -> None:
        name = number.name
        if self.next is not None and self.next_serves:
            self._pass_on(number)
            self._hurry()
        elif self.draining is not None:
            log.warning("%s again: stopping at once", name)
            self.now.set()
        elif self.starting is not None:
            log.info("%s: stopping before the start was complete", name)
            self.starting.cancel()
        else:
            log.info("%s: draining for at most %.0f seconds", name, self.server.drain_time)
            notify_supervisor("STOPPING=1")
            if self.next is not None:
                self.next.send(signal.SIGTERM)
            self.draining = self.loop.create_task(self._drain(self.server.drain, None))

    def _hurry(self) -> None:
        if self.hurried:
            self.now.set()
        self.hurried = True
        self.server.hurry()
        self.loop.call_later(self.server.drain_time, self.now.set)

    def _on_reopen(self) -> None:
        self.server.reopen_logs()
        if self.next is not None and self.next_serves:
            self._pass_on(signal.SIGUSR1)

    def _pass_on(self, number: signal.Signals) -> None:
        from sidecar.lifecycle.children import children

        for pid in children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    async def _drain(self, drain: Callable[[Any], Any], limit: float | None) -> None:
        await drain(limit)
        self.now.set()

    # restarts

    def _on_hang_up(self) -> None:
        from sidecar.lifecycle.children import can_stand_in

        if self.next_serves:
            self._pass_on(signal.SIGHUP)
        elif self.next is not None or self.draining is not None or self.starting is not None:
            log.warning("SIGHUP: there is no restart while one is under way, or while this process starts or drains")
        elif not can_stand_in():
            log.error("SIGHUP: a process can stand in for the next one on Linux only; start that with --restart-epoch")
        else:
            log.info("SIGHUP: starting the next process")
            notify_supervisor("RELOADING=1")
            self._start_next()

    def _start_next(self) -> None:
        from sidecar.lifecycle.children import Child, adopt_descendants, first_process

        if STOOD_FOR not in os.environ:
            adopt_descendants()
        ours, theirs = pair()
        environment = {HANDOVER: str(theirs.fileno()), STOOD_FOR: str(first_process())}
        if self.base_id is not None:
            environment[BASE_ID] = str(self.base_id.number)
        try:
            with theirs:
                self.next = Child(self.loop, environment, (theirs.fileno(),), self._on_next_exit)
        except OSError as error:
            ours.close()
            self._restart_failed(f"it cannot be started: {error}")
            return
        self.loop.call_later(self.restart_timeout, self._out_of_time, self.next)
        self._on_successor(ours, ours=True)

    def _out_of_time(self, started: Child) -> None:
        if self.next is started and not self.next_serves:
            log.error("the next process does not serve after %g s: ending it", self.restart_timeout)
            started.send(signal.SIGKILL)

    def _on_next_exit(self, status: int) -> None:
        self.next = None
        if not self.next_serves:
            if self.draining is None:
                self._restart_failed(f"it ended with status {status}")
            return
        from sidecar.lifecycle.children import Adopted, children

        for pid in reversed(children()):  # its own successor, which serves, is left to us
            with contextlib.suppress(ProcessLookupError):
                self.next = Adopted(self.loop, pid, self._on_next_exit)
                return
        log.log(
            logging.ERROR if status else logging.INFO,
            "the process that has taken over ended with status %d, and nothing listens any more: ending",
            status,
        )
        self.status = status if status >= 0 else 128 - status
        if not self.hurried:
            self._hurry()
        if status:  # the sooner we end, the sooner a supervisor starts us again
            self.loop.call_later(_LAST_REQUESTS, self.now.set)

    def _restart_failed(self, reason: str) -> None:
        log.error("the next process does not serve: %s; this one goes on", reason)
        notify_supervisor("READY=1")

    def _on_successor(self, sock: socket.socket, *, ours: bool) -> None:
        """A process wants to take over: our own child, or one that found us by the base id."""
        predecessor = Predecessor(
            self.loop, sock, self.server, lambda handed_over: self._on_done(predecessor, handed_over, ours)
        )
        self.predecessors.append(predecessor)

    def _on_done(self, predecessor: Predecessor, handed_over: bool, ours: bool) -> None:
        if not handed_over:
            self.predecessors.remove(predecessor)
            return
        self.next_serves = ours
        log.info("another process serves: draining for at most %.0f seconds", self.parent_shutdown_time)
        if self.base_id is not None:
            self.base_id.give_up(remove=False)
        if ours:
            notify_supervisor("READY=1")
        elif self.next is not None:
            self.next.send(signal.SIGKILL)  # it was too late
        if self.draining is None:
            self.draining = self.loop.create_task(self._drain(self.server.drained, self.parent_shutdown_time))

    def __repr__(self) -> str:
        return f"<Serving {self.server!r}>"
