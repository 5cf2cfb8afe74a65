"""Who gets through to whom, and whether that was mutual TLS: {sidecar, nothing, gRPC without a proxy} on both sides under each
mode of PeerAuthentication, with real Envoy and with our sidecar for the sidecars, and grpcio for the rest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from controlplane.pilot.generators import LISTENER
from controlplane.pilot.translator import Pilot
from tests.controlplane.pilot.mesh import resources
from tests.controlplane.xds.messages import bootstrap
from tests.controlplane.xds.plain_mesh import Served
from tests.differential.envoy_binary import EnvoyUnavailableError
from tests.differential.proxies import Proxy, start
from tests.running import free_ports, until
from tests.sidecar.transport.certificates import Authority, Certificate

grpc = pytest.importorskip("grpc")

from tests.controlplane.pilot.sds_agent import SdsAgent  # noqa: E402
from tests.controlplane.pilot.test_proxyless import Client  # noqa: E402

MUTUAL, PLAIN, REFUSED = "mutual", "plain", "refused"
MODES = ("DISABLE", "PERMISSIVE", "STRICT")
TABLE = {  # by client and server: what comes of a call under each of the modes
    ("sidecar", "sidecar"): (PLAIN, MUTUAL, MUTUAL),
    ("sidecar", "bare"): (PLAIN, PLAIN, PLAIN),
    ("sidecar", "proxyless"): (PLAIN, PLAIN, MUTUAL),
    ("bare", "sidecar"): (PLAIN, PLAIN, REFUSED),
    ("bare", "bare"): (PLAIN, PLAIN, PLAIN),
    ("bare", "proxyless"): (PLAIN, PLAIN, REFUSED),
    ("proxyless", "sidecar"): (PLAIN, MUTUAL, MUTUAL),
    ("proxyless", "bare"): (PLAIN, PLAIN, PLAIN),
    ("proxyless", "proxyless"): (PLAIN, PLAIN, MUTUAL),
}
IDENTITY = "spiffe://cluster.local/ns/shop/sa/client"
WORKLOAD = """
kind: Service
metadata: shop/{name}
spec: {{ports: [{{name: grpc, port: 9080}}], selector: {{app: {name}}}}}
---
kind: WorkloadEntry
metadata: shop/{name}-1
spec:
  address: 127.0.0.1
  ports: {{grpc: {port}}}
  serviceAccount: {name}
  labels: {{app: {name}{label}}}
