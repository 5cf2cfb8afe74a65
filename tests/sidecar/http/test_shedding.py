"""What a connection manager does under load, and that it forgets all of it afterwards: with the express lane in use."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Any

import pytest

from sidecar.core.http_filter import HttpFilter
from sidecar.http.shedding import UNCHANGED, Shedding, Shrinking, Timers
from tests.sidecar.http.running import GET, HELLO, Client, Sidecar, running, user_filter
from tests.sidecar.http.test_http2_timers import GET as GET2
from tests.sidecar.http.test_http2_timers import OK as OK2
from tests.sidecar.http.test_http2_timers import Peer, speaking

TIMERS = Timers(Shrinking(1.0), Shrinking(None, 0.1), Shrinking(5.0))
REFUSED = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 16\r\ncontent-type: text/plain\r\n"


def shedding_of(sidecar: Sidecar, timers: Timers = TIMERS, least: int = 1024) -> Shedding:
    return Shedding(sidecar.manager, least, timers)


@pytest.fixture
def sidecar() -> Iterator[Sidecar]:
    with running() as made:
        yield made


def answered(client: Client, times: int = 1) -> bytes:
    """Requests that the host answers; the last response."""
    for _ in range(times):
        client.send(GET)
        client.sidecar.host.send(HELLO)
        reply = client.receive()
    return reply


def test_requests_are_refused_as_soon_as_it_is_asked_for_and_no_longer(sidecar: Sidecar) -> None:
    shedding = shedding_of(sidecar)
    client = sidecar.client()
    assert answered(client, 5).endswith(b"hello")
    shed: list[None] = []
    shedding.refuse(1.0, lambda: shed.append(None))
    for _ in range(3):
        reply = client.send(GET).receive()
        assert reply.startswith(REFUSED)
        assert reply.endswith(b"\r\n\r\nenvoy overloaded")
        assert b"connection: close" not in reply
    assert len(shed) == sidecar.stat("http.in.downstream_rq_overload_close") == 3
    assert sidecar.log[-1] == "GET / HTTP/1.1 503 - overload 0 16 0 - 0\n"
    shedding.refuse(0.0, None)
    assert answered(client, 5).endswith(b"hello")
    assert len(shed) == 3


def test_a_share_of_requests_is_refused(sidecar: Sidecar) -> None:
    shedding = shedding_of(sidecar)
    shedding.refuse(0.5, None)
    refused = 0
    for _ in range(200):
        client = sidecar.client()
        client.send(GET)
        for host in sidecar.hosts:
            if host.receive():
                host.send(HELLO)
        refused += client.receive().startswith(REFUSED)
    assert 70 < refused < 130


def test_filters_do_not_see_what_is_refused() -> None:
    calls: list[str] = []

    class Looks(HttpFilter):
        def __init__(self, config: Any) -> None: ...

        def on_request(self, stream: Any, end: bool) -> bool:
            calls.append("request")
            return False

        def on_response(self, stream: Any, end: bool) -> bool:
            calls.append("response")
            return False

    with running(None, {"one": Looks}, filters=[user_filter("one")]) as sidecar:
        shedding_of(sidecar).refuse(1.0, None)
        assert sidecar.client().send(GET).receive().startswith(REFUSED)
    assert calls == []


def test_a_body_that_is_still_to_come_ends_the_connection(sidecar: Sidecar) -> None:
    shedding_of(sidecar).refuse(1.0, None)
    client = sidecar.client().send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nbody")
    assert client.receive().startswith(REFUSED)
    assert client.closed


def test_responses_end_their_connections(sidecar: Sidecar) -> None:
    shedding = shedding_of(sidecar)
    one, two = sidecar.client(), sidecar.client()
    for client in (one, two):
        answered(client, 4)
    shedding.close_connections(1.0)
    assert not one.closed
    reply = answered(one)
    assert b"\r\nconnection: close\r\n" in reply
    assert one.closed
    assert sidecar.stat("http.in.downstream_cx_overload_disable_keepalive") == 1
    assert sidecar.stat("http.in.downstream_cx_drain_close") == 1
    shedding.close_connections(0.0)
    assert b"connection: close" not in answered(two, 4)
    assert not two.closed


def test_the_lane_opens_again(sidecar: Sidecar) -> None:
    client = sidecar.client()
    answered(client, 5)
    lane = sidecar.manager.lane
    assert lane is not None
    shedding = shedding_of(sidecar)
    before = lane.path, sidecar.manager.prepare, sidecar.manager.finish_response
    shedding.refuse(1.0, None)
    shedding.close_connections(0.5)
    assert not lane.accepts(b"/")
    client.send(GET)
    assert not any(lane.kinds.values())
    shedding.refuse(0.0, None)
    assert not lane.accepts(b"/")
    shedding.close_connections(0.0)
    assert lane.accepts(b"/")
    assert (lane.path, sidecar.manager.prepare, sidecar.manager.finish_response) == before


def test_a_closed_lane_learns_nothing(sidecar: Sidecar) -> None:
    """Neither from requests that pass meanwhile, nor for connections whose kind had been forgotten."""
    client = sidecar.client()
    answered(client, 5)
    lane = sidecar.manager.lane
    assert lane is not None
    for number in range(1100):
        lane.kinds[number] = {}
    stranger = sidecar.client("10.0.0.1")
    answered(stranger, 3)
    shedding = shedding_of(sidecar)
    shedding.close_connections(1e-9)
    for one in (client, stranger):
        answered(one, 5)
        assert not one.protocol.kind


@pytest.mark.parametrize("how", ["refuse", "close_connections"])
def test_connections_whose_kind_was_forgotten_are_shed_too(
    sidecar: Sidecar, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.express.request._KINDS", 4)
    lane = sidecar.manager.lane
    assert lane is not None
    client = sidecar.client()
    answered(client, 5)
    for number in range(6):  # as many as make the lane forget what kinds there are
        sidecar.client(f"10.0.0.{number}").send(GET[:10])
    assert not client.protocol.kind
    answered(client, 5)
    assert client.protocol.kind, "the lane does not know it again"
    shedding = shedding_of(sidecar)
    if how == "refuse":
        shedding.refuse(1.0, None)
        for _ in range(3):
            assert client.send(GET).receive().startswith(REFUSED)
        assert sidecar.stat("http.in.downstream_rq_overload_close") == 3
    else:
        shedding.close_connections(1.0)
        assert b"\r\nconnection: close\r\n" in answered(client)
        assert client.closed


def test_requests_of_known_shapes_are_refused_over_http2_too() -> None:
    with speaking() as (sidecar, peer):
        shedding = shedding_of(sidecar)
        host: Peer | None = None
        for _ in range(5):
            peer.wire.open(GET2, True)
            peer.wire.flush()
            if host is None:
                host = Peer(sidecar.host, True)
            for kind, number, *_ in host.seen():
                if kind == "head":
                    host.wire.head(host.wire.streams[number], OK2, True)
                    host.wire.flush()
            assert any((b":status", b"200") in one[2] for one in peer.seen() if one[0] == "head")
        shedding.refuse(1.0, None)
        for _ in range(3):
            peer.wire.open(GET2, True)
            peer.wire.flush()
            assert any((b":status", b"503") in one[2] for one in peer.seen() if one[0] == "head")
        assert sidecar.stat("http.in.downstream_rq_overload_close") == 3
        assert sidecar.stat("http2.streams_active") == 0


def test_http2_connections_are_asked_to_close_once() -> None:
    with speaking() as (sidecar, peer):
        shedding_of(sidecar).refuse(1.0, None)
        shedding_of(sidecar).close_connections(1.0)
        for _ in range(2):
            peer.wire.open(GET2, True)
            peer.wire.flush()
        kinds = peer.kinds()
        assert kinds.count("goaway") == 1
        assert sidecar.stat("http.in.downstream_cx_overload_disable_keepalive") == 1


def test_connections_without_a_request_are_left_unread(sidecar: Sidecar) -> None:
    shedding = shedding_of(sidecar)
    idle, busy = sidecar.client().send(GET), sidecar.client()
    sidecar.hosts[0].send(HELLO)
    idle.receive()
    busy.send(GET)
    shedding.stop_reading(True)
    idle.send(GET)
    (host,) = sidecar.hosts
    asked = host.receive()
    assert asked.count(b"GET / ") == 2  # of each client one, not what came since
    host.send(HELLO)
    assert busy.receive().endswith(b"hello")
    shedding.stop_reading(False)
    sidecar.loop.settle()
    host.send(HELLO)
    assert idle.receive().endswith(b"hello")


def test_idle_connections_end_sooner(sidecar: Sidecar) -> None:
    shedding = shedding_of(sidecar)
    client, silent = sidecar.client(), sidecar.client()
    answered(client)
    sidecar.advance(10)
    assert not client.closed
    shedding.scale_timers(1.0)
    sidecar.loop.settle()
    assert client.closed and silent.closed
    young = sidecar.client()
    answered(young)
    sidecar.advance(0.5)
    assert not young.closed
    sidecar.advance(0.6)
    assert young.closed
    old = sidecar.client()
    answered(old)
    shedding.scale_timers(0.0)
    sidecar.advance(100)
    assert not old.closed
    assert sidecar.manager.options.idle_timeout == 3600.0


def test_idle_streams_end_sooner_and_those_that_serve_again_forget_it(sidecar: Sidecar) -> None:
    shedding = shedding_of(sidecar, Timers(stream_idle=Shrinking(None, 0.03)))  # of 300 seconds
    client = sidecar.client()
    answered(client, 5)
    client.send(GET)
    shedding.scale_timers(1.0)
    sidecar.advance(5)
    shedding.scale_timers(1.0)
    assert client.receive() == b""
    sidecar.advance(5)
    shedding.scale_timers(1.0)
    assert client.receive().startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
    shedding.scale_timers(0.0)
    other = sidecar.client()
    other.send(GET)
    sidecar.advance(14)  # the route's own timeout is 15
    assert not other.closed and other.receive() == b""


def test_half_a_head_waits_no_longer_than_a_stream(sidecar: Sidecar) -> None:
    shedding = shedding_of(sidecar)
    client = sidecar.client().send(GET[:10])
    sidecar.advance(29)
    shedding.scale_timers(1.0)
    assert client.receive() == b""
    sidecar.advance(2)
    assert client.receive().startswith(b"HTTP/1.1 408 ")


def test_the_greediest_streams_are_reset(sidecar: Sidecar) -> None:
    shedding = shedding_of(sidecar)
    greedy, modest = sidecar.client(), sidecar.client()
    for client in (greedy, modest):
        client.send(GET)
    first, second = sidecar.hosts
    greedy.transport.room = 0
    first.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + bytes(300_000))
    second.send(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n")
    assert shedding_of(sidecar, least=1 << 20).reset_streams(1.0, 50) == 0
    assert shedding.reset_streams(1.0, 50) == 1
    sidecar.loop.settle()
    assert greedy.transport.closing and not modest.closed
    assert sidecar.log[-1].startswith("GET / HTTP/1.1 200 OM overload ")


def test_what_is_left_of_a_response_counts_too(sidecar: Sidecar) -> None:
    shedding = shedding_of(sidecar)
    client = sidecar.client()
    client.transport.room = 0
    client.send(GET)
    sidecar.host.send(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + bytes(300_000))
    assert client.protocol.stream is None
    assert shedding.reset_streams(1.0, 50) == 1
    assert client.transport.closing
    assert shedding.reset_streams(1.0, 50) == 0


def test_what_is_left_of_a_response_over_http2_counts_too() -> None:
    with speaking() as (sidecar, peer):
        shedding = shedding_of(sidecar)
        peer.wire.settings({4: 0})  # no window
        peer.wire.open(GET2, True)
        peer.wire.flush()
        host = Peer(sidecar.host, True)
        ((_, number, *_),) = [one for one in host.seen() if one[0] == "head"]
        host.wire.head(host.wire.streams[number], [(b":status", b"200")], False)
        host.wire.data(host.wire.streams[number], bytes(50_000), True)
        host.wire.flush()
        assert "reset" not in peer.kinds()
        assert shedding_of(sidecar, least=1 << 20).reset_streams(1.0, 50) == 0
        assert shedding.reset_streams(1.0, 50) == 1
        assert "reset" in peer.kinds()
        assert shedding.reset_streams(1.0, 50) == 0


def test_streams_that_hold_nothing_are_left_alone_over_http2_too() -> None:
    with speaking() as (sidecar, peer):
        peer.wire.open(GET2, True)
        peer.wire.flush()
        assert sidecar.stat("http2.streams_active") == 1
        assert shedding_of(sidecar).reset_streams(1.0, 50) == 0
        assert "reset" not in peer.kinds()


def test_timeouts_shrink_by_scale() -> None:
    assert Shrinking(2.0).at(0.0, 10.0) == 10.0
    assert Shrinking(2.0).at(0.5, 10.0) == 6.0
    assert Shrinking(2.0).at(1.0, 10.0) == 2.0
    assert Shrinking(20.0).at(1.0, 10.0) == 10.0
    assert Shrinking(None, 0.25).at(1.0, 8.0) == 2.0
    assert Shrinking(2.0).at(1.0, inf) == inf
    assert UNCHANGED.at(1.0, 8.0) == 8.0
