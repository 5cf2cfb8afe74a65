"""MeshConfig: settings of the whole mesh (Istio reference: istio.mesh.v1alpha1).

It is a document of its own, without kind and metadata: in a file, or, as Istio has it, as YAML in the key `mesh` of the
ConfigMap `istio` in the namespace `istio-system`. What it does not say is as Istio's reference has it by default.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import Field

from controlplane.model.causes import Cause, Invalid, Reason
from controlplane.model.documents import Unreadable, read_documents
from controlplane.model.istio.destination import Destination
from controlplane.model.istio.http_policies import HTTPRetry
from controlplane.model.istio.selection import export_to_problems
from controlplane.model.istio.tls import TLSProtocol
from controlplane.model.istio.traffic_policy import LocalityLbSetting, TcpKeepalive
from controlplane.model.mesh_providers import MeshExtensionProvider, Topology
from controlplane.model.model_parsing import parse_model
from controlplane.model.resource import Model, Resource, ResourceKey
from controlplane.model.values import (
    Bool,
    Duration,
    DurationOrZero,
    Int,
    Port,
    Str,
    dns_label_complaint,
    domain_complaint,
)

MESH_CONFIG_MAP = ResourceKey("ConfigMap", "istio-system", "istio")
"""The ConfigMap that has the mesh's configuration, in its key `mesh`."""


class OutboundTrafficPolicy(Model):
    """What becomes of traffic to hosts that the mesh does not know."""

    mode: Literal["REGISTRY_ONLY", "ALLOW_ANY"] = "ALLOW_ANY"
    egress_proxy: Destination | None = None


class InboundTrafficPolicy(Model):
    """Where captured traffic for ports that no service has goes: to the address it was for, or to loopback."""

    mode: Literal["PASSTHROUGH", "LOCALHOST"] = "PASSTHROUGH"


class PathNormalization(Model):
    """How paths are made canonical before anything looks at them."""

    normalization: Literal["DEFAULT", "NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"] = "DEFAULT"


class TLSConfig(Model):
    """What TLS has at least."""

    min_protocol_version: TLSProtocol = "TLS_AUTO"
    cipher_suites: tuple[Str, ...] = ()
    ecdh_curves: tuple[Str, ...] = ()


class DefaultProviders(Model):
    """The extension providers where a Telemetry resource names none."""

    tracing: tuple[Str, ...] = ()
    metrics: tuple[Str, ...] = ()
    access_logging: tuple[Str, ...] = ()


class LabelRequirement(Model):
    """A condition on one label."""

    key: Str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[Str, ...] = ()


class NamespaceSelector(Model):
    """Namespaces by their labels, as Kubernetes' LabelSelector."""

    match_labels: Mapping[Str, Str] = Field(default_factory=dict)
    match_expressions: tuple[LabelRequirement, ...] = ()


class ProxyDefaults(Model):
    """`defaultConfig`: settings of every proxy, for which its own ProxyConfig or metadata says nothing else."""

    discovery_address: Str | None = None
    concurrency: Int | None = None
    drain_duration: Duration | None = None
    termination_drain_duration: Duration | None = None
    proxy_admin_port: Port | None = None
    status_port: Port | None = None
    mesh_id: Str | None = None
    proxy_metadata: Mapping[Str, Str] = Field(default_factory=dict)
    hold_application_until_proxy_starts: Bool | None = None
    gateway_topology: Topology | None = None


