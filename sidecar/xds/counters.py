"""Counters for those who do not show them."""

from __future__ import annotations


class _Durations:
    def record(self, value: int) -> None:
        return


class Uncounted:
    """Of a subscription."""

    def __init__(self) -> None:
        self.init_fetch_timeout = self.update_attempt = self.update_failure = 0
        self.update_rejected = self.update_success = self.update_time = self.version = 0
        self.version_text = ""
        self.update_duration = _Durations()


class UncountedStream:
    """Of the stream to a server."""

    def __init__(self) -> None:
        self.connected_state = self.pending_requests = self.rate_limit_enforced = 0
        self.identifier = ""
