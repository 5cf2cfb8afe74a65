"""The buffer filter: holds a request until it is complete, and sends it on with its length.

Source: Envoy's ``extensions.filters.http.buffer.v3.Buffer``.
"""

from __future__ import annotations

from typing import Any

from sidecar.core.http_filter import PAUSE, FilterStream
from sidecar.filters.context import NamedFilter

BODY = b"Payload Too Large"
DETAILS = "request_payload_too_large"


class BufferFilter(NamedFilter):
    """Requests of more than ``limit`` bytes get 413."""

    __slots__ = ("limit",)

    lets_pass = True

    def __init__(self, name: str, limit: int) -> None:
        NamedFilter.__init__(self, name)
        self.limit = limit

    def on_request(self, stream: FilterStream, end: bool) -> bool | None:
        """Hold the head until the body is there."""
        if end:
            return None
        stream.data[self] = []
        return PAUSE

    def on_request_data(self, stream: Any, data: bytes, end: bool) -> bytes:
        """Collect the body; let everything go on with its end."""
        held: list[bytes] | None = stream.data.get(self)
        if held is None:
            return data
        held.append(data)
        if sum(map(len, held)) > self.limit:
            del stream.data[self]
            stream.refuse(413, BODY, DETAILS)
            return b""
        if not end:
            return b""
        del stream.data[self]
        body = b"".join(held)
        request = stream.request
        if b"content-length" not in request.index:
            request.remove(b"transfer-encoding")
            request.add(b"content-length", b"%d" % len(body))
        stream.resume_request()
        return body
