"""Frames at random: nothing but an Http2Error comes out, wherever the reads are cut, and the books stay balanced."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.codec.http2 import Http2Connection
from sidecar.codec.http2_control import Http2Error
from sidecar.codec.http2_frames import (
    CONTINUATION,
    DATA,
    GOAWAY,
    HEADERS,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
)
from sidecar.codec.http2_frames import settings as settings_frame

from .http2_recording import REQUEST, RESPONSE, Recording, block, client, frame, request, response, sent, server

STREAMS = st.sampled_from([0, 1, 1, 1, 2, 3, 3, 5, 7, 9])
FLAGS = st.sampled_from([0, 1, 4, 4, 5, 5, 8, 9, 0xC, 0x20, 0x24, 0x25, 0x2D, 0xFF])
BLOCKS = st.sampled_from(
    [
        block(REQUEST),
        block(REQUEST),
        block(RESPONSE),
        block([(b"a", b"b")]),
        block([*REQUEST, (b"content-length", b"5")]),
        b"\x40\x01a\x01b",
        b"\xbe",
        b"\x20",
        b"\x80",
        b"",
        b"\x02\0\0\0\0\x10" + block(REQUEST) + b"\0\0",
    ]
)
WORDS = st.integers(0, 0xFFFFFFFF).map(lambda word: word.to_bytes(4, "big"))
SMALL = st.integers(0, 100).map(lambda word: word.to_bytes(4, "big"))
FRAMES = st.one_of(
    st.builds(frame, st.just(HEADERS), st.sampled_from([4, 5]), STREAMS, BLOCKS),
    st.builds(frame, st.just(HEADERS), FLAGS, STREAMS, BLOCKS),
    st.builds(frame, st.just(DATA), st.sampled_from([0, 1]), STREAMS, st.sampled_from([b"x", b"x" * 5, b"x" * 16384])),
    st.builds(frame, st.just(DATA), FLAGS, STREAMS, st.binary(max_size=20)),
    st.builds(frame, st.just(CONTINUATION), FLAGS, STREAMS, BLOCKS),
    st.builds(frame, st.just(RST_STREAM), st.just(0), STREAMS, WORDS),
    st.builds(frame, st.just(WINDOW_UPDATE), st.just(0), STREAMS, st.one_of(SMALL, WORDS)),
    st.builds(frame, st.just(PRIORITY), st.just(0), STREAMS, st.binary(min_size=4, max_size=6)),
    st.builds(frame, st.just(PING), st.sampled_from([0, 1]), st.just(0), st.binary(min_size=8, max_size=8)),
    st.builds(frame, st.just(GOAWAY), st.just(0), st.just(0), st.builds(bytes.__add__, SMALL, WORDS)),
    st.builds(frame, st.just(PUSH_PROMISE), FLAGS, STREAMS, BLOCKS),
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from([0, 1, 100, 16384, 65535, 1 << 31])), max_size=3).map(
        settings_frame
    ),
    st.builds(frame, st.just(SETTINGS), FLAGS, st.sampled_from([0, 0, 0, 1]), st.binary(max_size=12)),
    st.builds(frame, st.integers(0, 255), st.integers(0, 255), STREAMS, st.binary(max_size=12)),
    st.binary(max_size=12),
)
SEQUENCES = st.lists(FRAMES, max_size=25)
CUTS = st.sampled_from([1, 3, 10, 1 << 30])


def answering(ours: Any, sink: Recording) -> None:
    """What comes is answered and consumed on the spot, by whoever is a server."""

    def react(name: str, stream_id: int) -> None:
        if name == "head" and stream_id % 4 == 1 and hasattr(ours, "send_head"):
            ours.send_head(stream_id, response(), False)
            ours.send_data(stream_id, b"y" * 20000, stream_id % 3 == 0)
        elif name == "data":
            ours.consumed(stream_id, len(sink.calls[-1][2]))
        elif name == "trailers" and hasattr(ours, "send_head"):
            ours.send_trailers(stream_id, [(b"a", b"b")])

    sink.reaction = react


def fed(ours: Http2Connection, sink: Recording, payload: bytes, cut: int) -> tuple[Any, ...]:
    """What came of ``payload``: the error, the calls without their heads' identities, and the frames."""
    error = None
    try:
        for at in range(0, len(payload), cut):
            ours.receive(payload[at : at + cut])
    except Http2Error as found:
        error = (found.code, found.details)
    calls = [
        tuple(repr(part) if part.__class__.__name__.endswith("Head") else part for part in call) for call in sink.calls
    ]
    out = sent(ours)
    if error is not None:
        assert out[-1][0] == "GOAWAY"
        count = len(sink.calls)
        ours.receive(payload)
        assert len(sink.calls) == count
        assert not ours.out
    else:
        received = sum(len(call[2]) for call in sink.calls if call[0] == "data")
        assert ours.window_in + ours.unreturned <= ours.options.initial_connection_window_size
        assert received == 0 or ours.unreturned
    for stream_id, stream in ours.streams.items():
        assert stream.id == stream_id
        assert 1 <= stream.state <= 3
    return error, calls, out


@given(SEQUENCES, CUTS)
@settings(deadline=None, max_examples=300)
def test_a_server_takes_any_frames(sequence: list[bytes], cut: int) -> None:
    outcomes = []
    for size in (1 << 30, cut):
        ours, sink = server(
            stream_error_on_invalid_http_messaging=True, max_consecutive_inbound_frames_with_empty_payload=9
        )
        answering(ours, sink)
        outcomes.append(fed(ours, sink, b"".join(sequence), size))
    assert outcomes[0] == outcomes[1]


@given(SEQUENCES, CUTS)
@settings(deadline=None, max_examples=300)
def test_a_client_takes_any_frames(sequence: list[bytes], cut: int) -> None:
    outcomes = []
    for size in (1 << 30, cut):
        ours, sink = client(
            stream_error_on_invalid_http_messaging=True, max_consecutive_inbound_frames_with_empty_payload=9
        )
        for number in range(4):
            stream_id = ours.open(request(method=(b"GET", b"HEAD", b"POST", b"POST")[number]), number < 2)
            if number == 3:
                ours.send_data(stream_id, b"y" * 70000, False)
        ours.take()
        answering(ours, sink)
        outcomes.append(fed(ours, sink, b"".join(sequence), size))
    assert outcomes[0] == outcomes[1]
