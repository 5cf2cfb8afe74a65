"""Exchanges that go well: heads, cookies, trailers, upgrades, flow control, drain, and what both roles say first."""

from __future__ import annotations

import pytest
from hpack import Decoder

from sidecar.codec.hpack_texts import Texts
from sidecar.codec.http2_client import ClientConnection
from sidecar.codec.http2_frames import (
    CANCEL,
    ENABLE_CONNECT_PROTOCOL,
    ENABLE_PUSH,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    LARGEST_STREAM_ID,
    MAX_CONCURRENT_STREAMS,
    NO_ERROR,
    PING,
    PREFACE,
    REFUSED_STREAM,
    SETTINGS,
    goaway,
    rst_stream,
    settings,
    window_update,
)
from sidecar.codec.http2_options import Http2Options
from sidecar.codec.http2_server import ServerConnection
from sidecar.core.head import RequestHead

from .http2_recording import (
    REQUEST,
    RESPONSE,
    Recording,
    client,
    data,
    decoded,
    frame,
    frames,
    headers,
    request,
    response,
    sent,
    server,
)


def test_a_server_begins_with_its_settings_and_window() -> None:
    ours = ServerConnection(Http2Options(allow_connect=True, hpack_table_size=100), Texts())
    first, window = sent(ours)
    assert first == (
        "SETTINGS",
        0,
        0,
        settings(
            [
                (ENABLE_CONNECT_PROTOCOL, 1),
                (MAX_CONCURRENT_STREAMS, 1024),
                (HEADER_TABLE_SIZE, 100),
                (INITIAL_WINDOW_SIZE, 16 << 20),
            ]
        )[9:],
    )
    assert window == ("WINDOW_UPDATE", 0, 0, (25100289).to_bytes(4, "big"))  # what Envoy 1.40 opens with


def test_a_client_begins_with_the_preface_and_refuses_push() -> None:
    ours = ClientConnection(Http2Options(), Texts())
    out = b"".join(ours.take())
    assert out.startswith(PREFACE)
    assert frames(out[len(PREFACE) :])[0] == (
        "SETTINGS", 0, 0, settings([(ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, 16 << 20)])[9:])  # fmt: skip


def test_custom_settings_replace_others_of_their_number() -> None:
    options = Http2Options(custom_settings_parameters=((MAX_CONCURRENT_STREAMS, 7), (0x10, 1)))
    assert sent(ServerConnection(options, Texts()))[0][3] == settings(
        [(MAX_CONCURRENT_STREAMS, 7), (INITIAL_WINDOW_SIZE, 16 << 20), (0x10, 1)])[9:]  # fmt: skip


def test_settings_and_pings_are_acknowledged_in_their_order() -> None:
    ours, sink = server()
    ours.receive(frame(PING, 0, 0, b"12345678") + settings([(MAX_CONCURRENT_STREAMS, 5)]))
    assert sent(ours) == [("PING", 1, 0, b"12345678"), ("SETTINGS", 1, 0, b"")]
    assert ours.peer_max_streams == 5
    ours.ping(b"abcdefgh")
    assert sent(ours) == [("PING", 0, 0, b"abcdefgh")]
    ours.receive(frame(PING, 1, 0, b"abcdefgh"))
    assert sink.calls[-1] == ("ping_ack", b"abcdefgh")


def test_a_request_becomes_a_head() -> None:
    ours, sink = server()
    ours.receive(headers(1, [*REQUEST, (b"a", b"1"), (b"b", b"2"), (b"a", b"3")]))
    head = sink.heads[1]
    assert (head.method, head.scheme, head.path, head.authority, head.version) == (b"GET", b"http", b"/", b"a", 20)
    assert head.fields == [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]
    assert head.index == {b"a": b"1,3", b"b": b"2"}
    assert 1 in sink.ended


