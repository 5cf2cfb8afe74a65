"""What was discovered, in the shape in which the administration interface shows it: `admin.dynamic_dumps.DiscoveredView`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import any_pb2

from sidecar.admin.dynamic_dumps import ListenerStates
from sidecar.config.extensions import message_class
from sidecar.xds.apply.records import Record

if TYPE_CHECKING:
    from sidecar.xds_stack import XdsStack

SECRET: Final = "envoy.extensions.transport_sockets.tls.v3.Secret"


def _no_secret(name: str) -> Any:
    """A secret that has not come."""
    packed = any_pb2.Any()
    packed.Pack(message_class(SECRET)(name=name))
    return packed


class Discovered:
    """The resources of one worker as they are now."""

    def __init__(self, xds: XdsStack) -> None:
        self.xds = xds

    @property
    def cluster_version(self) -> str:
        return self.xds.clusters.version

    @property
    def listener_version(self) -> str:
        return self.xds.listener_records.version

    @property
    def has_routes(self) -> bool:
        return bool(self.xds.stack.managers)

    def active_clusters(self) -> Iterator[Record]:
        records = self.xds.cluster_records
        for cluster in self.xds.stack.clusters.clusters.values():
            if id(cluster.config) in records:
                yield records[id(cluster.config)]

    def warming_clusters(self) -> Iterator[Record]:
        records = self.xds.cluster_records
        for cluster in self.xds.stack.clusters.warming.values():
            if id(cluster.config) in records:
                yield records[id(cluster.config)]

    def listener_states(self) -> Iterator[ListenerStates]:
        manager = self.xds.listeners.manager
        draining = {one.listener.config.name: one.version.record for one in manager.draining if one.whole}
        known = {record.name: record for record in self.xds.listener_records}
        for name in sorted({*manager.active, *manager.warming, *draining, *known}):
            active, warming = manager.active.get(name), manager.warming.get(name)
            record = known.get(name)
            yield ListenerStates(
                name,
                None if active is None else active.version.record,
                None if warming is None else warming.managed.version.record,
                draining.get(name),
                None if record is None else record.failure,
            )

    def unready_listeners(self) -> Iterator[tuple[str, list[str]]]:
        for name, warming in sorted(self.xds.listeners.manager.warming.items()):
            yield name, warming.waiting.missing

    def route_configurations(self) -> Iterator[Record]:
        for shared in self.xds.route_configs.values():
            if shared.watcher.record is not None:
                yield shared.watcher.record

    def active_secrets(self) -> Iterator[Record]:
        for watcher in self.xds.secret_watchers():
            if watcher.record is not None:
                yield watcher.record

    def warming_secrets(self) -> Iterator[Record]:
        for watcher in self.xds.secret_watchers():
            if watcher.record is None:
                yield Record(watcher.name, "uninitialized", _no_secret(watcher.name), watcher.asked)

    def extensions(self) -> Iterator[Record]:
        for watcher in self.xds.extension_watchers():
            if watcher.record is not None:
                yield watcher.record

    def __repr__(self) -> str:
        return f"<Discovered of {self.xds!r}>"
