"""A gateway that has its certificates from here, over ADS: served, exchanged, and never sent to just anybody."""

from __future__ import annotations

import base64
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509

from controlplane.pilot.translator import Pilot
from controlplane.xds.hub import Hub
from controlplane.xds.session import Session
from tests.controlplane.pilot.scene import SECRET, gateway, resources_of
from tests.controlplane.xds.messages import bootstrap
from tests.controlplane.xds.plain_mesh import Served
from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.differential.proxies import ENVOY, SIDECAR, start
from tests.running import free_ports, until
from tests.sidecar.transport.certificates import Authority, Certificate

AUTHORITY = Authority("mesh")
EDGE = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge, namespace: shop}}
spec:
  selector: {{app: edge}}
  servers:
  - port: {{number: {port}, name: https, protocol: HTTPS}}
    bind: 127.0.0.1
    hosts: ["shop.example"]
    tls: {{mode: SIMPLE, credentialName: shop-cert}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: shop, namespace: shop}}
spec:
  hosts: ["shop.example"]
  gateways: [edge]
  http: [{{directResponse: {{status: 200, body: {{string: here}}}}}}]
"""


def secret(certificate: Certificate) -> str:
    chain, key = (base64.b64encode(data).decode() for data in (certificate.pem, certificate.key_pem))
    return f"""
apiVersion: v1
kind: Secret
metadata: {{name: shop-cert, namespace: shop}}
type: kubernetes.io/tls
data: {{tls.crt: {chain}, tls.key: {key}}}
"""


class Edge(NamedTuple):
    """A running gateway, and what serves it."""

    served: Served
    port: int

    def tell(self, *texts: str) -> None:
        changed = {resource.key: resource for text in texts for resource in resources_of(text)}
        self.served.loop.call_soon_threadsafe(self.served.hub.changed, changed)

    def serial(self) -> int | None:
        """The serial number of the certificate that a new client sees; None if it is not let in."""
        context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
        try:
            plain = socket.create_connection(("127.0.0.1", self.port), 5)
            with context.wrap_socket(plain, server_hostname="shop.example") as secure:
                data = secure.getpeercert(binary_form=True)
                assert data is not None
                return x509.load_der_x509_certificate(data).serial_number
        except OSError:
            return None


def edge(kind: str, directory: Path) -> Iterator[Edge]:
    """A gateway whose connection to the server counts as authenticated."""
    if kind == ENVOY:
        try:
            envoy_binary()
        except EnvoyUnavailableError as error:
            pytest.skip(str(error))
    admin, port = free_ports(2)
    served = Served(Pilot(), trusting=True)
    found = Edge(served, port)
    document: Any = bootstrap(
        served.port, admin, delta=False, node="router~127.0.0.1~edge-1.shop~shop.svc.cluster.local"
    )
    document["node"]["metadata"].update(LABELS={"app": "edge"})
    found.tell(EDGE.format(port=port), secret(AUTHORITY.issue("shop", names=("shop.example",), serial=1)))
    proxy = start(kind, document, {"admin": admin, "edge": port}, directory)
    try:
        yield found
    finally:
        proxy.stop()
        served.close()


@pytest.fixture(params=[ENVOY, SIDECAR])
def trusted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Edge]:
    yield from edge(request.param, tmp_path)


def test_a_certificate_is_served_and_exchanged(trusted: Edge) -> None:
    until(lambda: trusted.serial() == 1, "the gateway has its certificate")
    trusted.tell(secret(AUTHORITY.issue("shop", names=("shop.example",), serial=2)))
    until(lambda: trusted.serial() == 2, "new connections have the new one")
    assert trusted.served.refused == []


@pytest.mark.parametrize("confidential", [True, False])
def test_who_is_not_authenticated_gets_no_secrets(confidential: bool) -> None:
    async def send(message: Any) -> None:
        raise AssertionError("nothing is sent here")

    pilot = Pilot()
    texts = (EDGE.format(port=443), secret(AUTHORITY.issue("shop", names=("shop.example",))))
    pilot.apply({resource.key: resource for text in texts for resource in resources_of(text)})
    session = Session(Hub(pilot), gateway({"app": "edge"}), None, send, incremental=False, confidential=confidential)
    assert set(session.resources(SECRET, None)) == ({"kubernetes://shop-cert"} if confidential else set())
