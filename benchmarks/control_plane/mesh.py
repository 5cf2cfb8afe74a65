"""A large mesh as documents: services with endpoints in many namespaces, their routes, and Sidecars that narrow the view."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

PORT: Final = 8080


@dataclass(frozen=True, slots=True)
class Size:
    """How large the mesh is."""

    services: int = 1000
    endpoints: int = 10
    namespaces: int = 20
    proxies: int = 500
    scope: int = 20  # services that a Sidecar lets its proxies see

    def service(self, number: int) -> tuple[str, str]:
        """Namespace and name of a service; neighbours in number are in different namespaces."""
        return f"team-{number % self.namespaces}", f"service-{number}"

    def host(self, number: int) -> str:
        """Its full hostname."""
        namespace, name = self.service(number)
        return f"{name}.{namespace}.svc.cluster.local"

    def seen_from(self, namespace: int) -> list[int]:
        """The services that the Sidecar of a namespace lets through: neighbours of each other, in many namespaces."""
        first = namespace * self.scope
        return [(first + offset) % self.services for offset in range(self.scope)]


def namespaces(size: Size) -> Iterator[dict[str, Any]]:
    """All namespaces."""
    for number in range(size.namespaces):
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"team-{number}"}}


def services(size: Size) -> Iterator[dict[str, Any]]:
    """All services, and their endpoints."""
    for number in range(size.services):
        namespace, name = size.service(number)
        yield {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "ports": [{"name": "http", "port": PORT}],
                "clusterIP": f"10.96.{number // 250}.{number % 250 + 1}",
            },
        }
        yield endpoint_slice(size, number)


def endpoint_slice(size: Size, number: int, *, generation: int = 0) -> dict[str, Any]:
    """The endpoints of a service; another generation has another first one."""
    namespace, name = size.service(number)
    addresses = [f"10.{number // 250}.{number % 250}.{one + 1}" for one in range(size.endpoints)]
    addresses[0] = f"10.200.{generation // 250}.{generation % 250 + 1}" if generation else addresses[0]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-1", "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in addresses],
        "ports": [{"name": "http", "port": PORT}],
    }


def virtual_service(size: Size, number: int, timeout: int) -> dict[str, Any]:
    """Routes of a service, with a timeout that tells one version from another."""
    namespace, name = size.service(number)
    route = [{"destination": {"host": size.host(number)}}]
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"hosts": [size.host(number)], "http": [{"timeout": f"{timeout}s", "route": route}]},
    }


def sidecars(size: Size) -> Iterator[dict[str, Any]]:
    """A Sidecar for each namespace."""
    for number in range(size.namespaces):
        hosts = [f"{size.service(one)[0]}/{size.host(one)}" for one in size.seen_from(number)]
        yield {
            "apiVersion": "networking.istio.io/v1",
            "kind": "Sidecar",
            "metadata": {"name": "default", "namespace": f"team-{number}"},
            "spec": {"egress": [{"hosts": hosts}]},
        }
