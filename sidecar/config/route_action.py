"""What a route does with a request: forward it, redirect it, or answer it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from sidecar.config.core_types import (
    Fraction,
    SubstitutionFormatString,
    parse_data_source,
    parse_metadata,
    parse_substitution_format,
    seconds,
)
from sidecar.config.fields import Node
from sidecar.config.filters.cors import CorsPolicy, parse_cors_policy
from sidecar.config.filters.header_mutation import HeaderChange, parse_header_changes
from sidecar.config.hash_policy import HashPolicy, parse_hash_policies
from sidecar.config.header_mutations import NO_HEADER_MUTATIONS, HeaderMutations, parse_header_mutations
from sidecar.config.hedge_policy import HedgePolicy, parse_hedge_policy
from sidecar.config.http_filters import PerFilterConfig, parse_typed_per_filter_config
from sidecar.config.internal_redirect import InternalRedirectPolicy, parse_internal_redirect_policy
from sidecar.config.matcher import RegexMatchAndSubstitute, header_name, parse_regex_rewrite
from sidecar.config.retry_policy import RetryPolicy, parse_retry_policy

if TYPE_CHECKING:
    from sidecar.config.rate_limit import RateLimit

_REDIRECT_CODES = {
    "MOVED_PERMANENTLY": 301,
    "FOUND": 302,
    "SEE_OTHER": 303,
    "TEMPORARY_REDIRECT": 307,
    "PERMANENT_REDIRECT": 308,
}
_CLUSTER_NOT_FOUND_CODES = {"SERVICE_UNAVAILABLE": 503, "NOT_FOUND": 404, "INTERNAL_SERVER_ERROR": 500}


@dataclass(frozen=True, slots=True)
class ClusterWeight:
    """One of several clusters. Either `name` is not empty, or `cluster_header` names the header that says it."""

    name: str
    cluster_header: bytes
    weight: int
    metadata_match: Mapping[str, Any] = field(default_factory=dict)
    host_rewrite_literal: bytes = b""
    header_mutations: HeaderMutations = NO_HEADER_MUTATIONS
    typed_per_filter_config: Mapping[str, PerFilterConfig] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WeightedCluster:
    """One of `clusters` is drawn in proportion to the weights, whose sum is `total_weight`.

    The number drawn comes from the request header `header_name` if that is not empty and the header holds one, from the
    route's hash policy if `use_hash_policy` and it yields a hash, and is random otherwise.
    """

    clusters: tuple[ClusterWeight, ...]
    total_weight: int
    header_name: bytes = b""
    use_hash_policy: bool = False


@dataclass(frozen=True, slots=True)
class RequestMirrorPolicy:
    """Send a copy to `cluster`, or to the one that the header `cluster_header` names, and drop what it answers.

    `runtime_fraction` is the share of requests, None for all. `-shadow` is appended to the copy's host unless
    `disable_shadow_host_suffix_append`; `host_rewrite_literal`, if not empty, replaces the host.
    `request_headers_mutations` change the copy.
    """

    cluster: str
    cluster_header: bytes
    runtime_fraction: Fraction | None
    disable_shadow_host_suffix_append: bool
    host_rewrite_literal: bytes
    request_headers_mutations: tuple[HeaderChange, ...] = ()


@dataclass(frozen=True, slots=True)
class UpgradeConfig:
    """Whether requests for `upgrade_type` (lower case) may pass; overrides what the connection manager says.

    `connect_config`: a CONNECT request ends here, and its payload goes to the upstream as plain TCP.
    """

    upgrade_type: str
    enabled: bool
    connect_config: bool


@dataclass(frozen=True, slots=True)
class MaxStreamDuration:
    """Seconds, None for what is not set; 0 means no limit.

    For requests that send a `grpc-timeout`, that timeout counts if `grpc_timeout_header_max` is set: at most
    `grpc_timeout_header_max` unless that is 0, and less `grpc_timeout_header_offset`.
    """

    max_stream_duration: float | None
    grpc_timeout_header_max: float | None
    grpc_timeout_header_offset: float | None


@dataclass(frozen=True, slots=True)
class RouteAction:
    """Forward the request. Exactly one of `cluster`, `cluster_header` and `weighted_clusters` is set.

    Times are in seconds. `timeout` 0 is none at all. `idle_timeout` None leaves the connection manager's stream idle
    timeout, 0 switches it off. `metadata_match` is what the `envoy.lb` metadata of a host must hold. At most one of the
    path rewrites and one of the host rewrites is set; `host_rewrite` is a format string. The retry policy, the hedge
    policy and the mirror policies are those of the level above where the route has none of its own.

    A `max_stream_duration`, with or without fields, takes the place of `timeout`, `max_grpc_timeout` and
    `grpc_timeout_offset`. Without one, `max_grpc_timeout` makes the `grpc-timeout` of gRPC requests their timeout: less
    `grpc_timeout_offset`, if something remains, and at most `max_grpc_timeout` unless that is 0.
    """

    cluster: str = ""
    cluster_header: bytes = b""
    weighted_clusters: WeightedCluster | None = None
    cluster_not_found_response_code: int = 503
    metadata_match: Mapping[str, Any] = field(default_factory=dict)
    prefix_rewrite: bytes = b""
    regex_rewrite: RegexMatchAndSubstitute | None = None
    host_rewrite_literal: bytes = b""
    auto_host_rewrite: bool = False
    host_rewrite_header: bytes = b""
    host_rewrite_path_regex: RegexMatchAndSubstitute | None = None
    host_rewrite: str = ""
    append_x_forwarded_host: bool = False
    timeout: float = 15.0
    idle_timeout: float | None = None
    max_stream_duration: MaxStreamDuration | None = None
    max_grpc_timeout: float | None = None
    grpc_timeout_offset: float | None = None
    retry_policy: RetryPolicy | None = None
    hedge_policy: HedgePolicy | None = None
    internal_redirect_policy: InternalRedirectPolicy | None = None
    request_mirror_policies: tuple[RequestMirrorPolicy, ...] = ()
    priority: Literal["DEFAULT", "HIGH"] = "DEFAULT"
    hash_policy: tuple[HashPolicy, ...] = ()
    upgrade_configs: tuple[UpgradeConfig, ...] = ()
    cors: CorsPolicy | None = None
    rate_limits: tuple[RateLimit, ...] = ()
    include_vh_rate_limits: bool = False


@dataclass(frozen=True, slots=True)
class RedirectAction:
    """Answer with `response_code` and a `location`. What is empty, 0 or None is taken from the request.

    `scheme_redirect` is `https` for `https_redirect`. At most one of `path_redirect`, `prefix_rewrite` and
    `regex_rewrite` is set; a `path_redirect` with a query of its own replaces the request's query too.
    """

    scheme_redirect: bytes = b""
    host_redirect: bytes = b""
    port_redirect: int = 0
    path_redirect: bytes = b""
    prefix_rewrite: bytes = b""
    regex_rewrite: RegexMatchAndSubstitute | None = None
    response_code: int = 301
    strip_query: bool = False


@dataclass(frozen=True, slots=True)
class DirectResponseAction:
    """Answer with `status` and `body`; `body_format`, if any, renders the body."""

    status: int
    body: bytes = b""
    body_format: SubstitutionFormatString | None = None


Action: TypeAlias = RouteAction | RedirectAction | DirectResponseAction


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a route takes from the levels above it, and what they say about checking it."""

    validate_clusters: bool
    max_direct_response_body_size_bytes: int
    retry_policy: RetryPolicy | None = None
    hedge_policy: HedgePolicy | None = None
    request_mirror_policies: tuple[RequestMirrorPolicy, ...] = ()


