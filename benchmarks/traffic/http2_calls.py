"""Requests over HTTP/2 that all differ, written to files before a run, so that the client only has to send them."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.h2load import Shape
from benchmarks.http2_frames import (
    END_HEADERS,
    END_STREAM,
    HEADERS,
    IndexingEncoder,
    frame,
    plain_block,
)

PATHS = tuple(b"/api/v1/accounts/%d/orders/%d?page=%d" % (n, n * 7919 % 100_003, n % 10) for n in range(1000))
AUTHORITY = b"orders.shop.svc.cluster.local:8080"


@dataclass(frozen=True, slots=True)
class Traffic:
    """`shape.connections` pairs of files in `directory`: the frames of one connection, and where each request ends."""

    directory: Path
    shape: Shape

    def frames(self, connection: int) -> Path:
        return self.directory / f"{connection}.frames"

    def ends(self, connection: int) -> Path:
        return self.directory / f"{connection}.ends"


def request_id(number: int) -> bytes:
    """A version 4 UUID as text, another one for every number."""
    digits = b"%032x" % (number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128))
    return b"%b-%b-4%b-a%b-%b" % (digits[:8], digits[8:12], digits[13:16], digits[17:20], digits[20:])


def fields(number: int) -> list[tuple[bytes, bytes]]:
    """The header fields of one request: h2load's own, and an `x-request-id`; 1,000 paths in turn."""
    return [
        (b":path", PATHS[number % len(PATHS)]),
        (b":scheme", b"http"),
        (b":authority", AUTHORITY),
        (b":method", b"GET"),
        (b"user-agent", b"h2load nghttp2/1.52.0"),
        (b"x-request-id", request_id(number)),
    ]


def requests(numbers: range, *, indexed: bool) -> Iterator[bytes]:
    """HEADERS frames of one connection, in order, with request ids from `numbers`."""
    encode = IndexingEncoder().block if indexed else plain_block
    for stream, number in zip(range(1, 2 * len(numbers), 2), numbers, strict=True):
        yield frame(HEADERS, END_HEADERS | END_STREAM, stream, encode(fields(number)))


def write(directory: Path, shape: Shape, count: int, *, indexed: bool) -> Traffic:
    """Write `count` requests, spread over the connections of `shape`.

    `indexed`: request ids go into the dynamic table, as nghttp2 and gRPC send them; otherwise they, and all that the
    static table does not have, are literals without indexing.
    """
    directory.mkdir(exist_ok=True)
    traffic = Traffic(directory, shape)
    each = count // shape.connections
    for connection in range(shape.connections):
        ends, end = array("L"), 0
        with traffic.frames(connection).open("wb") as out:
            for request in requests(range(connection * each, (connection + 1) * each), indexed=indexed):
                out.write(request)
                end += len(request)
                ends.append(end)
        traffic.ends(connection).write_bytes(ends.tobytes())
    return traffic
