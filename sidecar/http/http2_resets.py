"""What the access log says of a stream that ended in RST_STREAM: flags and details, as Envoy has them."""

from __future__ import annotations

from typing import Final

from sidecar.codec.http2_frames import NO_ERROR, PROTOCOL_ERROR, REFUSED_STREAM
from sidecar.codec.http2_head import WRONG_LENGTH
from sidecar.core import response_flags as flag

REMOTE_RESET: Final = "http2.remote_reset"
UNEXPECTED_UNDERSCORE: Final = "http2.unexpected_underscore"
TOO_MANY_STREAMS: Final = "http2.max_concurrent_streams"
_LIMITS: Final = frozenset(("http2.header_list_size_too_large", "http2.too_many_headers", UNEXPECTED_UNDERSCORE))


def words_of(code: int, details: str, answered: bool) -> tuple[str, int]:
    """(details, flags) of a stream that was reset with ``code``; ``answered``: the response's head had been sent.

    ``details`` are the codec's. A client that needs no more of a response (NO_ERROR) has had what it wanted.
    """
    if details == WRONG_LENGTH:
        return REMOTE_RESET, flag.DOWNSTREAM_PROTOCOL_ERROR
    if details in _LIMITS:
        return details, flag.DOWNSTREAM_REMOTE_RESET
    if details != REMOTE_RESET:
        return details, flag.DOWNSTREAM_PROTOCOL_ERROR
    if code == PROTOCOL_ERROR:
        return details, flag.DOWNSTREAM_PROTOCOL_ERROR
    if code == REFUSED_STREAM:
        return "http2.remote_refuse", flag.DOWNSTREAM_REMOTE_RESET
    if code == NO_ERROR and answered:
        return "via_upstream", 0
    return details, flag.DOWNSTREAM_REMOTE_RESET
