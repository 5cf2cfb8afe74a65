"""The mesh at one moment: every resource, and the services and endpoints that they amount to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from controlplane.model.mesh_config import MeshConfig
from controlplane.model.resource import Resource, ResourceKey
from controlplane.model.service import Endpoint, Service, ServiceKey

ByName = Mapping[str, Resource]


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """Immutable. ``resources`` are by kind, namespace and name. ``mesh`` is the MeshConfig.

    ``services`` are by namespace and hostname; ``endpoints`` has an entry for each of them.
    """

    mesh: MeshConfig
    resources: Mapping[str, Mapping[str, ByName]] = field(default_factory=dict)
    services: Mapping[ServiceKey, Service] = field(default_factory=dict)
    endpoints: Mapping[ServiceKey, Sequence[Endpoint]] = field(default_factory=dict)
    domain: str = "cluster.local"

    def get(self, key: ResourceKey) -> Resource | None:
        """The resource of that key."""
        return self.resources.get(key.kind, {}).get(key.namespace, {}).get(key.name)

    def of_kind(self, kind: str, namespace: str | None = None) -> Iterator[Resource]:
        """The resources of a kind, in one namespace or in all."""
        spaces = self.resources.get(kind, {})
        if namespace is not None:
            yield from spaces.get(namespace, {}).values()
            return
        for names in spaces.values():
            yield from names.values()

    @property
    def root_namespace(self) -> str:
        """The namespace whose Sidecars, DestinationRules and policies hold for the whole mesh."""
        return self.mesh.root_namespace


def with_resources(
    resources: Mapping[str, Mapping[str, ByName]], changed: Mapping[ResourceKey, Resource | None]
) -> dict[str, Mapping[str, ByName]]:
    """``resources`` after a change. What is not touched is shared with the mapping before."""
    kinds: dict[str, Mapping[str, ByName]] = dict(resources)
    fresh_kinds: dict[str, dict[str, ByName]] = {}
    fresh: dict[tuple[str, str], dict[str, Resource]] = {}
    for key, resource in changed.items():
        spaces = fresh_kinds.get(key.kind)
        if spaces is None:
            spaces = fresh_kinds[key.kind] = dict(kinds.get(key.kind, {}))
            kinds[key.kind] = spaces
        names = fresh.get((key.kind, key.namespace))
        if names is None:
            names = fresh[key.kind, key.namespace] = dict(spaces.get(key.namespace, {}))
            spaces[key.namespace] = names
        if resource is None:
            names.pop(key.name, None)
        else:
            names[key.name] = resource
    return kinds


def oldest_first(resources: Iterable[Resource]) -> list[Resource]:
    """In the order in which they were made, then of their names: how Istio decides between equals."""
    return sorted(resources, key=lambda found: (found.metadata.created, found.name, found.namespace))
