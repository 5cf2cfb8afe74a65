"""What gateways listen on, whom they let in, and where it leads, in our sidecar and in real Envoy."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2, tls_pb2
from google.protobuf.json_format import MessageToDict

from tests.controlplane.pilot.behaviour import send, services, short
from tests.controlplane.pilot.planes import PLANES, Plane, running
from tests.controlplane.pilot.scene import SECRET, Scene, gateway
from tests.controlplane.pilot.test_listeners import hello, raw, who
from tests.sidecar.transport.certificates import Authority

AUTHORITY = Authority("mesh")
SERVER = AUTHORITY.issue("shop.example", names=("shop.example", "other.example"))
CLIENT = AUTHORITY.issue("client", names=("client.example",))


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


EDGE = f"""
apiVersion: v1
kind: Secret
metadata: {{name: shop-cert, namespace: shop}}
type: kubernetes.io/tls
data: {{tls.crt: {text(SERVER.pem)}, tls.key: {text(SERVER.key_pem)}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: mutual-cert, namespace: shop}}
data: {{cert: {text(SERVER.pem)}, key: {text(SERVER.key_pem)}, cacert: {text(AUTHORITY.pem)}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: unused, namespace: shop}}
data: {{cert: {text(SERVER.pem)}, key: {text(SERVER.key_pem)}}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge, namespace: shop}}
spec:
  selector: {{app: edge}}
  servers:
  - port: {{number: 80, name: http, protocol: HTTP}}
    hosts: ["shop.example", "*.wild.example", "away/only-away.example", "./only-shop.example"]
  - port: {{number: 443, name: https, protocol: HTTPS}}
    hosts: ["shop.example"]
    tls: {{mode: SIMPLE, credentialName: shop-cert}}
  - port: {{number: 444, name: https-mutual, protocol: HTTPS}}
    hosts: ["*"]
    tls: {{mode: MUTUAL, credentialName: mutual-cert}}
  - port: {{number: 445, name: https-names, protocol: HTTPS}}
    hosts: ["*"]
    tls: {{mode: MUTUAL, credentialNames: [mutual-cert]}}
  - port: {{number: 8443, name: tls, protocol: TLS}}
    hosts: ["*.pass.example"]
    tls: {{mode: PASSTHROUGH}}
  - port: {{number: 9444, name: opened, protocol: TLS}}
    hosts: ["shop.example"]
    tls: {{mode: SIMPLE, credentialName: shop-cert}}
  - port: {{number: 5432, name: tcp, protocol: TCP}}
    hosts: ["*"]
  - port: {{number: 15443, name: auto, protocol: TLS}}
    hosts: ["*.shop.svc.cluster.local"]
    tls: {{mode: AUTO_PASSTHROUGH}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: second, namespace: shop}}
spec:
  selector: {{app: edge}}
  servers:
  - port: {{number: 80, name: http, protocol: HTTP}}
    hosts: ["second.example"]
  - port: {{number: 80, name: http-redirecting, protocol: HTTP}}
    hosts: ["secure.example"]
    tls: {{httpsRedirect: true}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: not-ours, namespace: shop}}
spec:
  selector: {{app: somebody-else}}
  servers:
  - port: {{number: 81, name: http, protocol: HTTP}}
    hosts: ["*"]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: one, namespace: shop}}
