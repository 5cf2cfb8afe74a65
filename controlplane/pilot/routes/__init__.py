"""Virtual services and services, seen by one proxy, become Envoy's route configurations."""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.model.proxy import ProxyType
from controlplane.pilot.routes.gateways import gateway_route_configurations
from controlplane.pilot.routes.outbound import sidecar_route_configurations
from controlplane.pilot.scope import Generated, Scope


def route_configurations(scope: Scope) -> Iterable[Generated]:
    """All route configurations that the proxies of a scope may ask for (RDS)."""
    if scope.proxy.type is ProxyType.ROUTER:
        return gateway_route_configurations(scope)
    return sidecar_route_configurations(scope)
