"""Names of Envoy resources, as Istio gives them, so that dashboards and tools keep working."""

from __future__ import annotations

from typing import NamedTuple

from controlplane.model.service import Port, Service

BLACK_HOLE = "BlackHoleCluster"
PASSTHROUGH = "PassthroughCluster"
PASSTHROUGH_BY_AUTHORITY = "PassthroughByAuthorityCluster"  # not Istio's: of its forward proxy nothing passes through
PASSTHROUGH_BY_NAME = "PassthroughByNameCluster"  # not Istio's: likewise, for hosts that are looked up
INBOUND_PASSTHROUGH = "InboundPassthroughCluster"


class ClusterName(NamedTuple):
    """What the name of an outbound cluster says."""

    port: int
    subset: str
    hostname: str


def outbound_cluster(port: int, subset: str, hostname: str) -> str:
    """`outbound|9080|v2|reviews.shop.svc.cluster.local`; ``subset`` may be empty."""
    return f"outbound|{port}|{subset}|{hostname}"


def sni_cluster(port: int, subset: str, hostname: str) -> str:
    """`outbound_.9080_.v2_.reviews.shop.svc.cluster.local`: the form that fits in a server name."""
    return f"outbound_.{port}_.{subset}_.{hostname}"


def inbound_cluster(port: int) -> str:
    """`inbound|9080||`, of the workload's own port."""
    return f"inbound|{port}||"


def stat_name(pattern: str, service: Service, port: Port, subset: str = "", target: int = 0) -> str:
    """A cluster's name in statistics, by the pattern of `inboundClusterStatName` or `outboundClusterStatName`.

    Source: https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#MeshConfig
    """
    of_kubernetes = service.origins[0].kind == "Service"
    words = {
        "%SERVICE%": f"{service.name}.{service.namespace}" if of_kubernetes else service.hostname,
        "%SERVICE_NAME%": service.name,
        "%SERVICE_FQDN%": service.hostname,
        "%SERVICE_PORT%": str(port.number),
        "%TARGET_PORT%": str(target or port.number),
        "%SERVICE_PORT_NAME%": port.name,
        "%SUBSET_NAME%": subset,
    }
    for word, value in words.items():
        pattern = pattern.replace(word, value)
    return pattern


def parse_cluster(name: str) -> ClusterName | None:
    """The parts of an outbound cluster's name in either form; None if it is no such name."""
    parts = name.split("|", 3) if name.startswith("outbound|") else name.split("_.", 3)
    if len(parts) != 4 or parts[0] != "outbound" or not parts[1].isdigit():
        return None
    return ClusterName(int(parts[1]), parts[2], parts[3])
