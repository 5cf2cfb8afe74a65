"""Hash policies, random values from headers, and timeouts told upstream: the same in real Envoy and here.

A hash shows in Envoy through ``use_hash_policy``: it picks one of 97 weighted clusters, each of which adds its number.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from sidecar.core.address import Address
from sidecar.router.retry_policy import for_request
from sidecar.router.timeouts import expected_timeout_ms, request_timeouts
from tests.differential.envoy_binary import EnvoyUnavailableError
from tests.sidecar.router.compiling import Stream, one_host, request, table
from tests.sidecar.router.real_envoy import RealEnvoy, running

BUCKETS = 97
REWRITE = {"pattern": {"regex": "[0-9]+"}, "substitution": "#\\0"}
HEADER: dict[str, Any] = {"header": {"header_name": "x-key"}}
COOKIE: dict[str, Any] = {"cookie": {"name": "c"}}
PARAMETER: dict[str, Any] = {"query_parameter": {"name": "q"}}
SOURCE: dict[str, Any] = {"connection_properties": {"source_ip": True}}
POLICIES: list[list[dict[str, Any]]] = [
    [HEADER],
    [{"header": {"header_name": "x-key", "regex_rewrite": REWRITE}}],
    [{"header": {"header_name": ":path"}}],
    [{"header": {"header_name": ":authority"}}],
    [COOKIE],
    [PARAMETER],
    [SOURCE],
    [HEADER, COOKIE, PARAMETER, SOURCE],
    [HEADER, HEADER],
    [{**HEADER, "terminal": True}, SOURCE],
    [{**COOKIE, "terminal": True}, {**PARAMETER, "terminal": True}, SOURCE],
]
HASH_PATHS = ["/", "/?q=1", "/?q=", "/?x=2&q=3&q=4"]
HASH_HEADERS: list[list[tuple[str, str]]] = [
    [],
    [("x-key", "abc")],
    [("x-key", "")],
    [("x-key", "user-42-7")],
    [("x-key", "b"), ("x-key", "a")],
    [("x-key", "a"), ("x-key", "b")],
    [("cookie", "c=1")],
    [("cookie", "a=0; c=one two ;c=2")],
    [("cookie", 'c="quoted"')],
    [("cookie", "cc=1"), ("cookie", "c = 3")],
    [("cookie", "b=1;\tc= x")],
    [("cookie", "b=1;  c= x")],
    [("cookie", "c"), ("cookie", "c=")],
    [("x-key", "abc"), ("cookie", "c=1")],
]
NUMBERS: list[list[str]] = [["0"], ["96"], ["97"], ["12345678901234567890"], [" 5 "], ["+7"]]


def _buckets(**fields: Any) -> dict[str, Any]:
    clusters = [
        {
            "name": "a",
            "weight": 1,
            "request_headers_to_add": [{"header": {"key": "x-m-bucket", "value": str(number)}}],
        }
        for number in range(BUCKETS)
    ]
    return {"clusters": clusters, **fields}


def _hashed(number: int) -> dict[str, Any]:
    action = {"weighted_clusters": _buckets(use_hash_policy=True), "hash_policy": POLICIES[number]}
    return one_host({"match": {"prefix": "/"}, "route": action})


TIMEOUT_ROUTES = one_host(
    {"match": {"prefix": "/default"}, "route": {"cluster": "a"}},
    {"match": {"prefix": "/none"}, "route": {"cluster": "a", "timeout": "0s"}},
    {
        "match": {"prefix": "/try"},
        "route": {"cluster": "a", "timeout": "4s", "retry_policy": {"retry_on": "5xx", "per_try_timeout": "1.5s"}},
    },
    {
        "match": {"prefix": "/long-try"},
        "route": {"cluster": "a", "timeout": "4s", "retry_policy": {"retry_on": "5xx", "per_try_timeout": "5s"}},
    },
)
TIMEOUT_HEADERS: list[list[tuple[str, str]]] = [
    [],
    [("x-envoy-upstream-rq-timeout-ms", "2500")],
    [("x-envoy-upstream-rq-timeout-ms", "0")],
    [("x-envoy-upstream-rq-timeout-ms", "no")],
    [("x-envoy-upstream-rq-timeout-ms", "-1")],
    [("x-envoy-upstream-rq-per-try-timeout-ms", "700")],
    [("x-envoy-upstream-rq-per-try-timeout-ms", "70000")],
    [("x-envoy-upstream-rq-per-try-timeout-ms", "0")],
    [("x-envoy-upstream-rq-timeout-ms", "900"), ("x-envoy-upstream-rq-per-try-timeout-ms", "300")],
    [("x-envoy-upstream-rq-timeout-ms", "0"), ("x-envoy-upstream-rq-per-try-timeout-ms", "300")],
    [("x-envoy-expected-rq-timeout-ms", "1234")],
    [("x-envoy-expected-rq-timeout-ms", "no"), ("x-envoy-upstream-rq-timeout-ms", "900")],
    [("x-envoy-expected-rq-timeout-ms", "0")],
    [("x-envoy-expected-rq-timeout-ms", "1234"), ("x-envoy-upstream-rq-timeout-ms", "900")],
]
CONFIGURATIONS = {
    **{f"hash{number}": _hashed(number) for number in range(len(POLICIES))},
    "number": one_host({"match": {"prefix": "/"}, "route": {"weighted_clusters": _buckets(header_name="x-number")}}),
    "timeouts": TIMEOUT_ROUTES,
}


@pytest.fixture(scope="module")
def envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEnvoy]:
    """One Envoy for all tests here."""
    try:
        with running(tmp_path_factory.mktemp("envoy"), CONFIGURATIONS) as started:
            yield started
    except EnvoyUnavailableError as error:
        pytest.skip(f"needs real Envoy: {error}")


@pytest.mark.parametrize("number", range(len(POLICIES)))
def test_hashes_are_those_of_envoy(envoy: RealEnvoy, number: int) -> None:
    route = table(CONFIGURATIONS[f"hash{number}"]).routes[0]
    assert route.hash_key is not None
    assert route.pick_cluster is not None
    found = []
    for path in HASH_PATHS:
        for headers in HASH_HEADERS:
            head = request(path, "h.test", headers)
            key = route.hash_key(Stream(head, Address("127.0.0.1", 1)))
            if key is None:
                continue
            theirs = dict(envoy.ask(f"hash{number}", path, "h.test", headers).seen)["x-m-bucket"]
            context = Stream(head, Address("127.0.0.1", 1))
            entry = route.pick_cluster(head, Random(1), context)[1]
            assert entry is not None
            assert entry.mutate_request is not None
            entry.mutate_request(context)
            ours = head.index[b"x-m-bucket"].decode()
            if not str(key % BUCKETS) == ours == theirs:
                found.append(f"{path} {headers}: Envoy {theirs}, ours {ours}")
    assert found == []


@pytest.mark.parametrize("values", NUMBERS)
def test_a_header_may_hold_the_random_number(envoy: RealEnvoy, values: list[str]) -> None:
    headers = [("x-number", value) for value in values]
    route = table(CONFIGURATIONS["number"]).routes[0]
    assert route.pick_cluster is not None
    context = Stream(request("/", "h.test", [(name, value.strip()) for name, value in headers]))
    assert context.request is not None
    entry = route.pick_cluster(context.request, Random(1))[1]
    assert entry is not None
    assert entry.mutate_request is not None
    entry.mutate_request(context)
    theirs = dict(envoy.ask("number", "/", "h.test", headers).seen)
    assert context.request.index[b"x-m-bucket"].decode() == theirs["x-m-bucket"]


@pytest.fixture(scope="module")
def respecting_envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEnvoy]:
    """One whose router takes the timeout that the Envoy before it has set."""
    try:
        directory = tmp_path_factory.mktemp("envoy")
        with running(directory, {"timeouts": TIMEOUT_ROUTES}, {"respect_expected_rq_timeout": True}) as started:
            yield started
    except EnvoyUnavailableError as error:
        pytest.skip(f"needs real Envoy: {error}")


def _timeouts_told(envoy: RealEnvoy, path: str, respect_expected: bool) -> list[str]:
    """Where the upstream of Envoy is told something else than we would tell it."""
    ours = table(TIMEOUT_ROUTES)
    found = []
    for headers in TIMEOUT_HEADERS:
        head = request(path, "h.test", headers)
        route = ours.match(head, Stream(head))
        assert route is not None
        retry = for_request(route.retry, head)
        expected = expected_timeout_ms(*request_timeouts(route, retry, head, respect_expected))
        if expected:
            head.set(b"x-envoy-expected-rq-timeout-ms", b"%d" % expected)
        mine = sorted((name.decode(), value.decode()) for name, value in head.fields)
        seen = envoy.ask("timeouts", path, "h.test", headers).seen
        theirs = sorted(pair for pair in seen if "timeout" in pair[0])
        if mine != theirs:
            found.append(f"{headers}: Envoy {theirs}, ours {mine}")
    return found


@pytest.mark.parametrize("path", ["/default", "/none", "/try", "/long-try"])
def test_what_the_upstream_is_told_of_timeouts(envoy: RealEnvoy, path: str) -> None:
    assert _timeouts_told(envoy, path, respect_expected=False) == []


@pytest.mark.parametrize("path", ["/default", "/none", "/try", "/long-try"])
def test_a_router_that_respects_the_expected_timeout(respecting_envoy: RealEnvoy, path: str) -> None:
    assert _timeouts_told(respecting_envoy, path, respect_expected=True) == []
