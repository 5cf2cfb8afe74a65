"""The composition root's part for listeners that are discovered: what `listener/manager.py` needs of the stages around it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from sidecar.config.listener import FilterChain
from sidecar.config.listener import Listener as ListenerConfig
from sidecar.core.waiting import Unawaited, Waiting
from sidecar.http.connection_manager import ConnectionManager
from sidecar.lifecycle.asking import Asking
from sidecar.lifecycle.handover import close_all
from sidecar.listener.listener import Listener
from sidecar.listener.manager import Draining, ListenerManager, Version
from sidecar.listener.terminal import Chain
from sidecar.network.tcp_proxy import TcpProxy
from sidecar.telemetry.groups.listener import ListenerManagerStats
from sidecar.telemetry.stats import StatGroup
from sidecar.transport.terminal import TlsTerminal
from sidecar.xds.apply.records import Record
from sidecar.xds_worker import describe_addresses

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.stack import Stack

_LOOK: Final = 0.25
"""Seconds between two looks at what is left of a drain."""


class XdsListeners:
    """The ``Surroundings`` of the listener manager, and the ``Listeners`` of LDS."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.manager = ListenerManager(self)
        self._groups: dict[Listener, list[StatGroup]] = {}
        self._asking: dict[Draining, Asking] = {}
        self._given: set[str] = set()  # the keys of sockets that the parent of several workers keeps for us
        self._static = {one.name: one for one in stack.bootstrap.static_resources.listeners}

    @property
    def listener_manager_stats(self) -> ListenerManagerStats:
        return self.stack.listener_manager_stats

    # what LDS asks for

    def is_static_listener(self, name: str) -> bool:
        return name in self._static

    async def change_listener(self, config: ListenerConfig, message: Any, record: Record) -> None:
        parent, manager = self.stack.parent, self.manager
        if parent is None or manager.stopped or not config.bind_to_port or manager.lends(config):
            manager.change(config, version_of(message, record), self._static)
            return
        manager.check_addresses(config, self._static)
        manager.inherited = inherited = await parent.ask_sockets(describe_addresses(message))
        self._given.update(inherited)
        try:
            manager.change(config, version_of(message, record), self._static)
        finally:
            manager.inherited = {}
            close_all(inherited)

    def drop_listener(self, name: str) -> None:
        self.manager.remove(name)

    # what the manager asks for

    def make(self, config: ListenerConfig, waiting: Waiting) -> Listener:
        stack = self.stack
        with self._building(waiting) as groups:
            listener = stack.listener(config, Listener)
        stack.directory.remove(listener)
        self._groups[listener] = groups
        return listener

    def make_chains(
        self, listener: Listener, config: ListenerConfig, find: Callable[[FilterChain], Chain | None], waiting: Waiting
    ) -> tuple[Any, list[Chain]]:
        with self._building(waiting) as groups:
            made = listener.make_chains(config, find)
        self._groups[listener] += groups
        return made

    def replaced(self, old: Listener | None, new: Listener | None) -> None:
        stack = self.stack
        if old is not None:
            stack.listeners.remove(old)
            stack.directory.remove(old)
        if new is not None:
            stack.listeners.append(new)
            stack.directory.add(new)
        self.refresh_overload()

    def dispose(self, listener: Listener, chains: Sequence[Chain], *, whole: bool) -> None:
        for chain in chains:
            self._dispose_terminal(chain.terminal)
        if whole:
            self.stack.store.release(self._groups.pop(listener, ()))
            listener.end()
            self._give_up()
        self.refresh_overload()

    def _give_up(self) -> None:
        """The parent need not keep the sockets that no listener has any more."""
        manager = self.manager
        listeners = [one.listener for one in manager.active.values()]
        listeners += [one.managed.listener for one in manager.warming.values()]
        gone = self._given.difference(*(one.keys for one in listeners))
        if gone and self.stack.parent is not None:
            self._given -= gone
            self.stack.parent.give_up(gone)

    def drain(self, draining: Draining) -> None:
        stack = self.stack
        managers = [one for one in map(_inner, draining.chains) if isinstance(one, ConnectionManager)]
        gradual = stack.drain_strategy == "gradual"
        asking = self._asking[draining] = Asking(stack.worker, managers, stack.drain_time if gradual else 0.0)
        asking.begin()
        self._look(draining, stack.worker.clock() + stack.drain_time)

    def _look(self, draining: Draining, until: float) -> None:
        """Nothing is kept of what drains once its last connection is gone, or when its time is over."""
        worker = self.stack.worker
        if draining not in self._asking:
            return
        if draining.connections() and worker.clock() < until:
            worker.wheel.call_in(_LOOK, lambda: self._look(draining, until))
        else:
            self._asking.pop(draining).stop()
            draining.finish()

    def refresh_overload(self) -> None:
        """Under load those listeners and connection managers do their part that there are now."""
        stack = self.stack
        stack.overload.watch(stack.listeners, [one.listener for one in self.manager.draining])

    def leaving(self) -> list[Listener]:
        """Those that were replaced or removed, and have connections still."""
        return [one.listener for one in self.manager.draining if one.whole]

    def count(self, stats: ListenerManagerStats) -> None:
        """Bring the gauges up to date."""
        stats.total_listeners_warming = len(self.manager.warming)
        stats.total_listeners_draining = len(self.leaving())
        stats.total_filter_chains_draining = sum(len(one.chains) for one in self.manager.draining if not one.whole)

    def close(self) -> None:
        """End what is warming or draining."""
        for asking in self._asking.values():
            asking.stop()
        self._asking.clear()
        self.manager.close()

    # parts of chains

    @contextmanager
    def _building(self, waiting: Waiting) -> Iterator[list[StatGroup]]:
        """Build filter chains: what they wait for and where they count is noted; nothing is left of them if that fails."""
        stack = self.stack
        before = (len(stack.managers), len(stack.tcp_proxies), len(stack.downstream_tls()))
        stack.waiting = waiting
        try:
            with stack.store.recording() as groups:
                yield groups
        except BaseException:
            for terminal in (*stack.managers[before[0] :], *stack.tcp_proxies[before[1] :]):
                self._dispose_terminal(terminal)
            for tls in stack.downstream_tls()[before[2] :]:
                stack.tls.remove_downstream(tls)
            stack.store.release(groups)
            raise
        finally:
            stack.waiting = Unawaited()

    def _dispose_terminal(self, terminal: Any) -> None:
        stack = self.stack
        if isinstance(terminal, TlsTerminal):
            stack.tls.remove_downstream(terminal.tls)
            terminal = terminal.inner
        if isinstance(terminal, ConnectionManager):
            stack.remove_manager(terminal)
        elif isinstance(terminal, TcpProxy):
            stack.tcp_proxies.remove(terminal)

    async def warm(self) -> None:
        """Wait until no listener is warming."""
        warm = asyncio.Event()
        self.manager.when_warm(warm.set)
        await warm.wait()

    def __repr__(self) -> str:
        return f"<XdsListeners {self.manager!r}>"


def version_of(message: Any, record: Record) -> Version:
    """What tells this version of a listener from others; ``message`` loses its filter chains."""
    chains = [chain.SerializeToString(deterministic=True) for chain in message.filter_chains]
    if message.HasField("default_filter_chain"):
        chains.append(message.default_filter_chain.SerializeToString(deterministic=True))
    message.ClearField("filter_chains")
    message.ClearField("default_filter_chain")
    return Version(message.SerializeToString(deterministic=True), tuple(chains), record)


def _inner(chain: Chain) -> Any:
    return getattr(chain.terminal, "inner", chain.terminal)
