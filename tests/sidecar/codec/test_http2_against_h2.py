"""Whole conversations with the h2 library at the other end, in random order and cut anywhere."""

from __future__ import annotations

from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes, Settings
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.codec.hpack_texts import Texts
from sidecar.codec.http2 import Http2Connection
from sidecar.codec.http2_client import ClientConnection
from sidecar.codec.http2_options import Http2Options
from sidecar.codec.http2_server import ServerConnection
from sidecar.codec.wire import Field
from sidecar.core.head import RequestHead, ResponseHead

from .http2_recording import Recording

NAMES = st.sampled_from([b"x-a", b"x-b", b"accept", b"x-request-id", b"user-agent", b"date", b"etag", b"x-c"])
VALUES = st.one_of(
    st.sampled_from([b"1", b"value", b"", b"a b"]),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40).map(str.encode),
)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=6)
BODIES = st.lists(st.sampled_from([b"", b"x", b"y" * 1000, b"z" * 20000, b"w" * 40000]), max_size=3)
MESSAGES = st.tuples(FIELDS, BODIES, st.one_of(st.none(), st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=3)))
EXCHANGES = st.lists(st.tuples(MESSAGES, MESSAGES), min_size=1, max_size=4)
CUTS = st.sampled_from([1, 7, 9, 1000, 1 << 30])
_CUT = 1000
PATHS = [b"/", b"/a", b"/items/1", b"/" + b"p" * 200]


class Theirs:
    """An h2 connection that consumes what it gets, and remembers it as our recording does."""

    def __init__(self, client: bool, window: int, table: int) -> None:
        self.connection = H2Connection(
            H2Configuration(client_side=client, header_encoding=None, normalize_inbound_headers=False)
        )
        values = {SettingCodes.INITIAL_WINDOW_SIZE: window, SettingCodes.HEADER_TABLE_SIZE: table}
        self.connection.local_settings = Settings(client=client, initial_values=values)
        self.heads: dict[int, list[Field]] = {}
        self.bodies: dict[int, bytes] = {}
        self.trailers: dict[int, list[Field]] = {}
        self.ended: set[int] = set()
        self.reset: set[int] = set()
        self.queues: dict[int, list[Any]] = {}
        self.owed: list[tuple[int, int]] = []
        self.connection.initiate_connection()

    def receive(self, data: bytes) -> None:
        for event in self.connection.receive_data(data):
            if isinstance(event, (RequestReceived, ResponseReceived)):
                self.heads[event.stream_id] = [(bytes(name), bytes(value)) for name, value in event.headers]
            elif isinstance(event, DataReceived):
                self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
                self.owed.append((event.stream_id, event.flow_controlled_length))
            elif isinstance(event, TrailersReceived):
                self.trailers[event.stream_id] = [(bytes(name), bytes(value)) for name, value in event.headers]
            elif isinstance(event, StreamEnded):
                self.ended.add(event.stream_id)
            elif isinstance(event, StreamReset):
                self.reset.add(event.stream_id)

    def consume(self) -> None:
        for stream_id, size in self.owed:
            if size and stream_id not in self.reset:
                self.connection.acknowledge_received_data(size, stream_id)
        self.owed.clear()

    def send(self, stream_id: int, head: list[Field], body: list[bytes], trailers: list[Field] | None) -> None:
        self.connection.send_headers(stream_id, head, end_stream=False)
        self.queues[stream_id] = [*body, trailers]
        self.pump()

    def pump(self) -> None:
        for stream_id, queue in self.queues.items():
            while queue:
                piece = queue[0]
                if isinstance(piece, bytes):
                    most = min(
                        self.connection.local_flow_control_window(stream_id),
                        self.connection.max_outbound_frame_size,
                    )
                    if most <= 0 and piece:
                        break
                    if piece:
                        self.connection.send_data(stream_id, piece[:most])
                    if piece[most:]:
                        queue[0] = piece[most:]
                        continue
                elif piece is None:
                    self.connection.end_stream(stream_id)
                else:
                    self.connection.send_headers(stream_id, piece, end_stream=True)
                del queue[0]


def feed(receiver: Any, data: bytes, cut: int) -> None:
    """``data`` cut into pieces of ``cut`` octets, but for what is far behind its beginning."""
    for at in range(0, min(len(data), _CUT), cut):
        receiver.receive(data[at : min(at + cut, _CUT)])
    if len(data) > _CUT:
        receiver.receive(data[_CUT:])


def consume(ours: Http2Connection, sink: Recording) -> None:
    for call in sink.calls:
        if call[0] == "data" and call[2]:
            ours.consumed(call[1], len(call[2]))
    sink.calls.clear()


