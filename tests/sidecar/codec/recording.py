"""A sink that writes down what a reader calls, and ways to feed a reader."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from sidecar.codec.errors import ProtocolError
from sidecar.codec.http1 import RequestReader, ResponseReader
from sidecar.codec.http1_reader import DONE, Http1Reader
from sidecar.codec.wire import Field, FieldLines
from sidecar.core.head import RequestHead, ResponseHead

LIMITS: dict[str, int] = {"max_head_bytes": 60 * 1024, "max_fields": 100}


class Recording:
    """What came out: one entry per message, ``[head, body, trailers, ended]``; pieces of a body are joined."""

    def __init__(self) -> None:
        self.messages: list[list[Any]] = []
        self.calls = 0

    def on_head(self, head: RequestHead | ResponseHead, end: bool) -> None:
        self.calls += 1
        if isinstance(head, RequestHead):
            seen: tuple[Any, ...] = (head.method, head.path, head.authority, head.version, tuple(head.fields))
        else:
            seen = (head.status, head.version, tuple(head.fields))
        self.messages.append([seen, b"", None, end])

    def on_data(self, data: bytes, end: bool) -> None:
        self.calls += 1
        message = self.messages[-1]
        assert not message[3], "data behind the end"
        message[1] += data
        message[3] = end

    def on_trailers(self, trailers: list[Field]) -> None:
        self.calls += 1
        message = self.messages[-1]
        assert not message[3], "trailers behind the end"
        message[2] = trailers
        message[3] = True

    def on_message(self, head: Any, body: bytes) -> None:
        self.on_head(head, False)
        self.on_data(body, True)


class Outcome:
    """The messages, the error if there was one, what was left over, and the reader."""

    def __init__(self, reader: Http1Reader[Any], sink: Recording, error: ProtocolError | None) -> None:
        self.reader = reader
        self.messages = sink.messages
        self.calls = sink.calls
        self.error = error
        self.rest = b"".join(reader.held or ())

    @property
    def complete(self) -> bool:
        """Whether the one message that there is has ended."""
        return len(self.messages) == 1 and bool(self.messages[0][3])


def read_request(pieces: Iterable[bytes], pipelined: bool = False, **limits: int) -> Outcome:
    """Feed ``pieces`` to a reader of requests; with ``pipelined``, each message is followed by the next."""
    sink = Recording()
    reader = RequestReader(FieldLines(), **{**LIMITS, **limits})
    reader.sink = sink
    return _feed(reader, sink, pieces, pipelined)


def read_response(
    pieces: Iterable[bytes], method: bytes = b"GET", eof: bool = False, upgrade: bool = False, **limits: int
) -> Outcome:
    """Feed ``pieces`` to a reader of the response to ``method``; with ``eof``, the connection ends behind them."""
    sink = Recording()
    reader = ResponseReader(FieldLines(), **{**LIMITS, **limits})
    reader.expect(method, sink, upgrade)
    outcome = _feed(reader, sink, pieces, False)
    if eof and outcome.error is None:
        reader.eof()
    return outcome


def _feed(reader: Http1Reader[Any], sink: Recording, pieces: Iterable[bytes], pipelined: bool) -> Outcome:
    error = None
    try:
        for piece in pieces:
            reader.receive(piece)
            while reader.interrupted or (pipelined and reader.state == DONE):
                if reader.state == DONE:
                    reader.next_message()
                if reader.held is None:
                    break
                reader.take_held()
    except ProtocolError as caught:
        error = caught
    return Outcome(reader, sink, error)


def one_by_one(data: bytes) -> list[bytes]:
    """``data`` byte by byte."""
    return [data[at : at + 1] for at in range(len(data))]


def cut(data: bytes, at: Iterable[int]) -> list[bytes]:
    """``data`` cut at these places (taken modulo its length)."""
    places = sorted({place % (len(data) + 1) for place in at} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(places)]
