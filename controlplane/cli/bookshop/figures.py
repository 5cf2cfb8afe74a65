"""Who calls whom, how often, how well: from the statistics that the sidecars keep under Envoy's names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

_LINE: Final = re.compile(r"^(envoy_[a-z0-9_]+)\{(.*)\} (\d+)(?:\.\d+)?$")
_LABEL: Final = re.compile(r'([a-z_]+)="([^"]*)"')
_INF: Final = float("inf")


@dataclass(slots=True)
class Counted:
    """What has been counted of the requests on one way, ever."""

    requests: int = 0
    failed: int = 0
    handshakes: int = 0  # of mutual TLS
    connections: int = 0
    buckets: dict[float, int] = field(default_factory=dict)  # upper bound in ms -> how many took no longer

    def since(self, before: Counted | None) -> Counted:
        """What came since an earlier look."""
        if before is None:
            before = Counted()
        buckets = {bound: count - before.buckets.get(bound, 0) for bound, count in self.buckets.items()}
        return Counted(
            self.requests - before.requests, self.failed - before.failed, self.handshakes, self.connections, buckets
        )

    def quantile(self, share: float) -> float | None:
        """Milliseconds within which this share was answered, interpolated within its bucket; None if nothing was."""
        total = max(self.buckets.values(), default=0)
        if total <= 0:
            return None
        wanted, lower, below = share * total, 0.0, 0
        for bound, count in sorted(self.buckets.items()):
            if count >= wanted:
                if bound == _INF:
                    return lower
                return lower + (bound - lower) * (wanted - below) / max(count - below, 1)
            lower, below = bound, count
        return lower


@dataclass(frozen=True, slots=True, order=True)
class Way:
    """From where to where; ``subset`` is the version that a route chose, if it did."""

    source: str
    destination: str
    subset: str = ""


def read(source: str, exposition: str) -> dict[Way, Counted]:
    """The ways that start at one sidecar, and the one that ends there, from its `/stats/prometheus`."""
    ways: dict[Way, Counted] = {}
    for line in exposition.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        metric, labels, value = match[1], dict(_LABEL.findall(match[2])), int(match[3])
        # What is in between is what Envoy's rules leave of a name with dots in it.
        if (
            metric.startswith("envoy_http_")
            and metric.endswith(("_fault_aborts_injected", "_fault_delays_injected"))
            and value
        ):
            what = "aborted by a fault" if "aborts" in metric else "delayed by a fault"
            counted = ways.setdefault(Way(source, f"({what})"), Counted())
            counted.requests += value
            counted.failed += value if "aborts" in metric else 0
            continue
        way = _way(source, labels.get("cluster_name", ""))
        if way is None:
            continue
        if metric == "envoy_cluster_upstream_rq_completed":
            ways.setdefault(way, Counted()).requests = value
        elif metric == "envoy_cluster_upstream_rq_xx" and labels.get("envoy_response_code_class") == "5":
            ways.setdefault(way, Counted()).failed = value
        elif metric == "envoy_cluster_ssl_handshake":
            ways.setdefault(way, Counted()).handshakes = value
        elif metric == "envoy_cluster_upstream_cx_total":
            ways.setdefault(way, Counted()).connections = value
        elif metric == "envoy_cluster_upstream_rq_time_bucket":
            ways.setdefault(way, Counted()).buckets[float(labels["le"].replace("+Inf", "inf"))] = value
    return ways


def _way(source: str, cluster: str) -> Way | None:
    parts = cluster.split("|")
    if len(parts) != 4:
        return None
    direction, _, subset, host = parts
    if direction == "outbound":
        return Way(source, host.partition(".")[0], subset)
    return Way("", source) if direction == "inbound" else None


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table. Rates are by second, times in ms, None where there were no requests."""

    source: str
    destination: str
    rate: float
    failed: float  # share, 0 to 1
    p50: float | None
    p99: float | None
    encrypted: bool | None = None
    """Whether connections from one sidecar to the next are mutual TLS; None where there is none, or some are not."""


def rows(now: Mapping[Way, Counted], before: Mapping[Way, Counted], seconds: float) -> list[Row]:
    """What happened between two looks, on every way that ever had a request."""
    found = []
    for way in sorted(now):
        if not now[way].requests:
            continue
        counted = now[way].since(before.get(way))
        failed = counted.failed / counted.requests if counted.requests else 0.0
        name = f"{way.destination} {way.subset}".rstrip()
        found.append(
            Row(
                way.source,
                name,
                counted.requests / seconds,
                failed,
                counted.quantile(0.5),
                counted.quantile(0.99),
                _encrypted(counted) if way.source else None,
            )
        )
    return found


def _encrypted(counted: Counted) -> bool | None:
    if not counted.connections or 0 < counted.handshakes < counted.connections:
        return None
    return counted.handshakes > 0


def merged(parts: Iterable[Mapping[Way, Counted]]) -> dict[Way, Counted]:
    """The ways of all sidecars."""
    return {way: counted for part in parts for way, counted in part.items()}