def parse_rate_limits(node: Node) -> tuple[RateLimit, ...]:
    """The `rate_limits` of a route action or a virtual host: what reads them is loaded where there are some."""
    children = node.children("rate_limits")
    if not children:
        return ()
    from sidecar.config.rate_limit import parse_rate_limit

    return tuple(map(parse_rate_limit, children))


def parse_action(node: Node, inherited: Inherited) -> Action:
    """The action of the `route.v3.Route` in `node`."""
    match node.which("action"):
        case "route":
            inner = node.child("route")
            return RouteAction() if inner is None else _parse_route_action(inner, inherited)
        case "redirect":
            inner = node.child("redirect")
            return RedirectAction() if inner is None else _parse_redirect(inner)
        case "direct_response":
            inner = node.child("direct_response")
            limit = inherited.max_direct_response_body_size_bytes
            return DirectResponseAction(500) if inner is None else _parse_direct_response(inner, limit)
        case _:
            return DirectResponseAction(500)


def _parse_route_action(node: Node, inherited: Inherited) -> RouteAction:
    if node.get("prefix_rewrite") and node.has("regex_rewrite"):
        node.refuse("is set together with prefix_rewrite", "regex_rewrite", "keep one of them")
    metadata_match = parse_lb_metadata(node, "metadata_match")
    weighted = node.child("weighted_clusters")
    cluster = node.get("cluster")
    if cluster:
        _reference(node, "cluster", cluster, inherited)
    duration = node.child("max_stream_duration")
    retry = node.child("retry_policy")
    hedge = node.child("hedge_policy")
    internal_redirect = node.child("internal_redirect_policy")
    regex_rewrite = node.child("regex_rewrite")
    host_regex = node.child("host_rewrite_path_regex")
    cors = node.child("cors")
    return RouteAction(
        cluster=cluster,
        cluster_header=header_name(node.get("cluster_header")),
        weighted_clusters=None if weighted is None else _parse_weighted(weighted, metadata_match, inherited),
        cluster_not_found_response_code=_CLUSTER_NOT_FOUND_CODES.get(node.enum("cluster_not_found_response_code"), 503),
        metadata_match=metadata_match,
        prefix_rewrite=node.get("prefix_rewrite").encode(),
        regex_rewrite=None if regex_rewrite is None else parse_regex_rewrite(regex_rewrite),
        host_rewrite_literal=node.get("host_rewrite_literal").encode(),
        auto_host_rewrite=node.wrapped("auto_host_rewrite", False),
        host_rewrite_header=header_name(node.get("host_rewrite_header")),
        host_rewrite_path_regex=None if host_regex is None else parse_regex_rewrite(host_regex),
        host_rewrite=node.format("host_rewrite"),
        append_x_forwarded_host=node.get("append_x_forwarded_host"),
        timeout=seconds(node, "timeout", 15.0),
        idle_timeout=node.duration("idle_timeout"),
        max_grpc_timeout=node.duration("max_grpc_timeout"),
        grpc_timeout_offset=node.duration("grpc_timeout_offset"),
        max_stream_duration=None if duration is None else _parse_max_stream_duration(duration),
        retry_policy=inherited.retry_policy if retry is None else parse_retry_policy(retry),
        hedge_policy=inherited.hedge_policy if hedge is None else parse_hedge_policy(hedge),
        internal_redirect_policy=(
            None if internal_redirect is None else parse_internal_redirect_policy(internal_redirect)
        ),
        request_mirror_policies=parse_mirror_policies(node, inherited.validate_clusters)
        or inherited.request_mirror_policies,
        priority="HIGH" if node.enum("priority") == "HIGH" else "DEFAULT",
        hash_policy=parse_hash_policies(node.children("hash_policy")),
        upgrade_configs=_parse_upgrades(node),
        cors=None if cors is None else parse_cors_policy(cors),
        rate_limits=parse_rate_limits(node),
        include_vh_rate_limits=node.wrapped("include_vh_rate_limits", False),
    )


