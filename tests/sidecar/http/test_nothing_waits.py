"""What is done outside of a read of some connection leaves at once, too: nobody comes by to flush it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.sidecar.http.http2_peer import Http2Peer
from tests.sidecar.http.running import GET, HELLO, Sidecar, bootstrap, http_filter, running, user_filter
from tests.sidecar.http.test_http2_timers import GET as GET2
from tests.sidecar.http.test_http2_timers import Peer, over_http2
from tests.sidecar.http.test_user_filters import PausesRequest

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"
EVERYBODY = {"permissions": [{"any": True}], "principals": [{"any": True}]}
DENY = http_filter("rbac.v3.RBAC", rules={"action": "DENY", "policies": {"all": EVERYBODY}})
ACTIONS: list[tuple[str, Callable[[Any], object], str]] = [
    ("answers", lambda stream: stream.reply(418, b"short", details="teapot"), "418"),
    ("goes on to a filter that refuses", lambda stream: stream.resume_request(), "403"),
    ("resets", lambda stream: stream.reset("why"), ""),
]


def pausing() -> tuple[list[PausesRequest], Callable[[Any], PausesRequest]]:
    """What makes filters that pause each request, and those that it has made."""
    made: list[PausesRequest] = []

    def make(config: Any) -> PausesRequest:
        made.append(PausesRequest(config))
        return made[-1]

    return made, make


def paused(sidecar: Sidecar, made: list[PausesRequest], action: Callable[[Any], object]) -> None:
    """Do it to the stream that a filter has paused, as a task of the filter's own would."""
    (stream,) = made[-1].streams
    sidecar.loop.call_soon(action, stream)
    sidecar.loop.settle()


@pytest.mark.parametrize(("what", "action", "status"), ACTIONS, ids=[one[0] for one in ACTIONS])
@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
def test_what_a_users_filter_does_from_a_task_leaves(
    http2: bool, what: str, action: Callable[[Any], object], status: str
) -> None:
    made, make = pausing()
    with running(user_filters={"mine": make}, filters=[user_filter("mine"), DENY]) as sidecar:
        client = sidecar.client()
        if not http2:
            client.send(GET)
            paused(sidecar, made, action)
            assert client.receive().startswith(f"HTTP/1.1 {status} ".encode()) if status else client.closed
            return
        peer = Peer(client, False)
        peer.wire.open(GET2, True)
        peer.wire.flush()
        paused(sidecar, made, action)
        kinds = {one[0]: one for one in peer.seen()}
        if status:
            assert (b":status", status.encode()) in kinds["head"][2]
        else:
            assert "reset" in kinds


def test_100_continue_from_a_task_leaves() -> None:
    made, make = pausing()
    with running(user_filters={"mine": make}, filters=[user_filter("mine")]) as sidecar:
        client = sidecar.client().send(POST)
        paused(sidecar, made, lambda stream: stream.continue_request())
        assert client.receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.reset()


def test_the_place_of_a_mirrored_request_that_is_given_up_is_the_next_requests() -> None:
    mirror = {
        **over_http2({"max_concurrent_streams": 1}),
        "circuit_breakers": {"thresholds": [{"max_connections": 1}]},
    }
    routes = [
        {"match": {"prefix": "/real"}, "route": {"cluster": "mirror", "timeout": "0s"}},
        {
            "match": {"prefix": "/"},
            "route": {"cluster": "up", "timeout": "2s", "request_mirror_policies": [{"cluster": "mirror"}]},
        },
    ]
    config = bootstrap(routes=routes, clusters={"up": {}, "mirror": mirror})
    hosts = config["static_resources"]["clusters"][1]["load_assignment"]["endpoints"][0]["lb_endpoints"]
    del hosts[1:]
    with running(config) as sidecar:
        client = sidecar.client().send(GET)
        first, second = sidecar.hosts
        up, far = (first, second) if first.transport.written.startswith(b"GET") else (second, first)
        host = Peer(far, True)
        assert "head" in host.kinds()
        up.send(HELLO)
        assert client.receive().endswith(b"hello")
        waiting = sidecar.client().send(GET.replace(b" / ", b" /real "))
        assert host.kinds() == []
        client.close()
        sidecar.advance(2.5)
        assert host.kinds() == ["reset", "head"]
        answer(host.wire)
        assert waiting.receive().startswith(b"HTTP/1.1 200 ")


def answer(wire: Http2Peer) -> None:
    """To the newest request."""
    wire.head(wire.streams[max(wire.streams)], [(b":status", b"200"), (b"content-length", b"0")], True)
    wire.flush()
