"""What all scopes of a snapshot share: its indices, taken over from the snapshot before where nothing of them changed."""

from __future__ import annotations

from controlplane.model.resource import Resource
from controlplane.model.snapshot import Snapshot, oldest_first
from controlplane.pilot.index import (
    RuleIndex,
    ServiceIndex,
    SidecarIndex,
    VirtualServiceIndex,
    asked_metadata,
    relevant_labels,
)
from controlplane.pilot.memo import Memo
from controlplane.pilot.security.peer_authentication import PEERS, PeerIndex
from controlplane.pilot.security.policies import POLICY_KINDS, PolicyIndex

_LABELLED = ("Sidecar", "DestinationRule", "EnvoyFilter", "ProxyConfig", "Telemetry", "VirtualService")


class MeshView:
    """A snapshot with its indices. What changes with endpoints alone is asked of the snapshot itself."""

    services: ServiceIndex
    virtual_services: VirtualServiceIndex
    rules: RuleIndex
    sidecars: SidecarIndex
    gateways: list[Resource]
    policies: PolicyIndex
    peers: PeerIndex
    labels: dict[str, frozenset[str]]
    metadata: frozenset[str]

    def __init__(self, snapshot: Snapshot, memo: Memo, before: MeshView | None = None) -> None:
        self.snapshot = snapshot
        self.memo = memo
        mesh = snapshot.mesh
        same_mesh = before is not None and before.snapshot.mesh is mesh
        if before is not None and before.snapshot.services is snapshot.services:
            self.services = before.services
        else:
            self.services = ServiceIndex(snapshot.services)
        resources = snapshot.resources
        if before is not None and same_mesh and _same(before, snapshot, "VirtualService"):
            self.virtual_services = before.virtual_services
        else:
            default = mesh.default_virtual_service_export_to
            self.virtual_services = VirtualServiceIndex(resources.get("VirtualService", {}), default)
        rules_stay = before is not None and same_mesh and _same(before, snapshot, "DestinationRule")
        if before is not None and rules_stay and (before.services is self.services or not before.rules.mentions):
            self.rules = before.rules
        else:
            default = mesh.default_destination_rule_export_to
            kept = before.rules if before is not None else None
            spaces = resources.get("DestinationRule", {})
            self.rules = RuleIndex(spaces, default, snapshot.domain, self.services.by_hostname, kept)
        if before is not None and _same(before, snapshot, "Sidecar"):
            self.sidecars = before.sidecars
        else:
            self.sidecars = SidecarIndex(resources.get("Sidecar", {}))
        if before is not None and _same(before, snapshot, "Gateway"):
            self.gateways = before.gateways
        else:
            self.gateways = oldest_first(snapshot.of_kind("Gateway"))
        if before is not None and same_mesh and all(_same(before, snapshot, kind) for kind in POLICY_KINDS):
            self.policies = before.policies
        else:
            self.policies = PolicyIndex(resources, snapshot.root_namespace)
        if before is not None and same_mesh and _same(before, snapshot, PEERS):
            self.peers = before.peers
        else:
            kept_peers = before.peers if before is not None else None
            self.peers = PeerIndex(resources.get(PEERS, {}), snapshot.root_namespace, kept_peers)
        if before is not None and same_mesh and all(_same(before, snapshot, kind) for kind in _LABELLED):
            self.labels, self.metadata = before.labels, before.metadata
        else:
            self.labels, self.metadata = relevant_labels(resources, mesh, memo), asked_metadata(resources)


def _same(before: MeshView, snapshot: Snapshot, kind: str) -> bool:
    return before.snapshot.resources.get(kind) is snapshot.resources.get(kind)
