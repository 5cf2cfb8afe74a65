"""What a listener counts, under Envoy's leaf names."""

from __future__ import annotations

from typing import Protocol


class Recorder(Protocol):
    """A histogram."""

    def record(self, value: int) -> None: ...


class ListenerStats(Protocol):
    """`listener.<address or stat_prefix>.`; times in milliseconds."""

    downstream_cx_destroy: int
    downstream_cx_overflow: int
    downstream_cx_overload_reject: int
    downstream_cx_total: int
    downstream_global_cx_overflow: int
    downstream_listener_filter_error: int
    downstream_listener_filter_remote_close: int
    downstream_pre_cx_timeout: int
    no_filter_chain_match: int
    downstream_cx_active: int
    downstream_pre_cx_active: int

    @property
    def connections_accepted_per_socket_event(self) -> Recorder: ...
    @property
    def downstream_cx_length_ms(self) -> Recorder: ...


class WorkerStats(Protocol):
    """`listener.<address>.worker_<n>.`"""

    downstream_cx_total: int
    downstream_cx_active: int