class MeshConfig(Model):
    """Settings of the whole mesh."""

    proxy_listen_port: Port = 15001
    proxy_inbound_listen_port: Port = 15006
    proxy_http_port: Port | None = None
    connect_timeout: Duration = 10.0
    protocol_detection_timeout: DurationOrZero = 0.0
    tcp_keepalive: TcpKeepalive | None = None
    enable_tracing: Bool = True
    access_log_file: Str | None = None
    access_log_format: Str | None = None
    access_log_encoding: Literal["TEXT", "JSON"] = "TEXT"
    default_config: ProxyDefaults = ProxyDefaults()
    outbound_traffic_policy: OutboundTrafficPolicy = OutboundTrafficPolicy()
    inbound_traffic_policy: InboundTrafficPolicy = InboundTrafficPolicy()
    enable_auto_mtls: Bool = True
    trust_domain: Str = "cluster.local"
    trust_domain_aliases: tuple[Str, ...] = ()
    default_service_export_to: tuple[Str, ...] = ("*",)
    default_virtual_service_export_to: tuple[Str, ...] = ("*",)
    default_destination_rule_export_to: tuple[Str, ...] = ("*",)
    root_namespace: Str = "istio-system"
    locality_lb_setting: LocalityLbSetting = LocalityLbSetting()
    dns_refresh_rate: Duration = 60.0
    h2_upgrade_policy: Literal["DO_NOT_UPGRADE", "UPGRADE"] = "DO_NOT_UPGRADE"
    inbound_cluster_stat_name: Str | None = None
    outbound_cluster_stat_name: Str | None = None
    enable_prometheus_merge: Bool = True
    verify_certificate_at_client: Bool = True
    discovery_selectors: tuple[NamespaceSelector, ...] = ()
    path_normalization: PathNormalization = PathNormalization()
    default_http_retry_policy: HTTPRetry | None = None
    mesh_mtls: TLSConfig | None = Field(default=None, alias="meshMTLS")
    tls_defaults: TLSConfig | None = None
    extension_providers: tuple[MeshExtensionProvider, ...] = ()
    default_providers: DefaultProviders = DefaultProviders()

    def problems(self) -> Iterable[Cause]:
        if complaint := domain_complaint(self.trust_domain):
            yield Cause("trustDomain", complaint)
        if complaint := dns_label_complaint(self.root_namespace):
            yield Cause("rootNamespace", complaint)
        for name in (
            "default_service_export_to",
            "default_virtual_service_export_to",
            "default_destination_rule_export_to",
        ):
            yield from export_to_problems(getattr(self, name), type(self).model_fields[name].alias or name)
        names = [provider.name for provider in self.extension_providers]
        for index, name in enumerate(names):
            if name in names[:index]:
                at = f"extensionProviders[{index}].name"
                yield Cause(at, f'"{name}" is a provider already: rename one', Reason.DUPLICATE)
        ports = (self.proxy_listen_port, self.proxy_inbound_listen_port, self.proxy_http_port)
        if len(set(ports)) < len(ports):
            yield Cause("proxyListenPort", "the proxy's ports must differ from each other: change one")

    def provider(self, name: str) -> MeshExtensionProvider | None:
        """The extension provider of that name; None if there is none."""
        return next((provider for provider in self.extension_providers if provider.name == name), None)


def read_mesh_config(text: str, path: str = "") -> MeshConfig:
    """The mesh's configuration from its document in YAML or JSON. Raises Invalid with fields below ``path``."""
    try:
        documents = read_documents(text, path)
    except Unreadable as error:
        line = f"line {error.origin.line}: " if error.origin.line else ""
        raise Invalid([Cause(path, f"{line}{error.message}")]) from None
    if len(documents) > 1:
        raise Invalid([Cause(path, f"has {len(documents)} documents: a mesh has one configuration")])
    return parse_model(MeshConfig, documents[0][0] if documents else {}, path)


def mesh_config(resources: Mapping[ResourceKey, Resource], fallback: MeshConfig | None = None) -> MeshConfig:
    """The mesh's configuration: that of its ConfigMap, else ``fallback`` (of a file), else Istio's defaults.

    The ConfigMap has been judged with the other resources, so that it is right.
    """
    resource = resources.get(MESH_CONFIG_MAP)
    if resource is None or "mesh" not in resource.spec.data:
        return fallback or MeshConfig()
    return read_mesh_config(resource.spec.data["mesh"])
