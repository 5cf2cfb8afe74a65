"""An authorization service on grpcio that is told who calls, and one that is slow, fails, lies or is gone: what it is asked and
what clients get is the same through the sidecar and through real Envoy.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse

from tests.differential.proxies import Proxy
from tests.grpc.bootstraps import AUTHORITY, SERVER, Document, bootstrap, cluster, listener
from tests.grpc.subjects import KINDS, eventually, proxy_of, skip_unless_available, stats
from tests.sidecar.transport.serving import inline, trusted

SERVICE = "envoy.service.auth.v3.Authorization"
PERMISSION_DENIED = 7
ACTIVE = "cluster.authorization.upstream_rq_active"
CLIENT = AUTHORITY.issue("client", ["spiffe://cluster.local/ns/shop/sa/page", "client.example"], kind="rsa")
_TYPE = "type.googleapis.com/envoy.extensions."
_HTTP = _TYPE + "filters.http."


class AuthorizationService:
    """Lets pass what asks for nothing else by its path."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.cancelled = threading.Event()
        self._let_go = threading.Event()
        self.serve(0)

    def serve(self, port: int) -> None:
        """Listen on this port, 0 for any."""
        self.server = grpc.server(ThreadPoolExecutor(8))
        handler = grpc.unary_unary_rpc_method_handler(
            self.check,
            request_deserializer=CheckRequest.FromString,
            response_serializer=lambda made: made if isinstance(made, bytes) else made.SerializeToString(),
        )
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Check": handler}),))
        self.port = self.server.add_insecure_port(f"127.0.0.1:{port}")
        self.server.start()

    def check(self, request: Any, context: grpc.ServicerContext) -> Any:
        asked = request.attributes
        self.asked.append(asked)
        match asked.request.http.path.strip("/"):
            case "slow":
                context.add_callback(self.cancelled.set)
                self._let_go.wait(5.0)
            case "fails":
                context.abort(grpc.StatusCode.INTERNAL, "no idea")
            case "raises":
                raise ValueError("this service has a bug")
            case "garbage":
                return b"\xff" * 20
            case "lies":  # says no, and what it would look like if it said yes
                return CheckResponse(status={"code": PERMISSION_DENIED}, ok_response={})
            case "huge":
                return CheckResponse(
                    status={"code": PERMISSION_DENIED},
                    denied_response={"body": "x" * 1_000_000, "status": {"code": 401}},
                )
            case "too-huge":
                return CheckResponse(status={"code": PERMISSION_DENIED}, denied_response={"body": "x" * 6_000_000})
            case "denied":
                return CheckResponse(
                    status={"code": PERMISSION_DENIED},
                    denied_response={"status": {"code": 401}, "body": "who are you?"},
                )
        response = CheckResponse(ok_response={})
        response.ok_response.headers.add(header={"key": "x-user", "value": asked.source.principal or "nobody"})
        return response

    def stop(self) -> None:
        self._let_go.set()
        self.server.stop(None).wait()


def document(ports: Mapping[str, int], service: int) -> Document:
    usual = {
        "grpc_service": {"envoy_grpc": {"cluster_name": "authorization"}, "timeout": "0.4s"},
        "transport_api_version": "V3",
        "include_peer_certificate": True,
        "include_tls_session": True,
    }

    def authorize(**fields: Any) -> Document:
        return {"name": "ext", "typed_config": {"@type": _HTTP + "ext_authz.v3.ExtAuthz", **usual, **fields}}

    def network(message: str, **fields: Any) -> Document:
        config = {"@type": f"{_TYPE}filters.network.{message}", "stat_prefix": "tcp", **fields}
        return {"name": message, "typed_config": config}

    router = {"name": "router", "typed_config": {"@type": _HTTP + "router.v3.Router"}}
    back = {"match": {"prefix": "/"}, "route": {"cluster": "self"}}
    body = {"inline_string": "hello"}
    here = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": body}}
    told = {
        **here,
        "response_headers_to_add": [{"header": {"key": "x-seen", "value": "%REQ(x-user)%"}}],
    }
    secured = listener("tls", ports["tls"], [back], http_filters=[authorize(), router])
    tcp = listener("tcp", ports["tcp"], [])
    tcp["filter_chains"][0]["filters"] = [
        network("ext_authz.v3.ExtAuthz", **usual),
        network("tcp_proxy.v3.TcpProxy", cluster="self"),
    ]
    context = {
        "@type": _TYPE + "transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"tls_certificates": [inline(SERVER)], "validation_context": trusted(AUTHORITY)},
        "require_client_certificate": True,
    }
    for one in (secured, tcp):
        one["filter_chains"][0]["transport_socket"] = {"name": "tls", "typed_config": context}
    return bootstrap(
        [
            listener("closed", ports["closed"], [back], http_filters=[authorize(), router]),
            listener("open", ports["open"], [back], http_filters=[authorize(failure_mode_allow=True), router]),
            listener("here", ports["here"], [told]),
            secured,
            tcp,
        ],
        [cluster("authorization", service), cluster("self", ports["here"], http2=False)],
        ports["admin"],
    )


@contextmanager
def through(kind: str, directory: Path) -> Iterator[tuple[Proxy, AuthorizationService]]:
    """A proxy and its service."""
    service = AuthorizationService()
    directory.mkdir(parents=True, exist_ok=True)
    try:
        names = ("closed", "open", "here", "tls", "tcp")
        with proxy_of(kind, names, lambda ports: document(ports, service.port), directory) as proxy:
            yield proxy, service
    finally:
        service.stop()


