"""The same routes and requests for real Envoy and for a compiled table: decisions, redirects and what changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from sidecar.core.head import ResponseHead
from tests.differential.envoy_binary import EnvoyUnavailableError
from tests.sidecar.router.compiling import named, one_host, request, stream, table
from tests.sidecar.router.real_envoy import RealEnvoy, running

STRINGS: list[dict[str, Any]] = [
    {"exact": "abc"},
    {"exact": "ABC", "ignore_case": True},
    {"prefix": "ab"},
    {"prefix": "AB", "ignore_case": True},
    {"suffix": "bc"},
    {"suffix": "BC", "ignore_case": True},
    {"contains": "b"},
    {"contains": "B", "ignore_case": True},
    {"safe_regex": {"regex": "a.c"}},
    {"safe_regex": {"regex": "(?i)A.*"}},
    {"safe_regex": {"regex": "a[^x]c"}},
    {"safe_regex": {"regex": "aéc"}},
]
HEADER_MATCHERS: list[dict[str, Any]] = [
    *({"string_match": match} for match in STRINGS),
    *({"string_match": match, "invert_match": True} for match in STRINGS),
    {"string_match": {"exact": ""}, "treat_missing_header_as_empty": True},
    {"string_match": {"exact": "abc"}, "treat_missing_header_as_empty": True, "invert_match": True},
    {"string_match": {"exact": "abc,def"}},
    {"string_match": {"exact": ""}},
    {"range_match": {"start": -5, "end": 10}},
    {"range_match": {"start": -5, "end": 10}, "invert_match": True},
    {"range_match": {"start": -5, "end": 10}, "treat_missing_header_as_empty": True},
    {"range_match": {"start": -5, "end": 10}, "treat_missing_header_as_empty": True, "invert_match": True},
    {"present_match": True},
    {"present_match": False},
    {"present_match": True, "invert_match": True},
    {"present_match": False, "invert_match": True},
    {"present_match": True, "treat_missing_header_as_empty": True},
    {"present_match": False, "treat_missing_header_as_empty": True},
    {"present_match": True, "treat_missing_header_as_empty": True, "invert_match": True},
    {"exact_match": "abc"},
    {"exact_match": ""},
    {"prefix_match": "ab", "invert_match": True},
    {},
    {"invert_match": True},
]
HEADER_VALUES: list[tuple[str, ...]] = [
    (),
    ("",),
    ("abc",),
    ("ABC",),
    ("abcd",),
    ("a\xe9c",),
    ("a\xc3\xa9c",),
    ("xabc",),
    ("abc", "def"),
    ("def", "abc"),
    ("abc,def",),
    ("", "abc"),
    ("", ""),
    ("x", "9"),
    ("9",),
    ("10",),
    ("-5",),
    ("-6",),
    ("+3",),
    ("0x3",),
    ("1_0",),
    ("3 3",),
    ("007",),
    ("99999999999999999999",),
]
QUERY_MATCHERS: list[dict[str, Any]] = [
    {"name": "q"},
    {"name": "q", "present_match": True},
    {"name": "q", "present_match": False},
    *({"name": "q", "string_match": match} for match in STRINGS),
    {"name": "q", "string_match": {"exact": "a%20b"}},
    {"name": "q%31", "present_match": True},
]
QUERIES = [
    "",
    "?",
    "?q",
    "?q=",
    "?q=abc",
    "?q=ABC",
    "?q=abcd&x=1",
    "?x=1&q=abc",
    "?q=x&q=abc",
    "?q=abc&q=x",
    "?q=a%20b",
    "?q=a=c",
    "?qq=abc",
    "?Q=abc",
    "?x=q=abc",
    "?&&q=abc",
    "?q%31=1",
    "?x=1?q=abc",
]
PATH_MATCHERS: list[dict[str, Any]] = [
    {"prefix": "/"},
    {"prefix": "/api"},
    {"prefix": "/api/"},
    {"prefix": "/API", "case_sensitive": False},
    {"prefix": "/api?x"},
    {"prefix": ""},
    {"path": "/api"},
    {"path": "/api/"},
    {"path": "/aPi", "case_sensitive": False},
    {"path": "/api?x=1"},
    {"path_separated_prefix": "/api"},
    {"path_separated_prefix": "/API", "case_sensitive": False},
    {"path_separated_prefix": "/api/v1"},
    {"safe_regex": {"regex": "/api"}},
    {"safe_regex": {"regex": "/api/v[0-9]+"}},
    {"safe_regex": {"regex": "/(api|other)/.*"}},
    {"safe_regex": {"regex": ".*x=1"}},
    {"connect_matcher": {}},
]
PATHS = [
    "/",
    "/api",
    "/API",
    "/api/",
    "/api/v1",
    "/api/v12/",
    "/API/v1",
    "/apis",
    "/api?x",
    "/api?x=1",
    "/api/?x=1",
    "/api/v1?x=1",
    "/api;v=1",
    "/api;v=1/v1",
    "/api/v1;a?x=1",
    "/api;v?x/v1",
    "/api?x;y/v1",
    "/api/v1;a;b",
    "/api/;x",
    "/other/thing",
    "/x?/api",
    "/api%2Fv1",
    "//api",
]
DOMAINS = [
    ["exact.test"],
    ["exact.test:8080"],
    ["UPPER.test"],
    ["*.test"],
    ["*.sub.test"],
    ["*-x.sub.test"],
    ["pre.*"],
    ["pre.sub.*"],
    ["[::1]"],
    ["10.0.0.*"],
]
HOSTS = [
    "exact.test",
    "EXACT.test",
    "exact.test:8080",
    "exact.test:81",
    "upper.test",
    "a.test",
    ".test",
    "test",
    "a.sub.test",
    "sub.test",
    "a-x.sub.test",
    "-x.sub.test",
    "pre.foo",
    "pre.",
    "pre.sub.foo",
    "pre.test",
    "a.test:99",
    "pre.foo:99",
    "[::1]",
    "[::1]:80",
    "10.0.0.1:5",
    "10.0.0.1",
    "nothing",
    "exact.test:",
    "exact.test:http",
]


def _hosts(ignore_port: bool, default: bool) -> dict[str, Any]:
    hosts = [
        {"name": domains[0], "domains": domains, "routes": [named(domains[0], {"prefix": "/"})]} for domains in DOMAINS
    ]
    if default:
        hosts.append({"name": "*", "domains": ["*"], "routes": [named("*", {"prefix": "/"})]})
    return {"name": "domains", "virtual_hosts": hosts, "ignore_port_in_host_matching": ignore_port}


def _each_in_a_host(matches: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": "each",
        "virtual_hosts": [
            {"name": f"v{number}", "domains": [f"v{number}.test"], "routes": [named(f"r{number}", match)]}
            for number, match in enumerate(matches)
        ],
    }


REDIRECTS: list[dict[str, Any]] = [
    {"host_redirect": "other.test"},
    {"https_redirect": True},
    {"scheme_redirect": "https"},
    {"scheme_redirect": "ftp", "port_redirect": 99},
    {"port_redirect": 8443},
    {"https_redirect": True, "port_redirect": 8443},
    {"https_redirect": True, "host_redirect": "other.test", "port_redirect": 8443},
    {"path_redirect": "/new"},
    {"path_redirect": "/new?own=1"},
    {"path_redirect": "/new", "strip_query": True},
    {"path_redirect": "/new?own=1", "strip_query": True},
    {"strip_query": True, "https_redirect": True},
    {"prefix_rewrite": "/other"},
    {"prefix_rewrite": "/other", "strip_query": True},
    {"regex_rewrite": {"pattern": {"regex": "^/(r[0-9]+)/(.*)$"}, "substitution": "/\\2/\\1"}},
    {"regex_rewrite": {"pattern": {"regex": "b"}, "substitution": "[\\0]\\\\"}, "host_redirect": "other.test"},
    {"response_code": "FOUND", "host_redirect": "o"},
    {"response_code": "SEE_OTHER", "host_redirect": "o"},
    {"response_code": "TEMPORARY_REDIRECT", "host_redirect": "o"},
    {"response_code": "PERMANENT_REDIRECT", "host_redirect": "o"},
]
REDIRECT_HOSTS = ["h.test", "h.test:80", "h.test:443", "h.test:8080", "[::1]:80", "[::1]"]
REDIRECT_PATHS = ["", "/b", "/abba?q=b", "?x=1"]

REGEX = {"pattern": {"regex": "a+"}, "substitution": "-\\0-"}
REWRITES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"prefix": "/p"}, {"prefix_rewrite": "/"}),
    ({"prefix": "/p/"}, {"prefix_rewrite": "/new/"}),
    ({"prefix": "/P", "case_sensitive": False}, {"prefix_rewrite": "/new"}),
    ({"path": "/p/aab"}, {"prefix_rewrite": "/exact"}),
    ({"path_separated_prefix": "/p"}, {"prefix_rewrite": "/sep"}),
    ({"safe_regex": {"regex": "/p/.*"}}, {"prefix_rewrite": "/regex"}),
    ({"prefix": "/p"}, {"regex_rewrite": REGEX}),
    ({"prefix": "/p"}, {"regex_rewrite": {"pattern": {"regex": "x*"}, "substitution": "_"}}),
    ({"prefix": "/p"}, {"regex_rewrite": {"pattern": {"regex": "^/p(/.*)?$"}, "substitution": "/n\\1"}}),
    ({"prefix": "/p"}, {"host_rewrite_literal": "literal.test"}),
    ({"prefix": "/p"}, {"host_rewrite_literal": "literal.test", "append_x_forwarded_host": True}),
    ({"prefix": "/p"}, {"host_rewrite_header": "x-m-host"}),
    ({"prefix": "/p"}, {"host_rewrite_header": "x-m-absent", "append_x_forwarded_host": True}),
    ({"prefix": "/p"}, {"host_rewrite_path_regex": {"pattern": {"regex": "^/p/(.*)$"}, "substitution": "\\1.test"}}),
    ({"prefix": "/p"}, {"host_rewrite_literal": "literal.test", "prefix_rewrite": "/both"}),
    ({"prefix": "/p"}, {"host_rewrite": "x-%REQ(x-m-host)%.test"}),
    ({"prefix": "/p"}, {"append_x_forwarded_host": True}),
]
REWRITE_PATHS = ["/p/aab", "/p/aab?x=aa", "/p", "/pa/?p=1"]
FORWARDED = [(), (("x-forwarded-host", "first.test"),), (("x-forwarded-host", "v.test"),)]


def _add(key: str, value: str, action: str = "APPEND_IF_EXISTS_OR_ADD", **fields: Any) -> dict[str, Any]:
    return {"header": {"key": key, "value": value}, "append_action": action, **fields}


def _mutations(level: str, removed: str) -> dict[str, Any]:
    return {
        f"{side}_headers_to_{verb}": value
        for side in ("request", "response")
        for verb, value in (
            (
                "add",
                [
                    _add("x-m-all", level),
                    _add("x-m-over", level, "OVERWRITE_IF_EXISTS_OR_ADD"),
                    _add("x-m-absent", level, "ADD_IF_ABSENT"),
                    _add("x-m-up", level, "OVERWRITE_IF_EXISTS"),
                    _add("x-m-never", level, "OVERWRITE_IF_EXISTS"),
                    _add(f"x-m-{level}", f"%REQ(x-m-in)%-{level}%%"),
                    _add("x-m-empty", "", keep_empty_value=True),
                    _add("x-m-dropped", ""),
                    _add("x-m-both", f"{level}1", "OVERWRITE_IF_EXISTS_OR_ADD"),
                    _add("x-m-both", f"{level}2"),
                    _add("x-m-both", f"{level}3", "ADD_IF_ABSENT"),
                ],
            ),
            ("remove", [removed, "x-m-other"]),
        )
    }


def _leveled(most_specific_wins: bool) -> dict[str, Any]:
    weighted = {"clusters": [{"name": "a", "weight": 1, **_mutations("weighted", "x-m-one")}]}
    literal = {"clusters": [{"name": "a", "weight": 1, "host_rewrite_literal": "weighted.test"}]}
    routes = [
        {"match": {"prefix": "/plain"}, "route": {"cluster": "a"}, **_mutations("route", "x-m-two")},
        {"match": {"prefix": "/weighted"}, "route": {"weighted_clusters": weighted}, **_mutations("route", "x-m-two")},
        {"match": {"prefix": "/literal"}, "route": {"weighted_clusters": literal, "append_x_forwarded_host": True}},
        {
            "match": {"prefix": "/overridden"},
            "route": {"weighted_clusters": literal, "host_rewrite_literal": "route.test"},
        },
    ]
    host = {"name": "v", "domains": ["*"], "routes": routes, **_mutations("host", "x-m-three")}
    return {
        "name": "levels",
        "virtual_hosts": [host],
        "most_specific_header_mutations_wins": most_specific_wins,
        **_mutations("configuration", "x-m-four"),
    }


REDIRECT_ROUTES = one_host(
    *({"match": {"prefix": f"/r{number}"}, "redirect": redirect} for number, redirect in enumerate(REDIRECTS))
)
REWRITE_ROUTES = {
    "name": "rewrites",
    "virtual_hosts": [
        {
            "name": f"v{number}",
            "domains": [f"v{number}.test"],
            "routes": [{"match": match, "route": {"cluster": "a", **action}}],
        }
        for number, (match, action) in enumerate(REWRITES)
    ],
}
CONFIGURATIONS = {
    "headers": one_host(
        *(
            named(f"h{number}", {"path": f"/h{number}", "headers": [{"name": "x-v", **matcher}]})
            for number, matcher in enumerate(HEADER_MATCHERS)
        ),
        named("pseudo", {"prefix": "/pseudo", "headers": [{"name": "host", "string_match": {"prefix": "exam"}}]}),
        named("method", {"prefix": "/method", "headers": [{"name": ":method", "string_match": {"exact": "PUT"}}]}),
        named("none", {"prefix": "/"}),
    ),
    "queries": one_host(
        *(
            named(f"q{number}", {"path": f"/q{number}", "query_parameters": [matcher]})
            for number, matcher in enumerate(QUERY_MATCHERS)
        ),
        named("none", {"prefix": "/"}),
    ),
    "paths": _each_in_a_host(PATH_MATCHERS),
    "parameters": {**_each_in_a_host(PATH_MATCHERS), "ignore_path_parameters_in_path_matching": True},
    "domains": _hosts(ignore_port=False, default=True),
    "domains_without_default": _hosts(ignore_port=False, default=False),
    "domains_without_ports": _hosts(ignore_port=True, default=True),
    "redirects": REDIRECT_ROUTES,
    "rewrites": REWRITE_ROUTES,
    "levels": _leveled(False),
    "levels_specific": _leveled(True),
}


Case = tuple[str, str, tuple[tuple[str, str], ...]]
"""Path, host and headers of a request."""


@pytest.fixture(scope="module")
def envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEnvoy]:
    """One Envoy for all tests here."""
    try:
        with running(tmp_path_factory.mktemp("envoy"), CONFIGURATIONS) as started:
            yield started
    except EnvoyUnavailableError as error:
        pytest.skip(f"needs real Envoy: {error}")


def _differences(envoy: RealEnvoy, configuration: str, cases: Sequence[Case]) -> list[str]:
    """Where the routes that both chose are not the same."""
    ours = table(CONFIGURATIONS[configuration])
    found = []
    for path, host, headers in cases:
        theirs = envoy.ask(configuration, path, host, headers)
        expected = theirs.body if theirs.status == 200 else "404"
        head = request(path, host, headers)
        route = ours.match(head, stream(head))
        chosen = "404" if route is None else route.name
        if chosen != expected:
            found.append(f"{host} {path} {headers}: Envoy {expected}, ours {chosen}")
    return found


def test_header_matchers(envoy: RealEnvoy) -> None:
    cases = [
        (f"/h{number}", "example.com", tuple(("x-v", value) for value in values))
        for number in range(len(HEADER_MATCHERS))
        for values in HEADER_VALUES
    ]
    cases += [("/pseudo", "example.com", ()), ("/pseudo", "other.com", ()), ("/method", "example.com", ())]
    assert _differences(envoy, "headers", cases) == []


def test_query_parameter_matchers(envoy: RealEnvoy) -> None:
    cases = [(f"/q{number}{query}", "e", ()) for number in range(len(QUERY_MATCHERS)) for query in QUERIES]
    assert _differences(envoy, "queries", cases) == []


@pytest.mark.parametrize("configuration", ["paths", "parameters"])
def test_path_matchers(envoy: RealEnvoy, configuration: str) -> None:
    cases = [(path, f"v{number}.test", ()) for number in range(len(PATH_MATCHERS)) for path in PATHS]
    assert _differences(envoy, configuration, cases) == []


@pytest.mark.parametrize("configuration", ["domains", "domains_without_default", "domains_without_ports"])
def test_domains(envoy: RealEnvoy, configuration: str) -> None:
    assert _differences(envoy, configuration, [("/", host, ()) for host in HOSTS]) == []


def test_redirects(envoy: RealEnvoy) -> None:
    ours = table(REDIRECT_ROUTES)
    found = []
    for number in range(len(REDIRECTS)):
        for host in REDIRECT_HOSTS:
            for rest in REDIRECT_PATHS:
                path = f"/r{number}{rest}"
                theirs = envoy.ask("redirects", path, host)
                head = request(path, host, [("x-forwarded-proto", "http")])
                route = ours.match(head, stream(head))
                assert route is not None
                assert route.redirect is not None
                status, location = route.redirect(head, stream(head))
                if (theirs.status, theirs.header("location")) != (status, location.decode()):
                    found.append(f"{host} {path}: Envoy {theirs.header('location')}, ours {status} {location!r}")
    assert found == []


def _interesting(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    names = ("path", "host", "x-forwarded-host", "x-envoy-original-path", "x-envoy-original-host")
    return sorted((name, value) for name, value in pairs if name in names or name.startswith("x-m-"))


def _sent_upstream(ours: Any, head: Any) -> tuple[list[tuple[str, str]], Any]:
    route = ours.match(head, stream(head))
    assert route is not None
    if route.pick_cluster is not None:
        route = route.pick_cluster(head, stream().random)[1] or route
    context = stream(head)
    if route.mutate_request is not None:
        route.mutate_request(context)
    if route.rewrite is not None:
        route.rewrite(head, context)
    pairs = [(name.decode(), value.decode()) for name, value in head.fields]
    return _interesting([("path", head.path.decode()), ("host", head.authority.decode()), *pairs]), route


def test_rewrites(envoy: RealEnvoy) -> None:
    ours = table(REWRITE_ROUTES)
    found = []
    for number, (match, action) in enumerate(REWRITES):
        for path in REWRITE_PATHS:
            for forwarded in FORWARDED:
                host = f"v{number}.test"
                headers = (*((name, host if value == "v.test" else value) for name, value in forwarded),)
                headers += (("x-m-host", "header.test"),)
                theirs = envoy.ask("rewrites", path, host, headers)
                head = request(path, host, headers)
                if theirs.status == 404:
                    assert ours.match(head, stream(head)) is None
                    continue
                mine, _ = _sent_upstream(ours, head)
                if mine != _interesting(theirs.seen):
                    found.append(f"{match} {action} {path} {headers}: Envoy {_interesting(theirs.seen)}, ours {mine}")
    assert found == []


@pytest.mark.parametrize("configuration", ["levels", "levels_specific"])
@pytest.mark.parametrize("path", ["/plain", "/weighted", "/literal", "/overridden"])
def test_header_mutations_of_all_levels(envoy: RealEnvoy, configuration: str, path: str) -> None:
    headers = [("x-m-in", "in"), ("x-m-one", "1"), ("x-m-two", "2"), ("x-m-three", "3"), ("x-m-four", "4")]
    headers += [("x-m-up", "a"), ("x-m-up", "b"), ("x-m-all", "sent"), ("x-m-other", "o")]
    theirs = envoy.ask(configuration, path, "example.com", headers)
    head = request(path, "example.com", headers)
    mine, route = _sent_upstream(table(CONFIGURATIONS[configuration]), head)
    assert mine == _interesting(theirs.seen)
    fields = [(b"x-m-up", b"one"), (b"x-m-up", b"two"), (b"x-m-other", b"three")]
    response = ResponseHead(200, fields)
    route.mutate_response(stream(head, response))
    assert _interesting([(n.decode(), v.decode()) for n, v in response.fields]) == _interesting(theirs.headers)
