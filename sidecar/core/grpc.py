"""What a proxy knows of gRPC without speaking it: which requests are calls, and how a failure is told to their callers.

Source: "gRPC over HTTP/2" (requests, trailers-only responses, percent-encoding of messages) and "HTTP to gRPC Status Code
Mapping".
"""

from __future__ import annotations

from typing import Final

from sidecar.core.head import RequestHead

_UNKNOWN: Final = 2
_STATUSES: Final = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
_ENCODED: Final = [
    bytes((octet,)) if 0x20 <= octet < 0x7F and octet != 0x25 else b"%%%02X" % octet for octet in range(256)
]


def is_grpc(request: RequestHead) -> bool:
    """Whether the content type is ``application/grpc``, alone or with a suffix."""
    content_type = request.index.get(b"content-type", b"")
    return content_type.startswith(b"application/grpc") and content_type[16:17] in (b"", b"+")


def grpc_status_of(status: int) -> int:
    """The gRPC status number that stands for an HTTP status."""
    return _STATUSES.get(status, _UNKNOWN)


def grpc_message(text: bytes) -> bytes:
    """``text`` as the value of ``grpc-message``."""
    return b"".join([_ENCODED[octet] for octet in text])
