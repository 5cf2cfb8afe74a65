"""Services: ports whose names say no protocol, workloads that two services see differently, and services without any."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.galley.analysis.mesh import Mesh, label_text
from controlplane.galley.analysis.messages import (
    ADDRESSES_REQUIRED,
    CONFLICTING_PORTS,
    EXTERNAL_NAME_PORT,
    NO_WORKLOADS,
    PORT_NAME,
    SEVERAL_PROTOCOLS,
    Message,
)
from controlplane.model.resource import Resource
from controlplane.model.service import PortProtocol, select_protocol

_SYSTEM_NAMESPACES = ("kube-system", "kube-public", "kube-node-lease")


def analyze_ports(mesh: Mesh) -> Iterator[Message]:
    """IST0118 and IST0150: the protocol of a port is in its name (`http-web`) or its appProtocol."""
    for service in mesh.of_kind("Service"):
        if service.namespace in _SYSTEM_NAMESPACES:
            continue
        for index, port in enumerate(service.spec.ports):
            protocol = select_protocol(port.port, port.name or "", port.app_protocol or "", port.protocol)
            path = f"spec.ports[{index}].name"
            if service.spec.type == "ExternalName":
                if protocol in (PortProtocol.AUTO, PortProtocol.TCP):
                    text = f"port {port.port} of an ExternalName takes all of its traffic: name it by its protocol, as http-web"
                    yield Message(EXTERNAL_NAME_PORT, service.key, text, path)
            elif protocol is PortProtocol.AUTO and port.protocol == "TCP":
                named = f'"{port.name}"' if port.name else "no name"
                text = f"port {port.port} has {named}, which says no protocol: name it as http-web, or give appProtocol"
                yield Message(PORT_NAME, service.key, text, path)


def analyze_service_workloads(mesh: Mesh) -> Iterator[Message]:
    """IST0127: a service whose selector finds nothing."""
    if not mesh.workloads:
        return
    for service in mesh.of_kind("Service"):
        selector = service.spec.selector
        if selector and service.spec.type != "ExternalName" and not mesh.selected(selector, service.namespace):
            text = f"no workload of the namespace has the labels {label_text(selector)}: requests to it get 503"
            yield Message(NO_WORKLOADS, service.key, text, "spec.selector")
    for entry in mesh.of_kind("ServiceEntry"):
        chosen = entry.spec.workload_selector
        if chosen is not None and chosen.labels and not mesh.selected(chosen.labels, entry.namespace):
            text = f"no workload of the namespace has the labels {label_text(chosen.labels)}: requests to it get 503"
            yield Message(NO_WORKLOADS, entry.key, text, "spec.workloadSelector")


def analyze_shared_workloads(mesh: Mesh) -> Iterator[Message]:
    """IST0116 and IST0137: services of one workload that disagree on a port."""
    of_workloads: dict[int, list[Resource]] = {}
    workloads = {id(workload): workload for workload in mesh.workloads}
    for service in mesh.of_kind("Service"):
        if service.spec.selector:
            for workload in mesh.selected(service.spec.selector, service.namespace):
                of_workloads.setdefault(id(workload), []).append(service)
    told: set[tuple[str, str, str]] = set()
    for place, services in of_workloads.items():
        for index, service in enumerate(services):
            for other in services[index + 1 :]:
                pair = (service.namespace, service.name, other.name)
                if pair not in told:
                    told.add(pair)
                    yield from _disagreements(service, other, workloads[place].name)


def analyze_service_entry_addresses(mesh: Mesh) -> Iterator[Message]:
    """IST0134: TCP is told apart by addresses alone."""
    for entry in mesh.of_kind("ServiceEntry"):
        for index, port in enumerate(entry.spec.ports):
            if not entry.spec.addresses and (port.protocol or "TCP").upper() == "TCP":
                text = (
                    f"port {port.number} carries TCP, for which the host is not told apart from others: give addresses, "
                    "or the protocol if it is another one"
                )
                yield Message(ADDRESSES_REQUIRED, entry.key, text, f"spec.ports[{index}].protocol")


def _disagreements(service: Resource, other: Resource, workload: str) -> Iterator[Message]:
    for index, port in enumerate(service.spec.ports):
        for second in other.spec.ports:
            protocols = (
                select_protocol(port.port, port.name or "", port.app_protocol or "", port.protocol),
                select_protocol(second.port, second.name or "", second.app_protocol or "", second.protocol),
            )
            at = f"spec.ports[{index}]"
            if port.port == second.port and protocols[0] is not protocols[1]:
                text = (
                    f"workload {workload} is of {other.name} too, where port {port.port} is {protocols[1].value}, not "
                    f"{protocols[0].value}: make them agree"
                )
                yield Message(SEVERAL_PROTOCOLS, service.key, text, at)
            target, second_target = port.target_port or port.port, second.target_port or second.port
            if target == second_target and port.port != second.port and port.protocol == second.protocol:
                text = (
                    f"workload {workload} is of {other.name} too, where its port {target} is {second.port}, not "
                    f"{port.port}: make them agree"
                )
                yield Message(CONFLICTING_PORTS, service.key, text, at)
