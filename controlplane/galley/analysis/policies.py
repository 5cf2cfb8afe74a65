"""Policies: those that are of no workload, and what they name that is not there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from controlplane.galley.analysis.mesh import Mesh, label_text
from controlplane.galley.analysis.messages import JWT_PORT, NO_WORKLOADS, NOT_FOUND, TELEMETRY_PROVIDER, Message
from controlplane.model.registry import selects
from controlplane.model.resource import Resource, ResourceKey
from controlplane.model.service import PortProtocol, select_protocol

_SELECTING = (
    "AuthorizationPolicy",
    "RequestAuthentication",
    "PeerAuthentication",
    "Telemetry",
    "ProxyConfig",
    "EnvoyFilter",
    "Sidecar",
)


def analyze_selectors(mesh: Mesh) -> Iterator[Message]:
    """IST0127: a selector that finds nothing. Policies of the root namespace are of all namespaces."""
    if not mesh.workloads:
        return
    for kind in _SELECTING:
        for resource in mesh.of_kind(kind):
            path, labels = _selector(resource)
            namespace = None if resource.namespace == mesh.root_namespace else resource.namespace
            if labels and not mesh.selected(labels, namespace):
                text = (
                    f"no workload has the labels {label_text(labels)}, so that this has no effect: correct the labels"
                )
                yield Message(NO_WORKLOADS, resource.key, text, path)


def analyze_authorization(mesh: Mesh) -> Iterator[Message]:
    """IST0101: namespaces and providers that AuthorizationPolicies name."""
    namespaces = {resource.name for resource in mesh.of_kind("Namespace")}
    for policy in mesh.of_kind("AuthorizationPolicy"):
        provider = policy.spec.provider
        if provider is not None and mesh.snapshot.mesh.provider(provider.name) is None:
            text = f'the mesh has no extension provider "{provider.name}": add it to MeshConfig, or correct the name'
            yield Message(NOT_FOUND, policy.key, text, "spec.provider.name")
        if not namespaces:
            continue
        for index, rule in enumerate(policy.spec.rules):
            for number, each in enumerate(rule.from_ or ()):
                for place, name in enumerate(each.source.namespaces):
                    if "*" not in name and name not in namespaces:
                        at = f"spec.rules[{index}].from[{number}].source.namespaces[{place}]"
                        yield Message(NOT_FOUND, policy.key, f'there is no namespace "{name}": correct the name', at)


def analyze_telemetry_providers(mesh: Mesh) -> Iterator[Message]:
    """IST0101 and IST0157: who takes what is reported."""
    config = mesh.snapshot.mesh
    for telemetry in mesh.of_kind("Telemetry"):
        for section, items in (
            ("tracing", telemetry.spec.tracing),
            ("metrics", telemetry.spec.metrics),
            ("accessLogging", telemetry.spec.access_logging),
        ):
            default = {
                "tracing": config.default_providers.tracing,
                "metrics": config.default_providers.metrics,
                "accessLogging": config.default_providers.access_logging,
            }[section]
            for index, item in enumerate(items):
                for number, provider in enumerate(item.providers):
                    if config.provider(provider.name) is None and provider.name not in _KNOWN_PROVIDERS:
                        at = f"spec.{section}[{index}].providers[{number}].name"
                        text = f'the mesh has no extension provider "{provider.name}": add it to MeshConfig'
                        yield Message(NOT_FOUND, telemetry.key, text, at)
                if section == "accessLogging" and not item.providers and not default and not config.access_log_file:
                    text = "has no provider, and the mesh has no default one: it is passed over, name a provider"
                    yield Message(TELEMETRY_PROVIDER, telemetry.key, text, f"spec.{section}[{index}]")


# Istio has these without their being configured.
_KNOWN_PROVIDERS = ("prometheus", "envoy", "stackdriver")


def analyze_token_ports(mesh: Mesh) -> Iterator[Message]:
    """IST0119: tokens are in HTTP requests, so that a service with a RequestAuthentication has ports of HTTP."""
    for policy in mesh.of_kind("RequestAuthentication"):
        labels = policy.spec.selector.match_labels if policy.spec.selector else {}
        if not labels or not policy.spec.jwt_rules:
            continue
        for service in mesh.of_kind("Service"):
            if service.namespace != policy.namespace or not service.spec.selector:
                continue
            shared = [
                each for each in mesh.selected(labels, policy.namespace) if selects(service.spec.selector, each.labels)
            ]
            for port in service.spec.ports if shared else ():
                protocol = select_protocol(port.port, port.name or "", port.app_protocol or "", port.protocol)
                if not protocol.is_http:
                    why = f"is {protocol.value}, where no token is read"
                    if protocol is PortProtocol.AUTO:
                        why = "does not tell its protocol: over mutual TLS tokens are read only where clients say what they send"
                    text = (
                        f"port {port.port} of Service {service.name} {why}: name the port by its protocol, as http-web"
                    )
                    yield Message(JWT_PORT, policy.key, text)


def analyze_issuers(resources: Mapping[ResourceKey, Resource], unknown: Mapping[str, str]) -> Iterator[Message]:
    """IST0101: issuers whose keys are not known, and why: found by asking them, in a control plane only."""
    for policy in resources.values() if unknown else ():
        if policy.key.kind != "RequestAuthentication":
            continue
        for index, rule in enumerate(policy.spec.jwt_rules):
            if rule.is_discovered and rule.issuer in unknown:
                text = (
                    f"the keys of {rule.issuer} are not known, so that all of its tokens are refused: {unknown[rule.issuer]}: "
                    "correct the issuer, or write jwksUri"
                )
                yield Message(NOT_FOUND, policy.key, text, f"spec.jwtRules[{index}].issuer")


def _selector(resource: Resource) -> tuple[str, Mapping[str, str]]:
    if resource.key.kind in ("Sidecar", "EnvoyFilter"):
        found = resource.spec.workload_selector
        return "spec.workloadSelector.labels", found.labels if found else {}
    found = resource.spec.selector
    return "spec.selector.matchLabels", found.match_labels if found else {}
