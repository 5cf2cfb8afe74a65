"""Headers that the configuration adds, changes and removes, at every level, and what the formatter writes into them."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import Message, Site, bootstrap, listener, manager, route, say, to, virtual_host
from tests.differential.case import Table, reply

APPEND = "APPEND_IF_EXISTS_OR_ADD"
ADD = "ADD_IF_ABSENT"
OVERWRITE = "OVERWRITE_IF_EXISTS_OR_ADD"
OVERWRITE_ONLY = "OVERWRITE_IF_EXISTS"


def option(key: str, value: str, action: str = APPEND, **fields: Any) -> Message:
    return {"header": {"key": key, "value": value}, "append_action": action, **fields}


def levels(level: str) -> Message:
    """The same additions and removals at each level, each signed with the level's name."""
    return {
        "request_headers_to_add": [
            option("x-append", level),
            option("x-add", level, ADD),
            option("x-overwrite", level, OVERWRITE),
            option("x-only", level, OVERWRITE_ONLY),
        ],
        "request_headers_to_remove": [f"x-remove-{level}", "x-remove-all"],
        "response_headers_to_add": [
            option("x-append", level),
            option("x-add", level, ADD),
            option("x-overwrite", level, OVERWRITE),
            option("x-only", level, OVERWRITE_ONLY),
        ],
        "response_headers_to_remove": [f"x-remove-{level}", "x-remove-all"],
    }


FORMATS = {
    "req": "%REQ(X-GIVEN)%",
    "req-alternative": "%REQ(X-MISSING?X-GIVEN)%",
    "req-cut": "%REQ(X-GIVEN):3%",
    "req-missing": "%REQ(X-MISSING)%",
    "req-path": "%REQ(:PATH)% %REQ(:METHOD)% %REQ(:AUTHORITY)% %REQ(:SCHEME)%",
    "protocol": "%PROTOCOL%",
    "percent": "100%%",
    "literal": "plain text",
    "two": "%PROTOCOL%/%REQ(X-GIVEN)%",
    "downstream-address": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "downstream-local": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "downstream-local-port": "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%",
    "direct": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
    "route-name": "%ROUTE_NAME%",
    "upstream-cluster": "%UPSTREAM_CLUSTER%",
    "cluster-raw": "%UPSTREAM_CLUSTER_RAW%",
    "host-name": "%REQUESTED_SERVER_NAME%",
    "metadata": "%METADATA(ROUTE:test.ns:key)%",
    "metadata-deep": "%METADATA(ROUTE:test.ns:deep:inner)%",
    "metadata-missing": "%METADATA(ROUTE:test.ns:absent)%",
    "dynamic-missing": "%DYNAMIC_METADATA(no:such)%",
    "filter-state-missing": "%FILTER_STATE(no.such)%",
    "start-year": "%START_TIME(%Y)%",
    "path": "%PATH(NQ)%",
    "path-with-query": "%PATH(WQ:ORIG)%",
    "query-parameter": "%QUERY_PARAM(q)%",
    "request-id": "%STREAM_ID%",
    "connection": "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
    "bytes": "%BYTES_RECEIVED%",
    "environment": "%ENVIRONMENT(MIZZEN_NO_SUCH_VARIABLE)%",
    "coalesced": "%REQ(X-EMPTY)%|%REQ(X-GIVEN)%",
}

BACK = {
    "resp": "%RESP(X-BACK)%",
    "resp-alternative": "%RESP(X-MISSING?X-BACK)%",
    "code": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "flags-long": "%RESPONSE_FLAGS_LONG%",
    "upstream": "%UPSTREAM_HOST%",
    "upstream-remote": "%UPSTREAM_REMOTE_ADDRESS%",
    "upstream-remote-without-port": "%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "upstream-remote-port": "%UPSTREAM_REMOTE_PORT%",
    "upstream-cluster": "%UPSTREAM_CLUSTER%",
    "upstream-protocol": "%UPSTREAM_PROTOCOL%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "grpc": "%GRPC_STATUS%",
    "req": "%REQ(X-GIVEN)%",
    "host-metadata": "%UPSTREAM_METADATA(envoy.lb:zone)%",
}