spec:
  hosts: ["shop.example"]
  gateways: [edge]
  http:
  - match: [{{uri: {{prefix: /one}}}}]
    route: [{{destination: {{host: a}}}}]
  - match: [{{uri: {{prefix: /from-mesh}}, gateways: [mesh]}}]
    route: [{{destination: {{host: b}}}}]
  - route: [{{destination: {{host: b}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: two, namespace: shop}}
spec:
  hosts: ["shop.example"]
  gateways: [shop/edge]
  http:
  - match: [{{uri: {{prefix: /two}}}}]
    route: [{{destination: {{host: c}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: wild, namespace: shop}}
spec:
  hosts: ["a.wild.example", "only-shop.example", "only-away.example", "second.example", "never.example"]
  gateways: [edge, second]
  http:
  - match: [{{gateways: [second]}}]
    route: [{{destination: {{host: c}}}}]
  - route: [{{destination: {{host: d}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: secure, namespace: shop}}
spec:
  hosts: ["secure.example"]
  gateways: [second]
  http:
  - route: [{{destination: {{host: d}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: passed, namespace: shop}}
spec:
  hosts: ["*.pass.example"]
  gateways: [edge]
  tls:
  - match: [{{port: 8443, sniHosts: [a.pass.example]}}]
    route: [{{destination: {{host: a}}}}]
  - match: [{{port: 8443, sniHosts: ["*.pass.example"]}}]
    route: [{{destination: {{host: b}}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: stream, namespace: shop}}
spec:
  hosts: ["*"]
  gateways: [edge]
  tcp:
  - match: [{{port: 5432}}]
    route: [{{destination: {{host: d}}}}]
  - match: [{{port: 9444}}]
    route: [{{destination: {{host: c}}}}]
"""
ROUTER = gateway({"app": "edge"})


@pytest.fixture(scope="module", params=PLANES)
def plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """A gateway."""
    scene = Scene(services(), EDGE)
    secrets = [
        MessageToDict(secret_pb2.Secret.FromString(each.value), preserving_proto_field_name=True)
        for each in scene.pilot.resources(ROUTER, SECRET).values()
    ]
    with running(request.param, scene, ROUTER, tmp_path_factory.mktemp(request.param), secrets=secrets) as made:
        yield made


PLAIN = "0.0.0.0_80"


@pytest.mark.parametrize(
    ("host", "path", "expected"),
    [
        ("shop.example", "/one", "a"),
        ("shop.example:8080", "/one", "a"),  # clients may come by another port
        ("shop.example", "/two", "c"),  # the first virtual service's last rule does not hide the second one's
        ("shop.example", "/from-mesh", "b"),
        ("shop.example", "/else", "b"),
        ("a.wild.example", "/", "d"),
        ("b.wild.example", "/", "404"),
        ("only-shop.example", "/", "d"),
        ("only-away.example", "/", "404"),
        ("second.example", "/", "c"),
        ("never.example", "/", "404"),
    ],
)
def test_virtual_services_are_served_for_the_hosts_of_the_servers(
    plane: Plane, host: str, path: str, expected: str
) -> None:
    assert who(plane, PLAIN, host, path) == expected


def test_a_server_may_send_its_clients_to_https(plane: Plane) -> None:
    status, headers, _ = send(plane.ports[PLAIN], "secure.example", {"path": "/x"})
    assert (status, headers["location"]) == (301, "https://secure.example/x")


def test_a_gateway_that_selects_others_is_not_listened_for(plane: Plane) -> None:
    assert "0.0.0.0_81" not in plane.ports


def over_tls(plane: Plane, listener: str, name: str, *, certificate: tuple[Path, Path] | None = None) -> str:
    """Who answers a request over TLS."""
    context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
    if certificate is not None:
        context.load_cert_chain(*certificate)
    connection = HTTPSConnection("127.0.0.1", plane.ports[listener], timeout=10, context=context)
    connection.sock = context.wrap_socket(
        socket.create_connection(("127.0.0.1", plane.ports[listener]), 10), server_hostname=name
    )
    try:
        connection.request("GET", "/one", headers={"host": name})
        response = connection.getresponse()
        return short(json.loads(response.read())["from"]) if response.status == 200 else str(response.status)
    finally:
        connection.close()


def test_https_is_opened_with_the_certificate_of_a_secret(plane: Plane) -> None:
    assert over_tls(plane, "0.0.0.0_443", "shop.example") == "a"
    with pytest.raises(OSError):
        over_tls(plane, "0.0.0.0_443", "other.example")  # no server has this name


@pytest.mark.parametrize("listener", ["0.0.0.0_444", "0.0.0.0_445"])
def test_mutual_tls_wants_a_certificate_of_the_secrets_authority(plane: Plane, listener: str, tmp_path: Path) -> None:
    assert over_tls(plane, listener, "shop.example", certificate=CLIENT.write(tmp_path, "client")) == "a"
    with pytest.raises(OSError):
        over_tls(plane, listener, "shop.example")
    stranger = Authority("stranger").issue("client").write(tmp_path, "stranger")
    with pytest.raises(OSError):
        over_tls(plane, listener, "shop.example", certificate=stranger)


def test_tls_that_is_passed_through_goes_by_its_name(plane: Plane) -> None:
    assert raw(plane, "0.0.0.0_8443", hello("a.pass.example")) == "a"
    assert raw(plane, "0.0.0.0_8443", hello("z.pass.example")) == "b"
    assert raw(plane, "0.0.0.0_8443", hello("a.else.example")) == ""


def test_connections_go_where_the_tcp_route_says(plane: Plane) -> None:
    assert raw(plane, "0.0.0.0_5432", b"\0hello") == "d"


def test_connections_with_tls_may_be_opened_and_passed_on(plane: Plane) -> None:
    context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
    connection = socket.create_connection(("127.0.0.1", plane.ports["0.0.0.0_9444"]), 10)
    with context.wrap_socket(connection, server_hostname="shop.example") as secure:
        secure.sendall(b"\0hello")
        answer = b""
        with contextlib.suppress(ssl.SSLError):
            while more := secure.recv(4096):
                answer += more
    assert short(answer.decode()) == "c"


MUTUAL = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  selector: {app: edge}
  servers:
  - port: {number: 15443, name: mesh, protocol: HTTPS}
    hosts: ["*"]
    tls: {mode: %s}
"""


def context_of(listener: Any) -> Any:
    """The TLS settings of a listener's first filter chain."""
    return tls_pb2.DownstreamTlsContext.FromString(listener.filter_chains[0].transport_socket.typed_config.value)


def test_the_meshs_own_certificates_are_the_agents() -> None:
    mutual = MUTUAL % "ISTIO_MUTUAL"
    assert Scene(mutual).listeners(ROUTER) == {}  # it has no identity: nobody is let in
    router = replace(ROUTER, metadata={"SDS_AGENT": "true"})
    context = context_of(Scene(mutual).listeners(router)["0.0.0.0_15443"])
    (certificate,) = context.common_tls_context.tls_certificate_sds_secret_configs
    roots = context.common_tls_context.combined_validation_context.validation_context_sds_secret_config
    assert (certificate.name, roots.name) == ("default", "ROOTCA")
    service = certificate.sds_config.api_config_source.grpc_services[0]
    assert (service.envoy_grpc.cluster_name, context.require_client_certificate.value) == ("sds-grpc", True)


def test_settings_of_tls_are_those_of_the_server() -> None:
    settings = (
        "MUTUAL, serverCertificate: /s.pem, privateKey: /s.key, caCertificates: /ca.pem, caCrl: /crl.pem, "
        "subjectAltNames: [a.example], verifyCertificateHash: [aa], minProtocolVersion: TLSV1_2, "
        "maxProtocolVersion: TLSV1_3, cipherSuites: [ECDHE-RSA-AES128-GCM-SHA256]"
    )
    context = context_of(Scene(MUTUAL % settings).listeners(ROUTER)["0.0.0.0_15443"])
    common = context.common_tls_context
    assert context.require_client_certificate.value
    assert list(common.alpn_protocols) == ["h2", "http/1.1"]
    assert common.tls_certificates[0].certificate_chain.filename == "/s.pem"
    assert common.validation_context.trusted_ca.filename == "/ca.pem"
    assert common.validation_context.crl.filename == "/crl.pem"
    assert {each.matcher.exact for each in common.validation_context.match_typed_subject_alt_names} == {"a.example"}
    assert list(common.tls_params.cipher_suites) == ["ECDHE-RSA-AES128-GCM-SHA256"]
    optional = context_of(
        Scene(MUTUAL % settings.replace("MUTUAL", "OPTIONAL_MUTUAL")).listeners(ROUTER)["0.0.0.0_15443"]
    )
    assert not optional.require_client_certificate.value
    assert optional.common_tls_context.validation_context.trusted_ca.filename == "/ca.pem"


@pytest.mark.parametrize("mode", ["MUTUAL", "OPTIONAL_MUTUAL"])
def test_clients_are_never_let_in_without_roots(mode: str) -> None:
    def common(settings: str) -> Any:
        return context_of(Scene(MUTUAL % f"{mode}, {settings}").listeners(ROUTER)["0.0.0.0_15443"]).common_tls_context

    of_secrets = common("credentialNames: [rsa, ecdsa]")
    assert [each.name for each in of_secrets.tls_certificate_sds_secret_configs] == [
        "kubernetes://rsa",
        "kubernetes://ecdsa",
    ]
    roots = of_secrets.combined_validation_context.validation_context_sds_secret_config
    assert roots.name == "kubernetes://rsa-cacert"
    for name in ("clients", "clients-cacert"):  # as it is served
        apart = common(f"credentialName: one, caCertCredentialName: {name}").combined_validation_context
        assert apart.validation_context_sds_secret_config.name == "kubernetes://clients-cacert"
    files = "{serverCertificate: /a, privateKey: /b}, {serverCertificate: /c, privateKey: /d, caCertificates: /ca}"
    of_files = common(f"tlsCertificates: [{files}]")
    assert of_files.validation_context.trusted_ca.filename == "/ca"


SHARING = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: %s, namespace: shop}
spec:
  selector: {app: edge}
  servers:
  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: [%s], tls: {mode: SIMPLE, credentialName: %s}}
"""
PASSING = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  selector: {app: edge}
  servers:
  - {port: {number: 443, name: tls, protocol: TLS}, hosts: ["*.example"], tls: {mode: PASSTHROUGH}}
"""
PASSED = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: %s, namespace: shop}
spec:
  hosts: [%s]
  gateways: [edge]
  tls: [{match: [{sniHosts: [%s]}], route: [{destination: {host: %s}}]}]
"""


@pytest.mark.parametrize(
    "texts",
    [
        [SHARING % ("one", "a.example, b.example", "one"), SHARING % ("two", "b.example, c.example", "two")],
        [
            PASSING,
            PASSED % ("one", "a.example, b.example", "a.example, b.example", "one"),
            PASSED % ("two", "b.example, c.example", "b.example, c.example", "two"),
        ],
    ],
)
def test_a_server_name_that_two_want_is_the_firsts(texts: list[str]) -> None:
    first, second = Scene(*texts).listeners(ROUTER)["0.0.0.0_443"].filter_chains
    assert list(first.filter_chain_match.server_names) == ["a.example", "b.example"]
    assert list(second.filter_chain_match.server_names) == ["c.example"]
    assert b"one" in first.SerializeToString() and b"two" in second.SerializeToString()


def test_a_name_in_the_clusters_form_is_passed_to_the_cluster(plane: Plane) -> None:
    name = "outbound_.80_._.a.shop.svc.cluster.local"
    assert raw(plane, "0.0.0.0_15443", hello(name)) == name
    assert raw(plane, "0.0.0.0_15443", hello("outbound_.80_._.far.away.svc.cluster.local")) == ""


def test_only_the_secrets_that_are_asked_for_are_given() -> None:
    scene = Scene(EDGE)
    names = set(scene.pilot.resources(ROUTER, SECRET))
    assert names == {"kubernetes://shop-cert", "kubernetes://mutual-cert", "kubernetes://mutual-cert-cacert"}
    elsewhere = gateway({"app": "edge"}, "away")
    assert not scene.pilot.resources(elsewhere, SECRET)


@pytest.mark.parametrize(("hops", "expected"), [(0, "127.0.0.1"), (1, "1.1.1.1"), (2, "2.2.2.2")])
@pytest.mark.parametrize("kind", PLANES)
def test_what_stands_before_a_gateway_may_be_believed(kind: str, hops: int, expected: str, tmp_path: Path) -> None:
    settings = {"defaultConfig": {"gatewayTopology": {"numTrustedProxies": hops}}}
    with running(kind, Scene(services(), PLAIN_EDGE, mesh=settings), ROUTER, tmp_path) as plane:
        send(plane.ports[PLAIN], "shop.example", {"headers": {"x-forwarded-for": "2.2.2.2,1.1.1.1"}})
        seen = plane.servers.requests[-1]["headers"]
        # Behind nobody, the client is who has connected.
        trusted = seen.get("x-envoy-external-address") or "127.0.0.1"
        assert trusted == expected


PLAIN_EDGE = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec: {selector: {app: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: one, namespace: shop}
spec: {hosts: ["*"], gateways: [edge], http: [{route: [{destination: {host: a}}]}]}
"""
