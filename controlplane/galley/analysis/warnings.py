"""What is right, but not as it should be: deprecated fields, settings that have no effect, namespaces of Kubernetes."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.galley.analysis.mesh import Mesh
from controlplane.galley.analysis.messages import (
    DEPRECATED,
    NAMESPACE_NOT_INJECTED,
    POD_MISSING_PROXY,
    SCHEMA_WARNING,
    SEVERAL_INJECTION_LABELS,
    Message,
)
from controlplane.model.istio.traffic_policy import ConsistentHashLB, LoadBalancerSettings, OutlierDetection
from controlplane.model.kinds import KINDS
from controlplane.model.model_parsing import models
from controlplane.model.parsing import warnings
from controlplane.model.resource import Resource


def analyze_deprecated_fields(mesh: Mesh) -> Iterator[Message]:
    """IST0002: fields that have successors."""
    for rule in mesh.of_kind("DestinationRule"):
        for path, model in models(rule.spec, "spec"):
            if isinstance(model, LoadBalancerSettings):
                if model.simple == "LEAST_CONN":
                    yield _deprecated(rule, f"{path}.simple", "LEAST_REQUEST")
                if model.warmup_duration_secs is not None:
                    yield _deprecated(rule, f"{path}.warmupDurationSecs", "warmup.duration")
            elif isinstance(model, ConsistentHashLB) and model.minimum_ring_size is not None:
                yield _deprecated(rule, f"{path}.minimumRingSize", "ringHash.minimumRingSize")
            elif isinstance(model, OutlierDetection) and model.consecutive_errors is not None:
                yield _deprecated(rule, f"{path}.consecutiveErrors", "consecutiveGatewayErrors or consecutive5xxErrors")
    for service in mesh.of_kind("VirtualService"):
        for index, route in enumerate(service.spec.http):
            at = f"spec.http[{index}]"
            if route.mirror_percent is not None:
                yield _deprecated(service, f"{at}.mirrorPercent", "mirrorPercentage.value")
            if route.cors_policy is not None and route.cors_policy.allow_origin:
                yield _deprecated(service, f"{at}.corsPolicy.allowOrigin", "allowOrigins")
            if route.fault is not None and route.fault.delay is not None and route.fault.delay.percent is not None:
                yield _deprecated(service, f"{at}.fault.delay.percent", "percentage.value")


def analyze_what_nothing_acts_upon(mesh: Mesh) -> Iterator[Message]:
    """IST0133: what is kept, though nothing acts upon it."""
    for kind in KINDS:
        for resource in mesh.of_kind(kind):
            for cause in warnings(resource):
                yield _warning(resource, cause.path, cause.message)


def analyze_settings_without_effect(mesh: Mesh) -> Iterator[Message]:
    """IST0133: what Istio's own validation warns of."""
    for gateway in mesh.of_kind("Gateway"):
        for index, server in enumerate(gateway.spec.servers):
            at = f"spec.servers[{index}].tls"
            if server.tls is None:
                continue
            if server.tls.https_redirect and server.port.protocol.upper() in ("HTTPS", "TLS"):
                yield _warning(gateway, f"{at}.httpsRedirect", "redirects plain HTTP, here it has no effect: remove it")
            if not server.tls.terminates and (server.tls.credential_name or server.tls.server_certificate):
                yield _warning(
                    gateway, at, f"mode {server.tls.mode} uses no certificate: remove it, or change the mode"
                )
            if len(server.tls.credential_names) > 2 or len(server.tls.tls_certificates) > 2:
                yield _warning(
                    gateway, at, "two certificates, one of RSA and one of ECDSA, are served at most: remove others"
                )
    for entry in mesh.of_kind("ServiceEntry"):
        if entry.spec.workload_selector is not None and entry.spec.resolution == "NONE":
            yield _warning(entry, "spec.workloadSelector", "has no effect with resolution NONE: use STATIC")
        for index, host in enumerate(entry.spec.hosts):
            if host.startswith("*") and not host.startswith("*."):
                yield _warning(
                    entry, f"spec.hosts[{index}]", "a part of a label cannot be a wildcard in a service: use *."
                )
    for telemetry in mesh.of_kind("Telemetry"):
        if len(telemetry.spec.tracing) > 1 or any(len(each.providers) > 1 for each in telemetry.spec.tracing):
            yield _warning(telemetry, "spec.tracing", "spans go to one provider: keep one")
    for policy in mesh.of_kind("AuthorizationPolicy"):
        for index, rule in enumerate(policy.spec.rules):
            if (
                policy.spec.action == "DENY"
                and rule.to
                and not any(to.operation.ports or to.operation.not_ports for to in rule.to)
            ):
                text = "a rule to deny that speaks of HTTP denies all TCP, too, on ports that are not HTTP: say which ports"
                yield _warning(policy, f"spec.rules[{index}].to", text)


def analyze_injection(mesh: Mesh) -> Iterator[Message]:
    """IST0102, IST0103 and IST0123: where Kubernetes runs the workloads, sidecars come by labels of namespaces."""
    pods: dict[str, list[Resource]] = {}
    for pod in mesh.of_kind("Pod"):
        pods.setdefault(pod.namespace, []).append(pod)
    for namespace in mesh.of_kind("Namespace"):
        labels = namespace.metadata.labels
        injection, revision = labels.get("istio-injection"), labels.get("istio.io/rev")
        if injection and revision:
            text = "has istio-injection and istio.io/rev, of which only the first counts: remove one"
            yield Message(SEVERAL_INJECTION_LABELS, namespace.key, text, "metadata.labels")
        if namespace.name == mesh.root_namespace or namespace.name not in pods:
            continue
        if not injection and not revision:
            text = "its pods get no sidecars: label it with istio-injection=enabled, or =disabled if that is meant"
            yield Message(NAMESPACE_NOT_INJECTED, namespace.key, text, "metadata.labels")
        elif injection == "enabled" or revision:
            for pod in pods[namespace.name]:
                wanted = {**pod.metadata.annotations, **pod.metadata.labels}.get("sidecar.istio.io/inject") != "false"
                if wanted and all(container.name != "istio-proxy" for container in pod.spec.containers):
                    yield Message(
                        POD_MISSING_PROXY, pod.key, "has no sidecar, though its namespace says so: start it anew"
                    )


def _deprecated(resource: Resource, path: str, instead: str) -> Message:
    return Message(DEPRECATED, resource.key, f"is deprecated: use {instead}", path)


def _warning(resource: Resource, path: str, text: str) -> Message:
    return Message(SCHEMA_WARNING, resource.key, text, path)
