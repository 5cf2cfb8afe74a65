"""HTTP/1 messages, sans I/O: bytes in, calls of a sink out; framing decided and bodies cut here (RFC 9112).

A reader owns one direction of a connection. It finds the end of a head itself, with the limits counted on raw bytes,
and passes bodies on as the objects that arrived, or slices of them. After a whole message it rests in ``DONE`` and keeps
what follows, until its owner calls ``next_message``.
"""

from __future__ import annotations

import re
from typing import Final, Generic, Protocol, TypeVar

from sidecar.codec.errors import ProtocolError
from sidecar.codec.http1_head import CHUNKED, NO_BODY, UNTIL_CLOSE, parse_request_head, parse_response_head
from sidecar.codec.wire import Field, FieldLines, hexadecimal, tokens_of
from sidecar.core.head import RequestHead, ResponseHead

H = TypeVar("H", RequestHead, ResponseHead)
H_contra = TypeVar("H_contra", RequestHead, ResponseHead, contravariant=True)

_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_LONGEST_CHUNK_LINE: Final = 4096
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


def persists(connection: bytes, version: int) -> bool:
    """Whether a message with this Connection field leaves the connection open (RFC 9112 section 9.3)."""
    if connection == b"keep-alive":
        return True
    options = tokens_of(connection)
    if b"close" in options:
        return False
    return version == 11 or b"keep-alive" in options


def spelling(block: bytes) -> dict[bytes, bytes]:
    """Lower-case names to the names as the peer wrote them."""
    names = [line.partition(b":")[0] for line in block.split(b"\r\n")[1:]]
    return {name.lower(): name for name in names}


class Sink(Protocol[H_contra]):
    """Where a reader delivers; ``end`` is true on the last call for a message."""

    def on_head(self, head: H_contra, end: bool) -> None: ...

    def on_data(self, data: bytes, end: bool) -> None: ...

    def on_trailers(self, trailers: list[Field]) -> None: ...

    def on_message(self, head: H_contra, body: bytes) -> None:
        """Head and whole body at once, for a message of known length that one read brought: most of them."""
        ...


