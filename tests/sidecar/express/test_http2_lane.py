"""What takes the express lane where HTTP/2 is spoken, what the lane keeps of it, and what it may not change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from sidecar.codec import http2_frames as wire
from sidecar.codec.http2_client import ClientConnection
from sidecar.codec.http2_server import ServerConnection
from sidecar.http.http2_connection import Http2Connection
from sidecar.pool.http2_connection import Http2Connection as HostConnection
from tests.sidecar.express.changing import GOOD, jwt, token
from tests.sidecar.express.http2_run import OPTIONS, Deed, Peers, Run, outcome, with_http2_hosts
from tests.sidecar.express.test_lane import Meddling
from tests.sidecar.http.exchanges import OPERATORS
from tests.sidecar.http.http2_peer import Field, PeerEncoder
from tests.sidecar.http.running import LOG, TO_UP, bootstrap, http_filter, log_to, user_filter
from tests.sidecar.http.test_http2_timers import exchange as serve_once
from tests.sidecar.http.test_http2_timers import speaking
from tests.sidecar.http.ways import differences

HTTP2 = with_http2_hosts(bootstrap(), {})


class Counts:
    """How many requests began on the lane (``taken``), how many heads took it to hosts (``sent``) and to clients
    (``answered``), and how many blocks were known without decoding them (``known``, ``known_answers``)."""

    def __init__(self) -> None:
        self.taken = self.sent = self.answered = self.known = self.known_answers = 0


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    found = Counts()

    def count(owner: type, method: str, name: str) -> None:
        original = getattr(owner, method)

        def counted(*arguments: Any) -> Any:
            result = original(*arguments)
            taken = result is not None if method == "on_known" else result is None or bool(result)
            setattr(found, name, getattr(found, name) + taken)
            return result

        monkeypatch.setattr(owner, method, counted)

    for method in ("on_laid_out", "on_known"):
        count(Http2Connection, method, "taken")
    for method in ("open_block", "open_message"):
        count(ClientConnection, method, "sent")
    for method in ("send_block", "send_message"):
        count(ServerConnection, method, "answered")
    count(Http2Connection, "on_known", "known")
    count(HostConnection, "on_known", "known_answers")
    return found


def request(method: bytes, path: bytes, *fields: Field) -> tuple[Field, ...]:
    return ((b":method", method), (b":scheme", b"http"), (b":path", path), (b":authority", b"a"), *fields)


def traced(number: int) -> tuple[Field, ...]:
    return request(
        b"GET", b"/items/%d" % number, (b"user-agent", b"test"), (b"authorization", b"Bearer s%d" % number),
        (b"x-request-id", b"%032d" % number), (b"cookie", b"key=s%d" % number),
    )  # fmt: skip


def plain_answer(number: int) -> tuple[Field, ...]:
    date = b"Sun, 22 Nov 2026 19:15:%02d GMT" % (number % 60)
    return (
        (b":status", b"200"),
        (b"server", b"x"),
        (b"date", date),
        (b"content-type", b"text/plain"),
        (b"content-length", b""),
    )


def exchange(fields: tuple[Field, ...], answer: tuple[Field, ...], body: str = "none", size: int = 5) -> list[Deed]:
    kind = "trailers" if b"application/grpc" in dict(answer).values() else "whole"
    return [Deed("ask", 0, 0, fields, body, size), Deed("answer", 0, 0, answer, kind, 5)]


def both_ways(
    config: dict[str, Any], peers: Peers, deeds: list[Deed], filters: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The outcome with the lane, when it is the same without."""
    found = outcome(config, "127.0.0.1", peers, deeds, lane=True, filters=filters)
    expected = outcome(config, "127.0.0.1", peers, deeds, lane=False, filters=filters)
    assert not (seen := differences(expected, found)), "\n".join(seen)
    return found


def heads(found: dict[str, Any], of: int) -> list[dict[bytes, bytes]]:
    """The heads that one of the peers saw, in the order in which they were made."""
    return [
        {field[0]: field[1] for field in event[2]}
        for step in found["seen"]
        if step[0] != "ended"
        for number, seen in step
        if number == of
        for event in seen[0]
        if event[0] == "head"
    ]


