"""A rate limit service on grpcio that counts, and one that is slow, fails, lies or is gone: what it is asked and what clients
get is the same through the sidecar and through real Envoy.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest, RateLimitResponse

from tests.differential.proxies import Proxy
from tests.grpc.bootstraps import Document, bootstrap, cluster, listener
from tests.grpc.subjects import KINDS, eventually, proxy_of, skip_unless_available, stats

SERVICE = "envoy.service.ratelimit.v3.RateLimitService"
LIMIT = 3
OK, OVER = RateLimitResponse.OK, RateLimitResponse.OVER_LIMIT
_HTTP = "type.googleapis.com/envoy.extensions.filters.http."


class RateLimitService:
    """Lets each descriptor pass ``LIMIT`` times; a descriptor's value may ask for another behaviour."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[list[tuple[str, str]]], int, list[int]]] = []
        self.counts: Counter[str] = Counter()
        self.cancelled = threading.Event()
        self._let_go = threading.Event()
        self.serve(0)

    def serve(self, port: int) -> None:
        """Listen on this port, 0 for any."""
        self.server = grpc.server(ThreadPoolExecutor(8))
        handler = grpc.unary_unary_rpc_method_handler(
            self.should_rate_limit,
            request_deserializer=RateLimitRequest.FromString,
            response_serializer=lambda made: made if isinstance(made, bytes) else made.SerializeToString(),
        )
        handlers = {"ShouldRateLimit": handler}
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        self.port = self.server.add_insecure_port(f"127.0.0.1:{port}")
        self.server.start()

    def should_rate_limit(self, request: Any, context: grpc.ServicerContext) -> Any:
        entries = [[(entry.key, entry.value) for entry in one.entries] for one in request.descriptors]
        hits = [one.hits_addend.value for one in request.descriptors if one.HasField("hits_addend")]
        self.asked.append((request.domain, entries, request.hits_addend, hits))
        response = RateLimitResponse(overall_code=OK)
        for one, descriptor in zip(entries, request.descriptors, strict=True):
            match one[0][1]:
                case "slow":
                    context.add_callback(self.cancelled.set)
                    self._let_go.wait(5.0)
                case "fails":
                    context.abort(grpc.StatusCode.INTERNAL, "no idea")
                case "raises":
                    raise ValueError("this service has a bug")
                case "lies":  # over the limit, by a status that is not; and a limit without a unit
                    response.overall_code = OVER
                    status = response.statuses.add(code=OK, limit_remaining=2**32 - 1)
                    status.current_limit.requests_per_unit = 2**32 - 1
                    status.duration_until_reset.seconds = 2**31
                case "unknown":
                    response.overall_code = 99  # type: ignore[assignment]
                case "garbage":
                    return b"\xff" * 20
                case "headers":
                    response.response_headers_to_add.add(key="X-From-Service", value="yes")
                    response.request_headers_to_add.add(key="X-Asked", value="yes")
                case value:
                    self.counts[value] += descriptor.hits_addend.value or 1
                    status = response.statuses.add(limit_remaining=max(0, LIMIT - self.counts[value]))
                    status.current_limit.requests_per_unit = LIMIT
                    status.current_limit.unit = status.current_limit.MINUTE
                    status.code = OK if self.counts[value] <= LIMIT else OVER
                    status.duration_until_reset.seconds = 30
                    if status.code == OVER:
                        response.overall_code = OVER
        return response

    def stop(self) -> None:
        self._let_go.set()
        self.server.stop(None).wait()


def document(ports: Mapping[str, int], service: int) -> Document:
    def rate_limit(**fields: Any) -> Document:
        config = {
            "@type": _HTTP + "ratelimit.v3.RateLimit",
            "domain": "test",
            "timeout": "0.25s",
            "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
            "rate_limits": [
                {"actions": [{"request_headers": {"header_name": "x-who", "descriptor_key": "who"}}]},
                {
                    "actions": [{"request_headers": {"header_name": "x-size", "descriptor_key": "size"}}],
                    "hits_addend": {"format": "%BYTES_SENT%"},
                    "apply_on_stream_done": True,
                },
            ],
            "rate_limit_service": {
                "transport_api_version": "V3",
                "grpc_service": {"envoy_grpc": {"cluster_name": "limits"}},
            },
            **fields,
        }
        return {"name": "envoy.filters.http.ratelimit", "typed_config": config}

    router = {"name": "router", "typed_config": {"@type": _HTTP + "router.v3.Router"}}
    body = {"match": {"prefix": "/"}, "route": {"cluster": "self"}}
    here = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "hello"}}}
    return bootstrap(
        [
            listener("allow", ports["allow"], [body], http_filters=[rate_limit(), router]),
            listener("deny", ports["deny"], [body], http_filters=[rate_limit(failure_mode_deny=True), router]),
            listener("here", ports["here"], [here]),
        ],
        [cluster("limits", service), cluster("self", ports["here"], http2=False)],
        ports["admin"],
    )


