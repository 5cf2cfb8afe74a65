"""The local rate limit filter: token buckets that this proxy keeps, for all requests or by descriptors.

Source: Envoy's ``extensions.filters.http.local_ratelimit.v3.LocalRateLimit``; the ``x-ratelimit-*`` headers are those
of its DRAFT_VERSION_03.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from math import ceil
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from sidecar.config.core_types import TokenBucket as TokenBucketConfig
from sidecar.config.filters.local_ratelimit import LocalRateLimit
from sidecar.core import response_flags as flag
from sidecar.core.explanation import OPEN, Step
from sidecar.core.head import Field, ResponseHead
from sidecar.core.http_filter import FilterStream
from sidecar.core.rate_limits import Descriptor, Entry
from sidecar.core.token_bucket import TokenBucket, make_token_bucket
from sidecar.filters.context import ClusterHealth, FilterContext, NamedFilter
from sidecar.filters.fraction import always, compile_fraction
from sidecar.filters.rate_limit_actions import Populate, compile_rate_limits, limits_of_route

CONNECTION_STATE = "envoy.filters.http.local_ratelimit"
BODY = b"local_rate_limited"
DETAILS = "local_rate_limited"
_RESOURCE_EXHAUSTED = 8


class LocalRateLimitStats(Protocol):
    """What the filter counts."""

    enabled: int
    enforced: int
    ok: int
    rate_limited: int


class LocalRateLimitFilter(NamedFilter):
    """The usual case: one bucket for every request."""

    __slots__ = ("_add_request_headers", "_add_response_headers", "_enforced", "bucket", "config", "stats")

    def __init__(self, name: str, config: LocalRateLimit, context: FilterContext) -> None:
        NamedFilter.__init__(self, name)
        self.config = config
        self.stats: LocalRateLimitStats = context.stats("local_rate_limit", config.stat_prefix)
        bucket = config.token_bucket
        self.bucket = make_token_bucket(bucket, context.worker.clock()) if bucket else TokenBucket(0, 1.0, 0.0)
        self._enforced = compile_fraction(config.filter_enforced)
        self._add_request_headers = context.header_mutation(config.request_headers_to_add_when_not_enforced)
        self._add_response_headers = context.header_mutation(config.response_headers_to_add)

    def rehearse(self, stream: FilterStream) -> Step | None:
        """See ``HttpFilter``: no token is taken."""
        text = f"http filter {self.name}: takes a token of its bucket, or answers {self.config.status}"
        return Step("http filter", self.name, OPEN, text)

    def on_request(self, stream: FilterStream, end: bool) -> bool | None:
        """Take a token, or refuse the request."""
        stats = self.stats
        stats.enabled += 1
        if self.bucket.take(stream.now):
            stats.ok += 1
            return None
        return self._limited(stream)

    def _limited(self, stream: FilterStream) -> bool | None:
        stats = self.stats
        stats.rate_limited += 1
        if not self._enforced(stream.random):
            if self._add_request_headers is not None:
                self._add_request_headers(stream.request, stream)
            return None
        stats.enforced += 1
        fields: list[Field] = []
        if self._add_response_headers is not None:
            self._add_response_headers(ResponseHead(self.config.status, fields), stream)
        config = self.config
        return stream.reply(
            config.status,
            BODY,
            details=DETAILS,
            flags=flag.RATE_LIMITED,
            headers=fields,
            grpc_status=_RESOURCE_EXHAUSTED if config.rate_limited_as_resource_exhausted else None,
        )


class _Buckets:
    """The buckets of one filter, or of one connection: the default one, and those of the descriptors."""

    __slots__ = ("_always_default", "_default", "_exact", "_limit", "_wildcards", "weight")

    def __init__(self, config: LocalRateLimit, now: float) -> None:
        self.weight = 1.0  # tokens for each that a request counts
        self._default = make_token_bucket(config.token_bucket, now) if config.token_bucket else None
        self._always_default = config.always_consume_default_token_bucket
        self._limit = config.max_dynamic_descriptors
        self._exact: dict[tuple[Entry, ...], TokenBucket] = {}
        self._wildcards: list[_Wildcard] = []
        for descriptor in config.descriptors:
            entries = tuple((key.encode(), value.encode()) for key, value in descriptor.entries)
            if all(value for _, value in entries):
                self._exact[entries] = make_token_bucket(descriptor.token_bucket, now)
            else:
                self._wildcards.append(_Wildcard(entries, descriptor.token_bucket))

    def take(self, now: float, descriptors: list[Descriptor]) -> tuple[bool, TokenBucket | None]:
        """Whether the request may pass, and the bucket that says so."""
        weight = self.weight
        matched = [
            (bucket, weight if hits is None else hits * weight)
            for entries, hits, _ in descriptors
            if (bucket := self._exact.get(entries) or self._dynamic(entries, now)) is not None
        ]
        if len(matched) > 1:
            matched.sort(key=lambda one: one[0].rate)  # the slowest is asked first
        for bucket, hits in matched:
            if not bucket.take(now, hits):
                return False, bucket
        default = self._default
        if default is not None and (not matched or self._always_default) and not default.take(now, weight):
            return False, default
        return True, matched[0][0] if matched else default

    def _dynamic(self, entries: tuple[Entry, ...], now: float) -> TokenBucket | None:
        for wildcard in self._wildcards:
            if wildcard.fits(entries):
                return wildcard.bucket(entries, now, self._limit)
        return None


class _ClusterBuckets(_Buckets):
    """Buckets of which each of a cluster's hosts has its share: a request takes as many tokens as there are hosts."""

    __slots__ = ("_health", "_name")

    def __init__(self, config: LocalRateLimit, now: float, health: ClusterHealth) -> None:
        _Buckets.__init__(self, config, now)
        self._name = config.local_cluster
        self._health = health

    def take(self, now: float, descriptors: list[Descriptor]) -> tuple[bool, TokenBucket | None]:
        """As for one host."""
        health = self._health(self._name)
        self.weight = 1.0 if health is None else max(1.0, float(health[1]))
        return _Buckets.take(self, now, descriptors)


