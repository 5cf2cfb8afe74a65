"""The traffic after which the admin endpoints and the default access log are compared."""

from __future__ import annotations

from tests.differential.blocks import (
    FILE_LOG,
    HTTP_FILTERS,
    Message,
    Site,
    access_log,
    bootstrap,
    cluster,
    http_filter,
    listener,
    manager,
    network_filter,
    route,
    say,
    to,
    typed,
)
from tests.differential.case import AwaitBytes, Close, Delay, Finish, ReadBody, Reply, Table, Tunnel, reply, request

ALWAYS = {"numerator": 100}


def admin(site: Site) -> Message:
    fault = http_filter(
        "fault",
        "HTTPFault",
        abort={"header_abort": {}, "percentage": ALWAYS},
        delay={"header_delay": {}, "percentage": ALWAYS},
    )
    denied = {"permissions": [{"url_path": {"path": {"prefix": "/denied"}}}], "principals": [{"any": True}]}
    shadowed = {"permissions": [{"any": True}], "principals": [{"any": True}]}
    rbac = http_filter(
        "rbac", "RBAC", rules={"action": "DENY", "policies": {"d": denied}}, shadow_rules={"policies": {"s": shadowed}}
    )
    limit = http_filter("local_ratelimit", "LocalRateLimit", stat_prefix="limit")
    own_limit = {
        "@type": f"{HTTP_FILTERS}.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "own",
        "token_bucket": {"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "3600s"},
        "filter_enabled": {"default_value": ALWAYS},
        "filter_enforced": {"default_value": ALWAYS},
    }
    routes = [
        route("/limited", to("a"), typed_per_filter_config={"envoy.filters.http.local_ratelimit": own_limit}),
        route("/retried", to("a", retry_policy={"retry_on": "5xx", "num_retries": 1})),
        route("/timeout", to("a", timeout="0.05s")),
        route("/refused", to("refused")),
        route("/empty", to("empty")),
        route("/full", to("full")),
        route("/said", say(200, "said")),
        route("/redirect", {"redirect": {"path_redirect": "/new"}}),
        route("/mirrored", to("a", request_mirror_policies=[{"cluster": "b"}])),
        route("/virtual"),
        route("/", to("ejecting")),
    ]
    logs = [access_log(site), typed("envoy.access_loggers.file", FILE_LOG, path=str(site.directory / "default.log"))]
    http = manager(site, routes, filters=[fault, rbac, limit], access_log=logs)
    tcp = network_filter("tcp_proxy", "TcpProxy", stat_prefix="tcp", cluster="tcp")
    ejecting = {"consecutive_5xx": 2, "base_ejection_time": "600s", "interval": "600s", "max_ejection_percent": 100}
    clusters = [
        cluster(site, "tcp"),
        cluster(site, "full", ["a"], circuit_breakers={"thresholds": [{"max_requests": 0, "track_remaining": True}]}),
        cluster(site, "ejecting", ["a"], outlier_detection=ejecting),
        cluster(site, "alternative", ["a"], alt_stat_name="other_name"),
    ]
    return bootstrap(site, [listener(site, "http", http), listener(site, "tcp", tcp)], clusters)


BOOTSTRAPS = {"admin": admin}

table = Table("admin-traffic", "admin")
CASES = table.cases
get = table.get

get("good", "/virtual", [("User-Agent", "curl/8"), ("X-Request-Id", "0f1b2f60-3c4c-4a9f-8b1e-0123456789ab")])
get("post", "/virtual", method="POST", body=b"hello")
for _status in (201, 204, 301, 404, 429, 500, 503):
    get(f"status-{_status}", "/virtual", upstream=reply(_status, body=b""))
get("retried", "/retried", upstream=[reply(503), reply(200)])
get("retried-in-vain", "/retried", upstream=reply(503))
get("timeout", "/timeout", upstream=Reply((ReadBody(), Delay(1.0))))
get("refused", "/refused")
get("empty", "/empty")
get("full", "/full")
get("said", "/said")
get("redirect", "/redirect")
get("mirrored", "/mirrored", upstream_requests=2, unordered=True)
get("denied", "/denied")
get("fault-abort", "/virtual", [("x-envoy-fault-abort-request", "418")])
get("fault-delay", "/virtual", [("x-envoy-fault-delay-request", "10")])
get("upstream-closes", "/virtual", upstream=Reply((ReadBody(), Close())))
get("no-such-host-header", "/virtual", host="other.test")
get("head", "/virtual", method="HEAD")
get("ejected", "/", upstream=reply(503))
get("ejected-next", "/", upstream=reply(503))
table.add("limited", request("GET", "/limited"))
table.add("limited-again", request("GET", "/limited"))
table.add("bad-request", b"GET / HTTP/1.1\r\n\r\n")
table.add("bad-framing", b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: x\r\n\r\n")
table.add("http-1-0", b"GET / HTTP/1.0\r\nHost: a.test\r\n\r\n")
table.add("too-large", request("GET", "/", [("X-Large", "a" * 70_000)]))
table.add("connection-close", request("GET", "/virtual", [("Connection", "close")]))
table.add(
    "tcp",
    b"hello",
    AwaitBytes(b"HELLO"),
    Finish(),
    methods={},
    listener="tcp",
    upstream={"tcp": [Reply((Tunnel(),))]},
    upstream_requests=1,
    access_log=False,
)
