"""Kinds of which one resource counts for each workload: Sidecar and Telemetry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from controlplane.galley.analysis.mesh import Mesh
from controlplane.galley.analysis.messages import (
    CONFLICTING_SIDECARS,
    CONFLICTING_TELEMETRY,
    SEVERAL_DEFAULT_SIDECARS,
    SEVERAL_DEFAULT_TELEMETRY,
    Message,
    MessageType,
)
from controlplane.model.resource import Resource, ResourceKey


def analyze_sidecars(mesh: Mesh) -> Iterator[Message]:
    """IST0110 and IST0111."""

    def selector(resource: Resource) -> Mapping[str, str]:
        return resource.spec.workload_selector.labels if resource.spec.workload_selector else {}

    yield from _judge(mesh, "Sidecar", selector, CONFLICTING_SIDECARS, SEVERAL_DEFAULT_SIDECARS)


def analyze_telemetries(mesh: Mesh) -> Iterator[Message]:
    """IST0159 and IST0160."""

    def selector(resource: Resource) -> Mapping[str, str]:
        return resource.spec.selector.match_labels if resource.spec.selector else {}

    yield from _judge(mesh, "Telemetry", selector, CONFLICTING_TELEMETRY, SEVERAL_DEFAULT_TELEMETRY)


def _judge(
    mesh: Mesh,
    kind: str,
    selector: Callable[[Resource], Mapping[str, str]],
    conflicting: MessageType,
    several: MessageType,
) -> Iterator[Message]:
    namespaces: dict[str, list[Resource]] = {}
    for resource in mesh.of_kind(kind):
        if not getattr(resource.spec, "target_refs", ()) and getattr(resource.spec, "target_ref", None) is None:
            namespaces.setdefault(resource.namespace, []).append(resource)
    for namespace, resources in namespaces.items():
        default = [resource for resource in resources if not selector(resource)]
        if len(default) > 1:
            for resource in default:
                others = ", ".join(each.name for each in default if each is not resource)
                text = f"{others} is for all workloads of the namespace too, and only the oldest counts: keep one"
                yield Message(several, resource.key, text)
        yield from _shared(mesh, namespace, {resource.key: selector(resource) for resource in resources}, conflicting)


def _shared(
    mesh: Mesh, namespace: str, selectors: Mapping[ResourceKey, Mapping[str, str]], conflicting: MessageType
) -> Iterator[Message]:
    of_workload: dict[int, tuple[str, list[ResourceKey]]] = {}
    for key, labels in selectors.items():
        for workload in mesh.selected(labels, namespace) if labels else ():
            of_workload.setdefault(id(workload), (workload.name, []))[1].append(key)
    clashes: dict[ResourceKey, dict[str, str]] = {}  # for each resource the others, with a workload that both select
    for name, keys in of_workload.values():
        for key in keys:
            for other in keys:
                if other != key:
                    clashes.setdefault(key, {}).setdefault(other.name, name)
    for key, others in sorted(clashes.items()):
        listed = ", ".join(f"{other} (workload {workload})" for other, workload in sorted(others.items()))
        text = (
            f"selects workloads that other resources select too: {listed}; only the oldest counts, make them disjoint"
        )
        yield Message(conflicting, key, text)
