"""Route configurations: `envoy.config.route.v3.RouteConfiguration`, virtual hosts and routes.

The objects that hang below a route are defined beside this module and are all to be had from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from sidecar.config.core_types import NO_METADATA, Metadata, parse_metadata
from sidecar.config.fields import Node
from sidecar.config.filters.cors import CorsPolicy, parse_cors_policy
from sidecar.config.hash_policy import HashCookie, HashHeader, HashPolicy, HashQueryParameter, HashSourceIp
from sidecar.config.header_mutations import NO_HEADER_MUTATIONS, HeaderMutations, parse_header_mutations
from sidecar.config.hedge_policy import parse_hedge_policy
from sidecar.config.http_filters import PerFilterConfig, parse_typed_per_filter_config
from sidecar.config.matcher import header_names
from sidecar.config.retry_policy import (
    PreviousHosts,
    RateLimitedRetryBackOff,
    ResetHeader,
    RetryBackOff,
    RetryHostPredicate,
    RetryPolicy,
    parse_retry_policy,
)
from sidecar.config.route_action import (
    Action,
    ClusterWeight,
    DirectResponseAction,
    Inherited,
    MaxStreamDuration,
    RedirectAction,
    RequestMirrorPolicy,
    RouteAction,
    UpgradeConfig,
    WeightedCluster,
    parse_action,
    parse_mirror_policies,
    parse_rate_limits,
)
from sidecar.config.route_match import PathSpecifier, RouteMatch, parse_route_match

if TYPE_CHECKING:
    from sidecar.config.rate_limit import RateLimit

__all__ = [
    "Action",
    "ClusterWeight",
    "CorsPolicy",
    "DirectResponseAction",
    "HashCookie",
    "HashHeader",
    "HashPolicy",
    "HashQueryParameter",
    "HashSourceIp",
    "HeaderMutations",
    "MaxStreamDuration",
    "PathSpecifier",
    "PerFilterConfig",
    "PreviousHosts",
    "RateLimitedRetryBackOff",
    "RedirectAction",
    "RequestMirrorPolicy",
    "ResetHeader",
    "RetryBackOff",
    "RetryHostPredicate",
    "RetryPolicy",
    "Route",
    "RouteAction",
    "RouteConfiguration",
    "RouteMatch",
    "UpgradeConfig",
    "VirtualHost",
    "WeightedCluster",
    "parse_route_configuration",
]

_DIRECT_RESPONSE_BODY_LIMIT = 4096
_REQUIRE_TLS: tuple[Literal["NONE", "EXTERNAL_ONLY", "ALL"], ...] = ("NONE", "EXTERNAL_ONLY", "ALL")


@dataclass(frozen=True, slots=True)
class Route:
    """What to do with the requests that `match` lets through."""

    match: RouteMatch
    action: Action
    name: str = ""
    metadata: Metadata = field(default_factory=lambda: NO_METADATA)
    header_mutations: HeaderMutations = NO_HEADER_MUTATIONS
    typed_per_filter_config: Mapping[str, PerFilterConfig] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VirtualHost:
    """The routes, in order, for hosts that fit one of `domains` (lower case; `*`, `*suffix`, `prefix*` or exact).

    `require_tls`: requests without TLS (from outside, or all) are redirected to it.
    Its retry policy, mirror policies and buffer limit stand in those of its routes that have none of their own.
    """

    name: str
    domains: tuple[bytes, ...]
    routes: tuple[Route, ...]
    metadata: Metadata = field(default_factory=lambda: NO_METADATA)
    header_mutations: HeaderMutations = NO_HEADER_MUTATIONS
    typed_per_filter_config: Mapping[str, PerFilterConfig] = field(default_factory=dict)
    include_request_attempt_count: bool = False
    include_attempt_count_in_response: bool = False
    include_is_timeout_retry_header: bool = False
    require_tls: Literal["NONE", "EXTERNAL_ONLY", "ALL"] = "NONE"
    cors: CorsPolicy | None = None
    rate_limits: tuple[RateLimit, ...] = ()


@dataclass(frozen=True, slots=True)
class RouteConfiguration:
    """All virtual hosts of a connection manager, with what holds for all of them.

    `internal_only_headers` are removed from requests that come from outside. Headers are changed at the levels weighted
    cluster, route, virtual host and this one in this order, or in the opposite one if
    `most_specific_header_mutations_wins`.
    """

    name: str
    virtual_hosts: tuple[VirtualHost, ...]
    internal_only_headers: tuple[bytes, ...] = ()
    header_mutations: HeaderMutations = NO_HEADER_MUTATIONS
    most_specific_header_mutations_wins: bool = False
    ignore_port_in_host_matching: bool = False
    ignore_path_parameters_in_path_matching: bool = False
    typed_per_filter_config: Mapping[str, PerFilterConfig] = field(default_factory=dict)


def parse_route_configuration(node: Node, *, validate_clusters: bool = True) -> RouteConfiguration:
    """`route.v3.RouteConfiguration`.

    `validate_clusters` says whether clusters must exist where the configuration does not say so itself: True for one
    that stands in a connection manager, False for one from RDS.
    """
    validate = node.wrapped("validate_clusters", validate_clusters)
    inherited = Inherited(
        validate,
        node.wrapped("max_direct_response_body_size_bytes", _DIRECT_RESPONSE_BODY_LIMIT),
        None,
        None,
        parse_mirror_policies(node, validate),
    )
    hosts = node.children("virtual_hosts")
    _refuse_duplicates(hosts)
    return RouteConfiguration(
        name=node.get("name"),
        virtual_hosts=tuple(_parse_virtual_host(host, inherited) for host in hosts),
        internal_only_headers=header_names(node.get("internal_only_headers")),
        header_mutations=parse_header_mutations(node),
        most_specific_header_mutations_wins=node.get("most_specific_header_mutations_wins"),
        ignore_port_in_host_matching=node.get("ignore_port_in_host_matching"),
        ignore_path_parameters_in_path_matching=node.get("ignore_path_parameters_in_path_matching"),
        typed_per_filter_config=parse_typed_per_filter_config(node),
    )


def _refuse_duplicates(hosts: list[Node]) -> None:
    names: set[str] = set()
    domains: dict[str, str] = {}
    for host in hosts:
        name = host.get("name")
        if name in names:
            host.refuse(f"another virtual host here is called {name!r} too", "name", "give each its own name")
        names.add(name)
        for domain in map(str.lower, host.get("domains")):
            if domain in domains:
                host.refuse(f"{domain!r} is a domain of {domains[domain]!r} already", "domains", "name it once only")
            domains.setdefault(domain, name)


def _parse_virtual_host(node: Node, inherited: Inherited) -> VirtualHost:
    retry = node.child("retry_policy")
    hedge = node.child("hedge_policy")
    cors = node.child("cors")
    inherited = replace(
        inherited,
        retry_policy=None if retry is None else parse_retry_policy(retry),
        hedge_policy=None if hedge is None else parse_hedge_policy(hedge),
        request_mirror_policies=parse_mirror_policies(node, inherited.validate_clusters)
        or inherited.request_mirror_policies,
    )
    return VirtualHost(
        name=node.get("name"),
        domains=tuple(domain.lower().encode() for domain in node.get("domains")),
        routes=tuple(_parse_route(route, inherited) for route in node.children("routes")),
        metadata=parse_metadata(node.child("metadata")),
        header_mutations=parse_header_mutations(node),
        typed_per_filter_config=parse_typed_per_filter_config(node),
        include_request_attempt_count=node.get("include_request_attempt_count"),
        include_attempt_count_in_response=node.get("include_attempt_count_in_response"),
        include_is_timeout_retry_header=node.get("include_is_timeout_retry_header"),
        require_tls=_REQUIRE_TLS[node.get("require_tls")],
        cors=None if cors is None else parse_cors_policy(cors),
        rate_limits=parse_rate_limits(node),
    )


def _parse_route(node: Node, inherited: Inherited) -> Route:
    node.ignore("decorator", "it names spans, and nothing is traced")
    match = node.child("match")
    return Route(
        match=RouteMatch("prefix", b"/") if match is None else parse_route_match(match),
        action=parse_action(node, inherited),
        name=node.get("name"),
        metadata=parse_metadata(node.child("metadata")),
        header_mutations=parse_header_mutations(node),
        typed_per_filter_config=parse_typed_per_filter_config(node),
    )
