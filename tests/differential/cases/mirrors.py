"""Mirrored requests: what the mirror's upstream sees, and that its answer does not matter."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import (
    HTTP2_OPTIONS,
    Message,
    Site,
    bootstrap,
    cluster,
    listener,
    manager,
    route,
    to,
    virtual_host,
)
from tests.differential.case import Close, Delay, ReadBody, Reply, Table, reply, request


def mirror(cluster: str, **fields: Any) -> Message:
    return {"cluster": cluster, **fields}


ALWAYS = {"runtime_fraction": {"default_value": {"numerator": 100}}}
NEVER = {"runtime_fraction": {"default_value": {"numerator": 0}}}
BY_RUNTIME = {"runtime_fraction": {"default_value": {"numerator": 100}, "runtime_key": "mirror.off"}}
FROM_RUNTIME = {"runtime_fraction": {"default_value": {"numerator": 0}, "runtime_key": "mirror.on"}}
RETRY = {"retry_policy": {"retry_on": "5xx", "retry_back_off": {"base_interval": "0.001s"}}}
HTTP2 = {"explicit_http_config": {"http2_protocol_options": {}}}
CHANGES = [
    {"append": {"header": {"key": "x-mirrored", "value": "%REQ(:PATH)% %REQ(x-given)%"}}},
    {"append": {"header": {"key": "x-given", "value": "2"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}},
    {"remove": "x-secret"},
    {"remove_on_match": {"key_matcher": {"prefix": "x-internal-"}}},
]


def mirrors(site: Site) -> Message:
    routes = [
        route("/one", to("a", request_mirror_policies=[mirror("b")])),
        route("/two", to("a", request_mirror_policies=[mirror("b"), mirror("c", **ALWAYS)])),
        route("/never", to("a", request_mirror_policies=[mirror("b", **NEVER)])),
        route("/refused", to("a", request_mirror_policies=[mirror("refused")])),
        route("/empty", to("a", request_mirror_policies=[mirror("empty")])),
        route("/unsuffixed", to("a", request_mirror_policies=[mirror("b", disable_shadow_host_suffix_append=True)])),
        route("/by-header", to("a", request_mirror_policies=[{"cluster_header": "x-mirror"}])),
        route("/elsewhere", to("a", request_mirror_policies=[mirror("b", host_rewrite_literal="mirror.test:99")])),
        route(
            "/elsewhere-unsuffixed",
            to(
                "a",
                request_mirror_policies=[
                    mirror("b", host_rewrite_literal="mirror.test", disable_shadow_host_suffix_append=True)
                ],
            ),
        ),
        route("/same-twice", to("a", request_mirror_policies=[mirror("b"), mirror("b", **ALWAYS)])),
        route("/changed", to("a", request_mirror_policies=[mirror("b", request_headers_mutations=CHANGES)])),
        route(
            "/weighted",
            {
                "route": {
                    "weighted_clusters": {
                        "clusters": [
                            {
                                "name": "a",
                                "weight": 1,
                                "request_headers_to_add": [{"header": {"key": "X-Entry", "value": "a"}}],
                                "host_rewrite_literal": "entry.test",
                            }
                        ]
                    },
                    "request_mirror_policies": [mirror("b")],
                }
            },
        ),
        route("/retried", to("a", **RETRY, request_mirror_policies=[mirror("b")])),
        route("/to-http2", to("a", request_mirror_policies=[mirror("b-http2")])),
        route("/traced", to("a", request_mirror_policies=[mirror("b", trace_sampled=False)])),
        route("/by-runtime", to("a", request_mirror_policies=[mirror("b", **BY_RUNTIME), mirror("c", **FROM_RUNTIME)])),
        route(
            "/rewritten",
            to("a", prefix_rewrite="/new", host_rewrite_literal="new.test", request_mirror_policies=[mirror("b")]),
        ),
        route("/timeout", to("a", timeout="0.1s", request_mirror_policies=[mirror("b")])),
        route("/inherited", to("a")),
    ]
    hosts = [
        virtual_host("host-level", ["host-level.test"], routes, request_mirror_policies=[mirror("c")]),
        virtual_host("all", ["*"], routes),
    ]
    http2 = {HTTP2_OPTIONS.rpartition("/")[2]: {"@type": HTTP2_OPTIONS, **HTTP2}}
    return bootstrap(
        site,
        [listener(site, "http", manager(site, hosts=hosts))],
        [cluster(site, "b-http2", ["b"], typed_extension_protocol_options=http2)],
        layered_runtime={"layers": [{"name": "given", "static_layer": {"mirror": {"off": 0, "on": 100}}}]},
    )


BOOTSTRAPS = {"mirrors": mirrors}

table = Table("mirrors", "mirrors")
CASES = table.cases


def get(name: str, target: str, headers: Any = (), *, requests: int = 2, **options: Any) -> None:
    table.get(name, target, headers, upstream_requests=requests, unordered=True, **options)


get("one", "/one/x?q=1", [("X-Given", "1"), ("X-Forwarded-For", "1.2.3.4")])
get("two", "/two", requests=3)
get("never", "/never", requests=1)
get("refused", "/refused", requests=1)
get("empty", "/empty", requests=1)
get("unsuffixed", "/unsuffixed")
get("host-with-port", "/one", host="a.test:8080")
get("by-header", "/by-header", [("X-Mirror", "b")])
get("by-header-missing", "/by-header", requests=1)
get("by-header-unknown", "/by-header", [("X-Mirror", "nowhere")], requests=1)
get("rewritten", "/rewritten/x")
get("post", "/one", method="POST", body=b"mirrored body")
get("large-post", "/one", method="POST", body=b"0123456789" * 5000)
get("head", "/one", method="HEAD")
get("mirror-fails", "/one", upstream={"a": [reply()], "b": [Reply((ReadBody(), Close()))]})
get("mirror-500", "/one", upstream={"a": [reply()], "b": [reply(500, headers=[("X-B", "1")])]})
get("mirror-slow", "/one", upstream={"a": [reply()], "b": [reply(delay=0.1)]})
get("primary-fails", "/one", upstream={"a": [Reply((ReadBody(), Close()))], "b": [reply()]})
get("primary-timeout", "/timeout", upstream={"a": [Reply((ReadBody(), Delay(1.0)))], "b": [reply()]})
get("host-level", "/inherited", host="host-level.test")
get("route-over-host-level", "/one", host="host-level.test")
get("elsewhere", "/elsewhere")
get("elsewhere-unsuffixed", "/elsewhere-unsuffixed")
get("same-twice", "/same-twice", requests=3)
get(
    "changed",
    "/changed?q=1",
    [("X-Given", "1"), ("X-Secret", "s"), ("X-Internal-A", "a"), ("X-Internal-B", "b"), ("X-Inter", "c")],
)
get("weighted", "/weighted")
get("retried", "/retried", requests=3, upstream={"a": [reply(503), reply()], "b": [reply()]})
get("retried-post", "/retried", requests=3, method="POST", body=b"x", upstream={"a": [reply(503), reply()]})
get("to-http2", "/to-http2", method="POST", body=b"over HTTP/2")
get("traced", "/traced")
get("by-runtime", "/by-runtime")
table.add(
    "chunked-with-trailers",
    request("POST", "/two", chunks=[b"one", b"two"], trailers=[("X-Trailer", "t")]),
    methods=("POST",),
    upstream_requests=3,
    unordered=True,
)
