"""Which statistic of the codec counts what went wrong on an HTTP/2 connection: from details to Envoy's names."""

from __future__ import annotations

from typing import Any, Final

from sidecar.codec.http2_frames import REFUSED_STREAM
from sidecar.codec.http2_head import INVALID_FIELD, VIOLATION

_COUNTERS: Final = {
    "http2.outbound_flood": "outbound_flood",
    "http2.outbound_control_flood": "outbound_control_flood",
    "http2.inbound_empty_frames_flood": "inbound_empty_frames_flood",
    "http2.inbound_priority_frames_flood": "inbound_priority_frames_flood",
    "http2.inbound_window_update_frames_flood": "inbound_window_update_frames_flood",
    "http2.continuation_flood": "header_overflow",
    "http2.header_list_size_too_large": "header_list_size_too_large",
    "http2.too_many_headers": "header_overflow",
    INVALID_FIELD: "rx_messaging_error",
    VIOLATION: "rx_messaging_error",
}


def count_error(stats: Any, details: str) -> None:
    """Count what ended a connection or a stream in ``stats`` (`http2.` or `cluster.<name>.http2.`)."""
    name = _COUNTERS.get(details)
    if name is not None:
        setattr(stats, name, getattr(stats, name) + 1)


def count_refused(stats: Any, code: int, details: str) -> None:
    """Count a request that was answered with RST_STREAM before it was one."""
    if code == REFUSED_STREAM:
        stats.stream_refused_errors += 1
    count_error(stats, details)
