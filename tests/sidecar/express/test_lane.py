"""What takes the express lane, and what the lane learns by itself."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.core import response_flags as flag
from sidecar.core.http_filter import HttpFilter
from sidecar.express.shape import Pace, cut, differing
from tests.sidecar.http.exchanges import USER_FILTERS
from tests.sidecar.http.running import (
    GET,
    HELLO,
    LOG,
    TO_UP,
    Sidecar,
    bootstrap,
    http_filter,
    log_to,
    running,
    user_filter,
)

_OLD_CLIENTS = bootstrap(manager={"http_protocol_options": {"accept_http_10": True, "default_host_for_http_10": "old"}})
_PLAIN = b"GET /items/%d HTTP/1.1\r\nHost: a\r\nUser-Agent: test\r\nX-Request-Id: %032d\r\n\r\n"


class Watch:
    """Counts what the lane is offered and what it takes."""

    def __init__(self, sidecar: Sidecar) -> None:
        self.sidecar = sidecar
        self.offered = self.taken = self.answered = 0
        lane = sidecar.manager.lane
        take = lane.take

        def watched(connection: Any, data: bytes) -> bool:
            self.offered += 1
            taken: bool = take(connection, data)
            self.taken += taken
            return taken

        lane.take = watched

    def exchange(self, client: Any, request: bytes, response: bytes = HELLO) -> bytes:
        """Send the request, let the host answer, and give the client's answer."""
        client.send(request)
        for host in self.sidecar.hosts:
            if host.receive():
                waiting = host.transport.protocol
                sink = waiting.sink
                host.send(response)
                kept = sink is not None and bool(sink.plan) and (sink.stream is None or sink.stream.downstream is None)
                self.answered += kept
        answer: bytes = client.receive()
        return answer


@pytest.fixture
def sidecar() -> Sidecar:
    return Sidecar()


def test_a_shape_is_known_after_two_requests(sidecar: Sidecar) -> None:
    watch = Watch(sidecar)
    client = sidecar.client()
    for number in range(10):
        assert watch.exchange(client, _PLAIN % (number, number)).endswith(b"\r\n\r\nhello")
    assert (watch.offered, watch.taken) == (10, 8)
    assert watch.answered >= 7  # the first of them teaches what becomes of the response
    other = sidecar.client()
    watch.exchange(other, _PLAIN % (1, 1))
    assert watch.taken == 9, "connections of one kind share what was learnt"


def test_fields_that_vary_are_found_out(sidecar: Sidecar) -> None:
    watch = Watch(sidecar)
    client = sidecar.client()
    for number in range(12):
        watch.exchange(client, b"GET / HTTP/1.1\r\nHost: a\r\nX-User: %03d\r\nX-Hop: %03d\r\n\r\n" % (number, number))
    assert watch.taken == 9
    assert {b"x-user", b"x-hop"} <= sidecar.manager.lane.volatile


def test_responses_that_vary_are_found_out(sidecar: Sidecar) -> None:
    watch = Watch(sidecar)
    client = sidecar.client()
    for number in range(12):
        answer = watch.exchange(
            client, _PLAIN % (1, 1), b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Served-By: %02d\r\n\r\nok" % number
        )
        assert b"x-served-by: %02d\r\n" % number in answer
    assert watch.answered >= 7


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, x-a\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nx-request-id: 1\r\nx-request-id: 2\r\n\r\n",
        b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_what_is_not_plain_goes_through_the_stages(request_bytes: bytes) -> None:
    sidecar = Sidecar(_OLD_CLIENTS)
    watch = Watch(sidecar)
    client = sidecar.client()
    for _ in range(5):
        watch.exchange(sidecar.client() if client.closed else client, request_bytes)
    assert watch.taken == 0


def test_the_first_request_teaches_once_another_connection_of_its_kind_has_come(sidecar: Sidecar) -> None:
    watch = Watch(sidecar)
    for number in range(6):
        client = sidecar.client()
        watch.exchange(client, _PLAIN % (number, number))
        client.close()
    assert (watch.offered, watch.taken) == (6, 4)
    assert watch.answered >= 3
    stranger = sidecar.client("10.1.2.3")
    watch.exchange(stranger, _PLAIN % (1, 1))
    assert not stranger.protocol.kind, "a client that comes once teaches nothing"