def test_the_last_request_of_a_connection_takes_the_lane_to_hosts_of_http2(counts: Counts) -> None:
    last = [
        replace(deed, who=who) if deed.what == "ask" else deed
        for who in range(6)
        for deed in exchange(request(b"GET", b"/items/%d" % who, (b"connection", b"close")), plain_answer(who))
    ]
    found = both_ways(HTTP2, Peers((None,) * 6, PeerEncoder.STYLES[0]), last)
    assert counts.sent == 4
    answers = [seen for step in found["seen"] if step[0] != "ended" for number, seen in step if number == 0]
    assert any(b"\r\nconnection: close\r\n\r\n" in sent and closed for sent, closed in answers)


@pytest.mark.parametrize("style", PeerEncoder.STYLES)
def test_plain_requests_take_the_lane_however_their_headers_are_written(counts: Counts, style: str) -> None:
    run = Run(HTTP2, "127.0.0.1", Peers((style,), style), lane=True)
    for number in range(20):
        for deed in exchange(traced(number), plain_answer(number)):
            run.do(deed)
    assert counts.taken == 20
    assert counts.sent >= 17  # the first waits for its connection, some meet fields that are about to be indexed
    assert counts.answered >= 16
    run.outcome()


@pytest.mark.parametrize("style", ["nghttp2", "nothing"])
def test_blocks_that_differ_in_what_varies_are_not_decoded(counts: Counts, style: str) -> None:
    run = Run(HTTP2, "127.0.0.1", Peers((style,), style), lane=True)
    answer = ((b":status", b"200"), (b"content-length", b""), (b"etag", b"e"))
    for number in range(20):
        for deed in exchange(request(b"GET", b"/%d" % number, (b"authorization", b"s%d" % number)), answer):
            run.do(deed)
    assert counts.known >= 15
    assert counts.known_answers >= 12
    run.outcome()


def test_blocks_of_a_client_whose_like_is_known_are_not_decoded_either(counts: Counts) -> None:
    """Its lists are laid out already, so that no head is made of the first of them."""
    run = Run(HTTP2, "127.0.0.1", Peers(("sidecar", "sidecar"), "nothing"), lane=True)
    for who in (0, 1):
        for number in range(20):
            for deed in exchange(traced(number), plain_answer(0)):
                run.do(replace(deed, who=who) if deed.what == "ask" else deed)
        assert counts.known >= 17 * (who + 1)
    run.outcome()


