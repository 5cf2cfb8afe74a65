"""Bidirectional gRPC streams whose messages go to and fro, from a client that hardly works itself.

    python -m benchmarks.streaming --port 8080 --connections 8 --streams 16 --seconds 5

Each stream starts with one message of 1 KiB. The service sends it back (`http2_backend --mode echo`), and so does the
client, frame by frame as they come, until time is up: a round trip is one message in each direction. With one message
under way on a stream no proxy can put two into one frame. In the end every stream is half-closed, and has to end with
trailers and with all its bytes. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import struct
import time
from collections.abc import Sequence

from benchmarks.http2_backend import grpc_message
from benchmarks.http2_frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEAD_BYTES,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    frame,
    opening,
    plain_block,
)
from benchmarks.replay import Refused, is_ok

MESSAGE = grpc_message(1024)
_HEAD = plain_block(
    [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/shop.Orders/Watch"),
        (b":authority", b"backend"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"user-agent", b"grpc-c/40.0.0 (linux; chttp2)"),
    ]
)
_WORD = struct.Struct(">I")
_READ_BYTES = 65_536


class Streams:
    """The streams of one connection. `received` counts bytes of messages, `open` the streams that have not ended."""

    def __init__(self, port: int, streams: int) -> None:
        self._ids = range(1, 2 * streams, 2)
        self._left = b""
        self._sent = streams * len(MESSAGE)
        self.received = 0
        self.open = streams
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        out = [PREFACE, opening()]
        for stream in self._ids:
            out.append(frame(HEADERS, END_HEADERS, stream, _HEAD))
            out.append(frame(DATA, 0, stream, MESSAGE))
        self.socket.sendall(b"".join(out))

    @property
    def complete(self) -> bool:
        """Whether all that was sent has come back."""
        return self.received == self._sent

    def half_close(self) -> None:
        """End the requests of all streams."""
        self.socket.sendall(b"".join(frame(DATA, END_STREAM, stream) for stream in self._ids))

    def receive(self, *, answer: bool) -> None:
        """Read once, and send back each frame of a message if `answer` is set. Raises Refused."""
        received = self.socket.recv(_READ_BYTES)
        if not received:
            raise Refused("the connection was closed")
        data = self._left + received
        position, end = 0, len(data)
        out = []
        while end - position >= HEAD_BYTES:
            length = _WORD.unpack_from(data, position)[0] >> 8
            after = position + HEAD_BYTES + length
            if after > end:
                break
            kind, flags = data[position + 3], data[position + 4]
            if kind == DATA:
                self.received += length
                self.open -= flags & END_STREAM
                if answer and length:
                    self._sent += length
                    out.append(data[position:after])
            elif kind == HEADERS:
                self._head(flags, data[position + HEAD_BYTES : after])
            elif kind in (SETTINGS, PING) and not flags & ACK:
                out.append(frame(kind, ACK, 0, data[position + HEAD_BYTES : after] if kind == PING else b""))
            elif kind in (RST_STREAM, GOAWAY):
                raise Refused(f"the peer sent {data[position:after]!r}")
            position = after
        self._left = data[position:]
        if out:
            self.socket.sendall(b"".join(out))

    def _head(self, flags: int, block: bytes) -> None:
        if flags & END_STREAM:
            self.open -= 1
        elif not is_ok(block):
            raise Refused(f"a response began with {block[:40]!r}")


def stream(port: int, connections: int, streams: int, seconds: float) -> dict[str, float]:
    """Let messages go to and fro for `seconds`: the round trips that were made, and the seconds until the last ended.

    Raises Refused, also when a stream ends before its time, and TimeoutError when nothing comes for ten seconds.
    """
    clients = [Streams(port, streams) for _ in range(connections)]
    by_descriptor = {client.socket.fileno(): client for client in clients}
    poll = select.epoll()
    for descriptor in by_descriptor:
        poll.register(descriptor, select.EPOLLIN)

    def receive(*, answer: bool) -> None:
        ready = poll.poll(10)
        if not ready:
            raise TimeoutError("no message for ten seconds")
        for descriptor, _ in ready:
            by_descriptor[descriptor].receive(answer=answer)

    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        receive(answer=True)
    if any(client.open != streams for client in clients):
        raise Refused("streams ended before their requests did")
    while not all(client.complete for client in clients):
        receive(answer=False)
    took = time.perf_counter() - started
    for client in clients:
        client.half_close()
    while any(client.open for client in clients):
        receive(answer=False)
    for client in clients:
        if not client.complete:
            raise Refused("bytes came after the last message")
        client.socket.close()
    return {"round_trips": sum(client.received for client in clients) / len(MESSAGE), "seconds": took}


def main(argv: Sequence[str] | None = None) -> None:
    """Print the figures of one run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streaming")
    for name in ("port", "connections", "streams"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args(argv)
    print(json.dumps(stream(options.port, options.connections, options.streams, options.seconds)))


if __name__ == "__main__":
    main()
