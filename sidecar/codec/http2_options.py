"""What one HTTP/2 connection may take and give: Envoy's ``Http2ProtocolOptions`` and their defaults in Envoy 1.40."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.config.http2_protocol_options import Http2ProtocolOptions


@dataclass(frozen=True, slots=True)
class Http2Options:
    """Sizes are in octets. The names are those of ``envoy.config.core.v3.Http2ProtocolOptions`` where it has them."""

    hpack_table_size: int = 4096
    max_concurrent_streams: int = 1024
    initial_stream_window_size: int = 16 * 1024 * 1024
    initial_connection_window_size: int = 24 * 1024 * 1024
    allow_connect: bool = False
    max_outbound_frames: int = 10000
    max_outbound_control_frames: int = 1000
    max_consecutive_inbound_frames_with_empty_payload: int = 1
    max_inbound_priority_frames_per_stream: int = 100
    max_inbound_window_update_frames_per_data_frame_sent: int = 10
    stream_error_on_invalid_http_messaging: bool = False
    """Whether a malformed message ends only its stream; without it the connection ends, as in Envoy."""

    custom_settings_parameters: tuple[tuple[int, int], ...] = ()

    max_header_bytes: int = 60 * 1024
    """Of a header list as RFC 9113 section 6.5.2 counts it, and of a header block before it is decoded."""

    max_fields: int = 100
    """Cookie crumbs count one by one."""

    max_resets: int = 500
    """How many more streams may end in a reset by the peer, or for an error of the peer, than end well: Envoy's
    ``overload.premature_reset_total_stream_count``. ``Http2Connection.tick`` forgives some with time."""

    resets_forgiven: int = 33
    """In one second."""

    max_queued: int = 256 * 1024
    """Of the data that waits for the peer's window on one stream: then the stream is full."""

    frames_per_turn: int = 1000
    """Of one read, before the loop gets a turn for others."""

    def __post_init__(self) -> None:
        if not 65535 <= self.initial_connection_window_size <= 0x7FFFFFFF:
            raise ValueError("initial_connection_window_size: not from 65535 to 2147483647")
        if not 65535 <= self.initial_stream_window_size <= 0x7FFFFFFF:
            raise ValueError("initial_stream_window_size: not from 65535 to 2147483647")
        if self.max_concurrent_streams < 1:
            raise ValueError("max_concurrent_streams: not from 1 to 2147483647")


def http2_options(config: Http2ProtocolOptions, max_header_bytes: int, max_fields: int) -> Http2Options:
    """The options of connections as they are configured; the limits of heads stand elsewhere in the configuration."""
    return Http2Options(
        config.hpack_table_size,
        config.max_concurrent_streams,
        config.initial_stream_window_size,
        config.initial_connection_window_size,
        config.allow_connect,
        config.max_outbound_frames,
        config.max_outbound_control_frames,
        config.max_consecutive_inbound_frames_with_empty_payload,
        config.max_inbound_priority_frames_per_stream,
        config.max_inbound_window_update_frames_per_data_frame_sent,
        config.stream_error_on_invalid_http_messaging,
        config.custom_settings_parameters,
        max_header_bytes,
        max_fields,
    )
