"""Ports whose protocol is found out, over mutual TLS: requests are seen there, and judged, and all else passes as it is; with
real Envoy and our sidecar on either side, and for those who have no sidecar.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.controlplane.pilot.security.tokens import key_set, token
from tests.differential.envoy_binary import EnvoyUnavailableError
from tests.running import free_ports, until

grpc = pytest.importorskip("grpc")

from tests.controlplane.pilot.test_mutual_tls import Mesh  # noqa: E402

KINDS = ("sidecar", "envoy")
JUDGED_AT_ONCE = {"sidecar": "", "envoy": "220 ready"}
"""What comes of a greeting where nobody may connect: Envoy judges a connection when its client has said something."""

WEB, CALLS, GREETS = 9080, 9081, 9082
GREETING = b"220 ready\r\n"
SERVICE = """
kind: Service
metadata: shop/of-{kind}
spec:
  selector: {{app: of-{kind}}}
  ports: [{{name: any, port: 9080}}, {{name: calls, port: 9081}}, {{name: greets, port: 9082}}, {{name: shared, port: {shared}}}]
---
kind: WorkloadEntry
metadata: shop/of-{kind}-1
spec:
  address: 127.0.0.1
  ports: {{any: {web}, calls: {calls}, greets: {greets}, shared: {web}}}
  serviceAccount: of-{kind}
  labels: {{app: of-{kind}, side: server, security.istio.io/tlsMode: istio}}