@pytest.mark.parametrize(
    ("fields", "authority"),
    [
        ([*REQUEST[:3], (b"host", b"b"), (b"x", b"y")], b"b"),
        ([*REQUEST, (b"host", b"b"), (b"x", b"y")], b"a"),
        ([*REQUEST[:3], (b":authority", b""), (b"host", b"b"), (b"x", b"y")], b"b"),
    ],
)
def test_host_is_never_among_the_fields(fields: list[tuple[bytes, bytes]], authority: bytes) -> None:
    ours, sink = server()
    ours.receive(headers(1, fields))
    assert sink.heads[1].authority == authority
    assert sink.heads[1].fields == [(b"x", b"y")]
    assert sink.heads[1].index == {b"x": b"y"}


def test_crumbs_of_cookies_are_joined_where_the_first_stood() -> None:
    ours, sink = server()
    crumbs = [(b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2"), (b"x", b"z"), (b"cookie", b"c=3")]
    ours.receive(headers(1, [*REQUEST, *crumbs]))
    assert sink.heads[1].fields == [(b"cookie", b"a=1; b=2; c=3"), (b"x", b"y"), (b"x", b"z")]
    assert sink.heads[1].index == {b"cookie": b"a=1; b=2; c=3", b"x": b"y,z"}


def test_a_remembered_block_makes_a_head_of_its_own_every_time() -> None:
    ours, sink = server()
    payload = [headers(number, [*REQUEST, (b"a", b"1")]) for number in (1, 3, 5)]
    for one in payload:
        ours.receive(one)
        sink.heads[1].set(b"a", b"changed")
        sink.heads[1].add(b"b", b"new")
    assert sink.heads[3].fields == sink.heads[5].fields == [(b"a", b"1")]
    assert sink.heads[3].index == sink.heads[5].index == {b"a": b"1"}
    assert ours.decoder.known


def test_what_http2_cannot_carry_is_left_out() -> None:
    ours, _ = client()
    fields = [
        (b"connection", b"close, x"),
        (b"keep-alive", b"1"),
        (b"proxy-connection", b"close"),
        (b"transfer-encoding", b"chunked"),
        (b"http2-settings", b"AAA"),
        (b"te", b"gzip"),
        (b"host", b"b"),
        (b"X-Case", b"1"),
        (b"Connection", b"close"),
    ]
    ours.open(request(fields=fields), True)
    ours.open(request(fields=[(b"te", b"trailers")]), True)
    first, second = sent(ours)
    decoder = Decoder()
    assert decoded(decoder, first[3]) == [*REQUEST[:3], (b":authority", b"a"), (b"x-case", b"1")]
    assert decoded(decoder, second[3])[-1] == (b"te", b"trailers")


def test_requests_and_responses_between_our_own_two_ends() -> None:
    near, near_sink = client()
    far, far_sink = server()
    stream_id = near.open(request(b"/a", [(b"x", b"y")], b"POST"), False)
    near.send_data(stream_id, b"abc", False)
    near.send_trailers(stream_id, [(b"grpc-x", b"1")])
    far.receive(b"".join(near.take()))
    assert far_sink.bodies[1] == b"abc"
    assert far_sink.trailers[1] == [(b"grpc-x", b"1")]
    far.send_head(1, response(103, [(b"link", b"</a>")]), False)
    far.send_head(1, response(200, [(b"content-type", b"application/grpc")]), False)
    far.send_data(1, b"def", False)
    far.send_trailers(1, [(b"grpc-status", b"0")])
    near.receive(b"".join(far.take()))
    assert near_sink.names() == ["head", "head", "data", "trailers"]
    assert near_sink.heads[1].status == 200
    assert near_sink.trailers[1] == [(b"grpc-status", b"0")]
    assert not near.streams
    assert not far.streams


def test_a_header_block_longer_than_a_frame_goes_into_several() -> None:
    near, _ = client()
    far, far_sink = server()
    fields = [(b"x-%d" % number, b"v" * 5000) for number in range(9)]
    near.open(request(fields=fields), True)
    out = b"".join(near.take())
    assert [found[:2] for found in frames(out)] == [("HEADERS", 1), ("CONTINUATION", 0), ("CONTINUATION", 4)]
    far.receive(out)
    assert far_sink.heads[1].fields == fields


def test_an_upgrade_travels_as_an_extended_connect() -> None:
    near, near_sink = client()
    far, far_sink = server(allow_connect=True)
    near.receive(settings([(ENABLE_CONNECT_PROTOCOL, 1)]))
    near.take()
    upgrade = [(b"connection", b"Upgrade"), (b"upgrade", b"websocket"), (b"sec-websocket-version", b"13")]
    near.open(RequestHead(b"GET", b"/chat", b"a", upgrade), False)
    out = b"".join(near.take())
    assert decoded(Decoder(), frames(out)[0][3]) == [
        (b":method", b"CONNECT"),
        (b":scheme", b"http"),
        (b":path", b"/chat"),
        (b":authority", b"a"),
        (b":protocol", b"websocket"),
        (b"sec-websocket-version", b"13"),
    ]
    far.receive(out)
    head = far_sink.heads[1]
    assert (head.method, head.path) == (b"GET", b"/chat")
    assert head.get(b"upgrade") == b"websocket"
    assert head.get(b"connection") == b"upgrade"
    far.send_head(1, response(101, [(b"upgrade", b"websocket"), (b"connection", b"upgrade")]), False)
    far.send_data(1, b"frames", False)
    out = b"".join(far.take())
    assert decoded(Decoder(), frames(out)[0][3]) == [(b":status", b"200")]
    near.receive(out)
    assert near_sink.heads[1].status == 101
    assert near_sink.heads[1].get(b"upgrade") == b"websocket"
    assert near_sink.bodies[1] == b"frames"


def test_connect_tunnels() -> None:
    near, near_sink = client()
    far, far_sink = server()
    near.open(RequestHead(b"CONNECT", b"", b"a:1", []), False)
    far.receive(b"".join(near.take()))
    assert (far_sink.heads[1].method, far_sink.heads[1].path, far_sink.heads[1].authority) == (b"CONNECT", b"", b"a:1")
    far.send_head(1, response(200, [(b"content-length", b"0")]), False)
    far.send_data(1, b"tunnel", False)
    near.receive(b"".join(far.take()))
    assert near_sink.bodies[1] == b"tunnel"
    assert near_sink.heads[1].get(b"content-length") is None


def test_padding_is_given_back_at_once_and_data_when_it_is_consumed() -> None:
    ours, sink = server(initial_stream_window_size=65535, initial_connection_window_size=65535)
    ours.receive(headers(1, end=False))
    for _ in range(3):
        ours.receive(frame(0, 8, 1, b"\xff" + b"x" * 10000 + b"\0" * 255))
    assert len(sink.bodies[1]) == 30000
    assert ours.window_in == 65535 - 3 * 10256
    assert ours.unreturned == 3 * 256
    assert sent(ours) == []
    ours.consumed(1, 30000)
    assert sent(ours) == []
    ours.receive(frame(0, 0, 1, b"x" * 4000))
    ours.consumed(1, 4000)
    assert sent(ours) == [
        ("WINDOW_UPDATE", 0, 0, (34768).to_bytes(4, "big")),
        ("WINDOW_UPDATE", 0, 1, (34768).to_bytes(4, "big")),
    ]
    assert ours.window_in == 65535


def test_data_waits_for_the_stream_and_then_for_the_connection() -> None:
    ours, sink = server(max_queued=1000)
    ours.receive(settings([(INITIAL_WINDOW_SIZE, 10)]) + headers(1, end=False) + headers(3, end=False))
    ours.take()
    ours.send_head(1, response(), False)
    ours.send_head(3, response(), False)
    ours.take()
    assert not ours.send_data(1, b"a" * 15, False)
    assert sent(ours) == [("DATA", 0, 1, b"a" * 10)]
    assert not ours.send_data(3, b"b" * 10, True)
    assert sent(ours) == [("DATA", 1, 3, b"b" * 10)]  # the other one waits, and this one does not
    assert ours.send_data(1, b"a" * 2000, False)
    assert ours.is_full(1)
    assert sent(ours) == []
    ours.receive(window_update(1, 1600))
    assert sum(len(found[3]) for found in sent(ours)) == 1600
    assert sink.names()[-1] == "window"
    assert not ours.is_full(1)
    ours.send_data(1, b"", True)
    ours.receive(window_update(1, 5000))
    last = sent(ours)[-1]
    assert (last[1], len(last[3])) == (1, 405)


def test_a_larger_initial_window_reaches_open_streams_and_a_smaller_one_makes_theirs_negative() -> None:
    ours, _ = server()
    ours.receive(headers(1, end=False))
    ours.send_head(1, response(), False)
    ours.send_data(1, b"x" * 1000, False)
    ours.take()
    ours.receive(settings([(INITIAL_WINDOW_SIZE, 400)]))
    ours.take()
    ours.send_data(1, b"y" * 500, True)
    assert sent(ours) == []
    ours.receive(window_update(1, 600))
    assert sent(ours) == []
    ours.receive(window_update(1, 1))
    assert sent(ours) == [("DATA", 0, 1, b"y")]
    ours.receive(settings([(INITIAL_WINDOW_SIZE, 2000)]))
    assert sent(ours) == [("SETTINGS", 1, 0, b""), ("DATA", 1, 1, b"y" * 499)]  # the window is open from the ACK on


def test_streams_take_turns_when_the_connection_opens() -> None:
    ours, _ = server()
    ours.receive(
        settings([(INITIAL_WINDOW_SIZE, 1 << 20)]) + b"".join(headers(number, end=False) for number in (1, 3, 5))
    )
    for number in (1, 3, 5):
        ours.send_head(number, response(), False)
        ours.send_data(number, b"%d" % number * 65536, True)
    assert sum(len(found[3]) for found in sent(ours) if found[0] == "DATA") == 65535
    ours.receive(window_update(0, 1 << 20))
    order = [found[2] for found in sent(ours) if found[0] == "DATA"]
    assert sorted(order) == [1, 3, 3, 3, 3, 5, 5, 5, 5]
    assert set(order[:3]) == {1, 3, 5}
    assert order[3:] in ([3, 5] * 3, [5, 3] * 3)
    assert not any(stream.queued for stream in ours.streams.values())


def test_trailers_wait_behind_queued_data_and_an_empty_end_needs_no_window() -> None:
    ours, _ = server()
    ours.receive(settings([(INITIAL_WINDOW_SIZE, 0)]) + headers(1) + headers(3))
    for number in (1, 3):
        ours.send_head(number, response(), False)
    ours.take()
    ours.send_data(3, b"", True)
    assert sent(ours) == [("DATA", 1, 3, b"")]
    ours.send_data(1, b"abc", False)
    ours.send_trailers(1, [(b"a", b"b")])
    assert sent(ours) == []
    ours.receive(window_update(1, 3))
    assert [found[:3] for found in sent(ours)] == [("DATA", 0, 1), ("HEADERS", 5, 1)]
    assert not ours.streams


def test_a_paused_transport_holds_data_and_lets_control_frames_by() -> None:
    ours, _ = server(max_queued=10)
    ours.receive(headers(1))
    ours.send_head(1, response(), False)
    ours.take()
    ours.pause()
    assert ours.send_data(1, b"x" * 10, False)
    ours.receive(frame(PING, 0, 0, b"x" * 8))
    assert [found[0] for found in sent(ours)] == ["PING"]
    ours.resume()
    assert [found[0] for found in sent(ours)] == ["DATA"]
    assert not ours.is_full(1)


def test_what_a_sink_sends_from_inside_of_its_calls_is_in_order() -> None:
    ours, sink = server()

    def answer(name: str, stream_id: int) -> None:
        if name == "head":
            ours.send_head(stream_id, response(), False)
            ours.send_data(stream_id, b"x", True)

    sink.reaction = answer
    ours.receive(headers(1) + headers(3) + frame(PING, 0, 0, b"x" * 8))
    assert [found[0] for found in sent(ours)] == ["HEADERS", "DATA", "HEADERS", "DATA", "PING"]
    assert not ours.streams


def test_a_drain_in_two_stages() -> None:
    ours, sink = server()
    ours.receive(headers(1))
    ours.shutdown_notice()
    ours.shutdown_notice()
    assert sent(ours) == [("GOAWAY", 0, 0, goaway(LARGEST_STREAM_ID, NO_ERROR)[9:])]
    ours.receive(headers(3))  # was under way
    ours.go_away()
    assert sent(ours) == [("GOAWAY", 0, 0, goaway(3, NO_ERROR)[9:])]
    ours.receive(headers(5) + data(7, b"x") + headers(9))
    assert [call[1] for call in sink.calls if call[0] == "head"] == [1, 3]
    assert sent(ours) == []
    for number in (1, 3):
        ours.send_head(number, response(), True)
    assert not ours.streams


def test_a_client_told_to_go_away_keeps_the_streams_that_will_be_answered() -> None:
    ours, sink = client()
    for _ in range(3):
        ours.open(request(), True)
    assert ours.available() == 1021
    ours.receive(goaway(LARGEST_STREAM_ID, 0))
    assert ours.available() == 0
    assert not sink.resets
    ours.receive(goaway(3, 0, b"bye"))
    assert sink.resets == {5: (REFUSED_STREAM, "http2.goaway")}
    assert sink.calls[-1] == ("goaway", 3, 0, b"bye")
    ours.receive(headers(1, RESPONSE) + headers(3, RESPONSE))
    assert sink.ended == {1, 3}
    assert not ours.streams


def test_a_client_heeds_the_servers_number_of_streams() -> None:
    ours, _ = client()
    ours.receive(settings([(MAX_CONCURRENT_STREAMS, 2)]))
    assert ours.available() == 2
    ours.open(request(), True)
    ours.open(request(), True)
    assert ours.available() == 0
    ours.receive(headers(1, RESPONSE))
    assert ours.available() == 1
    ours.receive(settings([(MAX_CONCURRENT_STREAMS, 0)]))
    assert ours.available() == 0


def test_resets_of_both_sides_are_told_and_what_follows_is_dropped() -> None:
    ours, sink = client()
    ours.open(request(), False)
    ours.open(request(), False)
    ours.take()
    ours.receive(rst_stream(1, CANCEL))
    assert sink.resets == {1: (CANCEL, "http2.remote_reset")}
    ours.reset(3, CANCEL)
    ours.reset(3, CANCEL)
    for number in (1, 3):
        assert not ours.send_data(number, b"x", True)
        ours.send_trailers(number, [(b"a", b"b")])
        ours.consumed(number, 5)
    assert sent(ours) == [("RST_STREAM", 0, 3, b"\0\0\0\x08")]


def test_an_early_answer_leaves_the_request_to_be_reset() -> None:
    ours, sink = server()
    ours.receive(headers(1, end=False))
    ours.send_head(1, response(413), True)
    assert 1 in ours.streams
    ours.reset(1, NO_ERROR)
    assert [found[0] for found in sent(ours)] == ["HEADERS", "RST_STREAM"]
    ours.receive(data(1, b"x" * 1000, True))
    assert sent(ours) == []
    assert "data" not in sink.names()


def test_a_smaller_table_of_the_peer_is_announced_and_kept() -> None:
    ours, _ = client()
    decoder = Decoder()
    for _ in range(3):
        ours.open(request(fields=[(b"x-a", b"1")]), True)
    for found in sent(ours):
        decoded(decoder, found[3])
    ours.receive(settings([(HEADER_TABLE_SIZE, 0)]))
    ours.take()
    decoder.max_allowed_table_size = 0
    for _ in range(3):
        ours.open(request(fields=[(b"x-a", b"1")]), True)
    for found in sent(ours):
        assert decoded(decoder, found[3])[-1] == (b"x-a", b"1")
    assert decoder.header_table_size == 0


def test_settings_acknowledged_later_than_streams_are_opened() -> None:
    ours = ServerConnection(Http2Options(), Texts())
    sink = ours.sink = Recording()
    ours.receive(PREFACE + settings([]) + headers(1))
    assert 1 in sink.heads
    assert ours.unacknowledged == 1
    ours.receive(frame(SETTINGS, 1))
    assert ours.unacknowledged == 0
