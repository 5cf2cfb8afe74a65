"""What waiting costs in memory: idle TLS connections, and HTTP/2 streams without an answer."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time

from benchmarks import certificates
from benchmarks.backends import BODY, frames_backend, nginx_backend
from benchmarks.cells.connections import raise_file_limit
from benchmarks.context import Context
from benchmarks.http2_frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    SETTINGS,
    frame,
    opening,
    plain_block,
)
from benchmarks.ports import NotReady
from benchmarks.processes import ProcessDied
from benchmarks.proxies import OURS, Running, counter, serving
from benchmarks.results import Better, Figure, Row, Target

TLS_KB = Figure("kb_per_connection", "KB/connection", Better.LOWER)
STREAM_KB = Figure("kb_per_stream", "KB/stream", Better.LOWER)
TLS_CONNECTIONS = 5_000
HTTP2_CONNECTIONS, STREAMS_EACH = 1_000, 100
_PER_ADDRESS = 2_000
"""Connections from one loopback address: far from the number of ephemeral ports."""
_WARM_UP = 100
_SETTLE_S = 1.0
_ARRIVAL_S = 60.0
_REQUEST = b"GET / HTTP/1.1\r\nhost: orders.shop.svc.cluster.local\r\nuser-agent: okhttp/4.12.0\r\n\r\n"
_STREAM_REQUEST = plain_block(
    [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/events"),
        (b":authority", b"orders.shop.svc.cluster.local"),
        (b"user-agent", b"okhttp/4.12.0"),
    ]
)


def _connect(running: Running, number: int) -> socket.socket:
    source = f"127.0.0.{2 + number // _PER_ADDRESS}"
    client = socket.create_connection(("127.0.0.1", running.port), 10, (source, 0))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def _rss_kb(running: Running) -> int:
    """RSS after what was going on has settled. PSS would change with every other process of the same program."""
    time.sleep(_SETTLE_S)
    running.child.check()
    return running.child.memory_kb()[0]


def _open_tls(running: Running, count: int, context: ssl.SSLContext, clients: contextlib.ExitStack) -> None:
    for number in range(count):
        plain = _connect(running, number)
        client = clients.enter_context(context.wrap_socket(plain, server_hostname=certificates.NAME))
        client.sendall(_REQUEST)
        answer = b""
        while not answer.endswith(BODY.encode()):
            part = client.recv(65_536)
            if not part:
                raise NotReady(f"a TLS connection was closed after {answer[:200]!r}")
            answer += part


def tls_connections(context: Context) -> list[Row]:
    """KB for each of 5,000 TLS 1.3 connections that had one response and stay open, with one upstream connection."""
    count = min(500 if context.quick else TLS_CONNECTIONS, raise_file_limit() - 1_000)
    certificates.write(context.directory)
    client_context = ssl.create_default_context(cafile=str(context.directory / "ca.pem"))
    rows = []
    with nginx_backend(context.directory) as backend:
        for proxy in context.supporting("https_in"):
            try:
                with serving(proxy, "https_in", context.directory, backend.substitutions()) as running:
                    with contextlib.ExitStack() as warm_up:
                        _open_tls(running, _WARM_UP, client_context, warm_up)
                    before = _rss_kb(running)
                    with contextlib.ExitStack() as clients:
                        _open_tls(running, count, client_context, clients)
                        after = _rss_kb(running)
            except (ProcessDied, NotReady, OSError) as error:
                context.problem(f"{proxy.name} does not hold {count:,} TLS connections: {error}")
                continue
            each = (after - before) / count
            context.say(f"tls-idle {proxy.name}: {each:.2f} KB each")
            target = Target("≤ 24 KB", limit=24.0) if proxy.name == OURS else None
            figures = {"kb_per_connection": each, "memory_mb": after / 1024, "connections": float(count)}
            rows.append(Row("tls-idle", proxy.name, TLS_KB, figures, target, (each,), f"{count:,} connections"))
    return rows


def _open_streams(running: Running, connections: int, clients: contextlib.ExitStack) -> None:
    requests = [
        frame(HEADERS, END_HEADERS | END_STREAM, stream, _STREAM_REQUEST) for stream in range(1, 2 * STREAMS_EACH, 2)
    ]
    sent = PREFACE + opening() + b"".join(requests)
    for number in range(connections):
        client = clients.enter_context(_connect(running, number))
        client.sendall(sent)
        if not client.recv(65_536):
            raise NotReady("an HTTP/2 connection was closed")
        client.sendall(frame(SETTINGS, ACK, 0))
    deadline = time.monotonic() + _ARRIVAL_S
    while (arrived := counter(running, "cluster.backend.upstream_rq_active")) != connections * STREAMS_EACH:
        running.child.check()
        if time.monotonic() > deadline:
            raise NotReady(f"{arrived:,} of {connections * STREAMS_EACH:,} streams went upstream")
        time.sleep(0.1)


def http2_streams(context: Context) -> list[Row]:
    """KB for each of 100 streams on each of 1,000 connections, whose requests went to a service that does not answer.

    Connections are counted in: a stream's share of its own is a hundredth.
    """
    connections = min(50 if context.quick else HTTP2_CONNECTIONS, raise_file_limit() - 1_000)
    streams = connections * STREAMS_EACH
    rows = []
    with frames_backend(context.directory, "silent") as backend:
        for proxy in context.supporting("http2"):
            try:
                with serving(proxy, "http2", context.directory, backend.substitutions()) as running:
                    with contextlib.ExitStack() as warm_up:
                        _open_streams(running, 1, warm_up)
                    before = _rss_kb(running)
                    with contextlib.ExitStack() as clients:
                        _open_streams(running, connections, clients)
                        after = _rss_kb(running)
            except (ProcessDied, NotReady, OSError) as error:
                context.problem(f"{proxy.name} does not hold {streams:,} streams: {error}")
                continue
            each = (after - before) / streams
            context.say(f"h2-idle-streams {proxy.name}: {each:.2f} KB each")
            target = Target("≤ Envoy", times_envoy=1.0) if proxy.name == OURS else None
            figures = {"kb_per_stream": each, "memory_mb": after / 1024, "streams": float(streams)}
            note = f"{connections:,} connections x {STREAMS_EACH} streams"
            rows.append(Row("h2-idle-streams", proxy.name, STREAM_KB, figures, target, (each,), note))
    return rows
