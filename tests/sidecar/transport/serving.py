"""TLS at work in tests: our servers and clients on an event loop, blocking clients of other makes beside them."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop

from sidecar.config.tls import (
    DOWNSTREAM_TLS,
    UPSTREAM_TLS,
    DownstreamTlsContext,
    UpstreamTlsContext,
    parse_downstream_tls_context,
    parse_upstream_tls_context,
)
from sidecar.config.tls_secret_file import load_certificate_secret, load_validation_secret
from sidecar.config.tls_secrets import CertificateValidationContext, SecretReference, TlsCertificate
from sidecar.core.address import Address
from sidecar.core.stream_info import ConnectionInfo
from sidecar.core.tls_options import OFFERING_NOTHING, TransportSocketOptions
from sidecar.core.worker import Worker
from sidecar.listener.client_hello import parse_client_hello
from sidecar.transport.downstream import DownstreamConnection, DownstreamTls
from sidecar.transport.handshake_limit import HandshakeLimit
from sidecar.transport.secrets import Secrets
from sidecar.transport.upstream import UpstreamConnection, UpstreamTls
from sidecar.transport.watching import FileWatcher
from tests.sidecar.config.building import build
from tests.sidecar.transport.certificates import Authority, Certificate

Result = TypeVar("Result")
Document = dict[str, Any]

OPENSSL = shutil.which("openssl")
CURL = shutil.which("curl")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="needs the openssl command")
needs_curl = pytest.mark.skipif(CURL is None, reason="needs curl")

AUTHORITY = Authority()
STRANGERS = Authority("Another Root")
SERVER = AUTHORITY.issue("server", ["server.example", "*.wild.example", "127.0.0.1", "spiffe://td/server"])
CLIENT = AUTHORITY.issue("client", ["spiffe://td/client", "client.example"])


class Stats:
    """Counters as TLS wants them."""

    def __init__(self) -> None:
        self.connection_error = 0
        self.handshake = 0
        self.session_reused = 0
        self.no_certificate = 0
        self.fail_verify_no_cert = 0
        self.fail_verify_error = 0
        self.fail_verify_san = 0
        self.fail_verify_cert_hash = 0
        self.named: Counter[str] = Counter()

    def count(self, group: str, name: str) -> None:
        self.named[f"{group}.{name}"] += 1

    def set(self) -> dict[str, int]:
        """Those that are not zero, without the named ones."""
        return {name: value for name, value in vars(self).items() if value and name != "named"}


class Factory:
    """Counters of discovered secrets."""

    def __init__(self) -> None:
        self.ssl_context_update_by_sds = 0
        self.downstream_context_secrets_not_ready = 0
        self.upstream_context_secrets_not_ready = 0


class Inner(asyncio.Protocol):
    """Records what a connection says to it, and answers with ``answer`` to what it receives."""

    def __init__(self, answer: Callable[[Inner, bytes], None] | None = None, keep_half_open: bool = True) -> None:
        self.answer = answer
        self.keep_half_open = keep_half_open
        self.transport: Any = None
        self.received = bytearray()
        self.events: list[str] = []
        self.error: Exception | None = None
        self.changed = asyncio.Event()

    def _event(self, name: str) -> None:
        self.events.append(name)
        self.changed.set()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._event("made")

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.changed.set()
        if self.answer is not None:
            self.answer(self, data)

    def eof_received(self) -> bool:
        self._event("eof")
        return self.keep_half_open

    def pause_writing(self) -> None:
        self._event("pause")

    def resume_writing(self) -> None:
        self._event("resume")

    def connection_lost(self, error: Exception | None) -> None:
        self.error = error
        self._event("lost")

    async def until(self, condition: Callable[[], object], timeout: float = 10.0) -> None:
        """Wait until the condition holds."""
        async with asyncio.timeout(timeout):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


def echo(inner: Inner, data: bytes) -> None:
    inner.transport.write(data)


def respond(inner: Inner, data: bytes) -> None:
    """A minimal HTTP server for curl."""
    if b"\r\n\r\n" in inner.received:
        inner.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello")
        inner.transport.close()


def inline(certificate: Certificate) -> Document:
    return {
        "certificate_chain": {"inline_string": certificate.pem.decode()},
        "private_key": {"inline_string": certificate.key_pem.decode()},
    }


def trusted(authority: Authority = AUTHORITY, **fields: Any) -> Document:
    """A validation context."""
    return {"trusted_ca": {"inline_string": authority.pem.decode()}, **fields}


def downstream(
    *certificates: Certificate, validation: Document | None = None, common: Document | None = None, **fields: Any
) -> DownstreamTlsContext:
    """The configuration of a server."""
    inside = {"tls_certificates": [inline(one) for one in certificates or (SERVER,)], **(common or {})}
    if validation is not None:
        inside["validation_context"] = validation
    return build(DOWNSTREAM_TLS, {"common_tls_context": inside, **fields}, parse_downstream_tls_context)


def upstream(
    *certificates: Certificate, validation: Document | None = None, common: Document | None = None, **fields: Any
) -> UpstreamTlsContext:
    """The configuration of a client that trusts our authority."""
    inside = {"tls_certificates": [inline(one) for one in certificates], **(common or {})}
    inside["validation_context"] = trusted() if validation is None else validation
    return build(UPSTREAM_TLS, {"common_tls_context": inside, **fields}, parse_upstream_tls_context)


def parameters(**fields: Any) -> Document:
    """A common context with these TLS parameters."""
    return {"tls_params": fields}


def versions(lowest: str, highest: str) -> Document:
    """A common context with these versions."""
    return parameters(tls_minimum_protocol_version=lowest, tls_maximum_protocol_version=highest)


def restricted(lowest: ssl.TLSVersion, highest: ssl.TLSVersion, suites: str = "") -> ssl.SSLContext:
    """A context of Python's own for blocking clients with these versions, and suites of TLS 1.2."""
    context = client_context()
    context.minimum_version, context.maximum_version = lowest, highest
    if suites:
        context.set_ciphers(suites)
    return context


