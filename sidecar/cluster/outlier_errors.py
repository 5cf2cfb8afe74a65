"""Which responses are errors for outlier detection, where a cluster says so itself.

Source: `outlier_detection.error_matcher` of `envoy.extensions.upstreams.http.v3.HttpProtocolOptions`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sidecar.cluster.host import Host
from sidecar.cluster.outlier import OutlierDetector
from sidecar.config.match_predicate import MatchPredicate
from sidecar.core.head import ResponseHead
from sidecar.core.matching import compile_headers

IsError = Callable[[ResponseHead], bool]


def compile_errors(predicate: MatchPredicate) -> IsError:
    """The predicate as a condition on a response's head."""
    if predicate.kind == "any":
        return lambda head: True
    if predicate.kind == "headers":
        matches = compile_headers(predicate.headers)
        return (lambda head: True) if matches is None else matches
    rules = tuple(map(compile_errors, predicate.rules))
    if predicate.kind == "not":
        (inverted,) = rules
        return lambda head: not inverted(head)
    if predicate.kind == "or":
        return lambda head: any(rule(head) for rule in rules)
    return lambda head: all(rule(head) for rule in rules)


class MatchingDetector(OutlierDetector):
    """Judges answers by their heads. The router hands it each one, before it counts it as it does for all detectors."""

    __slots__ = ("_is_error",)

    def __init__(self, errors: MatchPredicate, *given: Any) -> None:
        super().__init__(*given)
        self._is_error = compile_errors(errors)

    def on_head(self, host: Host, head: ResponseHead, counted: bool) -> None:
        """The host answered; `counted`: this is about to count in `host.rq_success`.

        As in Envoy, an error below 500 is one of 500, and what is no error is a success.
        """
        if not self._is_error(head):
            self._take(host, 200, counted)
            return
        self._take(host, max(500, head.status), False)
        if counted and host.monitor is not None:
            host.monitor.uncounted -= 1

    def on_status(self, host: Host, status: int, counted: bool = True) -> None:
        """Statuses alone say nothing here."""
