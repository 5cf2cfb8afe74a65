"""PERMISSIVE as Istio generates it: mutual TLS, other TLS and plain text on one port, greetings included; with both proxies."""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.differential.proxies import ENVOY, SIDECAR, FreePorts, Proxy, start
from tests.sidecar.bootstraps import address, cluster
from tests.sidecar.transport.certificates import Certificate
from tests.sidecar.transport.serving import AUTHORITY, CLIENT, SERVER, STRANGERS, inline, trusted

TYPES = "type.googleapis.com/envoy.extensions."
ISTIO = ["istio-peer-exchange", "istio", "istio-http/1.0", "istio-http/1.1", "istio-h2"]
OWN = AUTHORITY.issue("own", ["server.example"])
"""Of the service itself, which terminates TLS that is not the mesh's."""
STRANGER = STRANGERS.issue("stranger", ["spiffe://td/client"])
EXPIRED = AUTHORITY.issue("expired", ["spiffe://td/client"], days=(-3, -1))
GREETING = b"220 ready\r\n"
Ask = Callable[[int, Path], bytes]


def proxied(name: str) -> list[dict[str, Any]]:
    typed = {"@type": TYPES + "filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": name, "cluster": name}
    return [{"name": "proxy", "typed_config": typed}]


def bootstrap(ports: dict[str, int], greeter: int, secure: int, mesh: int) -> dict[str, Any]:
    tls = {
        "@type": TYPES + "transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "alpn_protocols": ["istio-peer-exchange", "h2", "http/1.1"],
            "tls_certificates": [inline(SERVER)],
            "validation_context": trusted(),
        },
    }
    inspector = {"@type": TYPES + "filters.listener.tls_inspector.v3.TlsInspector"}
    chains = [
        {
            "name": "mesh",
            "filter_chain_match": {"transport_protocol": "tls", "application_protocols": ISTIO},
            "transport_socket": {"name": "tls", "typed_config": tls},
            "filters": proxied("mesh"),
        },
        {"name": "other", "filter_chain_match": {"transport_protocol": "tls"}, "filters": proxied("secure")},
        {"name": "plain", "filter_chain_match": {"transport_protocol": "raw_buffer"}, "filters": proxied("greeter")},
    ]
    listener = {
        "name": "inbound",
        "address": address(ports["in"]),
        "listener_filters": [{"name": "envoy.filters.listener.tls_inspector", "typed_config": inspector}],
        "listener_filters_timeout": "0.2s",
        "continue_on_listener_filters_timeout": True,
        "filter_chains": chains,
    }
    clusters = [cluster("greeter", greeter), cluster("secure", secure), cluster("mesh", mesh)]
    return {
        "admin": {"address": address(ports["admin"])},
        "static_resources": {"listeners": [listener], "clusters": clusters},
    }


class Greeter(socketserver.BaseRequestHandler):
    """A service of a protocol in which the server speaks first."""

    def handle(self) -> None:
        self.request.sendall(GREETING)
        while data := self.request.recv(1000):
            self.request.sendall(data.upper())


class Behind(socketserver.BaseRequestHandler):
    """The service behind the mesh's TLS."""

    def handle(self) -> None:
        self.request.sendall(b"mesh")


class Secure(socketserver.BaseRequestHandler):
    """A service with TLS of its own."""

    def handle(self) -> None:
        server: Any = self.server
        try:
            with server.context.wrap_socket(self.request, server_side=True) as wrapped:
                wrapped.sendall(b"own")
        except OSError:
            pass


@contextmanager
def service(handler: type[socketserver.BaseRequestHandler], context: ssl.SSLContext | None = None) -> Iterator[int]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.context = context  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def by_tls(*alpn: str, certificate: Certificate | None = None) -> Ask:
    def ask(port: int, directory: Path) -> bytes:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=AUTHORITY.pem.decode())
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if certificate is not None:
            context.load_cert_chain(*certificate.write(directory, certificate.sha256[:8]))
        try:
            with (
                socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
                context.wrap_socket(plain) as wrapped,
            ):
                return wrapped.recv(100) or b"refused"
        except OSError:
            return b"refused"

    return ask


def plainly(first: bytes) -> Ask:
    """What a client hears that says this first, or waits for the greeting."""

    def ask(port: int, directory: Path) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            plain.sendall(first)
            heard = b""
            wanted = GREETING + (first or b"quit\r\n").upper()
            while len(heard) < len(wanted) and (data := plain.recv(100)):
                if not first and not heard:
                    plain.sendall(b"quit\r\n")
                heard += data
            return heard

    return ask


CASES: dict[str, tuple[Ask, bytes]] = {
    "mesh over TCP": (by_tls("istio-peer-exchange", "istio", certificate=CLIENT), b"mesh"),
    "mesh over HTTP/1.1": (by_tls("istio-http/1.1", "istio", "http/1.1", certificate=CLIENT), b"mesh"),
    "mesh over HTTP/2": (by_tls("istio-h2", "istio", "h2", certificate=CLIENT), b"mesh"),
    "mesh without a certificate": (by_tls("istio"), b"refused"),
    "mesh with a stranger's": (by_tls("istio", certificate=STRANGER), b"refused"),
    "mesh with an expired one": (by_tls("istio", certificate=EXPIRED), b"refused"),
    "the service's own TLS": (by_tls(), b"own"),
    "the service's own HTTP/2": (by_tls("h2", "http/1.1"), b"own"),
    "plain text": (plainly(b"hello there\r\n"), GREETING + b"HELLO THERE\r\n"),
    "plain HTTP": (plainly(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"), GREETING + b"GET / HTTP/1.1\r\nHOST: A\r\n\r\n"),
    "a byte": (plainly(b"x"), GREETING + b"X"),
    "what begins like TLS": (plainly(b"\x16"), GREETING + b"\x16"),
    "a client that waits for the greeting": (plainly(b""), GREETING + b"QUIT\r\n"),
}
COUNTED = (
    "inbound.downstream_pre_cx_timeout", "ssl.handshake", "ssl.fail_verify_error", "ssl.fail_verify_no_cert",
    "tls_inspector.tls_found", "tls_inspector.tls_not_found", "tls_inspector.alpn_found",
    "tls_inspector.alpn_not_found", "downstream_pre_cx_timeout",
)  # fmt: skip


def test_both_tell_them_apart(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*OWN.write(tmp_path, "own"))
    seen: dict[str, Any] = {}
    with service(Greeter) as greeter, service(Secure, context) as secure, service(Behind) as mesh:
        for kind in (ENVOY, SIDECAR):
            if kind == ENVOY:
                try:
                    envoy_binary()
                except EnvoyUnavailableError as error:
                    pytest.skip(str(error))
            free = FreePorts()
            ports = {name: free.take() for name in ("admin", "in")}
            with ExitStack() as stack:
                proxy = start(kind, bootstrap(ports, greeter, secure, mesh), ports, tmp_path / kind)
                stack.callback(proxy.stop)
                heard = {what: ask(ports["in"], tmp_path) for what, (ask, _) in CASES.items()}
                seen[kind] = heard, counted(proxy)
    assert seen[SIDECAR][0] == {what: answer for what, (_, answer) in CASES.items()}
    assert seen[ENVOY] == seen[SIDECAR]
    assert seen[SIDECAR][1]["ssl.fail_verify_error"] == 2


def counted(proxy: Proxy) -> dict[str, int]:
    """The counters by their ends."""
    lines = (line.rpartition(": ") for line in proxy.admin("/stats")[2].splitlines())
    return {
        end: int(value) for name, _, value in lines for end in COUNTED if value.isdigit() and name.endswith(f".{end}")
    }
