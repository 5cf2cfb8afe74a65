"""What a workload that registers itself is called, and what its WorkloadEntry says about its being connected.

Names are Istio's: https://istio.io/latest/docs/reference/config/annotations/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import xxhash

from controlplane.model.proxy import Proxy
from controlplane.model.resource import ResourceKey

GROUP_METADATA: Final = "AUTO_REGISTER_GROUP"
"""Of a node: the WorkloadGroup, in the node's own namespace, whose template its WorkloadEntry is made from."""

ENDPOINTS_METADATA: Final = "APP_ENDPOINTS"
"""Of a node: by the ports on which its proxy serves others, HOST:PORT of the application behind it."""

GROUP: Final = "istio.io/autoRegistrationGroup"
CONTROLLER: Final = "istio.io/workloadController"
"""The control plane to which the workload is or was connected."""

CONNECTED: Final = "istio.io/connectedAt"
DISCONNECTED: Final = "istio.io/disconnectedAt"
HEALTH_CHECKED: Final = "proxy.istio.io/health-checks-enabled"
HEALTHY: Final = "Healthy"
"""The type of the condition in a WorkloadEntry's status that says how the workload is."""

_LONGEST: Final = 253
_NOT_A_NAME: Final = re.compile(r"[^a-z0-9.-]")


def group_of(proxy: Proxy) -> str:
    """The WorkloadGroup that a proxy registers by; empty for those that do not."""
    group = proxy.metadata.get(GROUP_METADATA)
    return group if isinstance(group, str) else ""


def entry_of(proxy: Proxy) -> ResourceKey:
    """The WorkloadEntry of a proxy that registers itself: by its group, its address and network as in Istio, and by its node
    id, because several workloads may share an address.
    """
    parts = [group_of(proxy), proxy.addresses[0] if proxy.addresses else "", proxy.network]
    name = "-".join([*(part for part in parts if part), xxhash.xxh3_64_hexdigest(proxy.id.encode())[:10]])
    return ResourceKey("WorkloadEntry", proxy.namespace, _NOT_A_NAME.sub("-", name.lower())[-_LONGEST:].lstrip("-."))


def served_ports(template: Mapping[str, int], proxy: Proxy) -> Mapping[str, int]:
    """The ports that a proxy serves, by the names in its group's template. Where there is one, the port that the proxy itself
    tells takes its place: several of one group on one machine have one each.
    """
    told = proxy.metadata.get(ENDPOINTS_METADATA)
    if len(template) == 1 and isinstance(told, Mapping) and len(told) == 1:
        (name,), (port,) = template, told
        if str(port).isdecimal():
            return {name: int(port)}
    return template
