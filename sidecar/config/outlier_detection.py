"""Which endpoints are left out for their failures: `envoy.config.cluster.v3.OutlierDetection`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from sidecar.config.core_types import seconds
from sidecar.config.fields import Node
from sidecar.config.runtime import Runtime

_RUNTIME: Final = "outlier_detection."


@dataclass(frozen=True, slots=True)
class OutlierDetection:
    """Which endpoints are ejected, for how long (seconds) and in how many cases of a hundred (`enforcing_*`).

    `success_rate_stdev_factor` is in thousandths, thresholds of failures are in percent.
    """

    consecutive_5xx: int = 5
    interval: float = 10.0
    base_ejection_time: float = 30.0
    max_ejection_percent: int = 10
    enforcing_consecutive_5xx: int = 100
    consecutive_gateway_failure: int = 5
    enforcing_consecutive_gateway_failure: int = 0
    split_external_local_origin_errors: bool = False
    consecutive_local_origin_failure: int = 5
    enforcing_consecutive_local_origin_failure: int = 100
    max_ejection_time: float = 300.0
    max_ejection_time_jitter: float = 0.0
    always_eject_one_host: bool = False
    enforcing_success_rate: int = 100
    enforcing_local_origin_success_rate: int = 100
    success_rate_minimum_hosts: int = 5
    success_rate_request_volume: int = 100
    success_rate_stdev_factor: int = 1900
    enforcing_failure_percentage: int = 0
    enforcing_failure_percentage_local_origin: int = 0
    failure_percentage_threshold: int = 85
    failure_percentage_minimum_hosts: int = 5
    failure_percentage_request_volume: int = 50
    successful_active_health_check_uneject_host: bool = True


_outlier_detection = lru_cache(maxsize=64)(OutlierDetection)
"""Equal ones are one object."""


def parse_outlier_detection(node: Node) -> OutlierDetection:
    """`OutlierDetection`. The runtime's `outlier_detection.*` go before the fields of all clusters, as in Envoy."""
    runtime = node.context.runtime
    base = seconds(node, "base_ejection_time", 30.0)
    longest = seconds(node, "max_ejection_time", max(300.0, base))
    if longest < base:
        node.refuse("is shorter than base_ejection_time", "max_ejection_time", "make it at least as long")

    def number(name: str, default: int) -> int:
        configured: int = node.wrapped(name, default)
        found = runtime.integer(_RUNTIME + name)
        return configured if found is None else found

    def milliseconds(name: str, configured: float) -> float:
        found = _milliseconds(runtime, name)
        return configured if found is None else found

    return _outlier_detection(
        number("consecutive_5xx", 5),
        milliseconds("interval", seconds(node, "interval", 10.0)) or 0.001,
        milliseconds("base_ejection_time", base),
        number("max_ejection_percent", 10),
        number("enforcing_consecutive_5xx", 100),
        number("consecutive_gateway_failure", 5),
        number("enforcing_consecutive_gateway_failure", 0),
        node.get("split_external_local_origin_errors"),
        number("consecutive_local_origin_failure", 5),
        number("enforcing_consecutive_local_origin_failure", 100),
        milliseconds("max_ejection_time", longest),
        milliseconds("max_ejection_time_jitter", seconds(node, "max_ejection_time_jitter", 0.0)),
        node.wrapped("always_eject_one_host", False),
        number("enforcing_success_rate", 100),
        number("enforcing_local_origin_success_rate", 100),
        number("success_rate_minimum_hosts", 5),
        number("success_rate_request_volume", 100),
        number("success_rate_stdev_factor", 1900),
        number("enforcing_failure_percentage", 0),
        number("enforcing_failure_percentage_local_origin", 0),
        number("failure_percentage_threshold", 85),
        number("failure_percentage_minimum_hosts", 5),
        number("failure_percentage_request_volume", 50),
        node.wrapped("successful_active_health_check_uneject_host", True),
    )


def _milliseconds(runtime: Runtime, name: str) -> float | None:
    found = runtime.integer(f"{_RUNTIME}{name}_ms")
    return None if found is None else found / 1000
