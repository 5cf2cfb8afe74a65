"""What agents ask all day goes past h11: the same answers, one after the other, and whatever is odd is h11's."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest

from controlplane.api import certificate_routes, server
from controlplane.api.express import parse
from tests.controlplane.api.serving import Background, Client, until
from tests.controlplane.api.test_certificates_over_rest import BUNDLE, joined, workload
from tests.controlplane.citadel.test_authority import signing_request

__all__ = ["workload"]

PATHS = (b"/mizzen/v1/renew", b"/mizzen/v1/trust-bundle")
GET = b"GET /mizzen/v1/trust-bundle HTTP/1.1\r\n"
POST = b"POST /mizzen/v1/renew HTTP/1.1\r\n"
HOST = b"Host: localhost\r\n"


def test_what_is_plain() -> None:
    asked = parse(GET + HOST + b"Accept: */*\r\nX-Empty:\r\n\r\nmore", PATHS)
    assert asked is not None and asked.head == len(GET + HOST) + 25 and asked.length == 0
    assert asked.headers == [(b"host", b"localhost"), (b"accept", b"*/*"), (b"x-empty", b"")]
    asked = parse(b"GET /mizzen/v1/trust-bundle?have=3&wait=50 HTTP/1.1\r\nhost:  a \r\n\r\n", PATHS)
    assert asked is not None and asked.query == b"have=3&wait=50" and asked.headers == [(b"host", b"a")]
    asked = parse(POST + HOST + b"Content-Length: 12\r\nConnection: Keep-Alive\r\n\r\n", PATHS)
    assert asked is not None and asked.length == 12


@pytest.mark.parametrize(
    "head",
    [
        GET + HOST,  # no end
        GET + b"\r\n",  # no host
        GET + HOST + HOST + b"\r\n",
        GET.replace(b"1.1", b"1.0") + HOST + b"\r\n",
        GET.replace(b"trust-bundle", b"trust%2dbundle") + HOST + b"\r\n",
        GET.replace(b"trust-bundle", b"trust-bundle/") + HOST + b"\r\n",
        GET.replace(b"trust-bundle", b"join") + HOST + b"\r\n",
        GET.replace(b"GET ", b"GET  ") + HOST + b"\r\n",
        GET.replace(b"/mizzen", b"https://localhost/mizzen") + HOST + b"\r\n",
        GET + HOST + b"Content-Length: 1\r\n\r\nx",
        GET + HOST + b"Connection: close\r\n\r\n",
        GET + HOST + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        GET + HOST + b"Authorization: Bearer x\r\n\r\n",
        GET + HOST + b"X : y\r\n\r\n",
        GET + HOST + b" folded\r\n\r\n",
        GET + HOST + b"X: a\nY: b\r\n\r\n",
        GET + HOST + b"X: a\x00b\r\n\r\n",
        GET + HOST + b"X: \xff\r\n\r\n",
        GET.replace(b"\r\n", b"\n") + HOST + b"\r\n",
        b"\r\n" + GET + HOST + b"\r\n",
        GET + HOST + b"X: " + b"x" * 9000 + b"\r\n\r\n",
        POST + HOST + b"\r\n",  # no length
        POST + HOST + b"Content-Length: +1\r\n\r\nx",
        POST + HOST + b"Content-Length: 1_0\r\n\r\nx",
        POST + HOST + b"Content-Length: 70000\r\n\r\nx",
        POST + HOST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + HOST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + HOST + b"Content-Length: 1\r\nExpect: 100-continue\r\n\r\n",
    ],
)
def test_what_is_not(head: bytes) -> None:
    assert parse(head, PATHS) is None


def connect(client: Client) -> socket.socket:
    plain = socket.create_connection(("127.0.0.1", client.port), timeout=10)
    return client.tls.wrap_socket(plain, server_hostname="localhost")


def answer(tls: socket.socket) -> tuple[int, dict[bytes, bytes], bytes]:
    """The next one on a connection."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _some(tls)
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    length = int(headers[b"content-length"])
    while len(body) < length:
        body += _some(tls)
    assert len(body) == length, "an answer came before its time"
    return int(first.split()[1]), headers, body


def _some(tls: socket.socket) -> bytes:
    data = tls.recv(1)
    assert data, "the connection was closed"
    return data


