"""Annotations of Istio's: those that nobody reads, or that say what cannot be.

Source: https://istio.io/latest/docs/reference/config/annotations/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from controlplane.galley.analysis.mesh import Mesh
from controlplane.galley.analysis.messages import (
    DEPRECATED_ANNOTATION,
    INVALID_ANNOTATION,
    MISPLACED_ANNOTATION,
    UNKNOWN_ANNOTATION,
    Message,
)
from controlplane.model.kinds import KINDS
from controlplane.model.resource import Resource
from controlplane.model.values import is_port


class _Annotation(NamedTuple):
    kinds: tuple[str, ...]  # what it is for; () for any
    judge: Callable[[str], bool] | None = None
    wanted: str = ""
    instead: str = ""  # what to use, if it is deprecated


def _one_of(*words: str) -> Callable[[str], bool]:
    return lambda value: value in words


def _ports(value: str) -> bool:
    return value == "*" or all(not part or is_port(part) for part in value.split(","))


_BOOLEAN = (_one_of("true", "false"), "true or false, in quotes")
_PORTS = (_ports, "ports with commas between them")
_POD = ("Pod", "WorkloadEntry", "WorkloadGroup")

_KNOWN = {
    "galley.istio.io/analyze-suppress": _Annotation(()),
    "inject.istio.io/templates": _Annotation(_POD),
    "istio.io/autoRegistrationGroup": _Annotation(("WorkloadEntry",)),
    "istio.io/connectedAt": _Annotation(("WorkloadEntry",)),
    "istio.io/disconnectedAt": _Annotation(("WorkloadEntry",)),
    "istio.io/workloadController": _Annotation(("WorkloadEntry",)),
    "istio.io/dry-run": _Annotation(("AuthorizationPolicy",), *_BOOLEAN),
    "istio.io/rev": _Annotation(_POD),
    "networking.istio.io/exportTo": _Annotation(("Service",)),
    "networking.istio.io/traffic-distribution": _Annotation(("Service", "ServiceEntry")),
    "prometheus.istio.io/merge-metrics": _Annotation(_POD, *_BOOLEAN),
    "proxy.istio.io/config": _Annotation(_POD),
    "proxy.istio.io/overrides": _Annotation(_POD),
    "readiness.status.sidecar.istio.io/applicationPorts": _Annotation(_POD, *_PORTS),
    "security.istio.io/tlsMode": _Annotation(_POD, _one_of("istio", "disabled"), "istio or disabled"),
    "sidecar.istio.io/bootstrapOverride": _Annotation(_POD),
    "sidecar.istio.io/discoveryAddress": _Annotation(_POD, instead="proxy.istio.io/config"),
    "sidecar.istio.io/inject": _Annotation(_POD, *_BOOLEAN, "the label of the same name"),
    "sidecar.istio.io/interceptionMode": _Annotation(_POD, _one_of("REDIRECT", "TPROXY", "NONE"), "REDIRECT, TPROXY or NONE"),
    "sidecar.istio.io/logLevel": _Annotation(_POD),
    "sidecar.istio.io/proxyCPU": _Annotation(_POD),
    "sidecar.istio.io/proxyCPULimit": _Annotation(_POD),
    "sidecar.istio.io/proxyImage": _Annotation(_POD),
    "sidecar.istio.io/proxyImageType": _Annotation(_POD),
    "sidecar.istio.io/proxyMemory": _Annotation(_POD),
    "sidecar.istio.io/proxyMemoryLimit": _Annotation(_POD),
    "sidecar.istio.io/rewriteAppHTTPProbers": _Annotation(_POD, *_BOOLEAN),
    "sidecar.istio.io/statsInclusionPrefixes": _Annotation(_POD, instead="proxy.istio.io/config"),
    "sidecar.istio.io/statsInclusionRegexps": _Annotation(_POD, instead="proxy.istio.io/config"),
    "sidecar.istio.io/statsInclusionSuffixes": _Annotation(_POD, instead="proxy.istio.io/config"),
    "sidecar.istio.io/status": _Annotation(_POD),
    "sidecar.istio.io/userVolume": _Annotation(_POD),
    "sidecar.istio.io/userVolumeMount": _Annotation(_POD),
    "status.sidecar.istio.io/port": _Annotation(_POD, _ports, "a port"),
    "topology.istio.io/controlPlaneClusters": _Annotation(("Namespace",)),
    "traffic.istio.io/nodeSelector": _Annotation(("Service",)),
    "traffic.sidecar.istio.io/excludeInboundPorts": _Annotation(_POD, *_PORTS),
    "traffic.sidecar.istio.io/excludeInterfaces": _Annotation(_POD),
    "traffic.sidecar.istio.io/excludeOutboundIPRanges": _Annotation(_POD),
    "traffic.sidecar.istio.io/excludeOutboundPorts": _Annotation(_POD, *_PORTS),
    "traffic.sidecar.istio.io/includeInboundPorts": _Annotation(_POD, *_PORTS),
    "traffic.sidecar.istio.io/includeOutboundIPRanges": _Annotation(_POD),
    "traffic.sidecar.istio.io/includeOutboundPorts": _Annotation(_POD, *_PORTS),
    "traffic.sidecar.istio.io/kubevirtInterfaces": _Annotation(_POD),
}  # fmt: skip


def analyze_annotations(mesh: Mesh) -> Iterator[Message]:
    """IST0107, IST0108, IST0125 and IST0135."""
    for kind in KINDS:
        for resource in mesh.of_kind(kind):
            for name, value in resource.metadata.annotations.items():
                domain = name.partition("/")[0]
                if domain == "istio.io" or domain.endswith(".istio.io"):
                    yield from _judge(resource, name, value)


def _judge(resource: Resource, name: str, value: str) -> Iterator[Message]:
    path = f"metadata.annotations[{name}]"
    known = _KNOWN.get(name)
    if known is None:
        yield Message(UNKNOWN_ANNOTATION, resource.key, "is none that Istio has: correct or remove it", path)
        return
    if known.kinds and resource.key.kind not in known.kinds:
        yield Message(MISPLACED_ANNOTATION, resource.key, f"is for {', '.join(known.kinds)}: move it there", path)
    elif known.judge is not None and not known.judge(value):
        yield Message(INVALID_ANNOTATION, resource.key, f'"{value}" is none of its values: write {known.wanted}', path)
    if known.instead:
        yield Message(DEPRECATED_ANNOTATION, resource.key, f"is deprecated: use {known.instead}", path)
