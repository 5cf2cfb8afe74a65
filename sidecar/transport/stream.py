"""Bytes through an open TLS connection: a protocol towards the event loop, a transport towards the protocol inside.

Half-close works in both directions: ``write_eof`` sends close_notify and then closes the sending side, the peer's
close_notify is ``eof_received``; as in Envoy, so is an end without close_notify. Written bytes are encrypted at once, and
the raw transport buffers them, so its watermarks are the connection's; what was read and is not wanted yet stays
encrypted. Source: RFC 8446 section 6.1 and RFC 5246 section 7.2.1 for closing.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from math import inf
from typing import Any, Final

from sidecar.core.timer_wheel import Timed
from sidecar.core.worker import Worker
from sidecar.transport.failures import TlsFailure, from_ssl
from sidecar.transport.identity import ConnectionTls
from sidecar.transport.statistics import TlsStats

_RECORD: Final = 16384
"""As many bytes as one record holds at most: a read of this size leaves nothing of a record behind."""

_PIECE: Final = 16 * _RECORD
"""So many bytes are encrypted before what came of them is handed on: large writes never exist twice."""

FED: Final = 2 * _RECORD
"""So many encrypted bytes go into ``incoming`` at a time: the BIOs keep the room that they once needed."""

_READ: Final = 65536

_MOST_OWED: Final = 32
"""Answers that TLS itself owes (to key updates, say) in reads without data, before unsent bytes are looked at."""

_MOST_UNSENT: Final = 1 << 20
_NOTHING: Final = memoryview(b"")
HANDSHAKE: Final = 0
OPEN: Final = 1
CLOSED: Final = 2


class TlsStream(asyncio.Protocol, Timed):
    """What a TLS connection does once it is open; ``TlsConnection`` brings it there.

    ``failure`` is why TLS failed, None if it did not.
    """

    __slots__ = (
        "worker",
        "stats",
        "raw",
        "inner",
        "deliver",
        "state",
        "ssl_object",
        "within",
        "read",
        "encrypt",
        "incoming",
        "outgoing",
        "unread",
        "tls",
        "failure",
        "session_wanted",
        "owed",
        "tickets",
        "paused",
        "eof",
        "eof_held",
        "error_held",
        "closing",
        "eof_written",
        "end_held",
    )

    def __init__(self, worker: Worker, stats: TlsStats) -> None:
        self.due = inf
        self.worker = worker
        self.stats = stats
        self.raw: Any = None
        self.inner: Any = None
        self.deliver: Any = None  # the inner protocol's data_received
        self.state = HANDSHAKE
        self.ssl_object: ssl.SSLObject | None = None
        self.within: Any = None  # of ``ssl_object``, which adds nothing to it but a call
        self.read: Any = None
        self.encrypt: Any = None
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.unread = b""  # what came while the inner protocol wanted no data, still encrypted
        self.tls: ConnectionTls | None = None
        self.failure: TlsFailure | None = None
        self.session_wanted = False  # until there is a session that can be resumed
        self.owed = 0
        self.tickets = 0  # bytes of session tickets in ``outgoing`` that leave with the first data, as BoringSSL's do
        self.paused = False  # the inner protocol wants no data
        self.eof = False  # the peer sends no more
        self.eof_held = False  # which the inner protocol does not know yet
        self.error_held: ssl.SSLError | None = None  # TLS broke behind data that is being delivered
        self.closing = False
        self.eof_written = False
        self.end_held = False  # close_notify waits until what was read is delivered: OpenSSL would lose that

    # what the handshake knows

    def shake(self, data: bytes) -> None:
        """Bytes came while the connection is not open."""
        raise NotImplementedError

    def give_up(self, failure: TlsFailure) -> None:
        """No connection comes of this one."""
        raise NotImplementedError

    def ended(self) -> None:
        """The raw connection is lost."""
        raise NotImplementedError

    def failed(self, failure: TlsFailure) -> None:
        """The handshake came to nothing, or TLS broke later; the connection is being closed."""
        raise NotImplementedError

    def keep_session(self) -> None:
        """Something was read while ``session_wanted``: by now there may be a session to resume."""

    # the event loop's side

    def data_received(self, data: bytes) -> None:
        incoming = self.incoming
        if self.state != OPEN:
            self.shake(data)
            return
        if self.paused or self.closing:
            self.unread += data
            return
        try:
            if self.unread or len(data) > FED:
                data, self.unread = self.unread + data, b""
                plain = self._read_on(None, memoryview(data))
            else:
                incoming.write(data)
                plain = self.read(_RECORD)
                if incoming.pending:
                    plain = self._read_on(plain, _NOTHING)
        except ssl.SSLWantReadError:
            plain = None
        except ssl.SSLError as error:
            self._broken(error)
            return
        if self.outgoing.pending:
            self._answer(plain)
        if self.session_wanted:
            self.keep_session()
        if plain:
            self.deliver(plain)
        elif plain is not None:
            self._peer_ended()

    def eof_received(self) -> bool | None:
        if self.state != OPEN:
            self.give_up(TlsFailure("", ""))
            return None
        if self.closing:
            return None
        if self.eof_held or (self.paused and self._is_behind()):
            self.eof_held = True
            return True
        self._peer_ended()
        return None if self.closing else True

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None and self.state == OPEN and not self.closing and not self.eof:
            # After our end nothing is written any more, so that it was reading that found the reset, and nothing is left.
            if not (
                self.eof_written and isinstance(error, ConnectionResetError) and not self.raw.get_write_buffer_size()
            ):
                self._read_out()
        self.ended()
        self.state = CLOSED
        self.closing = True
        inner, self.inner, self.deliver = self.inner, None, None
        self.read = self.encrypt = self.ssl_object = self.within = None
        if inner is not None:
            # Whoever is given an error may look into the socket for what is left, where whatever lies has not passed TLS.
            inner.connection_lost(None)

    def pause_writing(self) -> None:
        if self.inner is not None:
            self.inner.pause_writing()

    def resume_writing(self) -> None:
        if self.inner is not None:
            self.inner.resume_writing()

    # the inner protocol's side

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send."""
        if self.closing or self.state != OPEN:
            return
        if self.eof_written:
            raise RuntimeError("cannot write after write_eof")
        size = len(data)
        if size <= _RECORD:
            if not size:
                return
            try:
                self.encrypt(data)
            except ssl.SSLError as error:
                self._broken(error)
                return
            self.raw.write(self.outgoing.read())
            return
        view = memoryview(data)
        try:
            for start in range(0, size, _PIECE):
                records = []
                for at in range(start, min(size, start + _PIECE), _RECORD):
                    self.encrypt(view[at : at + _RECORD])
                    records.append(self.outgoing.read())
                if self.worker.join_below > _PIECE:  # an event loop that does not pause us for `writelines`
                    self.raw.write(b"".join(records))
                else:
                    self.raw.writelines(records)
        except ssl.SSLError as error:
            self._broken(error)

    def writelines(self, pieces: list[bytes]) -> None:
        """Encrypt all together and send: small pieces share their records."""
        self.write(b"".join(pieces))

    def write_eof(self) -> None:
        """No more is written: close_notify, then the end of the sending side."""
        if self.closing or self.eof_written or self.state != OPEN:
            return
        self.eof_written = True
        if self.paused and self._is_behind():
            self.end_held = True
        else:
            self._end_writing()

    def write_last(self, data: bytes) -> None:
        """As ``write`` and then ``write_eof``; what fits into one record leaves together with close_notify."""
        behind = self.paused and self._is_behind()
        if len(data) > _RECORD or not data or behind or self.closing or self.eof_written or self.state != OPEN:
            self.write(data)
            self.write_eof()
            return
        try:
            self.encrypt(data)
        except ssl.SSLError as error:
            self._broken(error)
            return
        self.eof_written = True
        self._end_writing()

    def can_write_eof(self) -> bool:
        """Always."""
        return True

    def close(self) -> None:
        """Send what is written, then close."""
        if self.closing:
            return
        self.closing = True
        if self.state == OPEN:
            if not self.eof_written or self.end_held:
                self._notify_close()
            self.raw.close()
        elif self.raw is not None:
            self.raw.abort()

    def abort(self) -> None:
        """Close at once; what is not sent yet is lost."""
        self.closing = True
        if self.raw is not None:
            self.raw.abort()

    def is_closing(self) -> bool:
        """Whether it is closed or will be."""
        return self.closing or self.raw is None or bool(self.raw.is_closing())

    def pause_reading(self) -> None:
        """Deliver nothing until ``resume_reading``."""
        if not self.paused:
            self.paused = True
            if not self.closing:
                self.raw.pause_reading()

    def resume_reading(self) -> None:
        """Go on, with what is held first."""
        if not self.paused:
            return
        self.paused = False
        if self.closing:
            return
        if self._is_behind() or self.eof_held or self.error_held is not None or self.end_held:
            self.worker.loop.call_soon(self._resumed)
        else:
            self.raw.resume_reading()

    def is_reading(self) -> bool:
        """Whether data may be delivered."""
        return not self.paused and not self.closing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Of the encrypted bytes that wait to be sent."""
        self.raw.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Low and high."""
        limits: tuple[int, int] = self.raw.get_write_buffer_limits()
        return limits

    def get_write_buffer_size(self) -> int:
        """Encrypted bytes that wait to be sent."""
        return int(self.raw.get_write_buffer_size())

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`ssl_object`, `sslcontext`, `peercert`, `cipher`, `compression`, `tls` (the ``ConnectionTls``) and `tls_failure`
        (why TLS broke, a ``TlsFailure``); everything else is the raw transport's."""
        ssl_object = self.ssl_object
        match name:
            case "tls":
                return default if self.tls is None else self.tls
            case "tls_failure":
                return default if self.failure is None else self.failure
            case "ssl_object":
                return default if ssl_object is None else ssl_object
            case "sslcontext":
                return default if ssl_object is None else ssl_object.context
            case "peercert":
                return default if ssl_object is None else ssl_object.getpeercert()
            case "cipher":
                return default if ssl_object is None else ssl_object.cipher()
            case "compression":
                return default if ssl_object is None else ssl_object.compression()
        return self.raw.get_extra_info(name, default)

    def get_protocol(self) -> TlsStream:
        """This connection, for those who want to ``switch``."""
        return self

    def set_protocol(self, protocol: Any) -> None:
        """Let another protocol take over; its ``connection_made`` is not called."""
        self.inner = protocol
        self.deliver = protocol.data_received

    def switch(self, protocol: Any) -> None:
        """As ``set_protocol``."""
        self.set_protocol(protocol)

    # within

    def _read_on(self, piece: bytes | None, rest: memoryview) -> bytes | None:
        """All that can be decrypted: ``piece``, what is in ``incoming``, and ``rest``; None if it is not a whole record.

        An end or an error behind data is kept for later; without data it is b"", or raised.
        """
        read, incoming = self.read, self.incoming
        pieces = [piece] if piece else []
        while incoming.pending or rest:
            if not incoming.pending:
                incoming.write(rest[:FED])
                rest = rest[FED:]
            try:
                piece = read(_RECORD)
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as error:
                if not pieces:
                    raise
                self.error_held = error
                self.worker.loop.call_soon(self._resumed)
                break
            if not piece:
                if not pieces:
                    return b""
                self.eof_held = True
                self.worker.loop.call_soon(self._resumed)
                break
            pieces.append(piece)
        return b"".join(pieces) if pieces else None

    def _is_behind(self) -> bool:
        """Whether there is something that was not delivered."""
        return bool(self.incoming.pending or self.unread)

    def _drain(self) -> None:
        """Deliver what is held."""
        self.data_received(b"")

    def _resumed(self) -> None:
        if self.paused or self.closing or self.state != OPEN:
            return
        if self._is_behind():
            self._drain()
        if self.end_held and not self.paused and not self.closing:
            self.end_held = False
            self._end_writing()
        error, self.error_held = self.error_held, None
        if error is not None and not self.closing:
            self._broken(error)
        if self.eof_held and not self.paused and not self.closing:
            self.eof_held = False
            self._peer_ended()
        if not self.paused and not self.closing:
            self.raw.resume_reading()

    def _end_writing(self) -> None:
        if not self.raw.is_closing():
            self._notify_close()
            self.raw.write_eof()

    def _peer_ended(self) -> None:
        if self.eof:
            return
        self.eof = True
        if not self.inner.eof_received():
            self.close()

    def _notify_close(self) -> None:
        try:  # noqa: SIM105  `suppress` is three calls more for every connection
            self.within.shutdown()
        except ssl.SSLError:  # mostly: the peer's has not come yet
            pass
        self._flush()

    def _answer(self, plain: bytes | None) -> None:
        """TLS itself has something to send. A peer that makes it, and does not take it, is given up."""
        if self.tickets == self.outgoing.pending:
            return
        self._flush()
        self.owed = 0 if plain else self.owed + 1
        if self.owed > _MOST_OWED and self.raw.get_write_buffer_size() > _MOST_UNSENT:
            self.abort()

    def encrypt_first(self, data: bytes | bytearray | memoryview) -> None:
        """What ``encrypt`` is while there are ``tickets``."""
        self.tickets = 0
        self.encrypt = self.within.write
        self.encrypt(data)

    def _flush(self) -> None:
        self.tickets = 0
        if self.outgoing.pending and not self.raw.is_closing():
            self.raw.write(self.outgoing.read())

    def _broken(self, error: ssl.SSLError) -> None:
        """TLS cannot go on: the peer sent an alert, or what is no TLS."""
        if isinstance(error, ssl.SSLZeroReturnError):  # close_notify after our own
            self._peer_ended()
            return
        failure = self.failure = from_ssl(error)
        if failure.counter:
            setattr(self.stats, failure.counter, getattr(self.stats, failure.counter) + 1)
        self.failed(failure)
        self._flush()
        self.closing = True
        self.raw.close()

    def _read_out(self) -> None:
        """Writing failed; what the peer had sent before it went (a 413, say) is still there to be read."""
        descriptor = self.raw.get_extra_info("socket").fileno()
        while not self.closing and not self.eof and not self.paused:
            try:
                data = os.read(descriptor, _READ)
            except OSError:
                return
            if not data:  # after an error this is no proper end
                return
            self.data_received(data)

    def __repr__(self) -> str:
        state = ("shaking hands", "open", "closed")[self.state]
        return (
            f"<{type(self).__name__} {state}{' and closing' if self.closing else ''}, {self.inner!r} in {self.raw!r}>"
        )
