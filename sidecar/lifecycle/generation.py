"""The workers of one configuration: started together, replaced one by one when they die, drained together.

A generation keeps what its workers were given (the configuration as it was read, sockets, what they share), so that a replacement
gets the same, whatever has changed meanwhile, a roll to the next generation included.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sidecar.core.descriptors import memory_file
from sidecar.lifecycle.handover import Sockets
from sidecar.lifecycle.later_sockets import LaterSockets
from sidecar.lifecycle.worker_process import State, WorkerProcess

log = logging.getLogger("sidecar.fleet")

_BACK_OFF = 0.1
_LONGEST_BACK_OFF = 30.0
_FORGIVEN_AFTER = 60.0
"""Seconds after which the death of a worker does not lengthen the wait for its replacement any more."""

SOON = 5.0
"""Seconds that a worker has to end after the time for its drain is over."""


class Exchange(Protocol):
    """What workers share to spread connections among themselves."""

    def of_worker(self, number: int) -> Sequence[int]:
        """Descriptors for a worker."""
        ...

    def close(self, number: int) -> None:
        """A worker takes no connections."""
        ...

    def end(self) -> None: ...


class Generation:
    """So many workers with one configuration, a serialised Bootstrap, and these sockets for each address.

    ``on_changes`` gets what a worker that drains tells of its statistics, ``later`` has sockets for what they discover. A worker
    has ``timeout`` seconds until it serves. The constructor raises OSError.
    """

    def __init__(
        self,
        config: bytes,
        workers: int,
        sockets: Sockets,
        exchange: Exchange,
        epoch: int,
        timeout: float,
        on_changes: Callable[[list[Any]], None],
        later: LaterSockets,
    ) -> None:
        self.epoch = epoch
        self.sockets = sockets
        self.timeout = timeout
        self.workers: dict[int, WorkerProcess] = {}
        self.lasts = False
        """Whether workers that die are replaced."""
        self._count = workers
        self._exchange = exchange
        self._on_changes = on_changes
        self._later = later
        self._config = memory_file("mizzen-configuration", config)
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._deaths: dict[int, list[float]] = {}
        self._leaving: set[WorkerProcess] = set()

    async def start(self) -> str:
        """Start all workers: one first, so that what is wrong is said once. When all serve, workers are replaced from now on;
        else the reason why they do not. Raises OSError.
        """
        for numbers in ((0,), range(1, self._count)):
            for number in numbers:
                self.workers[number] = self._worker(number)
            while any(worker.state is State.STARTING for worker in self.workers.values()):
                self._changed.clear()
                await self._changed.wait()
            if not all(worker.state is State.SERVING for worker in self.workers.values()):
                return "one of them has ended"
        self.lasts = True
        return ""

    def serving(self) -> list[WorkerProcess]:
        """The workers that serve now, by their numbers."""
        return [worker for _, worker in sorted(self.workers.items()) if worker.state is State.SERVING]

    def alive(self) -> list[WorkerProcess]:
        """All that have not ended."""
        return [worker for worker in {*self.workers.values(), *self._leaving} if worker.state is not State.ENDED]

    def answering(self) -> list[WorkerProcess]:
        """Those that serve, and those that drain the last of the sockets."""
        return sorted((one for one in self.alive() if one.state is not State.STARTING), key=lambda one: one.number)

    # the end

    def drain(self, limit: float) -> None:
        """Let all drain: nobody takes over from them."""
        self._let_go(lambda worker: worker.drain(limit))

    def hand_over(self, keys: frozenset[str], limit: float) -> None:
        """Let all drain within ``limit`` seconds: others serve on the sockets with these keys."""
        self._let_go(lambda worker: worker.hand_over(keys, limit))
        self._loop.call_later(limit + SOON, self.kill)

    def _let_go(self, drain: Callable[[WorkerProcess], None]) -> None:
        self.lasts = False
        for worker in self.workers.values():
            if worker.state is State.SERVING:
                drain(worker)
                self._leaving.add(worker)
            elif worker.state is State.STARTING:
                worker.kill()
        self._give_up_shared()

    def kill(self) -> None:
        """End all at once."""
        self.lasts = False
        for worker in self.alive():
            worker.kill()
        self._give_up_shared()

    def _give_up_shared(self) -> None:
        if self._config >= 0:
            os.close(self._config)
            self._config = -1
            self._exchange.end()

    # what workers tell: `worker_process.Parent`

    def on_serving(self, worker: WorkerProcess) -> None:
        self._changed.set()

    def on_changes(self, worker: WorkerProcess, changes: list[Any]) -> None:
        self._on_changes(changes)

    def on_listen(self, worker: WorkerProcess, question: int, listener: bytes) -> None:
        self._later.ask(worker, question, listener)

    def on_unlisten(self, worker: WorkerProcess, keys: list[str]) -> None:
        self._later.give_up(worker, keys)

    def on_exit(self, worker: WorkerProcess, status: int, before: State) -> None:
        self._leaving.discard(worker)
        self._later.gone()
        self._changed.set()
        if not self.lasts or self.workers.get(worker.number) is not worker:
            return
        self._exchange.close(worker.number)
        log.error("worker %d (process %d) has ended with status %d; starting another in %.1f s", worker.number,
                  worker.pid, status, self._replace_later(worker))  # fmt: skip

    def _replace_later(self, dead: WorkerProcess) -> float:
        now = time.monotonic()
        deaths = [death for death in self._deaths.get(dead.number, ()) if now - death < _FORGIVEN_AFTER]
        wait: float = min(_LONGEST_BACK_OFF, _BACK_OFF * 2 ** len(deaths))
        self._deaths[dead.number] = [*deaths, now]
        self._loop.call_later(wait, self._replace, dead)
        return wait

    def _replace(self, dead: WorkerProcess) -> None:
        if self.lasts and self.workers.get(dead.number) is dead:
            try:
                self.workers[dead.number] = self._worker(dead.number)
            except OSError as error:
                log.error("cannot start worker %d: %s; trying again in %.1f s", dead.number, error,
                          self._replace_later(dead))  # fmt: skip

    def _worker(self, number: int) -> WorkerProcess:
        shared = (self._config, *self._exchange.of_worker(number))
        worker = WorkerProcess(self, number, self._sockets_of(number), shared)
        self._loop.call_later(self.timeout, self._out_of_time, worker)
        return worker

    def _out_of_time(self, worker: WorkerProcess) -> None:
        if worker.state is State.STARTING:
            log.error("worker %d (process %d) does not serve after %g s: ending it", worker.number, worker.pid,
                      self.timeout)  # fmt: skip
            worker.kill()

    def _sockets_of(self, number: int) -> Sockets:
        """Those that a worker serves on: every Nth, or the one that all share."""
        step = self._count
        return {key: each[number::step] if len(each) >= step else each for key, each in self.sockets.items()}

    def __repr__(self) -> str:
        return f"<Generation {self.epoch} of {len(self.workers)} workers>"
