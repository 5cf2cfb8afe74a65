"""The way out of a downstream HTTP/1 connection: heads and bodies of responses become bytes, which leave when the cork is
pulled (RFC 9112)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sidecar.codec.http1 import RequestReader
from sidecar.codec.http1_head import proper_case, render_fields, spell, status_line
from sidecar.codec.http1_reader import DONE
from sidecar.core.head import Field, ResponseHead
from sidecar.core.timer_wheel import Timed
from sidecar.core.worker import Worker

if TYPE_CHECKING:
    from sidecar.http.connection_manager import ConnectionManager
    from sidecar.http.stream import Stream

_JOIN_BELOW = 16384
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_CHUNKED = (b"transfer-encoding", b"chunked")


class Http1Writer(asyncio.Protocol, Timed):
    """What a downstream connection writes; ``keep_alive`` says whether it takes another request after the response."""

    __slots__ = (
        "chunked",
        "closed",
        "closing",
        "keep_alive",
        "manager",
        "out",
        "proper_case",
        "reader",
        "stream",
        "transport",
        "worker",
    )  # fmt: skip

    manager: ConnectionManager
    worker: Worker
    reader: RequestReader
    stream: Stream | None
    transport: Any
    out: list[bytes]
    chunked: bool
    closed: bool
    closing: bool
    keep_alive: bool
    proper_case: bool

    def send_informational(self, head: ResponseHead) -> None:
        """Send a 1xx response; the final one is still to come."""
        if self.closed or self.stream is None or self.stream.request.version == 10:
            return
        self.manager.listener_codes[head.status] += 1
        self._collect(_CONTINUE if head.status == 100 else status_line(head.status) + render_fields(head.fields))

    def send_head(self, head: ResponseHead, end: bool) -> None:
        """Send a response's head with the framing that the request's version and method allow."""
        if self.closed:
            return
        stream = self.stream
        assert stream is not None
        request = stream.request
        fields = head.fields
        status = head.status
        self.chunked = False
        if b"content-length" not in head.index:
            if end:
                if status == 204 or status == 304:
                    pass
                elif request.method != b"HEAD":
                    fields = [*fields, (b"content-length", b"0")]
                elif request.version == 11:
                    fields = [*fields, _CHUNKED]
            elif status == 204 or status == 304:
                pass  # it has no body, whatever the upstream goes on to send
            elif request.version == 11 and stream.tunnel is None:
                self.chunked = True
                fields = [*fields, _CHUNKED]
            elif stream.tunnel is None:
                self.keep_alive = False
        if self.reader.state != DONE and stream.tunnel is None:
            self.keep_alive = False
        if not self.keep_alive:
            if stream.tunnel is None:
                fields = [*fields, (b"connection", b"close")]
        elif request.version == 10:
            fields = [*fields, (b"connection", b"keep-alive")]
        if head.names is not None:
            fields = spell(fields, head.names)
        elif self.proper_case:
            fields = proper_case(fields)
        data = status_line(status) + render_fields(fields)
        if request.version == 10:
            data = b"HTTP/1.0" + data[8:]
        stream.response_head_size = len(data)
        self._collect(data)

    def send_message(self, head: ResponseHead, body: bytes) -> None:
        """Send a response whose body is whole and has a Content-Length: head and data in one write."""
        stream = self.stream
        if self.closed or stream is None:
            return
        request = stream.request
        if (
            head.names is not None
            or self.proper_case
            or not self.keep_alive
            or self.reader.state != DONE
            or request.version == 10
            or request.method == b"HEAD"
            or self.out
            or len(body) >= _JOIN_BELOW
        ):
            self.send_head(head, False)
            self.send_data(body, True)
            return
        data = b"%b%b%b" % (status_line(head.status), render_fields(head.fields), body)
        stream.response_head_size = len(data) - len(body)
        self.worker.cork.waiting.append(self)
        self.out.append(data)

    def send_data(self, data: bytes, end: bool) -> None:
        if self.closed:
            return
        if self.chunked:
            if data:
                self._collect(b"%x\r\n" % len(data))
                self._collect(data)
                self._collect(b"\r\n0\r\n\r\n" if end else b"\r\n")
            elif end:
                self._collect(_LAST_CHUNK)
        elif data:
            self._collect(data)

    def send_trailers(self, trailers: list[Field]) -> None:
        if self.chunked and not self.closed:
            self._collect(b"0\r\n" + render_fields(trailers if self.manager.options.trailers else []))

    def flush(self) -> None:
        out = self.out
        if not out or self.closed:
            return
        if len(out) == 1:
            data = out.pop()
            self.manager.stats.downstream_cx_tx_bytes_total += len(data)
            if self.closing:
                self._end_with(data)
            else:
                self.transport.write(data)
            return
        size = sum(map(len, out))
        self.manager.stats.downstream_cx_tx_bytes_total += size
        if size >= self.worker.join_below:
            self.transport.writelines(out)
            if self.closing:
                self._half_close()
        elif self.closing:
            self._end_with(b"".join(out))
        else:
            self.transport.write(b"".join(out))
        out.clear()

    def _collect(self, data: bytes) -> None:
        if not self.out:
            self.worker.cork.waiting.append(self)
        self.out.append(data)

    def _end_with(self, data: bytes) -> None:
        """Write the last of all, and end the connection."""
        raise NotImplementedError

    def _half_close(self) -> None:
        """All has been written, and the connection is to end."""
        raise NotImplementedError
