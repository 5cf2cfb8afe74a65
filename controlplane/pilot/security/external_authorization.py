"""Action CUSTOM: extension providers of the mesh that are asked, `envoyExtAuthzHttp` and `envoyExtAuthzGrpc`.

As in Istio an RBAC filter without a say (shadow rules) marks what a policy is for, and the filter that asks is on for what
is marked. A provider that is not there, or is no service that the proxy sees, denies what it would have been asked about.
Source: https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#MeshConfig-ExtensionProvider
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from envoy.config.core.v3 import base_pb2, grpc_service_pb2
from envoy.extensions.filters.http.ext_authz.v3 import ext_authz_pb2
from envoy.extensions.filters.network.ext_authz.v3 import ext_authz_pb2 as network_ext_authz_pb2
from envoy.type.matcher.v3 import string_pb2

from controlplane.model.service import Service
from controlplane.pilot.names import outbound_cluster
from controlplane.pilot.scope import Scope
from controlplane.pilot.security.matchers import metadata, string_value, text

MARK = "istio_ext_authz_"
_POLICY = f"{MARK}shadow_effective_policy_id"
_PATIENCE = 600.0  # seconds, Istio's default: that of the routes to the service is to be shorter
_API_V3 = 2


class Provider(NamedTuple):
    """A provider that can be asked. ``settings`` are Istio's, of one of the protocols."""

    name: str
    settings: Any
    hostname: str
    is_grpc: bool

    @property
    def prefix(self) -> str:
        """What names of rules begin with that are this provider's."""
        return policy_prefix(self.name)

    @property
    def cluster(self) -> str:
        """The cluster of its service."""
        return outbound_cluster(self.settings.port, "", self.hostname)


def policy_prefix(provider: str) -> str:
    """What names of rules begin with for which a provider is asked."""
    return f"istio-ext-authz-{provider}-"


def find_provider(scope: Scope, name: str) -> Provider | None:
    """The provider of that name; None if it cannot be asked."""
    found = scope.mesh.provider(name)
    if found is None:
        return None
    settings = found.envoy_ext_authz_grpc or found.envoy_ext_authz_http
    if settings is None:
        return None
    service = _service(scope, settings.service)
    if service is None or service.port(settings.port) is None:
        return None
    return Provider(name, settings, service.hostname, found.envoy_ext_authz_grpc is not None)


def _service(scope: Scope, name: str) -> Service | None:
    """A visible service by its host, or by NAMESPACE/HOST."""
    namespace, slash, host = name.rpartition("/")
    full = scope.resolve(host, namespace or scope.proxy.namespace)
    service = scope.services.get(full)
    if service is None or (slash and service.namespace != namespace):
        return None
    return service


def http_filter(provider: Provider) -> Any:
    """`ExtAuthz` for requests."""
    settings = provider.settings
    made = ext_authz_pb2.ExtAuthz(transport_api_version=_API_V3, failure_mode_allow=bool(settings.fail_open))
    if provider.is_grpc:
        _grpc(made.grpc_service, provider)
    else:
        _http(made, provider)
    made.filter_enabled_metadata.CopyFrom(_marked("envoy.filters.http.rbac", provider))
    made.clear_route_cache = bool(settings.clear_route_cache)
    if settings.status_on_error is not None:
        made.status_on_error.code = int(settings.status_on_error)
    body = settings.include_request_body_in_check
    if body is not None:
        made.with_request_body.max_request_bytes = body.max_request_bytes
        made.with_request_body.allow_partial_message = bool(body.allow_partial_message)
        made.with_request_body.pack_as_bytes = bool(body.pack_as_bytes)
    return made


def network_filter(provider: Provider) -> Any:
    """`ExtAuthz` for connections; None for a provider that is asked over HTTP, which knows only requests."""
    if not provider.is_grpc:
        return None
    made = network_ext_authz_pb2.ExtAuthz(
        stat_prefix="tcp.", transport_api_version=_API_V3, failure_mode_allow=bool(provider.settings.fail_open)
    )
    _grpc(made.grpc_service, provider)
    made.filter_enabled_metadata.CopyFrom(_marked("envoy.filters.network.rbac", provider))
    return made


def _marked(filter_name: str, provider: Provider) -> Any:
    return metadata(filter_name, (_POLICY,), string_value(string_pb2.StringMatcher(prefix=f"{provider.prefix}ns[")))


def _timeout(settings: Any) -> int:
    return round((settings.timeout or _PATIENCE) * 1e9)


def _grpc(service: Any, provider: Provider) -> None:
    # `|` cannot stand in an :authority.
    authority = provider.cluster.replace("|", "_.")
    service.envoy_grpc.CopyFrom(
        grpc_service_pb2.GrpcService.EnvoyGrpc(cluster_name=provider.cluster, authority=authority)
    )
    service.timeout.FromNanoseconds(_timeout(provider.settings))


def _http(made: Any, provider: Provider) -> None:
    settings = provider.settings
    service = made.http_service
    service.path_prefix = settings.path_prefix or ""
    service.server_uri.uri = f"http://{provider.hostname}"
    service.server_uri.cluster = provider.cluster
    service.server_uri.timeout.FromNanoseconds(_timeout(settings))
    sent = settings.include_request_headers_in_check or settings.include_headers_in_check
    _name(made.allowed_headers, sent)
    for name, value in sorted(settings.include_additional_headers_in_check.items()):
        service.authorization_request.headers_to_add.append(base_pb2.HeaderValue(key=name, value=value))
    answer = service.authorization_response
    _name(answer.allowed_upstream_headers, settings.headers_to_upstream_on_allow)
    _name(answer.allowed_client_headers, settings.headers_to_downstream_on_deny)
    _name(answer.allowed_client_headers_on_success, settings.headers_to_downstream_on_allow)


def _name(headers: Any, patterns: Sequence[str]) -> None:
    if patterns:  # a list without any is refused
        headers.patterns.extend(text(pattern, ignore_case=True) for pattern in patterns)
