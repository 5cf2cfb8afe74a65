"""What time does to HTTP/2 connections: keep-alive on both sides, rests, ages, and the two stages of a drain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest

from sidecar.codec import http2_frames as wire
from tests.sidecar.http.http2_peer import Field, Http2Peer
from tests.sidecar.http.running import Client, Host, Sidecar, bootstrap, running

GET: list[Field] = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a")]
OK: list[Field] = [(b":status", b"200"), (b"content-length", b"0")]
OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
LAST = 0x7FFFFFFF


class Peer:
    """A client or a host that speaks HTTP/2 and acknowledges what has to be acknowledged, pings if ``alive``."""

    def __init__(self, end: Client | Host, server: bool) -> None:
        self.end = end
        self.alive = True
        self.wire = Http2Peer(self._send, server, "nothing", {})
        self.wire.flush()

    def _send(self, data: bytes) -> None:
        if not self.end.transport.closing:
            self.end.send(data)

    def seen(self) -> list[tuple[Any, ...]]:
        """What has come; settings and windows aside."""
        new = self.wire.receive(self.end.receive())
        if not self.alive:
            self.wire.out.clear()
        self.wire.flush()
        return [one for one in new if one[0] not in ("settings", "acknowledged", "window")]

    def kinds(self) -> list[Any]:
        return [one[0] for one in self.seen()]


def over_http2(http2: dict[str, Any] | None = None) -> dict[str, Any]:
    """What makes a cluster speak HTTP/2, with these `http2_protocol_options`."""
    explicit = {"http2_protocol_options": http2 or {}}
    options = {"@type": f"type.googleapis.com/{OPTIONS}", "explicit_http_config": explicit}
    return {"typed_extension_protocol_options": {OPTIONS: options}}


@contextmanager
def speaking(http2: dict[str, Any] | None = None, **manager: Any) -> Iterator[tuple[Sidecar, Peer]]:
    """A sidecar whose cluster speaks HTTP/2, and a client that does."""
    config = bootstrap(manager=manager)
    config["static_resources"]["clusters"][0].update(over_http2(http2))
    with running(config) as sidecar:
        yield sidecar, Peer(sidecar.client(), False)


def exchange(sidecar: Sidecar, client: Peer, host: Peer | None = None) -> Peer:
    """One request and its response; the host."""
    client.wire.open(GET, True)
    client.wire.flush()
    if host is None:
        host = Peer(sidecar.hosts[-1], True)
    (asked,) = [one for one in host.seen() if one[0] == "head"]
    host.wire.head(host.wire.streams[asked[1]], OK, True)
    host.wire.flush()
    assert "head" in client.kinds()
    return host


KEEPALIVE = {"connection_keepalive": {"interval": "10s", "timeout": "3s", "interval_jitter": {"value": 0}}}


def test_a_client_is_asked_whether_it_is_there() -> None:
    with speaking(http2_protocol_options=KEEPALIVE) as (sidecar, client):
        exchange(sidecar, client)
        for _ in range(3):
            sidecar.advance(10.1)
            assert client.kinds() == ["ping"]
        client.alive = False
        sidecar.advance(10.1)
        assert client.kinds() == ["ping"]
        sidecar.advance(2.8)
        assert not client.end.closed
        sidecar.advance(0.3)
        assert client.end.transport.closing
        assert sidecar.stat("http2.keepalive_timeout") == 1


def test_a_host_is_asked_whether_it_is_there() -> None:
    with speaking(http2=KEEPALIVE) as (sidecar, client):
        host = exchange(sidecar, client)
        sidecar.advance(10.1)
        assert host.kinds() == ["ping"]
        host.alive = False
        sidecar.advance(10.1)
        assert host.kinds() == ["ping"]
        client.wire.open(GET, True)
        client.wire.flush()
        sidecar.advance(3.1)
        assert host.end.closed
        other = Peer(sidecar.hosts[-1], True)  # the request had no body, and may be repeated
        assert "head" in other.kinds()
        other.wire.head(other.wire.streams[1], OK, True)
        other.wire.flush()
        assert client.kinds() == ["head"]
        assert sidecar.stat("cluster.up.http2.keepalive_timeout") == 1


def test_pings_are_put_off_by_chance() -> None:
    with speaking(http2={"connection_keepalive": {"interval": "10s", "timeout": "3s"}}) as (sidecar, client):
        host = exchange(sidecar, client)
        asked = []
        for tenth in range(600):
            sidecar.advance(0.1)
            if host.kinds():
                asked.append(tenth / 10)
        gaps = [later - sooner for sooner, later in pairwise(asked)]
        assert len(gaps) >= 4
        assert all(9.9 <= gap <= 11.7 for gap in gaps)
        assert len({round(gap, 1) for gap in gaps}) > 1


def test_a_host_that_has_rested_is_asked_with_its_next_request() -> None:
    with speaking(http2={"connection_keepalive": {"connection_idle_interval": "5s", "timeout": "3s"}}) as (
        sidecar,
        client,
    ):
        host = exchange(sidecar, client)
        sidecar.advance(4.0)
        exchange(sidecar, client, host)
        sidecar.advance(5.1)
        assert host.kinds() == []
        client.wire.open(GET, True)
        client.wire.flush()
        assert sorted(host.kinds()) == ["head", "ping"]
        sidecar.advance(3.1)
        assert not host.end.closed  # it has answered the ping
        sidecar.advance(10.0)
        host.wire.head(host.wire.streams[max(host.wire.streams)], OK, True)
        host.wire.flush()
        assert client.kinds() == ["head"]


@pytest.mark.parametrize("busy", [False, True])
def test_a_drain_has_two_stages(busy: bool) -> None:
    with speaking(drain_timeout="2s") as (sidecar, client):
        host = exchange(sidecar, client)
        if busy:
            client.wire.open(GET, True)
            client.wire.flush()
        sidecar.manager.drain()
        assert client.seen() == [("goaway", LAST, wire.NO_ERROR)]
        client.wire.gone = False  # this one was on its way
        late = client.wire.open(GET, True)
        client.wire.flush()
        for asked in [one[1] for one in host.seen() if one[0] == "head"]:
            host.wire.head(host.wire.streams[asked], OK, True)
        host.wire.flush()
        assert late is not None
        assert late.id in [one[1] for one in client.seen() if one[0] == "head"]
        sidecar.advance(1.8)
        assert not client.end.closed
        sidecar.advance(0.3)
        assert client.seen() == [("goaway", late.id, wire.NO_ERROR)]
        assert client.end.closed
        assert sidecar.stat("http.in.downstream_cx_drain_close") == 1


def test_a_connection_without_requests_is_drained() -> None:
    idle = {"common_http_protocol_options": {"idle_timeout": "20s"}}
    with speaking(drain_timeout="2s", **idle) as (sidecar, client):
        exchange(sidecar, client)
        sidecar.advance(19.5)
        assert client.seen() == []
        sidecar.advance(1.0)
        assert client.seen() == [("goaway", LAST, wire.NO_ERROR)]
        sidecar.advance(2.1)
        assert client.end.closed
        assert sidecar.stat("http.in.downstream_cx_idle_timeout") == 1


def test_a_connection_that_has_lasted_long_enough_is_drained() -> None:
    age = {"common_http_protocol_options": {"max_connection_duration": "5s"}}
    with speaking(drain_timeout="2s", **age) as (sidecar, client):
        exchange(sidecar, client)
        sidecar.advance(5.1)
        assert client.seen() == [("goaway", LAST, wire.NO_ERROR)]
        assert sidecar.stat("http.in.downstream_cx_max_duration_reached") == 1


def test_a_connection_that_has_carried_enough_requests_is_drained() -> None:
    most = {"common_http_protocol_options": {"max_requests_per_connection": 2}}
    with speaking(drain_timeout="2s", **most) as (sidecar, client):
        host = exchange(sidecar, client)
        client.wire.open(GET, True)
        client.wire.flush()
        assert client.seen() == [("goaway", LAST, wire.NO_ERROR)]
        assert host.kinds() == ["head"]
        host.wire.head(host.wire.streams[3], OK, True)
        host.wire.flush()
        assert client.kinds() == ["head"]


def test_a_head_that_does_not_end_has_its_time() -> None:
    with speaking(request_headers_timeout="2s") as (sidecar, client):
        exchange(sidecar, client)
        block = client.wire.encoder.block(GET)
        client.wire.frame(wire.HEADERS, wire.END_STREAM, 3, block)
        client.wire.flush()
        sidecar.advance(1.8)
        assert client.seen() == []
        sidecar.advance(0.3)
        assert client.kinds() == ["goaway"]
        assert client.end.closed
        assert sidecar.stat("http.in.downstream_rq_header_timeout") == 1


def test_a_response_whose_end_finds_no_window_has_its_time() -> None:
    with speaking(stream_idle_timeout="4s") as (sidecar, client):
        client.wire.settings({wire.INITIAL_WINDOW_SIZE: 0})
        client.wire.open(GET, True)
        client.wire.flush()
        host = Peer(sidecar.hosts[-1], True)
        host.seen()
        host.wire.head(host.wire.streams[1], [(b":status", b"200"), (b"content-length", b"5")], False)
        host.wire.data(host.wire.streams[1], b"hello", True)
        host.wire.flush()
        assert client.kinds() == ["head"]
        sidecar.advance(3.8)
        assert client.seen() == []
        sidecar.advance(0.4)
        assert client.kinds() == ["reset"]
        assert sidecar.stat("http2.tx_flush_timeout") == 1


def test_a_connection_that_was_broken_ends_though_a_response_waits_for_the_client() -> None:
    """The end of a response waits for the connection's window, the client breaks the protocol, and stays."""
    with speaking(stream_idle_timeout="0.5s", delayed_close_timeout="2s") as (sidecar, client):
        client.wire.settings({wire.INITIAL_WINDOW_SIZE: 1 << 20})
        client.wire.open(GET, True)
        client.wire.flush()
        host = Peer(sidecar.hosts[-1], True)
        (asked,) = [one for one in host.seen() if one[0] == "head"]
        stream = host.wire.streams[asked[1]]
        host.wire.head(stream, [(b":status", b"200")], False)
        for size, last in ((60_000, False), (5_000, False), (5_000, True)):  # more than the connection's window
            host.wire.data(stream, bytes(size), last)
            host.wire.flush()
            host.seen()
        client.end.send(b"\0\0\x08\x06\0\0\0\0\x01" + bytes(8))  # a PING on a stream
        for _ in range(40):
            sidecar.advance(0.1)
        assert client.end.transport.closing
        assert sidecar.stat("http.in.downstream_cx_active") == 0


def test_pings_take_nothing_from_what_decides_about_requests() -> None:
    """Under a seed, decisions about requests are the same whatever timers do meanwhile."""
    drawn = []
    for interval in ("10s", "100s"):
        with speaking(http2={"connection_keepalive": {"interval": interval, "timeout": "3s"}}) as (sidecar, client):
            host = exchange(sidecar, client)
            for _ in range(600):
                sidecar.advance(0.1)
                host.kinds()
            drawn.append(sidecar.worker.random.random())
    assert drawn[0] == drawn[1]