def parse_lb_metadata(node: Node, name: str) -> Mapping[str, Any]:
    """The `envoy.lb` part of a `core.v3.Metadata`, the only one that load balancing looks at."""
    metadata = parse_metadata(node.child(name))
    for other in sorted(metadata.keys() - {"envoy.lb"}):
        node.context.warn(node.path_of(name), f"{other!r} is ignored: hosts are chosen by envoy.lb only")
    return metadata.get("envoy.lb", {})


def _reference(node: Node, name: str, cluster: str, inherited: Inherited) -> None:
    if inherited.validate_clusters:
        node.context.reference("cluster", cluster, node, name)


def _parse_weighted(node: Node, metadata_match: Mapping[str, Any], inherited: Inherited) -> WeightedCluster:
    node.ignore("total_weight", "the sum of the weights counts, as in Envoy")
    prefix = node.get("runtime_key_prefix")
    clusters = tuple(_parse_weight(child, metadata_match, inherited, prefix) for child in node.children("clusters"))
    total = sum(cluster.weight for cluster in clusters)
    if not 0 < total <= 0xFFFFFFFF:
        node.refuse(f"has weights that sum up to {total}", "clusters", "let them sum up to 1 to 4294967295")
    return WeightedCluster(
        clusters, total, header_name(node.get("header_name")), node.wrapped("use_hash_policy", False)
    )


