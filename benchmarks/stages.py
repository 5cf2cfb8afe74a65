"""Microseconds of Python by stage of the request path, without any system call: ``python -m benchmarks.stages``.

The stack is the real one, built from the benchmark's own configuration; only transports and dialling are replaced, by
objects that remember what was written. Each stage's figure is the smallest of many repetitions, so that a busy machine
disturbs it little. What a whole request costs beyond the sum of these is the event loop and the kernel.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import timeit
from collections.abc import Callable
from functools import partial
from pathlib import Path
from string import Template
from time import perf_counter_ns
from typing import Any

import sidecar.pool_stack
import sidecar.stack
from sidecar.codec.http1 import RequestReader, ResponseReader
from sidecar.codec.http1_head import parse_request_head, parse_response_head
from sidecar.core.address import Address
from sidecar.core.stream_info import ConnectionInfo
from sidecar.core.worker import Worker
from sidecar.http.stream import Stream
from sidecar.server import load
from sidecar.telemetry.store import StatsStore

BARE = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:10000\r\n\r\n"
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sun, 22 Nov 2026 19:15:52 GMT\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 83\r\nConnection: keep-alive\r\n\r\n" + b"x" * 83
)
CONFIGURATIONS = Path(__file__).parent / "configurations"


def service_call(number: int) -> bytes:
    """A request as ``traffic/service_call.lua`` sends it, with a path, a request id and a trace of its own."""
    trace, span = (
        b"%032x" % (number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128)),
        b"%016x" % (number * 0x9E3779B97F4A7C15 % (1 << 64)),
    )
    return (
        b"GET /api/v1/accounts/%d/orders/%d?page=%d HTTP/1.1\r\nHost: orders.shop.svc.cluster.local:8080\r\n"
        b"User-Agent: okhttp/4.12.0\r\nAccept: application/json, text/plain, */*\r\n"
        b"Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en-GB,en;q=0.8\r\nAuthorization: Bearer %b\r\n"
        b"Content-Type: application/json\r\nX-Request-Id: 7f3d2c1b-1111-4222-a333-%012d\r\nTraceparent: 00-%b-%b-01\r\n"
        b"X-B3-TraceId: %b\r\nX-B3-SpanId: %b\r\nX-B3-Sampled: 1\r\nX-Client-Version: storefront/7.31.2\r\n\r\n"
        % (number, number * 7919, number % 10, b"5e" * 160, number, trace, span, trace, span)
    )


class MemoryTransport:
    """Takes what is written and does nothing with it."""

    def write(self, data: bytes) -> None:
        self.written = data

    writelines = write

    def set_write_buffer_limits(self, **_: int) -> None: ...

    def get_extra_info(self, _: str) -> Any:
        return self

    family = 2

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", 1)


class MemoryDialer:
    """Connects at once, to nothing."""

    made: list[Any] = []

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def dial(self, address: Address, protocol: Any, timeout: float, connected: Callable[..., None], *_: Any) -> None:
        protocol.connection_made(MemoryTransport())
        self.made.append(protocol)
        connected(protocol, None, False)


class Nowhere:
    """A sink that takes everything."""

    def on_head(self, head: Any, end: bool) -> None: ...

    def on_data(self, data: bytes, end: bool) -> None: ...

    def on_message(self, head: Any, body: bytes) -> None: ...

    def on_trailers(self, trailers: Any) -> None: ...


class Path1:
    """One downstream connection of a configuration, and the requests that are sent over it."""

    def __init__(self, configuration: str, requests: list[bytes]) -> None:
        text = Template((CONFIGURATIONS / f"{configuration}.yaml").read_text()).substitute(
            admin_port=1, port=2, access_log="/dev/null", backend_port=3,
            backend_port_1=3, backend_port_2=4, backend_port_3=5,
        )  # fmt: skip
        sidecar.pool_stack.Dialer = MemoryDialer  # type: ignore[misc,assignment,attr-defined]
        MemoryDialer.made = []
        self.worker = Worker(asyncio.get_running_loop(), seed=1)
        stack = sidecar.stack.Stack(load(None, text)[0], self.worker, StatsStore())
        stack.clusters.start(lambda: None)
        self.manager = next(one for one in stack.managers if "AdminTerminal" not in type(one.router).__name__)
        info = ConnectionInfo(1, Address("127.0.0.1", 80), Address("127.0.0.1", 81), self.worker.clock())
        self.connection = self.manager.accept(info)
        self.connection.connection_made(MemoryTransport())
        self.requests = requests

    def exchange(self) -> None:
        """Every request once, with its response."""
        receive = self.connection.data_received
        upstreams = MemoryDialer.made
        end_turn = self.worker.cork.pull
        for request in self.requests:
            receive(request)
            for upstream in upstreams:
                if upstream.sink is not None:
                    upstream.data_received(RESPONSE)
                    break
            end_turn()

    def stages(self) -> list[tuple[str, float]]:
        """(what, microseconds) of the stages that can be called alone, and of the whole."""
        manager, requests = self.manager, self.requests
        request = requests[len(requests) // 2]
        seen = manager.lines_seen
        reader = RequestReader(seen)
        reader.sink = Nowhere()
        answers = ResponseReader(seen)

        def read_response() -> None:
            answers.expect(b"GET", Nowhere())
            answers.receive(RESPONSE)

        def read_request() -> None:
            reader.next_message()
            reader.receive(request)

        def stream() -> Stream:
            return Stream(self.connection, manager, parse_request_head(request[:-4], seen, 100)[0], 1.0)

        parse = best(lambda: parse_request_head(request[:-4], seen, 100))
        made = best(stream) - parse
        prepared = stream()
        manager.prepare(prepared)
        prepared.route = manager.routes.match(prepared.request, prepared)
        if prepared.route.pick_cluster is not None:
            prepared.route = prepared.route.pick_cluster(prepared.request, self.worker.random, prepared)[1]
        response = RESPONSE.partition(b"\r\n\r\n")[0]

        def finish() -> None:
            prepared.response = parse_response_head(response, seen, 100, b"GET")[0]
            manager.finish_response(prepared)

        def prepare() -> None:
            manager.prepare(stream())

        parse_response = best(lambda: parse_response_head(response, seen, 100, b"GET"))
        rows = [
            ("read: find and frame a request head", best(read_request) - parse),
            ("parse a request head", parse),
            ("make a stream", made),
            ("prepare: forwarding headers, request id", best(prepare) - made - parse),
            ("route", best(lambda: manager.routes.match(prepared.request, prepared))),
        ]
        for at, hook in zip(manager.default_chain.request_positions, manager.default_chain.request, strict=True):
            name = type(manager.default_chain.filters[at]).__name__
            rows.append((f"filter {name}", best(partial(hook, prepared, True))))
        rows += [
            ("read: find and frame a response", best(read_response) - parse_response),
            ("parse a response head", parse_response),
            ("finish a response head", best(finish) - parse_response),
        ]
        prepared.host = None
        prepared.end = prepared.start
        prepared.response = parse_response_head(response, seen, 100, b"GET")[0]
        for log in manager.access_logs:
            rows.append(("access log", best(partial(log, prepared))))
        lane, manager.lane = manager.lane, None
        through_stages = best(self.exchange, 1, 60) / len(requests)
        manager.lane = lane
        rows.append(
            ("everything else: router, pick, pool, write, statistics", through_stages - sum(cost for _, cost in rows))
        )
        rows.append(("WHOLE REQUEST through the stages", through_stages))
        there, back, out = self.lane_halves()
        rows += [("express lane: the request, up to its bytes", there), ("express lane: the response", back)]
        rows += [
            ("both writes", out),
            ("WHOLE REQUEST in the express lane", best(self.exchange, 1, 60) / len(requests)),
        ]
        return rows

    def lane_halves(self, repeat: int = 60) -> tuple[float, float, float]:
        """Microseconds of the lane's two functions, and of handing their bytes to the transports."""
        self.exchange()
        self.exchange()
        take, flush = self.manager.lane.take, self.worker.cork.pull
        fastest = [float("inf")] * 3
        for _ in range(repeat):
            spent = [0, 0, 0]
            for request in self.requests:
                start = perf_counter_ns()
                assert take(self.connection, request)
                sent = perf_counter_ns()
                (upstream,) = (one for one in MemoryDialer.made if one.sink is not None)
                flush()
                respond, sink = upstream.respond, upstream.sink
                answered = perf_counter_ns()
                assert respond(upstream, sink, RESPONSE)
                passed = perf_counter_ns()
                flush()
                for at, took in enumerate((sent - start, passed - answered, 2 * (perf_counter_ns() - passed))):
                    spent[at] += took
            fastest = list(map(min, fastest, (each / len(self.requests) / 1000 for each in spent)))
        return fastest[0], fastest[1], fastest[2]


def best(call: Callable[[], object], number: int = 2000, repeat: int = 15) -> float:
    """Microseconds of one call: the smallest mean of ``repeat`` rounds."""
    return min(timeit.repeat(call, number=number, repeat=repeat)) / number * 1e6


async def measure() -> None:
    for configuration in ("route_only", "mesh_filters"):
        columns = {}
        for name, requests in (("bare", [BARE] * 512), ("service call", [service_call(n) for n in range(512)])):
            path = Path1(configuration, requests)
            path.exchange()
            gc.collect()
            gc.disable()
            columns[name] = path.stages()
        print(f"\n{configuration}, us for one request{'bare':>23}{'service call':>14}")
        for (what, bare), (_, call) in zip(*columns.values(), strict=True):
            print(f"  {what:<64}{bare:6.2f}{call:14.2f}")


if __name__ == "__main__":
    argparse.ArgumentParser("benchmarks.stages", description=__doc__).parse_args()
    asyncio.run(measure())