"""
LABEL = ", security.istio.io/tlsMode: istio"
POLICY = "kind: PeerAuthentication\nmetadata: shop/default\nspec: {{mtls: {{mode: {}}}}}\n"


class Telling(grpc.GenericRpcHandler):  # type: ignore[misc]
    """An application: every method answers what the proxy before it says of the caller."""

    def service(self, details: Any) -> Any:
        """Every method."""
        told = dict(details.invocation_metadata).get("x-forwarded-client-cert", "")
        return grpc.unary_unary_rpc_method_handler(lambda request, context: told.encode())


class Mesh:
    """A control plane, three servers and three clients of them."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind, self.directory = kind, directory
        self.authority = Authority()
        self.served = Served(Pilot())
        self._applications: list[Any] = []
        self._agents: list[SdsAgent] = []
        self._proxies: list[Proxy] = []
        self.clients: list[Client] = []

    def begin(self) -> None:
        """Start everything; whatever of it fails, `close` ends what was started."""
        entrance, proxyless, self.forward = free_ports(3)
        self.ports = {"sidecar": entrance, "bare": self._application(), "proxyless": proxyless}
        self.mode("PERMISSIVE")
        behind = self._application()
        self.server = self.sidecar("sidecar", {"APP_ENDPOINTS": {str(entrance): f"127.0.0.1:{behind}"}})
        self.client = self.sidecar("client", {"HTTP_PROXY_PORT": str(self.forward)})
        self._proxyless("proxyless").call("serve", proxyless)
        self.grpc = self._proxyless("client")

    def mode(self, mode: str) -> None:
        """Everybody is under a policy. The gRPC server's label is the user's own, who gives it together with STRICT."""
        labels = {"sidecar": LABEL, "bare": "", "proxyless": LABEL if mode == "STRICT" else ""}
        documents = [WORKLOAD.format(name=name, port=port, label=labels[name]) for name, port in self.ports.items()]
        self.tell("---\n".join((*documents, POLICY.format(mode))))

    def tell(self, text: str) -> None:
        """Change resources."""
        changed = {resource.key: resource for resource in resources(text)}
        self.served.loop.call_soon_threadsafe(self.served.hub.changed, changed)

    def outcome(self, client: str, server: str) -> str:
        """What comes of a call, and AssertionError if it is mutual TLS with somebody else."""
        host = f"{server}.shop.svc.cluster.local:9080"
        if client == "proxyless":
            (answer,) = self.grpc.call(f"xds:///{host}", 1)
        else:
            answer = self._call(self.forward if client == "sidecar" else self.ports[server], host)
        if "UNAVAILABLE" in answer:
            return REFUSED
        assert answer in ("", "served") or IDENTITY in answer, answer
        return MUTUAL if IDENTITY in answer else PLAIN

    def _call(self, port: int, host: str) -> str:
        with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.default_authority", host)]) as channel:
            try:
                answer: bytes = channel.unary_unary("/test.Who/Are")(b"", timeout=5)
                return answer.decode()
            except grpc.RpcError as error:
                return f"{error.code().name}: {error.details()}"

    def _application(self) -> int:
        server = grpc.server(ThreadPoolExecutor(2))
        server.add_generic_rpc_handlers((Telling(),))
        port: int = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self._applications.append(server)
        return port

    def certificate(self, account: str) -> Certificate:
        """Of a workload."""
        return self.authority.issue("", [f"spiffe://cluster.local/ns/shop/sa/{account}"])

    def sidecar(self, name: str, metadata: dict[str, Any], node_name: str = "") -> Proxy:
        """A proxy of a workload, with an agent."""
        place = node_name or name
        agent = SdsAgent(self.directory / f"{place}.sock", self.certificate(name), self.authority)
        self._agents.append(agent)
        (admin,) = free_ports(1)
        node = f"sidecar~127.0.0.1~{place}-1.shop~shop.svc.cluster.local"
        document = bootstrap(self.served.port, admin, delta=False, node=node)
        document["node"]["metadata"] = {
            "NAMESPACE": "shop",
            "LABELS": {"app": name},
            "SDS_AGENT": "true",
            **metadata,
        }
        document["static_resources"]["clusters"].append(agent.cluster())
        proxy = start(self.kind, document, {"admin": admin}, self.directory / place)
        self._proxies.append(proxy)
        return proxy

    def _proxyless(self, name: str) -> Client:
        certificate, key = self.certificate(name).write(self.directory, name)
        roots = self.directory / "roots.pem"
        roots.write_bytes(self.authority.pem)
        watched = {
            "certificate_file": str(certificate),
            "private_key_file": str(key),
            "ca_certificate_file": str(roots),
            "refresh_interval": "60s",
        }
        client = Client(
            self.served.port,
            name=f"grpc-{name}-1",
            metadata={"LABELS": {"app": name}, "SDS_AGENT": "true"},
            providers={"default": {"plugin_name": "file_watcher", "config": watched}},
        )
        self.clients.append(client)
        return client

    def close(self) -> None:
        """End everything."""
        for client in self.clients:
            client.close()
        for proxy in self._proxies:
            proxy.stop()
        for agent in self._agents:
            agent.close()
        for application in self._applications:
            application.stop(None).wait()
        self.served.close()


@pytest.fixture(scope="module", params=("sidecar", "envoy"))
def mesh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    running = Mesh(request.param, tmp_path_factory.mktemp("mesh"))
    try:
        try:
            running.begin()
        except EnvoyUnavailableError as error:
            pytest.skip(str(error))
        yield running
    finally:
        running.close()


@pytest.mark.parametrize("mode", MODES)
def test_who_gets_through_to_whom(mesh: Mesh, mode: str) -> None:
    mesh.mode(mode)
    expected = {pair: outcomes[MODES.index(mode)] for pair, outcomes in TABLE.items()}
    found: dict[tuple[str, str], str] = {}

    def settled() -> bool:
        found.update({pair: mesh.outcome(*pair) for pair in TABLE})
        return found == expected

    with contextlib.suppress(AssertionError):
        until(settled, f"what is expected under {mode}", timeout=30)
    assert found == expected
    assert {pair: mesh.outcome(*pair) for pair in TABLE} == expected
    assert mesh.served.refused == []


def test_the_listener_for_captured_connections_is_taken_under_every_mode(mesh: Mesh) -> None:
    """Without capturing there is nobody to connect: that it is accepted, and follows the policies, is what is seen here."""
    outbound, inbound = free_ports(2)
    mesh.tell(
        "kind: ConfigMap\nmetadata: istio-system/istio\n"
        f"data: {{mesh: 'proxyInboundListenPort: {inbound}\n\n  proxyListenPort: {outbound}'}}\n"
    )
    one = "kind: PeerAuthentication\nmetadata: shop/one\nspec: {selector: {matchLabels: {app: sidecar}}, mtls: {mode: %s},"
    one += " portLevelMtls: {9999: {mode: DISABLE}, 9998: {mode: STRICT}, 9997: {mode: PERMISSIVE}}}\n"
    for mode in MODES:
        mesh.tell(one % mode)
        proxy = mesh.sidecar("sidecar", {"INTERCEPTION_MODE": "REDIRECT"}, f"captured-{mode}")
        until(lambda proxy=proxy: "virtualInbound::" in proxy.admin("/listeners")[2], "it listens")  # type: ignore[misc]
        until(mesh.served.settled, "everything is acknowledged")
        # Our sidecar has no `upstream_bind_config` yet, which clusters of captured connections ask for.
        assert [error for type_url, error in mesh.served.refused if type_url == LISTENER] == []
        proxy.stop()