def test_one_connection_for_all_that_an_agent_asks(background: Background, workload: Client) -> None:
    """Renewals whose bodies come late, bundles, and what is h11's between them; also when all come at once."""
    body = b'{"certificateSigningRequest": "%s"}' % signing_request().replace(b"\n", b"\\n")
    renewal = POST + HOST + b"Content-Length: %d\r\n\r\n" % len(body)
    version = GET.replace(BUNDLE.encode(), b"/version") + HOST + b"\r\n"
    with connect(workload) as tls:
        for _ in range(2):
            tls.sendall(renewal)
            tls.sendall(body[:10])
            tls.sendall(body[10:])
            status, headers, told = answer(tls)
            assert status == 201 and b"CERTIFICATE" in told and headers[b"content-type"] == b"application/json"
            tls.sendall(version)
            assert b"gitVersion" in answer(tls)[2]
            tls.sendall(GET + HOST + b"\r\n")
            assert b"trustDomain" in answer(tls)[2]
        tls.sendall(GET + HOST + b"\r\n" + renewal + body + GET + HOST + b"\r\n" + version + GET + HOST + b"\r\n")
        assert [answer(tls)[0] for _ in range(5)] == [200, 201, 200, 200, 200]
        tls.sendall(GET.replace(b"bundle", b"bundle?have=x") + HOST + b"\r\n")
        assert answer(tls)[0] == 422
        tls.sendall(GET + b"Host: example.org\r\n\r\n")
        assert answer(tls)[0] == 403
        tls.sendall(GET + HOST + b"X : y\r\n\r\n")
        assert tls.recv(12) == b"HTTP/1.1 400"


def test_a_body_that_stays_away_is_h11s(workload: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_SOON", 0.1)
    monkeypatch.setattr("controlplane.api.body._PATIENCE", 0.3)
    with connect(workload) as tls:
        tls.sendall(POST + HOST + b"Content-Length: 100\r\n\r\n{")
        assert answer(tls)[0] == 408


def test_who_goes_waits_no_more(background: Background, workload: Client) -> None:
    version = workload("GET", BUNDLE).json["version"]
    tasks = background.served.server._server.server_state.tasks  # type: ignore[union-attr]
    with connect(workload) as tls:
        tls.sendall(GET.replace(b"bundle", b"bundle?have=%d&wait=200" % version) + HOST + b"\r\n")
        until(lambda: len(tasks) == 1)
    until(lambda: not tasks)


def test_so_many_wait_and_so_many_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate_routes, "_MOST_WAITING", 8)
    with Background(tmp_path) as background, contextlib.ExitStack() as stack:
        admin = Client(background)
        clients = []
        for number in range(5):
            directory = tmp_path / str(number)
            directory.mkdir()
            clients.append(joined(background, admin, directory, f"account-{number}"))
        version = clients[0]("GET", BUNDLE).json["version"]
        tasks = background.served.server._server.server_state.tasks  # type: ignore[union-attr]
        wait = GET.replace(b"bundle", b"bundle?have=%d&wait=200" % version) + HOST + b"\r\n"
        for client in clients[:4]:
            for _ in range(2):
                stack.enter_context(connect(client)).sendall(wait)
            until(lambda client=client: len(tasks) == 2 * (clients.index(client) + 1))  # type: ignore[misc]
            third = client("GET", f"{BUNDLE}?have={version}&wait=200")
            assert third.status == 429 and int(third.headers["Retry-After"]) > 0 and "wait: " in third.message
        late = clients[4]("GET", f"{BUNDLE}?have={version}&wait=200")
        assert late.status == 429 and "8 wait for the trust bundle" in late.message
        assert clients[4]("GET", f"{BUNDLE}?have={version}").json["version"] == version


def test_more_connections_than_there_may_be_are_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server._Protocol, "most", 3)
    with Background(tmp_path) as background, contextlib.ExitStack() as stack:
        client = Client(background)
        connections = background.served.server._server.server_state.connections  # type: ignore[union-attr]
        until(lambda: not connections)
        for _ in range(3):
            stack.enter_context(connect(client))
        until(lambda: len(connections) == 3)
        refused = client("GET", "/version")
        assert refused.status == 503 and int(refused.headers["Retry-After"]) > 0 and "connections" in refused.message
