"""Which virtual host and which route a request gets. Every route answers with its own name."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import Message, Site, bootstrap, listener, manager, route, say, virtual_host
from tests.differential.case import Header, Table


def named(name: str, **match: Any) -> Message:
    """A route that answers with its name; without another path matcher it takes every path."""
    if not match.keys() & {"prefix", "path", "safe_regex", "path_separated_prefix", "path_match_policy"}:
        match["prefix"] = "/"
    return route(match, say(200, name), name=name)


def only(host: str, *routes: Message, **fields: Any) -> Message:
    return virtual_host(host, [f"{host}.test"], routes, **fields)


def header(name: str, **match: Any) -> dict[str, Any]:
    return {"headers": [{"name": name, **match}]}


def query(name: str, **match: Any) -> dict[str, Any]:
    return {"query_parameters": [{"name": name, **match}]}


def string(**match: Any) -> dict[str, Any]:
    return {"string_match": match}


DOMAINS = (
    ("exact", ["exact.test", "with-port.test:8080", "UPPER.test"]),
    ("suffix", ["*.suffix.test"]),
    ("longer-suffix", ["*.longer.suffix.test"]),
    ("dashed-suffix", ["*-dashed.test"]),
    ("prefix", ["prefix.*"]),
    ("longer-prefix", ["prefix.longer.*"]),
    ("exact-in-suffix", ["one.suffix.test"]),
)

HEADER_MATCHES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("exact", header("x-h", **string(exact="Value"))),
    ("ignore-case", header("x-h", **string(exact="folded", ignore_case=True))),
    ("prefix", header("x-h", **string(prefix="pre-"))),
    ("prefix-ignore-case", header("x-h", **string(prefix="fpre-", ignore_case=True))),
    ("suffix", header("x-h", **string(suffix="-suf"))),
    ("contains", header("x-h", **string(contains="mid"))),
    ("contains-ignore-case", header("x-h", **string(contains="fold-mid", ignore_case=True))),
    ("regex", header("x-h", **string(safe_regex={"regex": "r[0-9]+"}))),
    ("range", header("x-h", range_match={"start": 10, "end": 20})),
    ("present", header("x-present", present_match=True)),
    ("inverted", header("x-inverted", invert_match=True, **string(exact="no"))),
    ("several", {"headers": [{"name": "x-a", **string(exact="1")}, {"name": "x-b", **string(exact="2")}]}),
    ("method", header(":method", **string(exact="PUT"))),
    ("authority", header(":authority", **string(prefix="headers.test:9"))),
    ("path", header(":path", **string(exact="/by-path-header"))),
    ("empty-value", header("x-empty", treat_missing_header_as_empty=True, **string(exact="never"))),
)


def matching(site: Site) -> Message:
    hosts = [virtual_host(name, domains, [named(name)]) for name, domains in DOMAINS]
    hosts += [
        only(
            "paths",
            named("exact", path="/exact"),
            named("exact-folded", path="/Folded", case_sensitive=False),
            named("regex", safe_regex={"regex": "/regex/[a-z]+(/x)?"}),
            named("regex-folded", safe_regex={"regex": "(?i)/fregex/[a-z]+"}),
            named("separated", path_separated_prefix="/sep"),
            named("separated-folded", path_separated_prefix="/fsep", case_sensitive=False),
            named("prefix-folded", prefix="/fprefix", case_sensitive=False),
            named("prefix-first", prefix="/pre"),
            named("prefix-second", prefix="/prefix/longer"),
            named("with-query", path="/query?x=1"),
            named("grpc-only", prefix="/grpc", grpc={}),
        ),
        only("headers", *(named(name, **match) for name, match in HEADER_MATCHES)),
        only(
            "inverted",
            named("absent", **header("x-absent", present_match=False)),
            named("not-present", **header("x-gone", present_match=True, invert_match=True)),
            named(
                "not-missing-as-empty",
                **header("x-m", treat_missing_header_as_empty=True, invert_match=True, **string(exact="v")),
            ),
        ),
        only(
            "query",
            named("exact", **query("q", **string(exact="one"))),
            named("prefix", **query("q", **string(prefix="pre"))),
            named("regex", **query("q", **string(safe_regex={"regex": "[0-9]+"}))),
            named("present", **query("p", present_match=True)),
            named("ignore-case", **query("q", **string(exact="FOLD", ignore_case=True))),
            named("decoded", **query("d", **string(exact="a b"))),
            named("two", query_parameters=[{"name": "a", **string(exact="1")}, {"name": "b", **string(exact="2")}]),
        ),
        only(
            "fractions",
            named("never", prefix="/none", runtime_fraction={"default_value": {"numerator": 0}}),
            named("always", prefix="/all", runtime_fraction={"default_value": {"numerator": 100}}),
            named(
                "million",
                prefix="/million",
                runtime_fraction={"default_value": {"numerator": 1000000, "denominator": "MILLION"}},
            ),
            named("rest"),
        ),
        only("nothing", named("something", path="/something")),
        only("empty"),
        only("tls-required", named("plain"), require_tls="ALL"),
        only("tls-external", named("plain"), require_tls="EXTERNAL_ONLY"),
    ]
    starred = [*hosts, virtual_host("star", ["*"], [named("star")])]
    return bootstrap(
        site,
        [
            listener(site, "http", manager(site, hosts=starred)),
            listener(site, "starless", manager(site, hosts=hosts)),
            listener(
                site, "ignoring-port", manager(site, hosts=starred, route_config={"ignore_port_in_host_matching": True})
            ),
        ],
    )


BOOTSTRAPS = {"matching": matching}

table = Table("matching", "matching")
CASES = table.cases

for _host in (
    "exact.test",
    "EXACT.test",
    "upper.test",
    "exact.test:80",
    "with-port.test:8080",
    "with-port.test",
    "x.suffix.test",
    "suffix.test",
    ".suffix.test",
    "x.longer.suffix.test",
    "y.x.suffix.test",
    "one.suffix.test",
    "x-dashed.test",
    "-dashed.test",
    "prefix.org",
    "prefix.",
    "prefix.longer.org",
    "prefix.longer",
    "other.test",
    "x.suffix.test:8080",
):
    table.get(f"domain-{_host}", host=_host)
table.get("domain-none-starless", host="other.test", listener="starless")
table.get("domain-exact-starless", host="exact.test", listener="starless")
table.get("domain-port-ignored", host="exact.test:1234", listener="ignoring-port")
table.get("domain-port-ignored-with-port", host="with-port.test:8080", listener="ignoring-port")
table.get("domain-ipv6", host="[::1]:8080")
table.get("domain-empty-virtual-host", host="empty.test")
table.get("domain-without-route", host="nothing.test")
table.get("tls-required", "/path?x=1", host="tls-required.test")
table.get("tls-required-with-port", "/path", host="tls-required.test:8080")
table.get("tls-external", host="tls-external.test")
table.get("tls-required-forwarded", "/", [("x-forwarded-proto", "https")], host="tls-required.test")

for _path in (
    "/exact",
    "/Exact",
    "/exact/",
    "/exact?q=1",
    "/exact#f",
    "/folded",
    "/FOLDED?x",
    "/regex/abc",
    "/regex/ABC",
    "/regex/abc/x",
    "/regex/abc/y",
    "/regex/abc?q=1",
    "/xregex/abc",
    "/FREGEX/abc",
    "/sep",
    "/sep/x",
    "/separate",
    "/sep?x=1",
    "/sep/",
    "/Sep",
    "/FSEP/x",
    "/fsepx",
    "/FPREFIX/x",
    "/fprefix",
    "/pre",
    "/prefix/longer",
    "/Pre",
    "/query?x=1",
    "/query",
    "/grpc/x",
    "/none",
    "//exact",
    "/%65xact",
    "/regex/abc#f",
    "/sep#f",
):
    table.get(f"path-{_path}", _path, host="paths.test")
table.get("path-grpc", "/grpc/x", [("Content-Type", "application/grpc")], host="paths.test", method="POST")
table.get("path-grpc-proto", "/grpc/x", [("Content-Type", "application/grpc+proto")], host="paths.test", method="POST")
table.get("path-grpc-web", "/grpc/x", [("Content-Type", "application/grpc-web")], host="paths.test", method="POST")

HEADER_CASES: tuple[tuple[str, list[Header]], ...] = (
    ("exact", [("X-H", "Value")]),
    ("exact-other-case", [("X-H", "value")]),
    ("exact-two-values", [("X-H", "Value"), ("X-H", "Other")]),
    ("ignore-case", [("X-H", "FOLDed")]),
    ("prefix", [("X-H", "pre-x")]),
    ("prefix-alone", [("X-H", "pre-")]),
    ("prefix-ignore-case", [("X-H", "FPRE-x")]),
    ("suffix", [("X-H", "x-suf")]),
    ("contains", [("X-H", "a-mid-b")]),
    ("contains-ignore-case", [("X-H", "a-FOLD-MID-b")]),
    ("regex", [("X-H", "r12")]),
    ("regex-is-anchored", [("X-H", "xr12y")]),
    ("range-start", [("X-H", "10")]),
    ("range-end", [("X-H", "20")]),
    ("range-within", [("X-H", "15")]),
    ("range-plus", [("X-H", "+15")]),
    ("range-spaces", [("X-H", "  15  ")]),
    ("range-zeros", [("X-H", "0015")]),
    ("range-underscore", [("X-H", "1_5")]),
    ("range-float", [("X-H", "15.0")]),
    ("present", [("X-Present", "")]),
    ("inverted", [("X-Inverted", "yes")]),
    ("inverted-equal", [("X-Inverted", "no")]),
    ("several", [("X-A", "1"), ("X-B", "2"), ("X-Inverted", "no")]),
    ("several-one-missing", [("X-A", "1"), ("X-Inverted", "no")]),
    ("none", [("X-Inverted", "no")]),
)
for _name, _headers in HEADER_CASES:
    _given = _headers if any(name == "X-Inverted" for name, _ in _headers) else [*_headers, ("X-Inverted", "no")]
    table.get(f"header-{_name}", headers=_given, host="headers.test")
table.get("header-inverted-missing", host="headers.test")
table.get("header-method", headers=[("X-Inverted", "no")], host="headers.test", method="PUT")
table.get("header-authority", headers=[("X-Inverted", "no")], host="headers.test:9")
table.get("header-path", "/by-path-header", headers=[("X-Inverted", "no")], host="headers.test")
table.get("absent", host="inverted.test")
table.get("absent-but-there", headers=[("X-Absent", "1")], host="inverted.test")
table.get("absent-and-gone-there", headers=[("X-Absent", "1"), ("X-Gone", "1")], host="inverted.test")
table.get("missing-as-empty-equal", headers=[("X-Absent", "1"), ("X-Gone", "1"), ("X-M", "v")], host="inverted.test")

for _query in (
    "q=one",
    "q=One",
    "q=prefix",
    "q=42",
    "q=4x2",
    "p",
    "p=",
    "p=1",
    "q=fold",
    "d=a%20b",
    "d=a+b",
    "a=1&b=2",
    "b=2&a=1",
    "a=1",
    "q=two&q=one",
    "q=one&q=two",
    "",
    "Q=one",
    "x=1#q=one",
    "q",
    "q=one;b=2",
    "&&q=one",
    "q=one#f",
    "=one",
):
    table.get(f"query-{_query}", f"/?{_query}", host="query.test")

for _path in ("/none", "/all", "/million"):
    table.get(f"fraction-{_path}", _path, host="fractions.test")
