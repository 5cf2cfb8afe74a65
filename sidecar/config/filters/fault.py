"""Delays, aborts and slow responses on purpose: `extensions.filters.http.fault.v3.HTTPFault`."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.config.core_types import Fraction
from sidecar.config.fields import Node
from sidecar.config.matcher import HeaderMatcher, parse_header_matchers

TYPE = "envoy.extensions.filters.http.fault.v3.HTTPFault"

_NEVER: Fraction = (0, 100)
_RUNTIME_KEYS = (
    "delay_percent_runtime",
    "abort_percent_runtime",
    "delay_duration_runtime",
    "abort_http_status_runtime",
    "max_active_faults_runtime",
    "response_rate_limit_percent_runtime",
    "abort_grpc_status_runtime",
)


@dataclass(frozen=True, slots=True)
class FaultDelay:
    """Wait `fixed_delay` seconds; None: as long as the header `x-envoy-fault-delay-request` says (milliseconds)."""

    fixed_delay: float | None
    percentage: Fraction


@dataclass(frozen=True, slots=True)
class FaultAbort:
    """Answer with one of the two statuses; both None: with what `x-envoy-fault-abort-request` or its gRPC twin says."""

    http_status: int | None
    grpc_status: int | None
    percentage: Fraction


@dataclass(frozen=True, slots=True)
class FaultRateLimit:
    """Let the response pass at `limit_kbps` KiB/s; None: as `x-envoy-fault-throughput-response` says."""

    limit_kbps: int | None
    percentage: Fraction


@dataclass(frozen=True, slots=True)
class HTTPFault:
    """The faults, and the requests they are for: those to `upstream_cluster` if it is not empty, whose headers match,
    and whose `x-envoy-downstream-service-node` is among `downstream_nodes` if there are any.

    No more than `max_active_faults` at one time; None for any number.
    """

    delay: FaultDelay | None = None
    abort: FaultAbort | None = None
    response_rate_limit: FaultRateLimit | None = None
    upstream_cluster: str = ""
    headers: tuple[HeaderMatcher, ...] = ()
    downstream_nodes: frozenset[bytes] = frozenset()
    max_active_faults: int | None = None
    disable_downstream_cluster_stats: bool = False


def parse_fault(node: Node) -> HTTPFault:
    """`HTTPFault`. The runtime keys are ignored with a warning."""
    for key in _RUNTIME_KEYS:
        node.ignore(key, "faults are not looked up in the runtime")
    delay, abort, limit = node.child("delay"), node.child("abort"), node.child("response_rate_limit")
    return HTTPFault(
        delay=None if delay is None else _parse_delay(delay),
        abort=None if abort is None else _parse_abort(abort),
        response_rate_limit=None if limit is None else _parse_rate_limit(limit),
        upstream_cluster=node.get("upstream_cluster"),
        headers=parse_header_matchers(node.children("headers")),
        downstream_nodes=frozenset(name.encode() for name in node.get("downstream_nodes")),
        max_active_faults=node.wrapped("max_active_faults", None),
        disable_downstream_cluster_stats=node.get("disable_downstream_cluster_stats"),
    )


def _percentage(node: Node) -> Fraction:
    return node.fraction("percentage") or _NEVER


def _parse_delay(node: Node) -> FaultDelay:
    node.child("header_delay")
    return FaultDelay(node.duration("fixed_delay"), _percentage(node))


def _parse_abort(node: Node) -> FaultAbort:
    node.child("header_abort")
    kind = node.which("error_type")
    http_status, grpc_status = node.get("http_status"), node.get("grpc_status")
    return FaultAbort(
        http_status if kind == "http_status" else None,
        grpc_status if kind == "grpc_status" else None,
        _percentage(node),
    )


def _parse_rate_limit(node: Node) -> FaultRateLimit:
    node.child("header_limit")
    fixed = node.child("fixed_limit")
    return FaultRateLimit(None if fixed is None else fixed.get("limit_kbps"), _percentage(node))
