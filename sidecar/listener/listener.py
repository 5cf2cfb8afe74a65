"""A listener: accepts connections, chooses their filter chain, and counts them from accept to close.

The accept loop is our own and not the event loop's server, so that listener filters can peek at a connection's first
bytes before any protocol reads them. Source: Envoy's `envoy.config.listener.v3.Listener`.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable
from math import inf
from typing import Any, Final

from sidecar.config.listener import FilterChain
from sidecar.config.listener import Listener as ListenerConfig
from sidecar.core.address import Address, from_socket_name
from sidecar.core.connection_filter import ASKING
from sidecar.core.response_flags import NO_ROUTE_FOUND
from sidecar.core.stream_info import ConnectionInfo, StreamInfo
from sidecar.core.worker import Worker
from sidecar.listener import sockets
from sidecar.listener.accepted import Accepted, AcceptedSocket, Descriptor, Refused
from sidecar.listener.connection_limits import ConnectionLimit
from sidecar.listener.directory import Directory
from sidecar.listener.filter_chain_match import Find, compile_filter_chains
from sidecar.listener.filters import Placed
from sidecar.listener.pending import Pending
from sidecar.listener.statistics import ListenerStats, WorkerStats
from sidecar.listener.terminal import BuildFilters, BuildTerminal, Chain, ListenerContext, no_filters
from sidecar.listener.undecided import Undecided

_log = logging.getLogger(__name__)

_AF_INET: Final = int(socket.AF_INET)
_ACCEPTS_PER_EVENT = 64  # more stay in the kernel's queue until the loop has looked at everything else
_TRIMS_PER_EVENT = 512
_LOOK_AGAIN = 0.02  # seconds until a queue that is left alone is measured again
_BACK_OFF = 0.1  # seconds without accepting after the process ran out of descriptors or memory
_OUT_OF_RESOURCES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_WILDCARDS = frozenset(("0.0.0.0", "::"))

AccessLogger = Callable[[StreamInfo], None]


class Listener:
    """``bind``, ``start``, then in the end ``drain`` and ``close``. All filter chains are made in the constructor.

    ``limit`` is this listener's own connection limit, ``global_limit`` the one that listeners share. ``filters`` are
    the listener filters, ``directory`` knows the listeners that `use_original_dst` may hand connections to. ``keys`` are
    those of the sockets, by which another process finds them; ``shared`` are those on which one listens, too.
    """

    __slots__ = ("config", "worker", "stats", "worker_stats", "limit", "global_limit", "access_loggers", "filters",
                 "directory", "connections", "pending", "sockets", "chains", "find_chain", "_accepting",
                 "_build", "_per_event", "_known", "_backing_off", "_by_descriptor", "_paused", "_at_once", "_longest_queue",
                 "_rejected_share", "_shed", "_take", "keys", "shared",
                 "taken")  # fmt: skip

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
        build_filters: BuildFilters = no_filters,
        filters: tuple[Placed, ...] = (),
        directory: Directory | None = None,
    ) -> None:
        self.config = config
        self.worker = worker
        self.stats = stats
        self.worker_stats = worker_stats
        self.limit = limit
        self.global_limit = ConnectionLimit() if config.ignore_global_conn_limit else global_limit
        self.access_loggers = access_loggers
        self.filters = filters
        self.directory = directory
        self.connections: set[Accepted | AcceptedSocket | Refused | Undecided] = set()
        self.pending: set[Pending] = set()
        self.sockets: list[socket.socket] = []
        self._accepting: list[socket.socket] = []
        self._per_event = config.max_connections_to_accept_per_socket_event or _ACCEPTS_PER_EVENT
        self._known: dict[int, tuple[Address | None, int]] = {}  # local address, if it is all connections', and family
        self._backing_off = False
        self._by_descriptor = type(worker.loop).__module__.startswith("uvloop")
        self.keys: tuple[str, ...] = ()
        self.shared: frozenset[str] = frozenset()
        self.taken = 0  # out of the kernel's queues
        self._paused = False
        self._at_once = self._per_event
        self._longest_queue: float = inf
        self._take = self._admit
        self._rejected_share = 0.0
        self._shed: Callable[[], None] | None = None
        context = ListenerContext(config, worker)

        def build(chain: FilterChain) -> Chain:
            return Chain(chain, build_filters(chain, context), build_terminal(chain, chain.filters[-1], context))

        self._build = build
        self.find_chain: Find[Chain]
        self.chains: list[Chain]
        self.find_chain, self.chains = self.make_chains(config, lambda chain: None)
        if directory is not None:
            directory.add(self)

    # filter chains

    def make_chains(
        self, config: ListenerConfig, find: Callable[[FilterChain], Chain | None]
    ) -> tuple[Find[Chain], list[Chain]]:
        """The filter chains of a configuration that differs from this listener's in nothing else; ``find`` gives those that
        are there already.
        """

        def chain_of(chain: FilterChain) -> Chain:
            return find(chain) or self._build(chain)

        default = config.default_filter_chain
        matched = [(chain.filter_chain_match, chain_of(chain)) for chain in config.filter_chains]
        otherwise = None if default is None else chain_of(default)
        chains = [chain for _, chain in matched] + ([] if otherwise is None else [otherwise])
        return compile_filter_chains(matched, otherwise), chains

    def take_chains(self, config: ListenerConfig, find_chain: Find[Chain], chains: list[Chain]) -> list[Chain]:
        """Let new connections have these chains; those that are left, and whose connections go on."""
        gone = [chain for chain in self.chains if chain not in chains]
        self.config, self.find_chain, self.chains = config, find_chain, chains
        return gone

    # sockets

    def bind(self, inherited: sockets.Inherited | None = None) -> None:
        """Listen on all addresses, without accepting yet. Raises BindError, and then listens on none.

        What another process already listens on is taken out of ``inherited``; its key is ``shared`` then.
        """
        if not self.config.bind_to_port:
            return
        bound, self.shared = sockets.listen(self.config, inherited)
        self.keys = tuple(key for key, _ in bound)
        self.sockets = [sock for _, sock in bound]
        for sock in self.sockets:
            address = from_socket_name(sock.family, sock.getsockname())
            varies = address.ip in _WILDCARDS or self.config.transparent
            self._known[sock.fileno()] = None if varies else address, int(sock.family)

    @property
    def local_addresses(self) -> list[Address]:
        """The addresses that are listened on, with the ports that the system gave where 0 was configured."""
        return list(dict.fromkeys(from_socket_name(sock.family, sock.getsockname()) for sock in self.sockets))

    def lend_sockets(self) -> sockets.Inherited:
        """Copies of the sockets by their keys, for the listener that takes this one's place."""
        lent: sockets.Inherited = {}
        for key, sock in zip(self.keys, self.sockets, strict=True):
            lent.setdefault(key, []).append(sock.dup())
        return lent

    def start(self) -> None:
        """Begin to accept."""
        for sock in self.sockets:
            self._accepting.append(sock)
            self._watch_socket(sock)

    def stop_accepting(self) -> None:
        """Accept what is queued, then listen no more; connections stay. Where another process listens on the same socket
        (``shared``), what is queued is left to it.
        """
        left = [sock for key, sock in zip(self.keys, self.sockets, strict=True) if key in self.shared]
        for sock in self._accepting:
            self.worker.loop.remove_reader(sock.fileno())
            while sock not in left and self._accept(sock, self._per_event) == self._per_event:
                pass
        self._accepting.clear()
        self._known.clear()
        for sock in self.sockets:
            if sock in left:
                sock.close()
            else:
                sockets.close(sock)
        self.keys, self.sockets = (), []

    def drain(self) -> None:
        """Stop accepting, and let every connection finish what it does."""
        self.stop_accepting()
        for chain in self.chains:
            chain.terminal.drain()

    def close(self) -> None:
        """Stop accepting, and end the connections that are left."""
        self.stop_accepting()
        for connection in (*self.pending, *self.connections):
            connection.abort()

    def end(self) -> None:
        """The last connection is gone, and no other one comes: let go of everything."""
        self._take = _take_nothing
        self._build = _build_nothing
        self.chains = []

    # load: `core.overload.Accepting`

    def queued(self) -> int:
        """How many connections wait in the kernel's queues."""
        return sum(map(sockets.queue_length, self._accepting))

    def pause_accepting(self) -> None:
        """Leave new connections in the kernel's queue."""
        self._paused = True
        self._watch()

    def resume_accepting(self) -> None:
        """Accept again."""
        self._paused = False
        self._watch()

    def trim(self, longest: float, share: float) -> None:
        """Accept only this share (0 to 1) of what else is accepted in a turn of the event loop, and close those that have
        waited longest in the kernel's queue while more than ``longest`` do; ``inf``: none.
        """
        self._at_once = max(1, int(self._per_event * share))
        self._longest_queue = inf if longest == inf else max(1, int(longest))
        self._watch()

    def reject(self, share: float, shed: Callable[[], None] | None) -> None:
        """Close this share (0 to 1) of new connections at once, and call ``shed`` for each."""
        self._rejected_share = share
        self._shed = shed
        self._take = self._reject_or_admit if share else self._admit

    def _watch(self) -> None:
        """Listen for new connections in the way that the load asks for."""
        for sock in self._accepting:
            self._watch_socket(sock)

    def _watch_socket(self, sock: socket.socket) -> None:
        loop = self.worker.loop
        if self._longest_queue != inf:
            loop.add_reader(sock.fileno(), self._on_readable_with_a_long_queue, sock)
        elif self._paused:
            loop.remove_reader(sock.fileno())
        else:
            loop.add_reader(sock.fileno(), self._on_readable, sock)

    def _on_readable_with_a_long_queue(self, sock: socket.socket) -> None:
        surplus = sockets.queue_length(sock) - int(self._longest_queue)
        for _ in range(min(surplus, _TRIMS_PER_EVENT)):
            try:
                sock.accept()[0].close()
            except OSError:
                break
            self.stats.downstream_cx_overload_reject += 1
        if not self._paused:
            self._on_readable(sock)
        elif surplus <= 0:  # it stays readable: look again in a while
            self.worker.loop.remove_reader(sock.fileno())
            self.worker.wheel.call_in(_LOOK_AGAIN, lambda: self._accept_again(sock))

    def _reject_or_admit(self, accepted: Descriptor, name: Any, local: Address | None) -> None:
        shared, share = self.global_limit, self._rejected_share
        if shared.active < shared.maximum and (share >= 1.0 or self.worker.random.random() < share):
            self.stats.downstream_cx_overload_reject += 1
            if self._shed is not None:
                self._shed()
            accepted.as_socket().close()
        else:
            self._admit(accepted, name, local)

    # accepting

    def _on_readable(self, sock: socket.socket) -> None:
        accepted = self._accept(sock, self._at_once)
        if accepted:
            self.taken += accepted
            self.stats.connections_accepted_per_socket_event.record(accepted)

    def _accept(self, sock: socket.socket, most: int) -> int:
        """Accept up to ``most`` connections; how many there were."""
        local, family = self._known[sock.fileno()]
        accept = sock._accept  # type: ignore[attr-defined]  # without a socket object for what is accepted
        for count in range(most):
            try:
                descriptor, name = accept()
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
            self._take(Descriptor(descriptor, family), name, local)
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
            self._watch_socket(sock)

    def _admit(self, accepted: Descriptor, name: Any, local: Address | None) -> None:
        self._backing_off = False
        limit, shared, stats = self.limit, self.global_limit, self.stats
        if shared.active >= shared.maximum:
            stats.downstream_global_cx_overflow += 1
            accepted.as_socket().close()
            return
        if limit.active >= limit.maximum:
            stats.downstream_cx_overflow += 1
            accepted.as_socket().close()
            return
        worker = self.worker
        family = accepted.family
        remote = Address(name[0], name[1]) if family == _AF_INET else from_socket_name(family, name)
        if local is None:
            sock = accepted.as_socket()
            local = from_socket_name(family, sock.getsockname())
            sock.detach()
        info = ConnectionInfo(worker.next_id(), local, remote, worker.clock())
        self._enter(accepted, info, self.config.use_original_dst)

    def _enter(self, accepted: socket.socket | Descriptor, info: ConnectionInfo, hand_off: bool) -> None:
        self.limit.active += 1
        self.global_limit.active += 1
        info.listener_name = self.config.name
        if not self.filters:
            self._serve(accepted, info, hand_off)
            return
        pending = Pending(self, _socket_of(accepted), info, hand_off)
        self.pending.add(pending)
        self.stats.downstream_pre_cx_active += 1
        pending.advance()

    def filtered(self, pending: Pending) -> None:
        """A connection has passed the listener filters."""
        self.pending.discard(pending)
        self.stats.downstream_pre_cx_active -= 1
        self._serve(pending.sock, pending.info, pending.hand_off)

    def gone(self, pending: Pending) -> None:
        """A connection was closed while the listener filters looked at it."""
        self.pending.discard(pending)
        self.stats.downstream_pre_cx_active -= 1
        self._leave()

    def _leave(self) -> None:
        self.limit.active -= 1
        self.global_limit.active -= 1

    # serving

    def _serve(self, accepted: socket.socket | Descriptor, info: ConnectionInfo, hand_off: bool) -> None:
        if hand_off and self.directory is not None and info.local_address is not info.direct_local_address:
            other = self.directory.find(info.local_address)
            if other is not None and other is not self:
                self._leave()
                other._enter(accepted, info, False)
                return
        chain = self.find_chain(info)
        if chain is None:
            self._reject(accepted, info)
            return
        info.filter_chain_name = chain.name
        stats, worker_stats = self.stats, self.worker_stats
        stats.downstream_cx_total += 1
        stats.downstream_cx_active += 1
        worker_stats.downstream_cx_total += 1
        worker_stats.downstream_cx_active += 1
        self._decide(accepted, info, chain, 0)

    def decided(self, undecided: Undecided, delay: float | None) -> None:
        """What the filter says that had to ask."""
        sock, info, chain, position = undecided.sock, undecided.info, undecided.chain, undecided.position
        if delay is None:
            self._decide(sock, info, chain, position + 1)
        else:
            self._refuse(sock, info, chain, position, delay)

    def _decide(self, accepted: socket.socket | Descriptor, info: ConnectionInfo, chain: Chain, first: int) -> None:
        for position in range(first, len(chain.filters)):
            delay = chain.filters[position].on_new_connection(info)
            if delay is not None:
                if delay == ASKING:
                    Undecided(self, _socket_of(accepted), info, chain, position).begin()
                else:
                    self._refuse(_socket_of(accepted), info, chain, position, delay)
                return
        if chain.on_socket is not None:
            served = AcceptedSocket(self, info, chain)
            self.connections.add(served)
            served.session = chain.on_socket.accept_socket(info, _socket_of(accepted), served.ended)
            return
        assert chain.accept is not None
        connection = Accepted(self, info, chain, chain.accept(info))
        self.connections.add(connection)
        worker = self.worker
        if self._by_descriptor:
            opening = connection.opening = worker.loop.connect_accepted_socket(connection.itself, accepted)  # type: ignore[arg-type]
            try:
                opening.send(None)
            except OSError as error:
                self._not_connected(connection, _socket_of(accepted), error)
            return
        task = worker.loop.create_task(self._connect(connection, _socket_of(accepted)))
        worker.tasks.add(task)
        task.add_done_callback(worker.tasks.discard)

    async def _connect(self, connection: Accepted, sock: socket.socket) -> None:
        try:
            await self.worker.loop.connect_accepted_socket(connection.itself, sock)
        except OSError as error:
            self._not_connected(connection, sock, error)

    def _not_connected(self, connection: Accepted, sock: socket.socket, error: OSError) -> None:
        _log.debug("listener %r: %r: %s", self.config.name, connection.info, error)
        if connection in self.connections:
            sock.close()
            self.lost(connection, None)

    def _reject(self, accepted: socket.socket | Descriptor, info: ConnectionInfo) -> None:
        """No filter chain takes it."""
        self.stats.no_filter_chain_match += 1
        _socket_of(accepted).close()
        self._leave()
        if self.access_loggers:
            record = self._record(info)
            record.response_flags = NO_ROUTE_FOUND
            record.response_code_details = "filter_chain_not_found"
            self._log_end(record)

    def _refuse(self, sock: socket.socket, info: ConnectionInfo, chain: Chain, passed: int, delay: float) -> None:
        """The filter after ``passed`` others does not want it; only those hear of its end."""
        heard = Chain(chain.config, chain.filters[:passed], chain.terminal)
        refused = Refused(self, info, heard, sock)
        self.connections.add(refused)
        if delay:
            self.worker.wheel.arm(refused, self.worker.clock() + delay)
        else:
            refused.abort()

    def lost(self, connection: Accepted | AcceptedSocket | Refused | Undecided, record: StreamInfo | None) -> None:
        """The connection has ended; ``record`` is what its terminal knows of it, if it keeps such a thing."""
        self.connections.discard(connection)
        info = connection.info
        stats = self.stats
        stats.downstream_cx_active -= 1
        stats.downstream_cx_destroy += 1
        self.worker_stats.downstream_cx_active -= 1
        stats.downstream_cx_length_ms.record(int((self.worker.clock() - info.start) * 1000))
        self.limit.active -= 1
        self.global_limit.active -= 1
        for connection_filter in connection.chain.filters:
            connection_filter.on_close(info)
        if self.access_loggers:
            self._log_end(self._record(info) if record is None else record)

    def _record(self, info: ConnectionInfo) -> StreamInfo:
        record = StreamInfo(info, None, self.worker.epoch + info.start, info.start)
        record.dynamic_metadata = info.metadata
        return record

    def _log_end(self, record: StreamInfo) -> None:
        record.end = self.worker.clock()
        for logger in self.access_loggers:
            logger(record)

    def __repr__(self) -> str:
        where = ", ".join(address.text for address in self.local_addresses) or "nowhere"
        return f"<Listener {self.config.name} on {where}: {len(self.connections)} connections>"


def _take_nothing(accepted: Descriptor, name: Any, local: Address | None) -> None:
    """Of a listener that has ended."""
    accepted.as_socket().close()


def _build_nothing(chain: FilterChain) -> Chain:
    """Of a listener that has ended."""
    raise RuntimeError("the listener has ended")


def _socket_of(accepted: socket.socket | Descriptor) -> socket.socket:
    return accepted.as_socket() if isinstance(accepted, Descriptor) else accepted
