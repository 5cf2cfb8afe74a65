"""Endpoints (v1) and EndpointSlice (discovery.k8s.io/v1): where a service's workloads are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import Field

from controlplane.model.causes import Cause
from controlplane.model.kubernetes.tolerance import Tolerant
from controlplane.model.values import Bool, Port, Str, domain_complaint, is_ip, shown


class TargetRef(Tolerant):
    """The pod (or WorkloadEntry) that an endpoint is."""

    kind: Str | None = None
    name: Str | None = None
    namespace: Str | None = None
    passed_over = frozenset(("apiVersion", "fieldPath", "resourceVersion", "uid"))


class EndpointAddress(Tolerant):
    """One address."""

    ip: Str
    hostname: Str | None = None
    node_name: Str | None = None
    target_ref: TargetRef | None = None

    def problems(self) -> Iterable[Cause]:
        if not is_ip(self.ip):
            yield Cause("ip", f"{shown(self.ip)} is not an address: give an IP")


class EndpointPort(Tolerant):
    """A port that all addresses beside it have."""

    name: Str | None = None
    port: Port | None = None
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    app_protocol: Str | None = None


class EndpointSubset(Tolerant):
    """Addresses with the same ports."""

    addresses: tuple[EndpointAddress, ...] = ()
    not_ready_addresses: tuple[EndpointAddress, ...] = ()
    ports: tuple[EndpointPort, ...] = ()


class Endpoints(Tolerant):
    """The endpoints of the service of the same name."""

    subsets: tuple[EndpointSubset, ...] = ()


class EndpointConditions(Tolerant):
    """What is known of an endpoint; what is not said is as good as true, but for ``terminating``."""

    ready: Bool | None = None
    serving: Bool | None = None
    terminating: Bool | None = None


class Endpoint(Tolerant):
    """One endpoint of a slice."""

    addresses: tuple[Str, ...]
    conditions: EndpointConditions | None = None
    hostname: Str | None = None
    node_name: Str | None = None
    target_ref: TargetRef | None = None
    zone: Str | None = None
    deprecated_topology: Mapping[Str, Any] = Field(default_factory=dict)
    passed_over = frozenset(("hints",))


class EndpointSlice(Tolerant):
    """Some endpoints of the service that the label `kubernetes.io/service-name` names."""

    address_type: Literal["IPv4", "IPv6", "FQDN"]
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[EndpointPort, ...] = ()

    def problems(self) -> Iterable[Cause]:
        for index, endpoint in enumerate(self.endpoints):
            for number, address in enumerate(endpoint.addresses):
                at = f"endpoints[{index}].addresses[{number}]"
                if self.address_type == "FQDN":
                    if complaint := domain_complaint(address):
                        yield Cause(at, complaint)
                elif not is_ip(address) or (":" in address) != (self.address_type == "IPv6"):
                    yield Cause(at, f"{shown(address)} is not an address of {self.address_type}")
