"""The mesh as analysis looks at it: services and workloads behind the names that resources use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from controlplane.model.mesh_config import MeshConfig
from controlplane.model.proxy import Proxy
from controlplane.model.registry import Registry, selects, workload_labels
from controlplane.model.resource import Resource, ResourceKey
from controlplane.model.service import Service
from controlplane.model.values import is_within


@dataclass(frozen=True, slots=True)
class Workload:
    """Something that runs, or will: a Pod, a WorkloadEntry, what a WorkloadGroup makes, or a proxy that is connected."""

    name: str
    namespace: str
    labels: Mapping[str, str]


class Mesh:
    """Resources by kind, and what they amount to. ``proxies`` are those that are connected: gateways among them.

    ``domain`` is what the full names of Kubernetes' services end in, ``default_mesh`` the mesh's configuration where its
    ConfigMap is not there.
    """

    def __init__(
        self,
        resources: Mapping[ResourceKey, Resource],
        proxies: Iterable[Proxy] = (),
        domain: str = "cluster.local",
        default_mesh: MeshConfig | None = None,
    ) -> None:
        registry = Registry(default_mesh, domain)
        registry.apply(resources)
        self.snapshot = registry.snapshot
        self.workloads = [*self._workloads(), *(Workload(each.name, each.namespace, each.labels) for each in proxies)]
        self._labelled: dict[tuple[str, str], list[Workload]] = {}
        for workload in self.workloads:
            for label in workload.labels.items():
                self._labelled.setdefault(label, []).append(workload)
        self._services: dict[str, list[Service]] = {}
        for service in self.snapshot.services.values():
            self._services.setdefault(service.hostname, []).append(service)
        self._wildcards = [hostname for hostname in self._services if hostname.startswith("*")]

    @property
    def root_namespace(self) -> str:
        return self.snapshot.root_namespace

    def of_kind(self, kind: str) -> list[Resource]:
        """All resources of a kind, in the order of their keys."""
        return sorted(self.snapshot.of_kind(kind), key=lambda resource: resource.key)

    def get(self, kind: str, namespace: str, name: str) -> Resource | None:
        """One resource; None if there is none."""
        return self.snapshot.get(ResourceKey(kind, namespace, name))

    def full_name(self, host: str, namespace: str) -> str:
        """A host as a resource of a namespace names it, in full: short forms are of Kubernetes' services."""
        domain = self.snapshot.domain
        candidates = (host, f"{host}.{namespace}.svc.{domain}", f"{host}.svc.{domain}", f"{host}.{domain}")
        known = next((name for name in candidates if name in self._services), None)
        if known is not None:
            return known
        return host if "." in host or host.startswith("*") else candidates[1]

    def service(self, host: str, namespace: str) -> Service | None:
        """The service that a host means to resources of a namespace; None if there is none that they see."""
        name = self.full_name(host, namespace)
        found = [service for service in self._services.get(name, ()) if service.visible_to(namespace)]
        if not found:
            found = [
                service
                for hostname in self._wildcards
                if is_within(name, hostname)
                for service in self._services[hostname]
                if service.visible_to(namespace)
            ]
        found.sort(key=lambda service: service.namespace != namespace)
        return found[0] if found else None

    def services(self) -> list[Service]:
        """All services, by their names."""
        found = (service for service in self.snapshot.services.values() if not service.part)
        return sorted(found, key=lambda service: service.key)

    def selected(self, selector: Mapping[str, str], namespace: str | None) -> list[Workload]:
        """The workloads with all labels of a selector, of a namespace or (None) of all."""
        some = (self._labelled.get(label, []) for label in selector.items())
        return [
            workload
            for workload in min(some, key=len, default=self.workloads)
            if namespace in (None, workload.namespace) and selects(selector, workload.labels)
        ]

    def _workloads(self) -> Iterator[Workload]:
        for kind in ("Pod", "WorkloadEntry"):
            for resource in self.snapshot.of_kind(kind):
                yield Workload(resource.name, resource.namespace, workload_labels(resource))
        for group in self.snapshot.of_kind("WorkloadGroup"):
            metadata = group.spec.metadata
            labels = {**(metadata.labels if metadata else {}), **group.spec.template.labels}
            yield Workload(group.name, group.namespace, labels)


def label_text(labels: Mapping[str, str]) -> str:
    """Labels as selectors write them: "app=a,version=v1"."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
