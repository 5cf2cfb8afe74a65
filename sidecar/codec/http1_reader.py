"""What both directions of an HTTP/1 connection share: heads found, bodies cut, limits held (RFC 9112 sections 2 and 7).

A reader owns one direction. It finds the end of a head itself, with the limits counted on raw bytes, and passes bodies on
as the objects that arrived, or slices of them. After a whole message it rests in ``DONE`` and keeps what follows, until its
owner calls ``next_message``. No I/O, no clock: bytes in, calls of a sink out.
"""

from __future__ import annotations

import re
from typing import Final, Generic, Protocol, TypeVar

from sidecar.codec.errors import ProtocolError
from sidecar.codec.http1_head import CHUNKED, field_error
from sidecar.codec.wire import Field, FieldLines, hexadecimal
from sidecar.core.head import RequestHead, ResponseHead

H = TypeVar("H", RequestHead, ResponseHead)
H_contra = TypeVar("H_contra", RequestHead, ResponseHead, contravariant=True)

_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_LONGEST_CHUNK_LINE: Final = 4096
_CHUNKS_PER_TURN: Final = 2048
_NEVER_IN_TRAILERS: Final = frozenset(  # they would change what the message is (RFC 9110 section 6.5.1)
    (b"content-length", b"transfer-encoding", b"host", b"connection", b"upgrade", b"te", b"trailer")
)
_LONGEST_GAP: Final = 64  # empty lines before a request line, in bytes (RFC 9112 section 2.2)

# What is awaited next.
HEAD: Final = 0
BODY: Final = 1
CHUNK_SIZE: Final = 2
CHUNK_DATA: Final = 3
CHUNK_END: Final = 4
TRAILERS: Final = 5
TO_CLOSE: Final = 6
TUNNEL: Final = 7
DONE: Final = 8
BROKEN: Final = 9

_ENDLESS: Final = (TO_CLOSE, TUNNEL)


class Sink(Protocol[H_contra]):
    """Where a reader delivers; ``end`` is true on the last call for a message."""

    def on_head(self, head: H_contra, end: bool) -> None: ...

    def on_data(self, data: bytes, end: bool) -> None: ...

    def on_trailers(self, trailers: list[Field]) -> None: ...

    def on_message(self, head: H_contra, body: bytes) -> None:
        """Head and whole body at once, for a message of known length that one read brought: most of them."""
        ...


