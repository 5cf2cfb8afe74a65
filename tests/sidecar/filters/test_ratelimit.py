import gc
import weakref

import pytest
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest, RateLimitResponse
from google.protobuf.json_format import ParseDict

from sidecar.config.core_types import HeaderValueOption
from sidecar.config.filters.ratelimit import HttpRateLimit, HttpRateLimitPerRoute
from sidecar.config.grpc_service import GrpcService
from sidecar.config.rate_limit import GenericKey, RateLimit, RequestHeaders
from sidecar.core.client import GrpcError, GrpcReply
from sidecar.core.rate_limit_service import FAILED, PATH, Status, decode, encode
from sidecar.core.rate_limits import Descriptor
from sidecar.core.response_flags import RATE_LIMIT_SERVICE_ERROR, RATE_LIMITED
from sidecar.filters.registry import make_filter, make_route_filter
from sidecar.router.route import Route as NamedRoute
from tests.sidecar.filters.streams import FakeStream, FakeWorker, get, make_context

WHO = RateLimit((RequestHeaders(b"x-who", "who", False),))
LATER = RateLimit((GenericKey("v", "later"),), 2, apply_on_stream_done=True)


class Call:
    """A call that the filter made; it is also the exchange."""

    def __init__(self, message, sink):
        self.request = RateLimitRequest.FromString(message)
        self.sink = sink
        self.cancelled = False

    def answer(self, **fields):
        message = ParseDict({"overall_code": "OK", **fields}, RateLimitResponse()).SerializeToString()
        self.sink.on_reply(GrpcReply(message, [], []))

    def fail(self):
        self.sink.on_error(GrpcError(14, "unavailable"))

    def cancel(self):
        self.cancelled = True


class Clients:
    """The ``Clients`` and the one ``GrpcClient``: keeps the calls, or fails them before they return."""

    def __init__(self):
        self.calls = []
        self.dead = False

    def grpc(self, cluster_name, options):
        self.cluster_name = cluster_name
        self.options = options
        return self

    def unary(self, path, message, sink, metadata=()):
        assert path == PATH
        call = Call(message, sink)
        self.calls.append(call)
        if self.dead:
            call.fail()
        return call


class Route:
    cluster_name = "backend"
    include_vh_rate_limits = False
    metadata = None

    def __init__(self, *rate_limits, host=()):
        self.rate_limits = rate_limits
        self.vh_rate_limits = host


class Setting:
    def __init__(self, *rate_limits, route=None, **config):
        self.worker = FakeWorker()
        self.clients = Clients()
        self.codes = []
        self.context = make_context(
            self.worker,
            clients=lambda: self.clients,
            count_response=lambda *counted: self.codes.append(counted),
            cluster_stat_name=lambda name: name or None,
        )
        self.config = HttpRateLimit("d", GrpcService("limits"), rate_limits=rate_limits, **config)
        self.filter = make_filter(self.config, "limit", self.context)
        if route is not None:
            self.filter = make_route_filter(self.filter, self.config, route, self.context)

    def ask(self, *fields, route=None, body=b""):
        stream = FakeStream(self.worker, [self.filter], get(b"/", *fields))
        stream.route = route or Route()
        return stream.ask(body)

    @property
    def counts(self):
        return dict(self.context.stats("ratelimit", "backend", "").counts)


def test_a_request_waits_for_the_decision():
    setting = Setting(WHO)
    stream = setting.ask((b"x-who", b"me"))
    assert not stream.forwarded
    (call,) = setting.clients.calls
    assert (setting.clients.cluster_name, call.request.domain) == ("limits", "d")
    assert [(entry.key, entry.value) for entry in call.request.descriptors[0].entries] == [("who", "me")]
    call.answer()
    assert stream.forwarded
    assert setting.counts == {"ok": 1}


def test_only_requests_with_descriptors_are_asked_for():
    setting = Setting(WHO)
    stream = setting.ask()
    assert stream.forwarded
    assert setting.clients.calls == []
    assert stream.data == {}
    assert setting.counts == {}


