"""What a client does with the endpoints of a service: balancing, pools, outlier detection, TLS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from pydantic import Field

from controlplane.model.causes import Cause, Reason
from controlplane.model.istio.destination import PortSelector
from controlplane.model.istio.tls import ClientTLSSettings
from controlplane.model.oneof import exclusive, is_given
from controlplane.model.resource import Model
from controlplane.model.values import (
    Bool,
    Duration,
    DurationOrZero,
    Float,
    Int,
    PercentInt,
    PercentValue,
    Port,
    Str,
    UInt,
    header_name_complaint,
    is_ip,
    shown,
    wildcard_domain_complaint,
)


class CookieAttribute(Model):
    """An attribute of a cookie, such as SameSite."""

    name: Str
    value: Str | None = None


class HTTPCookie(Model):
    """A cookie to hash; it is set if there is none and ``ttl`` is given (0: for the session)."""

    name: Str
    path: Str | None = None
    ttl: DurationOrZero | None = None
    attributes: tuple[CookieAttribute, ...] = ()


_LARGEST_RING = 8 * 1024 * 1024


def _ring_size_problems(size: int | None) -> Iterable[Cause]:
    if size is not None and size > _LARGEST_RING:
        yield Cause("minimumRingSize", f"is above {_LARGEST_RING}, the largest ring that proxies make: lower it")


class RingHash(Model):
    """Ketama's ring."""

    minimum_ring_size: UInt | None = None

    def problems(self) -> Iterable[Cause]:
        yield from _ring_size_problems(self.minimum_ring_size)


class MagLev(Model):
    """Maglev's table."""

    table_size: UInt | None = None

    def problems(self) -> Iterable[Cause]:
        size = self.table_size
        if size is None:
            yield Cause("tableSize", "is required: the usual one is 65537", Reason.REQUIRED)
        elif size > 5000011 or not _is_prime(size):
            yield Cause("tableSize", f"must be a prime number up to 5000011, not {size}: the usual one is 65537")


class ConsistentHashLB(Model):
    """What of a request decides its endpoint."""

    http_header_name: Str | None = None
    http_cookie: HTTPCookie | None = None
    use_source_ip: Bool | None = None
    http_query_parameter_name: Str | None = None
    minimum_ring_size: UInt | None = None
    ring_hash: RingHash | None = None
    maglev: MagLev | None = None

    def problems(self) -> Iterable[Cause]:
        keys = ("http_header_name", "http_cookie", "use_source_ip", "http_query_parameter_name")
        yield from exclusive(self, *keys, required=True)
        yield from exclusive(self, "ring_hash", "maglev")
        for name, given in (("ringHash", self.ring_hash), ("maglev", self.maglev)):
            if self.minimum_ring_size and given is not None:
                yield Cause("minimumRingSize", f"is from before {name} and excludes it: remove one of them")
        yield from _ring_size_problems(self.minimum_ring_size)
        if self.http_header_name is not None and (complaint := header_name_complaint(self.http_header_name)):
            yield Cause("httpHeaderName", complaint)


class Distribute(Model):
    """Shares, in percent, of the traffic from one locality."""

    from_: Str = Field(alias="from")
    to: Mapping[Str, UInt] = Field(default_factory=dict)

    def problems(self) -> Iterable[Cause]:
        yield from _locality_problems(self.from_, "from")
        for locality, weight in self.to.items():
            yield from _locality_problems(locality, f"to[{locality}]")
            if not 1 <= weight <= 100:
                yield Cause(f"to[{locality}]", f"a share must be from 1 to 100 percent, not {weight}")
        if self.to and sum(self.to.values()) != 100:
            yield Cause("to", f"the shares come to {sum(self.to.values())} percent: make them 100")


class Failover(Model):
    """Where traffic of a region goes when the region is unhealthy."""

    from_: Str = Field(alias="from")
    to: Str

    def problems(self) -> Iterable[Cause]:
        if self.from_ == self.to:
            yield Cause("to", f"{shown(self.to)} is the region that fails: name another")
        for path, region in (("from", self.from_), ("to", self.to)):
            if "/" in region or "*" in region or not region:
                yield Cause(
                    path, f"{shown(region)} is not a region: failover is between regions, without zones and wildcards"
                )