def served(number: int, fields: tuple[Field, ...]) -> list[Deed]:
    """An exchange with a host that says how long it took, as another sidecar does, and whose bodies differ in length."""
    answer = ((b":status", b"200"), (b"content-length", b""), (b"x-envoy-upstream-service-time", b"%d" % number))
    ask, answered = exchange(fields, (*answer, (b"etag", b"e%d" % (number // 3))))
    return [ask, replace(answered, size=5 + number % 4)]


@pytest.mark.parametrize("client", ["sidecar", None])
def test_whole_answers_of_a_sidecar_are_not_decoded(counts: Counts, client: str | None) -> None:
    """What took the other one how long is replaced by what took us, wherever it stands."""
    config = with_http2_hosts(bootstrap(manager={"access_log": [EVERYTHING]}), {})
    deeds = [deed for number in range(20) for deed in served(number, traced(number))]
    found = both_ways(config, Peers((client,), "sidecar"), deeds)
    assert counts.known_answers >= 15
    if client is not None:
        times = [head[b"x-envoy-upstream-service-time"] for head in heads(found, 0) if b":status" in head]
        assert len(times) == 20
        assert set(times) == {b"0"}


def test_a_service_time_that_is_not_replaced_is_the_hosts(counts: Counts) -> None:
    config = with_http2_hosts(bootstrap(), {})
    (http,) = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
    http["typed_config"]["http_filters"][-1]["typed_config"]["suppress_envoy_headers"] = True
    deeds = [deed for number in range(20) for deed in served(number, traced(number))]
    found = both_ways(config, Peers(("sidecar",), "sidecar"), deeds)
    assert counts.known_answers >= 15
    times = [head[b"x-envoy-upstream-service-time"] for head in heads(found, 0) if b":status" in head]
    assert times == [b"%d" % number for number in range(20)]


@pytest.mark.parametrize("clients", [("nghttp2",), (None,)])
@pytest.mark.parametrize("host", ["nghttp2", None])
def test_either_side_may_speak_http1(counts: Counts, clients: tuple[str | None], host: str | None) -> None:
    run = Run(HTTP2 if host else bootstrap(), "127.0.0.1", Peers(clients, host), lane=True)
    for number in range(10):
        for deed in exchange(traced(number), plain_answer(number)):
            run.do(deed)
    if clients[0]:
        assert counts.taken == 10
    if host:
        assert counts.sent >= 6
    assert bool(counts.answered) == bool(clients[0])
    run.outcome()


def test_tokens_that_go_no_further_and_claims_that_do_stay_in_the_lane(counts: Counts) -> None:
    claims = [{"header_name": "x-claimed", "claim_name": "sub"}]
    config = with_http2_hosts(bootstrap(filters=[jwt(claim_to_headers=claims)]), {})
    run = Run(config, "127.0.0.1", Peers(("nghttp2",), "nghttp2"), lane=True)
    bearers = [GOOD, GOOD, token("u1"), token("u2")] * 5 + [token(key="two"), GOOD, token(until=1_000_000_000), GOOD]
    for bearer in bearers:
        for deed in exchange(request(b"GET", b"/x", (b"authorization", bearer)), plain_answer(1)):
            run.do(deed)
    for deed in exchange(request(b"GET", b"/x", (b"authorization", GOOD), (b"x-claimed", b"u9")), plain_answer(1)):
        run.do(deed)
    assert counts.taken == 25
    assert counts.sent >= 17
    found = run.outcome()
    passed = [head for head in heads(found, 1) if b":path" in head]
    assert [head[b"x-claimed"] for head in passed] == [b"u0", b"u0", b"u1", b"u2"] * 5 + [b"u0"] * 3
    assert not any(b"authorization" in head for head in passed)
    statuses = [head[b":status"] for head in heads(found, 0) if b":status" in head]
    assert statuses == [b"200"] * 20 + [b"401", b"200", b"401", b"200", b"200"]


GRPC = ((b"te", b"trailers"), (b"content-type", b"application/grpc"), (b"grpc-timeout", b"1S"))
GRPC_ANSWER = ((b":status", b"200"), (b"content-type", b"application/grpc"), (b"grpc-encoding", b"identity"))


def test_unary_grpc_calls_take_the_lane(counts: Counts) -> None:
    run = Run(HTTP2, "127.0.0.1", Peers(("nghttp2",), "nghttp2"), lane=True)
    for _ in range(20):
        for deed in exchange(request(b"POST", b"/shop.Items/Get", *GRPC), GRPC_ANSWER, "whole"):
            run.do(deed)
    assert counts.taken == 20
    assert counts.sent >= 17
    assert counts.answered >= 16
    statuses = [head for head in heads(run.outcome(), 0) if head.get(b"grpc-status") == b"0"]
    assert len(statuses) == 20


@pytest.mark.parametrize("logged", [True, False])
@pytest.mark.parametrize(
    ("trailers", "successes"),
    [
        ("trailers", 20),
        ("ends unavailable", 0),
        ("ends not found", 20),
        ("ends without a status", 0),
    ],
)
def test_hosts_are_judged_by_how_calls_end(counts: Counts, logged: bool, trailers: str, successes: int) -> None:
    config = with_http2_hosts(bootstrap() if logged else bootstrap(manager={"access_log": []}), {})
    call = request(b"POST", b"/shop.Items/Get", (b"te", b"trailers"), (b"content-type", b"application/grpc"))
    answer = ((b":status", b"200"), (b"content-type", b"application/grpc"))
    deeds = [Deed("ask", fields=call, body="whole", size=9), Deed("answer", fields=answer, body=trailers, size=9)] * 20
    run = Run(config, "127.0.0.1", Peers(("nghttp2",), "nghttp2"), lane=True)
    for deed in deeds:
        run.do(deed)
    assert counts.known_answers >= 15
    ((host,),) = (cluster.hosts for cluster in run.sidecar.stack.clusters.clusters.values())
    assert (host.rq_success, host.rq_error) == (successes, 20 - successes)
    run.outcome()
    both_ways(config, Peers(("nghttp2",), "nghttp2"), deeds)


def contents(found: Any, seen: set[int]) -> Iterator[bytes]:
    """Every bytes object that can be reached through containers and through what the lane makes and keeps."""
    if id(found) in seen:
        return
    seen.add(id(found))
    if isinstance(found, bytes):
        yield found
    elif isinstance(found, (list, tuple, set, frozenset)):
        for each in found:
            yield from contents(each, seen)
    elif isinstance(found, dict):
        for name, value in found.items():
            yield from contents(name, seen)
            yield from contents(value, seen)
    elif type(found).__module__.startswith("sidecar.express") or type(found).__name__ in ("Stream", "UpstreamRequest"):
        for base in type(found).__mro__:
            for slot in getattr(base, "__slots__", ()):
                with suppress(AttributeError):  # one that was never set
                    yield from contents(vars(base)[slot].__get__(found), seen)


def test_secrets_are_in_no_shape_nor_render(counts: Counts) -> None:
    run = Run(HTTP2, "127.0.0.1", Peers(("nghttp2",), "nghttp2"), lane=True)
    for number in range(12):
        answer = (*plain_answer(number), (b"set-cookie", b"key=s%d" % number))
        for deed in exchange(traced(number), answer):
            run.do(deed)
    assert counts.answered >= 8
    manager = run.sidecar.manager
    (connection,) = run.sidecar.stack.clusters.clusters["up"].hosts[0].pool.http2.all
    client = run.sidecar.clients[0].protocol
    assert connection.renders
    assert client.renders
    kept = [manager.lane.kinds, manager.lane.responses, manager.lane.volatile, connection.renders, client.renders]
    texts = list(contents(kept, set()))
    assert b"user-agent" in texts
    assert not [text for text in texts if b"s1" in text or b"key=" in text or b"Bearer" in text]
    run.outcome()


def test_shapes_of_requests_are_bounded() -> None:
    run = Run(HTTP2, "127.0.0.1", Peers(("nothing",), "nothing"), lane=True)
    lane = run.sidecar.manager.lane
    most = 0
    for number in range(1200):
        for deed in exchange(request(b"GET", b"/", (b"x-%d" % number, b"1")), plain_answer(1)):
            run.do(deed)
        run.sidecar.loop.now += 0.1  # learning has a pace
        most = max(most, sum(map(len, lane.kinds.values())))
    assert most == 1024
    run.outcome()


def test_what_connections_hold_of_forgotten_kinds_is_bounded_too(
    counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.express.request._KINDS", 4)
    monkeypatch.setattr("sidecar.express.request._SHAPES", 8)
    monkeypatch.setattr("sidecar.express.shape._LEARNT_A_SECOND", 1000)
    run = Run(HTTP2, "127.0.0.1", Peers(("nothing",) * 12, "nghttp2"), lane=True)
    for number in range(12):
        run.remote = f"10.0.0.{number}"
        run.client(number)
    lane: Any = run.sidecar.manager.lane
    for which in range(6):
        for number in range(12):
            fields = request(b"GET", b"/", (b"x-field-%d" % which, b"1"))
            for deed in exchange(fields, plain_answer(number)):
                run.do(replace(deed, who=number) if deed.what == "ask" else deed)
            kinds = {id(one.protocol.kind): one.protocol.kind for one in run.sidecar.clients if one.protocol.version}
            assert sum(map(len, kinds.values())) <= 8
            assert len(lane.kinds) <= 4
    before = counts.taken
    for _ in range(4):
        for deed in exchange(traced(0), plain_answer(0)):
            run.do(deed)
    assert counts.taken == before + 4
    protocol = run.sidecar.clients[0].protocol
    assert protocol.codec.layouts is protocol.kind
    assert any(protocol.kind is kind for kind in lane.kinds.values())
    run.outcome()


def test_a_closed_lane_learns_nothing_of_http2() -> None:
    run = Run(HTTP2, "127.0.0.1", Peers(("nghttp2",), "nghttp2"), lane=True)
    lane: Any = run.sidecar.manager.lane
    lane.close()
    for number in range(5):
        for deed in exchange(traced(number), plain_answer(number)):
            run.do(deed)
    assert not any(lane.kinds.values())
    run.outcome()


def test_shapes_of_responses_and_renders_are_bounded() -> None:
    run = Run(HTTP2, "127.0.0.1", Peers(("nothing",), "nothing"), lane=True)
    lane = run.sidecar.manager.lane
    shapes = renders = renders_of_host = 0
    for number in range(600):
        for fields in (request(b"GET", b"/"), request(b"GET", b"/", (b"x-%d" % (number // 2), b"1"))):
            for deed in exchange(fields, ((b":status", b"200"), (b"y-%d" % (number // 2), b"1"), (b"date", b"now"))):
                run.do(deed)
        run.sidecar.loop.now += 0.1
        (connection,) = run.sidecar.stack.clusters.clusters["up"].hosts[0].pool.http2.all
        shapes = max(shapes, sum(len(each.http2) for each in lane.responses.values()))
        renders = max(renders, len(run.sidecar.clients[0].protocol.renders))
        renders_of_host = max(renders_of_host, len(connection.renders))
    assert shapes == 256
    assert 100 < renders <= 256
    assert 100 < renders_of_host <= 256
    run.outcome()


def test_fields_that_turn_out_to_vary_are_bounded() -> None:
    run = Run(HTTP2, "127.0.0.1", Peers(("nothing",), "nothing"), lane=True)
    manager = run.sidecar.manager
    before = len(manager.lane.volatile)
    for number in range(400):
        for value in (b"a", b"b"):
            fields = request(b"GET", b"/", *((b"x-%d-%d" % (number, each), value) for each in range(3)))
            for deed in exchange(fields, plain_answer(0)):
                run.do(deed)
        run.sidecar.loop.now += 0.2
    assert before < len(manager.lane.volatile) <= 256 + 3
    run.outcome()


def test_learning_has_a_pace(counts: Counts) -> None:
    run = Run(HTTP2, "127.0.0.1", Peers(("nothing",), "nothing"), lane=True)
    for number in range(100):
        for deed in exchange(request(b"GET", b"/", (b"x-%d" % number, b"1")), plain_answer(number)):
            run.do(deed)
    assert counts.taken == 32
    run.outcome()


@pytest.mark.parametrize("what", ["path", "authority", "method", "scheme", "stream"])
@pytest.mark.parametrize("host", ["nghttp2", None])
def test_what_a_filter_changes_holds_for_its_request_alone(what: str, host: str | None) -> None:
    formats = "%REQ(:METHOD)% %REQ(:PATH)% %REQ(:AUTHORITY)% %REQ(:SCHEME)% %RESPONSE_FLAGS% %STREAM_ID% " + (
        "%UPSTREAM_TRANSPORT_FAILURE_REASON%\n"
    )
    config = bootstrap(
        manager={"access_log": [log_to(LOG, {"text_format_source": {"inline_string": formats}})]},
        filters=[user_filter("meddling", what=what)],
    )
    deeds = []
    for path in (b"/a", b"/b", b"/c", b"/odd", b"/d", b"/e"):
        deeds += exchange(request(b"GET", path, (b"x-request-id", b"1")), plain_answer(0))
    config = with_http2_hosts(config, {}) if host else config
    both_ways(config, Peers(("nghttp2",), host), deeds, {"meddling": Meddling})


def test_what_filters_add_goes_upstream(counts: Counts) -> None:
    mutations = {
        "query_parameter_mutations": [{"append": {"record": {"key": "added", "value": "1"}}}],
        "request_mutations": [{"append": {"header": {"key": "x-path", "value": "%REQ(:PATH)%"}}}],
    }
    config = bootstrap(filters=[http_filter("header_mutation.v3.HeaderMutation", mutations=mutations)])
    deeds: list[Deed] = []
    for number in range(5):
        deeds += exchange(traced(number), plain_answer(number))
    found = both_ways(with_http2_hosts(config, {}), Peers(("nghttp2",), "nghttp2"), deeds)
    assert counts.taken == 5
    assert [head[b":path"] for head in heads(found, 1)] == [b"/items/%d?added=1" % number for number in range(5)]
    assert all(head[b"x-path"].startswith(b"/items/") for head in heads(found, 1))


def with_common_options(config: dict[str, Any], **options: Any) -> dict[str, Any]:
    for cluster in config["static_resources"]["clusters"]:
        cluster["typed_extension_protocol_options"][OPTIONS]["common_http_protocol_options"] = options
    return config


@pytest.mark.parametrize("style", PeerEncoder.STYLES)
@pytest.mark.parametrize(
    "limit", [{"common_http_protocol_options": {"max_headers_count": 9}}, {"max_request_headers_kb": 1}]
)
def test_limits_of_requests_still_bind(counts: Counts, style: str, limit: dict[str, Any]) -> None:
    config = with_http2_hosts(bootstrap(manager=limit), {"override_stream_error_on_invalid_http_message": True})
    deeds: list[Deed] = []
    for number in range(5):
        deeds += exchange(traced(number), plain_answer(number))
    large = (*traced(7)[:-1], (b"cookie", b"a=" + b"b" * 1100), (b"x-a", b"1"), (b"x-b", b"1"))
    for _ in range(4):
        deeds += exchange(large, plain_answer(7))
    found = both_ways(config, Peers((style,), "nghttp2"), deeds)
    assert len(heads(found, 1)) == 5, "those within the limits"
    assert counts.taken >= 5


@pytest.mark.parametrize("style", PeerEncoder.STYLES)
@pytest.mark.parametrize("limit", [{"max_headers_count": 7}, {"max_response_headers_kb": 1}])
def test_limits_of_responses_still_bind(counts: Counts, style: str, limit: dict[str, Any]) -> None:
    config = with_common_options(with_http2_hosts(bootstrap(), {}), **limit)
    deeds: list[Deed] = []
    for number in range(5):
        deeds += exchange(traced(number), plain_answer(number))
    large = (*plain_answer(7), (b"etag", b"e" * 1100), (b"x-a", b"1"), (b"x-b", b"1"))
    for _ in range(3):
        deeds += exchange(traced(7), large)
    found = both_ways(config, Peers(("nghttp2",), style), deeds)
    statuses = [head[b":status"] for head in heads(found, 0)]
    assert statuses[:5] == [b"200"] * 5
    assert len(statuses) == 8
    assert b"200" not in statuses[5:]
    assert counts.answered


RETRIES = {"retry_on": "5xx,reset,refused-stream", "num_retries": 2}
EVERYTHING = log_to(
    LOG,
    {
        "text_format_source": {
            "inline_string": " ".join(f"%{one}%" for one in OPERATORS if one != "DOWNSTREAM_HEADER_BYTES_SENT")
        }
    },
)


@pytest.mark.parametrize(
    "odd",
    [
        [
            Deed("ask", 0, 0, request(b"POST", b"/", *GRPC), "trailers", 900),
            Deed("answer", 0, 0, GRPC_ANSWER, "trailers", 700),
        ],
        [Deed("ask", 0, 0, request(b"POST", b"/", *GRPC), "later"), Deed("answer", 0, 0, GRPC_ANSWER, "trailers", 1)],
        [Deed("ask", 0, 0, request(b"POST", b"/", *GRPC), "whole", 5000), Deed("wait", size=60), Deed("cancel")],
        [Deed("ask", 0, 0, request(b"POST", b"/", *GRPC), "whole", 5000), Deed("host_resets", size=2)],
        [
            Deed("ask", 0, 0, request(b"POST", b"/", *GRPC), "whole", 5000),
            Deed("wait", size=60),
            Deed("wait", size=400),
        ],
        [
            Deed("ask", 0, 0, request(b"POST", b"/", *GRPC), "unfinished", 5000),
            Deed("more", 0, 0, (), "trailers", 3000),
            Deed("answer", 0, 0, GRPC_ANSWER, "interim first", 3),
        ],
        [
            Deed("ask", 0, 0, request(b"POST", b"/", *GRPC), "whole"),
            Deed("answer", 0, 0, ((b":status", b"503"),), "none"),
        ],
    ],
    ids=["trailers", "early", "cancelled", "refused", "timed out", "unfinished", "failed"],
)
def test_recycled_objects_carry_nothing_of_their_predecessors(counts: Counts, odd: list[Deed]) -> None:
    config = bootstrap(
        manager={"access_log": [EVERYTHING]},
        routes=[{**TO_UP, "route": {"cluster": "up", "timeout": "0.3s", "retry_policy": RETRIES}}],
        listener={"per_connection_buffer_limit_bytes": 2000},
    )
    usual = exchange(request(b"POST", b"/", *GRPC), GRPC_ANSWER, "whole")
    refused = [usual[0], Deed("host_resets", size=2), Deed("wait", size=100), usual[1]]
    deeds = [*usual * 4, *odd, Deed("wait", size=100), *usual * 2, *refused, *usual * 2]
    both_ways(with_http2_hosts(config, {}), Peers(("nghttp2",), "nghttp2"), deeds)
    assert counts.sent >= 6


def test_a_shape_holds_for_requests_that_end_as_the_first_one_did(counts: Counts) -> None:
    """The same header block may come with END_STREAM and without."""
    fields = traced(1)
    deeds = exchange(fields, plain_answer(1)) * 3
    deeds += exchange(fields, plain_answer(1), "whole", 6000)
    deeds += exchange(fields, plain_answer(1)) * 2
    post = request(b"POST", b"/")
    deeds += exchange(post, plain_answer(1), "whole") * 3 + exchange(post, plain_answer(1))
    config = with_http2_hosts(bootstrap(manager={"access_log": [EVERYTHING]}), {})
    both_ways(config, Peers(("nghttp2",), "nghttp2"), deeds)
    assert counts.taken >= 7


def test_an_empty_body_that_http1_announced_ends_with_the_head() -> None:
    with_length = request(b"POST", b"/", (b"content-length", b""))
    deeds = exchange(with_length, plain_answer(1), "whole", 5) * 4 + exchange(with_length, plain_answer(1), "whole", 0)
    both_ways(HTTP2, Peers((None,), "nghttp2"), deeds)


def test_an_empty_response_of_http1_ends_with_its_head() -> None:
    usual = exchange(traced(1), plain_answer(1))
    empty = [usual[0], replace(usual[1], size=0)]
    found = both_ways(bootstrap(), Peers(("nghttp2",), None), [*usual * 4, *empty, *usual])
    assert len(heads(found, 0)) == 6


def test_responses_without_a_date_get_one_behind_those_that_had_it() -> None:
    deeds = exchange(traced(1), ((b":status", b"404"), *plain_answer(1)[1:])) * 2
    deeds += exchange(traced(1), ((b":status", b"200"), (b"x-a", b"1"))) * 3
    found = both_ways(HTTP2, Peers(("nghttp2",), "nghttp2"), deeds)
    assert all(head[b"date"].endswith(b" GMT") for head in heads(found, 0))


@pytest.mark.parametrize("ready", [1, 3])
def test_connections_are_filled_in_their_order(ready: int) -> None:
    """The oldest first, so that those that are not needed any more come to rest."""
    peers = Peers(("nghttp2",), "nghttp2", host_settings=((wire.MAX_CONCURRENT_STREAMS, 2),))
    ask = Deed("ask", 0, 0, request(b"GET", b"/"), "none")
    answer = Deed("answer", 0, 0, plain_answer(1), "whole", 5)
    deeds = [ask, answer] * 3 + [ask] * 2 * ready + [answer] * 2 * ready + [ask, answer] * 3 + [ask] * 5 + [answer] * 5
    both_ways(with_http2_hosts(bootstrap(), {"max_concurrent_streams": 2}), peers, deeds)


SMALL = {"initial_stream_window_size": 65535, "initial_connection_window_size": 65535}


def test_a_response_that_finds_its_client_full_gives_the_host_its_window_back() -> None:
    config = with_http2_hosts(
        bootstrap(), {"initial_stream_window_size": 1 << 20, "initial_connection_window_size": 1 << 20}
    )
    peers = Peers(("nghttp2",), "nghttp2", generous=False)
    answer = Deed("answer", 0, 0, plain_answer(1), "whole", 400_000)
    usual = exchange(traced(1), plain_answer(1))
    deeds = [*usual * 3, usual[0], answer, usual[0], answer, Deed("give_back", size=1)]
    deeds += [Deed("give_back", size=1)] * 20 + usual
    both_ways(config, peers, deeds)


def test_a_request_that_finds_its_host_full_gives_the_client_its_window_back() -> None:
    config = with_http2_hosts(bootstrap(manager={"http2_protocol_options": SMALL}), {})
    peers = Peers(("nghttp2",), "nghttp2", host_settings=((wire.INITIAL_WINDOW_SIZE, 10),), generous=False)
    post = request(b"POST", b"/", *GRPC)
    usual = exchange(post, GRPC_ANSWER, "whole")
    deeds = [
        *usual * 3,
        Deed("ask", 0, 0, post, "whole", 60_000),
        usual[1],
        *usual,
        *[replace(usual[0], size=30_000)] * 2,
    ]
    both_ways(config, peers, [*deeds, usual[1], usual[1], *usual])


def test_a_retry_that_finds_the_breaker_full_is_over() -> None:
    thresholds = {"thresholds": [{"max_requests": 1}]}
    config = with_http2_hosts(
        bootstrap(
            routes=[{**TO_UP, "route": {"cluster": "up", "retry_policy": RETRIES}}],
            clusters={"up": {"circuit_breakers": thresholds}},
        ),
        {},
    )
    ask = Deed("ask", 0, 0, request(b"GET", b"/"), "none")
    deeds = [ask, Deed("host_resets", size=2), replace(ask, who=1), Deed("wait", size=1000)]
    both_ways(config, Peers(("nghttp2", "nghttp2"), "nghttp2"), deeds)


def test_repeated_fields_of_a_response_stay_apart(counts: Counts) -> None:
    """A shape with a field once says nothing of responses that have it twice."""
    config = with_http2_hosts(bootstrap(manager={"access_log": [EVERYTHING]}), {})
    deeds: list[Deed] = []
    for number in range(4):
        deeds += exchange(traced(number), (*plain_answer(number), (b"set-cookie", b"a=%d" % number)))
    twice = (*plain_answer(7), (b"set-cookie", b"a=7"), (b"set-cookie", b"b=7"))
    deeds += exchange(traced(5), twice) * 2 + exchange(traced(6), (*plain_answer(8), (b"set-cookie", b"a=8")))
    both_ways(config, Peers(("nghttp2",), "nghttp2"), deeds)
    assert counts.answered


def test_what_is_left_of_an_upload_is_given_back(counts: Counts) -> None:
    """A host with small windows takes an upload slowly, and its response comes whole: no window is lost."""
    config = with_http2_hosts(bootstrap(manager={"access_log": [EVERYTHING]}), {})
    usual = exchange(request(b"POST", b"/", *GRPC), GRPC_ANSWER, "whole")
    upload = exchange(request(b"POST", b"/", *GRPC), GRPC_ANSWER, "whole", 300_000)
    peers = Peers(("nghttp2",), "nghttp2", (), ((wire.INITIAL_WINDOW_SIZE, 1000),), True)
    both_ways(config, peers, [*usual * 4, *upload, *usual * 2, *upload, *usual])
    assert counts.sent


def test_numbers_of_streams_come_to_an_end() -> None:
    """Another connection serves then: a number that is too large would be taken for a small one."""
    with speaking() as (sidecar, client):
        host = serve_once(sidecar, client)
        for _ in range(4):
            serve_once(sidecar, client, host)
        (transport,) = sidecar.dialer.made
        transport.protocol.codec.next_id = (1 << 31) + 1
        other = serve_once(sidecar, client)
        assert other is not host
        assert len(sidecar.dialer.made) == 2
