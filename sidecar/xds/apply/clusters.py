"""CDS: clusters come, change and go while the sidecar runs. Source: Envoy's "Cluster discovery service (CDS)"."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from sidecar.config.cluster import Cluster, parse_cluster
from sidecar.core.discovery import DiscoveredResource, Rejection
from sidecar.core.pace import Pace
from sidecar.xds.apply.judging import Judge, Refused, applying
from sidecar.xds.apply.records import Record, Records

_log = logging.getLogger(__name__)

CLUSTER: Final = "envoy.config.cluster.v3.Cluster"


class Clusters(Protocol):
    """The clusters of a worker, as CDS changes them."""

    def is_static(self, name: str) -> bool:
        """Whether it stands in the bootstrap."""
        ...

    def change(self, config: Cluster, record: Record) -> None:
        """Take in a cluster, which warms before it takes the place of an older one. Raises ValueError, OSError."""
        ...

    def drop(self, name: str) -> None:
        """Let a cluster go; what is under way ends by itself."""
        ...


class Counters(Protocol):
    """Below `cluster_manager.cds.`"""

    config_reload: int
    config_reload_time_ms: int


class ClusterWatcher:
    """The ``ResourceWatcher`` of CDS. ``answered`` is called once, when the first update was applied or nobody has answered;
    ``around`` with True before and with False after each update: endpoints of clusters are asked for when all are there.
    """

    def __init__(
        self,
        judge: Judge,
        pace: Pace,
        clusters: Clusters,
        records: Records,
        stats: Counters,
        answered: Callable[[], None],
        around: Callable[[bool], None],
    ) -> None:
        self.judge = judge
        self.pace = pace
        self.clusters = clusters
        self.records = records
        self.stats = stats
        self._answered: Callable[[], None] | None = answered
        self._around = around
        self._warned: set[str] = set()
        self._changed = False

    async def on_update(
        self, resources: Sequence[DiscoveredResource], removed: Sequence[str], version: str, *, whole: bool
    ) -> Sequence[Rejection]:
        """Those that changed first, then those that are gone, as in Envoy: what moves elsewhere finds the new one there."""
        rejections: list[Rejection] = []
        seen: set[str] = set()
        self._around(True)
        try:
            for resource in resources:
                try:
                    if resource.name in seen:
                        raise Refused("another cluster of this update has the same name")
                    seen.add(resource.name)
                    await self._apply(resource)
                except Refused as refused:
                    rejections.append(Rejection(resource.name, str(refused)))
                    self.records.refuse(resource, str(refused))
            gone = [name for name in self.records.names() if name not in seen] if whole else removed
            for name in gone:
                await self.pace.breathe()
                self.records.drop(name)
                if not self.clusters.is_static(name):
                    self.clusters.drop(name)
        finally:
            self._around(False)
        if not rejections:
            self.records.version = version
        if self._changed:
            self._changed = False
            self.stats.config_reload += 1
            self.stats.config_reload_time_ms = int(self.records.now() * 1000)
        self._first_is_over()
        return rejections

    def on_unavailable(self) -> None:
        """Nobody has answered in time."""
        self._first_is_over()

    async def _apply(self, resource: DiscoveredResource) -> None:
        if self.records.is_known(resource):
            self.records.forgive(resource.name)
            return
        if self.clusters.is_static(resource.name):
            if resource.name not in self._warned:
                self._warned.add(resource.name)
                _log.warning("cluster %r is not taken: one of the bootstrap has this name, and stays", resource.name)
            return
        config = await self.judge.judge(resource, CLUSTER, "cluster", parse_cluster, self.pace)
        with applying("cluster", resource.name):
            self.clusters.change(config, self.records.record(resource))
        self.records.keep(resource)
        self._changed = True

    def _first_is_over(self) -> None:
        if self._answered is not None:
            answered, self._answered = self._answered, None
            answered()

    def __repr__(self) -> str:
        return f"<ClusterWatcher {self.records!r}>"