class LocalityLbSetting(Model):
    """Preference of endpoints that are near."""

    distribute: tuple[Distribute, ...] = ()
    failover: tuple[Failover, ...] = ()
    failover_priority: tuple[Str, ...] = ()
    enabled: Bool | None = None

    def problems(self) -> Iterable[Cause]:
        yield from exclusive(self, "distribute", "failover")
        yield from exclusive(self, "distribute", "failover_priority")
        localities = [each.from_ for each in self.distribute]
        for index, locality in enumerate(localities):
            if locality in localities[:index]:
                at = f"distribute[{index}].from"
                yield Cause(at, f"{shown(locality)} is distributed already: merge the two", Reason.DUPLICATE)
        for index, label in enumerate(self.failover_priority):
            if label in self.failover_priority[:index]:
                at = f"failoverPriority[{index}]"
                yield Cause(at, f"{shown(label)} is there twice: remove one", Reason.DUPLICATE)


class WarmupConfiguration(Model):
    """How the traffic to a new endpoint grows."""

    duration: Duration
    minimum_percent: Float | None = None
    aggression: Float | None = None

    def problems(self) -> Iterable[Cause]:
        if self.minimum_percent is not None and not 0 <= self.minimum_percent <= 100:
            yield Cause("minimumPercent", f"a percentage must be from 0 to 100, not {self.minimum_percent:g}")
        if self.aggression is not None and self.aggression < 1:
            yield Cause("aggression", f"must be at least 1, not {self.aggression:g}")


class LoadBalancerSettings(Model):
    """How an endpoint is chosen."""

    simple: Literal["UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"] | None = None
    consistent_hash: ConsistentHashLB | None = None
    locality_lb_setting: LocalityLbSetting | None = None
    warmup_duration_secs: DurationOrZero | None = None
    warmup: WarmupConfiguration | None = None

    def problems(self) -> Iterable[Cause]:
        yield from exclusive(self, "simple", "consistent_hash")
        yield from exclusive(self, "warmup_duration_secs", "warmup")
        if self.warmup_duration_secs is not None or self.warmup is not None:
            name = "warmup" if self.warmup is not None else "warmupDurationSecs"
            if self.consistent_hash is not None or self.simple in ("RANDOM", "PASSTHROUGH"):
                yield Cause(name, "is for ROUND_ROBIN and LEAST_REQUEST alone: remove it, or choose one of these")


class TcpKeepalive(Model):
    """Probes of idle connections."""

    probes: UInt | None = None
    time: DurationOrZero | None = None
    interval: DurationOrZero | None = None


class TCPSettings(Model):
    """Limits of connections, of TCP and of HTTP."""

    max_connections: Int | None = None
    connect_timeout: Duration | None = None
    tcp_keepalive: TcpKeepalive | None = None
    max_connection_duration: Duration | None = None
    idle_timeout: DurationOrZero | None = None

    def problems(self) -> Iterable[Cause]:
        yield from not_negative(self, "max_connections")


class HTTPSettings(Model):
    """Limits of HTTP requests and of the connections for them."""

    http1_max_pending_requests: Int | None = None
    http2_max_requests: Int | None = None
    max_requests_per_connection: Int | None = None
    max_retries: Int | None = None
    idle_timeout: DurationOrZero | None = None
    h2_upgrade_policy: Literal["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"] = "DEFAULT"
    use_client_protocol: Bool | None = None
    max_concurrent_streams: Int | None = None

    def problems(self) -> Iterable[Cause]:
        yield from not_negative(
            self,
            "http1_max_pending_requests",
            "http2_max_requests",
            "max_requests_per_connection",
            "max_retries",
            "max_concurrent_streams",
        )
        if self.use_client_protocol and self.h2_upgrade_policy == "UPGRADE":
            yield Cause("useClientProtocol", "excludes h2UpgradePolicy UPGRADE: keep one of them")