def secrets(watcher: FileWatcher, **static: TlsCertificate | CertificateValidationContext) -> Secrets:
    """What finds secrets, the static ones being these."""

    def discover(kind: Any, reference: SecretReference) -> Any:
        raise LookupError(reference.name)

    return Secrets(watcher, static, load_certificate_secret, load_validation_secret, discover)


@dataclass
class Surroundings:
    """What connections of one test share."""

    worker: Worker
    watcher: FileWatcher
    secrets: Secrets
    stats: Stats
    limit: HandshakeLimit


@dataclass
class Serving:
    """A listening TLS server: what it counted, its connections, and the protocols inside."""

    tls: DownstreamTls
    stats: Stats
    port: int
    connections: list[DownstreamConnection]
    inners: list[Inner]
    timeouts: list[str]
    surroundings: Surroundings

    @property
    def reasons(self) -> list[str]:
        return [connection.info.transport_failure_reason for connection in self.connections]

    async def first(self) -> Inner:
        """The protocol inside the first connection, when its handshake is done."""
        await self.until(lambda: self.inners)
        return self.inners[0]

    async def until(self, condition: Callable[[], object], timeout: float = 10.0) -> None:
        """Wait until the condition holds, looking whenever the loop has been around."""
        async with asyncio.timeout(timeout):
            while not condition():
                await asyncio.sleep(0.002)


def surroundings(limit: HandshakeLimit | None = None) -> Surroundings:
    worker = Worker(asyncio.get_running_loop())
    watcher = FileWatcher(worker.wheel, 0.01)
    return Surroundings(worker, watcher, secrets(watcher), Stats(), limit or HandshakeLimit())


