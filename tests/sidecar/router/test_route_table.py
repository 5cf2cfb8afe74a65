"""Routes by virtual host, path and conditions: the index against trying in turn, explanations, what routes carry."""

from __future__ import annotations

import re
from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.config.route import Route as RouteConfig
from sidecar.config.route import RouteConfiguration, VirtualHost
from sidecar.config.route_action import DirectResponseAction
from sidecar.config.route_match import RouteMatch
from sidecar.core.head import RequestHead
from sidecar.router import path_match, route_table
from sidecar.router.route import Route
from sidecar.router.route_table import RouteTable, compile_route_configuration
from tests.sidecar.router.compiling import compile_format, configured, named, one_host, request, stream, table

segments = st.sampled_from(["", "a", "A", "b", "ab", "a;v"])
paths = st.lists(segments, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
specifiers = st.sampled_from(["prefix", "path", "path_separated_prefix", "safe_regex"])


@st.composite
def matches(draw: st.DrawFn) -> dict[str, Any]:
    specifier, path = draw(specifiers), draw(paths)
    if specifier == "safe_regex":
        return {specifier: {"regex": path.replace("a", ".")}}
    if specifier == "path_separated_prefix":
        path = path.rstrip("/") or "/a"
        path = path.replace(";", "")
    match: dict[str, Any] = {specifier: path}
    if draw(st.integers(0, 4)) == 0:
        match["case_sensitive"] = False
    if draw(st.integers(0, 3)) == 0:
        match["headers"] = [{"name": "x", "present_match": draw(st.booleans())}]
    return match


def fits(match: RouteMatch, path: str) -> bool:
    """Whether a path, which has no query, fits: said once more, in plain Python."""
    wanted = match.path.decode()
    if match.path_specifier == "safe_regex":
        return re.fullmatch(wanted, path) is not None
    if not match.case_sensitive:
        wanted, path = wanted.lower(), path.lower()
    if match.path_specifier == "path":
        return path == wanted
    if match.path_specifier == "prefix":
        return path[: len(wanted)] == wanted
    return path == wanted or path[: len(wanted) + 1] == wanted + "/"


def naive(document: dict[str, Any], path: str, has_x: bool) -> str | None:
    """The first route that fits, each tried in turn."""
    if document["ignore_path_parameters_in_path_matching"]:
        path = "/".join(part.partition(";")[0] for part in path.split("/"))
    for route in configured(document).virtual_hosts[0].routes:
        if fits(route.match, path) and all(matcher.match is has_x for matcher in route.match.headers):
            return route.name
    return None


@pytest.mark.parametrize("index_from", [0, 1000])
@settings(max_examples=60, deadline=None)
@given(st.lists(matches(), max_size=12), st.lists(paths, min_size=3, max_size=8), st.booleans(), st.booleans())
def test_both_ways_of_matching_are_like_trying_in_turn(
    index_from: int, found: list[dict[str, Any]], targets: list[str], ignore: bool, header: bool
) -> None:
    document = one_host(*(named(str(number), match) for number, match in enumerate(found)))
    document["ignore_path_parameters_in_path_matching"] = ignore
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(route_table, "INDEX_FROM", index_from)
        ours = table(document)
    for target in targets:
        for query in ("", "?q=/a/b", "#a"):
            head = request(target + query, headers=[("x", "1")] if header else [])
            route = ours.match(head, stream(head))
            assert (None if route is None else route.name) == naive(document, target, header)


def test_many_routes_are_indexed() -> None:
    exact = [named(f"e{number}", {"path": f"/e/{number}"}) for number in range(path_match.INDEX_FROM)]
    ours = table(one_host(named("first", {"path": "/e/3"}), *exact, named("rest", {"prefix": "/e"})))
    for path, name in (("/e/3", "first"), ("/e/5?x", "e5"), ("/e/99", "rest"), ("/e", "rest"), ("/f", None)):
        assert getattr(ours.match(request(path), None), "name", None) == name


def test_a_request_without_a_path_takes_connect_routes_only() -> None:
    ours = table(
        one_host(
            named("any", {"safe_regex": {"regex": ".*"}}),
            {"match": {"connect_matcher": {}}, "name": "connect", "route": {"cluster": "a"}},
        )
    )
    assert _name(ours, request("", method="CONNECT")) == "connect"
    assert _name(ours, request("/", method="CONNECT")) == "any"


def test_a_target_that_is_no_path_fits_no_prefix() -> None:
    ours = table(one_host(named("any", {"prefix": "/"})))
    assert _name(ours, request("*", method="OPTIONS")) is None


def _name(ours: RouteTable, head: RequestHead) -> str | None:
    route = ours.match(head, stream(head))
    return None if route is None else route.name


def _fraction(numerator: int) -> dict[str, Any]:
    return {"default_value": {"numerator": numerator, "denominator": "HUNDRED"}}


def test_one_random_number_decides_for_all_fractions_of_a_request() -> None:
    ours = table(
        one_host(
            named("third", {"prefix": "/", "runtime_fraction": _fraction(30)}),
            named("half", {"prefix": "/", "runtime_fraction": _fraction(50)}),
            named("rest", {"prefix": "/"}),
        )
    )
    found = Counter(_name(ours, request()) for _ in range(4000))
    assert abs(found["third"] - 1200) < 150
    assert abs(found["half"] - 800) < 150
    assert abs(found["rest"] - 2000) < 150


def test_fractions_of_nothing_and_of_all() -> None:
    ours = table(
        one_host(
            named("never", {"prefix": "/", "runtime_fraction": _fraction(0)}),
            named("always", {"prefix": "/", "runtime_fraction": _fraction(100)}),
        )
    )
    assert {_name(ours, request()) for _ in range(300)} == {"always"}


def test_the_memo_of_hosts_is_bounded() -> None:
    ours = table(
        {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*.test"], "routes": [named("r", {"path": "/"})]}]}
    )
    for number in range(3000):
        assert _name(ours, request("/", f"h{number}.test")) == "r"
    assert _name(ours, request("/", "h" * 5000 + ".test")) == "r"
    known = ours._hosts.known
    assert len(known) <= 1024
    assert max(map(len, known)) <= 255


def _explained(ours: Any, head: Any) -> list[str]:
    return [step.text for step in ours.explain(head, None)]


def test_an_explanation_names_what_failed_and_what_matched() -> None:
    ours = table(
        one_host(
            named("exact", {"path": "/x"}),
            named("head", {"prefix": "/", "headers": [{"name": "x", "string_match": {"prefix": "ab"}}]}),
            named("number", {"prefix": "/", "headers": [{"name": "x", "range_match": {"start": 1, "end": 3}}]}),
            named("absent", {"prefix": "/", "headers": [{"name": "x", "present_match": False}]}),
            named("query", {"prefix": "/", "query_parameters": [{"name": "q", "string_match": {"exact": "1"}}]}),
            named("never", {"prefix": "/", "runtime_fraction": _fraction(0)}),
            named("last", {"prefix": "/"}),
        )
    )
    assert _explained(ours, request("/y?q=2", headers=[("x", "cd")])) == [
        "virtual host 'v' serves 'example.com'",
        "route 0 'exact' does not match: path '/y' does not fit path '/x'",
        "route 1 'head' does not match: header x is 'cd' and must begin with 'ab'",
        "route 2 'number' does not match: header x is 'cd' and must be a number from 1 to 2",
        "route 3 'absent' does not match: header x is 'cd' and must be missing",
        "route 4 'query' does not match: query parameter q is '2' and must be '1'",
        "route 5 'never' does not match: takes 0 of 100 requests only, and this is not one of them",
        "route 6 'last' matches",
    ]


def test_an_explanation_of_no_host_and_of_no_route() -> None:
    document = {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["a"], "routes": [named("x", {"path": "/"})]}]}
    ours = table(document)
    assert _explained(ours, request("/", "b")) == ["no virtual host of 'r' has a domain for 'b'"]
    assert _explained(ours, request("/y", "a"))[-1] == "no route matches"


