"""How a workload is, told on the stream on which its proxy gets its configuration, in both dialects."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2

from controlplane.xds.type_urls import CLUSTER, HEALTH
from tests.controlplane.xds.plain_mesh import Served
from tests.running import until

NODE = "sidecar~10.0.0.1~a.shop~shop.svc.cluster.local"


@pytest.mark.parametrize(
    ("method", "request_type", "response_type"),
    [
        ("Stream", discovery_pb2.DiscoveryRequest, discovery_pb2.DiscoveryResponse),
        ("Delta", discovery_pb2.DeltaDiscoveryRequest, discovery_pb2.DeltaDiscoveryResponse),
    ],
)
def test_health_is_told_between_subscriptions(method: str, request_type: Any, response_type: Any) -> None:
    served = Served()
    said: queue.Queue[Any] = queue.Queue()

    def say() -> Iterator[Any]:
        while (one := said.get()) is not None:
            yield one

    ill = request_type(type_url=HEALTH)
    ill.node.id = NODE
    ill.error_detail.message = "connection refused"
    well = request_type(type_url=HEALTH)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{served.port}") as channel:
            call = channel.stream_stream(
                f"/envoy.service.discovery.v3.AggregatedDiscoveryService/{method}AggregatedResources",
                request_serializer=request_type.SerializeToString,
                response_deserializer=response_type.FromString,
            )(say())
            for one in (ill, request_type(type_url=CLUSTER), well):
                said.put(one)
            assert next(call).type_url == CLUSTER
            until(lambda: len(served.health) == 2, "both are told")
            said.put(None)
            assert served.health == [(NODE, False, "connection refused"), (NODE, True, "")]
            assert all(HEALTH not in session.watches for session in served.ask(lambda: list(served.hub.sessions)))
    finally:
        said.put(None)
        served.close()
