"""From the configuration of an HTTP connection manager to the object that its connections share."""

from __future__ import annotations

from math import inf

from sidecar.codec.http2_keepalive import keepalive_of
from sidecar.codec.http2_options import http2_options
from sidecar.config.http_connection_manager import HttpConnectionManager
from sidecar.config.protocol_options import PreserveCaseFormatter, ProperCaseWords
from sidecar.http.connection_manager import Options


def options_of(config: HttpConnectionManager, buffer_limit: int) -> Options:
    """The limits and switches that connections and streams read; 0 seconds in the configuration is no limit here."""
    common, http1 = config.common_http_protocol_options, config.http_protocol_options
    options = Options()
    options.idle_timeout = common.idle_timeout or inf
    options.stream_idle_timeout = config.stream_idle_timeout or inf
    options.request_timeout = config.request_timeout or inf
    options.request_headers_timeout = config.request_headers_timeout or inf
    options.head_patience = min(options.request_headers_timeout, options.request_timeout, options.stream_idle_timeout)
    options.forward_continue = config.proxy_100_continue
    options.tells_overload = config.append_local_overload
    options.max_connection_duration = common.max_connection_duration or inf
    options.max_stream_duration = common.max_stream_duration or inf
    options.drain_timeout = config.drain_timeout
    options.delayed_close_timeout = config.delayed_close_timeout
    options.max_requests = common.max_requests_per_connection
    options.max_request_head_bytes = config.max_request_headers_kb * 1024
    options.max_request_fields = common.max_headers_count
    options.buffer_limit = buffer_limit
    options.trailers = http1.enable_trailers
    options.accept_http_10 = http1.accept_http_10
    options.allow_absolute_url = http1.allow_absolute_url
    options.upgrades = frozenset(upgrade.upgrade_type for upgrade in config.upgrade_configs if upgrade.enabled)
    options.header_case = _header_case(http1.header_key_format)
    options.codec_type = config.codec_type
    http2 = config.http2_protocol_options
    options.http2 = http2_options(http2, options.max_request_head_bytes, options.max_request_fields)
    options.keepalive = keepalive_of(http2.connection_keepalive)
    return options


def _header_case(key_format: object) -> str:
    if isinstance(key_format, ProperCaseWords):
        return "proper"
    return "preserve" if isinstance(key_format, PreserveCaseFormatter) else "lower"
