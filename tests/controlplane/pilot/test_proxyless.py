"""gRPC clients without a proxy: grpcio with `xds:///` targets resolves, splits by weight, follows changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from controlplane.model.proxy import ProxyType
from controlplane.pilot.generators import CLUSTER, ENDPOINTS, LISTENER, ROUTES
from controlplane.pilot.translator import Pilot
from tests.controlplane.pilot.mesh import assignment, clusters, decoded, mesh, proxy, resources
from tests.controlplane.xds.plain_mesh import Served
from tests.running import free_ports, until

grpc = pytest.importorskip("grpc")

TARGET = "xds:///reviews.shop.svc.cluster.local:9080"


class Client:
    """`grpc_client` as a process."""

    def __init__(
        self,
        xds_port: int,
        *,
        name: str = "client-1",
        metadata: Mapping[str, Any] | None = None,
        providers: Mapping[str, Any] | None = None,
    ) -> None:
        bootstrap: dict[str, Any] = {
            "xds_servers": [
                {
                    "server_uri": f"127.0.0.1:{xds_port}",
                    "channel_creds": [{"type": "insecure"}],
                    "server_features": ["xds_v3"],
                }
            ],
            "node": {
                "id": f"sidecar~127.0.0.1~{name}.shop~shop.svc.cluster.local",
                "metadata": {"GENERATOR": "grpc", "NAMESPACE": "shop", **(metadata or {})},
                "locality": {"region": "eu"},
            },
            "server_listener_resource_name_template": "xds.istio.io/grpc/lds/inbound/%s",
        }
        if providers is not None:
            bootstrap["certificate_providers"] = providers
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.controlplane.pilot.grpc_client"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(bootstrap), "GRPC_VERBOSITY": "ERROR"},
        )

    def call(self, target: str, count: int, *metadata: str) -> dict[str, int]:
        """Who answered how often."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(" ".join((target, str(count), *metadata)) + "\n")
        self.process.stdin.flush()
        answers: dict[str, int] = json.loads(self.process.stdout.readline())
        return answers

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


