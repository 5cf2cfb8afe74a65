"""The dynamic forward proxy: has the host that a request names looked up, and holds the request until it is known.

Source: Envoy's ``extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig``.
"""

from __future__ import annotations

from typing import Final

from sidecar.config.filters.dynamic_forward_proxy import DynamicForwardProxy, DynamicForwardProxyPerRoute
from sidecar.core import response_flags as flag
from sidecar.core.dns_cache import DnsCache, DnsCaches, Name
from sidecar.core.explanation import PASSES, Step
from sidecar.core.head import RequestHead
from sidecar.core.http_filter import PAUSE, FilterStream
from sidecar.core.worker import Worker
from sidecar.filters.context import FilterContext, NamedFilter
from sidecar.filters.rate_limit_actions import cluster_of

_PENDING_OVERFLOW: Final = b"Dynamic forward proxy pending request overflow"
_UNAVAILABLE: Final = 503


class _Waiting:
    """A request that waits for a name."""

    __slots__ = ("filter", "name", "stream")

    def __init__(self, filter: DynamicForwardProxyFilter, name: Name, stream: FilterStream) -> None:
        self.filter = filter
        self.name = name
        self.stream = stream

    def on_name(self) -> None:
        self.filter.on_name(self)


class DynamicForwardProxyFilter(NamedFilter):
    """Looks at the requests that go to dynamic forward proxies; all others pass."""

    __slots__ = ("_caches", "_is_base", "_route", "_worker", "cache")

    back_pressure = True

    def __init__(
        self,
        name: str,
        cache: DnsCache,
        caches: DnsCaches,
        worker: Worker,
        route: DynamicForwardProxyPerRoute | None = None,
    ) -> None:
        NamedFilter.__init__(self, name)
        self.cache = cache
        self._caches = caches
        self._worker = worker
        self._is_base = route is None
        self._route = route or DynamicForwardProxyPerRoute()

    def of_route(self, route: DynamicForwardProxyPerRoute) -> DynamicForwardProxyFilter:
        """The same for a route that names the host itself."""
        return DynamicForwardProxyFilter(self.name, self.cache, self._caches, self._worker, route)

    def rehearse(self, stream: FilterStream) -> Step | None:
        """See ``HttpFilter``: nothing is looked up."""
        if self._default_port(stream) is None:
            return None
        self._rewrite(stream.request)
        if not stream.request.authority:
            return Step("http filter", self.name, PASSES, f"http filter {self.name}: the request names no host: 400")
        host = stream.request.authority.decode("latin-1")
        return Step("http filter", self.name, PASSES, f"http filter {self.name}: {host!r} is looked up")

    def on_request(self, stream: FilterStream, end: bool) -> bool | None:
        """Hold the request until its host is known; one whose host cannot be found ends here."""
        port = self._default_port(stream)
        if port is None:
            return None
        request = stream.request
        self._rewrite(request)
        if not request.authority:
            return stream.reply(400, b"Empty host header", details="empty_host_header")
        cache = self.cache
        if not cache.admit():
            details = "dynamic_forward_proxy_pending_request_overflow"
            return stream.reply(_UNAVAILABLE, _PENDING_OVERFLOW, details=details)
        name = cache.look_up(request.authority, port)
        if name is None:
            return stream.reply(_UNAVAILABLE, b"DNS cache overflow", details="dns_cache_overflow")
        if not name.answered:
            waiting = stream.data[self] = _Waiting(self, name, stream)
            cache.wait(name, waiting)
            return PAUSE
        return None if name.address is not None else self._not_found(stream, name)

    def on_name(self, waiting: _Waiting) -> None:
        """The request goes on, or ends."""
        stream, name = waiting.stream, waiting.name
        del stream.data[self]
        stream.now = self._worker.clock()
        if name.address is None:
            self._not_found(stream, name)
        else:
            stream.resume_request()
        self._worker.cork.settle()

    def on_complete(self, stream: FilterStream) -> None:
        """Nobody waits any more."""
        waiting: _Waiting | None = stream.data.pop(self, None)
        if waiting is not None:
            self.cache.forget(waiting.name, waiting)

    def close(self) -> None:
        """The cache is not needed here any more: the names of requests under way are known, or their clusters are asked."""
        if self._is_base:
            self.cache.release()

    def _default_port(self, stream: FilterStream) -> int | None:
        cluster = cluster_of(stream)
        return self._caches.default_port(cluster) if cluster else None

    def _rewrite(self, request: RequestHead) -> None:
        route = self._route
        if route.host_rewrite_literal:
            request.authority = route.host_rewrite_literal
        elif route.host_rewrite_header:
            values = request.get_all(route.host_rewrite_header)
            if values:
                request.authority = values[0]

    def _not_found(self, stream: FilterStream, name: Name) -> bool:
        details = f"dns_resolution_failure{{{name.details.replace(' ', '_')}}}"
        return stream.reply(_UNAVAILABLE, b"DNS resolution failure", details=details, flags=flag.DNS_RESOLUTION_FAILED)


def make_dynamic_forward_proxy(config: DynamicForwardProxy, name: str, context: FilterContext) -> NamedFilter:
    """The chain's filter. Raises ValueError if the cache has other settings elsewhere."""
    caches = context.dns_caches()
    return DynamicForwardProxyFilter(name, caches.open(config.dns_cache), caches, context.worker)
