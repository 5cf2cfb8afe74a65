"""Servers that proxies ask whether to let somebody pass: Envoy's external authorization, over HTTP and over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import socket as listening
import threading
from collections.abc import Iterator
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.service.auth.v3 import external_auth_pb2
from envoy.type.v3 import http_status_pb2
from google.rpc import status_pb2
from grpclib.const import Cardinality, Handler
from grpclib.server import Server

Asked = list[dict[str, Any]]


@contextlib.contextmanager
def asked_over_http() -> Iterator[tuple[int, Asked]]:
    """A server's port, and what it was asked: it allows what has `x-user: alice`, else it answers 401."""
    asked: Asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked.append({"path": self.path, "method": self.command, "headers": headers, "body": body.decode()})
            allowed = headers.get("x-user") == "alice"
            self.send_response(200 if allowed else 401)
            self.send_header("x-checked", "by-http")
            self.send_header("x-other", "unseen")
            self.send_header("content-length", "0")
            self.end_headers()

        do_GET = do_POST = _answer

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server.server_address[1], asked
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def asked_over_grpc() -> Iterator[tuple[int, Asked]]:
    """A server's port, and what it was asked: of requests it allows those with `x-user: alice`, of connections those whose
    peer is of the service account `page`.
    """
    asked: Asked = []

    def check(request: Any) -> Any:
        attributes = request.attributes
        told = attributes.request.http
        asked.append(
            {
                "path": told.path,
                "headers": dict(told.headers),
                "body": told.body or told.raw_body.decode(),
                "principal": attributes.source.principal,
            }
        )
        requested = bool(told.method)
        allowed = (
            told.headers.get("x-user") == "alice" if requested else attributes.source.principal.endswith("/sa/page")
        )
        answer = external_auth_pb2.CheckResponse(status=status_pb2.Status(code=0 if allowed else 7))
        if allowed:
            answer.ok_response.headers.add(header=base_pb2.HeaderValue(key="x-checked", value="by-grpc"))
        else:
            answer.denied_response.status.CopyFrom(http_status_pb2.HttpStatus(code=402))
        return answer

    async def answer(stream: Any) -> None:
        await stream.send_message(check(await stream.recv_message()))

    class Authorization:
        def __mapping__(self) -> dict[str, Handler]:
            kinds = external_auth_pb2.CheckRequest, external_auth_pb2.CheckResponse
            return {"/envoy.service.auth.v3.Authorization/Check": Handler(answer, Cardinality.UNARY_UNARY, *kinds)}

    async def begin() -> Server:
        server = Server([Authorization()])
        await server.start(sock=socket)
        return server

    async def end(server: Server) -> None:
        server.close()
        await server.wait_closed()

    # Not grpcio: a process that has its threads cannot well start others.
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    socket = listening.create_server(("127.0.0.1", 0))
    server = asyncio.run_coroutine_threadsafe(begin(), loop).result(10)
    try:
        yield socket.getsockname()[1], asked
    finally:
        asyncio.run_coroutine_threadsafe(end(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()
