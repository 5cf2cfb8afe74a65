"""What a route configures of HTTP filters: `HTTPFaultInjection` for the fault filter, `CorsPolicy` for the CORS filter, and
for the filter that sets the filter state what is offered by ALPN.

Source: Istio's reference, "Virtual Service", HTTPFaultInjection and CorsPolicy; Envoy's well-known filter state objects.
"""

from __future__ import annotations

from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.extensions.filters.common.set_filter_state.v3 import value_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.filters.http.set_filter_state.v3 import set_filter_state_pb2
from envoy.type.matcher.v3 import string_pb2
from envoy.type.v3 import percent_pb2
from google.protobuf import any_pb2

from controlplane.model.service import PortProtocol, Service
from controlplane.pilot.client_tls import EITHER_HTTP_OFFERED
from controlplane.pilot.routes.matching import regex, string_matcher
from controlplane.pilot.scope import Scope
from controlplane.pilot.traffic_policy import policy_for

FAULT = "envoy.filters.http.fault"
CORS = "envoy.filters.http.cors"
SET_FILTER_STATE = "envoy.filters.http.set_filter_state"

_GRPC_STATUSES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip


def fraction(percentage: Any) -> Any:
    """A `Percent` as Envoy's `FractionalPercent`, to a ten-thousandth of a percent; None is all of them."""
    percent = percent_pb2.FractionalPercent
    if percentage is None:
        return percent(numerator=100, denominator=percent.HUNDRED)
    value = percentage.value or 0.0
    if float(value).is_integer():
        return percent(numerator=int(value), denominator=percent.HUNDRED)
    return percent(numerator=round(value * 10_000), denominator=percent.MILLION)


def apply_fault(fault: Any, route: Any) -> None:
    """Configure the fault filter for a `Route`."""
    if fault is None or (fault.delay is None and fault.abort is None):
        return
    made = fault_pb2.HTTPFault()
    if fault.delay is not None:
        made.delay.fixed_delay.FromNanoseconds(round(fault.delay.fixed_delay * 1e9))
        made.delay.percentage.CopyFrom(_percentage(fault.delay))
    if fault.abort is not None:
        if fault.abort.grpc_status is not None:
            made.abort.grpc_status = _GRPC_STATUSES.index(fault.abort.grpc_status)
        else:
            made.abort.http_status = fault.abort.http_status
        made.abort.percentage.CopyFrom(_percentage(fault.abort))
    route.typed_per_filter_config[FAULT].Pack(made, deterministic=True)


def apply_cors(policy: Any, route: Any) -> None:
    """Configure the CORS filter for a `Route`."""
    if policy is None:
        return
    made = cors_pb2.CorsPolicy(
        allow_methods=",".join(policy.allow_methods),
        allow_headers=",".join(policy.allow_headers),
        expose_headers=",".join(policy.expose_headers),
    )
    for origin in policy.allow_origins:
        made.allow_origin_string_match.append(string_matcher(origin))
    for text in policy.allow_origin:
        everybody = string_pb2.StringMatcher(safe_regex=regex(".*"))
        made.allow_origin_string_match.append(everybody if text == "*" else string_pb2.StringMatcher(exact=text))
    if policy.max_age is not None:
        made.max_age = str(int(policy.max_age))
    if policy.allow_credentials is not None:
        made.allow_credentials.value = policy.allow_credentials
    made.filter_enabled.CopyFrom(base_pb2.RuntimeFractionalPercent(default_value=fraction(None)))
    made.forward_not_matching_preflights.value = policy.unmatched_preflights != "IGNORE"
    route.typed_per_filter_config[CORS].Pack(made, deterministic=True)


def apply_offer(scope: Scope, service: Service | None, number: int, subset: str, route: Any) -> None:
    """Let the requests of a route (or of a weighted cluster) to a service's port, whose protocol is to be found out, tell the
    sidecar there that they are requests. Its cluster says by itself that what comes is not HTTP: the same cluster is used
    for other connections.
    """
    port = None if service is None else service.port(number)
    if service is None or port is None or port.protocol is not PortProtocol.AUTO or not scope.proxy.has_identity:
        return
    tls = policy_for(scope.destination_rule(service.hostname), subset, number).tls
    if service.mesh_external if tls is None else str(tls.mode) != "ISTIO_MUTUAL":
        return  # what the mesh offers is nothing to servers outside
    route.typed_per_filter_config[SET_FILTER_STATE].CopyFrom(_OFFERING_HTTP)


def _offering_http() -> Any:
    value = value_pb2.FilterStateValue(object_key="envoy.network.application_protocols")
    value.format_string.text_format_source.inline_string = ",".join(EITHER_HTTP_OFFERED)
    packed = any_pb2.Any()
    packed.Pack(set_filter_state_pb2.Config(on_request_headers=[value]), deterministic=True)
    return packed


_OFFERING_HTTP = _offering_http()


def _percentage(fault: Any) -> Any:
    """Where a fault has no `percentage`, the old `percent` of a delay may stand; and without both, all requests."""
    old = getattr(fault, "percent", None)  # an abort has none
    if old is not None:
        return percent_pb2.FractionalPercent(numerator=old, denominator=percent_pb2.FractionalPercent.HUNDRED)
    return fraction(fault.percentage)
