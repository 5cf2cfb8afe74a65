"""HTTP/2 at saturation: on both sides, with requests that repeat and requests that all differ, and bridged to HTTP/1.1."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from benchmarks.backends import BODY, Backend, nginx_backend
from benchmarks.cells import http, saturation
from benchmarks.cells.saturation import Loading, Work, alone
from benchmarks.context import Context
from benchmarks.envoy import REPOSITORY
from benchmarks.exchange import check
from benchmarks.h2load import Shape, h2load
from benchmarks.load import FailedRequests, UnreadableOutput, needs
from benchmarks.processes import LOAD_CORE, ProcessDied, run
from benchmarks.results import CPU, Figure, Row, Target
from benchmarks.traffic import http2_calls
from benchmarks.traffic.http2_calls import Traffic
from benchmarks.turns import all_serving

FEW_CONNECTIONS = Shape(8, 16)
MANY_CONNECTIONS = Shape(32, 1)
SPEED_8X16 = Target("≥ 1.0 × Envoy", times_envoy=1.0)
SPEED_32X1 = Target("≥ 1.25 × Envoy", times_envoy=1.25)
BRIDGE_SPEED = Target("≥ 1.0 × Envoy", times_envoy=1.0)
_REQUESTS_A_SECOND = 70_000
"""How many requests are written for each second of a run: more than any proxy here answers."""


PortLoading = Callable[[int, float], Work]
"""`load(port, seconds)` loads whatever listens there. Raises FailedRequests when anything went wrong."""


def repeating(shape: Shape) -> PortLoading:
    """h2load with the same bare GET."""

    def load(port: int, seconds: float) -> Work:
        report = h2load(f"http://127.0.0.1:{port}/", shape, seconds=seconds, body_bytes=len(BODY))
        return Work(report.requests, report.seconds)

    return load


def replayed(traffic: Traffic) -> PortLoading:
    """Our own client with requests that were written before."""

    def load(port: int, seconds: float) -> Work:
        shape = traffic.shape
        command = [sys.executable, "-m", "benchmarks.replay", "--port", str(port)]
        command += ["--directory", str(traffic.directory), "--seconds", f"{seconds:g}"]
        command += ["--connections", str(shape.connections), "--streams", str(shape.streams)]
        figures = json.loads(run(command, core=LOAD_CORE, timeout_s=seconds + 60, cwd=REPOSITORY))
        requests, missing = figures["requests"], figures["requests"] * len(BODY) - figures["body_bytes"]
        if not requests or not -len(BODY) * shape.connections * shape.streams <= missing <= 0:
            raise FailedRequests(f"{requests} responses had {figures['body_bytes']} bytes of body")
        return Work(requests, figures["seconds"])

    return load


def measure(
    context: Context,
    shape: str,
    service: AbstractContextManager[Backend],
    probe: Callable[[int], None],
    loads: Mapping[str, tuple[PortLoading, Figure, Target]],
) -> list[Row]:
    """Each of `loads`, by the name of its cell, on every proxy that serves `shape` and passes `probe(port)`.

    The row `direct` of each cell has no proxy in it: the rate that client and service reach on their one core says
    whether they hold the proxies back.
    """
    rows = []
    with service as backend, all_serving(context, shape, backend.substitutions()) as proxies:
        for name in list(proxies):
            try:
                probe(proxies[name].port)
            except (FailedRequests, OSError) as error:
                context.problem(f"{name} does not serve {shape} as it should: {error}")
                del proxies[name]
        for cell, (load, figure, target) in loads.items():
            rows += saturation.measure(context, cell, alone(proxies), _through(load), figure, target)
            rows += _direct(context, cell, load, backend.http2_port, figure)
    return rows


def _direct(context: Context, cell: str, load: PortLoading, port: int, figure: Figure) -> list[Row]:
    try:
        work = load(port, context.seconds)
    except (FailedRequests, ProcessDied, UnreadableOutput) as error:
        context.problem(f"{cell} is not measured without a proxy: {error}")
        return []
    return [Row(cell, "direct", figure, {"rate": work.done / work.seconds})]


def _through(load: PortLoading) -> Loading:
    return lambda running, seconds: load(running.port, seconds)


def _probe(port: int) -> None:
    check(port, BODY.encode())


def _same(context: Context, cell: str, traffic: Shape, target: Target, shape: str = "http2") -> list[Row]:
    needs("h2load")
    loads = {cell: (repeating(traffic), CPU, target)}
    return measure(context, shape, nginx_backend(context.directory), _probe, loads)


def _varied(context: Context, cell: str, shape: Shape, target: Target) -> list[Row]:
    loads = {}
    for form, indexed in (("indexed", True), ("literal", False)):
        directory = context.directory / f"{cell}-{form}"
        count = round(_REQUESTS_A_SECOND * context.seconds)
        loads[f"{cell}-{form}"] = replayed(http2_calls.write(directory, shape, count, indexed=indexed)), CPU, target
    rows = measure(context, "http2", nginx_backend(context.directory), _probe, loads)
    for form in ("indexed", "literal"):
        shutil.rmtree(context.directory / f"{cell}-{form}")
    return rows


def same_8x16(context: Context) -> list[Row]:
    """8 connections with 16 requests under way, the same bare GET again and again."""
    return _same(context, "h2-8x16", FEW_CONNECTIONS, SPEED_8X16)


def same_32x1(context: Context) -> list[Row]:
    """32 connections with one request under way."""
    return _same(context, "h2-32x1", MANY_CONNECTIONS, SPEED_32X1)


def varied_8x16(context: Context) -> list[Row]:
    """8 x 16, 1,000 paths in turn and an `x-request-id` on every request that never repeats; ids indexed, and literal."""
    return _varied(context, "h2-8x16-varied", FEW_CONNECTIONS, SPEED_8X16)


def varied_32x1(context: Context) -> list[Row]:
    """32 x 1, varied in the same two ways."""
    return _varied(context, "h2-32x1-varied", MANY_CONNECTIONS, SPEED_32X1)


def bridge_up(context: Context) -> list[Row]:
    """HTTP/1.1 in, HTTP/2 out: wrk with 32 connections."""
    return http.measure(context, "bridge-1-2", "bridge_1_2", target=BRIDGE_SPEED)


def bridge_down(context: Context) -> list[Row]:
    """HTTP/2 in, HTTP/1.1 out: h2load, 8 x 16."""
    return _same(context, "bridge-2-1", FEW_CONNECTIONS, BRIDGE_SPEED, "bridge_2_1")