def headers(site: Site) -> Message:
    route_levels = [
        route("/levels", to("a"), **levels("route")),
        route("/direct", say(200, "said"), **levels("route")),
        route(
            "/weighted",
            {"route": {"weighted_clusters": {"clusters": [{"name": "a", "weight": 1, **levels("cluster")}]}}},
            **levels("route"),
        ),
        route("/refused", to("refused"), **levels("route")),
        route("/host", to("a"), request_headers_to_add=[option("x-after", "%REQ(HOST)%")]),
        route(
            "/te",
            to("a"),
            request_headers_to_add=[option("te", "trailers", OVERWRITE), option("x-forwarded-for", "9.9.9.9")],
        ),
        route(
            "/order",
            to("a"),
            request_headers_to_add=[
                option("x-moved", "%REQ(X-GIVEN)%"),
                option("x-given", "new", OVERWRITE),
                option("x-late", "%REQ(X-GIVEN)%"),
            ],
        ),
        route(
            "/empty",
            to("a"),
            request_headers_to_add=[
                option("x-dropped", "%REQ(X-MISSING)%"),
                option("x-kept", "%REQ(X-MISSING)%", keep_empty_value=True),
            ],
        ),
        route(
            "/deprecated",
            to("a"),
            request_headers_to_add=[
                {"header": {"key": "x-legacy", "value": "1"}},
                {"header": {"key": "x-single", "value": "2"}, "append": False},
            ],
        ),
        route("/cookies", to("a"), response_headers_to_add=[option("set-cookie", "added=1")]),
        route(
            "/server",
            to("a"),
            response_headers_to_add=[
                option("server", "mine", OVERWRITE),
                option("date", "never", OVERWRITE),
                option("content-type", "x/y", OVERWRITE),
            ],
        ),
        route(
            "/remove-standard",
            to("a"),
            request_headers_to_remove=["user-agent", "x-request-id"],
            response_headers_to_remove=["server", "date", "x-envoy-upstream-service-time"],
        ),
    ]
    formats = [
        route(
            "/format/",
            to("a"),
            name="formats",
            metadata={"filter_metadata": {"test.ns": {"key": "value", "deep": {"inner": 7}}}},
            request_headers_to_add=[option(f"x-{name}", f"[{value}]") for name, value in FORMATS.items()],
            response_headers_to_add=[option(f"x-{name}", f"[{value}]") for name, value in BACK.items()],
        ),
        route(
            "/bare/",
            to("a"),
            request_headers_to_add=[option(f"x-{name}", value) for name, value in FORMATS.items()],
            response_headers_to_add=[option(f"x-{name}", value) for name, value in BACK.items()],
        ),
        route(
            "/local/",
            to("refused"),
            response_headers_to_add=[option(f"x-{name}", f"[{value}]") for name, value in BACK.items()],
        ),
    ]
    hosts = [virtual_host("all", ["*"], [*route_levels, *formats], **levels("host"))]
    specific_first = {"most_specific_header_mutations_wins": True, **levels("table")}
    return bootstrap(
        site,
        [
            listener(site, "http", manager(site, hosts=hosts, route_config=levels("table"))),
            listener(site, "specific-wins", manager(site, hosts=hosts, route_config=specific_first)),
            listener(
                site,
                "internal-only",
                manager(
                    site, hosts=hosts, route_config={"internal_only_headers": ["x-secret"]}, use_remote_address=True
                ),
            ),
        ],
    )


BOOTSTRAPS = {"headers": headers}

table = Table("headers", "headers")
CASES = table.cases

EXISTING = [("X-Append", "given"), ("X-Add", "given"), ("X-Overwrite", "given"), ("X-Only", "given")]
REMOVED = [(f"X-Remove-{level}", "1") for level in ("table", "host", "route", "cluster", "all")]
ANSWER = reply(headers=[*EXISTING, *REMOVED])

for _listener in ("http", "specific-wins"):
    for _path in ("levels", "weighted", "direct", "refused"):
        table.get(f"{_path}-absent-{_listener}", f"/{_path}", listener=_listener)
        table.get(
            f"{_path}-existing-{_listener}", f"/{_path}", [*EXISTING, *REMOVED], listener=_listener, upstream=ANSWER
        )
table.get("existing-twice", "/levels", [*EXISTING, *EXISTING], upstream=reply(headers=[*EXISTING, *EXISTING]))
table.get("internal-only-from-outside", "/order", [("X-Secret", "1")], listener="internal-only")
table.get("host", "/host")
table.get("te", "/te")
table.get("order", "/order", [("X-Given", "first")])
table.get("empty", "/empty")
table.get("deprecated-append", "/deprecated", [("X-Legacy", "0"), ("X-Single", "0")])
table.get("cookies", "/cookies", upstream=reply(headers=[("Set-Cookie", "own=1")]))
table.get("server", "/server", upstream=reply(headers=[("Content-Type", "text/plain")]))
table.get("remove-standard", "/remove-standard", [("User-Agent", "curl")])
GIVEN = [("X-Given", "something"), ("X-Empty", "")]
for _path in ("format", "bare", "local"):
    table.get(_path, f"/{_path}/x?q=1", GIVEN, upstream=reply(headers=[("X-Back", "returned")]))
table.get("format-post", "/format/x", GIVEN, method="POST", body=b"hello")
table.get("format-nothing-given", "/format/x")
