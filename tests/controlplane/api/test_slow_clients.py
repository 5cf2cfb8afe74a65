"""Clients that send bit by bit, or nothing, keep no connection for long; those that only read do."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
from pathlib import Path

import pytest

from controlplane.api import access, body, server
from tests.controlplane.api.serving import Background, Client, Watcher, collection, until, virtual_service


def connect(client: Client) -> socket.socket:
    plain = socket.create_connection(("127.0.0.1", client.port), timeout=10)
    return client.tls.wrap_socket(plain, server_hostname="localhost")


@pytest.mark.parametrize("sent", [b"", b"GET /version HTTP/1.1\r\nHost: localhost\r\n"])
def test_a_head_that_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(server._Protocol, "patience", 0.3)
    with Background(tmp_path) as background, connect(Client(background)) as tls:
        if sent:
            tls.sendall(sent)
        started = time.monotonic()
        assert tls.recv(100) == b""
        assert 0.1 < time.monotonic() - started < 5


def test_the_second_head_on_a_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server._Protocol, "patience", 0.3)
    with Background(tmp_path) as background, connect(Client(background)) as tls:
        tls.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = tls.recv(1000)
        while not received.endswith(b"ok"):
            received += tls.recv(1000)
        tls.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert tls.recv(100) == b""


def test_a_body_that_does_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "_PATIENCE", 0.3)
    with Background(tmp_path) as background:
        client = Client(background)
        with connect(client) as tls:
            tls.sendall(
                f"POST {collection()} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {client.token}\r\n"
                "Content-Length: 1000\r\nContent-Type: application/json\r\n\r\n{".encode()
            )
            assert tls.recv(100).startswith(b"HTTP/1.1 408 ")


def test_strangers_whose_bodies_do_not_come_take_nobodys_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_PATIENCE_WITH_STRANGERS", 1.0)
    with Background(tmp_path) as background, contextlib.ExitStack() as stack:
        client = Client(background)
        held = [stack.enter_context(connect(client)) for _ in range(45)]
        for tls in held:
            tls.sendall(b"POST /mizzen/v1/join HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n{")
        for _ in range(3):
            answer = client("POST", "/mizzen/v1/join", {"token": "mizzen-join-a-b", "certificateSigningRequest": "x"})
            assert answer.status == 401
        for tls in held:
            assert tls.recv(100).startswith(b"HTTP/1.1 408 ")
        with connect(client) as tls:
            tls.sendall(b"POST /mizzen/v1/join HTTP/1.1\r\nHost: localhost\r\nContent-Length: 70000\r\n\r\n{")
            assert tls.recv(100).startswith(b"HTTP/1.1 413 ")


def test_who_only_watches_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server._Protocol, "patience", 0.2)
    with Background(tmp_path) as background:
        client = Client(background)
        with Watcher(client, f"{collection()}?watch=true&timeoutSeconds=1") as watcher:
            assert watcher.next() is None
        with Watcher(client, f"{collection()}?watch=true") as watcher:
            time.sleep(0.5)  # longer than a head may take
            client("POST", collection(), virtual_service("a"))
            assert watcher.next()["type"] == "ADDED"


def test_connections_beyond_the_most_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server._Protocol, "most", 2)
    monkeypatch.setattr(server, "_REFUSED_AT_ONCE", 0)
    with Background(tmp_path) as background:
        client = Client(background)
        with connect(client), connect(client), pytest.raises((OSError, http.client.HTTPException)):
            client("GET", "/healthz")
        until(lambda: _answers(client))


def _answers(client: Client) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return client("GET", "/healthz").status == 200
    return False
