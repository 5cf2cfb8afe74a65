"""Refusing a share of the requests while many fail: `extensions.filters.http.admission_control.v3.AdmissionControl`."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.config.fields import Node

TYPE = "envoy.extensions.filters.http.admission_control.v3.AdmissionControl"
_HTTP_SUCCESSES: tuple[tuple[int, int], ...] = ((100, 500),)
_GRPC_SUCCESSES = frozenset((0, 1, 2, 3, 5, 6, 7, 9, 11, 12, 16))
"""All but DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED, INTERNAL, UNAVAILABLE and DATA_LOSS."""


@dataclass(frozen=True, slots=True)
class AdmissionControl:
    """What succeeds, and what follows from how much does; shares from 0 to 1, `sampling_window` in seconds.

    Statuses in `http_successes` (from, up to but not including) and `grpc_successes` are successes. Below `rps_threshold`
    requests a second nothing is refused, nor while the success rate is at least `sr_threshold`.
    """

    enabled: bool = True
    http_successes: tuple[tuple[int, int], ...] = _HTTP_SUCCESSES
    grpc_successes: frozenset[int] = _GRPC_SUCCESSES
    sampling_window: int = 30
    aggression: float = 1.0
    sr_threshold: float = 0.95
    rps_threshold: int = 0
    max_rejection_probability: float = 0.8


def parse_admission_control(node: Node) -> AdmissionControl:
    """`AdmissionControl`."""
    criteria = node.child("success_criteria")
    http, grpc = _HTTP_SUCCESSES, _GRPC_SUCCESSES
    if criteria is not None:
        http_criteria, grpc_criteria = criteria.child("http_criteria"), criteria.child("grpc_criteria")
        if http_criteria is not None:
            http = tuple(map(_parse_range, http_criteria.children("http_success_status")))
        if grpc_criteria is not None:
            grpc = frozenset(grpc_criteria.get("grpc_success_status"))
            for status in sorted(grpc):
                if status > 16:
                    grpc_criteria.refuse(
                        f"{status} is no gRPC status", "grpc_success_status", "name those from 0 to 16"
                    )
    if node.has("sr_threshold") and node.message.sr_threshold.default_value.value < 1.0:
        node.refuse("is below 1 %", "sr_threshold.default_value", "make it at least 1")
    window = node.duration("sampling_window", 30.0)
    return AdmissionControl(
        node.runtime_value("enabled", True),
        http,
        grpc,
        int(window or 0),
        max(1.0, node.runtime_value("aggression", 1.0)),
        min(node.runtime_value("sr_threshold", 95.0), 100.0) / 100,
        node.runtime_value("rps_threshold", 0),
        node.runtime_value("max_rejection_probability", 80.0) / 100,
    )


def _parse_range(node: Node) -> tuple[int, int]:
    start, end = node.get("start"), node.get("end")
    if not (100 <= start <= end <= 600):
        node.refuse(f"[{start}, {end}) is no range of HTTP statuses", None, "let it lie between 100 and 600")
    return start, end
