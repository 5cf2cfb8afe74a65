"""Abuse of HTTP/2: what floods, bombs and stalls come to, and what they leave in memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from itertools import count

import pytest

from sidecar.codec.hpack_table import integer
from sidecar.codec.http2_control import Http2Error
from sidecar.codec.http2_frames import (
    CANCEL,
    CONTINUATION,
    DATA,
    ENHANCE_YOUR_CALM,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    INTERNAL_ERROR,
    PING,
    PRIORITY,
    rst_stream,
    settings,
    window_update,
)
from sidecar.codec.http2_options import Http2Options

from .http2_recording import (
    REQUEST,
    RESPONSE,
    block,
    client,
    data,
    frame,
    headers,
    outcome,
    request,
    response,
    sent,
    server,
)

CALM = ("connection", ENHANCE_YOUR_CALM)
FINE = ("fine",)


def rapid_resets() -> Iterator[bytes]:
    for number in count(1, 2):
        yield headers(number) + rst_stream(number, CANCEL)


def resets_that_we_are_made_to_send() -> Iterator[bytes]:
    for number in count(1, 2):
        yield headers(number) + window_update(number, 0)


def resets_for_malformed_requests() -> Iterator[bytes]:
    for number in count(1, 2):
        yield headers(number, [*REQUEST, (b"connection", b"close")])


def data_behind_the_end() -> Iterator[bytes]:
    for number in count(1, 2):
        yield headers(number) + data(number, b"x")


def empty_data() -> Iterator[bytes]:
    yield headers(1, end=False)
    while True:
        yield data(1, b"")


def empty_continuations() -> Iterator[bytes]:
    yield frame(HEADERS, 0, 1, block(REQUEST))
    while True:
        yield frame(CONTINUATION, 0, 1)


def small_continuations() -> Iterator[bytes]:
    yield frame(HEADERS, 0, 1, block(REQUEST))
    while True:
        yield frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b")


def large_continuations() -> Iterator[bytes]:
    yield frame(HEADERS, 0, 1, block(REQUEST))
    while True:
        yield frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b" * 3000)


def priorities() -> Iterator[bytes]:
    while True:
        yield frame(PRIORITY, 0, 1, b"\0\0\0\0\x10")


def window_updates() -> Iterator[bytes]:
    while True:
        yield window_update(0, 1)


def stream_window_updates() -> Iterator[bytes]:
    yield headers(1, end=False)
    while True:
        yield window_update(1, 1)


# The attack, and how many steps it may take.
FLOODS = {
    "rapid resets": (rapid_resets, 501),
    "resets that we are made to send": (resets_that_we_are_made_to_send, 501),
    "malformed requests": (resets_for_malformed_requests, 501),
    "data behind the end": (data_behind_the_end, 501),
    "empty data": (empty_data, 3),
    "empty continuations": (empty_continuations, 3),
    "small continuations": (small_continuations, 20),
    "large continuations": (large_continuations, 10),
    "priorities": (priorities, 101),
    "window updates": (window_updates, 6),
    "window updates of a stream": (stream_window_updates, 9),
}


@pytest.mark.parametrize(("attack", "steps"), FLOODS.values(), ids=FLOODS)
def test_a_flood_ends_with_calm(attack: object, steps: int) -> None:
    ours, _ = server(stream_error_on_invalid_http_messaging=True)
    flood = attack()  # type: ignore[operator]
    tracemalloc.start()
    for _step in range(steps):
        found = outcome(ours, next(flood))
        if found[0] == "connection":
            break
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert found == CALM
    assert not ours.out
    taken = ours.opened_streams
    ours.receive(next(flood))
    assert ours.opened_streams == taken, "something was taken behind the error"


@pytest.mark.parametrize("one", [frame(PING, 0, 0, b"x" * 8), settings([])], ids=["PING", "SETTINGS"])
def test_acknowledgements_that_nobody_takes_are_bounded(one: bytes) -> None:
    ours, _ = server()
    with pytest.raises(Http2Error) as caught:
        for _ in range(10):
            ours.receive(one * 150)  # the owner does not take them, since the transport is full
    assert caught.value.code == ENHANCE_YOUR_CALM
    assert ours.control_frames <= 1151
    ours, _ = server()
    for _ in range(20):
        assert outcome(ours, one * 150) == FINE  # taken in between


def test_answers_that_nobody_takes_are_bounded() -> None:
    ours, sink = server(max_outbound_frames=100)

    def answer(name: str, stream_id: int) -> None:
        if name == "head":
            ours.send_head(stream_id, response(), True)

    sink.reaction = answer
    with pytest.raises(Http2Error) as caught:
        for number in range(1, 300, 2):
            ours.receive(headers(number))
    assert caught.value.code == ENHANCE_YOUR_CALM
    assert len(sink.heads) == 101


def test_streams_that_end_well_earn_resets_and_so_does_time() -> None:
    ours, _ = server(max_resets=10)
    numbers = count(1, 2)
    for _ in range(100):
        one, other = next(numbers), next(numbers)
        assert outcome(ours, headers(one) + rst_stream(one, CANCEL) + headers(other)) == FINE
        ours.send_head(other, response(), True)
        sent(ours)
    for _ in range(10):
        one = next(numbers)
        assert outcome(ours, headers(one) + rst_stream(one, CANCEL)) == FINE
    ours.tick(0.1)
    for _ in range(3):
        one = next(numbers)
        assert outcome(ours, headers(one) + rst_stream(one, CANCEL)) == FINE
    one = next(numbers)
    assert outcome(ours, headers(one) + rst_stream(one, CANCEL)) == CALM


def test_resets_of_an_upstream_are_no_abuse() -> None:
    ours, sink = client(max_resets=3)
    for _ in range(10):
        stream_id = ours.open(request(), True)
        assert outcome(ours, rst_stream(stream_id, CANCEL)) == FINE
    assert len(sink.resets) == 10


@pytest.mark.parametrize(
    ("name", "bomb"),
    [
        ("indexed", b"\x40\x01a" + integer(0, 127, 3900) + b"v" * 3900 + b"\xbe" * 90),
        ("many fields", b"\x00\x01a\x01b" * 101),
        ("many crumbs", b"\x00\x06cookie\x01b" * 101),
        ("overhead", b"\x00\x00\x00" * 3000),
    ],
)
def test_a_bomb_resets_its_stream_only(name: str, bomb: bytes) -> None:
    ours, sink = server()
    assert outcome(ours, frame(HEADERS, 5, 1, block(REQUEST) + bomb)) == ("stream", 1, INTERNAL_ERROR)
    assert outcome(ours, headers(3)) == FINE
    assert list(sink.heads) == [3]
    ours.receive(headers(5, end=False))
    assert outcome(ours, frame(HEADERS, 5, 5, bomb)) == ("stream", 5, INTERNAL_ERROR)
    assert sink.resets[5][0] == INTERNAL_ERROR


def test_a_bomb_in_a_response_resets_its_stream_only() -> None:
    ours, sink = client()
    ours.open(request(), True)
    ours.open(request(), True)
    sent(ours)
    assert outcome(ours, frame(HEADERS, 5, 1, block(RESPONSE) + b"\x00\x01a\x01b" * 101)) == (
        "stream",
        1,
        INTERNAL_ERROR,
    )
    assert sink.resets == {1: (INTERNAL_ERROR, "http2.too_many_headers")}
    assert outcome(ours, headers(3, RESPONSE)) == FINE


def test_a_peer_that_never_opens_its_window_holds_no_more_than_the_bound() -> None:
    ours, _ = server(max_queued=100_000)
    ours.receive(settings([(INITIAL_WINDOW_SIZE, 0)]) + b"".join(headers(number) for number in range(1, 21, 2)))
    sent(ours)
    for number in range(1, 21, 2):
        ours.send_head(number, response(), False)
        pieces = 0
        while not ours.is_full(number):
            ours.send_data(number, b"x" * 16384, False)
            pieces += 1
        assert pieces == 7
    assert all(stream.queued < 100_000 + 16384 for stream in ours.streams.values())
    ours.receive(settings([(INITIAL_WINDOW_SIZE, 1 << 20)]))  # and now the connection's window is what they wait for
    assert len(ours.waiting) == 10
    for number in range(1, 21, 2):
        ours.reset(number, CANCEL)
    sent(ours)
    assert not ours.streams
    assert not ours.waiting
    ours.receive(window_update(0, 1000))
    assert sent(ours) == []


def test_windows_that_open_wide_are_no_flood() -> None:
    ours, _ = server(max_outbound_frames=100)
    ours.receive(b"".join(headers(number) for number in range(1, 41, 2)))
    for number in range(1, 41, 2):
        ours.send_head(number, response(), False)
        ours.send_data(number, b"x" * 200_000, True)
    sent(ours)
    wide = settings([(INITIAL_WINDOW_SIZE, 1 << 24)]) + window_update(0, 1 << 30)
    ours.receive(wide)
    assert sum(len(found[3]) for found in sent(ours) if found[0] == "DATA") == 20 * 200_000 - 65535
    assert not ours.streams


def test_one_read_full_of_requests_leaves_the_loop_to_others() -> None:
    ours, sink = server()
    payload = b"".join(headers(number) for number in range(1, 601, 2))
    ours.receive(payload[:-5])
    assert ours.interrupted
    assert len(sink.heads) == 100
    ours.receive(payload[-5:])
    turns = 1
    while ours.interrupted:
        ours.take_held()
        turns += 1
    assert turns == 3
    assert list(sink.heads) == list(range(1, 601, 2))


def test_the_memory_of_resets_is_bounded() -> None:
    ours, _ = server(max_resets=100_000)
    for number in range(1, 4001, 2):
        ours.receive(headers(number) + rst_stream(number, CANCEL))
    assert len(ours.ended) == 256
    assert not ours.streams


def test_a_frame_that_trickles_in_is_held_once() -> None:
    ours, sink = server()
    ours.receive(headers(1, end=False))
    payload = frame(DATA, 1, 1, b"x" * 16384)
    for at in range(len(payload)):
        ours.receive(payload[at : at + 1])
    assert sink.bodies[1] == b"x" * 16384
    assert sink.calls[-1][0] == "data"
    assert len([call for call in sink.calls if call[0] == "data"]) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"initial_connection_window_size": 65534},
        {"initial_stream_window_size": 1 << 31},
        {"max_concurrent_streams": 0},
    ],
)
def test_options_that_make_no_sense_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        Http2Options(**changes)