def ask(proxy: Proxy, name: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """The status, what the headers say of limits, and the body."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.ports[name], timeout=10)
    try:
        connection.request("GET", "/", headers={key.replace("_", "-"): value for key, value in headers.items()})
        response = connection.getresponse()
        told = {key.lower(): value for key, value in response.getheaders() if key.lower().startswith("x-")}
        told.pop("x-envoy-upstream-service-time", None)
        return response.status, told, response.read()
    finally:
        connection.close()


@contextmanager
def through(kind: str, directory: Path) -> Iterator[tuple[Proxy, RateLimitService]]:
    service = RateLimitService()
    try:
        with proxy_of(kind, ("allow", "deny", "here"), lambda ports: document(ports, service.port), directory) as proxy:
            yield proxy, service
    finally:
        service.stop()


Pair = list[tuple[Proxy, RateLimitService]]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The sidecar and Envoy, each with a service of its own."""
    skip_unless_available(KINDS[1])
    directory = tmp_path_factory.mktemp("rate-limits")
    with ExitStack() as stack:
        yield [stack.enter_context(through(kind, directory / kind)) for kind in KINDS]


def compare(act: Callable[[Proxy, RateLimitService], Any], pair: Pair) -> Any:
    """What came of it, which is the same through both; ``act`` returns what the client got."""
    outcomes = []
    for proxy, service in pair:
        service.asked.clear()
        service.counts.clear()
        before = stats(proxy, "cluster.self.ratelimit")
        got = act(proxy, service)
        after = stats(proxy, "cluster.self.ratelimit")
        counted = {name: value - before.get(name, 0) for name, value in after.items() if value > before.get(name, 0)}
        outcomes.append((got, list(service.asked), counted))
    assert outcomes[0] == outcomes[1]
    return outcomes[0]


def test_a_service_that_counts(pair: Pair) -> None:
    def act(proxy: Proxy, service: RateLimitService) -> Any:
        named = [ask(proxy, "allow", x_who=who) for who in ("a", "a", "b", "a", "a", "a")]
        return [*named, ask(proxy, "allow")]

    got, asked, counted = compare(act, pair)
    assert [status for status, _, _ in got] == [200, 200, 200, 200, 429, 429, 200]
    assert got[0][1]["x-ratelimit-limit"] == f"{LIMIT}, {LIMIT};w=60"
    assert (got[0][1]["x-ratelimit-remaining"], got[4][1]["x-ratelimit-remaining"]) == ("2", "0")
    assert len(asked) == 6 and asked[0] == ("test", [[("who", "a")]], 0, [])
    assert counted == {"cluster.self.ratelimit.ok": 4, "cluster.self.ratelimit.over_limit": 2}


def test_what_counts_at_the_end_counts_what_was_sent(pair: Pair) -> None:
    def act(proxy: Proxy, service: RateLimitService) -> Any:
        got = ask(proxy, "allow", x_size="big")
        eventually(lambda: service.asked, "the service is asked when the request is over")
        return got

    got, asked, _ = compare(act, pair)
    assert got[0] == 200
    assert asked == [("test", [[("size", "big")]], 0, [len(b"hello")])]


@pytest.mark.parametrize("how", ["slow", "fails", "raises", "garbage"])
def test_without_an_answer(how: str, pair: Pair) -> None:
    def act(proxy: Proxy, service: RateLimitService) -> Any:
        start = time.monotonic()
        got = [ask(proxy, name, x_who=how) for name in ("allow", "deny")]
        assert time.monotonic() - start < 4.0, "nobody waits longer than the timeout"
        if how == "slow":
            eventually(service.cancelled.is_set, "the service hears that nobody waits any more")
        return got

    got, _, counted = compare(act, pair)
    assert [status for status, _, _ in got] == [200, 500]
    assert counted == {"cluster.self.ratelimit.error": 2, "cluster.self.ratelimit.failure_mode_allowed": 1}


def test_a_service_that_lies_is_taken_at_its_word(pair: Pair) -> None:
    def act(proxy: Proxy, service: RateLimitService) -> Any:
        return [ask(proxy, "deny", x_who=how) for how in ("lies", "unknown", "headers")]

    got, _, _ = compare(act, pair)
    assert [status for status, _, _ in got] == [429, 200, 200]
    assert got[0][1]["x-ratelimit-remaining"] == str(2**32 - 1)
    assert got[2][1]["x-from-service"] == "yes"


def test_a_service_that_dies_and_comes_back(pair: Pair) -> None:
    for proxy, service in pair:
        service.counts.clear()
        got = [ask(proxy, "deny", x_who="a")]
        service.stop()
        got += [ask(proxy, name, x_who="a") for name in ("deny", "allow")]
        service.serve(service.port)
        eventually(lambda asked=proxy: ask(asked, "deny", x_who="again")[0] == 200, "the service is asked again")
        assert [status for status, _, _ in got] == [200, 500, 200], proxy.kind
