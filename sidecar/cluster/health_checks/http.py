"""Checks by HTTP: a request over connections of their own, and what its response must be like.

Source: Envoy's `core.v3.HealthCheck.HttpHealthCheck` and its HTTP health checker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sidecar.cluster.health_checks.results import ACTIVE, Outcome
from sidecar.cluster.health_checks.streams import CheckStream, Connections
from sidecar.config.health_check import HttpHealthCheck, StatusRanges
from sidecar.core.head import Field, RequestHead, ResponseHead

_FAIL_NOW = b"x-envoy-immediate-health-check-fail"


class HttpCheck:
    """What all HTTP checks of a cluster have in common.

    ``make_request`` makes the head for a host. ``is_service`` judges the name that a response says that its service has,
    None where any will do. ``count_verified`` is called for each response of which it is asked.
    """

    __slots__ = ("config", "count_verified", "is_service", "make_request")

    def __init__(
        self,
        config: HttpHealthCheck,
        make_request: Callable[[Any], RequestHead],
        is_service: Callable[[bytes], bool] | None = None,
        count_verified: Callable[[], bool] = lambda: True,
    ) -> None:
        self.config = config
        self.make_request = make_request
        self.is_service = is_service
        self.count_verified = count_verified

    def judge(self, outcome: Outcome, head: ResponseHead, body: bytes) -> None:
        """Tell what became of a check that was answered with this."""
        config, status, index = self.config, head.status, head.index
        exclude = _FAIL_NOW in index
        if config.receive and not contains(body, config.receive):
            outcome.failed(ACTIVE, status=status, exclude=exclude)
        elif not _among(config.expected_statuses, status):
            outcome.failed(ACTIVE, _among(config.retriable_statuses, status), status, exclude)
        elif (
            self.is_service is not None
            and self.count_verified()
            and not self.is_service(index.get(b"x-envoy-upstream-healthchecked-cluster", b""))
        ):
            outcome.failed(ACTIVE, status=status)
        else:
            outcome.succeeded(b"x-envoy-degraded" in index)


class HttpProbe(CheckStream):
    """Asks one host by HTTP."""

    __slots__ = ("body", "check", "kept", "response")

    def __init__(self, check: HttpCheck, outcome: Outcome, connections: Connections) -> None:
        CheckStream.__init__(self, outcome, connections)
        self.check = check
        self.response: ResponseHead | None = None
        self.body: list[bytes] = []
        self.kept = 0  # octets in it

    def start(self) -> None:
        self.response = None
        self.body.clear()
        self.kept = 0
        self.ask(self.check.make_request(self.outcome.host), self.check.config.send)

    def timed_out(self) -> None:
        self.end_check()
        self.end_connections()

    def on_head(self, head: ResponseHead, end: bool) -> None:
        if head.status < 200:
            return
        self.response = head
        if end:
            self._complete()

    def on_message(self, head: ResponseHead, body: bytes) -> None:
        self.response = head
        self.on_data(body, True)

    def on_data(self, data: bytes, end: bool) -> None:
        config = self.check.config
        if config.receive:
            room = (config.response_buffer_size or len(data) + self.kept) - self.kept
            if room > 0:
                self.body.append(data[:room])
                self.kept += min(room, len(data))
        if end:
            self._complete()

    def on_trailers(self, trailers: list[Field]) -> None:
        self._complete()

    def _complete(self) -> None:
        if self.asking:
            self.asked()
            assert self.response is not None
            self.check.judge(self.outcome, self.response, b"".join(self.body))


def contains(data: bytes, segments: Sequence[bytes]) -> bool:
    """Whether the segments occur in ``data``, one behind the other."""
    at = 0
    for segment in segments:
        at = data.find(segment, at)
        if at < 0:
            return False
        at += len(segment)
    return True


def _among(ranges: StatusRanges, status: int) -> bool:
    return any(first <= status < end for first, end in ranges)