Pair = list[tuple[Proxy, AuthorizationService]]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The sidecar and Envoy, each with a service of its own."""
    skip_unless_available(KINDS[1])
    directory = tmp_path_factory.mktemp("authorization")
    with ExitStack() as stack:
        yield [stack.enter_context(through(kind, directory / kind)) for kind in KINDS]


def ask(connection: http.client.HTTPConnection, path: str) -> tuple[int, str, str | None]:
    """Status, body and what the upstream was told."""
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode(), response.getheader("x-seen")
    finally:
        connection.close()


def plainly(proxy: Proxy, name: str, path: str) -> tuple[int, str, str | None]:
    return ask(http.client.HTTPConnection("127.0.0.1", proxy.ports[name], timeout=10), path)


def client_context(directory: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(*CLIENT.write(directory, "client"))
    return context


def compare(act: Callable[[Proxy, AuthorizationService], Any], pair: Pair) -> Any:
    """What came of it, which is the same through both."""
    outcomes = []
    for proxy, service in pair:
        service.asked.clear()
        outcomes.append(act(proxy, service))
    assert outcomes[0] == outcomes[1]
    return outcomes[0]


def test_yes_and_no(pair: Pair) -> None:
    got = compare(lambda proxy, _: [plainly(proxy, "closed", path) for path in ("/", "/denied", "/lies")], pair)
    assert got == [(200, "hello", "nobody"), (401, "who are you?", None), (403, "", None)]


@pytest.mark.parametrize("how", ["slow", "fails", "raises", "garbage", "too-huge"])
def test_without_an_answer_the_door_is_closed(how: str, pair: Pair) -> None:
    def act(proxy: Proxy, service: AuthorizationService) -> Any:
        start = time.monotonic()
        got = [plainly(proxy, name, f"/{how}")[0] for name in ("closed", "open")]
        assert time.monotonic() - start < 4.0, "nobody waits longer than the timeout"
        if how == "slow":
            eventually(service.cancelled.is_set, "the service hears that nobody waits any more")
        return got

    if how == "too-huge":  # Envoy takes a message of any size
        for proxy, service in pair[:1]:
            assert act(proxy, service) == [403, 200]
        return
    assert compare(act, pair) == [403, 200]


def test_a_huge_refusal(pair: Pair) -> None:
    status, body, _ = compare(lambda proxy, _: plainly(proxy, "closed", "/huge"), pair)
    assert (status, len(body)) == (401, 1_000_000)


def test_a_client_that_goes_away_is_asked_about_no_longer(pair: Pair) -> None:
    for proxy, service in pair:
        service.cancelled.clear()
        service.asked.clear()
        with socket.create_connection(("127.0.0.1", proxy.ports["closed"])) as client:
            client.sendall(b"GET /slow HTTP/1.1\r\nhost: a.test\r\n\r\n")
            eventually(lambda asked=service.asked: asked, "the service is asked")
        eventually(service.cancelled.is_set, "the service hears that the client has gone")
        eventually(lambda one=proxy: not stats(one, ACTIVE)[ACTIVE], "no request is left")


def test_the_service_is_told_who_calls(pair: Pair, tmp_path: Path) -> None:
    context = client_context(tmp_path)

    def act(proxy: Proxy, service: AuthorizationService) -> Any:
        connection = http.client.HTTPSConnection("127.0.0.1", proxy.ports["tls"], timeout=10, context=context)
        got = ask(connection, "/")
        (asked,) = service.asked
        return (
            got,
            asked.source.principal,
            asked.destination.principal,
            asked.source.certificate,
            str(asked.tls_session),
        )

    got, caller, called, certificate, session = compare(act, pair)
    assert got == (200, "hello", "spiffe://cluster.local/ns/shop/sa/page")
    assert caller == "spiffe://cluster.local/ns/shop/sa/page"
    assert called == "server.example"
    assert certificate.startswith("-----BEGIN%20CERTIFICATE-----%0A")
    assert session == ""


@pytest.mark.parametrize("path", ["/", "/denied"])
def test_connections_behind_tls(path: str, pair: Pair, tmp_path: Path) -> None:
    """The connection filter is told who calls when the handshake is done, and what was sent meanwhile is not lost."""
    context = client_context(tmp_path)

    def act(proxy: Proxy, service: AuthorizationService) -> Any:
        connection = http.client.HTTPSConnection("127.0.0.1", proxy.ports["tcp"], timeout=10, context=context)
        got = ask(connection, path)
        (asked,) = service.asked
        return got, asked.source.principal, asked.destination.principal, asked.destination.service

    got, caller, called, _ = compare(act, pair)
    assert got == (200, "hello", None)
    assert caller == "spiffe://cluster.local/ns/shop/sa/page"
    assert called == "server.example"


def test_a_service_that_dies_and_comes_back(pair: Pair, tmp_path: Path) -> None:
    context = client_context(tmp_path)
    for proxy, service in pair:
        got = [plainly(proxy, "closed", "/")[0]]
        service.stop()
        got += [plainly(proxy, name, "/")[0] for name in ("closed", "open")]
        tcp = http.client.HTTPSConnection("127.0.0.1", proxy.ports["tcp"], timeout=10, context=context)
        with pytest.raises((ConnectionError, http.client.HTTPException, ssl.SSLError)):
            ask(tcp, "/")
        service.serve(service.port)
        eventually(lambda asked=proxy: plainly(asked, "closed", "/")[0] == 200, "the service is asked again")
        assert got == [200, 403, 200], proxy.kind
