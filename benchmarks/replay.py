"""A client that sends HTTP/2 requests written before the run (`traffic/http2_calls.py`) and hardly works itself.

    python -m benchmarks.replay --port 8080 --directory TRAFFIC --connections 8 --streams 16 --seconds 5

It keeps `streams` requests under way on each connection, as h2load does, and prints what was answered as one line of
JSON. A response is looked at only so far: the status is 200, RFC 7541's static entry 8, and how many bytes of body came.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import struct
import time
from array import array
from collections.abc import Sequence
from pathlib import Path

from benchmarks.h2load import Shape
from benchmarks.http2_frames import (
    ACK,
    DATA,
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
)
from benchmarks.traffic.http2_calls import Traffic

_STATUS_200 = 0x88
_LENGTH = struct.Struct(">I")
_READ_BYTES = 65_536


class Refused(Exception):
    """The peer reset a stream, ended the connection, or answered with another status than 200."""


def is_ok(block: bytes) -> bool:
    """Whether a response's header block begins with status 200, after size updates of the dynamic table if any."""
    position = 0
    while position < len(block) and block[position] >> 5 == 1:
        more = block[position] & 0x1F == 0x1F
        position += 1
        while more:
            more = block[position] >= 128
            position += 1
    return block[position : position + 1] == b"\x88"


class Replay:
    """One connection. `answered` counts responses that ended, `body_bytes` those of their bodies."""

    def __init__(self, port: int, frames: bytes, ends: Sequence[int]) -> None:
        self._frames = memoryview(frames)
        self._ends = ends
        self._sent = 0
        self._left = b""
        self.answered = 0
        self.body_bytes = 0
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(PREFACE + opening())

    def send(self, count: int) -> None:
        """Send the next `count` requests, or those that are left."""
        start = self._ends[self._sent - 1] if self._sent else 0
        self._sent = min(self._sent + count, len(self._ends))
        if self._sent:
            self.socket.sendall(self._frames[start : self._ends[self._sent - 1]])

    @property
    def exhausted(self) -> bool:
        """Whether every request that there was has been answered."""
        return self.answered == len(self._ends)

    def receive(self) -> int:
        """Read once; how many responses ended in it. Raises Refused."""
        received = self.socket.recv(_READ_BYTES)
        if not received:
            raise Refused("the connection was closed")
        data = self._left + received
        position, end, ended = 0, len(data), 0
        while end - position >= HEAD_BYTES:
            length = _LENGTH.unpack_from(data, position)[0] >> 8
            after = position + HEAD_BYTES + length
            if after > end:
                break
            kind, flags = data[position + 3], data[position + 4]
            if kind == DATA:
                self.body_bytes += length
                ended += flags & END_STREAM
            elif kind == HEADERS:
                if data[position + HEAD_BYTES] != _STATUS_200 and not is_ok(data[position + HEAD_BYTES : after]):
                    raise Refused(f"a response began with {data[position:after][:40]!r}")
                ended += flags & END_STREAM
            elif kind in (SETTINGS, PING) and not flags & ACK:
                self.socket.sendall(frame(kind, ACK, 0, data[position + HEAD_BYTES : after] if kind == PING else b""))
            elif kind in (RST_STREAM, GOAWAY):
                raise Refused(f"the peer sent {data[position:after]!r}")
            position = after
        self._left = data[position:]
        self.answered += ended
        return ended


def replay(port: int, traffic: Traffic, seconds: float) -> dict[str, float]:
    """Send for `seconds`, or until nothing is left to send: requests answered, bytes of bodies, and the seconds it took.

    Raises Refused, and TimeoutError when nothing comes for ten seconds.
    """
    clients = {}
    for number in range(traffic.shape.connections):
        ends = array("L")
        ends.frombytes(traffic.ends(number).read_bytes())
        client = Replay(port, traffic.frames(number).read_bytes(), ends)
        clients[client.socket.fileno()] = client
    poll = select.epoll()
    for descriptor in clients:
        poll.register(descriptor, select.EPOLLIN)
    started = time.perf_counter()
    for client in clients.values():
        client.send(traffic.shape.streams)
    until = started + seconds
    exhausted = False
    while not exhausted and time.perf_counter() < until:
        ready = poll.poll(10)
        if not ready:
            raise TimeoutError("no response for ten seconds")
        for descriptor, _ in ready:
            client = clients[descriptor]
            if ended := client.receive():
                client.send(ended)
                exhausted = exhausted or client.exhausted
    took = time.perf_counter() - started
    answered = sum(client.answered for client in clients.values())
    body_bytes = sum(client.body_bytes for client in clients.values())
    for client in clients.values():
        client.socket.close()
    return {"requests": answered, "body_bytes": body_bytes, "seconds": took}


def main(argv: Sequence[str] | None = None) -> None:
    """Print the figures of one run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args(argv)
    traffic = Traffic(options.directory, Shape(options.connections, options.streams))
    print(json.dumps(replay(options.port, traffic, options.seconds)))


if __name__ == "__main__":
    main()
