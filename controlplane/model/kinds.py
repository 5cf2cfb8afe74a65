"""The kinds of resources: what they are called, in which versions they are accepted, how `kubectl get` shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.model import columns
from controlplane.model.columns import AGE, Column, column
from controlplane.model.istio.authorization_policy import AuthorizationPolicy
from controlplane.model.istio.destination_rule import DestinationRule
from controlplane.model.istio.envoy_filter import EnvoyFilter
from controlplane.model.istio.gateway import Gateway
from controlplane.model.istio.peer_authentication import PeerAuthentication
from controlplane.model.istio.proxy_config import ProxyConfig
from controlplane.model.istio.request_authentication import RequestAuthentication
from controlplane.model.istio.service_entry import ServiceEntry
from controlplane.model.istio.sidecar import Sidecar
from controlplane.model.istio.telemetry import Telemetry
from controlplane.model.istio.virtual_service import VirtualService
from controlplane.model.istio.workload_entry import WorkloadEntry
from controlplane.model.istio.workload_group import WorkloadGroup
from controlplane.model.kubernetes.config_map import ConfigMap, Secret
from controlplane.model.kubernetes.endpoints import Endpoints, EndpointSlice
from controlplane.model.kubernetes.namespace import Namespace
from controlplane.model.kubernetes.pod import Pod
from controlplane.model.kubernetes.service import Service
from controlplane.model.resource import Model

__all__ = ["KINDS", "Column", "Kind"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of resource, served below `/apis/{group}/{version}` (`/api/v1` where ``group`` is empty).

    ``versions`` are the accepted ones, the preferred one first; all have the same shape. ``model`` is of the document's
    `spec` if ``has_spec``, else of its whole body but for `apiVersion`, `kind`, `metadata` and `status`. ``columns`` are
    those behind the name.
    """

    name: str
    group: str
    versions: tuple[str, ...]
    plural: str
    singular: str
    model: type[Model]
    short_names: tuple[str, ...] = ()
    namespaced: bool = True
    has_spec: bool = True
    columns: tuple[Column, ...] = (AGE,)

    @property
    def api_version(self) -> str:
        """`apiVersion` of the preferred version."""
        return self.api_versions[0]

    @property
    def api_versions(self) -> tuple[str, ...]:
        """The `apiVersion`s that are accepted, the preferred one first."""
        return tuple(f"{self.group}/{version}" if self.group else version for version in self.versions)


_NETWORKING = ("networking.istio.io", ("v1", "v1beta1", "v1alpha3"))
_SECURITY = ("security.istio.io", ("v1", "v1beta1"))

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "VirtualService",
            *_NETWORKING,
            "virtualservices",
            "virtualservice",
            VirtualService,
            ("vs",),
            columns=(column("Gateways", "spec.gateways"), column("Hosts", "spec.hosts"), AGE),
        ),
        Kind(
            "DestinationRule",
            *_NETWORKING,
            "destinationrules",
            "destinationrule",
            DestinationRule,
            ("dr",),
            columns=(column("Host", "spec.host"), AGE),
        ),
        Kind("Gateway", *_NETWORKING, "gateways", "gateway", Gateway, ("gw",)),
        Kind(
            "ServiceEntry",
            *_NETWORKING,
            "serviceentries",
            "serviceentry",
            ServiceEntry,
            ("se",),
            columns=(
                column("Hosts", "spec.hosts"),
                column("Location", "spec.location"),
                column("Resolution", "spec.resolution"),
                AGE,
            ),
        ),
        Kind(
            "WorkloadEntry",
            *_NETWORKING,
            "workloadentries",
            "workloadentry",
            WorkloadEntry,
            ("we",),
            columns=(AGE, column("Address", "spec.address")),
        ),
        Kind("WorkloadGroup", *_NETWORKING, "workloadgroups", "workloadgroup", WorkloadGroup, ("wg",)),
        Kind("Sidecar", *_NETWORKING, "sidecars", "sidecar", Sidecar),
        Kind("ProxyConfig", "networking.istio.io", ("v1beta1",), "proxyconfigs", "proxyconfig", ProxyConfig),
        Kind("EnvoyFilter", "networking.istio.io", ("v1alpha3",), "envoyfilters", "envoyfilter", EnvoyFilter, ("ef",)),
        Kind(
            "Telemetry",
            "telemetry.istio.io",
            ("v1", "v1alpha1"),
            "telemetries",
            "telemetry",
            Telemetry,
            ("telemetry",),
        ),
        Kind(
            "PeerAuthentication",
            *_SECURITY,
            "peerauthentications",
            "peerauthentication",
            PeerAuthentication,
            ("pa",),
            columns=(column("Mode", "spec.mtls.mode"), AGE),
        ),
        Kind(
            "RequestAuthentication",
            *_SECURITY,
            "requestauthentications",
            "requestauthentication",
            RequestAuthentication,
            ("ra",),
        ),
        Kind(
            "AuthorizationPolicy",
            *_SECURITY,
            "authorizationpolicies",
            "authorizationpolicy",
            AuthorizationPolicy,
            ("ap",),
            columns=(column("Action", "spec.action"), AGE),
        ),
        Kind("Service", "", ("v1",), "services", "service", Service, ("svc",), columns=columns.SERVICE),
        Kind(
            "Endpoints",
            "",
            ("v1",),
            "endpoints",
            "endpoints",
            Endpoints,
            ("ep",),
            has_spec=False,
            columns=columns.ENDPOINTS,
        ),
        Kind(
            "EndpointSlice",
            "discovery.k8s.io",
            ("v1",),
            "endpointslices",
            "endpointslice",
            EndpointSlice,
            has_spec=False,
            columns=columns.ENDPOINT_SLICE,
        ),
        Kind(
            "Namespace",
            "",
            ("v1",),
            "namespaces",
            "namespace",
            Namespace,
            ("ns",),
            namespaced=False,
            columns=columns.NAMESPACE,
        ),
        Kind("Pod", "", ("v1",), "pods", "pod", Pod, ("po",), columns=columns.POD),
        Kind("Secret", "", ("v1",), "secrets", "secret", Secret, has_spec=False, columns=columns.SECRET),
        Kind(
            "ConfigMap",
            "",
            ("v1",),
            "configmaps",
            "configmap",
            ConfigMap,
            ("cm",),
            has_spec=False,
            columns=columns.CONFIG_MAP,
        ),
    )
}
"""All kinds, by name."""
