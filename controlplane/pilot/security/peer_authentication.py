"""What workloads take from those that call them: plain text, mutual TLS, or both.

Source: https://istio.io/latest/docs/reference/config/security/peer_authentication/: the narrowest policy holds (workload,
namespace, mesh), UNSET is what the next wider one says, and of several equals the oldest holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from controlplane.model.registry import selects
from controlplane.model.resource import Resource, ResourceKey
from controlplane.model.snapshot import ByName, oldest_first

PEERS = "PeerAuthentication"


class Mode(StrEnum):
    """What is taken on a port."""

    DISABLE = "DISABLE"  # plain text
    PERMISSIVE = "PERMISSIVE"  # plain text and mutual TLS
    STRICT = "STRICT"  # mutual TLS


class PeerModes(NamedTuple):
    """What one workload takes: ``mode``, and on single ports of its own another. ``keys`` are the policies that say so."""

    mode: Mode = Mode.PERMISSIVE
    ports: Mapping[int, Mode] = {}
    keys: tuple[ResourceKey, ...] = ()

    def of_port(self, number: int) -> Mode:
        """What it takes on a port of its own."""
        return self.ports.get(number, self.mode)


class NamespacePeers:
    """The policies of one namespace's workloads. The same object as long as those policies are the same."""

    __slots__ = ("_found", "_mesh", "_own", "_selecting", "labels", "mode", "plain", "sources")

    def __init__(self, mesh: Sequence[Resource], own: Sequence[Resource]) -> None:
        self.sources = (tuple(mesh), tuple(own))
        self._mesh = [policy for policy in mesh if not _labels(policy)][:1]
        self._own = [policy for policy in own if not _labels(policy)][:1]
        self._selecting = [policy for policy in own if _labels(policy)]
        self.labels = frozenset(label for policy in self._selecting for label in _labels(policy))
        """The labels that selectors ask for."""
        self.mode = Mode.PERMISSIVE
        """What workloads take that no selector finds."""
        for policy in (*self._mesh, *self._own):
            self.mode = _mode(policy.spec.mtls) or self.mode
        told = (
            mode for policy in self._selecting for mode in (policy.spec.mtls, *policy.spec.port_level_mtls.values())
        )
        self.plain = self.mode is Mode.DISABLE or any(_mode(mode) is Mode.DISABLE for mode in told)
        """Whether any workload, on any of its ports, may take plain text alone."""
        self._found: dict[tuple[str | None, ...], PeerModes] = {}

    def of(self, labels: Mapping[str, str]) -> PeerModes:
        """What the workload with these labels takes."""
        key = tuple(labels.get(label) for label in self.labels)
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = self._merged(labels)
        return found

    def _merged(self, labels: Mapping[str, str]) -> PeerModes:
        keys = tuple(policy.key for policy in (*self._mesh, *self._own))
        for policy in self._selecting:
            if selects(_labels(policy), labels):
                mode = _mode(policy.spec.mtls) or self.mode
                ports = {int(port): _mode(told) or mode for port, told in policy.spec.port_level_mtls.items()}
                return PeerModes(mode, ports, (*keys, policy.key))
        return PeerModes(self.mode, {}, keys)


class PeerIndex:
    """PeerAuthentications by namespace; what is the same as in the index ``before`` stays the same object."""

    def __init__(self, spaces: Mapping[str, ByName], root: str, before: PeerIndex | None = None) -> None:
        self._mesh = oldest_first(spaces.get(root, {}).values())
        everywhere = before._elsewhere if before is not None else None
        self._elsewhere: NamespacePeers = _kept(everywhere, self._mesh, ())
        self._by_namespace: dict[str, NamespacePeers] = {}
        for namespace, names in spaces.items():
            if names:
                old = before._by_namespace.get(namespace) if before is not None else None
                mesh = () if namespace == root else self._mesh
                self._by_namespace[namespace] = _kept(old, mesh, oldest_first(names.values()))

    def of_namespace(self, namespace: str) -> NamespacePeers:
        """The policies of a namespace's workloads."""
        return self._by_namespace.get(namespace, self._elsewhere)


def _kept(before: NamespacePeers | None, mesh: Sequence[Resource], own: Sequence[Resource]) -> NamespacePeers:
    if before is not None and before.sources == (tuple(mesh), tuple(own)):
        return before
    return NamespacePeers(mesh, own)


def _labels(policy: Resource) -> Mapping[str, str]:
    selector = policy.spec.selector
    return (selector.match_labels or {}) if selector is not None else {}


def _mode(told: Any) -> Mode | None:
    """What a policy says; None for nothing, and for UNSET."""
    return None if told is None or told.mode == "UNSET" else Mode(told.mode)
