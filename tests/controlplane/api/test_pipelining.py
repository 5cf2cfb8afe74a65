"""Clients that send on without waiting, or read no answers: the server keeps little for them, and answers all in order."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
import uvloop

from controlplane.api import server
from tests.controlplane.api.serving import Background, Client, until
from tests.controlplane.api.test_certificates_over_rest import BUNDLE, joined, workload
from tests.controlplane.citadel.test_authority import signing_request

__all__ = ["workload"]

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
KEPT = 2**21  # bytes: a read or two, and the transport's high-water mark


@pytest.fixture(params=LOOPS, scope="module")
def background(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Background]:
    with Background(tmp_path_factory.mktemp("api"), loop=LOOPS[request.param]) as background:
        yield background


def get(path: str, **headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join((*lines, "", "")).encode()


def connect(client: Client, buffer: int = 0) -> ssl.SSLSocket:
    """A connection, of which the kernel keeps about ``buffer`` bytes that are not read."""
    plain = socket.socket()
    plain.settimeout(20)
    if buffer:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    plain.connect(("127.0.0.1", client.port))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client.tls.wrap_socket(plain, server_hostname="localhost")


def answer(file: IO[bytes]) -> tuple[int, dict[bytes, bytes], bytes]:
    """The next one."""
    status = int(file.readline().split()[1])
    headers = {}
    while line := file.readline().strip():
        name, _, value = line.partition(b":")
        headers[name.lower()] = value.strip()
    return status, headers, file.read(int(headers[b"content-length"]))


def served(background: Background) -> list[server._Protocol]:
    return list(background.served.server._server.server_state.connections)  # type: ignore[union-attr, arg-type]


def alone(background: Background) -> server._Protocol:
    """The one connection that there is."""
    until(lambda: len(served(background)) == 1)
    (connection,) = served(background)
    return connection


def kept(connection: server._Protocol) -> int:
    written = connection.transport.get_write_buffer_size()
    return len(connection._later) + len(connection.conn.trailing_data[0]) + written


def tasks(background: Background) -> set[asyncio.Task[None]]:
    return background.served.server._server.server_state.tasks  # type: ignore[union-attr]


def answered(background: Background) -> int:
    return background.served.server._server.server_state.total_requests  # type: ignore[union-attr]


def test_what_comes_without_end_is_not_kept(background: Background) -> None:
    """A stranger sends 16 MB of requests and reads nothing until no more is taken; then all are answered."""
    client = Client(background, "")
    number = 2000
    most = 0

    async def main() -> None:
        nonlocal most
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", client.port, ssl=client.tls, server_hostname="localhost", limit=1024
        )
        connection = await asyncio.to_thread(alone, background)
        writer.write(get(BUNDLE, X="x" * 8000) * number)
        left, since = 0, time.monotonic()
        while time.monotonic() - since < 0.7:
            most = max(most, kept(connection))
            if writer.transport.get_write_buffer_size() != left:
                left, since = writer.transport.get_write_buffer_size(), time.monotonic()
            await asyncio.sleep(0.01)
        for _ in range(number):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
            most = max(most, kept(connection))
        writer.close()
        await writer.wait_closed()

    asyncio.run(main())
    assert most < KEPT


def test_answers_that_are_not_read_are_not_kept(background: Background) -> None:
    """A stranger asks each time when the last answer is written, and reads none: at some time there are no more."""
    client = Client(background, "")
    with connect(client, 4096) as tls:
        connection = alone(background)
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        before, sent = answered(background), 0
        while answered(background) - before == sent and sent < 3000:
            tls.sendall(get(BUNDLE))
            sent += 1
            deadline = time.monotonic() + 1
            while answered(background) - before < sent and time.monotonic() < deadline:
                time.sleep(0.0001)
        assert connection.transport.get_write_buffer_size() < KEPT
        assert answered(background) - before < sent, "it answers for ever"
        file = tls.makefile("rb")
        for _ in range(sent):
            assert answer(file)[0] == 200
        tls.sendall(get("/version"))
        assert b"gitVersion" in answer(file)[2]


def waiting(background: Background, workload: Client, tls: ssl.SSLSocket, seconds: int) -> server._Protocol:
    """Ask for the next bundle, and let the server wait for it; its side of the connection."""
    version = workload("GET", BUNDLE).json["version"]
    until(lambda: not tasks(background))
    tls.sendall(get(f"{BUNDLE}?have={version}&wait={seconds}"))
    until(lambda: len(tasks(background)) == 1)
    (connection,) = (one for one in served(background) if one._exchange is not None)
    return connection


def test_what_comes_before_the_answer_is_answered_after_it(background: Background, workload: Client) -> None:
    with connect(workload) as tls, tls.makefile("rb") as file:
        waiting(background, workload, tls, 1)
        tls.sendall(get("/version") + get(BUNDLE))
        tls.sendall(get(BUNDLE)[:20])
        assert [b"gitVersion" in answer(file)[2] for _ in range(3)] == [False, True, False]
        tls.sendall(get(BUNDLE)[20:])
        assert answer(file)[0] == 200
        tls.sendall(get(BUNDLE))
        assert b"trustDomain" in answer(file)[2]


def test_what_comes_with_the_rest_of_a_body_is_answered_after_it(background: Background, workload: Client) -> None:
    body = json.dumps({"certificateSigningRequest": signing_request().decode()}).encode()
    head = get("/mizzen/v1/renew", **{"Content-Length": str(len(body))}).replace(b"GET", b"POST")
    with connect(workload) as tls, tls.makefile("rb") as file:
        tls.sendall(head)
        tls.sendall(body[:10])
        connection = alone(background)
        until(lambda: connection._coming is not None and connection._coming[1] == head + body[:10])
        tls.sendall(body[10:] + get("/version") + get(BUNDLE))
        assert [answer(file)[0] for _ in range(3)] == [201, 200, 200]
        tls.sendall(get(BUNDLE))
        assert b"trustDomain" in answer(file)[2]


def test_a_head_that_began_before_the_answer_has_to_end(
    background: Background, workload: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(workload) as tls, tls.makefile("rb") as file:
        waiting(background, workload, tls, 1)
        monkeypatch.setattr(server._Protocol, "patience", 0.3)
        tls.sendall(b"GET /vers")
        assert answer(file)[0] == 200
        started = time.monotonic()
        assert file.read() == b""
        assert time.monotonic() - started < 5


def test_who_goes_is_noticed_behind_what_waits(background: Background, workload: Client) -> None:
    with connect(workload) as tls:
        connection = waiting(background, workload, tls, 200)
        tls.sendall(get("/version") * 10)
        until(lambda: len(connection._later) > 0)
    until(lambda: not tasks(background))


def test_a_server_that_stops_answers_the_one_that_it_took(tmp_path: Path) -> None:
    with Background(tmp_path) as background:
        workload = joined(background, Client(background), tmp_path)
        with connect(workload) as tls, tls.makefile("rb") as file:
            connection = waiting(background, workload, tls, 1)
            tls.sendall(get("/version"))
            until(lambda: len(connection._later) > 0)
            background.call(background.served.server.stop())
            status, headers, _ = answer(file)
            assert status == 200 and headers[b"connection"] == b"close"
            assert file.read() == b""
