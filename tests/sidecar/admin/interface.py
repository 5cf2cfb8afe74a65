"""The administration interface over a real connection manager and real sockets, in a loop of its own thread."""

from __future__ import annotations

import asyncio
import http.client
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar

from sidecar.admin.admin import Admin
from sidecar.admin.compressed_bootstrap import CompressedBootstrap
from sidecar.admin.context import AdminContext
from sidecar.admin.terminal import AdminTerminal, connection_manager_config
from sidecar.bootstrap.load import load_bootstrap
from sidecar.cluster.manager import ClusterManager
from sidecar.codec.wire import FieldLines
from sidecar.config.bootstrap import parse_bootstrap
from sidecar.core.address import Address, from_socket_name
from sidecar.core.stream_info import ConnectionInfo
from sidecar.core.worker import Worker
from sidecar.http.build import options_of
from sidecar.http.connection_manager import ConnectionManager
from sidecar.http.filter_chain import FilterChain
from sidecar.http.forwarding import compile_forwarding, compile_response_finish
from sidecar.http.local_reply import plain_reply
from sidecar.telemetry.groups.http_connection_manager import connection_manager_stats
from sidecar.telemetry.stats_query import stats_page
from sidecar.telemetry.store import StatsStore
from tests.sidecar.cluster.surroundings import Stages

T = TypeVar("T")


class Calls:
    """What the endpoints did to the server, in order."""

    def __init__(self) -> None:
        self.made: list[Any] = []
        self.state = "LIVE"

    def record(self, name: str) -> Callable[[], None]:
        """A callable that leaves its name."""
        return lambda: self.made.append(name)

    def drain(self, **options: bool) -> None:
        """Takes the place of the server's drain."""
        self.made.append(("drain_listeners", options))


def listener(name: str, *ports: int) -> Any:
    """A bound listener, as far as the pages look."""
    return SimpleNamespace(
        config=SimpleNamespace(name=name), local_addresses=[Address("127.0.0.1", port) for port in ports]
    )


def make_context(config: Mapping[str, Any], calls: Calls, worker: Worker, **changes: Any) -> AdminContext:
    """A context over the real clusters of `config`."""
    root, context = load_bootstrap(config)
    with context:
        bootstrap = parse_bootstrap(root)
    clusters = ClusterManager(Stages(), worker.wheel, worker.random)
    for cluster in bootstrap.static_resources.clusters:
        clusters.add(cluster)
    clusters.start(lambda: None)
    store = StatsStore()
    given: dict[str, Any] = {
        "stats": lambda parameters, prometheus: stats_page(store, parameters, as_prometheus=prometheus),
        "reset_counters": calls.record("reset_counters"),
        "clusters": clusters,
        "listeners": lambda: [listener("l1", 1001, 1002), listener("l2", 1003)],
        "bootstrap": CompressedBootstrap(root.message.SerializeToString()),
        "version": "0123/0.1.0/Clean/RELEASE/OpenSSL",
        "started_at": time.time(),
        "wall_clock": time.time,
        "server_state": lambda: calls.state,
        "health_check_fail": calls.record("health_check_fail"),
        "health_check_ok": calls.record("health_check_ok"),
        "drain_listeners": calls.drain,
        "quit": calls.record("quit"),
        "reopen_logs": calls.record("reopen_logs"),
        "explain": lambda request: [],
        "node": bootstrap.node,
        "options": {"config_path": "envoy.yaml", "not_envoys": 1},
        "allow_paths": () if bootstrap.admin is None else bootstrap.admin.allow_paths,
    }
    return AdminContext(**{**given, **changes})


def make_manager(worker: Worker, terminal: AdminTerminal, store: StatsStore, buffer_limit: int) -> ConnectionManager:
    """The connection manager in front of the terminal, as `stack.py` makes it."""
    config = connection_manager_config()
    stats, of_listener = connection_manager_stats(store, "admin", "admin")
    return ConnectionManager(
        worker,
        options_of(config, buffer_limit),
        stats,
        of_listener.codes,
        terminal,
        FilterChain(()),
        terminal,
        compile_forwarding(config, "127.0.0.1", b"", b""),
        compile_response_finish(config),
        (),
        plain_reply,
        FieldLines(),
    )


class Answer(NamedTuple):
    """What came back; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: str


def ask(port: int, target: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
    """One request on a connection of its own; `target` goes out as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.putrequest(method, target, skip_host="Host" in headers, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        text = response.read().decode()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, text)
    finally:
        connection.close()


class Interface:
    """A running interface. `ask` sends a request to it; `calls` has what it did to the server."""

    def __init__(self, port: int, calls: Calls, admin: Admin, worker: Worker, manager: ConnectionManager) -> None:
        self.port = port
        self.calls = calls
        self.admin = admin
        self.worker = worker
        self.manager = manager

    def ask(self, target: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        """One request."""
        return ask(self.port, target, method, body, **headers)

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine in the interface's loop."""
        return asyncio.run_coroutine_threadsafe(work(), self.worker.loop).result(20)


@contextmanager
def serving(
    config: Mapping[str, Any], buffer_limit: int = 1 << 20, clock: Callable[[], float] = time.monotonic, **changes: Any
) -> Iterator[Interface]:
    """The interface for a bootstrap, on an ephemeral port; `changes` replace fields of its context."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    worker = Worker(loop, clock)
    calls = Calls()

    async def start() -> tuple[Interface, asyncio.AbstractServer]:
        admin = Admin(make_context(config, calls, worker, **changes))
        terminal = AdminTerminal(admin, worker)
        manager = make_manager(worker, terminal, StatsStore(), buffer_limit)

        def accept() -> asyncio.Protocol:
            here = Address("127.0.0.1", 0)
            return manager.accept(ConnectionInfo(worker.next_id(), here, here, worker.clock()))

        server = await loop.create_server(accept, "127.0.0.1", 0)
        name = server.sockets[0].getsockname()
        return Interface(from_socket_name(server.sockets[0].family, name).port, calls, admin, worker, manager), server

    async def stop() -> None:
        server.close()
        for connection in list(manager.connections):
            connection.transport.abort()
        for _ in range(1000):
            if manager.connections:
                await asyncio.sleep(0)
        assert not manager.connections
        worker.wheel.close()

    interface, server = asyncio.run_coroutine_threadsafe(start(), loop).result(20)
    manager = interface.manager
    try:
        yield interface
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()
