"""Statistics of the HTTP/2 codec: `http2.` for all connection managers, `cluster.<name>.http2.` for a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ..stats import Counter, Gauge, StatGroup, stat_group


@stat_group
class Http2CodecStats(StatGroup):
    """What the connections of one side count."""

    cookies_total_bytes_too_large: Counter
    dropped_headers_with_underscores: Counter
    goaway_sent: Counter
    header_list_size_too_large: Counter
    header_overflow: Counter
    headers_cb_no_stream: Counter
    inbound_empty_frames_flood: Counter
    inbound_priority_frames_flood: Counter
    inbound_window_update_frames_flood: Counter
    keepalive_timeout: Counter
    metadata_empty_frames: Counter
    outbound_control_flood: Counter
    outbound_flood: Counter
    requests_rejected_with_underscores_in_headers: Counter
    rx_messaging_error: Counter
    rx_reset: Counter
    stream_refused_errors: Counter
    trailers: Counter
    tx_flush_timeout: Counter
    tx_reset: Counter
    deferred_stream_close: Gauge
    outbound_control_frames_active: Gauge
    outbound_frames_active: Gauge
    pending_send_bytes: Gauge
    streams_active: Gauge

    USED_WITH: ClassVar[Mapping[str, tuple[str, ...]]] = {}