class Answering(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Every method answers a name."""

    def __init__(self, name: str) -> None:
        self.name = name.encode()

    def service(self, details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self.name)


@pytest.fixture(scope="module")
def backends() -> Iterator[dict[str, int]]:
    servers, ports = [], {}
    for name in ("v1", "v2", "v3"):
        server = grpc.server(ThreadPoolExecutor(2))
        server.add_generic_rpc_handlers((Answering(name),))
        ports[name] = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
    yield ports
    for server in servers:
        server.stop(None).wait()


def shop(**ports: int) -> str:
    """The service reviews, with workloads on loopback."""
    documents = [
        "kind: Service\nmetadata: shop/reviews\nspec: {ports: [{name: grpc, port: 9080}], selector: {app: reviews}}\n"
    ]
    documents += [
        f"kind: WorkloadEntry\nmetadata: shop/reviews-{name}\n"
        f"spec: {{address: 127.0.0.1, ports: {{grpc: {port}}}, labels: {{app: reviews, version: {name}}}}}\n"
        for name, port in ports.items()
    ]
    return "---\n".join(documents)


RULE = """
kind: DestinationRule
metadata: shop/reviews
spec:
  host: reviews
  trafficPolicy: {loadBalancer: {simple: LEAST_REQUEST}, outlierDetection: {consecutive5xxErrors: 3}}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
"""
SPLIT = """
kind: VirtualService
metadata: shop/reviews
spec:
  hosts: [reviews]
  http:
  - match: [{headers: {user: {exact: jason}}}]
    timeout: 2s
    retries: {attempts: 3, retryOn: "unavailable,5xx"}
    route: [{destination: {host: reviews, subset: v2}}]
  - match: [{headers: {user: {exact: broken}}}]
    fault: {abort: {httpStatus: 503, percentage: {value: 100.0}}}
    route: [{destination: {host: reviews, subset: v1}}]
  - headers: {request: {set: {x-added: "1"}}}
    route:
    - {destination: {host: reviews, subset: v1}, weight: 80}
    - {destination: {host: reviews, subset: v2}, weight: 20}
"""


@pytest.fixture
def served(backends: dict[str, int]) -> Iterator[Served]:
    running = Served(Pilot())
    told(running, shop(v1=backends["v1"]))
    yield running
    running.close()


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    running = Client(served.port)
    yield running
    running.close()


def told(served: Served, text: str) -> None:
    changed = {resource.key: resource for resource in resources(text)}
    served.loop.call_soon_threadsafe(served.hub.changed, changed)


def test_it_resolves_and_follows_endpoints(served: Served, client: Client, backends: dict[str, int]) -> None:
    assert client.call(TARGET, 3) == {"v1": 3}
    assert client.call("xds:///reviews:9080", 1) == {"v1": 1}  # short names are of the client's namespace
    told(served, shop(v1=backends["v3"]))
    until(lambda: client.call(TARGET, 1) == {"v3": 1}, "the endpoint has changed")
    assert served.refused == []


def test_it_splits_and_matches(served: Served, client: Client, backends: dict[str, int]) -> None:
    assert client.call(TARGET, 1) == {"v1": 1}
    told(served, "---\n".join((shop(v1=backends["v1"], v2=backends["v2"]), RULE, SPLIT)))
    until(lambda: set(client.call(TARGET, 20)) == {"v1", "v2"}, "the traffic is split")
    answers = client.call(TARGET, 500)
    assert 50 <= answers["v2"] <= 150 and answers["v1"] + answers["v2"] == 500
    assert client.call(TARGET, 20, "user=jason") == {"v2": 20}
    (failure,) = client.call(TARGET, 5, "user=broken")
    assert failure.startswith("UNAVAILABLE: ")
    assert served.refused == []


def test_it_hashes_headers(served: Served, client: Client, backends: dict[str, int]) -> None:
    assert client.call(TARGET, 1) == {"v1": 1}
    rule = (
        "kind: DestinationRule\nmetadata: shop/reviews\nspec: {host: reviews, trafficPolicy: {connectionPool: {http:"
        " {http2MaxRequests: 100}}, loadBalancer: {consistentHash: {httpHeaderName: user, minimumRingSize: 512}}}}"
    )
    told(served, "---\n".join((shop(v1=backends["v1"], v2=backends["v2"], v3=backends["v3"]), rule)))
    until(lambda: len(client.call(TARGET, 30)) > 1, "there are several backends")
    until(lambda: len(client.call(TARGET, 10, "user=jason")) == 1, "the header decides")
    answers = [client.call(TARGET, 5, f"user=u{number}") for number in range(20)]
    assert all(len(each) == 1 for each in answers)
    assert len({name for each in answers for name in each}) > 1
    assert served.refused == []


def test_a_server_has_its_listener(served: Served, client: Client) -> None:
    (port,) = free_ports(1)
    client.call("serve", port)
    told(served, shop(v1=port))
    until(lambda: client.call(TARGET, 1) == {"served": 1}, "the server answers")
    assert served.refused == []


def test_what_it_cannot_take_is_left_out() -> None:
    pilot = mesh("---\n".join((shop(v1=1001, v2=1002), RULE, SPLIT)))
    node = proxy(namespace="shop", type=ProxyType.PROXYLESS)
    name = "outbound|9080|v1|reviews.shop.svc.cluster.local"
    made = clusters(pilot, node)[name]
    assert made.lb_policy == made.ROUND_ROBIN
    assert not made.HasField("common_lb_config") and not made.HasField("transport_socket")
    endpoints = assignment(pilot, node, name)
    assert all(each.HasField("locality") and each.load_balancing_weight.value for each in endpoints.endpoints)
    (routes,) = decoded(pilot, node, ROUTES).values()
    assert [route.route.retry_policy.retry_on for route in routes.virtual_hosts[0].routes] == ["unavailable", "", ""]
    assert all(not route.request_headers_to_add for route in routes.virtual_hosts[0].routes)
    assert not pilot.resources(node, LISTENER, ["nobody:80", "reviews:80", "reviews", "9080"])
    assert not pilot.resources(node, CLUSTER, ["outbound|9080|v9|reviews.shop.svc.cluster.local", "BlackHoleCluster"])
    assert set(pilot.resources(node, ENDPOINTS)) == set(pilot.resources(node, CLUSTER))