class ConnectionPoolSettings(Model):
    """Limits of connections and requests to a service."""

    tcp: TCPSettings | None = None
    http: HTTPSettings | None = None

    def problems(self) -> Iterable[Cause]:
        if self.tcp is None and self.http is None:
            yield Cause("", "says nothing: give tcp or http", Reason.REQUIRED)


class OutlierDetection(Model):
    """When an endpoint is taken out for a while."""

    consecutive_errors: Int | None = None
    split_external_local_origin_errors: Bool | None = None
    consecutive_local_origin_failures: UInt | None = None
    consecutive_gateway_errors: UInt | None = None
    consecutive_5xx_errors: UInt | None = None
    interval: Duration | None = None
    base_ejection_time: Duration | None = None
    max_ejection_percent: PercentInt | None = None
    min_health_percent: PercentInt | None = None

    def problems(self) -> Iterable[Cause]:
        yield from not_negative(self, "consecutive_errors")
        if self.consecutive_local_origin_failures and not self.split_external_local_origin_errors:
            yield Cause(
                "consecutiveLocalOriginFailures",
                "has no effect without splitExternalLocalOriginErrors: set that to true, or remove this",
            )


class ProxyProtocol(Model):
    """The PROXY protocol's head before each connection."""

    version: Literal["V1", "V2"] = "V1"


class TunnelSettings(Model):
    """Connections go through a CONNECT (or POST) proxy, which the rule's host is."""

    protocol: Literal["CONNECT", "POST"] | None = None
    target_host: Str
    target_port: Port

    def problems(self) -> Iterable[Cause]:
        if not is_ip(self.target_host):
            complaint = wildcard_domain_complaint(self.target_host)
            if complaint or "*" in self.target_host:
                yield Cause("targetHost", complaint or "must be one host: name it without a wildcard")


class RetryBudget(Model):
    """Retries as a share of the requests that are active."""

    percent: PercentValue | None = None
    min_retry_concurrency: UInt | None = None


class PortTrafficPolicy(Model):
    """What a policy says of one port; it stands in place of what the whole policy says."""

    port: PortSelector | None = None
    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLSSettings | None = None

    def problems(self) -> Iterable[Cause]:
        if self.port is None:
            yield Cause("port", "is required: give the port's number", Reason.REQUIRED)
        if not any(is_given(self, name) for name in type(self).model_fields if name != "port"):
            yield Cause("", "says nothing of the port: give at least one setting", Reason.REQUIRED)


class TrafficPolicy(Model):
    """What clients do with a service or one of its subsets."""

    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLSSettings | None = None
    port_level_settings: tuple[PortTrafficPolicy, ...] = ()
    tunnel: TunnelSettings | None = None
    proxy_protocol: ProxyProtocol | None = None
    retry_budget: RetryBudget | None = None

    def problems(self) -> Iterable[Cause]:
        if not any(is_given(self, name) for name in type(self).model_fields):
            yield Cause("", "says nothing: give at least one setting", Reason.REQUIRED)
        yield from exclusive(self, "tunnel", "proxy_protocol")
        numbers = [each.port.number if each.port else 0 for each in self.port_level_settings]
        for index, number in enumerate(numbers):
            if number and number in numbers[:index]:
                at = f"portLevelSettings[{index}].port.number"
                yield Cause(at, f"{number} has settings already: merge the two", Reason.DUPLICATE)


def not_negative(model: Model, *names: str) -> Iterator[Cause]:
    """Causes for those of the fields that are below 0."""
    for name in names:
        value = getattr(model, name)
        if value is not None and value < 0:
            yield Cause(type(model).model_fields[name].alias or name, f"must not be negative, it is {value}")


def _locality_problems(locality: str, path: str) -> Iterator[Cause]:
    parts = locality.split("/")
    wild = [index for index, part in enumerate(parts) if part == "*"]
    if len(parts) > 3 or not all(parts) or any("*" in part and part != "*" for part in parts):
        yield Cause(path, f"{shown(locality)} is not a locality: write REGION, REGION/ZONE or REGION/ZONE/SUBZONE")
    elif wild and wild[0] != len(parts) - 1:
        yield Cause(path, f"{shown(locality)} has a wildcard that is not last: nothing can follow it")


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))
