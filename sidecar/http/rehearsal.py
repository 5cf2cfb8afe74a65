"""A stream that goes nowhere: a request is prepared and shown to filters, and an answer is written down instead of sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from sidecar.core.head import Field, RequestHead, ResponseHead
from sidecar.core.http_filter import PAUSE, HttpFilter
from sidecar.core.stream_info import ConnectionInfo
from sidecar.core.timer_wheel import Callback
from sidecar.http.connection_manager import ConnectionManager
from sidecar.http.stream import Stream


class _Nobody:
    """The ``Downstream`` of a rehearsal."""

    full = False
    now = 0.0

    def __init__(self, info: ConnectionInfo) -> None:
        self.info = info

    def send_informational(self, head: ResponseHead) -> None:
        """Nobody listens."""

    def send_head(self, head: ResponseHead, end: bool) -> None:
        """Nobody listens."""

    def send_data(self, data: bytes, end: bool) -> None:
        """Nobody listens."""

    def send_message(self, head: ResponseHead, body: bytes) -> None:
        """Nobody listens."""

    def send_trailers(self, trailers: list[Field]) -> None:
        """Nobody listens."""

    def finished(self) -> None:
        """There was no request."""

    def close_after_response(self) -> None:
        """There is no connection."""

    def reset(self) -> None:
        """There is no connection."""

    def wake_by(self, due: float) -> None:
        """Nothing is waited for."""

    def pause_reading(self) -> None:
        """Nothing is read."""

    def resume_reading(self) -> None:
        """Nothing is read."""


class _Uncounted:
    """A connection manager that counts for nobody."""

    def __init__(self, manager: ConnectionManager) -> None:
        self._manager = manager
        self.stats = _Counts()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)


class _Counts:
    """Whatever is counted, is forgotten."""

    def __getattr__(self, name: str) -> int:
        return 0


class Rehearsal(Stream):
    """``answer`` is what the request would be answered with, None while it goes on: status, body and details."""

    __slots__ = ("answer",)

    def __init__(self, manager: ConnectionManager, info: ConnectionInfo, request: RequestHead, now: float) -> None:
        Stream.__init__(self, _Nobody(info), manager, request, now)
        self.answer: tuple[int, bytes, str] | None = None

    def prepare(self) -> None:
        """What the connection manager does to a request before it looks for a route, at no cost to statistics and dice."""
        self._apart(lambda manager: manager.prepare(self))

    def ask_for_upgrade(self) -> None:
        """Where the route is known: another protocol is refused, or gets the filters that are configured for it."""
        if b"upgrade" in self.request.index or self.request.method == b"CONNECT":
            self._apart(lambda manager: self._upgrade_refused())
            self.upgrade = b""

    def _apart(self, does: Callable[[Any], object]) -> None:
        manager, state = self.manager, self.worker.random.getstate()
        self.manager = uncounted = cast(ConnectionManager, _Uncounted(manager))
        try:
            does(uncounted)
        finally:
            self.manager = manager
            self.worker.random.setstate(state)

    def reply(
        self,
        status: int,
        body: bytes = b"",
        *,
        details: str,
        flags: int = 0,
        headers: Sequence[Field] = (),
        grpc_status: int | None = None,
        mutate: Callable[[Any], None] | None = None,
    ) -> bool:
        if self.answer is None:
            self.answer = status, body, details
            self.response_flags |= flags
            self.response_code_details = details
        return PAUSE

    def refuse(self, status: int, body: bytes, details: str) -> bool:
        return self.reply(status, body, details=details)

    def reset(self, details: str) -> None:
        if self.answer is None:
            self.answer = 0, b"", details

    def resume_request(self) -> None:
        """Nothing waits."""

    def clear_route_cache(self, filter: HttpFilter) -> None:
        self.find_route_again(self.chain.filters.index(filter))

    def call_in(self, delay: float, function: Callable[[], None]) -> Callback:
        raise RuntimeError("a request that is only imagined waits for nothing")
