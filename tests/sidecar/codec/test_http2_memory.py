"""What a connection remembers of blocks never changes what they mean: beside one that forgets everything."""

from __future__ import annotations

from typing import Any

from hpack import Encoder, HeaderTuple, NeverIndexedHeaderTuple
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.codec.hpack_encoder import HpackEncoder
from sidecar.codec.hpack_table import VOLATILE
from sidecar.codec.http2_frames import HEADERS
from sidecar.codec.wire import Field

from .http2_recording import client, frame, outcome, request, response, sent, server

VALUES = st.one_of(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30).map(str.encode),
    st.sampled_from([b"", b"1", b"a b", b" a", b"a\n", b"v" * 126, b"v" * 127, b"v" * 200, b"\xc3\xa4", b"x\x00"]),
)
PATHS = st.one_of(
    st.sampled_from([b"/", b"*", b"", b"/a b", b"/" + b"p" * 140, b"a"]), VALUES.map(lambda value: b"/" + value)
)
NAMES = st.sampled_from(
    [b"x-request-id", b"traceparent", b"authorization", b"cookie", b"content-length", b"x-a", b"x-b", b"etag", b"age"]
)
SHAPES = st.lists(NAMES, max_size=6)
# Few shapes, and many values for each of them: that is what there is to remember.
TRAFFIC = st.lists(SHAPES, min_size=1, max_size=2).flatmap(
    lambda shapes: st.lists(
        st.tuples(st.sampled_from(shapes), PATHS, st.lists(VALUES, min_size=6, max_size=6)), min_size=3, max_size=20
    )
)
FLIPS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 60), st.integers(1, 255)), max_size=2)


def blocks(lists: list[list[Field]], ours: bool) -> list[bytes]:
    if ours:
        encoder = HpackEncoder()
        return [encoder.encode(fields) for fields in lists]
    theirs = Encoder()
    kinds = dict.fromkeys(VOLATILE, NeverIndexedHeaderTuple)
    return [theirs.encode([kinds.get(name, HeaderTuple)(name, value) for name, value in fields]) for fields in lists]


def damaged(coded: list[bytes], flips: list[tuple[int, int, int]]) -> list[bytes]:
    for which, at, flip in flips:
        if which < len(coded) and at < len(coded[which]):
            block = coded[which]
            coded[which] = block[:at] + bytes((block[at] ^ flip,)) + block[at + 1 :]
    return coded


def seen(calls: list[tuple[Any, ...]]) -> list[Any]:
    return [
        (call[:2], vars_of(call[2]), call[3]) if call[0] == "head" else call for call in calls if call[0] != "settings"
    ]


def vars_of(head: Any) -> Any:
    first = (head.status,) if hasattr(head, "status") else (head.method, head.path, head.authority, head.scheme)
    return (*first, head.version, head.fields, head.index)


@given(TRAFFIC, st.booleans(), FLIPS)
@settings(deadline=None, max_examples=200)
def test_requests(traffic: list[Any], ours: bool, flips: list[tuple[int, int, int]]) -> None:
    lists = [
        [
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b":path", path),
            (b":authority", b"a"),
            *zip(names, values, strict=False),
        ]
        for names, path, values in traffic
    ]
    remembering, calls = server(stream_error_on_invalid_http_messaging=True)
    forgetful, other_calls = server(stream_error_on_invalid_http_messaging=True)
    for number, coded in enumerate(damaged(blocks(lists, ours), flips)):
        payload = frame(HEADERS, 5, 2 * number + 1, coded)
        forgetful.decoder.known.clear()
        forgetful.decoder.patterns.clear()
        assert outcome(remembering, payload) == outcome(forgetful, payload)
        assert seen(calls.calls) == seen(other_calls.calls)
        assert remembering.decoder.entries == forgetful.decoder.entries
        for call in calls.calls[-1:]:
            if call[0] == "head":
                call[2].set(b"x-a", b"changed by the owner")
                call[2].path = b"changed"
        calls.calls.clear()
        other_calls.calls.clear()


@given(TRAFFIC, st.booleans(), FLIPS)
@settings(deadline=None, max_examples=100)
def test_responses(traffic: list[Any], ours: bool, flips: list[tuple[int, int, int]]) -> None:
    lists = [[(b":status", b"200"), *zip(names, values, strict=False)] for names, _, values in traffic]
    remembering, calls = client(stream_error_on_invalid_http_messaging=True)
    forgetful, other_calls = client(stream_error_on_invalid_http_messaging=True)
    for coded in damaged(blocks(lists, ours), flips):
        stream_id = remembering.open(request(), True)
        forgetful.open(request(), True)
        remembering.take()
        forgetful.take()
        payload = frame(HEADERS, 5, stream_id, coded)
        forgetful.decoder.known.clear()
        forgetful.decoder.patterns.clear()
        assert outcome(remembering, payload) == outcome(forgetful, payload)
        assert seen(calls.calls) == seen(other_calls.calls)
        calls.calls.clear()
        other_calls.calls.clear()


def test_a_varying_path_and_id_are_recognised_and_a_changed_table_forgets() -> None:
    near, _ = client()
    far, sink = server()
    for number in range(20):
        fields = [(b"x-a", b"1"), (b"x-request-id", b"%036d" % number), (b"x-b", b"2")]
        near.open(request(b"/items/%d" % number, fields), True)
        far.receive(b"".join(near.take()))
        head = sink.heads[2 * number + 1]
        assert (head.path, head.fields) == (b"/items/%d" % number, fields)
    assert len(far.decoder.patterns) == 1
    assert far.decoder.misses < 5
    near.open(request(fields=[(b"x-c", b"1")]), True)
    near.open(request(fields=[(b"x-c", b"1")]), True)
    far.receive(b"".join(near.take()))
    assert far.decoder.patterns == []
    assert not far.decoder.known


def test_patterns_of_responses() -> None:
    near, sink = client()
    far, _ = server()
    for number in range(10):
        stream_id = near.open(request(), True)
        far.receive(b"".join(near.take()))
        far.send_head(stream_id, response(200, [(b"x-a", b"1"), (b"x-request-id", b"%d" % number)]), True)
        near.receive(b"".join(far.take()))
        assert sink.heads[stream_id].fields[1] == (b"x-request-id", b"%d" % number)
    assert len(near.decoder.patterns) == 1
    assert near.decoder.misses < 5
    assert sent(near) == []
