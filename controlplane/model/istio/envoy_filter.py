"""EnvoyFilter: changes of what is generated for Envoy (Istio reference: networking/envoy-filter)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from controlplane.model.causes import Cause, Reason
from controlplane.model.istio.envoy_values import envoy_complaints
from controlplane.model.istio.selection import LabelSelector, PolicyTargetReference
from controlplane.model.oneof import exclusive
from controlplane.model.resource import Model
from controlplane.model.values import Int, Port, Regex, Str

ApplyTo = Literal[
    "LISTENER",
    "FILTER_CHAIN",
    "NETWORK_FILTER",
    "HTTP_FILTER",
    "ROUTE_CONFIGURATION",
    "VIRTUAL_HOST",
    "HTTP_ROUTE",
    "CLUSTER",
    "EXTENSION_CONFIG",
    "LISTENER_FILTER",
    "BOOTSTRAP",
    "INVALID",
]


class ProxyMatch(Model):
    """Proxies by version (a regular expression of the node's metadata ISTIO_VERSION) and metadata."""

    proxy_version: Regex | None = None
    metadata: Mapping[Str, Str] = Field(default_factory=dict)


class SubFilterMatch(Model):
    """An HTTP filter within the connection manager."""

    name: Str | None = None


class FilterMatch(Model):
    """A network filter, and an HTTP filter within it."""

    name: Str | None = None
    sub_filter: SubFilterMatch | None = None


class FilterChainMatch(Model):
    """A filter chain."""

    name: Str | None = None
    sni: Str | None = None
    transport_protocol: Str | None = None
    application_protocols: Str | None = None
    filter: FilterMatch | None = None
    destination_port: Port | None = None


class ListenerMatch(Model):
    """A listener, and what is within it."""

    port_number: Port | None = None
    port_name: Str | None = None
    filter_chain: FilterChainMatch | None = None
    listener_filter: Str | None = None
    name: Str | None = None


class RouteMatch(Model):
    """A route within a virtual host."""

    name: Str | None = None
    action: Literal["ANY", "ROUTE", "REDIRECT", "DIRECT_RESPONSE"] = "ANY"


class VirtualHostMatch(Model):
    """A virtual host (`HOST:PORT`), and a route within it."""

    name: Str | None = None
    domain_name: Str | None = None
    route: RouteMatch | None = None


class RouteConfigurationMatch(Model):
    """A route configuration, and what is within it."""

    port_number: Port | None = None
    port_name: Str | None = None
    gateway: Str | None = None
    vhost: VirtualHostMatch | None = None
    name: Str | None = None


class ClusterMatch(Model):
    """A cluster, by what it was made from."""

    port_number: Port | None = None
    service: Str | None = None
    subset: Str | None = None
    name: Str | None = None


class EnvoyConfigObjectMatch(Model):
    """What a patch is of."""

    context: Literal["ANY", "SIDECAR_INBOUND", "SIDECAR_OUTBOUND", "GATEWAY"] = "ANY"
    proxy: ProxyMatch | None = None
    listener: ListenerMatch | None = None
    route_configuration: RouteConfigurationMatch | None = None
    cluster: ClusterMatch | None = None

    def problems(self) -> Iterable[Cause]:
        return exclusive(self, "listener", "route_configuration", "cluster")


class Patch(Model):
    """What is done, and with what: ``value`` is a part of Envoy's configuration."""

    operation: Literal["INVALID", "MERGE", "ADD", "REMOVE", "INSERT_BEFORE", "INSERT_AFTER", "INSERT_FIRST", "REPLACE"]
    value: Mapping[Str, Any] | None = None
    filter_class: Literal["UNSPECIFIED", "AUTHN", "AUTHZ", "STATS"] = "UNSPECIFIED"


_LISTENERS = ("LISTENER", "FILTER_CHAIN", "NETWORK_FILTER", "HTTP_FILTER", "LISTENER_FILTER")
_ROUTES = ("ROUTE_CONFIGURATION", "VIRTUAL_HOST", "HTTP_ROUTE")
_INSERTED = ("NETWORK_FILTER", "HTTP_FILTER", "HTTP_ROUTE", "LISTENER_FILTER", "FILTER_CHAIN")


class EnvoyConfigObjectPatch(Model):
    """One patch."""

    apply_to: ApplyTo
    match: EnvoyConfigObjectMatch | None = None
    patch: Patch

    def problems(self) -> Iterable[Cause]:
        if self.apply_to == "INVALID":
            yield Cause("applyTo", "is required: say what is patched", Reason.REQUIRED)
            return
        if self.apply_to == "BOOTSTRAP":
            yield Cause("applyTo", "bootstraps are not patched: edit the proxy's own file", Reason.NOT_SUPPORTED)
            return
        yield from self._match_problems()
        yield from self._patch_problems()

    def _match_problems(self) -> Iterator[Cause]:
        match = self.match
        if match is None:
            return
        for name, given, fitting in (
            ("listener", match.listener, _LISTENERS),
            ("routeConfiguration", match.route_configuration, _ROUTES),
            ("cluster", match.cluster, ("CLUSTER",)),
        ):
            if given is not None and self.apply_to not in fitting:
                yield Cause(f"match.{name}", f"is not for applyTo {self.apply_to}: it is for {', '.join(fitting)}")
        chain = match.listener.filter_chain if match.listener else None
        if chain is not None and chain.filter is not None:
            if self.apply_to not in ("NETWORK_FILTER", "HTTP_FILTER"):
                yield Cause("match.listener.filterChain.filter", f"is not for applyTo {self.apply_to}: remove it")
            elif chain.filter.sub_filter is not None and self.apply_to != "HTTP_FILTER":
                yield Cause(
                    "match.listener.filterChain.filter.subFilter", "is for applyTo HTTP_FILTER: change one of them"
                )

    def _patch_problems(self) -> Iterator[Cause]:
        operation, value = self.patch.operation, self.patch.value
        if operation == "INVALID":
            yield Cause("patch.operation", "is required: say what is done", Reason.REQUIRED)
        elif operation == "REMOVE":
            if value is not None:
                yield Cause("patch.value", "has no effect with operation REMOVE: remove it")
            return
        elif value is None:
            yield Cause("patch.value", f"is required for operation {operation}: give a part of Envoy's configuration",
                        Reason.REQUIRED)  # fmt: skip
        if operation in ("INSERT_BEFORE", "INSERT_AFTER", "INSERT_FIRST") and self.apply_to not in _INSERTED:
            yield Cause("patch.operation", f"{operation} is not for {self.apply_to}, which has no order: use ADD",
                        Reason.NOT_SUPPORTED)  # fmt: skip
        if operation == "REPLACE" and self.apply_to not in ("NETWORK_FILTER", "HTTP_FILTER", "LISTENER_FILTER"):
            yield Cause("patch.operation", f"REPLACE is for filters, not for {self.apply_to}: use REMOVE and ADD, or MERGE",
                        Reason.NOT_SUPPORTED)  # fmt: skip
        if self.patch.filter_class != "UNSPECIFIED" and operation != "ADD":
            yield Cause("patch.filterClass", "is for operation ADD: remove it")
        if value is not None:
            yield from (Cause(f"patch.value{at}", message) for at, message in envoy_complaints(self.apply_to, value))


class EnvoyFilter(Model):
    """Patches for the selected workloads' proxies (for all of the namespace, of the mesh in the root namespace)."""

    workload_selector: LabelSelector | None = None
    target_refs: tuple[PolicyTargetReference, ...] = ()
    config_patches: tuple[EnvoyConfigObjectPatch, ...] = ()
    priority: Int | None = None

    def problems(self) -> Iterable[Cause]:
        if not self.config_patches:
            yield Cause("configPatches", "is required: add a patch", Reason.REQUIRED)
