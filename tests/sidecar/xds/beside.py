"""Real Envoy and our sidecar on one bootstrap, each with a management server of its own that says the same to both."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from sidecar.config.extensions import message_class
from tests.differential.proxies import FreePorts, Proxy, start
from tests.sidecar.xds.driving import types_in
from tests.sidecar.xds.world import World

ADS = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "2s"}
URL = "type.googleapis.com/"
TYPES = {
    "cluster": "envoy.config.cluster.v3.Cluster",
    "endpoints": "envoy.config.endpoint.v3.ClusterLoadAssignment",
    "listener": "envoy.config.listener.v3.Listener",
    "routes": "envoy.config.route.v3.RouteConfiguration",
    "secret": "envoy.extensions.transport_sockets.tls.v3.Secret",
    "extension": "envoy.config.core.v3.TypedExtensionConfig",
}
_PORTS = FreePorts()


class Managed:
    """A proxy and its management server, whose world may be changed from the test's thread."""

    def __init__(self, proxy: Proxy, served: ServedWorld) -> None:
        self.proxy = proxy
        self.served = served
        self.kind = proxy.kind

    @property
    def ports(self) -> Mapping[str, int]:
        return self.proxy.ports

    def set(self, kind: str, changed: Mapping[str, Any], removed: Iterable[str] = ()) -> dict[str, str]:
        """Change the resources of a kind; what was refused of it, by nonce, when that is answered."""
        return self.served.set(kind, changed, removed)

    def stats(self, *prefixes: str) -> dict[str, int]:
        """Counters and gauges below these prefixes."""
        body = self.proxy.admin("/stats?format=json")[2]
        found = {one["name"]: one["value"] for one in json.loads(body)["stats"] if "name" in one}
        return {name: value for name, value in found.items() if name.startswith(prefixes)}

    def dump(self, query: str = "") -> dict[str, Any]:
        """/config_dump by the short names of its parts."""
        body = json.loads(self.proxy.admin("/config_dump" + query)[2])
        return {one["@type"].rpartition(".")[2]: one for one in body.get("configs", ())}


class ServedWorld:
    """A ``World`` in a thread of its own."""

    def __init__(self, resources: Mapping[str, Mapping[str, Any]]) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.world = World({URL + TYPES[kind]: messages(kind, named) for kind, named in resources.items()})
        self.call(self.world.start())

    def call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def set(self, kind: str, changed: Mapping[str, Any], removed: Iterable[str] = ()) -> dict[str, str]:
        before = dict(self.world.refused)

        async def change() -> None:
            await self.world.set(URL + TYPES[kind], messages(kind, changed), removed)
            await self.world.settled()

        self.call(change())
        return {nonce: text for nonce, text in self.world.refused.items() if nonce not in before}

    def stop(self) -> None:
        self.call(self.world.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


def messages(kind: str, named: Mapping[str, Any]) -> dict[str, Any]:
    """Messages from documents in protobuf's JSON mapping."""
    made = {}
    for name, document in named.items():
        for inner in types_in(document):
            message_class(inner)  # so that it is there for the Any that holds it
        made[name] = json_format.ParseDict(document, message_class(TYPES[kind])())
    return made


def bootstrap(xds_port: int, admin_port: int, delta: bool, **more: Any) -> dict[str, Any]:
    """One with nothing but an ADS server."""
    address = {"socket_address": {"address": "127.0.0.1", "port_value": xds_port}}
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    xds = {
        "name": "xds",
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            options: {"@type": URL + options, "explicit_http_config": {"http2_protocol_options": {}}}
        },
        "load_assignment": {
            "cluster_name": "xds",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    static: dict[str, Any] = more.pop("static_resources", {})
    return {
        "node": {"id": "test", "cluster": "test"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin_port}}},
        "dynamic_resources": {
            "lds_config": ADS,
            "cds_config": ADS,
            "ads_config": {
                "api_type": "DELTA_GRPC" if delta else "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
            },
        },
        "static_resources": {**static, "clusters": [xds, *static.get("clusters", ())]},
        **more,
    }


@contextmanager
def managed(
    kind: str,
    directory: Path,
    resources: Mapping[str, Mapping[str, Any]],
    ports: Mapping[str, int],
    delta: bool = False,
    **more: Any,
) -> Iterator[Managed]:
    """A proxy with these resources. ``ports`` are its listeners'; ``more`` is for its bootstrap."""
    served = ServedWorld(resources)
    try:
        admin = _PORTS.take()
        document = bootstrap(served.world.port, admin, delta, **more)
        proxy = start(kind, document, {**ports, "admin": admin}, directory)
        try:
            yield Managed(proxy, served)
        finally:
            proxy.stop()
    finally:
        served.stop()


def free_port() -> int:
    """A port that nobody has."""
    return _PORTS.take()
