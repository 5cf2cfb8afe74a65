"""Access-log lines before a request's end: when it has come in, and at intervals while it lasts.

Source: Envoy's ``HttpConnectionManager.HcmAccessLogOptions``. This stands at the head of the filter chain where it is
configured, and costs nothing where it is not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sidecar.core.http_filter import FilterStream, HttpFilter

Loggers = tuple[Callable[[Any], None], ...]


class EarlyLogs(HttpFilter):
    """``on_new_request`` write lines of the type ``DownstreamStart``, ``periodic`` every ``interval`` seconds."""

    __slots__ = ("interval", "on_new_request", "periodic")

    name = "access_log_options"

    def __init__(self, on_new_request: Loggers, periodic: Loggers, interval: float) -> None:
        self.on_new_request = on_new_request
        self.periodic = periodic
        self.interval = interval

    def on_request(self, stream: FilterStream, end: bool) -> bool | None:
        """Write the first lines, and see to the others."""
        for write in self.on_new_request:
            write(stream)
        if self.interval:
            stream.call_in(self.interval, lambda: self._again(stream))
        return None

    def _again(self, stream: FilterStream) -> None:
        for write in self.periodic:
            write(stream)
        stream.call_in(self.interval, lambda: self._again(stream))
