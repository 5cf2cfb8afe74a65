"""The life of one sidecar: start, serve, drain, stop. ``Server`` is also the Python API for other projects' tests."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sidecar import __version__
from sidecar.bootstrap.load import load_bootstrap
from sidecar.config.bootstrap import Bootstrap, parse_bootstrap
from sidecar.config.problems import ConfigurationError, Problem
from sidecar.core.worker import Worker
from sidecar.http.connection_manager import ConnectionManager
from sidecar.stack import Stack
from sidecar.telemetry.configured_settings import compile_settings
from sidecar.telemetry.formatter import format_problems
from sidecar.telemetry.store import StatsStore

if TYPE_CHECKING:
    from sidecar.admin.compressed_bootstrap import CompressedBootstrap
    from sidecar.admin.context import AdminContext

log = logging.getLogger("sidecar.server")

_NEXT_REQUEST = 1.0  # seconds in which a drain expects another request on a connection that is idle
_COLLECT_AFTER = 50_000  # allocations; requests make no cycles, so the collector has little to find


class Server:
    """A sidecar in the running event loop.

    ``config`` is the path of a bootstrap file (YAML or JSON), a dict in the same shape, or a ``Bootstrap`` message;
    ``config_yaml`` is text merged over it. Use it as an asynchronous context manager, or call ``start`` and ``stop``:

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
        service_node: str = "",
        service_cluster: str = "",
        options: Mapping[str, Any] | None = None,
        seed: int | None = None,
    ) -> None:
        self.drain_time = drain_time
        self.options = dict(options or {})
        self.source = _name_of(config)
        self.bootstrap, self.serialized, self.warnings = load(config, config_yaml, service_node, service_cluster)
        self.seed = seed
        self.stack: Stack | None = None
        self.state = "PRE_INITIALIZING"
        self.started_at = time.time()
        self.stopped = asyncio.Event()
        self.compressed: CompressedBootstrap | None = None
        self.quit: Callable[[], object] = self._quit

    def _quit(self) -> None:
        self._quitting = asyncio.get_running_loop().create_task(self.stop())

    async def start(self) -> None:
        """Bind, find the first hosts, listen. Ready when it returns; when it raises, nothing is left behind."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    def _build(self) -> Stack:
        worker = Worker(asyncio.get_running_loop(), seed=self.seed)
        try:
            stack = Stack(self.bootstrap, worker, StatsStore(compile_settings(self.bootstrap.stats_config)))
            if self.bootstrap.admin is not None and self.bootstrap.admin.address is not None:
                stack.add_admin(self._admin_context(stack))
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
        )

    def _quit_by_admin(self) -> None:
        self.quit()

    def _set_health_check(self, failed: bool) -> None:
        if self.stack is not None:
            self.stack.health_check_failed = failed
            self.stack.server_stats.live = 0 if failed else 1
            self.stack.server_stats.state = 1 if failed else 0
            if self.state == "LIVE":
                self._ask_to_close(failed)

    def _ask_to_close(self, asked: bool) -> None:
        """Whether replies say ``connection: close``, on listeners whose ``drain_type`` is DEFAULT."""
        assert self.stack is not None
        for listener in self.stack.listeners:
            if listener.config.drain_type == "DEFAULT":
                for chain in listener.chains:
                    terminal: Any = getattr(chain.terminal, "inner", chain.terminal)  # behind TLS
                    if isinstance(terminal, ConnectionManager):
                        terminal.draining = asked

    def _drain_by_admin(self, *, graceful: bool, skip_exit: bool, inboundonly: bool) -> None:
        """``/drain_listeners``: stop listening; with ``graceful`` ask clients to close during the drain time first."""
        stack = self.stack
        if stack is None:
            return
        for listener in stack.listeners:
            if inboundonly and listener.config.traffic_direction != "INBOUND":
                continue
            if graceful:
                for chain in listener.chains:
                    chain.terminal.drain()
                if skip_exit:
                    continue
                stack.worker.wheel.call_in(self.drain_time, listener.stop_accepting)
            else:
                listener.drain()

    async def check(self) -> None:
        """Build everything as ``start`` does, and bind nothing: for ``--mode validate``. Raises as ``start`` does."""
        self.stack = self._build()
        await self.stop()

    async def _start(self) -> None:
        began = time.monotonic()
        self.stack = stack = self._build()
        stack.bind()
        self.state = "INITIALIZING"
        initialised = asyncio.Event()
        stack.clusters.start(initialised.set)
        await initialised.wait()
        stack.listen()
        self.state = "LIVE"
        stack.server_stats.live = 1
        stack.server_stats.initialization_time_ms.record(int((time.monotonic() - began) * 1000))
        gc.collect()
        gc.freeze()
        gc.set_threshold(_COLLECT_AFTER, 50, 100)
        stack.start_clockwork(self.bootstrap.stats_flush_interval)
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

    def drain_listeners(self) -> None:
        """Accept no more connections, let each finish its request and then close.

        One that is between two requests is not closed at once, for its next request may be on its way: within a second
        it is still answered, with ``connection: close``.
        """
        stack = self.stack
        if stack is None or self.state == "DRAINING":
            return
        self.state = "DRAINING"
        stack.server_stats.live = 0
        stack.server_stats.state = 1
        for listener in stack.listeners:
            listener.stop_accepting()
        for manager in stack.managers:
            manager.draining = True
            for connection in manager.connections:
                if connection.version == 20 or connection.streams():
                    connection.drain()
        stack.worker.wheel.call_in(_NEXT_REQUEST, stack.drain)

    def reopen_logs(self) -> None:
        """Open all log files anew, after they were moved away."""
        if self.stack is not None:
            self.stack.reopen_logs()

    async def drain(self, timeout: float | None = None) -> None:
        """Drain, and wait until no connection is left, at most ``timeout`` seconds (the drain time by default)."""
        self.drain_listeners()
        assert self.stack is not None
        until = time.monotonic() + (self.drain_time if timeout is None else timeout)
        while self.stack.connections() and time.monotonic() < until:
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Close everything now; log files are written out."""
        if self.stack is not None:
            stack, self.stack = self.stack, None
            await stack.close()
            await asyncio.gather(*stack.worker.tasks, return_exceptions=True)
        self.state = "STOPPED"
        self.stopped.set()

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


def notify_supervisor(state: str) -> None:
    """Tell systemd (``sd_notify``): ``READY=1``, ``STOPPING=1`` and the like; nothing without NOTIFY_SOCKET."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.connect("\0" + path[1:] if path[0] == "@" else path)
            sock.sendall(state.encode())
        except OSError as error:
            log.warning("cannot notify the supervisor at %s: %s", path, error)


def _name_of(config: object) -> str:
    if config is None:
        return "--config-yaml"
    return str(config) if isinstance(config, (str, os.PathLike)) else "configuration"
