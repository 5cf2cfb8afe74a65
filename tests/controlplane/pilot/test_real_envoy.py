"""Everything that is generated is taken by real Envoy: it asks for it over ADS, refuses nothing, and has all of it.

Our sidecar takes what it has the feature for, and refuses the rest by name.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.model.proxy import ProxyType
from controlplane.model.resource import Resource, ResourceKey
from controlplane.pilot.translator import Pilot
from tests.controlplane.pilot.mesh import change, resources
from tests.controlplane.pilot.policies import every_policy
from tests.controlplane.pilot.test_incremental import variants
from tests.controlplane.xds.messages import bootstrap
from tests.controlplane.xds.plain_mesh import Served
from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.differential.proxies import ENVOY, SIDECAR, start
from tests.running import free_ports, until

EXTERNAL = """
kind: ServiceEntry
metadata: shop/names
spec:
  hosts: [api.example.com]
  resolution: DNS
  ports: [{number: 443, name: tls, protocol: TLS}, {number: 80, name: http, protocol: HTTP, targetPort: 8080}]
---
kind: ServiceEntry
metadata: shop/endpoints
spec:
  hosts: [db.example.com]
  resolution: DNS
  ports: [{number: 5432, name: tcp, protocol: TCP}]
  endpoints: [{address: localhost, ports: {tcp: 15432}, locality: eu/one}, {address: 127.0.0.1, weight: 5}]
---
kind: ServiceEntry
metadata: shop/robin
spec:
  hosts: [one.example.com]
  resolution: DNS_ROUND_ROBIN
  ports: [{number: 80, name: http, protocol: HTTP}]
---
kind: DestinationRule
metadata: shop/robin
spec: {host: one.example.com, subsets: [{name: nobody, labels: {version: none}}]}
---
kind: DestinationRule
metadata: shop/endpoints
spec: {host: db.example.com, subsets: [{name: nobody, labels: {version: none}}]}
---
kind: ServiceEntry
metadata: shop/none
spec:
  hosts: ["*.wild.example.com"]
  resolution: NONE
  ports: [{number: 443, name: tls, protocol: TLS}]
---
kind: ServiceEntry
metadata: shop/none-by-address
spec:
  hosts: [mail.example.com]
  addresses: [10.7.7.7]
  resolution: NONE
  ports: [{number: 25, name: smtp, protocol: TCP}]
---
kind: ServiceEntry
metadata: shop/none-by-name
spec:
  hosts: [www.example.com]
  resolution: NONE
  ports: [{number: 443, name: tls, protocol: TLS}]
---
kind: ServiceEntry
metadata: shop/static
spec:
  hosts: [static.example.com]
  addresses: [10.9.0.1]
  resolution: STATIC
  location: MESH_INTERNAL
  ports: [{number: 9000, name: any, protocol: ""}, {number: 9001, name: grpc, protocol: GRPC}]
  endpoints: [{address: 10.8.0.1}, {address: "2001:db8::1"}]
---
kind: ServiceEntry
metadata: shop/socket
spec:
  hosts: [socket.example.com]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: "unix:///tmp/socket"}]
---
kind: ServiceEntry
metadata: shop/nobody
spec:
  hosts: [nobody.example.com]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
