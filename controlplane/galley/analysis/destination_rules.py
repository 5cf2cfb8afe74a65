"""DestinationRules: hosts and subsets behind which there is nothing, servers whose certificates nobody checks."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.galley.analysis.mesh import Mesh, label_text
from controlplane.galley.analysis.messages import (
    MTLS_CONFLICT,
    NOT_FOUND,
    SUBSET_WITHOUT_WORKLOADS,
    UNKNOWN_RULE_HOST,
    UNVERIFIED_SERVER,
    UNVERIFIED_SERVER_PORT,
    Message,
)
from controlplane.model.istio.tls import ClientTLSSettings
from controlplane.model.istio.traffic_policy import TrafficPolicy
from controlplane.model.model_parsing import models
from controlplane.model.registry import selects
from controlplane.model.resource import Resource
from controlplane.model.service import Service
from controlplane.model.values import is_within


def analyze_rule_hosts(mesh: Mesh) -> Iterator[Message]:
    """IST0174 and IST0173: a rule for no service, a subset of no workload."""
    for rule in mesh.of_kind("DestinationRule"):
        services = _services(mesh, rule)
        if not services:
            text = (
                f'"{rule.spec.host}" is no service that namespace {rule.namespace} sees: create it, or correct the name'
            )
            yield Message(UNKNOWN_RULE_HOST, rule.key, text, "spec.host")
            continue
        if not mesh.workloads:
            continue
        for index, subset in enumerate(rule.spec.subsets):
            if subset.labels and not any(_has_endpoints(mesh, service, subset.labels) for service in services):
                text = f"no workload of {rule.spec.host} has the labels {label_text(subset.labels)}: requests to it get 503"
                yield Message(SUBSET_WITHOUT_WORKLOADS, rule.key, text, f"spec.subsets[{index}].labels")


def analyze_server_verification(mesh: Mesh) -> Iterator[Message]:
    """IST0128 and IST0129: TLS without roots to check the server's certificate against."""
    for rule in mesh.of_kind("DestinationRule"):
        for path, policy in _policies(rule):
            if policy.tls is not None and _unverified(policy.tls):
                text = f"mode {policy.tls.mode} checks no server certificate without roots: give caCertificates"
                yield Message(UNVERIFIED_SERVER, rule.key, text, f"{path}.tls")
            for index, port in enumerate(policy.port_level_settings):
                if port.tls is not None and _unverified(port.tls):
                    at = f"{path}.portLevelSettings[{index}].tls"
                    text = f"mode {port.tls.mode} checks no server certificate without roots: give caCertificates"
                    yield Message(UNVERIFIED_SERVER_PORT, rule.key, text, at)


def analyze_client_credentials(mesh: Mesh) -> Iterator[Message]:
    """IST0101: the Secrets that clients' TLS settings name."""
    secrets = {secret.name for secret in mesh.of_kind("Secret")}
    for rule in mesh.of_kind("DestinationRule"):
        for path, model in models(rule.spec, "spec"):
            if isinstance(model, ClientTLSSettings) and model.credential_name and model.credential_name not in secrets:
                text = f'there is no Secret "{model.credential_name}" in any namespace: create it, or correct the name'
                yield Message(NOT_FOUND, rule.key, text, f"{path}.credentialName")


def analyze_mtls(mesh: Mesh) -> Iterator[Message]:
    """IST0113: clients that send what the workloads' PeerAuthentication does not take, port by port."""
    policies = mesh.of_kind("PeerAuthentication")
    for rule in mesh.of_kind("DestinationRule") if policies else ():
        if rule.spec.traffic_policy is None:
            continue
        told: set[str] = set()
        for service in _services(mesh, rule):
            applicable = [] if service.mesh_external else _applicable(policies, service, mesh.root_namespace)
            for port in service.ports:
                path, tls = _client_settings(rule.spec.traffic_policy, port.number)
                mode, policy = _server_mode(applicable, port.target or port.number)
                if tls is None or policy is None or path in told or not _disagree(tls.mode, mode):
                    continue
                told.add(path)
                text = (
                    f"clients use {tls.mode} for {service.hostname}, but PeerAuthentication {policy.namespace}/{policy.name} "
                    f"says {mode}: make them agree"
                )
                yield Message(MTLS_CONFLICT, rule.key, text, f"{path}.mode")


def _client_settings(policy: TrafficPolicy, port: int) -> tuple[str, ClientTLSSettings | None]:
    for index, each in enumerate(policy.port_level_settings):
        if each.port is not None and each.port.number == port:
            return f"spec.trafficPolicy.portLevelSettings[{index}].tls", each.tls
    return "spec.trafficPolicy.tls", policy.tls


def _server_mode(policies: list[Resource], port: int | str) -> tuple[str, Resource | None]:
    """What workloads take on one of their ports, and the policy that says it."""
    for policy in policies:
        own = policy.spec.port_level_mtls.get(str(port))
        if own is not None and own.mode != "UNSET":
            return own.mode, policy
        if policy.spec.mtls is not None and policy.spec.mtls.mode != "UNSET":
            return policy.spec.mtls.mode, policy
    return "PERMISSIVE", None


def _disagree(client: str, server: str) -> bool:
    return (server == "STRICT" and client != "ISTIO_MUTUAL") or (server == "DISABLE" and client == "ISTIO_MUTUAL")


def _services(mesh: Mesh, rule: Resource) -> list[Service]:
    host = mesh.full_name(rule.spec.host, rule.namespace)
    if host.startswith("*"):
        return [each for each in mesh.services() if is_within(each.hostname, host) and each.visible_to(rule.namespace)]
    found = mesh.service(host, rule.namespace)
    return [found] if found is not None else []


def _has_endpoints(mesh: Mesh, service: Service, labels: dict[str, str]) -> bool:
    if any(selects(labels, endpoint.labels) for endpoint in mesh.snapshot.endpoints.get(service.key, ())):
        return True
    return bool(service.selector) and bool(mesh.selected({**service.selector, **labels}, service.namespace))


def _policies(rule: Resource) -> Iterator[tuple[str, TrafficPolicy]]:
    if rule.spec.traffic_policy is not None:
        yield "spec.trafficPolicy", rule.spec.traffic_policy
    for index, subset in enumerate(rule.spec.subsets):
        if subset.traffic_policy is not None:
            yield f"spec.subsets[{index}].trafficPolicy", subset.traffic_policy


def _unverified(tls: ClientTLSSettings) -> bool:
    if tls.mode not in ("SIMPLE", "MUTUAL") or tls.insecure_skip_verify:
        return False
    return not tls.ca_certificates and not tls.credential_name


def _applicable(policies: list[Resource], service: Service, root_namespace: str) -> list[Resource]:
    """The policies of a service's workloads: their own, their namespace's, the mesh's, in this order; the oldest first."""
    found: list[tuple[int, Resource]] = []
    for policy in policies:
        labels = policy.spec.selector.match_labels if policy.spec.selector else {}
        if labels:
            if policy.namespace == service.namespace and service.selector and selects(labels, service.selector):
                found.append((0, policy))
        elif policy.namespace == service.namespace:
            found.append((1, policy))
        elif policy.namespace == root_namespace:
            found.append((2, policy))
    return [policy for _, policy in sorted(found, key=lambda each: (each[0], each[1].metadata.created, each[1].key))]
