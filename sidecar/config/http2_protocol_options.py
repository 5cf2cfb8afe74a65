"""How HTTP/2 connections behave: `envoy.config.core.v3.Http2ProtocolOptions` and `KeepaliveSettings`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from sidecar.config.core_types import seconds
from sidecar.config.fields import Node

_MIB = 1024 * 1024
_ENABLE_PUSH: Final = 2
_FIELDS_OF_SETTINGS = {
    1: "hpack_table_size",
    3: "max_concurrent_streams",
    4: "initial_stream_window_size",
    8: "allow_connect",
}
"""Which fields say what these SETTINGS parameters say (RFC 9113 section 6.5.2, RFC 8441 section 3)."""

_DECIDED_HERE = {5: "SETTINGS_MAX_FRAME_SIZE", 6: "SETTINGS_MAX_HEADER_LIST_SIZE"}
"""What the codec sends, or leaves out, because it keeps to it."""


@dataclass(frozen=True, slots=True)
class KeepaliveSettings:
    """PINGs that find dead connections; durations are in seconds.

    One is sent every `interval` (0: never), put off by chance for up to `interval_jitter` percent of it, and before the
    first stream after nothing was received for `connection_idle_interval` (0: never; upstream's). Without an answer for
    `timeout` the connection is closed.
    """

    timeout: float
    interval: float = 0.0
    interval_jitter: float = 15.0
    connection_idle_interval: float = 0.0


@dataclass(frozen=True, slots=True)
class Http2ProtocolOptions:
    """What one HTTP/2 connection may take and give. Sizes are in octets, and the defaults are Envoy 1.40's.

    `stream_error_on_invalid_http_messaging` ends only the stream of a malformed message, and not its connection.
    `custom_settings_parameters` are identifiers and values, none of them of a parameter that the codec itself knows, but
    for server push switched off. `connection_keepalive` None sends no PINGs.
    """

    hpack_table_size: int = 4096
    max_concurrent_streams: int = 1024
    initial_stream_window_size: int = 16 * _MIB
    initial_connection_window_size: int = 24 * _MIB
    allow_connect: bool = False
    max_outbound_frames: int = 10000
    max_outbound_control_frames: int = 1000
    max_consecutive_inbound_frames_with_empty_payload: int = 1
    max_inbound_priority_frames_per_stream: int = 100
    max_inbound_window_update_frames_per_data_frame_sent: int = 10
    stream_error_on_invalid_http_messaging: bool = False
    custom_settings_parameters: tuple[tuple[int, int], ...] = ()
    connection_keepalive: KeepaliveSettings | None = None


HTTP2_DEFAULTS = Http2ProtocolOptions()

_options = lru_cache(maxsize=64, typed=True)(Http2ProtocolOptions)
"""Equal ones are one object: clusters by the thousand say the same."""


def parse_http2_protocol_options(node: Node | None, *, stream_error: bool | None = None) -> Http2ProtocolOptions:
    """`Http2ProtocolOptions`.

    `stream_error` is the connection manager's `stream_error_on_invalid_http_message`, None where it says nothing: it
    stands where the options themselves do not override it.
    """
    if node is None:
        return HTTP2_DEFAULTS if not stream_error else Http2ProtocolOptions(stream_error_on_invalid_http_messaging=True)
    node.ignore("use_oghttp2_codec", "there is one HTTP/2 codec")
    deprecated = node.get("stream_error_on_invalid_http_messaging")
    keepalive = node.child("connection_keepalive")
    return _options(
        node.wrapped("hpack_table_size", 4096),
        node.wrapped("max_concurrent_streams", 1024),
        node.wrapped("initial_stream_window_size", 16 * _MIB),
        node.wrapped("initial_connection_window_size", 24 * _MIB),
        node.get("allow_connect"),
        node.wrapped("max_outbound_frames", 10000),
        node.wrapped("max_outbound_control_frames", 1000),
        node.wrapped("max_consecutive_inbound_frames_with_empty_payload", 1),
        node.wrapped("max_inbound_priority_frames_per_stream", 100),
        node.wrapped("max_inbound_window_update_frames_per_data_frame_sent", 10),
        node.wrapped(
            "override_stream_error_on_invalid_http_message", deprecated if stream_error is None else stream_error
        ),
        _parse_custom_settings(node.children("custom_settings_parameters")),
        None if keepalive is None else _parse_keepalive(keepalive),
    )


def _parse_keepalive(node: Node) -> KeepaliveSettings:
    return KeepaliveSettings(
        seconds(node, "timeout", 0.0),
        seconds(node, "interval", 0.0),
        node.percent("interval_jitter", 15.0),
        seconds(node, "connection_idle_interval", 0.0),
    )


def _parse_custom_settings(nodes: Iterable[Node]) -> tuple[tuple[int, int], ...]:
    """The parameters, each identifier once. One that the codec keeps to would say something that it does not do."""
    parameters: dict[int, int] = {}
    for node in nodes:
        identifier, value = node.wrapped("identifier", 0), node.wrapped("value", 0)
        if identifier in _FIELDS_OF_SETTINGS:
            name = _FIELDS_OF_SETTINGS[identifier]
            node.refuse(f"{identifier} is what {name} sets", "identifier", f"set {name}")
        elif identifier in _DECIDED_HERE:
            node.refuse(f"{_DECIDED_HERE[identifier]} cannot be set in Mizzen", "identifier", "remove the parameter")
        elif identifier == _ENABLE_PUSH and value:
            node.refuse("switches server push on, which no proxy here speaks", "value", "set it to 0")
        elif parameters.setdefault(identifier, value) != value:
            node.refuse(f"another one gives {identifier} another value", "identifier", "keep one of them")
    return tuple(parameters.items())
