"""HTTP/1 requests and responses, sans I/O: which framing a head asks for, and whether the connection persists (RFC 9112)."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.codec.errors import ProtocolError
from sidecar.codec.http1_head import (
    CHUNKED,
    HTTP_1_1_ONLY,
    NO_BODY,
    UNTIL_CLOSE,
    VERSIONS,
    parse_request_head,
    parse_response_head,
)
from sidecar.codec.http1_reader import BROKEN, DONE, HEAD, TUNNEL, Http1Reader, Sink
from sidecar.codec.wire import TOKEN, FieldLines, tokens_of
from sidecar.core.head import RequestHead, ResponseHead


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


class RequestReader(Http1Reader[RequestHead]):
    """Reads requests from a client: ``http_10`` from one that speaks HTTP/1.0, too."""

    __slots__ = ("absolute_urls", "judge", "versions")

    def __init__(
        self,
        lines_seen: FieldLines,
        max_head_bytes: int = 60 * 1024,
        max_fields: int = 100,
        http_10: bool = True,
        absolute_urls: bool = True,
    ) -> None:
        super().__init__(lines_seen, max_head_bytes, max_fields)
        self.versions = VERSIONS if http_10 else HTTP_1_1_ONLY
        self.absolute_urls = absolute_urls
        self.judge: Callable[[RequestHead], None] | None = None  # may change a head, or raise ProtocolError

    def take_head(self, block: bytes, data: bytes, rest: int) -> bool:
        try:
            head, framing = parse_request_head(
                block, self.lines_seen, self.max_fields, self.versions, self.absolute_urls
            )
            if self.judge is not None:
                self.judge(head)
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

    def begins(self, partial: bytearray) -> object:
        """As in Envoy by the first octet: what speaks TLS to a plaintext port gets its 400 at once."""
        return partial == b"\r" or TOKEN.match(partial)


class ResponseReader(Http1Reader[ResponseHead]):
    """Reads responses from an upstream. ``expect`` names the method of the request that the next one answers."""

    __slots__ = ("method", "upgrade")

    longest_gap = 0  # no empty lines before a response, as Envoy

    def __init__(
        self,
        lines_seen: FieldLines,
        max_head_bytes: int = 60 * 1024,
        max_fields: int = 100,
    ) -> None:
        super().__init__(lines_seen, max_head_bytes, max_fields)
        self.method = b""
        self.upgrade = False
        self.state = DONE

    def expect(self, method: bytes, sink: Sink[ResponseHead], upgrade: bool = False) -> None:
        """A request with ``method`` was sent: its response goes to ``sink``. ``upgrade``: it may be a 101."""
        self.method = method
        self.upgrade = upgrade
        self.head_size = 0
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
            head.version == 11
            if connection is None
            else persists(connection, head.version) and (head.version == 11 or framing != CHUNKED)
        )
        status = head.status
        if framing == len(data) - rest and framing:
            self.state = DONE
            self.sink.on_message(head, data[rest:])  # type: ignore[union-attr]
            return True
        if status < 200 or (self.method == b"CONNECT" and status < 300):
            if status == 101 and not self.upgrade:
                raise self.fail("http1.codec_error")
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
