"""The life of one sidecar: start, serve, drain, hand over, stop. ``Server`` is also the Python API for other projects' tests."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sidecar import __version__
from sidecar.bootstrap.load import load_bootstrap
from sidecar.config.bootstrap import Bootstrap, parse_bootstrap
from sidecar.config.problems import ConfigurationError, Problem
from sidecar.core.worker import Worker
from sidecar.http.connection_manager import ConnectionManager
from sidecar.lifecycle.phases import MEANING, Event, Life, Phase
from sidecar.listener.listener import Listener
from sidecar.listener.sockets import Inherited
from sidecar.stack import Stack
from sidecar.telemetry.configured_settings import compile_settings
from sidecar.telemetry.formatter import format_problems
from sidecar.telemetry.store import StatsStore

if TYPE_CHECKING:
    from sidecar.admin.admin import Admin
    from sidecar.admin.compressed_bootstrap import CompressedBootstrap
    from sidecar.admin.context import AdminContext
    from sidecar.core.explanation import Step
    from sidecar.core.question import Question
    from sidecar.lifecycle.asking import Asking
    from sidecar.lifecycle.handover import Successor
    from sidecar.listener.balanced import Balancer
    from sidecar.telemetry.carried import Ledger
    from sidecar.telemetry.groups.lifecycle import DrainStats

log = logging.getLogger("sidecar.server")

FIRST_WORDS = 1.0  # seconds that a process which has handed over has to tell what it had counted
_ON_THE_WAY = 0.02  # seconds in which other workers have seen that this one takes no more
_COLLECT_AFTER = 10_000  # allocations that stay; requests leave none, and looking at so many takes some 2 ms
_OLDER_AFTER = 250  # such looks


class Server:
    """A sidecar in the running event loop.

    ``config`` is the path of a bootstrap file (YAML or JSON), a dict in the same shape, or a ``Bootstrap`` message;
    ``config_yaml`` is text merged over it. A drain has ``drain_time`` seconds; before it, readiness fails for
    ``announce_time`` seconds. ``drain_strategy`` is ``gradual`` or ``immediate``, as Envoy's. ``worker`` is the number of one of
    several workers: their parent has the sockets and the administration interface. What was good last of dynamic
    resources is kept below ``xds_state_dir``, nowhere if that is empty. Use it as an asynchronous
    context manager, or call ``start`` and ``stop``:

        async with Server({"static_resources": {...}}) as server:
            host, port = server.address("ingress")

    The constructor raises ``ConfigurationError`` with every problem at once. ``start`` does so for a user's filter that
    cannot be made, and raises ``OSError`` for an address that cannot be bound or a log file that cannot be opened.
    """

    def __init__(
        self,
        config: str | os.PathLike[str] | Mapping[str, Any] | Any = None,
        *,
        config_yaml: str | None = None,
        drain_time: float = 600.0,
        announce_time: float = 0.0,
        drain_strategy: str = "gradual",
        service_node: str = "",
        service_cluster: str = "",
        options: Mapping[str, Any] | None = None,
        seed: int | None = None,
        worker: int | None = None,
        xds_state_dir: str | os.PathLike[str] = "",
    ) -> None:
        self.worker = worker
        self.xds_state_dir = os.fspath(xds_state_dir)
        self.drain_time = drain_time
        self.announce_time = announce_time
        self.drain_strategy = drain_strategy
        self.options = dict(options or {})
        self.source = _name_of(config)
        self.bootstrap, self.serialized, self.warnings = load(config, config_yaml, service_node, service_cluster)
        self.seed = seed
        self.stack: Stack | None = None
        self.life = Life(self._entered)
        self.epoch = 0
        self.started_at = time.time()
        self.stopped = asyncio.Event()
        self.compressed: CompressedBootstrap | None = None
        self.admin: Admin | None = None
        self.balancer: Balancer | None = None
        self.quit: Callable[[], object] = self._quit
        self._asking: list[Asking] = []
        self._ledger: Ledger | None = None
        self._drain_stats: DrainStats | None = None

    @property
    def state(self) -> str:
        """As /ready says it: ``LIVE``, ``DRAINING``, ...; ``STOPPED`` in the end."""
        return self.life.state

    def _quit(self) -> None:
        self._quitting = asyncio.get_running_loop().create_task(self.stop())

    async def start(self, successor: Successor | None = None) -> None:
        """Bind, find the first hosts, listen. Ready when it returns; when it raises, nothing is left behind.

        With ``successor`` the sockets of another process are taken over; HandoverError if it does not give them.
        """
        try:
            await self._start(successor)
        except BaseException:
            await self.stop()
            raise

    def _build(self) -> Stack:
        if self.seed is not None:
            log.info("under the seed %d: what is left to chance can be repeated", self.seed)
        workers = self.options.get("concurrency", 1)
        worker = Worker(asyncio.get_running_loop(), seed=self.seed, number=self.worker or 0, workers=workers)
        try:
            make = Listener if self.balancer is None else self.balancer.listener
            store = StatsStore(compile_settings(self.bootstrap.stats_config))
            stack = Stack(self.bootstrap, worker, store, make, self.xds_state_dir)
            stack.drain_time, stack.drain_strategy = self.drain_time, self.drain_strategy
            stack.server_stats.concurrency = workers
            if self.bootstrap.admin is not None and self.bootstrap.admin.address is not None:
                from sidecar.admin.admin import Admin

                self.admin = Admin(self._admin_context(stack))
                if self.worker is None:
                    stack.add_admin(self.admin)
            return stack
        except ValueError as error:
            raise ConfigurationError([Problem(self.source, 0, 0, "", str(error))]) from error

    def _admin_context(self, stack: Stack) -> AdminContext:
        from sidecar.admin.compressed_bootstrap import CompressedBootstrap
        from sidecar.admin.context import AdminContext
        from sidecar.telemetry.stats_query import stats_page

        assert self.bootstrap.admin is not None
        self.compressed = self.compressed or CompressedBootstrap(self.serialized)
        self.serialized = b""
        return AdminContext(
            stats=lambda parameters, prometheus: stats_page(
                stack.scraped_store(), parameters, as_prometheus=prometheus
            ),
            reset_counters=stack.store.reset_counters,
            clusters=stack.clusters,
            listeners=lambda: stack.listeners,
            bootstrap=self.compressed,
            version=f"mizzen/{__version__}/Clean/RELEASE/Python",
            started_at=self.started_at,
            wall_clock=time.time,
            server_state=lambda: "DRAINING" if stack.health_check_failed else self.state,
            health_check_fail=lambda: self._set_health_check(True),
            health_check_ok=lambda: self._set_health_check(False),
            drain_listeners=self._drain_by_admin,
            quit=self._quit_by_admin,
            reopen_logs=self.reopen_logs,
            explain=stack.explain,
            node=self.bootstrap.node,
            options=self.options,
            allow_paths=self.bootstrap.admin.allow_paths,
            certificates=lambda: stack.certificates(time.time()),
            discovered=stack.discovered,
        )

    def _quit_by_admin(self) -> None:
        self.quit()

    def _set_health_check(self, failed: bool) -> None:
        if self.stack is not None:
            self.stack.health_check_failed = failed
            self.stack.server_stats.live = 0 if failed else 1
            self.stack.server_stats.state = 1 if failed else 0
            if self.life.phase is Phase.SERVING:
                # replies say ``connection: close``, on listeners whose ``drain_type`` is DEFAULT
                for manager in _managers_of(
                    [one for one in self.stack.listeners if one.config.drain_type == "DEFAULT"]
                ):
                    manager.draining = failed

    def _drain_by_admin(self, *, graceful: bool, skip_exit: bool, inboundonly: bool) -> None:
        """``/drain_listeners``: stop listening; with ``graceful`` ask clients to close during the drain time first."""
        stack = self.stack
        if stack is None:
            return
        chosen = [one for one in stack.listeners if not inboundonly or one.config.traffic_direction == "INBOUND"]
        if not graceful:
            for listener in chosen:
                listener.drain()
            return

        def stop_accepting() -> None:
            for listener in chosen:
                listener.stop_accepting()

        self._ask(_managers_of(chosen), gradually=True)
        if not skip_exit:
            stack.worker.wheel.call_in(self.drain_time, stop_accepting)

    def _ask(self, managers: Sequence[ConnectionManager], *, gradually: bool) -> None:
        """Ask the clients of these to close; ``gradually`` if the drain strategy says so, too."""
        from sidecar.lifecycle.asking import Asking

        assert self.stack is not None
        gradual = gradually and self.drain_strategy == "gradual"
        asking = Asking(self.stack.worker, managers, self.drain_time if gradual else 0.0)
        self._asking.append(asking)
        asking.begin()

    async def check(self) -> None:
        """Build everything as ``start`` does, and bind nothing: for ``--mode validate``. Raises as ``start`` does."""
        self.stack = self._build()
        await self.stop()

    async def explain(self, question: Question) -> list[Step]:
        """Build everything as ``check`` does, and tell what would become of a request. Raises as ``start`` does, and ValueError
        for a question that does not say enough.
        """
        self.stack = stack = self._build()
        try:
            for cluster in stack.clusters.clusters.values():
                if cluster.discovery is None and cluster.health_checker is None and not cluster.needs:
                    cluster.start()
            return stack.explain(question)
        finally:
            await self.stop()

    async def _start(self, successor: Successor | None) -> None:
        began = time.monotonic()
        self.life.on(Event.STARTED_AGAIN)
        self.stack = stack = self._build()
        inherited: Inherited = {} if successor is None else await successor.take_sockets()
        if self.worker is not None:
            stack.parent = successor
        try:
            stack.bind(inherited)
            self.life.on(Event.BOUND)
            await stack.initialise(inherited)
        finally:
            for sock in (sock for socks in inherited.values() for sock in socks):
                sock.close()  # its address is not in the configuration any more
        stack.listen()
        if self.balancer is not None:
            self.balancer.start()
        self.life.on(Event.INITIALIZED)
        stack.server_stats.live = 1
        if successor is not None:
            self._succeed(successor)
        stack.server_stats.initialization_time_ms.record(int((time.monotonic() - began) * 1000))
        gc.collect()
        gc.freeze()
        gc.set_threshold(_COLLECT_AFTER, _OLDER_AFTER, 100)
        stack.start_clockwork()
        for warning in self.warnings:
            log.warning("%s", warning)
        where = ", ".join(address.text for address in stack.addresses().values())
        log.info("all clusters initialised, listening on %s", where or "nothing")

    def address(self, listener: str) -> tuple[str, int]:
        """The host and port that a listener is bound to, by its name; KeyError if there is none of that name."""
        assert self.stack is not None, "the server has not been started"
        address = self.stack.addresses()[listener]
        return address.ip or address.path, address.port

    @property
    def admin_address(self) -> tuple[str, int]:
        """Where the administration interface is; LookupError if there is none."""
        if self.stack is None or self.stack.admin_listener is None:
            raise LookupError("there is no administration interface")
        address = self.stack.admin_listener.local_addresses[0]
        return address.ip or address.path, address.port

    # the end

    def drain_listeners(self) -> None:
        """Accept no more connections, let each finish its request and then close.

        One that is between two requests is not closed at once, for its next request may be on its way: within a second
        it is still answered, with ``connection: close``.
        """
        self.life.on(Event.ASKED_TO_END)
        self.life.on(Event.ANNOUNCED_LONG_ENOUGH)

    def _entered(self, before: Phase, event: Event, after: Phase) -> None:
        noteworthy = before in (Phase.ANNOUNCED, Phase.DRAINING) or after in (Phase.ANNOUNCED, Phase.DRAINING)
        log.log(logging.INFO if noteworthy else logging.DEBUG, "%s: %s", MEANING[after].state if not noteworthy
                else after.name.lower(), event.value)  # fmt: skip
        stack = self.stack
        if stack is None or after not in (Phase.ANNOUNCED, Phase.DRAINING):
            return
        if self._drain_stats is None:
            from sidecar.telemetry.groups.lifecycle import DrainStats

            self._drain_stats = stack.store.shared(DrainStats, "server.drain.")
        self._drain_stats.phase = after.value
        if event is not Event.HANDED_OVER:  # else health checks go to the process that serves now
            stack.health_check_failed = True
        stack.server_stats.live = 0
        stack.server_stats.state = 1
        if after is Phase.DRAINING:
            if self.balancer is not None:
                self.balancer.stop()
            stack.stop_listening()
            if event is Event.HANDED_OVER and stack.admin_listener is not None:
                stack.admin_listener.stop_accepting()
            self._ask(stack.managers, gradually=event is Event.HANDED_OVER)

    def reopen_logs(self) -> None:
        """Open all log files anew, after they were moved away."""
        if self.stack is not None:
            self.stack.reopen_logs()

    async def announce(self) -> None:
        """Fail readiness and go on serving for the announce time, so that nobody is sent here any more."""
        self.announced()
        if self.announce_time and self.life.phase is Phase.ANNOUNCED:
            await asyncio.sleep(self.announce_time)

    async def drain(self, timeout: float | None = None) -> None:
        """Announce the end, drain, and wait until no connection is left, at most ``timeout`` seconds (the drain time by
        default).
        """
        await self.announce()
        self.life.on(Event.ANNOUNCED_LONG_ENOUGH)
        await self.drained(self.drain_time if timeout is None else timeout)

    async def drained(self, timeout: float) -> None:
        """Wait until no connection is left, at most ``timeout`` seconds, in a drain that has begun."""
        assert self.stack is not None
        until = time.monotonic() + timeout
        if self.balancer is not None:
            await asyncio.sleep(_ON_THE_WAY)
        while (left := self._unfinished()) and time.monotonic() < until:
            if self._drain_stats is not None:
                self._drain_stats.connections = left
            await asyncio.sleep(0.02)
        if left:
            log.warning("%d connections are cut off: the time for the drain is over", left)
        self.life.on(Event.OUT_OF_TIME if left else Event.EMPTY)

    def _unfinished(self) -> int:
        """How many connections there are, those included that another worker has passed on to this one just now."""
        assert self.stack is not None
        return self.stack.unfinished() + (0 if self.balancer is None else self.balancer.coming())

    async def finish_answers(self) -> None:
        """Let what the administration interface is answering leave, within a second."""
        if self.stack is not None:
            await self.stack.finish_answers()

    async def stop(self) -> None:
        """Close everything now; log files are written out."""
        for asking in self._asking:
            asking.stop()
        self._asking.clear()
        if self.stack is not None:
            stack, self.stack = self.stack, None
            await stack.close()
            await asyncio.gather(*stack.worker.tasks, return_exceptions=True)
        self._drain_stats = self._ledger = None
        self.life.on(Event.STOPPED)
        self.stopped.set()

    # between two processes

    def _succeed(self, successor: Successor) -> None:
        """Serve in the place of another process: count on where it was, and let it drain."""
        from sidecar.telemetry.carried import Receiver

        stack = self.stack
        assert stack is not None
        if self.worker is None:
            self.own_sockets()
        self.epoch = successor.epoch
        stats = stack.server_stats
        stats.hot_restart_epoch = self.epoch
        stats.hot_restart_generation = self.epoch + 1
        admin = stack.admin_listener
        if admin is not None:  # so that no counter is seen below what it was
            admin.pause_accepting()
            stack.worker.wheel.call_in(FIRST_WORDS, admin.resume_accepting)

        def on_connections(connections: int) -> None:
            stats.parent_connections = connections
            if admin is not None:
                admin.resume_accepting()

        successor.on_statistics = Receiver(stack.store).add
        successor.on_connections = on_connections
        successor.serving(self.sockets_to_hand_over())

    def sockets_to_hand_over(self) -> dict[str, list[socket.socket]]:
        """All listening sockets by the keys of their addresses, as the next process looks for them."""
        stack = self.stack
        if stack is None:
            return {}
        found: dict[str, list[socket.socket]] = {}
        for listener in stack.bound():
            for key, sock in zip(listener.keys, listener.sockets, strict=True):
                found.setdefault(key, []).append(sock)
        return found

    def hand_over(self, keys: frozenset[str]) -> None:
        """Another process serves on the sockets with these keys: leave what is queued there to it, and drain."""
        stack = self.stack
        if stack is None:
            return
        for listener in stack.bound():
            listener.shared = keys.intersection(listener.keys)
        self.life.on(Event.HANDED_OVER)

    def own_sockets(self, names: Collection[str] | None = None) -> None:
        """No other process serves on our sockets (those of the listeners with these names): what is queued there when they
        are closed is ours.
        """
        for listener in () if self.stack is None else self.stack.bound():
            if names is None or listener.config.name in names:
                listener.shared = frozenset()

    def announced(self) -> None:
        """Fail readiness; whoever says so, says when to drain, too."""
        self.life.on(Event.ASKED_TO_END)

    def hurry(self) -> None:
        """Ask all clients to close now, in a drain that has spread that over its time."""
        if self.stack is not None and self.life.phase is Phase.DRAINING:
            self._ask(self.stack.managers, gradually=False)

    def changes(self, *, ending: bool = False) -> Iterator[list[Any]]:
        """What was counted since the last call, in parts, for the process that counts on."""
        from sidecar.telemetry.carried import Ledger

        if self.stack is None:
            return iter(())
        if self._ledger is None:
            self._ledger = Ledger(self.stack.store)
        return self._ledger.changes(ending=ending)

    def connections(self) -> int:
        """How many downstream connections there are."""
        return 0 if self.stack is None else self.stack.connections()

    def stop_soon(self) -> None:
        """End: the process that serves now says that the time for the drain is over."""
        self.quit()

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def __repr__(self) -> str:
        return f"<Server {self.state}>"


def load(
    config: Any, config_yaml: str | None = None, service_node: str = "", service_cluster: str = ""
) -> tuple[Bootstrap, bytes, list[str]]:
    """The checked bootstrap, its serialised message (for /config_dump), and warnings. Raises ConfigurationError."""
    root, context = load_bootstrap(config, config_yaml=config_yaml, find_format_problems=format_problems)
    if service_node:
        root.message.node.id = service_node
    if service_cluster:
        root.message.node.cluster = service_cluster
    with context:
        bootstrap = parse_bootstrap(root)
    return bootstrap, root.message.SerializeToString(), [str(warning) for warning in context.warnings]


def _managers_of(listeners: Sequence[Listener]) -> list[ConnectionManager]:
    """Their HTTP connection managers."""
    terminals: list[Any] = [
        getattr(chain.terminal, "inner", chain.terminal) for one in listeners for chain in one.chains
    ]
    return [terminal for terminal in terminals if isinstance(terminal, ConnectionManager)]


def _name_of(config: object) -> str:
    if config is None:
        return "--config-yaml"
    return str(config) if isinstance(config, (str, os.PathLike)) else "configuration"
