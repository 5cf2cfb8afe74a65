"""Strangers who connect and say nothing: the control plane's servers go on, and so does what they need beside connections."""

from __future__ import annotations

import asyncio
import gc
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from grpclib.server import Server

from controlplane.model import accepting
from controlplane.model.accepting import TlsListener, bound_sockets, share_of_descriptors
from controlplane.xds.server import DiscoveryServer
from tests.controlplane.cli.certificates import certificate
from tests.controlplane.whole import whole

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Echo(asyncio.Protocol):
    """Says what it hears."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        assert transport.get_extra_info("ssl_object") is not None

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


@contextmanager
def silent(port: int, number: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        found = []
        for _ in range(number):
            one = socket.create_connection(("127.0.0.1", port), timeout=10)
            stack.callback(one.close)
            found.append(one)
        yield found


def contexts(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    chain, key = certificate(directory)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain, key)
    server.set_alpn_protocols(["h2"])
    client = ssl._create_unverified_context()
    client.set_alpn_protocols(["h2"])
    return server, client


async def says(port: int, tls: ssl.SSLContext) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    writer.write(b"hello")
    found = await asyncio.wait_for(reader.read(100), 5)
    writer.close()
    await asyncio.gather(writer.wait_closed(), return_exceptions=True)
    return found


@pytest.mark.parametrize("loop", LOOPS)
def test_the_oldest_handshake_gives_way_and_each_ends_in_time(loop: str, tmp_path: Path) -> None:
    server, client = contexts(tmp_path)

    async def main() -> None:
        (listening,) = await bound_sockets("127.0.0.1", 0)
        port = listening.getsockname()[1]
        listener = TlsListener([listening], Echo, server, backlog=100, most=5, patience=0.5)
        try:
            with silent(port, 30) as held:
                assert await says(port, client) == b"hello"
                for one in held[:20]:
                    one.settimeout(5)
                    assert await asyncio.to_thread(one.recv, 1) == b"", "it gave way"
                assert len(listener._shaking) <= 5
                began = time.monotonic()
                assert await asyncio.to_thread(held[-1].recv, 1) == b"", "its time is over"
                assert time.monotonic() - began < 3
            with silent(port, 1) as (garbage,):
                garbage.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
                while await asyncio.to_thread(garbage.recv, 1000):
                    continue
            assert await says(port, client) == b"hello"
            assert not listener._shaking
        finally:
            listener.close()
            await listener.wait_closed()
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=5)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())


def test_nothing_is_left_of_handshakes_that_fail(tmp_path: Path) -> None:
    """Also nothing of what the gRPC server makes for each connection."""
    server, client = contexts(tmp_path)

    async def main() -> None:
        discovery = DiscoveryServer([], "127.0.0.1", 0, server)
        discovery.handshake_patience = 0.2
        await discovery.start()
        port = discovery.address[1]
        with silent(port, 40) as held:
            for one in held:
                assert await asyncio.to_thread(one.recv, 1) == b""
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
            assert await reader.readexactly(9)
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        while discovery.server.connections:
            await asyncio.sleep(0.01)
        gc.collect()
        Server.__gc_collect__(discovery.server)
        assert not discovery.server._handlers
        await discovery.stop()

    asyncio.run(main())


def test_all_shares_are_less_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting.resource, "getrlimit", lambda what: (1000, 1000))
    assert share_of_descriptors(0.25, 64, 4096) == 250
    assert 3 * share_of_descriptors(0.25, 16, 20_000) + 2 * share_of_descriptors(0.1, 16, 512) < 1000


def test_a_control_plane_with_few_descriptors(tmp_path: Path) -> None:
    """More silent connections than it can have: the API and secure xDS answer all the same."""
    if shutil.which("prlimit") is None:
        pytest.skip("prlimit (util-linux) is not installed")
    with ExitStack() as stack:
        mesh = stack.enter_context(whole(tmp_path, prefix=("prlimit", "--nofile=256:256")))
        tls = ssl._create_unverified_context()
        tls.set_alpn_protocols(["h2"])
        for port in (mesh.api_port, mesh.secure_port):
            stack.enter_context(silent(port, 300))
        for _ in range(3):
            assert mesh.api.request("GET", "/mizzen/v1/addresses")
            with (
                socket.create_connection(("127.0.0.1", mesh.secure_port), timeout=10) as plain,
                tls.wrap_socket(plain) as one,
            ):
                assert one.selected_alpn_protocol() == "h2"
