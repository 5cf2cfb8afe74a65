"""The cors filter: simple requests and preflights, allowed and not."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import (
    Message,
    Site,
    bootstrap,
    http_filter,
    listener,
    manager,
    per_filter,
    route,
    to,
    virtual_host,
)
from tests.differential.case import Table, reply

ALWAYS = {"numerator": 100}


def cors(site: Site) -> Message:
    full = {
        "allow_origin_string_match": [
            {"exact": "http://good.test"},
            {"suffix": ".fine.test"},
            {"safe_regex": {"regex": "http://r[0-9]+\\.test"}},
        ],
        "allow_methods": "GET, PUT",
        "allow_headers": "x-one, x-two",
        "expose_headers": "x-seen",
        "max_age": "600",
        "allow_credentials": True,
    }

    def own(**fields: Any) -> Message:
        return {"typed_per_filter_config": per_filter("cors", "CorsPolicy", **fields)}

    routes = [
        route("/full", to("a"), **own(**full)),
        route("/star", to("a"), **own(allow_origin_string_match=[{"prefix": "http"}], allow_methods="*")),
        route("/private", to("a"), **own(**full, allow_private_network_access=True)),
        route("/forward", to("a"), **own(**full, forward_not_matching_preflights=False)),
        route("/off", to("a"), **own(**full, filter_enabled={"default_value": {"numerator": 0}})),
        route(
            "/shadow",
            to("a"),
            **own(**full, filter_enabled={"default_value": {"numerator": 0}}, shadow_enabled={"default_value": ALWAYS}),
        ),
        route("/"),
    ]
    hosts = [virtual_host("host", ["host.test"], [route("/")], **own(**full)), virtual_host("all", ["*"], routes)]
    return bootstrap(site, [listener(site, "http", manager(site, hosts=hosts, filters=[http_filter("cors", "Cors")]))])


BOOTSTRAPS = {"cors": cors}

table = Table("cors", "cors")
CASES = table.cases
PREFLIGHT = [("Access-Control-Request-Method", "PUT"), ("Access-Control-Request-Headers", "x-one")]
for _path in ("/full", "/star", "/private", "/forward", "/off", "/shadow", "/none"):
    for _name, _origin in (
        ("good", "http://good.test"),
        ("suffix", "http://x.fine.test"),
        ("regex", "http://r12.test"),
        ("bad", "http://bad.test"),
    ):
        if _path not in ("/full", "/star") and _name in ("suffix", "regex"):
            continue
        table.get(f"simple-{_name}-{_path}", _path, [("Origin", _origin)])
        table.get(f"preflight-{_name}-{_path}", _path, [("Origin", _origin), *PREFLIGHT], method="OPTIONS")
table.get("no-origin", "/full")
table.get("preflight-without-method", "/full", [("Origin", "http://good.test")], method="OPTIONS")
table.get(
    "preflight-private-network",
    "/private",
    [("Origin", "http://good.test"), *PREFLIGHT, ("Access-Control-Request-Private-Network", "true")],
    method="OPTIONS",
)
table.get("host-level", "/x", [("Origin", "http://good.test")], host="host.test")
table.get("empty-origin", "/full", [("Origin", "")])
table.get(
    "upstream-own-headers",
    "/full",
    [("Origin", "http://good.test")],
    upstream=reply(headers=[("access-control-allow-origin", "*"), ("access-control-expose-headers", "x-up")]),
)
