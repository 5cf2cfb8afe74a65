"""How commands speak to a control plane that goes away in the middle."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controlplane.cli.api import Api, ApiError
from tests.controlplane.cli.certificates import certificate


@contextmanager
def server(directory: Path, answers: list[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    """Gives each request one of the answers, in their order, and closes; ``seen`` are the request lines."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(directory))
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for answer in answers:
                try:
                    accepted = listening.accept()[0]
                except OSError:
                    return
                with context.wrap_socket(accepted, server_side=True) as connection:
                    head = b""
                    while b"\r\n\r\n" not in head:
                        head += connection.recv(65536)
                    seen.append(head.partition(b"\r\n")[0])
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{listening.getsockname()[1]}", seen
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)


_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


def test_what_may_be_asked_twice_is(tmp_path: Path) -> None:
    with server(tmp_path, [b"", _OK]) as (url, seen):
        assert Api.to_anybody(url).request("GET", "/a") == {}
        assert len(seen) == 2


def test_a_token_is_not_sent_twice(tmp_path: Path) -> None:
    with server(tmp_path, [b"", _OK]) as (url, seen):
        with pytest.raises(ApiError, match="closed the connection"):
            Api.to_anybody(url).request("POST", "/mizzen/v1/join", {"token": "a"})
        assert len(seen) == 1


def test_whoever_is_not_known_yet_is_not_listened_to_for_ever(tmp_path: Path) -> None:
    huge = b"HTTP/1.1 200 OK\r\ncontent-length: 2000000\r\n\r\n" + b" " * 2_000_000
    with server(tmp_path, [huge]) as (url, _), pytest.raises(ApiError, match="answers with more than"):
        Api.to_anybody(url).request("GET", "/mizzen/v1/root")
