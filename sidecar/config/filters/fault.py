"""Delays, aborts and slow responses on purpose: `extensions.filters.http.fault.v3.HTTPFault`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sidecar.config.core_types import Fraction
from sidecar.config.fields import Node
from sidecar.config.matcher import HeaderMatcher, parse_header_matchers

TYPE = "envoy.extensions.filters.http.fault.v3.HTTPFault"

_NEVER: Fraction = (0, 100)
_PREFIX = "fault.http."


class _Keys(NamedTuple):
    """Where in the runtime each value stands."""

    delay_percent: str
    delay_duration: str
    abort_percent: str
    abort_http_status: str
    abort_grpc_status: str


_LEAVES = _Keys(
    "delay.fixed_delay_percent",
    "delay.fixed_duration_ms",
    "abort.abort_percent",
    "abort.http_status",
    "abort.grpc_status",
)


@dataclass(frozen=True, slots=True)
class FaultDelay:
    """Wait `fixed_delay` seconds; None: as long as the header `x-envoy-fault-delay-request` says (milliseconds).

    `header_delay` stands in the place of what the header says, None for that itself. Another
    header may lower the percentage then, unless `percentage_is_fixed`.
    """

    fixed_delay: float | None
    percentage: Fraction
    header_delay: float | None = None
    percentage_is_fixed: bool = False


@dataclass(frozen=True, slots=True)
class FaultAbort:
    """Answer with one of the two statuses; both None: with what `x-envoy-fault-abort-request` or its gRPC twin says.

    The statuses that begin with `header_` stand in the place of what the headers say, as for delays.
    """

    http_status: int | None
    grpc_status: int | None
    percentage: Fraction
    header_http_status: int | None = None
    header_grpc_status: int | None = None
    percentage_is_fixed: bool = False


@dataclass(frozen=True, slots=True)
class FaultRateLimit:
    """Let the response pass at `limit_kbps` KiB/s; None: as `x-envoy-fault-throughput-response` says."""

    limit_kbps: int | None
    percentage: Fraction
    percentage_is_fixed: bool = False


@dataclass(frozen=True, slots=True)
class FaultsOfCluster:
    """What is injected into the requests of one downstream cluster."""

    delay: FaultDelay | None
    abort: FaultAbort | None


@dataclass(frozen=True, slots=True)
class HTTPFault:
    """The faults, and the requests they are for: those to `upstream_cluster` if it is not empty, whose headers match,
    and whose `x-envoy-downstream-service-node` is among `downstream_nodes` if there are any.

    No more than `max_active_faults` at one time; None for any number. `filter_metadata` goes with every delay and abort.
    Where the runtime has values for downstream clusters, `by_downstream_cluster` has the faults for requests that name
    theirs, under the empty name for all that are not named there; `delay` and `abort` are for the other requests then.
    """

    delay: FaultDelay | None = None
    abort: FaultAbort | None = None
    response_rate_limit: FaultRateLimit | None = None
    upstream_cluster: str = ""
    headers: tuple[HeaderMatcher, ...] = ()
    downstream_nodes: frozenset[bytes] = frozenset()
    max_active_faults: int | None = None
    disable_downstream_cluster_stats: bool = False
    filter_metadata: Mapping[str, Any] = field(default_factory=dict)
    by_downstream_cluster: Mapping[bytes, FaultsOfCluster] = field(default_factory=dict)


def parse_fault(node: Node) -> HTTPFault:
    """`HTTPFault`, with what the runtime says at the start."""
    runtime = node.context.runtime
    keys = _Keys(
        node.get("delay_percent_runtime") or _PREFIX + _LEAVES.delay_percent,
        node.get("delay_duration_runtime") or _PREFIX + _LEAVES.delay_duration,
        node.get("abort_percent_runtime") or _PREFIX + _LEAVES.abort_percent,
        node.get("abort_http_status_runtime") or _PREFIX + _LEAVES.abort_http_status,
        node.get("abort_grpc_status_runtime") or _PREFIX + _LEAVES.abort_grpc_status,
    )
    limit_key = node.get("response_rate_limit_percent_runtime") or _PREFIX + "rate_limit.response_percent"
    most = runtime.integer(node.get("max_active_faults_runtime") or _PREFIX + "max_active_faults")
    configured_most: int | None = node.wrapped("max_active_faults", None)
    limit = node.child("response_rate_limit")
    general = _faults(node, keys, keys.delay_duration)
    return HTTPFault(
        delay=general.delay,
        abort=general.abort,
        response_rate_limit=None if limit is None else _parse_rate_limit(limit, limit_key),
        upstream_cluster=node.get("upstream_cluster"),
        headers=parse_header_matchers(node.children("headers")),
        downstream_nodes=frozenset(name.encode() for name in node.get("downstream_nodes")),
        max_active_faults=configured_most if most is None else most,
        disable_downstream_cluster_stats=node.get("disable_downstream_cluster_stats"),
        filter_metadata=node.struct("filter_metadata") or {},
        by_downstream_cluster=_by_downstream_cluster(node, general, keys.delay_duration),
    )


def _by_downstream_cluster(node: Node, general: FaultsOfCluster, duration: str) -> Mapping[bytes, FaultsOfCluster]:
    """The general keys are not asked for requests that name their cluster, but for how long a delay is."""
    names = {
        key[len(_PREFIX) : -len(leaf) - 1]
        for key in node.context.runtime.values
        for leaf in _LEAVES
        if key.startswith(_PREFIX) and key.endswith(f".{leaf}")
    }
    found = {name: _faults(node, _Keys(*(f"{_PREFIX}{name}.{leaf}" for leaf in _LEAVES)), duration) for name in names}
    others = _faults(node, _Keys("", "", "", "", ""), duration)
    if not found and others == general:
        return {}
    return {b"": others, **{name.encode(): faults for name, faults in sorted(found.items())}}


def _faults(node: Node, keys: _Keys, duration: str) -> FaultsOfCluster:
    delay, abort = node.child("delay"), node.child("abort")
    return FaultsOfCluster(
        None if delay is None else _parse_delay(delay, keys, duration),
        None if abort is None else _parse_abort(abort, keys),
    )


def _percentage(node: Node, key: str) -> tuple[Fraction, bool]:
    """The percentage, and whether the runtime has fixed it."""
    found = node.context.runtime.fraction(key)
    configured = node.fraction("percentage") or _NEVER
    return (configured, False) if found is None else (found, True)


def _parse_delay(node: Node, keys: _Keys, duration: str) -> FaultDelay:
    by_header = node.child("header_delay") is not None
    runtime = node.context.runtime
    milliseconds = runtime.integer(keys.delay_duration)
    if milliseconds is None:
        milliseconds = runtime.integer(duration)
    delay = node.duration("fixed_delay")
    if milliseconds is not None:
        delay = milliseconds / 1000
    percentage, fixed = _percentage(node, keys.delay_percent)
    if by_header:
        return FaultDelay(None, percentage, delay, fixed)
    return FaultDelay(delay, percentage)


def _parse_abort(node: Node, keys: _Keys) -> FaultAbort:
    node.child("header_abort")
    runtime = node.context.runtime
    kind = node.which("error_type")
    http_status: int | None = node.get("http_status") if kind == "http_status" else None
    grpc_status: int | None = node.get("grpc_status") if kind == "grpc_status" else None
    percentage, fixed = _percentage(node, keys.abort_percent)
    status = runtime.integer(keys.abort_http_status)
    if status is not None and not 200 <= status < 600:
        status = None
    call_status = runtime.integer(keys.abort_grpc_status)
    if kind == "header_abort":
        return FaultAbort(None, None, percentage, status, call_status, fixed)
    if http_status is not None:
        return FaultAbort(status or http_status, None, percentage)
    return FaultAbort(None, grpc_status if call_status is None else call_status, percentage)


def _parse_rate_limit(node: Node, key: str) -> FaultRateLimit:
    node.child("header_limit")
    limit = node.child("fixed_limit")
    percentage, fixed = _percentage(node, key)
    if limit is None:
        return FaultRateLimit(None, percentage, fixed)
    return FaultRateLimit(limit.get("limit_kbps"), percentage)
