"""The REST server: uvicorn inside of a loop that others share."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Iterator

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from controlplane.api.application import Application
from controlplane.api.certificate_routes import JWT_SVIDS, RENEW, TRUST_BUNDLE
from controlplane.api.express import Asked, Exchange, parse
from controlplane.api.status import ApiError
from controlplane.model.accepting import TlsListener, share_of_descriptors

_log = logging.getLogger(__name__)

_BACKLOG = 512
_LARGEST_HEAD = 64 * 1024
_FAREWELL = 0.3  # seconds for clients to close after the last answer
_REFUSED_AT_ONCE = 64  # connections beyond those that there may be, to say so
_EXPRESS = frozenset(path.encode() for path in (RENEW, TRUST_BUNDLE, JWT_SVIDS))
_SOON = 1.0  # seconds for a body after its head
_MOST_LATER = 64 * 1024  # bytes of the next requests
_FULL_BODY = ApiError(503, "there are as many connections as there may be: try again later").response().body
_FULL = b"\r\n".join((
    b"HTTP/1.1 503 Service Unavailable", b"content-type: application/json", b"retry-after: 30", b"connection: close",
    b"content-length: %d" % len(_FULL_BODY), b"", bytes(_FULL_BODY),
))  # fmt: skip


class _Uvicorn(uvicorn.Server):
    """Uvicorn that leaves signals to the process that it is in, and whose handshakes are bounded."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve on ``sockets``."""
        config = self.config
        assert sockets is not None and isinstance(config.ssl, ssl.SSLContext)
        await self.lifespan.startup()

        def protocol() -> asyncio.Protocol:
            return _Protocol(config=config, server_state=self.server_state, app_state=self.lifespan.state)

        listener = TlsListener(sockets, protocol, config.ssl, backlog=_BACKLOG, patience=_Protocol.handshake_patience)
        self.servers = [listener]  # type: ignore[list-item]
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Protocol(H11Protocol):
    """HTTP/1.1 whose requests carry the client's certificate, if it showed one, in `state["certificate"]` (DER), and whose
    clients cannot keep a connection by sending the head of a request bit by bit, or none. There are ``most`` connections; a
    few more are told so.

    What agents of nodes ask (see `express`) goes past h11: ten thousand of them ask all day.
    """

    handshake_patience = 10.0  # seconds
    patience = 15.0  # seconds for a whole head
    most = share_of_descriptors(0.25, 64, 16_384)  # the rest is for handshakes, xDS and the store
    _deadline: asyncio.TimerHandle | None = None
    _coming: tuple[Asked, bytes] | None = None
    _exchange: Exchange | None = None
    _work: asyncio.Task[None] | None = None
    _later = b""
    _full = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        over = len(self.connections) - self.most
        if over > 0:
            _log.warning("the API has %d connections: another one is refused", self.most)
            if over > _REFUSED_AT_ONCE:
                transport.abort()
                return
            self._full = True
        tls = transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        if certificate is not None:
            self.app_state = {**self.app_state, "certificate": certificate}
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        if self._full:
            self.transport.write(_FULL)
            self.transport.close()
        elif self._exchange is not None:  # one at a time: what comes before the answer waits
            self._later += data
            if len(self._later) > _MOST_LATER:
                self.flow.pause_reading()
        elif not self._is_express(data):
            self._give_to_h11(data)

    def shutdown(self) -> None:
        """The server stops: a client that has no request under way, and says nothing to the end of TLS, is cut off soon."""
        if self._exchange is not None:
            self._exchange.closing = True
            return
        super().shutdown()
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(_FAREWELL, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._deadline is not None:
            self._deadline.cancel()
        if self._exchange is not None and self._exchange.scope["method"] == "GET" and self._work is not None:
            self._work.cancel()  # nobody waits for the answer any more

    def _is_express(self, data: bytes) -> bool:
        """Whether these bytes were taken: a plain request that nothing follows, and a body that comes soon after its head.

        Who sends more before the answer, or leaves answers unread, has to do with h11, which stops reading by itself.
        """
        if self._coming is not None:
            (asked, before), self._coming = self._coming, None
            data = before + data
        else:
            found = parse(data, _EXPRESS) if self._is_idle() else None
            if found is None or len(data) > found.head + found.length:
                return False
            asked = found
            self._unset_keepalive_if_required()
            self._set_deadline(None)
        missing = asked.head + asked.length - len(data)
        if missing > 0:
            if self._deadline is None:
                self._set_deadline(self.loop.call_later(_SOON, self._is_late))
            self._coming = (asked, data)
            return True
        self._set_deadline(None)
        if missing < 0:
            self._give_to_h11(data)
            return True
        about = {"server": self.server, "client": self.client, "scheme": self.scheme, "state": self.app_state.copy()}
        self._exchange = Exchange(
            asked.scope(**about), data[asked.head :], self.transport.write, self.server_state.default_headers
        )
        self._work = self.loop.create_task(self._exchange.run(self.app))
        self.tasks.add(self._work)
        self._work.add_done_callback(self._answered)
        return True

    def _is_idle(self) -> bool:
        """Whether h11 has nothing of this connection, and the client reads what it is told."""
        h11s = (
            self.conn.their_state is not h11.IDLE or self.conn.our_state is not h11.IDLE or self.conn.trailing_data[0]
        )
        return not h11s and not self.flow.write_paused

    def _is_late(self) -> None:
        """The rest of a body does not come: h11 waits for it, as for any other."""
        assert self._coming is not None
        (_, data), self._coming, self._deadline = self._coming, None, None
        self._give_to_h11(data)

    def _give_to_h11(self, data: bytes) -> None:
        # h11 bounds what it waits for, not what it has: a head must not come in one piece of any size.
        for start in range(0, len(data), _LARGEST_HEAD):
            if not self.transport.is_closing():
                super().data_received(data[start : start + _LARGEST_HEAD])
        self._expect_head()

    def _answered(self, task: asyncio.Task[None]) -> None:
        exchange, self._exchange, self._work = self._exchange, None, None
        self.tasks.discard(task)
        assert exchange is not None
        if not task.cancelled() and task.exception() is not None:
            _log.error("a request failed", exc_info=task.exception())
        if self.transport.is_closing():
            return
        if exchange.closing or not exchange.complete:
            self.transport.close()
            self.loop.call_later(_FAREWELL, self.transport.abort)
            return
        self.on_response_complete()
        later, self._later = self._later, b""
        if later:
            self._give_to_h11(later)

    def _expect_head(self) -> None:
        waits = self.conn.their_state is h11.IDLE
        if waits and self._deadline is None:
            self._set_deadline(self.loop.call_later(self.patience, self.transport.close))
        elif not waits:
            self._set_deadline(None)

    def _set_deadline(self, handle: asyncio.TimerHandle | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = handle


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