class Http1Reader(Generic[H]):
    """One direction of an HTTP/1 connection. Raises ProtocolError from ``receive``; after that it takes nothing more."""

    __slots__ = (
        "gap",
        "head_size",
        "held",
        "keep_alive",
        "keep_case",
        "lines_seen",
        "max_fields",
        "max_head_bytes",
        "partial",
        "remaining",
        "sink",
        "state",
    )  # fmt: skip

    def __init__(self, lines_seen: FieldLines, max_head_bytes: int = 60 * 1024, max_fields: int = 100) -> None:
        self.sink: Sink[H] | None = None
        self.state = HEAD
        self.remaining = 0  # bytes left of the body or of the chunk
        self.partial: bytearray | None = None  # an incomplete head, chunk line or trailer block
        self.held: list[bytes] | None = None  # what arrived behind a finished message
        self.lines_seen = lines_seen
        self.max_head_bytes = max_head_bytes
        self.max_fields = max_fields
        self.head_size = 0
        self.gap = 0  # bytes of empty lines before a head
        self.keep_case = False  # remember how the peer spells the names of fields
        self.keep_alive = True  # as the last head left it (RFC 9112 section 9.3)

    def receive(self, data: bytes) -> None:
        """Take what one read produced."""
        state = self.state
        if state == HEAD and self.partial is None:
            end = data.find(b"\r\n\r\n")
            if 0 < end <= self.max_head_bytes and data[0] != 13:
                rest = end + 4
                self.head_size = rest
                if self.take_head(data[:end], data, rest):
                    return
                data = data[rest:]
        elif state == BODY:
            remaining = self.remaining - len(data)
            if remaining > 0:
                self.remaining = remaining
                self.sink.on_data(data, False)  # type: ignore[union-attr]
                return
        self._receive(data)

    def _receive(self, data: bytes) -> None:
        while data:
            state = self.state
            if state == DONE:
                if self.held is None:
                    self.held = [data]
                else:
                    self.held.append(data)
                return
            if state == HEAD:
                data = self._find_head(data)
            elif state == BODY or state == CHUNK_DATA:
                data = self._body(data)
            elif state == CHUNK_SIZE:
                data = self._chunk_size(data)
            elif state == CHUNK_END:
                data = self._chunk_end(data)
            elif state == TRAILERS:
                data = self._trailers(data)
            elif state == TO_CLOSE or state == TUNNEL:
                self.sink.on_data(data, False)  # type: ignore[union-attr]
                return
            else:
                return

    def take_head(self, block: bytes, data: bytes, rest: int) -> bool:
        """Parse a complete head, set the state that its framing asks for, and deliver it.

        ``data`` from ``rest`` on is what follows it; True if nothing of that is left to be taken.
        """
        raise NotImplementedError

    def fail(self, details: str, status: int = 400) -> ProtocolError:
        """Take nothing more; the error to raise."""
        self.state = BROKEN
        self.partial = None
        self.held = None
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
        """Go on with what arrived behind the finished message."""
        held = self.held
        if held is not None:
            self.held = None
            self.receive(held[0] if len(held) == 1 else b"".join(held))

    def take_rest(self) -> bytes:
        """Everything that was read and not delivered: what a tunnel must carry first."""
        rest = b"".join(self.held or ())
        self.held = None
        return rest

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

    def _find_head(self, data: bytes) -> bytes:
        partial = self.partial
        if partial is None:
            partial = bytearray()
        search_from = max(0, len(partial) - 3)
        partial += data
        if partial[0] == 13:  # empty lines before a message
            gap = 0
            while partial[gap : gap + 2] == b"\r\n":
                gap += 2
            self.gap += gap
            if self.gap > _LONGEST_GAP:
                raise self.fail("http1.codec_error")
            del partial[:gap]
            search_from = 0
        end = partial.find(b"\r\n\r\n", search_from)
        if end < 0:
            if len(partial) > self.max_head_bytes:
                raise self.fail("http1.headers_too_large", 431)
            if _BARE_LF.search(partial, max(0, search_from - 1)):  # one byte back, for the CR that may stand there
                raise self.fail("http1.codec_error")
            self.partial = partial
            return b""
        if end > self.max_head_bytes:
            raise self.fail("http1.headers_too_large", 431)
        block = bytes(partial[:end])
        rest = bytes(partial[end + 4 :])
        self.partial = None
        self.gap = 0
        self.head_size = end + 4
        return b"" if self.take_head(block, rest, 0) else rest

    def _body(self, data: bytes) -> bytes:
        remaining = self.remaining
        size = len(data)
        if size < remaining:
            self.remaining = remaining - size
            self.sink.on_data(data, False)  # type: ignore[union-attr]
            return b""
        rest = b""
        if size > remaining:
            rest = data[remaining:]
            data = data[:remaining]
        self.remaining = 0
        if self.state == BODY:
            self.state = DONE
            self.sink.on_data(data, True)  # type: ignore[union-attr]
        else:
            self.state = CHUNK_END
            self.sink.on_data(data, False)  # type: ignore[union-attr]
        return rest

    def _line(self, data: bytes, end: int) -> bytes:
        line = data[:end]
        if self.partial is not None:
            line = bytes(self.partial) + line
            self.partial = None
        return line

    def _keep(self, data: bytes, most: int, details: str) -> bytes:
        if self.partial is None:
            self.partial = bytearray(data)
        else:
            self.partial += data
        if len(self.partial) > most:
            raise self.fail(details)
        return b""

    def _chunk_size(self, data: bytes) -> bytes:
        end = data.find(b"\n")
        if end < 0:
            return self._keep(data, _LONGEST_CHUNK_LINE, "http1.codec_error")
        line = self._line(data, end)
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
        if size:
            self.state = CHUNK_DATA
            self.remaining = size
        else:
            self.state = TRAILERS
        return data[end + 1 :]

    def _chunk_end(self, data: bytes) -> bytes:
        if self.partial is not None:
            data = bytes(self.partial) + data
            self.partial = None
        if data[:2] == b"\r\n":
            self.state = CHUNK_SIZE
            return data[2:]
        if data == b"\r":
            self.partial = bytearray(data)
            return b""
        raise self.fail("http1.codec_error")

    def _trailers(self, data: bytes) -> bytes:
        if self.partial is not None:
            data = bytes(self.partial) + data
            self.partial = None
        if data[:2] == b"\r\n":
            self.state = DONE
            self.sink.on_data(b"", True)  # type: ignore[union-attr]
            return data[2:]
        end = data.find(b"\r\n\r\n")
        if end < 0:
            if len(data) > self.max_head_bytes:
                raise self.fail("http1.trailers_too_large", 431)
            if _BARE_LF.search(data):
                raise self.fail("http1.codec_error")
            self.partial = bytearray(data)
            return b""
        lines = data[:end].split(b"\r\n")
        if end > self.max_head_bytes or len(lines) > self.max_fields:
            raise self.fail("http1.trailers_too_large", 431)
        try:
            trailers = [self.lines_seen[line] for line in lines]
        except ValueError:
            raise self.fail("http1.codec_error") from None
        self.state = DONE
        self.sink.on_trailers(trailers)  # type: ignore[union-attr]
        return data[end + 4 :]


