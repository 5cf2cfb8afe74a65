"""A route as the hot path sees it: everything that was decided about a request by matching it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

from sidecar.core.head import RequestHead
from sidecar.core.header_changes import ChangeHead

if TYPE_CHECKING:
    from sidecar.config.core_types import SubstitutionFormatString
    from sidecar.config.filters.cors import CorsPolicy
    from sidecar.config.http_filters import PerFilterConfig
    from sidecar.config.rate_limit import RateLimit
    from sidecar.router.retry_policy import RetryPolicy

Mutate = Callable[[Any], None]
"""Changes one head of the stream that it is given: ``stream.request`` or ``stream.response``."""

Rewrite = Callable[[RequestHead, Any], None]
"""Changes path and host of a request; the stream is for formats."""


class PickCluster(Protocol):
    """Chooses among several clusters. Without the stream, a ``use_hash_policy`` leaves the choice to chance."""

    def __call__(self, request: RequestHead, random: Random, stream: Any = None, /) -> tuple[str, Route | None]:
        """The cluster's name, empty if there is none, and the weighted cluster's entry, which stands for the route."""
        ...


FORWARD = "forward"
REDIRECT = "redirect"
DIRECT_RESPONSE = "direct_response"


class Mirror:
    """A copy of the request that goes elsewhere: to ``cluster_name``, or to the one that ``cluster_header`` names.

    ``fraction`` is (numerator, denominator) of the requests, None for all. ``host`` replaces the host if not empty;
    otherwise ``-shadow`` is appended to it where ``append_shadow_suffix``. ``changes`` are made to the copy's head.
    """

    __slots__ = ("cluster_name", "cluster_header", "fraction", "append_shadow_suffix", "host", "changes")

    def __init__(
        self,
        cluster_name: str,
        cluster_header: bytes,
        fraction: tuple[int, int] | None,
        append_shadow_suffix: bool,
        host: bytes,
        changes: tuple[ChangeHead, ...] = (),
    ) -> None:
        self.cluster_name = cluster_name
        self.cluster_header = cluster_header
        self.fraction = fraction
        self.append_shadow_suffix = append_shadow_suffix
        self.host = host
        self.changes = changes

    def __repr__(self) -> str:
        return f"<Mirror {self.cluster_name or self.cluster_header!r}>"


class _Referable:
    """Filters remember what they have compiled for a route, for as long as there is one."""

    __slots__ = ("__weakref__",)


class Route(_Referable):
    """The decision. Nothing changes in it after compilation but the two chains, which the HTTP stage fills in.

    A weighted cluster's entry is a ``Route`` too: a copy of its route with the cluster's name, header mutations,
    metadata match, host rewrite and per-filter configuration merged in, so that whoever has picked one goes on with it
    in the route's stead. Times are in seconds.
    """

    __slots__ = (
        "name",
        "virtual_host_name",
        "metadata",
        "kind",  # FORWARD, REDIRECT or DIRECT_RESPONSE
        # where to
        "cluster_name",  # "" when pick_cluster has to be asked
        "pick_cluster",
        "weights",  # of the clusters that pick_cluster chooses from, by their names; for explaining
        "cluster_not_found_response_code",
        "metadata_match",
        "priority",
        "hash_key",
        "mirrors",
        # how long, and how often
        "timeout",
        "idle_timeout",
        "max_stream_duration",
        "grpc_timeout_header_max",
        "grpc_timeout_header_offset",
        "limits_streams",  # there is a max_stream_duration, be it without any field
        "max_grpc_timeout",
        "grpc_timeout_offset",
        "limit",
        "retry",
        "upstream_request",  # what carries a request upstream
        "internal_redirects",
        "include_request_attempt_count",
        "include_attempt_count_in_response",
        "include_is_timeout_retry_header",
        # what changes
        "mutate_request",
        "rewrite",
        "auto_host_rewrite",
        "append_x_forwarded_host",
        "mutate_response",
        # answers that are made here
        "redirect",
        "direct_response",
        # what streams and filters ask
        "upgrades",
        "connect_terminates",
        "cors",
        "per_filter",
        "per_filter_levels",
        "rate_limits",
        "vh_rate_limits",
        "include_vh_rate_limits",
        "internal_only_headers",
        "request_chain",
        "response_chain",
    )

    def __init__(self, name: str, virtual_host_name: str) -> None:
        self.name = name
        self.virtual_host_name = virtual_host_name
        self.metadata: dict[str, dict[str, Any]] | None = None
        self.kind = FORWARD
        self.cluster_name = ""
        self.pick_cluster: PickCluster | None = None
        self.weights: tuple[tuple[str, int], ...] = ()
        self.cluster_not_found_response_code = 503
        self.metadata_match: tuple[tuple[str, str], ...] | None = None
        self.priority = 0
        self.hash_key: Callable[[Any], int | None] | None = None
        self.mirrors: tuple[Mirror, ...] = ()
        self.timeout: float | None = 15.0
        self.idle_timeout: float | None = None
        self.max_stream_duration: float | None = None
        self.grpc_timeout_header_max: float | None = None
        self.grpc_timeout_header_offset: float | None = None
        self.limits_streams = False
        self.max_grpc_timeout: float | None = None
        self.grpc_timeout_offset: float | None = None
        self.limit: Mutate | None = None  # sets the stream's deadlines, where the route has its own
        self.retry: RetryPolicy | None = None
        self.upstream_request: Any = None
        self.internal_redirects: Any = None
        self.include_request_attempt_count = False
        self.include_attempt_count_in_response = False
        self.include_is_timeout_retry_header = False
        self.mutate_request: Mutate | None = None
        self.rewrite: Rewrite | None = None
        self.auto_host_rewrite = False
        self.append_x_forwarded_host = False
        self.mutate_response: Mutate | None = None
        self.redirect: Callable[[RequestHead, Any], tuple[int, bytes]] | None = None
        self.direct_response: tuple[int, bytes, SubstitutionFormatString | None] | None = None
        self.upgrades: Mapping[bytes, bool] = {}
        self.connect_terminates = False
        self.cors: CorsPolicy | None = None
        self.per_filter: Mapping[str, PerFilterConfig] = {}
        self.per_filter_levels: Mapping[str, tuple[PerFilterConfig, ...]] = {}
        self.rate_limits: tuple[RateLimit, ...] = ()
        self.vh_rate_limits: tuple[RateLimit, ...] = ()
        self.include_vh_rate_limits = False
        self.internal_only_headers: tuple[bytes, ...] = ()
        self.request_chain: Any = None
        self.response_chain: Any = None

    def copy(self) -> Route:
        """An independent copy, for a weighted cluster's entry."""
        route = Route(self.name, self.virtual_host_name)
        for slot in Route.__slots__:
            setattr(route, slot, getattr(self, slot))
        return route

    def __repr__(self) -> str:
        target = f" to {self.cluster_name}" if self.cluster_name else ""
        return f"<Route {self.name or '(unnamed)'} of {self.virtual_host_name}: {self.kind}{target}>"
