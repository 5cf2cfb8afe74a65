"""A listener: accepts connections, chooses their filter chain, and counts them from accept to close.

The accept loop is our own and not the event loop's server, so that listener filters can peek at a connection's first
bytes before any protocol reads them. Source: Envoy's `envoy.config.listener.v3.Listener`.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable

from sidecar.config.listener import FilterChain
from sidecar.config.listener import Listener as ListenerConfig
from sidecar.core.address import Address, from_socket_name
from sidecar.core.stream_info import ConnectionInfo, StreamInfo
from sidecar.core.worker import Worker
from sidecar.listener import sockets
from sidecar.listener.accepted import Accepted
from sidecar.listener.connection_limits import ConnectionLimit
from sidecar.listener.statistics import ListenerStats, WorkerStats
from sidecar.listener.terminal import BuildTerminal, ListenerContext, Terminal

_log = logging.getLogger(__name__)

_ACCEPTS_PER_EVENT = 64  # more stay in the kernel's queue until the loop has looked at everything else
_BACK_OFF = 0.1  # seconds without accepting after the process ran out of descriptors or memory
_OUT_OF_RESOURCES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_WILDCARDS = frozenset(("0.0.0.0", "::"))

AccessLogger = Callable[[StreamInfo], None]


class Listener:
    """``bind``, ``start``, then in the end ``drain`` and ``close``. All filter chains are made at once, in the constructor.

    ``limit`` is this listener's own connection limit, ``global_limit`` the one that listeners share.
    """

    __slots__ = ("config", "worker", "stats", "worker_stats", "limit", "global_limit", "access_loggers", "connections",
                 "sockets", "terminals", "draining", "_chains", "_accepting", "_per_event", "_locals", "_backing_off",
                 "__weakref__")  # fmt: skip

    def __init__(
        self,
        config: ListenerConfig,
        worker: Worker,
        build_terminal: BuildTerminal,
        stats: ListenerStats,
        worker_stats: WorkerStats,
        limit: ConnectionLimit,
        global_limit: ConnectionLimit,
        access_loggers: tuple[AccessLogger, ...] = (),
    ) -> None:
        self.config = config
        self.worker = worker
        self.stats = stats
        self.worker_stats = worker_stats
        self.limit = limit
        self.global_limit = ConnectionLimit() if config.ignore_global_conn_limit else global_limit
        self.access_loggers = access_loggers
        self.connections: set[Accepted] = set()
        self.sockets: list[socket.socket] = []
        self.draining = False
        self._accepting: list[socket.socket] = []
        self._per_event = config.max_connections_to_accept_per_socket_event or _ACCEPTS_PER_EVENT
        self._locals: dict[int, Address] = {}
        self._backing_off = False
        context = ListenerContext(config, worker)
        self.terminals: list[Terminal] = []
        self._chains = [self._build(chain, build_terminal, context) for chain in config.filter_chains]
        if config.default_filter_chain is not None:
            self._chains.append(self._build(config.default_filter_chain, build_terminal, context))

    def _build(
        self, chain: FilterChain, build_terminal: BuildTerminal, context: ListenerContext
    ) -> tuple[FilterChain, Terminal]:
        terminal = build_terminal(chain, chain.filters[-1], context)
        self.terminals.append(terminal)
        return chain, terminal

    # sockets

    def bind(self) -> None:
        """Listen on all addresses, without accepting yet. Raises BindError, and then listens on none."""
        if not self.config.bind_to_port:
            return
        self.sockets = sockets.listen(self.config)
        for sock in self.sockets:
            address = from_socket_name(sock.family, sock.getsockname())
            if address.ip not in _WILDCARDS and not self.config.transparent:
                self._locals[sock.fileno()] = address

    @property
    def local_addresses(self) -> list[Address]:
        """The addresses that are listened on, with the ports that the system gave where 0 was configured."""
        return [from_socket_name(sock.family, sock.getsockname()) for sock in self.sockets]

    def start(self) -> None:
        """Begin to accept."""
        for sock in self.sockets:
            self._accepting.append(sock)
            self.worker.loop.add_reader(sock.fileno(), self._on_readable, sock)

    def stop_accepting(self) -> None:
        """Accept what is queued, then listen no more; connections stay."""
        for sock in self._accepting:
            self.worker.loop.remove_reader(sock.fileno())
            while self._accept(sock, self._per_event) == self._per_event:
                pass
        self._accepting.clear()
        self._locals.clear()
        for sock in self.sockets:
            sockets.close(sock)
        self.sockets = []

    def drain(self) -> None:
        """Stop accepting, and let every connection finish what it does."""
        self.draining = True
        self.stop_accepting()
        for terminal in self.terminals:
            terminal.drain()

    def close(self) -> None:
        """Stop accepting, and end the connections that are left."""
        self.stop_accepting()
        for connection in list(self.connections):
            if connection.transport is not None:
                connection.transport.abort()

    # accepting

    def _on_readable(self, sock: socket.socket) -> None:
        accepted = self._accept(sock, self._per_event)
        if accepted:
            self.stats.connections_accepted_per_socket_event.record(accepted)

    def _accept(self, sock: socket.socket, most: int) -> int:
        """Accept up to ``most`` connections; how many there were."""
        local = self._locals.get(sock.fileno())
        for count in range(most):
            try:
                accepted, name = sock.accept()
            except (BlockingIOError, InterruptedError):
                return count
            except ConnectionError:
                continue  # it was gone before we took it
            except OSError as error:
                if error.errno in _OUT_OF_RESOURCES:
                    self._back_off(sock, error)
                else:
                    _log.warning("listener %r: accept failed: %s", self.config.name, error)
                return count
            self._take(accepted, name, local)
        return most

    def _back_off(self, sock: socket.socket, error: OSError) -> None:
        if not self._backing_off:
            self._backing_off = True
            _log.error("listener %r: cannot accept: %s; trying again every %g ms", self.config.name, error.strerror,
                       _BACK_OFF * 1000)  # fmt: skip
        if sock in self._accepting:
            self.worker.loop.remove_reader(sock.fileno())
            self.worker.wheel.call_in(_BACK_OFF, lambda: self._accept_again(sock))

    def _accept_again(self, sock: socket.socket) -> None:
        if sock in self._accepting:
            self.worker.loop.add_reader(sock.fileno(), self._on_readable, sock)

    def _take(self, sock: socket.socket, name: object, local: Address | None) -> None:
        self._backing_off = False
        limit, shared, stats = self.limit, self.global_limit, self.stats
        if shared.active >= shared.maximum:
            stats.downstream_global_cx_overflow += 1
            sock.close()
            return
        if limit.active >= limit.maximum:
            stats.downstream_cx_overflow += 1
            sock.close()
            return
        sock.setblocking(False)
        worker = self.worker
        remote = from_socket_name(sock.family, name)
        if local is None:
            local = from_socket_name(sock.family, sock.getsockname())
        info = ConnectionInfo(worker.next_id(), local, remote, worker.clock())
        info.listener_name = self.config.name
        limit.active += 1
        shared.active += 1
        self._serve(sock, info)

    def _serve(self, sock: socket.socket, info: ConnectionInfo) -> None:
        chain, terminal = self._chains[0]
        info.filter_chain_name = chain.name
        connection = Accepted(self, info, terminal.accept(info))
        self.connections.add(connection)
        stats, worker_stats = self.stats, self.worker_stats
        stats.downstream_cx_total += 1
        stats.downstream_cx_active += 1
        worker_stats.downstream_cx_total += 1
        worker_stats.downstream_cx_active += 1
        worker = self.worker
        task = worker.loop.create_task(self._connect(connection, sock))
        worker.tasks.add(task)
        task.add_done_callback(worker.tasks.discard)

    async def _connect(self, connection: Accepted, sock: socket.socket) -> None:
        try:
            await self.worker.loop.connect_accepted_socket(connection.itself, sock)
        except OSError as error:
            _log.debug("listener %r: %r: %s", self.config.name, connection.info, error)
            if connection in self.connections:
                sock.close()
                self.lost(connection)

    def lost(self, connection: Accepted) -> None:
        """The connection has ended."""
        self.connections.discard(connection)
        info = connection.info
        stats = self.stats
        stats.downstream_cx_active -= 1
        stats.downstream_cx_destroy += 1
        self.worker_stats.downstream_cx_active -= 1
        stats.downstream_cx_length_ms.record(int((self.worker.clock() - info.start) * 1000))
        self.limit.active -= 1
        self.global_limit.active -= 1
        if self.access_loggers:
            self._log_end(info)

    def _log_end(self, info: ConnectionInfo) -> None:
        worker = self.worker
        record = StreamInfo(info, None, worker.epoch + info.start, info.start)
        record.end = worker.clock()
        for logger in self.access_loggers:
            logger(record)

    def __repr__(self) -> str:
        where = ", ".join(address.text for address in self.local_addresses) or "nowhere"
        return f"<Listener {self.config.name} on {where}: {len(self.connections)} connections>"