@asynccontextmanager
async def serving(
    config: DownstreamTlsContext,
    make: Callable[[], Inner] = lambda: Inner(echo),
    *,
    around: Surroundings | None = None,
    handshake_timeout: float = 10.0,
    limit: HandshakeLimit | None = None,
) -> AsyncIterator[Serving]:
    """A server with this configuration on an ephemeral port."""
    around = around or surroundings(limit)
    inners: list[Inner] = []
    connections: list[DownstreamConnection] = []
    timeouts: list[str] = []

    def inner(info: ConnectionInfo) -> Inner:
        made = make()
        inners.append(made)
        return made

    tls = DownstreamTls(
        config,
        around.secrets,
        around.stats,
        Factory(),
        around.worker,
        around.limit,
        parse_client_hello,
        inner,
        handshake_timeout,
        lambda: timeouts.append("timeout"),
    )

    def accept() -> DownstreamConnection:
        here = Address("127.0.0.1", 1)
        connection = tls.accept(ConnectionInfo(around.worker.next_id(), here, here, around.worker.clock()))
        connections.append(connection)
        return connection

    server = await around.worker.loop.create_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield Serving(tls, around.stats, port, connections, inners, timeouts, around)
    finally:
        server.close()
        tls.close()
        for connection in connections:
            connection.abort()
        around.watcher.close()
        await asyncio.sleep(0)
        around.worker.wheel.close()


async def dial(
    tls: UpstreamTls, port: int, inner: Inner | None = None, **options: Any
) -> tuple[UpstreamConnection, Inner]:
    """A connection of ours to a port of this machine, when its handshake is done. Raises TlsFailure."""
    inner = inner or Inner()
    connection = tls.connect(inner, **options)
    await tls.worker.loop.create_connection(lambda: connection, "127.0.0.1", port)
    async with asyncio.timeout(10):
        await connection.ready()
    return connection, inner


def originating(
    config: UpstreamTlsContext, around: Surroundings, options: TransportSocketOptions = OFFERING_NOTHING
) -> UpstreamTls:
    """TLS to endpoints with this configuration, and counters of its own."""
    return UpstreamTls(config, around.secrets, Stats(), Factory(), around.worker, around.limit, options)


def client_context(certificate: Certificate | None = None, directory: Path | None = None) -> ssl.SSLContext:
    """A context of Python's own for blocking clients; a certificate needs a directory to be written into."""
    context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
    if certificate is not None:
        assert directory is not None
        context.load_cert_chain(*certificate.write(directory, certificate.sha256[:8]))
    return context


def client_hello() -> bytes:
    """What a client says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        client_context().wrap_bio(incoming, outgoing, server_hostname="server.example").do_handshake()
    return outgoing.read()


def exchange(port: int, context: ssl.SSLContext, name: str = "server.example", data: bytes = b"ping") -> bytes:
    """What a blocking client gets back for some bytes. Raises ssl.SSLError and OSError."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=name) as wrapped,
    ):
        wrapped.sendall(data)
        return wrapped.recv(65536)


async def in_thread(function: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
    """Run something that blocks beside the loop."""
    return await asyncio.get_running_loop().run_in_executor(None, partial(function, *arguments, **options))


async def command(*arguments: str, given: bytes = b"", timeout: float = 20.0) -> tuple[int, str]:
    """The exit status and all output of a command, which is killed when it takes too long."""
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(given), timeout)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, output.decode(errors="replace")


def run(test: Coroutine[Any, Any, Result], loop: str = "uvloop") -> Result:
    """Run a test's coroutine on a loop of its own."""
    factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(test)


def on_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Make a test of a coroutine function, on uvloop."""

    def wrapped(*arguments: Any, **options: Any) -> None:
        run(test(*arguments, **options))  # type: ignore[arg-type]

    wrapped.__name__ = test.__name__
    wrapped.__doc__ = test.__doc__
    wrapped.__wrapped__ = test  # type: ignore[attr-defined]
    wrapped.pytestmark = getattr(test, "pytestmark", [])  # type: ignore[attr-defined]
    return wrapped
