"""Messages that one read brings whole are taken as they are frame by frame."""

from __future__ import annotations

from typing import Any

from hypothesis import event, example, given
from hypothesis import strategies as st

from sidecar.codec.http2 import Http2Connection
from sidecar.codec.http2_control import Http2Error
from sidecar.codec.http2_frames import END_HEADERS, END_STREAM, HEADERS
from sidecar.codec.http2_head import Known
from sidecar.codec.wire import Field
from tests.sidecar.codec.http2_recording import Recording, client, data, frame, request, sent, server
from tests.sidecar.http.http2_peer import PeerEncoder


class Consuming(Recording):
    """Gives back at once what it is given."""

    def __init__(self, codec: Http2Connection) -> None:
        super().__init__()
        self.codec = codec
        codec.sink = self

    def on_data(self, stream_id: int, data: bytes, end: bool) -> None:
        super().on_data(stream_id, data, end)
        self.codec.consumed(stream_id, len(data))


class Knowing(Consuming):
    """Makes something of every head, and takes all that is known then; ``whole`` counts the messages that came so."""

    def __init__(self, codec: Http2Connection) -> None:
        super().__init__(codec)
        self.whole = 0

    def on_head(self, stream_id: int, head: Any, end: bool) -> None:
        if self.codec.known is not None:
            self.codec.known.shape = self
        super().on_head(stream_id, head, end)

    def on_known(
        self,
        stream_id: int,
        known: Known,
        values: list[bytes],
        end: bool,
        body: bytes | None = None,
        trailers: list[Field] | None = None,
    ) -> bool:
        assert known.shape is self
        Recording.on_head(self, stream_id, known.filled(values), end)
        if body is None:
            return False
        self.whole += 1
        Recording.on_data(self, stream_id, body, trailers is None)  # nothing is owed for it
        if trailers is not None:
            self.on_trailers(stream_id, trailers)
        return True


_VALUES = st.sampled_from([b"1", b"20", b"300", b"", b"a b", b" a", b"\xff", b"a\nb", b"x" * 130])
_LENGTHS = st.sampled_from([None, 0, 0, 0, 0, 1, -1, b"", b"1x", b"9" * 20])
_BODIES = st.sampled_from([b"hello", b"hello", b"good morning", b"", b"x" * 300])
_TRAILERS = st.sampled_from([None, None, None, ((b"grpc-status", b"0"),), ((b"grpc-status", b"1"), (b"x-a", b"b"))])


@st.composite
def messages(draw: st.DrawFn) -> list[tuple[tuple[Field, ...], bytes, tuple[Field, ...] | None]]:
    """Fields, body and trailers of messages that are alike, and of some that are not."""
    usual = draw(st.lists(st.sampled_from([b"etag", b"x-envoy-upstream-service-time", b"server"]), unique=True))
    found = []
    for _ in range(draw(st.integers(3, 14))):
        body = draw(_BODIES)
        wrong = draw(_LENGTHS)
        length = wrong if wrong is None or isinstance(wrong, bytes) else b"%d" % (len(body) + wrong)
        fields = [(name, draw(_VALUES)) for name in usual]
        if length is not None:
            fields.insert(draw(st.integers(0, 1)), (b"content-length", length))
        found.append((tuple(fields), body, draw(_TRAILERS)))
    return found


_PLAIN = [(((b"content-length", b"5"), (b"etag", b"e%d" % number)), b"hello", None) for number in range(6)]


@given(st.sampled_from(PeerEncoder.STYLES), messages())
@example("sidecar", _PLAIN)
@example("sidecar", [*_PLAIN, (((b"content-length", b"4"), (b"etag", b"x")), b"hello", None)])
@example("sidecar", [*_PLAIN, (((b"content-length", b"05"), (b"etag", b"x")), b"hello", None)])
def test_responses(style: str, given: list[Any]) -> None:
    encoder = PeerEncoder(style)
    reads = []
    for number, (fields, body, trailers) in enumerate(given):
        reads.append(_message(encoder, 2 * number + 1, [(b":status", b"200"), *fields], body, trailers))
    codecs = client()[0], client()[0]
    for codec in codecs:
        for _ in given:
            codec.open(request(), True)
        codec.take()
    _compare(*codecs, reads)


@given(st.sampled_from(PeerEncoder.STYLES), messages())
@example("sidecar", _PLAIN)
@example("sidecar", [*_PLAIN, (((b"content-length", b"4"), (b"etag", b"x")), b"hello", None)])
def test_requests(style: str, given: list[Any]) -> None:
    encoder = PeerEncoder(style)
    reads = []
    for number, (fields, body, trailers) in enumerate(given):
        head = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", b"/%d" % number),
            (b":authority", b"a"),
            *fields,
        ]
        reads.append(_message(encoder, 2 * number + 1, head, body, trailers))
    _compare(server()[0], server()[0], reads)


def test_messages_that_differ_in_what_varies_are_known() -> None:
    encoder = PeerEncoder("sidecar")
    codec, _ = client()
    knowing = Knowing(codec)
    for number, (fields, body, _) in enumerate(_PLAIN):
        codec.open(request(), True)
        codec.receive(_message(encoder, 2 * number + 1, [(b":status", b"200"), *fields], body, None))
    assert knowing.whole == len(_PLAIN) - 1
    assert [dict(head.fields)[b"etag"] for head in knowing.heads.values()] == [b"e%d" % number for number in range(6)]


def _message(
    encoder: PeerEncoder, stream_id: int, fields: list[Field], body: bytes, trailers: tuple[Field, ...] | None
) -> bytes:
    whole = frame(HEADERS, END_HEADERS, stream_id, encoder.block(fields)) + data(stream_id, body, trailers is None)
    if trailers is not None:
        whole += frame(HEADERS, END_HEADERS | END_STREAM, stream_id, encoder.block(trailers))
    return whole


def _compare(expected: Http2Connection, found: Http2Connection, reads: list[bytes]) -> None:
    """Both are given the reads, and what comes of each is the same, whether or not anything is made of heads."""
    ends = Consuming(expected), Knowing(found)
    for read in reads:
        one, other = [_state_after(read, sink) for sink in ends]
        assert one == other
    event(f"{min(ends[1].whole, 3)} whole")


def _state_after(read: bytes, sink: Consuming) -> tuple[Any, ...]:
    codec = sink.codec
    error = None
    try:
        codec.receive(read)
    except Http2Error as raised:
        error = raised.code, raised.details
    heads = {
        number: (head.fields, head.index, getattr(head, "status", 0), getattr(head, "path", b""))
        for number, head in sink.heads.items()
    }
    streams = {number: (stream.state, stream.expected, stream.credit_in) for number, stream in codec.streams.items()}
    table = codec.decoder.entries, codec.decoder.size
    windows = codec.window_in, codec.unreturned, codec.empty_frames
    return error, sent(codec), heads, sink.bodies, sink.ended, sink.trailers, sink.resets, streams, table, windows
