"""Where VirtualServices send traffic: services, ports, subsets, mirrors and delegates that must be there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from controlplane.galley.analysis.mesh import Mesh
from controlplane.galley.analysis.messages import NOT_FOUND, PORT_REQUIRED, SUBSETS_NOT_AT_GATEWAY, Message
from controlplane.model.istio.destination import Destination
from controlplane.model.istio.virtual_service import VirtualService
from controlplane.model.resource import Resource


class Target(NamedTuple):
    """One destination of a VirtualService, and the path of it."""

    path: str
    destination: Destination
    mirror: bool


def targets(spec: VirtualService) -> Iterator[Target]:
    """All destinations of a VirtualService, of all protocols, with mirrors."""
    for index, http in enumerate(spec.http):
        for number, route in enumerate(http.route):
            yield Target(f"spec.http[{index}].route[{number}].destination", route.destination, False)
        if http.mirror is not None:
            yield Target(f"spec.http[{index}].mirror", http.mirror, True)
        for number, mirror in enumerate(http.mirrors):
            yield Target(f"spec.http[{index}].mirrors[{number}].destination", mirror.destination, True)
    for protocol, routes in (
        ("tls", [each.route for each in spec.tls]),
        ("tcp", [each.route for each in spec.tcp]),
    ):
        for index, destinations in enumerate(routes):
            for number, to in enumerate(destinations):
                yield Target(f"spec.{protocol}[{index}].route[{number}].destination", to.destination, False)


def analyze_destinations(mesh: Mesh) -> Iterator[Message]:
    """IST0101 and IST0112: what VirtualServices name must be there, and be one thing."""
    subsets = _subsets(mesh)
    for resource in mesh.of_kind("VirtualService"):
        for target in targets(resource.spec):
            yield from _judge(mesh, resource, target, subsets)
        for index, http in enumerate(resource.spec.http):
            if http.delegate is not None:
                namespace = http.delegate.namespace or resource.namespace
                found = mesh.get("VirtualService", namespace, http.delegate.name)
                path = f"spec.http[{index}].delegate"
                if found is None:
                    text = (
                        f"there is no VirtualService {namespace}/{http.delegate.name}: create it, or correct the name"
                    )
                    yield Message(NOT_FOUND, resource.key, text, path)
                elif not found.spec.is_delegate:
                    text = f"VirtualService {namespace}/{http.delegate.name} has hosts, so it is no delegate: remove them there"
                    yield Message(NOT_FOUND, resource.key, text, path)


def analyze_gateway_subsets(mesh: Mesh) -> Iterator[Message]:
    """IST0140: a route at a gateway goes to a service whose subsets are chosen in the mesh alone."""
    chosen = [
        (mesh.full_name(target.destination.host, resource.namespace), resource.key)
        for resource in mesh.of_kind("VirtualService")
        for target in targets(resource.spec)
        if target.destination.subset
        and mesh.full_name(target.destination.host, resource.namespace)
        in {mesh.full_name(host, resource.namespace) for host in resource.spec.hosts}
    ]
    for resource in mesh.of_kind("VirtualService"):
        if not resource.spec.gateways or "mesh" in resource.spec.gateways:
            continue
        for target in targets(resource.spec):
            if target.destination.subset or target.mirror:
                continue
            host = mesh.full_name(target.destination.host, resource.namespace)
            for key in sorted({key for name, key in chosen if name == host and key != resource.key}):
                text = f"requests at gateways do not follow the subsets of {key}: name a subset here too"
                yield Message(SUBSETS_NOT_AT_GATEWAY, resource.key, text, target.path)


def _judge(mesh: Mesh, resource: Resource, target: Target, subsets: dict[str, set[str]]) -> Iterator[Message]:
    destination = target.destination
    service = mesh.service(destination.host, resource.namespace)
    what = "mirror host" if target.mirror else "host"
    if service is None:
        text = (
            f'{what} "{destination.host}" is no service that {resource.namespace} sees: create it, or correct the name'
        )
        yield Message(NOT_FOUND, resource.key, text, f"{target.path}.host")
        return
    numbers = [port.number for port in service.ports]
    if destination.port is None:
        if len(numbers) > 1:
            listed = ", ".join(map(str, numbers))
            text = f'"{destination.host}" has several ports ({listed}): say which with port.number'
            yield Message(PORT_REQUIRED, resource.key, text, target.path)
    elif numbers and destination.port.number not in numbers:
        listed = ", ".join(map(str, numbers))
        text = f'"{destination.host}" has no port {destination.port.number}: use one of {listed}'
        yield Message(NOT_FOUND, resource.key, text, f"{target.path}.port.number")
    if destination.subset and destination.subset not in subsets.get(service.hostname, ()):
        text = f'no DestinationRule defines subset "{destination.subset}" of "{destination.host}": define it, or correct the name'
        yield Message(NOT_FOUND, resource.key, text, f"{target.path}.subset")


def _subsets(mesh: Mesh) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for rule in mesh.of_kind("DestinationRule"):
        host = mesh.full_name(rule.spec.host, rule.namespace)
        found.setdefault(host, set()).update(subset.name for subset in rule.spec.subsets)
    return found
