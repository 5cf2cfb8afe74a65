"""What DestinationRules say of TCP connections, in the listeners that they come through."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from controlplane.pilot.generators import LISTENER
from tests.controlplane.pilot.mesh import clusters, decoded, mesh, proxy

MESH = """
kind: Service
metadata: shop/db
spec: {ports: [{name: tcp, port: 5432}, {name: tcp-other, port: 5433}], selector: {app: db}}
---
kind: Sidecar
metadata: shop/default
spec:
  egress:
  - {port: {number: 5432, protocol: TCP, name: tcp}, bind: 127.0.0.1, hosts: ['*/*']}
  - {port: {number: 5433, protocol: TCP, name: other}, bind: 127.0.0.1, hosts: ['*/*']}
  - {hosts: ['*/*']}
---
kind: DestinationRule
metadata: shop/db
spec:
  host: db
  trafficPolicy:
    connectionPool: {tcp: {idleTimeout: 90s, maxConnectionDuration: 600s}}
    portLevelSettings:
    - {port: {number: 5433}, connectionPool: {tcp: {idleTimeout: 0s}}}
  subsets:
  - {name: short, labels: {v: s}, trafficPolicy: {connectionPool: {tcp: {idleTimeout: 5s}}}}
"""
ROUTE = """
---
kind: VirtualService
metadata: shop/db
spec: {hosts: [db], tcp: [{match: [{port: 5432}], route: [{destination: {host: db, subset: short, port: {number: 5432}}}]}]}
"""


def tcp_proxy(text: str, port: int) -> Any:
    """The TCP proxy of the listener on a port."""
    listeners = decoded(mesh(text), proxy(namespace="shop"), LISTENER).values()
    (listener,) = (one for one in listeners if one.address.socket_address.port_value == port)
    chains = [*listener.filter_chains, *([listener.default_filter_chain] if not listener.filter_chains else [])]
    return tcp_proxy_pb2.TcpProxy.FromString(chains[0].filters[-1].typed_config.value)


@pytest.mark.parametrize(
    ("more", "port", "idle", "longest"), [("", 5432, 90, 600), ("", 5433, 0, 0), (ROUTE, 5432, 5, 0)]
)
def test_how_long_connections_may_be_idle_and_live(more: str, port: int, idle: int, longest: int) -> None:
    found = tcp_proxy(MESH + more, port)
    assert found.HasField("idle_timeout") and found.idle_timeout.seconds == idle
    assert found.max_downstream_connection_duration.seconds == longest


def test_clusters_of_tcp_say_nothing_of_http() -> None:
    made = clusters(mesh(MESH), proxy(namespace="shop"))
    assert not made["outbound|5432||db.shop.svc.cluster.local"].typed_extension_protocol_options


SERVED = """
kind: Service
metadata: shop/web
spec: {ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 5432}], selector: {app: web}}
---
kind: WorkloadEntry
metadata: shop/web-1
spec: {address: 10.0.0.7, labels: {app: web}}
---
kind: Sidecar
metadata: istio-system/default
spec:
  inboundConnectionPool: {tcp: {maxConnectionDuration: 3600s, idleTimeout: 5s}}
  egress: [{hosts: ['*/*']}]
"""


@pytest.mark.parametrize(("more", "longest"), [("", 3600), ("0s", 0)])
def test_how_long_connections_that_come_in_may_live(more: str, longest: int) -> None:
    """The mesh's Sidecar says it: whoever is revoked, and has a connection, does not stay for ever."""
    text = SERVED if not more else SERVED[: SERVED.index("---\nkind: Sidecar")]
    listeners = decoded(
        mesh(text), proxy(namespace="shop", address="10.0.0.7", labels={"app": "web"}), LISTENER
    ).values()
    seen = set()
    for listener in listeners:
        for chain in listener.filter_chains:
            last = chain.filters[-1]
            if "HttpConnectionManager" in last.typed_config.type_url:
                manager = http_connection_manager_pb2.HttpConnectionManager.FromString(last.typed_config.value)
                if manager.stat_prefix.startswith("inbound"):
                    assert manager.common_http_protocol_options.max_connection_duration.seconds == longest
                    seen.add("http")
            elif "TcpProxy" in last.typed_config.type_url:
                made = tcp_proxy_pb2.TcpProxy.FromString(last.typed_config.value)
                if made.cluster.startswith("inbound|5432"):
                    assert made.max_downstream_connection_duration.seconds == longest
                    assert not made.HasField("idle_timeout")
                    seen.add("tcp")
    assert seen == {"http", "tcp"}
