"""Handshakes that stop, records that are none, renegotiation: real Envoy and ours let nobody in, and count the same."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from pathlib import Path

from sidecar.config.tls import DOWNSTREAM_TLS, parse_downstream_tls_context
from tests.sidecar.config.building import build
from tests.sidecar.transport.serving import (
    OPENSSL,
    client_hello,
    command,
    in_thread,
    needs_openssl,
    run,
    serving,
)
from tests.sidecar.transport.test_against_envoy import cluster, context, echoing, envoy, get, listener, listening

HELLO = client_hello()
SENT = {
    "nothing": b"",
    "a byte": HELLO[:1],
    "a record's header": HELLO[:5],
    "half a hello": HELLO[: len(HELLO) // 2],
    "nearly a hello": HELLO[:-1],
    "a hello": HELLO,
    "a hello twice": HELLO * 2,
    "a hello and data": HELLO + b"\x17\x03\x03\x00\x20" + bytes(32),
    "a hello and an alert": HELLO + b"\x15\x03\x01\x00\x02\x02\x28",
    "a hello and change cipher specs": HELLO + b"\x14\x03\x03\x00\x01\x01" * 100,
    "a hello and plain text": HELLO + b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    "plain HTTP": b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    "data before the handshake": b"\x17\x03\x03\x00\x20" + bytes(32),
    "change cipher specs": b"\x14\x03\x03\x00\x01\x01" * 100,
    "a fatal alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "heartbeats": b"\x18\x03\x03\x00\x03\x01\xff\xff" * 10,
    "empty records": b"\x16\x03\x01\x00\x00" * 100,
    "a record longer than any": b"\x16\x03\x01\xff\xff" + bytes(65535),
    "chance": random.Random(1).randbytes(10_000),
}


def visit(port: int, sent: bytes) -> bool:
    """Whether the server's part of a handshake comes back for these bytes and an end; an alert may be lost on the way."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        answer = b""
        with suppress(
            OSError
        ):  # a reset, which `shutdown` calls "not connected"; what came before it can still be read
            plain.sendall(sent)
            plain.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            while data := plain.recv(65536):
                answer += data
    return answer[:1] == b"\x16"


def test_neither_lets_them_in(tmp_path: Path) -> None:
    async def test() -> None:
        behind = await echoing()
        resources = {
            "listeners": [listener("l", context(), tmp_path / "log")],
            "clusters": [cluster("echo", behind.sockets[0].getsockname()[1])],
        }
        different = []
        with envoy({"static_resources": resources}, tmp_path) as admin:
            port = listening(admin)["l"]
            async with serving(build(DOWNSTREAM_TLS, context(), parse_downstream_tls_context)) as server:
                for what, sent in SENT.items():
                    theirs = await in_thread(visit, port, sent)
                    ours = await in_thread(visit, server.port, sent)
                    await server.until(lambda: all(one.closing for one in server.connections))
                    text = await in_thread(get, admin, "/stats?filter=l.ssl.(connection_error|handshake)$")
                    lines = (line.partition(": ") for line in text.splitlines())
                    counted = {name.rpartition(".")[2]: int(value) for name, _, value in lines}
                    found = {kind: getattr(server.stats, kind) for kind in counted}
                    if theirs != ours or counted != found:
                        different.append((what, theirs, ours, counted, found))
        assert different == [] and len(counted) == 2, "\n".join(map(str, different))

    run(test())


@needs_openssl
def test_neither_renegotiates(tmp_path: Path) -> None:
    async def test() -> None:
        assert OPENSSL is not None
        behind = await echoing()
        resources = {
            "listeners": [listener("l", context(), tmp_path / "log")],
            "clusters": [cluster("echo", behind.sockets[0].getsockname()[1])],
        }
        with envoy({"static_resources": resources}, tmp_path) as admin:
            async with serving(build(DOWNSTREAM_TLS, context(), parse_downstream_tls_context)) as server:
                for port in (listening(admin)["l"], server.port):
                    _, output = await command(
                        OPENSSL, "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_2", given=b"R\n", timeout=10
                    )
                    assert "RENEGOTIATING" in output and "no renegotiation" in output

    run(test())