@pytest.mark.parametrize(
    ("request_bytes", "line"),
    [
        (b"GET /%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"HTTP/1.1 200 OK"),
        (b"GET /%d HTTP/1.1\r\nconnection: Close\r\nHost: a\r\n\r\n", b"HTTP/1.1 200 OK"),
        (b"GET /%d HTTP/1.0\r\nHost: a\r\n\r\n", b"HTTP/1.0 200 OK"),
        (b"GET /%d HTTP/1.0\r\nConnection: close\r\nHost: a\r\n\r\n", b"HTTP/1.0 200 OK"),
        (b"GET /%d HTTP/1.0\r\n\r\n", b"HTTP/1.0 200 OK"),
        (b"POST /%d HTTP/1.0\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody", b"HTTP/1.0 200 OK"),
    ],
)
def test_the_last_request_of_a_connection_takes_the_lane(request_bytes: bytes, line: bytes) -> None:
    sidecar = Sidecar(_OLD_CLIENTS)
    watch = Watch(sidecar)
    answers = set()
    for number in range(8):
        client = sidecar.client()
        answers.add(watch.exchange(client, request_bytes % number))
        assert client.closed
    assert watch.taken == 6
    assert watch.answered >= 5
    (answer,) = answers
    head, _, body = answer.partition(b"\r\n\r\n")
    assert (head.split(b"\r\n")[0], head.split(b"\r\n")[-1], body) == (line, b"connection: close", b"hello")


def test_requests_of_an_old_version_are_refused_wherever_they_are_not_served(sidecar: Sidecar) -> None:
    watch = Watch(sidecar)
    for _ in range(6):
        client = sidecar.client()
        client.send(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
        assert client.receive().startswith(b"HTTP/1.1 426 ")
    assert watch.taken == 0


def test_a_last_request_is_not_taken_for_another_of_its_size() -> None:
    sidecar = Sidecar(_OLD_CLIENTS)
    watch = Watch(sidecar)
    for _ in range(4):
        watch.exchange(sidecar.client(), b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
    assert watch.taken == 2
    client = sidecar.client()
    for _ in range(4):
        assert watch.exchange(client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").startswith(b"HTTP/1.1 200 OK\r\n")
        assert not client.closed
    for version in (b"1.2", b"2.0", b"1.00", b"1.0 "):
        client = sidecar.client()
        client.send(b"GET / HTTP/%b\r\nHost: a\r\n\r\n" % version)
        assert client.receive().startswith(b"HTTP/1.1 4"), version


@pytest.mark.parametrize(
    "more",
    [
        {"filters": [user_filter("marker")]},
        {"filters": [http_filter("buffer.v3.Buffer", max_request_bytes=100)]},
        {"manager": {"http_protocol_options": {"header_key_format": {"proper_case_words": {}}}}},
        {"manager": {"always_set_request_id_in_response": True}},
        {"manager": {"common_http_protocol_options": {"max_requests_per_connection": 5}}},
    ],
)
def test_configurations_without_a_lane(more: dict[str, Any]) -> None:
    assert Sidecar(bootstrap(**more), USER_FILTERS).manager.lane is None


@pytest.mark.parametrize(
    "route",
    [
        {**TO_UP, "request_headers_to_add": [{"header": {"key": "x-a", "value": "b"}}]},
        {**TO_UP, "route": {"cluster": "up", "prefix_rewrite": "/x"}},
        {**TO_UP, "route": {"cluster_header": "x-cluster"}},
        {"match": {"prefix": "/"}, "direct_response": {"status": 200}},
    ],
)
def test_routes_that_do_more_than_forward_are_left_in_time(route: dict[str, Any]) -> None:
    sidecar = Sidecar(routes=[route])
    watch = Watch(sidecar)
    client = sidecar.client()
    request = b"GET /a HTTP/1.1\r\nHost: a\r\nx-cluster: up\r\n\r\n"
    first = watch.exchange(client, request)
    assert first.startswith(b"HTTP/1.1 200 ")
    for _ in range(5):
        assert watch.exchange(client, request) == first
    assert watch.taken == 4
    assert watch.answered == 0


def test_a_body_that_comes_with_its_head_takes_the_lane(sidecar: Sidecar) -> None:
    watch = Watch(sidecar)
    client = sidecar.client()
    for number in range(6):
        watch.exchange(client, b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nbody%d" % (number, number))
    assert watch.taken == 4
    assert bytes(sidecar.host.transport.written).endswith(b"\r\n\r\nbody5")
    client.send(b"POST /6 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
    assert watch.taken == 4, "a body that is still to come is not waited for"


def test_secrets_are_in_no_shape(sidecar: Sidecar) -> None:
    watch = Watch(sidecar)
    client = sidecar.client()
    for number in range(5):
        watch.exchange(
            client,
            b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer s%d\r\nCookie: key=s%d\r\n\r\n" % (number, number),
        )
    assert watch.taken == 3
    (shape,) = client.protocol.kind.values()
    assert not any(b"s0" in piece or b"s1" in piece for piece in (*shape.constants, *shape.lines))
    (stream,) = shape.idle
    assert (stream.request.values, stream.request.index, stream.response) == ((), {}, None)
    request = stream.upstream
    assert request.plan in shape.plans.values()
    assert request.head is None or request.head.values == ()


def test_shapes_are_bounded(sidecar: Sidecar) -> None:
    lane = sidecar.manager.lane
    client = sidecar.client()
    Watch(sidecar).exchange(client, GET)
    connection = client.protocol
    for number in range(1100):
        connection.now = float(number)
        lane.learn(connection, b"GET / HTTP/1.1\r\nHost: a\r\nX: %b\r\n\r\n" % (b"x" * (1 + number)))
    assert 0 < sum(map(len, lane.kinds.values())) <= 1024


def test_what_connections_hold_of_forgotten_kinds_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.express.request._KINDS", 4)
    monkeypatch.setattr("sidecar.express.request._SHAPES", 8)
    monkeypatch.setattr("sidecar.express.shape._LEARNT_A_SECOND", 1000)
    sidecar = Sidecar()
    watch = Watch(sidecar)
    clients = [sidecar.client(f"10.0.0.{number}") for number in range(20)]
    for size in range(6):
        for client in clients:
            watch.exchange(client, b"GET / HTTP/1.1\r\nHost: a\r\nX-%b: 1\r\n\r\n" % (b"a" * size))
            kinds = {id(one.protocol.kind): one.protocol.kind for one in clients if one.protocol.version}
            assert sum(map(len, kinds.values())) <= 8
            assert len(sidecar.manager.lane.kinds) <= 4
    assert watch.taken == 0
    for _ in range(4):
        watch.exchange(clients[0], GET)
    assert watch.taken == 3, "a connection whose kind is forgotten may still be known again"


def test_learning_has_a_pace() -> None:
    pace = Pace()
    assert sum(pace.permits(1000.0) for _ in range(1000)) == 32
    assert pace.permits(1001.0)


def test_a_cut_opens_fields_of_a_plain_form_only() -> None:
    head = b" HTTP/1.1\r\nHost: a\r\nCookie: a=b; c=d\r\n\r\n"
    opened = cut(head, {b"cookie"})
    assert opened is not None
    assert opened.constants == (b" HTTP/1.1\r\nHost: a\r\nCookie: ", b"\r\n\r\n")
    assert opened.size == len(head)
    assert opened.accepts((b"x=y; z=t",))
    for value in (
        b" =y; z=t",
        b"x=y; z= ",
        b"x=y;z==t",
        b"x=y;\tz=t",
        b"x=y; \r\nA",
        b"x=y; z=\xff",
        b"x=y; z=\n",
        b"\nx=y z=t",
    ):
        assert not opened.accepts((value,)), value
    for line in (b"Cookie:a=b", b"Cookie:  a=b", b"Cookie: ", b"Cookie: a\tb", b"Cookie: a\xff"):
        assert cut(b" HTTP/1.1\r\n" + line + b"\r\n\r\n", {b"cookie"}) is None, line
    assert cut(b" HTTP/1.1\r\nCookie: a\r\nCookie: b\r\n\r\n", {b"cookie"}) is None


def test_values_do_not_run_into_each_other() -> None:
    opened = cut(b"x\r\nEtag: a b\r\nDate: c\r\n\r\n", {b"etag", b"date"})
    assert opened is not None
    assert opened.accepts((b"d e", b"f"))
    for values in ((b"def", b" f"), (b"d\ne", b"f"), (b"de ", b"f"), (b"d e", b"\n")):
        assert not opened.accepts(values), values


def test_only_fields_that_nothing_decides_by_may_vary() -> None:
    assert differing([b"A: 1", b"Host: a", b"x-envoy-x: 1"], [b"A: 2", b"Host: b", b"x-envoy-x: 2"], 0) == {b"a"}
    assert differing([b"A: 1"], [b"B: 1"], 0) == set()
    assert differing([b"A: 1"], [b"A: 2"], 256) == set()


class Meddling(HttpFilter):
    """Changes what is no field, as its configuration says, and promises not to keep streams."""

    keeps_streams = False

    def __init__(self, config: Any) -> None:
        self.what = config["what"]

    def on_request(self, stream: Any, end: bool) -> bool | None:
        if stream.request.path != b"/odd":
            return None
        match self.what:
            case "path":
                stream.request.path = b"/changed"
            case "authority":
                stream.request.authority = b"changed"
            case "method":
                stream.request.method = b"PATCH"
            case "scheme":
                stream.request.scheme = b"https"
            case "stream":
                stream.response_flags |= flag.FAULT_INJECTED
                stream.upstream_failure_reason = "meddling"
                stream.request_id = b"own"
        return None


@pytest.mark.parametrize("what", ["path", "authority", "method", "scheme", "stream"])
def test_what_a_filter_changes_besides_fields_holds_for_its_request_alone(what: str) -> None:
    formats = "%REQ(:METHOD)% %REQ(:PATH)% %REQ(:AUTHORITY)% %REQ(:SCHEME)% %RESPONSE_FLAGS% %STREAM_ID% " + (
        "%UPSTREAM_TRANSPORT_FAILURE_REASON%\n"
    )
    log = log_to(LOG, {"text_format_source": {"inline_string": formats}})
    seen = []
    for lane in (True, False):
        with running(
            None, {"meddling": Meddling}, manager={"access_log": [log]}, filters=[user_filter("meddling", what=what)]
        ) as sidecar:
            if not lane:
                sidecar.manager.lane = None
            client = sidecar.client()
            for path in (b"/a", b"/b", b"/c", b"/odd", b"/d", b"/e"):
                client.send(b"GET %b HTTP/1.1\r\nHost: a\r\nX-Request-Id: 1\r\n\r\n" % path)
                sidecar.host.receive()
                sidecar.host.send(HELLO)
            seen.append((bytes(sidecar.host.transport.written), sidecar.log))
    assert seen[0] == seen[1]


def test_query_parameters_that_a_filter_changes_go_upstream() -> None:
    mutations = [{"append": {"record": {"key": "added", "value": "1"}}}]
    with running(
        filters=[http_filter("header_mutation.v3.HeaderMutation", mutations={"query_parameter_mutations": mutations})]
    ) as sidecar:
        watch = Watch(sidecar)
        client = sidecar.client()
        for _ in range(5):
            watch.exchange(client, b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
        assert watch.taken == 3
        assert bytes(sidecar.host.transport.written).count(b"GET /a?added=1 HTTP/1.1\r\n") == 5


@pytest.mark.parametrize("limit", [{"max_headers_count": 2}, {"max_response_headers_kb": 1}])
def test_responses_over_the_limits_are_not_learnt(limit: dict[str, int]) -> None:
    options = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "common_http_protocol_options": limit,
            "explicit_http_config": {"http_protocol_options": {}},
        }
    }
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: %b\r\nX-B: 2\r\n\r\nok" % (b"a" * 2000)
    with running(clusters={"up": {"typed_extension_protocol_options": options}}) as sidecar:
        client = sidecar.client()
        for number in range(8):
            if number in (2, 3, 4):  # with these the connection serves twice, and might learn of the next answer
                client.send(GET)
                ((host, _),) = sidecar.asked()
                host.send(HELLO)
                client.receive()
            client.send(GET)
            ((host, _),) = sidecar.asked()
            host.send(answer)
            assert client.receive().startswith(b"HTTP/1.1 502 "), number


def test_a_header_condition_on_a_list_does_not_leave_the_lane() -> None:
    headers = [{"name": "accept", "string_match": {"contains": "html"}}]
    with running(routes=[{"match": {"prefix": "/", "headers": headers}, "route": {"cluster": "up"}}]) as sidecar:
        watch = Watch(sidecar)
        client = sidecar.client()
        for _ in range(6):
            watch.exchange(client, b"GET / HTTP/1.1\r\nHost: a\r\nAccept: text/html, */*\r\n\r\n")
        assert watch.taken == 4
        assert watch.answered >= 3
