"""What a proxy knows of gRPC without speaking it: which requests are calls, and how a failure is told to their callers.

Source: "gRPC over HTTP/2" (requests, trailers-only responses, percent-encoding of messages) and "HTTP to gRPC Status Code
Mapping".
"""

from __future__ import annotations

from typing import Final

from sidecar.core.head import RequestHead, ResponseHead
from sidecar.core.matching import parse_unsigned

DEADLINE_EXCEEDED: Final = 4

CONVERTED: Final = "a call that came as something else"
"""A key of ``FilterStream.data``: a filter has made a gRPC call of the request, and replies that the proxy makes are as
for the request that it was."""

_UNKNOWN: Final = 2
_STATUSES: Final = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
_HTTP_STATUSES: Final = (
    *(200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401),
)  # Envoy's
_ENCODED: Final = [
    bytes((octet,)) if 0x20 <= octet < 0x7E and octet != 0x25 else b"%%%02X" % octet for octet in range(256)
]  # the specification lets a tilde stand, Envoy does not
_NUMBERS: Final = {b"%d" % status: status for status in range(17)}


def is_grpc(request: RequestHead) -> bool:
    """Whether the content type is ``application/grpc``, alone or with a suffix."""
    return _is_grpc_type(request.index.get(b"content-type", b""))


def _is_grpc_type(content_type: bytes) -> bool:
    return content_type.startswith(b"application/grpc") and content_type[16:17] in (b"", b"+")


def is_grpc_response(response: ResponseHead, end: bool) -> bool:
    """Whether a response is one to a call; ``end``: there is nothing but its head."""
    if end:
        return b"grpc-status" in response.index
    return response.status == 200 and _is_grpc_type(response.index.get(b"content-type", b""))


def grpc_status_of(status: int) -> int:
    """The gRPC status number that stands for an HTTP status."""
    return _STATUSES.get(status, _UNKNOWN)


def http_status_of(grpc_status: int) -> int:
    """The HTTP status that stands for a gRPC status where hosts are judged, 500 for one that is not known."""
    return _HTTP_STATUSES[grpc_status] if 0 <= grpc_status < len(_HTTP_STATUSES) else 500


def parse_grpc_status(value: bytes) -> int:
    """The number in a ``grpc-status``, however Envoy lets it be written; -1 for what is none."""
    status = _NUMBERS.get(value)
    if status is None:
        status = parse_unsigned(value)
    return -1 if status is None else status


def grpc_message(text: bytes) -> bytes:
    """``text`` as the value of ``grpc-message``."""
    return b"".join([_ENCODED[octet] for octet in text])
