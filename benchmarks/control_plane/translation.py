"""How long translation takes, in this process: a scope's whole configuration, and what one change costs."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.control_plane import mesh
from benchmarks.control_plane.client import CLUSTERS, ENDPOINTS, LISTENERS, ROUTES
from benchmarks.control_plane.mesh import Size
from controlplane.model.encoded import Encoded
from controlplane.model.parsing import parse
from controlplane.model.proxy import Proxy, ProxyType
from controlplane.pilot.translator import Pilot

if TYPE_CHECKING:
    from benchmarks.control_plane.runner import Report


def measure(size: Size, report: Report) -> None:
    """One scope that sees the whole mesh."""
    documents = [*mesh.namespaces(size), *mesh.services(size), mesh.virtual_service(size, 0, 5)]
    parsed = [parse(document) for document in documents]
    times = []
    for _ in range(3):
        pilot = Pilot()
        pilot.apply({one.key: one for one in parsed})
        began = time.perf_counter()
        count = len(_everything(pilot))
        times.append(time.perf_counter() - began)
    full = median(times)
    report.add(
        f"translation of one scope's full configuration ({count} resources)",
        f"{full * 1000:.0f} ms",
        "500 ms",
        full < 0.5,
    )
    for what, change in (("endpoint", mesh.endpoint_slice), ("VirtualService", _routes)):
        times = []
        for number in range(20):
            resource = parse(change(size, 0, generation=number + 1))
            began = time.perf_counter()
            pilot.apply({resource.key: resource})
            _everything(pilot)
            times.append(time.perf_counter() - began)
        one = median(times)
        report.add(f"  after a change of one {what}", f"{one * 1000:.1f} ms", "5 ms", one < 0.005)


def _routes(size: Size, number: int, *, generation: int) -> dict[str, Any]:
    return mesh.virtual_service(size, number, 10 + generation)


_PROXY = Proxy(
    "sidecar~10.255.0.1~client.team-0~team-0.svc.cluster.local",
    ProxyType.SIDECAR,
    "team-0",
    "client",
    "team-0.svc.cluster.local",
    ("10.255.0.1",),
    {"app": "client"},
    metadata={"HTTP_PROXY_PORT": "15001"},
)


def _everything(pilot: Pilot) -> dict[str, Encoded]:
    """All that a sidecar asks for."""
    clusters = pilot.resources(_PROXY, CLUSTERS)
    names = [name for name in clusters if name.startswith("outbound|")]
    found: dict[str, Encoded] = {**clusters, **pilot.resources(_PROXY, LISTENERS), **pilot.resources(_PROXY, ROUTES)}
    found.update((f"endpoints of {name}", one) for name, one in pilot.resources(_PROXY, ENDPOINTS, names).items())
    return found