class _Wildcard:
    """A descriptor with empty values: a bucket for each set of values that comes; the latest ones are kept."""

    __slots__ = ("_config", "_entries", "_made")

    def __init__(self, entries: tuple[Entry, ...], config: TokenBucketConfig) -> None:
        self._entries = entries
        self._config = config
        self._made: OrderedDict[tuple[Entry, ...], TokenBucket] = OrderedDict()

    def fits(self, entries: tuple[Entry, ...]) -> bool:
        return len(entries) == len(self._entries) and all(
            key == wanted_key and wanted in (b"", value)
            for (key, value), (wanted_key, wanted) in zip(entries, self._entries, strict=True)
        )

    def bucket(self, entries: tuple[Entry, ...], now: float, limit: int) -> TokenBucket:
        made = self._made
        bucket = made.get(entries)
        if bucket is None:
            bucket = made[entries] = make_token_bucket(self._config, now)
            if len(made) > limit:
                made.popitem(last=False)
        else:
            made.move_to_end(entries)
        return bucket


class DescriptorRateLimitFilter(LocalRateLimitFilter):
    """With a share of requests, descriptors, or buckets for each connection."""

    __slots__ = ("_buckets", "_by_route", "_compile", "_enabled", "_make_buckets", "_per_connection", "_populate",
                 "_without_route")  # fmt: skip

    def __init__(self, name: str, config: LocalRateLimit, context: FilterContext) -> None:
        LocalRateLimitFilter.__init__(self, name, config, context)
        self._make_buckets: Callable[[float], _Buckets] = partial(_Buckets, config)
        if config.local_cluster:
            self._make_buckets = partial(_ClusterBuckets, config, health=context.cluster_health)
        self._buckets = self._make_buckets(context.worker.clock())
        self._enabled = compile_fraction(config.filter_enabled)
        self._per_connection = config.local_rate_limit_per_downstream_connection
        self._compile = partial(
            compile_rate_limits, node_cluster=context.node_cluster, compile_format=context.compile_format
        )
        self._populate = self._compile([limit for limit in config.rate_limits if not limit.apply_on_stream_done])
        self._by_route: WeakKeyDictionary[Any, Populate] = WeakKeyDictionary()
        self._without_route = self._compile(())

    def on_request(self, stream: FilterStream, end: bool) -> bool | None:
        """Take a token from every bucket that the request counts against, or refuse it."""
        if not self._enabled(stream.random):
            return None
        stats = self.stats
        stats.enabled += 1
        buckets = self._of_connection(stream) if self._per_connection else self._buckets
        allowed, bucket = buckets.take(stream.now, self._descriptors(stream))
        self._decided(stream, bucket)
        if allowed:
            stats.ok += 1
            return None
        return self._limited(stream)

    def _descriptors(self, stream: FilterStream) -> list[Descriptor]:
        """By the filter's own rate limits; without any, by the route's."""
        if not self.config.descriptors:
            return []
        if self.config.rate_limits:
            return self._populate(stream)
        route = stream.route
        if route is None:
            return self._without_route(stream)
        populate = self._by_route.get(route)
        if populate is None:
            config = self.config
            limits = limits_of_route(route, config.stage, config.vh_rate_limits)
            populate = self._by_route[route] = self._compile([limit for limit in limits if limit.enabled is None])
        return populate(stream)

    def _decided(self, stream: FilterStream, bucket: TokenBucket | None) -> None:
        """A place for those who tell the client about the bucket."""

    def _of_connection(self, stream: FilterStream) -> _Buckets:
        connection = stream.connection
        if connection.metadata is None:
            connection.metadata = {}
        state: dict[Any, Any] = connection.metadata.setdefault(CONNECTION_STATE, {})
        buckets: _Buckets | None = state.get(self)
        if buckets is None:
            buckets = state[self] = self._make_buckets(stream.now)
        return buckets


