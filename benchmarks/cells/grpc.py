"""gRPC at saturation: unary calls, and streams with messages in both directions."""

from __future__ import annotations

import json
import sys

from benchmarks.backends import frames_backend
from benchmarks.cells.http2 import FEW_CONNECTIONS, measure
from benchmarks.cells.saturation import Work
from benchmarks.context import Context
from benchmarks.envoy import REPOSITORY
from benchmarks.exchange import check
from benchmarks.h2load import h2load
from benchmarks.http2_backend import grpc_message
from benchmarks.load import FailedRequests, needs
from benchmarks.processes import LOAD_CORE, run
from benchmarks.results import CPU, Better, Figure, Row, Target
from benchmarks.streaming import MESSAGE

SPEED = Target("≥ 1.0 × Envoy", times_envoy=1.0)
MESSAGE_CPU = Figure("cpu_us", "us CPU/message", Better.LOWER)
HEADERS = {"content-type": "application/grpc", "te": "trailers"}
OK = {"grpc-status": "0"}


def unary_100(context: Context) -> list[Row]:
    """Requests and responses of one message of 100 bytes."""
    return _unary(context, "grpc-unary-100", 100)


def unary_10k(context: Context) -> list[Row]:
    """Requests and responses of one message of 10 KiB."""
    return _unary(context, "grpc-unary-10k", 10 * 1024)


def _unary(context: Context, cell: str, length: int) -> list[Row]:
    needs("h2load")
    message = grpc_message(length)
    post = context.directory / f"{cell}.message"
    post.write_bytes(message)

    def probe(port: int) -> None:
        check(port, message, tuple(HEADERS.items()), message, OK)

    def load(port: int, seconds: float) -> Work:
        report = h2load(
            f"http://127.0.0.1:{port}/shop.Orders/Place",
            FEW_CONNECTIONS,
            seconds=seconds,
            body_bytes=len(message),
            headers=HEADERS,
            post=post,
        )
        return Work(report.requests, report.seconds)

    service = frames_backend(context.directory, "unary")
    return measure(context, "http2", service, probe, {cell: (load, CPU, SPEED)})


def stream(context: Context) -> list[Row]:
    """8 x 16 streams, each with a message of 1 KiB that goes to and fro; each way counts as one message."""

    def probe(port: int) -> None:
        check(port, MESSAGE, tuple(HEADERS.items()), MESSAGE, OK)

    def load(port: int, seconds: float) -> Work:
        command = [sys.executable, "-m", "benchmarks.streaming", "--port", str(port)]
        command += ["--connections", str(FEW_CONNECTIONS.connections), "--streams", str(FEW_CONNECTIONS.streams)]
        command += ["--seconds", f"{seconds:g}"]
        figures = json.loads(run(command, core=LOAD_CORE, timeout_s=seconds + 60, cwd=REPOSITORY))
        if not figures["round_trips"]:
            raise FailedRequests("no message came back")
        return Work(2 * figures["round_trips"], figures["seconds"])

    service = frames_backend(context.directory, "echo")
    return measure(context, "http2", service, probe, {"grpc-stream": (load, MESSAGE_CPU, SPEED)})
