"""What a route does with a request: redirects, direct responses, rewrites, clusters and timeouts."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import Message, Site, bootstrap, cluster, listener, manager, route, say, to, virtual_host
from tests.differential.case import Close, Delay, ReadBody, Reply, Send, Table, reply, request


def redirect(**fields: Any) -> Message:
    return {"redirect": fields}


def regex(pattern: str, substitution: str) -> dict[str, Any]:
    return {"pattern": {"regex": pattern}, "substitution": substitution}


REDIRECTS: dict[str, dict[str, Any]] = {
    "https": {"https_redirect": True},
    "scheme": {"scheme_redirect": "ftp"},
    "host": {"host_redirect": "new.test"},
    "port": {"port_redirect": 8443},
    "host-and-port": {"host_redirect": "new.test", "port_redirect": 8443},
    "https-default-port": {"https_redirect": True, "port_redirect": 443},
    "path": {"path_redirect": "/new"},
    "path-with-query": {"path_redirect": "/new?fixed=1"},
    "prefix": {"prefix_rewrite": "/new"},
    "regex": {"regex_rewrite": regex("^/regex/(.*)$", "/new/\\1")},
    "strip-query": {"strip_query": True, "host_redirect": "new.test"},
    "302": {"response_code": "FOUND", "host_redirect": "new.test"},
    "303": {"response_code": "SEE_OTHER", "host_redirect": "new.test"},
    "307": {"response_code": "TEMPORARY_REDIRECT", "host_redirect": "new.test"},
    "308": {"response_code": "PERMANENT_REDIRECT", "host_redirect": "new.test"},
    "all": {"scheme_redirect": "https", "host_redirect": "new.test", "port_redirect": 9, "path_redirect": "/all"},
}

REWRITES: dict[str, dict[str, Any]] = {
    "prefix": {"prefix_rewrite": "/new"},
    "prefix-root": {"prefix_rewrite": "/"},
    "prefix-empty-slash": {"prefix_rewrite": "/x/"},
    "regex": {"regex_rewrite": regex("/regex/([a-z]+)/([a-z]+)", "/\\2/\\1")},
    "regex-every": {"regex_rewrite": regex("o", "0")},
    "regex-whole-match": {"regex_rewrite": regex("[0-9]+", "<\\0>")},
    "host": {"host_rewrite_literal": "new.test"},
    "host-appended": {"host_rewrite_literal": "new.test", "append_x_forwarded_host": True},
    "host-header": {"host_rewrite_header": "x-host"},
    "host-regex": {"host_rewrite_path_regex": regex("^/host-regex/([a-z]+).*$", "\\1.test")},
    "host-auto": {"auto_host_rewrite": True},
    "prefix-and-host": {"prefix_rewrite": "/new", "host_rewrite_literal": "new.test"},
}

CLUSTERS: dict[str, dict[str, Any]] = {
    "unknown-404": {"cluster": "nowhere", "cluster_not_found_response_code": "NOT_FOUND"},
    "unknown-503": {"cluster": "nowhere"},
    "header": {"cluster_header": "x-cluster"},
    "refused": {"cluster": "refused"},
    "empty": {"cluster": "empty"},
    "maintenance": {"cluster": "maintenance"},
}

TIMEOUTS: dict[str, dict[str, Any]] = {
    "timeout": {"timeout": "0.1s"},
    "no-timeout": {"timeout": "0s"},
    "idle": {"timeout": "0s", "idle_timeout": "0.1s"},
    "max-stream": {"timeout": "0s", "max_stream_duration": {"max_stream_duration": "0.1s"}},
    "default-timeout": {},
}


WEIGHTS = {"split.a": 0, "split.b": 100, "part.c": 4000000000}


def weighted(**fields: Any) -> Message:
    parts = [{"name": "a", "weight": 10}, {"name": "b", "weight": 20}, {"name": "c", "weight": 70}]
    return {"route": {"weighted_clusters": {"clusters": parts, **fields}}}


def actions(site: Site) -> Message:
    routes = [route(f"/redirect/{name}", redirect(**fields), name=name) for name, fields in REDIRECTS.items()]
    rewrites = [
        route(f"/{name}", to("a", **fields), name=name) for name, fields in sorted(REWRITES.items(), reverse=True)
    ]
    rewrites.append(route({"path": "/exact"}, to("a", prefix_rewrite="/new-exact")))
    rewrites.append(route({"safe_regex": {"regex": "/by-regex/.*"}}, to("a", regex_rewrite=regex("/by-regex", ""))))
    others = [
        route({"prefix": "/regex/"}, redirect(**REDIRECTS["regex"])),
        route("/say/201", say(201, "made")),
        route("/say/204", say(204)),
        route("/say/404", say(404)),
        route("/say/500", say(500, "broken\n")),
        route(
            "/say/headers",
            say(200, "typed"),
            response_headers_to_add=[
                {"header": {"key": "content-type", "value": "text/html"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
            ],
        ),
        *(route(f"/cluster/{name}", {"route": fields}) for name, fields in CLUSTERS.items()),
        *(route(f"/time/{name}", to("a", **fields)) for name, fields in TIMEOUTS.items()),
        route("/weighted/header", weighted(header_name="x-weight")),
        route(
            "/weighted/one",
            {"route": {"weighted_clusters": {"clusters": [{"name": "a", "weight": 0}, {"name": "b", "weight": 1}]}}},
        ),
        route("/weighted/by-runtime", weighted(runtime_key_prefix="split", header_name="x-weight")),
        route("/weighted/in-part", weighted(runtime_key_prefix="part", header_name="x-weight")),
        route("/weighted/unknown", weighted(runtime_key_prefix="none", header_name="x-weight")),
        route(
            "/weighted/settings",
            {
                "route": {
                    "weighted_clusters": {
                        "clusters": [
                            {
                                "name": "b",
                                "weight": 1,
                                "host_rewrite_literal": "weighted.test",
                                "request_headers_to_add": [{"header": {"key": "x-weighted", "value": "yes"}}],
                                "request_headers_to_remove": ["x-gone"],
                                "response_headers_to_add": [{"header": {"key": "x-weighted", "value": "back"}}],
                                "response_headers_to_remove": ["x-gone"],
                            }
                        ]
                    }
                }
            },
        ),
        route(
            "/weighted/by-cluster-header",
            {"route": {"weighted_clusters": {"clusters": [{"cluster_header": "x-cluster", "weight": 1}]}}},
        ),
    ]
    hosts = [
        virtual_host("rewrites", ["rewrites.test"], rewrites),
        virtual_host("all", ["*"], [*routes, *others]),
    ]
    return bootstrap(
        site,
        [
            listener(
                site,
                "http",
                manager(site, hosts=hosts, stream_idle_timeout="5s", route_config={"validate_clusters": False}),
            ),
            listener(
                site,
                "small-body",
                manager(
                    site, [route("/", say(200, "x" * 30))], route_config={"max_direct_response_body_size_bytes": 30}
                ),
            ),
        ],
        [cluster(site, "maintenance", ["a"])],
        layered_runtime={
            "layers": [{"name": "static", "static_layer": {"upstream.maintenance_mode.maintenance": 100, **WEIGHTS}}]
        },
    )


BOOTSTRAPS = {"actions": actions}

table = Table("actions", "actions")
CASES = table.cases
get = table.get

for _name in REDIRECTS:
    get(f"redirect-{_name}", f"/redirect/{_name}/x?q=1")
for _scheme in ("http", "https"):
    for _name in ("host", "https", "scheme", "path"):
        get(f"redirect-{_name}-absolute-{_scheme}", f"{_scheme}://a.test/redirect/{_name}/x?q=1")
get("redirect-regex-path", "/regex/more?q=1")
get("redirect-https-with-port", "/redirect/https", host="a.test:80")
get("redirect-https-with-other-port", "/redirect/https", host="a.test:8080")
get("redirect-scheme-with-port", "/redirect/scheme", host="a.test:443")
get("redirect-host-keeps-port", "/redirect/host", host="a.test:8080")
get("redirect-port-ipv6", "/redirect/port", host="[::1]:80")
get("redirect-post", "/redirect/307", method="POST", body=b"body")
get("redirect-head", "/redirect/https", method="HEAD")
get("redirect-fragment", "/redirect/host#f")
get("redirect-same-scheme-as-given", "/redirect/https", [("x-forwarded-proto", "https")])
for _name in ("201", "204", "404", "500", "headers"):
    get(f"direct-{_name}", f"/say/{_name}")
get("direct-head", "/say/201", method="HEAD")
get("direct-post-with-body", "/say/201", method="POST", body=b"x" * 1000)
get("direct-accepts-grpc", "/say/500", [("Content-Type", "application/grpc")], method="POST")
get("direct-small-body", "/", listener="small-body")
table.add(
    "direct-before-body-is-complete",
    Send(b"POST /say/201 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nabc"),
)
for _name, _path in (
    ("prefix", "/prefix/x?q=1"),
    ("prefix-bare", "/prefix"),
    ("prefix-root", "/prefix-root/x"),
    ("prefix-root-bare", "/prefix-root"),
    ("prefix-empty-slash", "/prefix-empty-slash/x"),
    ("regex", "/regex/one/two?q=1"),
    ("regex-no-match", "/regex/1/2"),
    ("regex-every", "/regex-every/foo/bar?foo=1"),
    ("regex-whole-match", "/regex-whole-match/12/34"),
    ("exact", "/exact?x=1"),
    ("by-regex", "/by-regex/x?y=/by-regex"),
    ("host", "/host/x"),
    ("host-appended", "/host-appended"),
    ("host-auto", "/host-auto"),
    ("host-regex", "/host-regex/other/x?q=1"),
    ("host-regex-no-match", "/host-regex/12"),
    ("prefix-and-host", "/prefix-and-host/x"),
    ("prefix-other-case-query", "/prefix/A%20b?C=D#e"),
):
    get(f"rewrite-{_name}", _path, host="rewrites.test")
get("rewrite-host-header", "/host-header", [("X-Host", "from-header.test")], host="rewrites.test")
get("rewrite-host-header-missing", "/host-header", host="rewrites.test")
get("rewrite-host-appended-to", "/host-appended", [("X-Forwarded-Host", "first.test")], host="rewrites.test")
get("rewrite-original-path-given", "/prefix/x", [("X-Envoy-Original-Path", "/fake")], host="rewrites.test")
for _name in CLUSTERS:
    get(f"cluster-{_name}", f"/cluster/{_name}")
get("cluster-header-b", "/cluster/header", [("X-Cluster", "b")])
get("cluster-header-unknown", "/cluster/header", [("X-Cluster", "nowhere")])
get("cluster-header-two", "/cluster/header", [("X-Cluster", "b"), ("X-Cluster", "c")])
get("cluster-refused-post", "/cluster/refused", method="POST", body=b"body")
get("cluster-empty-head", "/cluster/empty", method="HEAD")
get("cluster-empty-grpc", "/cluster/empty", [("Content-Type", "application/grpc")], method="POST", body=b"x")
get("cluster-refused-grpc", "/cluster/refused", [("Content-Type", "application/grpc")], method="POST", body=b"x")
for _weight in ("0", "9", "10", "29", "30", "99", "100", "12345", "18446744073709551615"):
    get(f"weighted-by-header-{_weight}", "/weighted/header", [("X-Weight", _weight)])
    for _runtime in ("by-runtime", "in-part", "unknown"):
        get(f"weighted-{_runtime}-{_weight}", f"/weighted/{_runtime}", [("X-Weight", _weight)])
get("weighted-zero", "/weighted/one")
get("weighted-settings", "/weighted/settings", [("X-Gone", "1")], upstream=reply(headers=[("X-Gone", "1")]))
get("weighted-by-cluster-header", "/weighted/by-cluster-header", [("X-Cluster", "c")])
get("weighted-by-cluster-header-missing", "/weighted/by-cluster-header")

HANG = Reply((ReadBody(), Delay(3.0)))
STALL = Reply((ReadBody(), b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", Delay(3.0)))
get("timeout", "/time/timeout", upstream=HANG)
get("timeout-head", "/time/timeout", method="HEAD", upstream=HANG)
get("timeout-grpc", "/time/timeout", [("Content-Type", "application/grpc")], method="POST", body=b"x", upstream=HANG)
get("timeout-within-body", "/time/timeout", upstream=STALL)
get("timeout-not-reached", "/time/timeout", upstream=reply(delay=0.02))
get("timeout-none", "/time/no-timeout", upstream=reply(delay=0.02))
get("timeout-idle", "/time/idle", upstream=HANG)
get("timeout-idle-within-body", "/time/idle", upstream=STALL)
get("timeout-max-stream", "/time/max-stream", upstream=HANG)
get("timeout-max-stream-within-body", "/time/max-stream", upstream=STALL)
get(
    "timeout-by-header",
    "/time/default-timeout",
    [("x-envoy-upstream-rq-timeout-ms", "100")],
    upstream=HANG,
    deadline=0.3,
)
get("timeout-by-header-alternative", "/time/default-timeout", [("x-envoy-upstream-rq-timeout-alt-response", "1")])
get("timeout-header-expected-given", "/time/default-timeout", [("x-envoy-expected-rq-timeout-ms", "7")])
get(
    "timeout-header-per-try",
    "/time/default-timeout",
    [("x-envoy-upstream-rq-per-try-timeout-ms", "60")],
    upstream=HANG,
    deadline=0.3,
)
get(
    "upstream-closes-after-head",
    "/time/no-timeout",
    upstream=Reply((ReadBody(), b"HTTP/1.1 200 OK\r\n\r\nabc", Delay(0.02), Close())),
)
table.add(
    "timeout-body-never-comes",
    Send(request("POST", "/time/timeout", [("Content-Length", "5")])),
    methods=["POST"],
    deadline=1.0,
)
table.add(
    "timeout-body-never-comes-idle",
    Send(request("POST", "/time/idle", [("Content-Length", "5")])),
    methods=["POST"],
    deadline=1.0,
)
