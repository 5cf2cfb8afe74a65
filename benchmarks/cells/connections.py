"""What an idle keep-alive connection costs in memory."""

from __future__ import annotations

import contextlib
import resource
import socket
import time

from benchmarks.backends import BODY, nginx_backend
from benchmarks.cells.memory import memory_mb
from benchmarks.context import Context
from benchmarks.ports import NotReady
from benchmarks.processes import ProcessDied
from benchmarks.proxies import OURS, Running, serving
from benchmarks.results import Better, Figure, Row, Target

KB = Figure("kb_per_connection", "KB/connection", Better.LOWER)
CONNECTIONS = 10_000
_PER_ADDRESS = 2_000
"""Connections from one loopback address: far from the number of ephemeral ports."""
_SETTLE_S = 1.0
_REQUEST = b"GET / HTTP/1.1\r\nhost: orders.shop.svc.cluster.local\r\nuser-agent: okhttp/4.12.0\r\n\r\n"


def raise_file_limit() -> int:
    """Let this process and its children open as many files as the hard limit allows; returns that number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _exchange(client: socket.socket) -> None:
    client.sendall(_REQUEST)
    answer = b""
    while not answer.endswith(BODY.encode()):
        part = client.recv(65536)
        if not part:
            raise NotReady(f"an idle connection was closed after {answer[:200]!r}")
        answer += part


def _open(running: Running, count: int, stack: contextlib.ExitStack) -> None:
    for number in range(count):
        source = f"127.0.0.{2 + number // _PER_ADDRESS}"
        client = stack.enter_context(socket.create_connection(("127.0.0.1", running.port), 10, (source, 0)))
        _exchange(client)


def idle_connections(context: Context) -> list[Row]:
    """KB for each of 10,000 connections that had one response and stay open.

    A hundred connections come and go before the first weighing, so that what the first request loads does not count.
    """
    files = raise_file_limit()
    count = min(1_000 if context.quick else CONNECTIONS, files - 1_000)
    rows = []
    with nginx_backend(context.directory) as backend:
        for proxy in context.supporting("route_only"):
            try:
                with serving(proxy, "route_only", context.directory, backend.substitutions()) as running:
                    with contextlib.ExitStack() as warm_up:
                        _open(running, 100, warm_up)
                    time.sleep(_SETTLE_S)
                    before, _ = memory_mb(running)
                    with contextlib.ExitStack() as clients:
                        _open(running, count, clients)
                        time.sleep(_SETTLE_S)
                        after, _ = memory_mb(running)
                        running.child.check()
            except (ProcessDied, NotReady, OSError) as error:
                context.problem(f"{proxy.name} does not hold {count:,} connections: {error}")
                continue
            each = (after - before) * 1024 / count
            context.say(f"connections {proxy.name}: {each:.2f} KB each")
            target = Target("≤ 4 KB", limit=4.0) if proxy.name == OURS else None
            figures = {"kb_per_connection": each, "memory_mb": after, "connections": float(count)}
            rows.append(Row("connections", proxy.name, KB, figures, target, (each,), f"{count:,} connections"))
    return rows