---
kind: Service
metadata: shop/alias
spec: {type: ExternalName, externalName: example.com, ports: [{name: http, port: 80}]}
---
kind: Service
metadata: shop/web
spec: {ports: [{name: http, port: 80, targetPort: 8080}, {name: admin, port: 9999}], selector: {app: web}}
---
kind: Service
metadata: shop/headless
spec: {clusterIP: None, ports: [{name: tcp, port: 7000}, {name: http, port: 7001}], selector: {app: web}}
"""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    try:
        envoy_binary()
    except EnvoyUnavailableError as error:
        pytest.skip(str(error))
    pilot = Pilot()
    outbound, inbound = free_ports(2)
    captured = (
        "---\nkind: ConfigMap\nmetadata: istio-system/istio\n"
        f"data: {{mesh: 'proxyListenPort: {outbound}\n\n  proxyInboundListenPort: {inbound}'}}\n"
    )
    change(pilot, every_policy() + "---" + EXTERNAL + captured)
    running = Served(pilot)
    yield running
    running.close()


@pytest.mark.parametrize(
    ("subject", "kind", "metadata"),
    [
        (ENVOY, ProxyType.SIDECAR, {}),
        (ENVOY, ProxyType.SIDECAR, {"INTERCEPTION_MODE": "REDIRECT"}),
        (ENVOY, ProxyType.ROUTER, {}),
        (SIDECAR, ProxyType.SIDECAR, {}),
        (SIDECAR, ProxyType.SIDECAR, {"INTERCEPTION_MODE": "REDIRECT"}),
        (SIDECAR, ProxyType.ROUTER, {}),
    ],
    ids=["envoy", "envoy-captured", "envoy-gateway", "sidecar", "sidecar-captured", "sidecar-gateway"],
)
def test_it_takes_everything(
    served: Served, subject: str, kind: ProxyType, metadata: dict[str, str], tmp_path: Path
) -> None:
    admin, proxy_port = free_ports(2)
    node = f"{kind}~127.0.0.1~web-1.shop~shop.svc.cluster.local"
    document: Any = bootstrap(served.port, admin, delta=kind is ProxyType.ROUTER, node=node)
    document["node"]["metadata"].update(metadata)
    document["node"]["locality"] = {"region": "eu", "zone": "one", "sub_zone": "a"}
    served.refused.clear()
    proxy = start(subject, document, {"admin": admin, "proxy": proxy_port}, tmp_path)
    try:
        until(lambda: _settled(served), "everything is acknowledged", timeout=30)
        wanted = served.ask(lambda: _wanted(served, node))
        assert served.refused == []
        lines = proxy.admin("/clusters")[2].splitlines()
        assert {line.split("::")[0] for line in lines} - {"xds"} == wanted
        assert any(
            line.startswith("outbound|9080|v2|outlier.shop.svc.cluster.local::10.0.0.2:9080::") for line in lines
        )
        assert not re.findall(r".*[Dd]eprecated.*", proxy.log(1_000_000))
    finally:
        proxy.stop()


def _settled(served: Served) -> bool:
    return bool(served.ask(lambda: len(served.hub.sessions))) and served.settled()


def _wanted(served: Served, node: str) -> set[str]:
    session = next(one for one in served.hub.sessions if one.proxy.id == node)
    cluster = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    return set(served.mesh.resources(session.proxy, cluster))


@pytest.mark.parametrize("delta", [False, True], ids=["state of the world", "delta"])
@pytest.mark.parametrize("subject", [ENVOY, SIDECAR])
def test_it_takes_whatever_a_mesh_becomes(subject: str, delta: bool, tmp_path: Path) -> None:
    """Both data planes follow a mesh of random resources that change and go, and refuse nothing of it."""
    if subject == ENVOY:
        try:
            envoy_binary()
        except EnvoyUnavailableError as error:
            pytest.skip(str(error))
    chance = random.Random(7 + delta)
    # EnvoyFilters may say what is wrong, and clusters wait for secrets, which are not given over this plain connection.
    left_out = ("EnvoyFilter", "credentialName")
    documents = (text for text in variants(chance) if not any(word in text for word in left_out))
    admin, forward = free_ports(2)
    served = Served(Pilot())
    document: Any = bootstrap(served.port, admin, delta=delta, node="sidecar~127.0.0.1~x-1.a~a.svc.cluster.local")
    document["node"]["metadata"].update(NAMESPACE="a", LABELS={}, HTTP_PROXY_PORT=str(forward))
    proxy = start(subject, document, {"admin": admin, "forward": forward}, tmp_path)
    known: dict[ResourceKey, Resource] = {}
    try:
        for step in range(60):
            changed: dict[ResourceKey, Resource | None] = {}
            for _ in range(4):
                (resource,) = resources(next(documents))
                changed[resource.key] = known[resource.key] = resource
            if chance.random() < 0.5:
                gone = chance.choice(sorted(known))
                del known[gone]
                changed[gone] = None
            served.loop.call_soon_threadsafe(served.hub.changed, changed)
            if step % 3 == 2:
                until(lambda: _settled(served), "everything is acknowledged", timeout=30)
        assert served.refused == []
        names = {line.split("::")[0] for line in proxy.admin("/clusters")[2].splitlines()}
        assert names - {"xds"} == served.ask(lambda: _wanted(served, document["node"]["id"]))
    finally:
        proxy.stop()
        served.close()