def settle(ours: Http2Connection, sink: Recording, theirs: Theirs, cut: int) -> None:
    """Carry bytes to and fro until nobody has anything more to say."""
    for _ in range(10_000):  # a window of 10 octets takes its time
        to_us = theirs.connection.data_to_send()
        feed(ours, to_us, cut)
        while ours.interrupted:
            ours.take_held()
        consume(ours, sink)
        to_them = b"".join(ours.take())
        feed(theirs, to_them, max(cut, 100))
        theirs.consume()
        theirs.pump()
        if not to_us and not to_them:
            return
    raise AssertionError("the conversation does not end")


def send_ours(ours: Http2Connection, stream_id: int, body: list[bytes], trailers: list[Field] | None) -> None:
    for piece in body:
        ours.send_data(stream_id, piece, False)
    if trailers is None:
        ours.send_data(stream_id, b"", True)
    else:
        ours.send_trailers(stream_id, trailers)


def options(window: int, table: int) -> Http2Options:
    return Http2Options(
        initial_stream_window_size=max(65535, window),
        initial_connection_window_size=65535,
        hpack_table_size=table,
        max_queued=50_000,
        max_consecutive_inbound_frames_with_empty_payload=100,
        max_inbound_window_update_frames_per_data_frame_sent=100,
    )


def joined(body: list[bytes]) -> bytes:
    return b"".join(body)


CONVERSATIONS = given(
    exchanges=EXCHANGES,
    window=st.sampled_from([2000, 65535, 1 << 20]),
    table=st.sampled_from([0, 100, 4096]),
    cut=CUTS,
)


@CONVERSATIONS
@settings(deadline=None, max_examples=100)
def test_our_client_with_an_h2_server(exchanges: list[Any], window: int, table: int, cut: int) -> None:
    theirs = Theirs(False, window, table)
    ours = ClientConnection(options(window, table), Texts())
    sink = ours.sink = Recording()
    if cut % 2 or window < 65535:  # h2 enforces a smaller window before we can know of it
        settle(ours, sink, theirs, cut)
    for number, ((fields, body, trailers), _) in enumerate(exchanges):
        stream_id = ours.open(RequestHead(b"POST", PATHS[number % 4], b"a", list(fields), 20), False)
        assert stream_id == 2 * number + 1
        send_ours(ours, stream_id, body, trailers)
    settle(ours, sink, theirs, cut)
    for number, ((fields, body, trailers), (back, back_body, back_trailers)) in enumerate(exchanges):
        stream_id = 2 * number + 1
        assert theirs.heads[stream_id] == [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", PATHS[number % 4]),
            (b":authority", b"a"),
            *fields,
        ]
        assert theirs.bodies.get(stream_id, b"") == joined(body)
        assert theirs.trailers.get(stream_id) == trailers
        assert stream_id in theirs.ended
        theirs.send(stream_id, [(b":status", b"200"), *back], back_body, back_trailers)
    settle(ours, sink, theirs, cut)
    for number, (_, (back, back_body, back_trailers)) in enumerate(exchanges):
        stream_id = 2 * number + 1
        assert sink.heads[stream_id].status == 200
        assert sink.heads[stream_id].fields == back
        assert sink.bodies.get(stream_id, b"") == joined(back_body)
        assert sink.trailers.get(stream_id) == back_trailers
        assert stream_id in sink.ended
    assert not ours.streams
    assert not ours.waiting
    assert not theirs.reset


@CONVERSATIONS
@settings(deadline=None, max_examples=100)
def test_an_h2_client_with_our_server(exchanges: list[Any], window: int, table: int, cut: int) -> None:
    theirs = Theirs(True, window, table)
    ours = ServerConnection(options(window, table), Texts())
    sink = ours.sink = Recording()
    if cut % 2:
        settle(ours, sink, theirs, cut)
    for number, ((fields, body, trailers), _) in enumerate(exchanges):
        head = [(b":method", b"POST"), (b":path", PATHS[number % 4]), (b":scheme", b"http"), (b":authority", b"a")]
        theirs.send(2 * number + 1, [*head, *fields], body, trailers)
    settle(ours, sink, theirs, cut)
    for number, ((fields, body, trailers), (back, back_body, back_trailers)) in enumerate(exchanges):
        stream_id = 2 * number + 1
        head = sink.heads[stream_id]
        assert (head.method, head.path, head.authority, head.fields) == (b"POST", PATHS[number % 4], b"a", fields)
        assert sink.bodies.get(stream_id, b"") == joined(body)
        assert sink.trailers.get(stream_id) == trailers
        assert stream_id in sink.ended
        ours.send_head(stream_id, ResponseHead(200, list(back), 20), False)
        send_ours(ours, stream_id, back_body, back_trailers)
    settle(ours, sink, theirs, cut)
    for number, (_, (back, back_body, back_trailers)) in enumerate(exchanges):
        stream_id = 2 * number + 1
        assert theirs.heads[stream_id] == [(b":status", b"200"), *back]
        assert theirs.bodies.get(stream_id, b"") == joined(back_body)
        assert theirs.trailers.get(stream_id) == back_trailers
        assert stream_id in theirs.ended
    assert not ours.streams
    assert not ours.waiting
    assert not theirs.reset


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), FIELDS),
        st.tuples(st.just("data"), st.integers(0, 5), st.sampled_from([b"", b"x" * 10, b"x" * 30000])),
        st.tuples(st.just("end"), st.integers(0, 5)),
        st.tuples(st.just("reset"), st.integers(0, 5)),
        st.tuples(st.just("answer"), st.integers(0, 5), st.booleans()),
        st.tuples(st.just("they reset"), st.integers(0, 5)),
        st.tuples(st.just("window"), st.sampled_from([0, 10, 65535, 100_000])),
        st.tuples(st.just("table"), st.sampled_from([0, 50, 4096])),
        st.just(("settle",)),
    ),
    max_size=40,
)


