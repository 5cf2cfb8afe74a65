"""Asking an authorization service about requests: `extensions.filters.http.ext_authz.v3.ExtAuthz`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from sidecar.config.core_types import Fraction, HeaderValueOption
from sidecar.config.fields import Node
from sidecar.config.grpc_service import GrpcService, parse_grpc_service
from sidecar.config.matcher import (
    MetadataMatcher,
    StringMatcher,
    header_name,
    parse_metadata_matcher,
    parse_string_matcher,
)
from sidecar.config.mutation_rules import MutationRules, parse_mutation_rules
from sidecar.config.retry_policy import RetryPolicy, parse_core_retry_policy

TYPE = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
TYPE_PER_ROUTE = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"

Patterns: TypeAlias = tuple[StringMatcher, ...]
"""A `ListStringMatcher`: one of them must match the name of a header."""

TIMEOUT: Final = 0.2
FORBIDDEN: Final = 403


@dataclass(frozen=True, slots=True)
class BufferSettings:
    """Send the first `max_request_bytes` bytes of the body along. A longer one gets 413 unless `allow_partial_message`.

    `pack_as_bytes` sends it as it is; otherwise octets that are no UTF-8 are replaced.
    """

    max_request_bytes: int
    allow_partial_message: bool = False
    pack_as_bytes: bool = False


@dataclass(frozen=True, slots=True)
class GrpcAuthorization:
    """Ask by `envoy.service.auth.v3.Authorization/Check`. `timeout` is in seconds, 0 for none."""

    service: GrpcService
    timeout: float = TIMEOUT


@dataclass(frozen=True, slots=True)
class HttpAuthorization:
    """Ask by a request like the one that is asked about, whose path gets `path_prefix` in front.

    200 lets the request pass, 5xx is a failure, everything else is the answer for the client. `timeout` is in seconds, 0 for
    none. `allowed_headers` is the older place of the filter's own field (None: not set). Of the service's answer go to
    the upstream the headers in `allowed_upstream_headers` (in place of the request's) and
    `allowed_upstream_headers_to_append`, to the client those in `allowed_client_headers` with a refusal (empty: all) and those
    in `allowed_client_headers_on_success`, into the metadata those in `dynamic_metadata_from_headers`.
    """

    cluster_name: str
    timeout: float = TIMEOUT
    path_prefix: str = ""
    allowed_headers: Patterns | None = None
    headers_to_add: tuple[HeaderValueOption, ...] = ()
    allowed_upstream_headers: Patterns = ()
    allowed_upstream_headers_to_append: Patterns = ()
    allowed_client_headers: Patterns = ()
    allowed_client_headers_on_success: Patterns = ()
    dynamic_metadata_from_headers: Patterns = ()
    retry_policy: RetryPolicy | None = None


Authorization: TypeAlias = GrpcAuthorization | HttpAuthorization


@dataclass(frozen=True, slots=True)
class ExtAuthz:
    """Ask `service` whether a request may pass. Without an answer it gets `status_on_error`, unless `failure_mode_allow`.

    `filter_enabled` is the share of requests that are asked about, `filter_enabled_metadata` a condition on their dynamic
    metadata (None: none); both must hold. The others pass, or get `status_on_error` for `deny_at_disable`.

    `allowed_headers` are those that the service sees (None: all), but for `disallowed_headers`. The labels of this sidecar
    stand in its node's metadata under `bootstrap_metadata_labels_key`. `max_denied_response_body_bytes` cuts the body of a
    refusal, 0 does not.
    """

    service: Authorization
    failure_mode_allow: bool = False
    failure_mode_allow_header_add: bool = False
    with_request_body: BufferSettings | None = None
    clear_route_cache: bool = False
    status_on_error: int = FORBIDDEN
    validate_mutations: bool = False
    metadata_context_namespaces: tuple[str, ...] = ()
    route_metadata_context_namespaces: tuple[str, ...] = ()
    filter_enabled: Fraction | None = None
    filter_enabled_metadata: MetadataMatcher | None = None
    deny_at_disable: bool = False
    include_peer_certificate: bool = False
    include_tls_session: bool = False
    stat_prefix: str = ""
    bootstrap_metadata_labels_key: str = ""
    allowed_headers: Patterns | None = None
    disallowed_headers: Patterns = ()
    charge_cluster_response_stats: bool = True
    encode_raw_headers: bool = False
    decoder_header_mutation_rules: MutationRules | None = None
    enable_dynamic_metadata_ingestion: bool = True
    max_denied_response_body_bytes: int = 0
    enforce_response_header_limits: bool = False


@dataclass(frozen=True, slots=True)
class ExtAuthzPerRoute:
    """What a route or virtual host says: not to ask, or what else to tell, or whom to ask (None: the filter's service).

    `with_request_body` takes the place of the filter's, unless it is None; `disable_request_body_buffering` sends no body.
    """

    disabled: bool = False
    context_extensions: Mapping[str, str] = field(default_factory=dict)
    disable_request_body_buffering: bool = False
    with_request_body: BufferSettings | None = None
    service: Authorization | None = None


def parse_ext_authz(node: Node) -> ExtAuthz:
    """`ExtAuthz` in the filter chain."""
    if node.enum("transport_api_version") == "V2":
        node.refuse("names a version that is no more", "transport_api_version", "set it to V3")
    status = node.child("status_on_error")
    code = 0 if status is None else status.get("code")
    service = _parse_service(node)
    if service is None:
        node.refuse("needs a service to ask", do="set grpc_service or http_service")
    allowed = parse_patterns(node, "allowed_headers")
    if allowed is not None and isinstance(service, HttpAuthorization) and service.allowed_headers is not None:
        node.refuse("is set here and in authorization_request", "allowed_headers", "keep this one")
    rules = node.child("decoder_header_mutation_rules")
    matcher = node.child("filter_enabled_metadata")
    return ExtAuthz(
        service or HttpAuthorization(""),
        failure_mode_allow=node.get("failure_mode_allow"),
        failure_mode_allow_header_add=node.get("failure_mode_allow_header_add"),
        with_request_body=_parse_buffer(node.child("with_request_body")),
        clear_route_cache=node.get("clear_route_cache"),
        status_on_error=code or FORBIDDEN,
        validate_mutations=node.get("validate_mutations"),
        metadata_context_namespaces=node.get("metadata_context_namespaces"),
        route_metadata_context_namespaces=node.get("route_metadata_context_namespaces"),
        filter_enabled=node.runtime_fraction("filter_enabled"),
        filter_enabled_metadata=None if matcher is None else parse_metadata_matcher(matcher),
        deny_at_disable=bool(node.runtime_value("deny_at_disable", False)),
        include_peer_certificate=node.get("include_peer_certificate"),
        include_tls_session=node.get("include_tls_session"),
        stat_prefix=node.get("stat_prefix"),
        bootstrap_metadata_labels_key=node.get("bootstrap_metadata_labels_key"),
        allowed_headers=allowed,
        disallowed_headers=parse_patterns(node, "disallowed_headers") or (),
        charge_cluster_response_stats=node.wrapped("charge_cluster_response_stats", True),
        encode_raw_headers=node.get("encode_raw_headers"),
        decoder_header_mutation_rules=None if rules is None else parse_mutation_rules(rules),
        enable_dynamic_metadata_ingestion=node.wrapped("enable_dynamic_metadata_ingestion", True),
        max_denied_response_body_bytes=node.get("max_denied_response_body_bytes"),
        enforce_response_header_limits=node.get("enforce_response_header_limits"),
    )


def parse_ext_authz_per_route(node: Node) -> ExtAuthzPerRoute:
    """`ExtAuthzPerRoute`."""
    settings = node.child("check_settings")
    if settings is None:
        return ExtAuthzPerRoute(disabled=node.get("disabled"))
    without, body = settings.get("disable_request_body_buffering"), _parse_buffer(settings.child("with_request_body"))
    if without and body is not None:
        settings.refuse("is set together with disable_request_body_buffering", "with_request_body", "keep one of them")
    return ExtAuthzPerRoute(
        context_extensions=settings.scalars_map("context_extensions"),
        disable_request_body_buffering=without,
        with_request_body=body,
        service=_parse_service(settings),
    )


def parse_patterns(node: Node, field: str) -> Patterns | None:
    """A `ListStringMatcher`, None where it is not set."""
    patterns = node.child(field)
    return None if patterns is None else tuple(map(parse_string_matcher, patterns.children("patterns")))


def parse_grpc_authorization(node: Node) -> GrpcAuthorization:
    """The `core.v3.GrpcService` of an authorization service."""
    timeout = node.duration("timeout")
    return GrpcAuthorization(parse_grpc_service(node, timed=True), TIMEOUT if timeout is None else timeout)


def _parse_service(node: Node) -> Authorization | None:
    grpc, http = node.child("grpc_service"), node.child("http_service")
    if grpc is not None:
        return parse_grpc_authorization(grpc)
    return None if http is None else _parse_http_authorization(http)


def _parse_buffer(node: Node | None) -> BufferSettings | None:
    if node is None:
        return None
    return BufferSettings(node.get("max_request_bytes"), node.get("allow_partial_message"), node.get("pack_as_bytes"))


def _parse_http_authorization(node: Node) -> HttpAuthorization:
    """`HttpService`."""
    uri, request, response = (
        node.child("server_uri"),
        node.child("authorization_request"),
        node.child("authorization_response"),
    )
    cluster, timeout = "", None
    if uri is None:
        node.refuse("is required", "server_uri", "name the cluster and a timeout")
    else:
        uri.get("uri")
        cluster, timeout = uri.get("cluster"), uri.duration("timeout")
        uri.context.reference("cluster", cluster, uri, "cluster")
    prefix = node.get("path_prefix")
    if prefix and not prefix.startswith("/"):
        node.refuse("does not begin with /", "path_prefix", "put a / in front")
    retry = node.child("retry_policy")
    return HttpAuthorization(
        cluster,
        TIMEOUT if timeout is None else timeout,
        prefix,
        None if request is None else parse_patterns(request, "allowed_headers"),
        () if request is None else tuple(map(_parse_header, request.children("headers_to_add"))),
        allowed_upstream_headers=_named_in(response, "allowed_upstream_headers"),
        allowed_upstream_headers_to_append=_named_in(response, "allowed_upstream_headers_to_append"),
        allowed_client_headers=_named_in(response, "allowed_client_headers"),
        allowed_client_headers_on_success=_named_in(response, "allowed_client_headers_on_success"),
        dynamic_metadata_from_headers=_named_in(response, "dynamic_metadata_from_headers"),
        retry_policy=None if retry is None else _parse_retries(retry),
    )


def _parse_retries(node: Node) -> RetryPolicy:
    """As in Envoy, an attempt has as long as the longest pause between two of them."""
    policy = parse_core_retry_policy(node)
    return replace(policy, per_try_timeout=policy.retry_back_off.max_interval)


def _named_in(response: Node | None, field: str) -> Patterns:
    return () if response is None else parse_patterns(response, field) or ()


def _parse_header(node: Node) -> HeaderValueOption:
    return HeaderValueOption(header_name(node.get("key")), node.format("value"), "OVERWRITE_IF_EXISTS_OR_ADD", False)
