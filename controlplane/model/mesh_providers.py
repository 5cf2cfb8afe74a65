"""Extension providers of MeshConfig: services that authorize, collect traces and take logs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Literal

from pydantic import Field

from controlplane.model.causes import Cause, Reason
from controlplane.model.oneof import exclusive
from controlplane.model.resource import Model
from controlplane.model.values import (
    Bool,
    Duration,
    Port,
    Str,
    UInt,
    domain_complaint,
    header_name_complaint,
    is_number,
    shown,
)

# Of the statuses that Python knows, those that Envoy's `StatusCode` lacks are 1xx and these.
_STATUSES = frozenset(map(int, HTTPStatus)) - {418, 425, 451}


class Topology(Model):
    """What stands before gateways."""

    num_trusted_proxies: UInt | None = None
    forward_client_cert_details: Literal[
        "UNDEFINED", "SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "ALWAYS_FORWARD_ONLY"
    ] = "UNDEFINED"


class ServiceProvider(Model):
    """A provider that is a service of the mesh: `service` is its host, or NAMESPACE/HOST."""

    service: Str
    port: Port

    def problems(self) -> Iterable[Cause]:
        yield from self.service_problems()

    def service_problems(self) -> Iterator[Cause]:
        """What is wrong with the name of the service."""
        host = self.service.rpartition("/")[2]
        if complaint := domain_complaint(host):
            yield Cause("service", complaint)


class ExtAuthzRequestBody(Model):
    """How much of a request's body is sent along."""

    max_request_bytes: UInt
    allow_partial_message: Bool | None = None
    pack_as_bytes: Bool | None = None

    def problems(self) -> Iterable[Cause]:
        if not self.max_request_bytes:
            yield Cause("maxRequestBytes", "must be at least 1: remove includeRequestBodyInCheck to send no body")


class ExtAuthz(ServiceProvider):
    """What the two protocols of external authorization share."""

    timeout: Duration | None = None
    fail_open: Bool | None = None
    clear_route_cache: Bool | None = None
    status_on_error: Str | None = None
    include_request_body_in_check: ExtAuthzRequestBody | None = None

    def problems(self) -> Iterable[Cause]:
        yield from self.service_problems()
        told = self.status_on_error
        if told is not None and not (is_number(told, 200, 599) and int(told) in _STATUSES):
            yield Cause("statusOnError", f"{shown(told)} is not an HTTP status of proxies: write one in quotes")


class EnvoyExtAuthzHttp(ExtAuthz):
    """External authorization over HTTP."""

    path_prefix: Str | None = None
    include_headers_in_check: tuple[Str, ...] = ()
    include_request_headers_in_check: tuple[Str, ...] = ()
    include_additional_headers_in_check: Mapping[Str, Str] = Field(default_factory=dict)
    headers_to_upstream_on_allow: tuple[Str, ...] = ()
    headers_to_downstream_on_deny: tuple[Str, ...] = ()
    headers_to_downstream_on_allow: tuple[Str, ...] = ()

    def problems(self) -> Iterable[Cause]:
        yield from super().problems()
        if self.path_prefix and not self.path_prefix.startswith("/"):
            yield Cause("pathPrefix", f"{shown(self.path_prefix)} is no beginning of a path: begin it with /")
        for name in self.include_additional_headers_in_check:
            if complaint := header_name_complaint(name):
                yield Cause(f"includeAdditionalHeadersInCheck[{name}]", complaint)


class EnvoyExtAuthzGrpc(ExtAuthz):
    """External authorization over gRPC."""


class LogFormat(Model):
    """A text with Envoy's commands, or labels with such texts for values."""

    text: Str | None = None
    labels: Mapping[Str, Any] | None = None

    def problems(self) -> Iterable[Cause]:
        return exclusive(self, "text", "labels", required=True)


class EnvoyFileAccessLog(Model):
    """Logs in a file."""

    path: Str | None = None
    log_format: LogFormat | None = None
    omit_empty_values: Bool | None = None


class EnvoyGrpcAccessLog(ServiceProvider):
    """Logs over gRPC, in Envoy's own protocol."""

    log_name: Str | None = None
    filter_state_objects_to_log: tuple[Str, ...] = ()
    additional_request_headers_to_log: tuple[Str, ...] = ()
    additional_response_headers_to_log: tuple[Str, ...] = ()
    additional_response_trailers_to_log: tuple[Str, ...] = ()


class EnvoyOtelAccessLog(ServiceProvider):
    """Logs over gRPC, in OpenTelemetry's protocol."""

    log_name: Str | None = None
    log_format: LogFormat | None = None


class ZipkinTracing(ServiceProvider):
    """Spans to Zipkin, or who speaks its protocol."""

    max_tag_length: UInt | None = None
    enable_64bit_trace_id: Bool | None = Field(default=None, alias="enable64bitTraceId")
    path: Str | None = None


class OpenTelemetryTracing(ServiceProvider):
    """Spans in OpenTelemetry's protocol."""

    max_tag_length: UInt | None = None


class Prometheus(Model):
    """Metrics that Prometheus fetches."""


class MeshExtensionProvider(Model):
    """A provider under a name that policies use."""

    name: Str
    envoy_ext_authz_http: EnvoyExtAuthzHttp | None = None
    envoy_ext_authz_grpc: EnvoyExtAuthzGrpc | None = None
    zipkin: ZipkinTracing | None = None
    opentelemetry: OpenTelemetryTracing | None = None
    prometheus: Prometheus | None = None
    envoy_file_access_log: EnvoyFileAccessLog | None = None
    envoy_http_als: EnvoyGrpcAccessLog | None = None
    envoy_tcp_als: EnvoyGrpcAccessLog | None = None
    envoy_otel_als: EnvoyOtelAccessLog | None = None

    def problems(self) -> Iterable[Cause]:
        if not self.name:
            yield Cause("name", "is required: name the provider", Reason.REQUIRED)
        yield from exclusive(self, *(name for name in type(self).model_fields if name != "name"), required=True)