@given(steps=STEPS, cut=CUTS)
@settings(deadline=None, max_examples=100)
def test_any_order_of_steps_leaves_both_ends_agreed(steps: list[Any], cut: int) -> None:
    """Neither end finds fault with the other, and all that was sent on streams that nobody reset arrives."""
    theirs = Theirs(False, 65535, 4096)
    ours = ClientConnection(options(65535, 4096), Texts())
    sink = ours.sink = Recording()
    settle(ours, sink, theirs, cut)
    opened: list[int] = []
    sent: dict[int, bytes] = {}
    open_here: set[int] = set()
    answered: set[int] = set()
    for step in steps:
        match step:
            case ("open", fields):
                stream_id = ours.open(RequestHead(b"POST", b"/", b"a", list(fields), 20), False)
                opened.append(stream_id)
                open_here.add(stream_id)
                sent[stream_id] = b""
            case ("settle",):
                settle(ours, sink, theirs, cut)
            case ("window", size):
                theirs.connection.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: size})
            case ("table", size):
                theirs.connection.update_settings({SettingCodes.HEADER_TABLE_SIZE: size})
                settle(ours, sink, theirs, cut)  # h2 heeds one change at a time only
            case (kind, which, *rest) if which < len(opened):
                stream_id = opened[which]
                live = stream_id in ours.streams
                if kind == "data" and stream_id in open_here:
                    ours.send_data(stream_id, rest[0], False)
                    if live:
                        sent[stream_id] += rest[0]
                elif kind == "end" and stream_id in open_here:
                    ours.send_data(stream_id, b"", True)
                    open_here.discard(stream_id)
                elif kind == "reset":
                    settle(ours, sink, theirs, cut)  # h2 gives back no window of streams that are gone
                    ours.reset(stream_id, ErrorCodes.CANCEL)
                    open_here.discard(stream_id)
                    sent.pop(stream_id, None)
                else:
                    settle(ours, sink, theirs, cut)
                    if stream_id not in ours.streams:
                        continue
                    if kind == "answer" and stream_id not in answered:
                        answered.add(stream_id)
                        theirs.connection.send_headers(stream_id, [(b":status", b"200")], end_stream=rest[0])
                    elif kind == "they reset":
                        theirs.connection.reset_stream(stream_id, ErrorCodes.CANCEL)
                        theirs.reset.add(stream_id)
                        settle(ours, sink, theirs, cut)
                        sent.pop(stream_id, None)
    theirs.connection.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20})
    settle(ours, sink, theirs, cut)
    for stream_id, body in sent.items():
        assert theirs.bodies.get(stream_id, b"") == body
        assert (stream_id in theirs.ended) == (stream_id not in open_here)
    assert not any(stream.queue for stream in ours.streams.values())


@pytest.mark.parametrize("size", [1, 100, 16384, 16385, 200_000])
def test_a_large_body_each_way(size: int) -> None:
    theirs = Theirs(True, 65535, 4096)
    ours = ServerConnection(options(65535, 4096), Texts())
    sink = ours.sink = Recording()
    theirs.send(1, [(b":method", b"POST"), (b":path", b"/"), (b":scheme", b"http"), (b":authority", b"a"),
                    (b"content-length", b"%d" % size)], [b"q" * size], None)  # fmt: skip
    settle(ours, sink, theirs, 1 << 30)
    assert sink.bodies[1] == b"q" * size
    ours.send_head(1, ResponseHead(200, [(b"content-length", b"%d" % size)], 20), False)
    ours.send_data(1, b"r" * size, True)
    settle(ours, sink, theirs, 1 << 30)
    assert theirs.bodies[1] == b"r" * size
    assert not ours.streams