class Http1Reader(Generic[H]):
    """One direction of an HTTP/1 connection. Raises ProtocolError from ``receive``, and then takes nothing more."""

    __slots__ = (
        "gap",
        "head_size",
        "held",
        "interrupted",
        "keep_alive",
        "keep_case",
        "keep_trailers",
        "lines_seen",
        "max_fields",
        "max_head_bytes",
        "partial",
        "remaining",
        "sink",
        "state",
    )  # fmt: skip

    longest_gap = _LONGEST_GAP

    def __init__(self, lines_seen: FieldLines, max_head_bytes: int = 60 * 1024, max_fields: int = 100) -> None:
        self.sink: Sink[H] | None = None
        self.state = HEAD
        self.remaining = 0  # bytes left of the body or of the chunk
        self.partial: bytearray | None = None  # an incomplete head, chunk line or trailer block
        self.held: list[bytes] | None = None  # what arrived behind a finished message, or waits for another turn
        self.interrupted = False  # very many chunks in one read: ``held`` is to be taken in another turn of the loop
        self.lines_seen = lines_seen
        self.max_head_bytes = max_head_bytes
        self.max_fields = max_fields
        self.head_size = 0
        self.gap = 0  # bytes of empty lines before a head
        self.keep_trailers = True  # hand them on, and do not only read them
        self.keep_case = False  # remember how the peer spells the names of fields
        self.keep_alive = True  # as the last head left it (RFC 9112 section 9.3)

    def receive(self, data: bytes) -> None:
        """Take what one read produced."""
        state = self.state
        at = 0
        if state == HEAD and self.partial is None:
            end = data.find(b"\r\n\r\n")
            if 0 < end <= self.max_head_bytes and data[0] != 13:
                self.head_size = at = end + 4
                if self.take_head(data[:end], data, at):
                    return
        elif state == BODY:
            remaining = self.remaining - len(data)
            if remaining > 0:
                self.remaining = remaining
                self.sink.on_data(data, False)  # type: ignore[union-attr]
                return
        self._receive(data, at)

    def _receive(self, data: bytes, at: int) -> None:
        size = len(data)
        if self.interrupted:
            self._hold(data)
            return
        while at < size:
            state = self.state
            if state == HEAD:
                at = self._find_head(data, at)
            elif state == BODY:
                at = self._body(data, at)
            elif CHUNK_SIZE <= state <= CHUNK_END:
                at = self._chunks(data, at)
            elif state == TRAILERS:
                at = self._trailers(data, at)
            elif state == DONE:
                self._hold(data[at:])
                return
            elif state in _ENDLESS:
                self.sink.on_data(data[at:], False)  # type: ignore[union-attr]
                return
            else:
                return

    def take_head(self, block: bytes, data: bytes, rest: int) -> bool:
        """Parse a complete head, set the state that its framing asks for, and deliver it.

        ``data`` from ``rest`` on is what follows it; True if nothing of that is left to be taken.
        """
        raise NotImplementedError

    def begins(self, partial: bytearray) -> object:
        """Nothing true where what has come of a head cannot be the beginning of one: nobody waits for the rest."""
        return True

    def stop(self) -> None:
        """Take nothing more, not even of the read that is being taken."""
        self.state = BROKEN
        self.partial = None
        self.held = None
        self.interrupted = False

    def fail(self, details: str, status: int = 400) -> ProtocolError:
        """Take nothing more; the error to raise."""
        self.stop()
        return ProtocolError(details, status)

    def begin_body(self, framing: int) -> None:
        """Set the state for a body of this framing."""
        if framing > 0:
            self.state = BODY
            self.remaining = framing
        elif framing == CHUNKED:
            self.state = CHUNK_SIZE
        else:
            self.state = TO_CLOSE

    def next_message(self) -> None:
        """The exchange is over on both sides: await the next head."""
        self.state = HEAD

    def take_held(self) -> None:
        """Go on with what arrived behind the finished message, or was left for another turn."""
        held = self.held
        if held is not None:
            self.held = None
            self.interrupted = False
            self.receive(held[0] if len(held) == 1 else b"".join(held))

    def held_size(self) -> int:
        """Bytes that wait behind the finished message."""
        return sum(map(len, self.held)) if self.held is not None else 0

    def eof(self) -> bool:
        """The peer will send no more. True if that ends a message properly (or none had begun).

        A body that is framed by the end of the connection ends here, with ``on_data(b"", True)``.
        """
        if self.state == TO_CLOSE:
            self.state = DONE
            self.sink.on_data(b"", True)  # type: ignore[union-attr]
            return True
        return self.state == DONE or (self.state == HEAD and not self.partial)

    def _hold(self, data: bytes) -> None:
        if self.held is None:
            self.held = [data]
        else:
            self.held.append(data)

    def _find_head(self, data: bytes, at: int) -> int:
        most = self.max_head_bytes
        partial = self.partial
        if partial is None:
            end = data.find(b"\r\n\r\n", at, at + most + 4)
            if end > at and data[at] != 13:
                rest = end + 4
                self.head_size = rest - at
                return len(data) if self.take_head(data[at:end], data, rest) else rest
            partial = bytearray()
        known = len(partial)
        partial += data[at : at + most + _LONGEST_GAP + 8]
        gap = 0
        if partial[0] == 13:  # empty lines before a message
            while partial[gap : gap + 2] == b"\r\n":
                gap += 2
            self.gap += gap
            if self.gap > self.longest_gap:
                raise self.fail("http1.codec_error")
            del partial[:gap]
        search_from = max(0, known - gap - 3)
        end = partial.find(b"\r\n\r\n", search_from)
        if end > most or (end < 0 and len(partial) > most):
            raise self.fail("http1.headers_too_large", 431)
        if end < 0:
            if _BARE_LF.search(partial, search_from) or (partial and not self.begins(partial)):
                raise self.fail("http1.codec_error")
            self.partial = partial
            return len(data)
        self.partial = None
        self.gap = 0
        self.head_size = end + 4
        rest = at + gap + end + 4 - known
        return len(data) if self.take_head(bytes(partial[:end]), data, rest) else rest

    def _body(self, data: bytes, at: int) -> int:
        end = at + self.remaining
        size = len(data)
        if end > size:
            self.remaining = end - size
            self.sink.on_data(data[at:], False)  # type: ignore[union-attr]
            return size
        self.remaining = 0
        self.state = DONE
        self.sink.on_data(data[at:end], True)  # type: ignore[union-attr]
        return end

    def _keep(self, data: bytes, most: int) -> None:
        if self.partial is None:
            self.partial = bytearray(data)
        else:
            self.partial += data
        if len(self.partial) > most:
            raise self.fail("http1.codec_error")

    def _chunks(self, data: bytes, at: int) -> int:
        """Cut chunks until the body or the data ends; what one read brought of a body is delivered at once."""
        size = len(data)
        pieces: list[bytes] = []
        state = self.state
        left = _CHUNKS_PER_TURN
        while at < size:
            if state == CHUNK_DATA:
                end = at + self.remaining
                if end > size:
                    self.remaining = end - size
                    end = size
                else:
                    self.remaining = 0
                    state = CHUNK_END
                pieces.append(data[at:end])
                at = end
            elif state == CHUNK_END:
                if self.partial is None and data[at] == 13:
                    at += 1
                    if at == size:
                        self.partial = bytearray(b"\r")
                        break
                elif self.partial is None:
                    raise self.fail("http1.codec_error")
                if data[at] != 10:
                    raise self.fail("http1.codec_error")
                self.partial = None
                at += 1
                state = CHUNK_SIZE
            else:
                if not left:
                    self.interrupted = True
                    self._hold(data[at:])
                    at = size
                    break
                left -= 1
                end = data.find(b"\n", at, at + _LONGEST_CHUNK_LINE)
                if end < 0:
                    self._keep(data[at : at + _LONGEST_CHUNK_LINE + 1], _LONGEST_CHUNK_LINE)
                    at = size
                    break
                chunk = self._chunk_size(data[at:end])
                at = end + 1
                if chunk:
                    state = CHUNK_DATA
                    self.remaining = chunk
                else:
                    state = TRAILERS
                    break
        last = state == TRAILERS and data[at : at + 2] == b"\r\n"
        self.state = DONE if last else state
        if pieces or last:
            self.sink.on_data(pieces[0] if len(pieces) == 1 else b"".join(pieces), last)  # type: ignore[union-attr]
        return at + 2 if last else at

    def _chunk_size(self, line: bytes) -> int:
        """The size in a chunk's first line, which ends before the LF (RFC 9112 section 7.1)."""
        if self.partial is not None:
            line = bytes(self.partial) + line
            self.partial = None
        if len(line) > _LONGEST_CHUNK_LINE or line[-1:] != b"\r" or b"\r" in line[:-1]:
            raise self.fail("http1.codec_error")
        digits, semicolon, extension = line[:-1].partition(b";")
        if semicolon:
            digits = digits.rstrip(b" \t")
            if b"\x00" in extension:
                raise self.fail("http1.codec_error")
        size = hexadecimal(digits)
        if size is None:
            raise self.fail("http1.codec_error")
        return size

    def _trailers(self, data: bytes, at: int) -> int:
        most = self.max_head_bytes
        partial = self.partial
        if partial is None:
            partial = bytearray()
        known = len(partial)
        partial += data[at : at + most + 8]
        if partial[:2] == b"\r\n":
            self.partial = None
            self.state = DONE
            self.sink.on_data(b"", True)  # type: ignore[union-attr]
            return at + 2 - known
        search_from = max(0, known - 3)
        end = partial.find(b"\r\n\r\n", search_from)
        if end > most or (end < 0 and len(partial) > most):
            raise self.fail("http1.headers_too_large", 431)
        if end < 0:
            if _BARE_LF.search(partial, search_from):
                raise self.fail("http1.codec_error")
            self.partial = partial
            return len(data)
        self.partial = None
        lines = bytes(partial[:end]).split(b"\r\n")
        if len(lines) > self.max_fields:
            raise self.fail("http1.headers_too_large", 431)
        try:
            trailers = [self.lines_seen[line] for line in lines]
        except ValueError:
            raise self.fail(field_error(bytes(partial[:end]))) from None
        self.state = DONE
        if not self.keep_trailers:
            self.sink.on_data(b"", True)  # type: ignore[union-attr]
            return at + end + 4 - known
        self.sink.on_trailers([field for field in trailers if field[0] not in _NEVER_IN_TRAILERS])  # type: ignore[union-attr]
        return at + end + 4 - known
