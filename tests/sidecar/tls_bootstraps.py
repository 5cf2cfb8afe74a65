"""Bootstraps with TLS for tests of the whole sidecar, and small upstreams and clients for them."""

from __future__ import annotations

import asyncio
import http.client
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from sidecar import Server
from sidecar.telemetry.stats import Kind
from tests.sidecar.transport.certificates import Authority, Certificate
from tests.sidecar.transport.serving import AUTHORITY, SERVER, inline, trusted

Document = dict[str, Any]
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."

ENOUGH = 8
"""Requests on a connection, so that the express lane takes over."""


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine on uvloop, for half a minute at most."""

    async def bounded() -> None:
        async with asyncio.timeout(30):
            await main

    uvloop.run(bounded())


def _socket(kind: str, certificates: tuple[Certificate, ...], common: Document, fields: Document) -> Document:
    inside = {"tls_certificates": [inline(one) for one in certificates], **common}
    return {"name": "tls", "typed_config": {"@type": TLS + kind, "common_tls_context": inside, **fields}}


def downstream_socket(*certificates: Certificate, common: Document | None = None, **fields: Any) -> Document:
    """The transport socket of a filter chain; the usual server's certificate without another."""
    return _socket("DownstreamTlsContext", certificates or (SERVER,), common or {}, fields)


def secured(listener: Document, *certificates: Certificate, common: Document | None = None, **fields: Any) -> Document:
    """A listener with TLS in its first filter chain."""
    listener["filter_chains"][0]["transport_socket"] = downstream_socket(*certificates, common=common, **fields)
    return listener


def mutual(listener: Document, **fields: Any) -> Document:
    """A listener that wants certificates of its clients."""
    return secured(listener, common={"validation_context": trusted()}, require_client_certificate=True, **fields)


def originating(
    cluster: Document, *certificates: Certificate, validation: Document | None = None, **fields: Any
) -> Document:
    """A cluster with TLS to its endpoints, which the usual authority must have signed."""
    common = {"validation_context": trusted() if validation is None else validation}
    cluster["transport_socket"] = _socket("UpstreamTlsContext", certificates, common, fields)
    return cluster


def serving(
    *listeners: Document, clusters: list[Document] | None = None, secrets: list[Document] | None = None
) -> Server:
    """A sidecar, with an administration interface on a port of the system's choice."""
    return Server(
        {
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
            "static_resources": {"listeners": list(listeners), "clusters": clusters or [], "secrets": secrets or []},
        }
    )


def written(folder: Path, certificate: Certificate, name: str = "client") -> tuple[str, str]:
    """The paths of a certificate and of its key, for clients and servers that want files."""
    chain, key = certificate.write(folder, name)
    return str(chain), str(key)


def file_log(path: str, text: str) -> dict[str, Any]:
    """An access log in this format."""
    file = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
    format = {"text_format_source": {"inline_string": text}}
    return {"name": "file", "typed_config": {"@type": file, "path": path, "log_format": format}}


def server_context(folder: Path, certificate: Certificate = SERVER, *, mutual: bool = False) -> ssl.SSLContext:
    """For endpoints; with ``mutual`` they want a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*written(folder, certificate, "upstream"))
    if mutual:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=AUTHORITY.pem.decode())
    return context


def client_context(
    *certificates: tuple[str, str], authority: Authority = AUTHORITY, names: bool = False
) -> ssl.SSLContext:
    """For clients: ``certificates`` are paths of a certificate and its key."""
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.check_hostname = names
    for chain, key in certificates:
        context.load_cert_chain(chain, key)
    return context


def counted(server: Server) -> dict[str, int]:
    """The counters and gauges that are not 0."""
    assert server.stack is not None
    groups = server.stack.scraped_store()._groups
    samples = (one for group in groups for one in group.samples(Kind.COUNTER, Kind.GAUGE))
    return {name: value for name, value in samples if value}


@dataclass
class Client:
    """One connection that sends requests one after another."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def shown(self) -> bytes:
        """The server's certificate, in DER."""
        found: bytes = self.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return found

    async def get(self, path: str = "/", *, host: str = "service", **headers: str) -> tuple[int, bytes]:
        """Status and body."""
        fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        self.writer.write(f"GET {path} HTTP/1.1\r\nhost: {host}\r\n{fields}\r\n".encode())
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        return int(head.split(b" ", 2)[1]), await self.reader.readexactly(length)


@asynccontextmanager
async def connected(port: int, context: ssl.SSLContext | None, name: str = "server.example") -> AsyncIterator[Client]:
    """A client, with TLS if there is a context."""
    async with asyncio.timeout(10):
        hostname = None if context is None else name
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=hostname)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


@dataclass
class Upstream:
    """An HTTP server that answers with the head of each request, in lower case; ``heads`` are all of them."""

    port: int = 0
    heads: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                self.heads.append(head)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(head), head))
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            writer.close()


@asynccontextmanager
async def upstream(context: ssl.SSLContext | None = None) -> AsyncIterator[Upstream]:
    """An upstream on a port of the system's choice, with TLS if there is a context."""
    made = Upstream()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=context)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


async def until(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Wait until the condition holds, looking whenever the loop has been around."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.002)


def field_of(head: bytes, name: bytes) -> bytes | None:
    """A field of a head in lower case."""
    for line in head.split(b"\r\n")[1:]:
        found, _, value = line.partition(b": ")
        if found == name:
            return value
    return None


def with_format(listener: dict[str, Any], text: str) -> dict[str, Any]:
    """The listener with this format in its access log."""
    (log,) = listener["filter_chains"][0]["filters"][0]["typed_config"]["access_log"]
    log["typed_config"]["log_format"] = {"text_format_source": {"inline_string": text}}
    return listener


def post(port: int, path: str) -> None:
    """POST to the administration interface."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", path)
    assert connection.getresponse().status == 200
    connection.close()
