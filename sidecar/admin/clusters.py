"""/clusters: every cluster with its limits, and every endpoint with its counts. Source: `envoy.admin.v3.Clusters`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sidecar.admin.context import BreakerView, ClustersView, ClusterView, HostView, OutlierView, RatesView
from sidecar.admin.json_text import Array, Object, json_chunks
from sidecar.admin.page import JSON, TEXT, Page
from sidecar.admin.patterns import InvalidPatternError, compile_pattern
from sidecar.core.address import Address

_HOSTS_IN_CHUNK = 40

_COUNTERS = ("cx_connect_fail", "cx_total", "rq_error", "rq_success", "rq_timeout", "rq_total")


def clusters_page(view: ClustersView, parameters: dict[str, str]) -> Page:
    """`format=json` gives JSON, anything else text; `filter` is an RE2 expression that is searched in the names."""
    clusters: Iterable[ClusterView] = list(view.clusters.values())
    pattern = parameters.get("filter")
    if pattern:
        try:
            search = compile_pattern(pattern).search
        except InvalidPatternError:
            return Page(400, TEXT, b"Invalid re2 regex")
        clusters = (cluster for cluster in clusters if search(cluster.name))
    if parameters.get("format") == "json":
        return Page(200, JSON, _json(clusters))
    return Page(200, TEXT, _text(clusters))


def _text(clusters: Iterable[ClusterView]) -> Iterator[bytes]:
    lines: list[str] = []
    hosts = 0
    for cluster in clusters:
        name = cluster.name
        lines.append(_heading(cluster))
        for host in cluster.hosts:
            lines.append(_host_text(name, host))
            hosts += 1
            if hosts >= _HOSTS_IN_CHUNK:
                yield "".join(lines).encode()
                lines.clear()
                hosts = 0
        hosts += 1
    yield "".join(lines).encode()


def _heading(cluster: ClusterView) -> str:
    name, config = cluster.name, cluster.config
    outlier = ""
    if cluster.outlier is not None:
        outlier = "".join(
            f"{name}::outlier::{kind}_average::{rates.average:g}\n"
            f"{name}::outlier::{kind}_ejection_threshold::{rates.ejection_threshold:g}\n"
            for kind, rates in _rates(cluster.outlier)
        )
    default, high = cluster.breakers
    return (
        f"{name}::observability_name::{config.alt_stat_name}\n{outlier}"
        f"{_limits(name, 'default', default)}{_limits(name, 'high', high)}{name}::added_via_api::false\n"
    )


def _limits(name: str, priority: str, breaker: BreakerView) -> str:
    start = f"{name}::{priority}_priority::"
    return (
        f"{start}max_connections::{breaker.max_connections}\n"
        f"{start}max_pending_requests::{breaker.max_pending_requests}\n"
        f"{start}max_requests::{breaker.max_requests}\n"
        f"{start}max_retries::{breaker.retries_limit}\n"
    )


def _host_text(name: str, host: HostView) -> str:
    start = f"{name}::{host.address.text}::"
    locality = host.locality
    return (
        f"{start}cx_active::{host.cx_active}\n"
        f"{start}cx_connect_fail::{host.cx_connect_fail}\n"
        f"{start}cx_total::{host.cx_total}\n"
        f"{start}rq_active::{host.rq_active}\n"
        f"{start}rq_error::{host.rq_error}\n"
        f"{start}rq_pending_active::{_pending(host)}\n"
        f"{start}rq_success::{host.rq_success}\n"
        f"{start}rq_timeout::{host.rq_timeout}\n"
        f"{start}rq_total::{host.rq_total}\n"
        f"{start}hostname::{host.hostname}\n"
        f"{start}health_flags::{host.health_flags()}\n"
        f"{start}weight::{host.weight}\n"
        f"{start}region::{locality.region}\n"
        f"{start}zone::{locality.zone}\n"
        f"{start}sub_zone::{locality.sub_zone}\n"
        f"{start}canary::{'true' if host.canary else 'false'}\n"
        f"{start}priority::{host.priority}\n"
        f"{start}success_rate::{_rate(host, 'success_rate')}\n"
        f"{start}local_origin_success_rate::{_rate(host, 'local_origin_success_rate')}\n"
    )


def _rates(outlier: OutlierView) -> tuple[tuple[str, RatesView], tuple[str, RatesView]]:
    return ("success_rate", outlier.rates), ("local_origin_success_rate", outlier.local_origin_rates)


def _rate(host: HostView, name: str) -> float:
    """In percent, -1 where it is not known; whole numbers without a point, as Envoy writes them."""
    return _number(-1.0 if host.monitor is None else getattr(host.monitor, name))


def _pending(host: HostView) -> int:
    return 0 if host.pool is None else len(host.pool.pending)


def _json(clusters: Iterable[ClusterView]) -> Iterator[bytes]:
    rest = iter(clusters)
    first = next(rest, None)
    if first is None:
        return json_chunks({})
    statuses = Array(_cluster_json(cluster) for part in ((first,), rest) for cluster in part)
    return json_chunks({"cluster_statuses": statuses})


def _cluster_json(cluster: ClusterView) -> dict[str, Any]:
    hosts, outlier = cluster.hosts, cluster.outlier
    default, high = cluster.breakers
    return {
        "name": cluster.name,
        **_threshold("success_rate", None if outlier is None else outlier.rates),
        **({"host_statuses": Array(_host_json(host) for host in hosts)} if hosts else {}),
        **_threshold("local_origin_success_rate", None if outlier is None else outlier.local_origin_rates),
        "circuit_breakers": {"thresholds": [_thresholds(default), {"priority": "HIGH", **_thresholds(high)}]},
        "observability_name": cluster.config.alt_stat_name,
    }


def _threshold(kind: str, rates: RatesView | None) -> dict[str, Any]:
    if rates is None or rates.ejection_threshold <= 0:
        return {}
    return {f"{kind}_ejection_threshold": {"value": _number(rates.ejection_threshold)}}


def _percent(rate: float) -> dict[str, Any]:
    return {"value": _number(rate)} if rate else {}


def _number(value: float) -> float:
    return int(value) if value.is_integer() else value


def _thresholds(breaker: BreakerView) -> dict[str, Any]:
    return {
        "max_connections": breaker.max_connections,
        "max_pending_requests": breaker.max_pending_requests,
        "max_requests": breaker.max_requests,
        "max_retries": breaker.retries_limit,
    }


def _host_json(host: HostView) -> Object:
    return Object(_host_members(host))


def _host_members(host: HostView) -> Iterator[tuple[str, Any]]:
    yield "address", address_json(host.address)
    counters = [_metric(name, getattr(host, name)) for name in _COUNTERS]
    gauges = (("cx_active", host.cx_active), ("rq_active", host.rq_active), ("rq_pending_active", _pending(host)))
    yield "stats", counters + [{"type": "GAUGE", **_metric(name, value)} for name, value in gauges]
    yield "health_status", _health(host.health_flags())
    monitor = host.monitor
    if monitor is not None and monitor.success_rate >= 0:
        yield "success_rate", _percent(monitor.success_rate)
    yield "weight", host.weight
    if host.hostname:
        yield "hostname", host.hostname
    if host.priority:
        yield "priority", host.priority
    if monitor is not None and monitor.local_origin_success_rate >= 0:
        yield "local_origin_success_rate", _percent(monitor.local_origin_success_rate)
    yield "locality", locality_json(host.locality)


def _metric(name: str, value: int) -> dict[str, Any]:
    return {"value": str(value), "name": name} if value else {"name": name}


_LATER_FLAGS = (
    ("failed_active_degraded_check", "/degraded_active_hc"),
    ("pending_dynamic_removal", "/pending_dynamic_removal"),
    ("pending_active_hc", "/pending_active_hc"),
    ("excluded_via_immediate_hc_fail", "/excluded_via_immediate_hc_fail"),
    ("active_hc_timeout", "/active_hc_timeout"),
)
"""What comes behind the status of the configuration, in the order of Envoy's message."""


def _health(flags: str) -> dict[str, Any]:
    status: dict[str, Any] = {}
    if "/failed_active_hc" in flags:
        status["failed_active_health_check"] = True
    if "/failed_outlier_check" in flags:
        status["failed_outlier_check"] = True
    status["eds_health_status"] = eds_health_status(flags)
    for name, flag in _LATER_FLAGS:
        if flag in flags:
            status[name] = True
    return status


def eds_health_status(flags: str) -> str:
    """What the endpoint's configuration says of its health, from the text of its flags."""
    if "/failed_eds_health" in flags:
        return "UNHEALTHY"
    if "/eds_status_draining" in flags:
        return "DRAINING"
    return "DEGRADED" if "/degraded_eds_health" in flags else "HEALTHY"


def address_json(address: Address) -> dict[str, Any]:
    """`core.v3.Address`."""
    if address.ip is None:
        return {"pipe": {"path": address.path}}
    return {"socket_address": {"address": address.ip, "port_value": address.port}}


def locality_json(locality: Any) -> dict[str, str]:
    """`core.v3.Locality`."""
    pairs = (("region", locality.region), ("zone", locality.zone), ("sub_zone", locality.sub_zone))
    return {name: value for name, value in pairs if value}
