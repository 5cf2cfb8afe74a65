"""What a cluster's configuration says about its connections, as the pools read it."""

from __future__ import annotations

from math import inf

from sidecar.codec.http2_keepalive import NO_KEEPALIVE


class PoolOptions:
    """What a cluster's configuration says about its connections; times in seconds, 0 or inf for no limit."""

    __slots__ = (
        "buffer_limit",
        "connect_timeout",
        "header_case",
        "idle_timeout",
        "keepalive",
        "max_duration",
        "max_fields",
        "max_head_bytes",
        "max_requests",
        "trailers",
    )  # fmt: skip

    def __init__(
        self,
        connect_timeout: float = 5.0,
        idle_timeout: float = 3600.0,
        max_requests: int = 0,
        max_duration: float = inf,
        buffer_limit: int = 1 << 20,
        max_head_bytes: int = 60 * 1024,
        max_fields: int = 100,
        header_case: str = "lower",
        trailers: bool = False,
    ) -> None:
        self.connect_timeout = connect_timeout
        self.idle_timeout = idle_timeout
        self.max_requests = max_requests
        self.max_duration = max_duration
        self.buffer_limit = buffer_limit
        self.max_head_bytes = max_head_bytes
        self.max_fields = max_fields
        self.header_case = header_case  # lower, proper, or preserve: as the upstream spells its own
        self.trailers = trailers
        self.keepalive = NO_KEEPALIVE  # of HTTP/2 connections
