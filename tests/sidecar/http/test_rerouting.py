"""Filters that have the route found anew: in the hook itself or after a pause, with the filters behind as that route has them."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.core.http_filter import PAUSE, HttpFilter
from sidecar.http import rerouting
from tests.sidecar.http.running import HELLO, TO_UP, Sidecar, bootstrap, http_filter, user_filter


class Sends(HttpFilter):
    """Sends requests with ``x-way`` elsewhere: ``now``, or ``later``, after a pause."""

    def __init__(self, config: Any) -> None:
        self.mark = config["mark"].encode()
        self.answers: list[bytes] = []

    def on_request(self, stream: Any, end: bool) -> bool | None:
        stream.data[self] = stream.request.path
        way = stream.request.get(b"x-way-" + self.mark)
        if way == b"later":
            stream.call_in(0.01, lambda: self.go(stream, paused=True))
            return PAUSE
        if way == b"now":
            self.go(stream, paused=False)
            raise AssertionError("clear_route_cache returned")
        return None

    def go(self, stream: Any, paused: bool) -> None:
        stream.request.set(b"x-to", (stream.request.get(b"x-to") or b"") + self.mark)
        stream.clear_route_cache(self)
        assert paused
        stream.resume_request()


class Remembers(Sends):
    """And looks at its responses."""

    def on_response(self, stream: Any, end: bool) -> bool | None:
        self.answers.append(stream.data[self])
        return None


def _per_route(value: str) -> dict[str, Any]:
    kind = "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute"
    append = {"append": {"header": {"key": "x-seen", "value": value}}}
    return {"header_mutation": {"@type": kind, "mutations": {"request_mutations": [append]}}}


def _to(mark: str) -> dict[str, Any]:
    return {
        "match": {"prefix": "/", "headers": [{"name": "x-to", "string_match": {"exact": mark}}]},
        "route": {"cluster": f"cluster-{mark}"},
        "typed_per_filter_config": _per_route(mark),
    }


CONFIG = {
    "routes": [
        _to("a"), _to("b"), _to("ab"),
        {"match": {"prefix": "/"}, "route": {"cluster": "up"}, "typed_per_filter_config": _per_route("first")},
    ],
    "clusters": {"up": {}, "cluster-a": {}, "cluster-b": {}, "cluster-ab": {}},
    "filters": [
        user_filter("one", mark="a"), user_filter("two", mark="b"), http_filter("header_mutation.v3.HeaderMutation"),
    ],
}  # fmt: skip


def _run(headers: str, first: type[Sends] = Sends, **config: Any) -> tuple[Sidecar, bytes, bytes]:
    sidecar = Sidecar(bootstrap(**{**CONFIG, **config}), {"one": first, "two": Sends})
    client = sidecar.client()
    received = b""
    for _ in range(4):
        client = sidecar.client() if client.closed else client
        client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n%b\r\nbody" % headers.encode())
        sidecar.advance(0.02)
        sidecar.advance(0.02)
        asked = sidecar.asked()
        for host, _ in asked:
            host.send(HELLO)
        received += client.receive()
    return sidecar, asked[0][1] if asked else b"", received


@pytest.mark.parametrize("first", [Sends, Remembers])
@pytest.mark.parametrize(
    ("one", "two", "to"),
    [("", "", "first"), ("now", "", "a"), ("later", "", "a"), ("", "now", "b"), ("", "later", "b"), ("now", "now", "ab"),
     ("now", "later", "ab"), ("later", "now", "ab"), ("later", "later", "ab")],
)  # fmt: skip
def test_the_request_goes_where_it_belongs_now(first: type[Sends], one: str, two: str, to: str) -> None:
    headers = "".join(f"x-way-{mark}: {way}\r\n" for mark, way in (("a", one), ("b", two)) if way)
    sidecar, asked, received = _run(headers, first)
    assert received.count(b"HTTP/1.1 200 OK") == 4
    assert asked.endswith(b"\r\n\r\nbody")
    assert asked.count(b"\r\nx-seen: ") == 1
    assert f"\r\nx-seen: {to}\r\n".encode() in asked
    cluster = "up" if to == "first" else f"cluster-{to}"
    assert all(line.rstrip().endswith(f" {cluster} 1") for line in sidecar.log)
    assert sidecar.stat(f"cluster.{cluster}.upstream_rq_total") == 4


def test_a_filter_that_was_passed_stays_the_one_it_was() -> None:
    made: list[Remembers] = []

    class Noted(Remembers):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            made.append(self)

    _run("x-way-b: now\r\n", Noted)
    assert [one.answers for one in made if one.answers] == [[b"/x"] * 4]


@pytest.mark.parametrize("way", ["now", "later"])
def test_no_route_any_more_is_404(way: str) -> None:
    gone = {"match": {"prefix": "/", "headers": [{"name": "x-to", "present_match": True, "invert_match": True}]}}
    _, asked, received = _run(f"x-way-a: {way}\r\n", routes=[{**gone, "route": {"cluster": "up"}}])
    assert asked == b""
    assert received.count(b"HTTP/1.1 404 ") == 4


@pytest.mark.parametrize("way", ["now", "later"])
def test_what_goes_wrong_on_the_way_ends_with_500(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(stream: Any, at: int) -> None:
        raise ValueError("a condition that cannot be evaluated")

    monkeypatch.setattr(rerouting, "reroute", fails)
    sidecar, asked, received = _run(f"x-way-a: {way}\r\n")
    assert asked == b""
    assert received.count(b"HTTP/1.1 500 ") == 4
    assert sidecar.stat("http.in.downstream_rq_active") == 0


def _authorized(body: bool, **settings: Any) -> dict[str, Any]:
    return http_filter(
        "ext_authz.v3.ExtAuthz",
        http_service={"server_uri": {"uri": "http://auth", "cluster": "cluster-a", "timeout": "1s"}},
        **({"with_request_body": {"max_request_bytes": 100}} if body else {}),
        **settings,
    )


@pytest.mark.parametrize("body", [False, True])
@pytest.mark.parametrize(("allow", "status"), [(True, b" 200 "), (False, b" 403 ")])
def test_a_service_without_hosts_fails_at_once(body: bool, allow: bool, status: bytes) -> None:
    nobody = {"load_assignment": {"cluster_name": "cluster-a", "endpoints": []}}
    _, asked, received = _run(
        "",
        filters=[_authorized(body, failure_mode_allow=allow)],
        routes=[TO_UP],
        clusters={"up": {}, "cluster-a": nobody},
    )
    assert received.count(b"HTTP/1.1" + status) == 4
    assert asked.endswith(b"\r\n\r\nbody") is allow
