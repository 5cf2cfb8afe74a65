"""Streams and upstream requests that serve again: what the last request left behind, and what goes with a connection."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

import pytest

from sidecar.http.stream import Stream
from tests.sidecar.express.http2_run import Deed, Peers, with_http2_hosts
from tests.sidecar.express.test_http2_lane import both_ways, exchange, heads, plain_answer, request, served, traced
from tests.sidecar.http.http2_peer import Field
from tests.sidecar.http.running import GET, HELLO, TO_UP, Sidecar, bootstrap, log_to, running
from tests.sidecar.http.test_http2_timers import GET as ASK
from tests.sidecar.http.test_http2_timers import exchange as serve_once
from tests.sidecar.http.test_http2_timers import speaking

EVERYTHING = log_to(
    "/log",
    {
        "text_format_source": {
            "inline_string": "%UPSTREAM_CLUSTER% %ROUTE_NAME% %RESPONSE_CODE% %RESPONSE_FLAGS% %UPSTREAM_REQUEST_ATTEMPT_COUNT% "
            "%UPSTREAM_PROTOCOL% %UPSTREAM_HOST% %UPSTREAM_CONNECTION_ID% %REQ(:PATH)% %REQ(X-REQUEST-ID)%\n"
        }
    },
)
ELSEWHERE = {"match": {"prefix": "/"}, "route": {"cluster": "other"}}
ANSWERED = {"match": {"prefix": "/none"}, "direct_response": {"status": 404}}
BY_HEADER = {
    "match": {"prefix": "/b", "headers": [{"name": "cookie", "present_match": True}]},
    "route": {"cluster": "other"},
}


RETRIES = {"retry_on": "5xx", "num_retries": 1}
FAILED: tuple[Field, ...] = ((b":status", b"503"), (b"content-length", b""))


def in_turn(kinds: list[list[Deed]], clients: int) -> list[Deed]:
    """The deeds of all kinds, by each client, one kind after the other."""
    return [
        replace(deed, who=who) if deed.what == "ask" else deed
        for who in range(clients)
        for deeds in kinds
        for deed in deeds
    ]


@pytest.mark.parametrize("log", [[], [EVERYTHING]], ids=["no log", "log"])
@pytest.mark.parametrize("routes", [[TO_UP], [{"match": {"prefix": "/a"}, "route": {"cluster": "up"}}, ELSEWHERE]])
@pytest.mark.parametrize("client", ["nghttp2", None])
def test_a_connection_may_send_requests_of_many_kinds_in_turn(
    client: str | None, routes: list[dict[str, Any]], log: list[Any]
) -> None:
    config = with_http2_hosts(
        bootstrap(manager={"access_log": log}, routes=routes, clusters={"up": {}, "other": {}}), {}
    )
    kinds = [
        exchange(request(b"GET", b"/a"), plain_answer(1)),
        exchange(request(b"GET", b"/b", (b"x-one", b"1")), plain_answer(2)),
        exchange(traced(3), plain_answer(3)),
        served(4, request(b"GET", b"/a/b")),
        exchange(request(b"GET", b"/b", (b"x-one", b"2")), plain_answer(4)),
    ]
    both_ways(config, Peers((client, client), "nghttp2"), in_turn(kinds, 2) * 3)


@pytest.mark.parametrize("client", ["nghttp2", None])
def test_what_a_route_reads_later_is_read_of_streams_that_were_kept(client: str | None) -> None:
    """The first requests are kept with their connections while nobody looks at fields by name."""
    to_up = {"match": {"prefix": "/a"}, "route": {"cluster": "up"}}
    config = with_http2_hosts(
        bootstrap(routes=[to_up, BY_HEADER, ANSWERED, TO_UP], clusters={"up": {}, "other": {}}), {}
    )
    usual = [exchange(request(b"GET", b"/a", (b"cookie", b"c")), plain_answer(number)) for number in range(4)]
    looked_at = exchange(request(b"GET", b"/b", (b"cookie", b"c")), plain_answer(5))
    refused = [Deed("ask", 0, 0, request(b"GET", b"/none", (b"cookie", b"c")), "none")]
    deeds = in_turn(usual, 3) + in_turn([looked_at], 2) + in_turn([refused, *usual, looked_at, refused], 3)
    both_ways(config, Peers((client,) * 3, "nghttp2"), deeds)


def test_each_route_has_its_own_limits_where_all_lead_to_one_cluster() -> None:
    soon = {"match": {"prefix": "/soon"}, "route": {"cluster": "up", "timeout": "0.2s", "retry_policy": RETRIES}}
    late = {"match": {"prefix": "/"}, "route": {"cluster": "up", "timeout": "5s"}}
    config = with_http2_hosts(bootstrap(manager={"access_log": [EVERYTHING]}, routes=[soon, late]), {})
    kinds = [exchange(request(b"GET", path), plain_answer(1)) for path in (b"/soon", b"/late", b"/soon")]
    silent = [
        deed
        for path in (b"/soon", b"/late", b"/soon")
        for deed in (Deed("ask", 0, 0, request(b"GET", path), "none"), Deed("wait", size=300), Deed("wait", size=5000))
    ]
    failing = [
        deed
        for path in (b"/soon", b"/late", b"/soon")
        for deed in (
            *exchange(request(b"GET", b"/soon"), plain_answer(1)),
            *exchange(request(b"GET", path), FAILED),
            Deed("wait", size=100),
            exchange((), plain_answer(1))[1],
        )
    ]
    found = both_ways(
        config, Peers(("nghttp2",), "nghttp2"), [*kinds[0] * 3, *in_turn(kinds, 1) * 3, *failing, *silent]
    )
    statuses = [head[b":status"] for head in heads(found, 0) if b":status" in head]
    assert statuses[-9:-3] == [b"200", b"200", b"200", b"503", b"200", b"200"]
    assert statuses[-3:] == [b"504"] * 3


def test_one_exchange_of_a_client_serves_again_and_is_let_go_with_its_connection() -> None:
    with speaking() as (sidecar, client):
        host = serve_once(sidecar, client)
        kept: set[int] = set()
        for number in range(24):
            client.wire.open([*ASK, (b"x-request-id", b"%036d" % number)], True)
            client.wire.flush()
            (asked,) = [one for one in host.seen() if one[0] == "head"]
            stream = host.wire.streams[asked[1]]
            host.wire.head(stream, [(b":status", b"200"), (b"content-length", b"2")], False)
            host.wire.data(stream, b"ok", True)
            host.wire.flush()
            assert [one[-1] for one in client.seen() if one[0] == "data"]
            kept.add(id(client.end.protocol.spare))
        connection = client.end.protocol
        assert connection.codec.spare is not None
        assert connection.spare is not None
        assert len(kept) == 2  # None at first, and then always the same
        assert len(sidecar.dialer.made[0].protocol.codec.spare) == 1
        client.end.close()
        assert connection.spare is None


def _streams() -> int:
    return sum(type(one) is Stream for one in gc.get_objects())


def test_nothing_of_a_connection_outlives_it() -> None:
    with speaking() as (sidecar, client):
        host = serve_once(sidecar, client)
        for _ in range(8):
            client.wire.open(ASK, True)
            client.wire.flush()
            (asked,) = [one for one in host.seen() if one[0] == "head"]
            stream = host.wire.streams[asked[1]]
            host.wire.head(stream, [(b":status", b"200"), (b"content-length", b"2")], False)
            host.wire.data(stream, b"ok", True)
            host.wire.flush()
            assert "data" in client.kinds()
        gc.collect()
        gc.disable()
        try:
            assert client.end.protocol.spare.stream.request.values == ()
            before = _streams()
            client.end.close()
            assert _streams() == before - 1, "it is freed without the collector of circles"
        finally:
            gc.enable()


def test_routes_that_are_replaced_hold_for_connections_that_were_there() -> None:
    """Their shapes may have been forgotten by those who tell the others."""
    clusters: dict[str, dict[str, Any]] = {"up": {}, "other": {}}
    with running(routes=[TO_UP], clusters=clusters) as sidecar:
        client = sidecar.client()

        for _ in range(6):
            client.send(GET)
            ((host, _),) = sidecar.asked()
            host.send(HELLO)
            assert client.receive().endswith(b"hello")
        other = Sidecar(routes=[ELSEWHERE], clusters=clusters)
        sidecar.manager.routes.become(other.manager.routes)
        before = sidecar.stat("cluster.other.upstream_rq_total")
        client.send(GET)
        ((host, _),) = sidecar.asked()
        host.send(HELLO)
        assert sidecar.stat("cluster.other.upstream_rq_total") == before + 1
        other.end()


@pytest.mark.parametrize("generous", [False, True])
def test_streams_towards_hosts_are_no_more_than_were_open_at_a_time(generous: bool) -> None:
    """Whether a host gives the window of each request's body back before it answers, or not."""
    post = [(b":method", b"POST"), *ASK[1:], (b"content-length", b"5")]
    with speaking() as (sidecar, client):
        host = serve_once(sidecar, client)
        for _ in range(40):
            number = client.wire.open(post, False)
            client.wire.data(number, b"hello", True)
            client.wire.flush()
            (asked,) = [one for one in host.seen() if one[0] == "head"]
            stream = host.wire.streams[asked[1]]
            host.wire.give_back(0)
            if generous:
                host.wire.give_back(stream.id)
            host.wire.head(stream, [(b":status", b"200"), (b"content-length", b"2")], False)
            host.wire.data(stream, b"ok", True)
            host.wire.flush()
            assert "data" in client.kinds()
        assert len(sidecar.dialer.made[0].protocol.codec.spare) == generous
