"""Service (v1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import Field

from controlplane.model.causes import Cause, Reason
from controlplane.model.istio.selection import selector_problems
from controlplane.model.kubernetes.tolerance import Tolerant
from controlplane.model.values import (
    Bool,
    IntOrString,
    Port,
    Str,
    dns_label_complaint,
    dns_subdomain_complaint,
    is_ip,
    shown,
)


class ServicePort(Tolerant):
    """A port of a service. ``target_port`` is a number or the name of a container's port; without it, ``port``."""

    name: Str | None = None
    port: Port
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    app_protocol: Str | None = None
    target_port: IntOrString | None = None
    passed_over = frozenset(("nodePort",))

    def problems(self) -> Iterable[Cause]:
        if self.name and (complaint := dns_label_complaint(self.name)):
            yield Cause("name", complaint)
        target = self.target_port
        if isinstance(target, int) and not 1 <= target <= 65535:
            yield Cause("targetPort", f"a port must be from 1 to 65535, not {target}")
        elif isinstance(target, str) and (complaint := dns_label_complaint(target)):
            yield Cause("targetPort", complaint)


class Service(Tolerant):
    """A name for the pods and workloads with the labels of ``selector``."""

    ports: tuple[ServicePort, ...] = ()
    selector: Mapping[Str, Str] = Field(default_factory=dict)
    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] = "ClusterIP"
    cluster_ip: Str | None = Field(default=None, alias="clusterIP")
    cluster_ips: tuple[Str, ...] = Field(default=(), alias="clusterIPs")
    external_ips: tuple[Str, ...] = Field(default=(), alias="externalIPs")
    external_name: Str | None = None
    publish_not_ready_addresses: Bool | None = None
    merge_keys = {"ports": "port"}
    passed_over = frozenset(
        (
            "allocateLoadBalancerNodePorts",
            "externalTrafficPolicy",
            "healthCheckNodePort",
            "internalTrafficPolicy",
            "ipFamilies",
            "ipFamilyPolicy",
            "ipFamily",
            "loadBalancerClass",
            "loadBalancerIP",
            "loadBalancerSourceRanges",
            "sessionAffinity",
            "sessionAffinityConfig",
            "topologyKeys",
            "trafficDistribution",
        )
    )

    @property
    def is_headless(self) -> bool:
        """Whether clients resolve the name to the endpoints themselves."""
        return self.cluster_ip == "None"

    def problems(self) -> Iterable[Cause]:
        if self.type == "ExternalName":
            if not self.external_name:
                yield Cause("externalName", "is required for type ExternalName: name the host", Reason.REQUIRED)
            elif complaint := dns_subdomain_complaint(self.external_name.removesuffix(".").lower()):
                yield Cause("externalName", complaint)
        elif not self.ports and not self.is_headless:
            yield Cause("ports", "is required: give at least one port", Reason.REQUIRED)
        yield from selector_problems(self.selector, "selector")
        if self.cluster_ip and self.cluster_ip != "None" and not is_ip(self.cluster_ip):
            yield Cause("clusterIP", f'{shown(self.cluster_ip)} is not an address: give an IP, "None", or nothing')
        names = [port.name or "" for port in self.ports]
        for index, name in enumerate(names):
            if not name and len(names) > 1:
                yield Cause(
                    f"ports[{index}].name", "is required where there are several ports: name it", Reason.REQUIRED
                )
            elif name in names[:index]:
                yield Cause(f"ports[{index}].name", f"{shown(name)} is there twice: change one", Reason.DUPLICATE)
        numbers = [(port.port, port.protocol) for port in self.ports]
        for index, number in enumerate(numbers):
            if number in numbers[:index]:
                yield Cause(f"ports[{index}].port", f"{number[0]} is there twice: change one", Reason.DUPLICATE)
