"""An HTTP/2 service that costs next to nothing: ``python -m benchmarks.http2_backend --port 8081 --mode echo``.

`unary` answers each request, once it has ended, with one gRPC message as long as the request's; `echo` sends every DATA
frame back as it came, until the request ends; `silent` takes requests and never answers. Frames are not decoded: header
blocks go unread, answers are written before the first request, and what one read brought leaves in one write.
"""

from __future__ import annotations

import argparse
import asyncio
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import cast

import uvloop

from benchmarks.http2_frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEAD_BYTES,
    HEADERS,
    PING,
    PREFACE,
    SETTINGS,
    frame,
    opening,
    plain_block,
    window_update,
)

MODES = ("unary", "echo", "silent")
_HEAD = plain_block([(b":status", b"200"), (b"content-type", b"application/grpc")])
_TRAILERS = plain_block([(b"grpc-status", b"0")])
_WORD = struct.Struct(">I")
_CREDIT_AFTER = 1 << 28
"""Bytes of DATA on a connection after which the peer may send as many again; no stream lives to see so many."""


def grpc_message(length: int) -> bytes:
    """One gRPC message of `length` bytes, uncompressed, with its five-byte prefix."""
    return b"\0" + _WORD.pack(length) + (b"0123456789abcdef" * (length // 16 + 1))[:length]


class Service(asyncio.Protocol):
    """One connection."""

    def __init__(self, mode: str) -> None:
        self._answers = mode == "unary"
        self._echoes = mode == "echo"
        self._left = b""
        self._preface_left = len(PREFACE)
        self._received = 0
        self._message_bytes: dict[int, int] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(opening())

    def data_received(self, received: bytes) -> None:
        data = self._left + received if self._left else received
        if self._preface_left:
            if len(data) < self._preface_left:
                self._left = data
                return
            data = data[self._preface_left :]
            self._preface_left = 0
        out: list[bytes] = []
        position, end = 0, len(data)
        while end - position >= HEAD_BYTES:
            length = _WORD.unpack_from(data, position)[0] >> 8
            after = position + HEAD_BYTES + length
            if after > end:
                break
            kind, flags = data[position + 3], data[position + 4]
            if kind == DATA:
                stream = _WORD.unpack_from(data, position + 5)[0]
                self._received += length
                if self._echoes:
                    if not flags & END_STREAM:
                        out.append(data[position:after])
                    else:
                        if length:
                            out.append(frame(DATA, 0, stream, data[position + HEAD_BYTES : after]))
                        out.append(frame(HEADERS, END_HEADERS | END_STREAM, stream, _TRAILERS))
                elif self._answers:
                    so_far = self._message_bytes.get(stream, 0) + length
                    if flags & END_STREAM:
                        self._message_bytes.pop(stream, None)
                        out.append(_unary_answer(stream, so_far))
                    else:
                        self._message_bytes[stream] = so_far
            elif kind == HEADERS:
                if self._echoes:
                    out.append(frame(HEADERS, END_HEADERS, _WORD.unpack_from(data, position + 5)[0], _HEAD))
            elif kind in (SETTINGS, PING) and not flags & ACK:
                out.append(frame(kind, ACK, 0, data[position + HEAD_BYTES : after] if kind == PING else b""))
            position = after
        self._left = data[position:]
        if self._received > _CREDIT_AFTER:
            out.append(window_update(0, self._received))
            self._received = 0
        if out:
            self._transport.write(b"".join(out))


@lru_cache
def _answer(length: int) -> tuple[bytes, bytes]:
    """The first two frames of that answer, as for stream 0."""
    return frame(HEADERS, END_HEADERS, 0, _HEAD), frame(DATA, 0, 0, grpc_message(length - 5))


def _unary_answer(stream: int, length: int) -> bytes:
    """Head, message and trailers of the answer to a request whose body has `length` bytes, at most one frame's."""
    number = _WORD.pack(stream)
    head, message = _answer(length)
    last = frame(HEADERS, END_HEADERS | END_STREAM, stream, _TRAILERS)
    return b"".join((head[:5], number, head[HEAD_BYTES:], message[:5], number, message[HEAD_BYTES:], last))


async def serve(port: int, mode: str) -> None:
    """Serve on loopback until cancelled."""
    server = await asyncio.get_running_loop().create_server(lambda: Service(mode), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until terminated."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.http2_backend")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mode", choices=MODES, required=True)
    options = parser.parse_args(argv)
    uvloop.run(serve(options.port, options.mode))


if __name__ == "__main__":
    main()