---
kind: Sidecar
metadata: shop/by-{kind}
spec:
  workloadSelector: {{labels: {{app: by-{kind}}}}}
  egress:
  - {{port: {{number: {first}, name: a}}, bind: {bind}, captureMode: NONE, hosts: [./*]}}
  - {{port: {{number: {second}, name: b}}, bind: {bind}, captureMode: NONE, hosts: [./*]}}
  - {{hosts: ["*/*"]}}
"""
MODE = "kind: PeerAuthentication\nmetadata: shop/default\nspec: {{mtls: {{mode: {}}}}}\n"
SETTINGS = "kind: ConfigMap\nmetadata: istio-system/istio\ndata: {mesh: 'protocolDetectionTimeout: 2s'}\n"
ALLOW = """
kind: AuthorizationPolicy
metadata: shop/open
spec:
  selector: {{matchLabels: {{side: server}}}}
  rules: [{rules}]
"""
EVERYBODY = "{}"
BY_PATH = '{to: [{operation: {paths: ["/open", "/test.Who/Are"]}}]}'
TOKENS = """
kind: RequestAuthentication
metadata: shop/tokens
spec:
  selector: {{matchLabels: {{side: server}}}}
  jwtRules: [{{issuer: me, jwks: '{keys}'}}]
"""


class Answering(socketserver.StreamRequestHandler):
    """An application that answers requests with who asks, by its proxy, and lines in capitals."""

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while line := self.rfile.readline():
                if not line.startswith(b"GET "):
                    self.wfile.write(line.upper())
                    continue
                fields = http.client.parse_headers(self.rfile)
                said = (fields.get("x-forwarded-client-cert") or "served").encode()
                self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(said), said))


class Greeter(socketserver.BaseRequestHandler):
    """An application that speaks first."""

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self.request.sendall(GREETING)
            self.request.recv(100)


class Threads(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False


class DetectedMesh(Mesh):
    """A server and a client beside proxies of either kind."""

    def begin(self) -> None:
        self._servers: list[Threads] = []
        self.inbound = {kind: dict(zip((WEB, CALLS, GREETS), free_ports(3), strict=True)) for kind in KINDS}
        self.shared = dict(zip(KINDS, free_ports(2), strict=True))
        self.forwards = dict(zip(KINDS, free_ports(2), strict=True))
        self.binds = {"sidecar": "127.0.0.2", "envoy": "127.0.0.3"}
        self.rule("PERMISSIVE", EVERYBODY)
        applications = {WEB: self._serve(Answering), CALLS: self._application(), GREETS: self._serve(Greeter)}
        for kind in KINDS:
            self.kind = kind
            ports = {str(self.inbound[kind][number]): f"127.0.0.1:{port}" for number, port in applications.items()}
            self.sidecar(f"of-{kind}", {"APP_ENDPOINTS": ports, "LABELS": {"app": f"of-{kind}", "side": "server"}})
            self.sidecar(f"by-{kind}", {"HTTP_PROXY_PORT": str(self.forwards[kind])})

    def rule(self, mode: str, rules: str) -> None:
        """Under this mode, with an ALLOW policy of these rules, and with tokens looked at."""
        documents = [SETTINGS, MODE.format(mode), ALLOW.format(rules=rules), TOKENS.format(keys=key_set("one"))]
        first, second = self.shared.values()
        for kind in KINDS:
            web, calls, greets = self.inbound[kind].values()
            shared, bind = self.shared[kind], self.binds[kind]
            documents.append(
                SERVICE.format(
                    kind=kind, web=web, calls=calls, greets=greets, shared=shared, bind=bind, first=first, second=second
                )
            )
        self.tell("---\n".join(documents))

    def _serve(self, handler: type[socketserver.BaseRequestHandler]) -> int:
        server = Threads(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        self._servers.append(server)
        return int(server.server_address[1])

    def close(self) -> None:
        super().close()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    # what clients ask, through their proxies

    def web(self, client: str, server: str, path: str, bearer: str = "") -> str:
        """A request by HTTP/1.1 through the forward proxy."""
        host = f"of-{server}.shop.svc.cluster.local:{WEB}"
        return requested(("127.0.0.1", self.forwards[client]), path, host, bearer)

    def shared_web(self, client: str, server: str, path: str) -> str:
        """A request by HTTP/1.1 through a listener on which any protocol may be spoken."""
        return requested((self.binds[client], self.shared[server]), path, f"of-{server}.shop.svc.cluster.local")

    def shared_raw(self, client: str, server: str) -> str:
        """A line through that listener."""
        return said((self.binds[client], self.shared[server]), b"hello\r\n")

    def call(self, client: str, server: str) -> str:
        """A gRPC call through the forward proxy."""
        answer = self._call(self.forwards[client], f"of-{server}.shop.svc.cluster.local:{CALLS}")
        return f"200 {answer}" if answer.startswith("By=") else answer.partition(":")[0]

    def tunnel(self, client: str, server: str, number: int, line: bytes) -> str:
        """What comes first through a tunnel to a port, after a line."""
        head = f"CONNECT of-{server}.shop.svc.cluster.local:{number} HTTP/1.1\r\nhost: a\r\n\r\n".encode()
        return said(("127.0.0.1", self.forwards[client]), line, head)


def requested(address: tuple[str, int], path: str, host: str, bearer: str = "") -> str:
    """The status and the body of an answer; empty where the connection breaks."""
    connection = http.client.HTTPConnection(*address, timeout=10)
    headers = {"host": host, **({"authorization": f"Bearer {bearer}"} if bearer else {})}
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return f"{answer.status} {answer.read().decode()}"
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()


def said(address: tuple[str, int], line: bytes, head: bytes = b"") -> str:
    """What answers a line, or without one comes by itself; ``head`` opens a tunnel before."""
    heard = b""
    with contextlib.suppress(OSError), socket.create_connection(address, timeout=10) as client:
        if head:
            client.sendall(head)
            while b"\r\n\r\n" not in heard and (data := client.recv(1000)):
                heard += data
            opened, _, heard = heard.partition(b"\r\n\r\n")
            if b" 200 " not in opened + b" ":
                return opened.partition(b"\r\n")[0].decode()
        client.sendall(line)
        while b"\n" not in heard and (data := client.recv(1000)):
            heard += data
    return heard.partition(b"\r\n")[0].decode()


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DetectedMesh]:
    running = DetectedMesh("sidecar", tmp_path_factory.mktemp("mesh"))
    try:
        try:
            running.begin()
        except EnvoyUnavailableError as error:
            pytest.skip(str(error))
        yield running
    finally:
        running.close()


def come_to(expected: dict[str, str], asked: dict[str, Callable[[], str]]) -> None:
    """Ask until everything is answered as it should be, and then once more."""
    found: dict[str, str] = {}

    def settled() -> bool:
        found.update({what: ask() for what, ask in asked.items()})
        return found == expected

    with contextlib.suppress(AssertionError):
        until(settled, "the answers that should be", timeout=30)
    assert found == expected
    assert {what: ask() for what, ask in asked.items()} == expected


PAIRS = [(client, server) for client in KINDS for server in KINDS]


@pytest.mark.parametrize("mode", ["PERMISSIVE", "STRICT"])
@pytest.mark.parametrize(("client", "server"), PAIRS, ids=[f"{client} to {server}" for client, server in PAIRS])
def test_between_sidecars(mesh: DetectedMesh, client: str, server: str, mode: str) -> None:
    good, forged = token({"iss": "me", "sub": "a"}), token({"iss": "me", "sub": "a"}, "two")
    asked: dict[str, Callable[[], str]] = {
        "open": lambda: mesh.web(client, server, "/open"),
        "closed": lambda: mesh.web(client, server, "/closed"),
        "with a good token": lambda: mesh.web(client, server, "/open", good),
        "with a forged one": lambda: mesh.web(client, server, "/open", forged),
        "gRPC": lambda: mesh.call(client, server),
        "shared, open": lambda: mesh.shared_web(client, server, "/open"),
        "shared, closed": lambda: mesh.shared_web(client, server, "/closed"),
        "shared, a line": lambda: mesh.shared_raw(client, server),
        "a line": lambda: mesh.tunnel(client, server, WEB, b"hello\r\n"),
        "a greeting": lambda: mesh.tunnel(client, server, GREETS, b""),
    }
    identities = f"By=spiffe://cluster.local/ns/shop/sa/of-{server};"

    def plainly(answer: str) -> str:
        """With no more of the certificates than whose they are."""
        status, _, body = answer.partition(" ")
        if body.startswith(identities) and body.endswith(f"URI=spiffe://cluster.local/ns/shop/sa/by-{client}"):
            return f"{status} mutual"
        return f"{status} {body[:60]}".strip() if status in ("401", "403") else answer

    def summary(ask: Callable[[], str]) -> Callable[[], str]:
        return lambda: plainly(ask())

    asked = {what: summary(ask) for what, ask in asked.items()}
    mesh.rule(mode, EVERYBODY)
    passed = "200 mutual"
    forged_answer = "401 Jwks doesn't have key to match kid or alg from Jwt"
    come_to(
        {
            **dict.fromkeys(asked, passed),
            "with a forged one": forged_answer,
            "shared, a line": "HELLO",
            "a line": "HELLO",
            "a greeting": "220 ready",
        },
        asked,
    )
    mesh.rule(mode, BY_PATH)
    come_to(
        {
            **dict.fromkeys(asked, passed),
            "closed": "403 RBAC: access denied",
            "shared, closed": "403 RBAC: access denied",
            "with a forged one": forged_answer,
            "shared, a line": "",
            "a line": "",
            "a greeting": JUDGED_AT_ONCE[server],
        },
        asked,
    )
    assert mesh.served.refused == []


@pytest.mark.parametrize("server", KINDS)
def test_without_a_sidecar(mesh: DetectedMesh, server: str) -> None:
    """Plain text, and older peers: mutual TLS that does not say what it carries."""
    web, greets = (("127.0.0.1", mesh.inbound[server][number]) for number in (WEB, GREETS))
    asked: dict[str, Callable[[], str]] = {
        "open": lambda: requested(web, "/open", "a"),
        "closed": lambda: requested(web, "/closed", "a"),
        "a line": lambda: said(web, b"hello\r\n"),
        "a greeting": lambda: said(greets, b""),
        "an older peer": lambda: by_older_peer(mesh, web),
    }
    nothing = dict.fromkeys(asked, "")
    table = {
        ("PERMISSIVE", EVERYBODY): {
            "open": "200 served",
            "closed": "200 served",
            "a line": "HELLO",
            "a greeting": "220 ready",
            "an older peer": "HTTP/1.1 200 OK",
        },
        ("PERMISSIVE", BY_PATH): {
            **nothing,
            "open": "200 served",
            "closed": "403 RBAC: access denied",
            "a greeting": JUDGED_AT_ONCE[server],
        },
        ("STRICT", EVERYBODY): {**nothing, "an older peer": "HTTP/1.1 200 OK"},
        ("STRICT", BY_PATH): nothing,
    }
    for (mode, rules), expected in table.items():
        mesh.rule(mode, rules)
        come_to(expected, asked)


def by_older_peer(mesh: DetectedMesh, address: tuple[str, int]) -> str:
    """The first line of the answer to a request of a peer that offers what all sidecars once did."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=mesh.authority.pem.decode())
    context.load_cert_chain(*mesh.certificate("older").write(mesh.directory, "older"))
    context.set_alpn_protocols(["istio-peer-exchange", "istio"])
    with (
        contextlib.suppress(OSError),
        socket.create_connection(address, timeout=10) as plain,
        context.wrap_socket(plain) as secure,
    ):
        secure.sendall(b"GET /open HTTP/1.1\r\nhost: a\r\n\r\n")
        return secure.recv(1000).partition(b"\r\n")[0].decode()
    return ""
