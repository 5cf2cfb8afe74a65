"""Our subscriptions in a running sidecar, and watchers that write down what they hear."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sidecar.config.bootstrap import NodeIdentity
from sidecar.config.config_source import ADS, ApiConfigSource, ConfigSource
from sidecar.config.grpc_service import GrpcService
from sidecar.core.discovery import DiscoveredResource, Rejection
from sidecar.server import Server
from sidecar.telemetry.groups.server import ControlPlaneStats, SubscriptionStats
from sidecar.xds.discovery import XdsDiscovery
from sidecar.xds.node import make_node
from tests.sidecar.bootstraps import cluster
from tests.sidecar.pool.asking import over_http2

OVER_ADS = ConfigSource(ADS)


class Watcher:
    """``heard`` has what was updated and removed; names in ``bad`` are rejected, for the reason they map to."""

    def __init__(self, bad: Mapping[str, str] | None = None) -> None:
        self.heard: list[Any] = []
        self.bad = dict(bad or {})
        self.world: dict[str, str] = {}
        self.payloads: dict[str, Any] = {}

    async def on_update(
        self, resources: Sequence[DiscoveredResource], removed: Sequence[str], version: str, *, whole: bool
    ) -> Sequence[Rejection]:
        self.heard.append(([one.name for one in resources], list(removed), version, whole))
        rejections = [Rejection(one.name, self.bad[one.name]) for one in resources if one.name in self.bad]
        if whole:
            for name in self.world.keys() - {one.name for one in resources}:
                del self.world[name]
        for name in removed:
            self.world.pop(name, None)
        for one in resources:
            if one.name not in self.bad:
                self.world[one.name] = one.version
                self.payloads[one.name] = one.payload
        return rejections

    def on_unavailable(self) -> None:
        self.heard.append("unavailable")


@asynccontextmanager
async def discovering(
    port: int,
    api_type: Any = "GRPC",
    *,
    state: Path | None = None,
    http2: bool = True,
    protocol: Mapping[str, Any] | None = None,
    control_plane: Any = None,
    **api: Any,
) -> AsyncIterator[XdsDiscovery]:
    """Subscriptions of a sidecar whose management server is the cluster `xds` on this port."""
    explicit = {"explicit_http_config": {"http2_protocol_options": protocol or {}}}
    made = over_http2(cluster("xds", port), **explicit) if http2 else cluster("xds", port)
    async with Server({"node": {"id": "it", "cluster": "us"}, "static_resources": {"clusters": [made]}}) as server:
        stack = server.stack
        assert stack is not None
        ads = ApiConfigSource(api_type, GrpcService("xds"), **api)
        discovery = XdsDiscovery(
            stack.worker,
            lambda: stack.clients,
            make_node(NodeIdentity("it", "us", {"NAMESPACE": "shop"}), "1.2.3"),
            ads,
            state_directory=state,
            make_stats=lambda of: control_plane or ControlPlaneStats(),
        )
        try:
            yield discovery
        finally:
            discovery.close()


def subscribe(
    discovery: XdsDiscovery,
    type_url: str,
    names: Collection[str] | None,
    watcher: Any,
    source: ConfigSource = OVER_ADS,
    stats: Any = None,
) -> Any:
    """A subscription whose watcher and counters are at hand, as attributes."""
    return discovery.subscribe(source, type_url, names, watcher, stats or SubscriptionStats())