@settings(max_examples=40, deadline=None)
@given(st.lists(matches(), max_size=6), paths, st.booleans())
def test_explanations_agree_with_decisions(found: list[dict[str, Any]], target: str, header: bool) -> None:
    ours = table(one_host(*(named(str(number), match) for number, match in enumerate(found))))
    head = request(target, headers=[("x", "1")] if header else [])
    name = _name(ours, head)
    last = _explained(ours, head)[-1]
    assert last == ("no route matches" if name is None else f"route {name} '{name}' matches")


def _buffer(size: int | None) -> dict[str, Any]:
    kind = "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute"
    return {"@type": kind, "disabled": True} if size is None else {"@type": kind, "buffer": {"max_request_bytes": size}}


def _size(route: Route, name: str) -> Any:
    return getattr(route.per_filter[name].config, "max_request_bytes", None)


def test_the_nearest_configuration_of_a_filter_counts() -> None:
    weighted = {"clusters": [{"name": "a", "weight": 1, "typed_per_filter_config": {"f": _buffer(1)}}]}
    document = one_host(
        {
            "match": {"prefix": "/"},
            "route": {"weighted_clusters": weighted},
            "typed_per_filter_config": {"f": _buffer(2), "g": _buffer(2)},
        },
        typed_per_filter_config={"f": _buffer(3), "g": _buffer(3), "h": _buffer(3)},
    )
    document["typed_per_filter_config"] = {name: _buffer(4) for name in "fghi"}
    route, entry = table(document).routes
    assert route.pick_cluster is not None
    assert route.pick_cluster(request(), stream().random)[1] is entry
    assert [_size(route, name) for name in "fghi"] == [2, 2, 3, 4]
    assert [_size(entry, name) for name in "fghi"] == [1, 2, 3, 4]
    assert [len(entry.per_filter_levels[name]) for name in "fghi"] == [4, 3, 2, 1]


