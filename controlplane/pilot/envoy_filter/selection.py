"""Which EnvoyFilters hold for the proxies of a scope, and in which order their patches are made.

Source: Istio's reference, "Envoy Filter".
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import re2
from envoy.config.core.v3 import base_pb2

from controlplane.model.istio.envoy_values import envoy_message
from controlplane.model.proxy import ProxyType
from controlplane.model.resource import Resource, ResourceKey
from controlplane.pilot.scope import Scope

INBOUND = "SIDECAR_INBOUND"
OUTBOUND = "SIDECAR_OUTBOUND"
GATEWAY = "GATEWAY"
_ANY = "ANY"


@dataclass(frozen=True, slots=True, eq=False)
class EnvoyPatch:
    """One patch of an EnvoyFilter. ``value`` is Envoy's message, None for REMOVE; ``match`` is Istio's, or None."""

    owner: ResourceKey
    apply_to: str
    operation: str
    context: str
    match: Any
    value: Any

    def is_for(self, context: str) -> bool:
        """Whether it changes what is generated for a context."""
        return self.context in (_ANY, context)


Patches = tuple[EnvoyPatch, ...]


def patches_of(scope: Scope, apply_to: Collection[str]) -> Patches:
    """The patches of these kinds that hold for the proxies of a scope: the root namespace's first, in each namespace by
    priority, then by age.
    """
    found: list[EnvoyPatch] = []
    for resource in sorted(scope.envoy_filters, key=lambda each: _order(scope, each)):
        patches = scope.memo.get(("patches", resource), partial(_parsed, resource))
        found += [
            patch
            for patch, proxy in patches
            if patch.apply_to in apply_to and (proxy is None or _proxy_matches(scope, proxy))
        ]
    return tuple(found)


def outbound_context(scope: Scope) -> str:
    """The context of what the proxies of a scope have for their workloads' traffic, or as gateways."""
    return GATEWAY if scope.proxy.type is ProxyType.ROUTER else OUTBOUND


def context_of(scope: Scope, listener: Any) -> str:
    """The context of a listener."""
    if scope.proxy.type is ProxyType.ROUTER:
        return GATEWAY
    return INBOUND if listener.traffic_direction == base_pb2.TrafficDirection.INBOUND else OUTBOUND


def _order(scope: Scope, resource: Resource) -> tuple[Any, ...]:
    of_root = resource.namespace == scope.mesh.root_namespace
    return (not of_root, resource.spec.priority or 0, resource.metadata.created, resource.name)


def _parsed(resource: Resource) -> Sequence[tuple[EnvoyPatch, Any]]:
    """The patches of an EnvoyFilter, each with its condition on proxies."""
    made = []
    for each in resource.spec.config_patches:
        match, patch = each.match, each.patch
        value = None if patch.value is None else envoy_message(each.apply_to, patch.value)
        context = match.context if match is not None else _ANY
        one = EnvoyPatch(resource.key, each.apply_to, patch.operation, context, match, value)
        made.append((one, match.proxy if match is not None else None))
    return made


def _proxy_matches(scope: Scope, match: Any) -> bool:
    metadata = scope.proxy.metadata
    if match.proxy_version and not re2.search(match.proxy_version, str(metadata.get("ISTIO_VERSION", ""))):
        return False
    return all(str(metadata.get(name)) == value for name, value in match.metadata.items())
