"""Mirrored requests: what the mirror's upstream sees, and that its answer does not matter."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import Message, Site, bootstrap, listener, manager, route, to, virtual_host
from tests.differential.case import Close, Delay, ReadBody, Reply, Table, reply


def mirror(cluster: str, **fields: Any) -> Message:
    return {"cluster": cluster, **fields}


ALWAYS = {"runtime_fraction": {"default_value": {"numerator": 100}}}
NEVER = {"runtime_fraction": {"default_value": {"numerator": 0}}}


def mirrors(site: Site) -> Message:
    routes = [
        route("/one", to("a", request_mirror_policies=[mirror("b")])),
        route("/two", to("a", request_mirror_policies=[mirror("b"), mirror("c", **ALWAYS)])),
        route("/never", to("a", request_mirror_policies=[mirror("b", **NEVER)])),
        route("/refused", to("a", request_mirror_policies=[mirror("refused")])),
        route("/empty", to("a", request_mirror_policies=[mirror("empty")])),
        route("/unsuffixed", to("a", request_mirror_policies=[mirror("b", disable_shadow_host_suffix_append=True)])),
        route("/by-header", to("a", request_mirror_policies=[{"cluster_header": "x-mirror"}])),
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
    return bootstrap(site, [listener(site, "http", manager(site, hosts=hosts))])


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