def test_what_is_over_the_limit_is_refused():
    added = (HeaderValueOption(b"x-own", "%RESPONSE_CODE%", "APPEND_IF_EXISTS_OR_ADD", False),)
    setting = Setting(WHO, response_headers_to_add=added, rate_limited_as_resource_exhausted=True)
    stream = setting.ask((b"x-who", b"me"))
    told = [{"key": "X-Told", "value": "1"}]
    setting.clients.calls[0].answer(overall_code="OVER_LIMIT", raw_body="bm8=", response_headers_to_add=told)
    assert stream.replied == (429, b"no", "request_rate_limited")
    assert stream.response_flags == RATE_LIMITED
    assert stream.grpc_status == 8
    assert stream.response.get(b"x-told") == b"1", "once"
    assert stream.response.get(b"x-envoy-ratelimited") == b"true"
    assert b"x-own" in stream.response.index
    assert setting.counts == {"over_limit": 1}
    assert setting.codes == [("backend", 429)]
    assert not stream.forwarded


def test_a_shadow_tells_and_lets_pass():
    setting = Setting(WHO, filter_enforced=(0, 100))
    stream = setting.ask((b"x-who", b"me"))
    setting.clients.calls[0].answer(overall_code="OVER_LIMIT")
    assert stream.forwarded
    assert stream.answer().response.get(b"x-envoy-ratelimited") == b"true"


@pytest.mark.parametrize("dead", [False, True], ids=["later", "at once"])
def test_without_an_answer_requests_pass(dead):
    setting = Setting(WHO)
    setting.clients.dead = dead
    stream = setting.ask((b"x-who", b"me"))
    if not dead:
        setting.clients.calls[0].fail()
    assert stream.forwarded
    assert setting.counts == {"error": 1, "failure_mode_allowed": 1}


@pytest.mark.parametrize("dead", [False, True], ids=["later", "at once"])
def test_without_an_answer_requests_are_refused_where_that_is_wanted(dead):
    setting = Setting(WHO, failure_mode_deny=(100, 100), status_on_error=503)
    setting.clients.dead = dead
    stream = setting.ask((b"x-who", b"me"))
    if not dead:
        setting.clients.calls[0].fail()
    assert stream.replied == (503, b"", "rate_limiter_error")
    assert stream.response_flags == RATE_LIMIT_SERVICE_ERROR
    assert not stream.forwarded
    assert setting.counts == {"error": 1}


def test_what_the_service_adds():
    setting = Setting(WHO)
    stream = setting.ask((b"x-who", b"me"))
    stream.dynamic_metadata = {"envoy.filters.http.ratelimit": {"old": 1}, "other": {}}
    setting.clients.calls[0].answer(
        request_headers_to_add=[{"key": "X-Who", "value": "you"}],
        response_headers_to_add=[{"key": "x-told", "value": "1"}],
        dynamic_metadata={"new": {"a": [1.5]}},
    )
    assert stream.request.get_all(b"x-who") == [b"me", b"you"]
    assert stream.dynamic_metadata == {"envoy.filters.http.ratelimit": {"old": 1, "new": {"a": [1.5]}}, "other": {}}
    assert stream.answer().response.get(b"x-told") == b"1"


def test_a_client_that_leaves_cancels_the_call():
    setting = Setting(WHO, LATER)
    stream = setting.ask((b"x-who", b"me"))
    (call,) = setting.clients.calls
    stream.complete()
    assert call.cancelled
    assert stream.data == {}, "nothing is kept that refers to the stream"
    assert len(setting.clients.calls) == 1, "as in Envoy, what counts at the end of a request counts no more"


def test_what_counts_when_a_request_is_over():
    setting = Setting(LATER)
    stream = setting.ask()
    assert stream.forwarded
    assert setting.clients.calls == []
    stream.answer(200, body=b"x")
    (call,) = setting.clients.calls
    assert call.request.descriptors[0].hits_addend.value == 2
    call.answer(overall_code="OVER_LIMIT")
    assert setting.counts == {}, "nobody hears of the answer"


def test_another_filter_says_how_often_a_request_counts():
    setting = Setting(WHO)
    stream = FakeStream(setting.worker, [setting.filter], get(b"/", (b"x-who", b"me")))
    stream.route = Route()
    stream.filter_state = {"envoy.ratelimit.hits_addend": 7}
    stream.ask()
    assert setting.clients.calls[0].request.hits_addend == 7


def values(call):
    return [entry.value for descriptor in call.request.descriptors for entry in descriptor.entries]


def limit_of(value, **fields):
    return RateLimit((GenericKey(value, "k"),), **fields)


