"""The types of xDS resources, and in which order they go out so that nothing refers to what is not there yet.

Source: Envoy's "xDS REST and gRPC protocol", *Eventual consistency considerations* (make before break).
"""

from __future__ import annotations

from typing import Final

_PREFIX: Final = "type.googleapis.com/"

CLUSTER: Final = _PREFIX + "envoy.config.cluster.v3.Cluster"
ENDPOINTS: Final = _PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER: Final = _PREFIX + "envoy.config.listener.v3.Listener"
ROUTES: Final = _PREFIX + "envoy.config.route.v3.RouteConfiguration"
SCOPED_ROUTES: Final = _PREFIX + "envoy.config.route.v3.ScopedRouteConfiguration"
VIRTUAL_HOST: Final = _PREFIX + "envoy.config.route.v3.VirtualHost"
SECRET: Final = _PREFIX + "envoy.extensions.transport_sockets.tls.v3.Secret"
EXTENSION: Final = _PREFIX + "envoy.config.core.v3.TypedExtensionConfig"
RUNTIME: Final = _PREFIX + "envoy.service.runtime.v3.Runtime"

HEALTH: Final = _PREFIX + "istio.v1.HealthInformation"
"""Not a resource: by requests of this type a proxy says how its workload is, as Istio's agent does."""

IN_ORDER: Final = (CLUSTER, ENDPOINTS, SECRET, EXTENSION, LISTENER, ROUTES, SCOPED_ROUTES, VIRTUAL_HOST, RUNTIME)

# In the state of the world a response of these types holds all that there is: what it does not name is gone.
WHOLE: Final = frozenset((CLUSTER, LISTENER))

# Without names, a subscription to these types means everything.
WILDCARD: Final = frozenset((CLUSTER, LISTENER))

SHORT: Final = {
    CLUSTER: "CDS",
    ENDPOINTS: "EDS",
    LISTENER: "LDS",
    ROUTES: "RDS",
    SCOPED_ROUTES: "SRDS",
    VIRTUAL_HOST: "VHDS",
    SECRET: "SDS",
    EXTENSION: "ECDS",
    RUNTIME: "RTDS",
}