def test_what_a_route_carries() -> None:
    action = {
        "cluster": "a",
        "timeout": "0s",
        "idle_timeout": "3s",
        "priority": "HIGH",
        "auto_host_rewrite": True,
        "cluster_not_found_response_code": "NOT_FOUND",
        "metadata_match": {"filter_metadata": {"envoy.lb": {"version": "v1", "stage": True, "n": 2}}},
        "max_stream_duration": {"max_stream_duration": "9s", "grpc_timeout_header_max": "0s"},
        "upgrade_configs": [{"upgrade_type": "websocket"}, {"upgrade_type": "CONNECT", "enabled": False}],
        "request_mirror_policies": [{"cluster": "b", "disable_shadow_host_suffix_append": True}],
    }
    route = table(one_host({"match": {"prefix": "/"}, "route": action, "name": "n"})).routes[0]
    assert (route.kind, route.cluster_name, route.pick_cluster, route.name, route.virtual_host_name) == (
        "forward",
        "a",
        None,
        "n",
        "v",
    )
    assert (route.timeout, route.idle_timeout, route.max_stream_duration) == (None, 3.0, 9.0)
    assert (route.grpc_timeout_header_max, route.priority, route.cluster_not_found_response_code) == (0.0, 1, 404)
    assert route.metadata_match == (("n", "2"), ("stage", "true"), ("version", '"v1"'))
    assert route.upgrades == {b"websocket": True, b"connect": False}
    assert [(mirror.cluster_name, mirror.append_shadow_suffix) for mirror in route.mirrors] == [("b", False)]
    assert route.auto_host_rewrite
    changes = (route.rewrite, route.mutate_request, route.mutate_response, route.hash_key, route.retry)
    assert changes == (None,) * 5


def test_envoys_headers_can_be_suppressed() -> None:
    document = one_host({"match": {"prefix": "/p"}, "route": {"cluster": "a", "prefix_rewrite": "/n"}})
    for suppress in (False, True):
        head = request("/p/x")
        route = table(document, suppress_envoy_headers=suppress).match(head, None)
        assert route is not None
        assert route.rewrite is not None
        route.rewrite(head, None)
        assert head.path == b"/n/x"
        assert (b"x-envoy-original-path" in head.index) != suppress


def test_a_wrong_format_is_refused_when_it_is_compiled() -> None:
    add = [{"header": {"key": "x", "value": "%NOPE"}}]
    with pytest.raises(ValueError, match="wrong format"):
        table(one_host({"match": {"prefix": "/"}, "route": {"cluster": "a"}, "request_headers_to_add": add}))