class AnnouncingRateLimitFilter(DescriptorRateLimitFilter):
    """With ``x-ratelimit-limit``, ``-remaining`` and ``-reset`` in every response to a request that was counted."""

    __slots__ = ()

    def _decided(self, stream: FilterStream, bucket: TokenBucket | None) -> None:
        if bucket is not None:
            stream.data[self] = bucket

    def on_response(self, stream: FilterStream, end: bool) -> bool | None:
        """Tell the client about the bucket that decided."""
        bucket: TokenBucket | None = stream.data.get(self)
        response = stream.response
        if bucket is not None and response is not None:
            now = stream.now
            response.add(b"x-ratelimit-limit", b"%d" % bucket.limit)
            response.add(b"x-ratelimit-remaining", b"%d" % bucket.available(now))
            response.add(b"x-ratelimit-reset", b"%d" % ceil(bucket.seconds_until(1.0, now)))
        return None


def make_local_rate_limit(config: LocalRateLimit, name: str, context: FilterContext) -> NamedFilter:
    """The smallest class that does what the configuration asks; chains and routes alike have their own buckets."""
    if config.filter_enabled[0] == 0:
        context.stats("local_rate_limit", config.stat_prefix)  # its counters are there, at 0
        return NamedFilter(name)
    if config.enable_x_ratelimit_headers:
        return AnnouncingRateLimitFilter(name, config, context)
    whole = always(config.filter_enabled) and config.token_bucket is not None
    if not whole or config.descriptors or config.local_rate_limit_per_downstream_connection or config.local_cluster:
        return DescriptorRateLimitFilter(name, config, context)
    return LocalRateLimitFilter(name, config, context)
