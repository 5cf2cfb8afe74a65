"""Analysis of a mesh: all analyzers, in one order; and what of it belongs into the status of each resource."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from controlplane.galley.analysis.annotations import analyze_annotations
from controlplane.galley.analysis.destination_rules import (
    analyze_client_credentials,
    analyze_mtls,
    analyze_rule_hosts,
    analyze_server_verification,
)
from controlplane.galley.analysis.destinations import analyze_destinations, analyze_gateway_subsets
from controlplane.galley.analysis.envoy_filters import analyze_envoy_filters
from controlplane.galley.analysis.gateways import (
    analyze_conflicting_gateways,
    analyze_gateway_credentials,
    analyze_gateway_workloads,
)
from controlplane.galley.analysis.mesh import Mesh
from controlplane.galley.analysis.messages import SCHEMA_ERROR, Message
from controlplane.galley.analysis.policies import (
    analyze_authorization,
    analyze_selectors,
    analyze_telemetry_providers,
    analyze_token_ports,
)
from controlplane.galley.analysis.reachability import analyze_reachability
from controlplane.galley.analysis.scopes import analyze_sidecars, analyze_telemetries
from controlplane.galley.analysis.services import (
    analyze_ports,
    analyze_service_entry_addresses,
    analyze_service_workloads,
    analyze_shared_workloads,
)
from controlplane.galley.analysis.virtual_services import (
    analyze_claims,
    analyze_conflicting_hosts,
    analyze_gateways_of_routes,
)
from controlplane.galley.analysis.warnings import (
    analyze_deprecated_fields,
    analyze_injection,
    analyze_settings_without_effect,
    analyze_what_nothing_acts_upon,
)
from controlplane.model.causes import Cause
from controlplane.model.mesh_config import MeshConfig
from controlplane.model.proxy import Proxy
from controlplane.model.resource import Resource, ResourceKey

ANALYZERS = (
    analyze_destinations,
    analyze_gateway_subsets,
    analyze_conflicting_hosts,
    analyze_gateways_of_routes,
    analyze_claims,
    analyze_reachability,
    analyze_rule_hosts,
    analyze_server_verification,
    analyze_client_credentials,
    analyze_mtls,
    analyze_gateway_workloads,
    analyze_gateway_credentials,
    analyze_conflicting_gateways,
    analyze_sidecars,
    analyze_telemetries,
    analyze_ports,
    analyze_service_workloads,
    analyze_shared_workloads,
    analyze_service_entry_addresses,
    analyze_selectors,
    analyze_authorization,
    analyze_telemetry_providers,
    analyze_token_ports,
    analyze_envoy_filters,
    analyze_annotations,
    analyze_deprecated_fields,
    analyze_settings_without_effect,
    analyze_what_nothing_acts_upon,
    analyze_injection,
)

SUPPRESS = "galley.istio.io/analyze-suppress"
"""The annotation of a resource whose value names the codes, with commas between them, that it does not want to hear of."""


def analyze(
    resources: Mapping[ResourceKey, Resource],
    proxies: Iterable[Proxy] = (),
    domain: str = "cluster.local",
    default_mesh: MeshConfig | None = None,
) -> list[Message]:
    """What does not fit together, the worst first, then resource by resource.

    ``proxies`` are those that are connected; their labels count as workloads'. Where nothing is known of workloads (files
    that have none), nothing is said of selectors that find none. ``domain`` is what the full names of services end in,
    ``default_mesh`` the mesh's configuration where its ConfigMap is not there.
    """
    mesh = Mesh(resources, proxies, domain, default_mesh)
    found = [
        message
        for analyzer in ANALYZERS
        for message in analyzer(mesh)
        if not _suppressed(resources.get(message.key), message)
    ]
    return sorted(found, key=lambda message: (message.type.level.rank, message.key, message.path, message.type.code))


def schema_error(key: ResourceKey, cause: Cause) -> Message:
    """IST0106: what is wrong with a resource by itself, as analysis tells it."""
    return Message(SCHEMA_ERROR, key, cause.message, cause.path)


def validation_messages(messages: Sequence[Message]) -> dict[ResourceKey, list[dict[str, Any]]]:
    """`status.validationMessages` of each resource of which there is something to say."""
    found: dict[ResourceKey, list[dict[str, Any]]] = {}
    for message in messages:
        found.setdefault(message.key, []).append(message.for_status())
    return found


def _suppressed(resource: Resource | None, message: Message) -> bool:
    names = resource.metadata.annotations.get(SUPPRESS, "") if resource is not None else ""
    return bool(names) and bool({message.type.code, "*"} & {name.strip() for name in names.split(",")})