@pytest.mark.parametrize(
    ("content_type", "name"),
    [
        ("application/grpc", "grpc"),
        ("application/grpc+proto", "grpc"),
        ("application/grpc-web", "rest"),
        ("text/plain", "rest"),
    ],
)
def test_routes_for_grpc_only(content_type: str, name: str) -> None:
    answer = DirectResponseAction(200)
    routes = (
        RouteConfig(RouteMatch("prefix", b"/", grpc=True), answer, "grpc"),
        RouteConfig(RouteMatch("prefix", b"/"), answer, "rest"),
    )
    ours = compile_route_configuration(
        RouteConfiguration("r", (VirtualHost("v", (b"*",), routes),)), compile_format, Random(1)
    )
    assert _name(ours, request(headers=[("content-type", content_type)])) == name


@pytest.mark.parametrize(
    ("require_tls", "headers", "redirected"),
    [
        ("NONE", [], False),
        ("ALL", [], True),
        ("ALL", [("x-forwarded-proto", "http"), ("x-envoy-internal", "true")], True),
        ("ALL", [("x-forwarded-proto", "https")], False),
        ("EXTERNAL_ONLY", [("x-forwarded-proto", "http")], True),
        ("EXTERNAL_ONLY", [("x-forwarded-proto", "http"), ("x-envoy-internal", "true")], False),
    ],
)
def test_hosts_that_require_tls(require_tls: Any, headers: list[tuple[str, str]], redirected: bool) -> None:
    route = RouteConfig(RouteMatch("prefix", b"/"), DirectResponseAction(200), "plain")
    ours = compile_route_configuration(
        RouteConfiguration("r", (VirtualHost("v", (b"*",), (route,), require_tls=require_tls),)),
        compile_format,
        Random(1),
    )
    head = request("/p?q", "h.test:80", headers)
    found = ours.match(head, stream(head))
    assert found is not None
    assert (found.kind == "redirect") is redirected
    if redirected:
        assert found.redirect is not None
        assert found.redirect(head, stream(head)) == (301, b"https://h.test:80/p?q")
        assert "redirected to https" in _explained(ours, head)[-1]


def _of_claims(*path: str, value: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "prefix": "/",
        "dynamic_metadata": [{"filter": "f", "path": [{"key": key} for key in path], "value": value, **fields}],
    }


@pytest.mark.parametrize("filler", [0, path_match.INDEX_FROM])
def test_routes_by_dynamic_metadata(filler: int) -> None:
    ours = table(
        one_host(
            *(named(f"filler-{number}", {"path": f"/filler/{number}"}) for number in range(filler)),
            named("alice", _of_claims("sub", value={"string_match": {"exact": "alice"}})),
            named("high", _of_claims("level", value={"double_match": {"range": {"start": 3, "end": 9}}})),
            named(
                "admins", _of_claims("groups", value={"list_match": {"one_of": {"string_match": {"prefix": "adm"}}}})
            ),
            named("nobody", _of_claims("sub", value={"present_match": True}, invert=True)),
        )
    )
    for metadata, name in (
        (None, "nobody"),
        ({"g": {"sub": "alice"}}, "nobody"),
        ({"f": {"sub": "alice"}}, "alice"),
        ({"f": {"sub": "bob", "level": 8.0}}, "high"),
        ({"f": {"sub": "bob", "groups": ["users", "admins"]}}, "admins"),
        ({"f": {"sub": "bob", "groups": "admins", "level": "8"}}, None),
    ):
        head = request()
        of_request = stream(head)
        of_request.dynamic_metadata = metadata
        assert getattr(ours.match(head, of_request), "name", None) == name
        last = ours.explain(head, of_request)[-1]
        assert last.name == (name or "")
    of_request.dynamic_metadata = {"f": {"sub": "bob", "groups": ["users"]}}
    assert [step.text for step in ours.explain(head, of_request)][-5:-1] == [
        f"route {filler} 'alice' does not match: dynamic metadata f/sub is 'bob' and must be 'alice'",
        f"route {filler + 1} 'high' does not match: dynamic metadata f/level is missing and must be a number from 3 to below 9",
        f"route {filler + 2} 'admins' does not match: dynamic metadata f/groups is ['users'] and must be a list of which one"
        " element must begin with 'adm'",
        f"route {filler + 3} 'nobody' does not match: dynamic metadata f/sub is 'bob' and must not be there",
    ]
