"""A limit of concurrent requests that follows latency: `extensions.filters.http.adaptive_concurrency.v3`."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.config.fields import Node

TYPE = "envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency"
_RUNTIME = "adaptive_concurrency.gradient_controller."
_SERVICE_UNAVAILABLE = 503


@dataclass(frozen=True, slots=True)
class GradientControllerConfig:
    """How the limit is calculated; times in seconds, shares from 0 to 1.

    The limit is calculated every `concurrency_update_interval` from the `sample_aggregate_percentile` of the latencies,
    and is from `min_concurrency` to `max_concurrency_limit`. The latency that it is compared with, `min_rtt_buffer`
    longer, is measured every `min_rtt_interval` (up to the share `min_rtt_jitter` later) with `min_rtt_request_count`
    requests, or is `fixed_min_rtt`.
    """

    concurrency_update_interval: float
    min_rtt_interval: float = 0.0
    fixed_min_rtt: float | None = None
    sample_aggregate_percentile: float = 0.5
    max_concurrency_limit: int = 1000
    min_rtt_request_count: int = 50
    min_rtt_jitter: float = 0.15
    min_concurrency: int = 3
    min_rtt_buffer: float = 0.25


@dataclass(frozen=True, slots=True)
class AdaptiveConcurrency:
    """The controller, and what a request over the limit is answered. Not `enabled`, the filter does nothing."""

    gradient_controller_config: GradientControllerConfig
    enabled: bool = True
    concurrency_limit_exceeded_status: int = _SERVICE_UNAVAILABLE


def parse_adaptive_concurrency(node: Node) -> AdaptiveConcurrency:
    """`AdaptiveConcurrency`. The runtime's `adaptive_concurrency.gradient_controller.*` go before the fields."""
    controller = node.child("gradient_controller_config")
    status = node.child("concurrency_limit_exceeded_status")
    code = 0 if status is None else int(status.get("code"))
    return AdaptiveConcurrency(
        GradientControllerConfig(0.0) if controller is None else _parse_controller(controller),
        node.runtime_value("enabled", True),
        code if code >= 400 else _SERVICE_UNAVAILABLE,
    )


def _parse_controller(node: Node) -> GradientControllerConfig:
    runtime = node.context.runtime
    limits, rtt = node.child("concurrency_limit_params"), node.child("min_rtt_calc_params")

    def share(found: float | None, configured: float) -> float:
        return max(0.0, min(configured if found is None else found, 100.0)) / 100.0

    def number(name: str, configured: int) -> int:
        found = runtime.integer(_RUNTIME + name)
        return configured if found is None else found

    def interval(name: str, configured: float) -> float:
        found = runtime.integer(_RUNTIME + name)
        return configured if found is None else found / 1000

    update = most = request_count = least = None
    every = fixed = None
    jitter, buffer = 15.0, 25.0
    if limits is not None:
        update = limits.duration("concurrency_update_interval")
        most = limits.wrapped("max_concurrency_limit", None)
    if rtt is not None:
        every, fixed = rtt.duration("interval"), rtt.duration("fixed_value")
        request_count, least = rtt.wrapped("request_count", None), rtt.wrapped("min_concurrency", None)
        jitter, buffer = rtt.percent("jitter", 15.0), rtt.percent("buffer", 25.0)
        if every is None and fixed is None:
            rtt.refuse("is required unless fixed_value is set", "interval", "set interval, or fixed_value")
    return GradientControllerConfig(
        interval("sample_rtt_calc_interval_ms", update or 0.0),
        interval("min_rtt_calc_interval_ms", every or 0.0),
        fixed,
        share(
            runtime.number(_RUNTIME + "sample_aggregate_percentile"), node.percent("sample_aggregate_percentile", 50.0)
        ),
        number("max_concurrency_limit", 1000 if most is None else most),
        number("min_rtt_aggregate_request_count", 50 if request_count is None else request_count),
        share(runtime.number(_RUNTIME + "jitter"), jitter),
        number("min_concurrency", 3 if least is None else least),
        share(runtime.number(_RUNTIME + "min_rtt_buffer"), buffer),
    )
