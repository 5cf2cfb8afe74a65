"""From a configured route, with what its virtual host and route configuration say, to a ``Route``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from sidecar.config.header_mutations import HeaderMutations
from sidecar.config.http_filters import PerFilterConfig
from sidecar.config.retry_policy import RetryPolicy as RetryPolicyConfig
from sidecar.config.route import Route as RouteConfig
from sidecar.config.route import RouteConfiguration, VirtualHost
from sidecar.config.route_action import (
    ClusterWeight,
    DirectResponseAction,
    RedirectAction,
    RequestMirrorPolicy,
    RouteAction,
)
from sidecar.core.head import Head, RequestHead
from sidecar.core.header_changes import compile_header_changes
from sidecar.core.matching import canonical
from sidecar.router.hash_policy import compile_hash_policies, makes_cookies, send_cookies
from sidecar.router.header_mutation import CompileFormat, MutateHead, compile_header_mutations, on_request, on_response
from sidecar.router.hedging import HedgedRequest
from sidecar.router.internal_redirect import InternalRedirects, RedirectedHedgedRequest, RedirectedRequest
from sidecar.router.redirect import compile_redirect, redirect_to_tls
from sidecar.router.retry_policy import RetryPolicy
from sidecar.router.rewrite import compile_rewrite
from sidecar.router.route import DIRECT_RESPONSE, REDIRECT, Mirror, Route
from sidecar.router.timeouts import limit_stream
from sidecar.router.upstream_request import UpstreamRequest
from sidecar.router.weighted_clusters import named_by_header, weighted

Levels = tuple[MutateHead | None, ...]
"""Header mutations in the order in which they apply."""


class RouteCompiler:
    """Compiles the routes of one route configuration; what several routes share is compiled once.

    ``keep_original`` is False where the router suppresses Envoy's headers.
    """

    def __init__(self, configuration: RouteConfiguration, compile_format: CompileFormat, keep_original: bool) -> None:
        self._configuration = configuration
        self._compile_format = compile_format
        self._keep_original = keep_original
        self.entries: list[Route] = []
        """The weighted clusters' entries of all routes compiled so far."""
        self._configuration_levels = self._mutations(configuration.header_mutations)

    def _mutations(self, mutations: HeaderMutations) -> tuple[MutateHead | None, MutateHead | None]:
        compile_format = self._compile_format
        return (
            compile_header_mutations(
                mutations.request_headers_to_add, mutations.request_headers_to_remove, compile_format
            ),
            compile_header_mutations(
                mutations.response_headers_to_add, mutations.response_headers_to_remove, compile_format
            ),
        )

    def _levels(self, host: VirtualHost, route: HeaderMutations | None) -> tuple[Levels, Levels]:
        """The mutations of request and response: what is applied last wins."""
        levels = [self._configuration_levels, self._mutations(host.header_mutations)]
        if route is not None:
            levels.append(self._mutations(route))
        if not self._configuration.most_specific_header_mutations_wins:
            levels.reverse()
        return tuple(request for request, _ in levels), tuple(response for _, response in levels)

    def tls_redirect(self, host: VirtualHost) -> Route:
        """The route that a virtual host with ``require_tls`` takes for plain requests; it changes no headers."""
        route = Route("", host.name)
        route.kind = REDIRECT
        route.redirect = redirect_to_tls
        return route

    def compile(self, host: VirtualHost, config: RouteConfig) -> Route:
        """One route. Raises ValueError for a format string that is wrong."""
        route = Route(config.name, host.name)
        route.metadata = config.metadata or None
        route.include_request_attempt_count = host.include_request_attempt_count
        route.include_attempt_count_in_response = host.include_attempt_count_in_response
        route.include_is_timeout_retry_header = host.include_is_timeout_retry_header
        route.internal_only_headers = self._configuration.internal_only_headers
        route.cors = host.cors
        route.vh_rate_limits = host.rate_limits
        request_levels, response_levels = self._levels(host, config.header_mutations)
        if isinstance(config.action, RouteAction) and makes_cookies(config.action.hash_policy):
            response_levels = (*response_levels, send_cookies)
        route.mutate_request = on_request(request_levels)
        route.mutate_response = on_response(response_levels)
        filters = (
            self._configuration.typed_per_filter_config,
            host.typed_per_filter_config,
            config.typed_per_filter_config,
        )
        _set_per_filter(route, filters)
        match config.action:
            case RedirectAction() as action:
                route.kind = REDIRECT
                route.redirect = compile_redirect(config.match, action, self._keep_original)
            case DirectResponseAction() as action:
                route.kind = DIRECT_RESPONSE
                route.direct_response = (action.status, action.body, action.body_format)
            case RouteAction() as action:
                self._forward(route, config, action)
                self._choose_cluster(route, action, request_levels, response_levels, filters)
        return route

    def _forward(self, route: Route, config: RouteConfig, action: RouteAction) -> None:
        route.cluster_not_found_response_code = action.cluster_not_found_response_code
        route.metadata_match = canonical_subset(action.metadata_match)
        route.priority = 1 if action.priority == "HIGH" else 0
        route.hash_key = compile_hash_policies(action.hash_policy)
        route.mirrors = tuple(map(self._mirror, action.request_mirror_policies))
        route.timeout = action.timeout or None
        route.idle_timeout = action.idle_timeout
        if action.max_stream_duration is None:
            route.max_grpc_timeout = action.max_grpc_timeout
            route.grpc_timeout_offset = action.grpc_timeout_offset
        else:
            route.limits_streams = True
            route.timeout = None  # as in Envoy: the limit of the whole stream takes its place
            route.max_stream_duration = action.max_stream_duration.max_stream_duration
            route.grpc_timeout_header_max = action.max_stream_duration.grpc_timeout_header_max
            route.grpc_timeout_header_offset = action.max_stream_duration.grpc_timeout_header_offset
        if route.idle_timeout is not None or route.limits_streams or route.max_grpc_timeout is not None:
            route.limit = partial(limit_stream, route)
        hedges = action.hedge_policy is not None and action.hedge_policy.hedge_on_per_try_timeout
        redirects = action.internal_redirect_policy
        if action.retry_policy is not None or hedges or redirects is not None:
            config_of_retries = action.retry_policy or RetryPolicyConfig(frozenset())
            route.retry = RetryPolicy(config_of_retries, hedges, always=redirects is not None)
        route.upstream_request = HedgedRequest if hedges else UpstreamRequest
        if redirects is not None:
            route.internal_redirects = InternalRedirects(redirects)
            route.upstream_request = RedirectedHedgedRequest if hedges else RedirectedRequest
        route.rewrite = compile_rewrite(config.match, action, self._compile_format, self._keep_original)
        route.auto_host_rewrite = action.auto_host_rewrite
        route.append_x_forwarded_host = action.append_x_forwarded_host
        route.upgrades = {upgrade.upgrade_type.encode(): upgrade.enabled for upgrade in action.upgrade_configs}
        route.connect_terminates = any(upgrade.connect_config for upgrade in action.upgrade_configs)
        route.cors = action.cors or route.cors
        route.rate_limits = action.rate_limits
        route.include_vh_rate_limits = action.include_vh_rate_limits

    def _mirror(self, policy: RequestMirrorPolicy) -> Mirror:
        return Mirror(
            policy.cluster,
            policy.cluster_header,
            policy.runtime_fraction,
            not policy.disable_shadow_host_suffix_append,
            policy.host_rewrite_literal,
            compile_header_changes(
                policy.request_headers_mutations,
                lambda option: compile_header_mutations((option,), (), self._compile_format),
            ),
        )

    def _choose_cluster(
        self,
        route: Route,
        action: RouteAction,
        request_levels: Levels,
        response_levels: Levels,
        filters: tuple[Mapping[str, PerFilterConfig], ...],
    ) -> None:
        if action.weighted_clusters is not None:
            entries = [
                self._entry(route, cluster, request_levels, response_levels, filters)
                for cluster in action.weighted_clusters.clusters
            ]
            self.entries += entries
            hash_key = compile_hash_policies(action.hash_policy, make_cookies=False)
            route.pick_cluster = weighted(action.weighted_clusters, entries, hash_key)
            route.weights = tuple(
                (cluster.name or f"the one that {cluster.cluster_header.decode('latin-1')} names", cluster.weight)
                for cluster in action.weighted_clusters.clusters
            )
        elif action.cluster_header:
            route.pick_cluster = named_by_header(action.cluster_header)
        else:
            route.cluster_name = action.cluster

    def _entry(
        self,
        route: Route,
        cluster: ClusterWeight,
        request_levels: Levels,
        response_levels: Levels,
        filters: tuple[Mapping[str, PerFilterConfig], ...],
    ) -> Route:
        entry = route.copy()
        entry.cluster_name = cluster.name
        entry.metadata_match = canonical_subset(cluster.metadata_match)
        on_its_request, on_its_response = self._mutations(cluster.header_mutations)
        host = _set_authority(cluster.host_rewrite_literal) if cluster.host_rewrite_literal else None
        entry.mutate_request = on_request((on_its_request, host, *request_levels))
        entry.mutate_response = on_response((on_its_response, *response_levels))
        if cluster.typed_per_filter_config:
            _set_per_filter(entry, (*filters, cluster.typed_per_filter_config))
        return entry


def _set_authority(host: bytes) -> MutateHead:
    def set_authority(head: Head, stream: Any) -> None:
        assert isinstance(head, RequestHead)
        head.authority = host

    return set_authority


def _set_per_filter(route: Route, levels: Iterable[Mapping[str, PerFilterConfig]]) -> None:
    nearest: dict[str, PerFilterConfig] = {}
    every: dict[str, tuple[PerFilterConfig, ...]] = {}
    for level in levels:
        for name, config in level.items():
            nearest[name] = config
            every[name] = (*every.get(name, ()), config)
    route.per_filter = nearest
    route.per_filter_levels = every


def canonical_subset(metadata: Mapping[str, Any]) -> tuple[tuple[str, str], ...] | None:
    """A subset of hosts as (key, canonical value) in the order of the keys; None for no condition."""
    return tuple((key, canonical(metadata[key])) for key in sorted(metadata)) or None
