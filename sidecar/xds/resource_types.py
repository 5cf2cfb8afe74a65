"""The types of resources: where a server answers for each, and how a resource of each tells its name.

Source: "xDS REST and gRPC protocol", the list of services and of REST endpoints; the `.proto` files of `envoy.service`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from sidecar.config.extensions import message_class, type_name_of

_PREFIX: Final = "type.googleapis.com/"
_NAME: Final = 0x0A  # field 1, of a length: where the name of each of these types stands
_CONTINUED: Final = 0x80

CLUSTER: Final = _PREFIX + "envoy.config.cluster.v3.Cluster"
CLUSTER_LOAD_ASSIGNMENT: Final = _PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER: Final = _PREFIX + "envoy.config.listener.v3.Listener"
ROUTE_CONFIGURATION: Final = _PREFIX + "envoy.config.route.v3.RouteConfiguration"
SCOPED_ROUTE_CONFIGURATION: Final = _PREFIX + "envoy.config.route.v3.ScopedRouteConfiguration"
VIRTUAL_HOST: Final = _PREFIX + "envoy.config.route.v3.VirtualHost"
SECRET: Final = _PREFIX + "envoy.extensions.transport_sockets.tls.v3.Secret"
EXTENSION_CONFIG: Final = _PREFIX + "envoy.config.core.v3.TypedExtensionConfig"
RUNTIME: Final = _PREFIX + "envoy.service.runtime.v3.Runtime"

ADS_STREAM: Final = b"/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
ADS_DELTA: Final = b"/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


class Endpoints(NamedTuple):
    """Where a server answers for one type: the paths of its two streams and of its REST endpoint."""

    stream: bytes
    delta: bytes
    rest: bytes


def _endpoints(service: str, plural: str, rest: str) -> Endpoints:
    path = f"/envoy.service.{service}DiscoveryService/"
    return Endpoints(
        f"{path}Stream{plural}".encode(), f"{path}Delta{plural}".encode(), f"/v3/discovery:{rest}".encode()
    )


ENDPOINTS: Final = {
    CLUSTER: _endpoints("cluster.v3.Cluster", "Clusters", "clusters"),
    CLUSTER_LOAD_ASSIGNMENT: _endpoints("endpoint.v3.Endpoint", "Endpoints", "endpoints"),
    LISTENER: _endpoints("listener.v3.Listener", "Listeners", "listeners"),
    ROUTE_CONFIGURATION: _endpoints("route.v3.Route", "Routes", "routes"),
    SCOPED_ROUTE_CONFIGURATION: _endpoints("route.v3.ScopedRoutes", "ScopedRoutes", "scoped-routes"),
    VIRTUAL_HOST: _endpoints("route.v3.VirtualHost", "VirtualHosts", "virtual-hosts"),
    SECRET: _endpoints("secret.v3.Secret", "Secrets", "secrets"),
    EXTENSION_CONFIG: _endpoints("extension.v3.ExtensionConfig", "ExtensionConfigs", "extension_configs"),
    RUNTIME: _endpoints("runtime.v3.Runtime", "Runtime", "runtime"),
}
"""By type URL."""


def resource_name(type_url: str, value: bytes) -> str:
    """The name in a serialised resource. Raises ValueError for what does not hold its type, and UnknownType."""
    if value[:1] == b"\n" and len(value) > 1:
        length, start = value[1], 2
        if length & _CONTINUED and len(value) > 2:
            length, start = length & ~_CONTINUED | value[2] << 7, 3
        name = value[start : start + length]
        if length < _CONTINUED << 7 and len(name) == length:
            try:
                return name.decode()
            except UnicodeDecodeError:
                pass
    message = message_class(type_name_of(type_url))()
    try:
        message.ParseFromString(value)
    except DecodeError:
        raise ValueError(f"does not hold a {type_name_of(type_url)}") from None
    return str(getattr(message, message.DESCRIPTOR.fields_by_number[_NAME >> 3].name))
