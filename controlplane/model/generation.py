"""Translation as those see it who push: what a proxy gets, who gets the same, and whom a change concerns."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from typing import Protocol

from controlplane.model.changes import Changes
from controlplane.model.encoded import Encoded
from controlplane.model.proxy import Proxy
from controlplane.model.resource import Resource, ResourceKey


class Translator(Protocol):
    """Has the snapshot of the mesh and gives Envoy resources. `pilot/` implements it, `xds/` and `api/` ask it."""

    def apply(self, changed: Mapping[ResourceKey, Resource | None]) -> Changes:
        """Take the next snapshot: these resources are new or different, or (None) gone. Returns what that amounts to."""
        ...

    def scope(self, proxy: Proxy) -> Hashable:
        """Proxies of one scope get the same resources of every type, as long as the snapshot is the same."""
        ...

    def resources(self, proxy: Proxy, type_url: str, names: Collection[str] | None = None) -> Mapping[str, Encoded]:
        """All resources of a type that a proxy gets, or those of ``names`` that there are, by name, in a stable order.

        What did not change since the last snapshot is the same object as before.
        """
        ...

    def affected(self, changes: Changes, proxy: Proxy) -> Collection[str]:
        """The type URLs whose resources may be different for this proxy after ``changes``; empty if they do not concern it."""
        ...

    def affected_names(self, changes: Changes, type_url: str, names: Collection[str]) -> Collection[str]:
        """Which of these resources of a type may be different after ``changes``: for endpoints, few of many."""
        ...

    def causes(self, proxy: Proxy, type_url: str, name: str) -> Collection[ResourceKey]:
        """The resources that the named Envoy resource was made from: in their statuses a NACK of it is written."""
        ...

    def left_out(self, proxy: Proxy) -> Collection[tuple[str, Collection[ResourceKey]]]:
        """What a proxy does not get although its resources ask for it, in words, and those resources."""
        ...