class RequestReader(Http1Reader[RequestHead]):
    """Reads requests from a client."""

    __slots__ = ()

    def take_head(self, block: bytes, data: bytes, rest: int) -> bool:
        try:
            head, framing = parse_request_head(block, self.lines_seen, self.max_fields)
        except ProtocolError:
            self.state = BROKEN
            raise
        if self.keep_case:
            head.names = spelling(block)
        connection = head.index.get(b"connection")
        self.keep_alive = head.version == 11 if connection is None else persists(connection, head.version)
        if framing == NO_BODY:
            self.state = DONE
            self.sink.on_head(head, True)  # type: ignore[union-attr]
        else:
            self.begin_body(framing)
            self.sink.on_head(head, False)  # type: ignore[union-attr]
        return rest == len(data)


class ResponseReader(Http1Reader[ResponseHead]):
    """Reads responses from an upstream. ``expect`` names the method of the request that the next one answers."""

    __slots__ = ("method",)

    def __init__(
        self,
        lines_seen: FieldLines,
        max_head_bytes: int = 60 * 1024,
        max_fields: int = 100,
    ) -> None:
        super().__init__(lines_seen, max_head_bytes, max_fields)
        self.method = b""
        self.state = DONE

    def expect(self, method: bytes, sink: Sink[ResponseHead]) -> None:
        """A request with ``method`` was sent: its response goes to ``sink``."""
        self.method = method
        self.sink = sink
        self.state = HEAD

    def take_head(self, block: bytes, data: bytes, rest: int) -> bool:
        try:
            head, framing = parse_response_head(block, self.lines_seen, self.max_fields, self.method)
        except ProtocolError:
            self.state = BROKEN
            raise
        if self.keep_case:
            head.names = spelling(block)
        connection = head.index.get(b"connection")
        self.keep_alive = framing != UNTIL_CLOSE and (
            head.version == 11 if connection is None else persists(connection, head.version)
        )
        status = head.status
        if framing == len(data) - rest and framing:
            self.state = DONE
            self.sink.on_message(head, data[rest:])  # type: ignore[union-attr]
            return True
        if status < 200 or (self.method == b"CONNECT" and status < 300):
            if status == 101 or status >= 200:
                self.state = TUNNEL
            self.sink.on_head(head, False)  # type: ignore[union-attr]
        elif framing == NO_BODY:
            self.state = DONE
            self.sink.on_head(head, True)  # type: ignore[union-attr]
        else:
            self.begin_body(framing)
            self.sink.on_head(head, False)  # type: ignore[union-attr]
        return rest == len(data)


