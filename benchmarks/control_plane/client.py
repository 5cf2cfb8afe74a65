"""Proxies as the control plane sees them: streams on the real protocol that ask, acknowledge and remember when what came."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from typing import Any, Final

import grpc
import grpc.aio
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from google.protobuf.struct_pb2 import Struct

_TYPES: Final = "type.googleapis.com/envoy.config."
CLUSTERS: Final = f"{_TYPES}cluster.v3.Cluster"
ENDPOINTS: Final = f"{_TYPES}endpoint.v3.ClusterLoadAssignment"
LISTENERS: Final = f"{_TYPES}listener.v3.Listener"
ROUTES: Final = f"{_TYPES}route.v3.RouteConfiguration"
SHORT: Final = {CLUSTERS: "CDS", ENDPOINTS: "EDS", LISTENERS: "LDS", ROUTES: "RDS"}

_METHOD: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/%sAggregatedResources"


class Client:
    """One proxy's stream. ``ready`` is set when clusters, endpoints, listeners and routes have come once.

    ``arrivals`` are (seconds of the monotonic clock, short type, names) of every response; ``bytes`` what they weighed.
    """

    def __init__(self, address: str, number: int, namespace: int, *, delta: bool) -> None:
        self.address = address
        self.number = number
        self.namespace = f"team-{namespace}"
        self.delta = delta
        self.ready = asyncio.Event()
        self.arrivals: list[tuple[float, str, tuple[str, ...]]] = []
        self.bytes = 0
        self.counts: Counter[str] = Counter()
        self._requests: asyncio.Queue[Any] = asyncio.Queue()
        self._wanted: dict[str, list[str]] = {ENDPOINTS: [], ROUTES: []}
        self._node_sent = False
        self._seen: set[str] = set()

    async def run(self) -> None:
        """Converse until cancelled."""
        options = (("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
        async with grpc.aio.insecure_channel(self.address, options=options) as channel:
            request, response = (
                (DeltaDiscoveryRequest, DeltaDiscoveryResponse) if self.delta else (DiscoveryRequest, DiscoveryResponse)
            )
            call = channel.stream_stream(
                _METHOD % ("Delta" if self.delta else "Stream"),
                request_serializer=request.SerializeToString,
                response_deserializer=lambda data: (len(data), response.FromString(data)),
            )(self._say())
            self._ask(CLUSTERS)
            self._ask(LISTENERS)
            with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
                async for size, message in call:
                    self._take(size, message)

    async def _say(self) -> Any:
        while True:
            yield await self._requests.get()

    def _node(self) -> dict[str, Any]:
        if self._node_sent:
            return {}
        self._node_sent = True
        metadata = Struct()
        metadata.update(
            {"NAMESPACE": self.namespace, "LABELS": {"app": f"client-{self.number}"}, "HTTP_PROXY_PORT": "15001"}
        )
        ip = f"10.255.{self.number // 250}.{self.number % 250 + 1}"
        domain = f"{self.namespace}.svc.cluster.local"
        return {"node": {"id": f"sidecar~{ip}~client-{self.number}.{self.namespace}~{domain}", "metadata": metadata}}

    def _ask(self, type_url: str, names: list[str] | None = None) -> None:
        if self.delta:
            self._requests.put_nowait(
                DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=names or (), **self._node())
            )
        else:
            self._requests.put_nowait(DiscoveryRequest(type_url=type_url, resource_names=names or (), **self._node()))

    def _take(self, size: int, message: Any) -> None:
        now = time.monotonic()
        type_url = message.type_url
        short = SHORT.get(type_url, type_url)
        payloads = [one.resource for one in message.resources] if self.delta else message.resources
        names = self._refer(type_url, payloads)
        self.bytes += size
        self.counts[short] += 1
        self.arrivals.append((now, short, tuple(one.name for one in message.resources) if self.delta else ()))
        if self.delta:
            self._requests.put_nowait(DeltaDiscoveryRequest(type_url=type_url, response_nonce=message.nonce))
        else:
            self._requests.put_nowait(
                DiscoveryRequest(
                    type_url=type_url,
                    response_nonce=message.nonce,
                    version_info=message.version_info,
                    resource_names=self._wanted.get(type_url, ()),
                )
            )
        if names is not None:
            self._follow(*names)
        self._seen.add(type_url)
        if self._seen >= {CLUSTERS, ENDPOINTS, LISTENERS} and (ROUTES in self._seen or not self._wanted[ROUTES]):
            self.ready.set()

    def _refer(self, type_url: str, payloads: Any) -> tuple[str, list[str]] | None:
        """What the resources refer to: endpoints of clusters, routes of listeners."""
        if type_url == CLUSTERS:
            clusters: list[Any] = [Cluster.FromString(one.value) for one in payloads]
            return ENDPOINTS, [one.name for one in clusters if one.type == Cluster.EDS]
        if type_url == LISTENERS:
            found = []
            for one in payloads:
                listener: Any = Listener.FromString(one.value)
                for chain in listener.filter_chains:
                    for each in chain.filters:
                        if each.typed_config.Is(HttpConnectionManager.DESCRIPTOR):
                            manager: Any = HttpConnectionManager.FromString(each.typed_config.value)
                            if manager.HasField("rds"):
                                found.append(manager.rds.route_config_name)
            return ROUTES, found
        return None

    def _follow(self, type_url: str, names: list[str]) -> None:
        known = self._wanted[type_url]
        new = [name for name in dict.fromkeys(names) if name not in set(known)]
        if self.delta:
            if new:
                known.extend(new)
                self._ask(type_url, new)
        elif new or (known and set(names) != set(known)):
            self._wanted[type_url] = names = list(dict.fromkeys(names))
            self._ask(type_url, names)
