"""A ``Discovery`` in the hands of a test: who subscribed to what, and updates as a management server would send them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from google.protobuf import any_pb2, json_format

from sidecar.config.extensions import message_class
from sidecar.core.discovery import DiscoveredResource, Rejection, ResourceWatcher
from sidecar.xds_stack import XdsStack

ADS: dict[str, Any] = {"ads": {}}
DYNAMIC = {
    "ads_config": {
        "api_type": "GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
    },
}
XDS_CLUSTER = {"name": "xds", "type": "STATIC", "load_assignment": {"cluster_name": "xds"}}


class Interest:
    """One subscription."""

    def __init__(
        self, driver: HandDriven, type_name: str, names: Collection[str] | None, watcher: ResourceWatcher
    ) -> None:
        self.driver = driver
        self.type_name = type_name
        self.names = names
        self.watcher = watcher

    def update_names(self, names: Collection[str]) -> None:
        self.names = names

    def close(self) -> None:
        if self in self.driver.interests:
            self.driver.interests.remove(self)


class HandDriven:
    """The discovery of one sidecar."""

    def __init__(self) -> None:
        self.interests: list[Interest] = []
        self.paused: list[str] = []

    def subscribe(
        self, source: Any, type_url: str, names: Collection[str] | None, watcher: ResourceWatcher, stats: Any = None
    ) -> Interest:
        interest = Interest(self, type_url.rpartition("/")[2], names, watcher)
        self.interests.append(interest)
        return interest

    def pause(self, type_url: str) -> None:
        self.paused.append(type_url)

    def resume(self, type_url: str) -> None:
        self.paused.remove(type_url)

    def close(self) -> None:
        self.interests.clear()

    def wanted(self, short: str) -> list[str]:
        """The names that are asked for of a type: its name's last word."""
        return sorted(name for one in self._of(short) for name in one.names or ())

    def _of(self, short: str) -> list[Interest]:
        return [one for one in self.interests if one.type_name.endswith(short)]

    async def send(
        self, short: str, resources: Mapping[str, Any] | Sequence[Any], version: str = "1", removed: Sequence[str] = ()
    ) -> list[Rejection]:
        """Hand these to all who want them: all that there are if it is a sequence, else those that changed, by name."""
        whole = not isinstance(resources, Mapping)
        documents = resources.values() if isinstance(resources, Mapping) else resources
        rejections: list[Rejection] = []
        for interest in self._of(short):
            found = [resource(interest.type_name, one, version) for one in documents]
            mine = [one for one in found if interest.names is None or one.name in interest.names]
            gone = [name for name in removed if interest.names is None or name in interest.names]
            if interest in self.interests and (mine or gone or interest.names is None):
                rejections += await interest.watcher.on_update(mine, gone, version, whole=whole)
        return rejections


def resource(type_name: str, document: Any, version: str = "1") -> DiscoveredResource:
    """A resource from a document in protobuf's JSON mapping."""
    for inner in types_in(document):
        message_class(inner)  # so that it is there for the Any that holds it
    message: Any = json_format.ParseDict(document, message_class(type_name)())
    packed = any_pb2.Any()
    packed.Pack(message, deterministic=True)
    name = getattr(message, "name", "") or getattr(message, "cluster_name", "")
    return DiscoveredResource(name, version, packed)


def types_in(document: Any) -> Iterator[str]:
    """The messages that are packed in a document."""
    if isinstance(document, Mapping):
        if "@type" in document:
            yield document["@type"].rpartition("/")[2]
        document = list(document.values())
    if isinstance(document, list):
        for part in document:
            yield from types_in(part)


def drive(monkeypatch: Any) -> HandDriven:
    """Sidecars that are started from now on discover by hand."""
    driven = HandDriven()
    monkeypatch.setattr(XdsStack, "_make_discovery", lambda self: driven)
    return driven


def assignment(name: str, *ports: int, **more: Any) -> dict[str, Any]:
    """The endpoints on these ports of this machine."""
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}} for port in ports
    ]
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}], **more}
