"""The router: the end of the filter chain. It answers what needs no upstream and starts an upstream request otherwise.

Source: Envoy's ``extensions.filters.http.router.v3.Router``; the order of the steps is Envoy's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sidecar.config.retry_policy import GRPC_RETRY_CONDITIONS, RETRY_CONDITIONS
from sidecar.core import response_flags as flag
from sidecar.core.head import Field
from sidecar.core.worker import Worker
from sidecar.router.hedging import HedgedRequest
from sidecar.router.immediate_failure import attentive
from sidecar.router.internal_redirect import RedirectedHedgedRequest
from sidecar.router.observed_request import observed
from sidecar.router.upstream_request import UpstreamRequest

_NUMBERS = frozenset(
    (b"x-envoy-upstream-rq-timeout-ms", b"x-envoy-upstream-rq-per-try-timeout-ms", b"x-envoy-max-retries")
)


def valid_control(name: bytes, value: bytes) -> bool:
    """Whether an ``x-envoy-*`` header that controls the router has a value that it understands."""
    if name in _NUMBERS:
        return value.isdigit()
    if name == b"x-envoy-retry-on":
        return all(word.strip().decode("latin-1") in RETRY_CONDITIONS for word in value.split(b","))
    if name == b"x-envoy-retry-grpc-on":
        return all(word.strip().decode("latin-1") in GRPC_RETRY_CONDITIONS for word in value.split(b","))
    return True


class Router:
    """One per connection manager. ``cluster_of`` finds a cluster by name; ``pool_of`` gives the pool of a host, or with a
    third argument that is true one that keeps connections apart by what they offer.

    ``local_ip`` is this machine's address, as mirrored requests tell it.
    """

    __slots__ = (
        "async_client_stats",
        "cluster_of",
        "local_ip",
        "pool_of",
        "render_body",
        "repeats_unprocessed",
        "respect_expected_timeout",
        "retry_budget_bytes",
        "stats",
        "strict_headers",
        "suppress_headers",
        "worker",
    )  # fmt: skip

    def __init__(
        self,
        worker: Worker,
        stats: Any,
        cluster_of: Callable[[str], Any],
        pool_of: Callable[..., Any],
        suppress_headers: bool = False,
        buffer_limit: int = 1 << 20,
        local_ip: bytes = b"127.0.0.1",
    ) -> None:
        self.worker = worker
        self.stats = stats
        self.cluster_of = cluster_of
        self.pool_of = pool_of
        self.suppress_headers = suppress_headers
        self.retry_budget_bytes = buffer_limit
        self.local_ip = local_ip
        self.async_client_stats: Any = None  # what is counted of the requests that are made here
        self.respect_expected_timeout = False
        self.repeats_unprocessed = True  # what no host has processed, without a retry policy
        self.strict_headers: tuple[bytes, ...] = ()
        self.render_body: Any = None  # (body_format, stream, status, body) -> (body, header fields)

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
        if self.strict_headers and not self._headers_valid(stream):
            return
        upstream = route.upstream_request(self, stream, route, cluster)
        stream.upstream = upstream
        upstream.start(request, end)

    def hedge(self, stream: Any, route: Any, cluster: Any, end: bool) -> None:
        """The request asks for hedging, and its route does not."""
        hedged: type[UpstreamRequest] = HedgedRequest if route.internal_redirects is None else RedirectedHedgedRequest
        if route.upstream_request.attentive:
            hedged = attentive(hedged)
        if route.upstream_request.observes:
            hedged = observed(hedged)
        if route.upstream_request.offering:
            from sidecar.router.offering_request import offering  # the route has it loaded

            hedged = offering(hedged)
        upstream = hedged(self, stream, route, cluster)
        stream.upstream = upstream
        upstream.start(stream.request, end)

    def _answer(self, stream: Any, route: Any) -> None:
        self.stats.rq_direct_response += 1  # redirects, too: Envoy's rq_redirect is no counter of theirs
        if route.kind == "redirect":
            status, location = route.redirect(stream.request, stream)
            headers: tuple[Field, ...] = ((b"location", location),)
            stream.reply(status, details="direct_response", headers=headers, mutate=route.mutate_response)
        else:
            status, body, body_format = route.direct_response
            request = stream.request
            headers = ()
            if status == 201 or 300 <= status < 400:  # where it is, as Envoy says it: RFC 9110 section 15.3.2
                headers = ((b"location", b"%b://%b%b" % (request.scheme, request.authority, request.path)),)
            if body_format is not None:
                body, added = self.render_body(body_format, stream, status, body)
                headers += added
            stream.reply(status, body, details="direct_response", headers=headers, mutate=route.mutate_response)

    def _headers_valid(self, stream: Any) -> bool:
        """Whether the ``x-envoy-*`` headers that must be right are right; answers 400 if not."""
        index = stream.request.index
        for name in self.strict_headers:
            value = index.get(name)
            if value is not None and not valid_control(name, value):
                stream.reply(
                    400,
                    b"invalid header '" + name + b"' with value '" + value + b"'",
                    details="request_headers_failed_strict_check{%s}" % name.decode(),
                    flags=flag.INVALID_ENVOY_REQUEST_HEADERS,
                )
                return False
        return True

    def __repr__(self) -> str:
        return "<Router>"
