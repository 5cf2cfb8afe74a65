"""A client that sends at a given rate, whatever becomes of the responses: `python -m benchmarks.constant_rate`.

wrk sends as fast as it is answered, and `h2load --rps` hands out its sends in bursts every 10 ms, one from every
connection at once, so that its p99 measures the burst. Here arrivals are a Poisson process with a fixed seed, the same
for every proxy, and a latency counts from the moment when the request was due, not from when a connection was free: a
proxy that stalls pays for everything that should have been sent meanwhile.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import random
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence

from benchmarks.load import Load

_PR_SET_TIMERSLACK = 29
_PATHS = 512
_DISTINCT = 8192


def service_calls(host: str, seed: int = 20240607) -> list[bytes]:
    """Requests like those of `traffic/service_call.lua`: 512 paths, and ids that differ from request to request."""
    dice = random.Random(seed)
    token = f"{dice.getrandbits(1280):0320x}"
    requests = []
    for number in range(_DISTINCT):
        account = number * 193 % _PATHS
        trace, span, ident = (f"{dice.getrandbits(bits):0{bits // 4}x}" for bits in (128, 64, 128))
        uuid = f"{ident[:8]}-{ident[8:12]}-4{ident[13:16]}-a{ident[17:20]}-{ident[20:]}"
        lines = [
            f"GET /api/v1/accounts/{account}/orders/{account * 7919}?page={account % 10} HTTP/1.1",
            f"host: {host}",
            "user-agent: okhttp/4.12.0",
            "accept: application/json, text/plain, */*",
            "accept-encoding: gzip, deflate, br",
            "accept-language: en-GB,en;q=0.8",
            f"authorization: Bearer {token}",
            "content-type: application/json",
            f"x-request-id: {uuid}",
            f"traceparent: 00-{trace}-{span}-01",
            f"x-b3-traceid: {trace}",
            f"x-b3-spanid: {span}",
            "x-b3-sampled: 1",
        ]
        requests.append(("\r\n".join(lines) + "\r\n\r\n").encode())
    return requests


def arrivals(rate: float, seconds: float, seed: int = 7919) -> list[float]:
    """Seconds from the start at which each request is due: exponential gaps, `rate` a second on average."""
    dice = random.Random(seed)
    due: list[float] = []
    at = 0.0
    while at < seconds:
        due.append(at)
        at += dice.expovariate(rate)
    return due


def drive(port: int, due: Sequence[float], requests: Sequence[bytes], *, connections: int, body_bytes: int) -> Load:
    """Send `requests` in turn at the times `due`; every response must be a 200 with `body_bytes` of body.

    A response that is anything else counts as an error, as does one that never came.
    """
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    for each in sockets:
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        each.setblocking(False)
    free = list(sockets)
    busy: dict[socket.socket, float] = {}
    partial: dict[socket.socket, bytes] = {}
    waiting: deque[tuple[float, bytes]] = deque()
    latencies: list[float] = []
    errors = sent = read = 0
    total = len(due)
    clock = time.perf_counter
    start = clock() + 0.05
    give_up = start + due[-1] + 10.0
    while sent < total or busy or waiting:
        now = clock()
        if now > give_up:
            errors += len(busy) + len(waiting)
            break
        while sent < total and start + due[sent] <= now:
            waiting.append((start + due[sent], requests[sent % len(requests)]))
            sent += 1
        while waiting and free:
            at, request = waiting.popleft()
            each = free.pop()
            busy[each] = at
            each.send(request)
        pause = start + due[sent] - clock() if sent < total else 0.1
        ready, _, _ = select.select(list(busy), (), (), max(0.0, pause))
        now = clock()
        for each in ready:
            data = each.recv(65536)
            read += len(data)
            if not data:
                errors += 1
                del busy[each]
                continue
            if each in partial:
                data = partial.pop(each) + data
            end = data.find(b"\r\n\r\n")
            if end < 0 or len(data) < end + 4 + body_bytes:
                partial[each] = data
                continue
            latencies.append(now - busy.pop(each))
            errors += not data.startswith(b"HTTP/1.1 200")
            free.append(each)
    seconds = clock() - start
    for each in sockets:
        each.close()
    latencies.sort()
    return Load(
        requests=len(latencies),
        seconds=seconds,
        p50_ms=latencies[len(latencies) // 2] * 1000,
        p99_ms=latencies[len(latencies) * 99 // 100] * 1000,
        bytes_read=read,
        errors=errors,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Drive one proxy and print the result as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.constant_rate")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="requests a second")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--body-bytes", type=int, required=True, help="length of the body that every response has")
    options = parser.parse_args(argv)
    requests = service_calls("orders.shop.svc.cluster.local:8080")
    due = arrivals(options.rate, options.seconds)
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)
    gc.disable()
    result = drive(options.port, due, requests, connections=options.connections, body_bytes=options.body_bytes)
    json.dump(
        {
            "requests": result.requests,
            "seconds": result.seconds,
            "p50_ms": result.p50_ms,
            "p99_ms": result.p99_ms,
            "bytes_read": result.bytes_read,
            "errors": result.errors,
        },
        sys.stdout,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
