"""A TLS connection from its handshake on, on the ssl module's memory BIOs.

The inner protocol exists only once the handshake is done and the peer is who it must be.
"""

from __future__ import annotations

import ssl
from math import inf
from typing import Any

from sidecar.core.deadlines import Deadlines
from sidecar.core.worker import Worker
from sidecar.transport.failures import TlsFailure, from_ssl
from sidecar.transport.handshake_limit import HandshakeLimit
from sidecar.transport.identity import ConnectionTls
from sidecar.transport.statistics import TlsStats
from sidecar.transport.stream import CLOSED, FED, HANDSHAKE, OPEN, TlsStream


class TlsConnection(TlsStream):
    """Either side of TLS; ``DownstreamConnection`` and ``UpstreamConnection`` know how the handshake begins and ends.

    ``deadlines`` say how long the handshake may take, None if somebody else does.
    """

    __slots__ = ("limit", "since", "head", "curve", "deadlines", "held_back", "began")

    def __init__(
        self, worker: Worker, stats: TlsStats, limit: HandshakeLimit, deadlines: Deadlines | None = None
    ) -> None:
        TlsStream.__init__(self, worker, stats)
        self.limit = limit
        self.since = 0.0
        self.head = b""  # what was read before there is an ``ssl_object``
        self.curve = ""  # the only one that may be agreed on, if there is but one
        self.deadlines = deadlines
        self.held_back = False  # until it is the handshake's turn
        self.began = False

    # what the two sides know

    speaks_first = False
    """Whether this side begins the handshake."""

    def is_asking(self) -> bool:
        """Whether ``head`` is enough to begin with; until then the connection is cheap, and does not count."""
        raise NotImplementedError

    def start(self) -> None:
        """It is the handshake's turn: make ``ssl_object`` with ``set_up``, now or when enough has been read."""
        raise NotImplementedError

    def hello(self) -> None:
        """There are bytes in ``head``, and no ``ssl_object`` yet."""
        raise NotImplementedError

    def finish(self, ssl_object: ssl.SSLObject) -> tuple[ConnectionTls, TlsFailure | None]:
        """OpenSSL is done: who is there, and what is wrong with that."""
        raise NotImplementedError

    def opened(self) -> Any:
        """All is well: the inner protocol."""
        raise NotImplementedError

    def timed_out(self) -> None:
        """The handshake took too long; the connection is being closed."""
        raise NotImplementedError

    # its turn

    def connection_made(self, transport: Any) -> None:
        self.raw = transport
        if self.closing:
            transport.abort()
            return
        if self.deadlines is not None:
            self.deadlines.begin(self)
        if self.speaks_first:
            self.queue()

    def queue(self) -> None:
        """From here on the handshake costs something: begin it, now or when it is its turn."""
        self.since = self.worker.clock()
        if self.limit.enter(self):
            if not self.began:
                self.begin()
        else:
            self.held_back = True
            self.raw.pause_reading()
            self._insist(self.since)

    def _insist(self, now: float) -> None:
        """Ask again when all who shake hands now have had their time."""
        self.worker.wheel.arm(self, now + self.limit.patience)

    def begin(self) -> None:
        """The handshake may begin."""
        self.began = True
        if self.held_back:
            self.since = self.worker.clock()
            self.raw.resume_reading()
            self.worker.wheel.cancel(self)
        self.start()
        if self.head and self.ssl_object is None and not self.closing:
            self.hello()

    def expire(self) -> None:
        """The handshake's deadline."""
        if self.state == HANDSHAKE and not self.closing:
            self.timed_out()
            self.give_up(TlsFailure("", ""))

    def on_timer(self, now: float) -> None:
        """Time to insist on its turn."""
        if self.state != HANDSHAKE or self.closing:
            return
        self.limit.make_room(now)
        if not self.began and not self.closing:
            self._insist(now)

    def crowd_out(self) -> None:
        """Others wait, and this handshake has lasted long."""
        self.give_up(TlsFailure("", ""))

    # the handshake

    def set_up(self, ssl_object: ssl.SSLObject) -> None:
        """The object for ``incoming`` and ``outgoing`` is there: shake hands."""
        self.ssl_object = ssl_object
        self.within = ssl_object._sslobj  # type: ignore[attr-defined]
        self.incoming.write(self.head)
        self.head = b""
        self._advance()

    def shake(self, data: bytes) -> None:
        if self.ssl_object is not None:
            self.incoming.write(data[:FED])
            self._advance()
            if len(data) > FED and not self.closing:
                self.data_received(data[FED:])
        elif not self.closing:
            self.head += data
            if self.began:
                self.hello()
            elif self.held_back:  # uvloop forgets that reading was paused in `connection_made`
                self.raw.pause_reading()
            elif self.is_asking():
                self.queue()

    def _advance(self) -> None:
        ssl_object, within = self.ssl_object, self.within
        if self.closing or ssl_object is None:
            return
        try:
            within.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            self._flush()  # the alert
            self.give_up(from_ssl(error))
            return
        self.tls, failure = self.finish(ssl_object)
        if failure is not None:
            # What was prepared would tell the peer that all is well.
            self.give_up(failure)
            return
        self._leave_handshake()
        self._count(self.tls)
        self.tls.opened = self.worker.clock()
        self.state = OPEN
        self.read = within.read
        self.encrypt = within.write
        if not self.speaks_first and self.tls.version == "TLSv1.3":  # the last word was the client's
            self.tickets = self.outgoing.pending
            if self.tickets:
                self.encrypt = self.encrypt_first
        else:
            self._flush()
        inner = self.inner = self.opened()
        self.deliver = inner.data_received
        inner.connection_made(self)
        if self.incoming.pending and not self.paused:
            self._drain()

    def _count(self, tls: ConnectionTls) -> None:
        stats = self.stats
        stats.handshake += 1
        if tls.resumed:
            stats.session_reused += 1
        if tls.peer is None:
            stats.no_certificate += 1
        stats.count("ciphers", tls.cipher)
        stats.count("versions", tls.version)
        if self.curve and (tls.version == "TLSv1.3" or "ECDHE" in tls.cipher):
            stats.count("curves", self.curve)

    def give_up(self, failure: TlsFailure) -> None:
        if self.failure is None:
            self.failure = failure
            if failure.counter:
                setattr(self.stats, failure.counter, getattr(self.stats, failure.counter) + 1)
            self._leave_handshake()
            self.state = CLOSED
            self.closing = True
            self.raw.close()
            self.failed(failure)

    def ended(self) -> None:
        if self.state == HANDSHAKE:
            self._leave_handshake()
            if self.failure is None:
                self.failure = TlsFailure("", "")
                self.failed(self.failure)

    def _leave_handshake(self) -> None:
        if self.due != inf:
            self.worker.wheel.cancel(self)
        if self.deadlines is not None:
            self.deadlines.end(self)
        if self.state == HANDSHAKE:
            self.limit.leave(self)
