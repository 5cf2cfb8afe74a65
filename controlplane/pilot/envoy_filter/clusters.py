"""Patches of clusters."""

from __future__ import annotations

from typing import Any

from controlplane.pilot.envoy_filter.merging import merge
from controlplane.pilot.envoy_filter.selection import INBOUND, EnvoyPatch
from controlplane.pilot.names import parse_cluster

APPLY_TO = ("CLUSTER",)


def removed(cluster: Any, patch: EnvoyPatch) -> bool:
    """Whether a patch takes a cluster away."""
    return patch.operation == "REMOVE" and _matches(cluster, patch)


def patch_cluster(cluster: Any, patch: EnvoyPatch) -> bool:
    """Apply a patch to a `Cluster`; whether it changed anything."""
    if patch.operation != "MERGE" or not _matches(cluster, patch):
        return False
    merge(cluster, patch.value)
    return True


def context_of(name: str, outbound: str) -> str:
    """The context of a cluster: ``outbound``, or the sidecar's own application's."""
    return INBOUND if name.startswith("inbound|") or name == "InboundPassthroughCluster" else outbound


def _matches(cluster: Any, patch: EnvoyPatch) -> bool:
    match = patch.match.cluster if patch.match is not None else None
    if match is None:
        return True
    if match.name:
        return bool(match.name == cluster.name)
    parts = parse_cluster(cluster.name)
    if parts is None:
        if match.service or match.subset:
            return False
        port = cluster.name.split("|")[1] if cluster.name.startswith("inbound|") else ""
        return not match.port_number or port == str(match.port_number)
    if match.port_number and match.port_number != parts.port:
        return False
    if match.service and match.service not in (parts.hostname, "*"):
        return False
    return not match.subset or bool(match.subset == parts.subset)
