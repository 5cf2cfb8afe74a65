"""What a proxy listens on: for its workload's requests, for what comes in, and at gateways."""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.model.proxy import ProxyType
from controlplane.pilot.listeners.gateways import gateway_listeners
from controlplane.pilot.listeners.inbound import Clash, Closed, NotSeen, clashes, closed, inbound_listeners, not_seen
from controlplane.pilot.listeners.outbound import sidecar_listeners
from controlplane.pilot.scope import Generated, Scope

__all__ = ["Clash", "Closed", "NotSeen", "clashes", "closed", "inbound_listeners", "not_seen", "outbound_listeners"]


def outbound_listeners(scope: Scope) -> Iterable[Generated]:
    """What all proxies of a scope listen on: of a gateway everything, of a sidecar what is for its workload's requests."""
    return gateway_listeners(scope) if scope.proxy.type is ProxyType.ROUTER else sidecar_listeners(scope)
