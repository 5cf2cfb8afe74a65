"""The router: the end of the filter chain. It answers what needs no upstream and starts an upstream request otherwise.

Source: Envoy's ``extensions.filters.http.router.v3.Router``; the order of the steps is Envoy's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sidecar.core import response_flags as flag
from sidecar.core.worker import Worker
from sidecar.router.upstream_request import UpstreamRequest


class Router:
    """One per connection manager. ``cluster_of`` finds a cluster by name; ``pool_of`` gives the pool of a host."""

    __slots__ = ("worker", "stats", "cluster_of", "pool_of", "suppress_headers", "retry_budget_bytes",
                 "respect_expected_timeout")  # fmt: skip

    def __init__(
        self,
        worker: Worker,
        stats: Any,
        cluster_of: Callable[[str], Any],
        pool_of: Callable[[Any, Any], Any],
        suppress_headers: bool = False,
        buffer_limit: int = 1 << 20,
    ) -> None:
        self.worker = worker
        self.stats = stats
        self.cluster_of = cluster_of
        self.pool_of = pool_of
        self.suppress_headers = suppress_headers
        self.retry_budget_bytes = buffer_limit
        self.respect_expected_timeout = False

    def on_request(self, stream: Any, end: bool) -> None:
        """Route the request in ``stream``: its head has passed all filters."""
        stats = self.stats
        stats.rq_total += 1
        route = stream.route
        if route is None:
            stats.no_route += 1
            stream.reply(404, details="route_not_found", flags=flag.NO_ROUTE_FOUND)
            return
        if route.kind != "forward":
            self._answer(stream, route)
            return
        request = stream.request
        name = route.cluster_name or stream.cluster_name
        cluster = self.cluster_of(name)
        if cluster is None:
            stats.no_cluster += 1
            stream.reply(
                route.cluster_not_found_response_code, details="cluster_not_found", flags=flag.NO_CLUSTER_FOUND
            )
            return
        stream.cluster_name = name
        upstream = UpstreamRequest(self, stream, route, cluster)
        stream.upstream = upstream
        upstream.start(request, end)

    def _answer(self, stream: Any, route: Any) -> None:
        if route.kind == "redirect":
            self.stats.rq_redirect += 1
            status, location = route.redirect(stream.request, stream)
            stream.reply(status, details="", headers=((b"location", location),))
        else:
            self.stats.rq_direct_response += 1
            status, body, _ = route.direct_response
            stream.reply(status, body, details="direct_response")

    def __repr__(self) -> str:
        return "<Router>"