@pytest.mark.parametrize(
    ("own", "per_route", "expected"),
    [
        ((), None, ["route"]),
        ((limit_of("own"),), None, ["own"]),
        ((limit_of("own"),), HttpRateLimitPerRoute(rate_limits=(limit_of("per route"),)), ["per route"]),
        ((limit_of("own"),), HttpRateLimitPerRoute(domain="other"), ["own"]),
        ((), HttpRateLimitPerRoute("INCLUDE"), ["route", "host"]),
    ],
)
def test_whose_rate_limits_hold(own, per_route, expected):
    setting = Setting(*own, route=per_route)
    setting.ask(route=Route(limit_of("route"), host=(limit_of("host"), limit_of("staged", stage=1))))
    (call,) = setting.clients.calls
    assert values(call) == expected
    assert call.request.domain == ("other" if per_route is not None and per_route.domain else "d")


def test_routes_that_are_gone_are_forgotten():
    """Each update of the route table brings new ones."""
    setting = Setting()
    route = NamedRoute("r", "v")
    route.cluster_name, route.rate_limits = "backend", (limit_of("route"),)
    gone = weakref.ref(route)
    setting.ask(route=route).complete()
    setting.clients.calls.clear()
    del route
    gc.collect()
    assert gone() is None


def test_no_cluster_no_question():
    class Nowhere(Route):
        cluster_name = ""

    setting = Setting(WHO)
    assert setting.ask((b"x-who", b"me"), route=Nowhere()).forwarded
    assert setting.clients.calls == []


@pytest.mark.parametrize(("kind", "outside", "inside"), [("both", 1, 1), ("internal", 0, 1), ("external", 1, 0)])
def test_requests_from_inside_and_from_outside(kind, outside, inside):
    setting = Setting(WHO, request_type=kind)
    setting.ask((b"x-who", b"me"))
    assert len(setting.clients.calls) == outside
    setting.ask((b"x-who", b"me"), (b"x-envoy-internal", b"true"))
    assert len(setting.clients.calls) == outside + inside


def test_a_share_of_the_requests():
    setting = Setting(WHO, filter_enabled=(50, 100))
    for value, calls in ((0.49, 1), (0.5, 1), (0.2, 2)):
        setting.worker.random.value = value
        setting.ask((b"x-who", b"me"))
        assert len(setting.clients.calls) == calls


def test_announcing_headers():
    setting = Setting(WHO, enable_x_ratelimit_headers=True)
    stream = setting.ask((b"x-who", b"me"))
    statuses = [
        {"current_limit": {"requests_per_unit": 10, "unit": "MINUTE"}, "limit_remaining": 7},
        {"limit_remaining": 0},
        {"current_limit": {"requests_per_unit": 9, "unit": "DAY", "name": "n"}, "limit_remaining": 2,
         "duration_until_reset": "3.9s"},
    ]  # fmt: skip
    setting.clients.calls[0].answer(statuses=statuses)
    response = stream.answer().response
    assert response.get(b"x-ratelimit-limit") == b'9, 10;w=60, 9;w=86400;name="n"'
    assert (response.get(b"x-ratelimit-remaining"), response.get(b"x-ratelimit-reset")) == (b"2", b"3")


def test_encoding():
    descriptors = (Descriptor(((b"k", b"v\xff"), (b"e", b"")), 0, (5, "DAY")), Descriptor(()))
    request = RateLimitRequest.FromString(encode("d", descriptors, 3))
    expected = {
        "domain": "d",
        "hits_addend": 3,
        "descriptors": [
            {
                "entries": [{"key": "k", "value": "v!"}, {"key": "e"}],
                "limit": {"requests_per_unit": 5, "unit": "DAY"},
                "hits_addend": 0,
            },
            {},
        ],
    }
    assert request == ParseDict(expected, RateLimitRequest())


@pytest.mark.parametrize("message", [b"\xff", b"\x12\x05ab", b"\x08"])
def test_what_is_no_message_is_no_answer(message):
    assert decode(message) is FAILED


@pytest.mark.parametrize(("message", "outcome"), [(b"", "ok"), (b"\x08\x00", "ok"), (b"\x08\x02", "over_limit"),
                                                  (b"\x08\x63", "ok"), (b"\x98\x06\x01", "ok")])  # fmt: skip
def test_only_over_limit_is_over_the_limit(message, outcome):
    assert decode(message).outcome == outcome


def test_decoding_keeps_the_statuses_with_a_limit():
    limit = {"requests_per_unit": 10, "unit": "UNKNOWN"}
    status = {"current_limit": limit, "limit_remaining": 7, "duration_until_reset": "-5s"}
    message = ParseDict({"statuses": [status, {"code": "OK"}]}, RateLimitResponse()).SerializeToString()
    assert decode(message).statuses == (Status("", 10, 0, 7, 0),)