def _parse_weight(
    node: Node, metadata_match: Mapping[str, Any], inherited: Inherited, runtime_key_prefix: str
) -> ClusterWeight:
    name, header = node.get("name"), node.get("cluster_header")
    _refuse_unless_one_cluster(node, name, header, "name")
    if name:
        _reference(node, "name", name, inherited)
    weight = node.wrapped("weight", None)
    if weight is None:
        node.refuse("is required", "weight", "set it")
    if runtime_key_prefix:
        now = node.context.runtime.integer(f"{runtime_key_prefix}.{name}")
        weight = weight if now is None else now
    return ClusterWeight(
        name,
        header_name(header),
        weight or 0,
        {**metadata_match, **parse_lb_metadata(node, "metadata_match")},
        node.get("host_rewrite_literal").encode(),
        parse_header_mutations(node),
        parse_typed_per_filter_config(node),
    )


def _refuse_unless_one_cluster(node: Node, name: str, header: str, field_name: str) -> None:
    if bool(name) == bool(header):
        node.refuse(f"needs {field_name} or cluster_header, and not both", do="set one of them")


def parse_mirror_policies(node: Node, validate_clusters: bool) -> tuple[RequestMirrorPolicy, ...]:
    """The `request_mirror_policies` of `node`."""
    policies = []
    for child in node.children("request_mirror_policies"):
        cluster, header = child.get("cluster"), child.get("cluster_header")
        _refuse_unless_one_cluster(child, cluster, header, "cluster")
        if cluster and validate_clusters:
            child.context.reference("cluster", cluster, child, "cluster")
        child.ignore("trace_sampled", "nothing is traced")
        policies.append(
            RequestMirrorPolicy(
                cluster,
                header_name(header),
                child.runtime_fraction("runtime_fraction"),
                child.get("disable_shadow_host_suffix_append"),
                child.get("host_rewrite_literal").encode(),
                parse_header_changes(child.children("request_headers_mutations")),
            )
        )
    return tuple(policies)


def _parse_upgrades(node: Node) -> tuple[UpgradeConfig, ...]:
    upgrades: dict[str, UpgradeConfig] = {}
    for child in node.children("upgrade_configs"):
        upgrade_type = child.get("upgrade_type").lower()
        if upgrade_type in upgrades:
            child.refuse(f"{upgrade_type!r} is there twice", "upgrade_type", "remove one of them")
        connect = child.child("connect_config") is not None
        if connect and upgrade_type != "connect":
            child.refuse("belongs to the upgrade type CONNECT only", "connect_config", "remove it")
        upgrades[upgrade_type] = UpgradeConfig(upgrade_type, child.wrapped("enabled", True), connect)
    return tuple(upgrades.values())


def _parse_max_stream_duration(node: Node) -> MaxStreamDuration:
    return MaxStreamDuration(
        node.duration("max_stream_duration"),
        node.duration("grpc_timeout_header_max"),
        node.duration("grpc_timeout_header_offset"),
    )


def _parse_redirect(node: Node) -> RedirectAction:
    scheme = b"https" if node.get("https_redirect") else node.get("scheme_redirect").lower().encode()
    regex_rewrite = node.child("regex_rewrite")
    return RedirectAction(
        scheme,
        node.get("host_redirect").encode(),
        node.get("port_redirect"),
        node.get("path_redirect").encode(),
        node.get("prefix_rewrite").encode(),
        None if regex_rewrite is None else parse_regex_rewrite(regex_rewrite),
        _REDIRECT_CODES.get(node.enum("response_code"), 301),
        node.get("strip_query"),
    )


def _parse_direct_response(node: Node, limit: int) -> DirectResponseAction:
    source = node.child("body")
    body = b"" if source is None else parse_data_source(source)
    if len(body) > limit:
        node.refuse(
            f"has {len(body)} bytes, and {limit} are the most",
            "body",
            "shorten it, or raise max_direct_response_body_size_bytes of the route configuration",
        )
    body_format = node.child("body_format")
    return DirectResponseAction(
        node.get("status"), body, None if body_format is None else parse_substitution_format(body_format)
    )
