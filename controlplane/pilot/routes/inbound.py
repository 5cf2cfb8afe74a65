"""The route configuration of an inbound listener: everything goes to the application.

Source: Istio's names, `inbound|9080||`.
"""

from __future__ import annotations

from typing import Any

from envoy.config.route.v3 import route_components_pb2 as components

from controlplane.pilot.names import inbound_cluster
from controlplane.pilot.routes.virtual_hosts import new_route_configuration


def inbound_routes(port: int, hostname: str) -> Any:
    """`RouteConfiguration` for requests that come in on a port, a part of their listener. ``hostname`` is the service's."""
    cluster = inbound_cluster(port)
    route = components.Route(
        name="default",
        match=components.RouteMatch(prefix="/"),
        decorator=components.Decorator(operation=f"{hostname}:{port}/*"),
    )
    route.route.cluster = cluster
    route.route.timeout.FromNanoseconds(0)
    route.route.retry_policy.retry_on = "reset-before-request"
    route.route.retry_policy.num_retries.value = 2
    message = new_route_configuration(cluster)
    message.virtual_hosts.add(name=f"inbound|http|{port}", domains=["*"], routes=[route])
    return message
