"""The whole sidecar and real Envoy on the same bootstrap with TLS: what clients, endpoints and logs see of either."""

from __future__ import annotations

import asyncio
import copy
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sidecar import Server
from sidecar.telemetry.operators.tls import TLS as COMMANDS
from tests.sidecar.bootstraps import cluster, http_listener, to_cluster
from tests.sidecar.tls_bootstraps import (
    client_context,
    connected,
    file_log,
    mutual,
    originating,
    run,
    server_context,
    written,
)
from tests.sidecar.transport.certificates import Certificate
from tests.sidecar.transport.serving import AUTHORITY, CLIENT, in_thread
from tests.sidecar.transport.test_against_envoy import envoy, free_ports, wait_for_lines

Document = dict[str, Any]

UPSTREAM = AUTHORITY.issue("upstream", ["up.example", "spiffe://td/up", "10.1.2.3"])
"""What endpoints show."""


@dataclass
class Proxy:
    """One of the two: its listeners' ports by name, and the folder of its logs."""

    name: str
    ports: dict[str, int]
    folder: Path

    async def lines(self, log: str, count: int) -> list[str]:
        """So many lines of an access log."""
        return await in_thread(wait_for_lines, self.folder / log, count)


@asynccontextmanager
async def both(
    folder: Path, make: Callable[[Path], tuple[list[Document], list[Document]]]
) -> AsyncIterator[list[Proxy]]:
    """Envoy and ours with the listeners and clusters that ``make`` gives for the folder of their logs."""
    proxies = []
    documents = []
    for name in ("envoy", "ours"):
        (folder / name).mkdir()
        listeners, clusters = make(folder / name)
        ports = free_ports(len(listeners))
        for listener, port in zip(listeners, ports, strict=True):
            listener["address"] = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
        documents.append({"static_resources": {"listeners": listeners, "clusters": clusters}})
        names = [listener["name"] for listener in listeners]
        proxies.append(Proxy(name, dict(zip(names, ports, strict=True)), folder / name))
    with envoy(documents[0], folder / "envoy"):
        async with Server(copy.deepcopy(documents[1])):
            yield proxies


@dataclass
class Service:
    """An HTTP server behind TLS that remembers the server names it was asked for."""

    port: int = 0
    names: list[str | None] = field(default_factory=list)

    def asked(self, _object: Any, name: str | None, _context: Any) -> None:
        self.names.append(name)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def service(
    folder: Path, certificate: Certificate = UPSTREAM, *, mutual: bool = False, version: str = ""
) -> AsyncIterator[Service]:
    """A service on a port of the system's choice."""
    made = Service()
    context = server_context(folder, certificate, mutual=mutual)
    if version:
        context.maximum_version = getattr(ssl.TLSVersion, version)
    context.sni_callback = made.asked
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=context)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_what_logs_say_of_tls_on_both_sides(version: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with service(tmp_path, mutual=True, version=version) as there:
            names = list(COMMANDS)
            text = "\n".join(f"{name}=%{name}%" for name in names) + "\n"

            def make(folder: Path) -> tuple[list[Document], list[Document]]:
                one = mutual(http_listener("one", 0, [to_cluster("up")]))
                http = one["filter_chains"][0]["filters"][0]["typed_config"]
                http["access_log"] = [file_log(str(folder / "log"), text)]
                up = originating(cluster("up", there.port), CLIENT, sni="Up.example")
                up["transport_socket"]["typed_config"]["common_tls_context"]["tls_params"] = {
                    "tls_maximum_protocol_version": "TLSv1_3"
                }
                return [one], [up]

            async with both(tmp_path, make) as proxies:
                logged = []
                for proxy in proxies:
                    context = client_context(written(tmp_path, CLIENT))
                    context.maximum_version = getattr(ssl.TLSVersion, version)
                    async with connected(proxy.ports["one"], context) as client:
                        assert await client.get() == (200, b"ok")
                    lines = dict(line.split("=", 1) for line in await proxy.lines("log", len(names)))
                    for name in names:
                        if name.endswith("TLS_SESSION_ID") and lines[name] != "-":
                            assert len(lines[name]) == 64
                            lines[name] = "drawn by chance"
                    taken = int(lines.pop("DOWNSTREAM_HANDSHAKE_DURATION"))
                    assert taken < 10_000 and (taken >= 0 or proxy.name == "envoy")  # which counts from the request
                    logged.append(lines)
                theirs, ours = logged
                assert {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]} == {}
                assert ours["UPSTREAM_PEER_URI_SAN"] == "spiffe://td/up"
                assert ours["UPSTREAM_LOCAL_URI_SAN"] == "spiffe://td/client"
                assert ours["UPSTREAM_TLS_VERSION"] == version.replace("_", ".")

    run(main())
