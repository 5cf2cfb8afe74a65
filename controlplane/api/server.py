"""The REST server: uvicorn inside of a loop that others share."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
import ssl
from collections.abc import Iterator

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from controlplane.api.application import Application

_log = logging.getLogger(__name__)

_BACKLOG = 512
_FAREWELL = 0.3  # seconds
_LARGEST_HEAD = 64 * 1024
_FAREWELL = 0.3  # seconds for clients to close after the last answer


class _Uvicorn(uvicorn.Server):
    """Uvicorn that leaves signals to the process that it is in."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Protocol(H11Protocol):
    """HTTP/1.1 whose requests carry the client's certificate, if it showed one, in `state["certificate"]` (DER), and whose
    clients cannot keep a connection by sending the head of a request bit by bit, or none. There are ``most`` connections.
    """

    patience = 15.0  # seconds for a whole head
    most = max(
        64, min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
    )  # the other half is for xDS and the store
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most:
            _log.warning("the API has %d connections: another one is closed", self.most)
            transport.abort()
            return
        tls = transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        if certificate is not None:
            self.app_state = {**self.app_state, "certificate": certificate}
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._expect_head()

    def shutdown(self) -> None:
        """The server stops: a client that has no request under way, and says nothing to the end of TLS, is cut off soon."""
        super().shutdown()
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(_FAREWELL, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._deadline is not None:
            self._deadline.cancel()

    def _expect_head(self) -> None:
        waits = self.conn.their_state is h11.IDLE
        if waits and self._deadline is None:
            self._deadline = self.loop.call_later(self.patience, self.transport.close)
        elif not waits and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class ApiServer:
    """Serves an Application on one address; ``port`` 0 takes a free one, which is known after ``start``."""

    def __init__(self, application: Application, host: str, port: int, context: ssl.SSLContext) -> None:
        self.application = application
        self.host = host
        self.port = port
        self._context = context
        self._server: _Uvicorn | None = None
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<ApiServer {self.url}>"

    @property
    def url(self) -> str:
        """Where clients on this machine reach it."""
        host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"https://[{host}]:{self.port}" if ":" in host else f"https://{host}:{self.port}"

    async def start(self) -> None:
        """Listen, and answer from now on. Raises OSError if the address cannot be had."""
        listener = _listen(self.host, self.port)
        self.port = listener.getsockname()[1]
        try:
            await self.application.start()
        except BaseException:
            listener.close()
            raise
        config = uvicorn.Config(
            self.application.asgi,
            # h11 bounds the head of a request; httptools takes one of any size.
            http=_Protocol,
            h11_max_incomplete_event_size=_LARGEST_HEAD,
            ws="none",
            lifespan="off",
            loop="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=3,
            backlog=_BACKLOG,
            ssl_context_factory=lambda config, default: self._context,
        )
        self._server = _Uvicorn(config)
        self._task = asyncio.get_running_loop().create_task(self._server.serve(sockets=[listener]))
        while not self._server.started:
            if self._task.done():
                await self._task
                raise RuntimeError("the REST server ended while it started")
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Take no more requests, end the watches, finish the rest within a few seconds."""
        self.application.close()
        server, task = self._server, self._task
        if server is None or task is None:
            return
        server.should_exit = True
        clock = asyncio.get_running_loop().time
        idle_since: float | None = None
        while not task.done():
            await asyncio.wait([task], timeout=0.05)
            if server.server_state.tasks:
                idle_since = None
            elif idle_since is None:
                idle_since = clock()
            elif clock() - idle_since > _FAREWELL:
                # All is answered; what is open waits for clients to say goodbye, too, and they need not.
                for connection in list(server.server_state.connections):
                    if connection.transport is not None:
                        connection.transport.abort()
        self._server = self._task = None


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol left open asyncio does not switch Nagle's algorithm off, and each answer waits 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
